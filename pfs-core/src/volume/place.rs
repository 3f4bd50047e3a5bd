//! A directory that is part of a volume and marked as its own: the metadata directory, or the
//! one that a `posix` volume serves.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Access, AtFlags, Mode, OFlags, StatVfsMountFlags, XattrFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::Error;

/// Extended attribute of such a directory: the uuid of its volume. Engines hide names that start
/// with `user.pfs.` from guests, and let none be set, unless they are documented as a guest's.
pub const PLACE_XATTR: &str = "user.pfs.volume";

/// Opens `path`, and where a `uuid` is given checks the mark.
pub(super) fn open(path: &Path, uuid: Option<Uuid>) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| cannot_open(path, errno))?;
    if let Some(uuid) = uuid {
        check_mark(&dir, path, uuid)?;
    }
    Ok(dir)
}

fn cannot_open(path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::PlaceMissing { path: path.into() },
        Errno::NOTDIR => Error::PlaceNotADirectory { path: path.into() },
        errno => Error::io("open", path, errno),
    }
}

fn check_mark(dir: &OwnedFd, path: &Path, uuid: Uuid) -> Result<(), Error> {
    match read_mark(dir, path)? {
        None => Err(Error::PlaceNotMarked {
            path: path.into(),
            uuid,
        }),
        Some(found) if found == uuid.to_string() => Ok(()),
        Some(found) => Err(Error::PlaceForeign {
            path: path.into(),
            uuid,
            found,
        }),
    }
}

/// The uuid that `dir` is marked with, as text.
pub(super) fn read_mark(dir: &OwnedFd, path: &Path) -> Result<Option<String>, Error> {
    let mut value = [0u8; 64];
    match rustix::fs::fgetxattr(dir, PLACE_XATTR, &mut value) {
        Ok(len) => Ok(Some(String::from_utf8_lossy(&value[..len]).into_owned())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(Errno::RANGE) => Ok(Some("with an unreadable mark".into())),
        Err(errno) => Err(Error::io("read the volume's mark on", path, errno)),
    }
}

/// Marks `dir` as the volume's.
pub(super) fn mark(dir: &OwnedFd, path: &Path, uuid: Uuid) -> Result<(), Error> {
    let value = uuid.to_string();
    rustix::fs::fsetxattr(dir, PLACE_XATTR, value.as_bytes(), XattrFlags::empty()).map_err(
        |errno| match errno {
            Errno::OPNOTSUPP => Error::NoXattrs { path: path.into() },
            errno => Error::io("mark", path, errno),
        },
    )
}

/// Takes the mark off again.
pub(super) fn unmark(dir: &OwnedFd) {
    // Only to undo: there is nothing to do about a failure.
    let _ = rustix::fs::fremovexattr(dir, PLACE_XATTR);
}

/// Name of the guest's tree in a metadata directory.
pub(super) const NAMESPACE_NAME: &str = "namespace";
/// Name of the directory of files without a name in a metadata directory.
pub(super) const ORPHANS_NAME: &str = "orphans";

/// An open metadata directory. What is in it is one mount: names move between its directories.
#[derive(Debug)]
pub struct Meta {
    /// The directory itself, readable.
    pub dir: OwnedFd,
    /// The root of the guest's tree, readable.
    pub namespace: OwnedFd,
    /// Files that lost their last name while they were in use, readable.
    pub orphans: OwnedFd,
}

impl Meta {
    /// Opens the directories in the metadata directory `dir`; an error names the one.
    pub fn within(dir: OwnedFd) -> Result<Meta, (&'static str, Errno)> {
        let open = |name| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(|errno| (name, errno))
        };
        let (namespace, orphans) = (open(NAMESPACE_NAME)?, open(ORPHANS_NAME)?);
        Ok(Meta {
            dir,
            namespace,
            orphans,
        })
    }

    /// Opens the metadata directory `path` of the volume `uuid`.
    pub(super) fn open(path: &Path, uuid: Uuid) -> Result<Meta, Error> {
        let dir = open(path, Some(uuid))?;
        check_writable(&dir, path)?;
        let meta =
            Meta::within(dir).map_err(|(name, errno)| cannot_open(&path.join(name), errno))?;
        check_writable(&meta.namespace, &path.join(NAMESPACE_NAME))?;
        check_writable(&meta.orphans, &path.join(ORPHANS_NAME))?;
        Ok(meta)
    }
}

/// What stands in the way of writing to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotWritable {
    ReadOnly,
    Permission,
}

/// Whether entries can be made in `dir`.
pub(crate) fn writable(dir: impl AsFd) -> std::io::Result<Result<(), NotWritable>> {
    let dir = dir.as_fd();
    if rustix::fs::fstatvfs(dir)?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY)
    {
        return Ok(Err(NotWritable::ReadOnly));
    }
    let access = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(dir, ".", access, AtFlags::EACCESS) {
        Ok(()) => Ok(Ok(())),
        Err(Errno::ROFS) => Ok(Err(NotWritable::ReadOnly)),
        Err(Errno::ACCESS | Errno::PERM) => Ok(Err(NotWritable::Permission)),
        Err(errno) => Err(errno.into()),
    }
}

/// Refuses a directory that cannot be written.
pub(super) fn check_writable(dir: &OwnedFd, path: &Path) -> Result<(), Error> {
    match writable(dir).map_err(|source| Error::io("check", path, source))? {
        Ok(()) => Ok(()),
        Err(NotWritable::ReadOnly) => Err(Error::PlaceReadOnly { path: path.into() }),
        Err(NotWritable::Permission) => Err(Error::PlaceNotWritable { path: path.into() }),
    }
}
