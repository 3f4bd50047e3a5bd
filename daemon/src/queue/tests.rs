use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::testing::*;
use super::*;

fn queue(driver: &Driver, event_idx: bool) -> Queue {
    let log = QueueLog::private(driver.size).unwrap();
    let state = driver.state(event_idx);
    Queue::start(state, true, driver.snapshot(), log).unwrap().0
}

/// What becomes of a chain that starts at descriptor 0.
fn walk(driver: &Driver, chain: &mut Chain) -> Result<(), ChainError> {
    queue(driver, false).chain_of(0, chain)
}

#[test]
fn requests_come_and_go() {
    let mut driver = Driver::new(8);
    let mut queue = queue(&driver, false);
    let mut chain = Chain::default();
    assert_eq!(queue.pop(&mut chain, 0).unwrap(), None);
    // Three times around the ring.
    for round in 0..24u16 {
        let head = round % 4 * 2;
        driver.request(head, b"hello");
        driver.offer(head);
        let popped = queue.pop(&mut chain, 0).unwrap().unwrap();
        assert_eq!((popped.head, popped.chain), (head, Ok(())));
        assert_eq!((chain.readable_len(), chain.writable_len()), (5, 64));
        let mut sent = [0; 5];
        chain.reader().read(&mut sent);
        assert_eq!(&sent, b"hello");
        assert!(queue.log().in_flight(head));
        queue.complete(head, u32::from(round));
        assert!(!queue.log().in_flight(head));
        assert_eq!(driver.used(), [(u32::from(head), u32::from(round))]);
    }
    assert_eq!(queue.next_avail(), 24);
}

#[test]
fn an_indirect_table_may_follow_and_may_be_in_two_regions() {
    let driver = Driver::new(8);
    let table = SEAM - 16;
    driver.desc(0, (DATA, 16, NEXT, 3));
    driver.desc(3, (table, 48, INDIRECT | WRITE, 0));
    driver.put_desc(table, 0, (DATA + 16, 8, NEXT, 2));
    driver.put_desc(table, 2, (SEAM - 4, 8, WRITE | NEXT, 1));
    driver.put_desc(table, 1, (SEAM + 0x1000, 100, WRITE, 0));
    let mut chain = Chain::default();
    assert_eq!(walk(&driver, &mut chain), Ok(()));
    assert_eq!((chain.readable_len(), chain.writable_len()), (24, 108));
    assert_eq!(chain.readable.len(), 1, "neighbours are joined");
}

#[test]
fn what_is_fetched_ahead_may_be_strange() {
    let strange: &[(u16, Desc)] = &[
        (1, (END, 16, 0, 0)),
        (2, (u64::MAX - 8, 32, INDIRECT, 0)),
        (3, (SEAM - 8, 16, INDIRECT, 0)),
        (4, (DATA + 1, 16, INDIRECT, 0)),
        (5, (DATA, 15, INDIRECT, 0)),
        (6, (DATA, 0, INDIRECT, 0)),
    ];
    let heads = strange.iter().map(|(head, _)| *head);
    for ahead in heads.chain([7, 8, u16::MAX]) {
        let mut driver = Driver::new(8);
        strange
            .iter()
            .for_each(|(index, desc)| driver.desc(*index, *desc));
        driver.request(0, b"good");
        driver.offer(0);
        // As the next, as the one after it, and as the third.
        (0..3).for_each(|_| driver.offer(ahead));
        let (mut queue, mut chain) = (queue(&driver, false), Chain::default());
        let popped = queue.pop(&mut chain, 0).unwrap().unwrap();
        assert_eq!((popped.head, popped.chain), (0, Ok(())), "before {ahead}");
        assert_eq!(chain.readable_len(), 4);
        assert_eq!(queue.next_avail(), 1);
    }
}

#[test]
fn a_bad_chain_is_told_apart() {
    let bad = |expected, descs: &[(u16, Desc)], table: &[(u16, Desc)]| {
        let driver = Driver::new(8);
        descs
            .iter()
            .for_each(|(index, desc)| driver.desc(*index, *desc));
        table
            .iter()
            .for_each(|(index, desc)| driver.put_desc(SEAM, *index, *desc));
        let found = walk(&driver, &mut Chain::default());
        assert_eq!(found, Err(expected), "{descs:x?} {table:x?}");
    };
    bad(ChainError::Unmapped, &[(0, (END - 4, 8, 0, 0))], &[]);
    bad(ChainError::Unmapped, &[(0, (u64::MAX - 4, 8, 0, 0))], &[]);
    bad(ChainError::Unmapped, &[(0, (END, 16, INDIRECT, 0))], &[]);
    bad(
        ChainError::Unmapped,
        &[(0, (u64::MAX - 8, 32, INDIRECT, 0))],
        &[],
    );
    bad(ChainError::Empty, &[(0, (DATA, 0, 0, 0))], &[]);
    bad(ChainError::Link, &[(0, (DATA, 1, NEXT, 8))], &[]);
    bad(ChainError::Link, &[(0, (DATA, 1, NEXT, u16::MAX))], &[]);
    bad(ChainError::Endless, &[(0, (DATA, 1, NEXT, 0))], &[]);
    let to_two = [(0, (DATA, 1, NEXT, 1)), (1, (DATA, 1, NEXT, 0))];
    bad(ChainError::Endless, &to_two, &[]);
    let large = [(0, (DATA, 0x20_0000, NEXT | WRITE, 0))];
    bad(ChainError::Endless, &large, &[]);
    let order = [(0, (DATA, 1, NEXT | WRITE, 1)), (1, (DATA, 1, 0, 0))];
    bad(ChainError::Order, &order, &[]);
    let both = [(0, (SEAM, 16, INDIRECT | NEXT, 1))];
    bad(ChainError::Indirect, &both, &[]);
    let indirect = [(0, (SEAM, 32, INDIRECT, 0))];
    bad(
        ChainError::Indirect,
        &indirect,
        &[(0, (SEAM, 16, INDIRECT, 0))],
    );
    bad(ChainError::Link, &indirect, &[(0, (DATA, 1, NEXT, 2))]);
    bad(ChainError::Endless, &indirect, &[(0, (DATA, 1, NEXT, 0))]);
    for len in [0, 15, 17] {
        bad(
            ChainError::IndirectSize,
            &[(0, (SEAM, len, INDIRECT, 0))],
            &[],
        );
    }
}

#[test]
fn no_chain_is_larger_than_its_length_field() {
    let driver = Driver::new(1024);
    let len = (END - DATA) as u32;
    for index in 0..1024 {
        driver.desc(index, (DATA, len, NEXT | WRITE, index + 1));
    }
    // 3 MiB each: the sum passes 4 GiB.
    driver.desc(1023, (DATA, len, NEXT | WRITE, 0));
    let found = walk(&driver, &mut Chain::default());
    assert!(matches!(
        found,
        Err(ChainError::Endless | ChainError::TooLarge)
    ));
}

#[test]
fn indirect_is_refused_where_it_was_not_negotiated() {
    let driver = Driver::new(8);
    driver.desc(0, (SEAM, 16, INDIRECT, 0));
    driver.put_desc(SEAM, 0, (DATA, 8, 0, 0));
    let log = QueueLog::private(8).unwrap();
    let (queue, _) = Queue::start(driver.state(false), false, driver.snapshot(), log).unwrap();
    let found = queue.chain_of(0, &mut Chain::default());
    assert_eq!(found, Err(ChainError::Indirect));
}

#[test]
fn a_bad_ring_is_an_error() {
    let mut chain = Chain::default();

    let mut driver = Driver::new(8);
    let mut far = queue(&driver, false);
    driver.set_avail_idx(9);
    assert!(matches!(far.pop(&mut chain, 0), Err(Error::Index { .. })));

    let mut outside = queue(&driver, false);
    driver.reset();
    driver.offer(8);
    assert!(matches!(
        outside.pop(&mut chain, 0),
        Err(Error::Head { head: 8, size: 8 })
    ));

    driver.reset();
    let mut twice = queue(&driver, false);
    driver.request(2, b"x");
    driver.offer(2);
    driver.offer(2);
    twice.pop(&mut chain, 0).unwrap();
    assert!(matches!(
        twice.pop(&mut chain, 0),
        Err(Error::Busy { head: 2 })
    ));

    for change in [
        |state: &mut QueueState| state.used_ring = END - 8,
        |state: &mut QueueState| state.desc_table = SEAM - 16,
        |state: &mut QueueState| state.avail_ring = u64::MAX - 1,
        |state: &mut QueueState| state.avail_ring = 3,
        |state: &mut QueueState| state.size = 12,
    ] {
        let mut state = driver.state(false);
        change(&mut state);
        let log = QueueLog::private(8).unwrap();
        let started = Queue::start(state, true, driver.snapshot(), log);
        assert!(matches!(
            started.err(),
            Some(Error::Unmapped | Error::Setup(_))
        ));
    }
}

#[test]
fn notifications_are_suppressed_as_asked() {
    let mut chain = Chain::default();
    for event_idx in [false, true] {
        let mut driver = Driver::new(8);
        let mut queue = queue(&driver, event_idx);
        let mut turn = |driver: &mut Driver, queue: &mut Queue| {
            driver.request(0, b"x");
            driver.offer(0);
            queue.pop(&mut chain, 0).unwrap();
            queue.complete(0, 0);
            queue.needs_signal()
        };
        assert!(turn(&mut driver, &mut queue));
        if event_idx {
            driver.set_used_event(3);
            assert!(!turn(&mut driver, &mut queue));
            assert!(!turn(&mut driver, &mut queue));
            assert!(turn(&mut driver, &mut queue), "the fourth was waited for");
            assert!(!queue.enable_kicks().unwrap());
            assert_eq!(driver.avail_event(), 4);
        } else {
            driver.set_avail_flags(1);
            assert!(!turn(&mut driver, &mut queue));
        }
        driver.offer(0);
        assert!(queue.enable_kicks().unwrap(), "one came in meanwhile");
    }
}

proptest! {
    /// Whatever the guest writes, a chain is an error or lies within its memory.
    #[test]
    fn any_descriptors(
        descs in prop::collection::vec(
            (0..END + 64, prop_oneof![0u32..64, any::<u32>()], 0u16..8, 0u16..10), 8),
        table in prop::collection::vec((0..END, 0u32..64, 0u16..8, 0u16..10), 4),
    ) {
        let driver = Driver::new(8);
        for (index, desc) in descs.iter().enumerate() {
            let mut desc = *desc;
            if desc.2 & INDIRECT != 0 {
                (desc.0, desc.1) = (SEAM + desc.0 % 16, desc.1 / 4 * 4);
            }
            driver.desc(index as u16, desc);
        }
        for (index, desc) in table.iter().enumerate() {
            driver.put_desc(SEAM, index as u16, *desc);
        }
        let mut chain = Chain::default();
        if walk(&driver, &mut chain).is_ok() {
            let first = driver.memory.get_host_address(GuestAddress(0)).unwrap() as usize;
            let second = driver.memory.get_host_address(GuestAddress(SEAM)).unwrap() as usize;
            let regions = [(first, SEAM as usize), (second, (END - SEAM) as usize)];
            for iov in chain.readable.iter().chain(&chain.writable) {
                let start = iov.iov_base as usize;
                prop_assert!(iov.iov_len > 0);
                // The two regions may happen to be neighbours in this process too.
                let end = start + iov.iov_len;
                let within = |at: usize| regions.iter().any(|(r, len)| at >= *r && at <= r + len);
                prop_assert!(within(start) && within(end));
            }
        }
    }
}

#[test]
fn a_ring_goes_on_where_it_was() {
    let mut driver = Driver::new(8);
    let mut chain = Chain::default();
    let mut first = queue(&driver, false);
    for head in [0, 2, 4] {
        driver.request(head, b"x");
        driver.offer(head);
    }
    first.pop(&mut chain, 0).unwrap();
    first.complete(0, 1);
    first.stop();
    let mut state = driver.state(false);
    state.next_avail = first.next_avail();
    let log = QueueLog::private(8).unwrap();
    let (mut second, left) = Queue::start(state, true, driver.snapshot(), log).unwrap();
    assert_eq!(left, None);
    assert_eq!(second.pop(&mut chain, 0).unwrap().unwrap().head, 2);
    second.complete(2, 2);
    assert_eq!(driver.used(), [(0, 1), (2, 2)]);
    let avail: u16 = driver.memory.read_obj(GuestAddress(0x1_0002)).unwrap();
    assert_eq!(avail, 3);
}
