//! Files that lost their last name.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{statat, AtFlags, FileType};

use super::objects::names_in;
use super::walk::{Look, Met};
use super::{Checker, Error, Kind};
use crate::engine::striped::objects::Targets;
use crate::engine::striped::orphans::{Orphans, Purged};
use crate::engine::striped::record::{self, Record};
use crate::fs::Errno;

impl Checker<'_> {
    /// Takes the objects of orphans off the list. Alone with the volume, nobody uses an orphan.
    pub(super) fn check_orphans(&mut self, look: Look) -> Result<(), Error> {
        let meta = self.volume.path.join(&self.volume.striped.meta);
        let place = meta.join("orphans");
        let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 0);
        let dir = copy(&self.volume.meta.orphans).map_err(Error::io("open", &place))?;
        for name in names_in(&dir).map_err(Error::io("read", &place))? {
            let stat = match statat(&dir, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(Error::io("look at", &place))?,
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                if look == Look::All {
                    self.foreign(place.clone(), &name);
                }
                continue;
            }
            let path = place.join(OsStr::from_bytes(name.to_bytes()));
            let met = Met {
                dir: dir.as_fd(),
                name: &name,
                path: &path,
                stat: &stat,
            };
            // What one had whose record cannot be read is nobody's, and goes as such.
            if let Ok(Some(value)) = met.xattr(record::xattr_name()) {
                if let Some(record) = Record::parse(&value).ok().filter(|it| self.fits(it)) {
                    self.claim(&record);
                }
            }
            if !self.volume.alone {
                continue;
            }
            let targets: Result<_, _> = self.targets().iter().map(copy).collect();
            let (targets, orphans) = (targets, copy(&dir));
            self.mend(Kind::HalfRemoved, &path, || {
                let (targets, orphans) = (Targets::new(targets?), Orphans::new(orphans?));
                match orphans.purge_found(&targets, &name, None)? {
                    Purged::InUse | Purged::Young => Err(Errno::BUSY),
                    Purged::Absent | Purged::Gone | Purged::Named => Ok(()),
                }
            });
        }
        Ok(())
    }
}
