//! Files without a name, when the daemon dies.
//!
//! Debug builds of the daemon die where `PFS_CRASH_AT` says; others cannot be asked to.

use std::fs;
use std::time::{Duration, Instant};

use guest_tests::crash::dies_when_told;
use guest_tests::fixture::{Heritage, Mount, Noise, Volume};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{ops, Errno, Handle, SessionConfig};

const RDWR: i32 = libc::O_RDWR;
const LARGE: usize = 300_000;

fn begin(volume: &Volume) -> (Mount, Heritage) {
    let heritage = Heritage::new();
    let daemon = heritage.pass_to(volume.daemon());
    (Mount::start(daemon, &SessionConfig::default()), heritage)
}

fn orphans(volume: &Volume) -> usize {
    let dir = volume.path().join("meta/orphans");
    fs::read_dir(dir).unwrap().count()
}

fn objects(volume: &Volume) -> usize {
    volume.objects().concat().len()
}

fn links(mount: &mut Mount, handle: Handle) -> u32 {
    mount.fs().fgetattr(handle).unwrap().attr.nlink
}

/// A daemon that takes what any other left for dead, as soon as it starts.
fn purging(volume: &Volume) -> Mount {
    let daemon = volume.daemon().env("PFS_ORPHAN_AGE_S", "0");
    Mount::start(daemon, &SessionConfig::default())
}

#[track_caller]
fn soon(what: &str, condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn open_files_without_a_name_go_on() {
    let volume = Volume::striped();
    for kill in [true, false] {
        let (mut mount, heritage) = begin(&volume);
        let mut files = Vec::new();
        for len in [50, LARGE] {
            let bytes = Noise::new(len as u64).bytes(len);
            let fs = mount.fs();
            let removed = fs.create(ROOT_ID, "removed", 0o600, RDWR).unwrap().1;
            let replaced = fs.create(ROOT_ID, "replaced", 0o600, RDWR).unwrap().1;
            let nameless = fs.tmpfile(ROOT_ID, 0o600, RDWR).unwrap().1;
            for handle in [removed, replaced, nameless] {
                fs.write_all(handle, 0, &bytes).unwrap();
                files.push((handle, bytes.clone()));
            }
            fs.unlink(ROOT_ID, "removed").unwrap();
            fs.write_file("/new", b"new").unwrap();
            fs.rename(ROOT_ID, "new", ROOT_ID, "replaced").unwrap();
        }
        assert_eq!(orphans(&volume), 6);
        for round in 0..3 {
            match kill {
                true => drop(mount.daemon.kill().unwrap()),
                false => {
                    let status = mount.daemon.terminate().unwrap();
                    assert_eq!(status.code(), Some(0), "{}", mount.daemon.log());
                }
            };
            mount.resume_with(heritage.pass_to(volume.daemon()));
            // The next daemon has them before anything is asked of it.
            let other = purging(&volume);
            for (handle, bytes) in &mut files {
                assert_eq!(links(&mut mount, *handle), 0, "round {round}");
                assert!(mount.fs().read_to_end(*handle).unwrap() == *bytes);
                let more = Noise::new(round).bytes(1000);
                mount.fs().write_all(*handle, 0, &more).unwrap();
                bytes.resize(bytes.len().max(1000), 0);
                bytes[..1000].copy_from_slice(&more);
            }
            drop(other);
        }
        // Only those made without a name may get one.
        let given: Vec<bool> = files
            .iter()
            .enumerate()
            .map(|(at, (handle, _))| {
                let linked = mount
                    .fs()
                    .link(handle.nodeid, ROOT_ID, format!("{kill}-{at}"));
                linked.is_ok()
            })
            .collect();
        assert_eq!(given, [false, false, true, false, false, true]);
        for (handle, _) in &files {
            mount.fs().release(*handle).unwrap();
        }
        assert_eq!(orphans(&volume), 0);
        assert_eq!(mount.fs().attr(&format!("/{kill}-5")).unwrap().nlink, 1);
        mount.fs().unlink(ROOT_ID, format!("{kill}-5")).unwrap();
        mount.fs().unlink(ROOT_ID, format!("{kill}-2")).unwrap();
        assert_eq!(objects(&volume), 0);
        mount.fs().unlink(ROOT_ID, "replaced").unwrap();
    }
}

#[test]
fn what_a_dead_daemon_had_open_is_purged_by_another() {
    if !cfg!(debug_assertions) {
        return eprintln!("skipped: a release build waits for minutes");
    }
    let volume = Volume::striped();
    let mut mount = volume.mount();
    let file = mount.fs().create(ROOT_ID, "f", 0o600, RDWR).unwrap().1;
    mount.fs().write_all(file, 0, &[1; LARGE]).unwrap();
    mount.fs().unlink(ROOT_ID, "f").unwrap();
    let lives = purging(&volume);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((orphans(&volume), objects(&volume)), (1, 4), "in use");
    mount.daemon.kill().unwrap();
    // Others wait, in case it is restarted.
    let waits = volume.mount();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((orphans(&volume), objects(&volume)), (1, 4), "young");
    let purges = purging(&volume);
    soon("nothing is left", || {
        (orphans(&volume), objects(&volume)) == (0, 0)
    });
    drop((lives, waits, purges));
}

/// Where the removal or the replacement of a name may be interrupted.
const REMOVE: [&str; 4] = [
    "orphan_taken",
    "orphan_left",
    "orphan_linked",
    "orphan_replaced",
];

/// Where the removal of what is left then may be.
const PURGE: [&str; 3] = ["orphan_emptied", "object_deleted", "orphan_objects_deleted"];

/// A file in use, whose name is removed or replaced in a daemon that dies on the way.
struct Removal {
    point: &'static str,
    /// The name is replaced.
    replace: bool,
    /// The file is open, so its data goes only when that is closed.
    open: bool,
}

impl Removal {
    /// Whether removing the name passes the point; where the file is open, closing it passes those of
    /// the purge.
    fn passes(&self) -> bool {
        match self.point {
            "orphan_taken" | "orphan_left" => !self.replace,
            "orphan_linked" | "orphan_replaced" => self.replace,
            purge => !self.open && PURGE.contains(&purge),
        }
    }

    fn run(&self, volume: &Volume) {
        let Removal {
            point,
            replace,
            open,
        } = *self;
        let what = format!("{point}, replace {replace}, open {open}");
        let (mut mount, heritage) = begin(volume);
        let bytes = Noise::new(7).bytes(LARGE);
        let fs = mount.fs();
        let file = fs.create(ROOT_ID, "f", 0o600, RDWR).unwrap().1;
        fs.write_all(file, 0, &bytes).unwrap();
        fs.write_file("/new", b"new").unwrap();
        if !open {
            fs.release(file).unwrap();
        }
        mount.daemon.kill().unwrap();
        let mortal = volume.daemon().env("PFS_CRASH_AT", format!("{point}:1"));
        mount.resume_with(heritage.pass_to(mortal));
        let next = |mount: &mut Mount| {
            let status = mount.daemon.wait().unwrap();
            assert!(status.code().is_none(), "{what}: {status}");
            mount.resume_with(heritage.pass_to(volume.daemon()));
        };
        let request = match replace {
            true => ops::rename(ROOT_ID, b"new", ROOT_ID, b"f"),
            false => ops::unlink(ROOT_ID, b"f"),
        };
        let ticket = mount.fs().submit(&request.length_only(), 0).unwrap();
        if self.passes() {
            next(&mut mount);
        }
        let done = mount.fs().wait(ticket);
        done.unwrap_or_else(|e| panic!("{what}: {e}"));
        match replace {
            true => assert_eq!(mount.fs().read_file("/f").unwrap(), b"new", "{what}"),
            false => {
                let gone = mount.fs().lookup(ROOT_ID, "f").unwrap_err();
                assert_eq!(gone, Errno::NOENT, "{what}");
            }
        }
        if open {
            assert_eq!(links(&mut mount, file), 0, "{what}");
            assert!(mount.fs().read_to_end(file).unwrap() == bytes, "{what}");
            let ticket = mount.fs().submit(&ops::release(file, RDWR), 0).unwrap();
            if PURGE.contains(&point) {
                next(&mut mount);
                // Closed already, if not answered.
                let again = mount.fs().wait(ticket).unwrap_err();
                assert_eq!(again, Errno::BADF, "{what}");
            } else {
                mount.fs().wait(ticket).unwrap();
            }
        }
        // What was replaced, or closed, is not known to the next daemon, but to who looks for it.
        drop(purging(volume));
        let other = purging(volume);
        soon(&what, || (orphans(volume), objects(volume)) == (0, 0));
        drop(other);
        for name in ["f", "new"] {
            let _ = mount.fs().unlink(ROOT_ID, name);
        }
    }
}

#[test]
fn removals_that_are_interrupted_are_finished() {
    if !dies_when_told() {
        return;
    }
    let volume = Volume::striped();
    for point in REMOVE.into_iter().chain(PURGE) {
        for replace in [false, true] {
            for open in [false, true] {
                let removal = Removal {
                    point,
                    replace,
                    open,
                };
                removal.run(&volume);
            }
        }
    }
}
