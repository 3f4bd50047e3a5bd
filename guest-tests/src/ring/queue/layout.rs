//! The memory and eventfds of a split virtqueue: all that driver and device share
//! (virtio 1.2, section 2.7).

use std::sync::atomic::Ordering;

use vm_memory::ByteValued;
use vmm_sys_util::eventfd::{EventFd, EFD_CLOEXEC, EFD_NONBLOCK};

use super::Error;
use crate::ring::memory::{Buffer, GuestMemory, PAGE_SIZE};

/// The chain goes on in `next` (VIRTQ_DESC_F_NEXT).
pub const DESC_F_NEXT: u16 = 1;
/// The device writes this buffer (VIRTQ_DESC_F_WRITE).
pub const DESC_F_WRITE: u16 = 2;
/// The buffer is a table of descriptors (VIRTQ_DESC_F_INDIRECT).
pub const DESC_F_INDIRECT: u16 = 4;

pub(super) const AVAIL_F_NO_INTERRUPT: u16 = 1;
pub(super) const USED_F_NO_NOTIFY: u16 = 1;
pub(super) const DESC_LEN: usize = size_of::<Descriptor>();
pub(super) const USED_ELEM_LEN: usize = size_of::<UsedElem>();

/// A range of guest memory as a descriptor names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
}

impl From<&Buffer> for Segment {
    fn from(buffer: &Buffer) -> Self {
        Segment {
            addr: buffer.guest_addr(),
            len: u32::try_from(buffer.len()).expect("buffers are smaller than 4 GiB"),
        }
    }
}

/// `struct virtq_desc`, little endian (virtio 1.2, 2.7.5).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Guest physical address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// `DESC_F_*`.
    pub flags: u16,
    /// Index of the next descriptor if [`DESC_F_NEXT`] is set.
    pub next: u16,
}

// SAFETY: plain integers, `repr(C)`, no padding: any bytes are a value.
unsafe impl ByteValued for Descriptor {}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UsedElem {
    pub(super) id: u32,
    pub(super) len: u32,
}

// SAFETY: plain integers, `repr(C)`, no padding: any bytes are a value.
unsafe impl ByteValued for UsedElem {}

/// The three areas of a ring and its eventfds: all that a device gets to know of a queue.
#[derive(Debug)]
pub struct Ring {
    size: u16,
    desc: Buffer,
    avail: Buffer,
    used: Buffer,
    kick: EventFd,
    call: EventFd,
    err: EventFd,
}

impl Ring {
    pub(super) fn new(memory: &GuestMemory, size: u16) -> Result<Self, Error> {
        let slots = usize::from(size);
        let area = |len: usize| -> Result<Buffer, Error> {
            let buffer = memory.alloc(len, PAGE_SIZE)?;
            buffer.fill(0);
            Ok(buffer)
        };
        let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(Error::EventFd);
        Ok(Ring {
            size,
            desc: area(DESC_LEN * slots)?,
            avail: area(6 + 2 * slots)?,
            used: area(6 + USED_ELEM_LEN * slots)?,
            kick: eventfd()?,
            call: eventfd()?,
            err: eventfd()?,
        })
    }

    /// Descriptors in the ring.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The descriptor table.
    pub fn desc(&self) -> &Buffer {
        &self.desc
    }

    /// The available ring.
    pub fn avail(&self) -> &Buffer {
        &self.avail
    }

    /// The used ring.
    pub fn used(&self) -> &Buffer {
        &self.used
    }

    /// Driver to device: there are buffers.
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Device to driver: there are used buffers. Non-blocking.
    pub fn call(&self) -> &EventFd {
        &self.call
    }

    /// Device to driver: the ring is broken.
    pub fn err(&self) -> &EventFd {
        &self.err
    }

    /// How many chains the driver has offered, modulo 65536.
    pub fn avail_index(&self) -> u16 {
        self.avail.load_u16(2, Ordering::Acquire)
    }

    /// How many chains the device has used, modulo 65536.
    pub fn used_index(&self) -> u16 {
        self.used.load_u16(2, Ordering::Acquire)
    }

    /// Overwrites one descriptor: for tests that play a hostile driver.
    pub fn write_desc(&self, index: u16, desc: Descriptor) {
        self.desc.write_obj(usize::from(index) * DESC_LEN, &desc);
    }

    /// Overwrites slot `slot` of the available ring.
    pub fn write_avail_slot(&self, slot: u16, head: u16) {
        let offset = 4 + 2 * usize::from(slot % self.size);
        self.avail.store_u16(offset, head, Ordering::Relaxed);
    }

    /// Overwrites the available index.
    pub fn write_avail_index(&self, index: u16) {
        self.avail.store_u16(2, index, Ordering::Release);
    }

    pub(super) fn used_event_offset(&self) -> usize {
        4 + 2 * usize::from(self.size)
    }

    pub(super) fn avail_event_offset(&self) -> usize {
        4 + USED_ELEM_LEN * usize::from(self.size)
    }
}
