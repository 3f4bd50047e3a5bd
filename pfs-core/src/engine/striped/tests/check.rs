//! Damage made by hand: a check finds exactly it, repairs it, and then finds nothing.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use rustix::fs::{lgetxattr, lremovexattr, lsetxattr, XattrFlags};

use super::*;
use crate::engine::striped::check::{
    check, At, Error, Kind, Options, Outcome, Report, Step, ORPHAN_AGE,
};
use crate::volume::{Engine, Limits};

const LOOK: Options = Options {
    repair: false,
    orphan_age: ORPHAN_AGE,
};

pub(super) fn look(rig: &Rig, repair: bool) -> Report {
    look_with(rig, repair, Duration::ZERO)
}

fn look_with(rig: &Rig, repair: bool, orphan_age: Duration) -> Report {
    let volume = VolumePath::locate(&rig.path()).unwrap();
    let Engine::Striped(striped) = &volume.descriptor.engine else {
        unreachable!("a rig's volume is striped");
    };
    let opened = volume.open_to_check(striped, true).unwrap();
    let options = Options { repair, orphan_age };
    check(opened, &options, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// A look by one who is alone. A thread of a mount's pool lets go of it a moment after its last
/// answer.
#[track_caller]
pub(super) fn look_alone(rig: &Rig, repair: bool) -> Report {
    for _ in 0..200 {
        if look(rig, false).alone {
            return look(rig, repair);
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("somebody still has the volume");
}

#[track_caller]
pub(super) fn clean(rig: &Rig) {
    let report = look_alone(rig, false);
    assert!(report.alone);
    assert_eq!(report.problems, [], "clean");
}

/// What a look without repair finds, in any order.
fn kinds(report: &Report) -> Vec<Kind> {
    let mut kinds: Vec<_> = report.problems.iter().map(|found| found.kind).collect();
    kinds.sort_by_key(|kind| kind.name());
    kinds
}

/// The damage is all that is found, stays without repair, and is gone after it.
#[track_caller]
fn found_and_repaired(rig: &Rig, expected: &[Kind]) {
    for _ in 0..2 {
        let report = look_alone(rig, false);
        assert_eq!(kinds(&report), expected);
        assert_eq!(
            (report.corrected, report.uncorrected),
            (0, expected.len() as u64)
        );
    }
    let report = look_alone(rig, true);
    assert_eq!(kinds(&report), expected);
    let repaired =
        |found: &crate::engine::striped::check::Problem| found.outcome == Outcome::Corrected;
    assert!(report.problems.iter().all(repaired), "{report:?}");
    assert_eq!(
        (report.corrected, report.uncorrected),
        (expected.len() as u64, 0)
    );
    clean(rig);
}

/// The damage is all that is found, and cannot be repaired.
#[track_caller]
fn found_and_left(rig: &Rig, expected: &[Kind]) {
    for repair in [false, true, false] {
        let report = look_alone(rig, repair);
        assert_eq!(kinds(&report), expected);
        assert_eq!(
            (report.corrected, report.uncorrected),
            (0, expected.len() as u64)
        );
    }
}

/// A volume with some of everything.
fn used() -> Rig {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    for (file, len) in [
        (c"empty", 0),
        (c"small", 100),
        (c"big", 100_000),
        (c"other", 50_000),
    ] {
        let open = mount.create(file);
        if len > 0 {
            mount.write(open, 0, &vec![7; len]);
        }
        mount.release(open);
    }
    let sparse = mount.create(c"sparse");
    mount.write(sparse, 1 << 30, &[1]);
    mount.truncate(sparse, 1 << 40);
    mount.release(sparse);
    drop(mount);
    fs::create_dir_all(names(&rig).join("d/e")).unwrap();
    fs::hard_link(names(&rig).join("big"), names(&rig).join("d/e/link")).unwrap();
    std::os::unix::fs::symlink("big", names(&rig).join("d/symlink")).unwrap();
    rig
}

/// Opens a file without a lookup that would outlive the test's mount.
fn open(mount: &mut Mount, file: &'static std::ffi::CStr) -> Open {
    let client = &mut mount.client;
    let entry: crate::fs::Entry = client
        .call(|fs, req, reply| fs.lookup(req, NodeId::ROOT, name(file), reply))
        .unwrap();
    let opened: crate::fs::Opened = client
        .call(|fs, req, reply| fs.open(req, entry.node, libc::O_RDWR.into(), reply))
        .unwrap();
    Open {
        node: entry.node,
        handle: opened.handle,
    }
}

fn names(rig: &Rig) -> PathBuf {
    rig.path().join("meta/namespace")
}

fn xattr(rig: &Rig, file: &str, name: &str) -> Vec<u8> {
    let mut value = [0u8; 512];
    let len = lgetxattr(names(rig).join(file), name, &mut value[..]).unwrap();
    value[..len].to_vec()
}

/// The objects of file `name`, by column.
fn objects_of(rig: &Rig, name: &str) -> Vec<PathBuf> {
    let mut value = [0u8; 512];
    let path = names(rig).join(name);
    let len = lgetxattr(&path, "user.pfs.file", &mut value[..]).unwrap();
    let record = Record::parse(&value[..len]).unwrap();
    let count = record.layout.stripe_count();
    let id = record.object_id.simple().to_string();
    (0..count)
        .map(|column| {
            let target = (record.first_target + column) % 3;
            let objects = rig.path().join(format!("targets/{target}/objects"));
            objects.join(&id[..2]).join(&id)
        })
        .collect()
}

#[test]
fn an_undamaged_volume_is_clean() {
    let rig = used();
    clean(&rig);
    let report = look(&rig, true);
    assert_eq!((report.files, report.directories), (6, 2));
    assert_eq!(report.problems, []);
    assert_eq!(report.objects, 7, "all of two, and one of the sparse one's");
    clean(&Rig::new(1));
}

#[test]
fn objects_without_a_file() {
    let rig = used();
    fs::remove_file(names(&rig).join("other")).unwrap();
    found_and_repaired(&rig, &[Kind::LostObject; 3]);
    assert_eq!(rig.objects().concat().len(), 4);
    // One in a place that is no column's of its file.
    let objects = objects_of(&rig, "sparse");
    let (there, not) = objects.iter().partition::<Vec<_>, _>(|path| path.exists());
    fs::remove_file(names(&rig).join("sparse")).unwrap();
    fs::write(not[0], b"x").unwrap();
    found_and_repaired(&rig, &[Kind::LostObject; 2]);
    assert!(!there[0].exists() && !not[0].exists());
}

#[test]
fn files_that_are_half_removed() {
    use std::os::unix::fs::MetadataExt;
    let rig = used();
    let before = rig.objects().concat().len();
    let orphan = |file: &str| {
        let ino = names(&rig).join(file).metadata().unwrap().ino();
        rig.path().join(format!("meta/orphans/{ino:x}"))
    };
    // Removed, and not purged; about to be replaced; something that is no file.
    fs::rename(names(&rig).join("other"), orphan("other")).unwrap();
    fs::hard_link(names(&rig).join("big"), orphan("big")).unwrap();
    found_and_repaired(&rig, &[Kind::HalfRemoved; 2]);
    assert_eq!(rig.orphans().len(), 0);
    assert_eq!(rig.objects().concat().len(), before - 3);
    fs::create_dir(rig.path().join("meta/orphans/x")).unwrap();
    found_and_left(&rig, &[Kind::Foreign]);
}

#[test]
fn orphans_of_a_daemon_that_may_come_back_are_left() {
    use std::os::unix::fs::MetadataExt;
    let rig = used();
    let other = names(&rig).join("other");
    let orphan = format!("meta/orphans/{:x}", other.metadata().unwrap().ino());
    fs::rename(other, rig.path().join(orphan)).unwrap();
    let before = rig.objects();
    // One who is alone: a mount's threads may have let go only now.
    look_alone(&rig, false);
    let report = look_with(&rig, true, ORPHAN_AGE);
    assert!(report.alone);
    assert_eq!((report.young_orphans, report.problems), (1, vec![]));
    assert_eq!((rig.orphans().len(), rig.objects()), (1, before));
    let report = look_with(&rig, true, Duration::ZERO);
    assert_eq!((report.young_orphans, report.corrected), (0, 1));
    assert_eq!(rig.orphans().len(), 0);
    clean(&rig);
}

#[test]
fn orphans_in_use_are_no_problem() {
    let rig = used();
    let mut mount = rig.mount();
    let file = open(&mut mount, c"other");
    mount.unlink(c"other");
    assert_eq!(rig.orphans().len(), 1);
    let report = look(&rig, true);
    assert!(!report.alone);
    assert_eq!(report.problems, []);
    assert_eq!(mount.read(file, 0, 10), [7; 10]);
}

#[test]
fn a_file_that_lacks_an_object() {
    let rig = used();
    let objects = objects_of(&rig, "big");
    fs::remove_file(&objects[1]).unwrap();
    found_and_repaired(&rig, &[Kind::MissingObject]);
    let mut mount = rig.mount();
    let file = open(&mut mount, c"big");
    let data = mount.read(file, 0, 200_000);
    assert_eq!(data.len(), 100_000);
    assert!(data.contains(&0) && data.contains(&7));
    mount.write(file, 0, &vec![8; 100_000]);
    assert!(mount.read(file, 0, 200_000) == vec![8; 100_000]);
    drop(mount);
    clean(&rig);
}

#[test]
fn data_beyond_the_end() {
    let rig = used();
    let big = names(&rig).join("big");
    let cut = |size| {
        fs::File::options()
            .write(true)
            .open(&big)
            .unwrap()
            .set_len(size)
            .unwrap()
    };
    cut(60_000);
    found_and_repaired(&rig, &[Kind::DataBeyondEnd; 3]);
    cut(100_000);
    let mut mount = rig.mount();
    let file = open(&mut mount, c"big");
    let data = mount.read(file, 0, 100_000);
    assert!(data[..60_000].iter().all(|byte| *byte == 7));
    assert!(
        data[60_000..].iter().all(|byte| *byte == 0),
        "no old data comes back"
    );
    drop(mount);
    cut(100);
    found_and_repaired(&rig, &[Kind::DataBeyondEnd; 3]);
    assert!(objects_of(&rig, "big")
        .iter()
        .all(|path| path.metadata().unwrap().len() == 0));
}

#[test]
fn damaged_records_and_layouts() {
    let rig = used();
    let mut mount = rig.mount();
    mount.set_layout(NodeId::ROOT, "stripe_count=2").unwrap();
    let file = mount.create(c"laid");
    mount.release(file);
    drop(mount);
    clean(&rig);
    let put = |path: &str, name: &str, value: &str| {
        let path = names(&rig).join(path);
        lsetxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
    };
    put(
        "laid",
        "user.pfs.layout",
        "stripe_unit=4096 stripe_count=9 mdt_size=0",
    );
    put("", "user.pfs.layout", "nonsense");
    put("d", "user.pfs.layout", "");
    found_and_repaired(&rig, &[Kind::DamagedLayout; 3]);

    put("other", "user.pfs.file", "1 nonsense");
    // Its objects may be needed to restore it.
    found_and_left(
        &rig,
        &[
            Kind::DamagedRecord,
            Kind::LostObject,
            Kind::LostObject,
            Kind::LostObject,
        ],
    );
    fs::remove_file(names(&rig).join("other")).unwrap();
    found_and_repaired(&rig, &[Kind::LostObject; 3]);
}

#[test]
fn a_copy_made_on_the_host() {
    let rig = used();
    let mut value = [0u8; 512];
    let len = lgetxattr(names(&rig).join("other"), "user.pfs.file", &mut value[..]).unwrap();
    let copy = names(&rig).join("copy");
    fs::copy(names(&rig).join("other"), &copy).unwrap();
    lsetxattr(&copy, "user.pfs.file", &value[..len], XattrFlags::empty()).unwrap();
    found_and_left(&rig, &[Kind::SharedObjects]);
    lremovexattr(&copy, "user.pfs.file").unwrap();
    clean(&rig);
}

#[test]
fn a_copy_does_not_cut_the_original() {
    let rig = used();
    let record = xattr(&rig, "big", "user.pfs.file");
    // Shorter, and met before or after it.
    for copy in ["a", "zz"] {
        let copy = names(&rig).join(copy);
        fs::File::create(&copy).unwrap().set_len(20_000).unwrap();
        lsetxattr(&copy, "user.pfs.file", &record, XattrFlags::empty()).unwrap();
        found_and_left(&rig, &[Kind::SharedObjects]);
        fs::remove_file(copy).unwrap();
    }
    let mut mount = rig.mount();
    let file = open(&mut mount, c"big");
    assert!(mount.read(file, 0, 200_000) == vec![7; 100_000]);
    drop(mount);
    clean(&rig);
}

#[test]
fn objects_on_the_wrong_target() {
    let rig = used();
    let mut mount = rig.mount();
    mount.set_layout(NodeId::ROOT, "stripe_count=2").unwrap();
    let file = mount.create(c"two");
    mount.write(file, 0, &[7; 50_000]);
    drop(mount);
    let objects = objects_of(&rig, "two");
    let name = objects[0].strip_prefix(rig.path().join("targets")).unwrap();
    let name = name.iter().skip(1).collect::<PathBuf>();
    let targets = (0..3).map(|target| rig.path().join(format!("targets/{target}")));
    let mut elsewhere = targets.map(|target| target.join(&name));
    let elsewhere = elsewhere.find(|path| !path.exists()).unwrap();
    fs::rename(&objects[0], &elsewhere).unwrap();
    let report = look(&rig, true);
    assert_eq!(kinds(&report), [Kind::LostObject, Kind::MissingObject]);
    assert!(elsewhere.exists(), "it is the only copy of that data");
}

#[test]
fn a_layout_that_says_where_bytes_are() {
    let rig = used();
    let file = names(&rig).join("alone");
    fs::write(&file, vec![3; 20_000]).unwrap();
    lsetxattr(&file, "user.pfs.layout", b"x", XattrFlags::empty()).unwrap();
    found_and_left(&rig, &[Kind::DamagedLayout]);
    assert_eq!(fs::read(&file).unwrap(), vec![3; 20_000]);
}

#[test]
fn sizes_past_the_data() {
    let rig = used();
    let big = fs::File::options()
        .write(true)
        .open(names(&rig).join("big"))
        .unwrap();
    // Made longer, as a guest may: nothing is missing.
    big.set_len(150_000).unwrap();
    clean(&rig);
    // Extended for a write of which no data came.
    rustix::fs::fallocate(&big, rustix::fs::FallocateFlags::empty(), 299_999, 1).unwrap();
    if look(&rig, false).problems.is_empty() {
        return println!("skipped: this file system does not tell its blocks");
    }
    found_and_repaired(&rig, &[Kind::SizePastData]);
    assert_eq!(big.metadata().unwrap().len(), 300_000);
    // Allocated ahead by a daemon that then died: nothing is missing, either.
    let mut mount = rig.mount();
    let file = open(&mut mount, c"other");
    mount.fallocate(file, 10_000, 90_000, 0);
    let other = fs::File::options()
        .write(true)
        .open(names(&rig).join("other"))
        .unwrap();
    drop(mount);
    rustix::fs::fallocate(&other, rustix::fs::FallocateFlags::empty(), 99_999, 1).unwrap();
    clean(&rig);
}

#[test]
fn folders_and_foreign_things() {
    let rig = used();
    let objects = rig.path().join("targets/1/objects");
    let empty = |folder: &PathBuf| fs::remove_dir(folder).is_ok();
    let folders = (0..256).map(|number| objects.join(format!("{number:02x}")));
    let gone = folders.into_iter().filter(empty).take(2).count();
    assert_eq!(gone, 2);
    found_and_repaired(&rig, &[Kind::MissingFolder; 2]);
    fs::write(objects.join("00/notes"), b"x").unwrap();
    fs::create_dir(objects.join("extra")).unwrap();
    fs::write(rig.path().join("meta/more"), b"x").unwrap();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let wrong = if id.starts_with("00") { "01" } else { "00" };
    fs::write(objects.join(wrong).join(&id), b"x").unwrap();
    found_and_left(&rig, &[Kind::Foreign; 4]);
    assert!(objects.join("00/notes").exists());
}

#[test]
fn the_page_of_counters() {
    let rig = used();
    let page = rig.path().join("meta/usage");
    fs::write(&page, b"nonsense").unwrap();
    found_and_repaired(&rig, &[Kind::DamagedUsage]);
    let mut mount = rig.mount();
    let open = open(&mut mount, c"big");
    assert!(mount.read(open, 0, 200_000) == vec![7; 100_000]);
    drop(mount);
    // Layouts that the page does not know of.
    let mut bytes = fs::read(&page).unwrap();
    bytes[7 * 8..8 * 8].fill(0);
    fs::write(&page, &bytes).unwrap();
    clean(&rig);
    let layout = "stripe_unit=4096 stripe_count=1 mdt_size=0";
    let name = "user.pfs.layout";
    lsetxattr(
        names(&rig).join("d"),
        name,
        layout.as_bytes(),
        XattrFlags::empty(),
    )
    .unwrap();
    found_and_repaired(&rig, &[Kind::UnknownLayouts]);
}

#[test]
fn a_served_volume_is_left_alone() {
    let rig = used();
    let mount = rig.mount();
    let report = look(&rig, true);
    assert!(!report.alone);
    assert_eq!(report.problems, []);
    fs::remove_file(names(&rig).join("other")).unwrap();
    let big = fs::File::options()
        .write(true)
        .open(names(&rig).join("big"))
        .unwrap();
    big.set_len(60_000).unwrap();
    fs::remove_file(
        objects_of(&rig, "sparse")
            .iter()
            .find(|path| path.exists())
            .unwrap(),
    )
    .unwrap();
    let report = look(&rig, true);
    assert_eq!(report.corrected, 0);
    assert_eq!(report.uncorrected, 7);
    drop(mount);
    let report = look(&rig, true);
    assert_eq!((report.corrected, report.uncorrected), (7, 0));
    clean(&rig);
}

#[test]
fn nobody_comes_while_one_is_alone() {
    let rig = used();
    let volume = VolumePath::locate(&rig.path()).unwrap();
    let Engine::Striped(striped) = &volume.descriptor.engine else {
        unreachable!("a rig's volume is striped");
    };
    let opened = volume.open_to_check(striped, true).unwrap();
    assert!(opened.alone);
    let error = VolumePath::open(&rig.path()).unwrap_err();
    assert!(
        matches!(error, crate::volume::Error::InUse { .. }),
        "{error}"
    );
    drop(opened);
    VolumePath::open(&rig.path()).unwrap();
}

#[test]
fn a_check_tells_how_far_it_is() {
    let rig = Rig::new(2);
    for dir in 0..4 {
        let dir = names(&rig).join(format!("{dir}/sub"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..300 {
            fs::write(dir.join(file.to_string()), b"").unwrap();
        }
    }
    let volume = VolumePath::locate(&rig.path()).unwrap();
    let Engine::Striped(striped) = &volume.descriptor.engine else {
        unreachable!("a rig's volume is striped");
    };
    let opened = volume.open_to_check(striped, true).unwrap();
    let mut told = Vec::new();
    let mut hear = |at: At| {
        told.push(at);
        ControlFlow::Continue(())
    };
    check(opened, &LOOK, &mut hear).unwrap();
    let names: Vec<_> = told.iter().filter(|at| at.step == Step::Names).collect();
    assert!(names.len() >= 4, "{told:?}");
    for two in names.windows(2) {
        assert!(
            two[0].seen < two[1].seen && two[0].done <= two[1].done,
            "{two:?}"
        );
    }
    let last = names.last().unwrap();
    assert!(last.done >= 0.5 && last.done <= 1.0, "{last:?}");
}

#[test]
fn a_check_can_be_cancelled() {
    let rig = used();
    let volume = VolumePath::locate(&rig.path()).unwrap();
    let Engine::Striped(striped) = &volume.descriptor.engine else {
        unreachable!("a rig's volume is striped");
    };
    let opened = volume.open_to_check(striped, true).unwrap();
    let options = Options {
        repair: true,
        ..LOOK
    };
    let result = check(opened, &options, &mut |_| ControlFlow::Break(()));
    assert!(matches!(result, Err(Error::Cancelled)));
}

#[test]
fn limits_that_are_not_in_force() {
    let rig = used();
    let file = rig.path().join("volume.toml");
    let text = fs::read_to_string(&file).unwrap();
    let limited = text.replace(
        "\n[[target]]",
        "\n[limits]\ncapacity = \"1T\"\n\n[[target]]",
    );
    fs::write(
        &file,
        limited.replacen("\n[limits]\ncapacity = \"1T\"\n", "", 2),
    )
    .unwrap();
    found_and_repaired(&rig, &[Kind::WrongCounter, Kind::WrongLimits]);
    let VolumePath { descriptor, .. } = VolumePath::locate(&rig.path()).unwrap();
    let Engine::Striped(striped) = descriptor.engine else {
        unreachable!("a rig's volume is striped");
    };
    let limits = Limits {
        capacity_bytes: Some(1 << 40),
        inodes: None,
    };
    assert_eq!(striped.limits, limits);
}

#[test]
fn a_volume_under_load_is_clean() {
    let rig = Rig::new(3);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let served = std::sync::Barrier::new(2);
    let reports: Vec<Report> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut mount = rig.mount();
            served.wait();
            let mut round = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                round += 1;
                let file = mount.create(c"f");
                mount.write(file, 0, &vec![1; 40_000]);
                mount.write(file, 70_000 + round % 7 * 9000, &[2; 5000]);
                mount.truncate(file, round % 5 * 8000);
                let (f, g) = ((NodeId::ROOT, name(c"f")), (NodeId::ROOT, name(c"g")));
                mount
                    .client
                    .call(|fs, req, reply: Reply<()>| fs.rename(req, f, g, 0, reply))
                    .unwrap();
                mount.release(file);
                if round % 3 == 0 {
                    mount.unlink(c"g");
                }
            }
        });
        served.wait();
        let reports = (0..50).map(|_| look(&rig, true)).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        reports
    });
    for report in reports {
        assert!(!report.alone);
        assert_eq!(report.problems, []);
    }
    clean(&rig);
}

#[test]
fn a_tree_deeper_than_a_path_is_walked() {
    let rig = Rig::new(1);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir = rustix::fs::open(names(&rig), flags, rustix::fs::Mode::empty()).unwrap();
    for level in 0..3000u32 {
        let name = format!("directory-{}", level % 2);
        rustix::fs::mkdirat(&dir, name.as_str(), 0o755.into()).unwrap();
        dir = rustix::fs::openat(&dir, name.as_str(), flags, rustix::fs::Mode::empty()).unwrap();
    }
    let report = look(&rig, false);
    assert_eq!((report.directories, &report.problems[..]), (3000, &[][..]));
}
