//! The namespace, name by name.
//!
//! One directory is open at a time, and the way back up is `..`: a tree may be deeper than a path
//! is long, or a process has descriptors.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{fstat, getxattr, openat, statat, AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::{Checker, Error, Kind, Step};
use crate::engine::striped::file_layout::{self, FileLayout};
use crate::engine::striped::record;
use crate::fs::{Errno, XattrName};

/// Why a damaged layout is left.
const LAYOUT_LOST: &str =
    "how much of the file is in its inode is lost: set its attribute user.pfs.layout by hand";

/// What a walk looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    All,
    /// Only whose the objects are that have no file yet.
    ForObjects,
    /// Only how much there is.
    Count,
}

/// A name met on a walk.
pub(super) struct Met<'a> {
    pub dir: BorrowedFd<'a>,
    pub name: &'a CStr,
    /// For messages.
    pub path: &'a Path,
    pub stat: &'a Stat,
}

impl Met<'_> {
    /// An attribute of the file or directory: `ENOENT` where the name means another by now.
    pub fn xattr(&self, name: &XattrName) -> Result<Option<Vec<u8>>, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(self.dir, self.name, flags, Mode::empty())?;
        if fstat(&fd)?.st_ino != self.stat.st_ino {
            return Err(Errno::NOENT);
        }
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut value = vec![0u8; 2048];
        match getxattr(path.as_str(), name.as_c_str(), &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                Ok(Some(value))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            // Longer than any of ours.
            Err(Errno::RANGE) => Ok(Some(Vec::new())),
            Err(errno) => Err(errno),
        }
    }

    /// A path to the name by way of its directory's descriptor.
    pub fn host_path(&self) -> CString {
        let mut path = format!("/proc/self/fd/{}/", self.dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.name.to_bytes());
        CString::new(path).unwrap_or_default()
    }

    /// The inode again, if the name still means it.
    pub fn again(&self) -> Option<Stat> {
        let stat = statat(self.dir, self.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (stat.st_ino == self.stat.st_ino).then_some(stat)
    }
}

/// A directory that the walk is in, or below.
struct Level {
    ino: u64,
    /// Directories in it that are still to be walked.
    dirs: Vec<CString>,
    /// How many there were.
    all: usize,
}

/// The part of a walk that is done, where all directories of one count alike.
fn part_done(levels: &[Level]) -> f64 {
    let (mut part, mut done) = (1.0, 0.0);
    for level in levels.iter().take_while(|level| level.all > 0) {
        part /= level.all as f64;
        // The last one taken is under way.
        let taken = level.all - level.dirs.len();
        done += part * taken.saturating_sub(1) as f64;
    }
    done
}

impl Checker<'_> {
    /// Walks the whole namespace.
    pub(super) fn walk(&mut self, look: Look) -> Result<(), Error> {
        self.begin(Step::Names)?;
        let root = self.volume.meta.namespace.as_fd();
        let mut here = open_dir(root, c".").map_err(Error::io("open", "/"))?;
        if look == Look::All {
            self.check_root(&here)?;
        }
        let mut path = PathBuf::from("/");
        let mut levels = vec![self.read_dir(&here, &path, look)?];
        while let Some(level) = levels.last_mut() {
            let next = level.dirs.pop();
            self.done = part_done(&levels);
            match next {
                Some(name) => match open_dir(here.as_fd(), &name) {
                    Ok(below) => {
                        path.push(OsStr::from_bytes(name.to_bytes()));
                        levels.push(self.read_dir(&below, &path, look)?);
                        here = below;
                    }
                    // Removed meanwhile, or replaced.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(errno) => {
                        path.push(OsStr::from_bytes(name.to_bytes()));
                        return Err(Error::io("open", path)(errno));
                    }
                },
                None => {
                    levels.pop();
                    path.pop();
                    here = match self.climb(&here, &mut levels, &mut path)? {
                        Some(above) => above,
                        None => break,
                    };
                }
            }
        }
        Ok(())
    }

    /// The directory that `levels` ends with, which `here` was in. Where others have moved `here`
    /// meanwhile, the way is walked down again, as far as it is still there.
    fn climb(
        &self,
        here: &OwnedFd,
        levels: &mut Vec<Level>,
        path: &mut PathBuf,
    ) -> Result<Option<OwnedFd>, Error> {
        let Some(above) = levels.last() else {
            return Ok(None);
        };
        let is = |fd: &OwnedFd, ino| fstat(fd).is_ok_and(|stat| stat.st_ino == ino);
        if let Ok(fd) = open_dir(here.as_fd(), c"..") {
            if is(&fd, above.ino) {
                return Ok(Some(fd));
            }
        }
        let root = self.volume.meta.namespace.as_fd();
        let mut fd = open_dir(root, c".").map_err(Error::io("open", "/"))?;
        let names: Vec<_> = path.iter().skip(1).map(OsStr::to_owned).collect();
        let mut depth = 1;
        for (name, level) in names.iter().zip(&levels[1..]) {
            let name = CString::new(name.as_bytes()).unwrap_or_default();
            match open_dir(fd.as_fd(), &name) {
                Ok(below) if is(&below, level.ino) => fd = below,
                _ => break,
            }
            depth += 1;
        }
        // What lay below is not where it was; who moved it is still at work.
        levels.truncate(depth);
        *path = std::iter::once(OsStr::new("/"))
            .chain(names.iter().take(depth - 1).map(|name| name.as_os_str()))
            .collect();
        Ok(Some(fd))
    }

    /// Looks at every name in a directory.
    fn read_dir(&mut self, dir: &OwnedFd, path: &Path, look: Look) -> Result<Level, Error> {
        let io = |errno| Error::io("read", path)(errno);
        let mut level = Level {
            ino: fstat(dir).map_err(io)?.st_ino,
            dirs: Vec::new(),
            all: 0,
        };
        for entry in Dir::read_from(dir).map_err(io)? {
            let entry = match entry {
                Err(Errno::NOENT) => break,
                entry => entry.map_err(io)?,
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.tick(Step::Names)?;
            let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(io)?,
            };
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let met = Met {
                dir: dir.as_fd(),
                name,
                path: &path,
                stat: &stat,
            };
            self.meet(&met, look)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                level.dirs.push(name.to_owned());
            }
        }
        level.all = level.dirs.len();
        Ok(level)
    }

    /// The root has a layout like any directory, but no name in the namespace.
    fn check_root(&mut self, root: &OwnedFd) -> Result<(), Error> {
        let met = Met {
            dir: root.as_fd(),
            name: c".",
            path: Path::new("/"),
            stat: &fstat(root).map_err(Error::io("look at", "/"))?,
        };
        self.check_layout(&met)
    }

    fn meet(&mut self, met: &Met<'_>, look: Look) -> Result<(), Error> {
        let kind = FileType::from_raw_mode(met.stat.st_mode);
        if look != Look::ForObjects {
            let several = met.stat.st_nlink > 1 && kind != FileType::Directory;
            if several && !self.linked.insert(met.stat.st_ino) {
                return Ok(());
            }
            self.used.inodes += 1;
            match kind {
                FileType::Directory => self.report.directories += 1,
                _ => self.report.files += 1,
            }
            if kind == FileType::RegularFile {
                self.used.bytes += met.stat.st_size as u64;
            }
            let has_layout = matches!(kind, FileType::Directory | FileType::RegularFile);
            if look == Look::All && has_layout {
                self.check_layout(met)?;
            }
        }
        match kind {
            FileType::RegularFile if look != Look::Count => self.check_file(met, look),
            _ => Ok(()),
        }
    }

    /// Whether only a layout of its own says where a file's bytes are: it has no record, and more of
    /// them than files of the volume keep in their inodes.
    fn needs_layout(&self, met: &Met<'_>) -> bool {
        let is_file = FileType::from_raw_mode(met.stat.st_mode) == FileType::RegularFile;
        is_file
            && met.stat.st_size as u64 > self.default_layout().mdt_size_bytes
            && !matches!(met.xattr(record::xattr_name()), Ok(Some(_)))
    }

    /// Whether the layout of its own that an inode may have is one.
    fn check_layout(&mut self, met: &Met<'_>) -> Result<(), Error> {
        let value = match met.xattr(file_layout::xattr_name()) {
            Err(Errno::NOENT) => return Ok(()),
            value => value.map_err(Error::io("look at the layout of", met.path))?,
        };
        let Some(value) = value else { return Ok(()) };
        match FileLayout::parse(&value, self.targets().len() as u32) {
            Some(layout) => {
                let min = self.mdt_size_min_bytes.unwrap_or(u64::MAX);
                self.mdt_size_min_bytes = Some(min.min(layout.mdt_size_bytes));
            }
            None if self.needs_layout(met) => {
                self.leave(Kind::DamagedLayout, met.path, LAYOUT_LOST);
            }
            None => {
                let path = met.host_path();
                self.mend_alone(Kind::DamagedLayout, met.path, || {
                    let name = file_layout::xattr_name().as_c_str();
                    rustix::fs::lremovexattr(path.as_c_str(), name)
                });
            }
        }
        Ok(())
    }
}

fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}
