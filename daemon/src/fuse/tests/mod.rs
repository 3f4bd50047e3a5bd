//! The service over private memory, with a double for the engine.

mod doc;
mod fake;
mod hostile;
mod opcodes;
mod requests;
mod session;

use std::sync::Arc;

use libc::iovec;
use pfs_core::fs::Ticket;
use pfs_core::io::{Io, Pool, Wait};
use pfs_core::session::SessionStore;

use super::opcodes::Opcode;
use super::{abi, Pending, Service, ServiceConfig, Submitted};
use crate::chain::Chain;
use fake::Fake;

/// What the guest sees of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    NoReply,
    Error(i32),
    Ok(Vec<u8>),
}

/// A guest, the service and its engine on one thread.
struct Bench {
    fake: Arc<Fake>,
    store: Arc<SessionStore>,
    service: Service,
    io: Io,
    pending: Pending,
}

/// Where reply memory was not written.
const UNTOUCHED: u8 = 0xa5;
const UNIQUE: u64 = 0x1122_3344_5566_7788;

impl Bench {
    /// A service that waits for an INIT.
    fn fresh(config: ServiceConfig) -> Bench {
        let fake = Arc::new(Fake::default());
        let store = Arc::new(SessionStore::private(64).unwrap());
        Bench {
            service: Service::new(fake.clone(), store.clone(), config),
            fake,
            store,
            io: Io::new(Pool::new(1).unwrap()).unwrap(),
            pending: Pending::default(),
        }
    }

    /// A service in a session.
    fn new(config: ServiceConfig) -> Bench {
        let mut bench = Bench::fresh(config);
        let flags = (abi::init::POSIX_LOCKS | abi::init::FLOCK_LOCKS) as u32;
        let seen = bench.ask(Opcode::Init, 0, &words(&[7, 41, 131072, flags]), 64);
        assert!(matches!(seen, Seen::Ok(body) if body.len() == 64));
        bench.calls();
        bench
    }

    /// What the engine was asked since the last time.
    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.fake.calls.lock().unwrap())
    }

    /// Sends a well-formed header and `body`, with room for `room` bytes after the out-header.
    fn ask(&mut self, opcode: Opcode, node: u64, body: &[u8], room: usize) -> Seen {
        self.send(&request(opcode as u32, node, body), room + 16, false)
    }

    /// Sends `bytes` as they are, with `room` bytes for all of the reply.
    fn send(&mut self, bytes: &[u8], room: usize, hiprio: bool) -> Seen {
        let mut readable = bytes.to_vec();
        let mut writable = vec![UNTOUCHED; room];
        let chain = Chain {
            readable: pieces(&mut readable, 7),
            writable: pieces(&mut writable, 5),
        };
        let (io, pending) = (&mut self.io, &mut self.pending);
        let source = self.service.source(hiprio, 64, true);
        let submitted = self
            .service
            .submit(io, Ticket(3), &chain, pending, None, &source);
        let mut done = Vec::new();
        io.turn(Wait::No, &mut done, &mut Vec::new()).unwrap();
        let len = match submitted {
            Submitted::Later => {
                assert_eq!(done.len(), 1, "one answer for one request");
                let mut result = done.remove(0).result;
                self.service.answer(pending, &chain, &mut result)
            }
            Submitted::Replied(len) => len,
            Submitted::NoReply => 0,
        };
        assert!(done.is_empty(), "no answer without a request");
        seen(&writable, len, bytes)
    }
}

fn seen(writable: &[u8], len: u32, request: &[u8]) -> Seen {
    let len = len as usize;
    if len == 0 {
        assert!(writable.iter().all(|byte| *byte == UNTOUCHED));
        return Seen::NoReply;
    }
    assert!((16..=writable.len()).contains(&len));
    assert_eq!(u32_at(writable, 0) as usize, len);
    if let Some(unique) = request.get(8..16) {
        assert_eq!(&writable[8..16], unique);
    }
    match u32_at(writable, 4) as i32 {
        0 => Seen::Ok(writable[16..len].to_vec()),
        error => {
            assert!((-511..0).contains(&error) && len == 16);
            Seen::Error(-error)
        }
    }
}

/// `memory` as iovecs of growing size, an empty one among them.
fn pieces(memory: &mut [u8], first: usize) -> Vec<iovec> {
    let mut list = Vec::new();
    let (mut rest, mut size) = (memory, first);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at_mut(size.min(rest.len()));
        list.push(iovec {
            iov_base: piece.as_mut_ptr().cast(),
            iov_len: piece.len(),
        });
        list.push(iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        });
        (rest, size) = (after, size * 2);
    }
    list
}

/// A request with a header that tells the truth.
fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[40 + body.len() as u32, opcode]);
    bytes.extend(UNIQUE.to_ne_bytes());
    bytes.extend(node.to_ne_bytes());
    bytes.extend(words(&[1000, 1001, 77, 0]));
    bytes.extend(body);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
