//! The ring driver against virtiofsd, the peer: what passes here is a property of the driver.
//!
//! virtiofsd is taken from `$VIRTIOFSD` or `$PATH`; where there is none, the tests say so and
//! pass.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest_tests::binaries;
use guest_tests::ring::device;
use guest_tests::ring::fuse::abi::{
    self, EntryOut, FileLock, InHeader, Opcode, OutHeader, SetattrIn, SetattrValid, ROOT_ID,
};
use guest_tests::ring::fuse::{
    ops, Caller, Client, DataShape, Errno, Error, Handle, Lock, Session, SessionConfig,
};
use guest_tests::ring::memory::{RegionConfig, PAGE_SIZE};
use guest_tests::ring::process::{Daemon, DaemonCommand};
use tempfile::TempDir;
use vm_memory::ByteValued;

/// A virtiofsd on a fresh folder.
struct Peer {
    daemon: Daemon,
    dir: TempDir,
}

impl Peer {
    /// None, with the reason printed, where there is no virtiofsd.
    fn start() -> Option<Peer> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("share")).unwrap();
        let daemon = command(binary()?, &dir).spawn().unwrap();
        Some(Peer { daemon, dir })
    }

    fn connect(&mut self, config: &SessionConfig) -> Session {
        Session::connect(self.daemon.connect().unwrap(), config).unwrap()
    }

    /// Another process on the same folder and socket.
    fn restart(&mut self) {
        self.daemon.kill().unwrap();
        // virtiofsd removes it once it is connected.
        let _ = std::fs::remove_file(self.daemon.socket());
        self.daemon = command(binary().unwrap(), &self.dir).spawn().unwrap();
    }
}

fn binary() -> Option<PathBuf> {
    let binary = binaries::virtiofsd();
    if binary.is_none() {
        eprintln!("skipped: no virtiofsd in $VIRTIOFSD or $PATH");
    }
    binary
}

fn command(binary: PathBuf, dir: &TempDir) -> DaemonCommand {
    let socket = dir.path().join("socket");
    DaemonCommand::new(binary, &socket)
        .args(["--sandbox", "none", "--xattr", "--inode-file-handles=never"])
        .args([
            "--socket-path".as_ref(),
            socket.as_os_str(),
            "--shared-dir".as_ref(),
            dir.path().join("share").as_os_str(),
        ])
}

#[test]
fn a_file_is_written_and_read() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    assert_eq!(session.init.major, 7);
    assert!(session.flags() & abi::FsOptions::INIT_EXT.bits() != 0);
    let fs = session.fs();
    assert_eq!(fs.limits.io_len, 1 << 20);
    let bytes: Vec<u8> = (0..3 << 20).map(|i: u32| (i / 251) as u8).collect();
    for shape in [DataShape::Single, DataShape::Pages] {
        fs.shape = shape;
        fs.write_file("/f", &bytes).unwrap();
        assert!(fs.read_file("/f").unwrap() == bytes);
    }
    assert!(std::fs::read(peer.dir.path().join("share/f")).unwrap() == bytes);
}

#[test]
fn every_ring_feature_works_alone() {
    for (event_idx, indirect) in [(false, false), (true, false), (false, true), (true, true)] {
        let Some(mut peer) = Peer::start() else {
            return;
        };
        let mut config = SessionConfig::default();
        config.device.event_idx = event_idx;
        config.device.indirect = indirect;
        config.device.queue_size = 64;
        let mut session = peer.connect(&config);
        let fs = session.fs();
        assert_eq!(fs.queue().config().event_idx, event_idx);
        assert_eq!(fs.queue().config().indirect, indirect);
        assert_eq!(fs.limits.io_len, 60 * PAGE_SIZE);
        fs.shape = DataShape::Pages;
        let bytes = vec![7; 1 << 20];
        fs.write_file("/f", &bytes).unwrap();
        assert!(fs.read_file("/f").unwrap() == bytes);
    }
}

#[test]
fn operations_on_names() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    let fs = session.fs();
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap();
    assert_eq!(fs.mkdir(ROOT_ID, "d", 0o755).unwrap_err(), Errno::EXIST);
    assert_eq!(fs.lookup(ROOT_ID, "d").unwrap().nodeid, dir.nodeid);
    assert_eq!(fs.lookup(ROOT_ID, "x").unwrap_err(), Errno::NOENT);
    let (file, handle) = fs.create(dir.nodeid, "f", 0o640, libc::O_RDWR).unwrap();
    assert_eq!(file.attr.mode, libc::S_IFREG | 0o640);
    let linked = fs.link(file.nodeid, ROOT_ID, "l").unwrap();
    assert_eq!((linked.nodeid, linked.attr.nlink), (file.nodeid, 2));
    fs.rename(ROOT_ID, "l", dir.nodeid, "m").unwrap();
    let noreplace = fs.rename2(dir.nodeid, "m", dir.nodeid, "f", libc::RENAME_NOREPLACE);
    assert_eq!(noreplace.unwrap_err(), Errno::EXIST);
    let symlink = fs.symlink(dir.nodeid, "s", "some/where").unwrap();
    assert_eq!(fs.readlink(symlink.nodeid).unwrap(), b"some/where");
    let fifo = fs.mknod(dir.nodeid, "p", libc::S_IFIFO | 0o600, 0).unwrap();
    assert_eq!(fifo.attr.mode, libc::S_IFIFO | 0o600);
    fs.access(dir.nodeid, 4).unwrap();
    let mut names: Vec<_> = fs.list("/d").unwrap().into_iter().map(|e| e.name).collect();
    names.sort();
    assert_eq!(names, [b"f", b"m", b"p", b"s"]);

    let opened = fs.opendir(dir.nodeid).unwrap();
    let entries = fs.readdirplus(opened, 0, 4096).unwrap();
    let plus = entries.iter().find(|(_, e)| e.name == b"m").unwrap();
    assert_eq!(plus.0.nodeid, file.nodeid);
    fs.fsyncdir(opened, false).unwrap();
    fs.releasedir(opened).unwrap();

    assert_eq!(fs.rmdir(ROOT_ID, "d").unwrap_err(), Errno::NOTEMPTY);
    fs.release(handle).unwrap();
    fs.unlink(dir.nodeid, "m").unwrap();
    fs.forget(file.nodeid, 3).unwrap();
    fs.batch_forget(&[(symlink.nodeid, 1), (fifo.nodeid, 1)])
        .unwrap();
    fs.drain_hiprio().unwrap();
    fs.remove_tree("/d").unwrap();
    assert!(fs.list("/").unwrap().is_empty());
    fs.syncfs(ROOT_ID).unwrap();
    fs.destroy().unwrap();
}

#[test]
fn operations_on_files() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    let fs = session.fs();
    let (file, handle) = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    assert_eq!(fs.write(handle, 4096, b"hello").unwrap(), 5);
    assert_eq!(fs.fgetattr(handle).unwrap().attr.size, 4101);
    assert_eq!(fs.read(handle, 4094, 100).unwrap(), b"\0\0hello");
    assert_eq!(fs.read(handle, 5000, 100).unwrap(), b"");
    fs.fallocate(handle, 0, 0, 8192).unwrap();
    assert_eq!(fs.getattr(file.nodeid).unwrap().attr.size, 8192);
    assert_eq!(fs.lseek(handle, 0, libc::SEEK_END).unwrap(), 8192);
    let truncate = SetattrIn {
        valid: SetattrValid::SIZE.bits(),
        size: 4097,
        ..SetattrIn::default()
    };
    assert_eq!(fs.setattr(file.nodeid, &truncate).unwrap().attr.size, 4097);
    let (_, copy) = fs.create(ROOT_ID, "g", 0o600, libc::O_RDWR).unwrap();
    let copied = fs.copy_file_range(handle, 4090, copy, 0, 100).unwrap();
    assert_eq!(fs.read(copy, 0, 100).unwrap(), b"\0\0\0\0\0\0h"[..copied]);
    fs.fsync(handle, true).unwrap();
    fs.flush(handle, 1).unwrap();
    assert!(fs.statfs(ROOT_ID).unwrap().blocks > 0);

    fs.setxattr(file.nodeid, "user.a", b"value", 0).unwrap();
    let again = fs.setxattr(file.nodeid, "user.a", b"v", libc::XATTR_CREATE);
    assert_eq!(again.unwrap_err(), Errno::EXIST);
    assert_eq!(fs.getxattr_size(file.nodeid, "user.a").unwrap(), 5);
    assert_eq!(fs.getxattr(file.nodeid, "user.a").unwrap(), b"value");
    assert_eq!(fs.listxattr(file.nodeid).unwrap(), b"user.a\0");
    assert_eq!(fs.listxattr_size(file.nodeid).unwrap(), 7);
    fs.removexattr(file.nodeid, "user.a").unwrap();
    let gone = fs.getxattr(file.nodeid, "user.a").unwrap_err();
    assert_eq!(gone, Errno::NODATA);

    // These virtiofsd may not have: what counts is that an answer comes and is well formed.
    let lock = Lock {
        owner: 1,
        lock: FileLock {
            end: u64::MAX >> 1,
            type_: libc::F_WRLCK as u32,
            ..FileLock::default()
        },
        flock: false,
    };
    answered(fs.getlk(handle, &lock));
    answered(fs.setlk(handle, &lock));
    answered(fs.tmpfile(ROOT_ID, 0o600, libc::O_RDWR));
    answered(fs.statx(file.nodeid, None, 0, libc::STATX_BASIC_STATS));
    fs.release(handle).unwrap();
}

/// An answer, or an error that the daemon chose.
fn answered<T>(result: Result<T, Error>) {
    if let Err(e) = result {
        assert!(e.errno().is_some(), "{e}");
    }
}

#[test]
fn the_caller_is_who_the_client_says() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    let fs = session.fs();
    fs.mkdir(ROOT_ID, "d", 0o755).unwrap();
    let mode = SetattrIn {
        valid: SetattrValid::MODE.bits(),
        mode: 0o777,
        ..SetattrIn::default()
    };
    fs.setattr(ROOT_ID, &mode).unwrap();
    fs.caller = Caller {
        uid: 1234,
        gid: 5678,
        pid: 1,
    };
    let (entry, _) = fs.create(ROOT_ID, "f", 0o600, libc::O_RDWR).unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (1234, 5678));
}

#[test]
fn many_requests_in_flight() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    let fs = session.fs();
    let pages: Vec<u8> = (0..256 * PAGE_SIZE)
        .map(|i| (i / PAGE_SIZE) as u8)
        .collect();
    fs.write_file("/f", &pages).unwrap();
    let file = fs.resolve("/f").unwrap();
    let handle = fs.open(file.nodeid, libc::O_RDONLY).unwrap();
    let data: Vec<_> = (0..64)
        .map(|_| fs.memory().alloc_pages(PAGE_SIZE).unwrap())
        .collect();
    let (mut submitted, mut seen) = (0_u64, [0_u32; 256]);
    let mut idle: Vec<usize> = (0..64).collect();
    while seen.iter().sum::<u32>() < 2560 {
        while let Some(buffer) = idle.pop().filter(|_| submitted < 2560) {
            let page = submitted % 256;
            let request = ops::read(handle, page * PAGE_SIZE as u64, &data[buffer]);
            fs.enqueue(&request, page << 8 | buffer as u64).unwrap();
            submitted += 1;
        }
        fs.kick().unwrap();
        let done = fs.next_done().unwrap();
        assert_eq!(done.opcode, Opcode::Read as u32);
        assert_eq!(fs.wait::<usize>(done.ticket()).unwrap(), PAGE_SIZE);
        let (page, buffer) = ((done.tag >> 8) as usize, (done.tag & 0xff) as usize);
        assert_eq!(data[buffer].to_vec(0, PAGE_SIZE), [page as u8; PAGE_SIZE]);
        seen[page] += 1;
        idle.push(buffer);
    }
    assert_eq!(seen, [10; 256]);
    assert_eq!(fs.in_flight(), 0);
}

#[test]
fn replies_may_be_taken_in_any_order() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    let fs = session.fs();
    let names: Vec<String> = (0..64).map(|i| format!("f{i}")).collect();
    let tickets: Vec<_> = names
        .iter()
        .map(|name| {
            let request = ops::create(ROOT_ID, name.as_bytes(), 0o600, libc::O_RDWR, 0);
            fs.submit(&request, 0).unwrap()
        })
        .collect();
    assert!(matches!(
        fs.submit(&ops::statfs(ROOT_ID), 0),
        Err(Error::Busy)
    ));
    let mut nodes: Vec<u64> = tickets
        .iter()
        .rev()
        .map(|ticket| fs.wait(*ticket).unwrap().0.nodeid)
        .collect();
    assert!(matches!(fs.wait(tickets[0]), Err(Error::NoSuchRequest(_))));
    nodes.sort_unstable();
    nodes.dedup();
    assert_eq!(nodes.len(), 64);
}

#[test]
fn a_queue_stops_and_starts() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    for round in 0..3 {
        session.fs().getattr(ROOT_ID).unwrap();
        let base = session.device.stop_queue(1).unwrap();
        assert_eq!(base, session.fs().queue().ring().avail_index());
        let fs = session.fs();
        fs.timeout = Duration::from_millis(50);
        let ticket = fs.submit(&ops::getattr(ROOT_ID, None), 0).unwrap();
        assert!(
            matches!(fs.wait(ticket), Err(Error::Timeout { .. })),
            "round {round}"
        );
        fs.timeout = Duration::from_secs(10);
        session.device.start_queue(1, base).unwrap();
        let fs = session.fs();
        fs.queue().kick_always().unwrap();
        fs.wait(ticket).unwrap();
    }
}

#[test]
fn more_queues_than_the_daemon_has_are_an_error() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let stream = peer.daemon.connect().unwrap();
    let result = Session::connect(stream, &SessionConfig::with_queues(4));
    assert!(matches!(
        result.err(),
        Some(Error::Device(device::Error::Queues {
            offered: 2,
            wanted: 5
        }))
    ));
}

#[test]
fn memory_comes_and_goes() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    if let Err(e) = session.device.max_mem_slots() {
        eprintln!("skipped: {e}");
        return;
    }
    let guest_addr = 1 << 40;
    for _ in 0..3 {
        let region = RegionConfig {
            guest_addr,
            len: 1 << 20,
        };
        session.device.add_region(region).unwrap();
        let regions = session.device.memory().regions();
        let data = regions.last().unwrap().alloc(1 << 20, PAGE_SIZE).unwrap();
        assert_eq!(data.guest_addr(), guest_addr);
        data.fill(9);
        let fs = session.fs();
        let flags = libc::O_RDWR | libc::O_CREAT;
        let (_, handle) = fs.create(ROOT_ID, "f", 0o600, flags).unwrap();
        assert_eq!(fs.write_from(handle, 0, &data).unwrap(), 1 << 20);
        data.fill(0);
        assert_eq!(fs.read_into(handle, 0, &data).unwrap(), 1 << 20);
        assert!(data.to_vec(0, 1 << 20) == vec![9; 1 << 20]);
        session.device.remove_region(guest_addr).unwrap();
    }
}

#[test]
fn a_hung_daemon_is_an_error_and_may_come_back() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    let fs = session.fs();
    fs.timeout = Duration::from_millis(100);
    peer.daemon.pause().unwrap();
    let ticket = fs.submit(&ops::statfs(ROOT_ID), 0).unwrap();
    let error = fs.wait(ticket).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("no answer to STATFS (unique "),
        "{error}"
    );
    peer.daemon.resume().unwrap();
    fs.timeout = Duration::from_secs(10);
    fs.wait(ticket).unwrap();
}

#[test]
fn a_hung_daemon_ends_a_control_message() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut config = SessionConfig::default();
    config.device.control_timeout = Duration::from_millis(100);
    let mut session = peer.connect(&config);
    peer.daemon.pause().unwrap();
    let start = Instant::now();
    let error = session.device.stop_queue(1).unwrap_err();
    assert!(matches!(error, device::Error::NoAnswer { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_next_daemon_serves_what_the_dead_one_owed() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    for _ in 0..3 {
        session.fs().getattr(ROOT_ID).unwrap();
        peer.daemon.pause().unwrap();
        let fs = session.fs();
        let tickets: Vec<_> = (0..20)
            .map(|_| fs.submit(&ops::statfs(ROOT_ID), 0).unwrap())
            .collect();
        peer.restart();
        let gone = fs.wait(tickets[0]).unwrap_err();
        assert!(matches!(gone, Error::Gone { .. }), "{gone}");
        session.reattach(peer.daemon.connect().unwrap()).unwrap();
        for ticket in tickets {
            answered(session.fs().wait(ticket));
        }
        session.send_init(Default::default()).unwrap();
        session.fs().write_file("/f", b"again").unwrap();
    }
}

#[test]
fn raw_requests_are_sent_as_they_are() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    let fs = session.fs();
    let header = InHeader {
        len: 42,
        opcode: Opcode::Lookup as u32,
        unique: 4242,
        nodeid: ROOT_ID,
        ..InHeader::default()
    };
    let request = [header.as_slice(), b"x\0"].concat();
    let room = size_of::<OutHeader>() + size_of::<EntryOut>();
    let reply = fs.call_raw(&request, &[16, room - 16]).unwrap();
    assert_eq!(reply.used_len, 16);
    let header = OutHeader::from_slice(&reply.bytes[..16]).copied().unwrap();
    let (error, unique) = (header.error, header.unique);
    assert_eq!((error, unique), (-libc::ENOENT, 4242));
}

#[test]
fn a_client_works_on_a_thread_of_its_own() {
    let Some(mut peer) = Peer::start() else {
        return;
    };
    let mut session = peer.connect(&SessionConfig::default());
    let mut client: Client = session.clients.pop().unwrap();
    client.spin = Duration::from_micros(50);
    let thread = std::thread::spawn(move || {
        for _ in 0..1000 {
            client.getattr(ROOT_ID).unwrap();
        }
    });
    thread.join().unwrap();
}

#[test]
fn a_socket_may_be_inherited() {
    let Some(binary) = binary() else { return };
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut daemon = DaemonCommand::new(binary, &socket)
        .args(["--fd=30", "--sandbox", "none", "--shared-dir"])
        .args([dir.path()])
        .inherit_fd(listener.as_fd(), 30)
        .unwrap()
        .spawn()
        .unwrap();
    let mut session = Session::connect(daemon.connect().unwrap(), &Default::default()).unwrap();
    let handle: Handle = session.fs().opendir(ROOT_ID).unwrap();
    session.fs().releasedir(handle).unwrap();
    session.device.disconnect();
    // virtiofsd serves one connection and ends.
    assert!(daemon.wait().unwrap().success());
}
