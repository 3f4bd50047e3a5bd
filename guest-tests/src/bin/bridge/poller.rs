//! What a worker sleeps on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::Timespec;
use rustix::io::Errno;
use vmm_sys_util::eventfd::EventFd;

use crate::error::Error;

const REQUEST: u64 = 0;
const CALL: u64 = 1;
const HANGUP: u64 = 2;
const STOP: u64 = 3;

/// What a sleep ended with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Woken {
    /// The daemon has hung up.
    pub hangup: bool,
    /// The bridge is to end.
    pub stop: bool,
    /// The time was up.
    pub timed_out: bool,
}

/// The epoll instance of a worker.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    takes_requests: bool,
}

impl Poller {
    /// Of a daemon's `socket`, the `call` of a queue, and `stop`, which is level-triggered.
    pub fn new(socket: Arc<OwnedFd>, call: &EventFd, stop: &EventFd) -> Result<Poller, Error> {
        let failed = |errno: Errno| Error::Wait(errno.into());
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let add = |fd: BorrowedFd<'_>, token, flags| {
            epoll::add(&epoll, fd, EventData::new_u64(token), flags).map_err(failed)
        };
        add(socket.as_fd(), HANGUP, EventFlags::RDHUP)?;
        // Each call wakes, and none needs to be read.
        add(borrow(call), CALL, EventFlags::IN | EventFlags::ET)?;
        add(borrow(stop), STOP, EventFlags::IN)?;
        Ok(Poller {
            epoll,
            takes_requests: false,
        })
    }

    /// Whether requests wake the sleeper. One request wakes one of the workers that want it.
    pub fn take_requests(&mut self, fuse: &OwnedFd, take: bool) -> Result<(), Error> {
        if self.takes_requests == take {
            return Ok(());
        }
        self.takes_requests = take;
        let changed = match take {
            true => {
                let flags = EventFlags::IN | EventFlags::EXCLUSIVE;
                epoll::add(&self.epoll, fuse, EventData::new_u64(REQUEST), flags)
            }
            false => epoll::delete(&self.epoll, fuse),
        };
        changed.map_err(|errno| Error::Wait(errno.into()))
    }

    /// Sleeps until there may be something to do.
    pub fn sleep(&self, timeout: Option<Duration>) -> Result<Woken, Error> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut events = [Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }; 4];
        let count = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => return Ok(Woken::default()),
            Err(errno) => return Err(Error::Wait(errno.into())),
        };
        let has = |token| {
            events[..count]
                .iter()
                .any(|event| event.data.u64() == token)
        };
        Ok(Woken {
            hangup: has(HANGUP),
            stop: has(STOP),
            timed_out: count == 0,
        })
    }
}

fn borrow(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the eventfd owns the descriptor and outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}
