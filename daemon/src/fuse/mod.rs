//! FUSE requests from a [`Chain`] to the engine, and its answers back.

use std::sync::Arc;

use pfs_core::fs::{Answer, FileSystem, IntentLog, Ticket};
use pfs_core::io::Io;
use pfs_core::session::SessionStore;

use crate::chain::Chain;

/// What is remembered of a request between [`Service::submit`] and [`Service::answer`].
#[derive(Default)]
pub struct Pending {
    unique: u64,
    opcode: u32,
}

impl Pending {
    /// The guest's number of the request.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// What it asks, as in `linux/fuse.h`.
    pub fn opcode(&self) -> u32 {
        self.opcode
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// Its answer comes through the mailbox of the [`Io`], perhaps it is there already.
    Later,
    /// It is answered: so many bytes were written to [`Chain::writable`].
    Replied(u32),
    /// It has no reply; the chain is done with.
    NoReply,
}

/// How the service serves.
#[derive(Clone, Debug, Default)]
pub struct ServiceConfig {}

/// Serves FUSE requests from an engine; shared by all workers.
pub struct Service {
    _fs: Arc<dyn FileSystem>,
    _store: Arc<SessionStore>,
}

impl Service {
    /// A service that waits for an INIT.
    pub fn new(fs: Arc<dyn FileSystem>, store: Arc<SessionStore>, _config: ServiceConfig) -> Service {
        Service { _fs: fs, _store: store }
    }

    /// Decodes a request and hands it to the engine.
    ///
    /// `pending` must stay where it is, untouched, until the request is answered.
    pub fn submit(
        &self,
        _io: &mut Io,
        _ticket: Ticket,
        _chain: &Chain,
        _pending: &mut Pending,
        _intent: Option<&dyn IntentLog>,
        _hiprio: bool,
    ) -> Submitted {
        Submitted::NoReply
    }

    /// Writes the reply; answers its length.
    pub fn answer(
        &self,
        _pending: &mut Pending,
        _chain: &Chain,
        _result: pfs_core::fs::Result<Answer>,
    ) -> u32 {
        0
    }
}
