//! The page that daemons share, against what was counted.

use super::{Checker, Error, Kind};
use crate::volume::{Usage, USAGE_NAME};

/// Names that a metadata directory has, and one that `mkfs` leaves.
const OURS: [&[u8]; 4] = [b"namespace", b"orphans", b"usage", b"lost+found"];

impl Checker<'_> {
    /// Looks at the metadata directory itself, and at what daemons count and know together.
    pub(super) fn judge_counters(&mut self) -> Result<(), Error> {
        let meta = self.volume.path.join(&self.volume.striped.meta);
        let names = super::objects::names_in(&self.volume.meta.dir);
        for name in names.map_err(Error::io("read", &meta))? {
            if !OURS.contains(&name.to_bytes()) {
                self.foreign(meta.clone(), &name);
            }
        }
        let path = meta.join(USAGE_NAME);
        if self.volume.usage.is_none() {
            self.renew_usage(&path)?;
        }
        // Alone with a page that nobody renewed, there is nothing to compare.
        let Some(usage) = self.volume.usage.take() else {
            return Ok(());
        };
        self.judge_usage(&usage, &path);
        self.volume.usage = Some(usage);
        Ok(())
    }

    fn renew_usage(&mut self, path: &std::path::Path) -> Result<(), Error> {
        if !self.volume.alone {
            self.leave(Kind::DamagedUsage, path, super::report::NOT_ALONE);
            return Ok(());
        }
        let mut renewed = None;
        let dir = rustix::io::fcntl_dupfd_cloexec(&self.volume.meta.dir, 0)
            .map_err(Error::io("open", path))?;
        self.mend(Kind::DamagedUsage, path, || {
            renewed = Some(Usage::renew(dir)?);
            Ok(())
        });
        self.volume.usage = renewed;
        Ok(())
    }

    fn judge_usage(&mut self, usage: &Usage, path: &std::path::Path) {
        if let Some(mdt_size) = self.mdt_size_min_bytes {
            let default = self.default_layout().mdt_size_bytes;
            let known = usage.has_layouts() && usage.mdt_size_min_bytes(default) <= mdt_size;
            if !known {
                self.mend(Kind::UnknownLayouts, path, || {
                    usage.add_layout(mdt_size);
                    Ok(())
                });
            }
        }
        let limits = self.volume.striped.limits;
        let counts = usage.used();
        if self.volume.alone && limits.any() && counts != Some(self.used) {
            let used = self.used;
            self.mend(Kind::WrongCounter, path, || {
                usage.set_used(Some(used));
                Ok(())
            });
        }
        if usage.limits() != limits {
            // Limits without counters would hold nothing back.
            let may = self.volume.alone || counts.is_some() || !limits.any();
            match may {
                true => self.mend(Kind::WrongLimits, path, || {
                    usage.set_limits(&limits);
                    if !limits.any() {
                        usage.set_used(None);
                    }
                    Ok(())
                }),
                false => self.leave(Kind::WrongLimits, path, super::report::NOT_ALONE),
            }
        }
    }
}
