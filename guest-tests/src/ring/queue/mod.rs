//! The driver's side of a split virtqueue (virtio 1.2, section 2.7).
//!
//! [`Ring`] (`layout.rs`) is what the device is told: the three areas in guest memory and the
//! eventfds.
//! [`Queue`] is the driver that works on it: it adds chains, kicks and takes used buffers as
//! Linux's `virtio_ring.c` does. The device is not trusted: free descriptors and chains are kept
//! in private memory, and every used element is checked against them.

use std::io;
use std::sync::atomic::{fence, Ordering};
use std::sync::Arc;

use super::memory::{self, Buffer, GuestMemory};
use layout::{UsedElem, AVAIL_F_NO_INTERRUPT, DESC_LEN, USED_ELEM_LEN, USED_F_NO_NOTIFY};

mod layout;

pub use layout::{Descriptor, Ring, Segment, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};

/// What can go wrong on a queue. Those that begin with `Used` are faults of the device.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Sizes of split queues are powers of two up to 32768.
    #[error("queue size {0} is not a power of two from 1 to 32768")]
    Size(u16),
    /// No memory for the ring or an indirect table.
    #[error("cannot allocate the ring")]
    Memory(#[from] memory::Error),
    /// An eventfd could not be made, written or read.
    #[error("eventfd")]
    EventFd(#[source] io::Error),
    /// Not enough free descriptors now; some come back with the next used buffer.
    #[error("the ring is full: {wanted} descriptors wanted, {free} free")]
    Full {
        /// Descriptors that the chain takes in the ring.
        wanted: usize,
        /// Descriptors that are free.
        free: usize,
    },
    /// The chain is empty, or longer than the queue's size.
    #[error("a chain of {len} descriptors does not fit a queue of {size}")]
    ChainLength {
        /// Descriptors in the chain.
        len: usize,
        /// The queue's size.
        size: u16,
    },
    /// The used index went back, or forward over more than is in flight.
    #[error("the device moved the used index to {used} with {last} seen, {in_flight} in flight")]
    UsedIndex {
        /// The device's index.
        used: u16,
        /// What the driver has taken.
        last: u16,
        /// Chains in flight.
        in_flight: u16,
    },
    /// The device used a head that is not in flight.
    #[error("the device used head {0}, which is not in flight")]
    UsedHead(u32),
    /// The device says that it wrote more than the chain has room for.
    #[error("the device wrote {len} bytes into head {head}, which has room for {room}")]
    UsedLength {
        /// Head of the chain.
        head: u16,
        /// Bytes the device claims.
        len: u32,
        /// Device-writable bytes of the chain.
        room: u64,
    },
}

/// Shape of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// Descriptors in the ring, a power of two.
    pub size: u16,
    /// VIRTIO_F_EVENT_IDX is negotiated.
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC is negotiated: chains of more than one descriptor go indirect.
    pub indirect: bool,
}

/// A chain that the device has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Index of the chain's first descriptor.
    pub head: u16,
    /// What the submitter gave with the chain.
    pub token: u64,
    /// Bytes that the device says it wrote.
    pub len: u32,
}

#[derive(Debug, Default)]
struct Chain {
    in_flight: bool,
    /// Descriptors taken in the ring: one if the chain is indirect.
    descs: u16,
    writable_len: u64,
    token: u64,
    /// Position in the available ring, modulo 65536.
    position: u16,
    /// Kept for the next chain with this head.
    indirect_table: Option<Buffer>,
}

/// The driver of one ring.
#[derive(Debug)]
pub struct Queue {
    ring: Arc<Ring>,
    config: QueueConfig,
    memory: GuestMemory,
    /// The link of a free descriptor to the next free one, and of a chain's to its next.
    next: Vec<u16>,
    free_head: u16,
    free: u16,
    chains: Vec<Chain>,
    in_flight: u16,
    avail_index: u16,
    /// Chains added since the last kick.
    added: u16,
    last_used: u16,
    kicks: u64,
}

impl Queue {
    /// Makes a ring in `memory`, with nothing offered and calls suppressed.
    pub fn new(memory: &GuestMemory, config: QueueConfig) -> Result<Self, Error> {
        let size = config.size;
        if !size.is_power_of_two() {
            return Err(Error::Size(size));
        }
        let queue = Queue {
            ring: Arc::new(Ring::new(memory, size)?),
            config,
            memory: memory.clone(),
            next: (1..=size).collect(),
            free_head: 0,
            free: size,
            chains: (0..size).map(|_| Chain::default()).collect(),
            in_flight: 0,
            avail_index: 0,
            added: 0,
            last_used: 0,
            kicks: 0,
        };
        queue.disable_calls();
        Ok(queue)
    }

    /// What the device shares with this driver.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Shape of the queue.
    pub fn config(&self) -> QueueConfig {
        self.config
    }

    /// Chains that the device has not used yet, as far as the driver has looked.
    pub fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// The used index up to which the driver has looked.
    pub fn last_used(&self) -> u16 {
        self.last_used
    }

    /// How often the kick eventfd was written.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Offers a chain: the device reads `readable`, then writes `writable`. The device may see
    /// it at once; [`kick`](Self::kick) tells it to look. Returns the head.
    pub fn submit(
        &mut self,
        readable: &[Segment],
        writable: &[Segment],
        token: u64,
    ) -> Result<u16, Error> {
        let len = readable.len() + writable.len();
        let size = self.config.size;
        if len == 0 || len > usize::from(size) {
            return Err(Error::ChainLength { len, size });
        }
        let indirect = self.config.indirect && len > 1;
        let wanted = if indirect { 1 } else { len };
        if wanted > usize::from(self.free) {
            let free = usize::from(self.free);
            return Err(Error::Full { wanted, free });
        }
        let head = self.free_head;
        if indirect {
            self.write_indirect(head, readable, writable)?;
            self.free_head = self.next[usize::from(head)];
        } else {
            self.write_direct(head, readable, writable);
        }
        self.free -= wanted as u16;
        let chain = &mut self.chains[usize::from(head)];
        chain.in_flight = true;
        chain.descs = wanted as u16;
        chain.writable_len = writable.iter().map(|s| u64::from(s.len)).sum();
        chain.token = token;
        chain.position = self.avail_index;
        self.in_flight += 1;
        self.ring.write_avail_slot(self.avail_index, head);
        self.avail_index = self.avail_index.wrapping_add(1);
        self.ring.write_avail_index(self.avail_index);
        self.added = self.added.saturating_add(1);
        Ok(head)
    }

    /// Tells the device of the chains added since the last kick, unless it asked not to be told
    /// (`virtqueue_kick_prepare` of Linux). Returns whether the eventfd was written.
    pub fn kick(&mut self) -> Result<bool, Error> {
        // The new index must be visible before the device's wish is read (virtio 1.2, 2.7.13.4.1).
        fence(Ordering::SeqCst);
        let old = self.avail_index.wrapping_sub(self.added);
        let many = self.added == u16::MAX;
        self.added = 0;
        let used = self.ring.used();
        let wanted = if self.config.event_idx {
            let event = used.load_u16(self.ring.avail_event_offset(), Ordering::Relaxed);
            many || need_event(event, self.avail_index, old)
        } else {
            used.load_u16(0, Ordering::Relaxed) & USED_F_NO_NOTIFY == 0
        };
        if wanted {
            self.kick_always()?;
        }
        Ok(wanted)
    }

    /// Writes the kick eventfd, whatever the device asked for.
    pub fn kick_always(&mut self) -> Result<(), Error> {
        self.kicks += 1;
        self.ring.kick().write(1).map_err(Error::EventFd)
    }

    /// Takes the next used chain without sleeping; none if the device has used no more.
    pub fn pop_used(&mut self) -> Result<Option<Used>, Error> {
        let used_index = self.ring.used_index();
        let ready = used_index.wrapping_sub(self.last_used);
        if ready == 0 {
            return Ok(None);
        }
        if ready > self.in_flight {
            return Err(Error::UsedIndex {
                used: used_index,
                last: self.last_used,
                in_flight: self.in_flight,
            });
        }
        let slot = usize::from(self.last_used % self.config.size);
        let elem: UsedElem = self.ring.used().read_obj(4 + USED_ELEM_LEN * slot);
        self.last_used = self.last_used.wrapping_add(1);
        let head = u16::try_from(elem.id).map_err(|_| Error::UsedHead(elem.id))?;
        let chain = self
            .chains
            .get_mut(usize::from(head))
            .filter(|chain| chain.in_flight)
            .ok_or(Error::UsedHead(elem.id))?;
        chain.in_flight = false;
        let (token, descs, room) = (chain.token, chain.descs, chain.writable_len);
        self.in_flight -= 1;
        self.free_chain(head, descs);
        if u64::from(elem.len) > room {
            let len = elem.len;
            return Err(Error::UsedLength { head, len, room });
        }
        Ok(Some(Used {
            head,
            token,
            len: elem.len,
        }))
    }

    /// Asks for a call at the next used chain. Returns whether there is one already: then no
    /// call need come, and the caller must not sleep.
    pub fn enable_calls(&self) -> bool {
        self.enable_calls_after(1)
    }

    /// Asks for a call when `count` more chains are used; without EVENT_IDX at each of them. Returns
    /// whether they are already.
    pub fn enable_calls_after(&self, count: u16) -> bool {
        let avail = self.ring.avail();
        if self.config.event_idx {
            let event = self.ring.used_event_offset();
            let last = self.last_used.wrapping_add(count).wrapping_sub(1);
            avail.store_u16(event, last, Ordering::Relaxed);
        }
        avail.store_u16(0, 0, Ordering::Relaxed);
        // The wish must be visible before the index is read (virtio 1.2, 2.7.14).
        fence(Ordering::SeqCst);
        self.ring.used_index().wrapping_sub(self.last_used) >= count
    }

    /// Asks for no calls, as while polling. With EVENT_IDX a few may still come.
    pub fn disable_calls(&self) {
        let avail = self.ring.avail();
        if self.config.event_idx {
            let event = self.ring.used_event_offset();
            let past = self.last_used.wrapping_sub(1);
            avail.store_u16(event, past, Ordering::Relaxed);
        } else {
            avail.store_u16(0, AVAIL_F_NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    /// Offers all chains in flight once more, oldest first, from the used index on, so that a
    /// device that starts with the returned base serves each of them. Only for a ring that no
    /// device works on; the used ring must have been taken empty.
    ///
    /// It is what a shared in-flight table does for a daemon that has one: without it a device
    /// that died after completing out of order has left no trace of what it still owed.
    pub fn offer_again(&mut self) -> u16 {
        let base = self.last_used;
        assert_eq!(
            base,
            self.ring.used_index(),
            "the used ring is not taken empty"
        );
        let mut heads: Vec<u16> = (0..self.config.size)
            .filter(|&head| self.chains[usize::from(head)].in_flight)
            .collect();
        let end = self.avail_index;
        heads.sort_by_key(|&head| {
            let age = end.wrapping_sub(self.chains[usize::from(head)].position);
            std::cmp::Reverse(age)
        });
        for (position, head) in (0..).map(|i| base.wrapping_add(i)).zip(heads) {
            self.chains[usize::from(head)].position = position;
            self.ring.write_avail_slot(position, head);
        }
        self.ring.write_avail_index(self.avail_index);
        base
    }

    fn write_direct(&mut self, head: u16, readable: &[Segment], writable: &[Segment]) {
        let last = readable.len() + writable.len() - 1;
        let mut index = head;
        for (i, (segment, flags)) in chain_segments(readable, writable).enumerate() {
            let next = self.next[usize::from(index)];
            let more = if i == last { 0 } else { DESC_F_NEXT };
            self.ring.write_desc(
                index,
                Descriptor {
                    addr: segment.addr,
                    len: segment.len,
                    flags: flags | more,
                    next: if i == last { 0 } else { next },
                },
            );
            index = next;
        }
        self.free_head = index;
    }

    fn write_indirect(
        &mut self,
        head: u16,
        readable: &[Segment],
        writable: &[Segment],
    ) -> Result<(), Error> {
        let len = readable.len() + writable.len();
        let table_len = len * DESC_LEN;
        let kept = &mut self.chains[usize::from(head)].indirect_table;
        let table = match kept {
            Some(table) if table.len() >= table_len => table,
            _ => kept.insert(self.memory.alloc(table_len.next_power_of_two(), DESC_LEN)?),
        };
        for (i, (segment, flags)) in chain_segments(readable, writable).enumerate() {
            let more = i + 1 < len;
            let desc = Descriptor {
                addr: segment.addr,
                len: segment.len,
                flags: flags | if more { DESC_F_NEXT } else { 0 },
                next: if more { i as u16 + 1 } else { 0 },
            };
            table.write_obj(i * DESC_LEN, &desc);
        }
        let desc = Descriptor {
            addr: table.guest_addr(),
            len: table_len as u32,
            flags: DESC_F_INDIRECT,
            next: 0,
        };
        self.ring.write_desc(head, desc);
        Ok(())
    }

    fn free_chain(&mut self, head: u16, descs: u16) {
        let mut last = head;
        for _ in 1..descs {
            last = self.next[usize::from(last)];
        }
        self.next[usize::from(last)] = self.free_head;
        self.free_head = head;
        self.free += descs;
    }
}

fn chain_segments<'a>(
    readable: &'a [Segment],
    writable: &'a [Segment],
) -> impl Iterator<Item = (&'a Segment, u16)> {
    let readable = readable.iter().map(|segment| (segment, 0));
    readable.chain(writable.iter().map(|segment| (segment, DESC_F_WRITE)))
}

/// `vring_need_event` (virtio 1.2, 2.7.7.1): whether moving from `old` to `new` passes `event`.
pub fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests;
