//! What each queue has in flight, in records that outlive the process where they must.
//!
//! One record of fixed size for each descriptor head: what became of its request, so that a
//! worker that takes up a ring after another's death publishes what was executed, executes the
//! rest again, and does nothing twice. The protocol is that of the vhost-user specification's
//! inflight I/O tracking for split rings, with more fields. For each request, in this order:
//!
//! 1. popped: the record is filled, then `state` = popped;
//! 2. its reply is written to guest memory: `len`, then `state` = executed;
//! 3. `last_batch_head`; the used ring; `state` = free; `used_idx`.
//!
//! After a death, an executed request is only published; a popped one is executed again, oldest
//! first. If the ring's used index is one ahead of `used_idx`, then `last_batch_head` was
//! published already. Available entries are taken in order, so the next is the one at (used
//! index + number in flight).
//!
//! Records are in private memory, for ages and duplicates only, unless a memfd is given.
//!
//! - [`records`]: how they lie in memory.
//! - [`crash`]: where tests let a worker die.

pub mod crash;
mod records;

use std::borrow::Borrow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::Arc;

use pfs_core::fs::{Intent, IntentLog};
use rustix::fs::{MemfdFlags, SealFlags};

pub use records::{now_ms, InFlight, Records};
use records::{FileHeader, Mapping, Record, State, HEADER_BYTES};

/// A request that was begun so often without an end kills its worker: it is answered `EIO`.
pub const REPLAYS_MAX: u32 = 3;

const MAGIC: u64 = u64::from_le_bytes(*b"PFSINFLT");
const VERSION: u32 = 1;

/// The log cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make the in-flight log: {0}; is memory or an fd limit exhausted?")]
    Make(#[source] rustix::io::Errno),
    #[error("cannot map the in-flight log: {0}")]
    Map(#[source] rustix::io::Errno),
    #[error(
        "the in-flight log passed is not one, or of version {version} where {VERSION} is needed; \
         start with a new one, after the VM is shut down"
    )]
    Foreign { version: u32 },
    #[error("the in-flight log holds {bytes} bytes, and {needed} are needed")]
    Truncated { bytes: u64, needed: u64 },
    #[error(
        "queue {queue} of size {size} does not fit an in-flight log for {queues} queues of up to \
         {slots}; start with a larger one"
    )]
    TooSmall {
        queue: u16,
        size: u16,
        queues: u32,
        slots: u32,
    },
}

/// A log shared with another process, or kept for the next one.
pub struct InflightLog {
    mapping: Arc<Mapping>,
    queues: u32,
    slots: u32,
}

impl InflightLog {
    /// Makes a memfd with an empty log for `queues` queues of up to `slots` descriptors. Memory
    /// is only used for records that are.
    pub fn create(queues: u32, slots: u32) -> Result<OwnedFd, Error> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("pfs-inflight", flags).map_err(Error::Make)?;
        InflightLog::prepare(&fd, queues, slots)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&fd, seals).map_err(Error::Make)?;
        Ok(fd)
    }

    /// Makes an empty file that was passed a log, as [`InflightLog::create`] does; leaves one
    /// with anything in it as it is.
    pub fn prepare(fd: &OwnedFd, queues: u32, slots: u32) -> Result<(), Error> {
        if rustix::fs::fstat(fd).map_err(Error::Make)?.st_size != 0 {
            return Ok(());
        }
        let bytes = file_bytes(queues, slots);
        rustix::fs::ftruncate(fd, bytes).map_err(Error::Make)?;
        let mapping = Mapping::shared(fd.as_fd(), bytes).map_err(Error::Map)?;
        let header = mapping.file_header();
        header.queues.store(queues, Relaxed);
        header.slots.store(slots, Relaxed);
        header.version.store(VERSION, Relaxed);
        header.magic.store(MAGIC, Release);
        Ok(())
    }

    /// Opens a log that was passed.
    pub fn open(fd: &OwnedFd) -> Result<InflightLog, Error> {
        let bytes = rustix::fs::fstat(fd).map_err(Error::Map)?.st_size as u64;
        let truncated = |needed| Err(Error::Truncated { bytes, needed });
        if bytes < HEADER_BYTES {
            return truncated(HEADER_BYTES);
        }
        let mapping = Mapping::shared(fd.as_fd(), bytes).map_err(Error::Map)?;
        let header: &FileHeader = mapping.file_header();
        let version = header.version.load(Relaxed);
        if header.magic.load(Acquire) != MAGIC || version != VERSION {
            return Err(Error::Foreign { version });
        }
        let (queues, slots) = (header.queues.load(Relaxed), header.slots.load(Relaxed));
        let needed = file_bytes(queues, slots);
        if bytes < needed {
            return truncated(needed);
        }
        Ok(InflightLog {
            mapping: Arc::new(mapping),
            queues,
            slots,
        })
    }

    /// The log of queue `queue`, which has `size` descriptors.
    pub fn queue(&self, queue: u16, size: u16) -> Result<QueueLog, Error> {
        if u32::from(queue) >= self.queues || u32::from(size) > self.slots {
            return Err(Error::TooSmall {
                queue,
                size,
                queues: self.queues,
                slots: self.slots,
            });
        }
        let offset = HEADER_BYTES + u64::from(queue) * queue_bytes(self.slots);
        Ok(QueueLog {
            records: Records::new(self.mapping.clone(), offset, size),
            shared: true,
            counter: 0,
        })
    }
}

/// Bytes of one queue's part.
fn queue_bytes(slots: u32) -> u64 {
    HEADER_BYTES + u64::from(slots) * size_of::<Record>() as u64
}

/// Bytes of the whole log.
fn file_bytes(queues: u32, slots: u32) -> u64 {
    HEADER_BYTES + u64::from(queues) * queue_bytes(slots)
}

/// What a dead worker left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Executed and to be published: head and reply length in bytes, oldest first.
    pub executed: Vec<(u16, u32)>,
    /// To be executed again, oldest first.
    pub popped: Vec<u16>,
}

/// The log of one queue. One worker writes it.
pub struct QueueLog {
    records: Records,
    shared: bool,
    /// Of the request popped last.
    counter: u64,
}

impl QueueLog {
    /// A log that ends with this process, for a queue of `size` descriptors.
    pub fn private(size: u16) -> Result<QueueLog, Error> {
        let bytes = queue_bytes(u32::from(size));
        let mapping = Arc::new(Mapping::private(bytes).map_err(Error::Map)?);
        Ok(QueueLog {
            records: Records::new(mapping, 0, size),
            shared: false,
            counter: 0,
        })
    }

    /// A log of this process that goes on with its records.
    pub fn again(records: Records) -> QueueLog {
        QueueLog {
            records,
            shared: false,
            counter: 0,
        }
    }

    /// The records, for others to look at.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Whether another process could take up the log.
    pub fn shared(&self) -> bool {
        self.shared
    }

    /// Takes up the log of a ring whose used index is `used_idx`, and on which the driver has
    /// `offered` requests that are not in the used ring. Answers what a dead worker left; `None`
    /// where the queue starts anew.
    pub fn start(&mut self, used_idx: u16, offered: u16) -> Option<Recovery> {
        let recovery = self.recover(used_idx, offered);
        if recovery.is_none() {
            for head in 0..self.records.len() {
                self.records.set_state(head, State::Free);
            }
        }
        let header = self.records.header();
        header.used_idx.store(u32::from(used_idx), Release);
        header.active.store(1, Release);
        recovery
    }

    /// What a dead worker left on this very ring.
    fn recover(&mut self, used_idx: u16, offered: u16) -> Option<Recovery> {
        let header = self.records.header();
        if header.active.load(Acquire) == 0 {
            return None;
        }
        let published = used_idx.wrapping_sub(header.used_idx.load(Acquire) as u16);
        if published == 1 {
            let head = header.last_batch_head.load(Relaxed) as u16;
            self.records.set_state(head, State::Free);
        }
        let recovery = self.left();
        let in_flight = recovery.executed.len() + recovery.popped.len();
        // Else the guest has set the ring up anew since.
        (published <= 1 && in_flight <= usize::from(offered)).then_some(recovery)
    }

    /// Says that the queue has been stopped in order: nothing is to be recovered.
    pub fn stop(&mut self) {
        self.records.header().active.store(0, Release);
    }

    fn left(&mut self) -> Recovery {
        let mut busy: Vec<(u64, u16, State)> = (0..self.records.len())
            .filter_map(|head| {
                let record = self.records.get(head)?;
                let state = record.state();
                (state != State::Free).then(|| (record.counter.load(Relaxed), head, state))
            })
            .collect();
        busy.sort_unstable();
        self.counter = busy.last().map_or(0, |last| last.0);
        let mut recovery = Recovery::default();
        for (_, head, state) in busy {
            match (state, self.records.get(head)) {
                (State::Executed, Some(record)) => {
                    recovery.executed.push((head, record.len.load(Relaxed)));
                }
                _ => recovery.popped.push(head),
            }
        }
        recovery
    }

    /// Whether `head` is in flight.
    pub fn in_flight(&self, head: u16) -> bool {
        self.records
            .get(head)
            .is_some_and(|record| record.state() != State::Free)
    }

    /// `head` has been popped.
    pub fn popped(&mut self, head: u16, now_ms: u64) {
        self.counter += 1;
        let record = self.record(head);
        debug_assert_eq!(record.state(), State::Free);
        record.counter.store(self.counter, Relaxed);
        record.unique.store(0, Relaxed);
        record.opcode.store(0, Relaxed);
        record.replays.store(0, Relaxed);
        record.intent[0].store(0, Relaxed);
        record.started_ms.store(now_ms, Relaxed);
        record.set_state(State::Popped);
    }

    /// What the request of `head` is.
    pub fn identify(&self, head: u16, unique: u64, opcode: u32) {
        let record = self.record(head);
        record.unique.store(unique, Relaxed);
        record.opcode.store(opcode, Relaxed);
    }

    /// `head` is executed once more; answers how often that has been so.
    pub fn replayed(&self, head: u16) -> u32 {
        self.record(head).replays.fetch_add(1, Release) + 1
    }

    /// Leaves what is in flight to the next process: none of it is to blame for this one's end.
    pub fn hand_over(&mut self) {
        let records = (0..self.records.len()).filter_map(|head| self.records.get(head));
        for record in records.filter(|record| record.state() != State::Free) {
            record.replays.store(0, Release);
        }
    }

    /// The reply of `head`, of `len` bytes, is in guest memory.
    pub fn executed(&self, head: u16, len: u32) {
        let record = self.record(head);
        record.len.store(len, Relaxed);
        record.set_state(State::Executed);
    }

    /// `head` is about to be added to the used ring.
    pub fn publishing(&self, head: u16) {
        let header = self.records.header();
        header.last_batch_head.store(u32::from(head), Release);
    }

    /// `head` is in the used ring, whose index is now `used_idx`.
    pub fn published(&self, head: u16, used_idx: u16) {
        self.record(head).set_state(State::Free);
        let header = self.records.header();
        header.used_idx.store(u32::from(used_idx), Release);
    }

    /// Where the request of `head` keeps its intent.
    pub fn intent(&self, head: u16) -> SlotIntent<&Records> {
        SlotIntent {
            records: &self.records,
            head,
        }
    }

    fn record(&self, head: u16) -> &Record {
        record_of(&self.records, head)
    }
}

fn record_of(records: &Records, head: u16) -> &Record {
    records
        .get(head)
        .expect("a head is checked against the queue size when it is popped")
}

/// The place for one request's [`Intent`]. `R` is the queue's records, or a reference to them.
pub struct SlotIntent<R> {
    records: R,
    head: u16,
}

impl<R: Borrow<Records>> IntentLog for SlotIntent<R> {
    fn replayed(&self) -> Option<Intent> {
        record_of(self.records.borrow(), self.head).intent()
    }

    fn record(&self, intent: Intent) {
        record_of(self.records.borrow(), self.head).set_intent(intent);
    }

    fn keep(&self) -> Box<dyn IntentLog + Send> {
        let (records, head) = (self.records.borrow().clone(), self.head);
        Box::new(SlotIntent { records, head })
    }
}

#[cfg(test)]
mod tests;
