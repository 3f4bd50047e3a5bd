//! For how long to look for work before going to sleep.
//!
//! To be woken costs more than most requests do, the guest as well as the daemon. So where the next
//! request is likely to come soon, the worker looks for it for a while. As KVM does for its vCPUs: the
//! time grows while a little more of it would have saved a sleep, and is nothing once the
//! guest stays away for longer than the limit. An idle daemon looks for nothing.

use std::time::{Duration, Instant};

/// Looks between two readings of the clock.
const LOOKS: u32 = 64;
/// What the first guess is of the limit: a fourth.
const FIRST_SHARE: u32 = 4;

/// How long one worker looks.
pub(super) struct Poll {
    /// Zero if it never does.
    limit: Duration,
    now: Duration,
    /// When there last was nothing to do.
    since: Option<Instant>,
}

impl Poll {
    /// Looks for `limit` at most.
    pub(super) fn new(limit: Duration) -> Poll {
        Poll {
            limit,
            now: Duration::ZERO,
            since: None,
        }
    }

    /// There is nothing to do: looks whether there is, as long as is worth it.
    pub(super) fn look(&mut self, mut found: impl FnMut() -> bool) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        let since = Instant::now();
        if !self.now.is_zero() {
            while since.elapsed() < self.now {
                for _ in 0..LOOKS {
                    if found() {
                        return true;
                    }
                    std::hint::spin_loop();
                }
                // Who brings the work may be waiting for this very processor.
                std::thread::yield_now();
            }
        }
        self.since = Some(since);
        false
    }

    /// The worker has slept after a look that found nothing.
    pub(super) fn slept(&mut self) {
        let Some(since) = self.since.take() else {
            return;
        };
        self.now = match since.elapsed() <= self.limit {
            true => (self.now * 2).max(self.limit / FIRST_SHARE).min(self.limit),
            false => Duration::ZERO,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn looks_longer_while_work_comes_soon_and_not_at_all_when_it_stays_away() {
        let mut poll = Poll::new(LIMIT);
        assert!(!poll.look(|| panic!("there was no reason to look yet")));
        poll.slept();
        assert_eq!(poll.now, LIMIT / 4);
        assert!(poll.look(|| true));
        // Found: there was no sleep to learn from.
        poll.slept();
        assert_eq!(poll.now, LIMIT / 4);
        for now in [LIMIT / 2, LIMIT, LIMIT] {
            poll.since = Some(Instant::now());
            poll.slept();
            assert_eq!(poll.now, now);
        }
        poll.since = Instant::now().checked_sub(LIMIT * 2);
        poll.slept();
        assert_eq!(poll.now, Duration::ZERO);
    }

    #[test]
    fn ends_a_look_that_finds_nothing() {
        let mut poll = Poll::new(Duration::from_millis(1));
        poll.now = poll.limit;
        let mut looks = 0;
        assert!(!poll.look(|| {
            looks += 1;
            false
        }));
        assert!(looks > 0 && poll.since.is_some());
    }

    #[test]
    fn a_limit_of_nothing_is_off() {
        let mut poll = Poll::new(Duration::ZERO);
        assert!(!poll.look(|| panic!("it is off")));
        poll.slept();
        assert_eq!((poll.now, poll.since), (Duration::ZERO, None));
    }
}
