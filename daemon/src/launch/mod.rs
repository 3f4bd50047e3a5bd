//! From a checked command line to a device that serves, and to its end.
//!
//! Order matters. Inherited descriptors are taken before any is opened. All that needs a path or
//! privilege comes before [`sandbox::Sandbox::seal`]; every thread, and all that comes from the
//! network, comes after it, and has what is left.
//!
//! - [`inherit`]: descriptors that whoever started us passed on.
//! - [`limits`]: how many files may be open.
//! - [`socket`]: the socket that the VMM connects to.
//! - [`control`]: signals, and the wait for the device's end.

mod control;
mod inherit;
mod limits;
mod socket;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use pfs_core::fs::FileSystem;
use pfs_core::io::Pool;
use pfs_core::session::{self, SessionStore};
use pfs_core::tree::creds;
use pfs_core::volume::{self, Meta, OpenVolume, Volume, VolumeKind};
use pfs_core::{engine, io};

use crate::cli::{Options, Socket};
use crate::device::{self, Device, DeviceConfig, Served, QUEUES_MAX, QUEUE_SIZE_MAX};
use crate::fuse::{RestoreError, Service, ServiceConfig};
use crate::inflight::{self, InflightLog};
use crate::sandbox::{self, Needs, Sandbox};

/// Most nodes and handles of a session. Memory is taken as there are some.
const SESSION_RECORDS_MAX: u32 = 1 << 24;
/// Threads for calls that can only block, shared by all queues.
const POOL_THREADS_MAX: usize = 64;
/// Request queues told to VMMs that ask the device: the one that every driver can use.
const REQUEST_QUEUES: u16 = 1;

/// The daemon cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Inherit(#[from] inherit::Error),
    #[error(transparent)]
    Limits(#[from] limits::Error),
    #[error(transparent)]
    Volume(#[from] volume::Error),
    #[error(transparent)]
    Socket(#[from] socket::Error),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error(transparent)]
    Session(#[from] session::Error),
    #[error(transparent)]
    Inflight(#[from] inflight::Error),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("cannot start the pool of threads")]
    Pool(#[source] std::io::Error),
    #[error("cannot go on with the session in --state-fd; start the guest anew")]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Device(#[from] device::Error),
    #[error(transparent)]
    Control(#[from] control::Error),
}

/// What the process holds once all that needs privilege is done.
struct Opened {
    fs: Arc<dyn FileSystem>,
    store: Arc<SessionStore>,
    listener: UnixListener,
    inflight: Option<OwnedFd>,
    /// Removes the socket at the end.
    _socket: Option<socket::Made>,
}

/// Serves a volume to one VM, until that VM or a signal ends it.
pub fn serve(options: &Options) -> Result<(), Error> {
    let control = control::Control::new()?;
    let opened = open(options)?;
    let pool = Pool::new(POOL_THREADS_MAX).map_err(Error::Pool)?;
    let service = Service::new(
        opened.fs.clone(),
        opened.store.clone(),
        ServiceConfig {
            cache: options.cache,
            writeback: options.writeback,
            entry_timeout: options.entry_timeout,
            attr_timeout: options.attr_timeout,
            xattr: options.xattr,
            posix_acl: options.posix_acl,
            ids: options.ids.clone(),
            readonly: options.readonly,
            posix_locks: options.posix_lock,
            flock: options.flock,
            ..ServiceConfig::default()
        },
    );
    if options.state_fd.is_some() {
        if let Some(restored) = service.restore()? {
            let (nodes, handles) = (restored.nodes, restored.handles);
            log::info!("the session goes on with {nodes} nodes and {handles} open files");
        }
    }
    let device = Device::new(
        Arc::new(service),
        DeviceConfig {
            tag: options.tag.clone(),
            request_queues: REQUEST_QUEUES,
            pool,
            poll_limit: options.poll_limit,
            inflight: opened.inflight,
        },
    )?;
    log::info!("waiting for a VMM to connect");
    match control.run(&device, opened.listener)? {
        Served::Disconnected => log::info!("the VMM has disconnected"),
        Served::ShutDown => log::info!("all queues are stopped"),
    }
    if opened.store.is_shared() {
        match opened.fs.prepare_restore() {
            0 => log::info!("the session's records are complete"),
            lost => log::warn!("{lost} inodes of the session cannot be found again"),
        }
    } else {
        // Nobody comes back for what is open: files without a name go, objects and all. Threads
        // of a connection that is still open keep the engine itself.
        opened.fs.reset();
    }
    opened.fs.shut_down();
    Ok(())
}

/// All that needs a path or privilege, which are gone at the end of it.
fn open(options: &Options) -> Result<Opened, Error> {
    let mut inherited = inherit::Inherited::take(options)?;
    let sandbox = Sandbox::prepare(options.sandbox)?;
    let files_max = limits::set_open_files(options.rlimit_nofile)?;
    sandbox.enter()?;
    let mut volume = Volume::open(&options.shared_dir)?;
    log_start(options, &volume);
    let (root, needs) = (volume.path.clone(), Needs::of(&volume.descriptor));

    let store = match inherited.state.take() {
        Some(memfd) => SessionStore::shared(memfd, SESSION_RECORDS_MAX)?,
        None => SessionStore::private(SESSION_RECORDS_MAX)?,
    };
    let inflight = inherited.inflight.take();
    if let Some(memfd) = &inflight {
        InflightLog::prepare(memfd, QUEUES_MAX as u32, u32::from(QUEUE_SIZE_MAX))?;
    }

    confine(&sandbox, &mut volume.kind)?;
    let store = Arc::new(store);
    let engine = engine::Options {
        store: store.clone(),
        inode_fds_max: limits::inode_fds_max(files_max),
    };
    // Last of what can be refused, so that the socket tells that the daemon is up.
    let (listener, made) = match (&options.socket, inherited.listener.take()) {
        (Socket::Path { path, group }, _) => {
            let (listener, made) = socket::make(path, group.as_deref(), &sandbox)?;
            (listener, Some(made))
        }
        (Socket::Fd(fd), listener) => (listener.ok_or(inherit::Error::NotOpen { fd: *fd })?, None),
    };
    let prepared = engine::prepare(volume, &engine)?;
    creds::prepare_process();
    sandbox.seal(&root, &needs)?;
    Ok(Opened {
        fs: prepared.start()?,
        store,
        listener,
        inflight,
        _socket: made,
    })
}

/// Makes the volume's places all that their descriptors reach.
fn confine(sandbox: &Sandbox, kind: &mut VolumeKind) -> Result<(), sandbox::Error> {
    match kind {
        VolumeKind::Striped { meta, targets, .. } => {
            let dir = sandbox.confine(&meta.dir)?;
            *meta = Meta::within(dir).map_err(|(_, source)| sandbox::Error::Step {
                doing: "open the metadata directory's directories again",
                source,
            })?;
            for place in targets {
                *place = sandbox.confine(&*place)?;
            }
        }
        VolumeKind::Posix { root } => *root = sandbox.confine(&*root)?,
        VolumeKind::Cephfs { clients, .. } => {
            if let Some(folder) = clients {
                *folder = sandbox.confine(&*folder)?;
            }
        }
        VolumeKind::Null => {}
    }
    Ok(())
}

fn log_start(options: &Options, volume: &OpenVolume) {
    let descriptor = &volume.descriptor;
    let uuid = match descriptor.uuid {
        Some(uuid) => uuid.to_string(),
        None => "a plain directory".to_owned(),
    };
    log::info!(
        "pfs-virtiofsd {}: {} volume {} ({uuid})",
        env!("CARGO_PKG_VERSION"),
        descriptor.engine.name(),
        volume.path.display(),
    );
    if options.thread_pool_size.is_some() {
        log::info!("--thread-pool-size has no effect: each queue has one worker that never waits");
    }
}
