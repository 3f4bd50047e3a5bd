//! Numbers of inodes.

use std::ffi::CString;

use super::*;

#[test]
fn inodes_are_counted_in_every_way_they_come_and_go() {
    come_and_go(&Rig::limited(2, SOME), 0);
    // A link's target is a file's content to the host.
    come_and_go(&Rig::owned(2, SOME, Ownership::Mapped), 2);
}

/// `link` bytes are counted for a symbolic link.
fn come_and_go(rig: &Rig, link: u64) {
    let mut mount = rig.mount();
    mount.try_mkdir(c"d").unwrap();
    mount.try_mkdir(c"e").unwrap();
    mount.symlink(c"s").unwrap();
    mount.symlink(c"t").unwrap();
    mount.fifo(c"p").unwrap();
    expect(rig, 2 * link, 5);
    // What is refused is not counted.
    assert_eq!(mount.try_mkdir(c"d"), Err(Errno::EXIST));
    assert_eq!(mount.symlink(c"d"), Err(Errno::EXIST));
    assert_eq!(mount.rmdir(c"s"), Err(Errno::NOTDIR));
    assert_eq!(mount.try_remove(c"d"), Err(Errno::ISDIR));
    assert_eq!(mount.try_rename(c"x", c"d", 0), Err(Errno::NOENT));
    expect(rig, 2 * link, 5);
    // One inode, several names.
    mount.try_link(c"p", c"q").unwrap();
    mount.try_remove(c"p").unwrap();
    expect(rig, 2 * link, 5);
    mount.try_rename(c"s", c"t", 0).unwrap();
    expect(rig, link, 4);
    mount.try_rename(c"d", c"e", 0).unwrap();
    mount.try_rename(c"q", c"t", 0).unwrap();
    expect(rig, 0, 2);
    mount.try_link(c"t", c"u").unwrap();
    mount.try_rename(c"t", c"u", 0).unwrap();
    expect(rig, 0, 2);
    for (a, b) in [(c"a", c"b"), (c"a2", c"b2")] {
        let (a, b) = (
            mount.try_create(a, libc::O_RDWR).unwrap(),
            mount.try_create(b, libc::O_RDWR).unwrap(),
        );
        mount.write(a, 0, &[1; 20_000]);
        mount.write(b, 0, &[1; 10]);
        mount.release(a);
        mount.release(b);
    }
    expect(rig, 40_020, 6);
    mount.try_rename(c"a", c"b", 0).unwrap();
    mount.try_rename(c"b2", c"a2", 0).unwrap();
    expect(rig, 20_010, 4);
    let whiteout = rustix::fs::RenameFlags::WHITEOUT.bits();
    mount.try_rename(c"b", c"c", whiteout).unwrap();
    expect(rig, 20_010, 5);
    let exchange = rustix::fs::RenameFlags::EXCHANGE.bits();
    mount.try_rename(c"c", c"a2", exchange).unwrap();
    expect(rig, 20_010, 5);
    let file = mount.tmpfile(libc::O_RDWR);
    mount.write(file, 0, &[1; 30_000]);
    expect(rig, 50_010, 6);
    mount.link(file, c"tmp").unwrap();
    mount.release(file);
    expect(rig, 50_010, 6);
    let file = mount.tmpfile(libc::O_RDWR);
    mount.write(file, 0, &[1; 30_000]);
    mount.release(file);
    for file in [c"tmp", c"a2", c"b", c"c", c"t", c"u"] {
        mount.try_remove(file).unwrap();
    }
    mount.rmdir(c"e").unwrap();
    expect(rig, 0, 0);
    drop(mount);
    clean(rig);
}

#[test]
fn the_number_of_inodes_holds() {
    let rig = Rig::limited(2, SOME);
    let mut mount = rig.mount();
    for number in 0..20 {
        mount
            .try_mkdir(&CString::new(format!("d{number}")).unwrap())
            .unwrap();
    }
    assert_eq!(mount.try_mkdir(c"x"), Err(Errno::NOSPC));
    assert_eq!(mount.symlink(c"x"), Err(Errno::NOSPC));
    assert_eq!(mount.fifo(c"x"), Err(Errno::NOSPC));
    let made = mount.try_create(c"x", libc::O_RDWR);
    assert_eq!(made.map(drop), Err(Errno::NOSPC));
    let made: Result<Created> = mount
        .client
        .call(|fs, req, reply| fs.tmpfile(req, NodeId::ROOT, &MAKE, libc::O_RDWR, reply));
    assert_eq!(made.map(drop), Err(Errno::NOSPC));
    let whiteout = rustix::fs::RenameFlags::WHITEOUT.bits();
    assert_eq!(mount.try_rename(c"d1", c"x", whiteout), Err(Errno::NOSPC));
    // What is there is told as ever.
    assert_eq!(mount.try_mkdir(c"d1"), Err(Errno::EXIST));
    mount.rmdir(c"d1").unwrap();
    let file = mount.try_create(c"f", libc::O_RDWR).unwrap();
    mount.release(file);
    let file = mount.try_create(c"f", libc::O_RDWR).unwrap();
    mount.release(file);
    let made = mount.try_create(c"f", libc::O_RDWR | libc::O_EXCL);
    assert_eq!(made.map(drop), Err(Errno::EXIST));
    let stat = mount.statfs();
    assert_eq!((stat.files, stat.files_free), (20, 0));
    drop(mount);
    clean(&rig);
}
