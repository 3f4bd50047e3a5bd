//! Many requests in flight at native speed, for measurements.
//!
//! A [`Pump`] has a fixed number of slots, each with one request in flight at most and memory of
//! its own; nothing is allocated per request. It treats the ring as Linux's driver does: a kick
//! for each request unless the device asked for none, one descriptor for each page of data, and
//! calls asked for whenever it has nothing left to take. Before it sleeps it looks at the used
//! ring for a while, still with calls asked for: the device pays for its call as it does in front
//! of a VM, but seldom for the wake-up of a sleeping thread, which is the client's.

use std::hint;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use vm_memory::ByteValued;

use super::abi::{InHeader, OutHeader};
use super::client::{push_data, push_range, Client, DataShape};
use super::error::{Error, Violation};
use super::request::{Body, Reply, Request};
use super::wait::{sleep, sleep_for, Woken};
use crate::ring::memory::{Buffer, PAGE_SIZE};

/// Looks at the used ring between two looks at the clock.
const LOOKS_PER_CLOCK_READ: u32 = 32;

/// One place for a request.
#[derive(Debug)]
struct Slot {
    request: Buffer,
    reply: Buffer,
    data: Buffer,
    opcode: u32,
    unique: u64,
    in_flight: bool,
    /// Whether the reply's body is in `data`.
    sinks: bool,
    room: u32,
    exact: bool,
}

/// An answer that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The request's slot, free now.
    pub slot: usize,
    /// The request's opcode.
    pub opcode: u32,
    /// The error, if it is one.
    pub errno: Option<Errno>,
    /// Bytes of the reply's body.
    pub len: usize,
}

impl Answer {
    /// An error if the daemon answered with one.
    pub fn success(self) -> Result<Answer, Error> {
        match self.errno {
            None => Ok(self),
            Some(errno) => Err(Error::Errno {
                opcode: self.opcode,
                errno,
            }),
        }
    }
}

/// Keeps requests in flight on the queue of a [`Client`] that has none in flight itself.
#[derive(Debug)]
pub struct Pump<'a> {
    client: &'a mut Client,
    slots: Vec<Slot>,
    poll: Duration,
}

impl<'a> Pump<'a> {
    /// `depth` slots with `data_len` bytes of data each. `poll` is how long the used ring is
    /// looked at before sleeping.
    pub fn new(
        client: &'a mut Client,
        depth: usize,
        data_len: usize,
        poll: Duration,
    ) -> Result<Self, Error> {
        if client.in_flight() > 0 {
            return Err(Error::Busy);
        }
        let slot = || -> Result<Slot, Error> {
            let data = client.memory.alloc_pages(data_len)?;
            // A guest's page has memory before the device sees it.
            data.fill(1);
            Ok(Slot {
                request: client.memory.alloc_pages(PAGE_SIZE)?,
                reply: client.memory.alloc_pages(PAGE_SIZE)?,
                data,
                opcode: 0,
                unique: 0,
                in_flight: false,
                sinks: false,
                room: 0,
                exact: false,
            })
        };
        let slots = (0..depth).map(|_| slot()).collect::<Result<_, _>>()?;
        Ok(Pump {
            client,
            slots,
            poll,
        })
    }

    /// How many requests there can be in flight.
    pub fn depth(&self) -> usize {
        self.slots.len()
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        usize::from(self.client.queue.in_flight())
    }

    /// The data of a slot.
    pub fn data(&self, slot: usize) -> &Buffer {
        &self.slots[slot].data
    }

    /// The client, for FORGET and what else goes over the hiprio queue.
    pub fn client(&mut self) -> &mut Client {
        self.client
    }

    /// Sends a request from a slot that has none in flight.
    pub fn send<R: Reply>(&mut self, slot: usize, request: &Request<'_, R>) -> Result<(), Error> {
        self.offer(slot, request)?;
        self.kick()
    }

    /// Tells the daemon of what was offered, unless it looks itself.
    pub fn kick(&mut self) -> Result<(), Error> {
        self.client.queue.kick()?;
        Ok(())
    }

    /// [Sends](Self::send) a request without telling the daemon.
    pub fn offer<R: Reply>(&mut self, slot: usize, request: &Request<'_, R>) -> Result<(), Error> {
        let client = &mut *self.client;
        let header_len = size_of::<InHeader>();
        let args_len = request.args_len();
        let place = &mut self.slots[slot];
        if place.in_flight {
            return Err(Error::Busy);
        }
        let room_in_slot = PAGE_SIZE - size_of::<OutHeader>();
        let room_too_large = request.sink.is_none() && request.room as usize > room_in_slot;
        if header_len + args_len > PAGE_SIZE || room_too_large {
            return Err(Error::TooLarge(request.opcode));
        }
        let payload_len = request.payload.as_ref().map_or(0, Buffer::len);
        place.opcode = request.opcode;
        place.unique = client.shared.next_unique();
        place.sinks = request.sink.is_some();
        place.room = request.room;
        place.exact = request.exact;
        let header = InHeader {
            len: (header_len + args_len + payload_len) as u32,
            opcode: request.opcode,
            unique: place.unique,
            nodeid: request.nodeid,
            uid: client.caller.uid,
            gid: client.caller.gid,
            pid: client.caller.pid,
            padding: 0,
        };
        place.request.write(0, header.as_slice());
        request.write_args(&place.request, header_len);

        // The descriptors of virtio_fs_enqueue_req() in Linux.
        client.readable.clear();
        client.writable.clear();
        push_range(&mut client.readable, &place.request, 0, header_len);
        push_range(&mut client.readable, &place.request, header_len, args_len);
        if let Some(payload) = &request.payload {
            push_data(&mut client.readable, payload, DataShape::Pages);
        }
        let out_len = size_of::<OutHeader>();
        push_range(&mut client.writable, &place.reply, 0, out_len);
        match &request.sink {
            Some(sink) => push_data(&mut client.writable, sink, DataShape::Pages),
            None => push_range(
                &mut client.writable,
                &place.reply,
                out_len,
                place.room as usize,
            ),
        }
        client
            .queue
            .submit(&client.readable, &client.writable, slot as u64)?;
        place.in_flight = true;
        Ok(())
    }

    /// The next answer; sleeps until there is one, but no longer than the client's timeout.
    pub fn next_answer(&mut self) -> Result<Answer, Error> {
        loop {
            if let Some(used) = self.client.queue.pop_used()? {
                return self.check(used.token as usize, used.len);
            }
            if self.in_flight() == 0 {
                return Err(Error::Idle);
            }
            self.pause()?;
        }
    }

    /// Sleeps until all requests in flight are answered, and looks at none of them before.
    pub fn sleep_until_answered(&mut self) -> Result<(), Error> {
        let queue = &self.client.queue;
        let (seen, wanted) = (queue.last_used(), queue.in_flight());
        let is_done = || queue.ring().used_index().wrapping_sub(seen) >= wanted;
        let until = Instant::now() + self.client.timeout;
        while !is_done() {
            match sleep_for(queue, &self.client.link, until, wanted)? {
                Woken::Called => {}
                woken if !is_done() => return Err(self.not_answered(woken)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The body of an answer, before its slot sends again.
    pub fn decode<R: Reply>(&self, answer: Answer) -> Result<R, Error> {
        let slot = &self.slots[answer.slot];
        let (buffer, offset) = match slot.sinks {
            true => (&slot.data, 0),
            false => (&slot.reply, size_of::<OutHeader>()),
        };
        let body = Body {
            buffer,
            offset,
            len: answer.len,
        };
        R::decode(&body).map_err(|violation| slot.violated(violation))
    }

    fn check(&mut self, index: usize, used_len: u32) -> Result<Answer, Error> {
        let slot = &mut self.slots[index];
        slot.in_flight = false;
        let header_len = size_of::<OutHeader>() as u32;
        let header: OutHeader = slot.reply.read_obj(0);
        if used_len < header_len {
            return Err(slot.violated(Violation::Short { used_len }));
        }
        if header.len != used_len {
            let len = header.len;
            return Err(slot.violated(Violation::Length { len, used_len }));
        }
        if header.unique != slot.unique {
            return Err(slot.violated(Violation::Unique(header.unique)));
        }
        if !(-511..=0).contains(&header.error) {
            return Err(slot.violated(Violation::ErrorRange(header.error)));
        }
        let body_len = used_len - header_len;
        let room = slot.room;
        if header.error == 0 && (body_len > room || (slot.exact && body_len != room)) {
            return Err(slot.violated(Violation::BodyLength { body_len, room }));
        }
        Ok(Answer {
            slot: index,
            opcode: slot.opcode,
            errno: (header.error != 0).then(|| Errno::from_raw_os_error(-header.error)),
            len: body_len as usize,
        })
    }

    /// Lets time pass until the used ring has more: asks for a call, looks, then sleeps.
    fn pause(&mut self) -> Result<(), Error> {
        let queue = &self.client.queue;
        let seen = queue.last_used();
        if queue.enable_calls() || self.poll_used(seen) {
            queue.disable_calls();
            return Ok(());
        }
        let until = Instant::now() + self.client.timeout;
        match sleep(queue, &self.client.link, until)? {
            Woken::Called => Ok(()),
            _ if queue.ring().used_index() != seen => Ok(()),
            woken => Err(self.not_answered(woken)),
        }
    }

    /// An error for a sleep that ended without an answer.
    fn not_answered(&self, woken: Woken) -> Error {
        match woken {
            Woken::Gone => self.unanswered(|opcode, unique, _| Error::Gone { opcode, unique }),
            _ => self.unanswered(|opcode, unique, elapsed_ms| Error::Timeout {
                opcode,
                unique,
                elapsed_ms,
            }),
        }
    }

    fn poll_used(&self, seen: u16) -> bool {
        let ring = self.client.queue.ring();
        let start = Instant::now();
        loop {
            for _ in 0..LOOKS_PER_CLOCK_READ {
                if ring.used_index() != seen {
                    return true;
                }
                hint::spin_loop();
            }
            if start.elapsed() >= self.poll {
                return false;
            }
        }
    }

    /// An error that names a request in flight.
    fn unanswered(&self, error: impl FnOnce(u32, u64, u128) -> Error) -> Error {
        let oldest = self.slots.iter().filter(|slot| slot.in_flight);
        match oldest.min_by_key(|slot| slot.unique) {
            Some(slot) => error(slot.opcode, slot.unique, self.client.timeout.as_millis()),
            None => Error::Idle,
        }
    }
}

impl Slot {
    fn violated(&self, violation: Violation) -> Error {
        Error::Violation {
            opcode: self.opcode,
            unique: self.unique,
            violation,
        }
    }
}
