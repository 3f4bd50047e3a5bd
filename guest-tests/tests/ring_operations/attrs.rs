//! Attributes, ownership, and what is asked of the whole volume.

use guest_tests::fixture::{Mount, Volume, MDT_SIZE};
use guest_tests::ring::fuse::abi::{
    Opcode, SetattrIn, SetattrValid as Set, WriteIn, WriteOut, FATTR_FH, ROOT_ID,
};
use guest_tests::ring::fuse::{ops, Caller, Client, Errno, Request};

on_every_kind_of_volume! {
    a_new_nodes_attributes_are_its_own,
    each_attribute_is_set,
    times_are_set,
    umask_and_owner_are_the_callers,
    writing_drops_setuid_when_told,
    statx_tells_the_time_of_birth,
    statfs_and_syncfs,
    access_by_mode,
    a_readonly_mount_changes_nothing,
}

/// FUSE_WRITE_KILL_SUIDGID.
const KILL_SUIDGID: u32 = 1 << 2;

fn set(fs: &mut Client, node: u64, set: SetattrIn) -> guest_tests::ring::fuse::abi::Attr {
    let answered = fs.setattr(node, &set).unwrap().attr;
    let asked = fs.getattr(node).unwrap().attr;
    assert_eq!(
        (answered.mode, answered.uid, answered.gid),
        (asked.mode, asked.uid, asked.gid)
    );
    assert_eq!((answered.size, answered.mtime), (asked.size, asked.mtime));
    asked
}

/// The guest's kernel believes the answer that made a node: it is to be that of a later GETATTR.
fn a_new_nodes_attributes_are_its_own(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, _) = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    let made = [
        ("create", file),
        (
            "tmpfile",
            fs.tmpfile(ROOT_ID, 0o600, libc::O_RDWR).unwrap().0,
        ),
        ("mkdir", fs.mkdir(ROOT_ID, "d", 0o700).unwrap()),
        (
            "mknod",
            fs.mknod(ROOT_ID, "n", libc::S_IFREG | 0o600, 0).unwrap(),
        ),
        (
            "fifo",
            fs.mknod(ROOT_ID, "p", libc::S_IFIFO | 0o600, 0).unwrap(),
        ),
        ("symlink", fs.symlink(ROOT_ID, "s", "f").unwrap()),
    ];
    for (how, entry) in made {
        let later = fs.getattr(entry.nodeid).unwrap().attr;
        assert_eq!(format!("{:?}", entry.attr), format!("{later:?}"), "{how}");
    }
}

fn mode(mode: u32) -> SetattrIn {
    SetattrIn {
        valid: Set::MODE.bits(),
        mode,
        ..SetattrIn::default()
    }
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped in part: only root can give files away");
    }
    root
}

fn each_attribute_is_set(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, handle) = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    let node = file.nodeid;
    for bits in [0o4755, 0o2644, 0o1777, 0, 0o600] {
        assert_eq!(set(fs, node, mode(bits)).mode, libc::S_IFREG | bits);
    }
    let size = |size| SetattrIn {
        valid: Set::SIZE.bits() | FATTR_FH,
        fh: handle.fh,
        size,
        ..SetattrIn::default()
    };
    for bytes in [5, 300_000, 0] {
        assert_eq!(set(fs, node, size(bytes)).size, bytes);
    }
    if root() {
        let owner = |valid: Set, uid, gid| SetattrIn {
            valid: valid.bits(),
            uid,
            gid,
            ..SetattrIn::default()
        };
        let attr = set(fs, node, owner(Set::UID | Set::GID, 12, 34));
        assert_eq!((attr.uid, attr.gid), (12, 34));
        let attr = set(fs, node, owner(Set::UID, 56, 999));
        assert_eq!((attr.uid, attr.gid), (56, 34));
        let attr = set(fs, node, owner(Set::GID, 999, 78));
        assert_eq!((attr.uid, attr.gid), (56, 78));
        let none = fs.setattr(node, &owner(Set::UID, u32::MAX, 0));
        assert_eq!(none.unwrap_err(), Errno::INVAL);
    }
    let link = fs.symlink(ROOT_ID, "s", "f").unwrap();
    assert_eq!(
        fs.setattr(link.nodeid, &mode(0o600)).unwrap_err(),
        Errno::OPNOTSUPP
    );
    assert_eq!(fs.getattr(node).unwrap().attr.mode, libc::S_IFREG | 0o600);
}

fn times_are_set(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, handle) = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    let node = file.nodeid;
    let times = |valid: Set, atime: u64, mtime: u64| SetattrIn {
        valid: valid.bits(),
        atime,
        atimensec: 123_456_789,
        mtime,
        mtimensec: 987_654_321,
        ..SetattrIn::default()
    };
    let attr = set(fs, node, times(Set::ATIME | Set::MTIME, 1000, 2000));
    assert_eq!((attr.atime, attr.atimensec), (1000, 123_456_789));
    assert_eq!((attr.mtime, attr.mtimensec), (2000, 987_654_321));
    let attr = set(fs, node, times(Set::MTIME, 7, 3000));
    assert_eq!((attr.atime, attr.mtime), (1000, 3000));
    // Before 1970.
    let attr = set(fs, node, times(Set::ATIME, (-5_i64) as u64, 7));
    assert_eq!((attr.atime as i64, attr.mtime), (-5, 3000));
    let attr = set(fs, node, times(Set::MTIME | Set::MTIME_NOW, 7, 7));
    assert!(attr.mtime > 1_000_000_000, "{}", attr.mtime);
    let bad = SetattrIn {
        mtimensec: 1_000_000_000,
        ..times(Set::MTIME, 7, 7)
    };
    assert_eq!(fs.setattr(node, &bad).unwrap_err(), Errno::INVAL);
    // A write changes the time, also one that goes to the targets alone.
    for at in [0, MDT_SIZE as u64, MDT_SIZE as u64] {
        set(fs, node, times(Set::MTIME, 7, 4000));
        fs.write(handle, at, b"x").unwrap();
        assert!(fs.getattr(node).unwrap().attr.mtime > 4000);
    }
}

fn umask_and_owner_are_the_callers(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let name = b"f";
    let (file, _) = fs
        .call(&ops::create(ROOT_ID, name, 0o666, libc::O_RDWR, 0o027))
        .unwrap();
    assert_eq!(file.attr.mode & 0o7777, 0o640);
    let dir = fs.call(&ops::mkdir(ROOT_ID, b"d", 0o777, 0o022)).unwrap();
    assert_eq!(dir.attr.mode & 0o7777, 0o755);
    let fifo = ops::mknod(ROOT_ID, b"p", libc::S_IFIFO | 0o666, 0, 0o111);
    assert_eq!(fs.call(&fifo).unwrap().attr.mode & 0o7777, 0o666);
    let (tmp, _) = fs
        .call(&ops::tmpfile(ROOT_ID, 0o666, libc::O_RDWR, 0o077))
        .unwrap();
    assert_eq!(tmp.attr.mode & 0o7777, 0o600);
    if !root() {
        return;
    }
    let parent = fs.mkdir(ROOT_ID, "open", 0o777).unwrap().nodeid;
    for (uid, gid) in [(1234, 5678), (0, 0), (99, 7)] {
        fs.caller = Caller { uid, gid, pid: 1 };
        let name = format!("{uid}");
        let (made, _) = fs.create(parent, &name, 0o600, libc::O_RDWR).unwrap();
        let others = [
            fs.mkdir(parent, name.clone() + "d", 0o700).unwrap(),
            fs.symlink(parent, name.clone() + "s", "x").unwrap(),
            fs.mknod(parent, name + "p", libc::S_IFIFO | 0o600, 0)
                .unwrap(),
            fs.tmpfile(parent, 0o600, libc::O_RDWR).unwrap().0,
            made,
        ];
        for entry in others {
            assert_eq!((entry.attr.uid, entry.attr.gid), (uid, gid));
        }
    }
    // A directory's group goes to what is made in it, where the directory says so.
    fs.caller = Caller::default();
    let given = SetattrIn {
        valid: (Set::MODE | Set::GID).bits(),
        mode: 0o2777,
        gid: 55,
        ..SetattrIn::default()
    };
    fs.setattr(parent, &given).unwrap();
    let sub = fs.mkdir(parent, "sub", 0o700).unwrap();
    assert_eq!((sub.attr.gid, sub.attr.mode & 0o7777), (55, 0o2700));
}

fn writing_drops_setuid_when_told(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    for (index, offset) in [0, 200_000].into_iter().enumerate() {
        let (file, handle) = fs
            .create(ROOT_ID, format!("{index}"), 0o600, libc::O_RDWR)
            .unwrap();
        let data = fs.memory().alloc_pages(100).unwrap();
        for (before, flags, after) in [
            (0o6755, 0, 0o6755),
            (0o6755, KILL_SUIDGID, 0o755),
            (0o2644, KILL_SUIDGID, 0o2644),
            (0o4700, KILL_SUIDGID, 0o700),
        ] {
            fs.setattr(file.nodeid, &mode(before)).unwrap();
            let body = WriteIn {
                fh: handle.fh,
                offset,
                size: 100,
                fuse_flags: flags,
                ..WriteIn::default()
            };
            let request: Request<'_, WriteOut> = Request::new(Opcode::Write as u32, file.nodeid)
                .body(&body)
                .payload(&data);
            assert_eq!(fs.call(&request).unwrap().size, 100);
            let now = fs.getattr(file.nodeid).unwrap().attr.mode;
            assert_eq!(now & 0o7777, after, "{before:o} written with flags {flags}");
        }
    }
}

fn statx_tells_the_time_of_birth(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, handle) = fs.create(ROOT_ID, "f", 0o640, libc::O_RDWR).unwrap();
    fs.write(handle, 100_000, b"x").unwrap();
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    for handle in [None, Some(handle)] {
        let stat = fs.statx(file.nodeid, handle, 0, mask).unwrap().stat;
        assert_eq!(stat.mask & mask, mask);
        assert_eq!(
            (stat.ino, stat.size, stat.nlink),
            (file.attr.ino, 100_001, 1)
        );
        assert_eq!(u32::from(stat.mode), libc::S_IFREG | 0o640);
        let attr = fs.getattr(file.nodeid).unwrap().attr;
        assert_eq!(
            (stat.mtime.tv_sec as u64, stat.mtime.tv_nsec),
            (attr.mtime, attr.mtimensec)
        );
        assert_eq!((stat.blocks, stat.blksize), (attr.blocks, attr.blksize));
        assert!(stat.btime.tv_sec > 1_000_000_000, "{:?}", stat.btime);
        assert!(stat.btime.tv_sec as u64 <= attr.ctime);
    }
}

fn statfs_and_syncfs(mount: &mut Mount, volume: &Volume) {
    let fs = mount.fs();
    let host = rustix::fs::statvfs(volume.path()).unwrap();
    let st = fs.statfs(ROOT_ID).unwrap();
    assert!(st.bsize > 0 && st.frsize > 0 && st.namelen == 255);
    // Targets on one file system are not counted four times.
    let bytes = st.blocks * u64::from(st.frsize);
    assert_eq!(bytes, host.f_blocks * host.f_frsize);
    assert!(st.bavail <= st.bfree && st.bfree <= st.blocks);
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap();
    assert_eq!(fs.statfs(dir.nodeid).unwrap().blocks, st.blocks);
    fs.write_file("/f", &[1; 300_000]).unwrap();
    fs.syncfs(ROOT_ID).unwrap();
    assert_eq!(fs.statfs(1 << 40).unwrap_err(), Errno::STALE);
}

fn access_by_mode(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let node = fs
        .create(ROOT_ID, "f", 0o640, libc::O_RDWR)
        .unwrap()
        .0
        .nodeid;
    fs.access(node, 6).unwrap();
    assert_eq!(fs.access(node, 1).unwrap_err(), Errno::ACCESS);
    fs.caller = Caller {
        uid: 77,
        gid: 77,
        pid: 1,
    };
    assert_eq!(fs.access(node, 4).unwrap_err(), Errno::ACCESS);
    fs.access(node, 0).unwrap();
    fs.caller = Caller::default();
    assert_eq!(fs.access(1 << 40, 0).unwrap_err(), Errno::STALE);
}

fn a_readonly_mount_changes_nothing(mount: &mut Mount, volume: &Volume) {
    mount.fs().write_file("/f", &[7; 100_000]).unwrap();
    let mut readonly = Mount::start(
        volume.daemon_with(&["--readonly", "--xattr"]),
        &Default::default(),
    );
    let fs = readonly.fs();
    assert!(fs.read_file("/f").unwrap() == [7; 100_000]);
    let node = fs.lookup(ROOT_ID, "f").unwrap().nodeid;
    let refused = [
        fs.mkdir(ROOT_ID, "d", 0o755).map(drop),
        fs.create(ROOT_ID, "g", 0o600, libc::O_RDONLY).map(drop),
        fs.create(ROOT_ID, "f", 0o600, libc::O_RDONLY).map(drop),
        fs.mknod(ROOT_ID, "p", libc::S_IFIFO, 0).map(drop),
        fs.symlink(ROOT_ID, "s", "x").map(drop),
        fs.link(node, ROOT_ID, "l").map(drop),
        fs.unlink(ROOT_ID, "f"),
        fs.rmdir(ROOT_ID, "f"),
        fs.rename(ROOT_ID, "f", ROOT_ID, "g"),
        fs.rename2(ROOT_ID, "f", ROOT_ID, "g", libc::RENAME_NOREPLACE),
        fs.tmpfile(ROOT_ID, 0o600, libc::O_RDWR).map(drop),
        fs.setattr(node, &mode(0)).map(drop),
        fs.setxattr(node, "user.a", b"", 0),
        fs.removexattr(node, "user.a"),
        fs.open(node, libc::O_RDWR).map(drop),
        fs.open(node, libc::O_WRONLY).map(drop),
        fs.open(node, libc::O_RDONLY | libc::O_TRUNC).map(drop),
    ];
    for (index, result) in refused.into_iter().enumerate() {
        assert_eq!(result.unwrap_err(), Errno::ROFS, "request {index}");
    }
    assert_eq!(fs.list("/").unwrap().len(), 1);
    assert!(fs.read_file("/f").unwrap() == [7; 100_000]);
}
