//! Extended attributes.

use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::{SetattrIn, SetattrValid, ROOT_ID};
use guest_tests::ring::fuse::{ops, Client, Errno};

on_every_kind_of_volume! {
    set_get_list_remove,
    sizes,
    on_every_kind_of_node,
    the_volumes_own_are_hidden,
    trusted_and_security_are_the_guests,
    a_write_drops_capabilities,
    without_the_option_there_are_none,
}

fn names(fs: &mut Client, node: u64) -> Vec<Vec<u8>> {
    let list = fs.listxattr(node).unwrap();
    let mut names: Vec<_> = list
        .split_inclusive(|b| *b == 0)
        .map(<[u8]>::to_vec)
        .collect();
    names.sort();
    names
}

fn set_get_list_remove(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let node = fs
        .create(ROOT_ID, "f", 0o600, libc::O_RDWR)
        .unwrap()
        .0
        .nodeid;
    assert_eq!(fs.listxattr(node).unwrap(), b"");
    fs.setxattr(node, "user.a", b"value", 0).unwrap();
    fs.setxattr(node, "user.b", b"", libc::XATTR_CREATE)
        .unwrap();
    let again = fs.setxattr(node, "user.a", b"v", libc::XATTR_CREATE);
    assert_eq!(again.unwrap_err(), Errno::EXIST);
    let missing = fs.setxattr(node, "user.c", b"v", libc::XATTR_REPLACE);
    assert_eq!(missing.unwrap_err(), Errno::NODATA);
    fs.setxattr(node, "user.a", b"longer value", libc::XATTR_REPLACE)
        .unwrap();
    assert_eq!(fs.getxattr(node, "user.a").unwrap(), b"longer value");
    assert_eq!(fs.getxattr(node, "user.b").unwrap(), b"");
    assert_eq!(names(fs, node), [b"user.a\0", b"user.b\0"]);
    fs.removexattr(node, "user.a").unwrap();
    assert_eq!(fs.removexattr(node, "user.a").unwrap_err(), Errno::NODATA);
    assert_eq!(fs.getxattr(node, "user.a").unwrap_err(), Errno::NODATA);
    assert_eq!(names(fs, node), [b"user.b\0"]);
    let odd = fs.setxattr(node, "user.x", b"", 99);
    assert_eq!(odd.unwrap_err(), Errno::INVAL);
}

fn sizes(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let node = fs
        .create(ROOT_ID, "f", 0o600, libc::O_RDWR)
        .unwrap()
        .0
        .nodeid;
    for len in [0, 1, 255, 256, 257, 3000] {
        let value = vec![b'v'; len];
        fs.setxattr(node, "user.a", &value, 0).unwrap();
        assert_eq!(fs.getxattr_size(node, "user.a").unwrap() as usize, len);
        assert_eq!(fs.getxattr(node, "user.a").unwrap(), value);
        if len > 1 {
            let short = fs.call(&ops::getxattr(node, b"user.a", len as u32 - 1));
            assert_eq!(short.unwrap_err(), Errno::RANGE);
            let exact = fs.call(&ops::getxattr(node, b"user.a", len as u32));
            assert_eq!(exact.unwrap(), value);
        }
    }
    assert_eq!(fs.listxattr_size(node).unwrap(), 7);
    assert_eq!(fs.call(&ops::listxattr(node, 6)).unwrap_err(), Errno::RANGE);
    assert_eq!(fs.call(&ops::listxattr(node, 7)).unwrap(), b"user.a\0");
    // As Linux bounds them: a value has 64 KiB at most, a name 255 bytes.
    let large = vec![b'v'; (64 << 10) + 1];
    let result = fs.setxattr(node, "user.b", &large, 0);
    assert_eq!(result.unwrap_err(), Errno::TOOBIG);
    let name = "user.".to_owned() + &"n".repeat(251);
    assert_eq!(fs.setxattr(node, &name, b"v", 0).unwrap_err(), Errno::RANGE);
    fs.setxattr(node, &name[..255], b"v", 0).unwrap();
    assert_eq!(fs.getxattr(node, &name[..255]).unwrap(), b"v");
    let none = fs.setxattr(node, "nonamespace", b"v", 0);
    assert_eq!(none.unwrap_err(), Errno::OPNOTSUPP);
}

fn on_every_kind_of_node(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
    for node in [ROOT_ID, dir] {
        fs.setxattr(node, "user.a", b"dir", 0).unwrap();
        assert_eq!(fs.getxattr(node, "user.a").unwrap(), b"dir");
    }
    let (file, _) = fs.create(dir, "f", 0o600, libc::O_RDWR).unwrap();
    fs.unlink(dir, "f").unwrap();
    fs.setxattr(file.nodeid, "user.a", b"no name", 0).unwrap();
    assert_eq!(fs.getxattr(file.nodeid, "user.a").unwrap(), b"no name");
    // Linux has none of the user's on these: no request may reach what a link names.
    let link = fs.symlink(dir, "s", "../d").unwrap().nodeid;
    let fifo = fs.mknod(dir, "p", libc::S_IFIFO | 0o600, 0).unwrap().nodeid;
    for node in [link, fifo] {
        assert_eq!(
            fs.setxattr(node, "user.a", b"x", 0).unwrap_err(),
            Errno::PERM
        );
        assert_eq!(fs.listxattr(node).unwrap(), b"");
    }
    assert_eq!(fs.getxattr(dir, "user.a").unwrap(), b"dir");
}

fn the_volumes_own_are_hidden(mount: &mut Mount, volume: &Volume) {
    let fs = mount.fs();
    let (file, handle) = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    // With data on the targets, a striped file has its record in one.
    fs.write(handle, 1 << 20, b"far").unwrap();
    let node = file.nodeid;
    fs.setxattr(node, "user.mine", b"1", 0).unwrap();
    if volume.is_striped() {
        let inode = volume.host_path("f");
        let mut value = [0_u8; 256];
        rustix::fs::getxattr(inode, "user.pfs.file", &mut value[..]).unwrap();
    } else {
        let value = rustix::fs::XattrFlags::empty();
        let path = volume.host_path("f");
        rustix::fs::setxattr(path, "user.pfs.file", b"the host's", value).unwrap();
    }
    for name in ["user.pfs.file", "user.pfs.", "user.pfs.other"] {
        let size = fs.getxattr_size(node, name);
        assert_eq!(size.unwrap_err(), Errno::NODATA, "{name}");
        let value = fs.getxattr(node, name);
        assert_eq!(value.unwrap_err(), Errno::NODATA, "{name}");
        let set = fs.setxattr(node, name, b"1 x", 0);
        assert_eq!(set.unwrap_err(), Errno::PERM, "{name}");
        let removed = fs.removexattr(node, name);
        assert_eq!(removed.unwrap_err(), Errno::NODATA, "{name}");
    }
    assert_eq!(names(fs, node), [b"user.mine\0"]);
    assert_eq!(fs.listxattr_size(node).unwrap(), 10);
    assert_eq!(fs.read(handle, 1 << 20, 10).unwrap(), b"far");
}

fn without_the_option_there_are_none(mount: &mut Mount, volume: &Volume) {
    mount.fs().setxattr(ROOT_ID, "user.a", b"1", 0).unwrap();
    let mut without = Mount::start(volume.daemon_with(&["--no-xattr"]), &Default::default());
    let fs = without.fs();
    assert_eq!(fs.getxattr(ROOT_ID, "user.a").unwrap_err(), Errno::NOSYS);
    assert_eq!(
        fs.setxattr(ROOT_ID, "user.b", b"1", 0).unwrap_err(),
        Errno::NOSYS
    );
    assert_eq!(fs.listxattr(ROOT_ID).unwrap_err(), Errno::NOSYS);
    assert_eq!(fs.removexattr(ROOT_ID, "user.a").unwrap_err(), Errno::NOSYS);
}

/// What the host itself has on the inode of `name` in the root, by the host's names.
fn on_the_host(volume: &Volume, name: &str) -> Vec<String> {
    let mut names = [0_u8; 4096];
    let len = rustix::fs::listxattr(volume.host_path(name), &mut names[..]).unwrap();
    let names = String::from_utf8(names[..len].to_vec()).unwrap();
    names.split_terminator('\0').map(str::to_owned).collect()
}

fn trusted_and_security_are_the_guests(mount: &mut Mount, volume: &Volume) {
    let fs = mount.fs();
    let (file, _) = fs.create(ROOT_ID, "f", 0o644, libc::O_RDWR).unwrap();
    let node = file.nodeid;
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
    for node in [node, dir] {
        for name in ["trusted.overlay.opaque", "security.selinux", "user.a"] {
            assert_eq!(fs.getxattr(node, name).unwrap_err(), Errno::NODATA);
            fs.setxattr(node, name, b"1", libc::XATTR_CREATE).unwrap();
            let again = fs.setxattr(node, name, b"2", libc::XATTR_CREATE);
            assert_eq!(again.unwrap_err(), Errno::EXIST);
            fs.setxattr(node, name, b"22", libc::XATTR_REPLACE).unwrap();
            assert_eq!(fs.getxattr(node, name).unwrap(), b"22");
        }
        assert_eq!(
            names(fs, node),
            [
                &b"security.selinux\0"[..],
                b"trusted.overlay.opaque\0",
                b"user.a\0"
            ]
        );
    }
    // Not the host's: neither there nor from there.
    let host = on_the_host(volume, "f");
    assert!(
        host.iter().all(|name| name.starts_with("user.")),
        "{host:?}"
    );
    if rustix::process::geteuid().is_root() {
        let value = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(volume.host_path("f"), "trusted.host", b"1", value).unwrap();
        assert_eq!(
            fs.getxattr(node, "trusted.host").unwrap_err(),
            Errno::NODATA
        );
        assert_eq!(names(fs, node).len(), 3);
    }
    // trusted.* is listed for the privileged alone.
    fs.caller.uid = 1000;
    assert_eq!(names(fs, node), [&b"security.selinux\0"[..], b"user.a\0"]);
    fs.caller.uid = 0;
    fs.removexattr(node, "trusted.overlay.opaque").unwrap();
    let gone = fs.removexattr(node, "trusted.overlay.opaque");
    assert_eq!(gone.unwrap_err(), Errno::NODATA);
    for (name, errno) in [
        ("trusted.", Errno::INVAL),
        ("security.", Errno::INVAL),
        ("system.nfs4_acl", Errno::OPNOTSUPP),
        ("ceph.quota", Errno::OPNOTSUPP),
    ] {
        assert_eq!(
            fs.setxattr(node, name, b"1", 0).unwrap_err(),
            errno,
            "{name}"
        );
    }
    let name = "trusted.".to_owned() + &"n".repeat(244);
    fs.setxattr(node, &name, b"long", 0).unwrap();
    assert_eq!(fs.getxattr(node, &name).unwrap(), b"long");
    let longer = fs.setxattr(node, name + "n", b"v", 0);
    assert_eq!(longer.unwrap_err(), Errno::RANGE);
}

/// `struct vfs_cap_data` of version 2: CAP_NET_RAW, permitted and effective.
fn capability() -> Vec<u8> {
    let words = [0x0200_0001_u32, 1 << 13, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn a_write_drops_capabilities(mount: &mut Mount, _: &Volume) {
    const NAME: &str = "security.capability";
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let fs = mount.fs();
    let (file, handle) = fs.create(ROOT_ID, "f", 0o755, libc::O_RDWR).unwrap();
    let (source, from) = fs.create(ROOT_ID, "source", 0o600, libc::O_RDWR).unwrap();
    fs.write(from, 0, &[1; 1000]).unwrap();
    let node = file.nodeid;
    type Change<'a> = &'a dyn Fn(&mut Client);
    let changes: [(&str, Change<'_>); 7] = [
        ("a write", &|fs| {
            fs.write(handle, 0, b"x").unwrap();
        }),
        ("a write far off", &|fs| {
            fs.write(handle, 1 << 20, b"x").unwrap();
        }),
        ("another in the same tick", &|fs| {
            fs.write(handle, 1 << 20, b"x").unwrap();
        }),
        ("a truncation", &|fs| {
            let size = SetattrIn {
                valid: SetattrValid::SIZE.bits(),
                size: 100,
                ..SetattrIn::default()
            };
            fs.setattr(node, &size).unwrap();
        }),
        ("an allocation", &|fs| {
            fs.fallocate(handle, 0, 0, 1 << 20).unwrap();
        }),
        ("a copy", &|fs| {
            fs.copy_file_range(from, 0, handle, 1 << 20, 1000).unwrap();
        }),
        ("a change of owner", &|fs| {
            let owner = SetattrIn {
                valid: SetattrValid::UID.bits(),
                uid: 12,
                ..SetattrIn::default()
            };
            fs.setattr(node, &owner).unwrap();
        }),
    ];
    for (what, change) in changes {
        fs.setxattr(node, NAME, &capability(), 0).unwrap();
        assert_eq!(fs.getxattr(node, NAME).unwrap(), capability(), "{what}");
        assert_eq!(names(fs, node), [b"security.capability\0"]);
        change(fs);
        let left = fs.getxattr(node, NAME);
        assert_eq!(left.unwrap_err(), Errno::NODATA, "{what}");
    }
    assert_eq!(fs.listxattr(source.nodeid).unwrap(), b"");
}
