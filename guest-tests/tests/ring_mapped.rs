//! Mapped ownership: what a guest makes is plain on the host, and owners and modes are kept as
//! well as the host's kernel would keep them, for several daemons at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use guest_tests::acl::{acl, ACCESS, GROUP_OBJ, MASK, NONE, OTHER, USER, USER_OBJ};
use guest_tests::binaries;
use guest_tests::fixture::{Mount, Volume, ORDINARY_USER};
use guest_tests::ring::fuse::abi::{
    Opcode, SetattrIn, SetattrValid as Set, WriteIn, WriteOut, ROOT_ID,
};
use guest_tests::ring::fuse::{Client, Errno, Handle, Request};
use guest_tests::ring::process::DaemonCommand;

/// FUSE_WRITE_KILL_SUIDGID.
const KILL_SUIDGID: u32 = 1 << 2;

/// An ACL with a mask of `mask`.
fn with_mask(mask: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, 7, NONE),
        (USER, 6, 1000),
        (GROUP_OBJ, 4, NONE),
        (MASK, mask, NONE),
        (OTHER, 1, NONE),
    ])
}

/// Owner of all that there is on the host.
fn host_owner() -> u32 {
    match rustix::process::geteuid() {
        root if root.is_root() => ORDINARY_USER,
        user => user.as_raw(),
    }
}

/// Everything below `dir` must be a plain file or directory of the volume's owner. Answers how
/// much there is.
fn assert_plain(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let what = format!("{}: {:o}", path.display(), meta.mode());
        let kind = meta.mode() & libc::S_IFMT;
        assert!([libc::S_IFREG, libc::S_IFDIR].contains(&kind), "{what}");
        assert_eq!(meta.mode() & 0o7022, 0, "{what}");
        assert_eq!((meta.uid(), meta.gid()), (host_owner(), host_owner()));
        let mut names = vec![0; 65536];
        let len = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
        let names = String::from_utf8(names[..len].to_vec()).unwrap();
        for name in names.split_terminator('\0') {
            assert!(name.starts_with("user."), "{what} has {name}");
        }
        count += 1;
        if kind == libc::S_IFDIR {
            count += assert_plain(&path);
        }
    }
    count
}

fn chmod(fs: &mut Client, node: u64, mode: u32) -> u32 {
    let set = SetattrIn {
        valid: Set::MODE.bits(),
        mode,
        ..SetattrIn::default()
    };
    fs.setattr(node, &set).unwrap().attr.mode & 0o7777
}

fn chown(fs: &mut Client, node: u64, uid: u32, gid: u32) -> (u32, u32) {
    let set = SetattrIn {
        valid: (Set::UID | Set::GID).bits(),
        uid,
        gid,
        ..SetattrIn::default()
    };
    let attr = fs.setattr(node, &set).unwrap().attr;
    (attr.uid, attr.gid)
}

/// A write of one byte by who is not privileged.
fn write_unprivileged(fs: &mut Client, handle: Handle) {
    let data = fs.memory().alloc_pages(1).unwrap();
    data.write(0, b"w");
    let body = WriteIn {
        fh: handle.fh,
        size: 1,
        fuse_flags: KILL_SUIDGID,
        ..WriteIn::default()
    };
    let request: Request<'_, WriteOut> = Request::new(Opcode::Write as u32, handle.nodeid)
        .body(&body)
        .payload(&data);
    assert_eq!(fs.call(&request).unwrap().size, 1);
}

/// Of each kind, and with each privilege, that a guest can give.
fn plant(fs: &mut Client, dir: u64) {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (file, handle) = fs.create(dir, "suid", 0o6777, libc::O_RDWR).unwrap();
    fs.write(handle, 0, &[7; 300_000]).unwrap();
    fs.setxattr(file.nodeid, "security.capability", &capability, 0)
        .unwrap();
    fs.setxattr(file.nodeid, ACCESS, &with_mask(7), 0).unwrap();
    fs.setxattr(file.nodeid, "trusted.t", b"1", 0).unwrap();
    assert_eq!(chown(fs, file.nodeid, 0, 0), (0, 0));
    assert_eq!(chmod(fs, file.nodeid, 0o6777), 0o6777);
    let (unnamed, _) = fs.tmpfile(dir, 0o6777, libc::O_RDWR).unwrap();
    fs.link(unnamed.nodeid, dir, "named").unwrap();
    fs.link(file.nodeid, dir, "linked").unwrap();
    for (name, target) in [("absolute", "/etc/shadow"), ("relative", "../../../..")] {
        fs.symlink(dir, name, target).unwrap();
    }
    for (kind, rdev) in [
        (libc::S_IFREG, 0),
        (libc::S_IFCHR, 0x101),
        (libc::S_IFBLK, 0x800),
        (libc::S_IFIFO, 0),
        (libc::S_IFSOCK, 0),
    ] {
        let name = format!("{kind:o}");
        let made = fs.mknod(dir, &name, kind | 0o6777, rdev).unwrap();
        assert_eq!((made.attr.mode, made.attr.rdev), (kind | 0o6777, rdev));
        chown(fs, made.nodeid, 0, 0);
    }
    fs.rename2(dir, "linked", dir, "moved", libc::RENAME_WHITEOUT)
        .unwrap();
    let sub = fs.mkdir(dir, "sub", 0o1777).unwrap().nodeid;
    assert_eq!(chmod(fs, sub, 0o7777), 0o7777);
    assert_eq!(chown(fs, sub, 0, 0), (0, 0));
    chmod(fs, dir, 0o7777);
}

#[test]
fn a_guest_plants_nothing_on_the_host() {
    for volume in [Volume::mapped(), Volume::mapped_posix()] {
        let mut mount = volume.mount();
        plant(mount.fs(), ROOT_ID);
        let dir = mount.fs().mkdir(ROOT_ID, "dir", 0o777).unwrap().nodeid;
        plant(mount.fs(), dir);
        let (open, handle) = mount
            .fs()
            .create(ROOT_ID, "gone", 0o6777, libc::O_RDWR)
            .unwrap();
        mount.fs().write(handle, 0, &[1; 300_000]).unwrap();
        mount.fs().unlink(ROOT_ID, "gone").unwrap();
        assert_eq!(mount.fs().getattr(open.nodeid).unwrap().attr.nlink, 0);
        assert!(assert_plain(volume.path()) > 25);
    }
}

#[test]
fn what_is_hidden_is_no_guests_to_see_or_set() {
    for volume in [Volume::mapped(), Volume::mapped_posix()] {
        let mut mount = volume.mount();
        let fs = mount.fs();
        let (file, _) = fs.create(ROOT_ID, "f", 0o6777, libc::O_RDWR).unwrap();
        fs.setxattr(file.nodeid, ACCESS, &with_mask(7), 0).unwrap();
        let link = fs.symlink(ROOT_ID, "l", "f").unwrap();
        for node in [ROOT_ID, file.nodeid, link.nodeid] {
            for name in [
                "user.pfs.owner",
                "user.pfs.privileged",
                "user.pfs.acl.access",
                "user.pfs.acl.default",
            ] {
                let set = fs.setxattr(node, name, b"0 0 104777", 0).unwrap_err();
                assert_eq!(set, Errno::PERM, "{name}");
                let get = fs.getxattr(node, name).unwrap_err();
                assert_eq!(get, Errno::NODATA, "{name}");
                let remove = fs.removexattr(node, name).unwrap_err();
                assert_eq!(remove, Errno::NODATA, "{name}");
            }
            let list = fs.listxattr(node).unwrap();
            assert!(!String::from_utf8(list).unwrap().contains("user."));
        }
        let path = volume.host_path("f");
        let mut value = [0; 64];
        let len = rustix::fs::getxattr(&path, "user.pfs.owner", &mut value[..]).unwrap();
        assert!(String::from_utf8_lossy(&value[..len]).ends_with(" 106771"));
        // Its privileges are in an attribute of their own.
        rustix::fs::removexattr(&path, "user.pfs.privileged").unwrap();
        let mode = mount.fs().getattr(file.nodeid).unwrap().attr.mode;
        assert_eq!(mode, libc::S_IFREG | 0o771);
        // One that says what cannot be is damage, and the guest is told so.
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&path, "user.pfs.owner", b"root", flags).unwrap();
        let damaged = mount.fs().getattr(file.nodeid).unwrap_err();
        assert_eq!(damaged, Errno::UCLEAN);
    }
}

/// What the host puts there is root's, and never privileged.
#[test]
fn what_says_nothing_of_itself() {
    let volume = Volume::mapped();
    let path = volume.host_path("f");
    fs::write(&path, b"from the host").unwrap();
    let user = Some(host_owner());
    std::os::unix::fs::chown(&path, user, user).unwrap();
    rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o6755)).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", volume.host_path("l")).unwrap();
    let mut mount = volume.mount();
    let fs = mount.fs();
    let file = fs.lookup(ROOT_ID, "f").unwrap();
    let attr = file.attr;
    assert_eq!((attr.uid, attr.gid), (0, 0));
    assert_eq!(attr.mode, libc::S_IFREG | 0o755);
    assert_eq!(fs.read_file("/f").unwrap(), b"from the host");
    let link = fs.lookup(ROOT_ID, "l").unwrap();
    assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
    assert_eq!(fs.readlink(link.nodeid).unwrap(), b"/etc/shadow");
    assert_eq!(
        fs.open(link.nodeid, libc::O_RDONLY).unwrap_err(),
        Errno::LOOP
    );
    assert_eq!(chown(fs, file.nodeid, 5, 6), (5, 6));
    assert_eq!(chmod(fs, file.nodeid, 0o4750), 0o4750);
}

/// Three daemons change one file: none undoes what another did, and no change of owner or ACL
/// brings a privilege back that a write has dropped.
#[test]
fn no_change_is_lost_between_daemons() {
    const ROUNDS: u32 = 400;
    let volume = Volume::mapped();
    let mut mounts: [Mount; 3] = std::array::from_fn(|_| volume.mount());
    mounts[0]
        .fs()
        .create(ROOT_ID, "f", 0o755, libc::O_RDWR)
        .unwrap();
    let over = AtomicBool::new(false);
    let [owners, acls, writes] = &mut mounts;
    thread::scope(|scope| {
        let found = |mount: &mut Mount| mount.fs().lookup(ROOT_ID, "f").unwrap().nodeid;
        let over = &over;
        let writer = scope.spawn(move || {
            let node = found(writes);
            let fs = writes.fs();
            let handle = fs.open(node, libc::O_RDWR).unwrap();
            for round in 0..ROUNDS {
                let mode = 0o4700 | ((round % 8) * 0o11);
                chmod(fs, node, mode);
                write_unprivileged(fs, handle);
                let mode = fs.getattr(node).unwrap().attr.mode;
                assert_eq!(mode & 0o4000, 0, "round {round}: {mode:o}");
            }
        });
        scope.spawn(move || {
            let node = found(acls);
            let mut mask = 0;
            while !over.load(Ordering::Relaxed) {
                mask = (mask + 1) % 8;
                acls.fs()
                    .setxattr(node, ACCESS, &with_mask(mask), 0)
                    .unwrap();
            }
        });
        scope.spawn(move || {
            let node = found(owners);
            let mut uid = 1;
            while !over.load(Ordering::Relaxed) {
                uid += 1;
                assert_eq!(chown(owners.fs(), node, uid, uid + 1), (uid, uid + 1));
                let attr = owners.fs().getattr(node).unwrap().attr;
                assert_eq!((attr.uid, attr.gid), (uid, uid + 1));
            }
        });
        let result = writer.join();
        over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}

/// A daemon that root starts keeps one capability, and acts for the volume's owner.
#[test]
fn root_serves_as_the_volumes_owner() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can make the sandbox");
    }
    let volume = Volume::mapped();
    let socket = volume.path().with_file_name("root.sock");
    let daemon = DaemonCommand::new(binaries::pfs_virtiofsd().unwrap(), &socket)
        .args([Path::new("--socket-path"), &socket])
        .args([Path::new("--shared-dir"), volume.path()])
        .args(["--cache", "never"]);
    let mut mount = Mount::start(daemon, &Default::default());
    plant(mount.fs(), ROOT_ID);
    let status = fs::read_to_string(format!("/proc/{}/status", mount.daemon.pid())).unwrap();
    for line in status.lines().filter(|line| line.starts_with("Cap")) {
        let caps = line.split_whitespace().nth(1).unwrap();
        let caps = u64::from_str_radix(caps, 16).unwrap();
        // CAP_DAC_READ_SEARCH.
        assert_eq!(caps & !(1 << 2), 0, "{line}");
    }
    assert!(status.contains(&format!("\t{ORDINARY_USER}\n")), "{status}");
    assert!(assert_plain(&volume.host_path("")) > 10);
    assert!(assert_plain(&volume.path().join("targets")) > 10);
}
