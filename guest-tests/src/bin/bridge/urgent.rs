//! FORGET and INTERRUPT: what goes by the hiprio queue and has no reply.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guest_tests::ring::fuse::abi::{BatchForgetIn, ForgetOne, InHeader, Opcode};
use guest_tests::ring::fuse::Hiprio;
use guest_tests::ring::memory::{Buffer, PAGE_SIZE};
use vm_memory::ByteValued;

use crate::error::Error;

/// How long the daemon may leave a full hiprio queue alone.
const TIMEOUT: Duration = Duration::from_secs(60);
const IN_HEADER: usize = size_of::<InHeader>();
/// What one batch carries.
const BATCH_MAX: usize =
    (PAGE_SIZE - IN_HEADER - size_of::<BatchForgetIn>()) / size_of::<ForgetOne>();

/// The hiprio queue, of which a device has one.
#[derive(Debug)]
pub struct Urgent {
    queue: Mutex<Hiprio>,
}

impl Urgent {
    pub fn new(queue: Hiprio) -> Urgent {
        Urgent {
            queue: Mutex::new(queue),
        }
    }

    /// Whether a request goes by this queue.
    pub fn takes(opcode: u32) -> bool {
        [Opcode::Forget, Opcode::BatchForget, Opcode::Interrupt]
            .iter()
            .any(|&urgent| opcode == urgent as u32)
    }

    /// Sends the request with this header and the body after it in `memory`. The kernel fills
    /// what is read from `/dev/fuse` with forgotten nodes; they go on in batches of a page.
    pub fn send(&self, header: &InHeader, memory: &Buffer, start: usize) -> Result<(), Error> {
        let body = start + IN_HEADER;
        let len = (header.len as usize).saturating_sub(IN_HEADER);
        if header.opcode == Opcode::BatchForget as u32 {
            return self.send_batches(header, memory, body, len);
        }
        let mut bytes = [0; PAGE_SIZE];
        let bytes = &mut bytes[..len.min(PAGE_SIZE)];
        memory.read(body, bytes);
        self.put(header, bytes)
    }

    fn send_batches(
        &self,
        header: &InHeader,
        memory: &Buffer,
        body: usize,
        len: usize,
    ) -> Result<(), Error> {
        let head = size_of::<BatchForgetIn>();
        let all = len.saturating_sub(head) / size_of::<ForgetOne>();
        let mut bytes = [0; PAGE_SIZE];
        for first in (0..all).step_by(BATCH_MAX) {
            let count = BATCH_MAX.min(all - first);
            let end = head + count * size_of::<ForgetOne>();
            let batch = BatchForgetIn {
                count: count as u32,
                dummy: 0,
            };
            bytes[..head].copy_from_slice(batch.as_slice());
            let from = body + head + first * size_of::<ForgetOne>();
            memory.read(from, &mut bytes[head..end]);
            let header = InHeader {
                len: (IN_HEADER + end) as u32,
                ..*header
            };
            self.put(&header, &bytes[..end])?;
        }
        Ok(())
    }

    fn put(&self, header: &InHeader, body: &[u8]) -> Result<(), Error> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = queue.send(header, body, TIMEOUT);
        sent.map_err(|e| Error::Hiprio(Box::new(e)))
    }
}
