//! Setuid and setgid bits: what clears them, what hands them down; and devices.

use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::{
    Opcode, OpenIn, OpenOut, SetattrIn, SetattrValid as Set, ROOT_ID,
};
use guest_tests::ring::fuse::{Caller, Client, Errno, Handle, Request};

on_every_kind_of_volume! {
    a_change_of_owner_clears,
    a_truncation_clears_when_told,
    what_others_allocate_or_copy_clears,
    a_whiteout_is_left_behind,
    nodes_of_every_kind,
    a_links_own_attributes,
}

/// FATTR_KILL_SUIDGID.
const KILL_SUIDGID: u32 = 1 << 11;

fn set(fs: &mut Client, node: u64, valid: u32, mode: u32, uid: u32) -> u32 {
    let set = SetattrIn {
        valid,
        mode,
        uid,
        gid: 7,
        ..SetattrIn::default()
    };
    fs.setattr(node, &set).unwrap().attr.mode & 0o7777
}

fn chmod(fs: &mut Client, node: u64, mode: u32) {
    assert_eq!(set(fs, node, Set::MODE.bits(), mode, 0), mode);
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn a_change_of_owner_clears(mount: &mut Mount, _: &Volume) {
    if !root() {
        return eprintln!("skipped: only root can give files away");
    }
    let fs = mount.fs();
    let file = fs
        .create(ROOT_ID, "f", 0o600, libc::O_RDWR)
        .unwrap()
        .0
        .nodeid;
    let dir = fs.mkdir(ROOT_ID, "d", 0o700).unwrap().nodeid;
    // As Linux asks: told for files, and not for directories.
    for (before, after) in [
        (0o6755, 0o755),
        (0o2644, 0o2644),
        (0o4644, 0o644),
        (0o7711, 0o1711),
    ] {
        for owner in [Set::UID, Set::GID, Set::UID | Set::GID] {
            chmod(fs, file, before);
            let now = set(fs, file, owner.bits() | KILL_SUIDGID, 0, 99);
            assert_eq!(now, after, "{before:o}");
            chmod(fs, dir, before);
            assert_eq!(set(fs, dir, owner.bits(), 0, 99), before);
        }
    }
    let attr = fs.getattr(file).unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (99, 7));
}

fn a_truncation_clears_when_told(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, handle) = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    let node = file.nodeid;
    let open = |fs: &mut Client, fuse_flags| {
        let body = OpenIn {
            flags: (libc::O_WRONLY | libc::O_TRUNC) as u32,
            fuse_flags,
        };
        let request: Request<'_, OpenOut> = Request::new(Opcode::Open as u32, node).body(&body);
        let opened = fs.call(&request).unwrap();
        fs.release(Handle::new(node, &opened)).unwrap();
    };
    for len in [0, 100, 300_000] {
        for (told, after) in [(false, 0o6755), (true, 0o755)] {
            fs.write(handle, 0, &vec![1; len]).unwrap();
            chmod(fs, node, 0o6755);
            open(fs, u32::from(told));
            assert_eq!(fs.getattr(node).unwrap().attr.mode & 0o7777, after);
            fs.write(handle, 0, &vec![1; len]).unwrap();
            chmod(fs, node, 0o6755);
            let kill = if told { KILL_SUIDGID } else { 0 };
            assert_eq!(set(fs, node, Set::SIZE.bits() | kill, 0, 0), after);
        }
    }
}

fn what_others_allocate_or_copy_clears(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, handle) = fs.create(ROOT_ID, "f", 0o777, libc::O_RDWR).unwrap();
    let (_, from) = fs.create(ROOT_ID, "from", 0o777, libc::O_RDWR).unwrap();
    fs.write(from, 0, &[1; 200_000]).unwrap();
    for (uid, after) in [(0, 0o6777), (1000, 0o777)] {
        fs.caller = Caller {
            uid,
            gid: uid,
            pid: 1,
        };
        for at in [0, 150_000] {
            chmod(fs, file.nodeid, 0o6777);
            fs.fallocate(handle, 0, at, 5000).unwrap();
            assert_eq!(fs.getattr(file.nodeid).unwrap().attr.mode & 0o7777, after);
            chmod(fs, file.nodeid, 0o6777);
            fs.copy_file_range(from, 0, handle, at, 5000).unwrap();
            assert_eq!(fs.getattr(file.nodeid).unwrap().attr.mode & 0o7777, after);
        }
    }
}

fn a_whiteout_is_left_behind(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    for (index, len) in [0, 300_000].into_iter().enumerate() {
        let (from, to) = (format!("from{index}"), format!("to{index}"));
        fs.write_file(&format!("/{from}"), &vec![5; len]).unwrap();
        fs.write_file(&format!("/{to}"), b"old").unwrap();
        let taken = libc::RENAME_WHITEOUT | libc::RENAME_NOREPLACE;
        let taken = fs.rename2(ROOT_ID, &from, ROOT_ID, &to, taken);
        assert_eq!(taken.unwrap_err(), Errno::EXIST);
        fs.rename2(ROOT_ID, &from, ROOT_ID, &to, libc::RENAME_WHITEOUT)
            .unwrap();
        let hole = fs.lookup(ROOT_ID, &from).unwrap().attr;
        assert_eq!((hole.mode & libc::S_IFMT, hole.rdev), (libc::S_IFCHR, 0));
        assert!(fs.read_file(&format!("/{to}")).unwrap() == vec![5; len]);
        fs.unlink(ROOT_ID, &from).unwrap();
        let missing = fs.rename2(ROOT_ID, &from, ROOT_ID, &to, libc::RENAME_WHITEOUT);
        assert_eq!(missing.unwrap_err(), Errno::NOENT);
    }
}

fn nodes_of_every_kind(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    for (kind, rdev) in [
        (libc::S_IFREG, 0),
        (libc::S_IFIFO, 0),
        (libc::S_IFSOCK, 0),
        (libc::S_IFCHR, 0x103),
        (libc::S_IFBLK, 0x1000_08ff),
    ] {
        if rdev != 0 && !root() {
            eprintln!("skipped in part: devices need root");
            continue;
        }
        let name = format!("{kind:o}");
        let made = fs.mknod(ROOT_ID, &name, kind | 0o4640, rdev).unwrap();
        assert_eq!((made.attr.mode, made.attr.rdev), (kind | 0o4640, rdev));
        assert_eq!((made.attr.nlink, made.attr.size), (1, 0));
        let again = fs.mknod(ROOT_ID, &name, kind | 0o600, rdev);
        assert_eq!(again.unwrap_err(), Errno::EXIST);
        let other = fs
            .link(made.nodeid, ROOT_ID, name.clone() + "-link")
            .unwrap();
        assert_eq!((other.nodeid, other.attr.nlink), (made.nodeid, 2));
        chmod(fs, made.nodeid, 0o751);
        assert_eq!(fs.lookup(ROOT_ID, &name).unwrap().attr.mode, kind | 0o751);
        if kind != libc::S_IFREG {
            assert_eq!(
                fs.open(made.nodeid, libc::O_RDONLY).unwrap_err(),
                Errno::NXIO
            );
            let size = SetattrIn {
                valid: Set::SIZE.bits(),
                ..SetattrIn::default()
            };
            assert_eq!(fs.setattr(made.nodeid, &size).unwrap_err(), Errno::INVAL);
        }
    }
    // Their kinds are told by a listing, too.
    for entry in fs.list_node(ROOT_ID).unwrap() {
        let name = String::from_utf8(entry.name.clone()).unwrap();
        if let Ok(kind) = u32::from_str_radix(name.trim_end_matches("-link"), 8) {
            assert_eq!(entry.kind, kind >> 12, "{name}");
        }
    }
}

fn a_links_own_attributes(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    let target = "t".repeat(4000);
    let link = fs.symlink(ROOT_ID, "l", &target).unwrap();
    assert_eq!(
        (link.attr.mode, link.attr.size),
        (libc::S_IFLNK | 0o777, 4000)
    );
    let node = link.nodeid;
    let set = SetattrIn {
        valid: (Set::ATIME | Set::MTIME).bits(),
        atime: 5,
        mtime: 6,
        ..SetattrIn::default()
    };
    let attr = fs.setattr(node, &set).unwrap().attr;
    assert_eq!((attr.atime, attr.mtime), (5, 6));
    if root() {
        let owner = SetattrIn {
            valid: (Set::UID | Set::GID).bits() | KILL_SUIDGID,
            uid: 12,
            gid: 34,
            ..SetattrIn::default()
        };
        let attr = fs.setattr(node, &owner).unwrap().attr;
        assert_eq!(
            (attr.uid, attr.gid, attr.mode),
            (12, 34, libc::S_IFLNK | 0o777)
        );
    }
    let mode = SetattrIn {
        valid: Set::MODE.bits(),
        mode: 0o600,
        ..SetattrIn::default()
    };
    assert_eq!(fs.setattr(node, &mode).unwrap_err(), Errno::OPNOTSUPP);
    let again = fs.link(node, ROOT_ID, "again").unwrap();
    assert_eq!((again.nodeid, again.attr.nlink), (node, 2));
    fs.unlink(ROOT_ID, "l").unwrap();
    assert_eq!(fs.readlink(node).unwrap(), target.as_bytes());
    assert_eq!(fs.open(node, libc::O_RDONLY).unwrap_err(), Errno::LOOP);
}
