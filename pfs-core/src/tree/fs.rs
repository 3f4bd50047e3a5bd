//! A tree, with an engine's file data, as a [`FileSystem`].
//!
//! Here each request goes to what serves it:
//!
//! - [`shared`]: the state of a session, its open files and directories.
//! - [`names`]: what makes, moves and removes names.
//! - [`open`]: opening and creating files.
//! - [`data`]: reading on, writing and closing them.
//! - [`attrs`], [`xattrs`]: changes of attributes.
//! - [`locks`]: locks of open files.

/// Answers with an error and leaves, where there is one.
macro_rules! attempt {
    ($reply:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(errno) => return $reply.err(errno),
        }
    };
}

mod attrs;
mod data;
mod locks;
mod names;
mod open;
mod shared;
mod xattrs;

use std::ffi::CStr;
use std::sync::Arc;

use rustix::fs::{AtFlags, OFlags};

use self::shared::Shared;
use super::{FileData, Tree};
use crate::fs::*;
use crate::handles::Handles;
use crate::io::Then;
use crate::locks::Locks;
use crate::session::Kind;

/// A [`FileSystem`] over a directory tree; `D` keeps the data of its regular files.
pub struct TreeFs<D: FileData>(Arc<Shared<D>>);

impl<D: FileData> TreeFs<D> {
    /// Serves `tree` with the file data of `data`.
    pub fn new(tree: Tree, data: D) -> TreeFs<D> {
        let files = Handles::new(tree.store().clone(), Kind::File);
        let dirs = Handles::new(tree.store().clone(), Kind::Dir);
        let locks = Locks::new(tree.store().clone());
        TreeFs(Arc::new(Shared {
            tree,
            data,
            files,
            dirs,
            locks,
        }))
    }

    /// The tree below.
    pub fn tree(&self) -> &Tree {
        &self.0.tree
    }
}

impl<D: FileData> FileSystem for TreeFs<D> {
    fn lookup(&self, _req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<Entry>) {
        reply.send(self.0.complete(self.0.tree.lookup(parent, name)));
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.0.tree.forget(node, count);
    }

    fn getattr(&self, _: &mut Req<'_>, node: NodeId, _: Option<Handle>, reply: Reply<Attr>) {
        let inode = attempt!(reply, self.0.tree.inode(node));
        reply.send(self.0.attr(&inode));
    }

    fn setattr(&self, req: &mut Req<'_>, node: NodeId, set: &SetAttr, reply: Reply<Attr>) {
        self.0.setattr(req, node, set, reply);
    }

    fn readlink(&self, _: &mut Req<'_>, node: NodeId, reply: Reply<Vec<u8>>) {
        reply.send(self.0.tree.readlink(node));
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
        self.0.remove(req, parent, name, AtFlags::empty(), reply);
    }

    fn rmdir(&self, req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<()>) {
        self.0.remove(req, parent, name, AtFlags::REMOVEDIR, reply);
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

    fn open(&self, req: &mut Req<'_>, node: NodeId, how: OpenFlags, reply: Reply<Opened>) {
        self.0.open(req, node, how, reply);
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

    fn tmpfile(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        make: &Make,
        flags: i32,
        reply: Reply<Created>,
    ) {
        self.0.tmpfile(req, parent, make, flags, reply);
    }

    fn read(&self, req: &mut Req<'_>, at: At, buf: Slices, reply: Reply<u32>) {
        let file = attempt!(reply, self.0.readable(&at));
        self.0.data.read(req.io, &file, at.offset, buf, reply);
    }

    fn write(&self, req: &mut Req<'_>, at: At, buf: Slices, flags: WriteFlags, reply: Reply<u32>) {
        self.0.write(req, at, buf, flags, reply);
    }

    fn flush(&self, req: &mut Req<'_>, handle: Handle, owner: u64, reply: Reply<()>) {
        self.0.flush(req, handle, owner, reply);
    }

    fn fsync(
        &self,
        req: &mut Req<'_>,
        _: NodeId,
        handle: Handle,
        datasync: bool,
        reply: Reply<()>,
    ) {
        let file = attempt!(reply, self.0.file(handle));
        self.0.data.fsync(req.io, &file, datasync, reply);
    }

    fn fallocate(&self, req: &mut Req<'_>, at: At, len: u64, mode: u32, reply: Reply<()>) {
        self.0.fallocate(req, at, len, mode, reply);
    }

    fn lseek(&self, req: &mut Req<'_>, at: At, whence: u32, reply: Reply<u64>) {
        self.0.lseek(req, at, whence, reply);
    }

    fn copy_file_range(&self, req: &mut Req<'_>, from: At, to: At, len: u64, reply: Reply<u32>) {
        self.0.copy_file_range(req, from, to, len, reply);
    }

    fn release(
        &self,
        req: &mut Req<'_>,
        handle: Handle,
        flock_owner: Option<u64>,
        reply: Reply<()>,
    ) {
        self.0.release(req, handle, flock_owner, reply);
    }

    fn opendir(&self, _: &mut Req<'_>, node: NodeId, reply: Reply<Opened>) {
        let opened = self
            .0
            .tree
            .open_dir(node)
            .and_then(|dir| self.0.dirs.insert(node, 0, dir));
        reply.send(opened.map(Opened::from));
    }

    fn readdir(
        &self,
        _: &mut Req<'_>,
        handle: Handle,
        offset: u64,
        plus: bool,
        mut list: DirList,
        reply: Reply<DirList>,
    ) {
        let dir = attempt!(reply, self.0.dir(handle));
        let result = self.0.tree.read_dir(&dir, offset, plus, &mut list);
        list.complete(|node, attr| self.0.data.complete_attr(&self.0.tree, node, attr));
        reply.send(result.map(|()| list));
    }

    fn fsyncdir(
        &self,
        req: &mut Req<'_>,
        _: NodeId,
        handle: Handle,
        datasync: bool,
        reply: Reply<()>,
    ) {
        let dir = attempt!(reply, self.0.dir(handle));
        req.io.fsync(&dir.fd, datasync, Then::Nothing(reply));
    }

    fn releasedir(&self, _: &mut Req<'_>, handle: Handle, reply: Reply<()>) {
        reply.send(self.0.dirs.remove(handle).map(drop));
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
        let fs = &self.0;
        let inode = attempt!(reply, fs.tree.inode(node));
        reply.send(fs.data.statfs(&fs.tree, &inode));
    }

    fn access(&self, req: &mut Req<'_>, node: NodeId, mask: u32, reply: Reply<()>) {
        reply.send(self.0.tree.access(node, &req.caller, mask));
    }

    fn syncfs(&self, req: &mut Req<'_>, _: NodeId, reply: Reply<()>) {
        self.0.blocking(req, reply, |fs| {
            let root = fs.tree.inode(NodeId::ROOT)?;
            rustix::fs::syncfs(fs.tree.reopen(&root, OFlags::RDONLY | OFlags::DIRECTORY)?)?;
            fs.data.sync_all()
        });
    }

    fn keeps_locks(&self) -> bool {
        true
    }

    fn getlk(&self, req: &mut Req<'_>, at: At, lock: &Lock, reply: Reply<Lock>) {
        let lock = *lock;
        self.0
            .about_locks(req.io, move |fs| reply.send(fs.getlk(at, lock)));
    }

    fn setlk(
        &self,
        req: &mut Req<'_>,
        at: At,
        lock: &Lock,
        wait: Option<MayWait>,
        reply: Reply<()>,
    ) {
        let lock = *lock;
        self.0
            .about_locks(req.io, move |fs| fs.setlk(&at, &lock, wait, reply));
    }

    fn reset(&self) {
        drop(self.0.locks.reset());
        drop(self.0.files.remove_all());
        drop(self.0.dirs.remove_all());
        self.0.tree.forget_all();
        self.0.data.start();
    }

    fn restore(&self) -> Result<(u64, u64)> {
        let nodes = self.0.tree.restore_nodes(self.0.data.orphans());
        self.0.restore_locks();
        let (files, dirs) = (self.0.files.all(), self.0.dirs.all());
        // At once, not when they are used: an open file stays also when its name goes.
        for handle in &files {
            if let Err(errno) = self.0.open_file(*handle) {
                log::warn!("an open file is not found again: {errno}");
            }
        }
        self.0.data.start();
        Ok((nodes, (files.len() + dirs.len()) as u64))
    }

    fn prepare_restore(&self) -> u64 {
        self.0.data.prepare_restore();
        self.0.tree.complete_records()
    }
}
