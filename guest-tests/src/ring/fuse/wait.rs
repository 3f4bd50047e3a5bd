//! Sleeping until a queue has something.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::error::Error;
use crate::ring::device::Link;
use crate::ring::queue::Queue;

/// Why a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// There is, or may be, a used chain.
    Called,
    /// The time is up.
    TimedOut,
    /// The daemon hung up: what is in the used ring now is all that it did.
    Gone,
}

/// Sleeps until the device calls, hangs up, or `until`.
pub(super) fn sleep(queue: &Queue, link: &Link, until: Instant) -> Result<Woken, Error> {
    sleep_for(queue, link, until, 1)
}

/// The same; the device is asked to call when it has used `count` more chains.
pub(super) fn sleep_for(
    queue: &Queue,
    link: &Link,
    until: Instant,
    count: u16,
) -> Result<Woken, Error> {
    if queue.enable_calls_after(count) {
        queue.disable_calls();
        return Ok(Woken::Called);
    }
    let woken = poll_call(queue, link, until);
    queue.disable_calls();
    woken
}

fn poll_call(queue: &Queue, link: &Link, until: Instant) -> Result<Woken, Error> {
    let Some(socket) = link.socket() else {
        return Ok(Woken::Gone);
    };
    let call = queue.ring().call();
    // SAFETY: the ring owns the eventfd and outlives this borrow.
    let call_fd = unsafe { BorrowedFd::borrow_raw(call.as_raw_fd()) };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Woken::TimedOut);
        }
        let mut fds = [
            PollFd::from_borrowed_fd(call_fd, PollFlags::IN),
            PollFd::new(&*socket, PollFlags::RDHUP),
        ];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) if fds[0].revents().contains(PollFlags::IN) => {
                // Non-blocking: whether it was still set makes no difference.
                let _ = call.read();
                return Ok(Woken::Called);
            }
            Ok(_) => return Ok(Woken::Gone),
            Err(errno) => return Err(Error::Wait(errno.into())),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
