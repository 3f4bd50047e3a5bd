//! What daemons that share a volume lock: bytes of an inode beyond any file.
//!
//! The locks belong to an open file description, so a daemon that dies loses them with its
//! descriptors. They lie beyond [`LOCK_END`], where no guest's lock is put.

use std::os::fd::AsFd;

use super::LOCK_END;
use crate::fs::Result;
use crate::ofd;
pub(super) use crate::ofd::Kind;

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

/// See [`ofd::try_lock`].
pub(super) fn try_lock(fd: impl AsFd, byte: Byte, kind: Kind) -> Result<()> {
    ofd::try_lock(fd, byte as i64, kind)
}

/// See [`ofd::wait_lock`].
pub(super) fn wait_lock(fd: impl AsFd, byte: Byte, kind: Kind) -> Result<()> {
    ofd::wait_lock(fd, byte as i64, kind)
}
