//! A daemon dies at each place in the life of a request, and the next one serves the request.

use std::fs;
use std::path::PathBuf;

use guest_tests::crash::{dies_when_told, POINTS};
use guest_tests::fixture::{Heritage, Mount, Noise, Volume};
use guest_tests::ring::fuse::abi::{EntryOut, OpenOut, SetattrIn, SetattrValid, ROOT_ID};
use guest_tests::ring::fuse::{ops, Errno, Handle, Request, SessionConfig, Ticket};

const RDWR: i32 = libc::O_RDWR;

/// A session, and what the requests of every round share.
struct Bench {
    volume: Volume,
    heritage: Heritage,
    mount: Mount,
    file: Handle,
    copy: Handle,
}

impl Bench {
    fn new(volume: Volume) -> Bench {
        let heritage = Heritage::new();
        let daemon = heritage.pass_to(volume.daemon());
        let mut mount = Mount::start(daemon, &SessionConfig::default());
        let file = mount.fs().create(ROOT_ID, "file", 0o600, RDWR).unwrap().1;
        let copy = mount.fs().create(ROOT_ID, "copy", 0o600, RDWR).unwrap().1;
        Bench {
            volume,
            heritage,
            mount,
            file,
            copy,
        }
    }

    /// The next daemon, which dies when `point` is passed for the `count`th time.
    fn resume_mortal(&mut self, point: &str, count: usize) {
        let at = format!("{point}:{count}");
        let daemon = self.volume.daemon().env("PFS_CRASH_AT", at);
        self.mount.resume_with(self.heritage.pass_to(daemon));
    }

    fn resume(&mut self) {
        let daemon = self.heritage.pass_to(self.volume.daemon());
        self.mount.resume_with(daemon);
    }

    /// Where names lie on the host.
    fn names(&self) -> PathBuf {
        self.volume.host_path("")
    }

    /// What requests of a round find, made behind the daemon's back.
    fn set_scene(&self, dir: &str) {
        let dir = self.names().join(dir);
        fs::create_dir(&dir).unwrap();
        for name in ["victim", "from", "to", "left", "right"] {
            fs::write(dir.join(name), name).unwrap();
        }
        fs::create_dir(dir.join("empty")).unwrap();
        for name in ["tagged", "untagged"] {
            fs::write(dir.join(name), "").unwrap();
        }
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(dir.join("tagged"), "user.tag", b"1", flags).unwrap();
        self.volume.give(&dir);
    }

    /// Requests of every kind, none of which depends on another, all in flight when the daemon
    /// dies; then all of them are answered as if it had not.
    fn round(&mut self, point: &str, count: usize) {
        let what = format!("{point}-{count}");
        self.set_scene(&what);
        let fs = self.mount.fs();
        let dir = fs.lookup(ROOT_ID, &what).unwrap().nodeid;
        let tagged = fs.lookup(dir, "tagged").unwrap().nodeid;
        let untagged = fs.lookup(dir, "untagged").unwrap().nodeid;
        let links = fs.fgetattr(self.file).unwrap().attr.nlink;
        let bytes = Noise::new(count as u64).bytes(150_000);
        fs.write(self.copy, 0, &bytes).unwrap();
        let data = fs.memory().alloc_pages(bytes.len()).unwrap();
        data.write(0, &bytes);
        self.mount.daemon.kill().unwrap();

        self.resume_mortal(point, count);
        let (file, copy) = (self.file, self.copy);
        let fs = self.mount.fs();
        let extended = fs.limits.setxattr_ext;
        let size = SetattrIn {
            valid: SetattrValid::SIZE.bits(),
            size: 700_000,
            ..SetattrIn::default()
        };
        let exchange = libc::RENAME_EXCHANGE;
        let mut tickets: Vec<(&str, Ticket<usize>)> = Vec::new();
        let mut send = |name, request: Request<'_, usize>| {
            tickets.push((name, fs.enqueue(&request, 0).unwrap()));
        };
        send("mkdir", ops::mkdir(dir, b"made", 0o755, 0).length_only());
        let fifo = ops::mknod(dir, b"fifo", libc::S_IFIFO | 0o600, 0, 0);
        send("mknod", fifo.length_only());
        send("symlink", ops::symlink(dir, b"link", b"x").length_only());
        send("link", ops::link(file.nodeid, dir, b"file").length_only());
        send("unlink", ops::unlink(dir, b"victim").length_only());
        send("rmdir", ops::rmdir(dir, b"empty").length_only());
        send(
            "rename",
            ops::rename(dir, b"from", dir, b"to").length_only(),
        );
        let swap = ops::rename2(dir, b"left", dir, b"right", exchange);
        send("exchange", swap.length_only());
        let tag = ops::setxattr(untagged, b"user.tag", b"2", libc::XATTR_CREATE, extended);
        send("setxattr", tag.length_only());
        let untag = ops::removexattr(tagged, b"user.tag");
        send("removexattr", untag.length_only());
        send("write", ops::write(file, 50_000, &data).length_only());
        let copied = ops::copy_file_range(copy, 0, file, 300_000, 150_000);
        send("copy", copied.length_only());
        send("setattr", ops::setattr(copy.nodeid, &size).length_only());
        send("fsync", ops::fsync(file, false).length_only());
        let create = ops::create(dir, b"new", 0o600, RDWR | libc::O_EXCL, 0);
        let create: Ticket<(EntryOut, OpenOut)> = fs.enqueue(&create, 0).unwrap();
        fs.kick().unwrap();
        let status = self.mount.daemon.wait();
        let status = status.unwrap_or_else(|e| panic!("{what}: did not die: {e}"));
        assert!(status.code().is_none(), "{what}: {status}");

        self.resume();
        let fs = self.mount.fs();
        for (name, ticket) in tickets {
            fs.wait(ticket)
                .unwrap_or_else(|e| panic!("{what}: {name}: {e}"));
        }
        let made = fs.wait(create);
        let (entry, open) = made.unwrap_or_else(|e| panic!("{what}: create: {e}"));
        fs.write(Handle::new(entry.nodeid, &open), 0, b"new")
            .unwrap();

        // Each was done, and once.
        let mut names: Vec<_> = fs
            .list(&what)
            .unwrap()
            .into_iter()
            .map(|e| e.name)
            .collect();
        names.sort();
        let expected = [
            "fifo", "file", "left", "link", "made", "new", "right", "tagged", "to", "untagged",
        ];
        assert_eq!(
            names,
            expected.map(|name| name.as_bytes().to_vec()),
            "{what}"
        );
        let text = |name: &str| fs::read_to_string(self.names().join(&what).join(name)).unwrap();
        assert_eq!(
            [text("to"), text("left"), text("right")],
            ["from", "right", "left"]
        );
        assert_eq!(text("new"), "new");
        let fs = self.mount.fs();
        assert_eq!(fs.getxattr(untagged, "user.tag").unwrap(), b"2");
        assert_eq!(fs.getxattr(tagged, "user.tag").unwrap_err(), Errno::NODATA);
        assert_eq!(fs.fgetattr(self.file).unwrap().attr.nlink, links + 1);
        assert!(
            fs.read(self.file, 50_000, 150_000).unwrap() == bytes,
            "{what}"
        );
        assert!(
            fs.read(self.file, 300_000, 150_000).unwrap() == bytes,
            "{what}"
        );
        assert_eq!(fs.fgetattr(self.copy).unwrap().attr.size, 700_000);
    }
}

/// Requests of a round.
const REQUESTS: usize = 15;

fn every_request_dies_at(points: &[&str], volume: Volume) {
    if !dies_when_told() {
        return;
    }
    let mut bench = Bench::new(volume);
    for point in points {
        for count in 1..=REQUESTS {
            bench.round(point, count);
        }
    }
}

#[test]
fn deaths_around_the_pop() {
    every_request_dies_at(&POINTS[..2], Volume::striped());
}

#[test]
fn deaths_around_the_execution() {
    every_request_dies_at(&POINTS[2..4], Volume::striped());
}

#[test]
fn deaths_around_the_used_ring() {
    every_request_dies_at(&POINTS[4..], Volume::striped());
}

#[test]
fn deaths_on_a_plain_directory() {
    every_request_dies_at(&POINTS[2..3], Volume::posix());
}

#[test]
fn deaths_in_mapped_ownership() {
    every_request_dies_at(&POINTS[2..4], Volume::mapped());
}

/// A request in whose execution every daemon dies is answered an error in the end.
#[test]
fn a_deadly_request_is_given_up() {
    if !dies_when_told() {
        return;
    }
    let mut bench = Bench::new(Volume::posix());
    bench.mount.daemon.kill().unwrap();
    bench.resume_mortal("after_answer", 1);
    let ticket = bench
        .mount
        .fs()
        .submit(&ops::mkdir(ROOT_ID, b"d", 0o755, 0), 0);
    let ticket = ticket.unwrap();
    bench.mount.daemon.wait().unwrap();
    for _ in 0..2 {
        // It may die before it is set up, or after.
        let daemon = bench.volume.daemon().env("PFS_CRASH_AT", "after_answer:1");
        let _ = bench.mount.try_resume_with(bench.heritage.pass_to(daemon));
        assert!(bench.mount.daemon.wait().unwrap().code().is_none());
    }
    bench.resume();
    let fs = bench.mount.fs();
    assert_eq!(fs.wait(ticket).unwrap_err(), Errno::IO);
    fs.getattr(ROOT_ID).unwrap();
}

/// FORGETs that were in flight when the daemon died are applied at most once.
#[test]
fn no_death_forgets_twice() {
    if !dies_when_told() {
        return;
    }
    for point in POINTS {
        let mut bench = Bench::new(Volume::posix());
        let node = bench.mount.fs().mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
        for _ in 0..7 {
            bench.mount.fs().lookup(ROOT_ID, "d").unwrap();
        }
        bench.mount.daemon.kill().unwrap();
        bench.resume_mortal(point, 2);
        for _ in 0..4 {
            bench.mount.fs().forget(node, 1).unwrap();
        }
        assert!(
            bench.mount.daemon.wait().unwrap().code().is_none(),
            "{point}"
        );
        bench.resume();
        let fs = bench.mount.fs();
        fs.drain_hiprio().unwrap();
        // 8 were taken, at most 4 given back.
        fs.forget(node, 3).unwrap();
        fs.drain_hiprio().unwrap();
        fs.getattr(node).unwrap();
    }
}
