//! A thread that removes what daemons that died left among the orphans.

use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::Volume;

/// Nothing is purged of a daemon that died more lately than this: it may be restarted.
pub const MIN_AGE: Duration = Duration::from_secs(600);
/// How long between two looks.
const PERIOD: Duration = Duration::from_secs(300);

/// Starts the thread once, and ends it when it is dropped.
#[derive(Default)]
pub(super) struct Reaper(OnceLock<Option<Sender<()>>>);

impl Reaper {
    /// Looks through the orphans, at once and from time to time, as long as there is `volume`.
    pub fn start(&self, volume: &Arc<Volume>) {
        self.0.get_or_init(|| {
            let (sender, end) = channel();
            let volume = Arc::downgrade(volume);
            let thread = std::thread::Builder::new().name("pfs-orphans".into());
            let started = thread.spawn(move || loop {
                look(&volume);
                if end.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            });
            match started {
                Ok(_) => Some(sender),
                Err(error) => {
                    log::warn!("what daemons that died left is not removed: {error}");
                    None
                }
            }
        });
    }
}

fn look(volume: &Weak<Volume>) {
    let Some(volume) = volume.upgrade() else {
        return;
    };
    match volume.orphans.purge_unused(volume.store(), min_age()) {
        Ok(report) if report.purged > 0 => log::info!(
            "{} files without a name, left by a daemon that died, are removed",
            report.purged
        ),
        Ok(_) => {}
        Err(errno) => log::warn!("cannot look for files without a name: {errno}"),
    }
}

#[cfg(not(debug_assertions))]
fn min_age() -> Duration {
    MIN_AGE
}

/// In debug builds a test may ask for another, by `PFS_ORPHAN_AGE_S` in the environment.
#[cfg(debug_assertions)]
fn min_age() -> Duration {
    let asked = std::env::var("PFS_ORPHAN_AGE_S").ok();
    let seconds = asked.and_then(|text| text.parse().ok());
    seconds.map_or(MIN_AGE, Duration::from_secs)
}
