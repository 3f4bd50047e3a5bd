//! Setting the limits of a volume.

use std::path::Path;

use super::check::{self, Error, Progress};
use crate::volume::{self, Descriptor, Engine, Limits, Used, Volume};

/// Sets the limits of the volume at `path` to what `change` makes of those it has; answers them.
///
/// Daemons that serve the volume follow at once. Only the first limits of a volume need it to
/// oneself: what is in it must be counted first.
pub fn set_limits(
    path: &Path,
    change: impl FnOnce(Limits) -> Limits,
    progress: Progress<'_>,
) -> Result<Limits, Error> {
    let volume = Volume::locate(path)?;
    let Engine::Striped(old) = &volume.descriptor.engine else {
        let engine = volume.descriptor.engine.name();
        return Err(volume::Error::NoLimits { engine }.into());
    };
    let limits = change(old.limits);
    limits.check().map_err(|source| volume::Error::Values {
        path: path.into(),
        source,
    })?;
    let mut opened = volume.open_to_check(old, false)?;
    let counts = opened.usage.as_ref().is_some_and(|usage| usage.counts());
    let mut counted = None;
    if limits.any() && !counts {
        drop(opened);
        opened = volume.open_to_check(old, true)?;
        if !opened.alone {
            let path = volume.path.clone();
            return Err(volume::Error::MustBeAlone { path }.into());
        }
        let (again, used) = check::count(opened, progress)?;
        (opened, counted) = (again, Some(used));
    }
    let new = Descriptor {
        engine: Engine::Striped(volume::Striped {
            limits,
            ..old.clone()
        }),
        ..volume.descriptor.clone()
    };
    volume::rewrite_limits(path, &new)?;
    let Some(usage) = &opened.usage else {
        let path = opened.path.join(&old.meta).join(volume::USAGE_NAME);
        return Err(volume::Error::UsageDamaged { path }.into());
    };
    put_in_force(usage, &limits, counted);
    Ok(limits)
}

/// Limits before counters where counting begins, and after them where it ends: no daemon is ever
/// held to limits by counters that mean nothing.
fn put_in_force(usage: &volume::Usage, limits: &Limits, counted: Option<Used>) {
    if !limits.any() {
        usage.set_used(None);
    }
    usage.set_limits(limits);
    if counted.is_some() {
        usage.set_used(counted);
    }
}
