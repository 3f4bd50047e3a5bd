//! Changes of one inode's owner, mode and ACL one after the other, over all daemons of a volume.
//!
//! In mapped mode a chmod reads an attribute and writes it back, which the kernel would let
//! another change come between. Locks on the inodes themselves are not ours to use: they are the
//! guests', and directories have none. So bytes of one file of the volume are locked, each for
//! many inodes. A daemon that dies lets go.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::fs::{Errno, Result};
use crate::ofd::{self, Kind};

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
        ofd::wait_lock(&self.file, byte as i64, Kind::Exclusive)?;
        Ok(self.held(byte, thread))
    }

    /// As [`hold`](Self::hold), without waiting: `EAGAIN` where another is at it.
    pub fn try_hold(&self, ino: u64) -> Result<Held<'_>> {
        let byte = ino as usize % SHARDS;
        let thread = match self.shards[byte].try_lock() {
            Ok(thread) => thread,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(Errno::AGAIN),
        };
        ofd::try_lock(&self.file, byte as i64, Kind::Exclusive)?;
        Ok(self.held(byte, thread))
    }

    fn held<'a>(&'a self, byte: usize, thread: MutexGuard<'a, ()>) -> Held<'a> {
        Held {
            locks: self,
            byte,
            _thread: thread,
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Letting go of a lock that is held cannot fail.
        let _ = ofd::try_lock(&self.locks.file, self.byte as i64, Kind::None);
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
