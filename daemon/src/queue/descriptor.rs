//! From a head index to a [`Chain`]: the guest's descriptors, checked (virtio 1.2, 2.7.5).

use super::memory::Snapshot;
use crate::chain::Chain;

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_BYTES: u64 = 16;
/// Longest chain taken where the queue is smaller, in descriptors: indirect tables of real
/// drivers may be larger than their queue.
const CHAIN_MAX: u32 = 1024;

const F_NEXT: u16 = 1;
const F_WRITE: u16 = 2;
const F_INDIRECT: u16 = 4;

/// What is wrong with a chain. It is the driver's fault, or an attack; only that chain suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    #[error("a descriptor names memory that the guest does not have")]
    Unmapped,
    #[error("a descriptor of length 0")]
    Empty,
    #[error("a link to a descriptor outside of its table")]
    Link,
    #[error("more descriptors than there can be: a loop")]
    Endless,
    #[error("more than 4 GiB of buffers")]
    TooLarge,
    #[error("a device-readable buffer after a device-writable one")]
    Order,
    #[error("an indirect descriptor where there may be none")]
    Indirect,
    #[error("an indirect table of odd size")]
    IndirectSize,
}

/// A private copy of one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    /// Whether it only says where others are.
    pub(super) fn is_indirect(&self) -> bool {
        self.flags & F_INDIRECT != 0
    }
}

/// A table of descriptors: the queue's own, or an indirect one.
#[derive(Clone, Copy)]
pub(super) struct Table {
    addr: u64,
    /// Where it is, if it is aligned and in one piece.
    host: Option<*const u64>,
    count: u32,
}

impl Table {
    /// The table of `count` descriptors at guest address `addr`.
    ///
    /// # Safety
    ///
    /// All of it is mapped at `host`, which is aligned, as long as the snapshot is there with which
    /// the table is used.
    pub(super) unsafe fn at(addr: u64, host: *const u64, count: u16) -> Table {
        let (host, count) = (Some(host), u32::from(count));
        Table { addr, host, count }
    }

    fn new(memory: &Snapshot, addr: u64, count: u32) -> Table {
        let host = memory
            .contiguous(addr, u64::from(count) * DESCRIPTOR_BYTES)
            .map(|host| host.cast_const().cast::<u64>())
            .filter(|host| host.is_aligned());
        Table { addr, host, count }
    }

    /// Where descriptor `index` is, if the table has it.
    pub(super) fn host_of(&self, index: u16) -> Option<*const u64> {
        let index = u32::from(index);
        let host = self.host.filter(|_| index < self.count)?;
        Some(host.wrapping_add(index as usize * 2))
    }

    /// Copies descriptor `index`, if the table has it.
    pub(super) fn checked(&self, memory: &Snapshot, index: u16) -> Option<Descriptor> {
        let index = u32::from(index);
        (index < self.count).then(|| self.get(memory, index).ok())?
    }

    /// Copies descriptor `index`, which is in the table.
    fn get(&self, memory: &Snapshot, index: u32) -> Result<Descriptor, ChainError> {
        debug_assert!(index < self.count);
        let words = match self.host {
            Some(host) => {
                let at = host.wrapping_add(index as usize * 2);
                // SAFETY: `new` found the whole table mapped and aligned; the caller's snapshot
                // keeps it so. The guest may write it: each word is read once, volatile.
                unsafe { [at.read_volatile(), at.add(1).read_volatile()] }
            }
            None => {
                let mut bytes = [0; DESCRIPTOR_BYTES as usize];
                let offset = u64::from(index) * DESCRIPTOR_BYTES;
                let addr = self.addr.checked_add(offset).ok_or(ChainError::Unmapped)?;
                if !memory.copy(addr, &mut bytes) {
                    return Err(ChainError::Unmapped);
                }
                let word = |at: usize| {
                    let mut word = [0; 8];
                    word.copy_from_slice(&bytes[at..at + 8]);
                    u64::from_ne_bytes(word)
                };
                [word(0), word(8)]
            }
        };
        let rest = u64::from_le(words[1]);
        Ok(Descriptor {
            addr: u64::from_le(words[0]),
            len: rest as u32,
            flags: (rest >> 32) as u16,
            next: (rest >> 48) as u16,
        })
    }
}

/// Fills `chain` from the descriptors that start at `head` of `table`. On an error, what `chain`
/// holds is of no use.
pub(super) fn walk(
    memory: &Snapshot,
    mut table: Table,
    head: u16,
    indirect_allowed: bool,
    chain: &mut Chain,
) -> Result<(), ChainError> {
    chain.clear();
    let mut index = u32::from(head);
    let mut left = table.count.max(CHAIN_MAX);
    let mut bytes = 0u64;
    let mut in_indirect = false;
    loop {
        if index >= table.count {
            return Err(ChainError::Link);
        }
        let descriptor = table.get(memory, index)?;
        if descriptor.is_indirect() {
            let nested = in_indirect || descriptor.flags & F_NEXT != 0;
            if nested || !indirect_allowed {
                return Err(ChainError::Indirect);
            }
            table = indirect_table(memory, &descriptor)?;
            index = 0;
            in_indirect = true;
            continue;
        }
        left = left.checked_sub(1).ok_or(ChainError::Endless)?;
        bytes += u64::from(descriptor.len);
        if bytes > u64::from(u32::MAX) {
            return Err(ChainError::TooLarge);
        }
        take(memory, &descriptor, chain)?;
        if descriptor.flags & F_NEXT == 0 {
            return Ok(());
        }
        index = u32::from(descriptor.next);
    }
}

/// Adds one buffer to the chain.
fn take(memory: &Snapshot, descriptor: &Descriptor, chain: &mut Chain) -> Result<(), ChainError> {
    if descriptor.len == 0 {
        return Err(ChainError::Empty);
    }
    let list = if descriptor.flags & F_WRITE != 0 {
        &mut chain.writable
    } else if chain.writable.is_empty() {
        &mut chain.readable
    } else {
        return Err(ChainError::Order);
    };
    match memory.translate(descriptor.addr, descriptor.len, list) {
        true => Ok(()),
        false => Err(ChainError::Unmapped),
    }
}

/// The table that `descriptor` names.
pub(super) fn indirect_table(
    memory: &Snapshot,
    descriptor: &Descriptor,
) -> Result<Table, ChainError> {
    let len = u64::from(descriptor.len);
    if len == 0 || len % DESCRIPTOR_BYTES != 0 {
        return Err(ChainError::IndirectSize);
    }
    // Links are 16 bits wide: what is beyond their reach does not count.
    let count = (len / DESCRIPTOR_BYTES).min(1 << 16);
    Ok(Table::new(memory, descriptor.addr, count as u32))
}
