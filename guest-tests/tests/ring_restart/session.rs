//! A session goes on in the next daemon.

use guest_tests::fixture::{Heritage, Mount, Noise, Volume};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{ops, Errno, SessionConfig};

const RDWR: i32 = libc::O_RDWR;

/// Ends the daemon in one of two ways, and lets another go on.
fn restart(mount: &mut Mount, volume: &Volume, heritage: &Heritage, kill: bool) {
    if kill {
        mount.daemon.kill().unwrap();
    } else {
        let status = mount.daemon.terminate().unwrap();
        assert_eq!(status.code(), Some(0), "{}", mount.daemon.log());
    }
    mount.resume_with(heritage.pass_to(volume.daemon()));
}

fn on_every_volume(test: fn(&Volume, bool)) {
    for volume in [Volume::striped(), Volume::posix(), Volume::mapped()] {
        for kill in [false, true] {
            test(&volume, kill);
        }
    }
}

fn begin(volume: &Volume) -> (Mount, Heritage) {
    let heritage = Heritage::new();
    let mount = Mount::start(
        heritage.pass_to(volume.daemon()),
        &SessionConfig::with_queues(2),
    );
    (mount, heritage)
}

#[test]
fn nodes_and_handles_go_on() {
    on_every_volume(|volume, kill| {
        let (mut mount, heritage) = begin(volume);
        let name = format!("dir-{kill}");
        let dir = mount.fs().mkdir(ROOT_ID, &name, 0o755).unwrap();
        let (file, handle) = mount.fs().create(dir.nodeid, "f", 0o400, RDWR).unwrap();
        let mut bytes = Noise::new(1).bytes(300_000);
        mount.fs().write(handle, 0, &bytes).unwrap();
        let readonly = mount
            .fs()
            .open(file.nodeid, libc::O_RDONLY | libc::O_TRUNC)
            .unwrap();
        mount.fs().write(handle, 0, &bytes).unwrap();
        let list = mount.fs().opendir(dir.nodeid).unwrap();
        for round in 0..3 {
            restart(&mut mount, volume, &heritage, kill);
            let fs = mount.fs();
            // The same session: no INIT was sent. The handle is not truncated once more.
            assert!(fs.read(readonly, 0, 400_000).unwrap() == bytes);
            assert_eq!(fs.write(readonly, 0, b"x").unwrap_err(), Errno::BADF);
            let more = Noise::new(round).bytes(70_000);
            fs.write(handle, round * 50_000, &more).unwrap();
            bytes[round as usize * 50_000..][..70_000].copy_from_slice(&more);
            fs.fsync(handle, false).unwrap();
            assert_eq!(fs.lookup(ROOT_ID, &name).unwrap().nodeid, dir.nodeid);
            assert_eq!(fs.lookup(dir.nodeid, "f").unwrap().nodeid, file.nodeid);
            assert_eq!(fs.readdir(list, 0, 4096).unwrap().len(), 3);
            // Numbers are never given out again.
            let node = fs
                .mkdir(ROOT_ID, format!("{kill}-{round}"), 0o755)
                .unwrap()
                .nodeid;
            assert!(![dir.nodeid, file.nodeid, handle.fh].contains(&node));
        }
        mount.fs().release(readonly).unwrap();
        assert_eq!(mount.fs().read(readonly, 0, 1).unwrap_err(), Errno::BADF);
        restart(&mut mount, volume, &heritage, kill);
        assert_eq!(mount.fs().read(readonly, 0, 1).unwrap_err(), Errno::BADF);
        assert!(mount.fs().read_to_end(handle).unwrap() == bytes);
    });
}

#[test]
fn lookups_are_still_counted() {
    on_every_volume(|volume, kill| {
        let (mut mount, heritage) = begin(volume);
        let name = format!("dir-{kill}");
        let dir = mount.fs().mkdir(ROOT_ID, &name, 0o755).unwrap().nodeid;
        for _ in 0..3 {
            mount.fs().lookup(ROOT_ID, &name).unwrap();
        }
        restart(&mut mount, volume, &heritage, kill);
        let fs = mount.fs();
        fs.forget(dir, 2).unwrap();
        fs.drain_hiprio().unwrap();
        restart(&mut mount, volume, &heritage, kill);
        let fs = mount.fs();
        fs.getattr(dir).unwrap();
        fs.forget(dir, 1).unwrap();
        fs.drain_hiprio().unwrap();
        fs.getattr(dir).unwrap();
        fs.forget(dir, 1).unwrap();
        fs.drain_hiprio().unwrap();
        assert_eq!(fs.getattr(dir).unwrap_err(), Errno::STALE);
        restart(&mut mount, volume, &heritage, kill);
        assert_eq!(mount.fs().getattr(dir).unwrap_err(), Errno::STALE);
    });
}

#[test]
fn a_node_that_is_gone_is_not_another() {
    on_every_volume(|volume, kill| {
        let (mut mount, heritage) = begin(volume);
        let fs = mount.fs();
        let node = fs.mknod(ROOT_ID, "f", libc::S_IFREG | 0o600, 0);
        let node = node.unwrap().nodeid;
        fs.unlink(ROOT_ID, "f").unwrap();
        restart(&mut mount, volume, &heritage, kill);
        let fs = mount.fs();
        // File systems are quick to use an inode number again.
        for index in 0..20 {
            let name = format!("{kill}-{index}");
            let made = fs.mknod(ROOT_ID, &name, libc::S_IFREG | 0o600, 0).unwrap();
            assert_ne!(made.nodeid, node);
        }
        assert_eq!(fs.getattr(node).unwrap_err(), Errno::STALE);
    });
}

#[test]
fn a_session_that_ended_does_not_go_on() {
    let volume = Volume::striped();
    let (mut mount, heritage) = begin(&volume);
    let dir = mount.fs().mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
    mount.fs().destroy().unwrap();
    restart(&mut mount, &volume, &heritage, true);
    assert_eq!(mount.fs().getattr(ROOT_ID).unwrap_err(), Errno::IO);
    mount.session.send_init(Default::default()).unwrap();
    assert_eq!(mount.fs().getattr(dir).unwrap_err(), Errno::STALE);
    assert_eq!(mount.fs().list("/").unwrap().len(), 1);
}

#[test]
fn a_guest_may_reboot_with_the_next_daemon() {
    let volume = Volume::striped();
    let (mut mount, heritage) = begin(&volume);
    for kill in [true, false] {
        let dir = mount.fs().mkdir(ROOT_ID, format!("{kill}"), 0o755);
        let dir = dir.unwrap().nodeid;
        // Requests that nobody will take the answers of are in flight when the daemon dies.
        for index in 0..20 {
            let name = format!("{kill}-{index}");
            let request = ops::mkdir(dir, name.as_bytes(), 0o755, 0);
            mount.fs().submit(&request, 0).unwrap();
        }
        restart(&mut mount, &volume, &heritage, kill);
        mount
            .session
            .reboot(&SessionConfig::with_queues(2))
            .unwrap();
        assert_eq!(mount.fs().getattr(dir).unwrap_err(), Errno::STALE);
        let path = format!("/{kill}/new");
        mount.fs().write_file(&path, &[1; 100_000]).unwrap();
        assert_eq!(mount.fs().attr(&path).unwrap().size, 100_000);
    }
}
