//! Making a volume, whole or not at all.
//!
//! Everything made is written down, and removed again in reverse if a later step fails. The
//! `volume.toml` comes last, by a rename: without it there is no volume.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags, RenameFlags, CWD};
use rustix::io::Errno;
use uuid::Uuid;

use super::{
    mapped, place, Cephfs, Descriptor, Engine, Error, Impossible, Limits, Ownership, Striped,
    Usage, Volume, DESCRIPTOR_NAME, USAGE_NAME,
};
use crate::layout::Layout;
use crate::target::{self, Identity, IDENTITY_NAME, OBJECTS_NAME};

/// What a new volume shall be.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// The volume's folder: new, or empty.
    pub path: PathBuf,
    pub ownership: Ownership,
    pub engine: NewEngine,
}

/// The engine of a new volume, and what it needs to know.
#[derive(Clone, Debug)]
pub enum NewEngine {
    Striped {
        targets: NewTargets,
        stripe_unit_bytes: u64,
        /// `None` for as many as there are targets.
        stripe_count: Option<u32>,
        mdt_size_bytes: u64,
        limits: Limits,
    },
    Posix {
        /// An existing directory to serve; `None` makes `data` in the volume's folder.
        path: Option<PathBuf>,
    },
    /// A CephFS that is there. Whether it can be mounted is found out by opening the volume.
    Cephfs(Cephfs),
    Null,
}

/// Where the targets of a new volume shall be.
#[derive(Clone, Debug)]
pub enum NewTargets {
    /// So many, in the folder `targets` of the volume's folder.
    Inside(u32),
    /// In these directories, each new or empty.
    At(Vec<PathBuf>),
}

impl NewEngine {
    /// A striped volume with the usual layout.
    pub fn striped(targets: NewTargets) -> NewEngine {
        NewEngine::Striped {
            targets,
            stripe_unit_bytes: 1 << 20,
            stripe_count: None,
            mdt_size_bytes: 64 << 10,
            limits: Limits::default(),
        }
    }
}

/// Makes a volume.
pub fn create(options: &CreateOptions) -> Result<Volume, Error> {
    let uuid = Uuid::new_v4();
    let mut made = Made::default();
    let folder = &made.claim(&options.path)?;
    if options.ownership == Ownership::Mapped {
        if matches!(options.engine, NewEngine::Null) {
            return Err(Impossible::MappedNull.into());
        }
        if matches!(options.engine, NewEngine::Cephfs(_)) {
            return Err(Impossible::MappedCephfs.into());
        }
        made.file(&folder.join(mapped::LOCK_NAME), "")?;
    }
    let engine = match &options.engine {
        NewEngine::Striped {
            targets,
            stripe_unit_bytes,
            stripe_count,
            mdt_size_bytes,
            limits,
        } => {
            let targets = match targets {
                NewTargets::Inside(count) => {
                    (0..*count).map(|i| format!("targets/{i}").into()).collect()
                }
                NewTargets::At(paths) => paths
                    .iter()
                    .map(std::path::absolute)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|source| Error::io("find", folder, source))?,
            };
            let count = stripe_count.unwrap_or(targets.len().max(1) as u32);
            let striped = Striped {
                meta: "meta".into(),
                targets,
                layout: Layout::new(*stripe_unit_bytes, count, 0)?,
                mdt_size_bytes: *mdt_size_bytes,
                limits: *limits,
            };
            striped.check()?;
            Engine::Striped(made.striped(folder, uuid, striped)?)
        }
        NewEngine::Posix { path } => Engine::Posix {
            path: made.posix(folder, uuid, path.as_deref(), options.ownership)?,
        },
        NewEngine::Cephfs(settings) => {
            settings.check()?;
            Engine::Cephfs(settings.clone())
        }
        NewEngine::Null => Engine::Null,
    };
    let descriptor = Descriptor {
        uuid: Some(uuid),
        ownership: options.ownership,
        engine,
    };
    made.descriptor(folder, &descriptor)?;
    made.keep();
    Ok(Volume {
        path: folder.clone(),
        descriptor,
    })
}

enum Step {
    Dir(PathBuf),
    File(PathBuf),
    Mark(OwnedFd),
}

/// What was made so far; undone on drop.
#[derive(Default)]
struct Made {
    steps: Vec<Step>,
}

impl Drop for Made {
    fn drop(&mut self) {
        for step in self.steps.drain(..).rev() {
            // What another put there meanwhile stays, and with it the directory: nothing to do.
            let _ = match step {
                Step::Dir(path) => std::fs::remove_dir(path),
                Step::File(path) => std::fs::remove_file(path),
                Step::Mark(dir) => {
                    place::unmark(&dir);
                    Ok(())
                }
            };
        }
    }
}

impl Made {
    fn keep(mut self) {
        self.steps.clear();
    }

    /// Makes a directory that is not there, for the owner only to write.
    fn dir(&mut self, path: &Path) -> Result<(), Error> {
        self.dir_with(path, 0o755)
    }

    /// Makes a directory that is not there, for the owner only.
    fn private_dir(&mut self, path: &Path) -> Result<(), Error> {
        self.dir_with(path, 0o700)
    }

    fn dir_with(&mut self, path: &Path, mode: u32) -> Result<(), Error> {
        let made = DirBuilder::new().mode(mode).create(path);
        made.map_err(|source| Error::io("make", path, source))?;
        self.steps.push(Step::Dir(path.into()));
        Ok(())
    }

    /// Makes a directory and those above it that are not there; an existing one is taken as it is.
    fn dirs(&mut self, path: &Path) -> Result<(), Error> {
        let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.iter().rev() {
            self.dir(path)?;
        }
        Ok(())
    }

    /// Makes a directory, or takes an existing one that is empty; answers its canonical path.
    fn claim(&mut self, path: &Path) -> Result<PathBuf, Error> {
        let path = &std::path::absolute(path).map_err(|e| Error::io("find", path, e))?;
        self.dirs(path)?;
        check_empty(path)?;
        path.canonicalize()
            .map_err(|source| Error::io("find", path, source))
    }

    /// Writes a new file that survives power loss once its directory is synced.
    fn file(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o644).open(path);
        let mut file = file.map_err(|source| Error::io("make", path, source))?;
        self.steps.push(Step::File(path.into()));
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|source| Error::io("write", path, source))
    }

    fn striped(&mut self, folder: &Path, uuid: Uuid, new: Striped) -> Result<Striped, Error> {
        let meta = folder.join(&new.meta);
        self.dir(&meta)?;
        let dir = self.mark(&meta, uuid)?;
        check_fallocate(dir.as_fd(), &meta)?;
        self.dir(&meta.join(place::NAMESPACE_NAME))?;
        self.private_dir(&meta.join(place::ORPHANS_NAME))?;
        Usage::create(&dir, &meta, &new.limits, new.mdt_size_bytes)?;
        self.steps.push(Step::File(meta.join(USAGE_NAME)));
        let mut claimed: Vec<PathBuf> = Vec::new();
        let mut targets = Vec::new();
        for (index, path) in (0u32..).zip(&new.targets) {
            let inside = path.is_relative();
            let place = self.claim_target(&folder.join(path), folder, &claimed, inside)?;
            self.target(
                &place,
                Identity {
                    volume: uuid,
                    index,
                },
            )?;
            // Inside the folder it is named relative to it, so that the whole can be moved.
            let name = place.strip_prefix(folder).unwrap_or(&place);
            targets.push(name.to_owned());
            claimed.push(place);
        }
        if let Ok(parent) = open_dir(&folder.join("targets")) {
            sync(&parent, &folder.join("targets"))?;
        }
        sync(&dir, &meta)?;
        Ok(Striped { targets, ..new })
    }

    fn claim_target(
        &mut self,
        path: &Path,
        folder: &Path,
        others: &[PathBuf],
        inside: bool,
    ) -> Result<PathBuf, Error> {
        if let Ok(found) = path.canonicalize() {
            if others.contains(&found) {
                return Err(Error::TargetTwice { path: path.into() });
            }
            if found == folder {
                return Err(Error::TargetNested {
                    inner: path.into(),
                    outer: folder.into(),
                });
            }
            if let Ok(identity) = open_dir(&found).and_then(|dir| Identity::read(dir, &found)) {
                return Err(Error::AlreadyATarget {
                    path: path.into(),
                    index: identity.index,
                    uuid: identity.volume,
                });
            }
        }
        let place = self.claim(path)?;
        let meta = folder.join("meta");
        let outer = others.iter().chain(Some(&meta).filter(|_| !inside));
        for outer in outer {
            if place.starts_with(outer) || outer.starts_with(&place) {
                return Err(Error::TargetNested {
                    inner: place,
                    outer: outer.clone(),
                });
            }
        }
        Ok(place)
    }

    fn target(&mut self, place: &Path, identity: Identity) -> Result<(), Error> {
        let dir = open_dir(place)?;
        check_fallocate(dir.as_fd(), place)?;
        let objects = place.join(OBJECTS_NAME);
        self.dir(&objects)?;
        for number in 0..target::FANOUT {
            self.dir(&objects.join(target::folder_name(number)))?;
        }
        sync(&open_dir(&objects)?, &objects)?;
        self.file(&place.join(IDENTITY_NAME), &identity.to_toml())?;
        sync(&dir, place)?;
        match place.parent() {
            Some(parent) => sync(&open_dir(parent)?, parent),
            None => Ok(()),
        }
    }

    fn posix(
        &mut self,
        folder: &Path,
        uuid: Uuid,
        path: Option<&Path>,
        ownership: Ownership,
    ) -> Result<PathBuf, Error> {
        let check = |dir: &OwnedFd, path: &Path| match ownership {
            Ownership::Mapped => nameless(dir, path).map(drop),
            Ownership::Native => Ok(()),
        };
        let Some(path) = path else {
            let data = folder.join("data");
            self.dir(&data)?;
            let dir = self.mark(&data, uuid)?;
            check(&dir, &data)?;
            sync(&dir, &data)?;
            return Ok("data".into());
        };
        let path = &path.canonicalize().map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::PlaceMissing { path: path.into() },
            _ => Error::io("find", path, source),
        })?;
        let dir = place::open(path, None)?;
        if place::read_mark(&dir, path)?.is_some() || path.join(DESCRIPTOR_NAME).exists() {
            return Err(Error::AlreadyAVolume { path: path.clone() });
        }
        check(&dir, path)?;
        sync(&self.mark(path, uuid)?, path)?;
        Ok(path.clone())
    }

    fn mark(&mut self, path: &Path, uuid: Uuid) -> Result<OwnedFd, Error> {
        let dir = open_dir(path)?;
        place::mark(&dir, path, uuid)?;
        let again = open_dir(path)?;
        self.steps.push(Step::Mark(again));
        Ok(dir)
    }

    /// The last step: now it is a volume.
    fn descriptor(&mut self, folder: &Path, descriptor: &Descriptor) -> Result<(), Error> {
        let (new, path) = (
            folder.join(".volume.toml.new"),
            folder.join(DESCRIPTOR_NAME),
        );
        let head = "# Made by pfsctl volume create.\n";
        self.file(&new, &format!("{head}{}", descriptor.to_toml()))?;
        rustix::fs::renameat_with(CWD, &new, CWD, &path, RenameFlags::NOREPLACE).map_err(
            |errno| match errno {
                Errno::EXIST => Error::AlreadyAVolume {
                    path: folder.into(),
                },
                errno => Error::io("make", &path, errno),
            },
        )?;
        self.steps.pop();
        self.steps.push(Step::File(path));
        sync(&open_dir(folder)?, folder)?;
        match folder.parent() {
            Some(parent) => sync(&open_dir(parent)?, parent),
            None => Ok(()),
        }
    }
}

/// Refuses a directory with anything in it but what `mkfs` leaves.
fn check_empty(path: &Path) -> Result<(), Error> {
    let read = |source: std::io::Error| match source.kind() {
        ErrorKind::NotADirectory => Error::PlaceNotADirectory { path: path.into() },
        _ => Error::io("read", path, source),
    };
    let mut found: Option<OsString> = None;
    for entry in std::fs::read_dir(path).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        if name == OsStr::new(DESCRIPTOR_NAME) {
            return Err(Error::AlreadyAVolume { path: path.into() });
        }
        if name != OsStr::new("lost+found") {
            found = Some(name);
        }
    }
    match found {
        None => Ok(()),
        Some(entry) => Err(Error::NotEmpty {
            path: path.into(),
            entry: entry.to_string_lossy().into_owned(),
        }),
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    place::open(path, None)
}

fn sync(dir: &OwnedFd, path: &Path) -> Result<(), Error> {
    rustix::fs::fsync(dir).map_err(|errno| Error::io("sync", path, errno))
}

/// Whether files in `dir` can be extended, allocated ahead and punched.
fn check_fallocate(dir: impl AsFd, path: &Path) -> Result<(), Error> {
    let file = nameless(dir, path)?;
    let keep = FallocateFlags::KEEP_SIZE;
    for (flags, what) in [
        (keep, "allocate space ahead (fallocate)"),
        (keep | FallocateFlags::PUNCH_HOLE, "punch holes (fallocate)"),
    ] {
        match rustix::fs::fallocate(&file, flags, 0, 4096) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let path = path.into();
                return Err(Error::NoFallocate { path, what });
            }
            Err(errno) => return Err(Error::io("allocate space in", path, errno)),
        }
    }
    Ok(())
}

/// A file without a name in `dir`.
fn nameless(dir: impl AsFd, path: &Path) -> Result<File, Error> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, ".", flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => Ok(file.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => Err(Error::NoFallocate {
            path: path.into(),
            what: "make files without a name (O_TMPFILE)",
        }),
        Err(errno) => Err(Error::io("make a file in", path, errno)),
    }
}
