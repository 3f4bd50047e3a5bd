//! Requests whose offsets and lengths no file can have.

use guest_tests::ring::fuse::abi::{
    CopyFileRangeIn, FallocateIn, LseekIn, Opcode as O, ReadIn, SetattrIn, SetattrValid, WriteIn,
    ROOT_ID,
};
use guest_tests::ring::fuse::Errno;
use vm_memory::ByteValued;

use crate::requests::{
    on_both_volumes,
    Outcome::{Dropped, Refused},
};

/// First offset that no file has.
const BEYOND: u64 = 1 << 63;

#[test]
fn writes_that_lie() {
    on_both_volumes(|bench| {
        let (node, fh) = (bench.file.nodeid, bench.file.fh);
        let write = |offset, size| WriteIn {
            fh,
            offset,
            size,
            ..WriteIn::default()
        };
        for (offset, size, sent) in [
            (0, 100, 99),
            (0, 100, 101),
            (0, 0, 1),
            (0, u32::MAX, 100),
            (BEYOND, 10, 10),
            (BEYOND - 5, 10, 10),
            (u64::MAX, 10, 10),
            (u64::MAX - 9, 10, 10),
        ] {
            let body = [write(offset, size).as_slice(), &vec![9; sent]].concat();
            let outcome = bench.ask(O::Write as u32, node, &body, &[16, 8]);
            let errno = match outcome {
                Refused(errno) => errno,
                Dropped => panic!("dropped: {size} at {offset:#x}"),
            };
            assert!([Errno::INVAL, Errno::FBIG].contains(&errno), "{errno}");
            bench.serves();
        }
        // More than was negotiated.
        let body = [write(0, (1 << 20) + 1).as_slice(), &vec![9; (1 << 20) + 1]].concat();
        let outcome = bench.ask(O::Write as u32, node, &body, &[16, 8]);
        assert_eq!(outcome, Refused(Errno::INVAL));
        bench.serves();
    });
}

#[test]
fn ranges_beyond_all_files() {
    on_both_volumes(|bench| {
        let (node, fh) = (bench.file.nodeid, bench.file.fh);
        for (offset, size) in [(BEYOND, 1), (BEYOND - 1, 2), (u64::MAX, 1), (0, u32::MAX)] {
            let read = ReadIn {
                fh,
                offset,
                size,
                ..ReadIn::default()
            };
            bench.refused(O::Read, node, read.as_slice(), Errno::INVAL);
        }
        for (offset, length, errno) in [
            (BEYOND, 1, Errno::INVAL),
            (BEYOND - 1, 2, Errno::FBIG),
            (1, BEYOND - 1, Errno::FBIG),
            (0, BEYOND, Errno::INVAL),
            (0, 0, Errno::INVAL),
            (u64::MAX, u64::MAX, Errno::INVAL),
        ] {
            let body = FallocateIn {
                fh,
                offset,
                length,
                ..FallocateIn::default()
            };
            let outcome = bench.ask(O::Fallocate as u32, node, body.as_slice(), &[16]);
            let either = [Refused(errno), Refused(Errno::FBIG)];
            assert!(
                either.contains(&outcome),
                "{outcome:?}: {length:#x} at {offset:#x}"
            );
            bench.serves();
        }
        for (offset, whence) in [(BEYOND, 3), (u64::MAX, 4), (0, 0), (0, 99), (0, u32::MAX)] {
            let body = LseekIn {
                fh,
                offset,
                whence,
                padding: 0,
            };
            bench.refused(O::Lseek, node, body.as_slice(), Errno::INVAL);
        }
        let size = SetattrIn {
            valid: SetattrValid::SIZE.bits(),
            size: BEYOND,
            ..SetattrIn::default()
        };
        bench.refused(O::Setattr, node, size.as_slice(), Errno::INVAL);
        let unknown = SetattrIn {
            valid: 1 << 31,
            ..size
        };
        bench.refused(O::Setattr, node, unknown.as_slice(), Errno::INVAL);
        for (offset_in, offset_out, len, flags, errno) in [
            (BEYOND, 0, 1, 0, Errno::INVAL),
            (0, BEYOND - 1, 2, 0, Errno::OVERFLOW),
            (u64::MAX, u64::MAX, u64::MAX, 0, Errno::INVAL),
            (0, 500_000, 10, 1, Errno::INVAL),
            (0, 5, 10, 0, Errno::INVAL),
        ] {
            let body = CopyFileRangeIn {
                fh_in: fh,
                offset_in,
                nodeid_out: node,
                fh_out: fh,
                offset_out,
                len,
                flags,
            };
            bench.refused(O::CopyFileRange, node, body.as_slice(), errno);
        }
        // A place in a directory that no listing gave.
        let list = ReadIn {
            fh: bench.dir.fh,
            offset: u64::MAX,
            size: 4096,
            ..ReadIn::default()
        };
        bench.refused(O::Readdir, ROOT_ID, list.as_slice(), Errno::INVAL);
    });
}
