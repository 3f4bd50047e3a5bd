//! What is remembered of a request while the engine has it.

use libc::iovec;
use pfs_core::fs::DirList;

use super::reply::{ReplyTo, Shape};
use crate::chain::Chain;

/// What is remembered of a request between [`Service::submit`](super::Service::submit) and
/// [`Service::answer`](super::Service::answer). Reused for one request after another, so that its
/// lists are allocated once.
#[derive(Default)]
pub struct Pending {
    unique: u64,
    opcode: u32,
    /// The opcode is one that is never replied to.
    pub(super) no_reply: bool,
    pub(super) shape: Shape,
    /// The answer is the value of an ACL.
    pub(super) acl: bool,
    /// Bytes that the chain has for the reply.
    pub(super) room: u64,
    /// The guest memory lent to the engine: its `Slices` point at this list.
    pub(super) iovecs: Vec<iovec>,
    /// A listing's memory, while no listing is under way.
    pub(super) list: DirList,
}

// SAFETY: the iovecs are addresses of a chain's memory, which is good on every thread.
unsafe impl Send for Pending {}

impl Pending {
    /// The guest's number of the request.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// What it asks, as in `linux/fuse.h`.
    pub fn opcode(&self) -> u32 {
        self.opcode
    }

    /// Begins another request.
    pub(super) fn begin(&mut self, unique: u64, opcode: u32, room: u64) {
        self.unique = unique;
        self.opcode = opcode;
        self.no_reply = false;
        self.shape = Shape::Empty;
        self.acl = false;
        self.room = room;
        self.iovecs.clear();
    }

    /// Where its reply goes.
    pub(super) fn reply_to<'a>(&self, chain: &'a Chain) -> ReplyTo<'a> {
        ReplyTo {
            chain,
            unique: self.unique,
            room: self.room,
        }
    }
}
