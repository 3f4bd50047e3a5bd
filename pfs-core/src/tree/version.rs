//! Whether a file is what it was when a requester's cache of it was filled.
//!
//! A requester that opens a file drops what it has cached of it, unless it is told that nothing
//! has changed since. The proof is the inode's change time, as other daemons and programs move it
//! too. It has two weaknesses, and a rule for each:
//!
//! - *It moves in ticks* of the kernel's clock (1 to 10 ms), so a second change may leave no
//!   trace. A version is proof only when its change time lies [`SETTLED_MS`] back.
//! - *It moves before the data does*: the kernel, and the striped engine, set the times when a
//!   write begins. So when a file that was written is closed, and its change time lies more than
//!   [`CLOSED_MS`] back by then, it is moved once more: a reader that took it for proof before
//!   the data was there learns that it was none. As `CLOSED_MS` is the shorter, one that finds
//!   the change time settled finds all data that closed writers wrote.
//!
//! What a version says of the cache holds from the moment the requester has acted on the answer
//! to its open, which is certain only once it uses the handle: see [`Inode::confirm`].

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Mutex;

use rustix::fs::{
    fstatfs, statx, utimensat, AtFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::time::{clock_gettime, ClockId};

use super::{Inode, Tree};
use crate::fs::{Result, Timestamp, Watch};
use crate::sync::lock;

/// How old a change time must be to be proof.
const SETTLED_MS: i64 = 100;
/// How old a change time may be when a writer closes.
const CLOSED_MS: i64 = 50;
/// Some file systems keep whole seconds only (ext4 with small inodes).
const WHOLE_SECOND_MS: i64 = 1000;

/// File systems of this host, whose change times are its clock's, and of which `close(2)` has
/// nothing to say: their magic numbers in `statfs(2)`.
const LOCAL_MAGIC: [u64; 6] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0xf2f5_2010, // f2fs
    0x2fc1_2fc1, // zfs
];

/// Whether `fd` is on a file system of this host.
pub fn is_local(fd: impl std::os::fd::AsFd) -> bool {
    fstatfs(fd).is_ok_and(|stat| LOCAL_MAGIC.contains(&(stat.f_type as u64)))
}

/// What changes whenever the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    ctime: Timestamp,
    size: u64,
}

/// What is known of an inode's changes, for as long as its descriptor is held.
#[derive(Default)]
pub(super) struct Changes {
    /// All that the requester has cached is of this version or later.
    cached: Mutex<Option<Version>>,
    /// It was written since its change time was last seen to.
    written: AtomicBool,
    /// Writes under way.
    writing: AtomicU32,
}

impl Inode {
    /// A write begins; its reply is to be [watched](Watch) by the inode.
    pub(super) fn begin_write(&self) {
        self.changes.writing.fetch_add(1, Ordering::SeqCst);
        self.changes.written.store(true, Ordering::SeqCst);
    }

    /// It may have been written by a process before this one.
    pub(super) fn assume_written(&self) {
        self.changes.written.store(true, Ordering::SeqCst);
    }

    /// Whether what the requester has cached is of this version.
    pub(super) fn is_cached(&self, version: &Version) -> bool {
        lock(&self.changes.cached).as_ref() == Some(version)
    }

    /// The requester uses a handle that was opened at `version`: since its open it has cached
    /// nothing older.
    pub(super) fn confirm(&self, version: &Version) {
        let mut cached = lock(&self.changes.cached);
        if cached.is_none_or(|known| known.ctime <= version.ctime) {
            *cached = Some(*version);
        }
    }
}

impl Watch for Inode {
    /// A write that [`began`](Inode::begin_write) is done.
    fn answered(&self) {
        self.changes.writing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Tree {
    /// The version of an inode, if it is proof against any later change.
    pub(super) fn version(&self, inode: &Inode) -> Option<Version> {
        if !self.is_local(inode) {
            return None;
        }
        let stat = statx(
            &inode.fd,
            c"",
            AtFlags::EMPTY_PATH,
            StatxFlags::CTIME | StatxFlags::SIZE,
        );
        let stat = stat.ok()?;
        let version = Version {
            ctime: stat.stx_ctime.into(),
            size: stat.stx_size,
        };
        let whole_second = if version.ctime.nsec == 0 {
            WHOLE_SECOND_MS
        } else {
            0
        };
        (age_ms(version.ctime) > SETTLED_MS + whole_second).then_some(version)
    }

    /// A file that may have been written is closed: sees to it that no version from before the
    /// end of the last write is taken for proof.
    pub(super) fn settle(&self, inode: &Inode) -> Result<()> {
        let changes = &inode.changes;
        if !changes.written.swap(false, Ordering::SeqCst) || !self.is_local(inode) {
            return Ok(());
        }
        // Another's write, which its own close answers for.
        if changes.writing.load(Ordering::SeqCst) > 0 {
            changes.written.store(true, Ordering::SeqCst);
        }
        let stat = statx(
            &inode.fd,
            c"",
            AtFlags::EMPTY_PATH,
            StatxFlags::CTIME | StatxFlags::ATIME,
        )?;
        if (0..=CLOSED_MS).contains(&age_ms(stat.stx_ctime.into())) {
            return Ok(());
        }
        // Any change will do; to set the access time to what it is changes nothing else.
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: stat.stx_atime.tv_sec,
                tv_nsec: stat.stx_atime.tv_nsec.into(),
            },
            last_modification: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
        };
        utimensat(&inode.fd, c"", &times, AtFlags::EMPTY_PATH)
    }

    fn is_local(&self, inode: &Inode) -> bool {
        self.root_is_local && inode.dev == self.root_dev && inode.file_type == libc::S_IFREG
    }
}

/// How long ago `time` was, in ms; negative for what is to come.
fn age_ms(time: Timestamp) -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    let sec = now.tv_sec.saturating_sub(time.sec).saturating_mul(1000);
    sec.saturating_add((now.tv_nsec - i64::from(time.nsec)) / 1_000_000)
}
