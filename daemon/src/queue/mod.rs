//! One virtqueue (split ring; virtio 1.2, 2.7): the only thing in the daemon that touches rings.
//!
//! - [`memory`]: the guest's memory, and where its bytes are.
//! - [`ring`]: the available and the used ring.
//! - [`descriptor`]: from a head index to a checked [`Chain`].
//! - [`ahead`]: what is fetched before it is read.
//!
//! A request is known by its head index, and can be rebuilt from it alone ([`Queue::chain_of`]).
//! [`Queue::pop`] and [`Queue::complete`] write the [in-flight log](crate::inflight) as they go.

mod ahead;
pub mod descriptor;
pub mod memory;
mod ring;

use std::rc::Rc;

use virtio_queue::QueueState;

use crate::chain::Chain;
use crate::inflight::crash::{self, Point};
use crate::inflight::{QueueLog, Recovery};
pub use descriptor::ChainError;
pub use memory::Snapshot;
use ring::Ring;

/// What makes a whole ring unusable until the driver sets it up again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("its size or an address is not as virtio demands: {0}")]
    Setup(virtio_queue::Error),
    #[error("its rings are not in guest memory")]
    Unmapped,
    #[error("the driver offers up to {offered} where {next} is next: more than there can be")]
    Index { offered: u16, next: u16 },
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
    ring: Ring,
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
        let mut queue = Queue {
            ring: Ring::new(state, &memory)?,
            memory,
            indirect,
            log,
        };
        let used = queue.ring.next_used();
        let offered = queue.ring.avail_idx().wrapping_sub(used);
        let Some(Recovery { executed, popped }) = queue.log.start(used, offered) else {
            return Ok((queue, None));
        };
        let in_flight = executed.len() + popped.len();
        queue
            .ring
            .set_next_avail(used.wrapping_add(in_flight as u16));
        for (head, len) in executed {
            queue.publish(head, len);
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
        let found = self.ring.set_memory(&memory);
        if found.is_ok() {
            self.memory = memory;
        }
        found
    }

    /// Takes the next request from the ring, if there is one, and fills `chain` with it.
    pub fn pop(&mut self, chain: &mut Chain, now_ms: u64) -> Result<Option<Popped>, Error> {
        let Some(head) = self.ring.pop()? else {
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
        self.fetch_ahead();
        let chain = self.chain_of(head, chain);
        Ok(Some(Popped { head, chain }))
    }

    /// Fills `chain` from descriptor `head`.
    pub fn chain_of(&self, head: u16, chain: &mut Chain) -> Result<(), ChainError> {
        descriptor::walk(&self.memory, self.ring.table(), head, self.indirect, chain)
    }

    /// Has the processor fetch what the next requests will be read from. Another processor wrote it,
    /// so that each first look at a line waits for that one: here it comes while this request is
    /// served. Each step needs what the one before has fetched, a request earlier.
    fn fetch_ahead(&self) {
        let table = self.ring.table();
        if let Some(head) = self.ring.peek(2) {
            ahead::descriptor(&table, head);
        }
        if let Some(head) = self.ring.peek(1) {
            ahead::list(&self.memory, &table, head);
        }
        if let Some(head) = self.ring.peek(0) {
            ahead::header(&self.memory, &table, head);
        }
    }

    /// Gives a request back to the driver, with `len` bytes written to it.
    pub fn complete(&mut self, head: u16, len: u32) {
        self.log.executed(head, len);
        crash::point(Point::AfterExecute);
        self.publish(head, len);
    }

    fn publish(&mut self, head: u16, len: u32) {
        self.log.publishing(head);
        crash::point(Point::BeforeAddUsed);
        self.ring.add_used(head, len);
        crash::point(Point::AfterAddUsed);
        self.log.published(head, self.ring.next_used());
    }

    /// Whether the driver wants to be told of what was completed since this was last asked.
    pub fn needs_signal(&mut self) -> bool {
        self.ring.needs_signal()
    }

    /// Asks the driver not to kick: the ring is being looked at anyway. With EVENT_IDX it does
    /// not until asked to.
    pub fn disable_kicks(&mut self) {
        self.ring.disable_kicks();
    }

    /// Asks the driver to kick; answers true if requests have come in meanwhile.
    pub fn enable_kicks(&mut self) -> Result<bool, Error> {
        self.ring.enable_kicks()
    }

    /// Whether there are requests to pop.
    pub fn has_more(&mut self) -> Result<bool, Error> {
        self.ring.has_more()
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

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
