//! A volume for one test, the daemons that serve it, and the host's way to its files.
//!
//! `PFS_TEST_VOLUME=plain` makes plain directories instead of striped volumes, so that the
//! same tests also run on another virtiofs daemon (named by `PFS_VIRTIOFSD`).

use crate::binaries;
use crate::fixture::ORDINARY_USER;
use crate::ring::process::{self, Daemon, DaemonCommand};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Set in the flags column of /proc/net/unix for a socket that listens.
const SO_ACCEPTCON: u64 = 0x1_0000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Binary(#[from] binaries::Error),
    #[error("the daemon of the volume")]
    Daemon(#[from] process::Error),
    #[error("nothing listens on {socket} after {timeout_ms} ms; the daemon says:\n{log}")]
    NotListening {
        socket: PathBuf,
        timeout_ms: u128,
        log: String,
    },
    #[error("cannot {what} {path}")]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`pfsctl {args}` failed ({status}): {stderr}")]
    Pfsctl {
        args: String,
        status: std::process::ExitStatus,
        stderr: String,
    },
    #[error("`pfsctl volume show --json` gives no {0}")]
    Show(&'static str),
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path, source }
}

/// What serves a volume's files, and how; each has every test suite to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Four targets and small stripes, so that nearly every file crosses some.
    Striped,
    /// As [`Striped`](Self::Striped), with mapped ownership; where the tests are run by root, made and
    /// served by an ordinary user.
    Mapped,
    /// A plain directory; also what another virtiofs daemon (`PFS_VIRTIOFSD`) can serve.
    Posix,
}

/// A fresh volume in a folder of its own, removed when dropped.
#[derive(Debug)]
pub struct Volume {
    dir: tempfile::TempDir,
    path: PathBuf,
    striped: bool,
    /// Who is to serve it; nobody else than runs the tests where there is none.
    user: Option<u32>,
    daemons_started: Cell<u32>,
}

impl Volume {
    /// Makes a volume for an engine, whatever the environment says.
    pub fn of(engine: Engine) -> Result<Self, Error> {
        match engine {
            Engine::Striped => Self::striped(4, "64K"),
            Engine::Mapped => Self::mapped(4, "64K"),
            Engine::Posix => Self::plain(),
        }
    }

    /// Makes a striped volume on this many targets, or what `PFS_TEST_VOLUME` says;
    /// `stripe_unit` as pfsctl takes it ("64K").
    pub fn create(targets: u32, stripe_unit: &str) -> Result<Self, Error> {
        match std::env::var("PFS_TEST_VOLUME").as_deref() {
            Ok("plain") => Self::plain(),
            _ => Self::striped(targets, stripe_unit),
        }
    }

    fn striped(targets: u32, stripe_unit: &str) -> Result<Self, Error> {
        let volume = Self::in_new_folder(true)?;
        volume.make_striped(targets, stripe_unit, &[])?;
        Ok(volume)
    }

    fn mapped(targets: u32, stripe_unit: &str) -> Result<Self, Error> {
        let mut volume = Self::in_new_folder(true)?;
        if rustix::process::geteuid().is_root() {
            let user = Some(ORDINARY_USER);
            let given = std::os::unix::fs::chown(volume.dir.path(), user, user);
            given.map_err(io_error("give away", volume.dir.path()))?;
            volume.user = user;
        }
        volume.make_striped(targets, stripe_unit, &["--ownership", "mapped"])?;
        Ok(volume)
    }

    fn make_striped(&self, targets: u32, stripe_unit: &str, more: &[&str]) -> Result<(), Error> {
        let (path, targets) = (self.path.display().to_string(), targets.to_string());
        let args = ["volume", "create", &path, "--targets", &targets];
        let args = [&args[..], &["--stripe-unit", stripe_unit], more].concat();
        pfsctl_as(self.user, &args, Stdio::null()).map(drop)
    }

    fn plain() -> Result<Self, Error> {
        let volume = Self::in_new_folder(false)?;
        fs::create_dir(&volume.path).map_err(io_error("make", &volume.path))?;
        Ok(volume)
    }

    /// A folder of the host's, as a plain directory; it is not removed.
    pub fn of_folder(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            ..Self::in_new_folder(false)?
        })
    }

    fn in_new_folder(striped: bool) -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix("pfs-volume-")
            .tempdir()
            .map_err(io_error("make a folder in", &std::env::temp_dir()))?;
        Ok(Self {
            path: dir.path().join("volume"),
            dir,
            striped,
            user: None,
            daemons_started: Cell::new(0),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// False for a plain directory, which has no targets to look at.
    pub fn is_striped(&self) -> bool {
        self.striped
    }

    /// Starts a daemon for one guest; a volume can have several at once.
    pub fn serve(&self, tag: &str) -> Result<Served, Error> {
        self.serve_with(tag, &[])
    }

    /// As [`serve`](Self::serve), with more options for the daemon. `PFS_TEST_DAEMON_ARGS`,
    /// split at spaces, comes before them.
    pub fn serve_with(&self, tag: &str, args: &[&str]) -> Result<Served, Error> {
        let number = self.daemons_started.get();
        self.daemons_started.set(number + 1);
        let socket = self.dir.path().join(format!("daemon-{number}.sock"));
        let from_env = std::env::var("PFS_TEST_DAEMON_ARGS").unwrap_or_default();
        let mut command = DaemonCommand::new(binaries::pfs_virtiofsd()?, &socket);
        if let Some(user) = self.user {
            // An ordinary user can make no other.
            command = command.user(user, user).args(["--sandbox", "none"]);
        }
        let daemon = command
            .args([Path::new("--socket-path"), &socket])
            .args([Path::new("--shared-dir"), &self.path])
            .args(["--tag", tag])
            .args(from_env.split_whitespace())
            .args(args)
            // A connection made to find out whether it listens would be the one it serves.
            .spawn_without_waiting()?;
        let mut served = Served { daemon };
        served.wait_until_listening()?;
        Ok(served)
    }

    /// The SHA-256 of a file as the host reads it, through `pfsctl get`.
    pub fn sha256(&self, path: &str) -> Result<String, Error> {
        let local = self.get(path)?;
        let file = File::open(&local).map_err(io_error("open", &local))?;
        sha256_of(file).map_err(io_error("read", &local))
    }

    /// A file's bytes as the host reads them, through `pfsctl get`.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let local = self.get(path)?;
        fs::read(&local).map_err(io_error("read", &local))
    }

    /// Makes a local copy; a plain directory's file is local already.
    fn get(&self, path: &str) -> Result<PathBuf, Error> {
        if !self.striped {
            return Ok(self.local(path));
        }
        let local = self.dir.path().join("got");
        let to = local.display().to_string();
        // pfsctl must not care what an earlier call left there.
        let _ = fs::remove_file(&local);
        pfsctl(&["get", &self.volume_arg(), path, &to], Stdio::null())?;
        Ok(local)
    }

    /// Writes a file from the host, through `pfsctl put`.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let local = match self.striped {
            true => self.dir.path().join("put"),
            false => self.local(path),
        };
        File::create(&local)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(io_error("write", &local))?;
        if self.striped {
            let from = local.display().to_string();
            pfsctl(&["put", &self.volume_arg(), path, &from], Stdio::null())?;
        }
        Ok(())
    }

    /// Removes a file from the host, through `pfsctl rm`.
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        if self.striped {
            return pfsctl(&["rm", &self.volume_arg(), path], Stdio::null()).map(drop);
        }
        let local = self.local(path);
        fs::remove_file(&local).map_err(io_error("remove", &local))
    }

    /// Bytes stored on each target, as `pfsctl volume show --json` counts them.
    pub fn target_bytes(&self) -> Result<Vec<u64>, Error> {
        let args = ["volume", "show", &self.volume_arg(), "--json"];
        let text = pfsctl(&args, Stdio::null())?;
        let shown: serde_json::Value =
            serde_json::from_slice(&text).map_err(|_| Error::Show("JSON"))?;
        let targets = shown["targets"].as_array().ok_or(Error::Show("targets"))?;
        targets
            .iter()
            .map(|target| target["bytes"].as_u64().ok_or(Error::Show("bytes")))
            .collect()
    }

    /// Lengths of all objects on each target, summed. Storage differs from it by holes, and by
    /// what the host's file system needs to find the data.
    pub fn object_lengths(&self) -> Result<Vec<u64>, Error> {
        let targets = self.path.join("targets");
        let mut names = list(&targets)?;
        names.sort();
        let length = |target: PathBuf| {
            let mut sum = 0;
            for folder in list(&target.join("objects"))? {
                for object in list(&folder)? {
                    sum += fs::metadata(&object)
                        .map_err(io_error("look at", &object))?
                        .len();
                }
            }
            Ok(sum)
        };
        names.into_iter().map(length).collect()
    }

    fn volume_arg(&self) -> String {
        self.path.display().to_string()
    }

    fn local(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = || io_error("list", folder);
    fs::read_dir(folder)
        .map_err(failed())?
        .map(|entry| Ok(entry.map_err(failed())?.path()))
        .collect()
}

/// A running daemon of a volume; killed when dropped, and its log printed by a failing test.
#[derive(Debug)]
pub struct Served {
    daemon: Daemon,
}

impl Served {
    pub fn socket(&self) -> &Path {
        self.daemon.socket()
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// SIGKILL, as a crash would end it; waits for its end.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.daemon.signal(Signal::KILL)?;
        self.wait().map(drop)
    }

    /// Waits for its end, bounded: a daemon ends by itself when its guest does.
    pub fn wait(&mut self) -> Result<std::process::ExitStatus, Error> {
        Ok(self.daemon.wait()?)
    }

    fn wait_until_listening(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        while !is_listening(self.socket()) {
            if self.daemon.try_wait()?.is_some() || Instant::now() >= deadline {
                return Err(Error::NotListening {
                    socket: self.socket().to_owned(),
                    timeout_ms: LISTEN_TIMEOUT.as_millis(),
                    log: self.log(),
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Whether a Unix socket listens, without connecting to it.
fn is_listening(socket: &Path) -> bool {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table.lines().any(|line| {
        // Num RefCount Protocol Flags Type St Inode Path
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let flags = fields
            .get(3)
            .and_then(|text| u64::from_str_radix(text, 16).ok());
        flags.is_some_and(|flags| flags & SO_ACCEPTCON != 0)
            && fields.get(7).is_some_and(|path| Path::new(path) == socket)
    })
}

fn pfsctl(args: &[&str], stdin: Stdio) -> Result<Vec<u8>, Error> {
    pfsctl_as(None, args, stdin)
}

fn pfsctl_as(user: Option<u32>, args: &[&str], stdin: Stdio) -> Result<Vec<u8>, Error> {
    let program = binaries::pfsctl()?;
    let mut command = Command::new(&program);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let output = command
        .args(args)
        .stdin(stdin)
        .output()
        .map_err(io_error("run", &program))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Pfsctl {
        args: args.join(" "),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The SHA-256 of all that a reader gives, in hexadecimal, as `sha256sum` prints it.
pub fn sha256_of(mut from: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
