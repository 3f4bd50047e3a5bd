//! Locks of the host's kernel on bytes of a file that belong to an open file description: whoever
//! shares it shares them, and they go with its last descriptor.

use std::os::fd::{AsFd, AsRawFd};

use crate::fs::{Errno, Result};
use crate::tree::proc::last_errno;

/// How bytes are locked. Shared locks need a descriptor that can read, exclusive ones one that can
/// write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Shared,
    Exclusive,
    None,
}

/// A lock of `len` bytes from `start`, or of all from there where `len` is 0.
pub fn describe(kind: Kind, start: i64, len: i64) -> libc::flock64 {
    let kind = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
        Kind::None => libc::F_UNLCK,
    };
    libc::flock64 {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

/// Sets or drops the lock `range`: `EAGAIN` where another is in the way. With `wait`, waits for that
/// other, until a signal ends it with `EINTR`; then nothing has changed.
pub fn set(fd: impl AsFd, range: &libc::flock64, wait: bool) -> Result<()> {
    let command = match wait {
        true => libc::F_OFD_SETLKW,
        false => libc::F_OFD_SETLK,
    };
    // SAFETY: fcntl reads the lock's description and keeps no reference to it.
    match unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, range) } {
        0 => Ok(()),
        _ => match last_errno() {
            // POSIX allows both for the same.
            Errno::ACCESS => Err(Errno::AGAIN),
            errno => Err(errno),
        },
    }
}

/// The lock of another description that is in the way of `range`; where none is, its kind is
/// `F_UNLCK`.
pub fn in_the_way(fd: impl AsFd, mut range: libc::flock64) -> Result<libc::flock64> {
    // SAFETY: fcntl reads and writes the lock's description and keeps no reference to it.
    match unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &mut range) } {
        0 => Ok(range),
        _ => Err(last_errno()),
    }
}

/// Locks or unlocks `byte`, unless another is in the way: then `EAGAIN`.
pub fn try_lock(fd: impl AsFd, byte: i64, kind: Kind) -> Result<()> {
    set_byte(fd, byte, kind, false)
}

/// Locks `byte` as soon as no other is in the way: blocks.
pub fn wait_lock(fd: impl AsFd, byte: i64, kind: Kind) -> Result<()> {
    set_byte(fd, byte, kind, true)
}

fn set_byte(fd: impl AsFd, byte: i64, kind: Kind, wait: bool) -> Result<()> {
    let range = describe(kind, byte, 1);
    loop {
        match set(&fd, &range, wait) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_keeps_other_descriptions_out_and_is_told_of() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (one, other) = (file.reopen().unwrap(), file.reopen().unwrap());
        set(&one, &describe(Kind::Shared, 10, 5), false).unwrap();
        try_lock(&other, 12, Kind::Shared).unwrap();
        assert_eq!(try_lock(&other, 12, Kind::Exclusive), Err(Errno::AGAIN));
        let found = in_the_way(&other, describe(Kind::Exclusive, 0, 0)).unwrap();
        assert_eq!((found.l_start, found.l_len), (10, 5));
        assert_eq!(i32::from(found.l_type), libc::F_RDLCK);
        let found = in_the_way(&other, describe(Kind::Exclusive, 15, 0)).unwrap();
        assert_eq!(i32::from(found.l_type), libc::F_UNLCK);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| wait_lock(&other, 14, Kind::Exclusive));
            drop(one);
            assert_eq!(waits.join().unwrap(), Ok(()));
        });
    }
}
