//! What a test of the ring driver stands on: a volume, daemons that serve it, sessions with them.
//!
//! Everything here panics where it cannot do what it is for: in a test, that is the failure.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{chown, lchown, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use rustix::fs::MemfdFlags;
use tempfile::TempDir;

use crate::binaries;
use crate::ring::device;
use crate::ring::fuse::{Client, Session, SessionConfig};
use crate::ring::process::{Daemon, DaemonCommand, DEFAULT_TIMEOUT};

/// Bytes on one target before the next one's turn, in [`Volume::striped`].
pub const STRIPE_UNIT: usize = 64 << 10;
/// Targets of [`Volume::striped`].
pub const TARGETS: usize = 4;
/// Bytes at the start of a file that stay with its metadata, in [`Volume::striped`].
pub const MDT_SIZE: usize = 64 << 10;

/// Who owns a [`Volume::mapped`] and runs its daemons, where the tests are run by root: an ordinary
/// user.
pub const ORDINARY_USER: u32 = 65534;

/// Numbers under which a daemon inherits its [`Heritage`].
const STATE_FD: i32 = 100;
const INFLIGHT_FD: i32 = 101;

/// A volume in a folder of its own, which goes with it.
#[derive(Debug)]
pub struct Volume {
    dir: TempDir,
    path: PathBuf,
    /// 0 where it is not striped.
    targets: usize,
    mapped: bool,
    daemons: Cell<u32>,
}

impl Volume {
    /// A striped volume on [`TARGETS`] targets.
    pub fn striped() -> Volume {
        Volume::striped_as(TARGETS, STRIPE_UNIT, MDT_SIZE)
    }

    /// A striped volume of another shape.
    pub fn striped_as(targets: usize, stripe_unit: usize, mdt_size: usize) -> Volume {
        let volume = Volume::in_new_folder(targets, false);
        volume.create(&striped_options(targets, stripe_unit, mdt_size));
        volume
    }

    /// A striped volume, made with more options of `pfsctl volume create`.
    pub fn striped_with(options: &[&str]) -> Volume {
        let volume = Volume::in_new_folder(TARGETS, false);
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let shape = striped_options(TARGETS, STRIPE_UNIT, MDT_SIZE);
        volume.create(&[&shape[..], &options].concat());
        volume
    }

    /// A striped volume of mapped ownership, made and served by an [ordinary
    /// user](ORDINARY_USER).
    pub fn mapped() -> Volume {
        let volume = Volume::in_new_folder(TARGETS, true);
        let options = striped_options(TARGETS, STRIPE_UNIT, MDT_SIZE);
        volume.create(&[&options[..], &mapped()].concat());
        volume
    }

    /// As [`mapped`](Self::mapped), of a directory.
    pub fn mapped_posix() -> Volume {
        let volume = Volume::in_new_folder(0, true);
        let posix = ["--engine", "posix"].map(str::to_owned);
        volume.create(&[posix, mapped()].concat());
        volume
    }

    /// A plain directory.
    pub fn posix() -> Volume {
        let volume = Volume::in_new_folder(0, false);
        fs::create_dir(&volume.path).expect("a folder in a new one");
        volume
    }

    fn create(&self, options: &[String]) {
        let mut command = Command::new(binaries::pfsctl().expect("pfsctl's binary"));
        command.args(["volume", "create"]).arg(&self.path);
        if self.runs_as_ordinary_user() {
            command.uid(ORDINARY_USER).gid(ORDINARY_USER);
        }
        succeed(command.args(options));
    }

    fn in_new_folder(targets: usize, mapped: bool) -> Volume {
        let dir = tempfile::Builder::new().prefix("pfs-ring-").tempdir();
        let dir = dir.expect("a temporary folder");
        let volume = Volume {
            path: dir.path().join("volume"),
            dir,
            targets,
            mapped,
            daemons: Cell::new(0),
        };
        if volume.runs_as_ordinary_user() {
            let user = Some(ORDINARY_USER);
            chown(volume.dir.path(), user, user).expect("a folder given away");
        }
        volume
    }

    fn runs_as_ordinary_user(&self) -> bool {
        self.mapped && rustix::process::geteuid().is_root()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the host has the inode of `path`, which is relative to the root.
    pub fn host_path(&self, path: &str) -> PathBuf {
        match (self.is_striped(), self.mapped) {
            (true, _) => self.path.join("meta/namespace").join(path),
            (false, true) => self.path.join("data").join(path),
            (false, false) => self.path.join(path),
        }
    }

    /// Gives `path` on the host, and all below, to the user who serves the volume.
    pub fn give(&self, path: &Path) {
        if !self.runs_as_ordinary_user() {
            return;
        }
        lchown(path, Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("a file given away");
        if path.is_dir() && !path.is_symlink() {
            for entry in fs::read_dir(path).expect("a directory") {
                self.give(&entry.expect("a directory entry").path());
            }
        }
    }

    /// Whether owners and modes are in hidden attributes.
    pub fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// Whether it has targets.
    pub fn is_striped(&self) -> bool {
        self.targets > 0
    }

    /// A daemon for this volume that is not started yet, with xattrs and without caching.
    pub fn daemon(&self) -> DaemonCommand {
        self.daemon_with(&["--xattr", "--cache", "never"])
    }

    /// A daemon for this volume with other options.
    pub fn daemon_with(&self, options: &[&str]) -> DaemonCommand {
        let number = self.daemons.get();
        self.daemons.set(number + 1);
        let socket = self.dir.path().join(format!("daemon-{number}.sock"));
        let args: [OsString; 6] = [
            "--socket-path".into(),
            socket.clone().into(),
            "--shared-dir".into(),
            self.path.clone().into(),
            "--sandbox".into(),
            "none".into(),
        ];
        let program = binaries::pfs_virtiofsd().expect("the daemon's binary");
        let daemon = DaemonCommand::new(program, socket).args(args).args(options);
        match self.runs_as_ordinary_user() {
            true => daemon.user(ORDINARY_USER, ORDINARY_USER),
            false => daemon,
        }
    }

    /// A daemon and a session with it.
    pub fn mount(&self) -> Mount {
        self.mount_with(&SessionConfig::default())
    }

    /// A daemon and a session of another shape with it.
    pub fn mount_with(&self, config: &SessionConfig) -> Mount {
        Mount::start(self.daemon(), config)
    }

    /// The bytes of a file as the host reads them: through `pfsctl get`.
    pub fn get(&self, path: &str) -> Vec<u8> {
        let volume = self.path.to_str().expect("temporary folders are UTF-8");
        pfsctl(&["get", volume, path]).stdout
    }

    /// Runs `pfsctl volume check`: its exit code, and what it said.
    pub fn check(&self, options: &[&str]) -> (i32, String) {
        let program = binaries::pfsctl().expect("pfsctl's binary");
        let command = &mut Command::new(program);
        let command = command.args(["volume", "check"]).arg(&self.path);
        let output = command.args(options).output().expect("pfsctl");
        let said = [output.stdout, output.stderr].concat();
        let code = output.status.code().expect("an exit code");
        (code, String::from_utf8_lossy(&said).into_owned())
    }

    /// Every object, target by target.
    pub fn objects(&self) -> Vec<Vec<Object>> {
        assert!(self.is_striped(), "a plain directory has no objects");
        let target = |index: usize| self.path.join(format!("targets/{index}/objects"));
        (0..self.targets)
            .map(|index| objects_in(&target(index)))
            .collect()
    }
}

/// A file on a target.
#[derive(Debug, Clone, Copy)]
pub struct Object {
    /// Its length, with holes.
    pub len: u64,
    /// Bytes that it takes, in whole blocks.
    pub allocated: u64,
}

fn objects_in(folder: &Path) -> Vec<Object> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.expect("a directory entry");
        match entry.metadata().expect("its attributes") {
            meta if meta.is_dir() => found.extend(objects_in(&entry.path())),
            meta => found.push(Object {
                len: meta.len(),
                allocated: meta.blocks() * 512,
            }),
        }
    }
    found
}

/// Runs `pfsctl`, which must succeed.
pub fn pfsctl(args: &[&str]) -> Output {
    let program = binaries::pfsctl().expect("pfsctl's binary");
    succeed(Command::new(program).args(args))
}

/// Runs `pfsctl`.
pub fn try_pfsctl(args: &[&str]) -> Output {
    let program = binaries::pfsctl().expect("pfsctl's binary");
    Command::new(program).args(args).output().expect("pfsctl")
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("a program to run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output
}

fn striped_options(targets: usize, stripe_unit: usize, mdt_size: usize) -> [String; 6] {
    let [targets, unit, mdt] = [targets, stripe_unit, mdt_size].map(|value| value.to_string());
    let name = str::to_owned;
    [
        name("--targets"),
        targets,
        name("--stripe-unit"),
        unit,
        name("--mdt-size"),
        mdt,
    ]
}

fn mapped() -> [String; 2] {
    ["--ownership", "mapped"].map(str::to_owned)
}

/// What a daemon leaves to the next: the session's records and the log of requests in flight.
#[derive(Debug)]
pub struct Heritage {
    state: OwnedFd,
    inflight: OwnedFd,
}

impl Heritage {
    /// Nothing yet: the first daemon fills it.
    #[allow(clippy::new_without_default)] // It makes memfds.
    pub fn new() -> Heritage {
        let memfd = |name| rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).expect("a memfd");
        Heritage {
            state: memfd("state"),
            inflight: memfd("inflight"),
        }
    }

    /// Gives it to a daemon.
    pub fn pass_to(&self, daemon: DaemonCommand) -> DaemonCommand {
        let (state, inflight) = (STATE_FD.to_string(), INFLIGHT_FD.to_string());
        daemon
            .args(["--state-fd", &state, "--inflight-fd", &inflight])
            .inherit_fd(self.state.as_fd(), STATE_FD)
            .and_then(|daemon| daemon.inherit_fd(self.inflight.as_fd(), INFLIGHT_FD))
            .expect("memfds to pass on")
    }
}

/// A running daemon and a session with it.
pub struct Mount {
    // First: a session must not outlive its daemon's memory of a failing test.
    /// The session.
    pub session: Session,
    /// The daemon. Dropped, it is killed.
    pub daemon: Daemon,
}

impl Mount {
    /// Starts a daemon and connects to it.
    pub fn start(daemon: DaemonCommand, config: &SessionConfig) -> Mount {
        let mut daemon = daemon.spawn().unwrap_or_else(|e| panic!("{e}"));
        let stream = daemon
            .connect()
            .expect("the connection made while starting");
        let session = Session::connect(stream, config)
            .unwrap_or_else(|e| panic!("no session: {e:?}; its log:\n{}", daemon.log()));
        Mount { session, daemon }
    }

    /// The client of the first request queue.
    pub fn fs(&mut self) -> &mut Client {
        self.session.fs()
    }

    /// Lets another daemon go on with the session and what is in flight, as a keeper does. The
    /// daemon before is dead, and left its [`Heritage`].
    pub fn resume_with(&mut self, daemon: DaemonCommand) {
        let resumed = self.try_resume_with(daemon);
        resumed.unwrap_or_else(|e| panic!("{e:?}; its log:\n{}", self.daemon.log()));
    }

    /// [`resume_with`](Self::resume_with) a daemon that may die of what is in flight.
    pub fn try_resume_with(&mut self, daemon: DaemonCommand) -> Result<(), device::Error> {
        self.daemon = daemon.spawn().unwrap_or_else(|e| panic!("{e}"));
        let stream = self.daemon.connect();
        let stream = stream.expect("the connection made while starting");
        let bases = self.session.device.used_indices();
        self.session.device.reattach(stream, &bases)
    }

    /// Descriptors that the daemon has open, once no more workers than there are queues have any:
    /// one whose queue was stopped lets go of its own a moment later.
    pub fn open_fds(&self) -> usize {
        let process = PathBuf::from(format!("/proc/{}", self.daemon.pid()));
        let workers = || -> usize {
            let tasks = fs::read_dir(process.join("task")).expect("the daemon lives");
            let name = |task: std::io::Result<fs::DirEntry>| {
                fs::read_to_string(task.ok()?.path().join("comm")).ok()
            };
            tasks
                .filter_map(name)
                .filter(|name| name.starts_with("vq-"))
                .count()
        };
        let queues = self.session.device.rings().len();
        let deadline = Instant::now() + DEFAULT_TIMEOUT;
        while workers() > queues {
            assert!(
                Instant::now() < deadline,
                "more workers than {queues} queues"
            );
            std::thread::yield_now();
        }
        let fds = fs::read_dir(process.join("fd"));
        fds.expect("the daemon lives").count()
    }

    /// Private memory that the daemon has in use, in KiB.
    pub fn anonymous_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.daemon.pid());
        let status = fs::read_to_string(path).expect("the daemon lives");
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
        number.expect("RssAnon in /proc/PID/status")
    }
}

/// Numbers that look random, and are the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Noise {
        Noise(seed)
    }

    /// A number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// Bytes, none of them 0: so that a hole is never taken for data.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend((self.number() | 0x0101_0101_0101_0101).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
