use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::fs::{Answer, Reply, Slices, Ticket};

fn io() -> Io {
    Io::new(Pool::new(4).unwrap()).unwrap()
}

fn file(content: &[u8], storage: Storage) -> DataFd {
    use std::io::Write;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    DataFd::new(file.into(), storage)
}

fn wait_done(io: &mut Io) -> Done {
    let mut done = Vec::new();
    while done.is_empty() {
        io.turn(
            Wait::AtMost(Duration::from_secs(5)),
            &mut done,
            &mut Vec::new(),
        )
        .unwrap();
    }
    assert_eq!(done.len(), 1);
    done.pop().unwrap()
}

fn iov(buf: &mut [u8]) -> iovec {
    iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    }
}

#[test]
fn reads_scattered_and_answers() {
    reads_scattered(Storage::Device);
    reads_scattered(Storage::Memory);
}

fn reads_scattered(storage: Storage) {
    let mut io = io();
    let fd = file(b"hello, world", storage);
    let (mut a, mut b) = ([0u8; 5], [0u8; 100]);
    let list = [iov(&mut a), iov(&mut b)];
    // SAFETY: the buffers live until the answer below.
    let slices = unsafe { Slices::new(&list) };
    let reply = Reply::new(io.mailbox(), Ticket(7));
    io.read(&fd, slices.parts(0, u64::MAX), 0, Then::Count(reply));
    let done = wait_done(&mut io);
    assert_eq!(done.ticket, Ticket(7));
    assert!(matches!(done.result, Ok(Answer::Count(12))));
    assert_eq!((&a, &b[..7]), (b"hello", &b", world"[..]));
}

/// Reads `len` bytes at `offset` as one operation of two parts.
fn read_two_parts(io: &mut Io, fd: &DataFd, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let (one, other) = bytes.split_at_mut(len / 3);
    let list = [iov(one), iov(other)];
    // SAFETY: the buffers live until the answer below.
    let slices = unsafe { Slices::new(&list) };
    let reply = Reply::new(io.mailbox(), Ticket(1));
    io.read(fd, slices.parts(0, u64::MAX), offset, Then::Count(reply));
    let Ok(Answer::Count(got)) = wait_done(io).result else {
        panic!("no count");
    };
    bytes.truncate(got as usize);
    bytes
}

#[test]
fn large_reads_are_whole_whether_cached_or_not() {
    let mut io = io();
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n / 7) as u8).collect();
    let fd = file(&content, Storage::Device);
    let forget = |range: std::ops::Range<u64>| {
        rustix::fs::fdatasync(&fd).unwrap();
        let len = std::num::NonZeroU64::new(range.end - range.start);
        rustix::fs::fadvise(&fd, range.start, len, rustix::fs::Advice::DontNeed).unwrap();
    };
    for uncached in [
        0..0,
        0..1 << 20,
        0..400_000,
        400_000..1 << 20,
        500_000..600_000,
    ] {
        if !uncached.is_empty() {
            forget(uncached);
        }
        let whole = read_two_parts(&mut io, &fd, 0, content.len());
        assert!(whole == content, "{} bytes", whole.len());
        let end = read_two_parts(&mut io, &fd, 900_000, 200_000);
        assert!(end == content[900_000..], "{} bytes", end.len());
        assert!(read_two_parts(&mut io, &fd, 1_000_000, 100_000).is_empty());
    }
}

#[test]
fn more_operations_than_ring_entries() {
    let mut io = io();
    let fd = file(&[9u8; 4096], Storage::Device);
    let count = RING_ENTRIES as usize * 3;
    let mut bufs = vec![[0u8; 1]; count];
    let finished = Rc::new(RefCell::new(0));
    for (index, buf) in bufs.iter_mut().enumerate() {
        let finished = finished.clone();
        let then = Then::Call(Box::new(move |_, result| {
            assert_eq!(result, Ok(1));
            *finished.borrow_mut() += 1;
        }));
        io.read(&fd, std::iter::once(iov(buf)), index as u64 % 4096, then);
    }
    while io.in_flight() > 0 {
        io.turn(
            Wait::AtMost(Duration::from_secs(5)),
            &mut Vec::new(),
            &mut Vec::new(),
        )
        .unwrap();
    }
    assert_eq!(*finished.borrow(), count);
    assert!(bufs.iter().all(|buf| buf[0] == 9));
}

#[test]
fn what_is_in_memory_is_done_on_the_spot() {
    let memfd = rustix::fs::memfd_create("data", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(Storage::of(&memfd), Storage::Memory);
    let fd = DataFd::new(memfd, Storage::Memory);
    let mut io = io();
    let done = Rc::new(RefCell::new(Vec::new()));
    let then = || {
        let done = done.clone();
        Then::Call(Box::new(move |_, result| done.borrow_mut().push(result)))
    };
    // More pieces than the kernel takes at once.
    let mut bytes = vec![7u8; 3000];
    let pieces: Vec<_> = bytes.chunks_mut(1).map(iov).collect();
    io.write(&fd, pieces.iter().copied(), 0, then());
    io.append(&fd, pieces[..9].iter().copied(), then());
    io.read(&fd, pieces.iter().copied(), 10, then());
    io.fsync(&fd, true, then());
    io.read(&fd, pieces.iter().copied(), u64::MAX, then());
    assert_eq!(
        *done.borrow(),
        [Ok(3000), Ok(9), Ok(2999), Ok(0), Err(Errno::INVAL)]
    );
    assert_eq!(io.in_flight(), 0);
    assert_eq!(io.take_at_once_bytes(), 3000 + 9 + 2999);
    assert_eq!(io.take_at_once_bytes(), 0);
}

#[test]
fn a_join_reports_short_parts_and_the_first_error() {
    join_reports(Storage::Device);
    join_reports(Storage::Memory);
}

fn join_reports(storage: Storage) {
    let mut io = io();
    let fd = file(b"0123456789", storage);
    let write_only = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .unwrap();
    let write_only = DataFd::new(write_only.into(), storage);
    for (with_error, expected) in [
        (false, Ok(vec![Short { key: 8, got: 2 }])),
        (true, Err(Errno::BADF)),
    ] {
        let mut buf = [0u8; 24];
        let (first, rest) = buf.split_at_mut(8);
        let (second, third) = rest.split_at_mut(8);
        let result = Rc::new(RefCell::new(None));
        let out = result.clone();
        let join = io.join(Box::new(move |_, result| *out.borrow_mut() = Some(result)));
        io.read(
            &fd,
            std::iter::once(iov(first)),
            0,
            Then::Part {
                join,
                key: 0,
                want: 8,
            },
        );
        io.read(
            &fd,
            std::iter::once(iov(second)),
            8,
            Then::Part {
                join,
                key: 8,
                want: 8,
            },
        );
        if with_error {
            io.read(
                &write_only,
                std::iter::once(iov(third)),
                0,
                Then::Part {
                    join,
                    key: 16,
                    want: 8,
                },
            );
        }
        io.seal(join);
        while io.in_flight() > 0 {
            io.turn(
                Wait::AtMost(Duration::from_secs(5)),
                &mut Vec::new(),
                &mut Vec::new(),
            )
            .unwrap();
        }
        assert_eq!(result.borrow_mut().take(), Some(expected));
    }
}

#[test]
fn work_from_other_threads_and_watches_wake_the_worker() {
    let mut io = io();
    let kick: Fd =
        Arc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap());
    io.watch(kick.clone(), 3);
    let mailbox = io.mailbox().clone();
    let reply = Reply::<u32>::new(&mailbox, Ticket(1));
    io.blocking(move || mailbox.run(move |_| reply.ok(5)));
    assert!(matches!(wait_done(&mut io).result, Ok(Answer::Count(5))));
    for _ in 0..3 {
        let remote = kick.clone();
        let thread = std::thread::spawn(move || {
            rustix::io::write(&remote, &1u64.to_ne_bytes()).unwrap();
        });
        let mut fired = Vec::new();
        while fired.is_empty() {
            io.turn(
                Wait::AtMost(Duration::from_secs(5)),
                &mut Vec::new(),
                &mut fired,
            )
            .unwrap();
        }
        assert_eq!(fired[0], 3);
        thread.join().unwrap();
    }
    io.unwatch(3);
    rustix::io::write(&kick, &1u64.to_ne_bytes()).unwrap();
    let mut fired = Vec::new();
    io.turn(
        Wait::AtMost(Duration::from_millis(20)),
        &mut Vec::new(),
        &mut fired,
    )
    .unwrap();
    assert!(fired.is_empty());
}
