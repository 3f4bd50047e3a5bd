//! The table and the dispatch say the same.

use super::*;
use crate::fuse::decode::{body_len, decode, Raw};
use crate::fuse::opcodes::{find, Body, Op, Replay, Room};
use crate::fuse::served::By;

#[test]
fn every_opcode_has_its_row() {
    for code in Opcode::ALL {
        let op = find(*code as u32).unwrap();
        assert_eq!(op.code, *code);
        assert!(!code.name().is_empty());
    }
    for unknown in [0, 7, 19, 53, 63, 64, 4095, 4097, u32::MAX] {
        assert!(find(unknown).is_none());
    }
}

/// A body that decodes, if `bytes` of zeroes do for its structure: names are "a".
fn body_of(op: &Op) -> Vec<u8> {
    let (Body::Exact(bytes) | Body::AtLeast(bytes) | Body::Payload(bytes)) = op.body;
    let mut body = vec![0; bytes];
    match op.code {
        Opcode::Init => body[..4].copy_from_slice(&7u32.to_ne_bytes()),
        Opcode::Lseek => body[16] = libc::SEEK_DATA as u8,
        Opcode::Fallocate => body[16] = 1,
        Opcode::Readdir | Opcode::Readdirplus => body[17] = 0x10,
        _ => {}
    }
    let two = [Opcode::Rename, Opcode::Rename2, Opcode::Symlink];
    let names = match op.code {
        code if two.contains(&code) => 2,
        Opcode::Init | Opcode::BatchForget => 0,
        _ if op.refused.is_some() => 0,
        _ => usize::from(matches!(op.body, Body::AtLeast(_))),
    };
    // What the table counts is the names' NULs.
    body.truncate(bytes - names);
    for _ in 0..names {
        body.extend(b"a\0");
    }
    body
}

#[test]
fn dispatch_serves_what_the_table_does_not_refuse() {
    let config = ServiceConfig {
        xattr: true,
        ..ServiceConfig::default()
    };
    for code in Opcode::ALL {
        let op = Op::of(*code);
        let mut bench = Bench::new(config.clone());
        let seen = bench.ask(*code, 5, &body_of(&op), 8192);
        let calls = bench.calls();
        match op.refused {
            Some(refused) => {
                assert!(calls.is_empty(), "{code:?}");
                match op.room {
                    Room::NoReply => assert_eq!(seen, Seen::NoReply, "{code:?}"),
                    _ => assert_eq!(seen, Seen::Error(refused.errno.raw_os_error()), "{code:?}"),
                }
            }
            None if op.room == Room::NoReply => {
                assert_eq!(seen, Seen::NoReply, "{code:?}");
                let forgets = matches!(code.served_by(), By::Engine("forget"));
                assert_eq!(forgets, code.name().ends_with("FORGET"), "{code:?}");
            }
            // The oldest version is not served: decoded, then refused by the negotiation.
            None if *code == Opcode::Init => assert_eq!(seen, Seen::Error(libc::EPROTO)),
            None => {
                let Seen::Ok(body) = seen else {
                    panic!("{code:?}: {seen:?}");
                };
                assert_eq!(calls.len(), 1, "{code:?}");
                let method = calls[0].split(' ').next().unwrap();
                match code.served_by() {
                    By::Engine(named) => assert_eq!(method, named, "{code:?}"),
                    By::Session => assert_eq!(method, "reset", "{code:?}"),
                }
                if let Room::Exact(bytes) = op.room {
                    assert_eq!(body.len(), bytes, "{code:?}");
                }
            }
        }
    }
}

#[test]
fn readonly_refuses_all_that_changes() {
    let mut bench = Bench::new(ServiceConfig {
        readonly: true,
        xattr: true,
        ..ServiceConfig::default()
    });
    for code in Opcode::ALL {
        let op = Op::of(*code);
        let seen = bench.ask(*code, 5, &body_of(&op), 8192);
        assert_eq!(
            op.mutates,
            seen == Seen::Error(libc::EROFS),
            "{code:?}: {seen:?}"
        );
        if *code == Opcode::Init || *code == Opcode::Destroy {
            bench.ask(Opcode::Init, 0, &words(&[7, 41, 0, 0]), 64);
        }
    }
    for (flags, refused) in [
        (libc::O_RDONLY, false),
        (libc::O_WRONLY, true),
        (libc::O_RDWR, true),
        (libc::O_RDONLY | libc::O_TRUNC, true),
    ] {
        let seen = bench.ask(Opcode::Open, 5, &words(&[flags as u32, 0]), 16);
        assert_eq!(seen == Seen::Error(libc::EROFS), refused);
    }
    let seen = bench.ask(Opcode::Access, 5, &words(&[libc::W_OK as u32, 0]), 0);
    assert_eq!(seen, Seen::Error(libc::EROFS));
}

#[test]
fn intents_go_with_what_makes_and_removes_names() {
    for code in [
        Opcode::Create,
        Opcode::Mkdir,
        Opcode::Mknod,
        Opcode::Symlink,
        Opcode::Link,
        Opcode::Unlink,
        Opcode::Rmdir,
        Opcode::Rename,
        Opcode::Rename2,
        Opcode::Write,
    ] {
        assert_eq!(Op::of(code).replay, Replay::Intent, "{code:?}");
    }
    for code in [Opcode::Forget, Opcode::BatchForget] {
        assert_eq!(Op::of(code).replay, Replay::AtMostOnce, "{code:?}");
    }
    for code in Opcode::ALL.iter().map(|code| Op::of(*code)) {
        assert!(code.replay != Replay::Intent || code.mutates, "{code:?}");
    }
}

#[test]
fn a_body_one_byte_short_or_long_is_refused() {
    for code in Opcode::ALL {
        let op = Op::of(*code);
        if op.refused.is_some() || *code == Opcode::Init {
            continue;
        }
        let head = crate::fuse::abi::InHeader::default();
        let decodes = |body: &[u8]| {
            let copied = body_len(&op, body.len() as u64)?;
            let raw = Raw {
                op: &op,
                head: &head,
                body: &body[..copied],
                payload_len: (body.len() - copied) as u64,
                max_write: 4096,
                flags: 0,
            };
            decode(&raw).map(drop)
        };
        let mut body = body_of(&op);
        assert_eq!(decodes(&body), Ok(()), "{code:?}");
        body.push(b'x');
        assert!(decodes(&body).is_err(), "{code:?} takes a byte too much");
        let mut body = body_of(&op);
        if body.pop().is_some() {
            assert!(decodes(&body).is_err(), "{code:?} takes too little");
        }
    }
}
