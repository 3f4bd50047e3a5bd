//! Names: making, finding, moving and removing them.

use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::Errno;

on_every_kind_of_volume! {
    lookup_mkdir_rmdir,
    create_makes_or_opens,
    kinds_of_nodes,
    symlinks,
    links,
    rename,
    rename2_flags,
    names_that_cannot_be,
    a_deep_tree,
}

const RDWR: i32 = libc::O_RDWR;

fn lookup_mkdir_rmdir(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap();
    assert_eq!(dir.attr.mode, libc::S_IFDIR | 0o755);
    assert_eq!(fs.mkdir(ROOT_ID, "d", 0o755).unwrap_err(), Errno::EXIST);
    let found = fs.lookup(ROOT_ID, "d").unwrap();
    assert_eq!((found.nodeid, found.attr.ino), (dir.nodeid, dir.attr.ino));
    assert_eq!(fs.lookup(ROOT_ID, "x").unwrap_err(), Errno::NOENT);
    fs.mkdir(dir.nodeid, "sub", 0o700).unwrap();
    assert_eq!(fs.getattr(dir.nodeid).unwrap().attr.nlink, 3);
    assert_eq!(fs.rmdir(ROOT_ID, "d").unwrap_err(), Errno::NOTEMPTY);
    assert_eq!(fs.unlink(ROOT_ID, "d").unwrap_err(), Errno::ISDIR);
    fs.rmdir(dir.nodeid, "sub").unwrap();
    fs.rmdir(ROOT_ID, "d").unwrap();
    assert_eq!(fs.rmdir(ROOT_ID, "d").unwrap_err(), Errno::NOENT);
    // The node is known until it is forgotten, but takes no names any more.
    assert_eq!(fs.getattr(dir.nodeid).unwrap().attr.nlink, 0);
    assert_eq!(fs.mkdir(dir.nodeid, "x", 0o755).unwrap_err(), Errno::NOENT);
    assert_eq!(fs.unlink(ROOT_ID, "x").unwrap_err(), Errno::NOENT);
    let (file, _) = fs.create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    assert_eq!(fs.rmdir(ROOT_ID, "f").unwrap_err(), Errno::NOTDIR);
    assert_eq!(fs.lookup(file.nodeid, "x").unwrap_err(), Errno::NOTDIR);
    assert_eq!(fs.opendir(file.nodeid).unwrap_err(), Errno::NOTDIR);
}

fn create_makes_or_opens(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, handle) = fs.create(ROOT_ID, "f", 0o640, RDWR | libc::O_EXCL).unwrap();
    assert_eq!(file.attr.mode, libc::S_IFREG | 0o640);
    fs.write(handle, 0, b"text").unwrap();
    let exclusive = fs.create(ROOT_ID, "f", 0o640, RDWR | libc::O_EXCL);
    assert_eq!(exclusive.unwrap_err(), Errno::EXIST);
    let (again, other) = fs.create(ROOT_ID, "f", 0o777, RDWR).unwrap();
    assert_eq!(
        (again.nodeid, again.attr.mode),
        (file.nodeid, file.attr.mode)
    );
    assert_eq!(
        (again.attr.size, fs.read(other, 0, 9).unwrap()),
        (4, b"text".to_vec())
    );
    // A file whose mode forbids it is still written by who made it.
    let (_, readonly) = fs.create(ROOT_ID, "r", 0o400, RDWR).unwrap();
    assert_eq!(fs.write(readonly, 0, b"x").unwrap(), 1);
    fs.mkdir(ROOT_ID, "d", 0o755).unwrap();
    assert_eq!(
        fs.create(ROOT_ID, "d", 0o600, RDWR).unwrap_err(),
        Errno::ISDIR
    );
    fs.symlink(ROOT_ID, "s", "f").unwrap();
    assert_eq!(
        fs.create(ROOT_ID, "s", 0o600, RDWR).unwrap_err(),
        Errno::LOOP
    );
    fs.symlink(ROOT_ID, "dangling", "../outside").unwrap();
    assert_eq!(
        fs.create(ROOT_ID, "dangling", 0o600, RDWR).unwrap_err(),
        Errno::LOOP
    );
}

fn kinds_of_nodes(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    for (name, kind) in [
        ("f", libc::S_IFREG),
        ("p", libc::S_IFIFO),
        ("s", libc::S_IFSOCK),
    ] {
        let made = fs.mknod(ROOT_ID, name, kind | 0o620, 0).unwrap();
        assert_eq!(made.attr.mode, kind | 0o620);
        assert_eq!(fs.attr(name).unwrap().mode, kind | 0o620);
        assert_eq!(
            fs.mknod(ROOT_ID, name, kind | 0o620, 0).unwrap_err(),
            Errno::EXIST
        );
    }
    // The guest's kernel opens these itself: the daemon must not, or it would hang in a fifo.
    for name in ["p", "s"] {
        let node = fs.lookup(ROOT_ID, name).unwrap().nodeid;
        assert_eq!(fs.open(node, libc::O_RDONLY).unwrap_err(), Errno::NXIO);
        let created = fs.create(ROOT_ID, name, 0o600, RDWR);
        assert_eq!(created.unwrap_err(), Errno::NXIO);
    }
    if rustix::process::geteuid().is_root() {
        // 12 bits of major and 20 of minor number, as the kernel packs them.
        let device = fs
            .mknod(ROOT_ID, "c", libc::S_IFCHR | 0o600, 0x0010_0503)
            .unwrap();
        assert_eq!(device.attr.rdev, 0x0010_0503);
        assert_eq!(fs.open(device.nodeid, RDWR).unwrap_err(), Errno::NXIO);
    }
    // As mknod(2) has it.
    for (kind, errno) in [
        (libc::S_IFDIR, Errno::PERM),
        (libc::S_IFLNK, Errno::INVAL),
        (libc::S_IFMT, Errno::INVAL),
    ] {
        assert_eq!(fs.mknod(ROOT_ID, "x", kind | 0o600, 0).unwrap_err(), errno);
    }
}

fn symlinks(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let long = "x/".repeat(2047) + "y";
    for (name, target) in [
        ("short", "some/where"),
        ("out", "/etc/passwd"),
        ("long", &long),
    ] {
        let link = fs.symlink(ROOT_ID, name, target).unwrap();
        assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        assert_eq!(link.attr.size, target.len() as u64);
        assert_eq!(fs.readlink(link.nodeid).unwrap(), target.as_bytes());
        assert_eq!(
            fs.symlink(ROOT_ID, name, "other").unwrap_err(),
            Errno::EXIST
        );
        assert_eq!(
            fs.open(link.nodeid, libc::O_RDONLY).unwrap_err(),
            Errno::LOOP
        );
        // A look through the link would find the host's file.
        assert_eq!(fs.lookup(link.nodeid, "x").unwrap_err(), Errno::NOTDIR);
        fs.unlink(ROOT_ID, name).unwrap();
    }
    assert_eq!(fs.symlink(ROOT_ID, "empty", "").unwrap_err(), Errno::NOENT);
    assert_eq!(fs.readlink(ROOT_ID).unwrap_err(), Errno::INVAL);
}

fn links(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
    let (file, handle) = fs.create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    let linked = fs.link(file.nodeid, dir, "l").unwrap();
    assert_eq!((linked.nodeid, linked.attr.nlink), (file.nodeid, 2));
    assert_eq!(fs.link(file.nodeid, dir, "l").unwrap_err(), Errno::EXIST);
    assert_eq!(fs.link(dir, ROOT_ID, "e").unwrap_err(), Errno::PERM);
    fs.write(handle, 100_000, b"end").unwrap();
    fs.unlink(ROOT_ID, "f").unwrap();
    assert_eq!(fs.getattr(file.nodeid).unwrap().attr.nlink, 1);
    assert_eq!(&fs.read_file("/d/l").unwrap()[100_000..], b"end");
    let link = fs.symlink(ROOT_ID, "s", "d/l").unwrap();
    let other = fs.link(link.nodeid, dir, "t").unwrap();
    assert_eq!(fs.readlink(other.nodeid).unwrap(), b"d/l");
}

fn rename(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let a = fs.mkdir(ROOT_ID, "a", 0o755).unwrap().nodeid;
    let b = fs.mkdir(ROOT_ID, "b", 0o755).unwrap().nodeid;
    let inner = fs.mkdir(a, "inner", 0o755).unwrap().nodeid;
    fs.write_file("/a/f", b"one").unwrap();
    fs.write_file("/b/g", b"two").unwrap();
    fs.rename(a, "f", b, "f").unwrap();
    assert_eq!(fs.lookup(a, "f").unwrap_err(), Errno::NOENT);
    assert_eq!(fs.read_file("/b/f").unwrap(), b"one");
    fs.rename(b, "f", b, "g").unwrap();
    assert_eq!(fs.read_file("/b/g").unwrap(), b"one");
    assert_eq!(fs.rename(b, "f", b, "g").unwrap_err(), Errno::NOENT);
    assert_eq!(
        fs.rename(ROOT_ID, "a", inner, "x").unwrap_err(),
        Errno::INVAL
    );
    assert_eq!(
        fs.rename(ROOT_ID, "a", ROOT_ID, "b").unwrap_err(),
        Errno::NOTEMPTY
    );
    assert_eq!(fs.rename(b, "g", ROOT_ID, "a").unwrap_err(), Errno::ISDIR);
    assert_eq!(fs.rename(ROOT_ID, "a", b, "g").unwrap_err(), Errno::NOTDIR);
    // A directory that moves keeps its node, and what is in it.
    fs.rename(a, "inner", ROOT_ID, "outer").unwrap();
    assert_eq!(fs.lookup(ROOT_ID, "outer").unwrap().nodeid, inner);
    fs.mkdir(inner, "deep", 0o755).unwrap();
    fs.rename(ROOT_ID, "outer", b, "inner").unwrap();
    fs.attr("/b/inner/deep").unwrap();
    // Two names of one file: nothing happens.
    let file = fs.lookup(b, "g").unwrap().nodeid;
    fs.link(file, b, "h").unwrap();
    fs.rename(b, "g", b, "h").unwrap();
    assert_eq!(fs.attr("/b/g").unwrap().nlink, 2);
}

fn rename2_flags(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
    fs.write_file("/d/f", &[b'f'; 100_000]).unwrap();
    fs.write_file("/g", &[b'g'; 200_000]).unwrap();
    let noreplace = fs.rename2(dir, "f", ROOT_ID, "g", libc::RENAME_NOREPLACE);
    assert_eq!(noreplace.unwrap_err(), Errno::EXIST);
    fs.rename2(dir, "f", ROOT_ID, "g", libc::RENAME_EXCHANGE)
        .unwrap();
    assert!(fs.read_file("/g").unwrap() == [b'f'; 100_000]);
    assert!(fs.read_file("/d/f").unwrap() == [b'g'; 200_000]);
    fs.rename2(ROOT_ID, "g", dir, "h", libc::RENAME_NOREPLACE)
        .unwrap();
    assert!(fs.read_file("/d/h").unwrap() == [b'f'; 100_000]);
    let nothing = fs.rename2(dir, "h", ROOT_ID, "x", libc::RENAME_EXCHANGE);
    assert_eq!(nothing.unwrap_err(), Errno::NOENT);
    let both = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
    for flags in [both, 1 << 20] {
        let refused = fs.rename2(dir, "h", dir, "x", flags);
        assert_eq!(refused.unwrap_err(), Errno::INVAL, "{flags:#x}");
    }
}

fn names_that_cannot_be(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let longest = "n".repeat(255);
    let made = fs.mkdir(ROOT_ID, &longest, 0o755).unwrap();
    assert_eq!(fs.lookup(ROOT_ID, &longest).unwrap().nodeid, made.nodeid);
    assert_eq!(fs.list("/").unwrap()[0].name, longest.as_bytes());
    let too_long = "n".repeat(256);
    assert_eq!(
        fs.mkdir(ROOT_ID, &too_long, 0o755).unwrap_err(),
        Errno::NAMETOOLONG
    );
    assert_eq!(
        fs.lookup(ROOT_ID, &too_long).unwrap_err(),
        Errno::NAMETOOLONG
    );
    for name in ["", ".", "..", "a/b", "/"] {
        assert_eq!(
            fs.mkdir(ROOT_ID, name, 0o755).unwrap_err(),
            Errno::INVAL,
            "{name:?}"
        );
        assert_eq!(
            fs.lookup(ROOT_ID, name).unwrap_err(),
            Errno::INVAL,
            "{name:?}"
        );
        assert_eq!(
            fs.unlink(ROOT_ID, name).unwrap_err(),
            Errno::INVAL,
            "{name:?}"
        );
    }
    // Any other byte is one.
    let odd: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    fs.mkdir(ROOT_ID, &odd, 0o755).unwrap();
    fs.rmdir(ROOT_ID, &odd).unwrap();
}

fn a_deep_tree(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut parent = ROOT_ID;
    let mut nodes = Vec::new();
    // Deeper than a path can name.
    for level in 0..100 {
        let name = format!("{level}-{}", "d".repeat(100));
        parent = fs.mkdir(parent, &name, 0o755).unwrap().nodeid;
        nodes.push((parent, name));
    }
    let (_, handle) = fs.create(parent, "f", 0o600, RDWR).unwrap();
    assert_eq!(fs.write(handle, 0, b"deep").unwrap(), 4);
    let mut found = ROOT_ID;
    for (node, name) in nodes {
        found = fs.lookup(found, &name).unwrap().nodeid;
        assert_eq!(found, node);
    }
    let top = format!("0-{}", "d".repeat(100));
    fs.remove_tree(&format!("/{top}")).unwrap();
    assert!(fs.list("/").unwrap().is_empty());
}
