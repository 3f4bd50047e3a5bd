//! When a server of a known speed answers.

use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::Speed;

/// The time of a server that moves the bytes of one request after the other.
#[derive(Debug)]
pub struct Clock {
    speed: Speed,
    /// When it has moved all it was asked for.
    free_at: Instant,
}

impl Clock {
    pub fn new(speed: Speed) -> Clock {
        Clock {
            speed,
            free_at: Instant::now(),
        }
    }

    /// When a request for `len` bytes that comes `now` is answered: later than any before it.
    pub fn answer_at(&mut self, now: Instant, len: usize) -> Instant {
        let moving = Duration::from_secs_f64(len as f64 / self.speed.bytes_per_s);
        self.free_at = self.free_at.max(now) + moving;
        self.free_at + self.speed.latency
    }
}

type Answer = Box<dyn FnOnce() + Send>;

/// Gives answers when it is time.
#[derive(Debug)]
pub struct Answers {
    queue: Sender<(Instant, Answer)>,
}

impl Answers {
    /// Answers wait for a thread, which ends with this.
    pub fn new() -> std::io::Result<Answers> {
        let (queue, answers) = mpsc::channel::<(Instant, Answer)>();
        let give = move || {
            for (time, answer) in answers {
                thread::sleep(time.saturating_duration_since(Instant::now()));
                answer();
            }
        };
        let builder = thread::Builder::new().name("target-answers".to_owned());
        builder.spawn(give)?;
        Ok(Answers { queue })
    }

    /// Gives `answer` at `time`, which is no earlier than that of the one before.
    pub fn at(&self, time: Instant, answer: impl FnOnce() + Send + 'static) {
        // The thread ends only after this.
        let _ = self.queue.send((time, Box::new(answer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_share_the_bandwidth_and_each_has_the_latency() {
        let speed = Speed {
            bytes_per_s: 1e6,
            latency: Duration::from_millis(5),
        };
        let mut clock = Clock::new(speed);
        let start = clock.free_at;
        let ms = |ms| start + Duration::from_millis(ms);
        assert_eq!(clock.answer_at(start, 10_000), ms(15));
        assert_eq!(clock.answer_at(start, 20_000), ms(35));
        // An idle server saves no time up.
        assert_eq!(clock.answer_at(ms(100), 1000), ms(106));
    }
}
