//! Several daemons on one file at once.

use std::sync::Mutex;

use super::*;

#[test]
fn daemons_that_extend_one_file_at_once_lose_nothing() {
    const WRITES: u64 = 200;
    let rig = Rig::new(2);
    rig.mount().create(c"log");
    let writer = |lane: u64| {
        let mut mount = rig.mount();
        let file = mount.open(c"log");
        let mut size = 0;
        for index in 0..WRITES {
            // The lanes interleave, so each extends over what the other has not written yet.
            let offset = (index * 2 + lane) * 3000;
            mount.write(file, offset, &[lane as u8 + 1; 3000]);
            let now = mount.size(file);
            assert!(
                now >= size && now >= offset + 3000,
                "the file shrank from {size} to {now}"
            );
            size = now;
        }
        mount.release(file);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| writer(0));
        scope.spawn(|| writer(1));
    });
    let mut mount = rig.mount();
    let file = mount.open(c"log");
    let data = mount.read(file, 0, (WRITES * 2 * 3000) as usize + 1);
    assert_eq!(data.len() as u64, WRITES * 2 * 3000);
    for (index, part) in data.chunks(3000).enumerate() {
        assert!(
            part.iter().all(|byte| *byte == index as u8 % 2 + 1),
            "write {index} is damaged"
        );
    }
}

#[test]
fn daemons_that_append_to_one_file_lose_nothing() {
    const WRITES: u64 = 300;
    const WRITERS: usize = 3;
    let rig = Rig::new(3);
    rig.mount().create(c"log");
    let len_of = |writer: usize, index: u64| 1000 * (writer as u64 + 1) + index;
    let byte_of = |writer: usize, index: u64| (writer as u64 * 80 + index % 80) as u8 + 1;
    let writer = |writer: usize| {
        let mut mount = rig.mount();
        let file = mount.open(c"log");
        for index in 0..WRITES {
            let data = vec![byte_of(writer, index); len_of(writer, index) as usize];
            // What it takes for the end does not matter.
            mount.append(file, index * 7 % 5000, &data);
            assert!(mount.size(file) >= data.len() as u64);
        }
        mount.release(file);
    };
    std::thread::scope(|scope| {
        for lane in 0..WRITERS {
            scope.spawn(move || writer(lane));
        }
    });
    let mut mount = rig.mount();
    let file = mount.open(c"log");
    let data = mount.read(file, 0, 16 << 20);
    let (mut rest, mut next) = (&data[..], [0; WRITERS]);
    while let Some(first) = rest.first() {
        let writer = usize::from(first - 1) / 80;
        let index = next[writer];
        let (record, tail) = rest.split_at(len_of(writer, index) as usize);
        let whole = record.iter().all(|byte| *byte == byte_of(writer, index));
        assert!(whole, "record {index} of writer {writer}");
        next[writer] += 1;
        rest = tail;
    }
    assert_eq!(next, [WRITES; WRITERS]);
}

#[test]
fn daemons_that_make_the_objects_of_one_file_note_them_all() {
    let rig = Rig::new(4);
    for _ in 0..50 {
        rig.mount().create(c"f");
        let step = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for object in 0..4 {
                let (rig, step) = (&rig, &step);
                scope.spawn(move || {
                    let mut mount = rig.mount();
                    let file = mount.open(c"f");
                    step.wait();
                    mount.write(file, MDT_SIZE + object * UNIT, &[1; UNIT as usize]);
                    mount.release(file);
                });
            }
        });
        let meta = std::fs::File::open(rig.path().join("meta/namespace/f")).unwrap();
        let record = Record::load(&meta).unwrap().unwrap();
        assert!((0..4).all(|column| record.made.has(column)));
        rig.mount().unlink(c"f");
    }
}

#[test]
fn an_append_that_stays_in_the_inode_makes_no_object() {
    let rig = Rig::new(2);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    for _ in 0..8 {
        mount.append(file, 0, &[1; 1000]);
    }
    assert!(rig.objects().iter().all(Vec::is_empty));
    assert_eq!(mount.read(file, 0, 9000), [1; 8000]);
    mount.append(file, 0, &[2; 1000]);
    assert_eq!(
        mount.read(file, 0, 9999),
        [vec![1; 8000], vec![2; 1000]].concat()
    );
    assert!(!rig.objects().concat().is_empty());
}

/// A file's size before each round: a write to it takes long enough to be met half-way.
const WHOLE: u64 = 6 << 20;

/// Rounds of one write in one daemon and some truncations, to `cuts`, in another, at once. The file
/// then has either the write's bytes, all of them, and a size of `with`; or none, and one of
/// `without`.
fn truncate_while_writing(write: std::ops::Range<u64>, cuts: &[u64], with: u64, without: u64) {
    const ROUNDS: usize = 60;
    let rig = Rig::new(3);
    let step = std::sync::Barrier::new(2);
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut mount = rig.mount();
            for _ in 0..ROUNDS {
                step.wait();
                if failure.lock().unwrap().is_some() {
                    return;
                }
                let file = mount.open(c"f");
                step.wait();
                for size in cuts {
                    mount.set_size(file, *size);
                }
                step.wait();
                mount.release(file);
            }
        });
        let mut mount = rig.mount();
        for round in 0..ROUNDS {
            let file = mount.create(c"f");
            mount.write(file, 0, &vec![1; WHOLE as usize]);
            step.wait();
            let bytes = vec![2; (write.end - write.start) as usize];
            step.wait();
            mount.write(file, write.start, &bytes);
            step.wait();
            let data = mount.read(file, 0, 2 * WHOLE as usize);
            let cut = *cuts.iter().min().unwrap();
            let wrong = what_is_wrong(&data, &write, cut, with, without);
            let beyond = !rig.ends_at(data.len() as u64);
            let wrong = wrong.or(beyond.then_some("bytes beyond the end"));
            if let Some(what) = wrong {
                *failure.lock().unwrap() = Some(format!("round {round}: {what}"));
                step.wait();
                return;
            }
            mount.unlink(c"f");
            mount.release(file);
        }
    });
    assert_eq!(failure.into_inner().unwrap(), None);
}

fn what_is_wrong(
    data: &[u8],
    write: &std::ops::Range<u64>,
    cut: u64,
    with: u64,
    without: u64,
) -> Option<&'static str> {
    let size = data.len() as u64;
    let all = |from: u64, to: u64, byte: u8| {
        let part = &data[from.min(size) as usize..to.min(size) as usize];
        part.iter().all(|found| *found == byte)
    };
    if !all(0, cut, 1) {
        return Some("what nobody touched is damaged");
    }
    if !all(cut, write.start, 0) || !all(write.end, u64::MAX, 0) {
        return Some("old bytes are there again");
    }
    let there = all(write.start, write.end, 2) && size == with;
    let cut_off = all(write.start, write.end, 0) && size == without;
    (!there && !cut_off).then_some("half of the write is there")
}

#[test]
fn a_write_and_a_truncation_at_once_come_one_after_the_other() {
    let (write, cut) = (WHOLE / 8..WHOLE * 7 / 8, WHOLE / 16);
    truncate_while_writing(write.clone(), &[cut], write.end, cut);
}

#[test]
fn a_write_beyond_the_end_and_a_truncation_at_once_do_too() {
    let (write, cut) = (WHOLE * 7 / 8..WHOLE * 9 / 8, WHOLE / 16);
    truncate_while_writing(write.clone(), &[cut], write.end, cut);
}

#[test]
fn a_write_is_not_cut_in_half_by_a_truncation_and_an_extension() {
    let (write, cut) = (WHOLE / 8..WHOLE * 7 / 8, WHOLE / 16);
    truncate_while_writing(write, &[cut, WHOLE], WHOLE, WHOLE);
}
