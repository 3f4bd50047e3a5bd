//! The client against replies written by hand.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use vm_memory::ByteValued;

use super::abi::{Dirent, EntryOut, InHeader, Opcode, OutHeader};
use super::client::{Client, Shared};
use super::hiprio::Hiprio;
use super::*;
use crate::ring::device::Link;
use crate::ring::memory::{GuestMemory, RegionConfig, PAGE_SIZE};
use crate::ring::queue::{self, Queue, QueueConfig, Ring};

/// A client whose daemon is this test.
struct Played {
    client: Client,
    hiprio: Arc<Ring>,
    /// The daemon's end of the socket.
    peer: Option<UnixStream>,
}

fn played() -> Played {
    let memory = GuestMemory::new(&[RegionConfig {
        guest_addr: 0,
        len: 16 << 20,
    }])
    .unwrap();
    let config = QueueConfig {
        size: 256,
        event_idx: true,
        indirect: true,
    };
    let (socket, peer) = UnixStream::pair().unwrap();
    let link = Arc::new(Link::default());
    link.set(Some(OwnedFd::from(socket)));
    let new_queue = || Queue::new(&memory, config).unwrap();
    let hiprio_queue = new_queue();
    let hiprio = Arc::clone(hiprio_queue.ring());
    let shared = Hiprio::new(hiprio_queue, &memory, Arc::clone(&link)).unwrap();
    let shared = Arc::new(Shared::new(shared));
    let timeout = Duration::from_millis(20);
    Played {
        client: Client::new(new_queue(), &memory, shared, link, 8, timeout).unwrap(),
        hiprio,
        peer: Some(peer),
    }
}

/// Uses the newest chain of a ring.
fn use_newest(ring: &Ring, len: u32) {
    let newest = ring.avail_index().wrapping_sub(1) % ring.size();
    let head = ring
        .avail()
        .load_u16(4 + 2 * usize::from(newest), Ordering::Relaxed);
    let index = ring.used_index();
    let elem = 4 + 8 * usize::from(index % ring.size());
    ring.used().write_obj(elem, &u32::from(head));
    ring.used().write_obj(elem + 4, &len);
    ring.used()
        .store_u16(2, index.wrapping_add(1), Ordering::Release);
}

impl Played {
    /// Answers the newest request, which is in `ticket`'s slot.
    fn reply(&mut self, slot: u16, header: OutHeader, body: &[u8], used_len: u32) {
        let reply = &self.client.slots.get(slot).reply;
        reply.write(0, header.as_slice());
        reply.write(size_of::<OutHeader>(), body);
        use_newest(&Arc::clone(self.client.queue().ring()), used_len);
    }

    /// LOOKUP answered with this header.
    fn lookup(&mut self, header: OutHeader, used_len: u32) -> Result<EntryOut, Error> {
        let ticket = self.client.submit(&ops::lookup(1, b"x"), 0).unwrap();
        self.reply(0, header, &[], used_len);
        self.client.wait(ticket)
    }

    /// READDIR answered with these bytes.
    fn readdir(&mut self, body: &[u8]) -> Result<Vec<DirEntry>, Error> {
        let handle = Handle {
            nodeid: 1,
            fh: 1,
            open_flags: 0,
        };
        let data = self.client.memory().alloc_pages(PAGE_SIZE).unwrap();
        let ticket = self
            .client
            .submit(&ops::readdir(handle, 0, &data), 0)
            .unwrap();
        data.write(0, body);
        let len = 16 + body.len() as u32;
        let header = OutHeader {
            len,
            error: 0,
            unique: ticket.unique(),
        };
        self.reply(0, header, &[], len);
        self.client.wait(ticket)
    }
}

const ENTRY_LEN: u32 = 16 + size_of::<EntryOut>() as u32;

#[test]
fn requests_are_those_of_linux() {
    let mut played = played();
    for (unique, name) in [(2, "a"), (4, "bc")] {
        let error = played.client.lookup(7, name).unwrap_err();
        assert!(matches!(error, Error::Timeout { unique: u, .. } if u == unique));
        let slot = played.client.slots.get((unique / 2 - 1) as u16);
        let header: InHeader = slot.request.read_obj(0);
        assert_eq!(header.len as usize, 40 + name.len() + 1);
        assert_eq!(header.opcode, Opcode::Lookup as u32);
        assert_eq!((header.unique, header.nodeid), (unique, 7));
        let args = slot.request.to_vec(40, name.len() + 1);
        assert_eq!(args, [name.as_bytes(), b"\0"].concat());
    }
    assert_eq!(played.client.in_flight(), 2);
}

#[test]
fn a_good_reply_is_taken() {
    let mut played = played();
    let header = |unique| OutHeader {
        len: ENTRY_LEN,
        error: 0,
        unique,
    };
    played.lookup(header(2), ENTRY_LEN).unwrap();
    let not_found = OutHeader {
        len: 16,
        error: -2,
        unique: 4,
    };
    assert_eq!(played.lookup(not_found, 16).unwrap_err(), Errno::NOENT);
    assert_eq!(played.client.in_flight(), 0);
}

#[test]
fn a_bad_reply_is_named() {
    let header = |len, error, unique| OutHeader { len, error, unique };
    let cases = [
        (header(16, 0, 2), 0, Violation::Short { used_len: 0 }),
        (header(16, -2, 2), 15, Violation::Short { used_len: 15 }),
        (
            header(16, -2, 2),
            17,
            Violation::Length {
                len: 16,
                used_len: 17,
            },
        ),
        (header(16, -2, 3), 16, Violation::Unique(3)),
        (header(16, 2, 2), 16, Violation::ErrorRange(2)),
        (header(16, -512, 2), 16, Violation::ErrorRange(-512)),
        (
            header(ENTRY_LEN, -2, 2),
            ENTRY_LEN,
            Violation::ErrorBody {
                error: -2,
                body_len: 128,
            },
        ),
        (
            header(24, 0, 2),
            24,
            Violation::BodyLength {
                body_len: 8,
                room: 128,
            },
        ),
    ];
    for (header, used_len, expected) in cases {
        match played().lookup(header, used_len) {
            Err(Error::Violation { violation, .. }) => assert_eq!(violation, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn directory_entries_are_decoded_strictly() {
    let record = |name_len: u32, name: &[u8]| {
        let dirent = Dirent {
            ino: 1,
            off: 2,
            namelen: name_len,
            type_: 4,
        };
        let mut bytes = [dirent.as_slice(), name].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    let good = [record(1, b"a"), record(9, b"123456789")].concat();
    let entries = played().readdir(&good).unwrap();
    assert_eq!(entries[0].name, b"a");
    assert_eq!(entries[1].name, b"123456789");
    assert!(played().readdir(&[]).unwrap().is_empty());
    for bad in [
        record(0, b""),
        record(300, b"a"),
        record(17, b"a"),
        record(3, b"a/b"),
        record(3, b"a\0b"),
        good[..good.len() - 1].to_vec(),
        good[..40].to_vec(),
    ] {
        assert!(matches!(
            played().readdir(&bad),
            Err(Error::Violation {
                violation: Violation::Malformed(_),
                ..
            })
        ));
    }
}

#[test]
fn forgets_are_waited_for_and_have_no_reply() {
    let mut played = played();
    played.client.forget(5, 1).unwrap();
    use_newest(&played.hiprio, 0);
    played.client.drain_hiprio().unwrap();
    played.client.batch_forget(&[(5, 1), (6, 2)]).unwrap();
    let unused = played.client.drain_hiprio();
    assert!(matches!(unused, Err(Error::Timeout { .. })), "{unused:?}");
    use_newest(&played.hiprio, 16);
    let answered = played.client.drain_hiprio();
    assert!(
        matches!(
            answered,
            Err(Error::Queue(queue::Error::UsedLength { len: 16, .. }))
        ),
        "{answered:?}"
    );
}

#[test]
fn a_daemon_that_hangs_up_is_noticed() {
    let mut played = played();
    played.client.timeout = Duration::from_secs(60);
    played.peer = None;
    let error = played.client.lookup(1, "x").unwrap_err();
    assert!(matches!(error, Error::Gone { unique: 2, .. }), "{error}");
}

#[test]
fn more_requests_than_slots_are_refused() {
    let mut played = played();
    for _ in 0..8 {
        played.client.submit(&ops::lookup(1, b"x"), 0).unwrap();
    }
    let ninth = played.client.submit(&ops::lookup(1, b"x"), 0);
    assert!(matches!(ninth, Err(Error::Busy)));
    let long = vec![b'x'; 100 << 10];
    let too_long = played.client.submit(&ops::lookup(1, &long), 0);
    assert!(matches!(too_long, Err(Error::TooLarge(_))));
}

#[test]
#[ignore = "a measurement"]
fn cost_of_the_driver() {
    for (name, direct) in [("getattr", false), ("read 4 KiB", true)] {
        let mut played = played();
        let data = played.client.memory().alloc_pages(PAGE_SIZE).unwrap();
        let handle = Handle {
            nodeid: 1,
            fh: 1,
            open_flags: 0,
        };
        let rounds = 1_000_000;
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            let ticket = if direct {
                played.client.submit(&ops::read(handle, 0, &data), 0)
            } else {
                let request = ops::getattr(1, None).length_only();
                played.client.submit(&request, 0)
            };
            let ticket = ticket.unwrap();
            let len = if direct { 16 + 4096 } else { 16 + 104 };
            let header = OutHeader {
                len,
                error: 0,
                unique: ticket.unique(),
            };
            played.reply(0, header, &[], len);
            let done = played.client.poll_done().unwrap().unwrap();
            played.client.wait::<usize>(done.ticket()).unwrap();
        }
        let ns = start.elapsed().as_nanos() / rounds;
        eprintln!("{name}: {ns} ns");
    }
}
