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
//! A change that is made here is known without a look at the inode: its change time is not before the
//! moment when the change began.
//!
//! What a version says of the cache holds from the moment the requester has acted on the answer
//! to its open, which is certain only once it uses the handle: see [`Inode::confirm`].

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::Mutex;

use rustix::fs::{fstatfs, utimensat, AtFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::time::{clock_gettime, ClockId};

use super::attrs::stat_fd;
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
    /// When the first write began since its change time was last seen to, in ms: [`NEVER`] for
    /// none, [`UNKNOWN`] where there may have been one.
    written_ms: AtomicI64,
    /// When a change last began here, in ms.
    changed_ms: AtomicI64,
    /// Writes under way.
    writing: AtomicU32,
}

/// No write.
const NEVER: i64 = 0;
/// A write that nobody here has seen begin: long ago.
const UNKNOWN: i64 = 1;

impl Inode {
    /// A write begins; its reply is to be [watched](Watch) by the inode.
    pub(super) fn begin_write(&self) {
        let (changes, now) = (&self.changes, coarse_now_ms());
        changes.writing.fetch_add(1, Ordering::SeqCst);
        let first = changes.written_ms.load(Ordering::SeqCst) == NEVER;
        if first {
            // Where another was first, it is that one's.
            let order = (Ordering::SeqCst, Ordering::SeqCst);
            let _ = changes
                .written_ms
                .compare_exchange(NEVER, now, order.0, order.1);
        }
        changes.changed_ms.store(now, Ordering::Relaxed);
    }

    /// It was made just now.
    pub(super) fn was_made(&self) {
        self.changes
            .changed_ms
            .store(coarse_now_ms(), Ordering::Relaxed);
    }

    /// It may have been written by a process before this one.
    pub(super) fn assume_written(&self) {
        self.changes.written_ms.store(UNKNOWN, Ordering::SeqCst);
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

impl Changes {
    /// Whether a change here is so young that the change time cannot be proof.
    fn is_unsettled(&self) -> bool {
        let changed_ms = self.changed_ms.load(Ordering::Relaxed);
        (0..=SETTLED_MS).contains(&(now_ms() - changed_ms))
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
        if !self.is_local(inode) || inode.changes.is_unsettled() {
            return None;
        }
        let attr = stat_fd(&inode.fd).ok()?.attr;
        let version = Version {
            ctime: attr.ctime,
            size: attr.size,
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
        let written_ms = changes.written_ms.swap(NEVER, Ordering::SeqCst);
        if written_ms == NEVER || !self.is_local(inode) {
            return Ok(());
        }
        // Another's write, which its own close answers for.
        if changes.writing.load(Ordering::SeqCst) > 0 {
            changes.written_ms.store(written_ms, Ordering::SeqCst);
        }
        // The change time is not before the first write, nor is what any of them wrote.
        if (0..=CLOSED_MS).contains(&(now_ms() - written_ms)) {
            return Ok(());
        }
        let attr = stat_fd(&inode.fd)?.attr;
        if (0..=CLOSED_MS).contains(&age_ms(attr.ctime)) {
            return Ok(());
        }
        // Any change will do; to set the access time to what it is changes nothing else.
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: attr.atime.sec,
                tv_nsec: attr.atime.nsec.into(),
            },
            last_modification: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
        };
        utimensat(&inode.fd, c"", &times, AtFlags::EMPTY_PATH)
    }

    /// Whether it is a regular file of this host.
    pub(super) fn is_local(&self, inode: &Inode) -> bool {
        self.root_is_local && inode.dev == self.root_dev && inode.file_type == libc::S_IFREG
    }
}

/// How long ago `time` was, in ms; negative for what is to come.
fn age_ms(time: Timestamp) -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    let sec = now.tv_sec.saturating_sub(time.sec).saturating_mul(1000);
    sec.saturating_add((now.tv_nsec - i64::from(time.nsec)) / 1_000_000)
}

fn now_ms() -> i64 {
    in_ms(clock_gettime(ClockId::Realtime))
}

/// The clock that file systems take times of change from.
fn coarse_now_ms() -> i64 {
    in_ms(clock_gettime(ClockId::RealtimeCoarse))
}

fn in_ms(time: Timespec) -> i64 {
    let ms = time.tv_sec.saturating_mul(1000);
    ms.saturating_add(time.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;
    use crate::fs::{Name, NodeId};
    use crate::session::SessionStore;
    use crate::tree::Options;

    struct File {
        dir: tempfile::TempDir,
        tree: Tree,
        inode: Arc<Inode>,
    }

    /// A file; none where there is no tmpfs to have it on.
    fn file() -> Option<File> {
        let dir = tempfile::tempdir_in("/dev/shm").ok()?;
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let options = Options {
            store: Arc::new(SessionStore::private(16).unwrap()),
            inode_fds_max: 16,
        };
        let root = std::fs::File::open(dir.path()).unwrap();
        let tree = Tree::open(root.into(), &options).unwrap();
        let entry = tree.lookup(NodeId::ROOT, Name::new(c"f").unwrap()).unwrap();
        let inode = tree.inode(entry.node).unwrap();
        Some(File { dir, tree, inode })
    }

    impl File {
        fn ctime(&self) -> (i64, i64) {
            let stat = std::fs::metadata(self.dir.path().join("f")).unwrap();
            (stat.ctime(), stat.ctime_nsec())
        }

        /// Whether a close moves the change time.
        fn close_moves(&self) -> bool {
            let before = self.ctime();
            self.tree.settle(&self.inode).unwrap();
            self.ctime() != before
        }
    }

    fn sleep_ms(ms: i64) {
        sleep(Duration::from_millis(ms as u64));
    }

    #[test]
    fn a_close_long_after_the_first_write_moves_the_change_time() {
        let Some(file) = file() else { return };
        sleep_ms(2 * CLOSED_MS);
        assert!(!file.close_moves(), "nothing was written");
        file.inode.begin_write();
        sleep_ms(2 * CLOSED_MS);
        file.inode.begin_write();
        assert!(file.close_moves(), "what the first wrote may be younger");
        sleep_ms(2 * CLOSED_MS);
        assert!(file.close_moves(), "writes are under way");
        file.inode.answered();
        file.inode.answered();
        sleep_ms(2 * CLOSED_MS);
        assert!(file.close_moves());
        sleep_ms(2 * CLOSED_MS);
        assert!(!file.close_moves());
        file.inode.assume_written();
        assert!(file.close_moves(), "when it was written is not known");
    }

    #[test]
    fn a_file_that_changes_here_has_no_version() {
        let Some(file) = file() else { return };
        sleep_ms(2 * SETTLED_MS);
        assert!(file.tree.version(&file.inode).is_some());
        // The change itself may be yet to come.
        file.inode.begin_write();
        assert_eq!(file.tree.version(&file.inode), None);
        sleep_ms(2 * SETTLED_MS);
        assert!(file.tree.version(&file.inode).is_some());
        file.inode.was_made();
        assert_eq!(file.tree.version(&file.inode), None);
    }
}
