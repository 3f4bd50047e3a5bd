//! What ends the system calls that a thread waits in.

use std::mem::MaybeUninit;
use std::sync::{Once, OnceLock};

use super::warn_once;
use crate::fs::{Errno, Result};
use crate::tree::proc::last_errno;

/// What ends a system call. By default it is ignored, so a stray one does no harm; Go's runtime
/// chose it for the same reason.
const SIGNAL: libc::c_int = libc::SIGURG;
/// Between two signals to a thread that is to end its wait: the first may come just before it
/// sleeps.
const AGAIN_NSEC: i64 = 2_000_000;

/// Ends the system calls of one thread, again and again once it rings: the kernel's timer does
/// not tire, so none is missed that begins a moment later.
pub(super) struct Alarm(libc::timer_t);

// SAFETY: a timer's id is a name that any thread of the process may use.
unsafe impl Send for Alarm {}
// SAFETY: as above.
unsafe impl Sync for Alarm {}

impl Alarm {
    pub fn for_this_thread() -> Result<Alarm> {
        static HANDLED: OnceLock<Result<()>> = OnceLock::new();
        (*HANDLED.get_or_init(handle_signal))?;
        unblock_signal();
        // SAFETY: a sigevent is plain data, for which zeroes are good.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut timer = MaybeUninit::uninit();
        // SAFETY: both pointers are good for the call.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, timer.as_mut_ptr()) };
        match made {
            // SAFETY: the call succeeded, and so filled it in.
            0 => Ok(Alarm(unsafe { timer.assume_init() })),
            _ => {
                let errno = last_errno();
                static SAID: Once = Once::new();
                let what = format_args!("cannot wait for a lock: no timer: {errno}; see ulimit -i");
                warn_once(&SAID, what);
                Err(Errno::NOLCK)
            }
        }
    }

    pub fn ring(&self) {
        let after = |tv_nsec| libc::timespec { tv_sec: 0, tv_nsec };
        let times = libc::itimerspec {
            it_value: after(1),
            it_interval: after(AGAIN_NSEC),
        };
        // SAFETY: the timer lives as long as this does. Fails for bad times or timers only.
        unsafe { libc::timer_settime(self.0, 0, &times, std::ptr::null_mut()) };
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer is this owner's alone, and not used any more.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Makes the signal end system calls, for the whole process, where it comes. It comes only to
/// threads of this module.
fn handle_signal() -> Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a sigaction is plain data, for which zeroes are good: no flags, so no SA_RESTART.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does nothing, which is safe whenever it is called.
    match unsafe { libc::sigaction(SIGNAL, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

fn unblock_signal() {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset fills in the set before the others use it; none of them can fail with
    // a signal that exists.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), SIGNAL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}
