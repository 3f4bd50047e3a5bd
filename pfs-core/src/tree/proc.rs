//! `/proc/self/fd`: reaching an inode of which only an `O_PATH` descriptor is held.

use std::cell::Cell;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::thread;
use crate::fs::{Errno, Result};

/// A descriptor of `/proc/self/fd`, which stays good after a sandbox hides `/proc`.
pub struct ProcFd(OwnedFd);

/// A descriptor's number as text with a NUL.
pub struct FdName([u8; 12]);

impl FdName {
    /// The name of `fd` in `/proc/self/fd`.
    pub fn of(fd: BorrowedFd<'_>) -> FdName {
        let mut name = [0u8; 12];
        let mut at = name.len() - 1;
        let mut number = fd.as_raw_fd().unsigned_abs();
        loop {
            at -= 1;
            name[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        name.copy_within(at.., 0);
        FdName(name)
    }

    /// The name as the system calls take it.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

thread_local! {
    /// Whether this thread's working directory is a `/proc/self/fd`.
    static CWD_IS_PROC: Cell<bool> = const { Cell::new(false) };
}

impl ProcFd {
    /// Opens `/proc/self/fd`.
    pub fn open() -> Result<ProcFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Not /proc/thread-self: descriptors are used from all threads.
        rustix::fs::open("/proc/self/fd", flags, Mode::empty()).map(ProcFd)
    }

    /// The directory, for `*at` calls with a [`FdName`].
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens anew what `fd` refers to.
    pub fn open_fd(&self, fd: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
        rustix::fs::openat(
            &self.0,
            FdName::of(fd.as_fd()).as_c_str(),
            flags,
            Mode::empty(),
        )
    }

    /// Runs `call` with a path that leads to what `fd` refers to, for system calls that take
    /// nothing but paths.
    ///
    /// The path is relative to the thread's working directory, which is made its own and moved
    /// to `/proc/self/fd` the first time: a thread that calls an engine has no other use for it.
    pub fn with_path<T>(&self, fd: impl AsFd, call: impl FnOnce(&CStr) -> Result<T>) -> Result<T> {
        if !CWD_IS_PROC.get() {
            thread::own_fs()?;
            rustix::process::fchdir(&self.0)?;
            CWD_IS_PROC.set(true);
        }
        call(FdName::of(fd.as_fd()).as_c_str())
    }
}

/// The error that a C library call left behind.
pub fn last_errno() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_descriptors() {
        let name = |fd| {
            // SAFETY: the number is only printed, never used as a descriptor.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            FdName::of(fd).as_c_str().to_owned()
        };
        assert_eq!(name(0), c"0".to_owned());
        assert_eq!(name(10), c"10".to_owned());
        assert_eq!(name(i32::MAX), c"2147483647".to_owned());
    }
}
