use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::fs::Errno;
use crate::io::{Pool, Storage, Wait};

fn object_file() -> DataFd {
    DataFd::new(tempfile::tempfile().unwrap().into(), Storage::Device)
}

fn iov(buf: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    }
}

/// Runs one striped operation to its end.
fn run(io: &mut Io, start: impl FnOnce(&mut Io, JoinId)) -> Result<Vec<Short>> {
    let result = Rc::new(RefCell::new(None));
    let out = result.clone();
    let join = io.join(Box::new(move |_, result| *out.borrow_mut() = Some(result)));
    start(io, join);
    io.seal(join);
    while io.in_flight() > 0 {
        io.turn(
            Wait::AtMost(Duration::from_secs(5)),
            &mut Vec::new(),
            &mut Vec::new(),
        )
        .unwrap();
    }
    result.take().expect("the join finished")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// What is written in any ranges is read back in any ranges, with zeros in between.
    #[test]
    fn ranges_come_back(
        unit in 1u64..5,
        count in 1u32..6,
        writes in prop::collection::vec((0u64..100_000, 1usize..60_000), 1..6),
        reads in prop::collection::vec((0u64..120_000, 1usize..60_000), 1..6),
    ) {
        let layout = Layout::new(unit * 4096, count, 0).unwrap();
        let mut io = Io::new(Pool::new(1).unwrap()).unwrap();
        let mut objects: HashMap<u64, DataFd> = HashMap::new();
        let mut model = Vec::new();
        for (round, (offset, len)) in writes.into_iter().enumerate() {
            let mut data: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_add(round as u8 * 31) | 1).collect();
            let end = offset as usize + len;
            model.resize(model.len().max(end), 0);
            model[offset as usize..end].copy_from_slice(&data);
            let list = [iov(&mut data)];
            // SAFETY: `data` and `list` live until `run` has finished.
            let buf = unsafe { Slices::new(&list) };
            let range = Range { layout, offset, len: len as u64, at: 0, buf };
            let result = run(&mut io, |io, join| {
                range.write(io, join, |id| Ok(objects.entry(id).or_insert_with(object_file).clone()));
            });
            prop_assert_eq!(result, Ok(vec![]));
        }
        for (offset, len) in reads {
            let valid = (model.len() as u64).saturating_sub(offset).min(len as u64);
            let mut data = vec![0xEE; len];
            let list = [iov(&mut data)];
            // SAFETY: as above.
            let buf = unsafe { Slices::new(&list) };
            let range = Range { layout, offset, len: len as u64, at: 0, buf };
            let shorts = run(&mut io, |io, join| {
                range.read(io, join, |id| Ok(objects.get(&id).cloned()));
            }).unwrap();
            shorts.iter().for_each(|short| range.fill_short(short, valid));
            let expected: Vec<u8> = model.iter().skip(offset as usize).take(valid as usize).copied().collect();
            prop_assert!(data[..valid as usize] == expected);
        }
    }
}

#[test]
fn an_error_of_one_object_is_the_error_of_the_whole() {
    let layout = Layout::new(4096, 3, 0).unwrap();
    let mut io = Io::new(Pool::new(1).unwrap()).unwrap();
    let mut data = vec![1; 5 * 4096];
    let list = [iov(&mut data)];
    // SAFETY: `data` and `list` live until `run` has finished.
    let buf = unsafe { Slices::new(&list) };
    let range = Range {
        layout,
        offset: 0,
        len: buf.len(),
        at: 0,
        buf,
    };
    let good = object_file();
    let read_only = std::fs::File::open("/dev/null").unwrap();
    let read_only = DataFd::new(read_only.into(), Storage::Device);
    let failed_io = run(&mut io, |io, join| {
        range.write(io, join, |id| {
            Ok(if id == 1 {
                read_only.clone()
            } else {
                good.clone()
            })
        });
    });
    assert_eq!(failed_io, Err(Errno::BADF));
    let failed_open = run(&mut io, |io, join| {
        range.write(io, join, |id| {
            if id == 2 {
                Err(Errno::NOSPC)
            } else {
                Ok(good.clone())
            }
        });
    });
    assert_eq!(failed_open, Err(Errno::NOSPC));
}

#[test]
fn a_range_takes_one_run_per_object() {
    let layout = Layout::new(4096, 4, 0).unwrap();
    let list = [];
    // SAFETY: there is no memory in an empty list.
    let buf = unsafe { Slices::new(&list) };
    let range = Range {
        layout,
        offset: 1000,
        len: 1 << 20,
        at: 0,
        buf,
    };
    assert_eq!(range.runs().count(), 4);
    assert_eq!(
        range
            .runs()
            .map(|(_, run)| run.end - run.start)
            .sum::<u64>(),
        1 << 20
    );
}
