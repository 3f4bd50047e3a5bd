//! Appends: they go to the end of the file, wherever the guest takes it to be, and no byte of
//! anybody is lost.

use std::thread;

use guest_tests::crash::{dies_when_told, POINTS};
use guest_tests::fixture::{Heritage, Mount, Volume};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{ops, Handle, SessionConfig};

const APPEND: i32 = libc::O_WRONLY | libc::O_APPEND;
const RECORD: usize = 1000;

fn volumes() -> [Volume; 2] {
    [Volume::posix(), Volume::striped()]
}

/// A record that no other is like.
fn record(writer: usize, index: usize) -> Vec<u8> {
    let mut bytes = format!("writer {writer} record {index:06} ").into_bytes();
    bytes.resize(RECORD - 1, b'.');
    bytes.push(b'\n');
    bytes
}

fn open(mount: &mut Mount, name: &str) -> Handle {
    let node = mount.fs().lookup(ROOT_ID, name).unwrap().nodeid;
    mount.fs().open(node, APPEND).unwrap()
}

fn read(mount: &mut Mount) -> Vec<u8> {
    mount.fs().read_file("/f").unwrap()
}

#[test]
fn the_guests_idea_of_the_end_does_not_matter() {
    for volume in volumes() {
        let mut mount = volume.mount();
        let fs = mount.fs();
        fs.create(ROOT_ID, "f", 0o600, APPEND).unwrap();
        let handle = open(&mut mount, "f");
        let mut expected = Vec::new();
        for (index, offset) in [0, 0, 5, 1 << 40, 2 * RECORD].into_iter().enumerate() {
            let bytes = record(0, index);
            let fs = mount.fs();
            let data = fs.memory().alloc_pages(RECORD).unwrap();
            data.write(0, &bytes);
            let request = ops::append(handle, offset as u64, &data.slice(0, RECORD));
            assert_eq!(fs.call(&request).unwrap().size as usize, RECORD);
            expected.extend(bytes);
        }
        assert!(read(&mut mount) == expected);
    }
}

/// Two daemons with many appends in flight each: every record is there once and whole, and each
/// writer's are in their order.
#[test]
fn two_vms_lose_nothing() {
    const BATCH: usize = 16;
    const BATCHES: usize = 60;
    for volume in volumes() {
        let (mut left, mut right) = (volume.mount(), volume.mount());
        left.fs().create(ROOT_ID, "f", 0o600, APPEND).unwrap();
        let write = |mount: &mut Mount, writer: usize| {
            let handle = open(mount, "f");
            let fs = mount.fs();
            let data = fs.memory().alloc_pages(BATCH * RECORD).unwrap();
            for batch in 0..BATCHES {
                let mut tickets = Vec::new();
                for index in 0..BATCH {
                    let number = batch * BATCH + index;
                    data.write(index * RECORD, &record(writer, number));
                    // Where this guest would see the end if it were alone.
                    let offset = (number * RECORD) as u64;
                    let part = data.slice(index * RECORD, RECORD);
                    tickets.push(fs.submit(&ops::append(handle, offset, &part), 0).unwrap());
                }
                for ticket in tickets {
                    assert_eq!(fs.wait(ticket).unwrap().size as usize, RECORD);
                }
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| write(&mut left, 0));
            scope.spawn(|| write(&mut right, 1));
        });
        let bytes = read(&mut left);
        assert_eq!(bytes.len(), 2 * BATCH * BATCHES * RECORD);
        let mut next = [0, 0];
        for found in bytes.chunks(RECORD) {
            let writer = usize::from(found.get(7) == Some(&b'1'));
            assert!(
                found == record(writer, next[writer]),
                "writer {writer}, record {}: {}",
                next[writer],
                String::from_utf8_lossy(&found[..24])
            );
            next[writer] += 1;
        }
    }
}

/// A daemon dies at each place in the life of appends; the next one repeats none that was done.
#[test]
fn none_is_lost_or_doubled_by_a_restart() {
    if !dies_when_told() {
        return;
    }
    const COUNT: usize = 6;
    for volume in volumes() {
        let heritage = Heritage::new();
        let daemon = heritage.pass_to(volume.daemon());
        let mut mount = Mount::start(daemon, &SessionConfig::default());
        mount.fs().create(ROOT_ID, "f", 0o600, APPEND).unwrap();
        let handle = open(&mut mount, "f");
        // Not by name: a FORGET in flight would pass a crash point, too.
        let reader = mount.fs().open(handle.nodeid, libc::O_RDONLY).unwrap();
        let mut expected = Vec::new();
        for (round, point) in POINTS.iter().flat_map(|p| [(1, p), (3, p)]).enumerate() {
            let (at, point) = point;
            mount.daemon.kill().unwrap();
            let mortal = volume.daemon().env("PFS_CRASH_AT", format!("{point}:{at}"));
            mount.resume_with(heritage.pass_to(mortal));
            let fs = mount.fs();
            let data = fs.memory().alloc_pages(COUNT * RECORD).unwrap();
            let mut tickets = Vec::new();
            for index in 0..COUNT {
                let bytes = record(round, index);
                data.write(index * RECORD, &bytes);
                let offset = (expected.len()) as u64;
                let part = data.slice(index * RECORD, RECORD);
                tickets.push(fs.enqueue(&ops::append(handle, offset, &part), 0).unwrap());
                expected.extend(bytes);
            }
            fs.kick().unwrap();
            mount.daemon.wait().unwrap();
            mount.resume_with(heritage.pass_to(volume.daemon()));
            for ticket in tickets {
                let written = mount.fs().wait(ticket).unwrap();
                assert_eq!(written.size as usize, RECORD, "{point} {at}");
            }
            let there = mount.fs().read_to_end(reader).unwrap();
            assert!(there == expected, "{point} {at}");
        }
    }
}
