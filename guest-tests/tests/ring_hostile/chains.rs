//! Descriptors and rings that no driver makes.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::{InHeader, Opcode, ROOT_ID};
use guest_tests::ring::fuse::SessionConfig;
use guest_tests::ring::memory::{Buffer, PAGE_SIZE};
use guest_tests::ring::queue::{Descriptor, Ring, DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use vm_memory::ByteValued;

const QUEUE_SIZE: u16 = 64;
/// The ring that is misused: the second request queue's.
const RING: usize = 2;
const BOTH: u16 = DESC_F_NEXT | DESC_F_WRITE;

/// A driver without manners.
struct Bench {
    mount: Mount,
    config: SessionConfig,
    ring: Arc<Ring>,
    memory: Buffer,
}

impl Bench {
    fn new(volume: &Volume, indirect: bool) -> Bench {
        let mut config = SessionConfig::with_queues(2);
        config.device.queue_size = QUEUE_SIZE;
        config.device.indirect = indirect;
        let mount = volume.mount_with(&config);
        let ring = Arc::clone(&mount.session.device.rings()[RING]);
        let memory = mount.session.device.memory().alloc_pages(16 * PAGE_SIZE);
        let memory = memory.unwrap();
        Bench {
            mount,
            config,
            ring,
            memory,
        }
    }

    /// A descriptor of `len` bytes of ordinary memory.
    fn desc(&self, len: u32, flags: u16, next: u16) -> Descriptor {
        Descriptor {
            addr: self.memory.guest_addr(),
            len,
            flags,
            next,
        }
    }

    fn offer(&mut self, head: u16) {
        let index = self.ring.avail_index();
        self.ring.write_avail_slot(index, head);
        self.ring.write_avail_index(index.wrapping_add(1));
        self.ring.kick().write(1).unwrap();
    }

    /// Offers a chain that is to be dropped: used, with nothing written.
    fn dropped(&mut self, what: &str, table: &[Descriptor]) {
        let before = self.ring.used_index();
        for (index, desc) in (0..).zip(table) {
            self.ring.write_desc(index, *desc);
        }
        self.memory.fill(0xee);
        self.offer(0);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.ring.used_index() == before {
            assert!(
                Instant::now() < deadline,
                "{what}: not used; {}",
                self.mount.daemon.log()
            );
            std::thread::yield_now();
        }
        let slot = usize::from(before % QUEUE_SIZE);
        let used: [u8; 8] = self.ring.used().to_vec(4 + 8 * slot, 8).try_into().unwrap();
        assert_eq!(used, [0; 8], "{what}");
        let untouched = self.memory.to_vec(0, self.memory.len());
        assert!(untouched.iter().all(|byte| *byte == 0xee), "{what}");
        self.serves();
    }

    /// Ordinary requests are served, by the same daemon, and on the same ring after this one.
    fn serves(&mut self) {
        self.mount.fs().getattr(ROOT_ID).unwrap();
        let header = InHeader {
            len: 40 + 16,
            opcode: Opcode::Getattr as u32,
            unique: 4,
            nodeid: ROOT_ID,
            ..InHeader::default()
        };
        let before = self.ring.used_index();
        self.memory.fill(0);
        self.memory.write(0, header.as_slice());
        let at = self.memory.guest_addr();
        let reply = Descriptor {
            addr: at + PAGE_SIZE as u64,
            len: 16 + 104,
            flags: DESC_F_WRITE,
            next: 0,
        };
        self.ring
            .write_desc(10, self.desc(40 + 16, DESC_F_NEXT, 11));
        self.ring.write_desc(11, reply);
        self.offer(10);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.ring.used_index() == before {
            assert!(
                Instant::now() < deadline,
                "no answer; {}",
                self.mount.daemon.log()
            );
            std::thread::yield_now();
        }
        let error = self.memory.to_vec(PAGE_SIZE + 4, 4);
        assert_eq!(error, [0; 4]);
    }

    /// The ring is broken: it is left alone, the other is served, and after a reset all are.
    fn breaks(mut self, what: &str) {
        let used = self.ring.used_index();
        for _ in 0..20 {
            self.mount.fs().getattr(ROOT_ID).unwrap();
        }
        assert_eq!(self.ring.used_index(), used, "{what}");
        let config = self.config.clone();
        self.mount.session.reboot(&config).unwrap();
        for client in &mut self.mount.session.clients {
            client.getattr(ROOT_ID).unwrap();
        }
        self.ring = Arc::clone(&self.mount.session.device.rings()[RING]);
        self.mount
            .daemon
            .signal(rustix::process::Signal::TERM)
            .unwrap();
        let status = self.mount.daemon.wait().unwrap();
        assert_eq!(
            status.code(),
            Some(0),
            "{what}: {}",
            self.mount.daemon.log()
        );
    }
}

#[test]
fn chains_that_lead_nowhere() {
    let volume = Volume::posix();
    let mut bench = Bench::new(&volume, false);
    let good = bench.desc(56, DESC_F_NEXT, 1);
    let reply = bench.desc(120, DESC_F_WRITE, 0);
    let at = |addr, len, flags| Descriptor {
        addr,
        len,
        flags,
        next: 0,
    };
    let end = bench.memory.guest_addr() + (1 << 40);
    for (what, table) in [
        ("a loop of one", vec![bench.desc(56, DESC_F_NEXT, 0)]),
        ("a loop of two", vec![good, bench.desc(56, DESC_F_NEXT, 0)]),
        (
            "a loop of what is written",
            vec![good, bench.desc(16, BOTH, 1)],
        ),
        (
            "a link out of the table",
            vec![bench.desc(56, DESC_F_NEXT, QUEUE_SIZE)],
        ),
        (
            "a link far out of the table",
            vec![bench.desc(56, DESC_F_NEXT, u16::MAX)],
        ),
        ("memory at 0", vec![at(0, 56, 0)]),
        (
            "memory that is not there",
            vec![good, at(end, 120, DESC_F_WRITE)],
        ),
        (
            "memory that is there in part",
            vec![at(bench.memory.guest_addr(), u32::MAX, 0)],
        ),
        ("the end of all addresses", vec![at(u64::MAX, 1, 0)]),
        (
            "beyond the end of all addresses",
            vec![at(u64::MAX - 5, u32::MAX, DESC_F_WRITE)],
        ),
        (
            "an empty buffer",
            vec![bench.desc(0, DESC_F_NEXT, 1), reply],
        ),
        ("an empty reply", vec![good, bench.desc(0, DESC_F_WRITE, 0)]),
        (
            "read after written",
            vec![bench.desc(120, BOTH, 1), bench.desc(56, 0, 0)],
        ),
        (
            "indirect, not negotiated",
            vec![bench.desc(32, DESC_F_INDIRECT, 0)],
        ),
    ] {
        bench.dropped(what, &table);
    }
}

#[test]
fn indirect_tables_that_are_none() {
    let volume = Volume::posix();
    let mut bench = Bench::new(&volume, true);
    let indirect = |addr, len, more| Descriptor {
        addr,
        len,
        flags: DESC_F_INDIRECT | more,
        next: 1,
    };
    let here = bench.memory.guest_addr();
    for (what, desc) in [
        ("an empty table", indirect(here, 0, 0)),
        ("a table of odd size", indirect(here, 17, 0)),
        ("half a descriptor", indirect(here, 8, 0)),
        ("a table that is not there", indirect(1 << 50, 32, 0)),
        (
            "a table that is there in part",
            indirect(here, 0xffff_fff0, 0),
        ),
        (
            "a table with more after it",
            indirect(here, 32, DESC_F_NEXT),
        ),
        // Whose descriptors are 0xeeee...: nested, and nowhere.
        ("a table of nonsense", indirect(here, 32, 0)),
    ] {
        bench.dropped(what, &[desc]);
    }
}

#[test]
fn a_head_that_is_none_stops_the_ring() {
    for head in [QUEUE_SIZE, u16::MAX] {
        let mut bench = Bench::new(&Volume::posix(), true);
        bench.serves();
        bench.offer(head);
        bench.breaks("a head out of the table");
    }
}

#[test]
fn an_index_that_jumps_stops_the_ring() {
    for jump in [QUEUE_SIZE + 1, 1 << 15, u16::MAX] {
        let mut bench = Bench::new(&Volume::posix(), true);
        bench.serves();
        let index = bench.ring.avail_index();
        bench.ring.write_avail_index(index.wrapping_add(jump));
        bench.ring.kick().write(1).unwrap();
        bench.breaks("an available index that jumps");
    }
}

/// A guest may change memory while the daemon reads it: what counts is what was read once.
#[test]
fn a_guest_that_changes_its_mind() {
    let volume = Volume::striped();
    let mut mount = volume.mount_with(&SessionConfig::with_queues(1));
    let fs = mount.fs();
    let (_, handle) = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    let memory = fs.memory().alloc_pages(1 << 20).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (scribbled, stopped) = (memory.clone(), stop.clone());
        scope.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                scribbled.fill(0x55);
                scribbled.fill(0xaa);
            }
        });
        for _ in 0..50 {
            assert_eq!(fs.write_from(handle, 0, &memory).unwrap(), 1 << 20);
            assert_eq!(fs.read_into(handle, 0, &memory).unwrap(), 1 << 20);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let bytes = fs.read_to_end(handle).unwrap();
    assert_eq!(bytes.len(), 1 << 20);
    assert!(bytes.iter().all(|byte| [0x55, 0xaa].contains(byte)));
}
