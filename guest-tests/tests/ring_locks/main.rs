//! Locks between VMs: two daemons on one volume, each with a guest of its own.
//!
//! The same tests run on a striped volume and on a plain directory.

use std::time::{Duration, Instant};

use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::{FileLock, ROOT_ID};
use guest_tests::ring::fuse::{Client, Errno, Error, Handle, Lock, Reply, SessionConfig, Ticket};

/// Makes of each `fn(&Volume)` a test on each kind of volume.
macro_rules! on_both_kinds_of_volume {
    ($($name:ident),* $(,)?) => {
        mod striped {
            $(#[test] fn $name() { super::$name(&guest_tests::fixture::Volume::striped()); })*
        }
        mod posix {
            $(#[test] fn $name() { super::$name(&guest_tests::fixture::Volume::posix()); })*
        }
    };
}

mod hostile;
mod lifetime;
mod ranges;
mod restart;
mod waiting;
mod waits_end;

const RDWR: i32 = libc::O_RDWR;
const READ: i32 = libc::F_RDLCK;
const WRITE: i32 = libc::F_WRLCK;
const UNLOCK: i32 = libc::F_UNLCK;
/// The last byte of a lock that goes to the end of the file.
const END: u64 = i64::MAX as u64;

/// A byte-range lock; the pid tells the owner.
fn range(owner: u64, kind: i32, start: u64, end: u64) -> Lock {
    Lock {
        owner,
        lock: FileLock {
            start,
            end,
            type_: kind as u32,
            pid: 1000_u32.wrapping_add(owner as u32),
        },
        flock: false,
    }
}

/// A lock of the whole file.
fn flock(owner: u64, kind: i32) -> Lock {
    Lock {
        flock: true,
        ..range(owner, kind, 0, END)
    }
}

/// Two guests on a volume, each with the file "f" open.
struct Two {
    left: Mount,
    right: Mount,
    on_left: Handle,
    on_right: Handle,
}

impl Two {
    fn new(volume: &Volume) -> Two {
        Two::with(volume, &SessionConfig::with_queues(2))
    }

    fn with(volume: &Volume, config: &SessionConfig) -> Two {
        let (mut left, mut right) = (volume.mount_with(config), volume.mount_with(config));
        // With data on the targets, where there are any: daemons have locks of their own there.
        left.fs().write_file("/f", &[7; 200_000]).unwrap();
        let (on_left, on_right) = (open(left.fs(), "f"), open(right.fs(), "f"));
        left.fs().read(on_left, 100_000, 1).unwrap();
        Two {
            left,
            right,
            on_left,
            on_right,
        }
    }

    fn left(&mut self, lock: Lock) -> Result<(), Error> {
        let handle = self.on_left;
        self.left.fs().setlk(handle, &lock)
    }

    fn right(&mut self, lock: Lock) -> Result<(), Error> {
        let handle = self.on_right;
        self.right.fs().setlk(handle, &lock)
    }
}

fn open(fs: &mut Client, name: &str) -> Handle {
    let node = fs.lookup(ROOT_ID, name).unwrap().nodeid;
    fs.open(node, RDWR).unwrap()
}

#[track_caller]
fn held(result: Result<(), Error>) {
    result.unwrap();
}

#[track_caller]
fn kept_out(result: Result<(), Error>) {
    assert_eq!(result.unwrap_err(), Errno::AGAIN);
}

/// It is not answered, and the queue serves others meanwhile.
#[track_caller]
fn still_waits<R: Reply>(fs: &mut Client, ticket: Ticket<R>) {
    let end = Instant::now() + Duration::from_millis(50);
    while Instant::now() < end {
        fs.statfs(ROOT_ID).unwrap();
        assert!(!fs.is_done(ticket).unwrap());
    }
}

/// Tries until nobody else's lock is in the way any more: a process takes a moment to die.
#[track_caller]
fn soon(mut lock: impl FnMut() -> Result<(), Error>) {
    let end = Instant::now() + Duration::from_secs(10);
    while let Err(error) = lock() {
        assert_eq!(error, Errno::AGAIN);
        assert!(Instant::now() < end, "it is still locked");
        std::thread::sleep(Duration::from_millis(2));
    }
}
