use super::*;

fn log(fd: &OwnedFd) -> QueueLog {
    InflightLog::open(fd).unwrap().queue(1, 8).unwrap()
}

#[test]
fn what_a_dead_worker_left_is_found_in_order() {
    let fd = InflightLog::create(2, 8).unwrap();
    let mut first = log(&fd);
    assert_eq!(first.start(100, 0), None, "nothing was there before");
    for head in [5, 2, 7, 0] {
        first.popped(head, now_ms());
        first.identify(head, 70 + u64::from(head), 3);
    }
    first.executed(7, 16);
    first.executed(5, 24);
    first.publishing(5);
    first.published(5, 101);
    first.intent(2).record(Intent::Victim { ino: 9 });
    drop(first);

    let mut second = log(&fd);
    let recovery = second.start(101, 3).unwrap();
    assert_eq!(recovery.executed, [(7, 16)]);
    assert_eq!(recovery.popped, [2, 0]);
    assert_eq!(second.intent(2).replayed(), Some(Intent::Victim { ino: 9 }));
    assert_eq!(second.intent(0).replayed(), None);
    assert_eq!((second.replayed(2), second.replayed(2)), (1, 2));
    let seen = second.records().in_flight(now_ms());
    assert_eq!(seen.len(), 3);
    assert_eq!((seen[1].head, seen[1].unique, seen[1].replays), (2, 72, 2));

    second.stop();
    let mut third = log(&fd);
    assert_eq!(third.start(101, 3), None, "stopped in order");
    assert!(!third.in_flight(2));
}

#[test]
fn a_death_around_add_used_publishes_once() {
    for (used_idx, left) in [(7, vec![(3, 16)]), (8, vec![])] {
        let fd = InflightLog::create(2, 8).unwrap();
        let mut first = log(&fd);
        first.start(7, 0);
        first.popped(3, 0);
        first.executed(3, 16);
        first.publishing(3);
        drop(first);
        assert_eq!(log(&fd).start(used_idx, 1).unwrap().executed, left);
    }
}

#[test]
fn a_log_of_another_ring_is_not_taken_up() {
    let fd = InflightLog::create(2, 8).unwrap();
    let mut first = log(&fd);
    first.start(7, 0);
    first.popped(3, 0);
    assert_eq!(log(&fd).start(0, 1), None);
    assert!(!log(&fd).in_flight(3));

    let mut first = log(&fd);
    first.popped(3, 0);
    assert_eq!(log(&fd).start(0, 0), None, "the driver has offered nothing");
}

#[test]
fn what_is_no_log_is_refused() {
    let fd = InflightLog::create(2, 8).unwrap();
    let open = InflightLog::open(&fd).unwrap();
    assert!(matches!(open.queue(2, 8), Err(Error::TooSmall { .. })));
    assert!(matches!(open.queue(0, 16), Err(Error::TooSmall { .. })));

    let blank = rustix::fs::memfd_create("blank", MemfdFlags::CLOEXEC).unwrap();
    let opened = |fd| InflightLog::open(fd).err().unwrap();
    assert!(matches!(opened(&blank), Error::Truncated { .. }));
    rustix::fs::ftruncate(&blank, 4096).unwrap();
    assert!(matches!(opened(&blank), Error::Foreign { version: 0 }));
    rustix::io::pwrite(&blank, &MAGIC.to_ne_bytes(), 0).unwrap();
    rustix::io::pwrite(&blank, &[1, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0], 8).unwrap();
    assert!(matches!(opened(&blank), Error::Truncated { .. }));
}
