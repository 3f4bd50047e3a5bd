//! A volume that is mounted here.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use guest_tests::binaries;
use guest_tests::fixture::{Volume, ORDINARY_USER};
use guest_tests::suites;
use guest_tests::vm::{script, tools::Tools};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};
use rustix::process::{kill_process, Pid, Signal};
use tempfile::TempDir;

/// How long anything may take.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A running bridge. Dropped, it is killed, and nothing stays mounted.
pub struct Bridge {
    child: Child,
    mountpoint: TempDir,
    log: PathBuf,
}

impl Bridge {
    /// Mounts a volume, with these arguments of the bridge and, after `--`, of the daemon. None
    /// where this cannot be done on this machine.
    pub fn mount(volume: &Volume, args: &[&str]) -> Option<Bridge> {
        let user = ORDINARY_USER.to_string();
        let mut all: Vec<&str> = Vec::new();
        if volume.is_mapped() {
            all.extend(["--user", &user]);
        }
        let split = args.iter().position(|&arg| arg == "--");
        let (own, daemons) = args.split_at(split.unwrap_or(args.len()));
        all.extend(own);
        let path = volume.path().to_str().expect("temporary folders are UTF-8");
        let daemon = binaries::pfs_virtiofsd().expect("the daemon's binary");
        let daemon = daemon.to_str().expect("a target folder in UTF-8");
        all.extend([
            "--volume",
            path,
            "--daemon",
            daemon,
            "--",
            "--sandbox",
            "none",
        ]);
        all.extend(daemons.iter().skip(1));
        Bridge::start(&all)
    }

    /// Mounts what these arguments say. None where this cannot be done on this machine.
    pub fn start(args: &[&str]) -> Option<Bridge> {
        if let Err(why) = try_mount() {
            eprintln!("SKIPPED: this process cannot mount FUSE: {why}");
            return None;
        }
        let mountpoint = tempfile::Builder::new().prefix("pfs-bridge-mnt-").tempdir();
        let mountpoint = mountpoint.expect("a temporary folder");
        let log = mountpoint.path().with_extension("log");
        let log_file = fs::File::create(&log).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_bridge"))
            .arg(mountpoint.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn();
        let mut bridge = Bridge {
            child: child.expect("the bridge's binary"),
            mountpoint,
            log,
        };
        let said = bridge.child.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).expect("a line");
        assert_eq!(line, "mounted\n", "{}", bridge.log());
        Some(bridge)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.mountpoint.path()
    }

    /// A path in the mount.
    pub fn join(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// What the bridge said on its standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process of the daemon that the bridge has started.
    pub fn daemon(&self) -> Pid {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.expect("the bridge lives");
        let child = children.split_whitespace().next().expect("a daemon");
        Pid::from_raw(child.parse().expect("a process id")).expect("a process id")
    }

    /// Sends the bridge a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the bridge lives");
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(start.elapsed() < TIMEOUT, "the bridge still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Unmounts by SIGTERM, which must go well.
    pub fn end(mut self) {
        self.signal(Signal::TERM);
        assert!(self.wait().success(), "{}", self.log());
        assert!(!self.is_mounted());
    }

    /// Whether anything is mounted there.
    pub fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc(5)");
        let place = self.path().to_str().expect("temporary folders are UTF-8");
        mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(place))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.is_mounted() {
            let _ = unmount(self.path(), UnmountFlags::DETACH);
        }
        if std::thread::panicking() {
            eprintln!("--- the bridge ---\n{}---", self.log());
        }
        let _ = fs::remove_file(&self.log);
    }
}

/// The programs of crates.io; none, with the reason printed, where they cannot be built.
pub fn tools() -> Option<Tools> {
    match Tools::prepare() {
        Ok(tools) => Some(tools),
        Err(script::Error::Unavailable { reason }) => {
            suites::skip(&reason);
            None
        }
        Err(error) => panic!("tests of crates.io: {error}"),
    }
}

/// Waits until `done` says so.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < TIMEOUT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process is there, and no zombie.
pub fn is_alive(pid: Pid) -> bool {
    let mut stat = String::new();
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    match fs::File::open(path).and_then(|mut file| file.read_to_string(&mut stat)) {
        Ok(_) => !stat.contains(") Z "),
        Err(_) => false,
    }
}

/// Whether all threads of a process have taken a SIGSTOP.
pub fn is_stopped(pid: Pid) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).expect("it lives");
    let mut stats = tasks.map(|task| fs::read_to_string(task?.path().join("stat")));
    stats.all(|stat| stat.is_ok_and(|stat| stat.contains(") T ")))
}

/// Whether a thread sleeps in a system call (proc(5), `/proc/PID/syscall`).
pub fn sleeps_in(thread: Pid, call: libc::c_long) -> bool {
    let path = format!("/proc/{}/syscall", thread.as_raw_nonzero());
    let now = fs::read_to_string(path).unwrap_or_default();
    now.split(' ').next() == Some(&call.to_string())
}

/// Mounts a file system that nobody serves, and unmounts it.
fn try_mount() -> Result<(), Errno> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fuse = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        fuse.as_raw_fd()
    );
    let options = CString::new(options).expect("no NUL");
    let flags = MountFlags::empty();
    mount("probe", folder.path(), "fuse", flags, &*options)?;
    drop(fuse);
    unmount(folder.path(), UnmountFlags::DETACH)
}
