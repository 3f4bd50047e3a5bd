//! From a checked request to the engine's method.

mod dirs;
mod files;
mod names;
mod whole;
mod xattrs;

use std::sync::Arc;

use pfs_core::fs::{
    Answer, Caller, FileSystem, IntentLog, NodeId, OpenFlags, Reply, Req, Result, Slices, Ticket,
};
use pfs_core::io::Io;

use super::abi::init;
use super::abi::OUT_HEADER_BYTES;
use super::config::Caching;
use super::decode::Request;
use super::reply::Shape;
use super::{Pending, ServiceConfig, Source};
use crate::chain::{Chain, Cursor};

/// One request on its way to the engine.
pub(super) struct Call<'a> {
    pub fs: &'a dyn FileSystem,
    pub config: &'a ServiceConfig,
    pub caching: &'a Caching,
    /// The session's flags (`FUSE_*` of INIT).
    pub flags: u64,
    pub io: &'a mut Io,
    pub ticket: Ticket,
    pub caller: Caller,
    /// The node that the header names.
    pub node: NodeId,
    /// The guest's number of the request.
    pub unique: u64,
    /// The queue that it came by.
    pub source: &'a Arc<Source>,
    /// Only for those that the opcode table says record one.
    pub intent: Option<&'a dyn IntentLog>,
    pub chain: &'a Chain,
    pub pending: &'a mut Pending,
    /// Where the payload begins.
    pub payload: Cursor<'a>,
}

impl Call<'_> {
    /// Hands the request to the engine, which answers by its ticket; or fails before that.
    pub fn dispatch(self, request: &Request<'_>) -> Result<()> {
        match request {
            Request::Names(request) => self.names(request),
            Request::Files(request) => self.files(request),
            Request::Dirs(request) => self.dirs(request),
            Request::Xattrs(request) => self.xattrs(request),
            Request::Whole(request) => self.whole(request),
        }
    }

    /// What the engine answers to; its answer will be encoded as `shape`.
    fn reply<T: Into<Answer>>(&mut self, shape: Shape) -> Reply<T> {
        self.pending.shape = shape;
        Reply::new(self.io.mailbox(), self.ticket)
    }

    /// How the engine opens a file.
    fn open_flags(&self, flags: i32, kill_suidgid: bool) -> OpenFlags {
        // A guest that keeps what it writes knows the end of the file: where an append goes is
        // its own to say.
        let writeback = self.flags & init::WRITEBACK_CACHE != 0;
        let appends = if writeback { libc::O_APPEND } else { 0 };
        OpenFlags {
            flags: flags & !appends,
            kill_suidgid,
            read_too: writeback,
            cached: self.caching.checks_opens,
        }
    }

    fn req(&mut self) -> Req<'_> {
        Req {
            io: self.io,
            caller: self.caller,
            intent: self.intent,
        }
    }

    /// Room of the reply after its header, in bytes.
    fn room(&self) -> u64 {
        self.pending.room.saturating_sub(OUT_HEADER_BYTES as u64)
    }

    /// The guest's memory that a READ fills.
    fn read_slices(&mut self, size: u32) -> Slices {
        let list = &mut self.pending.iovecs;
        list.clear();
        let mut at = self.chain.writer();
        at.skip(OUT_HEADER_BYTES as u64);
        at.list(u64::from(size), list);
        // SAFETY: a chain's memory stays mapped, and its writable part writable, until the reply
        // is written; `pending`, and with it the list, is left alone until then (see `submit`).
        unsafe { Slices::new(list) }
    }

    /// The guest's memory that a WRITE takes.
    fn write_slices(&mut self, size: u32) -> Slices {
        let list = &mut self.pending.iovecs;
        list.clear();
        self.payload.list(u64::from(size), list);
        // SAFETY: as in `read_slices`; the engine only reads this memory.
        unsafe { Slices::new(list) }
    }
}
