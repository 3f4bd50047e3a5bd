//! The locks of the host's kernel, which belong to open file descriptions: `F_OFD_SETLK` for
//! byte ranges, `flock(2)` for whole files.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use super::alarm::Alarm;
use super::{LockFile, Request, Span};
use crate::fs::{Cancel, Errno, LockKind, Result};
use crate::ofd::{self, Kind};
use crate::tree::proc::last_errno;

impl LockFile for OwnedFd {
    fn set(&self, request: &Request) -> Result<()> {
        set(self, request, false)
    }

    fn in_the_way(&self, request: &Request) -> Result<Option<(LockKind, Span)>> {
        in_the_way(self, request)
    }

    fn wait(&self, request: &Request, cancel: &Cancel) -> Result<()> {
        let alarm = Arc::new(Alarm::for_this_thread()?);
        let bell = alarm.clone();
        cancel.during(
            move || bell.ring(),
            || loop {
                if let Some(errno) = cancel.why() {
                    return Err(errno);
                }
                match set(self, request, true) {
                    Err(Errno::INTR) => {}
                    result => return result,
                }
            },
        )
    }
}

/// Sets or drops what `request` says. With `wait`, waits for what is in the way, until a signal ends
/// it with `EINTR`; then nothing has changed.
fn set(fd: &OwnedFd, request: &Request, wait: bool) -> Result<()> {
    if request.key.flock {
        return flock(fd, request.kind, wait);
    }
    ofd::set(fd, &describe(request.kind, request.span), wait)
}

/// A lock of another description that is in the way of `request`.
fn in_the_way(fd: &OwnedFd, request: &Request) -> Result<Option<(LockKind, Span)>> {
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
