//! What a mutating request remembers about itself, so that it can be run again after a crash.
//!
//! A worker that dies between executing a request and publishing its answer leaves a request
//! that the next worker executes again. Reading again is harmless; `mkdir` again answers a false
//! `EEXIST`. So such a request resolves first, records an [`Intent`], then executes; on replay
//! the recorded intent tells its own work from another's.

use super::Result;

/// What a request found before it executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// The name, or the attribute, was not there: on replay, `EEXIST` means that it is ours.
    NameAbsent,
    /// The name was this inode: on replay, `ENOENT` or another inode means that it is done. Or
    /// this inode had the attribute: on replay, `ENODATA` means that it is done.
    Victim { ino: u64 },
    /// The source of a rename was this inode: on replay, one that is gone means that it is done.
    Source { ino: u64 },
    /// Where an append went, in bytes: on replay it goes there again.
    AppendAt { offset: u64 },
}

impl Intent {
    /// The intent as two words of a fixed-size record; the first is never 0.
    pub fn to_words(self) -> [u64; 2] {
        match self {
            Intent::NameAbsent => [1, 0],
            Intent::Victim { ino } => [2, ino],
            Intent::Source { ino } => [3, ino],
            Intent::AppendAt { offset } => [4, offset],
        }
    }

    /// The intent in two words of a record, if there is one.
    pub fn from_words(words: [u64; 2]) -> Option<Intent> {
        match words {
            [1, _] => Some(Intent::NameAbsent),
            [2, ino] => Some(Intent::Victim { ino }),
            [3, ino] => Some(Intent::Source { ino }),
            [4, offset] => Some(Intent::AppendAt { offset }),
            _ => None,
        }
    }
}

/// The place where one request's intent is kept.
pub trait IntentLog {
    /// The intent that an earlier, unfinished execution of this request recorded.
    fn replayed(&self) -> Option<Intent>;

    /// Records the intent, before anything is changed.
    fn record(&self, intent: Intent);

    /// The same place, for a request that has to wait before it executes. Good until its reply is
    /// answered.
    fn keep(&self) -> Box<dyn IntentLog + Send>;
}

/// Begins to make a name or an attribute; `absent`, asked only where a log keeps it, looks whether it is
/// not there yet. Answers whether an earlier, unfinished try found it absent: one that is there now is
/// that try's work.
pub fn begin_making(log: Option<&dyn IntentLog>, absent: impl FnOnce() -> bool) -> bool {
    let Some(log) = log else { return false };
    let may_be_ours = log.replayed() == Some(Intent::NameAbsent);
    if !may_be_ours && absent() {
        log.record(Intent::NameAbsent);
    }
    may_be_ours
}

/// Begins to remove a name, which is inode `now`; answers the inode that an earlier try removed.
pub fn begin_removing(log: &dyn IntentLog, now: Result<u64>) -> Option<u64> {
    match (log.replayed(), now) {
        (Some(Intent::Victim { ino }), now) if now != Ok(ino) => return Some(ino),
        (_, Ok(ino)) => log.record(Intent::Victim { ino }),
        (_, Err(_)) => {}
    }
    None
}

/// Begins to rename a name, which is inode `now`; answers whether an earlier try has done it.
pub fn begin_renaming(log: &dyn IntentLog, now: Result<u64>) -> bool {
    match (log.replayed(), now) {
        (Some(Intent::Source { ino }), now) if now != Ok(ino) => return true,
        (_, Ok(ino)) => log.record(Intent::Source { ino }),
        (_, Err(_)) => {}
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for intent in [
            Intent::NameAbsent,
            Intent::Victim { ino: 7 },
            Intent::Source { ino: u64::MAX },
            Intent::AppendAt { offset: 0 },
        ] {
            assert_eq!(Intent::from_words(intent.to_words()), Some(intent));
        }
        assert_eq!(Intent::from_words([0, 9]), None);
        assert_eq!(Intent::from_words([99, 9]), None);
    }
}
