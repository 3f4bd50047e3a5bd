//! Files that lost their last name while they were in use, or may have: `meta/orphans/<inode>`.
//!
//! A file with objects, or one that is open, is never left without a name: its last one moves
//! here. So it outlives the daemon that has it open, whose successor finds it by its file handle;
//! and its objects can be found for as long as they exist. It is purged, objects first, by whoever
//! lets go of it last, or after its users are dead.
//!
//! An entry's name is the inode's number, in hexadecimal digits: whoever knows the inode knows
//! the entry, and the entry itself keeps the number from being used again.
//!
//! Who removes a name, be it one in the namespace or one here, decides whether it is the last
//! under the inode's [`Byte::Names`] lock, unless it is certain to leave one.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{
    fremovexattr, linkat, openat, renameat_with, statat, unlinkat, AtFlags, Dir, FileType, Mode,
    OFlags, RenameFlags,
};

use super::lock::{try_lock, wait_lock, Byte, Kind};
use super::objects::Targets;
use super::record::{self, Record};
use super::{ops, size, DAMAGED};
use crate::crash;
use crate::fs::{Errno, Result, Timestamp};
use crate::tree::attrs::stat_fd;
use crate::tree::proc::{FdName, ProcFd};
use crate::tree::Budget;
use crate::volume::Usage;

/// The directory of such files.
pub(super) struct Orphans(OwnedFd);

/// What purged files are removed from.
#[derive(Clone, Copy)]
pub(super) struct Store<'a> {
    pub targets: &'a Targets,
    /// Where they are counted; `None` for nowhere.
    pub usage: Option<&'a Usage>,
}

impl Store<'_> {
    /// Makes a file empty that nobody has open.
    fn empty(&self, file: &OwnedFd) -> Result<()> {
        if self.usage.is_some_and(Usage::counts) {
            // It may be truncated without being open.
            size::wait_alone(file)?;
        }
        ops::set_size(self.usage, file, 0)
    }

    /// Before the guard is tried for: whoever holds it then looks for what is left when it lets go.
    fn count_purge(&self, ino: u64) {
        if let Some(usage) = self.usage {
            usage.count_purge(ino);
        }
    }

    fn release_inode(&self) {
        if let Some(usage) = self.usage {
            usage.release_inode(0);
        }
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purged {
    /// There is none.
    Absent,
    /// The file is gone, and its objects.
    Gone,
    /// The file has a name elsewhere: only the entry is gone.
    Named,
    /// Somebody uses the file.
    InUse,
    /// It lost its name too lately to tell.
    Young,
}

/// What a look through all orphans came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrphanReport {
    /// Files that were removed, objects and all.
    pub purged: u64,
    /// Files that some process uses.
    pub in_use: u64,
    /// Files that lost their name too lately.
    pub young: u64,
    /// Files that could not be removed.
    pub failed: u64,
}

fn entry_of(ino: u64) -> CString {
    CString::new(format!("{ino:x}")).unwrap_or_default()
}

impl Orphans {
    pub fn new(dir: OwnedFd) -> Orphans {
        Orphans(dir)
    }

    /// The directory.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Moves `name` in `dir`, which should be the only name of the inode `ino`, here; answers which
    /// inode came. `EEXIST` where the inode is here already, `EAGAIN` where the name is no file's by
    /// now; it then stays.
    pub fn take(&self, dir: impl AsFd, name: &CStr, ino: u64) -> Result<u64> {
        let entry = entry_of(ino);
        renameat_with(&dir, name, &self.0, &entry, RenameFlags::NOREPLACE)?;
        crash::point("orphan_taken");
        let found = statat(&self.0, &entry, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::RegularFile {
            self.put_right(&entry, found.st_ino)?;
            return Ok(found.st_ino);
        }
        // The name came to mean something else meanwhile, which is looked at again.
        match renameat_with(&self.0, &entry, dir, name, RenameFlags::NOREPLACE) {
            Ok(()) => return Err(Errno::AGAIN),
            // And again: then it counts as removed before that.
            Err(Errno::EXIST) if kind != FileType::Directory => {
                unlinkat(&self.0, &entry, AtFlags::empty())?;
            }
            Err(errno) => return Err(errno),
        }
        Ok(found.st_ino)
    }

    /// Gives the entry of inode `ino` the name it should have, which it lacks where the name that
    /// was taken came to mean another inode meanwhile.
    fn put_right(&self, entry: &CStr, ino: u64) -> Result<()> {
        let right = entry_of(ino);
        if *right == *entry {
            return Ok(());
        }
        match renameat_with(&self.0, entry, &self.0, &right, RenameFlags::NOREPLACE) {
            // It has its entry: this one is one too many.
            Err(Errno::EXIST) => unlinkat(&self.0, entry, AtFlags::empty()),
            result => result,
        }
    }

    /// Gives the inode behind `fd` an entry beside the names it has.
    pub fn link(&self, proc: &ProcFd, fd: impl AsFd, ino: u64) -> Result<()> {
        let old = FdName::of(fd.as_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        match linkat(proc.dir(), old.as_c_str(), &self.0, entry_of(ino), flags) {
            Err(Errno::EXIST) => Ok(()),
            result => result,
        }
    }

    /// Moves the inode `ino` from here to `name` in `dir`, where nothing is.
    pub fn give(&self, ino: u64, dir: impl AsFd, name: &CStr) -> Result<()> {
        let entry = entry_of(ino);
        renameat_with(&self.0, &entry, dir, name, RenameFlags::NOREPLACE)
    }

    /// Whether the inode is here.
    pub fn holds(&self, ino: u64) -> Result<bool> {
        match statat(&self.0, entry_of(ino), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(stat.st_ino == ino),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Removes the inode's entry where it has a name elsewhere. The caller holds its
    /// [`Byte::Names`] lock.
    pub fn drop_spare(&self, ino: u64) -> Result<()> {
        match unlinkat(&self.0, entry_of(ino), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// Removes the inode `ino` if it is here and nobody uses it. The caller holds no lock on it.
    pub fn purge(&self, store: Store<'_>, ino: u64) -> Result<Purged> {
        self.purge_entry(store, &entry_of(ino), None)
    }

    /// Removes every file here that nobody uses and that lost its name longer ago than
    /// `min_age`; younger ones may belong to a daemon that is being restarted.
    pub fn purge_unused(&self, store: Store<'_>, min_age: Duration) -> Result<OrphanReport> {
        let mut report = OrphanReport::default();
        let limit = limit_of(min_age);
        for item in Dir::read_from(&self.0)? {
            let item = item?;
            let entry = item.file_name();
            if matches!(entry.to_bytes(), b"." | b"..") {
                continue;
            }
            match self.purge_found(store, entry, limit) {
                Ok(Purged::Gone) => report.purged += 1,
                Ok(Purged::InUse) => report.in_use += 1,
                Ok(Purged::Young) => report.young += 1,
                Ok(Purged::Absent | Purged::Named) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    log::warn!("orphan {entry:?} cannot be removed: {errno}");
                    report.failed += 1;
                }
            }
        }
        Ok(report)
    }

    /// Removes the file behind the entry `entry`, as [`purge_unused`](Self::purge_unused) does.
    pub fn purge_found(
        &self,
        store: Store<'_>,
        entry: &CStr,
        limit: Option<SystemTime>,
    ) -> Result<Purged> {
        let stat = statat(&self.0, entry, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(DAMAGED);
        }
        self.put_right(entry, stat.st_ino)?;
        self.purge_entry(store, &entry_of(stat.st_ino), limit)
    }

    fn purge_entry(
        &self,
        store: Store<'_>,
        entry: &CStr,
        limit: Option<SystemTime>,
    ) -> Result<Purged> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.0, entry, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Purged::Absent),
            result => result?,
        };
        let mut stat = stat_fd(&file)?;
        if stat.attr.nlink > 1 {
            wait_lock(&file, Byte::Names, Kind::Exclusive)?;
            stat = stat_fd(&file)?;
            if stat.attr.nlink > 1 {
                unlinkat(&self.0, entry, AtFlags::empty())?;
                return Ok(Purged::Named);
            }
        }
        if limit.is_some_and(|limit| time_of(stat.attr.ctime) > limit) {
            return Ok(Purged::Young);
        }
        store.count_purge(stat.ino);
        match try_lock(&file, Byte::Guard, Kind::Exclusive) {
            Err(Errno::AGAIN) => return Ok(Purged::InUse),
            result => result?,
        }
        // From here on nobody gives it a name: only who holds the guard may. Somebody may have
        // before, or purged it.
        match stat_fd(&file)?.attr.nlink {
            0 => return Ok(Purged::Absent),
            1 => {}
            _ => return Ok(Purged::InUse),
        }
        // Whoever still reaches the inode finds an empty file, never one without its objects.
        store.empty(&file)?;
        crash::point("orphan_emptied");
        delete_objects(store.targets, &file)?;
        crash::point("orphan_objects_deleted");
        unlinkat(&self.0, entry, AtFlags::empty())?;
        store.release_inode();
        Ok(Purged::Gone)
    }
}

/// Deletes the objects of an inode without a name or entry, if no process uses it. `file` is open
/// for writing, and holds no lock.
pub(super) fn purge_nameless(store: Store<'_>, file: &OwnedFd) -> Result<()> {
    let stat = stat_fd(file)?;
    if stat.attr.nlink > 0 || Record::load(file)?.is_none() {
        return Ok(());
    }
    store.count_purge(stat.ino);
    match try_lock(file, Byte::Guard, Kind::Exclusive) {
        Err(Errno::AGAIN) => return Ok(()),
        result => result?,
    }
    store.empty(file)?;
    delete_objects(store.targets, file)?;
    store.release_inode();
    Ok(())
}

/// Deletes the objects, then the record of them.
fn delete_objects(targets: &Targets, file: &OwnedFd) -> Result<()> {
    let Some(record) = Record::load(file)? else {
        return Ok(());
    };
    for column in 0..record.layout.stripe_count() {
        targets.delete(&record, column)?;
        crash::point("object_deleted");
    }
    fremovexattr(file, record::xattr_name().as_c_str())
}

/// What lost its name after this is younger than `min_age`; `None` where nothing is too young.
pub(super) fn limit_of(min_age: Duration) -> Option<SystemTime> {
    match min_age.is_zero() {
        true => None,
        false => Some(SystemTime::now().checked_sub(min_age).unwrap_or(UNIX_EPOCH)),
    }
}

fn time_of(time: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::new(time.sec.max(0) as u64, time.nsec)
}
