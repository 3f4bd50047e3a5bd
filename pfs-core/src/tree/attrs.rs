//! Attributes and ownership of inodes.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    fchown, fgetxattr, fremovexattr, utimensat, AtFlags, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT,
};

use super::proc::last_errno;
use super::xattr_names::{Acl, CAPABILITY};
use super::{ownership, Inode, Stat, Tree};
use crate::fs::{Attr, Caller, Errno, Name, NodeId, Result, SetAttr, SetTime, StatFs, Timestamp};

/// Whether the kernel takes no path for an empty one, which spares it a look at our memory: Linux
/// 6.11 and later do.
static NO_PATH: AtomicBool = AtomicBool::new(true);

/// Looks at what `fd` refers to.
#[inline]
pub fn stat_fd(fd: impl AsFd) -> Result<Stat> {
    stat_open(fd.as_fd(), libc::AT_SYMLINK_NOFOLLOW)
}

#[inline]
fn stat_open(fd: BorrowedFd<'_>, flags: i32) -> Result<Stat> {
    let flags = flags | libc::AT_EMPTY_PATH;
    if NO_PATH.load(Ordering::Relaxed) {
        match stat_at(fd, None, flags) {
            Err(Errno::FAULT) => NO_PATH.store(false, Ordering::Relaxed),
            looked => return looked,
        }
    }
    stat_at(fd, Some(c""), flags)
}

/// Looks at `name` in `dir`, without following it.
#[inline]
pub fn stat_name(dir: impl AsFd, name: &Name) -> Result<Stat> {
    stat_at(
        dir.as_fd(),
        Some(name.as_c_str()),
        libc::AT_SYMLINK_NOFOLLOW,
    )
}

/// `statx(2)`. In its callers, as is what it calls: its result is large.
#[inline]
fn stat_at(dir: BorrowedFd<'_>, path: Option<&CStr>, flags: i32) -> Result<Stat> {
    let mut stat = MaybeUninit::uninit();
    // SAFETY: the path ends with NUL, or there is none, which the kernel takes or refuses; it
    // writes a whole `struct statx` where it succeeds.
    let result = unsafe {
        libc::statx(
            dir.as_raw_fd(),
            path.map_or(std::ptr::null(), CStr::as_ptr),
            flags,
            libc::STATX_BASIC_STATS | libc::STATX_BTIME,
            stat.as_mut_ptr(),
        )
    };
    match result {
        // SAFETY: the call succeeded, so the kernel has written it.
        0 => Ok(stat_of(unsafe { stat.assume_init_ref() })),
        _ => Err(last_errno()),
    }
}

/// The inode number of what `fd` refers to, and the device that it is on.
pub(super) fn number_fd(fd: impl AsFd) -> Result<(u64, u64)> {
    let stat = stat_open(fd.as_fd(), libc::AT_STATX_DONT_SYNC)?;
    Ok((stat.ino, stat.dev))
}

/// The size in bytes of what `fd` refers to.
pub fn size_fd(fd: impl AsFd) -> Result<u64> {
    stat_open(fd.as_fd(), libc::AT_STATX_DONT_SYNC).map(|stat| stat.attr.size)
}

/// Drops a program's capabilities from the regular file behind `fd`, as the kernel does at every
/// write that it sees.
pub fn drop_capability(fd: impl AsFd) -> Result<()> {
    match fgetxattr(&fd, CAPABILITY, &mut [0u8; 0][..]) {
        Ok(_) => {}
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    match fremovexattr(&fd, CAPABILITY) {
        Err(Errno::NODATA) => Ok(()),
        // Without CAP_SETFCAP: a change of owner drops them, also one that changes nothing.
        Err(Errno::PERM) => fchown(fd, None, None),
        result => result,
    }
}

#[inline]
fn stat_of(stat: &libc::statx) -> Stat {
    Stat {
        dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        attr: Attr {
            ino: stat.stx_ino,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            blksize: stat.stx_blksize,
            mode: u32::from(stat.stx_mode),
            nlink: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            rdev_major: stat.stx_rdev_major,
            rdev_minor: stat.stx_rdev_minor,
            atime: timestamp(&stat.stx_atime),
            mtime: timestamp(&stat.stx_mtime),
            ctime: timestamp(&stat.stx_ctime),
            btime: timestamp(&stat.stx_btime),
        },
    }
}

fn timestamp(time: &libc::statx_timestamp) -> Timestamp {
    Timestamp {
        sec: time.tv_sec,
        nsec: time.tv_nsec,
    }
}

impl Tree {
    /// The attributes of `inode`, as the requester sees them.
    #[inline]
    pub fn attr(&self, inode: &Inode) -> Result<Attr> {
        self.stat(&inode.fd).map(|stat| self.seen(&stat))
    }

    /// What the requester sees of `stat`: inode numbers of other file systems mounted in the
    /// tree are kept apart from the root's.
    pub(super) fn seen(&self, stat: &Stat) -> Attr {
        let mut attr = stat.attr;
        attr.ino = self.shown_ino(stat.ino, stat.dev);
        attr
    }

    /// The inode number that the requester sees.
    pub fn shown_ino(&self, ino: u64, dev: u64) -> u64 {
        match self.is_on_root(dev) {
            true => ino,
            false => ino ^ (dev.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 << 63),
        }
    }

    /// Applies all of `set` but the size, which is the engine's. Where another changes owner or
    /// mode at the same moment, it waits for that one if it may; else `EAGAIN`.
    pub fn set_attr(&self, inode: &Inode, set: &SetAttr, may_wait: bool) -> Result<()> {
        self.ownership.set_owner(inode, set, may_wait)?;
        if set.atime.is_some() || set.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(set.atime),
                last_modification: timespec(set.mtime),
            };
            utimensat(&inode.fd, c"", &times, AtFlags::EMPTY_PATH)?;
        }
        Ok(())
    }

    /// Whether owners and types are in hidden attributes.
    pub fn is_mapped(&self) -> bool {
        !self.ownership.is_native()
    }

    /// Drops what a change of the data drops: capabilities, and where `suidgid` says so, setuid,
    /// and setgid of what its group may execute.
    pub fn drop_privileges(&self, inode: &Inode, suidgid: bool) -> Result<()> {
        if suidgid {
            self.ownership.kill_suidgid(inode)?;
        }
        self.ownership.drop_capability(inode)
    }

    /// Size and use of the file system that `inode` is on.
    pub fn statfs(&self, inode: &Inode) -> Result<StatFs> {
        let stat = rustix::fs::fstatvfs(&inode.fd)?;
        Ok(StatFs {
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            block_size: u32::try_from(stat.f_frsize).unwrap_or(4096),
            name_max: u32::try_from(stat.f_namemax).unwrap_or(255),
        })
    }

    /// `access(2)` by mode or ACL. A guest's kernel checks for itself (`default_permissions`, with
    /// the supplementary groups that are not known here); this serves requesters that do not.
    pub fn access(&self, node: NodeId, caller: &Caller, mask: u32) -> Result<()> {
        let inode = self.inode(node)?;
        let attr = self.attr(&inode)?;
        if !caller.is_root {
            let owner = (attr.uid, attr.gid);
            let granted = match self.ownership.acl(&inode, Acl::Access) {
                Ok(value) => ownership::acl::Acl::parse(&value)?
                    .is_some_and(|acl| acl.permits(owner, caller.uid, caller.gid, mask & 0o7)),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => mask & 0o7 & !class(&attr, caller) == 0,
                Err(errno) => return Err(errno),
            };
            return granted.then_some(()).ok_or(Errno::ACCESS);
        }
        let any_exec = attr.mode & 0o111 != 0 || attr.mode & libc::S_IFMT == libc::S_IFDIR;
        match mask & 0o1 != 0 && !any_exec {
            true => Err(Errno::ACCESS),
            false => Ok(()),
        }
    }
}

/// What the mode grants to `caller`, in its lowest three bits.
fn class(attr: &Attr, caller: &Caller) -> u32 {
    match caller {
        Caller { uid, .. } if *uid == attr.uid => attr.mode >> 6,
        Caller { gid, .. } if *gid == attr.gid => attr.mode >> 3,
        _ => attr.mode,
    }
}

/// Refuses the id that means "none" to the system calls.
pub(super) fn id_of(id: u32) -> Result<u32> {
    if id == u32::MAX {
        Err(Errno::INVAL)
    } else {
        Ok(id)
    }
}

fn timespec(time: Option<SetTime>) -> Timespec {
    let special = |nsec| Timespec {
        tv_sec: 0,
        tv_nsec: nsec,
    };
    match time {
        None => special(UTIME_OMIT),
        Some(SetTime::Now) => special(UTIME_NOW),
        Some(SetTime::To(time)) => Timespec {
            tv_sec: time.sec,
            tv_nsec: time.nsec.into(),
        },
    }
}
