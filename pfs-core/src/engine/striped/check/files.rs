//! One file against its objects.

use std::path::PathBuf;

use rustix::fs::{
    ftruncate, lsetxattr, openat2, statat, AtFlags, FileType, Mode, OFlags, ResolveFlags,
    XattrFlags,
};

use super::walk::{Look, Met};
use super::{Checker, Error, Kind};
use crate::engine::striped::objects::path_of;
use crate::engine::striped::record::{self, Record};
use crate::fs::Errno;

/// Why a file whose record cannot be read is left.
const NO_RECORD: &str = "which objects the file has is lost: remove the file, or restore it";
/// Why a file with another's objects is left.
const SHARED: &str = "a copy made on the host: remove the copy's attribute user.pfs.file";

/// An object with data beyond its file's end.
pub(super) struct Beyond {
    record: Record,
    column: u32,
    path: PathBuf,
    /// Where it should end, in bytes.
    end: u64,
}

/// An object as it is on a target.
enum Found {
    Absent,
    Regular { len: u64 },
    Other,
}

impl Checker<'_> {
    /// Takes the file's objects off the list, and looks at each.
    pub(super) fn check_file(&mut self, met: &Met<'_>, look: Look) -> Result<(), Error> {
        let value = match met.xattr(record::xattr_name()) {
            Err(Errno::NOENT) => return Ok(()),
            value => value.map_err(Error::io("look at the record of", met.path))?,
        };
        let Some(value) = value else { return Ok(()) };
        let record = Record::parse(&value).ok();
        let Some(record) = record.filter(|record| self.fits(record)) else {
            if look == Look::All {
                self.unreadable += 1;
                self.leave(Kind::DamagedRecord, met.path, NO_RECORD);
            }
            return Ok(());
        };
        self.claim(&record);
        if look == Look::ForObjects {
            return Ok(());
        }
        match self.ids.insert(record.object_id, met.stat.st_ino) {
            Some(other) if other != met.stat.st_ino => {
                self.shared.insert(record.object_id);
                self.leave(Kind::SharedObjects, met.path, SHARED);
                return Ok(());
            }
            _ => {}
        }
        let mut data_end = 0;
        for column in 0..record.layout.stripe_count() {
            data_end = data_end.max(self.check_object(met, &record, column)?);
        }
        self.check_tail(met, &record, data_end)
    }

    /// Whether the volume has the targets that a record names.
    pub(super) fn fits(&self, record: &Record) -> bool {
        let targets = self.targets().len() as u32;
        record.layout.stripe_count() <= targets && record.first_target < targets
    }

    /// Takes the objects that a record names off the list.
    pub(super) fn claim(&mut self, record: &Record) {
        let Some(on) = self.objects.get_mut(&record.object_id) else {
            return;
        };
        let targets = self.volume.targets.len() as u32;
        let has = |target: u32| {
            let column = (target + targets - record.first_target) % targets;
            column < record.layout.stripe_count()
        };
        on.retain(|target| !has(*target));
        if on.is_empty() {
            self.objects.remove(&record.object_id);
        }
    }

    /// Answers where in the file the object's data ends.
    fn check_object(&mut self, met: &Met<'_>, record: &Record, column: u32) -> Result<u64, Error> {
        match self.look_at(record, column)? {
            Found::Absent if record.made.has(column) => self.missing(met, record, column)?,
            Found::Absent => {}
            Found::Other => {
                let place = self.place_of(record, column);
                self.leave(Kind::Foreign, place, super::report::NOT_OURS);
            }
            Found::Regular { len } => {
                self.check_end(met, record, column, len)?;
                let last = len.checked_sub(1);
                let at = last.and_then(|at| record.layout.file_offset(u64::from(column), at));
                return Ok(at.map_or(0, |at| at + 1));
            }
        }
        Ok(0)
    }

    fn look_at(&self, record: &Record, column: u32) -> Result<Found, Error> {
        let (target, path) = (self.target_of(record, column), path_of(record));
        let dir = &self.volume.targets[target as usize];
        match statat(dir, path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Found::Regular {
                    len: stat.st_size as u64,
                })
            }
            Ok(_) => Ok(Found::Other),
            Err(Errno::NOENT) => Ok(Found::Absent),
            Err(errno) => Err(Error::io("look at", self.place_of(record, column))(errno)),
        }
    }

    /// An object that was made is not there.
    fn missing(&mut self, met: &Met<'_>, record: &Record, column: u32) -> Result<(), Error> {
        // Removed meanwhile: then it is no name of the file any more, or has another record.
        let now = met.xattr(record::xattr_name()).ok().flatten();
        let now = now.and_then(|value| Record::parse(&value).ok());
        let still =
            met.again().is_some() && now.is_some_and(|now| now.object_id == record.object_id);
        if !still || !matches!(self.look_at(record, column)?, Found::Absent) {
            return Ok(());
        }
        let path = met.host_path();
        self.mend_alone(Kind::MissingObject, met.path, || {
            let mut now = record.clone();
            now.made.remove(column);
            let (name, text) = (record::xattr_name().as_c_str(), now.to_text());
            lsetxattr(path.as_c_str(), name, text.as_bytes(), XattrFlags::REPLACE)
        });
        Ok(())
    }

    /// Whether the object, of `len` bytes, ends within its file.
    fn check_end(
        &mut self,
        met: &Met<'_>,
        record: &Record,
        column: u32,
        len: u64,
    ) -> Result<(), Error> {
        if len <= end_of(record, column, met.stat.st_size as u64) {
            return Ok(());
        }
        // The file may have grown since: a size that is the same before and after a look at the
        // object holds for it.
        let size = loop {
            let Some(before) = met.again() else {
                return Ok(());
            };
            let Found::Regular { len } = self.look_at(record, column)? else {
                return Ok(());
            };
            match met.again() {
                Some(after) if after.st_size == before.st_size => {
                    let size = before.st_size as u64;
                    if len <= end_of(record, column, size) {
                        return Ok(());
                    }
                    break size;
                }
                _ => {}
            }
        };
        self.beyond.push(Beyond {
            record: record.clone(),
            column,
            path: met.path.into(),
            end: end_of(record, column, size),
        });
        Ok(())
    }

    /// Cuts what objects have beyond their files' ends, now that all files are known: another file
    /// with the same objects may be longer.
    pub(super) fn mend_ends(&mut self) -> Result<(), Error> {
        for beyond in std::mem::take(&mut self.beyond) {
            let (record, column) = (&beyond.record, beyond.column);
            if self.shared.contains(&record.object_id) {
                continue;
            }
            let dir = &self.volume.targets[self.target_of(record, column) as usize];
            let dir = rustix::io::fcntl_dupfd_cloexec(dir, 0)
                .map_err(Error::io("open", self.place_of(record, column)))?;
            self.mend_alone(Kind::DataBeyondEnd, &beyond.path, || {
                let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let path = path_of(record);
                let object = openat2(dir, path.as_str(), flags, Mode::empty(), within)?;
                ftruncate(object, beyond.end)
            });
        }
        Ok(())
    }
}

/// How long the object of `column` may be in a file of `size` bytes.
fn end_of(record: &Record, column: u32, size: u64) -> u64 {
    match size > record.mdt_size_bytes {
        true => record.layout.object_end(size, u64::from(column)),
        false => 0,
    }
}
