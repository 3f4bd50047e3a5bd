//! A guest that lies.

use proptest::prelude::*;

use super::*;

#[test]
fn headers_that_lie() {
    let mut bench = Bench::new(ServiceConfig::default());
    let good = request(Opcode::Getattr as u32, 1, &[0; 16]);
    for len in [0, 40, 55, 57, u32::MAX] {
        let mut bad = good.clone();
        bad[..4].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(bench.send(&bad, 200, false), Seen::Error(libc::EINVAL));
    }
    for len in 0..56 {
        let seen = bench.send(&good[..len], 200, false);
        assert_eq!(seen, Seen::Error(libc::EINVAL), "{len} bytes");
        assert_eq!(bench.send(&good[..len], 15, false), Seen::NoReply);
    }
    let unknown = request(7, 1, &[]);
    assert_eq!(bench.send(&unknown, 16, false), Seen::Error(libc::ENOSYS));
    assert!(bench.calls().is_empty());
}

#[test]
fn nothing_is_done_without_room_for_its_answer() {
    let mut bench = Bench::new(ServiceConfig::default());
    let lookup = request(Opcode::Lookup as u32, 1, b"a\0");
    for room in 0..144 {
        let expected = match room {
            0..16 => Seen::NoReply,
            _ => Seen::Error(libc::EINVAL),
        };
        assert_eq!(bench.send(&lookup, room, false), expected);
    }
    assert!(bench.calls().is_empty());
    assert!(matches!(bench.send(&lookup, 144, false), Seen::Ok(_)));
}

#[test]
fn names_that_are_none() {
    let mut bench = Bench::new(ServiceConfig {
        xattr: true,
        ..ServiceConfig::default()
    });
    let nul = |len: usize| [vec![b'n'; len], vec![0]].concat();
    for (name, errno) in [
        (b"\0".to_vec(), libc::EINVAL),
        (b".\0".to_vec(), libc::EINVAL),
        (b"..\0".to_vec(), libc::EINVAL),
        (b"../x\0".to_vec(), libc::EINVAL),
        (b"a/b\0".to_vec(), libc::EINVAL),
        (b"no nul".to_vec(), libc::EINVAL),
        (b"nul\0within\0".to_vec(), libc::EINVAL),
        (nul(256), libc::ENAMETOOLONG),
        (nul(60000), libc::ENAMETOOLONG),
    ] {
        let mkdir = [words(&[0o755, 0]), name.clone()].concat();
        let renamed = [longs(&[1]), b"a\0".to_vec(), name.clone()].concat();
        for (opcode, body) in [
            (Opcode::Lookup, name.clone()),
            (Opcode::Unlink, name.clone()),
            (Opcode::Rmdir, name),
            (Opcode::Mkdir, mkdir),
            (Opcode::Rename, renamed),
        ] {
            let seen = bench.ask(opcode, 1, &body, 128);
            assert_eq!(seen, Seen::Error(errno), "{opcode:?} {body:?}");
        }
    }
    let target = |len| [b"l\0".to_vec(), nul(len)].concat();
    for (len, errno) in [(0, libc::ENOENT), (4096, libc::ENAMETOOLONG)] {
        let seen = bench.ask(Opcode::Symlink, 1, &target(len), 128);
        assert_eq!(seen, Seen::Error(errno));
    }
    let get = [words(&[0, 0]), nul(256)].concat();
    assert_eq!(
        bench.ask(Opcode::Getxattr, 1, &get, 8),
        Seen::Error(libc::ERANGE)
    );
    assert!(bench.calls().is_empty());
    assert!(matches!(
        bench.ask(Opcode::Symlink, 1, &target(4095), 128),
        Seen::Ok(_)
    ));
    assert!(matches!(
        bench.ask(Opcode::Lookup, 1, &nul(255), 128),
        Seen::Ok(_)
    ));
}

#[test]
fn offsets_past_the_end_of_all_files() {
    let mut bench = Bench::new(ServiceConfig::default());
    let at = |offset: u64, size: u32, data: usize| {
        let mut body = [longs(&[7, offset]), words(&[size, 0]), vec![0; 16]].concat();
        body.resize(40 + data, b'd');
        body
    };
    let max = i64::MAX as u64;
    for offset in [1 << 63, u64::MAX, max, max - 6] {
        for (opcode, body) in [
            (Opcode::Read, at(offset, 8, 0)),
            (Opcode::Write, at(offset, 8, 8)),
        ] {
            let seen = bench.ask(opcode, 1, &body, 64);
            assert_eq!(seen, Seen::Error(libc::EINVAL), "{opcode:?} at {offset:#x}");
        }
    }
    assert!(bench.calls().is_empty());
    let seen = bench.ask(Opcode::Write, 1, &at(max - 8, 8, 8), 64);
    assert!(matches!(seen, Seen::Ok(_)));
    // One byte more than was negotiated.
    let size = (1 << 20) + 1;
    let seen = bench.ask(Opcode::Write, 1, &at(0, size, size as usize), 64);
    assert_eq!(seen, Seen::Error(libc::EINVAL));
    let seen = bench.ask(Opcode::Read, 1, &at(0, size, 0), size as usize);
    assert_eq!(seen, Seen::Error(libc::EINVAL));
}

#[test]
fn errors_that_are_none_become_eio() {
    let mut bench = Bench::new(ServiceConfig::default());
    for errno in [512, 4095] {
        let errno = pfs_core::fs::Errno::from_raw_os_error(errno);
        *bench.fake.fail.lock().unwrap() = Some(errno);
        let seen = bench.ask(Opcode::Getattr, 1, &[0; 16], 104);
        assert_eq!(seen, Seen::Error(libc::EIO));
    }
}

/// An opcode, more often than not one that exists.
fn opcode() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..54, 1 => any::<u32>()]
}

/// Bytes that often look like small numbers, names, or the extremes.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u64>().prop_map(|long| long.to_ne_bytes().to_vec()),
        (0u64..70000).prop_map(|long| long.to_ne_bytes().to_vec()),
        prop::sample::select(vec![
            0u64,
            1,
            1 << 63,
            i64::MAX as u64,
            u64::MAX,
            0xffff_ffff
        ])
        .prop_map(|long| long.to_ne_bytes().to_vec()),
        "[a-c./]{0,3}".prop_map(|name| [name.as_bytes(), b"\0"].concat()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn config() -> ServiceConfig {
    ServiceConfig {
        xattr: true,
        ..ServiceConfig::default()
    }
}

/// One bench for all cases: a session that has seen worse before.
fn endure(requests: &[(Vec<u8>, usize, bool)]) {
    let mut bench = Bench::new(config());
    for (bytes, room, hiprio) in requests {
        // `send` asserts that the reply is a valid one, within its room.
        bench.send(bytes, *room, *hiprio);
    }
    bench.ask(Opcode::Init, 0, &words(&[7, 41, 0, 0]), 64);
    let seen = bench.ask(Opcode::Getattr, 1, &[0; 16], 104);
    assert!(matches!(seen, Seen::Ok(_)), "serves on");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_get_a_valid_reply_or_none(
        requests in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..200), 0usize..300, any::<bool>()),
            1..50,
        )
    ) {
        endure(&requests);
    }

    #[test]
    fn any_request_gets_a_valid_reply_or_none(
        requests in prop::collection::vec(
            (
                (opcode(), any::<u64>(), body(), -1i32..40)
                    .prop_map(|(opcode, node, body, lie)| {
                        let mut bytes = request(opcode, node, &body);
                        // Mostly the truth about the length.
                        if lie <= 0 {
                            bytes[0] = bytes[0].wrapping_add_signed(lie as i8 * 2 + 1);
                        }
                        bytes
                    }),
                prop_oneof![0usize..40, 40usize..9000],
                prop::bool::weighted(0.1),
            ),
            1..100,
        )
    ) {
        endure(&requests);
    }
}
