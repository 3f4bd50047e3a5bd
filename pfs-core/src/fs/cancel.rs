//! Requests that wait for another's: who lets them, and how one is told to give up.

use std::sync::{Arc, Mutex};

use super::{Errno, Result};
use crate::sync::lock;

/// What a request is answered whose wait was ended because its queue stops: it did nothing, and
/// whoever serves the queue next is to execute it again. A requester never sees it. (Linux's
/// `ERESTARTSYS`, which is its own as well.)
pub const RESTART: Errno = Errno::from_raw_os_error(512);

/// Asked once a request finds that it must wait: gives what may end the wait, or refuses it.
pub type MayWait = Box<dyn FnOnce() -> Result<Arc<Cancel>> + Send>;

/// Tells one waiting request to give up.
#[derive(Default)]
pub struct Cancel(Mutex<State>);

#[derive(Default)]
struct State {
    why: Option<Errno>,
    wake: Option<Box<dyn Fn() + Send>>,
}

impl Cancel {
    /// Ends the wait: the request is answered `why`, unless it has got what it waited for. Only
    /// the first call counts.
    pub fn cancel(&self, why: Errno) {
        let mut state = lock(&self.0);
        if state.why.is_some() {
            return;
        }
        state.why = Some(why);
        if let Some(wake) = &state.wake {
            wake();
        }
    }

    /// What to answer, once it was told to give up.
    pub fn why(&self) -> Option<Errno> {
        lock(&self.0).why
    }

    /// Runs `wait`; `wake` is called, from any thread, when that is to end. It is never called
    /// after this returns.
    pub fn during<T>(&self, wake: impl Fn() + Send + 'static, wait: impl FnOnce() -> T) -> T {
        let mut state = lock(&self.0);
        if state.why.is_some() {
            wake();
        }
        state.wake = Some(Box::new(wake));
        drop(state);
        let result = wait();
        lock(&self.0).wake = None;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn wakes_while_it_waits_and_never_after() {
        let count = Arc::new(AtomicU32::new(0));
        let wake = || {
            let count = count.clone();
            move || {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let cancel = Cancel::default();
        cancel.during(wake(), || assert_eq!(cancel.why(), None));
        cancel.cancel(Errno::INTR);
        assert_eq!(count.load(Ordering::Relaxed), 0);
        cancel.during(wake(), || ());
        assert_eq!(count.load(Ordering::Relaxed), 1, "told before it waits");
        let cancel = Cancel::default();
        cancel.during(wake(), || {
            cancel.cancel(RESTART);
            cancel.cancel(Errno::INTR);
        });
        assert_eq!(count.load(Ordering::Relaxed), 2);
        assert_eq!(cancel.why(), Some(RESTART), "the first counts");
    }
}
