//! One state of the guest's memory, and where its bytes are in this process.

use std::sync::Arc;

use libc::iovec;
use vm_memory::{Address, GuestMemory, GuestMemoryMmap, GuestMemoryRegion};

/// A region of guest memory, mapped in one piece.
#[derive(Clone, Copy, Debug)]
struct Region {
    /// First guest physical address.
    start: u64,
    len: u64,
    host: *mut u8,
}

/// Guest memory as the VMM last described it.
///
/// Every request holds the snapshot with which its addresses were translated, so the mapping
/// stays until the request is answered, whatever the VMM does to its memory table meanwhile.
pub struct Snapshot {
    memory: Arc<GuestMemoryMmap>,
    /// Sorted by `start`, without overlaps.
    regions: Vec<Region>,
}

impl Snapshot {
    /// The state of `memory`.
    pub fn new(memory: Arc<GuestMemoryMmap>) -> Snapshot {
        let mut regions: Vec<Region> = memory
            .iter()
            .map(|region| Region {
                start: region.start_addr().raw_value(),
                len: region.len(),
                host: region.as_ptr(),
            })
            .collect();
        regions.sort_by_key(|region| region.start);
        Snapshot { memory, regions }
    }

    /// The memory itself.
    pub fn guest(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Where `[addr, addr + len)` is, if it is mapped in one piece.
    pub fn contiguous(&self, addr: u64, len: u64) -> Option<*mut u8> {
        let (host, here) = self.piece(addr)?;
        (len <= here).then_some(host)
    }

    /// Adds where `[addr, addr + len)` is to `list`, in as few iovecs as it takes; answers false
    /// where a byte of it is not mapped.
    #[inline]
    pub fn translate(&self, addr: u64, len: u32, list: &mut Vec<iovec>) -> bool {
        match self.contiguous(addr, len.into()) {
            Some(host) => {
                push(list, host, len as usize);
                true
            }
            None => self.translate_pieces(addr, len, list),
        }
    }

    /// As [`translate`](Self::translate), for what may be in several pieces.
    #[cold]
    fn translate_pieces(&self, addr: u64, len: u32, list: &mut Vec<iovec>) -> bool {
        let (mut at, mut left) = (addr, u64::from(len));
        while left > 0 {
            let Some((host, here)) = self.piece(at) else {
                return false;
            };
            let step = here.min(left);
            push(list, host, step as usize);
            left -= step;
            // At the very end of the address space nothing is left, or nothing is mapped.
            at = match at.checked_add(step) {
                Some(next) => next,
                None => return left == 0,
            };
        }
        true
    }

    /// Copies `[addr, addr + into.len())`, piece by piece; answers false where a byte of it is
    /// not mapped.
    pub fn copy(&self, addr: u64, into: &mut [u8]) -> bool {
        let mut done = 0;
        while done < into.len() {
            let piece = addr
                .checked_add(done as u64)
                .and_then(|addr| self.piece(addr));
            let Some((host, here)) = piece else {
                return false;
            };
            let step = (into.len() - done).min(here.min(usize::MAX as u64) as usize);
            for (index, byte) in into[done..done + step].iter_mut().enumerate() {
                // SAFETY: `piece` answered `here >= step` bytes mapped at `host` for as long as
                // this snapshot lives. The guest may write them: each is read once, volatile.
                *byte = unsafe { host.add(index).read_volatile() };
            }
            done += step;
        }
        true
    }

    /// The host address of `addr`, and how many bytes are mapped in one piece from there; never 0.
    #[inline]
    fn piece(&self, addr: u64) -> Option<(*mut u8, u64)> {
        let after = self.regions.partition_point(|region| region.start <= addr);
        let region = self.regions[..after].last()?;
        let offset = addr - region.start;
        if offset >= region.len {
            return None;
        }
        let host = region.host.wrapping_add(offset as usize);
        Some((host, region.len - offset))
    }
}

/// Adds memory to a list, joining it to the last entry where that is its neighbour.
#[inline]
fn push(list: &mut Vec<iovec>, host: *mut u8, len: usize) {
    if let Some(last) = list.last_mut() {
        if last.iov_base.cast::<u8>().wrapping_add(last.iov_len) == host {
            last.iov_len += len;
            return;
        }
    }
    list.push(iovec {
        iov_base: host.cast(),
        iov_len: len,
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    /// Two regions side by side, and one apart.
    fn snapshot() -> Snapshot {
        let ranges = [(0x1000, 0x2000), (0x3000, 0x1000), (0x8000, 0x1000)];
        let ranges = ranges.map(|(start, len)| (GuestAddress(start), len));
        Snapshot::new(Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap()))
    }

    #[test]
    fn what_is_not_mapped_is_refused() {
        let snapshot = snapshot();
        let mut list = Vec::new();
        for (addr, len) in [
            (0, 1),
            (0xfff, 2),
            (0x3fff, 2),
            (0x7fff, 1),
            (0x8fff, 2),
            (u64::MAX, 1),
            (u64::MAX - 5, u32::MAX),
            (0x1000, u32::MAX),
        ] {
            assert!(!snapshot.translate(addr, len, &mut list), "{addr:#x}+{len}");
        }
        assert!(snapshot.contiguous(0x2fff, 2).is_none());
        assert!(snapshot.contiguous(0x2fff, 1).is_some());
        assert!(!snapshot.copy(u64::MAX - 3, &mut [0; 16]));
    }

    proptest! {
        #[test]
        fn a_translation_is_the_very_bytes(addr in 0x1000u64..0x4000, len in 1u32..0x3000) {
            let snapshot = snapshot();
            let mut list = Vec::new();
            let mapped = addr + u64::from(len) <= 0x4000;
            prop_assert_eq!(snapshot.translate(addr, len, &mut list), mapped);
            if mapped {
                let sum: usize = list.iter().map(|iov| iov.iov_len).sum();
                prop_assert_eq!(sum, len as usize);
                snapshot.guest().write_obj(0xa5u8, GuestAddress(addr + u64::from(len) - 1)).unwrap();
                let last = list.last().unwrap();
                let end = last.iov_base.cast::<u8>().wrapping_add(last.iov_len - 1);
                // SAFETY: the last byte of a translation is mapped.
                prop_assert_eq!(unsafe { end.read_volatile() }, 0xa5);
                let mut copy = vec![0; len as usize];
                prop_assert!(snapshot.copy(addr, &mut copy));
                prop_assert_eq!(copy.last(), Some(&0xa5));
            }
        }
    }
}
