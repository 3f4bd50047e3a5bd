//! What a worker serves requests with.

use std::sync::Arc;

use pfs_core::fs::{Answer, IntentLog, Ticket};
use pfs_core::io::Io;

use crate::chain::Chain;
use crate::fuse::opcodes::{self, Replay};
use crate::fuse::{Pending, Service, Source, Submitted};

/// Serves requests: [`Service`], or what a test puts in its place.
pub trait Serve: Send + Sync + 'static {
    /// What is remembered of a request until its answer.
    type Pending: Default;
    /// What is known of a queue while a worker serves it.
    type Source: Send + Sync;

    /// A queue of `size` descriptors, number `index`, begins to be served.
    fn source(&self, index: u16, size: u16, indirect: bool) -> Self::Source;

    /// The queue stops: what waits in it for other requests, maybe of other daemons, is to be
    /// answered [`RESTART`](pfs_core::fs::RESTART).
    fn stop_waits(&self, source: &Self::Source);

    /// See [`Service::submit`].
    fn submit(
        &self,
        io: &mut Io,
        ticket: Ticket,
        chain: &Chain,
        pending: &mut Self::Pending,
        intent: Option<&dyn IntentLog>,
        source: &Self::Source,
    ) -> Submitted;

    /// See [`Service::answer`].
    fn answer(
        &self,
        pending: &mut Self::Pending,
        chain: &Chain,
        result: &mut pfs_core::fs::Result<Answer>,
    ) -> u32;
}

impl Serve for Service {
    type Pending = Pending;
    type Source = Arc<Source>;

    fn source(&self, index: u16, size: u16, indirect: bool) -> Arc<Source> {
        Service::source(self, index == 0, size, indirect)
    }

    fn stop_waits(&self, source: &Arc<Source>) {
        source.stop();
    }

    fn submit(
        &self,
        io: &mut Io,
        ticket: Ticket,
        chain: &Chain,
        pending: &mut Pending,
        intent: Option<&dyn IntentLog>,
        source: &Arc<Source>,
    ) -> Submitted {
        Service::submit(self, io, ticket, chain, pending, intent, source)
    }

    fn answer(
        &self,
        pending: &mut Pending,
        chain: &Chain,
        result: &mut pfs_core::fs::Result<Answer>,
    ) -> u32 {
        Service::answer(self, pending, chain, result)
    }
}

/// What the in-flight log wants to know of a request: the start of `fuse_in_header`.
///
/// It is read here once more than the service reads it: a guest that changes it in between
/// deceives only its own replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peek {
    pub(super) unique: u64,
    pub(super) opcode: u32,
}

/// Bytes of `fuse_out_header`.
const OUT_HEADER_BYTES: u32 = 16;

impl Peek {
    /// Reads it; zeroes where there is less.
    pub(super) fn at(chain: &Chain) -> Peek {
        let mut header = [0; 16];
        chain.reader().read(&mut header);
        let [_, _, _, _, o0, o1, o2, o3, unique @ ..] = header;
        Peek {
            opcode: u32::from_le_bytes([o0, o1, o2, o3]),
            unique: u64::from_le_bytes(unique),
        }
    }

    /// Whether doing it twice is worse than not doing it; it has no reply.
    pub(super) fn is_forget(&self) -> bool {
        opcodes::find(self.opcode).is_some_and(|op| op.replay == Replay::AtMostOnce)
    }

    /// Answers `EIO` for a request that nobody should execute; answers the reply's length.
    pub(super) fn refuse(&self, chain: &Chain) -> u32 {
        if self.is_forget() || chain.writable_len() < u64::from(OUT_HEADER_BYTES) {
            return 0;
        }
        let mut header = [0; OUT_HEADER_BYTES as usize];
        header[..4].copy_from_slice(&OUT_HEADER_BYTES.to_le_bytes());
        header[4..8].copy_from_slice(&(-libc::EIO).to_le_bytes());
        header[8..].copy_from_slice(&self.unique.to_le_bytes());
        chain.writer().write(&header);
        OUT_HEADER_BYTES
    }
}
