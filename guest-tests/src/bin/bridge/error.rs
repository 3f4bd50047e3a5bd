//! What the bridge fails with.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use guest_tests::binaries;
use guest_tests::ring::fuse::abi::opcode_name;
use guest_tests::ring::fuse::{self, Violation};
use guest_tests::ring::{device, memory, process, queue};
use rustix::io::Errno;

/// Told to whoever started the bridge.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open /dev/fuse{}", hint_open(*.0))]
    OpenFuse(#[source] Errno),
    #[error("cannot open /dev/fuse once more for another queue")]
    CloneFuse(#[source] Errno),
    #[error("{path} is no directory to mount on", path = .0.display())]
    Mountpoint(PathBuf, #[source] io::Error),
    #[error("cannot mount on {path}{}", hint_mount(*.1), path = .0.display())]
    Mount(PathBuf, #[source] Errno),
    #[error("cannot connect to {path}: is a daemon listening?", path = .0.display())]
    Connect(PathBuf, #[source] io::Error),
    #[error("cannot make a temporary folder for the daemon's socket")]
    Folder(#[source] io::Error),
    #[error("no daemon to start")]
    Binary(#[from] binaries::Error),
    #[error(transparent)]
    Daemon(#[from] process::Error),
    #[error("the daemon and the bridge do not come together")]
    Device(#[from] device::Error),
    #[error("the daemon does not take indirect descriptors, which the bridge needs")]
    NoIndirect,
    #[error("guest memory")]
    Memory(#[from] memory::Error),
    #[error("a queue")]
    Queue(#[from] queue::Error),
    #[error("the queue of FORGET and INTERRUPT")]
    Hiprio(#[source] Box<fuse::Error>),
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("cannot wait for requests and replies")]
    Wait(#[source] io::Error),
    #[error("cannot read a request from /dev/fuse")]
    ReadRequest(#[source] io::Error),
    #[error("the kernel sent {len} bytes that are no request")]
    BadRequest { len: usize },
    #[error("the kernel refuses the reply to {} (unique {unique})", opcode_name(*.opcode))]
    WriteReply {
        opcode: u32,
        unique: u64,
        #[source]
        source: io::Error,
    },
    #[error("the daemon breaks the protocol in {} (unique {unique})", opcode_name(*.opcode))]
    Protocol {
        opcode: u32,
        unique: u64,
        #[source]
        source: Violation,
    },
    #[error("the daemon refuses FUSE_INIT")]
    Init(#[source] Errno),
    #[error("FUSE_INIT is not answered after {0} ms")]
    NoInit(u128),
    #[error("the daemon takes writes of {0} bytes; the bridge has buffers of {1}")]
    MaxWrite(usize, usize),
    #[error("the daemon hung up{}", ended(.0))]
    DaemonGone(Option<ExitStatus>),
    #[error("a thread of the bridge panicked")]
    Panicked,
}

fn hint_open(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => " (is the module there? try: modprobe fuse)",
        Errno::ACCESS | Errno::PERM => " (the bridge needs root)",
        _ => "",
    }
}

fn hint_mount(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM => " (the bridge needs root)",
        Errno::NODEV => " (the kernel has no FUSE; try: modprobe fuse)",
        _ => "",
    }
}

fn ended(status: &Option<ExitStatus>) -> String {
    status.map_or_else(String::new, |status| format!(": {status}"))
}
