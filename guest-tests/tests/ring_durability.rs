//! What was synced is there after a kill, byte for byte; and what was removed is not.

use guest_tests::fixture::{Mount, Noise, Volume, MDT_SIZE, STRIPE_UNIT};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{ops, Errno, Handle};
use guest_tests::ring::memory::Buffer;

const RDWR: i32 = libc::O_RDWR;

/// A file with its synced length; beyond that, writes may be in flight.
struct Log {
    name: String,
    handle: Handle,
    synced: usize,
}

/// Kills during writes: what was synced before is there, for the next daemon and for the host.
#[test]
fn what_was_synced_survives_a_kill() {
    let volume = Volume::striped();
    let mut noise = Noise::new(1);
    let contents: Vec<Vec<u8>> = (0..3).map(|seed| Noise::new(seed).bytes(2 << 20)).collect();
    let content = |name: &str| &contents[name.split('-').next().unwrap().len() - 1][..];
    for round in 0..8 {
        let mut mount = volume.mount();
        let fs = mount.fs();
        let mut logs: Vec<Log> = (0..3)
            .map(|index| {
                let name = format!("{}-{round}", "n".repeat(index + 1));
                let handle = fs.create(ROOT_ID, &name, 0o600, RDWR).unwrap().1;
                let synced = 0;
                Log {
                    name,
                    handle,
                    synced,
                }
            })
            .collect();
        for _ in 0..2 {
            for log in &mut logs {
                let len = 1 + noise.below(250_000) as usize;
                let bytes = &content(&log.name)[log.synced..log.synced + len];
                fs.write(log.handle, log.synced as u64, bytes).unwrap();
                fs.fsync(log.handle, noise.below(2) == 0).unwrap();
                log.synced += len;
            }
        }
        // More of the same content is on its way when the daemon dies.
        let mut held: Vec<Buffer> = Vec::new();
        for (index, log) in logs.iter().cycle().take(24).enumerate() {
            let at = log.synced + index / 3 * 40_000;
            let data = fs.memory().alloc_pages(40_000).unwrap();
            data.write(0, &content(&log.name)[at..at + 40_000]);
            fs.enqueue(&ops::write(log.handle, at as u64, &data), 0)
                .unwrap();
            held.push(data);
        }
        fs.kick().unwrap();
        let answers = noise.below(24) as usize;
        for _ in 0..answers {
            let done = fs.next_done().unwrap();
            fs.wait::<guest_tests::ring::fuse::abi::WriteOut>(done.ticket())
                .unwrap();
        }
        mount.daemon.kill().unwrap();

        let mut next = volume.mount();
        for log in &logs {
            let expected = content(&log.name);
            let path = format!("/{}", log.name);
            for (who, bytes) in [
                ("daemon", next.fs().read_file(&path).unwrap()),
                ("host", volume.get(&path)),
            ] {
                let what = format!("{who}, {path}, {} of {}", log.synced, bytes.len());
                assert!(bytes.len() >= log.synced, "{what}");
                assert!(bytes[..log.synced] == expected[..log.synced], "{what}");
                // What was not synced is there, or zeros: never anything else.
                let rest = bytes[log.synced..].iter().zip(&expected[log.synced..]);
                assert!(rest.into_iter().all(|(a, b)| *a == 0 || a == b), "{what}");
            }
            next.fs().unlink(ROOT_ID, &log.name).unwrap();
        }
        assert_eq!(volume.objects().concat().len(), 0);
    }
}

#[test]
fn targets_have_equal_shares_and_are_empty_after_rm() {
    let volume = Volume::striped();
    let mut mount = volume.mount();
    let fs = mount.fs();
    for len in [32 << 20, (8 << 20) + 12_345, STRIPE_UNIT * 9] {
        let bytes = Noise::new(len as u64).bytes(len);
        fs.write_file("/f", &bytes).unwrap();
        fs.syncfs(ROOT_ID).unwrap();
        // Each with one object: its length is its share, which with stripe 0 begins with a hole.
        let objects = volume.objects();
        assert!(
            objects.iter().all(|target| target.len() == 1),
            "{objects:?}"
        );
        let objects = objects.concat();
        let longest = objects.iter().map(|object| object.len).max().unwrap();
        let shortest = objects.iter().map(|object| object.len).min().unwrap();
        assert!(longest - shortest <= STRIPE_UNIT as u64, "{objects:?}");
        let taken: u64 = objects.iter().map(|object| object.allocated).sum();
        let wanted = (len - MDT_SIZE) as u64;
        assert!(
            (wanted..wanted + (64 << 10)).contains(&taken),
            "{taken} for {wanted}"
        );
        assert!(volume.get("/f") == bytes);
        fs.unlink(ROOT_ID, "f").unwrap();
        fs.syncfs(ROOT_ID).unwrap();
        assert_eq!(volume.objects().concat().len(), 0);
    }
}

/// Small files stay with their metadata; many larger ones spread evenly over the targets.
#[test]
fn files_begin_on_all_targets() {
    let volume = Volume::striped();
    let mut mount = volume.mount();
    let fs = mount.fs();
    let small = vec![1; MDT_SIZE];
    let large = vec![2; MDT_SIZE + 1];
    for index in 0..50 {
        fs.write_file(&format!("/small-{index}"), &small).unwrap();
    }
    assert_eq!(volume.objects().concat().len(), 0);
    for index in 0..400 {
        fs.write_file(&format!("/large-{index}"), &large).unwrap();
    }
    let counts: Vec<usize> = volume.objects().iter().map(Vec::len).collect();
    assert_eq!(counts.iter().sum::<usize>(), 400);
    // By chance: 100 each, and 50 less or more is 6 standard deviations.
    assert!(
        counts.iter().all(|count| (50..150).contains(count)),
        "{counts:?}"
    );
}

/// A volume that lacks a target is refused, by name; not striped over the rest.
#[test]
fn a_volume_without_a_target_is_not_served() {
    let volume = Volume::striped();
    drop::<Mount>(volume.mount());
    let target = volume.path().join("targets/2");
    let away = volume.path().join("away");
    std::fs::rename(&target, &away).unwrap();
    let mut daemon = volume.daemon().spawn_without_waiting().unwrap();
    let status = daemon.wait().unwrap();
    assert!(!status.success());
    assert!(daemon.log().contains("targets/2"), "{}", daemon.log());
    std::fs::rename(&away, &target).unwrap();
    volume.mount().fs().write_file("/f", b"again").unwrap();
}

/// Names made and removed before the kill.
#[test]
fn names_made_before_a_kill_are_there() {
    let volume = Volume::striped();
    let mut mount = volume.mount();
    let fs = mount.fs();
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
    for index in 0..100 {
        fs.mkdir(dir, format!("{index}"), 0o755).unwrap();
    }
    for index in (0..100).step_by(2) {
        fs.rmdir(dir, format!("{index}")).unwrap();
    }
    let list = fs.opendir(dir).unwrap();
    fs.fsyncdir(list, false).unwrap();
    mount.daemon.kill().unwrap();
    let mut next = volume.mount();
    assert_eq!(next.fs().list("/d").unwrap().len(), 50);
    assert_eq!(next.fs().attr("/d/2").unwrap_err(), Errno::NOENT);
    next.fs().attr("/d/3").unwrap();
}

/// A file without a name goes with the session, however that ends.
#[test]
fn an_open_file_without_a_name_goes_with_the_session() {
    for orderly in [true, false] {
        let volume = Volume::striped();
        let mut mount = volume.mount();
        let fs = mount.fs();
        let (_, handle) = fs.create(ROOT_ID, "f", 0o600, RDWR).unwrap();
        fs.write(handle, 0, &[7; 400_000]).unwrap();
        fs.unlink(ROOT_ID, "f").unwrap();
        assert_eq!(fs.read(handle, 300_000, 3).unwrap(), [7; 3]);
        assert!(!volume.objects().concat().is_empty());
        if orderly {
            mount.daemon.terminate().unwrap();
        } else {
            mount.session.device.disconnect();
        }
        assert!(mount.daemon.wait().unwrap().success());
        assert!(volume.objects().concat().is_empty(), "orderly: {orderly}");
    }
}
