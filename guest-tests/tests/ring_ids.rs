//! `--translate-uid` and `--translate-gid`: what the guest makes and changes is the volume's under
//! other ids, and the guest sees its own. A second daemon without them tells what the volume has.

use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::{Attr, SetattrIn, SetattrValid, ROOT_ID};
use guest_tests::ring::fuse::{Caller, Client, Errno, SessionConfig};

const RDWR: i32 = libc::O_RDWR;

/// A translated mount, and a plain one.
fn mounts(volume: &Volume, rules: &[&str]) -> (Mount, Mount) {
    let options = [&["--cache=never", "--xattr"], rules].concat();
    let daemon = volume.daemon_with(&options);
    (
        Mount::start(daemon, &SessionConfig::default()),
        volume.mount(),
    )
}

fn each_volume(test: impl Fn(&Volume)) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make files for others");
        return;
    }
    test(&Volume::posix());
    test(&Volume::striped());
}

fn become_user(fs: &mut Client, uid: u32, gid: u32) {
    fs.caller = Caller { uid, gid, pid: 1 };
}

fn owner(attr: &Attr) -> (u32, u32) {
    (attr.uid, attr.gid)
}

fn chown(fs: &mut Client, node: u64, uid: u32, gid: u32) -> Result<Attr, Errno> {
    let set = SetattrIn {
        valid: (SetattrValid::UID | SetattrValid::GID).bits(),
        uid,
        gid,
        ..SetattrIn::default()
    };
    let changed = fs.setattr(node, &set);
    changed.map(|out| out.attr).map_err(|e| e.errno().unwrap())
}

/// Every request that makes a node, and every answer with attributes.
#[test]
fn what_is_made_and_what_is_seen() {
    let rules = [
        "--translate-uid=map:1000:7000:10",
        "--translate-gid=map:50:8050:1",
    ];
    each_volume(|volume| {
        let (mut a, mut plain) = mounts(volume, &rules);
        let fs = a.fs();
        become_user(fs, 1003, 50);
        let (file, handle) = fs.create(ROOT_ID, "file", 0o644, RDWR).unwrap();
        let dir = fs.mkdir(ROOT_ID, "dir", 0o755).unwrap();
        let link = fs.symlink(ROOT_ID, "link", "file").unwrap();
        let fifo = fs.mknod(ROOT_ID, "fifo", libc::S_IFIFO | 0o600, 0).unwrap();
        let (temp, _) = fs.tmpfile(ROOT_ID, 0o600, RDWR).unwrap();
        let named = fs.link(temp.nodeid, ROOT_ID, "temp").unwrap();
        for made in [&file, &dir, &link, &fifo, &temp, &named] {
            assert_eq!(owner(&made.attr), (1003, 50));
        }
        become_user(fs, 0, 0);
        assert_eq!(owner(&fs.fgetattr(handle).unwrap().attr), (1003, 50));
        for name in ["file", "dir", "link", "fifo", "temp"] {
            let seen = fs.lookup(ROOT_ID, name).unwrap();
            assert_eq!(owner(&seen.attr), (1003, 50), "{name}");
            let stat = fs.statx(seen.nodeid, None, 0, 0x7ff).unwrap().stat;
            assert_eq!((stat.uid, stat.gid), (1003, 50), "{name}");
            let truth = plain.fs().lookup(ROOT_ID, name).unwrap();
            assert_eq!(owner(&truth.attr), (7003, 8050), "{name}");
        }
        let opened = fs.opendir(ROOT_ID).unwrap();
        let listed = fs.readdirplus(opened, 0, 32 << 10).unwrap();
        let plus = listed.iter().filter(|(entry, _)| entry.nodeid != 0);
        let owners: Vec<_> = plus.map(|(entry, _)| owner(&entry.attr)).collect();
        assert!(
            owners.len() >= 5 && owners.iter().all(|seen| *seen == (1003, 50)),
            "{owners:?}"
        );
    });
}

#[test]
fn owners_are_changed_to_translated_ids() {
    let rules = [
        "--translate-uid=map:0:7000:10",
        "--translate-gid=guest:0:8000:10",
    ];
    each_volume(|volume| {
        let (mut a, mut plain) = mounts(volume, &rules);
        let (file, _) = a.fs().create(ROOT_ID, "file", 0o644, RDWR).unwrap();
        // Groups have no way back: the guest sees the volume's.
        assert_eq!(owner(&file.attr), (0, 8000));
        let seen = chown(a.fs(), file.nodeid, 5, 4).unwrap();
        assert_eq!(owner(&seen), (5, 8004));
        let truth = plain.fs().lookup(ROOT_ID, "file").unwrap();
        assert_eq!(owner(&truth.attr), (7005, 8004));
        // Of which nothing is said.
        let seen = chown(a.fs(), file.nodeid, 500, 400).unwrap();
        assert_eq!(owner(&seen), (500, 400));
    });
}

#[test]
fn squashed_to_one() {
    let rules = [
        "--translate-uid=squash-guest:0:7000:4000000000",
        "--translate-uid=squash-host:0:0:4000000000",
    ];
    each_volume(|volume| {
        let (mut a, mut plain) = mounts(volume, &rules);
        for (uid, name) in [(0, "zero"), (1000, "user")] {
            become_user(a.fs(), uid, 0);
            let (made, _) = a.fs().create(ROOT_ID, name, 0o644, RDWR).unwrap();
            assert_eq!(made.attr.uid, 0);
            assert_eq!(plain.fs().lookup(ROOT_ID, name).unwrap().attr.uid, 7000);
        }
    });
}

/// A forbidden user makes nothing and gets nothing, but may read, write and close.
#[test]
fn forbidden() {
    let rules = [
        "--translate-uid=forbid-guest:1:100",
        "--translate-gid=forbid-guest:7:1",
    ];
    each_volume(|volume| {
        let (mut a, _) = mounts(volume, &rules);
        let fs = a.fs();
        let (file, _) = fs.create(ROOT_ID, "file", 0o666, RDWR).unwrap();
        for (uid, gid) in [(1, 0), (100, 0), (0, 7)] {
            become_user(fs, uid, gid);
            let refused =
                |error: guest_tests::ring::fuse::Error| error.errno() == Some(Errno::PERM);
            assert!(fs.create(ROOT_ID, "c", 0o644, RDWR).is_err_and(refused));
            assert!(fs.mkdir(ROOT_ID, "d", 0o755).is_err_and(refused));
            assert!(fs.symlink(ROOT_ID, "s", "t").is_err_and(refused));
            assert!(fs
                .mknod(ROOT_ID, "n", libc::S_IFREG | 0o600, 0)
                .is_err_and(refused));
            assert!(fs.tmpfile(ROOT_ID, 0o600, RDWR).is_err_and(refused));
            let handle = fs.open(file.nodeid, RDWR).unwrap();
            fs.write_all(handle, 0, b"data").unwrap();
            assert_eq!(fs.read(handle, 0, 9).unwrap(), b"data");
            fs.flush(handle, 0).unwrap();
            fs.release(handle).unwrap();
        }
        become_user(fs, 0, 0);
        assert_eq!(chown(fs, file.nodeid, 1, 0).unwrap_err(), Errno::PERM);
        assert_eq!(chown(fs, file.nodeid, 0, 7).unwrap_err(), Errno::PERM);
        let names = fs.list("/").unwrap().len();
        assert!(names <= 3, "nothing was made: {names} entries");
    });
}

/// The ids within an ACL, too.
#[test]
fn acls() {
    let rules = [
        "--translate-uid=map:1000:7000:10",
        "--translate-gid=map:50:8050:1",
    ];
    let acl = |user: u32, group: u32| {
        let mut value = 2u32.to_le_bytes().to_vec();
        let none = u32::MAX;
        for (tag, id) in [
            (1, none),
            (2, user),
            (4, none),
            (8, group),
            (16, none),
            (32, none),
        ] {
            value.extend([tag, 0, 6, 0]);
            value.extend(id.to_le_bytes());
        }
        value
    };
    each_volume(|volume| {
        let (mut a, mut plain) = mounts(volume, &rules);
        const NAME: &str = "system.posix_acl_access";
        let (file, _) = a.fs().create(ROOT_ID, "file", 0o644, RDWR).unwrap();
        a.fs()
            .setxattr(file.nodeid, NAME, &acl(1003, 50), 0)
            .unwrap();
        let truth = plain.fs().lookup(ROOT_ID, "file").unwrap().nodeid;
        assert_eq!(plain.fs().getxattr(truth, NAME).unwrap(), acl(7003, 8050));
        assert_eq!(a.fs().getxattr(file.nodeid, NAME).unwrap(), acl(1003, 50));
    });
}
