//! The file that all who use a volume of mapped ownership lock while they change an owner or a
//! mode. Nothing is in it.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::Error;

/// Its name in the volume's folder.
pub(super) const LOCK_NAME: &str = "owner.lock";

/// Opens it in `folder`. One that is gone is made anew.
pub(super) fn open_lock(folder: &Path) -> Result<OwnedFd, Error> {
    let path = folder.join(LOCK_NAME);
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644));
    file.map_err(|errno| Error::io("open", &path, errno))
}
