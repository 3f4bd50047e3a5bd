//! A bound on the vhost-user exchanges.
//!
//! The `vhost` crate's front-end reads replies in a loop that a receive timeout does not end.
//! This thread shuts the socket down when an exchange takes too long, which does.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    deadline: Option<Instant>,
    fired: bool,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }
}

/// Watches one socket. Dropped, its thread ends.
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    timeout: Duration,
    thread: Option<JoinHandle<()>>,
}

/// While this lives, the exchange is being timed.
pub(super) struct Guard {
    shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.set(|state| state.deadline = None);
    }
}

impl Watchdog {
    pub(super) fn new(stream: UnixStream, timeout: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        Watchdog {
            shared,
            timeout,
            thread: Some(thread::spawn(move || watch(&watched, &stream))),
        }
    }

    /// The timeout, if an exchange took longer and the socket was shut down.
    pub(super) fn fired(&self) -> Option<Duration> {
        self.shared.lock().fired.then_some(self.timeout)
    }

    pub(super) fn arm(&self) -> Guard {
        let deadline = Instant::now() + self.timeout;
        self.shared.set(|state| state.deadline = Some(deadline));
        Guard {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.set(|state| state.ended = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Shared, stream: &UnixStream) {
    let mut state = shared.lock();
    while !state.ended {
        let Some(deadline) = state.deadline else {
            state = shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let _ = stream.shutdown(Shutdown::Both);
            state.deadline = None;
            state.fired = true;
        } else {
            let woken = shared.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
