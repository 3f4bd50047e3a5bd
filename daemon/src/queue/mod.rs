//! One virtqueue (split ring; virtio 1.2, 2.7): the only thing in the daemon that touches rings.
//!
//! - [`memory`]: the guest's memory, and where its bytes are.
//! - [`descriptor`]: from a head index to a checked [`Chain`].
//!
//! A request is known by its head index, and can be rebuilt from it alone ([`Queue::chain_of`]).
//! [`Queue::pop`] and [`Queue::complete`] write the [in-flight log](crate::inflight) as they go.

pub mod descriptor;
pub mod memory;

use std::rc::Rc;
use std::sync::atomic::Ordering;

use virtio_queue::{QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::chain::Chain;
use crate::inflight::crash::{self, Point};
use crate::inflight::{QueueLog, Recovery};
pub use descriptor::ChainError;
pub use memory::Snapshot;

/// `VRING_AVAIL_F_NO_INTERRUPT`: without EVENT_IDX, the driver does not want to be told.
const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// What makes a whole ring unusable until the driver sets it up again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("its size or an address is not as virtio demands: {0}")]
    Setup(virtio_queue::Error),
    #[error("its rings are not in guest memory")]
    Unmapped,
    #[error("its rings cannot be accessed: {0}")]
    Access(virtio_queue::Error),
    #[error("the driver names descriptor {head} of a table of {size}")]
    Head { head: u16, size: u16 },
    #[error("the driver offers descriptor {head} again, which is still in use")]
    Busy { head: u16 },
}

/// A request taken from the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Popped {
    /// Its first descriptor; names the request while it is in flight.
    pub head: u16,
    /// Whether the chain is filled. A bad chain is to be completed with length 0.
    pub chain: Result<(), ChainError>,
}

/// One virtqueue.
pub struct Queue {
    ring: virtio_queue::Queue,
    memory: Rc<Snapshot>,
    indirect: bool,
    log: QueueLog,
}

impl Queue {
    /// Takes up the ring that `state` describes, where its used ring and `log` say. Where a dead
    /// worker left it, answers also the heads that were popped and not executed, oldest first;
    /// what was executed is published.
    pub fn start(
        state: QueueState,
        indirect: bool,
        memory: Rc<Snapshot>,
        log: QueueLog,
    ) -> Result<(Queue, Option<Vec<u16>>), Error> {
        let ring = virtio_queue::Queue::try_from(state).map_err(Error::Setup)?;
        check_mapped(&ring, &memory)?;
        let mut queue = Queue {
            ring,
            memory,
            indirect,
            log,
        };
        let used = queue
            .ring
            .used_idx(queue.memory.guest(), Ordering::Acquire)
            .map_err(Error::Access)?;
        let avail = queue
            .ring
            .avail_idx(queue.memory.guest(), Ordering::Acquire)
            .map_err(Error::Access)?;
        queue.ring.set_next_used(used.0);
        let offered = (avail - used).0;
        let Some(Recovery { executed, popped }) = queue.log.start(used.0, offered) else {
            return Ok((queue, None));
        };
        let in_flight = executed.len() + popped.len();
        queue
            .ring
            .set_next_avail(used.0.wrapping_add(in_flight as u16));
        for (head, len) in executed {
            queue.publish(head, len)?;
        }
        Ok((queue, Some(popped)))
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// The index of the next available entry: the base where a stopped queue goes on.
    pub fn next_avail(&self) -> u16 {
        self.ring.next_avail()
    }

    /// The log of this queue.
    pub fn log(&self) -> &QueueLog {
        &self.log
    }

    /// The memory with which chains are translated at present; to be held while one is in use.
    pub fn memory(&self) -> &Rc<Snapshot> {
        &self.memory
    }

    /// Goes on with a new state of guest memory.
    pub fn set_memory(&mut self, memory: Rc<Snapshot>) -> Result<(), Error> {
        self.memory = memory;
        check_mapped(&self.ring, &self.memory)
    }

    /// Takes the next request from the ring, if there is one, and fills `chain` with it.
    pub fn pop(&mut self, chain: &mut Chain, now_ms: u64) -> Result<Option<Popped>, Error> {
        let mut offered = self.ring.iter(self.memory.guest()).map_err(Error::Access)?;
        let Some(head) = offered.next().map(|chain| chain.head_index()) else {
            return Ok(None);
        };
        let size = self.size();
        if head >= size {
            return Err(Error::Head { head, size });
        }
        if self.log.in_flight(head) {
            return Err(Error::Busy { head });
        }
        crash::point(Point::BeforePop);
        self.log.popped(head, now_ms);
        crash::point(Point::AfterPop);
        let chain = self.chain_of(head, chain);
        Ok(Some(Popped { head, chain }))
    }

    /// Fills `chain` from descriptor `head`.
    pub fn chain_of(&self, head: u16, chain: &mut Chain) -> Result<(), ChainError> {
        let table = (self.ring.desc_table(), self.ring.size());
        descriptor::walk(&self.memory, table, head, self.indirect, chain)
    }

    /// Gives a request back to the driver, with `len` bytes written to it.
    pub fn complete(&mut self, head: u16, len: u32) -> Result<(), Error> {
        self.log.executed(head, len);
        crash::point(Point::AfterExecute);
        self.publish(head, len)
    }

    fn publish(&mut self, head: u16, len: u32) -> Result<(), Error> {
        self.log.publishing(head);
        crash::point(Point::BeforeAddUsed);
        self.ring
            .add_used(self.memory.guest(), head, len)
            .map_err(Error::Access)?;
        crash::point(Point::AfterAddUsed);
        self.log.published(head, self.ring.next_used());
        Ok(())
    }

    /// Whether the driver wants to be told of what was completed since this was last asked.
    pub fn needs_signal(&mut self) -> Result<bool, Error> {
        let memory = self.memory.guest();
        let wanted = self.ring.needs_notification(memory);
        if !wanted.map_err(Error::Access)? {
            return Ok(false);
        }
        if self.ring.event_idx_enabled() {
            return Ok(true);
        }
        let flags: u16 = memory
            .load(GuestAddress(self.ring.avail_ring()), Ordering::Relaxed)
            .map_err(|error| Error::Access(virtio_queue::Error::GuestMemory(error)))?;
        Ok(u16::from_le(flags) & AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver not to kick: the ring is being looked at anyway. With EVENT_IDX it does
    /// not until asked to.
    pub fn disable_kicks(&mut self) -> Result<(), Error> {
        self.ring
            .disable_notification(self.memory.guest())
            .map_err(Error::Access)
    }

    /// Asks the driver to kick; answers true if requests have come in meanwhile.
    pub fn enable_kicks(&mut self) -> Result<bool, Error> {
        self.ring
            .enable_notification(self.memory.guest())
            .map_err(Error::Access)
    }

    /// Ends the process's part of the queue: what is in flight is left to the next.
    pub fn hand_over(&mut self) {
        self.log.hand_over();
    }

    /// Ends the queue in order. The ring is not touched any more.
    pub fn stop(&mut self) {
        self.log.stop();
    }
}

/// Checks that all three parts of a ring are mapped, each in one piece (virtio 1.2, 2.7).
fn check_mapped(ring: &virtio_queue::Queue, memory: &Snapshot) -> Result<(), Error> {
    let size = u64::from(ring.size());
    let parts = [
        (ring.desc_table(), descriptor::DESCRIPTOR_BYTES * size),
        (ring.avail_ring(), 6 + 2 * size),
        (ring.used_ring(), 6 + 8 * size),
    ];
    let mapped = |(addr, len)| memory.contiguous(addr, len).is_some();
    match parts.into_iter().all(mapped) {
        true => Ok(()),
        false => Err(Error::Unmapped),
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
