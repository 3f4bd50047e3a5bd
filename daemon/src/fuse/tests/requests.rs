//! Requests as Linux sends them, byte for byte, and their replies.

use super::*;
use crate::fuse::abi::init::{FLOCK_LOCKS, POSIX_LOCKS};
use crate::fuse::CachePolicy;
use pfs_core::fs::OpenFlags;

fn bench(cache: CachePolicy) -> Bench {
    Bench::new(ServiceConfig {
        cache,
        xattr: true,
        ..ServiceConfig::default()
    })
}

#[track_caller]
fn ok(seen: Seen) -> Vec<u8> {
    match seen {
        Seen::Ok(body) => body,
        other => panic!("{other:?}"),
    }
}

/// A body of several pieces.
fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn lookup_answers_an_entry() {
    let mut bench = bench(CachePolicy::Auto);
    let body = ok(bench.ask(Opcode::Lookup, 1, b"name\0", 128));
    assert_eq!(bench.calls(), [r#"lookup NodeId(1) Name("name")"#]);
    assert_eq!(u64_at(&body, 0), 0x7_0000_0002);
    // The name is looked up again by each open, the attributes are good for a second.
    assert_eq!((u64_at(&body, 16), u64_at(&body, 24)), (0, 1));
    // fuse_attr: ino, size, blocks, atime..., atimensec, ..., mode, nlink, uid, gid, rdev, blksize.
    assert_eq!((u64_at(&body, 40), u64_at(&body, 48)), (42, 4097));
    assert_eq!(u64_at(&body, 64) as i64, -1);
    assert_eq!(u32_at(&body, 100), libc::S_IFREG | 0o640);
    assert_eq!((u32_at(&body, 116), u32_at(&body, 120)), (0x801, 4096));
}

#[test]
fn a_name_that_is_not_there_is_kept_with_cache_always_only() {
    for cache in [CachePolicy::Never, CachePolicy::Metadata, CachePolicy::Auto] {
        let mut bench = bench(cache);
        *bench.fake.fail.lock().unwrap() = Some(pfs_core::fs::Errno::NOENT);
        let seen = bench.ask(Opcode::Lookup, 1, b"no\0", 128);
        assert_eq!(seen, Seen::Error(libc::ENOENT));
    }
    let mut bench = bench(CachePolicy::Always);
    *bench.fake.fail.lock().unwrap() = Some(pfs_core::fs::Errno::NOENT);
    let body = ok(bench.ask(Opcode::Lookup, 1, b"no\0", 128));
    assert_eq!((u64_at(&body, 0), u64_at(&body, 16)), (0, 86400));
    let seen = bench.ask(Opcode::Mkdir, 1, &join(&[&words(&[0o755, 0]), b"d\0"]), 128);
    assert_eq!(seen, Seen::Error(libc::ENOENT));
}

#[test]
fn names_reach_the_engine() {
    let mut bench = bench(CachePolicy::Auto);
    let mode = libc::S_IFREG | 0o666;
    ok(bench.ask(Opcode::Symlink, 1, b"link\0../to\0", 128));
    ok(bench.ask(
        Opcode::Mknod,
        1,
        &join(&[&words(&[mode, 0x801, 0o22, 0]), b"n\0"]),
        128,
    ));
    ok(bench.ask(
        Opcode::Mkdir,
        1,
        &join(&[&words(&[0o40777, 0o77]), b"d\0"]),
        128,
    ));
    ok(bench.ask(Opcode::Rename, 1, &join(&[&longs(&[5]), b"a\0b\0"]), 0));
    let rename2 = join(&[&longs(&[5]), &words(&[1, 0]), b"a\0b\0"]);
    ok(bench.ask(Opcode::Rename2, 1, &rename2, 0));
    ok(bench.ask(Opcode::Link, 1, &join(&[&longs(&[9]), b"l\0"]), 128));
    ok(bench.ask(Opcode::Unlink, 1, b"u\0", 0));
    ok(bench.ask(Opcode::Rmdir, 1, b"r\0", 0));
    assert_eq!(
        bench.calls(),
        [
            r#"symlink NodeId(1) Name("link") "../to""#,
            r#"mknod NodeId(1) Name("n") Make { mode: 33206, umask: 18 } 2049"#,
            r#"mkdir NodeId(1) Name("d") Make { mode: 511, umask: 63 }"#,
            r#"rename (NodeId(1), Name("a")) (NodeId(5), Name("b")) 0"#,
            r#"rename (NodeId(1), Name("a")) (NodeId(5), Name("b")) 1"#,
            r#"link NodeId(9) NodeId(1) Name("l")"#,
            r#"unlink NodeId(1) Name("u")"#,
            r#"rmdir NodeId(1) Name("r")"#,
        ]
    );
}

fn open_flags(flags: i32, cached: bool) -> String {
    let how = OpenFlags {
        cached,
        ..OpenFlags::from(flags)
    };
    format!("{how:?}")
}

#[test]
fn opening_says_what_may_be_cached() {
    // DIRECT_IO 1, KEEP_CACHE 2, CACHE_DIR 8, PARALLEL_DIRECT_WRITES 64.
    for (cache, file, dir) in [
        (CachePolicy::Never, 65, 0),
        (CachePolicy::Metadata, 65, 10),
        (CachePolicy::Auto, 0, 0),
        (CachePolicy::Always, 2, 10),
    ] {
        let mut bench = bench(cache);
        let cached = cache == CachePolicy::Auto;
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_PATH | libc::O_TMPFILE | 0x8000;
        let body = ok(bench.ask(Opcode::Open, 5, &words(&[flags as u32, 0]), 16));
        assert_eq!((u64_at(&body, 0), u32_at(&body, 8)), (0x9_0000_0001, file));
        let create = join(&[&words(&[0o202, 0o100644, 0o22, 0]), b"c\0"]);
        let body = ok(bench.ask(Opcode::Create, 5, &create, 144));
        assert_eq!(
            (u64_at(&body, 128), u32_at(&body, 136)),
            (0x9_0000_0001, file)
        );
        let body = ok(bench.ask(Opcode::Opendir, 5, &words(&[0, 0]), 16));
        assert_eq!(u32_at(&body, 8), dir);
        assert_eq!(
            bench.calls(),
            [
                format!("open NodeId(5) {}", open_flags(2, cached)),
                format!(
                    r#"create NodeId(5) Name("c") Make {{ mode: 420, umask: 18 }} {}"#,
                    open_flags(130, cached)
                ),
                "opendir NodeId(5)".to_owned(),
            ]
        );
    }
}

#[test]
fn data_stays_in_place() {
    let mut bench = bench(CachePolicy::Auto);
    let read = |size: u32| join(&[&longs(&[7, 4096]), &words(&[size, 0]), &[0; 16]]);
    let body = ok(bench.ask(Opcode::Read, 5, &read(100), 100));
    assert_eq!(body, [b'r'; 99]);
    assert_eq!(
        ok(bench.ask(Opcode::Read, 5, &read(0), 0)),
        Vec::<u8>::new()
    );
    // More asked than there is room for.
    let seen = bench.ask(Opcode::Read, 5, &read(101), 100);
    assert_eq!(seen, Seen::Error(libc::EINVAL));
    let write =
        |size: u32, data: &[u8]| join(&[&longs(&[7, 4096]), &words(&[size, 5]), &[0; 16], data]);
    let body = ok(bench.ask(Opcode::Write, 5, &write(11, b"eleven byte"), 8));
    assert_eq!(u32_at(&body, 0), 11);
    let at = "At { node: NodeId(5), handle: Handle(7), offset: 4096 }";
    assert_eq!(
        bench.calls(),
        [
            format!("read {at} 100"),
            format!("read {at} 0"),
            format!(
                "write {at} \"eleven byte\" WriteFlags {{ kill_suidgid: true, from_cache: true, \
                 append: false, direct: false }}"
            ),
        ]
    );
    // A header that lies writes nothing.
    for size in [0, 10, 12, u32::MAX] {
        let seen = bench.ask(Opcode::Write, 5, &write(size, b"eleven byte"), 8);
        assert_eq!(seen, Seen::Error(libc::EINVAL));
    }
    assert!(bench.calls().is_empty());
}

#[test]
fn attributes() {
    let mut bench = bench(CachePolicy::Never);
    let body = ok(bench.ask(
        Opcode::Getattr,
        5,
        &join(&[&words(&[1, 0]), &longs(&[7])]),
        104,
    ));
    assert_eq!((u64_at(&body, 0), u64_at(&body, 16)), (0, 42));
    let statx = join(&[&words(&[0, 0]), &longs(&[7]), &words(&[0, 0xfff])]);
    let body = ok(bench.ask(Opcode::Statx, 5, &statx, 288));
    assert_eq!(u32_at(&body, 32), 0xfff);
    assert_eq!(u64_at(&body, 32 + 80), 4, "btime");
    assert_eq!(
        bench.calls(),
        [
            "getattr NodeId(5) Some(Handle(7))",
            "getattr NodeId(5) None"
        ]
    );

    let set = |valid: u32, size: u64, nsec: u32| {
        let longs = longs(&[7, size, 0, -5i64 as u64, 6, 0]);
        let rest = words(&[nsec, 8, 9, 0o104755, 0, 10, 11, 0]);
        join(&[&words(&[valid, 0]), &longs, &rest])
    };
    ok(bench.ask(Opcode::Setattr, 5, &set(0xfff & !0x180, 99, 1), 104));
    ok(bench.ask(Opcode::Setattr, 5, &set(0x1b0, u64::MAX, u32::MAX), 104));
    ok(bench.ask(Opcode::Setattr, 5, &set(0, u64::MAX, u32::MAX), 104));
    assert_eq!(
        bench.calls(),
        [
            "setattr NodeId(5) SetAttr { handle: Some(Handle(7)), mode: Some(2541), \
             uid: Some(10), gid: Some(11), size: Some(99), \
             atime: Some(To(Timestamp { sec: -5, nsec: 1 })), \
             mtime: Some(To(Timestamp { sec: 6, nsec: 8 })), kill_suidgid: true }",
            "setattr NodeId(5) SetAttr { handle: None, mode: None, uid: None, gid: None, \
             size: None, atime: Some(Now), mtime: Some(Now), kill_suidgid: false }",
            "setattr NodeId(5) SetAttr { handle: None, mode: None, uid: None, gid: None, \
             size: None, atime: None, mtime: None, kill_suidgid: false }",
        ]
    );
    for bad in [
        set(0x8, 1 << 63, 0),
        set(0x10, 0, 1_000_000_000),
        set(0x1000, 0, 0),
    ] {
        let seen = bench.ask(Opcode::Setattr, 5, &bad, 104);
        assert_eq!(seen, Seen::Error(libc::EINVAL));
    }
}

#[test]
fn listings_are_packed_to_eight_bytes() {
    let mut bench = bench(CachePolicy::Auto);
    let ask = |size: u32| join(&[&longs(&[7, 0]), &words(&[size, 0]), &[0; 16]]);
    let body = ok(bench.ask(Opcode::Readdir, 5, &ask(512), 4096));
    // "." in 32 bytes, then "file-N" in 32 each.
    assert_eq!(body.len(), 512);
    assert_eq!((u64_at(&body, 32), u64_at(&body, 40)), (102, 2));
    assert_eq!((u32_at(&body, 48), u32_at(&body, 52)), (6, 8));
    assert_eq!(&body[56..64], b"file-1\0\0");
    let body = ok(bench.ask(Opcode::Readdirplus, 5, &ask(4096), 500));
    // 152 + 1 rounded up is 160, 152 + 6 too: three fit in 500.
    assert_eq!(body.len(), 480);
    assert_eq!(u64_at(&body, 0), 0, "no node for \".\"");
    assert_eq!(u64_at(&body, 160), 0x7_0000_0002);
    assert_eq!(&body[160 + 152..320], b"file-1\0\0");
    let seen = bench.ask(Opcode::Readdir, 5, &ask(100), 4096);
    assert_eq!(seen, Seen::Error(libc::EINVAL), "no room for a long name");
}

#[test]
fn extended_attributes() {
    let mut bench = bench(CachePolicy::Auto);
    let get = |size: u32| join(&[&words(&[size, 0]), b"user.a\0"]);
    assert_eq!(
        u32_at(&ok(bench.ask(Opcode::Getxattr, 5, &get(0), 8)), 0),
        7
    );
    assert_eq!(ok(bench.ask(Opcode::Getxattr, 5, &get(7), 7)), b"a value");
    let small = Seen::Error(libc::ERANGE);
    assert_eq!(bench.ask(Opcode::Getxattr, 5, &get(6), 64), small);
    assert_eq!(bench.ask(Opcode::Getxattr, 5, &get(64), 6), small);
    assert_eq!(
        ok(bench.ask(Opcode::Listxattr, 5, &words(&[64, 0]), 64)),
        b"a value"
    );
    bench.calls();
    let set = join(&[&words(&[3, 1]), b"user.a\0abc"]);
    ok(bench.ask(Opcode::Setxattr, 5, &set, 0));
    let long = join(&[&words(&[65536, 0]), b"user.a\0", &[b'v'; 65536]]);
    ok(bench.ask(Opcode::Setxattr, 5, &long, 0));
    ok(bench.ask(Opcode::Removexattr, 5, b"user.a\0", 0));
    let calls = bench.calls();
    assert_eq!(
        calls[0],
        r#"setxattr NodeId(5) XattrName("user.a") [97, 98, 99] SetXattr { flags: 1, acl_kill_sgid: false }"#
    );
    assert_eq!(calls[2], r#"removexattr NodeId(5) XattrName("user.a")"#);
    let mut off = Bench::new(ServiceConfig {
        xattr: false,
        ..ServiceConfig::default()
    });
    assert_eq!(
        off.ask(Opcode::Setxattr, 5, &set, 0),
        Seen::Error(libc::ENOSYS)
    );
    assert!(off.calls().is_empty());
}

#[test]
fn acls_are_for_guests_that_enforce_them() {
    const POSIX_ACL: u32 = 1 << 20;
    const SETXATTR_EXT: u32 = 1 << 29;
    let name = b"system.posix_acl_access\0";
    let get = join(&[&words(&[64, 0]), name]);
    let plain = join(&[&words(&[1, 0]), name, b"v"]);
    let extended = |kill| join(&[&words(&[1, 0, kill, 0]), name, b"v"]);
    let bench_of = |offered: u32, posix_acl| {
        let mut bench = Bench::fresh(ServiceConfig {
            posix_acl,
            ..ServiceConfig::default()
        });
        let body = ok(bench.ask(Opcode::Init, 0, &words(&[7, 41, 0, offered]), 64));
        bench.calls();
        (bench, u32_at(&body, 12))
    };
    let (mut bench, taken) = bench_of(POSIX_ACL | SETXATTR_EXT, true);
    assert_eq!(taken, POSIX_ACL | SETXATTR_EXT);
    ok(bench.ask(Opcode::Getxattr, 5, &get, 64));
    bench.calls();
    for kill in [0, 1] {
        ok(bench.ask(Opcode::Setxattr, 5, &extended(kill), 0));
        let call = format!(
            r#"setxattr NodeId(5) XattrName("system.posix_acl_access") [118] SetXattr {{ flags: 0, acl_kill_sgid: {} }}"#,
            kill == 1
        );
        assert_eq!(bench.calls(), [call]);
    }
    for (offered, posix_acl) in [(0, true), (POSIX_ACL, false)] {
        let (mut bench, taken) = bench_of(offered, posix_acl);
        assert_eq!(taken, 0);
        let remove = name.as_slice();
        for (opcode, body) in [
            (Opcode::Getxattr, get.as_slice()),
            (Opcode::Setxattr, &plain),
            (Opcode::Removexattr, remove),
        ] {
            let seen = bench.ask(opcode, 5, body, 64);
            assert_eq!(seen, Seen::Error(libc::EOPNOTSUPP), "{opcode:?}");
        }
        assert!(bench.calls().is_empty());
    }
}

#[test]
fn ranges_and_locks() {
    let mut bench = bench(CachePolicy::Auto);
    let fallocate = |offset, len, mode| join(&[&longs(&[7, offset, len]), &words(&[mode, 0])]);
    ok(bench.ask(Opcode::Fallocate, 5, &fallocate(1, 2, 3), 0));
    let lseek = |offset, whence| join(&[&longs(&[7, offset]), &words(&[whence, 0])]);
    let body = ok(bench.ask(Opcode::Lseek, 5, &lseek(9, 4), 8));
    assert_eq!(u64_at(&body, 0), 0x1_0000_0000);
    let copy = |from, to_node, to, len| longs(&[7, from, to_node, 8, to, len, 0]);
    let body = ok(bench.ask(Opcode::CopyFileRange, 5, &copy(0, 5, 100, 100), 8));
    assert_eq!(u32_at(&body, 0), 5);
    let lock = |kind, start, end| join(&[&longs(&[7, 70, start, end]), &words(&[kind, 9, 1, 0])]);
    let max = i64::MAX as u64;
    let body = ok(bench.ask(Opcode::Getlk, 5, &lock(1, 0, max), 24));
    assert_eq!((u64_at(&body, 8), u32_at(&body, 16)), (max, 1));
    assert_eq!(bench.calls().len(), 4);
    locks_of_owners(&mut bench);
    for (opcode, body, errno) in [
        (Opcode::Fallocate, fallocate(0, 0, 0), libc::EINVAL),
        (Opcode::Fallocate, fallocate(1 << 63, 1, 0), libc::EINVAL),
        (Opcode::Fallocate, fallocate(max, 1, 0), libc::EFBIG),
        (Opcode::Fallocate, fallocate(0, 1, 2), libc::EOPNOTSUPP),
        (Opcode::Fallocate, fallocate(0, 1, 8), libc::EOPNOTSUPP),
        (Opcode::Lseek, lseek(0, 0), libc::EINVAL),
        (Opcode::Lseek, lseek(1 << 63, 3), libc::EINVAL),
        (Opcode::CopyFileRange, copy(0, 5, 99, 100), libc::EINVAL),
        (Opcode::CopyFileRange, copy(max, 6, 0, 2), libc::EOVERFLOW),
        (Opcode::Setlk, lock(3, 0, 1), libc::EINVAL),
        (Opcode::Setlkw, lock(0, 2, 1), libc::EINVAL),
        (Opcode::Setlk, lock(0, 0, u64::MAX), libc::EINVAL),
    ] {
        assert_eq!(
            bench.ask(opcode, 5, &body, 64),
            Seen::Error(errno),
            "{opcode:?}"
        );
    }
    assert!(bench.calls().is_empty());
}

fn locks_of_owners(bench: &mut Bench) {
    let max = i64::MAX as u64;
    let lock = |flags| join(&[&longs(&[7, 70, 5, max]), &words(&[1, 9, flags, 0])]);
    ok(bench.ask(Opcode::Setlk, 5, &lock(0), 0));
    ok(bench.ask(Opcode::Setlkw, 5, &lock(1), 0));
    ok(bench.ask(Opcode::Flush, 5, &longs(&[7, 0, 70]), 0));
    let release = |flags| join(&[&longs(&[7]), &words(&[2, flags]), &longs(&[70])]);
    ok(bench.ask(Opcode::Release, 5, &release(0), 0));
    ok(bench.ask(Opcode::Release, 5, &release(2), 0));
    let at = "At { node: NodeId(5), handle: Handle(7), offset: 0 }";
    let of = "kind: Write, start: 5, end: 9223372036854775807, owner: 70, pid: 9";
    assert_eq!(
        bench.calls(),
        [
            format!("setlk {at} Lock {{ {of}, flock: false }} false"),
            format!("setlk {at} Lock {{ {of}, flock: true }} true"),
            "flush Handle(7) 70".to_owned(),
            "release Handle(7) None".to_owned(),
            "release Handle(7) Some(70)".to_owned(),
        ]
    );
    // An interrupt that was faster than its request.
    let interrupt = request(Opcode::Interrupt as u32, 0, &longs(&[UNIQUE]));
    assert_eq!(bench.send(&interrupt, 0, true), Seen::NoReply);
    let seen = bench.ask(Opcode::Setlkw, 5, &lock(0), 0);
    assert_eq!(seen, Seen::Error(libc::EINTR));
    ok(bench.ask(Opcode::Setlkw, 5, &lock(0), 0));
    bench.calls();
}

#[test]
fn locks_that_were_not_agreed_on_are_the_guests_own() {
    for (posix_locks, flock) in [(false, true), (true, false)] {
        let mut bench = Bench::new(ServiceConfig {
            posix_locks,
            flock,
            ..ServiceConfig::default()
        });
        for (flags, agreed) in [(0, posix_locks), (1, flock)] {
            let lock = join(&[&longs(&[7, 70, 5, 9]), &words(&[1, 9, flags, 0])]);
            for (opcode, room) in [(Opcode::Getlk, 24), (Opcode::Setlk, 0), (Opcode::Setlkw, 0)] {
                let refused = bench.ask(opcode, 5, &lock, room) == Seen::Error(libc::ENOSYS);
                assert_eq!(refused, !agreed, "{opcode:?} {flags}");
            }
        }
    }
}

/// A guest that was told otherwise would have none at all.
#[test]
fn locks_are_the_guests_own_where_the_engine_has_none() {
    let offered = POSIX_LOCKS | FLOCK_LOCKS;
    let init = words(&[7, 41, 131072, offered as u32]);
    let mut bench = Bench::fresh(ServiceConfig::default());
    let taken = u32_at(&ok(bench.ask(Opcode::Init, 0, &init, 64)), 12);
    assert_eq!(u64::from(taken) & offered, offered);
    let null = Arc::new(pfs_core::engine::null::Null);
    bench.service = Service::new(null, bench.store.clone(), ServiceConfig::default());
    let taken = u32_at(&ok(bench.ask(Opcode::Init, 0, &init, 64)), 12);
    assert_eq!(u64::from(taken) & offered, 0);
    let lock = join(&[&longs(&[7, 70, 5, 9]), &words(&[1, 9, 0, 0])]);
    let seen = bench.ask(Opcode::Setlk, 5, &lock, 0);
    assert_eq!(seen, Seen::Error(libc::ENOSYS));
}

#[test]
fn forgets_have_no_reply() {
    let mut bench = bench(CachePolicy::Auto);
    let forget = request(Opcode::Forget as u32, 5, &longs(&[3]));
    assert_eq!(bench.send(&forget, 0, true), Seen::NoReply);
    let batch = join(&[&words(&[2, 0]), &longs(&[6, 1, 7, 2])]);
    assert_eq!(bench.ask(Opcode::BatchForget, 0, &batch, 64), Seen::NoReply);
    assert_eq!(
        bench.calls(),
        [
            "forget NodeId(5) 3",
            "forget NodeId(6) 1",
            "forget NodeId(7) 2"
        ]
    );
    for count in [1, 3, u32::MAX] {
        let batch = join(&[&words(&[count, 0]), &longs(&[6, 1, 7, 2])]);
        assert_eq!(bench.ask(Opcode::BatchForget, 0, &batch, 64), Seen::NoReply);
    }
    assert!(bench.calls().is_empty());
}
