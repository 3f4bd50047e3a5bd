//! A local (or mounted) directory tree as a namespace: what `posix` and `striped` share.
//!
//! - [`Tree`]: the root, the inode table, and what was found out about the host.
//! - `inodes`, `cache`: node ids to inodes: records, an index by number, a bounded cache of fds.
//!   `file_handle`: finding them again without one; `find`: by name.
//! - `parked`: descriptors of closed files.
//! - [`names`]: lookup, create, remove, rename, link.
//! - [`attrs`]: attributes. `ownership`: who owns what, in the host's inodes or in hidden attributes.
//! - [`xattrs`]: extended attributes, as the host has them; `guest_xattrs`, `xattr_names`: as a
//!   guest has them.
//! - [`dirs`]: reading directories.
//! - [`fs`]: [`TreeFs`]: the tree as a `FileSystem`; [`data`]: what it leaves to the engine.
//! - `version`: telling whether a file changed since it was cached.
//! - `replay`: telling own work, done before a crash, from another's.
//! - [`creds`], [`proc`]: acting as a guest's user; reaching an inode from its descriptor.
//!   `thread`: a thread's own working directory and umask.
//!
//! A name that a guest gave is only ever used as one component below a directory descriptor,
//! and never followed: what it names is opened with `O_PATH | O_NOFOLLOW`, looked at, and only
//! then opened for data, and only if it is a regular file or a directory.

pub mod attrs;
mod budget;
mod cache;
pub mod creds;
pub mod data;
pub mod dirs;
mod file_handle;
mod find;
pub mod fs;
mod guest_xattrs;
mod inodes;
pub mod names;
mod ownership;
mod parked;
pub mod proc;
mod replay;
mod thread;
pub mod version;
mod xattr_names;
pub mod xattrs;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::fs::{Errno, Name, NodeId, Result, Timestamp};
use crate::io::Storage;
use crate::session::SessionStore;
pub use budget::{Budget, Unlimited};
pub use cache::Inode;
pub use data::{Append, Closing, FileData, Opening};
pub use fs::TreeFs;
use ownership::{Mapped, Native, Ownership};
pub use parked::Parked;
pub use xattrs::XattrChange;

/// What a tree is opened with.
#[derive(Clone)]
pub struct Options {
    /// Where nodes and handles are recorded.
    pub store: Arc<SessionStore>,
    /// Most inodes to hold a descriptor of, when others can be found again without one.
    pub inode_fds_max: usize,
}

/// A directory tree below one root descriptor.
pub struct Tree {
    store: Arc<SessionStore>,
    proc: proc::ProcFd,
    ownership: Arc<dyn Ownership>,
    inodes: inodes::Inodes,
    lot: parked::Lot,
    root_dev: u64,
    root_is_local: bool,
    root_storage: Storage,
}

/// A tree cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open /proc/self/fd: {0}; mount /proc where the daemon runs")]
    Proc(#[source] Errno),
    #[error("cannot look at the root directory: {0}")]
    Root(#[source] Errno),
    #[error("cannot act for the user who owns the root directory: {0}")]
    ActAsOwner(#[source] Errno),
}

impl Tree {
    /// Opens the tree below `root`, in which owners and types are the host's. To be called before
    /// the process gives up privileges or paths. The process's umask is set to 0: modes come from
    /// requesters.
    pub fn open(root: OwnedFd, options: &Options) -> std::result::Result<Tree, Error> {
        let native = |_: &Stat| {
            let proc = proc::ProcFd::open().map_err(Error::Proc)?;
            Ok(Arc::new(Native::new(proc)) as Arc<dyn Ownership>)
        };
        Tree::open_with(root, options, native)
    }

    /// As [`open`](Self::open), with owners and types in hidden attributes. `lock_file` is one
    /// file, open for writing, for all who use the tree.
    pub fn open_mapped(
        root: OwnedFd,
        options: &Options,
        lock_file: OwnedFd,
    ) -> std::result::Result<Tree, Error> {
        let mapped = |root: &Stat| {
            let proc = proc::ProcFd::open().map_err(Error::Proc)?;
            let mapped = Mapped::new(proc, root, lock_file).map_err(Error::ActAsOwner)?;
            Ok(Arc::new(mapped) as Arc<dyn Ownership>)
        };
        Tree::open_with(root, options, mapped)
    }

    fn open_with(
        root: OwnedFd,
        options: &Options,
        ownership: impl FnOnce(&Stat) -> std::result::Result<Arc<dyn Ownership>, Error>,
    ) -> std::result::Result<Tree, Error> {
        rustix::process::umask(Mode::empty());
        let root = rustix::fs::openat(
            &root,
            ".",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(Error::Root)?;
        let stat = attrs::stat_fd(&root).map_err(Error::Root)?;
        let root_is_local = version::is_local(&root);
        let root_storage = Storage::of(&root);
        let store = options.store.clone();
        let ownership = ownership(&stat)?;
        let held_max = options.inode_fds_max;
        let inodes = inodes::Inodes::new(store.clone(), held_max, ownership.clone(), root, &stat)
            .map_err(Error::Root)?;
        Ok(Tree {
            store,
            proc: proc::ProcFd::open().map_err(Error::Proc)?,
            ownership,
            inodes,
            lot: parked::Lot::new(held_max),
            root_dev: stat.dev,
            root_is_local,
            root_storage,
        })
    }

    /// The descriptor of an inode, opened for data. The inode must be a regular file or a
    /// directory: anything else could block, or act on the host.
    pub fn reopen(&self, inode: &Inode, flags: OFlags) -> Result<OwnedFd> {
        match inode.file_type {
            libc::S_IFREG | libc::S_IFDIR => {
                let flags = (flags | OFlags::CLOEXEC).difference(OFlags::NOFOLLOW | OFlags::CREATE);
                // Elsewhere a handle may take a server's help.
                let by_handle = match self.is_local(inode) {
                    true => self.inodes.open_handle(inode, flags),
                    false => None,
                };
                match by_handle {
                    Some(fd) => Ok(fd),
                    None => self.proc.open_fd(&inode.fd, flags),
                }
            }
            libc::S_IFLNK => Err(Errno::LOOP),
            _ => Err(Errno::NXIO),
        }
    }

    /// The inode of `node`: `ESTALE` for one never given out, forgotten, or gone.
    pub fn inode(&self, node: NodeId) -> Result<Arc<Inode>> {
        self.inodes.get(node)
    }

    /// The inode that `stat` describes, if its descriptor is held; takes no lookup on it.
    pub fn held(&self, stat: &Stat) -> Option<Arc<Inode>> {
        self.inodes.held_as(stat)
    }

    /// The inode `name` in `dir`, for a look at it that takes no lookup.
    pub fn unlisted_at(&self, dir: impl AsFd, name: &Name) -> Result<Arc<Inode>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name.as_c_str(), flags, Mode::empty())?;
        let stat = self.stat(&fd)?;
        Ok(Inode::new(NodeId(0), fd, &stat))
    }

    /// What the guest sees of the inode behind `fd`.
    #[inline]
    pub(super) fn stat(&self, fd: impl AsFd) -> Result<Stat> {
        ownership::stat(&*self.ownership, fd)
    }

    /// Whether `dev` is the file system that the root is on.
    pub fn is_on_root(&self, dev: u64) -> bool {
        dev == self.root_dev
    }

    /// What waits for the storage behind `inode`.
    pub fn storage_of(&self, inode: &Inode) -> Storage {
        match self.is_on_root(inode.dev) {
            true => self.root_storage,
            false => Storage::of(&inode.fd),
        }
    }

    /// Gives back `count` lookups on `node`.
    pub fn forget(&self, node: NodeId, count: u64) {
        self.inodes.forget(node, count);
    }

    /// How many descriptors are held for inodes.
    pub fn inode_fds(&self) -> usize {
        self.inodes.held()
    }

    /// Forgets every node but the root.
    pub(super) fn forget_all(&self) {
        self.inodes.forget_all();
    }

    /// Finds the session's nodes again; answers how many there are. Those that lost their name may
    /// be in `orphans`.
    pub(super) fn restore_nodes(&self, orphans: Option<BorrowedFd<'_>>) -> u64 {
        let count = self.inodes.restore();
        match self.inodes.find_all(orphans) {
            0 => {}
            lost => log::warn!("{lost} inodes of the session are not found again"),
        }
        count
    }

    /// Completes the session's records of nodes; answers how many could not be.
    pub(super) fn complete_records(&self) -> u64 {
        self.inodes.complete_records()
    }

    /// The records of this tree's session.
    pub fn store(&self) -> &Arc<SessionStore> {
        &self.store
    }
}

/// What `statx(2)` told of an inode, with the device it is on.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub attr: crate::fs::Attr,
}

impl Stat {
    /// The file type bits of the mode.
    pub fn file_type(&self) -> u32 {
        self.attr.mode & libc::S_IFMT
    }
}

impl From<rustix::fs::StatxTimestamp> for Timestamp {
    fn from(time: rustix::fs::StatxTimestamp) -> Timestamp {
        Timestamp {
            sec: time.tv_sec,
            nsec: time.tv_nsec,
        }
    }
}

#[cfg(test)]
mod tests;
