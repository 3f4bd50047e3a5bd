//! Files without a name.

use super::*;

/// More than the inode holds.
const LARGE: usize = 50_000;

#[test]
fn a_removed_file_lives_until_the_last_daemon_lets_go() {
    let rig = Rig::new(3);
    let (mut one, mut two) = (rig.mount(), rig.mount());
    let here = one.create(c"f");
    let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    one.write(here, 0, &data);
    let there = two.open(c"f");
    one.unlink(c"f");
    one.release(here);
    assert!(two.read(there, 0, 200_000) == data);
    two.write(there, 100_000, &[9]);
    assert!(!rig.objects().concat().is_empty());
    two.release(there);
    assert!(rig.objects().iter().all(Vec::is_empty));
}

#[test]
fn renaming_over_a_file_removes_its_objects() {
    let rig = Rig::new(2);
    let mut mount = rig.mount();
    for (file, byte) in [(c"a", 1), (c"b", 2)] {
        let open = mount.create(file);
        mount.write(open, 0, &vec![byte; 50_000]);
        mount.release(open);
    }
    let before = rig.objects().concat().len();
    mount.rename(c"a", c"b");
    assert_eq!(rig.objects().concat().len() * 2, before);
    let open = mount.open(c"b");
    assert!(mount.read(open, 0, 50_000) == vec![1; 50_000]);
}

#[test]
fn an_open_file_without_a_name_is_an_orphan() {
    for len in [10, LARGE] {
        let rig = Rig::new(2);
        let (mut one, mut two) = (rig.mount(), rig.mount());
        let here = one.create(c"f");
        one.write(here, 0, &vec![5; len]);
        let there = two.open(c"f");
        assert_eq!((one.links(here), two.links(there)), (1, 1));
        one.unlink(c"f");
        assert_eq!(rig.orphans().len(), 1);
        assert_eq!((one.links(here), two.links(there)), (0, 0));
        assert_eq!(one.link(here, c"back").err(), Some(Errno::NOENT));
        two.write(there, 0, &vec![6; len]);
        assert!(one.read(here, 0, 2 * len) == vec![6; len]);
        one.release(here);
        assert!(two.read(there, 0, 2 * len) == vec![6; len]);
        assert_eq!(rig.orphans().len(), 1);
        two.release(there);
        assert!(rig.is_clean());
    }
}

#[test]
fn a_small_closed_file_is_just_removed() {
    let rig = Rig::new(1);
    let mut mount = rig.mount();
    for file in [c"a", c"b", c"c"] {
        let open = mount.create(file);
        mount.write(open, 0, b"small");
        mount.release(open);
    }
    // What goes through the orphans leaves its trace there.
    let before = rig.path().join("meta/orphans").metadata().unwrap();
    mount.unlink(c"a");
    mount.rename(c"b", c"c");
    let after = rig.path().join("meta/orphans").metadata().unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_eq!(mount.try_unlink(c"a"), Err(Errno::NOENT));
}

#[test]
fn a_file_that_others_grew_and_removed_stays_for_who_has_it_open() {
    let rig = Rig::new(2);
    let (mut one, mut two) = (rig.mount(), rig.mount());
    let here = one.create(c"f");
    one.write(here, 0, b"small");
    let there = two.open(c"f");
    two.write(there, 0, &vec![3; LARGE]);
    two.unlink(c"f");
    two.release(there);
    assert!(one.read(here, 0, 2 * LARGE) == vec![3; LARGE]);
    one.release(here);
    assert!(rig.is_clean());
}

#[test]
fn a_file_without_a_name_can_be_linked_if_it_was_made_so() {
    let rig = Rig::new(2);
    let mut mount = rig.mount();
    for len in [10, LARGE] {
        let file = mount.tmpfile(libc::O_RDWR);
        assert_eq!(rig.orphans().len(), 1);
        mount.write(file, 0, &vec![1; len]);
        assert_eq!(mount.links(file), 0);
        assert_eq!(mount.link(file, c"f").unwrap().attr.nlink, 1);
        assert_eq!((rig.orphans().len(), mount.links(file)), (0, 1));
        assert_eq!(mount.link(file, c"g").unwrap().attr.nlink, 2);
        mount.unlink(c"f");
        assert_eq!(mount.links(file), 1);
        mount.unlink(c"g");
        assert_eq!(mount.links(file), 0);
        assert_eq!(mount.link(file, c"f").err(), Some(Errno::NOENT));
        mount.release(file);
        assert!(rig.is_clean());
    }
    let file = mount.tmpfile(libc::O_RDWR | libc::O_EXCL);
    mount.write(file, 0, &vec![1; LARGE]);
    assert_eq!(mount.link(file, c"f").err(), Some(Errno::NOENT));
    mount.release(file);
    assert!(rig.is_clean());
}

/// As Linux has it, which looks at the new name before it looks at the inode.
#[test]
fn a_file_without_a_name_does_not_take_anothers() {
    let rig = Rig::new(2);
    let mut mount = rig.mount();
    let other = mount.create(c"other");
    let removed = mount.create(c"removed");
    mount.write(removed, 0, &vec![1; LARGE]);
    mount.unlink(c"removed");
    let nameless = mount.tmpfile(libc::O_RDWR);
    let never = mount.tmpfile(libc::O_RDWR | libc::O_EXCL);
    for file in [removed, nameless, never] {
        assert_eq!(mount.link(file, c"other").err(), Some(Errno::EXIST));
        assert_eq!(mount.links(file), 0);
        mount.release(file);
    }
    mount.release(other);
    assert!(rig.is_clean());
}

#[test]
fn daemons_that_remove_the_names_of_one_file_leave_nothing() {
    let rig = Rig::new(2);
    let (mut one, mut two) = (rig.mount(), rig.mount());
    for round in 0..100 {
        let file = one.create(c"a");
        one.write(file, 0, &vec![1; LARGE]);
        one.link(file, c"b").unwrap();
        if round % 2 == 0 {
            one.release(file);
        }
        std::thread::scope(|scope| {
            // A client stays on its thread.
            let other = scope.spawn(|| rig.mount().unlink(c"b"));
            two.unlink(c"a");
            other.join().unwrap();
        });
        if round % 2 == 1 {
            assert_eq!(one.links(file), 0);
            assert!(one.read(file, 0, 2 * LARGE) == vec![1; LARGE]);
            one.release(file);
        }
        assert!(rig.is_clean(), "round {round}");
    }
}

#[test]
fn daemons_that_replace_one_file_leave_one() {
    let rig = Rig::new(2);
    let writer = |file: &'static std::ffi::CStr, byte: u8| {
        let mut mount = rig.mount();
        for _ in 0..100 {
            let open = mount.create(file);
            mount.write(open, 0, &vec![byte; LARGE]);
            mount.release(open);
            mount.rename(file, c"target");
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| writer(c"a", 1));
        scope.spawn(|| writer(c"b", 2));
    });
    assert_eq!(rig.orphans().len(), 0);
    assert_eq!(rig.objects().concat().len(), 2, "the objects of one file");
    let mut mount = rig.mount();
    let open = mount.open(c"target");
    let data = mount.read(open, 0, 2 * LARGE);
    assert!(data == vec![1; LARGE] || data == vec![2; LARGE]);
    mount.unlink(c"target");
    mount.release(open);
    assert!(rig.is_clean());
}

#[test]
fn what_a_dead_daemon_left_is_purged_when_nobody_uses_it() {
    use std::os::unix::fs::MetadataExt;
    let rig = Rig::new(2);
    let mut mount = rig.mount();
    let names = rig.path().join("meta/namespace");
    let orphans = rig.path().join("meta/orphans");
    let files = [c"gone", c"used", c"misnamed", c"linked"].map(|file| {
        let open = mount.create(file);
        mount.write(open, 0, &vec![1; LARGE]);
        let path = names.join(file.to_str().unwrap());
        let entry = orphans.join(format!("{:x}", path.metadata().unwrap().ino()));
        (open, path, entry)
    });
    let [gone, used, misnamed, linked] = &files;
    for (open, ..) in [gone, misnamed, linked] {
        mount.release(*open);
    }
    std::fs::rename(&gone.1, &gone.2).unwrap();
    std::fs::rename(&used.1, &used.2).unwrap();
    std::fs::rename(&misnamed.1, orphans.join("7")).unwrap();
    std::fs::hard_link(&linked.1, &linked.2).unwrap();

    let volume = VolumePath::open(&rig.path()).unwrap();
    let report = purge_orphans(&volume, Duration::from_secs(600)).unwrap();
    let expected = OrphanReport {
        young: 3,
        ..OrphanReport::default()
    };
    assert_eq!(report, expected, "nothing but the spare entry goes");
    assert!(misnamed.2.exists() && !linked.2.exists() && linked.1.exists());

    let report = purge_orphans(&volume, Duration::ZERO).unwrap();
    let expected = OrphanReport {
        purged: 2,
        in_use: 1,
        ..OrphanReport::default()
    };
    assert_eq!(report, expected);
    assert_eq!(rig.objects().concat().len(), 4, "of two files");
    assert!(mount.read(used.0, 0, LARGE) == vec![1; LARGE]);
    mount.release(used.0);
    assert_eq!(rig.orphans().len(), 0);
    assert_eq!(rig.objects().concat().len(), 2);
}

#[test]
fn what_another_has_purged_is_not_opened() {
    // Where inodes are counted: elsewhere, a file that is open may be without a name.
    let limits = crate::volume::Limits {
        capacity_bytes: None,
        inodes: Some(10),
    };
    let rig = Rig::limited(2, limits);
    let (mut one, mut two) = (rig.mount(), rig.mount());
    let file = one.create(c"f");
    one.release(file);
    let kept = two.open(c"f");
    one.unlink(c"f");
    // It is open already, so it is not purged.
    let again = two.open_node(kept.node).unwrap();
    two.release(kept);
    two.release(again);
    assert_eq!(two.open_node(kept.node).map(drop), Err(Errno::STALE));
}

#[test]
fn who_saw_that_it_had_a_name_sees_it_go() {
    for len in [10, LARGE] {
        let rig = Rig::new(2);
        let (mut one, mut two) = (rig.mount(), rig.mount());
        let here = one.create(c"f");
        one.write(here, 0, &vec![5; len]);
        assert_eq!(one.links(here), 1);
        two.unlink(c"f");
        assert_eq!(one.links(here), 0);
        one.write(here, 0, &vec![6; LARGE]);
        one.release(here);
        assert!(rig.is_clean(), "{len} bytes");
    }
}

#[test]
fn a_closed_file_keeps_nobody_from_purging_it() {
    let rig = Rig::new(2);
    let (mut one, mut two) = (rig.mount(), rig.mount());
    let here = one.create(c"f");
    one.write(here, 0, &vec![5; LARGE]);
    one.release(here);
    // As often as it takes until its descriptor is kept.
    for _ in 0..2 {
        let again = one.open(c"f");
        assert!(one.read(again, 0, LARGE) == vec![5; LARGE]);
        one.release(again);
    }
    two.unlink(c"f");
    assert!(rig.is_clean());
    assert_eq!(one.try_unlink(c"f"), Err(Errno::NOENT));
}
