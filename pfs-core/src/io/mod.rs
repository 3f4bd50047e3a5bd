//! What a worker lends an engine: asynchronous I/O, a pool for what can only block, and the
//! answers of other threads, all waited for in one place.
//!
//! - [`Io`]: belongs to one thread; submits through io_uring, reaps, waits.
//! - [`pool`]: the bounded pool of threads for blocking calls, shared by all workers.
//! - [`op`]: operations in flight, and what happens when one completes.
//! - [`data_fd`]: descriptors of data; what is in memory is read and written on the spot.

mod data_fd;
mod op;
pub mod pool;

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{cqueue, opcode, squeue, types, IoUring};
use libc::iovec;
use rustix::io::Errno;

use crate::fs::{Done, Mailbox};
pub use data_fd::{DataFd, Storage};
pub use op::{JoinId, Short, Then};
use op::{Kind, Op, Ops};
pub use pool::Pool;

/// A descriptor shared by all who use it; closed when the last of them lets go.
pub type Fd = Arc<OwnedFd>;

/// Submission entries: a worker submits whenever they run out.
const RING_ENTRIES: u32 = 256;

/// `IORING_ENTER_GETEVENTS`: post the completions there are.
const GETEVENTS: u32 = 1;

/// Bit set in `user_data` of what is a watch and not an operation.
const WATCH: u64 = 1 << 63;
/// How long an [`Io`] that is dropped waits for what it has in flight.
const DROP_LIMIT: Duration = Duration::from_secs(5);
/// The watch on the own mailbox.
const WATCH_MAILBOX: u64 = WATCH | u32::MAX as u64;

/// An [`Io`] cannot be made or driven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot set up io_uring: {0}; it needs Linux 5.13 or newer, and neither the sysctl \
         kernel.io_uring_disabled nor a seccomp profile may forbid it"
    )]
    Setup(#[source] std::io::Error),
    #[error("cannot make an eventfd: {0}")]
    Eventfd(#[source] std::io::Error),
    #[error("io_uring_enter failed: {0}")]
    Enter(#[source] std::io::Error),
}

/// Asynchronous I/O of one thread. Everything submitted completes in [`Io::turn`], on the thread
/// that made the `Io`.
pub struct Io {
    ring: IoUring,
    ops: Ops,
    mailbox: Arc<Mailbox>,
    pool: Arc<Pool>,
    watches: Vec<Option<Fd>>,
    reaped: Vec<(u64, i32, bool)>,
    /// Operations submitted and not yet completed.
    in_flight: usize,
    at_once_bytes: u64,
}

/// What woke a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Do not wait.
    No,
    /// Wait until something completes.
    Forever,
    /// Wait until something completes, but no longer.
    AtMost(Duration),
}

impl Io {
    /// I/O for the calling thread, and no other.
    pub fn new(pool: Arc<Pool>) -> Result<Io, Error> {
        let mailbox = Mailbox::for_this_thread().map_err(Error::Eventfd)?;
        let mut io = Io {
            ring: new_ring().map_err(Error::Setup)?,
            ops: Ops::default(),
            mailbox,
            pool,
            watches: Vec::new(),
            reaped: Vec::with_capacity(RING_ENTRIES as usize),
            in_flight: 0,
            at_once_bytes: 0,
        };
        let wake = io.mailbox.wake_fd().as_raw_fd();
        io.push_watch(wake, WATCH_MAILBOX);
        Ok(io)
    }

    /// Where other threads leave answers and work for this one.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Operations that have not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes moved on the spot since this was last asked: what the thread had no time for anything
    /// else meanwhile.
    pub fn take_at_once_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.at_once_bytes)
    }

    /// Reads at `offset` into `parts`. A result shorter than they are means the end of the file.
    ///
    /// The memory must stay valid until `then`: engines pass parts of their request's
    /// [`Slices`](crate::fs::Slices) and keep its reply until then.
    pub fn read(
        &mut self,
        fd: &DataFd,
        parts: impl Iterator<Item = iovec>,
        offset: u64,
        then: Then,
    ) {
        self.start(Kind::Read, fd, parts, offset, then);
    }

    /// As [`Io::read`], where that never waits: the result is there at once, and nothing has to be kept
    /// for it.
    pub fn read_at_once(
        &mut self,
        fd: &DataFd,
        parts: impl Iterator<Item = iovec>,
        offset: u64,
    ) -> Option<Result<u32, Errno>> {
        self.at_once(Kind::Read, fd, parts, offset)
    }

    /// As [`Io::write`], where that never waits: see [`Io::read_at_once`].
    pub fn write_at_once(
        &mut self,
        fd: &DataFd,
        parts: impl Iterator<Item = iovec>,
        offset: u64,
    ) -> Option<Result<u32, Errno>> {
        self.at_once(Kind::Write, fd, parts, offset)
    }

    /// Writes `parts` at `offset`, all or an error. Memory as for [`Io::read`].
    pub fn write(
        &mut self,
        fd: &DataFd,
        parts: impl Iterator<Item = iovec>,
        offset: u64,
        then: Then,
    ) {
        self.start(Kind::Write, fd, parts, offset, then);
    }

    /// Writes `parts` at the end of the file, which the kernel finds as for `O_APPEND`; all or an
    /// error. What another process appends may come between pieces of a long one. Memory as for
    /// [`Io::read`].
    pub fn append(&mut self, fd: &DataFd, parts: impl Iterator<Item = iovec>, then: Then) {
        self.start(Kind::Append, fd, parts, 0, then);
    }

    /// `fsync(2)`, or `fdatasync(2)`.
    pub fn fsync(&mut self, fd: &DataFd, datasync: bool, then: Then) {
        self.start(Kind::Fsync { datasync }, fd, std::iter::empty(), 0, then);
    }

    /// `fallocate(2)`.
    pub fn fallocate(&mut self, fd: &DataFd, mode: i32, offset: u64, len: u64, then: Then) {
        self.start(
            Kind::Fallocate { mode, len },
            fd,
            std::iter::empty(),
            offset,
            then,
        );
    }

    /// Begins a join: `finish` runs once when all operations given `Then::Part` of it are done
    /// and it is [sealed](Io::seal).
    pub fn join(&mut self, finish: op::Finish) -> JoinId {
        self.ops.new_join(finish)
    }

    /// Adds a part to `join` of which the result is known without any I/O.
    pub fn part_done(&mut self, join: JoinId, key: u64, want: u64, result: Result<u32, Errno>) {
        self.ops.add_part(join);
        self.finish(Then::Part { join, key, want }, result);
    }

    /// No more parts will be added to `join`.
    pub fn seal(&mut self, join: JoinId) {
        if let Some((finish, result)) = self.ops.end_part(join) {
            finish(self, result);
        }
    }

    /// Runs `job` on the blocking pool. It answers by a `Reply`, or comes back to this thread by
    /// [`Mailbox::run`].
    pub fn blocking(&mut self, job: impl FnOnce() + Send + 'static) {
        self.pool.run(job);
    }

    /// Reports `token` from [`Io::turn`] whenever the eventfd `fd` is written to. It is never
    /// read.
    pub fn watch(&mut self, fd: Fd, token: u32) {
        let index = token as usize;
        if self.watches.len() <= index {
            self.watches.resize(index + 1, None);
        }
        self.push_watch(fd.as_raw_fd(), WATCH | u64::from(token));
        self.watches[index] = Some(fd);
    }

    /// Ends a watch. Its descriptor is let go at once; the ring holds its own reference until
    /// the cancellation is through.
    pub fn unwatch(&mut self, token: u32) {
        if let Some(slot) = self.watches.get_mut(token as usize) {
            if slot.take().is_some() {
                let cancel = opcode::PollRemove::new(WATCH | u64::from(token))
                    .build()
                    .user_data(WATCH | (u64::from(u32::MAX) - 1));
                self.push(cancel);
            }
        }
    }

    /// One turn of the worker's loop: submits what was asked for, waits as told, runs what has
    /// completed, and collects the requests answered and the watches that fired.
    pub fn turn(
        &mut self,
        wait: Wait,
        done: &mut Vec<Done>,
        fired: &mut Vec<u32>,
    ) -> Result<(), Error> {
        self.collect(done);
        let wait = if done.is_empty() { wait } else { Wait::No };
        let entered = self.enter(wait);
        self.reap(fired);
        self.collect(done);
        entered
    }

    /// Submits what was asked for.
    pub fn submit(&mut self) -> Result<(), Error> {
        self.enter(Wait::No)
    }

    /// Whether a [`turn`](Io::turn) would find something, as far as that can be seen without a
    /// system call.
    pub fn has_news(&mut self) -> bool {
        self.mailbox.is_full() || !self.ring.completion().is_empty() || self.wants_entering()
    }

    /// Whether the kernel has something to take, or to post, which it does on entering the ring.
    fn wants_entering(&mut self) -> bool {
        let submission = self.ring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// Collects the requests that were answered on this thread or left in its mailbox.
    pub fn collect(&mut self, done: &mut Vec<Done>) {
        loop {
            let tasks = self.mailbox.clone().collect(done);
            if tasks.is_empty() {
                return;
            }
            for task in tasks {
                task(self);
            }
        }
    }

    fn enter(&mut self, wait: Wait) -> Result<(), Error> {
        let result = match wait {
            Wait::No if !self.wants_entering() => return Ok(()),
            // SAFETY: no argument is passed; see `push` for the entries.
            Wait::No => unsafe {
                let count = self.ring.submission().len() as u32;
                self.ring.submitter().enter::<()>(count, 0, GETEVENTS, None)
            },
            Wait::Forever => self.ring.submitter().submit_and_wait(1),
            Wait::AtMost(limit) => {
                let limit = types::Timespec::from(limit);
                self.ring
                    .submitter()
                    .submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // Time is up, a signal came, or the completion queue must be reaped first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(Error::Enter(error)),
            },
        }
    }

    fn reap(&mut self, fired: &mut Vec<u32>) {
        self.take_completions();
        // What a completion starts may need room in the rings, and take completions meanwhile.
        while !self.reaped.is_empty() {
            let mut reaped = std::mem::take(&mut self.reaped);
            for (data, result, more) in reaped.drain(..) {
                if data & WATCH == 0 {
                    self.complete(data as u32, result);
                } else {
                    self.fire(data, result, more, fired);
                }
            }
            if self.reaped.is_empty() {
                self.reaped = reaped;
            }
        }
    }

    fn take_completions(&mut self) {
        let completions = self.ring.completion();
        self.reaped.extend(
            completions.map(|cqe| (cqe.user_data(), cqe.result(), cqueue::more(cqe.flags()))),
        );
    }

    fn fire(&mut self, data: u64, result: i32, more: bool, fired: &mut Vec<u32>) {
        let mailbox = data == WATCH_MAILBOX;
        let fd = match self.watches.get(data as u32 as usize) {
            Some(Some(fd)) => fd.as_raw_fd(),
            _ if mailbox => self.mailbox.wake_fd().as_raw_fd(),
            // The watch is gone, or this is the answer to ending it.
            _ => return,
        };
        if result >= 0 {
            if !mailbox {
                fired.push(data as u32);
            }
        } else if result != -libc::ECANCELED {
            let errno = Errno::from_raw_os_error(-result);
            log::error!("io_uring cannot watch an eventfd: {errno}; its events may be late");
        }
        if !more && result >= 0 {
            self.push_watch(fd, data);
        }
    }

    fn start(
        &mut self,
        kind: Kind,
        fd: &DataFd,
        parts: impl Iterator<Item = iovec>,
        offset: u64,
        then: Then,
    ) {
        if let Then::Part { join, .. } = &then {
            self.ops.add_part(*join);
        }
        if kind.never_waits(fd) {
            let result = self.run(kind, fd, parts, offset);
            return self.finish(then, result);
        }
        let mut transfer = self.ops.transfer(kind, parts, offset);
        let is_large_read = transfer.is_large_read(fd);
        if is_large_read {
            if let Some(result) = transfer.run_cached(fd) {
                self.at_once_bytes += result.map_or(0, u64::from);
                self.ops.dispose(transfer);
                return self.finish(then, result);
            }
        }
        let index = self.ops.insert(Op {
            fd: fd.clone(),
            transfer,
            waits: is_large_read || fd.waits_at_once(),
            then,
        });
        self.in_flight += 1;
        self.submit_op(index);
    }

    fn at_once(
        &mut self,
        kind: Kind,
        fd: &DataFd,
        parts: impl Iterator<Item = iovec>,
        offset: u64,
    ) -> Option<Result<u32, Errno>> {
        kind.never_waits(fd)
            .then(|| self.run(kind, fd, parts, offset))
    }

    /// Does an operation on the spot.
    fn run(
        &mut self,
        kind: Kind,
        fd: &DataFd,
        parts: impl Iterator<Item = iovec>,
        offset: u64,
    ) -> Result<u32, Errno> {
        let mut transfer = self.ops.transfer(kind, parts, offset);
        let result = transfer.run(fd);
        self.at_once_bytes += result.map_or(0, u64::from);
        self.ops.dispose(transfer);
        result
    }

    fn submit_op(&mut self, index: u32) {
        let entry = self.ops.get(index).entry().user_data(u64::from(index));
        self.push(entry);
    }

    fn complete(&mut self, index: u32, result: i32) {
        let op = self.ops.get_mut(index);
        match op.transfer.advance(result) {
            op::Advance::Again => self.submit_op(index),
            op::Advance::Done(result) => {
                let then = self.ops.remove(index);
                self.in_flight -= 1;
                self.finish(then, result);
            }
        }
    }

    fn finish(&mut self, then: Then, result: Result<u32, Errno>) {
        match then {
            Then::Count(reply) => reply.send(result),
            Then::Nothing(reply) => reply.send(result.map(drop)),
            Then::Call(call) => call(self, result),
            Then::Part { join, key, want } => {
                if let Some((finish, result)) = self.ops.part_result(join, key, want, result) {
                    finish(self, result);
                }
            }
        }
    }

    fn push_watch(&mut self, fd: RawFd, user_data: u64) {
        let poll = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(user_data);
        self.push(poll);
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: descriptors and iovec lists in the entry are owned by `ops`, `watches` or
            // the mailbox until its completion; the memory they name is the caller's promise.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: hand it to the kernel, which may first want its completions
            // taken.
            if self.ring.submit().is_err() {
                self.take_completions();
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // The kernel may still write to memory that operations name: let them end.
        let limit = Instant::now() + DROP_LIMIT;
        while self.in_flight > 0 && Instant::now() < limit {
            let left = limit.saturating_duration_since(Instant::now());
            if self
                .turn(Wait::AtMost(left), &mut Vec::new(), &mut Vec::new())
                .is_err()
            {
                break;
            }
        }
        if self.in_flight > 0 {
            log::error!(
                "{} operations hang in the kernel; their memory is kept",
                self.in_flight
            );
            std::mem::forget(std::mem::take(&mut self.ops));
        }
    }
}

impl Op {
    /// The submission entry for what is left of the operation.
    fn entry(&self) -> squeue::Entry {
        let flags = match self.waits {
            true => squeue::Flags::ASYNC,
            false => squeue::Flags::empty(),
        };
        self.operation().flags(flags)
    }

    fn operation(&self) -> squeue::Entry {
        let fd = types::Fd(self.fd.as_raw());
        let transfer = &self.transfer;
        let (list, count) = transfer.rest();
        match transfer.kind {
            Kind::Read => opcode::Readv::new(fd, list, count)
                .offset(transfer.at())
                .build(),
            Kind::Write => opcode::Writev::new(fd, list, count)
                .offset(transfer.at())
                .build(),
            Kind::Append => opcode::Writev::new(fd, list, count)
                .rw_flags(libc::RWF_APPEND)
                .build(),
            Kind::Fsync { datasync } => {
                let flags = match datasync {
                    true => types::FsyncFlags::DATASYNC,
                    false => types::FsyncFlags::empty(),
                };
                opcode::Fsync::new(fd).flags(flags).build()
            }
            Kind::Fallocate { mode, len } => opcode::Fallocate::new(fd, len)
                .offset(transfer.at())
                .mode(mode)
                .build(),
        }
    }
}

/// A ring whose operations may all wait at once, each for storage of its own: the kernel would have no
/// more than four threads for each CPU wait in them. Those that are idle end after a while.
fn new_ring() -> std::io::Result<IoUring> {
    let ring = best_ring()?;
    // No limit of its own on operations that may wait without end, of which there are none.
    let mut workers_max = [RING_ENTRIES, 0];
    // Kernels before 5.15 have only their own limit.
    if let Err(error) = ring.submitter().register_iowq_max_workers(&mut workers_max) {
        log::debug!("io_uring keeps its limit of threads: {error}");
    }
    Ok(ring)
}

/// The best ring that the kernel has: completions run only when this thread asks (6.1), else
/// without interrupting it (5.19), else plain.
fn best_ring() -> std::io::Result<IoUring> {
    let build = |setup: fn(&mut io_uring::Builder)| {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(RING_ENTRIES * 8);
        setup(&mut builder);
        builder.build(RING_ENTRIES)
    };
    build(|b| {
        b.setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag();
    })
    .or_else(|_| {
        build(|b| {
            b.setup_coop_taskrun().setup_taskrun_flag();
        })
    })
    .or_else(|_| build(|_| ()))
}

#[cfg(test)]
mod tests;
