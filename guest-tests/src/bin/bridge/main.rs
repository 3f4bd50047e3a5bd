//! `bridge`: mounts what a vhost-user-fs daemon serves on this host, without a VM.
//!
//! `/dev/fuse` is on one side, the ring driver of this crate on the other: the kernel's requests go
//! through virtqueues in shared memory to the daemon, as a guest's do. It is a tool for tests and
//! measurements: `docs/bridge.md`.
//!
//! - `mount.rs`: `/dev/fuse` and the mount; `backend.rs`: the daemon.
//! - `worker.rs`: a thread for each request queue; `poller.rs` is what it sleeps on, `slots.rs`
//!   the memory of its requests, `rooms.rs` how long a reply may be.
//! - `urgent.rs`: FORGET and INTERRUPT.
//! - `supervisor.rs`: how it ends.

mod backend;
mod error;
mod mount;
mod poller;
mod rooms;
mod slots;
mod supervisor;
mod urgent;
mod worker;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use guest_tests::ring::device::{Device, DeviceConfig};
use guest_tests::ring::fuse::Hiprio;
use guest_tests::ring::memory::{RegionConfig, PAGE_SIZE};
use guest_tests::ring::queue::Queue;
use guest_tests::vm::steps::chain;
use vmm_sys_util::eventfd::EventFd;

use backend::{parse_user, Backend, Start, User};
use error::Error;
use mount::{DetachOnDrop, Mount};
use poller::Poller;
use slots::Slots;
use supervisor::Signals;
use urgent::Urgent;
use worker::Worker;

/// Descriptors in each queue.
const QUEUE_SIZE: u16 = 1024;
/// Guest memory of a queue beside its slots: the ring, and for each of its descriptors the table
/// of the longest chain.
const RING_LEN: usize = 10 << 20;
/// Guest memory of the hiprio queue.
const HIPRIO_LEN: usize = 1 << 20;
/// Where guest memory begins, for the guest.
const MEMORY_AT: u64 = 1 << 32;
/// How long the daemon may take for FUSE_INIT.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Mounts what a vhost-user-fs daemon serves, without a VM.
///
/// Starts a daemon for a volume, or connects to one that listens, and mounts what it serves on a
/// directory of this host. Requests go through virtqueues in shared memory, as those of a VM do.
/// A tool for tests and measurements. Needs root.
///
/// Says "mounted" on standard output when it is, and stays in the foreground. SIGINT or SIGTERM
/// unmounts; so does umount(8).
#[derive(Debug, Parser)]
#[command(name = "bridge", version, max_term_width = 100)]
struct Options {
    /// Start a daemon for this volume or directory
    #[arg(long, value_name = "PATH", required_unless_present = "socket")]
    volume: Option<PathBuf>,

    /// Connect to the daemon that listens on this socket
    #[arg(long, value_name = "PATH", conflicts_with_all = ["volume", "daemon", "user", "log", "daemon_args"])]
    socket: Option<PathBuf>,

    /// The daemon to start; it must know --socket-path and --shared-dir [default: pfs-virtiofsd
    /// beside this program]
    #[arg(long, value_name = "PROGRAM")]
    daemon: Option<PathBuf>,

    /// Start the daemon as this user
    #[arg(long, value_name = "UID[:GID]", value_parser = parse_user)]
    user: Option<User>,

    /// Append what the daemon says to this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,

    /// Request queues, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    queues: u16,

    /// Requests with data in flight in each queue; each takes 2 MiB once it is used
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    depth: u16,

    /// Where to mount: a directory
    mountpoint: PathBuf,

    /// More arguments of the daemon
    #[arg(last = true, value_name = "DAEMON_ARGS")]
    daemon_args: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bridge: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Error> {
    // What can fail without a daemon comes first.
    let fuse = mount::open_fuse()?;
    let (mut backend, stream) = start_backend(options)?;
    // After the daemon, which would inherit it; before threads, which shall.
    let signals = Signals::block()?;
    let (device, queues) = Device::connect(stream, &device_config(options))?;
    let bridged = bridge(options, fuse, &device, queues, &signals);
    drop(device);
    match bridged {
        Ok(()) => backend.end(),
        Err(Error::DaemonGone(_)) => Err(backend.post_mortem()),
        Err(error) => Err(error),
    }
}

fn start_backend(options: &Options) -> Result<(Backend, std::os::unix::net::UnixStream), Error> {
    match (&options.socket, &options.volume) {
        (Some(socket), _) => Backend::connect(socket),
        (None, volume) => Backend::start(&Start {
            program: options.daemon.as_deref(),
            volume: volume.as_deref().unwrap_or("".as_ref()),
            user: options.user,
            log: options.log.as_deref(),
            args: &options.daemon_args,
        }),
    }
}

/// Mounts and serves. When it returns, nothing is mounted.
fn bridge(
    options: &Options,
    fuse: OwnedFd,
    device: &Device,
    queues: Vec<Queue>,
    signals: &Signals,
) -> Result<(), Error> {
    let stop = supervisor::eventfd()?;
    let mount = DetachOnDrop(Mount::new(&fuse, &options.mountpoint)?);
    // Declared after the mount: the connection is closed before the last try to unmount.
    let mut workers = workers(options, fuse, device, queues, &stop)?;
    if let Some(first) = workers.first_mut() {
        first.serve_init(INIT_TIMEOUT)?;
    }
    println!("mounted");
    supervisor::supervise(workers, &mount.0, signals, &stop)
}

/// A worker for each request queue; the first has `fuse` itself.
fn workers(
    options: &Options,
    fuse: OwnedFd,
    device: &Device,
    queues: Vec<Queue>,
    stop: &EventFd,
) -> Result<Vec<Worker>, Error> {
    let socket = device.link().socket().ok_or(Error::DaemonGone(None))?;
    let memory = device.memory();
    let mut queues = queues.into_iter();
    let mut fuses = vec![fuse];
    for _ in 1..options.queues {
        fuses.push(mount::clone_fuse(&fuses[0])?);
    }
    let hiprio = queues.next().ok_or(Error::DaemonGone(None))?;
    let hiprio = Hiprio::new(hiprio, memory, Arc::clone(device.link()));
    let urgent = Arc::new(Urgent::new(hiprio.map_err(|e| Error::Hiprio(Box::new(e)))?));
    let worker = |(fuse, queue): (OwnedFd, Queue)| {
        if !queue.config().indirect {
            return Err(Error::NoIndirect);
        }
        let (large, small) = slot_counts(options);
        let slots = Slots::new(memory, large, small)?;
        let poller = Poller::new(Arc::clone(&socket), queue.ring().call(), stop)?;
        Ok(Worker::new(fuse, queue, slots, Arc::clone(&urgent), poller))
    };
    fuses.into_iter().zip(queues).map(worker).collect()
}

/// Large and small slots of a queue: together as many as descriptors.
fn slot_counts(options: &Options) -> (usize, usize) {
    let large = usize::from(options.depth);
    (large, usize::from(QUEUE_SIZE) - large)
}

fn device_config(options: &Options) -> DeviceConfig {
    let queues = usize::from(options.queues);
    let (large, small) = slot_counts(options);
    let queue_len = slots::memory_len(large, small) + RING_LEN;
    DeviceConfig {
        request_queues: queues,
        queue_size: QUEUE_SIZE,
        memory: vec![RegionConfig {
            guest_addr: MEMORY_AT,
            len: (queues * queue_len + HIPRIO_LEN).next_multiple_of(PAGE_SIZE),
        }],
        ..DeviceConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let parsed = |args: &[&str]| Options::try_parse_from([&["bridge"], args].concat());
        assert!(parsed(&["/mnt"]).is_err(), "no volume and no socket");
        assert!(parsed(&["--socket", "/s", "--volume", "/v", "/mnt"]).is_err());
        let options = parsed(&["--volume", "/v", "/mnt", "--", "--cache", "never"]).unwrap();
        assert_eq!(options.daemon_args, ["--cache", "never"]);
        assert_eq!(device_config(&options).request_queues, 1);
    }
}
