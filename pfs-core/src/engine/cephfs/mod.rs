//! CephFS, without a mount: its client is in this process.
//!
//! The metadata server keeps names, attributes, locks, layouts and quotas, for all clients of the file
//! system alike; the client holds capabilities on what is cached, and the server calls them back before
//! another changes it. Data is striped over the OSDs. All is reached by inode, through libcephfs's
//! low-level calls.
//!
//! - [`Cephfs`]: the engine; each request goes to one of `names`, `files`, `dirs`, `attrs` (below),
//!   `xattrs`, `layout`, `locks`, `append`.
//! - `shared`: what requests share. `nodes`: node ids to inodes. `attr`, `version`: attributes.
//! - `calls`: the threads that make blocking calls. `limited`: calls that may not take for ever.
//! - `connect`: from settings to a mounted client. `clients`: whose hold on the file system has ended.
//!   `keyring`: the key.
//! - `mount`, `inode`, `file`: what is safe of libcephfs; `library`, `ffi`: where it is, and its C declarations.
//!
//! libcephfs has no call for `O_TMPFILE`, the flags of `renameat2(2)` and flock; see
//! `docs/ceph.md` for each of the differences.

mod append;
mod attr;
mod attrs;
mod calls;
mod clients;
mod connect;
mod dirs;
mod ffi;
mod file;
mod files;
mod inode;
mod keyring;
mod layout;
mod library;
mod limited;
mod locks;
mod mount;
mod names;
mod nodes;
mod shared;
mod version;
mod xattrs;

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::fs::*;
use crate::session::SessionStore;
use crate::volume;
pub use clients::FOLDER as CLIENTS_FOLDER;
use connect::Connector;
pub use connect::Error;
use shared::Shared;

/// The engine. It is not connected until [`connect`](Cephfs::connect).
pub struct Cephfs(Arc<Shared>);

impl Cephfs {
    /// Reads what needs paths; nothing of the network is used, and no thread started. `clients` is the
    /// volume's folder of [clients](CLIENTS_FOLDER).
    pub fn prepare(
        settings: &volume::Cephfs,
        clients: Option<OwnedFd>,
        store: &Arc<SessionStore>,
        inodes_max: usize,
    ) -> std::result::Result<Cephfs, Error> {
        let connector = Connector::prepare(settings, clients)?;
        Ok(Cephfs(Arc::new(Shared::new(store, inodes_max, connector))))
    }

    /// Mounts the file system.
    pub fn connect(&self) -> std::result::Result<(), Error> {
        self.0.connect()
    }
}

/// What there is where a volume's settings lead.
#[derive(Clone, Debug)]
pub struct Found {
    /// Of libcephfs.
    pub version: String,
    /// Of the directory, as its quota lets it be seen.
    pub size: StatFs,
    /// Files and directories below it.
    pub entries: u64,
    /// The RADOS namespace of its data; none where that lies among others' in the pool.
    pub namespace: Option<String>,
}

/// Mounts what `settings` name, looks at it and lets it go.
pub fn look(settings: &volume::Cephfs) -> std::result::Result<Found, Error> {
    let mut connector = Connector::prepare(settings, None)?;
    let mount = connector.connect()?;
    let root = mount.root().and_then(|root| {
        let entries = root.get_xattr(c"ceph.dir.rentries")?;
        let entries = String::from_utf8_lossy(&entries).parse().unwrap_or(0);
        let namespace = root.get_xattr(c"ceph.dir.layout.pool_namespace");
        let namespace = namespace.map(|name| String::from_utf8_lossy(&name).into_owned());
        let namespace = namespace.ok().filter(|name| !name.is_empty());
        Ok((attrs::size(&root.statfs()?), entries, namespace))
    });
    let (size, entries, namespace) = root.map_err(|errno| connector.failed(errno))?;
    Ok(Found {
        version: library::version(mount.functions()),
        size,
        entries,
        namespace,
    })
}

impl Drop for Cephfs {
    fn drop(&mut self) {
        self.0.disconnect();
    }
}

impl FileSystem for Cephfs {
    fn lookup(&self, _: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<Entry>) {
        self.0.lookup(parent, name, reply);
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.0.nodes.forget(node, count);
    }

    fn getattr(&self, _: &mut Req<'_>, node: NodeId, _: Option<Handle>, reply: Reply<Attr>) {
        self.0.getattr(node, reply);
    }

    fn setattr(&self, _: &mut Req<'_>, node: NodeId, set: &SetAttr, reply: Reply<Attr>) {
        self.0.setattr(node, set, reply);
    }

    fn readlink(&self, _: &mut Req<'_>, node: NodeId, reply: Reply<Vec<u8>>) {
        self.0.readlink(node, reply);
    }

    fn symlink(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        target: &CStr,
        reply: Reply<Entry>,
    ) {
        self.0.symlink(req, parent, name, target, reply);
    }

    fn mknod(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        rdev: u32,
        reply: Reply<Entry>,
    ) {
        self.0.mknod(req, parent, name, make, rdev, reply);
    }

    fn mkdir(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        reply: Reply<Entry>,
    ) {
        self.0.mkdir(req, parent, name, make, reply);
    }

    fn unlink(&self, req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<()>) {
        self.0.remove(req, parent, name, false, reply);
    }

    fn rmdir(&self, req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<()>) {
        self.0.remove(req, parent, name, true, reply);
    }

    fn rename(
        &self,
        req: &mut Req<'_>,
        from: (NodeId, &Name),
        to: (NodeId, &Name),
        flags: u32,
        reply: Reply<()>,
    ) {
        self.0.rename(req, from, to, flags, reply);
    }

    fn link(
        &self,
        req: &mut Req<'_>,
        node: NodeId,
        parent: NodeId,
        name: &Name,
        reply: Reply<Entry>,
    ) {
        self.0.link(req, node, parent, name, reply);
    }

    fn open(&self, _: &mut Req<'_>, node: NodeId, how: OpenFlags, reply: Reply<Opened>) {
        self.0.open(node, how, reply);
    }

    fn create(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        how: OpenFlags,
        reply: Reply<Created>,
    ) {
        self.0.create(req, parent, name, make, how, reply);
    }

    fn tmpfile(&self, _: &mut Req<'_>, _: NodeId, _: &Make, _: i32, reply: Reply<Created>) {
        // The metadata server has no files without a name.
        reply.err(Errno::OPNOTSUPP);
    }

    fn read(&self, _: &mut Req<'_>, at: At, buf: Slices, reply: Reply<u32>) {
        self.0.read(at, buf, reply);
    }

    fn write(&self, req: &mut Req<'_>, at: At, buf: Slices, flags: WriteFlags, reply: Reply<u32>) {
        self.0.write(req, at, buf, flags, reply);
    }

    fn flush(&self, _: &mut Req<'_>, handle: Handle, owner: u64, reply: Reply<()>) {
        self.0.flush(handle, owner, reply);
    }

    fn fsync(
        &self,
        _: &mut Req<'_>,
        node: NodeId,
        handle: Handle,
        datasync: bool,
        reply: Reply<()>,
    ) {
        self.0.fsync((node, handle), datasync, reply);
    }

    fn fallocate(&self, req: &mut Req<'_>, at: At, len: u64, mode: u32, reply: Reply<()>) {
        self.0.fallocate(req, at, len, mode, reply);
    }

    fn lseek(&self, _: &mut Req<'_>, at: At, whence: u32, reply: Reply<u64>) {
        self.0.lseek(at, whence, reply);
    }

    fn copy_file_range(&self, req: &mut Req<'_>, from: At, to: At, len: u64, reply: Reply<u32>) {
        self.0.copy(req, from, to, len, reply);
    }

    fn release(&self, _: &mut Req<'_>, handle: Handle, flock_owner: Option<u64>, reply: Reply<()>) {
        self.0.release(handle, flock_owner, reply);
    }

    fn opendir(&self, _: &mut Req<'_>, node: NodeId, reply: Reply<Opened>) {
        self.0.opendir(node, reply);
    }

    fn readdir(
        &self,
        _: &mut Req<'_>,
        handle: Handle,
        offset: u64,
        plus: bool,
        list: DirList,
        reply: Reply<DirList>,
    ) {
        self.0.readdir(handle, offset, plus, list, reply);
    }

    fn fsyncdir(
        &self,
        _: &mut Req<'_>,
        node: NodeId,
        handle: Handle,
        datasync: bool,
        reply: Reply<()>,
    ) {
        self.0.fsyncdir((node, handle), datasync, reply);
    }

    fn releasedir(&self, _: &mut Req<'_>, handle: Handle, reply: Reply<()>) {
        self.0.releasedir(handle, reply);
    }

    fn setxattr(
        &self,
        req: &mut Req<'_>,
        node: NodeId,
        name: &XattrName,
        value: &[u8],
        how: SetXattr,
        reply: Reply<()>,
    ) {
        self.0.setxattr(req, node, name, value, how, reply);
    }

    fn getxattr(&self, _: &mut Req<'_>, node: NodeId, name: &XattrName, reply: Reply<Vec<u8>>) {
        self.0.getxattr(node, name, reply);
    }

    fn listxattr(&self, req: &mut Req<'_>, node: NodeId, reply: Reply<Vec<u8>>) {
        self.0.listxattr(req, node, reply);
    }

    fn removexattr(&self, req: &mut Req<'_>, node: NodeId, name: &XattrName, reply: Reply<()>) {
        self.0.removexattr(req, node, name, reply);
    }

    fn statfs(&self, _: &mut Req<'_>, node: NodeId, reply: Reply<StatFs>) {
        self.0.statfs(node, reply);
    }

    fn access(&self, req: &mut Req<'_>, node: NodeId, mask: u32, reply: Reply<()>) {
        self.0.access(req, node, mask, reply);
    }

    fn syncfs(&self, _: &mut Req<'_>, _: NodeId, reply: Reply<()>) {
        self.0.syncfs(reply);
    }

    fn keeps_locks(&self) -> bool {
        true
    }

    fn getlk(&self, _: &mut Req<'_>, at: At, lock: &Lock, reply: Reply<Lock>) {
        self.0.getlk(at, *lock, reply);
    }

    fn setlk(&self, _: &mut Req<'_>, at: At, lock: &Lock, wait: Option<MayWait>, reply: Reply<()>) {
        self.0.setlk(at, *lock, wait, reply);
    }

    fn reset(&self) {
        self.0.reset();
    }

    fn restore(&self) -> Result<(u64, u64)> {
        self.0.restore()
    }

    fn prepare_restore(&self) -> u64 {
        // A node's record is all it takes.
        0
    }

    fn shut_down(&self) {
        self.0.disconnect();
    }
}
