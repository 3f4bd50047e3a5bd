//! Crash points: places where a test can let the process die, since what a death at that very place
//! leaves behind is not met by killing it at random.
//!
//! In debug builds, `PFS_CRASH_AT=point:n` in the environment kills the process, as `kill -9`
//! would, when `point` is passed for the `n`th time. In release builds there is nothing of it.

/// Dies here, if that was asked for.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Dies here, if that was asked for.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::OnceLock;

    static ASKED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| {
        let asked = std::env::var("PFS_CRASH_AT").ok()?;
        let (name, count) = asked.split_once(':')?;
        Some((name.to_owned(), AtomicU64::new(count.parse().ok()?)))
    });
    let Some((at, left)) = asked else { return };
    if at == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
        use rustix::process::{getpid, kill_process, Signal};
        // Fails only where the signal could not be sent; then there is no crash.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
