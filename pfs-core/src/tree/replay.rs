//! Telling an operation's own work, done before a crash, from another's.

use super::budget::Charge;
use super::names::By;
use crate::fs::intent::begin_making;
use crate::fs::{Errno, IntentLog, Result};

/// An operation that makes a name or an attribute, which must not be there.
pub(super) struct Making<'a> {
    may_be_ours: bool,
    /// For the inode that the name is made with.
    charge: Charge<'a>,
}

impl<'a> Making<'a> {
    /// Begins it. `absent` looks whether it is not there yet; asked only where a log keeps it.
    pub fn begin(log: Option<&dyn IntentLog>, absent: impl FnOnce() -> bool) -> Making<'a> {
        Making {
            may_be_ours: begin_making(log, absent),
            charge: Charge::none(),
        }
    }

    /// Begins to make a name with an inode of its own, of `bytes`, which is charged for.
    pub fn begin_inode(by: By<'a>, bytes: u64, absent: impl Fn() -> bool) -> Result<Making<'a>> {
        let mut making = Making::begin(by.intent, &absent);
        match Charge::take(by.budget, bytes) {
            Ok(charge) => making.charge = charge,
            Err(errno) if absent() => return Err(errno),
            // What is there needs no room.
            Err(_) if making.may_be_ours => {}
            Err(_) => return Err(Errno::EXIST),
        }
        Ok(making)
    }

    /// Whether an earlier, unfinished try found it absent: one that is there now is its work.
    pub fn may_be_ours(&self) -> bool {
        self.may_be_ours
    }

    /// The result, where `EEXIST` of our own work is none.
    pub fn finish(self, result: Result<()>) -> Result<()> {
        match result {
            Ok(()) => {
                self.charge.keep();
                Ok(())
            }
            // The earlier try charged for it.
            Err(Errno::EXIST) if self.may_be_ours => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}
