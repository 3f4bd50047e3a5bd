//! Guest memory: regions of shared memory, and buffers in them.
//!
//! A region is one memfd, mapped here and, by the fd, in the daemon. [`Buffer`]s are carved from
//! regions by a first-fit allocator and go back to it when the last handle is dropped; a request
//! in flight holds a handle, so memory that a daemon may still write is never handed out again.
//!
//! The daemon changes this memory at any time: all access is by volatile copies.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::MemfdFlags;
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{ByteValued, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// The page size of the guest that is played, in bytes.
pub const PAGE_SIZE: usize = 4096;

/// What can go wrong with guest memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memfd could not be made or sized.
    #[error("cannot create a memfd of {len} bytes")]
    Memfd {
        /// Size wanted, bytes.
        len: usize,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The memfd could not be mapped.
    #[error("cannot map {len} bytes of guest memory")]
    Map {
        /// Size wanted, bytes.
        len: usize,
        /// The system's error.
        #[source]
        source: vm_memory::mmap::MmapRegionError,
    },
    /// The region overlaps another one, wraps around, or is not whole pages.
    #[error("region {guest_addr:#x}+{len:#x} overlaps another one or is not whole pages")]
    BadRegion {
        /// Guest address of the region.
        guest_addr: u64,
        /// Its size, bytes.
        len: usize,
    },
    /// No region starts at this guest address.
    #[error("no region at guest address {0:#x}")]
    NoRegion(u64),
    /// No region has room for the buffer.
    #[error("guest memory is full: no room for {len} bytes aligned to {align}")]
    Full {
        /// Size wanted, bytes.
        len: usize,
        /// Alignment wanted, bytes.
        align: usize,
    },
}

/// Place and size of one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionConfig {
    /// Guest physical address, a multiple of [`PAGE_SIZE`].
    pub guest_addr: u64,
    /// Bytes, a multiple of [`PAGE_SIZE`].
    pub len: usize,
}

/// One region of guest memory: a memfd mapped into this process.
#[derive(Debug)]
pub struct Region {
    guest_addr: u64,
    map: MmapRegion,
    free: Mutex<FreeList>,
}

impl Region {
    fn new(config: RegionConfig) -> Result<Arc<Self>, Error> {
        let RegionConfig { guest_addr, len } = config;
        let whole_pages = guest_addr % PAGE_SIZE as u64 == 0 && len % PAGE_SIZE == 0 && len > 0;
        if !whole_pages || guest_addr.checked_add(len as u64).is_none() {
            return Err(Error::BadRegion { guest_addr, len });
        }
        let memfd = || -> io::Result<File> {
            let fd = rustix::fs::memfd_create("guest-memory", MemfdFlags::CLOEXEC)?;
            rustix::fs::ftruncate(&fd, len as u64)?;
            Ok(File::from(fd))
        };
        let file = memfd().map_err(|source| Error::Memfd { len, source })?;
        let map = MmapRegion::from_file(FileOffset::new(file, 0), len)
            .map_err(|source| Error::Map { len, source })?;
        Ok(Arc::new(Region {
            guest_addr,
            map,
            free: Mutex::new(FreeList::new(len)),
        }))
    }

    /// Guest physical address of the first byte.
    pub fn guest_addr(&self) -> u64 {
        self.guest_addr
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.map.size()
    }

    /// Never: a region has at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// How vhost-user describes this region; the fd in it lives as long as the region.
    pub fn info(&self) -> VhostUserMemoryRegionInfo {
        let fd = self.map.file_offset().map_or(-1, |f| f.file().as_raw_fd());
        VhostUserMemoryRegionInfo {
            guest_phys_addr: self.guest_addr,
            memory_size: self.map.size() as u64,
            userspace_addr: self.map.as_ptr() as u64,
            mmap_offset: 0,
            mmap_handle: fd,
        }
    }

    /// Takes `len` bytes (at least one is reserved) aligned to `align`, a power of two.
    pub fn alloc(self: &Arc<Self>, len: usize, align: usize) -> Result<Buffer, Error> {
        assert!(align.is_power_of_two(), "alignment {align}");
        let reserved = len.max(1);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free
            .take(reserved, align)
            .ok_or(Error::Full { len, align })?;
        Ok(Buffer {
            allocation: Arc::new(Allocation {
                region: Arc::clone(self),
                start,
                reserved,
            }),
            start,
            len,
        })
    }
}

/// All of the guest's memory. A clone is another handle to the same regions.
#[derive(Debug, Clone, Default)]
pub struct GuestMemory {
    regions: Arc<RwLock<Vec<Arc<Region>>>>,
}

impl GuestMemory {
    /// Makes and maps the regions.
    pub fn new(regions: &[RegionConfig]) -> Result<Self, Error> {
        let memory = GuestMemory::default();
        for region in regions {
            memory.add_region(*region)?;
        }
        Ok(memory)
    }

    /// The regions, in the order they were added.
    pub fn regions(&self) -> Vec<Arc<Region>> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        regions.clone()
    }

    /// Adds a region here. A daemon learns of it by `Device::add_region`.
    pub fn add_region(&self, config: RegionConfig) -> Result<Arc<Region>, Error> {
        let region = Region::new(config)?;
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let end = |r: &Region| r.guest_addr + r.len() as u64;
        if regions
            .iter()
            .any(|r| r.guest_addr < end(&region) && region.guest_addr < end(r))
        {
            return Err(Error::BadRegion {
                guest_addr: config.guest_addr,
                len: config.len,
            });
        }
        regions.push(Arc::clone(&region));
        Ok(region)
    }

    /// Takes the region at `guest_addr` out. Buffers in it stay readable here; the daemon must
    /// be told by `Device::remove_region`.
    pub fn remove_region(&self, guest_addr: u64) -> Result<Arc<Region>, Error> {
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let at = regions
            .iter()
            .position(|r| r.guest_addr == guest_addr)
            .ok_or(Error::NoRegion(guest_addr))?;
        Ok(regions.remove(at))
    }

    /// Takes `len` bytes aligned to `align` from the first region that has room. New memory is
    /// zero, memory used before keeps its bytes.
    pub fn alloc(&self, len: usize, align: usize) -> Result<Buffer, Error> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        regions
            .iter()
            .find_map(|region| region.alloc(len, align).ok())
            .ok_or(Error::Full { len, align })
    }

    /// [`alloc`](Self::alloc) aligned to a page, as data buffers are.
    pub fn alloc_pages(&self, len: usize) -> Result<Buffer, Error> {
        self.alloc(len, PAGE_SIZE)
    }
}

#[derive(Debug)]
struct Allocation {
    region: Arc<Region>,
    start: usize,
    reserved: usize,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let mut free = self
            .region
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.give(self.start, self.reserved);
    }
}

/// A range of guest memory. A clone or slice shares the memory and keeps it allocated.
///
/// # Panics
///
/// Every access outside the range panics: it is a bug of the test, not of the daemon.
#[derive(Debug, Clone)]
pub struct Buffer {
    allocation: Arc<Allocation>,
    /// From the start of the region.
    start: usize,
    len: usize,
}

impl Buffer {
    /// Guest physical address of the first byte.
    pub fn guest_addr(&self) -> u64 {
        self.allocation.region.guest_addr + self.start as u64
    }

    /// Address in this process, as vhost-user's ring addresses want it.
    pub fn host_addr(&self) -> u64 {
        self.allocation.region.map.as_ptr() as u64 + self.start as u64
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there are other handles to the same memory.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.allocation) > 1
    }

    /// `len` bytes from `offset` of the same memory.
    pub fn slice(&self, offset: usize, len: usize) -> Buffer {
        self.check(offset, len);
        Buffer {
            allocation: Arc::clone(&self.allocation),
            start: self.start + offset,
            len,
        }
    }

    /// The memory itself, for copies that this type has no method for.
    pub fn volatile(&self, offset: usize, len: usize) -> VolatileSlice<'_> {
        self.check(offset, len);
        let map = &self.allocation.region.map;
        map.get_slice(self.start + offset, len)
            .expect("a buffer lies within its region")
    }

    /// Copies `bytes` in at `offset`.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.volatile(offset, bytes.len()).copy_from(bytes);
    }

    /// Copies `bytes.len()` bytes out from `offset`.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.volatile(offset, bytes.len()).copy_to(bytes);
    }

    /// Copies `len` bytes out from `offset`.
    pub fn to_vec(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(offset, &mut bytes);
        bytes
    }

    /// Sets every byte.
    pub fn fill(&self, byte: u8) {
        let page = [byte; PAGE_SIZE];
        for offset in (0..self.len).step_by(PAGE_SIZE) {
            self.write(offset, &page[..PAGE_SIZE.min(self.len - offset)]);
        }
    }

    /// Copies a structure in at `offset`.
    pub fn write_obj<T: ByteValued>(&self, offset: usize, object: &T) {
        self.write(offset, object.as_slice());
    }

    /// Copies a structure out from `offset`.
    pub fn read_obj<T: ByteValued + Default>(&self, offset: usize) -> T {
        let mut object = T::default();
        self.read(offset, object.as_mut_slice());
        object
    }

    /// Loads a 16-bit field that the daemon stores.
    pub fn load_u16(&self, offset: usize, order: Ordering) -> u16 {
        self.atomic_u16(offset).load(order)
    }

    /// Stores a 16-bit field that the daemon loads.
    pub fn store_u16(&self, offset: usize, value: u16, order: Ordering) {
        self.atomic_u16(offset).store(value, order);
    }

    fn atomic_u16(&self, offset: usize) -> &AtomicU16 {
        self.check(offset, 2);
        let map = &self.allocation.region.map;
        map.get_atomic_ref(self.start + offset)
            .expect("ring fields are aligned")
    }

    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(
            inside,
            "bytes {offset}+{len} of a buffer of {} bytes",
            self.len
        );
    }
}

/// Free ranges of one region by their start; neighbours are merged.
#[derive(Debug)]
struct FreeList {
    ranges: BTreeMap<usize, usize>,
}

impl FreeList {
    fn new(len: usize) -> Self {
        FreeList {
            ranges: BTreeMap::from([(0, len)]),
        }
    }

    fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        let (start, free, at) = self.ranges.iter().find_map(|(&start, &free)| {
            let at = start.next_multiple_of(align);
            (at + len <= start + free).then_some((start, free, at))
        })?;
        self.ranges.remove(&start);
        if at > start {
            self.ranges.insert(start, at - start);
        }
        let rest = start + free - (at + len);
        if rest > 0 {
            self.ranges.insert(at + len, rest);
        }
        Some(at)
    }

    fn give(&mut self, start: usize, len: usize) {
        let (mut start, mut len) = (start, len);
        if let Some((&before, &before_len)) = self.ranges.range(..start).next_back() {
            assert!(before + before_len <= start, "freed twice");
            if before + before_len == start {
                self.ranges.remove(&before);
                start = before;
                len += before_len;
            }
        }
        if let Some(after_len) = self.ranges.remove(&(start + len)) {
            len += after_len;
        }
        self.ranges.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::new(&[
            RegionConfig {
                guest_addr: 0,
                len: 16 * PAGE_SIZE,
            },
            RegionConfig {
                guest_addr: 1 << 32,
                len: 16 * PAGE_SIZE,
            },
        ])
        .unwrap()
    }

    #[test]
    fn buffers_do_not_overlap_and_come_back() {
        let memory = memory();
        for _ in 0..3 {
            let buffers: Vec<_> = (0..32)
                .map(|_| memory.alloc_pages(PAGE_SIZE).unwrap())
                .collect();
            for (i, buffer) in buffers.iter().enumerate() {
                buffer.fill(i as u8);
            }
            for (i, buffer) in buffers.iter().enumerate() {
                assert_eq!(buffer.to_vec(0, PAGE_SIZE), [i as u8; PAGE_SIZE]);
            }
            assert!(matches!(memory.alloc(1, 1), Err(Error::Full { .. })));
        }
        assert_eq!(memory.alloc(16 * PAGE_SIZE, 1).unwrap().guest_addr(), 0);
    }

    #[test]
    fn a_slice_keeps_the_memory() {
        let memory = memory();
        let slice = memory.alloc(16 * PAGE_SIZE, 1).unwrap().slice(5, 3);
        assert_eq!(memory.alloc(1, 1).unwrap().guest_addr(), 1 << 32);
        drop(slice);
        assert_eq!(memory.alloc(1, 1).unwrap().guest_addr(), 0);
    }

    #[test]
    fn overlapping_regions_are_refused() {
        let memory = memory();
        let overlapping = RegionConfig {
            guest_addr: 15 * PAGE_SIZE as u64,
            len: PAGE_SIZE,
        };
        assert!(matches!(
            memory.add_region(overlapping),
            Err(Error::BadRegion { .. })
        ));
        memory.remove_region(0).unwrap();
        memory.add_region(overlapping).unwrap();
    }

    #[test]
    #[should_panic(expected = "of a buffer of 8 bytes")]
    fn access_outside_panics() {
        memory().alloc(8, 8).unwrap().write(7, &[0; 2]);
    }
}
