//! Names: lookup, create, remove, rename, link.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{linkat, openat, AtFlags, Mode, OFlags, RenameFlags};

use super::attrs::{number_fd, stat_name};
use super::budget::Charge;
use super::cache::{Names, Reach};
use super::ownership::New;
use super::proc::FdName;
use super::replay::Making;
use super::{Budget, Inode, Stat, Tree};
use crate::fs::intent::{begin_removing, begin_renaming};
use crate::fs::{Caller, Entry, Errno, IntentLog, Make, Name, NodeId, Result};
use crate::io::Fd;

/// A file made or found by [`Tree::create`].
pub struct CreatedFile {
    pub entry: Entry,
    /// Opened as asked.
    pub fd: Fd,
    /// The directory that it was made in; `None` where it was found.
    pub made_in: Option<NodeId>,
    /// See [`Opening::named_at`](super::Opening::named_at).
    pub named_at: Option<u64>,
}

/// How a file is opened that is made.
#[derive(Clone, Copy)]
pub struct Opens {
    /// The request's flags.
    pub flags: i32,
    /// The descriptor's.
    pub fd_flags: OFlags,
    /// See [`FileData::keeps_made_fd`](super::FileData::keeps_made_fd).
    pub keeps_fd: bool,
}

/// A name that is to go.
pub enum Removal {
    /// An earlier try removed it; it was this inode.
    Done { ino: u64 },
    /// It is this one.
    Of(Stat),
    /// Nobody has looked.
    Unknown,
}

/// For whom, and with what memory of an earlier try, a name is made.
#[derive(Clone, Copy)]
pub struct By<'a> {
    pub caller: Caller,
    pub intent: Option<&'a dyn IntentLog>,
    pub budget: &'a dyn Budget,
}

/// The open flags of a request that a file descriptor may have.
///
/// What is left out: creation flags, which are handled by name; `O_DIRECT`, whose alignment
/// rules a guest cannot know; `O_APPEND`, since Linux would then ignore the offset of every
/// write, also once the requester has cleared the flag; `O_NONBLOCK` and the like, which mean
/// nothing to a regular file.
pub fn file_flags(flags: i32) -> OFlags {
    let keep = OFlags::RDONLY | OFlags::WRONLY | OFlags::RDWR | OFlags::DSYNC | OFlags::SYNC;
    OFlags::from_bits_retain(flags as u32) & keep
}

impl Tree {
    /// Finds `name` in `parent` and takes one lookup on it.
    pub fn lookup(&self, parent: NodeId, name: &Name) -> Result<Entry> {
        let parent = self.inode(parent)?;
        self.find(&parent.fd, name, &parent.names)
    }

    /// Finds `name` in `dir`, of which `names` is known, and takes one lookup on it.
    pub(super) fn find(&self, dir: impl AsFd, name: &Name, names: &Names) -> Result<Entry> {
        if names.likely_held() {
            // One system call where the inode's descriptor is held already.
            let mut stat = stat_name(&dir, name)?;
            if let Some(node) = self.inodes.known(&stat) {
                if let Err(errno) = self.complete(node, &mut stat) {
                    self.forget(node, 1);
                    return Err(errno);
                }
                return Ok(Entry {
                    node,
                    attr: self.seen(&stat),
                });
            }
        }
        let (entry, held) = self.open_name(dir, name)?;
        names.note(held);
        Ok(entry)
    }

    /// Makes of what the host says of `node` what the guest sees.
    fn complete(&self, node: NodeId, stat: &mut Stat) -> Result<()> {
        match self.ownership.is_native() {
            true => Ok(()),
            false => {
                let inode = self.inode(node)?;
                self.ownership.complete(inode.fd.as_fd(), stat)
            }
        }
    }

    /// Opens `name` in `dir` without following it, and takes one lookup on what is there.
    pub(super) fn enter(&self, dir: impl AsFd, name: &Name) -> Result<Entry> {
        self.open_name(dir, name).map(|(entry, _)| entry)
    }

    /// As [`enter`](Self::enter); answers also whether the inode's descriptor was held.
    fn open_name(&self, dir: impl AsFd, name: &Name) -> Result<(Entry, bool)> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir, name.as_c_str(), flags, Mode::empty())?;
        let stat = self.stat(&fd)?;
        self.entry(fd, &stat)
    }

    fn entry(&self, reach: impl Into<Reach>, stat: &Stat) -> Result<(Entry, bool)> {
        let (node, held) = self.inodes.intern(reach, stat)?;
        let entry = Entry {
            node,
            attr: self.seen(stat),
        };
        Ok((entry, held))
    }

    /// Takes one lookup on the file that `fd` has open, just made; answers also what is known of it,
    /// if it is reached by `fd` from now on.
    fn entry_kept(&self, fd: &Fd, opens: &Opens) -> Result<Option<(Entry, Stat)>> {
        if !opens.keeps_fd || !self.root_is_local {
            return Ok(None);
        }
        let stat = self.stat(fd)?;
        if !self.is_on_root(stat.dev) {
            return Ok(None);
        }
        let reach = Reach {
            fd: fd.clone(),
            opened: Some(opens.fd_flags),
        };
        Ok(Some((self.entry(reach, &stat)?.0, stat)))
    }

    /// Takes one lookup on the file that `fd` has open.
    fn entry_of(&self, fd: &Fd) -> Result<Entry> {
        let path = self.proc.open_fd(fd, OFlags::PATH | OFlags::CLOEXEC)?;
        let stat = self.stat(&path)?;
        self.entry(path, &stat).map(|(entry, _)| entry)
    }

    /// Takes one lookup on the file that `fd` has open, and that was made as `name` in `dir` after
    /// there were `purges` in all; answers also as of when it had that name.
    pub(super) fn entry_made(
        &self,
        (dir, name): (&Inode, &Name),
        (fd, opens): (&Fd, &Opens),
        budget: &dyn Budget,
        purges: u64,
    ) -> Result<(Entry, Option<u64>)> {
        if let Some((entry, stat)) = self.entry_kept(fd, opens)? {
            let named_at = budget.purges(stat.ino);
            let is_named = budget.purges_in_all() == purges
                || stat_name(&dir.fd, name).is_ok_and(|now| now.ino == stat.ino);
            return Ok((entry, is_named.then_some(named_at)));
        }
        let number = number_fd(fd)?;
        let named_at = budget.purges(number.0);
        // Half the price of a descriptor by way of /proc.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = openat(&dir.fd, name.as_c_str(), flags, Mode::empty());
        let found = path.and_then(|path| Ok((self.stat(&path)?, path)));
        if let Ok((stat, path)) = found {
            if number == (stat.ino, stat.dev) {
                return Ok((self.entry(path, &stat)?.0, Some(named_at)));
            }
        }
        // Another has removed the name by now, or put something else there.
        Ok((self.entry_of(fd)?, None))
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        if inode.file_type != libc::S_IFLNK {
            return Err(Errno::INVAL);
        }
        self.ownership.read_link(&inode)
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, by: By<'_>, parent: NodeId, name: &Name, target: &CStr) -> Result<Entry> {
        let parent = self.inode(parent)?;
        let new = new(by.caller, libc::S_IFLNK | 0o777, 0, 0);
        // One that is a file to the host has a size there.
        let bytes = match self.ownership.is_native() {
            true => 0,
            false => target.to_bytes().len() as u64,
        };
        let making = Making::begin_inode(by, bytes, || absent(&parent.fd, name))?;
        let made = self
            .ownership
            .make_symlink(&parent, name.as_c_str(), target, &new);
        making.finish(made)?;
        self.enter(&parent.fd, name)
    }

    /// Makes a file, fifo, socket or device node.
    pub fn mknod(
        &self,
        by: By<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        rdev: u64,
    ) -> Result<Entry> {
        let kind = match make.mode & libc::S_IFMT {
            0 => libc::S_IFREG,
            kind @ (libc::S_IFREG
            | libc::S_IFIFO
            | libc::S_IFSOCK
            | libc::S_IFCHR
            | libc::S_IFBLK) => kind,
            _ => return Err(Errno::INVAL),
        };
        let rdev = match kind {
            libc::S_IFCHR | libc::S_IFBLK => rdev,
            _ => 0,
        };
        let parent = self.inode(parent)?;
        let new = new(by.caller, kind | make.mode & 0o7777, make.umask, rdev);
        let making = Making::begin_inode(by, 0, || absent(&parent.fd, name))?;
        making.finish(self.ownership.make_node(&parent, name.as_c_str(), &new))?;
        self.enter(&parent.fd, name)
    }

    /// Makes a directory.
    pub fn mkdir(&self, by: By<'_>, parent: NodeId, name: &Name, make: &Make) -> Result<Entry> {
        let parent = self.inode(parent)?;
        let new = new(by.caller, libc::S_IFDIR | make.mode, make.umask, 0);
        let making = Making::begin_inode(by, 0, || absent(&parent.fd, name))?;
        let made = self.ownership.make_dir(&parent, name.as_c_str(), &new);
        if made == Err(Errno::EXIST) && making.may_be_ours() {
            self.ownership
                .complete_dir(&parent, name.as_c_str(), &new)?;
        }
        making.finish(made)?;
        self.enter(&parent.fd, name)
    }

    /// Begins to remove `name` in `dir`, and says what it is, if that is `wanted`.
    pub fn begin_remove(
        &self,
        log: Option<&dyn IntentLog>,
        dir: &Inode,
        name: &Name,
        wanted: bool,
    ) -> Result<Removal> {
        if log.is_none() && !wanted {
            return Ok(Removal::Unknown);
        }
        let stat = stat_name(&dir.fd, name);
        let now = stat.map(|stat| stat.ino);
        match log.and_then(|log| begin_removing(log, now)) {
            Some(ino) => Ok(Removal::Done { ino }),
            None => stat.map(Removal::Of),
        }
    }

    /// Begins to rename `name` in `dir`; answers whether an earlier try has done it.
    pub fn begin_rename(&self, by: By<'_>, dir: &Inode, name: &Name) -> Result<bool> {
        let Some(log) = by.intent else {
            return Ok(false);
        };
        let now = stat_name(&dir.fd, name).map(|stat| stat.ino);
        Ok(begin_renaming(log, now))
    }

    /// The flags with which the kernel is to rename for `caller`, who asks for `flags`.
    pub fn begin_whiteout(&self, caller: &Caller, flags: RenameFlags) -> Result<RenameFlags> {
        match flags.contains(RenameFlags::WHITEOUT) {
            true if !self.ownership.prepare_whiteout(caller)? => Ok(flags - RenameFlags::WHITEOUT),
            _ => Ok(flags),
        }
    }

    /// Leaves a whiteout at `name` in `dir`, where `caller` asked for one by `flags` and the kernel
    /// did not: a character device of number 0.
    pub fn end_whiteout(
        &self,
        caller: &Caller,
        flags: RenameFlags,
        dir: &Inode,
        name: &Name,
    ) -> Result<()> {
        if !flags.contains(RenameFlags::WHITEOUT) || self.ownership.is_native() {
            return Ok(());
        }
        let whiteout = new(*caller, libc::S_IFCHR, 0, 0);
        match self.ownership.make_node(dir, name.as_c_str(), &whiteout) {
            // Something is there again: nothing shows through.
            Err(Errno::EXIST) => Ok(()),
            made => made,
        }
    }

    /// Gives `node` another name, which `link(inode, dir)` makes.
    pub fn link(
        &self,
        log: Option<&dyn IntentLog>,
        node: NodeId,
        parent: NodeId,
        name: &Name,
        link: impl FnOnce(&Inode, &Inode) -> Result<()>,
    ) -> Result<Entry> {
        let (inode, parent) = (self.inode(node)?, self.inode(parent)?);
        let making = Making::begin(log, || absent(&parent.fd, name));
        making.finish(link(&inode, &parent))?;
        self.enter(&parent.fd, name)
    }

    /// Gives `inode` the name `name` in `dir`.
    pub fn link_inode(&self, inode: &Inode, dir: &Inode, name: &CStr) -> Result<()> {
        let old = FdName::of(inode.fd.as_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        linkat(self.proc.dir(), old.as_c_str(), &dir.fd, name, flags)
    }

    /// Makes a regular file and opens it; one that exists is opened, unless it is opened with
    /// `O_EXCL`. The caller truncates for `O_TRUNC`.
    pub fn create(
        &self,
        by: By<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        opens: Opens,
    ) -> Result<CreatedFile> {
        let parent = self.inode(parent)?;
        let new = new(by.caller, libc::S_IFREG | make.mode & 0o7777, make.umask, 0);
        let making = Making::begin(by.intent, || absent(&parent.fd, name));
        let mut charge = Charge::take(by.budget, 0);
        let exclusive = opens.flags & libc::O_EXCL != 0 && !making.may_be_ours();
        // Another requester may make or remove the name between two attempts.
        for _ in 0..16 {
            let purges = by.budget.purges_in_all();
            match self.make_charged(&parent, name, &new, opens.fd_flags, &mut charge) {
                Ok(fd) => {
                    let (at, made) = ((&*parent, name), Fd::from(fd));
                    let (entry, named_at) =
                        self.entry_made(at, (&made, &opens), by.budget, purges)?;
                    return Ok(CreatedFile {
                        entry,
                        fd: made,
                        made_in: Some(parent.node),
                        named_at,
                    });
                }
                Err(Errno::EXIST) if !exclusive => {}
                Err(errno) => return Err(errno),
            }
            let entry = match self.enter(&parent.fd, name) {
                Ok(entry) => entry,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            match self
                .inode(entry.node)
                .and_then(|inode| self.reopen(&inode, opens.fd_flags))
            {
                Ok(fd) => {
                    return Ok(CreatedFile {
                        entry,
                        fd: fd.into(),
                        made_in: making.may_be_ours().then_some(parent.node),
                        named_at: None,
                    })
                }
                Err(errno) => {
                    self.forget(entry.node, 1);
                    return Err(errno);
                }
            }
        }
        Err(Errno::AGAIN)
    }

    /// Makes a file that was charged for; where it could not be, finds out whether one is there.
    fn make_charged(
        &self,
        dir: &Inode,
        name: &Name,
        new: &New,
        flags: OFlags,
        charge: &mut Result<Charge<'_>>,
    ) -> Result<OwnedFd> {
        match charge {
            Err(errno) if absent(&dir.fd, name) => Err(*errno),
            Err(_) => Err(Errno::EXIST),
            Ok(charge) => {
                let made = self.ownership.make_file(dir, name.as_c_str(), new, flags)?;
                std::mem::replace(charge, Charge::none()).keep();
                Ok(made)
            }
        }
    }

    /// Makes and opens a regular file without a name in the file system of directory `parent`; with
    /// `excl`, it can never be given one.
    pub fn tmpfile(
        &self,
        by: By<'_>,
        parent: NodeId,
        make: &Make,
        excl: bool,
        opens: Opens,
    ) -> Result<CreatedFile> {
        let parent = self.inode(parent)?;
        let new = new(by.caller, libc::S_IFREG | make.mode & 0o7777, make.umask, 0);
        let charge = Charge::take(by.budget, 0)?;
        let excl = match excl {
            true => OFlags::EXCL,
            false => OFlags::empty(),
        };
        let fd = self
            .ownership
            .make_nameless(&parent, &new, opens.fd_flags | excl)?;
        let fd = Fd::from(fd);
        let entry = match self.entry_kept(&fd, &opens)? {
            Some((entry, _)) => entry,
            None => self.entry_of(&fd)?,
        };
        charge.keep();
        Ok(CreatedFile {
            entry,
            fd,
            made_in: Some(parent.node),
            named_at: None,
        })
    }
}

fn absent(dir: impl AsFd, name: &Name) -> bool {
    matches!(stat_name(dir, name), Err(Errno::NOENT))
}

fn new(caller: Caller, mode: u32, umask: u32, rdev: u64) -> New {
    New {
        caller,
        mode,
        umask,
        rdev,
    }
}
