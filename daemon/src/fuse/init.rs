//! FUSE_INIT: what guest and daemon agree on.

use pfs_core::fs::{Errno, Result};
use pfs_core::session::InitRecord;

use super::abi::{self, InitOut};
use super::config::ServiceConfig;
use super::flags;

/// Oldest minor version served: 7.27 (Linux 4.18) is the oldest whose structures all have the
/// size they have today; virtiofs itself came later (5.4, 7.31).
const OLDEST_MINOR: u32 = 27;

/// Requests that a guest may have in flight in the background, and where it calls itself
/// congested; as virtiofsd sets them, since the rings already bound what can be in flight.
const MAX_BACKGROUND: u16 = u16::MAX;
const CONGESTION_THRESHOLD: u16 = MAX_BACKGROUND / 4 * 3;

/// What comes of an INIT.
pub enum Negotiated {
    /// The session begins.
    Session(InitRecord, InitOut),
    /// The guest is newer than major version 7: it shall ask again in ours. No session yet.
    AskAgain(InitOut),
}

/// An INIT request: `struct fuse_init_in`, with `flags2` in the upper half of `flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    pub major: u32,
    pub minor: u32,
    pub max_readahead: u32,
    pub flags: u64,
}

/// Decides on an INIT.
pub fn negotiate(init: &Init, config: &ServiceConfig) -> Result<Negotiated> {
    if init.major > abi::MAJOR {
        return Ok(Negotiated::AskAgain(InitOut {
            major: abi::MAJOR,
            minor: abi::MINOR,
            ..InitOut::default()
        }));
    }
    if init.major < abi::MAJOR || init.minor < OLDEST_MINOR {
        return Err(Errno::PROTO);
    }
    let max_write = config
        .max_write_bytes
        .clamp(4096, super::config::MAX_WRITE_BYTES);
    let record = InitRecord {
        major: abi::MAJOR,
        minor: init.minor.min(abi::MINOR),
        flags: init.flags & flags::wanted(config),
        max_write,
        max_readahead: init.max_readahead,
        max_pages: max_write / 4096,
        reserved: 0,
    };
    Ok(Negotiated::Session(record, reply(&record)))
}

fn reply(record: &InitRecord) -> InitOut {
    InitOut {
        major: record.major,
        minor: record.minor,
        max_readahead: record.max_readahead,
        flags: record.flags as u32,
        max_background: MAX_BACKGROUND,
        congestion_threshold: CONGESTION_THRESHOLD,
        max_write: record.max_write,
        time_gran: 1,
        max_pages: record.max_pages as u16,
        map_alignment: 0,
        flags2: (record.flags >> 32) as u32,
        unused: [0; 7],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuse::abi::init::DIRECT_IO_ALLOW_MMAP;

    /// What Linux 6.1 sends (7.37).
    const GUEST_6_1: Init = Init {
        major: 7,
        minor: 37,
        max_readahead: 128 << 10,
        flags: 0x0000_0003_73ff_fffb,
    };
    /// What Linux 6.12 sends (7.41).
    const GUEST_6_12: Init = Init {
        major: 7,
        minor: 41,
        max_readahead: 128 << 10,
        flags: 0x0000_01fd_73ff_fffb,
    };

    fn session(init: &Init) -> (InitRecord, InitOut) {
        match negotiate(init, &ServiceConfig::default()) {
            Ok(Negotiated::Session(record, out)) => (record, out),
            _ => panic!("no session"),
        }
    }

    #[test]
    fn linux_6_12_gets_all_that_is_wanted() {
        let (record, out) = session(&GUEST_6_12);
        assert_eq!((record.major, record.minor), (7, 41));
        let wanted = flags::wanted(&ServiceConfig::default());
        assert_eq!(record.flags, wanted);
        assert_eq!((out.flags, out.flags2), (wanted as u32, 1 << 4));
        assert_eq!((out.max_write, out.max_pages), (1 << 20, 256));
        assert_eq!(out.max_readahead, 128 << 10);
        assert_eq!(out.time_gran, 1);
    }

    #[test]
    fn linux_6_1_gets_what_it_knows() {
        let (record, out) = session(&GUEST_6_1);
        assert_eq!(record.minor, 37);
        let wanted = flags::wanted(&ServiceConfig::default());
        assert_eq!(record.flags, wanted & !DIRECT_IO_ALLOW_MMAP);
        assert_eq!(out.flags2, 0);
    }

    #[test]
    fn nothing_is_taken_that_was_not_offered() {
        for bit in 0..64 {
            let (record, _) = session(&Init {
                flags: 1 << bit,
                ..GUEST_6_12
            });
            assert_eq!(record.flags & !(1 << bit), 0);
        }
    }

    #[test]
    fn versions() {
        let at = |major, minor| {
            negotiate(
                &Init {
                    major,
                    minor,
                    ..GUEST_6_12
                },
                &ServiceConfig::default(),
            )
        };
        assert!(matches!(at(7, 27), Ok(Negotiated::Session(r, _)) if r.minor == 27));
        assert!(matches!(at(7, u32::MAX), Ok(Negotiated::Session(r, _)) if r.minor == 41));
        assert!(matches!(at(7, 26), Err(Errno::PROTO)));
        assert!(matches!(at(6, 41), Err(Errno::PROTO)));
        assert!(matches!(at(0, 0), Err(Errno::PROTO)));
        assert!(matches!(at(8, 0), Ok(Negotiated::AskAgain(out)) if out.major == 7));
        assert!(matches!(at(u32::MAX, 0), Ok(Negotiated::AskAgain(_))));
    }

    #[test]
    fn max_write_stays_in_bounds() {
        for (asked, given) in [(0, 4096), (65536, 65536), (u32::MAX, 1 << 20)] {
            let config = ServiceConfig {
                max_write_bytes: asked,
                ..ServiceConfig::default()
            };
            let Ok(Negotiated::Session(record, _)) = negotiate(&GUEST_6_12, &config) else {
                panic!("no session");
            };
            assert_eq!(record.max_write, given);
            assert_eq!(record.max_pages, given / 4096);
        }
    }
}
