//! Sessions begin, end, and go on.

use pfs_core::session::InitRecord;

use super::*;
use crate::fuse::{RestoreError, Restored};

const GETATTR: [u8; 16] = [0; 16];

fn init(major: u32, minor: u32) -> Vec<u8> {
    words(&[
        major,
        minor,
        131072,
        u32::MAX,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ])
}

#[test]
fn nothing_is_served_before_init() {
    let mut bench = Bench::fresh(ServiceConfig::default());
    let before = bench.ask(Opcode::Getattr, 1, &GETATTR, 104);
    assert_eq!(before, Seen::Error(libc::EIO));
    assert_eq!(bench.ask(Opcode::Forget, 1, &longs(&[1]), 0), Seen::NoReply);
    assert_eq!(bench.ask(Opcode::Init, 0, &init(8, 0), 64).major(), 7);
    assert_eq!(bench.ask(Opcode::Getattr, 1, &GETATTR, 104), before);
    assert_eq!(
        bench.ask(Opcode::Init, 0, &init(6, 0), 64),
        Seen::Error(libc::EPROTO)
    );
    assert_eq!((bench.calls().len(), bench.store.init()), (0, None));
}

#[test]
fn init_resets_and_is_recorded() {
    let mut bench = Bench::fresh(ServiceConfig::default());
    for _ in 0..2 {
        assert_eq!(bench.ask(Opcode::Init, 0, &init(7, 99), 64).major(), 7);
        assert_eq!(bench.calls(), ["reset"]);
        let record = bench.store.init().unwrap();
        assert_eq!((record.minor, record.max_write), (41, 1 << 20));
        assert!(matches!(
            bench.ask(Opcode::Getattr, 1, &GETATTR, 104),
            Seen::Ok(_)
        ));
        bench.calls();
    }
    assert_eq!(bench.ask(Opcode::Destroy, 0, &[], 0), Seen::Ok(vec![]));
    assert_eq!(
        (bench.calls(), bench.store.init()),
        (vec!["reset".into()], None)
    );
    let after = bench.ask(Opcode::Getattr, 1, &GETATTR, 104);
    assert_eq!(after, Seen::Error(libc::EIO));
}

#[test]
fn a_session_goes_on_from_its_record() {
    let mut bench = Bench::fresh(ServiceConfig::default());
    assert_eq!(bench.service.restore().unwrap(), None);
    let record = InitRecord {
        major: 7,
        minor: 41,
        max_write: 4096,
        ..InitRecord::default()
    };
    bench.store.set_init(Some(record));
    let restored = bench.service.restore().unwrap();
    let expected = Restored {
        nodes: 3,
        handles: 2,
    };
    assert_eq!(
        (restored, bench.calls()),
        (Some(expected), vec!["restore".into()])
    );
    assert!(matches!(
        bench.ask(Opcode::Getattr, 1, &GETATTR, 104),
        Seen::Ok(_)
    ));
    bench.store.set_init(Some(InitRecord {
        minor: 42,
        ..record
    }));
    assert!(matches!(
        bench.service.restore(),
        Err(RestoreError::Version { minor: 42, .. })
    ));
}

#[test]
fn the_hiprio_queue_takes_forgets_only() {
    let mut bench = Bench::new(ServiceConfig::default());
    let getattr = request(Opcode::Getattr as u32, 1, &GETATTR);
    assert_eq!(bench.send(&getattr, 200, true), Seen::Error(libc::EINVAL));
    let interrupt = request(Opcode::Interrupt as u32, 0, &longs(&[4]));
    assert_eq!(bench.send(&interrupt, 0, true), Seen::NoReply);
    assert!(bench.calls().is_empty());
}

impl Seen {
    /// The major version in the reply of an INIT.
    fn major(&self) -> u32 {
        match self {
            Seen::Ok(body) => u32_at(body, 0),
            other => panic!("{other:?}"),
        }
    }
}
