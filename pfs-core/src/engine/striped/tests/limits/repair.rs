//! What a check makes of counters.

use super::*;
use crate::engine::striped::check::Kind;
use crate::engine::striped::purge_orphans;

#[test]
fn orphans_are_counted_until_they_are_purged() {
    let rig = Rig::limited(3, SOME);
    let mut mount = rig.mount();
    for file in [c"a", c"b"] {
        let file = mount.try_create(file, libc::O_RDWR).unwrap();
        mount.write(file, 0, &[1; 40_000]);
        mount.release(file);
    }
    drop(mount);
    let orphan = |file: &str| {
        use std::os::unix::fs::MetadataExt;
        let path = rig.path().join("meta/namespace").join(file);
        let ino = path.metadata().unwrap().ino();
        std::fs::rename(path, rig.path().join(format!("meta/orphans/{ino:x}"))).unwrap();
    };
    orphan("a");
    let report = look_alone(&rig, false);
    let kinds: Vec<_> = report.problems.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, [Kind::HalfRemoved], "and no counter is wrong");
    assert_eq!(look_alone(&rig, true).corrected, 1);
    expect(&rig, 40_000, 1);
    clean(&rig);
    orphan("b");
    let volume = VolumePath::open(&rig.path()).unwrap();
    purge_orphans(&volume, std::time::Duration::ZERO).unwrap();
    drop(volume);
    expect(&rig, 0, 0);
    clean(&rig);
}

#[test]
fn wrong_counters_are_found_and_put_right() {
    let rig = Rig::limited(3, SOME);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount.write(file, 0, &[1; 40_000]);
    mount.release(file);
    drop(mount);
    for wrong in [(90_000, 5), (0, 0), (40_000, 2)] {
        let OpenVolume { kind, .. } = VolumePath::open(&rig.path()).unwrap();
        let VolumeKind::Striped { usage, .. } = kind else {
            unreachable!("a rig's volume is striped");
        };
        usage.set_used(Some(Used {
            bytes: wrong.0,
            inodes: wrong.1,
        }));
        drop(usage);
        let report = look_alone(&rig, false);
        let kinds: Vec<_> = report.problems.iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [Kind::WrongCounter]);
        assert_eq!(look_alone(&rig, true).corrected, 1);
        expect(&rig, 40_000, 1);
        clean(&rig);
    }
}
