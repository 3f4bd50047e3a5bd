//! What daemons that share a volume lock: bytes of an inode beyond any file.
//!
//! The locks belong to an open file description, so a daemon that dies loses them with its
//! descriptors. They lie beyond [`LOCK_END`], where no guest's lock is put.

use std::os::fd::{AsFd, AsRawFd};

use super::LOCK_END;
use crate::fs::{Errno, Result};
use crate::tree::proc::last_errno;

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub(super) enum Byte {
    /// Shared: the file is in use. Exclusive: its objects are being deleted.
    Guard = i64::MAX - 1,
    /// Shared: the file is open, and its layout stays. Exclusive: that is being changed.
    Layout = i64::MAX - 8,
    /// Exclusive: one of the inode's names is being removed.
    Names = i64::MAX - 4,
    /// Exclusive: the record is being changed.
    Record = i64::MAX - 9,
    /// Shared: the size is being extended. Exclusive: it is being looked at and then extended, or
    /// set.
    Resize = i64::MAX - 11,
    /// Shared: data beyond the size as it was is on its way. Exclusive: the size is being set.
    Size = i64::MAX - 12,
}

const _: () = assert!(Byte::Layout as u64 > LOCK_END);

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Shared,
    Exclusive,
    None,
}

/// Sets or drops a lock, unless another is in the way: then `EAGAIN`.
///
/// Shared locks need a descriptor that can read, exclusive ones one that can write.
pub(super) fn try_lock(fd: impl AsFd, byte: Byte, kind: Kind) -> Result<()> {
    match set(fd, byte, kind, libc::F_OFD_SETLK) {
        Err(Errno::ACCESS) => Err(Errno::AGAIN),
        result => result,
    }
}

/// Sets a lock as soon as no other is in the way: blocks.
pub(super) fn wait_lock(fd: impl AsFd, byte: Byte, kind: Kind) -> Result<()> {
    set(fd, byte, kind, libc::F_OFD_SETLKW)
}

fn set(fd: impl AsFd, byte: Byte, kind: Kind, command: libc::c_int) -> Result<()> {
    let kind = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
        Kind::None => libc::F_UNLCK,
    };
    let range = libc::flock64 {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as i64,
        l_len: 1,
        l_pid: 0,
    };
    loop {
        // SAFETY: fcntl reads the lock's description and keeps no reference to it.
        if unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, &range) } == 0 {
            return Ok(());
        }
        match last_errno() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}
