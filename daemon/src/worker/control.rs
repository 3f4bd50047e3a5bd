//! How the device talks to a running worker.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::time::Duration;

use pfs_core::fs::Mailbox;
use pfs_core::io::Fd;

use crate::inflight::Records;

/// How long a queue that is being stopped waits for the requests in flight.
///
/// The VMM, and with it the whole VM, waits for the answer to GET_VRING_BASE meanwhile; a slow
/// storage server recovers in 25 s. What is not answered by then is abandoned: its memory stays
/// mapped and its late answer is dropped.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// How long a queue waits at the end of the process, where the log is kept for the next one: that
/// executes again what was not answered.
pub const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);

/// What a running worker can be told.
pub(super) enum Command {
    Kick(Fd),
    Call(Option<Fd>),
    Enable(bool),
    Stop { last: bool },
}

/// Commands on their way to a worker.
#[derive(Default)]
pub(super) struct Control {
    commands: Mutex<Vec<Command>>,
    any: AtomicBool,
}

impl Control {
    fn push(&self, command: Command) {
        let mut commands = self.lock();
        commands.push(command);
        self.any.store(true, Ordering::Release);
    }

    /// Takes what there is; costs a load where there is nothing.
    pub(super) fn take(&self) -> Vec<Command> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut commands = self.lock();
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut commands)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Command>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests that wait for others, left in a queue that was stopped: when it goes on, they are
/// executed again.
pub struct Left {
    pub records: Records,
    /// The queue's base. One that the VMM gives another is a new queue.
    pub base: u16,
}

/// How a queue was left.
pub struct Stopped {
    /// Index of the next available entry.
    pub base: u16,
    /// Requests that were abandoned, or left to the next process.
    pub hung: usize,
    /// What waits in it, if anything.
    pub left: Option<Left>,
}

/// A running worker.
pub struct Handle {
    pub(super) control: Arc<Control>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) records: Records,
    pub(super) stopped: mpsc::Receiver<Stopped>,
}

impl Handle {
    /// The in-flight records of the queue.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Uses another kick eventfd from now on.
    pub fn set_kick(&self, kick: Fd) {
        self.send(Command::Kick(kick));
    }

    /// Uses another call eventfd from now on.
    pub fn set_call(&self, call: Option<Fd>) {
        self.send(Command::Call(call));
    }

    /// Serves the ring, or leaves it alone.
    pub fn set_enabled(&self, enabled: bool) {
        self.send(Command::Enable(enabled));
    }

    /// Begins to stop: nothing is popped any more. With `last` the process is about to end.
    pub fn begin_stop(&self, last: bool) {
        self.send(Command::Stop { last });
    }

    /// After [`Handle::begin_stop`], waits until the requests in flight are answered, no longer
    /// than [`DRAIN_LIMIT`]; `None` where the worker cannot say how it left the queue. Its thread
    /// ends by itself.
    pub fn stopped(self) -> Option<Stopped> {
        let grace = Duration::from_secs(5);
        self.stopped.recv_timeout(DRAIN_LIMIT + grace).ok()
    }

    fn send(&self, command: Command) {
        self.control.push(command);
        self.mailbox.wake();
    }
}
