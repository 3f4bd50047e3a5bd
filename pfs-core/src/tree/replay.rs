//! Telling an operation's own work, done before a crash, from another's.

use crate::fs::{Errno, Intent, IntentLog, Result};

/// An operation that makes a name or an attribute, which must not be there.
pub(super) struct Making {
    may_be_ours: bool,
}

impl Making {
    /// Begins it. `absent` looks whether it is not there yet; asked only where a log keeps it.
    pub fn begin(log: Option<&dyn IntentLog>, absent: impl FnOnce() -> bool) -> Making {
        let may_be_ours = log.and_then(IntentLog::replayed) == Some(Intent::NameAbsent);
        if let Some(log) = log.filter(|_| !may_be_ours) {
            if absent() {
                log.record(Intent::NameAbsent);
            }
        }
        Making { may_be_ours }
    }

    /// Whether an earlier, unfinished try found it absent: one that is there now is its work.
    pub fn may_be_ours(&self) -> bool {
        self.may_be_ours
    }

    /// The result, where `EEXIST` of our own work is none.
    pub fn finish(&self, result: Result<()>) -> Result<()> {
        match result {
            Err(Errno::EXIST) if self.may_be_ours => Ok(()),
            result => result,
        }
    }
}
