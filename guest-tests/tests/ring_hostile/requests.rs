//! FUSE requests that are not what they say.

use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::{
    self, ForgetOne, InHeader, Opcode, OutHeader, ReadIn, Rename2In, SetxattrInExt, ROOT_ID,
};
use guest_tests::ring::fuse::{Client, Errno, Handle};
use vm_memory::ByteValued;

use Opcode as O;

/// How a request ends that is not to be served.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Refused(Errno),
    /// Used without a reply.
    Dropped,
}

use Outcome::{Dropped, Refused};

const UNIQUE: u64 = 0x1234_5678;
/// No node or handle.
const UNKNOWN: u64 = 1 << 40;

/// A file with data, its handle, and a directory's.
pub(super) struct Bench {
    pub(super) mount: Mount,
    pub(super) file: Handle,
    pub(super) dir: Handle,
}

impl Bench {
    fn new(volume: &Volume) -> Bench {
        let mut mount = volume.mount();
        let fs = mount.fs();
        let file = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap().1;
        fs.write(file, 0, &[7; 200_000]).unwrap();
        let dir = fs.opendir(ROOT_ID).unwrap();
        Bench { mount, file, dir }
    }

    /// Sends exactly these bytes.
    fn send(&mut self, request: &[u8], rooms: &[usize]) -> Outcome {
        let reply = self.mount.fs().call_raw(request, rooms).unwrap();
        if reply.used_len == 0 {
            assert!(
                reply.bytes.iter().all(|byte| *byte == 0),
                "a drop that wrote"
            );
            return Dropped;
        }
        let header = OutHeader::from_slice(&reply.bytes[..16]).copied().unwrap();
        let (len, error, unique) = (header.len, header.error, header.unique);
        assert_eq!((len, reply.used_len), (16, 16), "error {error}");
        assert!(unique == UNIQUE || request.len() < 40, "unique {unique}");
        assert!((-511..0).contains(&error), "error {error}");
        Refused(Errno::from_raw_os_error(-error))
    }

    /// Sends a request with a true header.
    pub(super) fn ask(&mut self, opcode: u32, node: u64, body: &[u8], rooms: &[usize]) -> Outcome {
        self.send(&request(opcode, node, body), rooms)
    }

    /// Sends a request with a true header and room for any reply, which must be refused.
    pub(super) fn refused(&mut self, opcode: Opcode, node: u64, body: &[u8], errno: Errno) {
        let outcome = self.ask(opcode as u32, node, body, &[16, 4096]);
        let what = abi::opcode_name(opcode as u32);
        assert_eq!(
            outcome,
            Refused(errno),
            "{what} of {node:#x} with {body:x?}"
        );
        self.serves();
    }

    /// The file is as it was, and so is the directory.
    pub(super) fn serves(&mut self) {
        let file = self.file;
        let fs: &mut Client = self.mount.fs();
        assert_eq!(fs.read(file, 199_999, 10).unwrap(), [7]);
        assert_eq!(fs.fgetattr(file).unwrap().attr.size, 200_000);
        assert_eq!(fs.list("/").unwrap().len(), 1);
    }
}

fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let header = InHeader {
        len: (size_of::<InHeader>() + body.len()) as u32,
        opcode,
        unique: UNIQUE,
        nodeid: node,
        ..InHeader::default()
    };
    [header.as_slice(), body].concat()
}

pub(super) fn on_both_volumes(test: fn(&mut Bench)) {
    for volume in [Volume::striped(), Volume::posix()] {
        test(&mut Bench::new(&volume));
    }
}

#[test]
fn short_requests_and_lengths_that_lie() {
    on_both_volumes(|bench| {
        let good = request(O::Getattr as u32, ROOT_ID, &[0; 16]);
        for len in [1, 4, 39, 40, 41, 55] {
            let outcome = bench.send(&good[..len], &[16, 104]);
            assert_eq!(outcome, Refused(Errno::INVAL), "{len} bytes");
        }
        for len in [0, 1, 40, 55, 57, 4096, u32::MAX] {
            let mut lying = good.clone();
            lying[..4].copy_from_slice(&len.to_ne_bytes());
            let outcome = bench.send(&lying, &[16, 104]);
            assert_eq!(outcome, Refused(Errno::INVAL), "a length of {len}");
        }
        for opcode in [0, 7, 19, 53, 1000, u32::MAX] {
            let outcome = bench.ask(opcode, ROOT_ID, &[0; 64], &[16, 104]);
            assert_eq!(outcome, Refused(Errno::NOSYS), "opcode {opcode}");
        }
        bench.serves();
    });
}

#[test]
fn no_room_for_the_reply() {
    on_both_volumes(|bench| {
        let lookup = request(O::Lookup as u32, ROOT_ID, b"f\0");
        for rooms in [&[1][..], &[15], &[8, 7]] {
            assert_eq!(bench.send(&lookup, rooms), Dropped, "{rooms:?}");
        }
        for rooms in [&[16][..], &[16, 127], &[1; 143]] {
            assert_eq!(
                bench.send(&lookup, rooms),
                Refused(Errno::INVAL),
                "{rooms:?}"
            );
        }
        // No lookup was taken for a reply that could not be given.
        let create = [&[0_u8; 16][..], b"new\0"].concat();
        let made = bench.ask(O::Create as u32, ROOT_ID, &create, &[16, 128]);
        assert_eq!(made, Refused(Errno::INVAL));
        let read = ReadIn {
            fh: bench.file.fh,
            size: 4096,
            ..ReadIn::default()
        };
        let node = bench.file.nodeid;
        let outcome = bench.ask(O::Read as u32, node, read.as_slice(), &[16, 4095]);
        assert_eq!(outcome, Refused(Errno::INVAL));
        bench.serves();
    });
}

#[test]
fn names_that_are_none() {
    on_both_volumes(|bench| {
        let long = [vec![b'n'; 256], vec![0]].concat();
        for (name, errno) in [
            (&b""[..], Errno::INVAL),
            (b"\0", Errno::INVAL),
            (b"no nul", Errno::INVAL),
            (b"..\0", Errno::INVAL),
            (b"../f\0", Errno::INVAL),
            (b"f\0more", Errno::INVAL),
            (b"f\0\0", Errno::INVAL),
            (&long, Errno::NAMETOOLONG),
        ] {
            for opcode in [O::Lookup, O::Unlink, O::Rmdir] {
                bench.refused(opcode, ROOT_ID, name, errno);
            }
            let mkdir = [&[0; 8], name].concat();
            bench.refused(O::Mkdir, ROOT_ID, &mkdir, errno);
        }
        // The second name is missing, or one too many.
        bench.refused(O::Symlink, ROOT_ID, b"name\0", Errno::INVAL);
        let rename = Rename2In {
            newdir: ROOT_ID,
            ..Rename2In::default()
        };
        for names in [&b"f\0"[..], b"f\0g", b"f\0g\0h\0"] {
            let body = [rename.as_slice(), names].concat();
            bench.refused(O::Rename2, ROOT_ID, &body, Errno::INVAL);
        }
    });
}

#[test]
fn nodes_and_handles_that_are_none() {
    on_both_volumes(|bench| {
        for node in [0, 2 << 32 | 1, UNKNOWN, u64::MAX] {
            bench.refused(O::Getattr, node, &[0; 16], Errno::STALE);
            bench.refused(O::Lookup, node, b"f\0", Errno::STALE);
            bench.refused(O::Open, node, &[0; 8], Errno::STALE);
            bench.refused(O::Opendir, node, &[0; 8], Errno::STALE);
            bench.refused(O::Unlink, node, b"f\0", Errno::STALE);
            let link = [&node.to_ne_bytes()[..], b"l\0"].concat();
            bench.refused(O::Link, ROOT_ID, &link, Errno::STALE);
            let rename = Rename2In {
                newdir: node,
                ..Rename2In::default()
            };
            let rename = [rename.as_slice(), b"f\0g\0"].concat();
            bench.refused(O::Rename2, ROOT_ID, &rename, Errno::STALE);
        }
        let (node, dir) = (bench.file.nodeid, bench.dir.fh);
        // A handle of nothing, of a directory, and the number of a node.
        for fh in [0, UNKNOWN, u64::MAX, dir, node] {
            let read = ReadIn {
                fh,
                size: 4096,
                ..ReadIn::default()
            };
            bench.refused(O::Read, node, read.as_slice(), Errno::BADF);
            let fsync = [fh, 0].map(u64::to_ne_bytes).concat();
            bench.refused(O::Fsync, node, &fsync, Errno::BADF);
            let release = [fh, 0, 0].map(u64::to_ne_bytes).concat();
            bench.refused(O::Release, node, &release, Errno::BADF);
            if fh != dir {
                bench.refused(O::Readdir, ROOT_ID, read.as_slice(), Errno::BADF);
                bench.refused(O::Releasedir, ROOT_ID, &release, Errno::BADF);
            }
        }
    });
}

#[test]
fn xattrs_that_lie() {
    on_both_volumes(|bench| {
        let node = bench.file.nodeid;
        let set = |size, rest: &[u8]| {
            let head = SetxattrInExt {
                size,
                ..SetxattrInExt::default()
            };
            [head.as_slice(), rest].concat()
        };
        bench.refused(O::Setxattr, node, &set(10, b"user.a\0short"), Errno::INVAL);
        bench.refused(O::Setxattr, node, &set(1, b"user.a\0longer"), Errno::INVAL);
        bench.refused(
            O::Setxattr,
            node,
            &set(u32::MAX, b"user.a\0v"),
            Errno::TOOBIG,
        );
        bench.refused(O::Setxattr, node, &set(0, b"user.a"), Errno::INVAL);
        bench.refused(O::Setxattr, node, &set(1, b"\0v"), Errno::RANGE);
        bench
            .mount
            .fs()
            .setxattr(node, "user.a", &[1; 2000], 0)
            .unwrap();
        // It says that it has room for 2000 bytes, and has not.
        let get = [&2000_u64.to_ne_bytes()[..], b"user.a\0"].concat();
        let outcome = bench.ask(O::Getxattr as u32, node, &get, &[16, 100]);
        assert_eq!(outcome, Refused(Errno::RANGE));
        bench.serves();
    });
}

/// None of these has a reply, so none may be written.
#[test]
fn forgets_that_lie() {
    on_both_volumes(|bench| {
        let one = ForgetOne {
            nodeid: UNKNOWN,
            nlookup: u64::MAX,
        };
        let batch = |count: u32, ones: usize| {
            let head = [count, 0].map(u32::to_ne_bytes).concat();
            [head, one.as_slice().repeat(ones)].concat()
        };
        for body in [
            batch(0, 1),
            batch(2, 1),
            batch(u32::MAX, 3),
            batch(1, 0),
            vec![0; 7],
        ] {
            let outcome = bench.ask(O::BatchForget as u32, ROOT_ID, &body, &[16, 64]);
            assert_eq!(outcome, Dropped, "{body:x?}");
        }
        for body in [&[0xff; 8][..], &[0xff; 7], &[0xff; 9], b""] {
            for node in [0, ROOT_ID, UNKNOWN] {
                let outcome = bench.ask(O::Forget as u32, node, body, &[16, 64]);
                assert_eq!(outcome, Dropped, "{body:x?}");
            }
        }
        assert_eq!(
            bench.ask(O::Interrupt as u32, 0, &[0xff; 8], &[16]),
            Dropped
        );
        bench.serves();
    });
}

#[test]
fn sessions_that_make_no_sense() {
    on_both_volumes(|bench| {
        let init = |major: u32, minor: u32| {
            [[major, minor].map(u32::to_ne_bytes).concat(), vec![0; 56]].concat()
        };
        bench.refused(O::Init, 0, &init(6, 0), Errno::PROTO);
        bench.refused(O::Init, 0, &init(7, 0), Errno::PROTO);
        bench.refused(O::Init, 0, &init(0, u32::MAX), Errno::PROTO);
        bench.refused(O::Init, 0, &[7, 0, 0, 0], Errno::INVAL);
        // A session that ended has nothing, until the next begins.
        let session = &mut bench.mount.session;
        session.fs().destroy().unwrap();
        assert_eq!(session.fs().getattr(ROOT_ID).unwrap_err(), Errno::IO);
        assert_eq!(session.fs().read(bench.file, 0, 1).unwrap_err(), Errno::IO);
        session.fs().destroy().unwrap_err();
        session.send_init(Default::default()).unwrap();
        assert_eq!(
            session.fs().read(bench.file, 0, 1).unwrap_err(),
            Errno::BADF
        );
        assert_eq!(session.fs().read_file("/f").unwrap().len(), 200_000);
    });
}
