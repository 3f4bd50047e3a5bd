//! Queues: how many, how large, with which ring features; many requests in flight on them,
//! stopped and started, in memory that came later.

use std::thread;

use guest_tests::fixture::{Noise, Volume};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{ops, Client, DataShape, Errno, Error, Handle, SessionConfig};
use guest_tests::ring::memory::{Buffer, RegionConfig, PAGE_SIZE};

const RDWR: i32 = libc::O_RDWR;
/// Bytes of one read of the pipelines: neither a whole page nor a part of one.
const PART: usize = 9000;

/// A file with numbered parts, for readers that must tell them apart.
fn numbered(fs: &mut Client, parts: usize) -> (Handle, Vec<u8>) {
    let bytes = Noise::new(9).bytes(parts * PART);
    fs.write_file("/numbered", &bytes).unwrap();
    let node = fs.lookup(ROOT_ID, "numbered").unwrap().nodeid;
    (fs.open(node, libc::O_RDONLY).unwrap(), bytes)
}

/// Reads all parts, `rounds` times over, with as many in flight as there are buffers; replies
/// come in any order.
fn pipeline(fs: &mut Client, file: Handle, bytes: &[u8], depth: usize, rounds: usize) {
    let parts = bytes.len() / PART;
    let buffer = || fs.memory().alloc_pages(PART).unwrap();
    let buffers: Vec<Buffer> = (0..depth).map(|_| buffer()).collect();
    let mut idle: Vec<usize> = (0..depth).collect();
    let (mut sent, mut taken) = (0, 0);
    while taken < parts * rounds {
        while sent < parts * rounds {
            let Some(index) = idle.pop() else { break };
            let part = sent * 7 % parts;
            let request = ops::read(file, (part * PART) as u64, &buffers[index]);
            match fs.enqueue(&request, (part << 16 | index) as u64) {
                Ok(_) => sent += 1,
                Err(Error::Busy) => {
                    idle.push(index);
                    break;
                }
                Err(e) => panic!("{e}"),
            }
        }
        fs.kick().unwrap();
        let done = fs.next_done().unwrap();
        assert_eq!(fs.wait::<usize>(done.ticket()).unwrap(), PART);
        let (part, index) = ((done.tag >> 16) as usize, (done.tag & 0xffff) as usize);
        let expected = &bytes[part * PART..][..PART];
        assert!(buffers[index].to_vec(0, PART) == expected, "part {part}");
        idle.push(index);
        taken += 1;
    }
    assert_eq!(fs.in_flight(), 0);
}

#[test]
fn one_to_sixteen_request_queues() {
    let volume = Volume::striped();
    for queues in [1, 2, 4, 16] {
        let mut config = SessionConfig::with_queues(queues);
        config.device.queue_size = 128;
        config.depth = 24;
        let mut mount = volume.mount_with(&config);
        let (file, bytes) = numbered(mount.fs(), 40);
        let bytes = &bytes;
        thread::scope(|scope| {
            for (index, mut client) in mount.session.clients.drain(..).enumerate() {
                scope.spawn(move || {
                    pipeline(&mut client, file, bytes, 16, 3);
                    let name = format!("{queues}-{index}");
                    let node = client.mkdir(ROOT_ID, &name, 0o755).unwrap().nodeid;
                    client.forget(node, 1).unwrap();
                    client.drain_hiprio().unwrap();
                });
            }
        });
        // All went through one device: it has had a request on each of its rings.
        for ring in mount.session.device.rings() {
            assert!(ring.used_index() > 0);
        }
    }
}

#[test]
fn every_ring_feature_at_every_size() {
    let volume = Volume::striped();
    for (event_idx, indirect) in [(false, false), (true, false), (false, true), (true, true)] {
        for queue_size in [16, 64, 256, 1024, 4096] {
            let mut config = SessionConfig::with_queues(2);
            config.device.event_idx = event_idx;
            config.device.indirect = indirect;
            config.device.queue_size = queue_size;
            config.depth = 32;
            let mut mount = volume.mount_with(&config);
            let shape = mount.fs().queue().config();
            assert_eq!((shape.event_idx, shape.indirect), (event_idx, indirect));
            let (file, bytes) = numbered(mount.fs(), 20);
            mount.fs().shape = DataShape::Pages;
            pipeline(mount.fs(), file, &bytes, 20, 4);
            assert!(mount.fs().read_file("/numbered").unwrap() == bytes);
            let node = mount.fs().lookup(ROOT_ID, "numbered").unwrap().nodeid;
            mount.fs().forget(node, 2).unwrap();
            mount.fs().drain_hiprio().unwrap();
        }
    }
}

/// The index of a ring is 16 bits wide, and goes round.
#[test]
fn more_requests_than_an_index_counts() {
    let mut mount = Volume::posix().mount();
    let fs = mount.fs();
    let mut left = 70_000;
    while left > 0 {
        while left > 0 && fs.in_flight() < 60 {
            fs.enqueue(&ops::access(ROOT_ID, 0), 0).unwrap();
            left -= 1;
        }
        fs.kick().unwrap();
        let done = fs.next_done().unwrap();
        fs.wait::<()>(done.ticket()).unwrap();
        while let Some(done) = fs.poll_done().unwrap() {
            fs.wait::<()>(done.ticket()).unwrap();
        }
    }
    while fs.in_flight() > 0 {
        let done = fs.next_done().unwrap();
        fs.wait::<()>(done.ticket()).unwrap();
    }
    fs.getattr(ROOT_ID).unwrap();
}

/// What only can block runs elsewhere: requests behind it on the same queue overtake it.
#[test]
fn a_slow_request_holds_up_nothing() {
    const LEN: usize = 4 << 20;
    let volume = Volume::striped();
    let mut mount = volume.mount();
    let fs = mount.fs();
    let (_, handle) = fs.create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    let bytes = Noise::new(1).bytes(LEN);
    fs.write_all(handle, 0, &bytes).unwrap();
    let (_, copy) = fs.create(ROOT_ID, "copy", 0o600, RDWR).unwrap();
    // A copy by way of memory is slow, and an answer from memory is not; but the test itself may
    // have to wait for a processor meanwhile, so that it sees the copy done.
    let overtaken = (0..100).any(|_| {
        let request = ops::copy_file_range(handle, 0, copy, 0, LEN as u64);
        let slow = fs.submit(&request, 0).unwrap();
        fs.access(ROOT_ID, 0).unwrap();
        let first = !fs.is_done(slow).unwrap();
        assert_eq!(fs.wait(slow).unwrap().size as usize, LEN);
        first
    });
    assert!(overtaken, "nothing ever overtook the copy");
    assert!(fs.read_file("/copy").unwrap() == bytes);
}

#[test]
fn memory_that_comes_later_is_used_at_once() {
    let volume = Volume::striped();
    let mut mount = volume.mount_with(&SessionConfig::with_queues(2));
    assert!(mount.session.device.max_mem_slots().unwrap() >= 8);
    let (_, handle) = mount.fs().create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    let mut noise = Noise::new(2);
    for round in 0..6 {
        for slot in 0..3_u64 {
            let region = RegionConfig {
                guest_addr: (slot + 1) << 40,
                len: 2 << 20,
            };
            mount.session.device.add_region(region).unwrap();
            let regions = mount.session.device.memory().regions();
            let data = regions.last().unwrap().alloc(1 << 20, PAGE_SIZE).unwrap();
            let bytes = noise.bytes(1 << 20);
            data.write(0, &bytes);
            // No request between the new memory and its use, on either queue.
            let queue = (round + slot as usize) % 2;
            let fs = &mut mount.session.clients[queue];
            assert_eq!(fs.write_from(handle, slot << 20, &data).unwrap(), 1 << 20);
            data.fill(0);
            assert_eq!(fs.read_into(handle, slot << 20, &data).unwrap(), 1 << 20);
            assert!(data.to_vec(0, 1 << 20) == bytes);
        }
        for slot in 0..3 {
            mount
                .session
                .device
                .remove_region((slot + 1) << 40)
                .unwrap();
            mount.fs().getattr(ROOT_ID).unwrap();
        }
    }
}

/// A request that is in flight keeps its memory, whatever the VMM takes away.
#[test]
fn memory_that_goes_is_no_longer_used() {
    let volume = Volume::striped();
    let mut mount = volume.mount();
    let (_, handle) = mount.fs().create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    mount.fs().write(handle, 0, &[7; 4096]).unwrap();
    let region = RegionConfig {
        guest_addr: 1 << 40,
        len: 1 << 20,
    };
    mount.session.device.add_region(region).unwrap();
    let regions = mount.session.device.memory().regions();
    let data = regions.last().unwrap().alloc(4096, PAGE_SIZE).unwrap();
    assert_eq!(mount.fs().read_into(handle, 0, &data).unwrap(), 4096);
    mount.session.device.remove_region(1 << 40).unwrap();
    data.fill(9);
    // A chain with memory that is not there is dropped: nothing is written to it.
    let refused = mount.fs().read_into(handle, 0, &data).unwrap_err();
    assert!(refused.errno().is_none(), "{refused}");
    assert_eq!(data.to_vec(0, 4096), [9; 4096]);
    assert_eq!(mount.fs().read(handle, 0, 4096).unwrap(), [7; 4096]);
}

#[test]
fn queues_stop_and_start_under_load() {
    let volume = Volume::striped();
    let mut mount = volume.mount_with(&SessionConfig::with_queues(3));
    let (file, bytes) = numbered(mount.fs(), 40);
    let bytes = &bytes;
    let clients: Vec<Client> = mount.session.clients.drain(..).collect();
    let device = &mut mount.session.device;
    thread::scope(|scope| {
        let load: Vec<_> = clients
            .into_iter()
            .map(|mut client| scope.spawn(move || pipeline(&mut client, file, bytes, 32, 40)))
            .collect();
        let (mut rounds, mut loaded) = (0, 0);
        while rounds < 20 || load.iter().any(|load| !load.is_finished()) {
            let queue = 1 + rounds % 3;
            loaded += u32::from(load.iter().all(|load| !load.is_finished()));
            let base = device.stop_queue(queue).unwrap();
            // Drained: what was taken is answered, and the rest is the driver's again.
            let ring = &device.rings()[queue];
            assert_eq!(base, ring.used_index());
            device.start_queue(queue, base).unwrap();
            rounds += 1;
        }
        assert!(loaded > 0, "the load ended before any queue was stopped");
    });
}

#[test]
fn a_stopped_queue_takes_nothing() {
    let volume = Volume::striped();
    let mut mount = volume.mount();
    for round in 0..5 {
        let base = mount.session.device.stop_queue(1).unwrap();
        let ticket = mount
            .fs()
            .submit(&ops::mkdir(ROOT_ID, b"d", 0o755, 0), 0)
            .unwrap();
        // The hiprio queue still is served: by then the other one would have been looked at.
        mount.fs().forget(1 << 40, 1).unwrap();
        mount.fs().drain_hiprio().unwrap();
        assert!(!mount.fs().is_done(ticket).unwrap(), "round {round}");
        mount.session.device.start_queue(1, base).unwrap();
        // The kick that came meanwhile is not lost.
        mount.fs().wait(ticket).unwrap();
        mount.fs().rmdir(ROOT_ID, "d").unwrap();
    }
}

#[test]
fn the_daemon_ends_with_its_vmm() {
    let volume = Volume::striped();
    let mut config = SessionConfig::with_queues(4);
    config.depth = 32;
    let mut mount = volume.mount_with(&config);
    let (_, handle) = mount.fs().create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    let data = mount.fs().memory().alloc_pages(1 << 20).unwrap();
    for client in &mut mount.session.clients {
        for _ in 0..8 {
            client.submit(&ops::write(handle, 0, &data), 0).unwrap();
        }
    }
    mount.session.device.disconnect();
    let status = mount.daemon.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", mount.daemon.log());
    assert!(!mount.daemon.socket().exists(), "the socket is left behind");
}

/// A guest that reboots stops all queues, sets them up anew, and begins a session.
#[test]
fn twenty_reboots_leave_nothing_behind() {
    let volume = Volume::striped();
    let config = SessionConfig::with_queues(2);
    let mut mount = volume.mount_with(&config);
    mount
        .fs()
        .write_file("/f", &Noise::new(3).bytes(400_000))
        .unwrap();
    let mut flat = None;
    for round in 0..20 {
        let mut nodes = Vec::new();
        for index in 0..20 {
            let name = format!("{index}");
            let (entry, handle) = mount.fs().create(ROOT_ID, &name, 0o600, RDWR).unwrap();
            mount.fs().write(handle, 100_000, b"x").unwrap();
            nodes.push(entry.nodeid);
        }
        let dir = mount.fs().opendir(ROOT_ID).unwrap();
        mount.fs().unlink(ROOT_ID, "7").unwrap();
        // No FORGET, no RELEASE, no DESTROY: the guest is just gone.
        mount.session.reboot(&config).unwrap();
        for node in &nodes {
            assert_eq!(mount.fs().getattr(*node).unwrap_err(), Errno::STALE);
        }
        assert_eq!(mount.fs().readdir(dir, 0, 4096).unwrap_err(), Errno::BADF);
        let now = (mount.open_fds(), mount.anonymous_kib());
        match flat {
            None if round == 4 => flat = Some(now),
            None => {}
            Some((fds, kib)) => {
                assert_eq!(now.0, fds, "open files after {round} reboots");
                assert!(
                    now.1 < kib + 4096,
                    "{} KiB, {kib} before: round {round}",
                    now.1
                );
            }
        }
        // Those of "/f" and of the files that are left.
        assert_eq!(volume.objects().concat().len(), 4 + 19);
    }
}
