//! What a request can end in.

use std::io;

use rustix::io::Errno;

use super::abi::opcode_name;
use crate::ring::{device, memory, queue};

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon answered with this error: an ordinary outcome.
    #[error("{}: {errno}", opcode_name(*.opcode))]
    Errno {
        /// Of the request.
        opcode: u32,
        /// The error.
        errno: Errno,
    },
    /// The daemon's answer breaks the protocol.
    #[error("{} (unique {unique}): {violation}", opcode_name(*.opcode))]
    Violation {
        /// Of the request.
        opcode: u32,
        /// Of the request.
        unique: u64,
        /// What is wrong.
        violation: Violation,
    },
    /// No answer in time. The request stays in flight.
    #[error("no answer to {} (unique {unique}) after {elapsed_ms} ms", opcode_name(*.opcode))]
    Timeout {
        /// Of the request.
        opcode: u32,
        /// Of the request.
        unique: u64,
        /// Time since it was submitted.
        elapsed_ms: u128,
    },
    /// The daemon hung up, with the request unanswered. It stays in flight.
    #[error("the daemon is gone; {} (unique {unique}) is unanswered", opcode_name(*.opcode))]
    Gone {
        /// Of the request.
        opcode: u32,
        /// Of the request.
        unique: u64,
    },
    /// No free slot or no room in the ring: take a completion first.
    #[error("as many requests are in flight as can be")]
    Busy,
    /// The arguments do not fit a request, or the data a queue's descriptors.
    #[error("{}: the request is too large", opcode_name(*.0))]
    TooLarge(u32),
    /// Nothing is in flight that could be waited for.
    #[error("no request is in flight")]
    Idle,
    /// The ticket was taken already.
    #[error("no request with unique {0} is waited for")]
    NoSuchRequest(u64),
    /// A path that names nothing below the root.
    #[error("{0:?} is no path below the root")]
    Path(String),
    /// WRITE was answered with success, but with a count that cannot be.
    #[error("a WRITE of {len} bytes wrote {written}")]
    WriteCount {
        /// Bytes sent.
        len: usize,
        /// Bytes that the daemon says it wrote.
        written: usize,
    },
    /// The ring.
    #[error("ring")]
    Queue(#[from] queue::Error),
    /// Guest memory.
    #[error("guest memory")]
    Memory(#[from] memory::Error),
    /// The device.
    #[error("device")]
    Device(#[from] device::Error),
    /// Waiting failed.
    #[error("cannot wait for the daemon")]
    Wait(#[source] io::Error),
}

impl Error {
    /// The error the daemon answered with, if it answered.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Errno { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// So that tests read `assert_eq!(fs.lookup(1, "x").unwrap_err(), Errno::NOENT)`.
impl PartialEq<Errno> for Error {
    fn eq(&self, other: &Errno) -> bool {
        self.errno() == Some(*other)
    }
}

/// How an answer breaks the protocol (`fuse_out_header` in linux/fuse.h; virtio 1.2, 5.11.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Fewer bytes than a reply header.
    #[error("the reply has {used_len} bytes, its header needs 16")]
    Short {
        /// Bytes written as the ring says.
        used_len: u32,
    },
    /// Header and ring disagree.
    #[error("the reply's header says {len} bytes, the ring {used_len}")]
    Length {
        /// `len` of the header.
        len: u32,
        /// Bytes written as the ring says.
        used_len: u32,
    },
    /// The answer is to another request.
    #[error("the reply is to unique {0}")]
    Unique(u64),
    /// `error` is no negated errno.
    #[error("the reply's error is {0}, not within -511..=0")]
    ErrorRange(i32),
    /// An error reply with a body.
    #[error("the reply has error {error} and a body of {body_len} bytes")]
    ErrorBody {
        /// `error` of the header.
        error: i32,
        /// Bytes after the header.
        body_len: u32,
    },
    /// The body is not of the operation's size.
    #[error("the reply's body has {body_len} bytes, {room} are wanted")]
    BodyLength {
        /// Bytes after the header.
        body_len: u32,
        /// What the operation asks for.
        room: u32,
    },
    /// The body does not decode.
    #[error("the reply's body is malformed: {0}")]
    Malformed(&'static str),
    /// A reply where none is due (FORGET).
    #[error("{used_len} bytes were written for a request without a reply")]
    Unexpected {
        /// Bytes written as the ring says.
        used_len: u32,
    },
}
