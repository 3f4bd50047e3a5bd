//! The in-flight log's records, as they lie in memory.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::Arc;

use pfs_core::fs::Intent;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Bytes of the file's header, and of each queue's.
pub(super) const HEADER_BYTES: u64 = 64;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(super) enum State {
    Free = 0,
    /// Taken from the ring; its execution may have begun.
    Popped = 1,
    /// Its reply is in guest memory.
    Executed = 2,
}

/// Starts the file.
#[repr(C)]
pub(super) struct FileHeader {
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU32,
    pub(super) queues: AtomicU32,
    /// Records of each queue.
    pub(super) slots: AtomicU32,
}

/// Starts a queue's part.
#[repr(C)]
pub(super) struct QueueHeader {
    /// 1 from the start of the queue to its orderly stop.
    pub(super) active: AtomicU32,
    /// The ring's used index as of the last request published.
    pub(super) used_idx: AtomicU32,
    pub(super) last_batch_head: AtomicU32,
}

/// One descriptor head's record: a cache line.
#[repr(C, align(64))]
pub(super) struct Record {
    state: AtomicU32,
    /// Bytes of the reply, once executed.
    pub(super) len: AtomicU32,
    /// Order in which requests were popped.
    pub(super) counter: AtomicU64,
    /// The request's number and opcode in FUSE's header, 0 until read.
    pub(super) unique: AtomicU64,
    pub(super) opcode: AtomicU32,
    /// How often it was executed again.
    pub(super) replays: AtomicU32,
    pub(super) intent: [AtomicU64; 2],
    /// Milliseconds of CLOCK_MONOTONIC when it was popped.
    pub(super) started_ms: AtomicU64,
}

const _: () = assert!(size_of::<FileHeader>() as u64 <= HEADER_BYTES);
const _: () = assert!(size_of::<QueueHeader>() as u64 <= HEADER_BYTES);
const _: () = assert!(size_of::<Record>() == 64);

impl Record {
    pub(super) fn state(&self) -> State {
        match self.state.load(Acquire) {
            1 => State::Popped,
            2 => State::Executed,
            _ => State::Free,
        }
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u32, Release);
    }

    pub(super) fn intent(&self) -> Option<Intent> {
        let kind = self.intent[0].load(Acquire);
        Intent::from_words([kind, self.intent[1].load(Relaxed)])
    }

    pub(super) fn set_intent(&self, intent: Intent) {
        let [kind, value] = intent.to_words();
        // A death in between leaves no intent, never half of one.
        self.intent[0].store(0, Release);
        self.intent[1].store(value, Release);
        self.intent[0].store(kind, Release);
    }
}

/// Mapped memory of the log.
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is only accessed through atomics, and unmapped by the last owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes of a file that has them.
    pub(super) fn shared(fd: BorrowedFd<'_>, bytes: u64) -> Result<Mapping, Errno> {
        let len = usize::try_from(bytes).map_err(|_| Errno::NOMEM)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, fd, 0)? };
        Mapping::at(start, len)
    }

    /// Maps `bytes` bytes of zeroed memory.
    pub(super) fn private(bytes: u64) -> Result<Mapping, Errno> {
        let len = usize::try_from(bytes).map_err(|_| Errno::NOMEM)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::PRIVATE)?
        };
        Mapping::at(start, len)
    }

    fn at(start: *mut std::ffi::c_void, len: usize) -> Result<Mapping, Errno> {
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Mapping { start, len })
    }

    pub(super) fn file_header(&self) -> &FileHeader {
        assert!(self.len >= size_of::<FileHeader>());
        // SAFETY: page-aligned, mapped and large enough; atomics are valid in any state.
        unsafe { self.start.cast().as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this owner's, and every reference into it borrows from it.
        // munmap only fails for a range that is none.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A request in flight, as others may look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    pub head: u16,
    /// The guest's number of the request, 0 if not yet read.
    pub unique: u64,
    /// FUSE opcode, 0 if not yet read.
    pub opcode: u32,
    pub age_ms: u64,
    pub replays: u32,
}

/// The records of one queue.
#[derive(Clone)]
pub struct Records {
    mapping: Arc<Mapping>,
    offset: usize,
    count: u16,
}

impl Records {
    pub(super) fn new(mapping: Arc<Mapping>, offset: u64, count: u16) -> Records {
        let needed = HEADER_BYTES + u64::from(count) * size_of::<Record>() as u64;
        assert!(offset % 64 == 0 && offset + needed <= mapping.len as u64);
        Records {
            mapping,
            offset: offset as usize,
            count,
        }
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> u16 {
        self.count
    }

    pub(super) fn header(&self) -> &QueueHeader {
        // SAFETY: `new` checked that it lies within the mapping, aligned to 64 bytes, and this
        // owns a share of the mapping; atomics are valid in any state.
        unsafe { self.mapping.start.add(self.offset).cast().as_ref() }
    }

    pub(super) fn get(&self, head: u16) -> Option<&Record> {
        if head >= self.count {
            return None;
        }
        let at = self.offset + HEADER_BYTES as usize + usize::from(head) * size_of::<Record>();
        // SAFETY: as for `header`: `new` checked room for `count` records.
        Some(unsafe { self.mapping.start.add(at).cast().as_ref() })
    }

    pub(super) fn set_state(&self, head: u16, state: State) {
        if let Some(record) = self.get(head) {
            if record.state() != state {
                record.set_state(state);
            }
        }
    }

    /// The requests in flight at the moment. A glance: they go on meanwhile.
    pub fn in_flight(&self, now_ms: u64) -> Vec<InFlight> {
        if self.header().active.load(Acquire) == 0 {
            return Vec::new();
        }
        (0..self.count)
            .filter_map(|head| {
                let record = self.get(head)?;
                (record.state() != State::Free).then(|| InFlight {
                    head,
                    unique: record.unique.load(Relaxed),
                    opcode: record.opcode.load(Relaxed),
                    age_ms: now_ms.saturating_sub(record.started_ms.load(Relaxed)),
                    replays: record.replays.load(Relaxed),
                })
            })
            .collect()
    }
}

/// Milliseconds of the clock of [`InFlight::age_ms`]; a few too old, but cheap.
pub fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
