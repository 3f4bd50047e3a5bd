//! Requests that nobody checks, for tests that play a hostile guest.

use super::client::{push_range, Client};
use super::error::Error;
use super::slots::Outcome;
use crate::ring::memory::Buffer;
use crate::ring::queue::Segment;

/// The answer to a raw request: nothing of it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawReply {
    /// Bytes that the device says it wrote.
    pub used_len: u32,
    /// All device-writable bytes, zero where the device wrote none.
    pub bytes: Vec<u8>,
}

impl Client {
    /// Sends `request` as it is, with one device-writable buffer for each of `rooms`, and
    /// returns whatever comes back. For tests that play a hostile guest.
    pub fn call_raw(&mut self, request: &[u8], rooms: &[usize]) -> Result<RawReply, Error> {
        let reply_len: usize = rooms.iter().sum();
        let payload = self.memory.alloc_pages(request.len())?;
        payload.write(0, request);
        let sink = self.memory.alloc_pages(reply_len)?;
        sink.fill(0);
        let mut at = 0;
        let mut writable = Vec::with_capacity(rooms.len());
        for &room in rooms {
            push_range(&mut writable, &sink, at, room);
            at += room;
        }
        let mut readable = Vec::new();
        push_range(&mut readable, &payload, 0, request.len());
        let used_len = self.call_segments(&readable, &writable, &[payload, sink.clone()])?;
        Ok(RawReply {
            used_len,
            bytes: sink.to_vec(0, reply_len),
        })
    }

    /// Offers exactly these descriptors and waits until they are used; returns the used length.
    /// `hold` (at most two buffers) stays allocated while the device may use it.
    pub fn call_segments(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        hold: &[Buffer],
    ) -> Result<u32, Error> {
        let index = self.slots.take_free()?;
        let unique = self.shared.next_unique();
        let slot = self.slots.get_mut(index);
        slot.opcode = u32::MAX;
        slot.unique = unique;
        slot.tag = 0;
        slot.raw = true;
        slot.payload = hold.first().cloned();
        slot.sink = hold.get(1).cloned();
        self.readable.clear();
        self.readable.extend_from_slice(readable);
        self.writable.clear();
        self.writable.extend_from_slice(writable);
        self.put_on_ring(index)?;
        self.queue.kick()?;
        let outcome = self.wait_outcome(index, unique)?;
        self.slots.release(index);
        match outcome {
            Outcome::Raw(used_len) => Ok(used_len),
            _ => Err(Error::NoSuchRequest(unique)),
        }
    }
}
