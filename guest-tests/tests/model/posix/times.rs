//! What a file's times may be.

use std::cell::Cell;

use rustix::time::{clock_gettime, ClockId};

thread_local! {
    /// When the current step began, by the clock that file systems take times from.
    static BEGAN: Cell<Option<Time>> = const { Cell::new(None) };
}

/// Begins a step: what is set from now on is set since then.
pub fn begin_step() {
    BEGAN.set(Some(Time::now(ClockId::RealtimeCoarse)));
}

/// Seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub sec: i64,
    pub nsec: u32,
}

impl Time {
    fn now(clock: ClockId) -> Time {
        let now = clock_gettime(clock);
        Time {
            sec: now.tv_sec,
            nsec: now.tv_nsec as u32,
        }
    }
}

/// One of a file's times: what it was, or some moment since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    was: Option<Time>,
    since: Option<Time>,
}

impl When {
    /// Set by the current step.
    pub fn now() -> When {
        When {
            was: None,
            since: BEGAN.get(),
        }
    }

    /// Exactly this.
    pub fn at(time: Time) -> When {
        When {
            was: Some(time),
            since: None,
        }
    }

    /// The current step sets it.
    pub fn set(&mut self) {
        *self = When::now();
    }

    /// The current step may set it.
    pub fn may_be_set(&mut self) {
        self.since = self.since.or(When::now().since);
    }

    /// Compares with what is seen, which from now on it is.
    pub fn see(&mut self, seen: Time) -> Result<(), String> {
        let as_was = self.was == Some(seen);
        let is_new =
            self.since.is_some_and(|since| seen >= since) && seen <= Time::now(ClockId::Realtime);
        if !as_was && !is_new {
            return Err(format!("{seen:?}, not {self:?}"));
        }
        *self = When::at(seen);
        Ok(())
    }
}

/// The three times of a file.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub access: When,
    pub modify: When,
    pub change: When,
}

impl Times {
    /// Of a file that the current step makes.
    pub fn now() -> Times {
        Times {
            access: When::now(),
            modify: When::now(),
            change: When::now(),
        }
    }

    /// The content changes.
    pub fn modified(&mut self) {
        self.modify.set();
        self.change.set();
    }

    /// The content may change, or not.
    pub fn may_be_modified(&mut self) {
        self.modify.may_be_set();
        self.change.may_be_set();
    }
}
