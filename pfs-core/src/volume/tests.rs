use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};

use tempfile::TempDir;

use super::*;

/// A folder for volumes, on a file system with user extended attributes.
fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn striped(path: PathBuf, targets: u32) -> Volume {
    let engine = NewEngine::striped(NewTargets::Inside(targets));
    create(&CreateOptions {
        path,
        ownership: Ownership::Native,
        engine,
    })
    .unwrap()
}

fn create_at(path: &Path, targets: Vec<PathBuf>) -> Result<Volume, Error> {
    create(&CreateOptions {
        path: path.into(),
        ownership: Ownership::Native,
        engine: NewEngine::striped(NewTargets::At(targets)),
    })
}

/// The message and those of its sources.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Opening `path` must fail with a message that has all of `words`.
#[track_caller]
fn refused(path: &Path, words: &[&str]) {
    let error = Volume::open(path).expect_err("must be refused");
    said(&error, words);
}

#[track_caller]
fn said(error: &Error, words: &[&str]) {
    let text = explain(error);
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Every path under `path`.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

// ---- create and open -------------------------------------------------------------------

#[test]
fn what_is_created_opens() {
    let temp = temp();
    let made = striped(temp.path().join("vol"), 4);
    let Engine::Striped(engine) = &made.descriptor.engine else {
        panic!("striped");
    };
    assert_eq!(engine.layout, Layout::new(1 << 20, 4, 0).unwrap());
    assert_eq!(engine.mdt_size_bytes, 65536);
    for path in [made.path.clone(), made.path.join("volume.toml")] {
        let open = Volume::open(&path).unwrap();
        assert_eq!(
            (&open.path, &open.descriptor),
            (&made.path, &made.descriptor)
        );
        let VolumeKind::Striped {
            targets,
            layout,
            mdt_size_bytes,
            ..
        } = open.kind
        else {
            panic!("striped");
        };
        assert_eq!((targets.len(), mdt_size_bytes), (4, 65536));
        assert_eq!(layout, engine.layout);
    }
    assert!(made.path.join("targets/3/objects/ff").is_dir());
    let mode = fs::metadata(made.path.join("meta")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o7777, 0o755);
    let mode = |name| {
        let metadata = fs::metadata(made.path.join("meta").join(name)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!((mode("namespace"), mode("orphans")), (0o755, 0o700));
}

#[test]
fn a_volume_can_be_moved_whole() {
    let temp = temp();
    striped(temp.path().join("a"), 2);
    fs::rename(temp.path().join("a"), temp.path().join("b")).unwrap();
    Volume::open(&temp.path().join("b")).unwrap();
}

#[test]
fn targets_outside_are_named_absolutely_and_inside_relatively() {
    let temp = temp();
    let (vol, out) = (temp.path().join("vol"), temp.path().join("out/deep"));
    let made = create_at(&vol, vec![out.clone(), vol.join("in")]).unwrap();
    let Engine::Striped(engine) = made.descriptor.engine else {
        panic!("striped");
    };
    assert_eq!(engine.targets, [out.canonicalize().unwrap(), "in".into()]);
    Volume::open(&vol).unwrap();
}

#[test]
fn a_fresh_file_system_counts_as_empty() {
    let temp = temp();
    let target = temp.path().join("disk");
    fs::create_dir_all(target.join("lost+found")).unwrap();
    create_at(&temp.path().join("vol"), vec![target]).unwrap();
}

#[test]
fn posix_and_null_volumes() {
    let temp = temp();
    let make = |name: &str, engine| {
        let path = temp.path().join(name);
        create(&CreateOptions {
            path,
            ownership: Ownership::Native,
            engine,
        })
        .unwrap()
    };
    let own = make("own", NewEngine::Posix { path: None });
    assert!(own.path.join("data").is_dir());
    let served = temp.path().join("served");
    fs::create_dir(&served).unwrap();
    fs::write(served.join("file"), "x").unwrap();
    let path = Some(served.clone());
    let other = make("other", NewEngine::Posix { path: path.clone() });
    let null = make("null", NewEngine::Null);
    for volume in [&own, &other] {
        let open = Volume::open(&volume.path).unwrap();
        assert!(matches!(open.kind, VolumeKind::Posix { .. }));
    }
    assert!(matches!(
        Volume::open(&null.path).unwrap().kind,
        VolumeKind::Null
    ));
    // It is in a volume already.
    let error = create(&CreateOptions {
        path: temp.path().join("third"),
        ownership: Ownership::Native,
        engine: NewEngine::Posix { path },
    });
    said(&error.unwrap_err(), &["served", "already"]);
    assert!(!temp.path().join("third").exists());
}

#[test]
fn a_plain_directory_is_a_posix_volume_of_itself() {
    let temp = temp();
    let open = Volume::open(temp.path()).unwrap();
    assert!(matches!(open.kind, VolumeKind::Posix { .. }));
    assert_eq!(open.descriptor.uuid, None);
}

#[test]
fn usage_counts_objects() {
    let temp = temp();
    let made = striped(temp.path().join("vol"), 1);
    for (folder, name) in [("00", "a"), ("00", "b"), ("ff", "c")] {
        let path = made.path.join("targets/0/objects").join(folder).join(name);
        fs::write(path, vec![1; 8192]).unwrap();
    }
    let VolumeKind::Striped { targets, .. } = Volume::open(&made.path).unwrap().kind else {
        panic!("striped");
    };
    use std::os::fd::AsFd;
    let usage = target::usage(targets[0].as_fd()).unwrap();
    assert_eq!(usage.objects, 3);
    assert!(usage.bytes >= 3 * 8192, "{usage:?}");
    assert!(usage.capacity_bytes >= usage.available_bytes);
}

// ---- create refuses, and leaves nothing ------------------------------------------------

#[test]
fn create_refuses_what_is_taken() {
    let temp = temp();
    let vol = temp.path().join("vol");
    striped(vol.clone(), 1);
    let before = tree(temp.path());
    said(
        &create_at(&vol, vec![]).unwrap_err(),
        &["already holds a volume"],
    );
    let full = temp.path().join("vol/meta");
    let new = temp.path().join("new");
    let taken = vol.join("targets/0");
    for (targets, words) in [
        (vec![taken], &["is target 0 of volume"][..]),
        (vec![vol.clone()], &["already holds a volume"]),
        (vec![new.join("a"), new.join("a")], &["named twice"]),
        (vec![new.join("a"), new.join("a/b")], &["lies inside"]),
        (vec![new.clone()], &["lies inside"]),
        (vec![new.join("meta/x")], &["lies inside"]),
        (vec![full.join("../volume.toml")], &["not a directory"]),
        (vec![], &["at least one target"]),
    ] {
        said(&create_at(&new, targets).unwrap_err(), words);
        assert_eq!(tree(temp.path()), before, "nothing half-made for {words:?}");
    }
    let junk = temp.path().join("junk");
    fs::create_dir(&junk).unwrap();
    fs::write(junk.join("letter"), "dear").unwrap();
    said(
        &create_at(&junk, vec![new.clone()]).unwrap_err(),
        &["not empty", "letter"],
    );
    said(
        &create_at(&new, vec![junk]).unwrap_err(),
        &["not empty", "letter"],
    );
    assert!(!new.exists());
}

#[test]
fn create_refuses_impossible_values() {
    let temp = temp();
    let try_make = |unit, count, mdt_size_bytes| {
        let engine = NewEngine::Striped {
            targets: NewTargets::Inside(2),
            stripe_unit_bytes: unit,
            stripe_count: count,
            mdt_size_bytes,
            limits: crate::volume::Limits::default(),
        };
        let path = temp.path().join("vol");
        let error = create(&CreateOptions {
            path,
            ownership: Ownership::Native,
            engine,
        })
        .unwrap_err();
        assert!(tree(temp.path()).is_empty(), "nothing half-made");
        error
    };
    said(&try_make(1000, None, 0), &["stripe unit of 1000"]);
    said(&try_make(4096, Some(0), 0), &["stripe count of 0"]);
    said(
        &try_make(4096, Some(3), 0),
        &["stripe count of 3", "there are 2"],
    );
    said(&try_make(4096, None, 100), &["mdt_size of 100"]);
    said(&try_make(4096, None, 32 << 20), &["mdt_size of 32M"]);
}

#[test]
fn create_leaves_nothing_where_it_cannot_write() {
    let temp = temp();
    // sysfs takes no directory, from root neither.
    let target = PathBuf::from("/sys/fs/pfs-target");
    let error = create_at(&temp.path().join("vol"), vec![target]).unwrap_err();
    said(&error, &["cannot make", "/sys/fs/pfs-target"]);
    assert!(tree(temp.path()).is_empty());
}

// ---- open refuses ----------------------------------------------------------------------

#[test]
fn paths_that_are_no_volume() {
    let temp = temp();
    refused(&temp.path().join("none"), &["no volume at", "none"]);
    let made = striped(temp.path().join("vol"), 2);
    refused(
        &made.path.join("targets/1"),
        &["storage target 1", "not a volume"],
    );
    refused(Path::new("/dev/null"), &["/dev/null", "not a regular file"]);
}

#[test]
fn targets_not_ours_are_refused_by_name() {
    let temp = temp();
    let made = striped(temp.path().join("vol"), 3);
    let other = striped(temp.path().join("other"), 3);
    let target = |index: u32| made.path.join(format!("targets/{index}"));
    let away = temp.path().join("away");
    let uuid = made.descriptor.uuid.unwrap().to_string();

    fs::rename(target(1), &away).unwrap();
    refused(&made.path, &["target 1 is missing", "targets/1"]);
    fs::write(target(1), "").unwrap();
    refused(&made.path, &["target 1", "not a directory"]);
    fs::remove_file(target(1)).unwrap();
    fs::create_dir(target(1)).unwrap();
    refused(&made.path, &["target 1", "no target.toml", "mount it"]);
    fs::remove_dir(target(1)).unwrap();
    symlink("0", target(1)).unwrap();
    refused(&made.path, &["target 1", "same directory as target 0"]);
    fs::remove_file(target(1)).unwrap();
    symlink(other.path.join("targets/1"), target(1)).unwrap();
    refused(&made.path, &["target 1", "belongs to volume", &uuid]);
    fs::remove_file(target(1)).unwrap();

    fs::rename(target(2), target(1)).unwrap();
    fs::rename(&away, target(2)).unwrap();
    refused(
        &made.path,
        &["target 1", "is target 2 of this volume", "swapped"],
    );
    fs::rename(target(1), &away).unwrap();
    fs::rename(target(2), target(1)).unwrap();
    fs::rename(&away, target(2)).unwrap();
    Volume::open(&made.path).unwrap();

    let identity = target(0).join("target.toml");
    let good = fs::read_to_string(&identity).unwrap();
    fs::write(&identity, "index = 0\n").unwrap();
    refused(&made.path, &["target 0", "damaged", "format"]);
    fs::write(&identity, good.replace("format = 1", "format = 7")).unwrap();
    refused(&made.path, &["target 0", "format 7", "newer"]);
    fs::write(&identity, good).unwrap();

    fs::rename(target(0).join("objects"), &away).unwrap();
    refused(&made.path, &["target 0", "objects"]);
    symlink(&away, target(0).join("objects")).unwrap();
    refused(&made.path, &["target 0", "objects"]);
}

#[test]
fn places_without_the_mark_are_refused() {
    let temp = temp();
    let made = striped(temp.path().join("vol"), 1);
    let other = striped(temp.path().join("other"), 1);
    let (meta, away) = (made.path.join("meta"), temp.path().join("away"));
    fs::rename(&meta, &away).unwrap();
    refused(&made.path, &["meta is missing"]);
    fs::write(&meta, "").unwrap();
    refused(&made.path, &["meta is not a directory"]);
    fs::remove_file(&meta).unwrap();
    fs::create_dir(&meta).unwrap();
    refused(&made.path, &["does not carry the mark", "setfattr"]);
    fs::remove_dir(&meta).unwrap();
    fs::rename(other.path.join("meta"), &meta).unwrap();
    refused(&made.path, &["belongs to volume"]);
    fs::remove_dir_all(&meta).unwrap();
    fs::rename(&away, &meta).unwrap();
    for name in ["namespace", "orphans"] {
        let dir = meta.join(name);
        fs::remove_dir(&dir).unwrap();
        refused(&made.path, &[name, "is missing"]);
        symlink(temp.path(), &dir).unwrap();
        refused(&made.path, &[name]);
        fs::remove_file(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
    }
    Volume::open(&made.path).unwrap();
}

/// What a guest could leave in the plain directory that it shares, for the next start.
#[test]
fn a_planted_descriptor_reaches_nothing() {
    let temp = temp();
    let victim = striped(temp.path().join("victim"), 1);
    let share = temp.path().join("share");
    fs::create_dir(&share).unwrap();
    let planted = share.join("volume.toml");
    let uuid = "5b1b2b46-7a1e-4b5e-9a5b-0c6c63a2b9aa";
    for path in ["/", "../victim/meta", "/etc"] {
        let text = format!("format=2\nengine=\"posix\"\nuuid=\"{uuid}\"\npath=\"{path}\"\n");
        fs::write(&planted, text).unwrap();
        refused(&share, &["volume"]);
    }
    fs::remove_file(&planted).unwrap();
    symlink(victim.path.join("volume.toml"), &planted).unwrap();
    for name in ["meta", "targets"] {
        symlink(victim.path.join(name), share.join(name)).unwrap();
    }
    refused(&share, &["symbolic link"]);
    fs::remove_file(&planted).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &planted,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    refused(&share, &["not a regular file"]);
}

/// Runs `test` on a thread with a mount namespace of its own, where this user may have one.
fn with_own_mounts(test: impl FnOnce() + Send) {
    use rustix::thread::{unshare_unsafe, UnshareFlags};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the new namespaces are this short-lived thread's alone; no descriptor
            // table is unshared.
            let own = unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) };
            match own.and_then(|()| {
                use rustix::mount::{mount_change, MountPropagationFlags as Flags};
                mount_change("/", Flags::PRIVATE | Flags::REC)
            }) {
                Ok(()) => test(),
                Err(errno) => eprintln!("skipped: no mount namespace for this user: {errno}"),
            }
        });
        thread.join().unwrap();
    });
}

#[test]
fn read_only_places_are_refused() {
    use rustix::mount::{mount_bind, mount_remount, MountFlags};
    let temp = temp();
    let made = striped(temp.path().join("vol"), 2);
    for (name, words) in [
        ("targets/1", &["target 1", "read-only"][..]),
        ("meta", &["meta is read-only"]),
    ] {
        let place = made.path.join(name);
        with_own_mounts(|| {
            mount_bind(&place, &place).unwrap();
            mount_remount(&place, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
            refused(&made.path, words);
        });
    }
    Volume::open(&made.path).unwrap();
}

#[test]
fn a_full_target_leaves_nothing_made() {
    use rustix::mount::{mount, MountFlags};
    let temp = temp();
    let (vol, full) = (temp.path().join("vol"), temp.path().join("full"));
    fs::create_dir(&full).unwrap();
    with_own_mounts(|| {
        let options = Some(c"nr_inodes=100");
        mount("tmpfs", &full, "tmpfs", MountFlags::empty(), options).unwrap();
        let error = create_at(&vol, vec![temp.path().join("ok"), full.clone()]).unwrap_err();
        said(&error, &["cannot make", "full/objects", "No space left"]);
        assert!(tree(&full).is_empty());
    });
    assert_eq!(tree(temp.path()), [full]);
}

#[test]
fn another_users_volume_is_refused() {
    let temp = temp();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let made = striped(temp.path().join("vol"), 1);
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to become another user");
        return;
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let nobody = 65534;
            // SAFETY: the raw system call changes the ids of this thread alone.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
            assert_eq!(changed, 0);
            refused(&made.path, &["meta may not be written by this user"]);
        });
        thread.join().unwrap();
    });
}

// ---- the descriptor's text -------------------------------------------------------------

const GOOD: &str = "format = 2
engine = \"striped\"
uuid = \"5b1b2b46-7a1e-4b5e-9a5b-0c6c63a2b9aa\"
meta = \"meta\"

[layout]
stripe_unit = \"1M\"
stripe_count = 2
mdt_size = 65536

[[target]]
path = \"targets/0\"

[[target]]
path = \"/srv/it's \\\"here\\\"\"
";

fn parsed(text: &str) -> Result<Descriptor, Error> {
    Descriptor::parse(text, Path::new("v/volume.toml"))
}

#[test]
fn a_descriptor_reads_back_as_written() {
    let descriptor = parsed(GOOD).unwrap();
    assert_eq!(parsed(&descriptor.to_toml()).unwrap(), descriptor);
    let Engine::Striped(striped) = &descriptor.engine else {
        panic!("striped");
    };
    assert_eq!(striped.targets[1], Path::new("/srv/it's \"here\""));
    for engine in [
        Engine::Null,
        Engine::Posix {
            path: "d\\a".into(),
        },
    ] {
        let descriptor = Descriptor {
            engine,
            ..descriptor.clone()
        };
        assert_eq!(parsed(&descriptor.to_toml()).unwrap(), descriptor);
    }
    let mapped = GOOD.replace("meta =", "ownership = \"mapped\"\nmeta =");
    let mapped = parsed(&mapped).unwrap();
    assert_eq!(mapped.ownership, Ownership::Mapped);
    assert_eq!(parsed(&mapped.to_toml()).unwrap(), mapped);
    let native = GOOD.replace("meta =", "ownership = \"native\"\nmeta =");
    assert_eq!(parsed(&native).unwrap(), descriptor);
}

#[test]
fn mapped_ownership_from_create_to_open() {
    let temp = temp();
    let mapped = |path: &str, engine| {
        create(&CreateOptions {
            path: temp.path().join(path),
            ownership: Ownership::Mapped,
            engine,
        })
    };
    let error = mapped("null", NewEngine::Null).unwrap_err();
    said(&error, &["mapped ownership"]);
    assert!(tree(temp.path()).is_empty(), "nothing half-made");
    for (path, engine) in [
        ("posix", NewEngine::Posix { path: None }),
        ("striped", NewEngine::striped(NewTargets::Inside(2))),
    ] {
        let volume = mapped(path, engine).unwrap();
        assert_eq!(Volume::locate(&volume.path).unwrap(), volume);
        assert!(Volume::open(&volume.path).unwrap().owner_lock.is_some());
        // The file is nothing but a place for locks.
        fs::remove_file(volume.path.join("owner.lock")).unwrap();
        assert!(Volume::open(&volume.path).unwrap().owner_lock.is_some());
        let text = fs::read_to_string(volume.path.join(DESCRIPTOR_NAME)).unwrap();
        let wrong = text.replace("\"mapped\"", "\"maped\"");
        fs::write(volume.path.join(DESCRIPTOR_NAME), wrong).unwrap();
        refused(&volume.path, &["volume.toml:5:", "maped", "native"]);
    }
    let native = striped(temp.path().join("native"), 1);
    assert!(Volume::open(&native.path).unwrap().owner_lock.is_none());
}

#[test]
fn bad_descriptors_are_refused_with_file_line_and_key() {
    for (from, to, words) in [
        ("meta =", "metta =", &["v/volume.toml:4:", "metta"][..]),
        ("stripe_count", "stripes", &["v/volume.toml:8:", "stripes"]),
        (
            "[[target]]\npath = \"t",
            "[[target]]\nroad = \"t",
            &[":12:", "road"],
        ),
        ("\"1M\"", "\"1Q\"", &[":7:", "stripe_unit", "1Q"]),
        ("\"1M\"", "-1", &[":7:", "stripe_unit"]),
        ("\"1M\"", "1000", &["v/volume.toml", "stripe unit of 1000"]),
        (
            "count = 2",
            "count = 3",
            &["stripe count of 3", "there are 2"],
        ),
        ("count = 2", "count = 0", &["stripe count of 0"]),
        ("= 65536", "= 65537", &["mdt_size of 65537"]),
        ("mdt_size = 65536", "", &["missing field `mdt_size`"]),
        ("\"5b1b", "\"zz1b", &[":3:", "uuid"]),
        (
            "format = 2",
            "format = 3",
            &["v/volume.toml", "format 3", "newer", "use the"],
        ),
        (
            "format = 2",
            "format = 1",
            &["v/volume.toml", "format 1", "make the volume anew"],
        ),
        ("format = 2", "format = 0", &["format 0"]),
        ("format = 2", "", &["missing field `format`"]),
        (
            "format = 2",
            "format = 2\nformat = 2",
            &[":2:", "duplicate"],
        ),
        (
            "\"striped\"",
            "\"cephfs\"",
            &["unknown field `layout`", "`ceph`"],
        ),
        (
            "\"striped\"",
            "\"raid5\"",
            &["no engine \"raid5\"", "striped"],
        ),
        ("\"striped\"", "\"posix\"", &["unknown field `layout`"]),
        ("[layout]", "[layout", &[":6:"]),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD);
        said(&parsed(&text).expect_err(to), words);
    }
    said(&parsed("").unwrap_err(), &["missing field"]);
}

const CEPHFS: &str = "format = 2\nengine = \"cephfs\"\nuuid = \"d0f6b0c2-5956-4131-969d-ea637f14038b\"\n
[ceph]\nconf = \"c\"\nuser = \"a\"\npath = \"/x\"\ntimeout_s = 3\n\n[ceph.options]\n\"x y\" = \"1\"\n";

#[test]
fn a_cephfs_descriptor_is_read_and_written() {
    let path = Path::new("v/volume.toml");
    let read = Descriptor::parse(CEPHFS, path).unwrap();
    let Engine::Cephfs(cephfs) = &read.engine else {
        panic!("{read:?}")
    };
    assert_eq!((cephfs.timeout_s, cephfs.client_oc), (Some(3), false));
    assert_eq!(cephfs.options["x y"], "1");
    assert_eq!(Descriptor::parse(&read.to_toml(), path).unwrap(), read);
    for (from, to, said) in [
        ("conf = \"c\"\n", "", Impossible::NoMonitor),
        ("\"/x\"", "\"x\"", Impossible::CephPath),
        ("\"/x\"", "\"/x/../y\"", Impossible::CephPath),
        ("timeout_s = 3", "timeout_s = 0", Impossible::Timeout),
    ] {
        match Descriptor::parse(&CEPHFS.replace(from, to), path) {
            Err(Error::Values { source, .. }) => assert_eq!(source, said),
            other => panic!("{other:?}"),
        }
    }
}
