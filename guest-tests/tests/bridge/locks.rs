//! Locks between two mounts of a volume. A program that waits for one can be interrupted, which a
//! guest's cannot: virtiofs sends no FUSE_INTERRUPT, `/dev/fuse` does.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use guest_tests::fixture::Volume;
use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;
use rustix::process::Pid;
use vmm_sys_util::signal::{register_signal_handler, Killable, SIGRTMIN};

use crate::support::{eventually, sleeps_in, Bridge};

/// Two mounts of a volume, and a file in it.
struct Two {
    first: Bridge,
    second: Bridge,
}

impl Two {
    fn mount(volume: &Volume, args: &[&str]) -> Option<Two> {
        let first = Bridge::mount(volume, args)?;
        let second = Bridge::mount(volume, args)?;
        File::create_new(first.join("file")).unwrap();
        Some(Two { first, second })
    }

    fn end(self) {
        self.first.end();
        self.second.end();
    }
}

fn open(bridge: &Bridge) -> File {
    let options = &mut File::options();
    let path = bridge.join("file");
    options.read(true).write(true).open(path).unwrap()
}

/// Takes or drops a lock of the whole file, for this open file and not for this process.
fn lock_bytes(file: &File, kind: i32, wait: bool) -> Result<(), Errno> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let command = if wait {
        libc::F_OFD_SETLKW
    } else {
        libc::F_OFD_SETLK
    };
    // SAFETY: fcntl reads the structure, which lives until after the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &lock) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap()),
    }
}

/// Interrupts a thread until it has ended, since a signal may come before its system call.
fn interrupt<T>(thread: JoinHandle<T>) -> T {
    extern "C" fn nothing(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), nothing).unwrap();
    thread::sleep(Duration::from_millis(100));
    eventually("the wait ends by a signal", || {
        thread.is_finished() || thread.kill(SIGRTMIN()).is_err() || thread.is_finished()
    });
    thread.join().unwrap()
}

#[test]
fn a_wait_for_a_range_is_interrupted() {
    let volume = Volume::striped();
    let Some(two) = Two::mount(&volume, &[]) else {
        return;
    };
    let (holder, waiter) = (open(&two.first), open(&two.second));
    lock_bytes(&holder, libc::F_WRLCK, false).unwrap();
    assert_eq!(lock_bytes(&waiter, libc::F_RDLCK, false), Err(Errno::AGAIN));
    let thread = thread::spawn(move || {
        let result = lock_bytes(&waiter, libc::F_RDLCK, true);
        (result, waiter)
    });
    let (result, waiter) = interrupt(thread);
    assert_eq!(result, Err(Errno::INTR));
    // The wait is over for the daemon as well: nobody gets the lock that the holder drops.
    lock_bytes(&holder, libc::F_UNLCK, false).unwrap();
    lock_bytes(&holder, libc::F_WRLCK, false).unwrap();
    lock_bytes(&holder, libc::F_UNLCK, false).unwrap();
    lock_bytes(&waiter, libc::F_WRLCK, true).unwrap();
    drop((holder, waiter));
    two.end();
}

#[test]
fn a_wait_for_a_flock_is_interrupted() {
    let volume = Volume::posix();
    let Some(two) = Two::mount(&volume, &[]) else {
        return;
    };
    let (holder, waiter) = (open(&two.first), open(&two.second));
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    let thread = thread::spawn(move || flock(&waiter, FlockOperation::LockShared));
    assert_eq!(interrupt(thread), Err(Errno::INTR));
    flock(&holder, FlockOperation::Unlock).unwrap();
    drop(holder);
    two.end();
}

/// A process that waits for a lock can be killed.
#[test]
fn a_waiting_process_is_killed() {
    let volume = Volume::striped();
    let Some(two) = Two::mount(&volume, &[]) else {
        return;
    };
    let holder = open(&two.first);
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    let mut command = Command::new("flock");
    let waiting = command.arg(two.second.join("file")).arg("true").spawn();
    let mut waiting = waiting.expect("flock of util-linux");
    let id = Pid::from_child(&waiting);
    eventually("it waits", || sleeps_in(id, libc::SYS_flock));
    waiting.kill().unwrap();
    let mut status = None;
    eventually("it ends", || {
        status = waiting.try_wait().unwrap();
        status.is_some()
    });
    assert!(!status.unwrap().success());
    drop(holder);
    two.end();
}

/// Those who wait leave room for others' requests, however few may be in flight.
#[test]
fn many_wait_and_others_go_on() {
    const WAITERS: usize = 40;
    let volume = Volume::striped();
    let Some(two) = Two::mount(&volume, &["--depth", "2"]) else {
        return;
    };
    let holder = open(&two.first);
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    let begun = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WAITERS {
            scope.spawn(|| {
                let file = open(&two.second);
                begun.fetch_add(1, Ordering::Relaxed);
                flock(&file, FlockOperation::LockExclusive).unwrap();
            });
        }
        eventually("all have begun", || {
            begun.load(Ordering::Relaxed) == WAITERS
        });
        thread::sleep(Duration::from_millis(200));
        let bytes = vec![3; 2 << 20];
        std::fs::write(two.second.join("other"), &bytes).unwrap();
        assert!(std::fs::read(two.second.join("other")).unwrap() == bytes);
        flock(&holder, FlockOperation::Unlock).unwrap();
    });
    drop(holder);
    two.end();
}
