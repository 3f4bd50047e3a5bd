//! What threads share.

use std::sync::{Mutex, MutexGuard};

/// Locks, and goes on with what a panicked holder left: every update here is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
