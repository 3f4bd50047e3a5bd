//! The hiprio queue: FORGET, BATCH_FORGET and INTERRUPT, none of which has a reply.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vm_memory::ByteValued;

use super::abi::{
    BatchForgetIn, ForgetIn, ForgetOne, InHeader, InterruptIn, Opcode, INTERRUPT_BIT, ROOT_ID,
};
use super::client::Client;
use super::error::{Error, Violation};
use super::wait::{sleep, Woken};
use crate::ring::device::Link;
use crate::ring::memory::{Buffer, GuestMemory, PAGE_SIZE};
use crate::ring::queue::{Queue, Segment};

/// Requests that can be in flight at once.
const SLOTS: u64 = 64;

/// The hiprio queue, shared by the clients of all request queues.
#[derive(Debug)]
pub struct Hiprio {
    queue: Queue,
    link: Arc<Link>,
    slots: Vec<Buffer>,
    free: Vec<u64>,
}

impl Hiprio {
    /// Takes over the driver's side of the queue.
    pub fn new(queue: Queue, memory: &GuestMemory, link: Arc<Link>) -> Result<Self, Error> {
        let slots = SLOTS.min(u64::from(queue.config().size));
        Ok(Hiprio {
            queue,
            link,
            slots: (0..slots)
                .map(|_| memory.alloc_pages(PAGE_SIZE))
                .collect::<Result<_, _>>()?,
            free: (0..slots).collect(),
        })
    }

    /// Sends a header and body of at most a page together; waits only if all slots are taken.
    pub fn send(&mut self, header: &InHeader, body: &[u8], timeout: Duration) -> Result<(), Error> {
        while self.reap()? {}
        while self.free.is_empty() {
            self.wait(header.opcode, header.unique, timeout)?;
        }
        let header_len = size_of::<InHeader>();
        let len = header_len + body.len();
        if len > PAGE_SIZE {
            return Err(Error::TooLarge(header.opcode));
        }
        let slot = self.free.pop().ok_or(Error::Busy)?;
        let buffer = &self.slots[slot as usize];
        buffer.write(0, header.as_slice());
        buffer.write(header_len, body);
        let segment = Segment {
            addr: buffer.guest_addr(),
            len: len as u32,
        };
        if let Err(e) = self.queue.submit(&[segment], &[], slot) {
            self.free.push(slot);
            return Err(e.into());
        }
        self.queue.kick()?;
        Ok(())
    }

    /// Waits until the device has used everything.
    pub(super) fn drain(&mut self, timeout: Duration) -> Result<(), Error> {
        while self.queue.in_flight() > 0 {
            self.wait(Opcode::Forget as u32, 0, timeout)?;
        }
        Ok(())
    }

    /// Takes what is used, then has the rest offered again: see [`Queue::offer_again`].
    pub(super) fn offer_again(&mut self) -> Result<u16, Error> {
        while self.reap()? {}
        Ok(self.queue.offer_again())
    }

    /// Waits for one used chain.
    fn wait(&mut self, opcode: u32, unique: u64, timeout: Duration) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            if self.reap()? {
                return Ok(());
            }
            match sleep(&self.queue, &self.link, start + timeout)? {
                Woken::Called => {}
                Woken::TimedOut => {
                    return Err(Error::Timeout {
                        opcode,
                        unique,
                        elapsed_ms: start.elapsed().as_millis(),
                    });
                }
                Woken::Gone if self.reap()? => return Ok(()),
                Woken::Gone => return Err(Error::Gone { opcode, unique }),
            }
        }
    }

    fn reap(&mut self) -> Result<bool, Error> {
        let Some(used) = self.queue.pop_used()? else {
            return Ok(false);
        };
        self.free.push(used.token);
        if used.len > 0 {
            let header: InHeader = self.slots[used.token as usize].read_obj(0);
            return Err(Error::Violation {
                opcode: header.opcode,
                unique: header.unique,
                violation: Violation::Unexpected { used_len: used.len },
            });
        }
        Ok(true)
    }
}

impl Client {
    /// FORGET on the hiprio queue; does not wait for the device.
    pub fn forget(&mut self, nodeid: u64, nlookup: u64) -> Result<(), Error> {
        let body = ForgetIn { nlookup };
        self.send_hiprio(Opcode::Forget as u32, nodeid, None, body.as_slice())
    }

    /// BATCH_FORGET of `(node id, lookup count)` on the hiprio queue, at most 252 of them.
    pub fn batch_forget(&mut self, nodes: &[(u64, u64)]) -> Result<(), Error> {
        let header = BatchForgetIn {
            count: nodes.len() as u32,
            dummy: 0,
        };
        let mut body = header.as_slice().to_vec();
        for &(nodeid, nlookup) in nodes {
            body.extend_from_slice(ForgetOne { nodeid, nlookup }.as_slice());
        }
        self.send_hiprio(Opcode::BatchForget as u32, ROOT_ID, None, &body)
    }

    /// INTERRUPT of a request in flight, on the hiprio queue.
    pub fn interrupt(&mut self, unique: u64) -> Result<(), Error> {
        let body = InterruptIn { unique };
        let own = Some(unique | INTERRUPT_BIT);
        self.send_hiprio(Opcode::Interrupt as u32, 0, own, body.as_slice())
    }

    /// Waits until the device has used all FORGETs and INTERRUPTs.
    pub fn drain_hiprio(&mut self) -> Result<(), Error> {
        self.shared.hiprio().drain(self.timeout)
    }

    fn send_hiprio(
        &mut self,
        opcode: u32,
        nodeid: u64,
        unique: Option<u64>,
        body: &[u8],
    ) -> Result<(), Error> {
        let header = InHeader {
            len: (size_of::<InHeader>() + body.len()) as u32,
            opcode,
            unique: unique.unwrap_or_else(|| self.shared.next_unique()),
            nodeid,
            ..InHeader::default()
        };
        self.shared.hiprio().send(&header, body, self.timeout)
    }
}
