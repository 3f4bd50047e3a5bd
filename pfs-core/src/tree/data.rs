//! What a [`TreeFs`](super::TreeFs) leaves to its engine: the data of regular files.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::{renameat_with, unlinkat, AtFlags, OFlags, RenameFlags};

use super::names::file_flags;
use super::{Budget, Inode, Parked, Stat, Tree, Unlimited, XattrChange};
use crate::fs::{Attr, Errno, IntentLog, Name, NodeId, Reply, Result, Slices, StatFs, XattrName};
use crate::io::{DataFd, Fd, Io};

/// What comes with an append.
pub struct Append<'a> {
    /// Where the requester takes the end of the file to be.
    pub offset: u64,
    /// See [`WriteFlags::direct`](crate::fs::WriteFlags::direct).
    pub direct: bool,
    /// Where it is remembered for a replay where it went ([`Intent::AppendAt`]).
    ///
    /// [`Intent::AppendAt`]: crate::fs::Intent::AppendAt
    pub intent: Option<&'a dyn IntentLog>,
}

/// What an open file is made of.
pub struct Opening {
    /// Opened with [`open_flags`](FileData::open_flags) of `flags`.
    pub fd: Fd,
    /// The request's.
    pub flags: i32,
    /// The inode was seen to have a name when [`purges`](super::Budget::purges) of it were so many.
    pub named_at: Option<u64>,
}

/// The handle that is closed.
pub struct Closing<'a> {
    pub(super) tree: &'a Tree,
    pub(super) inode: &'a Arc<Inode>,
    /// With which the descriptor was opened.
    pub(super) flags: OFlags,
}

impl Closing<'_> {
    /// Whether the descriptor can write.
    pub fn can_write(&self) -> bool {
        self.flags.intersects(OFlags::WRONLY | OFlags::RDWR)
    }

    /// Keeps the handle's descriptor for the next open, unless somebody still uses it. `named_at`: see
    /// [`Opening::named_at`].
    pub fn park(&self, data: DataFd, named_at: Option<u64>) {
        // Elsewhere an open may do more than on this host, and a close.
        if !self.tree.is_local(self.inode) {
            return;
        }
        let fd = data.into_fd();
        let is_own = Arc::ptr_eq(&fd, &self.inode.fd);
        if Arc::strong_count(&fd) > 1 + usize::from(is_own) {
            return;
        }
        let flags = self.inode.opened.filter(|_| is_own).unwrap_or(self.flags);
        let parked = Parked {
            fd,
            flags,
            named_at,
        };
        self.tree.park(self.inode, parked);
    }
}

/// The data of regular files in a tree.
///
/// Methods that take an [`Io`] answer through their reply; those that take none may block, and
/// are called on the blocking pool unless they say otherwise.
pub trait FileData: Send + Sync + 'static {
    /// An open file.
    type File: Send + Sync + 'static;

    /// The flags with which the tree opens an inode for a request's `flags`.
    fn open_flags(&self, flags: i32) -> OFlags {
        file_flags(flags)
    }

    /// Whether an inode may be reached, for as long as it is known, by the descriptor that its file
    /// was made with: to the host, the file stays open.
    fn keeps_made_fd(&self) -> bool {
        false
    }

    /// An open file. Runs on the worker.
    fn open(&self, tree: &Tree, inode: &Arc<Inode>, opening: Opening) -> Result<Self::File>;

    /// Reads into `buf`; see [`FileSystem::read`](crate::fs::FileSystem::read).
    fn read(
        &self,
        io: &mut Io,
        file: &Arc<Self::File>,
        offset: u64,
        buf: Slices,
        reply: Reply<u32>,
    );

    /// Writes `buf`; see [`FileSystem::write`](crate::fs::FileSystem::write).
    fn write(
        &self,
        io: &mut Io,
        file: &Arc<Self::File>,
        offset: u64,
        buf: Slices,
        reply: Reply<u32>,
    );

    /// Writes `buf` at the end of the file; see
    /// [`FileSystem::write`](crate::fs::FileSystem::write). Each piece takes its place for itself:
    /// between two of one requester there may be another's.
    fn append(
        &self,
        io: &mut Io,
        node: NodeId,
        file: &Arc<Self::File>,
        append: &Append<'_>,
        buf: Slices,
        reply: Reply<u32>,
    );

    /// Reports delayed errors.
    fn flush(&self, io: &mut Io, file: &Arc<Self::File>, reply: Reply<()>);

    /// Makes the file survive power loss.
    fn fsync(&self, io: &mut Io, file: &Arc<Self::File>, datasync: bool, reply: Reply<()>);

    /// `fallocate(2)`.
    fn fallocate(
        &self,
        io: &mut Io,
        file: &Arc<Self::File>,
        range: std::ops::Range<u64>,
        mode: i32,
        reply: Reply<()>,
    );

    /// Lets go of a handle's file; its descriptor may be [parked](Closing::park).
    fn close(&self, io: &mut Io, closing: &Closing<'_>, file: Arc<Self::File>, reply: Reply<()>);

    /// Sets the size where that cannot block, and answers whether it did; else
    /// [`truncate`](Self::truncate) does. Runs on the worker.
    fn truncate_at_once(&self, tree: &Tree, inode: &Inode, size: u64) -> Result<bool>;

    /// Sets the size.
    fn truncate(&self, tree: &Tree, inode: &Inode, size: u64) -> Result<()>;

    /// The next data or hole at or after `offset`.
    fn lseek(&self, file: &Self::File, offset: u64, whence: u32) -> Result<u64>;

    /// Copies up to `len` bytes.
    fn copy(&self, from: (&Self::File, u64), to: (&Self::File, u64), len: u64) -> Result<u32>;

    /// The last byte that a requester's lock may be on; those beyond are the engine's own.
    fn lock_end(&self) -> u64 {
        i64::MAX as u64
    }

    /// Whether locks that need not wait are set at once, so that it can be on the worker.
    fn locks_at_once(&self) -> bool {
        true
    }

    /// Completes attributes that the tree does not know. Runs on the worker.
    fn complete_attr(&self, _tree: &Tree, _node: NodeId, _attr: &mut Attr) {}

    /// A requester has set attributes of `inode`, extended ones among them.
    fn attributes_set(&self, _tree: &Tree, _inode: &Inode) {}

    /// Whether `name` is an attribute that the engine itself answers, by the methods below.
    fn is_virtual_xattr(&self, name: &XattrName) -> bool {
        let rest = name.as_c_str().to_bytes().strip_prefix(b"user.pfs.layout");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'.')))
    }

    /// Reads such an attribute. Runs on the worker.
    fn get_virtual_xattr(&self, _: &Tree, _: &Inode, _: &XattrName) -> Result<Vec<u8>> {
        Err(Errno::NODATA)
    }

    /// Sets or removes such an attribute.
    fn change_virtual_xattr(&self, _: &Tree, _: &Arc<Inode>, change: &XattrChange) -> Result<()> {
        Err(match change.value {
            Some(_) => Errno::OPNOTSUPP,
            None => Errno::NODATA,
        })
    }

    /// `node` was just made in `parent`, and nobody has been told of it. Runs on the worker.
    fn made(&self, _tree: &Tree, _parent: NodeId, _node: NodeId) -> Result<()> {
        Ok(())
    }

    /// Who counts the inodes that are made.
    fn budget(&self) -> &dyn Budget {
        &Unlimited
    }

    /// Whether removing `name` in `dir` is more than that: then [`remove`](Self::remove) and
    /// [`rename_over`](Self::rename_over) do it. When there were `purges`
    /// [in all](Budget::purges_in_all), `stat` described it. Runs on the worker.
    fn keeps(&self, _tree: &Tree, _dir: &Inode, _name: &Name, _stat: &Stat, _purges: u64) -> bool {
        false
    }

    /// Removes `name` in `dir`; with `AtFlags::REMOVEDIR`, an empty directory.
    fn remove(&self, _tree: &Tree, dir: &Inode, name: &Name, flags: AtFlags) -> Result<()> {
        unlinkat(&dir.fd, name.as_c_str(), flags)
    }

    /// An earlier try removed a name of the inode `ino`; whether it did all that goes with that is
    /// not known.
    fn complete_removal(&self, _ino: u64) {}

    /// Renames `from` over `to`.
    fn rename_over(
        &self,
        _tree: &Tree,
        from: (&Inode, &Name),
        to: (&Inode, &Name),
        flags: RenameFlags,
    ) -> Result<()> {
        let (old, new) = (from.1.as_c_str(), to.1.as_c_str());
        renameat_with(&from.0.fd, old, &to.0.fd, new, flags)
    }

    /// Gives `inode` the name `name` in `dir`. Runs on the worker.
    fn link(&self, tree: &Tree, inode: &Inode, dir: &Inode, name: &CStr) -> Result<()> {
        tree.link_inode(inode, dir, name)
    }

    /// Whether files without a name may have to be [kept](Self::keeps), those that are made so
    /// [for the next process](Self::keep_nameless).
    fn keeps_nameless(&self) -> bool {
        false
    }

    /// The directory, on the tree's file system, of files that are kept without a name.
    fn orphans(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Keeps a file that was made without a name, and is open, for the next process. Runs on the
    /// worker.
    fn keep_nameless(&self, _tree: &Tree, _inode: &Inode) -> Result<()> {
        Ok(())
    }

    /// The session will go on in another process: files that are let go from now on are not.
    fn prepare_restore(&self) {}

    /// A session begins or goes on: what is to be done beside the requests may be started.
    fn start(&self) {}

    /// Size and use.
    fn statfs(&self, tree: &Tree, inode: &Inode) -> Result<StatFs> {
        tree.statfs(inode)
    }

    /// Makes all that is not in the tree itself survive power loss.
    fn sync_all(&self) -> Result<()> {
        Ok(())
    }
}
