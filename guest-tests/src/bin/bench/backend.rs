//! The daemons that are compared: how each is started.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::{Duration, Instant};

use guest_tests::binaries;
use guest_tests::ring::device::DeviceConfig;
use guest_tests::ring::fuse::{self, Client, Session, SessionConfig};
use guest_tests::ring::process::{self, Daemon, DaemonCommand};
use guest_tests::simulated::{SimulatedTarget, Speed};
use guest_tests::vm::script::Values;
use tempfile::TempDir;

use crate::ceph::{CephFuse, Place};
use crate::cpu;
use crate::error::Error;

/// Requests that the client for preparations can have in flight.
const CLIENT_DEPTH: u16 = 4;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Our daemon on a striped volume with so many targets.
    Striped(u32),
    /// Our daemon on a plain directory.
    Posix,
    /// Our daemon on an engine that stores nothing.
    Null,
    /// Our daemon on a CephFS.
    Cephfs,
    /// virtiofsd on a plain directory.
    Virtiofsd,
    /// virtiofsd with so many threads on a ceph-fuse mount.
    VirtiofsdCephFuse(u32),
}

impl Kind {
    /// Whether it is what ours are compared with.
    pub fn is_peer(self) -> bool {
        matches!(self, Kind::Virtiofsd | Kind::VirtiofsdCephFuse(_))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Kind::Striped(targets) => format!("striped-{targets}"),
            Kind::Posix => "posix".to_owned(),
            Kind::Null => "null".to_owned(),
            Kind::Cephfs => "cephfs".to_owned(),
            Kind::Virtiofsd => "virtiofsd".to_owned(),
            Kind::VirtiofsdCephFuse(threads) => format!("virtiofsd-ceph-fuse-{threads}"),
        };
        f.pad(&name)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Kind, String> {
        let after = |prefix| name.strip_prefix(prefix).map(str::parse::<u32>);
        match (name, after("striped-"), after("virtiofsd-ceph-fuse-")) {
            ("posix", ..) => Ok(Kind::Posix),
            ("null", ..) => Ok(Kind::Null),
            ("cephfs", ..) => Ok(Kind::Cephfs),
            ("virtiofsd", ..) => Ok(Kind::Virtiofsd),
            (_, Some(Ok(targets @ 1..)), _) => Ok(Kind::Striped(targets)),
            (_, _, Some(Ok(threads))) => Ok(Kind::VirtiofsdCephFuse(threads)),
            _ => Err(format!(
                "no backend {name:?}: there are striped-N, posix, cephfs, null, virtiofsd, \
                 virtiofsd-ceph-fuse-N (threads)"
            )),
        }
    }
}

/// Which CPU is whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinning {
    pub driver: usize,
    pub daemon: usize,
}

impl Pinning {
    /// The first CPU for the driver, the last for the daemons; none on a machine that has one.
    pub fn pick() -> Option<Pinning> {
        let cpus = cpu::available();
        let (driver, daemon) = (*cpus.first()?, *cpus.last()?);
        (driver != daemon).then_some(Pinning { driver, daemon })
    }

    /// The first CPU for all.
    pub fn together() -> Option<Pinning> {
        let cpu = *cpu::available().first()?;
        Some(Pinning {
            driver: cpu,
            daemon: cpu,
        })
    }
}

/// What all daemons are started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where their volumes are.
    pub dir: PathBuf,
    pub pinning: Option<Pinning>,
    /// More options for our daemon.
    pub options: Vec<String>,
    /// Targets of striped volumes are no faster than this.
    pub target_speed: Option<Speed>,
    /// The device that the daemons are.
    pub device: DeviceConfig,
    /// The folder of a Ceph cluster.
    pub ceph: Option<PathBuf>,
}

impl Setup {
    /// Whether the volumes are on a file system in memory.
    pub fn is_in_memory(&self) -> Result<bool, Error> {
        /// `TMPFS_MAGIC`, `RAMFS_MAGIC` of linux/magic.h.
        const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
        let about = rustix::fs::statfs(&self.dir);
        let about = about.map_err(Error::file("look at", &self.dir))?;
        Ok(IN_MEMORY.contains(&about.f_type))
    }
}

/// A running daemon and a session with it.
pub struct Backend {
    pub kind: Kind,
    session: Session,
    daemon: Daemon,
    /// From the start of its process to the answer of INIT.
    pub started_in: Duration,
    /// Go when nobody uses them.
    _targets: Vec<SimulatedTarget>,
    /// What the daemon serves, where that is a mount.
    mount: Option<CephFuse>,
    /// Goes last.
    folder: TempDir,
}

impl Backend {
    /// Starts a daemon on a new volume.
    pub fn start(kind: Kind, setup: &Setup) -> Result<Backend, Error> {
        let folder = tempfile::Builder::new()
            .prefix("pfs-bench-")
            .tempdir_in(&setup.dir)
            .map_err(Error::file("make a folder in", &setup.dir))?;
        let volume = folder.path().join("volume");
        let mount = make_volume(kind, &volume, setup)?;
        let targets = simulate(kind, &volume, setup.target_speed)?;
        let command = command(kind, &folder.path().join("socket"), &volume, setup)?;
        let not_started = |source| Error::Start {
            backend: kind.to_string(),
            source,
        };
        let begin = Instant::now();
        let mut daemon = spawn(command, setup.pinning)?.map_err(not_started)?;
        let stream = daemon.connect().map_err(not_started)?;
        let config = SessionConfig {
            depth: CLIENT_DEPTH,
            device: setup.device.clone(),
            ..SessionConfig::default()
        };
        let session = Session::connect(stream, &config).map_err(|source| Error::Ring {
            backend: kind.to_string(),
            action: "no session",
            source,
        })?;
        Ok(Backend {
            kind,
            session,
            daemon,
            started_in: begin.elapsed(),
            _targets: targets,
            mount,
            folder,
        })
    }

    /// The client of the request queue.
    pub fn client(&mut self) -> &mut Client {
        self.session.fs()
    }

    /// The clients of all request queues.
    pub fn clients(&mut self) -> &mut [Client] {
        &mut self.session.clients
    }

    /// The client, and the folder with all that the daemon stores.
    pub fn client_and_folder(&mut self) -> (&mut Client, &Path) {
        (self.session.fs(), self.folder.path())
    }

    /// The folder in which the daemon's guest sees the files that others put there.
    pub fn namespace(&self) -> PathBuf {
        let volume = self.folder.path().join("volume");
        match self.kind {
            Kind::Striped(_) => volume.join("meta/namespace"),
            Kind::Posix | Kind::Null | Kind::Virtiofsd => volume,
            Kind::Cephfs | Kind::VirtiofsdCephFuse(_) => volume,
        }
    }

    /// An error of its ring, in the middle of `action`.
    pub fn failed(&self, action: &'static str, source: fuse::Error) -> Error {
        Error::Ring {
            backend: self.kind.to_string(),
            action,
            source,
        }
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// CPU time in nanoseconds of all that serves the guest on its host.
    pub fn cpu_ns(&self) -> Result<u64, Error> {
        let mount = self
            .mount
            .as_ref()
            .map(|mount| cpu::process_ns(mount.pid()));
        Ok(cpu::process_ns(self.pid())? + mount.transpose()?.unwrap_or(0))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // A client that does not say that it goes is waited for by all others.
        if self.kind == Kind::Cephfs {
            self.session.device.disconnect();
            let _ = self.daemon.wait();
        }
    }
}

/// Starts the daemon on its CPU; this thread is on the driver's after it.
fn spawn(
    command: DaemonCommand,
    pinning: Option<Pinning>,
) -> Result<Result<Daemon, process::Error>, Error> {
    let Some(pinning) = pinning else {
        return Ok(command.spawn());
    };
    // A process inherits where its parent may run.
    cpu::pin(pinning.daemon)?;
    let daemon = command.spawn();
    cpu::pin(pinning.driver)?;
    Ok(daemon)
}

/// Makes what the daemon serves; answers the mount that it is, if it is one.
fn make_volume(kind: Kind, volume: &Path, setup: &Setup) -> Result<Option<CephFuse>, Error> {
    let place = || {
        let name = volume
            .parent()
            .and_then(Path::file_name)
            .unwrap_or_default();
        let cluster = setup.ceph.as_deref().ok_or(Error::NoCluster)?;
        let place = Place::new(cluster, &name.to_string_lossy())?;
        place.save(volume.parent().unwrap_or(volume))?;
        Ok::<_, Error>(place)
    };
    let options = match kind {
        Kind::Posix | Kind::Virtiofsd | Kind::VirtiofsdCephFuse(_) => {
            fs::create_dir(volume).map_err(Error::file("make", volume))?;
            return match kind {
                Kind::VirtiofsdCephFuse(_) => CephFuse::mount(&place()?, volume).map(Some),
                _ => Ok(None),
            };
        }
        Kind::Null => ["--engine", "null"].map(str::to_owned).to_vec(),
        Kind::Striped(count) => vec!["--targets".to_owned(), count.to_string()],
        Kind::Cephfs => place()?.volume_options(),
    };
    let pfsctl = binaries::pfsctl()?;
    let mut command = Command::new(&pfsctl);
    command.args(["volume", "create"]).arg(volume).args(options);
    let output = command.output().map_err(Error::file("run", &pfsctl))?;
    match output.status.success() {
        true => Ok(None),
        false => Err(Error::Volume(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
    }
}

/// Gives each target of a striped volume its speed, if there is one to be given.
fn simulate(
    kind: Kind,
    volume: &Path,
    speed: Option<Speed>,
) -> Result<Vec<SimulatedTarget>, Error> {
    let (Kind::Striped(count), Some(speed)) = (kind, speed) else {
        return Ok(Vec::new());
    };
    let mount = |index| {
        let dir = volume.join(format!("targets/{index}"));
        SimulatedTarget::mount(&dir, speed).map_err(Error::file("simulate a target on", &dir))
    };
    (0..count).map(mount).collect()
}

fn command(
    kind: Kind,
    socket: &Path,
    volume: &Path,
    setup: &Setup,
) -> Result<DaemonCommand, Error> {
    let (program, options) = match kind {
        Kind::Virtiofsd => (virtiofsd()?, virtiofsd_options(0)),
        Kind::VirtiofsdCephFuse(threads) => {
            let direct = ["--allow-direct-io".to_owned()];
            (
                virtiofsd()?,
                [virtiofsd_options(threads), direct.into()].concat(),
            )
        }
        _ => (binaries::pfs_virtiofsd()?, setup.options.clone()),
    };
    Ok(DaemonCommand::new(program, socket)
        .args(["--socket-path".as_ref(), socket.as_os_str()])
        .args(["--shared-dir".as_ref(), volume.as_os_str()])
        .args(options))
}

/// Its fastest: without threads, requests are served where they are taken from the ring; inodes are
/// kept open. A sandbox would only add a process.
fn virtiofsd_options(threads: u32) -> Vec<String> {
    vec![
        format!("--thread-pool-size={threads}"),
        "--inode-file-handles=never".to_owned(),
        "--sandbox=none".to_owned(),
    ]
}

/// `$VIRTIOFSD`, else the one that `guest-tests/virtiofsd.sh` builds.
fn virtiofsd() -> Result<PathBuf, Error> {
    if std::env::var_os("VIRTIOFSD").is_some() {
        return binaries::virtiofsd().ok_or(Error::PeerPath);
    }
    let values = Values::from_script("guest-tests/virtiofsd.sh", &[])?;
    Ok(values.get("VIRTIOFSD")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let ceph = [Kind::Cephfs, Kind::VirtiofsdCephFuse(16)];
        let local = [Kind::Striped(16), Kind::Posix, Kind::Null, Kind::Virtiofsd];
        for kind in local.into_iter().chain(ceph) {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for name in ["", "striped", "striped-0", "striped-x", "nfs"] {
            assert!(name.parse::<Kind>().is_err(), "{name}");
        }
    }
}
