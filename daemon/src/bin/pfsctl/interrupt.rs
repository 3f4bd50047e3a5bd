//! Ctrl-C and SIGTERM as an error of the data's source or sink, so that a transfer ends as any
//! failed one: with nothing half-made left behind. A second Ctrl-C ends the process at once.

use std::io::{Error, Read, Result, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Takes the signals from now on.
pub fn prepare() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic; all other fields may be zero. Without
        // SA_RESTART a blocked read ends; with SA_RESETHAND the next signal is the last.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESETHAND;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Whether a signal has come.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn check() -> Result<()> {
    match is_interrupted() {
        true => Err(Error::other("interrupted")),
        false => Ok(()),
    }
}

/// A source or sink of data that ends by an error once a signal has come.
pub struct Interruptible<T>(pub T);

impl<T: Read> Read for Interruptible<T> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        check()?;
        let read = self.0.read(buffer);
        check()?;
        read
    }
}

impl<T: Write> Write for Interruptible<T> {
    fn write(&mut self, buffer: &[u8]) -> Result<usize> {
        check()?;
        self.0.write(buffer)
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush()
    }
}
