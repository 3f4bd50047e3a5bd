//! The [`FileSystem`] trait: what every engine gives, and all that a caller may ask.
//!
//! - [`reply`]: how an answer travels back, at once or later, from any thread.
//! - [`types`]: nodes, handles, attributes, names: the trait's vocabulary.
//! - [`slices`]: memory lent to a request.
//! - [`dir`]: directory entries on their way out.
//! - [`cancel`]: requests that wait for another's, and what ends their wait.
//! - [`intent`]: what a mutating request remembers about itself, for a replay after a crash.
//!
//! # The contract
//!
//! *A request never owns a thread.* Every method takes a [`Reply`] and may answer it at once,
//! from a completion that [`Io`] delivers later, or from another thread. A `Reply` that is
//! dropped unanswered answers `EIO`, so no path can lose a request. Whatever can block for long
//! (fsync, a lock, a dead storage server) goes through [`Io`]; what a local file system answers
//! from its caches may run at once.
//!
//! *Data is not copied.* `read` and `write` get [`Slices`] of the requester's memory, valid
//! until their `Reply` is answered.
//!
//! *Nodes are the engine's.* A [`NodeId`] names an inode for as long as the requester holds a
//! lookup on it; it is never reused, is no descriptor and no address, and can be found again
//! from the session's records after a restart. The same goes for a [`Handle`].
//!
//! *Permission* to do a thing is the requester's kernel's to check (virtiofs mounts are
//! `default_permissions`); the engine applies [`Caller`] as the owner of what it creates.
//!
//! *A thread that calls an engine has no use for its working directory*, which an engine may
//! move; relative paths are to be made absolute before.
//!
//! Errors are Linux errnos, as the system call of the same name would return them.

pub mod cancel;
pub mod dir;
pub mod intent;
pub mod reply;
pub mod slices;
pub mod types;

pub use cancel::{Cancel, MayWait, RESTART};
pub use dir::{DirEntry, DirList};
pub use intent::{Intent, IntentLog};
pub use reply::{Answer, Done, Mailbox, Reply, Ticket, Watch};
pub use rustix::io::Errno;
pub use slices::Slices;
pub use types::*;

use crate::io::Io;

/// Result of anything that can fail with an errno.
pub type Result<T> = std::result::Result<T, Errno>;

/// What comes with every request: who asks, and what the asking worker lends.
pub struct Req<'a> {
    /// The worker's I/O, for everything that should complete later.
    pub io: &'a mut Io,
    /// Whose request it is.
    pub caller: Caller,
    /// Where a mutating request records what it is about to do; `None` when nothing would ever
    /// replay it.
    pub intent: Option<&'a dyn IntentLog>,
}

/// An engine: a file system that answers requests.
///
/// Methods have FUSE's granularity and Linux's meaning. One that an engine does not have
/// answers `ENOSYS`, which tells a Linux guest not to ask again.
pub trait FileSystem: Send + Sync {
    // ---- names and nodes -------------------------------------------------------------

    /// Finds `name` in `parent` and takes one lookup on the node found.
    fn lookup(&self, req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<Entry>);

    /// Gives back `count` lookups on `node`. Unknown nodes and counts too high are ignored.
    fn forget(&self, node: NodeId, count: u64);

    /// Reads attributes, through `handle` where one is at hand.
    fn getattr(&self, req: &mut Req<'_>, node: NodeId, handle: Option<Handle>, reply: Reply<Attr>);

    /// Changes the attributes that `set` names and answers all as they are after it.
    fn setattr(&self, req: &mut Req<'_>, node: NodeId, set: &SetAttr, reply: Reply<Attr>);

    /// Reads a symbolic link.
    fn readlink(&self, req: &mut Req<'_>, node: NodeId, reply: Reply<Vec<u8>>);

    /// Makes a symbolic link to `target`, which is stored and never followed.
    fn symlink(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        target: &std::ffi::CStr,
        reply: Reply<Entry>,
    );

    /// Makes a file, fifo, socket or device node. `mode` carries the type; `umask` is applied
    /// by the engine unless a default ACL takes its place.
    fn mknod(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        rdev: u32,
        reply: Reply<Entry>,
    );

    /// Makes a directory.
    fn mkdir(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        reply: Reply<Entry>,
    );

    /// Removes a name of anything but a directory.
    fn unlink(&self, req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<()>);

    /// Removes an empty directory.
    fn rmdir(&self, req: &mut Req<'_>, parent: NodeId, name: &Name, reply: Reply<()>);

    /// Renames; `flags` as in `renameat2(2)`.
    fn rename(
        &self,
        req: &mut Req<'_>,
        from: (NodeId, &Name),
        to: (NodeId, &Name),
        flags: u32,
        reply: Reply<()>,
    );

    /// Gives `node` another name.
    fn link(
        &self,
        req: &mut Req<'_>,
        node: NodeId,
        parent: NodeId,
        name: &Name,
        reply: Reply<Entry>,
    );

    // ---- files -----------------------------------------------------------------------

    /// Opens a file.
    fn open(&self, req: &mut Req<'_>, node: NodeId, flags: OpenFlags, reply: Reply<Opened>);

    /// Makes and opens a file, or opens it where it exists and `O_EXCL` is not set.
    fn create(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        flags: OpenFlags,
        reply: Reply<Created>,
    );

    /// Makes and opens a file without a name in directory `parent`.
    fn tmpfile(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        make: &Make,
        flags: i32,
        reply: Reply<Created>,
    );

    /// Reads into `buf`, all of it unless the file ends. Answers the bytes read.
    fn read(&self, req: &mut Req<'_>, at: At, buf: Slices, reply: Reply<u32>);

    /// Writes `buf` whole or fails. Answers the bytes written. With [`WriteFlags::append`] it
    /// goes to the end of the file, whoever else appends, and no byte of anybody is lost; requests
    /// of one requester that are in flight together go there in the order of their offsets, as
    /// far as they have arrived.
    fn write(&self, req: &mut Req<'_>, at: At, buf: Slices, flags: WriteFlags, reply: Reply<u32>);

    /// A descriptor of the handle was closed: the time for delayed errors. The byte-range locks
    /// that `owner` has in the node are dropped, through whatever handle it got them.
    fn flush(&self, req: &mut Req<'_>, handle: Handle, owner: u64, reply: Reply<()>);

    /// Makes data (and, unless `datasync`, all metadata) survive power loss.
    fn fsync(
        &self,
        req: &mut Req<'_>,
        node: NodeId,
        handle: Handle,
        datasync: bool,
        reply: Reply<()>,
    );

    /// `fallocate(2)`; `mode` as there.
    fn fallocate(&self, req: &mut Req<'_>, at: At, len: u64, mode: u32, reply: Reply<()>);

    /// `lseek(2)` with `SEEK_HOLE` or `SEEK_DATA`; answers the offset found.
    fn lseek(&self, req: &mut Req<'_>, at: At, whence: u32, reply: Reply<u64>);

    /// Copies up to `len` bytes between two open files; answers how many.
    fn copy_file_range(&self, req: &mut Req<'_>, from: At, to: At, len: u64, reply: Reply<u32>);

    /// The last descriptor of the handle is gone: so are all locks taken through it, and the
    /// flock of `flock_owner`.
    fn release(
        &self,
        req: &mut Req<'_>,
        handle: Handle,
        flock_owner: Option<u64>,
        reply: Reply<()>,
    );

    // ---- directories -----------------------------------------------------------------

    /// Opens a directory.
    fn opendir(&self, req: &mut Req<'_>, node: NodeId, reply: Reply<Opened>);

    /// Fills `list` with the entries after cookie `offset` (0 is the start). With `plus`, each
    /// entry but `.` and `..` carries a node, with one lookup taken on it.
    fn readdir(
        &self,
        req: &mut Req<'_>,
        handle: Handle,
        offset: u64,
        plus: bool,
        list: DirList,
        reply: Reply<DirList>,
    );

    /// `fsync` of a directory.
    fn fsyncdir(
        &self,
        req: &mut Req<'_>,
        node: NodeId,
        handle: Handle,
        datasync: bool,
        reply: Reply<()>,
    );

    /// The directory's last descriptor is gone.
    fn releasedir(&self, req: &mut Req<'_>, handle: Handle, reply: Reply<()>);

    // ---- extended attributes ---------------------------------------------------------

    /// Sets an attribute.
    fn setxattr(
        &self,
        req: &mut Req<'_>,
        node: NodeId,
        name: &XattrName,
        value: &[u8],
        how: SetXattr,
        reply: Reply<()>,
    );

    /// Reads an attribute's value.
    fn getxattr(&self, req: &mut Req<'_>, node: NodeId, name: &XattrName, reply: Reply<Vec<u8>>);

    /// Lists attribute names, each ended by a NUL.
    fn listxattr(&self, req: &mut Req<'_>, node: NodeId, reply: Reply<Vec<u8>>);

    /// Removes an attribute.
    fn removexattr(&self, req: &mut Req<'_>, node: NodeId, name: &XattrName, reply: Reply<()>);

    // ---- the whole -------------------------------------------------------------------

    /// Size and use, as `statvfs(3)` counts them.
    fn statfs(&self, req: &mut Req<'_>, node: NodeId, reply: Reply<StatFs>);

    /// `access(2)` for [`Req::caller`].
    fn access(&self, req: &mut Req<'_>, node: NodeId, mask: u32, reply: Reply<()>);

    /// `syncfs(2)`: all that was written through this daemon survives power loss.
    fn syncfs(&self, req: &mut Req<'_>, node: NodeId, reply: Reply<()>);

    // ---- locks -----------------------------------------------------------------------

    /// Whether locks are kept here, for all who use the volume; else they are each requester's own.
    fn keeps_locks(&self) -> bool {
        false
    }

    /// Finds a lock in the way of `lock`; answers it, or `kind == Unlock` for none.
    fn getlk(&self, _req: &mut Req<'_>, _at: At, _lock: &Lock, reply: Reply<Lock>) {
        reply.err(Errno::NOSYS);
    }

    /// Sets or drops a lock: `EAGAIN` where another's is in the way. With `wait`, which is asked
    /// only then, answers when it is had.
    fn setlk(
        &self,
        _req: &mut Req<'_>,
        _at: At,
        _lock: &Lock,
        _wait: Option<MayWait>,
        reply: Reply<()>,
    ) {
        reply.err(Errno::NOSYS);
    }

    // ---- the session -----------------------------------------------------------------

    /// A new session begins: every node but the root and every handle is forgotten.
    fn reset(&self);

    /// A session goes on in a new process: nodes and handles are found again from the records
    /// of the [`SessionStore`](crate::session::SessionStore) that the engine was opened with.
    /// Answers how many nodes and handles there are.
    fn restore(&self) -> Result<(u64, u64)>;

    /// The session will go on in another process: completes the records, so that each node can
    /// be found without this process's descriptors. Answers how many could not be made so.
    fn prepare_restore(&self) -> u64;

    /// The process ends, and no request comes any more: an engine that servers hold things for tells
    /// them that it goes.
    fn shut_down(&self) {}
}
