//! The locks of the host's kernel, which belong to open file descriptions: `F_OFD_SETLK` for
//! byte ranges, `flock(2)` for whole files.

use std::os::fd::{AsRawFd, OwnedFd};

use super::{Request, Span};
use crate::fs::{LockKind, Result};
use crate::ofd::{self, Kind};
use crate::tree::proc::last_errno;

/// Sets or drops what `request` says: `EAGAIN` where another has a lock in the way. With `wait`,
/// waits for that other, until a signal ends it with `EINTR`; then nothing has changed.
pub(super) fn set(fd: &OwnedFd, request: &Request, wait: bool) -> Result<()> {
    if request.key.flock {
        return flock(fd, request.kind, wait);
    }
    ofd::set(fd, &describe(request.kind, request.span), wait)
}

/// A lock of another description that is in the way of `request`.
pub(super) fn in_the_way(fd: &OwnedFd, request: &Request) -> Result<Option<(LockKind, Span)>> {
    let range = ofd::in_the_way(fd, describe(request.kind, request.span))?;
    let kind = match i32::from(range.l_type) {
        libc::F_RDLCK => LockKind::Read,
        libc::F_WRLCK => LockKind::Write,
        _ => return Ok(None),
    };
    let first = range.l_start.max(0) as u64;
    let last = match range.l_len {
        len @ 1.. => first.saturating_add(len as u64 - 1),
        _ => Span::ALL.last,
    };
    Ok(Some((kind, Span { first, last })))
}

fn describe(kind: LockKind, span: Span) -> libc::flock64 {
    let kind = match kind {
        LockKind::Read => Kind::Shared,
        LockKind::Write => Kind::Exclusive,
        LockKind::Unlock => Kind::None,
    };
    let len = match span.last < Span::ALL.last {
        true => (span.last - span.first + 1) as i64,
        false => 0,
    };
    ofd::describe(kind, span.first as i64, len)
}

fn flock(fd: &OwnedFd, kind: LockKind, wait: bool) -> Result<()> {
    let operation = match kind {
        LockKind::Read => libc::LOCK_SH,
        LockKind::Write => libc::LOCK_EX,
        LockKind::Unlock => libc::LOCK_UN,
    };
    let no_wait = if wait { 0 } else { libc::LOCK_NB };
    // SAFETY: flock takes no memory.
    match unsafe { libc::flock(fd.as_raw_fd(), operation | no_wait) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}
