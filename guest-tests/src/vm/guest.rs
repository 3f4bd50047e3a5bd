//! A running guest.

use super::agent::{self, Agent, Output, Running};
use super::boot;
use super::image::{Image, Kernel, Root};
use super::qemu::{self, Files, Machine, Share};
use super::script;
use rustix::process::{set_parent_process_death_signal, Signal};
use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);
/// A boot takes 5 s under TCG on an idle machine; a busy one gets the rest.
const BOOT_TIMEOUT: Duration = Duration::from_secs(90);
const POWEROFF_TIMEOUT: Duration = Duration::from_secs(30);
const MOUNT_TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of the kernel log that a failing test prints.
const LOG_LINES_SHOWN: usize = 120;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no guest image")]
    Image(#[from] script::Error),
    #[error("cannot prepare the guest's folder {dir}")]
    Folder {
        dir: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot start {program}; is qemu-system-x86 installed?")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("QEMU ended before the guest was up ({status}):\n{qemu_log}")]
    QemuEnded {
        status: ExitStatus,
        qemu_log: String,
    },
    #[error("the guest did not come up within {timeout_ms} ms; its kernel log ends:\n{log_end}")]
    BootTimeout { timeout_ms: u128, log_end: String },
    #[error("the guest did not power off within {timeout_ms} ms; it was killed")]
    PoweroffTimeout { timeout_ms: u128 },
    #[error(transparent)]
    Agent(#[from] agent::Error),
}

impl Error {
    /// Why this machine cannot run such a guest, if it is that and not a failure.
    pub fn unavailable(&self) -> Option<&str> {
        match self {
            Error::Image(script::Error::Unavailable { reason }) => Some(reason),
            _ => None,
        }
    }

    /// A command of the guest that should have succeeded.
    pub fn failed(command: &str, output: Output) -> Self {
        Error::Agent(agent::Error::Failed {
            command: command.to_owned(),
            output,
        })
    }
}

/// What to boot. The defaults fit most tests: kernel 6.1, 2 vCPUs, 512 MiB, no share.
#[derive(Clone, Debug)]
pub struct GuestBuilder {
    kernel: Kernel,
    root: Root,
    machine: Machine,
}

impl GuestBuilder {
    pub fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }

    pub fn root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    pub fn vcpus(mut self, count: u32) -> Self {
        self.machine.vcpus = count;
        self
    }

    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.machine.memory_mib = memory_mib;
        self
    }

    /// Adds a virtiofs device; its daemon must be listening already.
    pub fn share(mut self, share: Share) -> Self {
        self.machine.shares.push(share);
        self
    }

    /// Boots and waits until commands can be run.
    ///
    /// QEMU dies with the thread that calls this, so call it from one that lives as long as
    /// the guest is needed: that a killed test leaves no QEMU behind rests on it.
    pub fn boot(self) -> Result<Guest, Error> {
        let image = Image::prepare(self.kernel, self.root)?;
        let dir = tempfile::Builder::new()
            .prefix("pfs-guest-")
            .tempdir()
            .map_err(|source| folder_error(&std::env::temp_dir(), source))?;
        let files = Files::in_dir(dir.path());
        let listener = UnixListener::bind(&files.agent_socket)
            .and_then(|l| l.set_nonblocking(true).map(|()| l))
            .map_err(|source| folder_error(dir.path(), source))?;
        let qemu_log =
            File::create(&files.qemu_log).map_err(|source| folder_error(dir.path(), source))?;

        let mut command = qemu::command(&image, &self.machine, &files);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(qemu_log);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(|source| Error::Start {
            program: image.qemu.display().to_string(),
            source,
        })?;
        let mut qemu = Qemu { child, files, dir };
        let _watch = boot::Watch::start(
            qemu.files.qmp_socket.clone(),
            qemu.files.console_log.clone(),
        );
        let deadline = Instant::now() + BOOT_TIMEOUT;
        let stream = qemu.accept_agent(&listener, deadline)?;
        let left = deadline.saturating_duration_since(Instant::now());
        match Agent::connect(stream, left) {
            Ok(agent) => Ok(Guest { agent, qemu }),
            Err(_) => Err(qemu.boot_error()),
        }
    }
}

fn folder_error(dir: &Path, source: io::Error) -> Error {
    Error::Folder {
        dir: dir.display().to_string(),
        source,
    }
}

/// The kernel kills the child when the thread that starts it ends, however that happens.
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let in_child = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before that took effect.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls and allocates nothing, so it may run
    // between fork and exec.
    unsafe { command.pre_exec(in_child) };
}

/// The QEMU process and its files; killed when dropped.
struct Qemu {
    child: Child,
    files: Files,
    #[allow(
        dead_code,
        reason = "removes the folder when dropped, after QEMU is gone"
    )]
    dir: tempfile::TempDir,
}

impl Qemu {
    fn accept_agent(
        &mut self,
        listener: &UnixListener,
        deadline: Instant,
    ) -> Result<UnixStream, Error> {
        while Instant::now() < deadline {
            if let Ok((stream, _)) = listener.accept() {
                return match stream.set_nonblocking(false) {
                    Ok(()) => Ok(stream),
                    Err(source) => Err(folder_error(&self.files.agent_socket, source)),
                };
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            thread::sleep(POLL);
        }
        Err(self.boot_error())
    }

    fn boot_error(&mut self) -> Error {
        match self.wait(Duration::from_millis(500)) {
            Some(status) => Error::QemuEnded {
                status,
                qemu_log: read_lossy(&self.files.qemu_log) + &self.log_end(),
            },
            None => Error::BootTimeout {
                timeout_ms: BOOT_TIMEOUT.as_millis(),
                log_end: self.log_end(),
            },
        }
    }

    fn log_end(&self) -> String {
        let log = read_lossy(&self.files.console_log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
    }

    fn kill(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// A booted guest. Killed when dropped; if that is because a test panics, the end of its
/// kernel log is printed.
pub struct Guest {
    agent: Agent,
    qemu: Qemu,
}

impl Guest {
    pub fn builder() -> GuestBuilder {
        GuestBuilder {
            kernel: Kernel::default(),
            root: Root::default(),
            machine: Machine {
                vcpus: 2,
                memory_mib: 512,
                shares: Vec::new(),
            },
        }
    }

    /// Runs a shell command as root; any exit code is a result, not an error.
    pub fn run(&self, command: &str, timeout: Duration) -> Result<Output, Error> {
        self.run_with_input(command, b"", timeout)
    }

    /// As [`run`](Self::run), with bytes for the command to read.
    pub fn run_with_input(
        &self,
        command: &str,
        stdin: &[u8],
        timeout: Duration,
    ) -> Result<Output, Error> {
        Ok(self.agent.start(command, stdin, timeout)?.wait()?)
    }

    /// Runs a command that must succeed; gives its output as text.
    pub fn check(&self, command: &str, timeout: Duration) -> Result<String, Error> {
        let output = self.run(command, timeout)?;
        if output.code == 0 {
            return Ok(output.text());
        }
        Err(Error::failed(command, output))
    }

    /// Starts a command that goes on while others run.
    pub fn start(&self, command: &str, timeout: Duration) -> Result<Running, Error> {
        Ok(self.agent.start(command, b"", timeout)?)
    }

    /// Mounts the share with this tag on a directory, which is made.
    pub fn mount(&self, tag: &str, dir: &str) -> Result<(), Error> {
        let command = format!("mkdir -p '{dir}' && mount -t virtiofs '{tag}' '{dir}'");
        self.check(&command, MOUNT_TIMEOUT).map(drop)
    }

    pub fn unmount(&self, dir: &str) -> Result<(), Error> {
        self.check(&format!("umount '{dir}'"), MOUNT_TIMEOUT)
            .map(drop)
    }

    /// All that the kernel has printed on the console since boot.
    pub fn kernel_log(&self) -> String {
        read_lossy(&self.qemu.files.console_log)
    }

    /// Lines of the kernel log that no test should cause.
    pub fn kernel_complaints(&self) -> Vec<String> {
        let bad = ["BUG:", "WARNING:", "Oops", "hung task", "virtiofs: "];
        let log = self.kernel_log();
        let lines = log
            .lines()
            .filter(|line| bad.iter().any(|word| line.contains(word)));
        lines.map(str::to_owned).collect()
    }

    /// Resets the machine, as its button does. What runs in it is gone, and so is the agent until
    /// the next boot is up.
    pub fn reset(&self) -> io::Result<()> {
        boot::reset(&self.qemu.files.qmp_socket)
    }

    /// Id of the QEMU process.
    pub fn pid(&self) -> u32 {
        self.qemu.child.id()
    }

    /// Powers off as `poweroff` does, without a file system left mounted; waits for QEMU's end.
    pub fn poweroff(mut self) -> Result<(), Error> {
        // `umount -a` is for order only; what cannot be unmounted dies with the machine.
        let command = "umount -a -t virtiofs; sync; busybox poweroff -f";
        let _running = self.agent.start(command, b"", POWEROFF_TIMEOUT)?;
        match self.qemu.wait(POWEROFF_TIMEOUT) {
            Some(_) => Ok(()),
            None => Err(Error::PoweroffTimeout {
                timeout_ms: POWEROFF_TIMEOUT.as_millis(),
            }),
        }
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(mut self) {
        self.qemu.kill();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- end of the guest's kernel log\n{}\n--- QEMU's messages\n{}---",
                self.qemu.log_end(),
                read_lossy(&self.qemu.files.qemu_log)
            );
        }
    }
}
