//! The requests that a worker has in flight.

use std::rc::Rc;

use pfs_core::fs::Ticket;

use crate::chain::Chain;
use crate::queue::Snapshot;

/// Iovecs in flight beyond which no more requests are popped until some are answered: bounds the
/// memory that a guest can make a queue use to 4 MiB.
const SEGMENTS_MAX: usize = 1 << 18;
/// Iovecs for which memory is kept while it is not in use.
const SPARE_SEGMENTS_MAX: usize = 1 << 16;

const HEAD_BITS: u32 = 16;

/// A request in flight.
pub(super) struct Slot<P> {
    pub(super) pending: P,
    pub(super) chain: Chain,
    /// Keeps the memory that `chain` names mapped.
    memory: Option<Rc<Snapshot>>,
    /// 0 while free.
    ticket: u64,
}

/// One slot for each descriptor head, at a stable address.
pub(super) struct Slots<P> {
    slots: Box<[Slot<P>]>,
    /// Chains not in use, for their memory: the one used last is taken first.
    spare: Vec<Chain>,
    spare_segments: usize,
    /// Of the request begun last.
    sequence: u64,
    in_flight: usize,
    segments: usize,
}

fn segments(chain: &Chain) -> usize {
    chain.readable.len() + chain.writable.len()
}

fn capacity(chain: &Chain) -> usize {
    chain.readable.capacity() + chain.writable.capacity()
}

impl<P: Default> Slots<P> {
    /// Slots for a queue of `size` descriptors.
    pub(super) fn new(size: u16) -> Slots<P> {
        let slot = || Slot {
            pending: P::default(),
            chain: Chain::default(),
            memory: None,
            ticket: 0,
        };
        Slots {
            slots: std::iter::repeat_with(slot).take(size.into()).collect(),
            spare: Vec::new(),
            spare_segments: 0,
            sequence: 0,
            in_flight: 0,
            segments: 0,
        }
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether another request may be popped.
    pub(super) fn has_room(&self) -> bool {
        self.segments < SEGMENTS_MAX
    }

    /// An empty chain, to be [begun](Slots::begin) or [given back](Slots::give_back).
    pub(super) fn spare(&mut self) -> Chain {
        let chain = self.spare.pop().unwrap_or_default();
        self.spare_segments -= capacity(&chain);
        chain
    }

    /// Keeps a chain's memory for the next one.
    pub(super) fn give_back(&mut self, mut chain: Chain) {
        chain.clear();
        let capacity = capacity(&chain);
        if self.spare_segments + capacity <= SPARE_SEGMENTS_MAX {
            self.spare_segments += capacity;
            self.spare.push(chain);
        }
    }

    /// A request is in flight.
    pub(super) fn begin(
        &mut self,
        head: u16,
        chain: Chain,
        memory: Rc<Snapshot>,
    ) -> (Ticket, &mut Slot<P>) {
        self.sequence += 1;
        self.in_flight += 1;
        self.segments += segments(&chain);
        let slot = &mut self.slots[usize::from(head)];
        assert_eq!(slot.ticket, 0, "the queue refuses a head that is in flight");
        slot.ticket = self.sequence << HEAD_BITS | u64::from(head);
        slot.chain = chain;
        slot.memory = Some(memory);
        (Ticket(slot.ticket), slot)
    }

    /// The request of an answer; `None` if it is in flight no more.
    pub(super) fn find(&mut self, ticket: Ticket) -> Option<(u16, &mut Slot<P>)> {
        let head = ticket.0 as u16;
        let slot = self.slots.get_mut(usize::from(head))?;
        (slot.ticket == ticket.0).then_some((head, slot))
    }

    /// The request is in flight no more.
    pub(super) fn end(&mut self, head: u16) {
        let slot = &mut self.slots[usize::from(head)];
        assert_ne!(slot.ticket, 0);
        slot.ticket = 0;
        slot.memory = None;
        let chain = std::mem::take(&mut slot.chain);
        self.in_flight -= 1;
        self.segments -= segments(&chain);
        self.give_back(chain);
    }
}
