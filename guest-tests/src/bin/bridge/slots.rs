//! Requests in flight and their memory.
//!
//! A request is read into a large slot, where it stays if it has data. Every other one is copied
//! to a small slot at once: those that wait for locks so never keep the unlocking ones out, and
//! a queue has as many small slots as descriptors.

use guest_tests::ring::fuse::abi::{InHeader, OutHeader, WriteIn};
use guest_tests::ring::memory::{Buffer, GuestMemory, PAGE_SIZE};
use guest_tests::ring::queue::Segment;

use crate::error::Error;
use crate::rooms::Room;

/// Most data of one request, in bytes: 256 pages.
pub const DATA_MAX: usize = 1 << 20;

const IN_HEADER: usize = size_of::<InHeader>();
const OUT_HEADER: usize = size_of::<OutHeader>();
/// What stands before the data of a WRITE, which so begins at a page.
const WRITE_HEAD: usize = IN_HEADER + size_of::<WriteIn>();
/// Request or reply of a large slot: its data is at the second page.
const LARGE_HALF: usize = PAGE_SIZE + DATA_MAX;
/// Request or reply of a small slot.
const SMALL_HALF: usize = PAGE_SIZE / 2;

/// Bytes of guest memory that the slots of a queue take.
pub fn memory_len(large: usize, small: usize) -> usize {
    large * 2 * LARGE_HALF + small * PAGE_SIZE
}

/// One request and its reply.
#[derive(Debug)]
pub struct Slot {
    pub memory: Buffer,
    /// Where the request begins.
    pub request_start: usize,
    /// Bytes that may be read to there.
    request_max: usize,
    /// Where the reply begins.
    pub reply_start: usize,
    /// Of the request in it.
    pub opcode: u32,
    /// Of the request in it.
    pub unique: u64,
}

impl Slot {
    fn large(memory: &GuestMemory) -> Result<Slot, Error> {
        Ok(Slot {
            memory: memory.alloc_pages(2 * LARGE_HALF)?,
            request_start: PAGE_SIZE - WRITE_HEAD,
            request_max: WRITE_HEAD + DATA_MAX,
            reply_start: LARGE_HALF + PAGE_SIZE - OUT_HEADER,
            opcode: 0,
            unique: 0,
        })
    }

    fn small(memory: &GuestMemory) -> Result<Slot, Error> {
        Ok(Slot {
            memory: memory.alloc_pages(PAGE_SIZE)?,
            request_start: 0,
            request_max: SMALL_HALF,
            reply_start: SMALL_HALF,
            opcode: 0,
            unique: 0,
        })
    }

    /// Where a request may be read to.
    pub fn request_range(&self) -> (usize, usize) {
        (self.request_start, self.request_max)
    }

    /// The descriptors of a request of `len` bytes, as the virtiofs driver makes them: header,
    /// arguments, and one for each page of data.
    pub fn readable(&self, len: usize, has_pages: bool, segments: &mut Vec<Segment>) {
        let args_end = if has_pages { WRITE_HEAD.min(len) } else { len };
        segments.clear();
        self.push(segments, self.request_start, IN_HEADER);
        self.push(
            segments,
            self.request_start + IN_HEADER,
            args_end - IN_HEADER,
        );
        self.push_pages(segments, self.request_start + args_end, len - args_end);
    }

    /// The descriptors of the reply.
    pub fn writable(&self, room: Room, segments: &mut Vec<Segment>) {
        segments.clear();
        self.push(segments, self.reply_start, OUT_HEADER);
        let body = self.reply_start + OUT_HEADER;
        match room {
            Room::Args(len) => self.push(segments, body, len),
            Room::Pages(len) => self.push_pages(segments, body, len),
        }
    }

    fn push_pages(&self, segments: &mut Vec<Segment>, start: usize, len: usize) {
        for at in (0..len).step_by(PAGE_SIZE) {
            self.push(segments, start + at, PAGE_SIZE.min(len - at));
        }
    }

    fn push(&self, segments: &mut Vec<Segment>, start: usize, len: usize) {
        if len > 0 {
            segments.push(Segment {
                addr: self.memory.guest_addr() + start as u64,
                len: len as u32,
            });
        }
    }
}

/// The slots of a queue. A number names one.
#[derive(Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    large: usize,
    /// The one used last is the next: it is in the processor's cache.
    large_free: Vec<usize>,
    small_free: Vec<usize>,
}

impl Slots {
    pub fn new(memory: &GuestMemory, large: usize, small: usize) -> Result<Slots, Error> {
        let mut slots = Vec::with_capacity(large + small);
        for _ in 0..large {
            slots.push(Slot::large(memory)?);
        }
        for _ in 0..small {
            slots.push(Slot::small(memory)?);
        }
        Ok(Slots {
            slots,
            large,
            large_free: (0..large).rev().collect(),
            small_free: (large..large + small).rev().collect(),
        })
    }

    pub fn get(&mut self, index: usize) -> &mut Slot {
        &mut self.slots[index]
    }

    /// The slot that the next request is read to, if there is room for one of any kind.
    pub fn next(&self) -> Option<usize> {
        match self.small_free.is_empty() {
            false => self.large_free.last().copied(),
            true => None,
        }
    }

    /// Keeps the request that was read to the [`next`](Self::next) slot: there, or in a small one.
    pub fn keep(&mut self, next: usize, len: usize, room: Room) -> usize {
        let fits = len <= SMALL_HALF && OUT_HEADER + room.len() <= SMALL_HALF;
        match (fits, self.small_free.pop()) {
            (true, Some(small)) => {
                self.copy(next, small, len);
                small
            }
            (_, unused) => {
                self.small_free.extend(unused);
                let taken = self.large_free.pop();
                debug_assert_eq!(taken, Some(next));
                next
            }
        }
    }

    /// The request has ended.
    pub fn release(&mut self, index: usize) {
        match index < self.large {
            true => self.large_free.push(index),
            false => self.small_free.push(index),
        }
    }

    fn copy(&self, from: usize, to: usize, len: usize) {
        let (from, to) = (&self.slots[from], &self.slots[to]);
        let target = to.memory.volatile(to.request_start, len);
        from.memory
            .volatile(from.request_start, len)
            .copy_to_volatile_slice(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_tests::ring::memory::RegionConfig;

    fn slots(large: usize, small: usize) -> Slots {
        let len = memory_len(large, small);
        let memory = GuestMemory::new(&[RegionConfig { guest_addr: 0, len }]);
        Slots::new(&memory.unwrap(), large, small).unwrap()
    }

    #[test]
    fn a_write_has_its_data_in_whole_pages() {
        let mut slots = slots(1, 1);
        let slot = slots.get(0);
        let mut segments = Vec::new();
        slot.readable(WRITE_HEAD + DATA_MAX, true, &mut segments);
        let lens: Vec<_> = segments.iter().map(|segment| segment.len).collect();
        assert_eq!(lens[..2], [40, 40]);
        assert_eq!(lens[2..], [4096; 256]);
        assert!(segments[2..].iter().all(|segment| segment.addr % 4096 == 0));
        slot.writable(Room::Pages(DATA_MAX - 1), &mut segments);
        assert_eq!(segments.len(), 257);
        assert_eq!((segments[0].len, segments[256].len), (16, 4095));
        assert_eq!(segments[1].addr % 4096, 0);
    }

    #[test]
    fn short_requests_leave_large_slots_free() {
        let mut slots = slots(1, 2);
        let name = b"the request";
        let large = slots.next().unwrap();
        let start = slots.get(large).request_start;
        slots.get(large).memory.write(start, name);
        let small = slots.keep(large, name.len(), Room::Args(0));
        assert_ne!(large, small);
        assert_eq!(slots.get(small).memory.to_vec(0, name.len()), name);
        assert_eq!(slots.next(), Some(large));
        assert_eq!(slots.keep(large, 100, Room::Pages(4096)), large);
        assert_eq!(slots.next(), None, "no large slot is free");
        slots.release(large);
        assert_ne!(slots.keep(large, 100, Room::Args(0)), large);
        assert_eq!(slots.next(), None, "no small slot is free");
        slots.release(small);
        assert_eq!(slots.next(), Some(large));
    }
}
