//! The daemon's command line, start and end, as whoever starts it sees them.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pfs_core::volume::{create, CreateOptions, NewEngine, NewTargets, Ownership};
use rustix::process::{kill_process, Pid, Signal};
use tempfile::TempDir;

/// Long enough for a starved machine; nothing waits so long when all is well.
const PATIENCE: Duration = Duration::from_secs(30);
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The sandbox that this user can have.
fn sandbox() -> &'static str {
    match is_root() {
        true => "namespace",
        false => "none",
    }
}

/// A folder with a striped volume "vol" in it.
fn volume() -> (TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("vol");
    let engine = NewEngine::striped(NewTargets::Inside(2));
    let made = create(&CreateOptions {
        path,
        ownership: Ownership::Native,
        engine,
    })
    .unwrap();
    (temp, made.path)
}

fn daemon() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pfs-virtiofsd"));
    command.stdin(Stdio::null());
    command
}

/// A running daemon; killed if the test fails.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        Running { child }
    }

    /// Starts one on a socket, and waits until that is there.
    fn serving(volume: &Path, socket: &Path) -> Running {
        let mut running = Running::start(daemon().args([
            "--socket-path".as_ref(),
            socket.as_os_str(),
            "--shared-dir".as_ref(),
            volume.as_os_str(),
            "--sandbox".as_ref(),
            sandbox().as_ref(),
        ]));
        running.wait_for(|| is_socket(socket));
        running.wait_for_log("waiting for a VMM");
        running
    }

    fn wait_for(&mut self, ready: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            assert!(Instant::now() < deadline, "not in time");
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended early with {status}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads the log up to a line with `words`; answers what was read.
    fn wait_for_log(&mut self, words: &str) -> String {
        let log = self.child.stderr.as_mut().unwrap();
        let (mut text, mut byte) = (Vec::new(), [0]);
        loop {
            assert_eq!(
                log.read(&mut byte).unwrap(),
                1,
                "{}",
                String::from_utf8_lossy(&text)
            );
            text.push(byte[0]);
            let so_far = String::from_utf8_lossy(&text);
            if byte[0] == b'\n' && so_far.contains(words) {
                return so_far.into_owned();
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The rest of the log, until the daemon's end.
    fn log(&mut self) -> String {
        let mut text = String::new();
        let log = self.child.stderr.as_mut().unwrap();
        log.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits for the end; answers the exit code and the log.
    fn end(mut self) -> (Option<i32>, String) {
        let log = self.log();
        (self.child.wait().unwrap().code(), log)
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|found| found.file_type().is_socket())
}

/// Runs to the end, which must come at once, with `code` and a message with all of `words`.
#[track_caller]
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let Output {
        status,
        stderr,
        stdout,
    } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{text}");
    assert!(stdout.is_empty());
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Passes `fds` on to `command`, each under its number.
fn pass(command: &mut Command, fds: Vec<(OwnedFd, RawFd)>) {
    // SAFETY: between fork and exec only dup3 is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for (fd, number) in &fds {
                use std::os::fd::AsRawFd;
                if libc::dup3(fd.as_raw_fd(), *number, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        })
    };
}

// ---- what is printed -------------------------------------------------------------------

#[test]
fn capabilities_are_printed() {
    let output = daemon().arg("--print-capabilities").output().unwrap();
    assert!(output.status.success());
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        shown,
        serde_json::json!({"type": "fs", "features": ["separate-options"]})
    );
}

#[test]
fn help_and_version_are_printed() {
    for (arg, word) in [
        ("--help", "--state-fd"),
        ("-h", "--shared-dir"),
        ("-V", "pfs-virtiofsd"),
    ] {
        let output = daemon().arg(arg).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(word));
    }
    let short = daemon().arg("-h").output().unwrap().stdout;
    assert!(!String::from_utf8_lossy(&short).contains("--state-fd"));
}

// ---- what is refused -------------------------------------------------------------------

#[test]
fn options_are_refused_by_name() {
    let base = ["--fd=30", "--shared-dir=/"];
    for (option, words) in [
        (
            "--xattrmap=x",
            &["--xattrmap is not supported", "not renamed"][..],
        ),
        ("--frobnicate", &["--frobnicate"]),
        ("-osecurity_label", &["-o security_label"]),
    ] {
        refused(daemon().args(base).arg(option), 2, words);
    }
}

#[test]
fn bad_volumes_are_refused() {
    let (temp, vol) = volume();
    let socket = temp.path().join("s");
    let start = |path: &Path, words: &[&str]| {
        let mut command = daemon();
        command
            .arg("--socket-path")
            .arg(&socket)
            .arg("--shared-dir")
            .arg(path);
        refused(command.args(["--sandbox", sandbox()]), 1, words);
        assert!(!socket.exists() && !temp.path().join("s.pid").exists());
    };
    start(&temp.path().join("none"), &["no volume at", "none"]);
    start(&vol.join("targets/0"), &["storage target 0"]);
    let toml = fs::read_to_string(vol.join("volume.toml")).unwrap();
    fs::write(vol.join("volume.toml"), toml.replace("meta", "mega")).unwrap();
    start(&vol, &["volume.toml:", "mega"]);
    fs::write(vol.join("volume.toml"), &toml).unwrap();
    fs::rename(vol.join("targets/1"), vol.join("away")).unwrap();
    start(&vol, &["target 1 is missing"]);
}

#[test]
fn bad_sockets_are_refused() {
    let (temp, vol) = volume();
    let at = |socket: &Path, words: &[&str]| {
        let mut command = daemon();
        command
            .arg("--socket-path")
            .arg(socket)
            .arg("--shared-dir")
            .arg(&vol);
        refused(command.args(["--sandbox", sandbox()]), 1, words);
    };
    at(&temp.path().join("none/s"), &["none/s", "No such file"]);
    fs::write(temp.path().join("file"), "precious").unwrap();
    at(
        &temp.path().join("file"),
        &["file is there and is no socket"],
    );
    assert_eq!(fs::read(temp.path().join("file")).unwrap(), b"precious");
    at(&temp.path().join("n".repeat(120)), &["too long"]);
    // Another program listens there: it sees no connection.
    let path = temp.path().join("taken");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    at(&path, &["taken is in use by another daemon"]);
    assert!(listener.accept().is_err() && is_socket(&path));
    let mut command = daemon();
    command
        .arg("--socket-path")
        .arg(temp.path().join("s"))
        .arg("--shared-dir")
        .arg(&vol);
    command.args(["--socket-group", "no-such-group", "--sandbox", sandbox()]);
    refused(&mut command, 1, &["no group \"no-such-group\""]);
}

#[test]
fn inherited_descriptors_are_checked() {
    let (_temp, vol) = volume();
    let start = |args: &[&str], fds: Vec<(OwnedFd, RawFd)>, words: &[&str]| {
        let mut command = daemon();
        command
            .args(args)
            .arg("--shared-dir")
            .arg(&vol)
            .args(["--sandbox", sandbox()]);
        pass(&mut command, fds);
        refused(&mut command, 1, words);
    };
    let null = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    start(&["--fd=30"], vec![], &["descriptor 30 is not open"]);
    start(&["--fd=2"], vec![], &["descriptor 2 is standard"]);
    start(
        &["--fd=30"],
        vec![(null(), 30)],
        &["30 of --fd is not a listening"],
    );
    let pair = UnixStream::pair().unwrap().0.into();
    start(
        &["--fd=30"],
        vec![(pair, 30)],
        &["30 of --fd is not a listening"],
    );
    let (args, words) = (
        ["--fd=30", "--state-fd=30"],
        ["descriptor 30 is given to two"],
    );
    start(&args, vec![(listener().1, 30)], &words);
    let (args, words) = (
        ["--fd=30", "--state-fd=31"],
        ["31 of --state-fd is not a memfd"],
    );
    start(&args, vec![(listener().1, 30), (null(), 31)], &words);
}

/// A listening socket, and where it is.
fn listener() -> (TempDir, OwnedFd) {
    let temp = tempfile::tempdir().unwrap();
    let socket = UnixListener::bind(temp.path().join("listening")).unwrap();
    (temp, socket.into())
}

#[test]
fn the_limit_of_open_files_is_set_or_refused() {
    let (temp, vol) = volume();
    let socket = temp.path().join("s");
    let mut command = daemon();
    command
        .arg("--socket-path")
        .arg(&socket)
        .arg("--shared-dir")
        .arg(&vol);
    command.args(["--sandbox", sandbox(), "--rlimit-nofile=1234"]);
    let mut running = Running::start(&mut command);
    running.wait_for_log("waiting for a VMM");
    let limits = fs::read_to_string(running.proc("limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("1234"));
    drop(running);
    let mut command = daemon();
    command
        .arg("--socket-path")
        .arg(&socket)
        .arg("--shared-dir")
        .arg(&vol);
    command.args(["--sandbox", sandbox(), "--rlimit-nofile=99999999999"]);
    refused(&mut command, 1, &["limit of open files to 99999999999"]);
}

#[test]
fn an_ordinary_user_needs_sandbox_none() {
    if !is_root() {
        eprintln!("skipped: needs root to become another user");
        return;
    }
    let (temp, vol) = volume();
    fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let start = |sandbox: &[&str]| {
        let mut command = daemon();
        command
            .arg("--socket-path")
            .arg(temp.path().join("s"))
            .arg("--shared-dir")
            .arg(&vol);
        command.args(sandbox).uid(NOBODY).gid(NOBODY);
        command
    };
    for sandbox in [&[][..], &["--sandbox", "chroot"]] {
        refused(&mut start(sandbox), 1, &["needs root", "--sandbox none"]);
    }
    // Another's volume.
    refused(
        &mut start(&["--sandbox", "none"]),
        1,
        &["may not be written by this user"],
    );
}

// ---- a life ----------------------------------------------------------------------------

#[test]
fn a_signal_ends_it_in_order() {
    let (temp, vol) = volume();
    let socket = temp.path().join("s");
    for signal in [Signal::TERM, Signal::INT] {
        let running = Running::serving(&vol, &socket);
        let mode = socket.symlink_metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "only its user may connect");
        kill_process(running.pid(), signal).unwrap();
        let (code, log) = running.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("all queues are stopped"), "{log}");
        let left: Vec<_> = fs::read_dir(temp.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "socket and lock are removed: {left:?}");
    }
}

#[test]
fn it_ends_with_its_vmm() {
    let (temp, vol) = volume();
    let socket = temp.path().join("s");
    let running = Running::serving(&vol, &socket);
    drop(UnixStream::connect(&socket).unwrap());
    let (code, log) = running.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!socket.exists());
}

#[test]
fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
    let (temp, vol) = volume();
    let socket = temp.path().join("s");
    let first = Running::serving(&vol, &socket);
    let inode = socket.symlink_metadata().unwrap().ino();
    let mut command = daemon();
    command
        .arg("--socket-path")
        .arg(&socket)
        .arg("--shared-dir")
        .arg(&vol);
    let pid = format!("process {}", first.child.id());
    refused(
        command.args(["--sandbox", sandbox()]),
        1,
        &["in use by another daemon", &pid],
    );
    assert_eq!(socket.symlink_metadata().unwrap().ino(), inode);
    kill_process(first.pid(), Signal::KILL).unwrap();
    first.end();
    assert!(is_socket(&socket), "a killed daemon leaves it behind");
    let second = Running::serving(&vol, &socket);
    kill_process(second.pid(), Signal::TERM).unwrap();
    assert_eq!(second.end().0, Some(0));
}

#[test]
fn a_group_may_connect() {
    let (temp, vol) = volume();
    let socket = temp.path().join("s");
    let gid = rustix::process::getegid().as_raw().to_string();
    let mut command = daemon();
    command
        .arg("--socket-path")
        .arg(&socket)
        .arg("--shared-dir")
        .arg(&vol);
    let mut running =
        Running::start(command.args(["--sandbox", sandbox(), "--socket-group", &gid]));
    running.wait_for_log("waiting for a VMM");
    let found = socket.symlink_metadata().unwrap();
    assert_eq!(found.gid().to_string(), gid);
    assert_eq!(found.permissions().mode() & 0o077, 0o070);
}

/// libvirt 9.0's words, with the listening socket and its pidfile passed on.
#[test]
fn libvirt_9_starts_it() {
    let (temp, vol) = volume();
    let (at, socket) = listener();
    let pidfile = fs::File::create(temp.path().join("pidfile")).unwrap();
    let mut command = daemon();
    let source = format!(
        "source={},cache=none,sandbox={},xattr",
        vol.display(),
        sandbox()
    );
    command.args(["--fd=30", "-o", &source, "--thread-pool-size=4"]);
    pass(&mut command, vec![(socket, 30), (pidfile.into(), 31)]);
    let mut running = Running::start(&mut command);
    let log = running.wait_for_log("waiting for a VMM");
    assert!(log.contains("--thread-pool-size has no effect"), "{log}");
    drop(UnixStream::connect(at.path().join("listening")).unwrap());
    let (code, log) = running.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(
        is_socket(&at.path().join("listening")),
        "it is not ours to remove"
    );
}

#[test]
fn empty_memfds_become_records_and_log() {
    let (_temp, vol) = volume();
    let (_at, socket) = listener();
    let memfd = |name: &str| {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        rustix::fs::memfd_create(name, flags).unwrap()
    };
    let (state, inflight) = (memfd("state"), memfd("inflight"));
    for _life in 0..2 {
        let mut command = daemon();
        command.args(["--fd=30", "--state-fd=31", "--inflight-fd=32"]);
        command
            .arg("--shared-dir")
            .arg(&vol)
            .args(["--sandbox", sandbox()]);
        let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
        let fds = vec![
            (copy(&socket), 30),
            (copy(&state), 31),
            (copy(&inflight), 32),
        ];
        pass(&mut command, fds);
        let mut running = Running::start(&mut command);
        running.wait_for_log("waiting for a VMM");
        kill_process(running.pid(), Signal::TERM).unwrap();
        let (code, log) = running.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("records are complete"), "{log}");
    }
    for fd in [state.as_fd(), inflight.as_fd()] {
        assert!(rustix::fs::fstat(fd).unwrap().st_size > 0);
    }
}

// ---- the sandbox -----------------------------------------------------------------------

#[test]
fn the_namespace_sandbox_leaves_no_path() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let (temp, vol) = volume();
    let running = Running::serving(&vol, &temp.path().join("s"));
    let root = fs::read_dir(running.proc("root/")).unwrap();
    assert_eq!(root.count(), 0, "the root is empty");
    assert!(
        fs::write(running.proc("root/file"), "").is_err(),
        "and read-only"
    );
    for name in ["mnt", "net", "ipc"] {
        let of = |path: PathBuf| fs::read_link(path).unwrap();
        let own = of(running.proc(&format!("ns/{name}")));
        assert_ne!(own, of(format!("/proc/self/ns/{name}").into()), "{name}");
    }
    let status = fs::read_to_string(running.proc("status")).unwrap();
    for line in [
        "CapPrm:\t00000000880000df",
        "CapEff:\t00000000880000df",
        "CapBnd:\t00000000880000df",
        "CapInh:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line:?} is not in {status}");
    }
    // From no directory that it holds does ".." lead out, but for its own in /proc. The
    // metadata's directories lie in one mount.
    for entry in fs::read_dir(running.proc("fd")).unwrap().flatten() {
        let fd = entry.path();
        let is_dir = fd.metadata().is_ok_and(|found| found.is_dir());
        if is_dir && !fs::read_link(&fd).unwrap().ends_with("fd") {
            let inode = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
            let (own, up) = (inode(&fd).unwrap(), inode(&fd.join("..")).unwrap());
            let meta = inode(&vol.join("meta")).unwrap();
            assert!(up == own || up == meta, "{fd:?}");
        }
    }
}

#[test]
fn the_chroot_sandbox_has_the_volume_as_root() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let (temp, vol) = volume();
    let socket = temp.path().join("s");
    let mut command = daemon();
    command
        .arg("--socket-path")
        .arg(&socket)
        .arg("--shared-dir")
        .arg(&vol);
    let mut running = Running::start(command.args(["--sandbox", "chroot"]));
    running.wait_for_log("waiting for a VMM");
    assert_eq!(fs::read_link(running.proc("root")).unwrap(), vol);
    let status = fs::read_to_string(running.proc("status")).unwrap();
    assert!(status.contains("CapEff:\t00000000880000df"), "{status}");
}
