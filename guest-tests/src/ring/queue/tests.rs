//! The queue against a device played on the same memory.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::*;
use crate::ring::memory::RegionConfig;

fn queue(size: u16, event_idx: bool, indirect: bool) -> Queue {
    let memory = GuestMemory::new(&[RegionConfig {
        guest_addr: 1 << 20,
        len: 1 << 20,
    }])
    .unwrap();
    let config = QueueConfig {
        size,
        event_idx,
        indirect,
    };
    Queue::new(&memory, config).unwrap()
}

const fn segment(addr: u64, len: u32) -> Segment {
    Segment { addr, len }
}

/// The device uses `head`.
fn use_chain(ring: &Ring, head: u32, len: u32) {
    let index = ring.used_index();
    let slot = usize::from(index % ring.size());
    ring.used()
        .write_obj(4 + 8 * slot, &UsedElem { id: head, len });
    ring.used()
        .store_u16(2, index.wrapping_add(1), Ordering::Release);
}

fn read_desc(ring: &Ring, index: u16) -> Descriptor {
    ring.desc().read_obj(16 * usize::from(index))
}

#[test]
fn a_direct_chain_links_its_descriptors() {
    let mut queue = queue(8, false, false);
    let head = queue
        .submit(
            &[segment(0x1000, 40), segment(0x2000, 7)],
            &[segment(0x3000, 16)],
            99,
        )
        .unwrap();
    let ring = Arc::clone(queue.ring());
    let first = read_desc(&ring, head);
    assert_eq!(
        (first.addr, first.len, first.flags),
        (0x1000, 40, DESC_F_NEXT)
    );
    let second = read_desc(&ring, first.next);
    assert_eq!((second.addr, second.flags), (0x2000, DESC_F_NEXT));
    let third = read_desc(&ring, second.next);
    assert_eq!((third.addr, third.flags), (0x3000, DESC_F_WRITE));
    assert_eq!(ring.avail_index(), 1);

    use_chain(&ring, head.into(), 16);
    let used = queue.pop_used().unwrap().unwrap();
    assert_eq!((used.head, used.token, used.len), (head, 99, 16));
    assert_eq!(queue.pop_used().unwrap(), None);
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn an_indirect_chain_takes_one_descriptor() {
    let mut queue = queue(4, false, true);
    for token in 0..4 {
        queue
            .submit(
                &[segment(0x1000, 40)],
                &[segment(0x2000, 16), segment(0x3000, 128)],
                token,
            )
            .unwrap();
    }
    assert!(matches!(
        queue.submit(&[segment(1, 1)], &[], 0),
        Err(Error::Full { wanted: 1, free: 0 })
    ));
    let desc = read_desc(queue.ring(), 0);
    assert_eq!((desc.len, desc.flags), (3 * 16, DESC_F_INDIRECT));
}

#[test]
fn all_descriptors_come_back_in_any_order() {
    let mut queue = queue(16, true, false);
    let ring = Arc::clone(queue.ring());
    for round in 0..10_000_u64 {
        let heads: Vec<u16> = (0..5)
            .map(|i| {
                queue
                    .submit(&[segment(0, 1), segment(1, 1)], &[segment(2, 1)], i)
                    .unwrap()
            })
            .collect();
        assert!(matches!(
            queue.submit(&[segment(0, 1), segment(1, 1)], &[], 5),
            Err(Error::Full { wanted: 2, free: 1 })
        ));
        for i in 0..5 {
            use_chain(&ring, heads[((round + 3 * i) % 5) as usize].into(), 1);
        }
        let mut seen = 0_u64;
        while let Some(used) = queue.pop_used().unwrap() {
            seen |= 1 << used.token;
        }
        assert_eq!(seen, 0b11111);
    }
}

#[test]
fn kicks_follow_the_event_index() {
    let mut queue = queue(8, true, false);
    let ring = Arc::clone(queue.ring());
    let event = ring.avail_event_offset();
    // The device wants to hear of chain 0 only.
    queue.submit(&[segment(0, 1)], &[], 0).unwrap();
    assert!(queue.kick().unwrap());
    queue.submit(&[segment(0, 1)], &[], 0).unwrap();
    assert!(!queue.kick().unwrap());
    ring.used().store_u16(event, 3, Ordering::Relaxed);
    queue.submit(&[segment(0, 1)], &[], 0).unwrap();
    assert!(!queue.kick().unwrap());
    queue.submit(&[segment(0, 1)], &[], 0).unwrap();
    assert!(queue.kick().unwrap());
    assert!(!queue.kick().unwrap(), "nothing new was added");
    assert_eq!(ring.kick().read().unwrap(), 2);
}

#[test]
fn kicks_follow_the_flag() {
    let mut queue = queue(8, false, false);
    let ring = Arc::clone(queue.ring());
    queue.submit(&[segment(0, 1)], &[], 0).unwrap();
    assert!(queue.kick().unwrap());
    ring.used()
        .store_u16(0, USED_F_NO_NOTIFY, Ordering::Relaxed);
    queue.submit(&[segment(0, 1)], &[], 0).unwrap();
    assert!(!queue.kick().unwrap());
}

#[test]
fn calls_are_asked_for_and_not() {
    for event_idx in [false, true] {
        let mut queue = queue(8, event_idx, false);
        let ring = Arc::clone(queue.ring());
        let wants_call = || {
            let old = ring.used_index();
            if event_idx {
                let event = ring
                    .avail()
                    .load_u16(ring.used_event_offset(), Ordering::Relaxed);
                need_event(event, old.wrapping_add(1), old)
            } else {
                ring.avail().load_u16(0, Ordering::Relaxed) & AVAIL_F_NO_INTERRUPT == 0
            }
        };
        for _ in 0..3 {
            assert!(!wants_call());
            let head = queue.submit(&[segment(0, 1)], &[], 0).unwrap();
            assert!(!queue.enable_calls());
            assert!(wants_call());
            use_chain(&ring, head.into(), 0);
            assert!(queue.enable_calls(), "a used chain is there already");
            queue.pop_used().unwrap().unwrap();
            queue.disable_calls();
        }
    }
}

#[test]
fn a_lying_device_is_an_error() {
    let mut queue = queue(8, false, false);
    let ring = Arc::clone(queue.ring());
    let head = queue
        .submit(&[segment(0, 1)], &[segment(1, 16)], 0)
        .unwrap();
    use_chain(&ring, 7, 0);
    assert!(matches!(queue.pop_used(), Err(Error::UsedHead(7))));
    use_chain(&ring, 1 << 20, 0);
    assert!(matches!(queue.pop_used(), Err(Error::UsedHead(_))));
    use_chain(&ring, head.into(), 17);
    assert!(matches!(
        queue.pop_used(),
        Err(Error::UsedLength {
            len: 17,
            room: 16,
            ..
        })
    ));
    use_chain(&ring, head.into(), 0);
    assert!(matches!(queue.pop_used(), Err(Error::UsedIndex { .. })));
}

#[test]
fn what_a_dead_device_owed_is_offered_again() {
    let mut queue = queue(8, false, false);
    let ring = Arc::clone(queue.ring());
    let heads: Vec<u16> = (0..5)
        .map(|i| queue.submit(&[segment(0, 1)], &[], i).unwrap())
        .collect();
    use_chain(&ring, heads[3].into(), 0);
    use_chain(&ring, heads[1].into(), 0);
    while queue.pop_used().unwrap().is_some() {}

    assert_eq!(queue.offer_again(), 2);
    assert_eq!(ring.avail_index(), 5);
    let offered: Vec<u16> = (2..5)
        .map(|position| ring.avail().load_u16(4 + 2 * position, Ordering::Relaxed))
        .collect();
    assert_eq!(offered, [heads[0], heads[2], heads[4]]);
}

#[test]
fn sizes_that_are_no_power_of_two_are_refused() {
    let memory = GuestMemory::default();
    for size in [0, 3, 1000] {
        let config = QueueConfig {
            size,
            event_idx: false,
            indirect: false,
        };
        assert!(matches!(Queue::new(&memory, config), Err(Error::Size(_))));
    }
}
