//! Files that lost their last name.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{statat, AtFlags, FileType};

use super::objects::names_in;
use super::walk::{Look, Met};
use super::{Checker, Error, Kind};
use crate::engine::striped::objects::Targets;
use crate::engine::striped::orphans::{Orphans, Purged, Store};
use crate::engine::striped::record::{self, Record};
use crate::fs::Errno;

impl Checker<'_> {
    /// Takes the objects of orphans off the list. Alone with the volume, nobody uses an orphan, but a
    /// daemon that is being restarted may use a young one again.
    pub(super) fn check_orphans(&mut self, look: Look) -> Result<(), Error> {
        let meta = self.volume.path.join(&self.volume.striped.meta);
        let place = meta.join("orphans");
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
            self.check_orphan(&dir, &met, look);
        }
        Ok(())
    }

    fn check_orphan(&mut self, dir: &OwnedFd, met: &Met<'_>, look: Look) {
        // What one had whose record cannot be read is nobody's, and goes as such.
        if let Ok(Some(value)) = met.xattr(record::xattr_name()) {
            if let Some(record) = Record::parse(&value).ok().filter(|it| self.fits(it)) {
                self.claim(&record);
            }
        }
        let is_unused = look == Look::All && self.volume.alone && !self.is_young(met);
        let is_gone = is_unused && self.purge_orphan(dir, met);
        let is_new = met.stat.st_nlink == 1 || self.linked.insert(met.stat.st_ino);
        if look != Look::ForObjects && is_new && !is_gone {
            self.used.inodes += 1;
            self.used.bytes += met.stat.st_size as u64;
        }
    }

    /// Whether it lost its last name too lately: a daemon that is being restarted may still have
    /// it open. That is no problem, and only counted.
    fn is_young(&mut self, met: &Met<'_>) -> bool {
        let since = UNIX_EPOCH + Duration::from_secs(u64::try_from(met.stat.st_ctime).unwrap_or(0));
        let is_young =
            met.stat.st_nlink == 1 && self.orphans_until.is_some_and(|limit| since > limit);
        self.report.young_orphans += u64::from(is_young);
        is_young
    }

    /// Removes what is left of a file; answers whether that was done.
    fn purge_orphan(&mut self, dir: &OwnedFd, met: &Met<'_>) -> bool {
        let targets: Result<_, _> = self.targets().iter().map(copy).collect();
        let (mut is_gone, usage) = (false, self.volume.usage.take());
        self.mend(Kind::HalfRemoved, met.path, || {
            let (targets, orphans) = (Targets::new(targets?), Orphans::new(copy(dir)?));
            let store = Store {
                targets: &targets,
                usage: usage.as_ref(),
            };
            match orphans.purge_found(store, met.name, None)? {
                Purged::InUse | Purged::Young => return Err(Errno::BUSY),
                Purged::Absent | Purged::Gone => is_gone = true,
                Purged::Named => {}
            }
            Ok(())
        });
        self.volume.usage = usage;
        is_gone
    }
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}
