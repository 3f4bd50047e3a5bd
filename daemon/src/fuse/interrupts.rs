//! Requests that wait for others' locks: how many may, and what ends their wait.
//!
//! A wait ends by FUSE_INTERRUPT, which comes by another queue than its request and may overtake
//! it, or because the queue stops, whose waiting requests are then left in it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pfs_core::fs::{Cancel, Errno, MayWait, Result, RESTART};

/// Interrupts that are remembered for requests to come. Most are of requests that have ended.
const EARLY_MAX: usize = 64;
/// Descriptors of a queue without indirect ones that a waiting request takes: header and body
/// each way.
const DESCRIPTORS: usize = 4;

/// The waiting requests of a session.
#[derive(Default)]
pub struct Interrupts {
    inner: Mutex<Inner>,
    last_source: AtomicU64,
}

#[derive(Default)]
struct Inner {
    waits: Vec<Wait>,
    /// Requests that were interrupted and not seen to wait, oldest first.
    early: VecDeque<u64>,
}

struct Wait {
    source: u64,
    unique: u64,
    /// Gone with the wait.
    cancel: Weak<Cancel>,
}

/// A queue as requests come by it, for as long as one worker serves it.
pub struct Source {
    /// It is the queue for urgent requests, and takes no others.
    pub(super) hiprio: bool,
    id: u64,
    waits_max: usize,
    stopping: AtomicBool,
    interrupts: Arc<Interrupts>,
}

impl Interrupts {
    /// A queue of `size` descriptors.
    pub fn source(self: &Arc<Self>, hiprio: bool, size: u16, indirect: bool) -> Arc<Source> {
        let each = if indirect { 1 } else { DESCRIPTORS };
        Arc::new(Source {
            hiprio,
            id: self.last_source.fetch_add(1, Ordering::Relaxed),
            // Whoever unlocks must find room on the queue.
            waits_max: usize::from(size) / 2 / each,
            stopping: AtomicBool::new(false),
            interrupts: self.clone(),
        })
    }

    /// FUSE_INTERRUPT of the request `unique`.
    pub fn interrupt(&self, unique: u64) {
        let mut inner = self.lock();
        let waits = inner.waits.iter();
        let its: Vec<_> = waits
            .filter(|wait| wait.unique == unique)
            .filter_map(|wait| wait.cancel.upgrade())
            .collect();
        if its.is_empty() {
            if inner.early.len() == EARLY_MAX {
                inner.early.pop_front();
            }
            inner.early.push_back(unique);
        }
        drop(inner);
        its.iter().for_each(|cancel| cancel.cancel(Errno::INTR));
    }

    /// Another session begins, with numbers of its own.
    pub fn reset(&self) {
        self.lock().early.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// The leave to wait of the request `unique`: `ENOLCK` where too many of the queue wait,
    /// `EINTR` where it was interrupted before.
    pub fn may_wait(self: &Arc<Self>, unique: u64) -> MayWait {
        let source = self.clone();
        Box::new(move || source.begin(unique))
    }

    fn begin(&self, unique: u64) -> Result<Arc<Cancel>> {
        let mut inner = self.interrupts.lock();
        inner.waits.retain(|wait| wait.cancel.strong_count() > 0);
        if self.stopping.load(Ordering::Relaxed) {
            return Err(RESTART);
        }
        if let Some(at) = inner.early.iter().position(|early| *early == unique) {
            inner.early.remove(at);
            return Err(Errno::INTR);
        }
        let waits = inner.waits.iter();
        if waits.filter(|wait| wait.source == self.id).count() >= self.waits_max {
            return Err(Errno::NOLCK);
        }
        let cancel = Arc::new(Cancel::default());
        inner.waits.push(Wait {
            source: self.id,
            unique,
            cancel: Arc::downgrade(&cancel),
        });
        Ok(cancel)
    }

    /// The queue stops: its waiting requests, and those that are about to wait, are answered
    /// [`RESTART`].
    pub fn stop(&self) {
        let inner = self.interrupts.lock();
        self.stopping.store(true, Ordering::Relaxed);
        let waits = inner.waits.iter();
        let its: Vec<_> = waits
            .filter(|wait| wait.source == self.id)
            .filter_map(|wait| wait.cancel.upgrade())
            .collect();
        drop(inner);
        its.iter().for_each(|cancel| cancel.cancel(RESTART));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Arc<Interrupts>, Arc<Source>, Arc<Source>) {
        let interrupts = Arc::new(Interrupts::default());
        let source = || interrupts.source(false, 8, true);
        let (one, two) = (source(), source());
        (interrupts, one, two)
    }

    #[test]
    fn an_interrupt_finds_its_request_whatever_the_queue_and_the_order() {
        let (interrupts, one, two) = two();
        let (first, second) = (one.may_wait(2)().unwrap(), two.may_wait(4)().unwrap());
        interrupts.interrupt(4);
        assert_eq!((first.why(), second.why()), (None, Some(Errno::INTR)));
        interrupts.interrupt(6);
        assert_eq!(one.may_wait(6)().err(), Some(Errno::INTR));
        assert!(one.may_wait(6)().is_ok(), "once");
        interrupts.interrupt(8);
        interrupts.reset();
        assert!(one.may_wait(8)().is_ok(), "another session's");
        for unique in 0..10_000 {
            interrupts.interrupt(unique << 20);
        }
        assert_eq!(interrupts.lock().early.len(), EARLY_MAX);
    }

    #[test]
    fn half_of_a_queue_may_wait() {
        let (interrupts, one, two) = two();
        let all: Vec<_> = (0..4).map(|unique| one.may_wait(unique)()).collect();
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(one.may_wait(9)().err(), Some(Errno::NOLCK));
        assert!(two.may_wait(9)().is_ok(), "each queue for itself");
        drop(all);
        assert!(one.may_wait(9)().is_ok());
        let direct = interrupts.source(false, 8, false);
        let first = direct.may_wait(1)().unwrap();
        assert_eq!(direct.may_wait(2)().err(), Some(Errno::NOLCK));
        drop(first);
    }

    #[test]
    fn a_queue_that_stops_restarts_its_own() {
        let (_interrupts, one, two) = two();
        let (first, second) = (one.may_wait(1)().unwrap(), two.may_wait(2)().unwrap());
        let late = one.may_wait(3);
        one.stop();
        assert_eq!((first.why(), second.why()), (Some(RESTART), None));
        assert_eq!(late().err(), Some(RESTART));
    }
}
