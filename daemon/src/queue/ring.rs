//! The available and the used ring of a split virtqueue, accessed where they lie (virtio 1.2, 2.7).
//!
//! `virtio-queue` checks how a ring is set up, but looks for its memory again at each access, several
//! times a request. Here it is looked for once for each state of guest memory.

use std::num::Wrapping;
use std::sync::atomic::{fence, AtomicU16, AtomicU32, Ordering};

use virtio_queue::QueueState;

use super::descriptor::{Table, DESCRIPTOR_BYTES};
use super::memory::Snapshot;
use super::Error;

/// `VRING_AVAIL_F_NO_INTERRUPT`: without EVENT_IDX, the driver does not want to be told.
const AVAIL_F_NO_INTERRUPT: u16 = 1;
/// `VRING_USED_F_NO_NOTIFY`: without EVENT_IDX, the device does not want to be kicked.
const USED_F_NO_NOTIFY: u16 = 1;

/// Where the driver's and the device's parts are in this process. Valid as long as the snapshot
/// that they were found in.
#[derive(Clone, Copy)]
struct Parts {
    table: *const u64,
    /// `struct virtq_avail`: flags, idx, ring, used_event.
    avail: *mut u16,
    /// `struct virtq_used`: flags, idx, ring, avail_event.
    used: *mut u16,
}

/// The rings, and how far the device is in them.
pub(super) struct Ring {
    state: QueueState,
    parts: Parts,
    next_avail: Wrapping<u16>,
    next_used: Wrapping<u16>,
    /// The available index as last read.
    offered: Wrapping<u16>,
    /// The used index when the driver was last asked whether it wants to know.
    asked: Wrapping<u16>,
}

impl Ring {
    /// The ring that `state` describes, in `memory`.
    pub fn new(state: QueueState, memory: &Snapshot) -> Result<Ring, Error> {
        // Checks size and alignment.
        virtio_queue::Queue::try_from(state).map_err(Error::Setup)?;
        let mut ring = Ring {
            parts: find(&state, memory)?,
            state,
            next_avail: Wrapping(state.next_avail),
            next_used: Wrapping(state.next_used),
            offered: Wrapping(state.next_avail),
            asked: Wrapping(state.next_used),
        };
        ring.set_next_used(ring.used_idx());
        Ok(ring)
    }

    /// Goes on with another state of guest memory.
    pub fn set_memory(&mut self, memory: &Snapshot) -> Result<(), Error> {
        self.parts = find(&self.state, memory)?;
        Ok(())
    }

    /// Number of descriptors.
    pub fn size(&self) -> u16 {
        self.state.size
    }

    /// The descriptor table.
    pub fn table(&self) -> Table {
        // SAFETY: `find` saw it mapped, as large as it is, and aligned, in the snapshot that the queue
        // holds beside this.
        unsafe { Table::at(self.state.desc_table, self.parts.table, self.size()) }
    }

    /// The index of the next entry of the available ring.
    pub fn next_avail(&self) -> u16 {
        self.next_avail.0
    }

    pub fn set_next_avail(&mut self, index: u16) {
        self.next_avail = Wrapping(index);
        self.offered = self.next_avail;
    }

    /// The index of the next entry of the used ring.
    pub fn next_used(&self) -> u16 {
        self.next_used.0
    }

    fn set_next_used(&mut self, index: u16) {
        self.next_used = Wrapping(index);
        self.asked = self.next_used;
    }

    /// Where the driver's available ring ends.
    pub fn avail_idx(&self) -> u16 {
        u16::from_le(self.avail(1).load(Ordering::Acquire))
    }

    fn used_idx(&self) -> u16 {
        u16::from_le(self.used(1).load(Ordering::Acquire))
    }

    /// Takes the next head that the driver offers.
    pub fn pop(&mut self) -> Result<Option<u16>, Error> {
        if self.offered == self.next_avail && !self.look()? {
            return Ok(None);
        }
        let place = self.next_avail.0 % self.size();
        // Ordered after the index by `look`'s acquire.
        let head = self.avail(2 + usize::from(place)).load(Ordering::Relaxed);
        self.next_avail += 1;
        Ok(Some(u16::from_le(head)))
    }

    /// The head that will be popped after `ahead` others, where it is known to be offered.
    pub fn peek(&self, ahead: u16) -> Option<u16> {
        if (self.offered - self.next_avail).0 <= ahead {
            return None;
        }
        let place = self.next_avail.0.wrapping_add(ahead) % self.size();
        let head = self.avail(2 + usize::from(place)).load(Ordering::Relaxed);
        Some(u16::from_le(head))
    }

    /// Looks whether the driver offers more.
    fn look(&mut self) -> Result<bool, Error> {
        let offered = Wrapping(self.avail_idx());
        if (offered - self.next_avail).0 > self.size() {
            return Err(Error::Index {
                offered: offered.0,
                next: self.next_avail.0,
            });
        }
        self.offered = offered;
        Ok(offered != self.next_avail)
    }

    /// Gives a head back to the driver, with `len` bytes written.
    pub fn add_used(&mut self, head: u16, len: u32) {
        let place = usize::from(self.next_used.0 % self.size());
        // `struct virtq_used_elem`: two words, after flags and index.
        let words = self.parts.used.wrapping_add(2 + 4 * place).cast::<u32>();
        for (word, value) in [(0, u32::from(head)), (1, len)] {
            // SAFETY: `find` saw the ring mapped, as large as it is, and aligned; `place` is in it.
            // The guest may read it meanwhile: it is only accessed as atomics.
            let word = unsafe { AtomicU32::from_ptr(words.wrapping_add(word)) };
            word.store(value.to_le(), Ordering::Relaxed);
        }
        self.next_used += 1;
        // What is in the ring, and in the buffers, is there before the index says so.
        self.used(1)
            .store(self.next_used.0.to_le(), Ordering::Release);
    }

    /// Whether the driver wants to be told of what was given back since this was last asked.
    pub fn needs_signal(&mut self) -> bool {
        // The index is out before the driver's wish is read (virtio 1.2, 2.7.7.2).
        fence(Ordering::SeqCst);
        let new = (self.next_used - self.asked).0;
        self.asked = self.next_used;
        if !self.state.event_idx_enabled {
            return u16::from_le(self.avail(0).load(Ordering::Relaxed)) & AVAIL_F_NO_INTERRUPT == 0;
        }
        let used_event = self.avail(2 + usize::from(self.size()));
        let used_event = Wrapping(u16::from_le(used_event.load(Ordering::Relaxed)));
        (self.next_used - used_event - Wrapping(1)).0 < new
    }

    /// Asks the driver not to kick. With EVENT_IDX it does not until asked to.
    pub fn disable_kicks(&mut self) {
        if !self.state.event_idx_enabled {
            self.used(0)
                .store(USED_F_NO_NOTIFY.to_le(), Ordering::Relaxed);
        }
    }

    /// Asks the driver to kick; answers whether it has offered more meanwhile.
    pub fn enable_kicks(&mut self) -> Result<bool, Error> {
        if self.state.event_idx_enabled {
            // `avail_event` follows the ring.
            let avail_event = self.used(2 + 4 * usize::from(self.size()));
            avail_event.store(self.next_avail.0.to_le(), Ordering::Relaxed);
        } else {
            self.used(0).store(0, Ordering::Relaxed);
        }
        // The wish is out before the ring is looked at again (virtio 1.2, 2.7.10).
        fence(Ordering::SeqCst);
        self.has_more()
    }

    /// Whether the driver offers more than was taken.
    pub fn has_more(&mut self) -> Result<bool, Error> {
        match self.offered == self.next_avail {
            true => self.look(),
            false => Ok(true),
        }
    }

    /// Half-word `index` of the available ring.
    fn avail(&self, index: usize) -> &AtomicU16 {
        // SAFETY: `find` saw the ring mapped, as large as it is, and aligned, for as long as the
        // snapshot lives, which the queue holds beside this; callers stay within it.
        unsafe { AtomicU16::from_ptr(self.parts.avail.wrapping_add(index)) }
    }

    /// Half-word `index` of the used ring.
    fn used(&self, index: usize) -> &AtomicU16 {
        // SAFETY: as for `avail`.
        unsafe { AtomicU16::from_ptr(self.parts.used.wrapping_add(index)) }
    }
}

/// Finds the parts of a ring, each of which has to be mapped in one piece.
fn find(state: &QueueState, memory: &Snapshot) -> Result<Parts, Error> {
    let size = u64::from(state.size);
    let part = |addr, len| memory.contiguous(addr, len).ok_or(Error::Unmapped);
    let parts = Parts {
        table: part(state.desc_table, DESCRIPTOR_BYTES * size)?.cast(),
        avail: part(state.avail_ring, 6 + 2 * size)?.cast(),
        used: part(state.used_ring, 6 + 8 * size)?.cast(),
    };
    // As the guest's addresses are, unless its memory is mapped strangely.
    let aligned = parts.table.is_aligned()
        && parts.avail.is_aligned()
        && parts.used.cast::<u32>().is_aligned();
    aligned.then_some(parts).ok_or(Error::Unmapped)
}
