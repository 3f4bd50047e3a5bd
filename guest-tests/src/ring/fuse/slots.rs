//! The requests of one queue that are in flight or done and not taken yet.

use std::collections::VecDeque;
use std::time::Instant;

use rustix::io::Errno;

use super::abi::{InHeader, Opcode, OutHeader};
use super::error::{Error, Violation};
use crate::ring::memory::{self, Buffer, GuestMemory};

/// Header and arguments: the longest is SETXATTR's, a name and 64 KiB.
const REQUEST_LEN: usize = 72 << 10;
/// Header and body: the longest are GETXATTR's and LISTXATTR's 64 KiB.
const REPLY_LEN: usize = 68 << 10;

/// Bytes of arguments that a request can have.
pub(super) const ARGS_MAX: usize = REQUEST_LEN - size_of::<InHeader>();
/// Bytes of body that a slot's reply can have.
pub(super) const BODY_MAX: usize = REPLY_LEN - size_of::<OutHeader>();

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It succeeded; the body has this many bytes.
    Body(u32),
    Errno(Errno),
    Violation(Violation),
    /// A raw request: its used length, nothing was checked.
    Raw(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    InFlight,
    Done(Outcome),
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    pub(super) request: Buffer,
    pub(super) reply: Buffer,
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) tag: u64,
    pub(super) raw: bool,
    /// Bytes of body asked for, and whether exactly that many must come.
    pub(super) room: u32,
    pub(super) exact: bool,
    pub(super) submitted: Instant,
    /// Held so that the memory is not given away while the device may use it.
    pub(super) payload: Option<Buffer>,
    pub(super) sink: Option<Buffer>,
}

impl Slot {
    /// Checks the reply that the device says is complete.
    fn check(&self, used_len: u32) -> Outcome {
        if self.raw {
            return Outcome::Raw(used_len);
        }
        if used_len == 0 && self.opcode == Opcode::Destroy as u32 {
            // virtiofsd answers nothing, and Linux does not look.
            return Outcome::Body(0);
        }
        let header_len = size_of::<OutHeader>() as u32;
        if used_len < header_len {
            return Outcome::Violation(Violation::Short { used_len });
        }
        let header: OutHeader = self.reply.read_obj(0);
        let body_len = used_len - header_len;
        let violation = if header.len != used_len {
            Violation::Length {
                len: header.len,
                used_len,
            }
        } else if header.unique != self.unique {
            Violation::Unique(header.unique)
        } else if !(-511..=0).contains(&header.error) {
            Violation::ErrorRange(header.error)
        } else if header.error != 0 && body_len != 0 {
            Violation::ErrorBody {
                error: header.error,
                body_len,
            }
        } else if header.error != 0 {
            return Outcome::Errno(Errno::from_raw_os_error(-header.error));
        } else if body_len > self.room || (self.exact && body_len != self.room) {
            let room = self.room;
            Violation::BodyLength { body_len, room }
        } else {
            return Outcome::Body(body_len);
        };
        Outcome::Violation(violation)
    }
}

/// All slots of one queue.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Done and not taken, oldest first.
    done: VecDeque<u16>,
}

impl Slots {
    pub(super) fn new(memory: &GuestMemory, depth: u16) -> Result<Self, memory::Error> {
        let slot = || -> Result<Slot, memory::Error> {
            Ok(Slot {
                state: State::Free,
                request: memory.alloc_pages(REQUEST_LEN)?,
                reply: memory.alloc_pages(REPLY_LEN)?,
                opcode: 0,
                unique: 0,
                tag: 0,
                raw: false,
                room: 0,
                exact: false,
                submitted: Instant::now(),
                payload: None,
                sink: None,
            })
        };
        Ok(Slots {
            slots: (0..depth).map(|_| slot()).collect::<Result<_, _>>()?,
            free: (0..depth).rev().collect(),
            done: VecDeque::with_capacity(depth.into()),
        })
    }

    /// Takes a free slot; it stays free until its state is set.
    pub(super) fn take_free(&mut self) -> Result<u16, Error> {
        self.free.pop().ok_or(Error::Busy)
    }

    pub(super) fn get(&self, index: u16) -> &Slot {
        &self.slots[usize::from(index)]
    }

    pub(super) fn get_mut(&mut self, index: u16) -> &mut Slot {
        &mut self.slots[usize::from(index)]
    }

    /// The slot of a request, if it is not taken.
    pub(super) fn find(&self, index: u16, unique: u64) -> Result<&Slot, Error> {
        self.slots
            .get(usize::from(index))
            .filter(|slot| slot.unique == unique && slot.state != State::Free)
            .ok_or(Error::NoSuchRequest(unique))
    }

    /// The device has used the chain of this slot.
    pub(super) fn complete(&mut self, index: u16, used_len: u32) {
        let slot = self.get_mut(index);
        slot.state = State::Done(slot.check(used_len));
        self.done.push_back(index);
    }

    /// The oldest that is done.
    pub(super) fn first_done(&self) -> Option<u16> {
        self.done.front().copied()
    }

    /// The slot of the request that waits longest for its answer.
    pub(super) fn oldest_in_flight(&self) -> Option<u16> {
        let slots = (0..).zip(&self.slots);
        slots
            .filter(|(_, slot)| slot.state == State::InFlight)
            .min_by_key(|(_, slot)| slot.submitted)
            .map(|(index, _)| index)
    }

    /// Frees a slot, whatever its state.
    pub(super) fn release(&mut self, index: u16) {
        if self.done.front() == Some(&index) {
            self.done.pop_front();
        } else {
            self.done.retain(|&done| done != index);
        }
        let slot = self.get_mut(index);
        slot.state = State::Free;
        slot.payload = None;
        slot.sink = None;
        self.free.push(index);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len() - self.done.len()
    }
}
