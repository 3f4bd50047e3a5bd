//! A daemon under test as a child process.
//!
//! [`DaemonCommand`] starts any vhost-user daemon binary; [`Daemon`] is the running one. Its
//! stderr goes to a file that a failing test can show. When the `Daemon` is dropped, and when
//! the thread that started it ends, the process is killed with all of its process group.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// How long a daemon may take to listen, or to exit, by default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Fds meant for a child are parked from here on, above any number a test asks for.
const PARKED_FD_MIN: RawFd = 512;

const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What can go wrong with a daemon process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stderr file could not be made.
    #[error("cannot create the log file {path}", path = .path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The binary could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The binary.
        program: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It ended before it listened.
    #[error("the daemon ended before it listened: {status}; its log:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// Its stderr.
        log: String,
    },
    /// It did not accept a connection in time.
    #[error("nothing accepts on {socket} after {elapsed_ms} ms; its log:\n{log}", socket = .socket.display())]
    NotListening {
        /// The socket's path.
        socket: PathBuf,
        /// Time waited.
        elapsed_ms: u128,
        /// Its stderr.
        log: String,
        /// The last try's error.
        #[source]
        source: io::Error,
    },
    /// It did not end in time.
    #[error("the daemon still runs after {elapsed_ms} ms; its log:\n{log}")]
    StillRuns {
        /// Time waited.
        elapsed_ms: u128,
        /// Its stderr.
        log: String,
    },
    /// A signal or wait failed.
    #[error("cannot {action} process {pid}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// On which process.
        pid: u32,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// What to start, in the manner of [`std::process::Command`].
#[derive(Debug)]
pub struct DaemonCommand {
    command: Command,
    socket: PathBuf,
    log: Option<PathBuf>,
    fds: Vec<(OwnedFd, RawFd)>,
    timeout: Duration,
}

impl DaemonCommand {
    /// `program` will listen on `socket`; its arguments must say so too.
    pub fn new(program: impl AsRef<OsStr>, socket: impl Into<PathBuf>) -> Self {
        DaemonCommand {
            command: Command::new(program),
            socket: socket.into(),
            log: None,
            fds: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets one variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it as another user.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.command.uid(uid).gid(gid);
        self
    }

    /// Gives it `fd` under the number `number` (3 to 511).
    pub fn inherit_fd(mut self, fd: BorrowedFd<'_>, number: RawFd) -> io::Result<Self> {
        assert!((3..PARKED_FD_MIN).contains(&number), "fd number {number}");
        let parked = rustix::io::fcntl_dupfd_cloexec(fd, PARKED_FD_MIN)?;
        self.fds.push((parked, number));
        Ok(self)
    }

    /// Where its stderr goes; by default the socket's path with `.log` added. Appended to, so
    /// the next daemon on a socket does not wipe the log of the one before.
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// How long it may take to listen.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts it and waits until its socket accepts. That connection is kept for
    /// [`Daemon::connect`]: some daemons serve exactly one.
    pub fn spawn(self) -> Result<Daemon, Error> {
        let timeout = self.timeout;
        let mut daemon = self.spawn_without_waiting()?;
        daemon.first_connection = Some(daemon.connect_new(timeout)?);
        Ok(daemon)
    }

    /// Starts it and returns at once: for daemons that are expected to fail.
    pub fn spawn_without_waiting(mut self) -> Result<Daemon, Error> {
        let log = self.log.take().unwrap_or_else(|| {
            let mut path = OsString::from(&self.socket);
            path.push(".log");
            path.into()
        });
        let stderr = File::options().create(true).append(true).open(&log);
        let stderr = stderr.map_err(|source| Error::Log {
            path: log.clone(),
            source,
        })?;
        self.command
            .stdin(Stdio::null())
            .stderr(stderr)
            .process_group(0);
        let parent = rustix::process::getpid();
        let fds: Vec<(RawFd, RawFd)> = self
            .fds
            .iter()
            .map(|(fd, number)| (fd.as_raw_fd(), *number))
            .collect();
        // SAFETY: the closure makes only async-signal-safe system calls on memory that was
        // allocated before the fork.
        unsafe {
            self.command.pre_exec(move || prepare_child(parent, &fds));
        }
        let child = self.command.spawn().map_err(|source| Error::Spawn {
            program: self.command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        Ok(Daemon {
            child,
            socket: self.socket,
            log,
            first_connection: None,
            timeout: self.timeout,
        })
    }
}

/// Runs in the child between fork and exec: nothing here may allocate or lock.
fn prepare_child(parent: Pid, fds: &[(RawFd, RawFd)]) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() != Some(parent) {
        // The parent died before the line above took effect.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    for &(fd, number) in fds {
        // SAFETY: dup2 takes no memory; it clears close-on-exec on `number`, and the sources
        // are parked above every number, so none is overwritten.
        if unsafe { libc::dup2(fd, number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A running (or ended) daemon. Dropped, it is killed with its process group.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    first_connection: Option<UnixStream>,
    timeout: Duration,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |e| format!("(cannot read {}: {e})", self.log.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// A connection to it: the one made while starting, then new ones.
    pub fn connect(&mut self) -> Result<UnixStream, Error> {
        match self.first_connection.take() {
            Some(stream) => Ok(stream),
            None => self.connect_new(self.timeout),
        }
    }

    fn connect_new(&mut self, timeout: Duration) -> Result<UnixStream, Error> {
        let start = Instant::now();
        loop {
            let source = match UnixStream::connect(&self.socket) {
                Ok(stream) => return Ok(stream),
                Err(e) => e,
            };
            if let Some(status) = self.try_wait()? {
                let log = self.log();
                return Err(Error::Ended { status, log });
            }
            if start.elapsed() >= timeout {
                return Err(Error::NotListening {
                    socket: self.socket.clone(),
                    elapsed_ms: start.elapsed().as_millis(),
                    log: self.log(),
                    source,
                });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        // The child is not reaped before drop: the id cannot belong to another process.
        rustix::process::kill_process(self.rustix_pid(), signal)
            .map_err(|e| self.failed("signal", e))
    }

    /// SIGSTOP, then waits until all of its threads stand still.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.signal(Signal::STOP)?;
        let start = Instant::now();
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        while start.elapsed() < self.timeout {
            let stopped = rustix::process::waitid(WaitId::Pid(self.rustix_pid()), options)
                .map_err(|e| self.failed("wait for", e))?;
            if stopped.is_some() {
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Err(Error::StillRuns {
            elapsed_ms: start.elapsed().as_millis(),
            log: self.log(),
        })
    }

    /// SIGCONT: ends a [`pause`](Self::pause).
    pub fn resume(&mut self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, then waits for its death. Its children are left to its own care until drop.
    pub fn kill(&mut self) -> Result<ExitStatus, Error> {
        self.signal(Signal::KILL)?;
        self.wait()
    }

    /// SIGTERM, then waits for its end.
    pub fn terminate(&mut self) -> Result<ExitStatus, Error> {
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// Waits for its end, no longer than the timeout of its command.
    pub fn wait(&mut self) -> Result<ExitStatus, Error> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() >= self.timeout {
                return Err(Error::StillRuns {
                    elapsed_ms: start.elapsed().as_millis(),
                    log: self.log(),
                });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        // NOWAIT leaves the zombie: its id, which is also its group's, stays reserved for drop.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let status = rustix::process::waitid(WaitId::Pid(self.rustix_pid()), options)
            .map_err(|e| self.failed("wait for", e))?;
        Ok(status.and_then(|status| {
            let raw = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => (code & 0xff) << 8,
                (None, Some(signal)) => signal,
                (None, None) => return None,
            };
            Some(ExitStatus::from_raw(raw))
        }))
    }

    fn rustix_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn failed(&self, action: &'static str, errno: rustix::io::Errno) -> Error {
        Error::Process {
            action,
            pid: self.pid(),
            source: errno.into(),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(self.rustix_pid(), Signal::KILL);
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {} ---\n{}---", self.log.display(), self.log());
        }
    }
}
