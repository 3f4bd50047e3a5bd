//! Storage that takes its time: the daemon waits for as much of it at once as there is, and for
//! none of it where it takes requests. Needs root and `/dev/fuse`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use guest_tests::fixture::{Noise, Volume, MDT_SIZE};
use guest_tests::ring::fuse::abi::{WriteOut, ROOT_ID};
use guest_tests::ring::fuse::{ops, Client, DataShape, Handle, SessionConfig};
use guest_tests::ring::memory::Buffer;
use guest_tests::simulated::{private_mounts, SimulatedTarget, Speed};

const MIB: usize = 1 << 20;
/// Blocks of a MiB for each target, all in flight at once.
const BLOCKS_PER_TARGET: usize = 4;
const SPEED: Speed = Speed {
    bytes_per_s: 4.0 * MIB as f64,
    latency: Duration::from_millis(1),
};

/// All blocks at once; how long until the last one is through.
fn transfer(fs: &mut Client, file: Handle, blocks: &[Buffer], writes: bool) -> Duration {
    let begin = Instant::now();
    for (index, block) in blocks.iter().enumerate() {
        let offset = (index * MIB) as u64;
        let sent = match writes {
            true => fs.enqueue(&ops::write(file, offset, block), 0).map(drop),
            false => fs.enqueue(&ops::read(file, offset, block), 0).map(drop),
        };
        sent.unwrap();
    }
    fs.kick().unwrap();
    while fs.in_flight() > 0 {
        let done = fs.next_done().unwrap();
        let moved = match writes {
            true => fs
                .wait(done.ticket())
                .map(|out: WriteOut| out.size as usize),
            false => fs.wait::<usize>(done.ticket()),
        };
        assert_eq!(moved.unwrap(), MIB);
    }
    begin.elapsed()
}

/// Writes and reads as much for each target; how long both took.
fn run(targets: usize) -> [Duration; 2] {
    let volume = Volume::striped_as(targets, MIB, MDT_SIZE);
    let mount = |index| {
        let dir = volume.path().join(format!("targets/{index}"));
        SimulatedTarget::mount(&dir, SPEED).unwrap()
    };
    let _targets: Vec<_> = (0..targets).map(mount).collect();
    let mut mount = volume.mount_with(&SessionConfig::default());
    let fs = mount.fs();
    fs.shape = DataShape::Pages;
    let (_, file) = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    let mut noise = Noise::new(targets as u64);
    let contents: Vec<_> = (0..targets * BLOCKS_PER_TARGET)
        .map(|_| noise.bytes(MIB))
        .collect();
    let block = |bytes: &Vec<u8>| {
        let block = fs.memory().alloc_pages(MIB).unwrap();
        block.write(0, bytes);
        block
    };
    let blocks: Vec<_> = contents.iter().map(block).collect();
    let written_in = transfer(fs, file, &blocks, true);
    blocks.iter().for_each(|block| block.fill(0));
    let read_in = transfer(fs, file, &blocks, false);
    for (index, (block, bytes)) in blocks.iter().zip(&contents).enumerate() {
        assert!(&block.to_vec(0, MIB) == bytes, "block {index}");
    }
    [written_in, read_in]
}

/// As much for each of 16 targets as for one takes hardly longer: with half of them waited for at
/// once it would be twice as long. (`bench scale` measures how much longer.)
#[test]
fn all_targets_are_waited_for_at_once() {
    private_mounts().unwrap();
    let one = run(1);
    let sixteen = run(16);
    for (way, (one, sixteen)) in ["write", "read"].iter().zip(one.iter().zip(sixteen)) {
        // No target gives more than its speed.
        let on_targets = (BLOCKS_PER_TARGET * MIB - MDT_SIZE) as f64;
        assert!(
            one.as_secs_f64() >= on_targets / SPEED.bytes_per_s,
            "{way}: {one:?}"
        );
        assert!(sixteen < one.mul_f64(1.6), "{way}: {one:?}, {sixteen:?}");
    }
}

/// Also where the server of a FUSE mount is waited for: io_uring takes its files for such that never
/// make anybody wait.
#[test]
fn a_slow_read_of_a_fuse_mount_holds_up_nothing() {
    private_mounts().unwrap();
    let volume = Volume::posix();
    fs::write(volume.path().join("f"), [7; 4096]).unwrap();
    let speed = Speed {
        bytes_per_s: 1e9,
        latency: Duration::from_secs(1),
    };
    let _target = SimulatedTarget::mount(volume.path(), speed).unwrap();
    let mut mount = volume.mount();
    let fs = mount.fs();
    let node = fs.lookup(ROOT_ID, "f").unwrap().nodeid;
    let file = fs.open(node, libc::O_RDONLY).unwrap();
    let data = fs.memory().alloc_pages(4096).unwrap();
    let begin = Instant::now();
    let slow = fs.submit(&ops::read(file, 0, &data), 0).unwrap();
    // By then it is with the server.
    thread::sleep(speed.latency / 10);
    fs.getattr(ROOT_ID).unwrap();
    assert!(!fs.is_done(slow).unwrap(), "the worker has waited");
    assert_eq!(fs.wait(slow).unwrap(), 4096);
    assert!(begin.elapsed() >= speed.latency);
    assert_eq!(data.to_vec(0, 4096), [7; 4096]);
}
