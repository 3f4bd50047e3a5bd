//! The driver's side of a ring, for tests.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use virtio_queue::QueueState;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::Snapshot;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

const TABLE: u64 = 0x1000;
const AVAIL: u64 = 0x1_0000;
const USED: u64 = 0x2_0000;
/// Memory for buffers; the region ends at `SEAM`, where another follows, up to `END`.
pub(crate) const DATA: u64 = 0x10_0000;
pub(crate) const SEAM: u64 = 0x20_0000;
pub(crate) const END: u64 = 0x40_0000;

/// A descriptor: address, length, flags, next.
pub(crate) type Desc = (u64, u32, u16, u16);

pub(crate) struct Driver {
    pub(crate) memory: Arc<GuestMemoryMmap>,
    pub(crate) size: u16,
    pub(crate) avail: u16,
    seen: u16,
}

impl Driver {
    pub(crate) fn new(size: u16) -> Driver {
        // One file behind both, as a VMM passes it.
        let fd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, END).unwrap();
        let file = Arc::new(std::fs::File::from(fd));
        let ranges = [(0, SEAM), (SEAM, END - SEAM)].map(|(start, len)| {
            let file = FileOffset::from_arc(file.clone(), start);
            (GuestAddress(start), len as usize, Some(file))
        });
        Driver {
            memory: Arc::new(GuestMemoryMmap::from_ranges_with_files(ranges).unwrap()),
            size,
            avail: 0,
            seen: 0,
        }
    }

    pub(crate) fn snapshot(&self) -> Rc<Snapshot> {
        Rc::new(Snapshot::new(self.memory.clone()))
    }

    pub(crate) fn state(&self, event_idx: bool) -> QueueState {
        QueueState {
            max_size: 1024,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: event_idx,
            size: self.size,
            ready: true,
            desc_table: TABLE,
            avail_ring: AVAIL,
            used_ring: USED,
        }
    }

    pub(crate) fn put_desc(&self, table: u64, index: u16, (addr, len, flags, next): Desc) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        let at = GuestAddress(table + u64::from(index) * 16);
        self.memory.write_slice(&bytes, at).unwrap();
    }

    pub(crate) fn desc(&self, index: u16, desc: Desc) {
        self.put_desc(TABLE, index, desc);
    }

    /// Two descriptors: `head` sends `request`, `head + 1` has room for a reply of 64 bytes.
    pub(crate) fn request(&self, head: u16, request: &[u8]) {
        let at = DATA + u64::from(head) * 0x400;
        self.memory.write_slice(request, GuestAddress(at)).unwrap();
        self.desc(head, (at, request.len() as u32, NEXT, head + 1));
        self.desc(head + 1, (at + 0x200, 64, WRITE, 0));
    }

    /// The reply to [`Driver::request`].
    pub(crate) fn reply(&self, head: u16) -> [u8; 32] {
        let at = GuestAddress(DATA + u64::from(head) * 0x400 + 0x200);
        self.memory.read_obj(at).unwrap()
    }

    pub(crate) fn offer(&mut self, head: u16) {
        let at = AVAIL + 4 + u64::from(self.avail % self.size) * 2;
        self.memory.write_obj(head, GuestAddress(at)).unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_idx(self.avail);
    }

    pub(crate) fn set_avail_idx(&self, idx: u16) {
        let at = GuestAddress(AVAIL + 2);
        self.memory.store(idx, at, Ordering::Release).unwrap();
    }

    pub(crate) fn set_avail_flags(&self, flags: u16) {
        self.memory.write_obj(flags, GuestAddress(AVAIL)).unwrap();
    }

    pub(crate) fn set_used_event(&self, event: u16) {
        let at = GuestAddress(AVAIL + 4 + u64::from(self.size) * 2);
        self.memory.write_obj(event, at).unwrap();
    }

    pub(crate) fn avail_event(&self) -> u16 {
        let at = GuestAddress(USED + 4 + u64::from(self.size) * 8);
        self.memory.read_obj(at).unwrap()
    }

    pub(crate) fn used_idx(&self) -> u16 {
        let at = GuestAddress(USED + 2);
        self.memory.load(at, Ordering::Acquire).unwrap()
    }

    /// Heads and lengths that have come back since this was last asked.
    pub(crate) fn used(&mut self) -> Vec<(u32, u32)> {
        let mut back = Vec::new();
        while self.seen != self.used_idx() {
            let at = USED + 4 + u64::from(self.seen % self.size) * 8;
            let [id, len]: [u32; 2] = self.memory.read_obj(GuestAddress(at)).unwrap();
            back.push((id, len));
            self.seen = self.seen.wrapping_add(1);
        }
        back
    }

    /// Sets the ring up anew, as after a reboot.
    pub(crate) fn reset(&mut self) {
        (self.avail, self.seen) = (0, 0);
        self.set_avail_idx(0);
        let at = GuestAddress(USED + 2);
        self.memory.write_obj(0u16, at).unwrap();
    }
}
