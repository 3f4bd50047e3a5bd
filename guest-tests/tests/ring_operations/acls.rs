//! POSIX ACLs, in the form in which Linux hands them over (`posix_acl_xattr.h`).

use guest_tests::acl::{acl, ACCESS, DEFAULT, GROUP, GROUP_OBJ, MASK, NONE, OTHER, USER, USER_OBJ};
use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::{Opcode, SetattrIn, SetattrValid, SetxattrInExt, ROOT_ID};
use guest_tests::ring::fuse::{ops, Caller, Client, Errno, Request};

on_every_kind_of_volume! {
    an_access_acl_and_the_mode_follow_each_other,
    a_default_acl_takes_the_umasks_place,
    what_is_no_acl_is_refused,
    setgid_goes_when_told,
    without_the_option_there_are_none,
}

/// `u::rwx,u:1000:rw,g::r,g:50:rwx,m::MASK,o::-`
fn with_mask(mask: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, 7, NONE),
        (USER, 6, 1000),
        (GROUP_OBJ, 4, NONE),
        (GROUP, 7, 50),
        (MASK, mask, NONE),
        (OTHER, 0, NONE),
    ])
}

/// `u::U,g::G,o::O`
fn minimal(mode: u16) -> Vec<u8> {
    acl(&[
        (USER_OBJ, mode >> 6 & 7, NONE),
        (GROUP_OBJ, mode >> 3 & 7, NONE),
        (OTHER, mode & 7, NONE),
    ])
}

fn permissions(fs: &mut Client, node: u64) -> u32 {
    fs.getattr(node).unwrap().attr.mode & 0o7777
}

fn chmod(fs: &mut Client, node: u64, mode: u32) {
    let set = SetattrIn {
        valid: SetattrValid::MODE.bits(),
        mode,
        ..SetattrIn::default()
    };
    assert_eq!(fs.setattr(node, &set).unwrap().attr.mode & 0o7777, mode);
}

fn an_access_acl_and_the_mode_follow_each_other(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, _) = fs.create(ROOT_ID, "f", 0o640, libc::O_RDWR).unwrap();
    let dir = fs.mkdir(ROOT_ID, "d", 0o640).unwrap();
    for node in [file.nodeid, dir.nodeid] {
        assert_eq!(fs.getxattr(node, ACCESS).unwrap_err(), Errno::NODATA);
        fs.setxattr(node, ACCESS, &with_mask(6), 0).unwrap();
        assert_eq!(fs.getxattr(node, ACCESS).unwrap(), with_mask(6));
        assert_eq!(permissions(fs, node), 0o760);
        assert_eq!(
            fs.listxattr(node).unwrap(),
            [ACCESS.as_bytes(), b"\0"].concat()
        );
        // The group's bits of the mode are the mask now.
        chmod(fs, node, 0o4751);
        let mut entries = with_mask(5);
        entries[4 + 2] = 7;
        entries[4 + 5 * 8 + 2] = 1;
        assert_eq!(fs.getxattr(node, ACCESS).unwrap(), entries);
        // One that says no more than a mode is kept as that.
        fs.setxattr(node, ACCESS, &minimal(0o604), 0).unwrap();
        assert_eq!(permissions(fs, node), 0o4604);
        assert_eq!(fs.getxattr(node, ACCESS).unwrap_err(), Errno::NODATA);
        assert_eq!(fs.listxattr(node).unwrap(), b"");
        fs.setxattr(node, ACCESS, &with_mask(2), 0).unwrap();
        fs.removexattr(node, ACCESS).unwrap();
        assert_eq!(permissions(fs, node), 0o4720);
        assert_eq!(fs.getxattr(node, ACCESS).unwrap_err(), Errno::NODATA);
        // Linux asks for it where there is none, too.
        fs.removexattr(node, ACCESS).unwrap();
    }
}

fn a_default_acl_takes_the_umasks_place(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let dir = fs.mkdir(ROOT_ID, "d", 0o777).unwrap().nodeid;
    fs.setxattr(dir, DEFAULT, &with_mask(7), 0).unwrap();
    assert_eq!(fs.getxattr(dir, DEFAULT).unwrap(), with_mask(7));
    assert_eq!(
        permissions(fs, dir),
        0o777,
        "it says nothing of the directory itself"
    );
    let umask = 0o777;
    let (file, _) = fs
        .call(&ops::create(dir, b"f", 0o666, libc::O_RDWR, umask))
        .unwrap();
    let fifo = ops::mknod(dir, b"p", libc::S_IFIFO | 0o666, 0, umask);
    let fifo = fs.call(&fifo).unwrap();
    let (tmp, _) = fs
        .call(&ops::tmpfile(dir, 0o666, libc::O_RDWR, umask))
        .unwrap();
    let mut inherited = with_mask(6);
    inherited[4 + 2] = 6;
    for made in [file, fifo, tmp] {
        assert_eq!(made.attr.mode & 0o7777, 0o660);
        assert_eq!(permissions(fs, made.nodeid), 0o660);
        assert_eq!(fs.getxattr(made.nodeid, ACCESS).unwrap(), inherited);
        let default = fs.getxattr(made.nodeid, DEFAULT);
        assert_eq!(default.unwrap_err(), Errno::NODATA);
    }
    let sub = fs.call(&ops::mkdir(dir, b"s", 0o750, umask)).unwrap();
    assert_eq!(sub.attr.mode & 0o7777, 0o750);
    assert_eq!(fs.getxattr(sub.nodeid, ACCESS).unwrap(), with_mask(5));
    assert_eq!(fs.getxattr(sub.nodeid, DEFAULT).unwrap(), with_mask(7));
    let link = fs.symlink(dir, "l", "f").unwrap();
    assert_eq!(fs.getxattr(link.nodeid, ACCESS).unwrap_err(), Errno::NODATA);
    // A minimal one leaves a mode behind, and no ACL.
    fs.setxattr(dir, DEFAULT, &minimal(0o640), 0).unwrap();
    let (plain, _) = fs
        .call(&ops::create(dir, b"plain", 0o666, libc::O_RDWR, umask))
        .unwrap();
    assert_eq!(plain.attr.mode & 0o7777, 0o640);
    assert_eq!(
        fs.getxattr(plain.nodeid, ACCESS).unwrap_err(),
        Errno::NODATA
    );
    fs.removexattr(dir, DEFAULT).unwrap();
    let (masked, _) = fs
        .call(&ops::create(dir, b"masked", 0o666, libc::O_RDWR, 0o026))
        .unwrap();
    assert_eq!(masked.attr.mode & 0o7777, 0o640);
}

fn what_is_no_acl_is_refused(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, _) = fs.create(ROOT_ID, "f", 0o640, libc::O_RDWR).unwrap();
    let (node, dir) = (file.nodeid, fs.mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid);
    let mut version = with_mask(7);
    version[0] = 3;
    let bad: [(&[u8], Errno); 9] = [
        (b"x", Errno::INVAL),
        (&version, Errno::OPNOTSUPP),
        (&with_mask(7)[..30], Errno::INVAL),
        (&acl(&[(USER_OBJ, 7, NONE)]), Errno::INVAL),
        (&acl(&[(99, 7, NONE)]), Errno::INVAL),
        // More than rwx.
        (
            &acl(&[(USER_OBJ, 8, NONE), (GROUP_OBJ, 0, NONE), (OTHER, 0, NONE)]),
            Errno::INVAL,
        ),
        // Named users need a mask.
        (
            &acl(&[
                (USER_OBJ, 7, NONE),
                (USER, 7, 5),
                (GROUP_OBJ, 0, NONE),
                (OTHER, 0, NONE),
            ]),
            Errno::INVAL,
        ),
        // Out of order.
        (
            &acl(&[(OTHER, 0, NONE), (USER_OBJ, 7, NONE), (GROUP_OBJ, 0, NONE)]),
            Errno::INVAL,
        ),
        (
            &acl(&[
                (USER_OBJ, 7, NONE),
                (USER, 7, NONE),
                (GROUP_OBJ, 0, NONE),
                (MASK, 7, NONE),
                (OTHER, 0, NONE),
            ]),
            Errno::INVAL,
        ),
    ];
    for (node, name) in [(node, ACCESS), (dir, ACCESS), (dir, DEFAULT)] {
        for (value, errno) in &bad {
            let set = fs.setxattr(node, name, value, 0);
            assert_eq!(set.unwrap_err(), *errno, "{name} {value:?}");
        }
    }
    assert_eq!(permissions(fs, node), 0o640);
    let on_a_file = fs.setxattr(node, DEFAULT, &with_mask(7), 0);
    assert_eq!(on_a_file.unwrap_err(), Errno::ACCESS);
    let link = fs.symlink(ROOT_ID, "l", "f").unwrap().nodeid;
    let on_a_link = fs.setxattr(link, ACCESS, &with_mask(7), 0);
    assert_eq!(on_a_link.unwrap_err(), Errno::OPNOTSUPP);
    assert_eq!(permissions(fs, node), 0o640);
}

fn setgid_goes_when_told(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let (file, _) = fs.create(ROOT_ID, "f", 0o640, libc::O_RDWR).unwrap();
    let value = with_mask(7);
    for (setxattr_flags, after) in [(0, 0o6770), (1, 0o4770)] {
        chmod(fs, file.nodeid, 0o6755);
        let body = SetxattrInExt {
            size: value.len() as u32,
            setxattr_flags,
            ..SetxattrInExt::default()
        };
        let request: Request<'_, ()> = Request::new(Opcode::Setxattr as u32, file.nodeid)
            .body(&body)
            .name(ACCESS.as_bytes())
            .tail(&value);
        fs.call(&request).unwrap();
        assert_eq!(permissions(fs, file.nodeid), after);
        assert_eq!(fs.getxattr(file.nodeid, ACCESS).unwrap(), value);
    }
}

fn without_the_option_there_are_none(mount: &mut Mount, volume: &Volume) {
    mount.fs().caller = Caller::default();
    let mut without = Mount::start(volume.daemon_with(&["--no-posix-acl"]), &Default::default());
    let fs = without.fs();
    for name in [ACCESS, DEFAULT] {
        let results = [
            fs.setxattr(ROOT_ID, name, &with_mask(7), 0),
            fs.getxattr(ROOT_ID, name).map(drop),
            fs.removexattr(ROOT_ID, name),
        ];
        for result in results {
            assert_eq!(result.unwrap_err(), Errno::OPNOTSUPP);
        }
    }
    fs.setxattr(ROOT_ID, "user.a", b"1", 0).unwrap();
}
