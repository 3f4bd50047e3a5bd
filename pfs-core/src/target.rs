//! Storage targets: the directories that hold a striped volume's objects.
//!
//! ```text
//! <target>/target.toml     whose it is: the volume's uuid and the target's index
//! <target>/objects/00..ff  the objects, spread over 256 folders
//! ```
//!
//! Every target of a volume is checked when the volume is opened, so that one that is missing,
//! swapped, foreign or doubled is refused by name, and not striped over.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;
use uuid::Uuid;

use crate::volume::{self, NotWritable};

/// File name of a target's identity.
pub const IDENTITY_NAME: &str = "target.toml";
/// Folder of a target's objects.
pub const OBJECTS_NAME: &str = "objects";
/// Folders in it, named `00` to `ff`.
pub const FANOUT: u32 = 256;
/// The newest format of `target.toml` that this code reads, and the one it writes.
pub const FORMAT: u32 = 1;

/// A target that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("target {index}: cannot {doing} {path}")]
    Io {
        index: u32,
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "target {index} is missing: there is no {path}; mount it or restore it, or correct its \
         path in volume.toml"
    )]
    Missing { index: u32, path: PathBuf },
    #[error(
        "target {index}: {path} is not a directory; a target is one: correct its path in \
         volume.toml"
    )]
    NotADirectory { index: u32, path: PathBuf },
    #[error(
        "target {index}: {path} has no {IDENTITY_NAME}; if its file system is not mounted, mount \
         it; else this is not a target: correct its path in volume.toml"
    )]
    NoIdentity { index: u32, path: PathBuf },
    #[error("target {index}: its identity is damaged: restore it from a copy")]
    BadIdentity {
        index: u32,
        #[source]
        source: Box<volume::Error>,
    },
    #[error(
        "target {index}: {path} is target {found} of this volume, so the targets are swapped: \
         put the [[target]] entries of volume.toml, or the mounts, in order"
    )]
    Swapped {
        index: u32,
        path: PathBuf,
        found: u32,
    },
    #[error(
        "target {index}: {path} belongs to volume {found}, not to this one, {uuid}: correct its \
         path in volume.toml, or the mount"
    )]
    Foreign {
        index: u32,
        path: PathBuf,
        uuid: Uuid,
        found: Uuid,
    },
    #[error(
        "target {index}: {path} is the same directory as target {other}: correct its path in \
         volume.toml, or the mount"
    )]
    Doubled {
        index: u32,
        path: PathBuf,
        other: u32,
    },
    #[error("target {index}: {path} is read-only: remount its file system writable")]
    ReadOnly { index: u32, path: PathBuf },
    #[error("target {index}: {path} may not be written by this user: run as its owner or as root")]
    NotWritable { index: u32, path: PathBuf },
    #[error(
        "target {index}: {path} has no folder \"{OBJECTS_NAME}\": the target is damaged: restore \
         it from a copy"
    )]
    NoObjects { index: u32, path: PathBuf },
}

/// Whose a target is: what its `target.toml` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The volume's uuid.
    pub volume: Uuid,
    pub index: u32,
}

#[derive(Deserialize)]
struct Head {
    format: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    #[serde(rename = "format")]
    _format: i64,
    volume: Uuid,
    index: u32,
}

impl Identity {
    /// Reads the identity of the target in directory `dir`; `path` is for messages.
    pub fn read(dir: impl AsFd, path: &Path) -> Result<Identity, volume::Error> {
        let file = path.join(IDENTITY_NAME);
        let text = volume::read_text(dir, Path::new(IDENTITY_NAME), &file)?;
        let head: Head = volume::parse(&text, &file)?;
        if head.format > i64::from(FORMAT) {
            return Err(volume::Error::NewerFormat {
                path: file,
                found: head.format,
                ours: FORMAT,
            });
        }
        let IdentityFile { volume, index, .. } = volume::parse(&text, &file)?;
        Ok(Identity { volume, index })
    }

    /// The text of the `target.toml`.
    pub fn to_toml(&self) -> String {
        let Identity { volume, index } = self;
        format!("format = {FORMAT}\nvolume = \"{volume}\"\nindex = {index}\n")
    }
}

/// Name of folder `number` below 256 among a target's objects.
pub fn folder_name(number: u32) -> String {
    format!("{number:02x}")
}

/// Opens the `objects` folder of every target of volume `uuid`, in order, checking each.
pub fn open_all(uuid: Uuid, paths: &[PathBuf]) -> Result<Vec<OwnedFd>, Error> {
    let mut dirs: Vec<OwnedFd> = Vec::with_capacity(paths.len());
    let mut seen = Vec::with_capacity(paths.len());
    // Doubled ones first: they would show as swapped otherwise.
    for (index, path) in (0u32..).zip(paths) {
        let (dir, key) = open_dir(index, path)?;
        if let Some(other) = seen.iter().position(|other| *other == key) {
            return Err(Error::Doubled {
                index,
                path: path.clone(),
                other: other as u32,
            });
        }
        seen.push(key);
        dirs.push(dir);
    }
    (0u32..)
        .zip(paths.iter().zip(dirs))
        .map(|(index, (path, dir))| {
            check_identity(
                Identity {
                    volume: uuid,
                    index,
                },
                path,
                &dir,
            )?;
            check_writable(index, path, &dir)?;
            open_objects(index, path, &dir)
        })
        .collect()
}

fn io(index: u32, doing: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Error {
    Error::Io {
        index,
        doing,
        path: path.into(),
        source: source.into(),
    }
}

/// Opens a target's directory; also answers what tells it from any other.
fn open_dir(index: u32, path: &Path) -> Result<(OwnedFd, (u64, u64)), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| {
        let path = path.to_owned();
        match errno {
            Errno::NOENT => Error::Missing { index, path },
            Errno::NOTDIR => Error::NotADirectory { index, path },
            errno => io(index, "open", &path, errno),
        }
    })?;
    let stat = rustix::fs::fstat(&dir).map_err(|errno| io(index, "look at", path, errno))?;
    Ok((dir, (stat.st_dev, stat.st_ino)))
}

fn check_identity(expected: Identity, path: &Path, dir: &OwnedFd) -> Result<(), Error> {
    let index = expected.index;
    let found = Identity::read(dir, path).map_err(|error| match error {
        volume::Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            Error::NoIdentity {
                index,
                path: path.into(),
            }
        }
        error => Error::BadIdentity {
            index,
            source: Box::new(error),
        },
    })?;
    if found.volume != expected.volume {
        return Err(Error::Foreign {
            index,
            path: path.into(),
            uuid: expected.volume,
            found: found.volume,
        });
    }
    if found.index != index {
        return Err(Error::Swapped {
            index,
            path: path.into(),
            found: found.index,
        });
    }
    Ok(())
}

fn check_writable(index: u32, path: &Path, dir: &OwnedFd) -> Result<(), Error> {
    let path = path.to_owned();
    match volume::writable(dir).map_err(|source| io(index, "check", &path, source))? {
        Ok(()) => Ok(()),
        Err(NotWritable::ReadOnly) => Err(Error::ReadOnly { index, path }),
        Err(NotWritable::Permission) => Err(Error::NotWritable { index, path }),
    }
}

fn open_objects(index: u32, path: &Path, dir: &OwnedFd) -> Result<OwnedFd, Error> {
    // Never through a symbolic link: whoever could put one there is not to lead us elsewhere.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, OBJECTS_NAME, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Error::NoObjects {
            index,
            path: path.into(),
        },
        errno => io(index, "open the objects of", path, errno),
    })
}

/// What a target holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many objects there are.
    pub objects: u64,
    /// Storage that they take.
    pub bytes: u64,
    /// Capacity of the target's file system.
    pub capacity_bytes: u64,
    /// What is free of it for this user.
    pub available_bytes: u64,
}

/// Counts what is under a target's `objects` folder. Objects that come and go meanwhile may or
/// may not be counted.
pub fn usage(objects: BorrowedFd<'_>) -> std::io::Result<Usage> {
    let stat = rustix::fs::fstatvfs(objects)?;
    let mut usage = Usage {
        capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        ..Usage::default()
    };
    for number in 0..FANOUT {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(objects, folder_name(number), flags, Mode::empty()) {
            Ok(folder) => count(folder.as_fd(), &mut usage)?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(usage)
}

fn count(folder: BorrowedFd<'_>, usage: &mut Usage) -> std::io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = match rustix::fs::statat(folder, entry.file_name(), flags) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            usage.objects += 1;
            usage.bytes += stat.st_blocks as u64 * 512;
        }
    }
    Ok(())
}
