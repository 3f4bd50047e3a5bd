//! Names: lookup, create, remove, rename, link.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    linkat, mkdirat, mknodat, openat, readlinkat, symlinkat, unlinkat, AtFlags, FileType, Mode,
    OFlags, RenameFlags,
};

use super::attrs::{stat_fd, stat_name};
use super::proc::FdName;
use super::replay::Making;
use super::thread::Umask;
use super::{Inode, Stat, Tree};
use crate::fs::{Caller, Entry, Errno, Intent, IntentLog, Make, Name, NodeId, Result};

/// A file made or found by [`Tree::create`].
pub struct CreatedFile {
    pub entry: Entry,
    /// Opened as asked.
    pub fd: OwnedFd,
    /// The directory that it was made in; `None` where it was found.
    pub made_in: Option<NodeId>,
}

/// A name that is to go.
pub enum Removal {
    /// An earlier try removed it; it was this inode.
    Done { ino: u64 },
    /// It is this one.
    Of(Stat),
}

/// For whom, and with what memory of an earlier try, a name is made.
#[derive(Clone, Copy)]
pub struct By<'a> {
    pub caller: Caller,
    pub intent: Option<&'a dyn IntentLog>,
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
        self.find(&parent.fd, name)
    }

    /// Finds `name` in `dir` and takes one lookup on it.
    pub(super) fn find(&self, dir: impl AsFd, name: &Name) -> Result<Entry> {
        // One system call where the inode's descriptor is held already.
        let stat = stat_name(&dir, name)?;
        match self.inodes.known(&stat) {
            Some(node) => Ok(Entry {
                node,
                attr: self.seen(&stat),
            }),
            None => self.enter(dir, name),
        }
    }

    /// Opens `name` in `dir` without following it, and takes one lookup on what is there.
    fn enter(&self, dir: impl AsFd, name: &Name) -> Result<Entry> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(dir, name.as_c_str(), flags, Mode::empty())?;
        let stat = stat_fd(&fd)?;
        self.entry(fd, &stat)
    }

    fn entry(&self, fd: OwnedFd, stat: &Stat) -> Result<Entry> {
        let inode = self.inodes.intern(fd, stat)?;
        Ok(Entry {
            node: inode.node,
            attr: self.seen(stat),
        })
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        if inode.file_type != libc::S_IFLNK {
            return Err(Errno::INVAL);
        }
        readlinkat(&inode.fd, c"", Vec::new()).map(std::ffi::CString::into_bytes)
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, by: By<'_>, parent: NodeId, name: &Name, target: &CStr) -> Result<Entry> {
        let parent = self.inode(parent)?;
        self.creds.act_as(&by.caller)?;
        let making = Making::begin(by.intent, || absent(&parent.fd, name));
        making.finish(symlinkat(target, &parent.fd, name.as_c_str()))?;
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
        let file_type = match make.mode & libc::S_IFMT {
            0 => FileType::RegularFile,
            other => FileType::from_raw_mode(other),
        };
        if matches!(
            file_type,
            FileType::Directory | FileType::Symlink | FileType::Unknown
        ) {
            return Err(Errno::INVAL);
        }
        let parent = self.inode(parent)?;
        self.creds.act_as(&by.caller)?;
        let making = Making::begin(by.intent, || absent(&parent.fd, name));
        let _umask = Umask::set(make.umask)?;
        making.finish(mknodat(
            &parent.fd,
            name.as_c_str(),
            file_type,
            mode_of(make),
            rdev,
        ))?;
        self.enter(&parent.fd, name)
    }

    /// Makes a directory.
    pub fn mkdir(&self, by: By<'_>, parent: NodeId, name: &Name, make: &Make) -> Result<Entry> {
        let parent = self.inode(parent)?;
        self.creds.act_as(&by.caller)?;
        let making = Making::begin(by.intent, || absent(&parent.fd, name));
        let _umask = Umask::set(make.umask)?;
        making.finish(mkdirat(&parent.fd, name.as_c_str(), mode_of(make)))?;
        self.enter(&parent.fd, name)
    }

    /// Begins to remove `name` in `dir`, and says what it is.
    pub fn begin_remove(
        &self,
        log: Option<&dyn IntentLog>,
        dir: &Inode,
        name: &Name,
    ) -> Result<Removal> {
        let stat = stat_name(&dir.fd, name);
        let now = stat.map(|stat| stat.ino);
        match log.map(|log| (log, log.replayed())) {
            Some((_, Some(Intent::Victim { ino }))) if now != Ok(ino) => {
                return Ok(Removal::Done { ino });
            }
            Some((log, _)) => {
                if let Ok(ino) = now {
                    log.record(Intent::Victim { ino });
                }
            }
            None => {}
        }
        stat.map(Removal::Of)
    }

    /// Removes a name; with `AtFlags::REMOVEDIR`, an empty directory.
    pub fn remove(
        &self,
        log: Option<&dyn IntentLog>,
        parent: NodeId,
        name: &Name,
        flags: AtFlags,
    ) -> Result<()> {
        let parent = self.inode(parent)?;
        match self.begin_remove(log, &parent, name)? {
            Removal::Done { .. } => Ok(()),
            Removal::Of(_) => unlinkat(&parent.fd, name.as_c_str(), flags),
        }
    }

    /// Begins to rename `name` in `dir`; answers whether an earlier try has done it.
    pub fn begin_rename(
        &self,
        by: By<'_>,
        dir: &Inode,
        name: &Name,
        flags: RenameFlags,
    ) -> Result<bool> {
        if flags.contains(RenameFlags::WHITEOUT) {
            // What it leaves behind is made by the caller.
            self.creds.act_as(&by.caller)?;
        }
        let log = by.intent;
        if let Some(log) = log {
            let now = stat_name(&dir.fd, name).map(|stat| stat.ino);
            match (log.replayed(), now) {
                (Some(Intent::Source { ino }), now) if now != Ok(ino) => return Ok(true),
                (_, Ok(ino)) => log.record(Intent::Source { ino }),
                (_, Err(_)) => {}
            }
        }
        Ok(false)
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

    /// Makes a regular file and opens it with [`file_flags`] of `flags`; one that exists is
    /// opened, unless `flags` has `O_EXCL`. The caller truncates for `O_TRUNC`.
    pub fn create(
        &self,
        by: By<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        flags: i32,
        open_flags: OFlags,
    ) -> Result<CreatedFile> {
        let parent = self.inode(parent)?;
        self.creds.act_as(&by.caller)?;
        let making = Making::begin(by.intent, || absent(&parent.fd, name));
        let exclusive = flags & libc::O_EXCL != 0 && !making.may_be_ours();
        let make_flags =
            open_flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Another requester may make or remove the name between two attempts.
        for _ in 0..16 {
            match make_file(&parent.fd, name.as_c_str(), make_flags, make) {
                Ok(fd) => {
                    let path = self.proc.open_fd(&fd, OFlags::PATH | OFlags::CLOEXEC)?;
                    let entry = self.entry(path, &stat_fd(&fd)?)?;
                    return Ok(CreatedFile {
                        entry,
                        fd,
                        made_in: Some(parent.node),
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
                .and_then(|inode| self.reopen(&inode, open_flags))
            {
                Ok(fd) => {
                    return Ok(CreatedFile {
                        entry,
                        fd,
                        made_in: making.may_be_ours().then_some(parent.node),
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

    /// Makes and opens a regular file without a name in the file system of directory `parent`; with
    /// `excl`, it can never be given one.
    pub fn tmpfile(
        &self,
        caller: &Caller,
        parent: NodeId,
        make: &Make,
        excl: bool,
        open_flags: OFlags,
    ) -> Result<CreatedFile> {
        let parent = self.inode(parent)?;
        self.creds.act_as(caller)?;
        let excl = match excl {
            true => OFlags::EXCL,
            false => OFlags::empty(),
        };
        let make_flags = open_flags | OFlags::TMPFILE | OFlags::CLOEXEC | excl;
        let fd = make_file(&parent.fd, c".", make_flags, make)?;
        let path = self.proc.open_fd(&fd, OFlags::PATH | OFlags::CLOEXEC)?;
        let entry = self.entry(path, &stat_fd(&fd)?)?;
        Ok(CreatedFile {
            entry,
            fd,
            made_in: Some(parent.node),
        })
    }
}

fn absent(dir: impl AsFd, name: &Name) -> bool {
    matches!(stat_name(dir, name), Err(Errno::NOENT))
}

/// The mode whole: the umask is the kernel's to apply, or a default ACL in its place.
fn mode_of(make: &Make) -> Mode {
    Mode::from_raw_mode(make.mode & 0o7777)
}

fn make_file(dir: impl AsFd, name: &CStr, flags: OFlags, make: &Make) -> Result<OwnedFd> {
    let _umask = Umask::set(make.umask)?;
    openat(dir, name, flags, mode_of(make))
}
