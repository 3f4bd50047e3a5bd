//! Object files on targets: `objects/<first two hex digits>/<object id>`.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::{openat2, statat, unlinkat, AtFlags, Mode, OFlags, ResolveFlags};

use uuid::Uuid;

use super::record::Record;
use super::DAMAGED;
use crate::fs::{Errno, Result, StatFs};
use crate::io::{DataFd, Storage};

/// A target's names lead nowhere else, whoever planted what in it.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// The `objects` directories of a volume's targets, by index.
pub(super) struct Targets(Vec<Target>);

struct Target {
    objects: OwnedFd,
    storage: Storage,
}

impl Targets {
    pub fn new(targets: Vec<OwnedFd>) -> Targets {
        let target = |objects: OwnedFd| Target {
            storage: Storage::of(&objects),
            objects,
        };
        Targets(targets.into_iter().map(target).collect())
    }

    /// How many targets there are.
    pub fn count(&self) -> u32 {
        self.0.len() as u32
    }

    /// The target of a file's object `column`.
    fn target(&self, record: &Record, column: u32) -> Result<&Target> {
        let index = (u64::from(record.first_target) + u64::from(column)) % self.0.len() as u64;
        // More columns than targets: the volume lost a target's line in its descriptor.
        if record.layout.stripe_count() > self.count() {
            return Err(DAMAGED);
        }
        self.0.get(index as usize).ok_or(DAMAGED)
    }

    /// Opens an object; none where it has never been written and is not to be made.
    pub fn open(&self, record: &Record, column: u32, make: bool) -> Result<Option<DataFd>> {
        let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        // openat2 refuses a mode for what is not made.
        let mut mode = Mode::empty();
        if make {
            flags |= OFlags::CREATE;
            mode = Mode::RUSR | Mode::WUSR;
        }
        let target = self.target(record, column)?;
        match openat2(
            &target.objects,
            path_of(record).as_str(),
            flags,
            mode,
            WITHIN,
        ) {
            Ok(fd) => Ok(Some(DataFd::new(fd, target.storage))),
            Err(Errno::NOENT) if !make => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The directory that an object's name is in, for an fsync of the name.
    pub fn open_dir(&self, record: &Record, column: u32) -> Result<DataFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = path_of(record);
        let dir = path.split_once('/').map_or(".", |(dir, _)| dir);
        let target = self.target(record, column)?;
        openat2(&target.objects, dir, flags, Mode::empty(), WITHIN)
            .map(|fd| DataFd::new(fd, target.storage))
    }

    /// Deletes an object, if it is there.
    pub fn delete(&self, record: &Record, column: u32) -> Result<()> {
        let path = path_of(record);
        let name = path.split_once('/').map_or("", |(_, name)| name);
        match unlinkat(self.open_dir(record, column)?, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// Storage that a file's objects use, in units of 512 bytes.
    pub fn blocks(&self, record: &Record) -> u64 {
        let path = path_of(record);
        (0..record.layout.stripe_count())
            .filter_map(|column| {
                let target = self.target(record, column).ok()?;
                statat(&target.objects, path.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()
            })
            .map(|stat| stat.st_blocks as u64)
            .sum()
    }

    /// Size and use of all targets together, with the inodes of `meta`. Targets on one file
    /// system count once.
    pub fn statfs(&self, meta: &StatFs) -> Result<StatFs> {
        let mut seen = HashSet::new();
        let mut sum = StatFs {
            blocks: 0,
            blocks_free: 0,
            blocks_available: 0,
            ..*meta
        };
        let unit = u64::from(meta.block_size.max(1));
        for Target { objects, .. } in &self.0 {
            if seen.insert(rustix::fs::fstat(objects)?.st_dev) {
                let stat = rustix::fs::fstatvfs(objects)?;
                let scale = |blocks: u64| {
                    (u128::from(blocks) * u128::from(stat.f_frsize) / u128::from(unit)) as u64
                };
                sum.blocks += scale(stat.f_blocks);
                sum.blocks_free += scale(stat.f_bfree);
                sum.blocks_available += scale(stat.f_bavail);
            }
        }
        Ok(sum)
    }

    /// Makes all objects survive power loss.
    pub fn sync(&self) -> Result<()> {
        let mut seen = HashSet::new();
        for Target { objects, .. } in &self.0 {
            if seen.insert(rustix::fs::fstat(objects)?.st_dev) {
                rustix::fs::syncfs(objects)?;
            }
        }
        Ok(())
    }
}

/// Where a record's objects lie below a target's folder of objects.
pub(super) fn path_of(record: &Record) -> String {
    path_of_id(record.object_id)
}

/// Where the objects of an id lie below a target's folder of objects.
pub(super) fn path_of_id(id: Uuid) -> String {
    let id = id.simple().to_string();
    format!("{}/{id}", &id[..2])
}
