//! FUSE on one request queue: submitting, completing, waiting.

use std::hint;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vm_memory::ByteValued;

use super::abi::{InHeader, OutHeader};
use super::error::Error;
use super::hiprio::Hiprio;
use super::request::{Body, Reply, Request};
use super::slots::{Outcome, Slots, State, ARGS_MAX, BODY_MAX};
use super::wait::{sleep, Woken};
use crate::ring::device::Link;
use crate::ring::memory::{Buffer, GuestMemory, PAGE_SIZE};
use crate::ring::queue::{self, Queue, Segment};

/// Step of `unique` (FUSE_REQ_ID_STEP in Linux): the lowest bit marks interrupts.
const UNIQUE_STEP: u64 = 2;

/// In whose name requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
}

impl Default for Caller {
    /// Root, as a process of the guest that is not ours.
    fn default() -> Self {
        Caller {
            uid: 0,
            gid: 0,
            pid: 1000,
        }
    }
}

/// How data goes into descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataShape {
    /// One descriptor for all of it.
    #[default]
    Single,
    /// One for each page, as Linux's page cache does.
    Pages,
}

/// Limits that INIT settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one READ or WRITE.
    pub io_len: usize,
    /// SETXATTR takes the extended form.
    pub setxattr_ext: bool,
}

/// A request that was submitted; the reply is an `R`.
pub struct Ticket<R> {
    slot: u16,
    unique: u64,
    reply: PhantomData<fn() -> R>,
}

impl<R> Ticket<R> {
    /// The request's `unique`, as [`Client::interrupt`] wants it.
    pub fn unique(&self) -> u64 {
        self.unique
    }
}

// Not derived: a ticket is a number, whatever R is.
impl<R> Clone for Ticket<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Ticket<R> {}

impl<R> std::fmt::Debug for Ticket<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket(unique {})", self.unique)
    }
}

/// A request that is answered. [`ticket`](Self::ticket) and [`Client::wait`] give the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    slot: u16,
    /// Its `unique`.
    pub unique: u64,
    /// Its opcode.
    pub opcode: u32,
    /// What the submitter gave with it.
    pub tag: u64,
}

impl Completion {
    /// The ticket of the request, whose reply the caller knows to be an `R`.
    pub fn ticket<R: Reply>(&self) -> Ticket<R> {
        Ticket {
            slot: self.slot,
            unique: self.unique,
            reply: PhantomData,
        }
    }
}

/// What the clients of one session share.
#[derive(Debug)]
pub(super) struct Shared {
    unique: AtomicU64,
    hiprio: Mutex<Hiprio>,
}

impl Shared {
    pub(super) fn new(hiprio: Hiprio) -> Self {
        Shared {
            unique: AtomicU64::new(0),
            hiprio: Mutex::new(hiprio),
        }
    }

    pub(super) fn hiprio(&self) -> MutexGuard<'_, Hiprio> {
        self.hiprio.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_unique(&self) -> u64 {
        self.unique.fetch_add(UNIQUE_STEP, Ordering::Relaxed) + UNIQUE_STEP
    }
}

/// FUSE on one request queue. Can be moved to a thread of its own; clients of one session share
/// only the counter of `unique` and the hiprio queue.
///
/// The blocking operations are in `calls.rs`, those on paths in `tree.rs`, those on the hiprio
/// queue in `hiprio.rs`, raw ones in `raw.rs`.
#[derive(Debug)]
pub struct Client {
    pub(super) queue: Queue,
    pub(super) slots: Slots,
    pub(super) memory: GuestMemory,
    pub(super) shared: Arc<Shared>,
    pub(super) link: Arc<Link>,
    pub(super) readable: Vec<Segment>,
    pub(super) writable: Vec<Segment>,
    /// Data of the blocking calls.
    pub(super) scratch: Option<Buffer>,
    /// In whose name requests are sent.
    pub caller: Caller,
    /// How data goes into descriptors.
    pub shape: DataShape,
    /// How long a blocking call waits for its reply.
    pub timeout: Duration,
    /// How long to poll the used ring before sleeping.
    pub spin: Duration,
    /// What INIT settled.
    pub limits: Limits,
}

impl Client {
    pub(super) fn new(
        queue: Queue,
        memory: &GuestMemory,
        shared: Arc<Shared>,
        link: Arc<Link>,
        depth: u16,
        timeout: Duration,
    ) -> Result<Self, Error> {
        Ok(Client {
            slots: Slots::new(memory, depth)?,
            queue,
            memory: memory.clone(),
            shared,
            link,
            readable: Vec::with_capacity(512),
            writable: Vec::with_capacity(512),
            scratch: None,
            caller: Caller::default(),
            shape: DataShape::default(),
            timeout,
            spin: Duration::ZERO,
            limits: Limits {
                io_len: PAGE_SIZE,
                setxattr_ext: false,
            },
        })
    }

    /// The queue beneath, for tests that misuse it.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Guest memory, for buffers.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Requests that are not answered yet, as far as the client has looked.
    pub fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// Submits a request, once there is room for it, and waits for its reply.
    pub fn call<R: Reply>(&mut self, request: &Request<'_, R>) -> Result<R, Error> {
        let start = Instant::now();
        loop {
            match self.submit(request, 0) {
                Ok(ticket) => return self.wait(ticket),
                Err(Error::Busy) if self.in_flight() > 0 => {
                    if !self.reap()? {
                        self.pause(start, None)?;
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Puts a request on the ring and kicks. [`Error::Busy`] if it has no room now.
    pub fn submit<R: Reply>(
        &mut self,
        request: &Request<'_, R>,
        tag: u64,
    ) -> Result<Ticket<R>, Error> {
        let ticket = self.enqueue(request, tag)?;
        self.queue.kick()?;
        Ok(ticket)
    }

    /// Puts a request on the ring without a kick, for batches: [`kick`](Self::kick) ends one.
    pub fn enqueue<R: Reply>(
        &mut self,
        request: &Request<'_, R>,
        tag: u64,
    ) -> Result<Ticket<R>, Error> {
        let args_len = request.args_len();
        let room_too_large = request.sink.is_none() && request.room as usize > BODY_MAX;
        if args_len > ARGS_MAX || room_too_large {
            return Err(Error::TooLarge(request.opcode));
        }
        let index = self.slots.take_free()?;
        let unique = self.shared.next_unique();
        let payload_len = request.payload.as_ref().map_or(0, Buffer::len);
        let header_len = size_of::<InHeader>();
        let header = InHeader {
            len: (header_len + args_len + payload_len) as u32,
            opcode: request.opcode,
            unique,
            nodeid: request.nodeid,
            uid: self.caller.uid,
            gid: self.caller.gid,
            pid: self.caller.pid,
            padding: 0,
        };
        let slot = self.slots.get_mut(index);
        slot.request.write(0, header.as_slice());
        request.write_args(&slot.request, header_len);
        slot.opcode = request.opcode;
        slot.unique = unique;
        slot.tag = tag;
        slot.raw = false;
        slot.room = request.room;
        slot.exact = request.exact;
        slot.payload.clone_from(&request.payload);
        slot.sink.clone_from(&request.sink);

        // The descriptors of virtio_fs_enqueue_req() in Linux.
        self.readable.clear();
        self.writable.clear();
        push_range(&mut self.readable, &slot.request, 0, header_len);
        push_range(&mut self.readable, &slot.request, header_len, args_len);
        if let Some(payload) = &slot.payload {
            push_data(&mut self.readable, payload, self.shape);
        }
        let out_len = size_of::<OutHeader>();
        push_range(&mut self.writable, &slot.reply, 0, out_len);
        match &slot.sink {
            Some(sink) => push_data(&mut self.writable, sink, self.shape),
            None => push_range(&mut self.writable, &slot.reply, out_len, slot.room as usize),
        }
        self.put_on_ring(index)?;
        Ok(Ticket {
            slot: index,
            unique,
            reply: PhantomData,
        })
    }

    /// Tells the device of what was enqueued.
    pub fn kick(&mut self) -> Result<bool, Error> {
        Ok(self.queue.kick()?)
    }

    /// The next request that is answered, without sleeping. It stays the first until its reply
    /// is taken by [`wait`](Self::wait) with its ticket.
    pub fn poll_done(&mut self) -> Result<Option<Completion>, Error> {
        while self.reap()? {}
        Ok(self.slots.first_done().map(|index| {
            let slot = self.slots.get(index);
            Completion {
                slot: index,
                unique: slot.unique,
                opcode: slot.opcode,
                tag: slot.tag,
            }
        }))
    }

    /// The next request that is answered, as [`poll_done`](Self::poll_done) gives it; sleeps
    /// until there is one, but no longer than the client's timeout.
    pub fn next_done(&mut self) -> Result<Completion, Error> {
        let start = Instant::now();
        loop {
            if let Some(completion) = self.poll_done()? {
                return Ok(completion);
            }
            if self.in_flight() == 0 {
                return Err(Error::Idle);
            }
            self.pause(start, None)?;
        }
    }

    /// Whether the request is answered, without sleeping.
    pub fn is_done<R: Reply>(&mut self, ticket: Ticket<R>) -> Result<bool, Error> {
        while self.reap()? {}
        let slot = self.slots.find(ticket.slot, ticket.unique)?;
        Ok(matches!(slot.state, State::Done(_)))
    }

    /// Waits for a request and takes its reply. After [`Error::Timeout`] and [`Error::Gone`] it
    /// is still in flight and may be waited for again.
    pub fn wait<R: Reply>(&mut self, ticket: Ticket<R>) -> Result<R, Error> {
        let outcome = self.wait_outcome(ticket.slot, ticket.unique)?;
        let slot = self.slots.get(ticket.slot);
        let (opcode, unique) = (slot.opcode, slot.unique);
        let violated = |violation| Error::Violation {
            opcode,
            unique,
            violation,
        };
        let result = match outcome {
            Outcome::Body(len) => {
                let (buffer, offset) = match &slot.sink {
                    Some(sink) => (sink, 0),
                    None => (&slot.reply, size_of::<OutHeader>()),
                };
                let len = len as usize;
                R::decode(&Body {
                    buffer,
                    offset,
                    len,
                })
                .map_err(violated)
            }
            Outcome::Errno(errno) => Err(Error::Errno { opcode, errno }),
            Outcome::Violation(violation) => Err(violated(violation)),
            Outcome::Raw(_) => Err(Error::NoSuchRequest(unique)),
        };
        self.slots.release(ticket.slot);
        result
    }

    /// Takes what is used, then offers the rest again: see [`Queue::offer_again`].
    pub fn offer_again(&mut self) -> Result<u16, Error> {
        while self.reap()? {}
        Ok(self.queue.offer_again())
    }

    /// Offers `self.readable` and `self.writable` with the slot as their token.
    pub(super) fn put_on_ring(&mut self, index: u16) -> Result<(), Error> {
        let submitted = self
            .queue
            .submit(&self.readable, &self.writable, u64::from(index));
        let slot = self.slots.get_mut(index);
        match submitted {
            Ok(_) => {
                slot.state = State::InFlight;
                slot.submitted = Instant::now();
                Ok(())
            }
            Err(e) => {
                let opcode = slot.opcode;
                self.slots.release(index);
                Err(match e {
                    queue::Error::Full { .. } => Error::Busy,
                    queue::Error::ChainLength { .. } => Error::TooLarge(opcode),
                    other => other.into(),
                })
            }
        }
    }

    pub(super) fn wait_outcome(&mut self, index: u16, unique: u64) -> Result<Outcome, Error> {
        let start = Instant::now();
        loop {
            while self.reap()? {}
            let slot = self.slots.find(index, unique)?;
            if let State::Done(outcome) = slot.state {
                return Ok(outcome);
            }
            self.pause(start, Some(index))?;
        }
    }

    /// Takes one used chain; whether there was one.
    fn reap(&mut self) -> Result<bool, Error> {
        match self.queue.pop_used()? {
            Some(used) => {
                self.slots.complete(used.token as u16, used.len);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Lets time pass until the used ring may have more, by polling, then by sleeping. An error
    /// names the request in slot `index`, else the oldest in flight.
    fn pause(&mut self, start: Instant, index: Option<u16>) -> Result<(), Error> {
        while start.elapsed() < self.spin {
            if self.has_used() {
                return Ok(());
            }
            hint::spin_loop();
        }
        let woken = sleep(&self.queue, &self.link, start + self.timeout)?;
        if woken == Woken::Called || self.has_used() {
            return Ok(());
        }
        let index = index.or_else(|| self.slots.oldest_in_flight());
        let slot = self.slots.get(index.ok_or(Error::Idle)?);
        let (opcode, unique) = (slot.opcode, slot.unique);
        if woken == Woken::Gone {
            return Err(Error::Gone { opcode, unique });
        }
        Err(Error::Timeout {
            opcode,
            unique,
            elapsed_ms: slot.submitted.elapsed().as_millis(),
        })
    }

    /// Whether the device has used more than the client has looked at.
    fn has_used(&self) -> bool {
        self.queue.ring().used_index() != self.queue.last_used()
    }
}

pub(super) fn push_range(segments: &mut Vec<Segment>, buffer: &Buffer, offset: usize, len: usize) {
    if len > 0 {
        segments.push(Segment {
            addr: buffer.guest_addr() + offset as u64,
            len: len as u32,
        });
    }
}

pub(super) fn push_data(segments: &mut Vec<Segment>, data: &Buffer, shape: DataShape) {
    if shape == DataShape::Single {
        return push_range(segments, data, 0, data.len());
    }
    let mut at = 0;
    while at < data.len() {
        let in_page = (data.guest_addr() as usize + at) % PAGE_SIZE;
        let len = (PAGE_SIZE - in_page).min(data.len() - at);
        push_range(segments, data, at, len);
        at += len;
    }
}
