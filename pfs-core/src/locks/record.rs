//! A lock as a record of the session, by which the next process takes it again.

use super::{Held, Key, Request, Span};
use crate::fs::{Handle, LockKind, NodeId};
use crate::session::{Identity, Kind, Record};

/// Bytes of a lock in its record: where, through which handle, by whom, of what kind.
const BYTES: usize = 32;
const EXCLUSIVE: u32 = 1 << 0;
const FLOCK: u32 = 1 << 1;

/// The record of a lock that `key` holds, last locked through `handle`.
pub(super) fn of(key: &Key, handle: Handle, held: &Held) -> Record {
    let flags = (u32::from(held.exclusive) * EXCLUSIVE) | (u32::from(key.flock) * FLOCK);
    let mut bytes = Vec::with_capacity(BYTES);
    for word in [held.span.first, held.span.last, handle.0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(held.pid.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    Record {
        kind: Kind::Lock,
        a: key.node.0,
        b: key.owner,
        identity: Identity::new(&bytes).unwrap_or(Identity::NONE),
    }
}

/// The request that takes a recorded lock again.
pub(super) fn request(record: &Record) -> Option<Request> {
    let bytes = record.identity.as_bytes();
    let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let flags = half(28)?;
    Some(Request {
        key: Key {
            node: NodeId(record.a),
            owner: record.b,
            flock: flags & FLOCK != 0,
        },
        span: Span {
            first: word(0)?,
            last: word(8)?,
        },
        handle: Handle(word(16)?),
        pid: half(24)?,
        kind: match flags & EXCLUSIVE {
            0 => LockKind::Read,
            _ => LockKind::Write,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_goes_through_its_record() {
        for (flock, exclusive) in [(false, false), (false, true), (true, true)] {
            let key = Key {
                node: NodeId(7 << 32 | 3),
                owner: u64::MAX - 1,
                flock,
            };
            let held = Held {
                span: Span {
                    first: 5,
                    last: Span::ALL.last,
                },
                exclusive,
                pid: 4711,
                record: 99,
            };
            let request = request(&of(&key, Handle(1 << 40), &held)).unwrap();
            assert_eq!((request.key, request.span), (key, held.span));
            assert_eq!((request.handle, request.pid), (Handle(1 << 40), 4711));
            assert_eq!(request.kind == LockKind::Write, exclusive);
        }
        let empty = Record {
            kind: Kind::Lock,
            a: 1,
            b: 2,
            identity: Identity::NONE,
        };
        assert!(request(&empty).is_none());
    }
}
