//! Volumes: what a VM mounts.
//!
//! A volume is a folder with a `volume.toml` ([`Descriptor`]), that file itself, or a plain
//! directory, which is a `posix` volume of itself. A path is all it takes:
//!
//! - [`Volume::locate`] finds and reads the descriptor and touches nothing else.
//! - [`Volume::open`] also opens and checks every place that the descriptor names.
//! - [`create`] makes a new one, whole or not at all.
//!
//! # Every place carries the volume's uuid
//!
//! A target has its `target.toml` ([`crate::target`]), a metadata or posix directory the extended
//! attribute [`PLACE_XATTR`]. So a place that is not mounted, was swapped, or belongs to another
//! volume is refused by name. It is also what makes descriptors safe to find in a folder: a guest
//! that shares a plain directory could leave a `volume.toml` in it for the next start, but cannot
//! mark a place outside as its own.

mod create;
mod descriptor;
mod error;
mod mapped;
mod place;
mod set;
pub mod size;
mod usage;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use create::{create, CreateOptions, NewEngine, NewTargets};
pub use descriptor::{
    Cephfs, Descriptor, Engine, Ownership, Striped, FORMAT, MDT_SIZE_MAX_BYTES, MDT_SIZE_STEP_BYTES,
};
pub use error::{Error, Impossible};
pub use place::{Meta, PLACE_XATTR};
pub use usage::{Limits, Usage, Used, USAGE_NAME};
pub(crate) use {
    descriptor::{parse, read_text},
    place::{writable, NotWritable},
    set::rewrite_limits,
};

use crate::layout::Layout;
use crate::target;

/// How often, and how long between, another who is alone with a volume is waited for.
const JOIN_TRIES: u32 = 20;
const JOIN_WAIT: Duration = Duration::from_millis(100);
/// File name of a descriptor in a volume's folder.
pub const DESCRIPTOR_NAME: &str = "volume.toml";

/// A volume found, nothing of it opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The folder that relative paths in the descriptor start from.
    pub path: PathBuf,
    pub descriptor: Descriptor,
}

/// A volume whose places are all open and checked.
#[derive(Debug)]
pub struct OpenVolume {
    /// The volume's folder.
    pub path: PathBuf,
    pub descriptor: Descriptor,
    /// With mapped ownership: one file for all who use the volume to lock, open for writing.
    pub owner_lock: Option<OwnedFd>,
    pub kind: VolumeKind,
}

/// A striped volume opened for a look at all of it.
#[derive(Debug)]
pub struct CheckedVolume {
    /// The volume's folder.
    pub path: PathBuf,
    pub striped: Striped,
    pub meta: Meta,
    /// The `objects` directory of each target.
    pub targets: Vec<OwnedFd>,
    /// What all who use the volume count and know together; `None` where it is damaged.
    pub usage: Option<Usage>,
    /// No other process uses the volume, and none begins to until this is dropped.
    pub alone: bool,
    /// The lock that says so, where `usage` does not hold it.
    _lock: Option<OwnedFd>,
}

/// What an engine is built on.
#[derive(Debug)]
pub enum VolumeKind {
    Striped {
        meta: Meta,
        /// What all who use the volume count and know together.
        usage: Usage,
        /// The `objects` directory of each target, readable, by the target's index.
        targets: Vec<OwnedFd>,
        /// The layout of new files.
        layout: Layout,
        /// Bytes at the start of a file that stay in its inode.
        mdt_size_bytes: u64,
    },
    Posix {
        /// The directory to serve, readable.
        root: OwnedFd,
    },
    Cephfs {
        /// With paths that are absolute.
        settings: Cephfs,
        /// The folder of the volume's clients, where it could be made.
        clients: Option<OwnedFd>,
    },
    Null,
}

impl Volume {
    /// Finds the volume at `path`: a volume's folder, a descriptor, or a plain directory.
    pub fn locate(path: &Path) -> Result<Volume, Error> {
        let path = path.canonicalize().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NoVolume { path: path.into() },
            _ => Error::io("find", path, source),
        })?;
        if !path.is_dir() {
            let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
            let descriptor = Descriptor::read(&path)?;
            return Ok(Volume {
                path: folder,
                descriptor,
            });
        }
        let file = path.join(DESCRIPTOR_NAME);
        let descriptor = match file.symlink_metadata() {
            Ok(_) => Descriptor::read(&file)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                refuse_target(&path)?;
                Descriptor::plain(&path)
            }
            Err(source) => return Err(Error::io("look for", &file, source)),
        };
        Ok(Volume { path, descriptor })
    }

    /// Finds the volume at `path`, opens all its places and checks that they are its own.
    pub fn open(path: &Path) -> Result<OpenVolume, Error> {
        Volume::locate(path)?.open_places()
    }

    /// Opens all places of the volume and checks that they are its own.
    pub fn open_places(self) -> Result<OpenVolume, Error> {
        let kind = match &self.descriptor.engine {
            Engine::Striped(striped) => self.open_striped(striped)?,
            Engine::Posix { path } => VolumeKind::Posix {
                root: place::open(&self.path.join(path), self.descriptor.uuid)?,
            },
            Engine::Cephfs(settings) => self.open_cephfs(settings)?,
            Engine::Null => VolumeKind::Null,
        };
        let owner_lock = match self.descriptor.ownership {
            Ownership::Mapped => Some(mapped::open_lock(&self.path)?),
            Ownership::Native => None,
        };
        Ok(OpenVolume {
            path: self.path,
            descriptor: self.descriptor,
            owner_lock,
            kind,
        })
    }

    /// Opens a striped volume for a look at all of it; with `alone`, alone if that can be.
    pub fn open_to_check(&self, striped: &Striped, alone: bool) -> Result<CheckedVolume, Error> {
        let uuid = self.descriptor.uuid.unwrap_or_default();
        let path = self.path.join(&striped.meta);
        let meta = Meta::open(&path, uuid)?;
        let paths = striped.targets.iter().map(|path| self.path.join(path));
        let targets = target::open_all(uuid, &paths.collect::<Vec<_>>())?;
        let lock = |errno| Error::io("lock", &path.join(USAGE_NAME), errno);
        let (usage, alone, held) = match Usage::open(&meta.dir, &path) {
            Ok(usage) => {
                let alone = alone && usage.try_alone().map_err(lock)?;
                if !alone {
                    join(&usage, &path)?;
                }
                (Some(usage), alone, None)
            }
            Err(Error::UsageDamaged { .. }) => {
                let held = usage::lock_damaged(&meta.dir).map_err(lock)?;
                (None, held.is_some(), held)
            }
            Err(error) => return Err(error),
        };
        Ok(CheckedVolume {
            path: self.path.clone(),
            striped: striped.clone(),
            meta,
            targets,
            usage,
            alone,
            _lock: held,
        })
    }

    #[cfg(not(feature = "ceph"))]
    fn open_cephfs(&self, _: &Cephfs) -> Result<VolumeKind, Error> {
        Err(Error::EngineNotBuilt {
            path: self.path.clone(),
            engine: "cephfs",
        })
    }

    #[cfg(feature = "ceph")]
    fn open_cephfs(&self, settings: &Cephfs) -> Result<VolumeKind, Error> {
        let absolute = |path: &PathBuf| self.path.join(path);
        let clients = self.path.join(crate::engine::cephfs::CLIENTS_FOLDER);
        // A volume in a folder that is not the daemon's to write can be used all the same.
        match std::fs::create_dir(&clients) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                log::warn!("cannot make {}: {error}", clients.display());
            }
            _ => {}
        }
        Ok(VolumeKind::Cephfs {
            settings: Cephfs {
                conf: settings.conf.as_ref().map(absolute),
                keyring: settings.keyring.as_ref().map(absolute),
                ..settings.clone()
            },
            clients: place::open(&clients, None).ok(),
        })
    }

    fn open_striped(&self, striped: &Striped) -> Result<VolumeKind, Error> {
        let uuid = self.descriptor.uuid.unwrap_or_default();
        let path = self.path.join(&striped.meta);
        let meta = Meta::open(&path, uuid)?;
        let usage = Usage::open(&meta.dir, &path)?;
        join(&usage, &path)?;
        let paths = striped.targets.iter().map(|path| self.path.join(path));
        Ok(VolumeKind::Striped {
            meta,
            usage,
            targets: target::open_all(uuid, &paths.collect::<Vec<_>>())?,
            layout: striped.layout,
            mdt_size_bytes: striped.mdt_size_bytes,
        })
    }
}

/// Says that this process uses the volume. Who is alone with it mostly is not for long.
fn join(usage: &Usage, path: &Path) -> Result<(), Error> {
    let lock = |errno| Error::io("lock", &path.join(USAGE_NAME), errno);
    for _ in 0..JOIN_TRIES {
        if usage.join().map_err(lock)? {
            return Ok(());
        }
        std::thread::sleep(JOIN_WAIT);
    }
    Err(Error::InUse { path: path.into() })
}

/// A target given in place of its volume would be served as a plain directory, objects and all.
fn refuse_target(path: &Path) -> Result<(), Error> {
    let dir = place::open(path, None)?;
    match target::Identity::read(dir, path) {
        Ok(identity) => Err(Error::IsTarget {
            path: path.into(),
            index: identity.index,
            uuid: identity.volume,
        }),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
