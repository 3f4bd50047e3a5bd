//! The objects on all targets, and those that no file has.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{mkdirat, openat, statat, unlinkat, AtFlags, Dir, FileType, Mode, OFlags};
use uuid::Uuid;

use super::report::{NOT_ALONE, NOT_OURS};
use super::{Checker, Error, Kind, Step};
use crate::engine::striped::objects::path_of_id;
use crate::engine::striped::record::Record;
use crate::fs::Errno;
use crate::target::{folder_name, FANOUT, OBJECTS_NAME};

/// Why objects stay that may be a file's whose record cannot be read.
const MAY_BE_NEEDED: &str = "it may belong to a file whose record cannot be read";

/// Why objects stay whose file has its objects elsewhere.
const MISPLACED: &str =
    "its file should have it on another target: were targets in volume.toml taken out or reordered?";

impl Checker<'_> {
    /// The target of a record's object.
    pub(super) fn target_of(&self, record: &Record, column: u32) -> u32 {
        let targets = self.targets().len() as u64;
        ((u64::from(record.first_target) + u64::from(column)) % targets) as u32
    }

    /// Where a record's object lies, for messages.
    pub(super) fn place_of(&self, record: &Record, column: u32) -> PathBuf {
        self.place(self.target_of(record, column), record.object_id)
    }

    fn place(&self, target: u32, id: Uuid) -> PathBuf {
        self.folder(target).join(path_of_id(id))
    }

    /// A target's folder of objects, for messages.
    fn folder(&self, target: u32) -> PathBuf {
        let place = &self.volume.striped.targets[target as usize];
        self.volume.path.join(place).join(OBJECTS_NAME)
    }

    /// Lists the objects on all targets.
    pub(super) fn list_objects(&mut self) -> Result<(), Error> {
        self.begin(Step::Objects)?;
        for target in 0..self.targets().len() as u32 {
            self.list_target(target)?;
        }
        Ok(())
    }

    fn list_target(&mut self, target: u32) -> Result<(), Error> {
        let objects = rustix::io::fcntl_dupfd_cloexec(&self.targets()[target as usize], 0)
            .map_err(Error::io("open", self.folder(target)))?;
        let mut there = [false; FANOUT as usize];
        for name in names_in(&objects).map_err(Error::io("read", self.folder(target)))? {
            let number = std::str::from_utf8(name.to_bytes())
                .ok()
                .filter(|name| name.len() == 2 && *name == name.to_ascii_lowercase())
                .and_then(|name| u32::from_str_radix(name, 16).ok());
            match number.map(|number| (number, open_dir(&objects, &name))) {
                Some((number, Ok(folder))) => {
                    there[number as usize] = true;
                    self.list_folder(target, number, &folder)?;
                    let folders = self.targets().len() as f64 * f64::from(FANOUT);
                    self.done += 1.0 / folders;
                }
                _ => self.foreign(self.folder(target), &name),
            }
        }
        for (number, _) in there.iter().enumerate().filter(|(_, there)| !**there) {
            let name = folder_name(number as u32);
            self.mend(
                Kind::MissingFolder,
                self.folder(target).join(&name),
                || match mkdirat(&objects, name.as_str(), Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) => Ok(()),
                    made => made,
                },
            );
        }
        Ok(())
    }

    fn list_folder(&mut self, target: u32, number: u32, folder: &OwnedFd) -> Result<(), Error> {
        let path = self.folder(target).join(folder_name(number));
        for name in names_in(folder).map_err(Error::io("read", &path))? {
            self.tick(Step::Objects)?;
            let stat = match statat(folder, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(Error::io("look at", &path))?,
            };
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            match id_of(&name).filter(|id| regular && id.as_bytes()[0] == number as u8) {
                Some(id) => {
                    self.report.objects += 1;
                    self.objects.entry(id).or_default().push(target);
                }
                None => self.foreign(path.clone(), &name),
            }
        }
        Ok(())
    }

    pub(super) fn foreign(&mut self, dir: PathBuf, name: &CStr) {
        let path = dir.join(OsStr::from_bytes(name.to_bytes()));
        self.leave(Kind::Foreign, path, NOT_OURS);
    }

    /// Forgets objects that are gone by now, with their files; answers whether none is left.
    pub(super) fn drop_gone_objects(&mut self) -> Result<bool, Error> {
        let mut objects = std::mem::take(&mut self.objects);
        for (id, on) in &mut objects {
            let mut left = Vec::new();
            for target in on.drain(..) {
                let (dir, path) = (&self.targets()[target as usize], path_of_id(*id));
                match statat(dir, path.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => left.push(target),
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(Error::io("look at", self.place(target, *id))(errno)),
                }
            }
            *on = left;
        }
        objects.retain(|_, on| !on.is_empty());
        self.objects = objects;
        Ok(self.objects.is_empty())
    }

    /// What is still on the list has no file.
    pub(super) fn judge_objects(&mut self) -> Result<(), Error> {
        self.drop_gone_objects()?;
        let mut lost: Vec<_> = std::mem::take(&mut self.objects).into_iter().collect();
        lost.sort_unstable();
        for (id, on) in lost {
            for target in on {
                self.lost(target, id)?;
            }
        }
        Ok(())
    }

    fn lost(&mut self, target: u32, id: Uuid) -> Result<(), Error> {
        let place = self.place(target, id);
        if !self.volume.alone {
            self.leave(Kind::LostObject, place, NOT_ALONE);
            return Ok(());
        }
        if self.ids.contains_key(&id) {
            self.leave(Kind::LostObject, place, MISPLACED);
            return Ok(());
        }
        if self.unreadable > 0 {
            self.leave(Kind::LostObject, place, MAY_BE_NEEDED);
            return Ok(());
        }
        let path = path_of_id(id);
        let (folder, name) = path.split_once('/').unwrap_or((".", &path));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(
            &self.targets()[target as usize],
            folder,
            flags,
            Mode::empty(),
        )
        .map_err(Error::io("open", &place))?;
        self.mend(Kind::LostObject, place, || {
            unlinkat(dir, name, AtFlags::empty())
        });
        Ok(())
    }
}

/// The id in an object's name.
fn id_of(name: &CStr) -> Option<Uuid> {
    let text = std::str::from_utf8(name.to_bytes()).ok()?;
    let id = Uuid::try_parse(text).ok()?;
    (id.simple().to_string() == text).then_some(id)
}

pub(super) fn open_dir(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// The names in a directory but `.` and `..`.
pub(super) fn names_in(dir: impl AsFd) -> Result<Vec<std::ffi::CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
