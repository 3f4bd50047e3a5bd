//! A tree, with an engine's file data, as a [`FileSystem`].

mod locks;

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{renameat_with, unlinkat, AtFlags, OFlags, RenameFlags};

use super::attrs::stat_name;
use super::data::Append;
use super::dirs::OpenDir;
use super::guest_xattrs::is_acl;
use super::handles::Handles;
use super::locks::{Locks, Whose};
use super::names::{By, Removal};
use super::version::Version;
use super::{FileData, Inode, Tree, XattrChange};
use crate::fs::*;
use crate::io::Then;
use crate::session::Kind;

/// A [`FileSystem`] over a directory tree; `D` keeps the data of its regular files.
pub struct TreeFs<D: FileData>(Arc<Shared<D>>);

/// What requests that go on in the blocking pool take with them.
struct Shared<D: FileData> {
    tree: Tree,
    data: D,
    files: Handles<OpenFile<D::File>>,
    dirs: Handles<OpenDir>,
    locks: Arc<Locks>,
}

/// What is behind a file's handle.
struct OpenFile<F> {
    /// Held, so that what is known of its changes is.
    inode: Arc<Inode>,
    flags: i32,
    /// What the file was at the open, where that is certain.
    version: Option<Version>,
    file: Arc<F>,
}

impl<F> OpenFile<F> {
    fn is_writable(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}

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

    /// Runs `job` on the blocking pool and answers with its result.
    fn blocking<T: Into<Answer> + Send + 'static>(
        &self,
        req: &mut Req<'_>,
        reply: Reply<T>,
        job: impl FnOnce(&Shared<D>) -> Result<T> + Send + 'static,
    ) {
        let shared = self.0.clone();
        req.io.blocking(move || reply.send(job(&shared)));
    }

    /// Runs `job` here if it will not block, else on the pool.
    fn run<T: Into<Answer> + Send + 'static>(
        &self,
        req: &mut Req<'_>,
        at_once: bool,
        reply: Reply<T>,
        job: impl FnOnce(&Shared<D>) -> Result<T> + Send + 'static,
    ) {
        if at_once {
            reply.send(job(&self.0));
        } else {
            self.blocking(req, reply, job);
        }
    }
}

impl<D: FileData> Shared<D> {
    /// The open file behind `handle`.
    fn open_file(&self, handle: Handle) -> Result<Arc<OpenFile<D::File>>> {
        self.files.get(handle, |node, flags| {
            let inode = self.tree.inode(node)?;
            let flags = flags & !libc::O_TRUNC;
            let fd = self.tree.reopen(&inode, self.data.open_flags(flags))?;
            let file = Arc::new(self.data.open(&self.tree, &inode, fd, flags)?);
            // What the process before this one did with it is not known.
            inode.assume_written();
            Ok(OpenFile {
                inode,
                flags,
                version: None,
                file,
            })
        })
    }

    fn file(&self, handle: Handle) -> Result<Arc<D::File>> {
        self.open_file(handle).map(|open| open.file.clone())
    }

    /// The file behind a handle of `at.node`, if it was not opened for the contrary of what it
    /// is wanted for: the engine's own descriptors may be able to do more.
    fn open_at(&self, at: &At, unwanted: i32) -> Result<Arc<OpenFile<D::File>>> {
        let open = self.open_file(at.handle)?;
        if open.inode.node != at.node || open.flags & libc::O_ACCMODE == unwanted {
            return Err(Errno::BADF);
        }
        Ok(open)
    }

    /// The file to read at `at`.
    fn readable(&self, at: &At) -> Result<Arc<D::File>> {
        self.open_at(at, libc::O_WRONLY)
            .map(|open| open.file.clone())
    }

    /// The file to write at `at`, which begins; `reply` ends it.
    fn begin_write<T: Into<Answer>>(
        &self,
        at: &At,
        reply: Reply<T>,
    ) -> Option<(Arc<D::File>, Reply<T>)> {
        match self.open_at(at, libc::O_RDONLY) {
            Ok(open) => {
                open.inode.begin_write();
                Some((open.file.clone(), reply.watched(open.inode.clone())))
            }
            Err(errno) => {
                reply.err(errno);
                None
            }
        }
    }

    /// A descriptor of the handle is closed.
    fn closing(&self, open: &OpenFile<D::File>) {
        if let Some(version) = &open.version {
            open.inode.confirm(version);
        }
        if !open.is_writable() {
            return;
        }
        if let Err(errno) = self.tree.settle(&open.inode) {
            log::debug!("node {}: its change time stays: {errno}", open.inode.node.0);
        }
    }

    fn dir(&self, handle: Handle) -> Result<Arc<OpenDir>> {
        self.dirs.get(handle, |node, _| self.tree.open_dir(node))
    }

    fn attr(&self, inode: &Inode) -> Result<Attr> {
        let mut attr = self.tree.attr(inode)?;
        self.data.complete_attr(&self.tree, inode.node, &mut attr);
        Ok(attr)
    }

    fn complete(&self, entry: Result<Entry>) -> Result<Entry> {
        let mut entry = entry?;
        self.data
            .complete_attr(&self.tree, entry.node, &mut entry.attr);
        Ok(entry)
    }

    fn opened(&self, inode: &Arc<Inode>, fd: OwnedFd, how: OpenFlags) -> Result<Opened> {
        let flags = how.flags;
        let file = Arc::new(self.data.open(&self.tree, inode, fd, flags)?);
        let version = how.cached.then(|| self.tree.version(inode)).flatten();
        let keep_cache = version.is_some_and(|version| inode.is_cached(&version));
        let open = OpenFile {
            inode: inode.clone(),
            flags,
            version,
            file,
        };
        let handle = self.files.insert(inode.node, flags, open)?;
        Ok(Opened { handle, keep_cache })
    }

    fn open(&self, inode: &Arc<Inode>, mut how: OpenFlags) -> Result<Opened> {
        let reopen = |flags| self.tree.reopen(inode, self.data.open_flags(flags));
        let wide = how.widened();
        let fd = match reopen(wide) {
            // This process may write it, but not read it.
            Err(Errno::ACCESS) if wide != how.flags => reopen(how.flags)?,
            fd => {
                how.flags = wide;
                fd?
            }
        };
        self.truncate_opened(inode, how)?;
        self.opened(inode, fd, how)
    }

    fn truncate_opened(&self, inode: &Arc<Inode>, how: OpenFlags) -> Result<()> {
        if how.flags & libc::O_TRUNC != 0 {
            self.data.truncate(&self.tree, inode, 0)?;
            self.tree.drop_privileges(inode, how.kill_suidgid)?;
        }
        Ok(())
    }

    /// The answer to what made a name in `parent`.
    fn complete_made(&self, parent: NodeId, entry: Result<Entry>) -> Result<Entry> {
        let entry = entry?;
        match self.data.made(&self.tree, parent, entry.node) {
            Ok(()) => self.complete(Ok(entry)),
            Err(errno) => {
                self.tree.forget(entry.node, 1);
                Err(errno)
            }
        }
    }

    /// Drops what `caller`'s change of a file's data drops. The request, unlike a write, does not
    /// say whether setuid and setgid do: as on Linux, for who is not privileged.
    fn changed_by(&self, caller: &Caller, node: NodeId) -> Result<()> {
        let inode = self.tree.inode(node)?;
        self.tree.drop_privileges(&inode, !caller.is_root)
    }

    /// The answer to a create: what was taken on the way is given back on failure.
    fn created(&self, made: super::names::CreatedFile, how: OpenFlags) -> Result<Created> {
        let mut entry = made.entry;
        let opened = self.tree.inode(entry.node).and_then(|inode| {
            if let Some(parent) = made.made_in {
                self.data.made(&self.tree, parent, entry.node)?;
            }
            if made.made_in.is_none() && how.flags & libc::O_TRUNC != 0 {
                self.truncate_opened(&inode, how)?;
                entry.attr = self.attr(&inode)?;
            } else {
                self.data
                    .complete_attr(&self.tree, entry.node, &mut entry.attr);
            }
            self.opened(&inode, made.fd, how)
        });
        match opened {
            Ok(opened) => Ok(Created { entry, opened }),
            Err(errno) => {
                self.tree.forget(entry.node, 1);
                Err(errno)
            }
        }
    }

    /// Sets the size; unless it may block, only where that cannot. Answers whether it did.
    fn resize(&self, inode: &Inode, size: u64, may_block: bool) -> Result<bool> {
        let done = match inode.file_type {
            libc::S_IFREG if may_block => {
                self.data.truncate(&self.tree, inode, size)?;
                true
            }
            libc::S_IFREG => self.data.truncate_at_once(&self.tree, inode, size)?,
            libc::S_IFDIR => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        };
        if done {
            self.tree.drop_privileges(inode, false)?;
        }
        Ok(done)
    }

    /// Sets all but the size, and answers what the inode then is.
    fn set_and_get(&self, inode: &Inode, set: &SetAttr, may_wait: bool) -> Result<Attr> {
        self.tree.set_attr(inode, set, may_wait)?;
        self.attr(inode)
    }
}

fn by<'a>(req: &Req<'a>, data: &'a impl FileData) -> By<'a> {
    By {
        caller: req.caller,
        intent: req.intent,
        budget: data.budget(),
    }
}

/// Answers with an error and leaves, where there is one.
macro_rules! attempt {
    ($reply:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(errno) => return $reply.err(errno),
        }
    };
}

impl<D: FileData> FileSystem for TreeFs<D> {
    fn lookup(&self, _req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<Entry>) {
        reply.send(self.0.complete(self.0.tree.lookup(parent, name)));
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.0.tree.forget(node, count);
    }

    fn getattr(&self, _: &mut Req<'_>, node: NodeId, _: Option<Handle>, reply: Reply<Attr>) {
        reply.send(
            self.0
                .tree
                .inode(node)
                .and_then(|inode| self.0.attr(&inode)),
        );
    }

    fn setattr(&self, req: &mut Req<'_>, node: NodeId, set: &SetAttr, reply: Reply<Attr>) {
        let inode = attempt!(reply, self.0.tree.inode(node));
        let mut set = *set;
        if let Some(size) = set.size {
            if attempt!(reply, self.0.resize(&inode, size, false)) {
                set.size = None;
            }
        }
        if set.size.is_none() {
            match self.0.set_and_get(&inode, &set, false) {
                // Another daemon changes its owner or mode.
                Err(Errno::AGAIN) => {}
                result => return reply.send(result),
            }
        }
        self.blocking(req, reply, move |fs| {
            if let Some(size) = set.size {
                fs.resize(&inode, size, true)?;
            }
            fs.set_and_get(&inode, &set, true)
        });
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
        reply.send(
            self.0.complete(
                self.0
                    .tree
                    .symlink(by(req, &self.0.data), parent, name, target),
            ),
        );
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
        // The kernel's 32-bit form (`new_encode_dev`) to the C library's.
        let (major, minor) = (
            (rdev >> 8) & 0xfff,
            (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
        );
        let rdev = rustix::fs::makedev(major, minor);
        reply.send(
            self.0.complete_made(
                parent,
                self.0
                    .tree
                    .mknod(by(req, &self.0.data), parent, name, make, rdev),
            ),
        );
    }

    fn mkdir(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        reply: Reply<Entry>,
    ) {
        reply.send(self.0.complete_made(
            parent,
            self.0.tree.mkdir(by(req, &self.0.data), parent, name, make),
        ));
    }

    fn unlink(&self, req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<()>) {
        self.remove(req, parent, name, AtFlags::empty(), reply);
    }

    fn rmdir(&self, req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<()>) {
        self.remove(req, parent, name, AtFlags::REMOVEDIR, reply);
    }

    fn rename(
        &self,
        req: &mut Req<'_>,
        from: (NodeId, &Name),
        to: (NodeId, &Name),
        flags: u32,
        reply: Reply<()>,
    ) {
        let (tree, data) = (&self.0.tree, &self.0.data);
        let flags = attempt!(reply, RenameFlags::from_bits(flags).ok_or(Errno::INVAL));
        let from_dir = attempt!(reply, tree.inode(from.0));
        let to_dir = attempt!(reply, tree.inode(to.0));
        let caller = req.caller;
        if attempt!(
            reply,
            tree.begin_rename(by(req, &self.0.data), &from_dir, from.1)
        ) {
            return reply.send(tree.end_whiteout(&caller, flags, &from_dir, from.1));
        }
        let whiteout = flags.contains(RenameFlags::WHITEOUT);
        if whiteout {
            attempt!(reply, data.budget().charge_inode(0));
        }
        let charged = move |result: Result<()>, data: &D| {
            result.inspect_err(|_| {
                if whiteout {
                    data.budget().release_inode(0);
                }
            })
        };
        let kernels = match tree.begin_whiteout(&caller, flags) {
            Ok(kernels) => kernels,
            Err(errno) => return reply.send(charged(Err(errno), data)),
        };
        let (old, new) = (from.1.as_c_str(), to.1.as_c_str());
        let rename = |flags_now| {
            renameat_with(&from_dir.fd, old, &to_dir.fd, new, flags_now)?;
            tree.end_whiteout(&caller, flags, &from_dir, from.1)
        };
        if flags.intersects(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE) {
            return reply.send(charged(rename(kernels), data));
        }
        match stat_name(&to_dir.fd, to.1) {
            Ok(stat) if data.keeps(tree, &to_dir, to.1, &stat) => {}
            Err(_) if data.keeps_nameless() => {
                match rename(kernels | RenameFlags::NOREPLACE) {
                    // Another put a file there meanwhile.
                    Err(Errno::EXIST) => {}
                    result => return reply.send(charged(result, data)),
                }
            }
            _ => return reply.send(charged(rename(kernels), data)),
        }
        let (old, new) = (old.to_owned(), new.to_owned());
        self.blocking(req, reply, move |fs| {
            let rename = || {
                let (from, to) = ((&*from_dir, Name::new(&old)?), (&*to_dir, Name::new(&new)?));
                let kernels = fs.tree.begin_whiteout(&caller, flags)?;
                fs.data.rename_over(&fs.tree, from, to, kernels)?;
                fs.tree.end_whiteout(&caller, flags, from.0, from.1)
            };
            charged(rename(), &fs.data)
        });
    }

    fn link(
        &self,
        req: &mut Req<'_>,
        node: NodeId,
        parent: NodeId,
        name: &Name,
        reply: Reply<Entry>,
    ) {
        let (tree, data) = (&self.0.tree, &self.0.data);
        let linked = tree.link(req.intent, node, parent, name, |inode, dir| {
            data.link(tree, inode, dir, name.as_c_str())
        });
        reply.send(self.0.complete(linked));
    }

    fn open(&self, req: &mut Req<'_>, node: NodeId, how: OpenFlags, reply: Reply<Opened>) {
        let inode = attempt!(reply, self.0.tree.inode(node));
        let at_once = how.flags & libc::O_TRUNC == 0;
        self.run(req, at_once, reply, move |fs| fs.open(&inode, how));
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
        let how = OpenFlags {
            flags: how.widened(),
            ..how
        };
        let open_flags = self.0.data.open_flags(how.flags);
        let tree = &self.0.tree;
        let made = tree.create(
            by(req, &self.0.data),
            parent,
            name,
            make,
            how.flags,
            open_flags,
        );
        let made = attempt!(reply, made);
        // A file found with data in it may take long to truncate.
        let at_once = how.flags & libc::O_TRUNC == 0 || made.entry.attr.size == 0;
        self.run(req, at_once, reply, move |fs| fs.created(made, how));
    }

    fn tmpfile(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        make: &Make,
        flags: i32,
        reply: Reply<Created>,
    ) {
        let data = &self.0.data;
        let (open_flags, keeps) = (data.open_flags(flags), data.keeps_nameless());
        // The engine sees to it that it can never be given a name.
        let excl = flags & libc::O_EXCL != 0 && !keeps;
        let tree = &self.0.tree;
        let made = tree.tmpfile(by(req, data), parent, make, excl, open_flags);
        reply.send(made.and_then(|made| {
            let created = self.0.created(made, (flags | libc::O_TMPFILE).into());
            // Without a name, what is not open is gone.
            let mut created = created.inspect_err(|_| data.budget().release_inode(0))?;
            let inode = tree.inode(created.entry.node)?;
            if let Err(errno) = data.keep_nameless(tree, &inode) {
                log::debug!("a file without a name will not outlive the daemon: {errno}");
            }
            created.entry.attr = self.0.attr(&inode)?;
            Ok(created)
        }));
    }

    fn read(&self, req: &mut Req<'_>, at: At, buf: Slices, reply: Reply<u32>) {
        let file = attempt!(reply, self.0.readable(&at));
        self.0.data.read(req.io, &file, at.offset, buf, reply);
    }

    fn write(&self, req: &mut Req<'_>, at: At, buf: Slices, flags: WriteFlags, reply: Reply<u32>) {
        let Some((file, reply)) = self.0.begin_write(&at, reply) else {
            return;
        };
        if flags.kill_suidgid || self.0.tree.is_mapped() {
            let inode = attempt!(reply, self.0.tree.inode(at.node));
            attempt!(
                reply,
                self.0.tree.drop_privileges(&inode, flags.kill_suidgid)
            );
        }
        if !flags.append {
            return self.0.data.write(req.io, &file, at.offset, buf, reply);
        }
        let append = Append {
            offset: at.offset,
            direct: flags.direct,
            intent: req.intent,
        };
        self.0
            .data
            .append(req.io, at.node, &file, &append, buf, reply);
    }

    fn flush(&self, req: &mut Req<'_>, handle: Handle, owner: u64, reply: Reply<()>) {
        let node = attempt!(reply, self.0.files.node(handle));
        self.unlock_then(req.io, node, Whose::Owner(owner), move |fs, io| {
            let open = attempt!(reply, fs.open_file(handle));
            fs.closing(&open);
            let file = open.file.clone();
            fs.data.flush(io, &file, reply);
        });
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
        let Some((file, reply)) = self.0.begin_write(&at, reply) else {
            return;
        };
        let end = at
            .offset
            .checked_add(len)
            .filter(|end| *end <= i64::MAX as u64);
        let end = attempt!(reply, end.ok_or(Errno::FBIG));
        attempt!(reply, self.0.changed_by(&req.caller, at.node));
        self.0
            .data
            .fallocate(req.io, &file, at.offset..end, mode as i32, reply);
    }

    fn lseek(&self, req: &mut Req<'_>, at: At, whence: u32, reply: Reply<u64>) {
        let file = attempt!(reply, self.0.file(at.handle));
        self.blocking(req, reply, move |fs| {
            fs.data.lseek(&file, at.offset, whence)
        });
    }

    fn copy_file_range(&self, req: &mut Req<'_>, from: At, to: At, len: u64, reply: Reply<u32>) {
        let source = attempt!(reply, self.0.readable(&from));
        let Some((target, reply)) = self.0.begin_write(&to, reply) else {
            return;
        };
        attempt!(reply, self.0.changed_by(&req.caller, to.node));
        self.blocking(req, reply, move |fs| {
            fs.data
                .copy((&source, from.offset), (&target, to.offset), len)
        });
    }

    fn release(
        &self,
        req: &mut Req<'_>,
        handle: Handle,
        flock_owner: Option<u64>,
        reply: Reply<()>,
    ) {
        let node = attempt!(reply, self.0.files.node(handle));
        let removed = attempt!(reply, self.0.files.remove(handle));
        let whose = Whose::Handle {
            handle,
            flock_owner,
        };
        self.unlock_then(req.io, node, whose, move |fs, io| match removed {
            Some(open) => {
                fs.closing(&open);
                // Nothing of it may be left here: the last to let go may have much to do.
                let file =
                    Arc::try_unwrap(open).map_or_else(|open| open.file.clone(), |open| open.file);
                fs.data.close(io, file, reply);
            }
            None => reply.ok(()),
        });
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
        if self.0.data.is_virtual_xattr(name) {
            return self.change_virtual_xattr(req, node, name, (Some(value), how.flags), reply);
        }
        let inode = attempt!(reply, self.0.tree.inode(node));
        let tree = &self.0.tree;
        if tree.is_mapped() && is_acl(name) {
            return self.change_acl(req, inode, name, Some((value, how)), reply);
        }
        reply.send(tree.set_guest_xattr(req.intent, &inode, name, value, how));
    }

    fn getxattr(&self, _: &mut Req<'_>, node: NodeId, name: &XattrName, reply: Reply<Vec<u8>>) {
        if self.0.data.is_virtual_xattr(name) {
            let inode = attempt!(reply, self.0.tree.inode(node));
            let fs = &self.0;
            return reply.send(fs.data.get_virtual_xattr(&fs.tree, &inode, name));
        }
        let inode = attempt!(reply, self.0.tree.inode(node));
        reply.send(self.0.tree.get_guest_xattr(&inode, name));
    }

    fn listxattr(&self, req: &mut Req<'_>, node: NodeId, reply: Reply<Vec<u8>>) {
        let inode = attempt!(reply, self.0.tree.inode(node));
        reply.send(self.0.tree.list_guest_xattrs(&inode, &req.caller));
    }

    fn removexattr(&self, req: &mut Req<'_>, node: NodeId, name: &XattrName, reply: Reply<()>) {
        if self.0.data.is_virtual_xattr(name) {
            return self.change_virtual_xattr(req, node, name, (None, 0), reply);
        }
        let inode = attempt!(reply, self.0.tree.inode(node));
        let tree = &self.0.tree;
        if tree.is_mapped() && is_acl(name) {
            return self.change_acl(req, inode, name, None, reply);
        }
        reply.send(tree.remove_guest_xattr(req.intent, &inode, name));
    }

    fn statfs(&self, _: &mut Req<'_>, node: NodeId, reply: Reply<StatFs>) {
        let fs = &self.0;
        reply.send(
            fs.tree
                .inode(node)
                .and_then(|inode| fs.data.statfs(&fs.tree, &inode)),
        );
    }

    fn access(&self, req: &mut Req<'_>, node: NodeId, mask: u32, reply: Reply<()>) {
        reply.send(self.0.tree.access(node, &req.caller, mask));
    }

    fn syncfs(&self, req: &mut Req<'_>, _: NodeId, reply: Reply<()>) {
        self.blocking(req, reply, |fs| {
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
        self.about_locks(req.io, move |fs| reply.send(fs.getlk(at, lock)));
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
        self.about_locks(req.io, move |fs| fs.setlk(&at, &lock, wait, reply));
    }

    fn reset(&self) {
        self.0.locks.reset();
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

impl<D: FileData> TreeFs<D> {
    /// Removes a name; with `AtFlags::REMOVEDIR`, an empty directory.
    fn remove(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        flags: AtFlags,
        reply: Reply<()>,
    ) {
        let tree = &self.0.tree;
        let dir = attempt!(reply, tree.inode(parent));
        match attempt!(reply, tree.begin_remove(req.intent, &dir, name)) {
            Removal::Done { ino } => self.blocking(req, reply, move |fs| {
                fs.data.complete_removal(ino);
                Ok(())
            }),
            Removal::Of(stat) if self.0.data.keeps(tree, &dir, name, &stat) => {
                let name = name.as_c_str().to_owned();
                self.blocking(req, reply, move |fs| {
                    fs.data.remove(&fs.tree, &dir, Name::new(&name)?, flags)
                });
            }
            Removal::Of(_) => reply.send(unlinkat(&dir.fd, name.as_c_str(), flags)),
        }
    }

    /// Sets or removes an ACL in a mapped tree.
    fn change_acl(
        &self,
        req: &mut Req<'_>,
        inode: Arc<Inode>,
        name: &XattrName,
        to: Option<(&[u8], SetXattr)>,
        reply: Reply<()>,
    ) {
        // Again is as once: there is no intent to keep.
        let (name, to) = (
            name.as_c_str().to_owned(),
            to.map(|(v, how)| (v.to_vec(), how)),
        );
        self.blocking(req, reply, move |fs| {
            let name = XattrName::new(&name)?;
            match to {
                Some((value, how)) => fs.tree.set_guest_xattr(None, &inode, name, &value, how),
                None => fs.tree.remove_guest_xattr(None, &inode, name),
            }
        });
    }

    /// Sets (`to` is a value and flags) or removes an attribute that the engine answers itself.
    fn change_virtual_xattr(
        &self,
        req: &mut Req<'_>,
        node: NodeId,
        name: &XattrName,
        to: (Option<&[u8]>, u32),
        reply: Reply<()>,
    ) {
        let inode = attempt!(reply, self.0.tree.inode(node));
        let by = (req.caller, req.intent);
        let change = attempt!(reply, XattrChange::new(by, &inode, name, to.0, to.1));
        self.blocking(req, reply, move |fs| {
            fs.data.change_virtual_xattr(&fs.tree, &inode, &change)
        });
    }
}
