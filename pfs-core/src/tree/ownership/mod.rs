//! Who owns an inode, and what it is, to the guest.
//!
//! - [`native`]: what the host's inode says: owners, modes, ACLs and devices are the host's own.
//! - [`mapped`]: what a hidden attribute of it says ([`owner`]), so that the daemon may be an
//!   ordinary user, and a guest can plant nothing on the host: every inode there is a regular
//!   file or a directory for the daemon's user alone. [`make`]: how such inodes come to be.
//!   [`acl`]: what the kernel would do with ACLs. [`lock`]: one change at a time.
//!
//! Whatever looks at a type, an owner or a mode, or makes an inode, goes through [`Ownership`].

pub(super) mod acl;
mod lock;
mod make;
mod mapped;
mod native;
mod owner;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;

pub(super) use mapped::Mapped;
pub(super) use native::Native;

use super::xattr_names::Acl;
use super::{Inode, Stat};
use crate::fs::{Caller, Result, SetAttr};

/// What a new inode shall be.
#[derive(Clone, Copy)]
pub(super) struct New {
    pub caller: Caller,
    /// With the file type.
    pub mode: u32,
    /// Not yet applied to `mode`.
    pub umask: u32,
    /// Of a device.
    pub rdev: u64,
}

/// A way of keeping owners and types.
pub(super) trait Ownership: Send + Sync {
    /// Whether the host's kernel keeps them.
    fn is_native(&self) -> bool;

    /// Makes of `stat`, which the host says of the inode behind `fd`, what the guest sees.
    fn complete(&self, fd: BorrowedFd<'_>, stat: &mut Stat) -> Result<()>;

    /// Makes a regular file and opens it with `flags`; `EEXIST` where the name is taken.
    fn make_file(&self, dir: &Inode, name: &CStr, new: &New, flags: OFlags) -> Result<OwnedFd>;

    /// Makes and opens a regular file without a name.
    fn make_nameless(&self, dir: &Inode, new: &New, flags: OFlags) -> Result<OwnedFd>;

    /// Makes a file, fifo, socket or device node.
    fn make_node(&self, dir: &Inode, name: &CStr, new: &New) -> Result<()>;

    /// Makes a directory.
    fn make_dir(&self, dir: &Inode, name: &CStr, new: &New) -> Result<()>;

    /// Completes a directory that an earlier [`make_dir`](Self::make_dir) may have left half made.
    fn complete_dir(&self, dir: &Inode, name: &CStr, new: &New) -> Result<()>;

    /// Makes a symbolic link.
    fn make_symlink(&self, dir: &Inode, name: &CStr, target: &CStr, new: &New) -> Result<()>;

    /// The target of a symbolic link.
    fn read_link(&self, inode: &Inode) -> Result<Vec<u8>>;

    /// Gets ready for a rename that leaves a whiteout of `caller` behind. Answers whether the
    /// kernel makes it; else [`make_node`](Self::make_node) is to.
    fn prepare_whiteout(&self, caller: &Caller) -> Result<bool>;

    /// Applies owner and mode of `set`, and drops what a change of owner drops. Where another
    /// changes them at the same moment, it waits for that one if it may; else `EAGAIN`.
    fn set_owner(&self, inode: &Inode, set: &SetAttr, may_wait: bool) -> Result<()>;

    /// Drops setuid, and setgid of what its group may execute, as an unprivileged write does.
    fn kill_suidgid(&self, inode: &Inode) -> Result<()>;

    /// Drops a program's capabilities before its data changes, where the kernel does not.
    fn drop_capability(&self, inode: &Inode) -> Result<()>;

    /// Reads an ACL: `ENODATA` where there is none.
    fn acl(&self, inode: &Inode, which: Acl) -> Result<Vec<u8>>;

    /// Sets an ACL, or removes it; the mode follows. May wait for other changes of the inode.
    fn set_acl(
        &self,
        inode: &Inode,
        which: Acl,
        value: Option<&[u8]>,
        kill_sgid: bool,
    ) -> Result<()>;
}

/// What the guest sees of the inode behind `fd`.
#[inline]
pub(super) fn stat(ownership: &dyn Ownership, fd: impl AsFd) -> Result<Stat> {
    let mut stat = super::attrs::stat_fd(&fd)?;
    ownership.complete(fd.as_fd(), &mut stat)?;
    Ok(stat)
}
