//! Two tables over one file are two daemons on one volume: their descriptors are all that meets.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::fs::{Cancel, Mailbox, Reply, Ticket, RESTART};
use crate::session::{Identity, Record};

const READ: LockKind = LockKind::Read;
const WRITE: LockKind = LockKind::Write;
const UNLOCK: LockKind = LockKind::Unlock;
const AGAIN: Result<()> = Err(Errno::AGAIN);

/// Files named by their nodes, and daemons that lock them.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        for node in 1..=3 {
            File::create(path(&dir, NodeId(node))).unwrap();
        }
        Host { dir }
    }

    fn open(&self, node: NodeId) -> Result<OwnedFd> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path(&self.dir, node));
        file.map(OwnedFd::from).map_err(|_| Errno::STALE)
    }

    fn daemon(&self) -> Daemon<'_> {
        let store = SessionStore::private(1 << 20).unwrap();
        let root = Record {
            kind: Kind::Node,
            a: 0,
            b: 0,
            identity: Identity::NONE,
        };
        store.insert(&root).unwrap();
        self.daemon_with(Arc::new(store))
    }

    fn daemon_with(&self, store: Arc<SessionStore>) -> Daemon<'_> {
        Daemon {
            host: self,
            locks: Locks::new(store.clone()),
            store,
        }
    }
}

fn path(dir: &TempDir, node: NodeId) -> PathBuf {
    dir.path().join(node.0.to_string())
}

struct Daemon<'a> {
    host: &'a Host,
    locks: Arc<Locks>,
    store: Arc<SessionStore>,
}

fn range(node: u64, owner: u64, kind: LockKind, first: u64, last: u64) -> Request {
    Request {
        key: Key {
            node: NodeId(node),
            owner,
            flock: false,
        },
        handle: Handle(owner * 10),
        kind,
        span: Span { first, last },
        pid: owner as u32,
    }
}

fn flock(owner: u64, kind: LockKind) -> Request {
    let mut request = range(1, owner, kind, 0, Span::ALL.last);
    request.key.flock = true;
    request
}

impl Daemon<'_> {
    fn owner(&self, request: &Request) -> Result<Option<Owner>> {
        let node = request.key.node;
        self.locks.owner(request, || self.host.open(node))
    }

    fn set(&self, request: &Request) -> Result<()> {
        let owner = self.owner(request)?;
        owner.map_or(Ok(()), |owner| owner.set(request))
    }

    fn wait(&self, request: Request) -> Waiting {
        let (mailbox, cancel) = (
            Mailbox::for_this_thread().unwrap(),
            Arc::new(Cancel::default()),
        );
        let reply = Reply::new(&mailbox, Ticket(1));
        let owner = self.owner(&request).unwrap().unwrap();
        owner.wait(request, cancel.clone(), reply);
        Waiting { mailbox, cancel }
    }

    fn records(&self) -> usize {
        self.store
            .ids()
            .filter(|(_, kind)| *kind == Kind::Lock)
            .count()
    }

    fn test(&self, request: &Request) -> Option<(LockKind, u64, u64, u32)> {
        let node = request.key.node;
        let found = self
            .locks
            .in_the_way(request, || self.host.open(node))
            .unwrap();
        found.map(|(kind, span, pid)| (kind, span.first, span.last, pid))
    }
}

/// A request that waits.
struct Waiting {
    mailbox: Arc<Mailbox>,
    cancel: Arc<Cancel>,
}

impl Waiting {
    fn poll(&self) -> Option<Result<()>> {
        let mut done = Vec::new();
        self.mailbox.collect(&mut done);
        done.pop().map(|done| done.result.map(drop))
    }

    fn result(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(result) = self.poll() {
                return result;
            }
            assert!(Instant::now() < end, "it waits for ever");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn still_waits(&self) {
        std::thread::sleep(Duration::from_millis(30));
        assert!(self.poll().is_none());
    }
}

#[test]
fn ranges_of_two_daemons_and_of_two_owners() {
    let host = Host::new();
    let (one, two) = (host.daemon(), host.daemon());
    for other in [&two, &one] {
        assert_eq!(one.set(&range(1, 5, WRITE, 0, 99)), Ok(()));
        assert_eq!(other.set(&range(1, 6, READ, 99, 120)), AGAIN);
        assert_eq!(other.set(&range(1, 6, READ, 100, 120)), Ok(()));
        assert_eq!(
            other.set(&range(2, 6, WRITE, 0, 99)),
            Ok(()),
            "another file"
        );
        // Downgraded it can be shared, and not upgraded any more.
        assert_eq!(one.set(&range(1, 5, READ, 50, 59)), Ok(()));
        assert_eq!(other.set(&range(1, 6, READ, 50, 59)), Ok(()));
        assert_eq!(one.set(&range(1, 5, WRITE, 50, 59)), AGAIN);
        assert_eq!(other.set(&range(1, 6, UNLOCK, 50, 54)), Ok(()));
        assert_eq!(one.set(&range(1, 5, WRITE, 50, 54)), Ok(()));
        assert_eq!(one.set(&range(1, 5, WRITE, 55, 55)), AGAIN);
        let to_the_end = range(1, 6, WRITE, 200, Span::ALL.last);
        assert_eq!(other.set(&to_the_end), Ok(()));
        assert_eq!(one.set(&range(1, 5, READ, 1 << 60, 1 << 60)), AGAIN);
        for (daemon, owner) in [(&one, 5), (other, 6)] {
            for node in 1..=2 {
                daemon.locks.unlock(NodeId(node), Whose::Owner(owner));
            }
        }
        for daemon in [&one, other] {
            assert!(daemon.locks.has_none(NodeId(1)) && daemon.locks.has_none(NodeId(2)));
            assert_eq!(daemon.records(), 0);
        }
    }
}

#[test]
fn who_is_in_the_way() {
    let host = Host::new();
    let (one, two) = (host.daemon(), host.daemon());
    one.set(&range(1, 5, READ, 10, 19)).unwrap();
    one.set(&range(1, 6, WRITE, 30, Span::ALL.last)).unwrap();
    let all = |kind| range(1, 7, kind, 0, Span::ALL.last);
    assert_eq!(one.test(&all(WRITE)), Some((READ, 10, 19, 5)));
    assert_eq!(one.test(&all(READ)), Some((WRITE, 30, Span::ALL.last, 6)));
    assert_eq!(
        two.test(&all(WRITE)),
        Some((READ, 10, 19, 0)),
        "no pid of another VM's"
    );
    assert_eq!(two.test(&all(READ)), Some((WRITE, 30, Span::ALL.last, 0)));
    assert_eq!(one.test(&range(1, 5, WRITE, 0, 29)), None, "own locks");
    assert_eq!(two.test(&range(1, 5, READ, 0, 29)), None);
}

#[test]
fn flock_of_two_daemons() {
    let host = Host::new();
    let (one, two) = (host.daemon(), host.daemon());
    assert_eq!(one.set(&flock(5, READ)), Ok(()));
    assert_eq!(two.set(&flock(5, READ)), Ok(()));
    assert_eq!(
        two.set(&range(1, 5, WRITE, 0, 9)),
        Ok(()),
        "they do not meet"
    );
    // Whoever fails to convert has lost what it had, as on Linux.
    assert_eq!(one.set(&flock(5, WRITE)), AGAIN);
    assert!(one.locks.has_none(NodeId(1)) && one.records() == 0);
    assert_eq!(two.set(&flock(5, WRITE)), Ok(()));
    assert_eq!(one.set(&flock(5, READ)), AGAIN);
    assert_eq!(two.set(&flock(5, UNLOCK)), Ok(()));
    assert_eq!(one.set(&flock(5, READ)), Ok(()));
    let gone = Whose::Handle {
        handle: Handle(0),
        flock_owner: Some(5),
    };
    one.locks.unlock(NodeId(1), gone);
    assert_eq!(two.set(&flock(5, WRITE)), Ok(()));
}

#[test]
fn a_released_handle_takes_its_locks_along() {
    let host = Host::new();
    let daemon = host.daemon();
    for request in [
        range(1, 5, WRITE, 0, 9),
        flock(5, WRITE),
        range(1, 6, WRITE, 20, 29),
    ] {
        daemon.set(&request).unwrap();
    }
    let gone = Whose::Handle {
        handle: Handle(50),
        flock_owner: None,
    };
    daemon.locks.unlock(NodeId(1), gone);
    assert_eq!(daemon.records(), 1);
    assert_eq!(daemon.set(&flock(7, WRITE)), Ok(()));
    assert_eq!(daemon.set(&range(1, 7, WRITE, 0, 9)), Ok(()));
    assert_eq!(daemon.set(&range(1, 7, WRITE, 20, 20)), AGAIN);
}

#[test]
fn waits_until_it_is_its_turn() {
    let host = Host::new();
    let (one, two) = (host.daemon(), host.daemon());
    for (hold, drop_it, want) in [
        (
            range(1, 5, WRITE, 0, 9),
            range(1, 5, UNLOCK, 0, 99),
            range(1, 6, READ, 5, 5),
        ),
        (flock(5, READ), flock(5, UNLOCK), flock(6, WRITE)),
    ] {
        for other in [&two, &one] {
            one.set(&hold).unwrap();
            let waiting = other.wait(want);
            waiting.still_waits();
            one.set(&drop_it).unwrap();
            assert_eq!(waiting.result(), Ok(()));
            assert_eq!(one.set(&hold), AGAIN, "it is held");
            other.locks.reset();
        }
    }
}

/// Told to give up at every moment of its life, a wait ends, and leaves nothing behind.
#[test]
fn gives_up_when_told_to() {
    let host = Host::new();
    let (one, two) = (host.daemon(), host.daemon());
    one.set(&range(1, 5, WRITE, 0, 9)).unwrap();
    one.set(&flock(5, WRITE)).unwrap();
    for round in 0..400 {
        let (request, why) = match round % 2 {
            0 => (range(1, 6, WRITE, 5, 20), Errno::INTR),
            _ => (flock(6, READ), RESTART),
        };
        let waiting = two.wait(request);
        std::thread::sleep(Duration::from_micros(round));
        waiting.cancel.cancel(why);
        assert_eq!(waiting.result(), Err(why));
        assert!(two.locks.has_none(NodeId(1)));
    }
    assert_eq!(
        one.set(&range(1, 7, WRITE, 10, 20)),
        Ok(()),
        "no lock is left"
    );
}

#[test]
fn a_session_that_ends_lets_go_of_all() {
    let host = Host::new();
    let (one, two) = (host.daemon(), host.daemon());
    two.set(&range(1, 5, WRITE, 0, 9)).unwrap();
    one.set(&range(1, 5, WRITE, 10, 19)).unwrap();
    one.set(&flock(5, WRITE)).unwrap();
    let waiting = one.wait(range(1, 5, WRITE, 0, 0));
    waiting.still_waits();
    one.locks.reset();
    assert_eq!(waiting.result(), Err(Errno::INTR));
    assert_eq!((one.records(), one.locks.has_none(NodeId(1))), (0, true));
    assert_eq!(two.set(&range(1, 6, WRITE, 10, 19)), Ok(()));
    assert_eq!(two.set(&flock(6, WRITE)), Ok(()));
    assert_eq!(one.set(&range(1, 5, WRITE, 30, 39)), Ok(()), "the next one");
}

#[test]
fn a_circle_of_waits_is_refused() {
    let host = Host::new();
    let daemon = host.daemon();
    for owner in 1..=3 {
        daemon.set(&range(owner, owner, WRITE, 0, 9)).unwrap();
    }
    let first = daemon.wait(range(2, 1, WRITE, 0, 0));
    let second = daemon.wait(range(3, 2, READ, 9, 9));
    assert_eq!(
        daemon.wait(range(1, 3, WRITE, 5, 5)).result(),
        Err(Errno::DEADLK)
    );
    let third = daemon.wait(range(1, 3, WRITE, 10, 10));
    assert_eq!(third.result(), Ok(()), "nobody is in the way");
    daemon.set(&range(3, 3, UNLOCK, 9, 9)).unwrap();
    assert_eq!(second.result(), Ok(()));
    daemon.locks.unlock(NodeId(2), Whose::Owner(2));
    assert_eq!(first.result(), Ok(()));
    // flock never tells.
    daemon.set(&flock(1, WRITE)).unwrap();
    let waiting = daemon.wait(flock(2, WRITE));
    let other = daemon.wait(range(3, 1, WRITE, 0, 0));
    other.still_waits();
    waiting.still_waits();
    daemon.locks.reset();
}

#[test]
fn a_waiter_keeps_what_it_has_and_loses_it_to_a_close() {
    let host = Host::new();
    let (one, two) = (host.daemon(), host.daemon());
    one.set(&range(1, 5, WRITE, 0, 9)).unwrap();
    two.set(&range(1, 6, READ, 20, 29)).unwrap();
    let waiting = two.wait(range(1, 6, WRITE, 0, 29));
    waiting.still_waits();
    assert_eq!(
        one.set(&range(1, 5, WRITE, 20, 20)),
        AGAIN,
        "it reads still"
    );
    two.locks.unlock(NodeId(1), Whose::Owner(6));
    assert_eq!(one.set(&range(1, 5, WRITE, 20, 20)), Ok(()));
    waiting.still_waits();
    one.locks.reset();
    assert_eq!(waiting.result(), Ok(()));
    assert_eq!(one.set(&range(1, 5, WRITE, 20, 20)), AGAIN);
}

#[test]
fn the_next_process_takes_locks_again() {
    let host = Host::new();
    let first = host.daemon();
    let held = [
        range(1, 5, WRITE, 0, 99),
        range(1, 5, READ, 40, 49),
        range(2, 6, READ, 0, Span::ALL.last),
        flock(5, WRITE),
    ];
    held.iter().for_each(|request| first.set(request).unwrap());
    let gone = range(9, 5, WRITE, 0, 0);
    let key = gone.key;
    let lost = Held {
        span: gone.span,
        exclusive: true,
        pid: 0,
        record: 0,
    };
    first
        .store
        .insert(&record::of(&key, Handle(1), &lost))
        .unwrap();
    // A death loses the descriptors, and nothing else.
    let store = first.store.clone();
    lock(&first.locks.table).clear();
    let rival = host.daemon();
    assert_eq!(rival.set(&range(1, 8, READ, 70, 70)), Ok(()));

    let next = host.daemon_with(store);
    let (kept, lost) = next.locks.restore(|key| host.open(key.node));
    assert_eq!((kept, lost), (4, 2), "one to the rival, one with its file");
    assert_eq!(next.records(), 4);
    assert_eq!(rival.set(&range(1, 8, READ, 45, 45)), Ok(()));
    assert_eq!(rival.set(&range(1, 8, READ, 39, 39)), AGAIN);
    assert_eq!(rival.set(&range(2, 8, WRITE, 7, 7)), AGAIN);
    assert_eq!(rival.set(&flock(8, READ)), AGAIN);
    let released = Whose::Handle {
        handle: Handle(50),
        flock_owner: None,
    };
    next.locks.unlock(NodeId(1), released);
    next.locks.unlock(NodeId(2), Whose::Owner(6));
    assert_eq!(next.records(), 0);
}

/// Up to the last range that there may be, and with no owner more than fits.
#[test]
fn the_next_process_takes_as_many_as_there_were() {
    let host = Host::new();
    let first = host.daemon();
    let at = |number: u64| range(1 + number % 2, number % 100, WRITE, 2 * number, 2 * number);
    first.set(&range(3, 1, READ, 0, 9)).unwrap();
    let full = (0..).find_map(|number| first.set(&at(number)).err());
    assert_eq!(full, Some(Errno::NOLCK));
    // An unlock makes one more.
    first.set(&range(3, 1, UNLOCK, 5, 5)).unwrap();
    assert_eq!(first.records(), RANGES_MAX);
    let store = first.store.clone();
    lock(&first.locks.table).clear();
    let next = host.daemon_with(store);
    let (kept, lost) = next.locks.restore(|key| host.open(key.node));
    assert_eq!((kept, lost, next.records()), (RANGES_MAX, 0, RANGES_MAX));
}

/// One who makes waits by the hundred pays for them; nobody is asked about them without end.
#[test]
fn only_so_many_waits_are_followed() {
    let host = Host::new();
    let daemon = host.daemon();
    // Owner n holds byte n and waits for byte n + 1, and so on up to the last.
    let chain = |len: u64| {
        let held = (0..=len).map(|owner| range(1, owner, WRITE, owner, owner));
        held.for_each(|request| daemon.set(&request).unwrap());
        let wait = |owner| daemon.wait(range(1, owner, WRITE, owner + 1, owner + 1));
        let waits: Vec<_> = (0..len).map(wait).collect();
        (waits, daemon.wait(range(1, len, WRITE, 0, 0)))
    };
    let (waits, last) = chain(20);
    assert_eq!(last.result(), Err(Errno::DEADLK));
    daemon.locks.reset();
    waits
        .iter()
        .for_each(|wait| assert!(wait.result().is_err()));
    let (waits, last) = chain(60);
    last.still_waits();
    daemon.locks.reset();
    waits
        .iter()
        .for_each(|wait| assert!(wait.result().is_err()));
}

#[test]
fn owners_ranges_and_waits_are_bounded() {
    let host = Host::new();
    let mut daemon = host.daemon();
    let locks = Arc::get_mut(&mut daemon.locks).unwrap();
    locks.owners_max = 10;
    for owner in 1..=10 {
        daemon.set(&range(1, owner, READ, 0, 9)).unwrap();
    }
    assert_eq!(daemon.set(&range(2, 11, READ, 0, 9)), Err(Errno::NOLCK));
    assert_eq!(daemon.set(&range(2, 11, UNLOCK, 0, 9)), Ok(()));
    assert_eq!(daemon.set(&range(1, 10, UNLOCK, 0, 9)), Ok(()));
    assert_eq!(
        daemon.set(&range(2, 11, READ, 0, 9)),
        Ok(()),
        "there is room again"
    );
    let mut made = 0;
    let full = loop {
        // Every other byte: none joins another.
        match daemon.set(&range(2, 11, WRITE, 100 + 2 * made, 100 + 2 * made)) {
            Ok(()) => made += 1,
            Err(errno) => break errno,
        }
        assert!(made <= RANGES_MAX as u64);
    };
    assert_eq!(full, Errno::NOLCK);
    assert_eq!(daemon.records(), RANGES_MAX - 1);
    // What is there can go; what would make two of one cannot, at the very end.
    daemon.set(&range(1, 1, UNLOCK, 5, 5)).unwrap();
    let split = range(1, 2, UNLOCK, 5, 5);
    assert_eq!(daemon.set(&split), Err(Errno::NOLCK));
    daemon
        .set(&range(2, 11, UNLOCK, 0, Span::ALL.last))
        .unwrap();
    assert_eq!(daemon.set(&split), Ok(()));
    daemon.locks.reset();
    assert_eq!(daemon.records(), 0);
}
