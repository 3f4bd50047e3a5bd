//! Many requests in flight from slots that are used again and again.

use std::time::Duration;

use guest_tests::fixture::{Noise, Volume};
use guest_tests::ring::fuse::abi::{EntryOut, WriteOut, ROOT_ID};
use guest_tests::ring::fuse::{ops, Errno, Error, Pump};
use guest_tests::ring::memory::PAGE_SIZE;

const DEPTH: usize = 16;
const BLOCK: usize = 2 * PAGE_SIZE;
const BLOCKS: usize = 512;

#[test]
fn what_is_written_from_slots_is_read_into_them() {
    let volume = Volume::striped();
    let mut mount = volume.mount();
    for (name, poll) in [
        ("sleeps", Duration::ZERO),
        ("looks", Duration::from_millis(1)),
    ] {
        let fs = mount.fs();
        let (_, file) = fs.create(ROOT_ID, name, 0o644, libc::O_RDWR).unwrap();
        let bytes = Noise::new(5).bytes(BLOCK * BLOCKS);
        let block = |number: usize| &bytes[number * BLOCK..][..BLOCK];
        let mut pump = Pump::new(fs, DEPTH, BLOCK, poll).unwrap();

        let write = |pump: &mut Pump<'_>, slot: usize, number: usize| {
            pump.data(slot).write(0, block(number));
            let request = ops::write(file, (number * BLOCK) as u64, pump.data(slot));
            pump.send(slot, &request).unwrap();
        };
        (0..DEPTH).for_each(|slot| write(&mut pump, slot, slot));
        for number in DEPTH..BLOCKS + DEPTH {
            let answer = pump.next_answer().unwrap().success().unwrap();
            assert_eq!(
                pump.decode::<WriteOut>(answer).unwrap().size as usize,
                BLOCK
            );
            if number < BLOCKS {
                write(&mut pump, answer.slot, number);
            }
        }
        assert_eq!(pump.in_flight(), 0);

        let mut numbers = [0; DEPTH];
        let read = |pump: &mut Pump<'_>, slot: usize, number: usize| {
            let request = ops::read(file, (number * BLOCK) as u64, pump.data(slot));
            pump.send(slot, &request).unwrap();
            number
        };
        for (slot, number) in numbers.iter_mut().enumerate() {
            *number = read(&mut pump, slot, slot);
        }
        for next in DEPTH..BLOCKS + DEPTH {
            let answer = pump.next_answer().unwrap().success().unwrap();
            assert_eq!(answer.len, BLOCK);
            let data = pump.data(answer.slot).to_vec(0, BLOCK);
            assert!(
                data == block(numbers[answer.slot]),
                "block {}",
                numbers[answer.slot]
            );
            if next < BLOCKS {
                numbers[answer.slot] = read(&mut pump, answer.slot, next);
            }
        }
    }
}

#[test]
fn errors_are_answers_and_misuse_is_refused() {
    let volume = Volume::posix();
    let mut mount = volume.mount();
    let mut pump = Pump::new(mount.fs(), 2, PAGE_SIZE, Duration::ZERO).unwrap();
    assert!(matches!(pump.next_answer(), Err(Error::Idle)));
    pump.send(1, &ops::lookup(ROOT_ID, b"nothing")).unwrap();
    let again = pump.send(1, &ops::lookup(ROOT_ID, b"nothing"));
    assert!(matches!(again, Err(Error::Busy)));
    let answer = pump.next_answer().unwrap();
    assert_eq!((answer.slot, answer.errno), (1, Some(Errno::NOENT)));
    assert_eq!(answer.success().unwrap_err(), Errno::NOENT);

    let long = vec![b'x'; PAGE_SIZE];
    let refused = pump.send(0, &ops::lookup(ROOT_ID, &long));
    assert!(matches!(refused, Err(Error::TooLarge(_))));
    pump.send(1, &ops::mkdir(ROOT_ID, b"dir", 0o755, 0))
        .unwrap();
    let answer = pump.next_answer().unwrap().success().unwrap();
    assert!(pump.decode::<EntryOut>(answer).unwrap().nodeid > ROOT_ID);
}

#[test]
fn a_daemon_that_dies_is_an_error() {
    let volume = Volume::posix();
    let mut mount = volume.mount();
    mount.daemon.pause().unwrap();
    let mut pump = Pump::new(mount.session.fs(), 1, PAGE_SIZE, Duration::ZERO).unwrap();
    pump.send(0, &ops::getattr(ROOT_ID, None)).unwrap();
    mount.daemon.kill().unwrap();
    assert!(matches!(pump.next_answer(), Err(Error::Gone { .. })));
}
