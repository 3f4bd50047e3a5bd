//! Changes of one inode's owner, mode and ACL one after the other, over all daemons of a volume.
//!
//! In mapped mode a chmod reads an attribute and writes it back, which the kernel would let
//! another change come between. Locks on the inodes themselves are not ours to use: they are the
//! guests', and directories have none. So bytes of one file of the volume are locked, each for
//! many inodes. A daemon that dies lets go.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::super::proc::last_errno;
use crate::fs::{Errno, Result};

/// Changes meet only for inodes whose numbers are alike.
const SHARDS: usize = 64;

/// The locks.
pub(super) struct ChangeLocks {
    file: OwnedFd,
    /// Byte by byte: locks of the file are the process's, not a thread's.
    shards: Box<[Mutex<()>]>,
}

/// A lock that is held.
pub(super) struct Held<'a> {
    locks: &'a ChangeLocks,
    byte: usize,
    _thread: MutexGuard<'a, ()>,
}

impl ChangeLocks {
    /// Locks on bytes of `file`, which is open for writing.
    pub fn new(file: OwnedFd) -> ChangeLocks {
        ChangeLocks {
            file,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Holds the changes of inode `ino`; waits for others.
    pub fn hold(&self, ino: u64) -> Result<Held<'_>> {
        let byte = ino as usize % SHARDS;
        let thread = self.shards[byte]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.lock(byte, thread, libc::F_OFD_SETLKW)
    }

    /// As [`hold`](Self::hold), without waiting: `EAGAIN` where another is at it.
    pub fn try_hold(&self, ino: u64) -> Result<Held<'_>> {
        let byte = ino as usize % SHARDS;
        let thread = match self.shards[byte].try_lock() {
            Ok(thread) => thread,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Errno::AGAIN),
        };
        match self.lock(byte, thread, libc::F_OFD_SETLK) {
            Err(Errno::ACCESS) => Err(Errno::AGAIN),
            result => result,
        }
    }

    fn lock<'a>(
        &'a self,
        byte: usize,
        thread: MutexGuard<'a, ()>,
        command: libc::c_int,
    ) -> Result<Held<'a>> {
        self.set(byte, command, libc::F_WRLCK)?;
        Ok(Held {
            locks: self,
            byte,
            _thread: thread,
        })
    }

    fn set(&self, byte: usize, command: libc::c_int, kind: libc::c_int) -> Result<()> {
        let range = libc::flock64 {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte as i64,
            l_len: 1,
            l_pid: 0,
        };
        loop {
            // SAFETY: fcntl reads the lock's description and keeps no reference to it.
            if unsafe { libc::fcntl(self.file.as_raw_fd(), command, &range) } == 0 {
                return Ok(());
            }
            match last_errno() {
                Errno::INTR => {}
                errno => return Err(errno),
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Letting go of a lock that is held cannot fail.
        let _ = self.locks.set(self.byte, libc::F_OFD_SETLK, libc::F_UNLCK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_in_this_process_and_in_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || file.reopen().map(OwnedFd::from).unwrap();
        // Two open files are as two daemons.
        let (here, there) = (ChangeLocks::new(open()), ChangeLocks::new(open()));
        let held = here.hold(5).unwrap();
        for locks in [&here, &there] {
            assert_eq!(locks.try_hold(5).err(), Some(Errno::AGAIN));
            assert_eq!(locks.try_hold(5 + SHARDS as u64).err(), Some(Errno::AGAIN));
            assert!(locks.try_hold(6).is_ok());
        }
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| there.hold(5).map(drop));
            drop(held);
            assert_eq!(waits.join().unwrap(), Ok(()));
        });
        assert!(here.try_hold(5).is_ok());
    }
}
