//! From the first worker to the last: signals, the unmount, and who ends when.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use vmm_sys_util::eventfd::{EventFd, EFD_CLOEXEC, EFD_NONBLOCK};
use vmm_sys_util::signal::{block_signal, create_sigset};

use crate::error::Error;
use crate::mount::Mount;
use crate::worker::{End, Worker};

/// How long an unmount may wait for open files.
const GRACE: Duration = Duration::from_secs(5);
/// The signals that end the bridge.
const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// The signals that end the bridge, as a descriptor.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// From here on, they kill no thread that is started.
    pub fn block() -> Result<Signals, Error> {
        let failed = |error: io::Error| Error::Signals(error);
        for signal in SIGNALS {
            block_signal(signal).map_err(|e| failed(io::Error::other(e.to_string())))?;
        }
        let set = create_sigset(&SIGNALS).map_err(|e| failed(e.into()))?;
        // SAFETY: signalfd reads the set, which lives until after the call.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just given the descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Signals { fd })
    }

    /// Forgets one that came.
    fn take(&self) {
        let mut info = [MaybeUninit::uninit(); size_of::<libc::signalfd_siginfo>()];
        let _ = rustix::io::read(&self.fd, &mut info);
    }
}

/// An eventfd for [`supervise`].
pub fn eventfd() -> Result<EventFd, Error> {
    EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).map_err(Error::Wait)
}

/// Why the supervisor woke.
enum News {
    Signal,
    Ended,
    TimedOut,
}

/// Runs the workers until nothing is mounted, the daemon is gone, or a signal comes. `stop` ends
/// workers that have not ended. When this returns, the connection is closed.
pub fn supervise(
    workers: Vec<Worker>,
    mount: &Mount,
    signals: &Signals,
    stop: &EventFd,
) -> Result<(), Error> {
    let ended = Arc::new(eventfd()?);
    let mut threads = Vec::new();
    for (index, worker) in workers.into_iter().enumerate() {
        let at_end = SignalOnDrop(Arc::clone(&ended));
        let thread = thread::Builder::new().name(format!("queue-{index}"));
        let thread = thread.spawn(move || {
            let _at_end = at_end;
            worker.serve()
        });
        threads.push(thread.map_err(Error::Thread)?);
    }
    let unmounting = wait_for_end(mount, signals, &ended);
    stop.write(1).map_err(Error::Wait)?;
    let result = join(threads);
    // Without the connection, an unmount that hung goes on.
    if let Some(unmounting) = unmounting? {
        unmounting.join().map_err(|_| Error::Panicked)?;
    }
    result
}

/// Returns once the workers have ended or must end. A thread may still be unmounting.
fn wait_for_end(
    mount: &Mount,
    signals: &Signals,
    ended: &EventFd,
) -> Result<Option<JoinHandle<()>>, Error> {
    let mut unmounting = None;
    let mut deadline = None;
    loop {
        match (wait(signals, ended, deadline)?, &unmounting) {
            (News::Ended, _) => return Ok(unmounting),
            (News::Signal, None) => {
                // On a thread of its own: it writes back what is dirty, so it needs the daemon.
                let mount = mount.clone();
                let thread = thread::Builder::new().name("unmount".to_owned());
                let thread = thread.spawn(move || mount.detach());
                unmounting = Some(thread.map_err(Error::Thread)?);
                deadline = Some(Instant::now() + GRACE);
            }
            (News::Signal | News::TimedOut, _) => {
                eprintln!("bridge: files are still in use; they are cut off");
                return Ok(unmounting);
            }
        }
    }
}

fn wait(signals: &Signals, ended: &EventFd, deadline: Option<Instant>) -> Result<News, Error> {
    // SAFETY: the eventfd owns the descriptor and outlives the borrow.
    let ended = unsafe { BorrowedFd::borrow_raw(ended.as_raw_fd()) };
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.fd.as_fd(), PollFlags::IN),
        ];
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(News::TimedOut),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(News::Ended),
            Ok(_) => {
                signals.take();
                return Ok(News::Signal);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::Wait(errno.into())),
        }
    }
}

/// The first error of all.
fn join(threads: Vec<JoinHandle<Result<End, Error>>>) -> Result<(), Error> {
    let mut result = Ok(());
    for thread in threads {
        let end = thread.join().unwrap_or(Err(Error::Panicked));
        result = result.and(end.map(drop));
    }
    result
}

/// Also tells of a thread that panics.
struct SignalOnDrop(Arc<EventFd>);

impl Drop for SignalOnDrop {
    fn drop(&mut self) {
        let _ = self.0.write(1);
    }
}
