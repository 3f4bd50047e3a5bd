//! Files without a name, and nodes that are forgotten.

use guest_tests::fixture::{Mount, Noise, Volume, MDT_SIZE};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{Errno, SessionConfig};

use crate::data::Modelled;

on_every_kind_of_volume! {
    an_unlinked_file_lives_while_it_is_open,
    a_file_renamed_over_lives_while_it_is_open,
    a_temporary_file_may_get_a_name,
    a_forgotten_node_is_gone_and_never_another,
    a_node_is_known_for_as_many_lookups_as_it_has,
    many_nodes_in_few_descriptors,
}

const LENGTHS: [usize; 3] = [100, MDT_SIZE + 1, 1_000_000];

/// On a striped volume, waits for nothing: what a file leaves goes with its last handle.
fn assert_no_objects(volume: &Volume) {
    if volume.is_striped() {
        let objects = volume.objects();
        assert!(objects.iter().all(Vec::is_empty), "left: {objects:?}");
    }
}

fn an_unlinked_file_lives_while_it_is_open(mount: &mut Mount, volume: &Volume) {
    let fs = mount.fs();
    for len in LENGTHS {
        let mut file = Modelled::new(fs, "f");
        file.write(fs, 0, &Noise::new(1).bytes(len));
        fs.unlink(ROOT_ID, "f").unwrap();
        assert_eq!(fs.lookup(ROOT_ID, "f").unwrap_err(), Errno::NOENT);
        assert_eq!(fs.fgetattr(file.handle).unwrap().attr.nlink, 0);
        file.check(fs);
        file.write(fs, len - 5, &Noise::new(2).bytes(200_000));
        file.check(fs);
        fs.fsync(file.handle, false).unwrap();
        // Another file of that name is another file.
        let mut other = Modelled::new(fs, "f");
        other.write(fs, 0, &Noise::new(3).bytes(len / 2));
        file.check(fs);
        other.check(fs);
        fs.release(file.handle).unwrap();
        fs.unlink(ROOT_ID, "f").unwrap();
        fs.release(other.handle).unwrap();
        assert_no_objects(volume);
    }
}

fn a_file_renamed_over_lives_while_it_is_open(mount: &mut Mount, volume: &Volume) {
    let fs = mount.fs();
    for len in LENGTHS {
        let mut old = Modelled::new(fs, "old");
        old.write(fs, 0, &Noise::new(4).bytes(len));
        let mut new = Modelled::new(fs, "new");
        new.write(fs, 0, &Noise::new(5).bytes(len + 77));
        fs.rename(ROOT_ID, "new", ROOT_ID, "old").unwrap();
        old.check(fs);
        new.check(fs);
        assert!(fs.read_file("/old").unwrap() == new.bytes);
        old.write(fs, 10, &Noise::new(6).bytes(100_000));
        old.check(fs);
        new.check(fs);
        fs.release(old.handle).unwrap();
        fs.release(new.handle).unwrap();
        fs.unlink(ROOT_ID, "old").unwrap();
        assert_no_objects(volume);
    }
}

fn a_temporary_file_may_get_a_name(mount: &mut Mount, volume: &Volume) {
    let fs = mount.fs();
    for len in LENGTHS {
        let (entry, handle) = fs.tmpfile(ROOT_ID, 0o640, libc::O_RDWR).unwrap();
        assert_eq!(
            (entry.attr.mode, entry.attr.nlink),
            (libc::S_IFREG | 0o640, 0)
        );
        let bytes = Vec::new();
        let mut file = Modelled { handle, bytes };
        file.write(fs, 0, &Noise::new(7).bytes(len));
        file.check(fs);
        assert!(fs.list("/").unwrap().is_empty());
        let linked = fs.link(entry.nodeid, ROOT_ID, "named").unwrap();
        assert_eq!((linked.nodeid, linked.attr.nlink), (entry.nodeid, 1));
        fs.release(handle).unwrap();
        assert!(fs.read_file("/named").unwrap() == file.bytes);
        fs.unlink(ROOT_ID, "named").unwrap();
        assert_no_objects(volume);

        let (_, handle) = fs.tmpfile(ROOT_ID, 0o640, libc::O_RDWR).unwrap();
        fs.write_all(handle, 0, &file.bytes).unwrap();
        fs.release(handle).unwrap();
        assert_no_objects(volume);
    }
    let (entry, _) = fs
        .tmpfile(ROOT_ID, 0o600, libc::O_RDWR | libc::O_EXCL)
        .unwrap();
    assert_eq!(
        fs.link(entry.nodeid, ROOT_ID, "x").unwrap_err(),
        Errno::NOENT
    );
}

fn a_forgotten_node_is_gone_and_never_another(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let node = fs
            .mknod(ROOT_ID, "f", libc::S_IFREG | 0o600, 0)
            .unwrap()
            .nodeid;
        assert!(seen.insert(node), "node {node} was given out before");
        fs.getattr(node).unwrap();
        fs.unlink(ROOT_ID, "f").unwrap();
        fs.forget(node, 1).unwrap();
        fs.drain_hiprio().unwrap();
        assert_eq!(fs.getattr(node).unwrap_err(), Errno::STALE);
        assert_eq!(fs.open(node, libc::O_RDONLY).unwrap_err(), Errno::STALE);
    }
    // More than was taken, of what was never there, and of the root: all ignored.
    fs.forget(*seen.iter().next().unwrap(), u64::MAX).unwrap();
    fs.batch_forget(&[(1 << 50, 3), (ROOT_ID, u64::MAX), (0, 1)])
        .unwrap();
    fs.drain_hiprio().unwrap();
    fs.getattr(ROOT_ID).unwrap();
}

fn a_node_is_known_for_as_many_lookups_as_it_has(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
    for _ in 0..9 {
        assert_eq!(fs.lookup(ROOT_ID, "d").unwrap().nodeid, dir);
    }
    for count in [1, 2, 3, 3] {
        fs.forget(dir, count).unwrap();
        fs.drain_hiprio().unwrap();
        fs.getattr(dir).unwrap();
    }
    fs.forget(dir, 1).unwrap();
    fs.drain_hiprio().unwrap();
    assert_eq!(fs.getattr(dir).unwrap_err(), Errno::STALE);
    // A handle outlives the node it was opened on.
    let mut file = Modelled::new(fs, "f");
    file.write(fs, 0, b"held");
    fs.forget(file.handle.nodeid, 1).unwrap();
    fs.drain_hiprio().unwrap();
    assert_eq!(fs.read(file.handle, 0, 9).unwrap(), b"held");
    fs.release(file.handle).unwrap();
}

fn many_nodes_in_few_descriptors(_: &mut Mount, volume: &Volume) {
    const FILES: usize = 2000;
    if volume.is_mapped() {
        return each_node_has_a_descriptor(volume);
    }
    let few = volume.daemon_with(&["--rlimit-nofile", "256"]);
    let mut mount = Mount::start(few, &SessionConfig::default());
    let fs = mount.fs();
    let file = libc::S_IFREG | 0o600;
    let mut node = |index: usize| {
        let made = fs.mknod(ROOT_ID, format!("{index}"), file, 0).unwrap();
        (made.nodeid, made.attr.ino)
    };
    let nodes: Vec<(u64, u64)> = (0..FILES).map(&mut node).collect();
    for index in (0..FILES).step_by(3) {
        fs.unlink(ROOT_ID, format!("{index}")).unwrap();
    }
    for index in (1..FILES).step_by(3) {
        let (from, to) = (format!("{index}"), format!("moved-{index}"));
        fs.rename(ROOT_ID, from, ROOT_ID, to).unwrap();
    }
    // All handles that the limit allows: what needs no descriptor of its own is still served.
    let mut handles = Vec::new();
    let refused = loop {
        let index = 3 * handles.len() + 2;
        match fs.open(nodes[index].0, libc::O_RDONLY) {
            Ok(handle) => handles.push(handle),
            Err(e) => break e,
        }
    };
    assert!(handles.len() >= 64, "{} handles", handles.len());
    assert_eq!(refused, Errno::MFILE);
    fs.getattr(ROOT_ID).unwrap();
    for handle in handles {
        fs.release(handle).unwrap();
    }
    for (index, (node, ino)) in nodes.into_iter().enumerate() {
        match fs.getattr(node) {
            Ok(out) => assert_eq!(out.attr.ino, ino, "file {index}"),
            // Without a name, and its descriptor let go.
            Err(e) => assert!(e == Errno::STALE && index % 3 == 0, "file {index}: {e}"),
        }
    }
    assert!(mount.open_fds() < 256);
}

/// An ordinary user cannot find an inode again by its handle: what has no descriptor any more is
/// refused, and nothing else.
fn each_node_has_a_descriptor(volume: &Volume) {
    let few = volume.daemon_with(&["--rlimit-nofile", "256"]);
    let mut mount = Mount::start(few, &SessionConfig::default());
    let fs = mount.fs();
    let file = libc::S_IFREG | 0o600;
    let mut made = Vec::new();
    let refused = loop {
        match fs.mknod(ROOT_ID, format!("{}", made.len()), file, 0) {
            Ok(entry) => made.push(entry),
            Err(e) => break e,
        }
        assert!(made.len() < 256);
    };
    assert!(made.len() >= 100, "{} nodes", made.len());
    assert_eq!(refused, Errno::MFILE);
    for entry in &made {
        assert_eq!(fs.getattr(entry.nodeid).unwrap().attr.ino, entry.attr.ino);
    }
    for entry in made.drain(..50) {
        fs.forget(entry.nodeid, 1).unwrap();
    }
    fs.drain_hiprio().unwrap();
    for index in 0..40 {
        fs.mknod(ROOT_ID, format!("again-{index}"), file, 0)
            .unwrap();
    }
}
