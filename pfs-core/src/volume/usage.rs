//! What all daemons of a striped volume count and know together: the file `usage` in its metadata
//! directory, one page that each of them maps.
//!
//! - **Limits and counters.** With a capacity, sizes and inodes are charged before a file grows or
//!   is made, by compare-and-exchange against the limit, so that any number of daemons together
//!   stay within it. A new limit is seen by all at once. Without limits nothing is counted.
//! - **Layouts.** Whether any directory or file was ever given a layout of its own: while none
//!   was, nobody looks for one.
//! - **Changes.** A write that was on its way when a file was truncated is done again, and one that
//!   looked at a file looks again where its attributes were set; a counter for all files that fall to
//!   it says that either may have been.
//! - **Purges.** Who takes a file's last name, or removes what is left of it, counts that before it
//!   looks whether somebody uses the file: who closes one looks whether it still has a name only where
//!   something was counted since it last had.
//! - **Who serves.** Whoever uses the volume holds a shared lock on the file; who can have the
//!   exclusive one is alone.
//!
//! Memory that a crash of the host loses is only ever a counter off, which `pfsctl volume check`
//! counts anew.

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use rustix::fs::{
    fallocate, fstat, linkat, openat, unlinkat, AtFlags, FallocateFlags, Mode, OFlags,
};
use rustix::io::Errno;
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};

use super::{Error, Impossible};
use crate::fs::StatFs;
use crate::ofd::{self, Kind};
use crate::tree::Budget;

/// Name of the file in the metadata directory.
pub const USAGE_NAME: &str = "usage";

/// `PFSUSAGE`.
const MAGIC: u64 = u64::from_le_bytes(*b"PFSUSAGE");
/// Changes with the meaning of any word.
const VERSION: u64 = 1;
/// Length of the file, in bytes.
const FILE_BYTES: usize = 4096;
/// Its words.
const FILE_WORDS: usize = FILE_BYTES / size_of::<AtomicU64>();
/// No limit.
const NONE: u64 = u64::MAX;
/// The byte that is locked by who uses the volume.
const USERS_BYTE: i64 = 0;
/// The byte that is locked while what is not a regular file is removed, where inodes are counted.
const REMOVALS_BYTE: i64 = 2;

/// The words of the file.
mod word {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 1;
    /// 1 where sizes and inodes are counted.
    pub const COUNTS: usize = 2;
    pub const CAPACITY: usize = 3;
    pub const INODES_MAX: usize = 4;
    pub const USED_BYTES: usize = 5;
    pub const USED_INODES: usize = 6;
    /// 1 once a directory or file was given a layout of its own.
    pub const LAYOUTS: usize = 7;
    /// The smallest mdt_size that a file without a record may have.
    pub const MDT_SIZE_MIN: usize = 8;
    /// Purges of all files.
    pub const PURGES_IN_ALL: usize = 9;
    /// The first of the counters of purges, each for the files that fall to it.
    pub const PURGES: usize = 16;
    /// The first of the counters of changes, each for the files that fall to it.
    pub const CHANGES: usize = 256;
}

/// The limits of a volume; `None` for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of all files together, sparse ones at their full length.
    pub capacity_bytes: Option<u64>,
    /// Most files, directories and links.
    pub inodes: Option<u64>,
}

impl Limits {
    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        self.capacity_bytes.is_some() || self.inodes.is_some()
    }

    /// Checks that each is one that a descriptor can say and a file system can have.
    pub fn check(&self) -> Result<(), Impossible> {
        for limit in [self.capacity_bytes, self.inodes].into_iter().flatten() {
            if limit == 0 || limit > i64::MAX as u64 {
                return Err(Impossible::Limit(limit));
            }
        }
        Ok(())
    }
}

/// What is in a volume: the sum of its files' sizes, and its inodes but the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub bytes: u64,
    pub inodes: u64,
}

/// The mapped file. See the [module](self).
#[derive(Debug)]
pub struct Usage {
    file: OwnedFd,
    words: *const AtomicU64,
    /// Held with the lock on [`REMOVALS_BYTE`], which all of this process share.
    removing: Mutex<()>,
}

// SAFETY: the mapping is only accessed as atomics and lives as long as the value.
unsafe impl Send for Usage {}
// SAFETY: as above.
unsafe impl Sync for Usage {}

impl Drop for Usage {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, of this length, and nothing borrows from it.
        let _ = unsafe { munmap(self.words.cast_mut().cast(), FILE_BYTES) };
    }
}

impl Usage {
    /// Makes the file of a new, empty volume whose files keep `mdt_size_bytes` in their inodes.
    /// `path` is the metadata directory `dir`, for messages.
    pub(super) fn create(
        dir: impl AsFd,
        path: &Path,
        limits: &Limits,
        mdt_size_bytes: u64,
    ) -> Result<Usage, Error> {
        let fail = |errno| Error::io("make", &path.join(USAGE_NAME), errno);
        let usage = Usage::make(dir.as_fd(), |usage| {
            usage
                .word(word::MDT_SIZE_MIN)
                .store(mdt_size_bytes, Ordering::Relaxed);
            usage.set_limits(limits);
            usage.set_used(limits.any().then(Used::default));
        })
        .map_err(fail)?;
        rustix::fs::fsync(&usage.file).map_err(fail)?;
        Ok(usage)
    }

    /// Opens the file in the metadata directory `dir` (`path`, for messages). One that is gone is
    /// made anew: it counts nothing, and takes any file to have a layout of its own.
    pub(super) fn open(dir: impl AsFd, path: &Path) -> Result<Usage, Error> {
        let path = path.join(USAGE_NAME);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let found = match openat(&dir, USAGE_NAME, flags, Mode::empty()) {
            Err(Errno::NOENT) => Usage::make(dir.as_fd(), |usage| {
                usage.word(word::LAYOUTS).store(1, Ordering::Relaxed);
            }),
            opened => opened.and_then(|file| match fstat(&file)?.st_size == FILE_BYTES as i64 {
                true => Usage::map(file),
                false => Err(Errno::UCLEAN),
            }),
        };
        let usage = match found {
            Ok(usage) => usage,
            Err(Errno::UCLEAN) => return Err(Error::UsageDamaged { path }),
            Err(errno) => return Err(Error::io("open", &path, errno)),
        };
        match (usage.get(word::MAGIC), usage.get(word::VERSION)) {
            (MAGIC, VERSION) => Ok(usage),
            _ => Err(Error::UsageDamaged { path }),
        }
    }

    /// Replaces a damaged file by one that counts nothing, and takes any file to have a layout of
    /// its own. For one who is alone, as whom it also joins.
    pub(crate) fn renew(dir: impl AsFd) -> rustix::io::Result<Usage> {
        unlinkat(&dir, USAGE_NAME, AtFlags::empty())?;
        let usage = Usage::make(dir.as_fd(), |usage| {
            usage.word(word::LAYOUTS).store(1, Ordering::Relaxed);
        })?;
        match usage.try_alone()? {
            true => Ok(usage),
            false => Err(Errno::BUSY),
        }
    }

    /// Makes the file, whole at once: another process may be at it.
    fn make(dir: impl AsFd, fill: impl FnOnce(&Usage)) -> rustix::io::Result<Usage> {
        let dir = dir.as_fd();
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(dir, ".", flags, Mode::from_raw_mode(0o600))?;
        // Its page must be there: a mapping cannot be told that the disk is full.
        fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES as u64)?;
        let usage = Usage::map(file)?;
        for (at, value) in [
            (word::MAGIC, MAGIC),
            (word::VERSION, VERSION),
            (word::CAPACITY, NONE),
            (word::INODES_MAX, NONE),
        ] {
            usage.word(at).store(value, Ordering::Relaxed);
        }
        fill(&usage);
        let name = format!("/proc/self/fd/{}", usage.file.as_raw_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        match linkat(rustix::fs::CWD, name.as_str(), dir, USAGE_NAME, flags) {
            Ok(()) => Ok(usage),
            Err(Errno::EXIST) => {
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Usage::map(openat(dir, USAGE_NAME, flags, Mode::empty())?)
            }
            Err(errno) => Err(errno),
        }
    }

    fn map(file: OwnedFd) -> rustix::io::Result<Usage> {
        // SAFETY: a new mapping touches nothing that exists. The file has this length, and who
        // could cut it short could as well kill the process.
        let map = unsafe {
            mmap(
                std::ptr::null_mut(),
                FILE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        Ok(Usage {
            file,
            words: map.cast_const().cast(),
            removing: Mutex::new(()),
        })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at < FILE_WORDS);
        // SAFETY: words are within the mapping, which lives as long as `self`.
        unsafe { &*self.words.add(at) }
    }

    fn get(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    // ---- layouts -------------------------------------------------------------------------

    /// Whether any directory or file was ever given a layout of its own.
    pub fn has_layouts(&self) -> bool {
        self.word(word::LAYOUTS).load(Ordering::Acquire) != 0
    }

    /// A file without a record, in a volume whose files keep `mdt_size_bytes` in their inodes
    /// where nothing else is said, has at least so many there.
    pub fn mdt_size_min_bytes(&self, mdt_size_bytes: u64) -> u64 {
        self.get(word::MDT_SIZE_MIN).min(mdt_size_bytes)
    }

    /// To be called before a layout is given to anything; answers whether it is the first.
    pub fn add_layout(&self, mdt_size_bytes: u64) -> bool {
        self.word(word::MDT_SIZE_MIN)
            .fetch_min(mdt_size_bytes, Ordering::Relaxed);
        self.word(word::LAYOUTS).swap(1, Ordering::AcqRel) == 0
    }

    /// The counter among `words` that the inode `ino` falls to.
    fn counter(&self, words: Range<usize>, ino: u64) -> &AtomicU64 {
        let index = (ino.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
        self.word(words.start + index % words.len())
    }

    // ---- changes -------------------------------------------------------------------------

    fn changes_of(&self, ino: u64) -> &AtomicU64 {
        self.counter(word::CHANGES..FILE_WORDS, ino)
    }

    /// How often the inode `ino`, or another that is counted with it, was truncated or given
    /// attributes.
    pub fn changes(&self, ino: u64) -> u64 {
        self.changes_of(ino).load(Ordering::SeqCst)
    }

    /// Counts a truncation of the inode `ino`, or that attributes of it were set: what others who
    /// have looked at it must know.
    pub fn count_change(&self, ino: u64) {
        self.changes_of(ino).fetch_add(1, Ordering::SeqCst);
    }

    // ---- purges --------------------------------------------------------------------------

    fn purges_of(&self, ino: u64) -> &AtomicU64 {
        self.counter(word::PURGES..word::CHANGES, ino)
    }

    /// Counts that a name of the inode `ino` is about to go, or what is left of it.
    pub fn count_purge(&self, ino: u64) {
        self.word(word::PURGES_IN_ALL)
            .fetch_add(1, Ordering::SeqCst);
        self.purges_of(ino).fetch_add(1, Ordering::SeqCst);
    }

    // ---- limits and counters -------------------------------------------------------------

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        let limit = |at| Some(self.get(at)).filter(|limit| *limit != NONE);
        Limits {
            capacity_bytes: limit(word::CAPACITY),
            inodes: limit(word::INODES_MAX),
        }
    }

    /// Puts limits in force, at once for everyone.
    pub fn set_limits(&self, limits: &Limits) {
        let store = |at, limit: Option<u64>| {
            self.word(at)
                .store(limit.unwrap_or(NONE), Ordering::Relaxed);
        };
        store(word::CAPACITY, limits.capacity_bytes);
        store(word::INODES_MAX, limits.inodes);
    }

    /// What `statfs(2)` says where limits are: the volume's own size, and of what it uses itself.
    /// `stat` is of what it lies on, which may have less room than the limits leave.
    pub fn limit_statfs(&self, stat: &mut StatFs) {
        let Some(used) = self.used() else {
            return;
        };
        let limits = self.limits();
        let unit = u64::from(stat.block_size.max(1));
        if let Some(capacity) = limits.capacity_bytes {
            stat.blocks = capacity / unit;
            stat.blocks_free = stat.blocks.saturating_sub(used.bytes.div_ceil(unit));
            stat.blocks_available = stat.blocks_available.min(stat.blocks_free);
        }
        if let Some(inodes) = limits.inodes {
            stat.files = inodes;
            stat.files_free = inodes.saturating_sub(used.inodes);
        }
    }

    /// Whether sizes and inodes are counted.
    pub fn counts(&self) -> bool {
        self.get(word::COUNTS) != 0
    }

    /// What is counted, where anything is.
    pub fn used(&self) -> Option<Used> {
        self.counts().then(|| Used {
            bytes: self.get(word::USED_BYTES),
            inodes: self.get(word::USED_INODES),
        })
    }

    /// Begins to count from `used`, or no longer counts. Beginning is for one who is alone.
    pub fn set_used(&self, used: Option<Used>) {
        if let Some(used) = used {
            self.word(word::USED_BYTES)
                .store(used.bytes, Ordering::Relaxed);
            self.word(word::USED_INODES)
                .store(used.inodes, Ordering::Relaxed);
        }
        self.word(word::COUNTS)
            .store(u64::from(used.is_some()), Ordering::Release);
    }

    /// Charges bytes that a file is about to grow by: `ENOSPC` at the limit.
    pub fn charge_bytes(&self, bytes: u64) -> crate::fs::Result<()> {
        self.charge(word::USED_BYTES, word::CAPACITY, bytes)
    }

    /// Runs `grow`, which makes a file grow by `bytes`, if they can be charged; gives them back where
    /// it fails.
    pub(crate) fn charged(
        &self,
        bytes: u64,
        grow: impl FnOnce() -> crate::fs::Result<()>,
    ) -> crate::fs::Result<()> {
        self.charge_bytes(bytes)?;
        grow().inspect_err(|_| self.release_bytes(bytes))
    }

    /// Gives back bytes that a file has shrunk by.
    pub fn release_bytes(&self, bytes: u64) {
        self.release(word::USED_BYTES, bytes);
    }

    fn charge(&self, used: usize, limit: usize, amount: u64) -> crate::fs::Result<()> {
        if !self.counts() || amount == 0 {
            return Ok(());
        }
        let limit = self.get(limit);
        let add = |now: u64| now.checked_add(amount).filter(|sum| *sum <= limit);
        self.word(used)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map(drop)
            .map_err(|_| Errno::NOSPC)
    }

    fn release(&self, used: usize, amount: u64) {
        if self.counts() {
            // Counters that were off before must not wrap.
            let sub = |now: u64| Some(now.saturating_sub(amount));
            let _ = self
                .word(used)
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, sub);
        }
    }

    // ---- who serves ----------------------------------------------------------------------

    /// Says that this process uses the volume, for as long as the value lives. Answers `false`
    /// where another is alone with it.
    pub fn join(&self) -> rustix::io::Result<bool> {
        lock_users(&self.file, Kind::Shared)
    }

    /// Takes the volume for this process alone, if no other uses it.
    pub fn try_alone(&self) -> rustix::io::Result<bool> {
        lock_users(&self.file, Kind::Exclusive)
    }

    /// Keeps all others from removing what is not a regular file, until the answer is dropped.
    /// Blocks.
    pub(crate) fn hold_removals(&self) -> rustix::io::Result<Removing<'_>> {
        let turn = crate::sync::lock(&self.removing);
        ofd::wait_lock(&self.file, REMOVALS_BYTE, Kind::Exclusive)?;
        Ok(Removing {
            file: &self.file,
            _turn: turn,
        })
    }
}

/// See [`Usage::hold_removals`].
pub(crate) struct Removing<'a> {
    file: &'a OwnedFd,
    _turn: MutexGuard<'a, ()>,
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        // Fails only where there is no memory for what is left of the range: of one byte, nothing.
        let _ = ofd::try_lock(self.file, REMOVALS_BYTE, Kind::None);
    }
}

impl Budget for Usage {
    /// `ENOSPC` at the limit.
    fn charge_inode(&self, bytes: u64) -> crate::fs::Result<()> {
        self.charge(word::USED_INODES, word::INODES_MAX, 1)?;
        self.charge_bytes(bytes)
            .inspect_err(|_| self.release(word::USED_INODES, 1))
    }

    fn release_inode(&self, bytes: u64) {
        self.release_bytes(bytes);
        self.release(word::USED_INODES, 1);
    }

    fn purges(&self, ino: u64) -> u64 {
        self.purges_of(ino).load(Ordering::SeqCst)
    }

    fn purges_in_all(&self) -> u64 {
        self.word(word::PURGES_IN_ALL).load(Ordering::SeqCst)
    }
}

/// The exclusive lock on a file that is damaged, if nobody has it: for as long as the descriptor
/// is open.
pub(super) fn lock_damaged(dir: impl AsFd) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir, USAGE_NAME, flags, Mode::empty())?;
    Ok(lock_users(&file, Kind::Exclusive)?.then_some(file))
}

/// Locks the byte of who uses the volume; answers `false` where another is in the way.
fn lock_users(file: &OwnedFd, kind: Kind) -> rustix::io::Result<bool> {
    match ofd::try_lock(file, USERS_BYTE, kind) {
        Err(Errno::AGAIN) => Ok(false),
        result => result.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, OwnedFd) {
        let temp = tempfile::tempdir().unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(temp.path(), flags, Mode::empty()).unwrap();
        (temp, dir)
    }

    fn limits(bytes: u64, inodes: u64) -> Limits {
        Limits {
            capacity_bytes: Some(bytes),
            inodes: Some(inodes),
        }
    }

    #[test]
    fn many_together_stay_within_a_limit() {
        let (temp, dir) = dir();
        drop(Usage::create(&dir, temp.path(), &limits(1000, 100), 0).unwrap());
        let lanes = |_| {
            let usage = Usage::open(&dir, temp.path()).unwrap();
            move || (0..300).filter(|_| usage.charge_bytes(7).is_ok()).count() as u64
        };
        let lanes: Vec<_> = (0..4).map(lanes).collect();
        let charged: u64 = std::thread::scope(|scope| {
            let lanes: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(lane)).collect();
            lanes.into_iter().map(|lane| lane.join().unwrap()).sum()
        });
        let usage = Usage::open(&dir, temp.path()).unwrap();
        assert_eq!(charged, 1000 / 7);
        assert_eq!(usage.used().unwrap().bytes, charged * 7);
        assert_eq!(usage.charge_bytes(u64::MAX), Err(Errno::NOSPC));
        usage.release_bytes(u64::MAX);
        assert_eq!(usage.used().unwrap().bytes, 0);
    }

    #[test]
    fn a_new_limit_is_seen_by_all_at_once() {
        let (temp, dir) = dir();
        let one = Usage::create(&dir, temp.path(), &limits(10, 1), 4096).unwrap();
        let two = Usage::open(&dir, temp.path()).unwrap();
        two.charge_inode(0).unwrap();
        assert_eq!(two.charge_inode(0), Err(Errno::NOSPC));
        one.set_limits(&Limits {
            inodes: Some(2),
            ..Limits::default()
        });
        two.charge_inode(0).unwrap();
        two.charge_bytes(1 << 50).unwrap();
        assert_eq!(two.charge_inode(0), Err(Errno::NOSPC));
        one.set_used(None);
        two.charge_inode(0).unwrap();
        assert_eq!(two.used(), None);
    }

    #[test]
    fn layouts_are_known_to_all() {
        let (temp, dir) = dir();
        let one = Usage::create(&dir, temp.path(), &Limits::default(), 65536).unwrap();
        let two = Usage::open(&dir, temp.path()).unwrap();
        assert!(!two.has_layouts() && two.mdt_size_min_bytes(65536) == 65536);
        assert!(one.add_layout(8192));
        assert!(!two.add_layout(16384));
        assert!(two.has_layouts() && one.mdt_size_min_bytes(65536) == 8192);
        assert_eq!(one.mdt_size_min_bytes(4096), 4096);
    }

    #[test]
    fn one_is_alone_or_none() {
        let (temp, dir) = dir();
        let one = Usage::create(&dir, temp.path(), &Limits::default(), 0).unwrap();
        let two = Usage::open(&dir, temp.path()).unwrap();
        assert!(one.join().unwrap() && two.join().unwrap());
        assert!(!one.try_alone().unwrap());
        drop(two);
        assert!(one.try_alone().unwrap());
        assert!(!Usage::open(&dir, temp.path()).unwrap().join().unwrap());
    }

    #[test]
    fn a_lost_file_is_made_anew_and_a_damaged_one_refused() {
        let (temp, dir) = dir();
        let usage = Usage::open(&dir, temp.path()).unwrap();
        assert!(usage.has_layouts() && usage.mdt_size_min_bytes(65536) == 0);
        assert!(!usage.counts() && !usage.limits().any());
        for damage in [vec![], vec![0; FILE_BYTES], vec![0; 100]] {
            std::fs::remove_file(temp.path().join(USAGE_NAME)).unwrap();
            std::fs::write(temp.path().join(USAGE_NAME), damage).unwrap();
            let error = Usage::open(&dir, temp.path()).unwrap_err();
            assert!(matches!(error, Error::UsageDamaged { .. }), "{error}");
        }
    }
}
