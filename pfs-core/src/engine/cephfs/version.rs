//! Whether a file is what it was when a requester's cache of it was filled.
//!
//! The proof is what the metadata server says at an open: the file's change time, size and change
//! number, for which it first has all who write tell what they have changed. So a writer that has closed, or
//! only written, on this host or another, by a daemon or any CephFS client, has moved it. A requester's
//! own writes move it as well: the first open after them drops the cache, unless the server's word
//! after the last of them is known, from its close.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use super::ffi::ceph_statx;
use crate::fs::Watch;
use crate::sync::lock;

/// What changes whenever the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    change: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Version {
    /// Of what the server says.
    pub fn of(stx: &ceph_statx) -> Version {
        let both = |time: libc::timespec| (time.tv_sec, time.tv_nsec);
        Version {
            change: stx.stx_version,
            size: stx.stx_size,
            mtime: both(stx.stx_mtime),
            ctime: both(stx.stx_ctime),
        }
    }
}

/// What is known of an inode's changes, for as long as it is held.
#[derive(Default)]
pub struct Changes {
    /// All that the requester has cached is of this version or later, where no write has begun since.
    cached: Mutex<Option<Version>>,
    /// Writes begun here.
    begun: AtomicU64,
    /// Writes done.
    done: AtomicU64,
}

impl Changes {
    /// A write begins; its reply is to be [watched](Watch) by this.
    pub fn begin_write(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        *lock(&self.cached) = None;
    }

    /// Whether what the requester has cached is of this version.
    pub fn is_cached(&self, version: &Version) -> bool {
        lock(&self.cached).as_ref() == Some(version)
    }

    /// How many writes have begun, if none is under way.
    pub fn quiet(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::SeqCst);
        (self.done.load(Ordering::SeqCst) == begun).then_some(begun)
    }

    /// The requester uses a handle that was opened at `version`, when `begun` writes had begun: since
    /// its open it has cached nothing older.
    pub fn confirm(&self, version: &Version, begun: u64) {
        let mut cached = lock(&self.cached);
        if self.begun.load(Ordering::SeqCst) == begun {
            *cached = Some(*version);
        }
    }
}

impl Watch for super::nodes::Node {
    /// A write that began is done.
    fn answered(&self) {
        self.changes.done.fetch_add(1, Ordering::SeqCst);
    }
}
