//! The vhost-user device: negotiation, configuration, memory, and the starting and stopping of
//! queues (virtio 1.2, 5.11; QEMU's `docs/interop/vhost-user.rst`).
//!
//! - [`vring`]: one ring as the VMM sets it up, and its worker.
//! - [`serve`](Device::serve): one VMM's connection from its beginning to its end.
//!
//! `vhost-user-backend` speaks the protocol and maps memory. It is told that no thread of its
//! own serves any queue: [`vring::Vring`] starts a [worker](crate::worker) when a ring becomes
//! ready and stops it, drained, before the ring's base is given.

mod serve;
mod vring;

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pfs_core::io::Pool;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::inflight::{self, now_ms, InFlight, InflightLog};
use crate::worker::{self, Handle, Serve, Start};
pub use serve::Served;
use vring::{Ring, Vring};

/// Virtqueues that a VMM may use: the hiprio queue and 255 request queues. A vhost-user message
/// with an eventfd has 8 bits for the queue's number.
pub const QUEUES_MAX: usize = 256;
/// Descriptors that a queue may have (virtio 1.2, 2.7).
pub const QUEUE_SIZE_MAX: u16 = 32768;
/// Bytes of `tag` in `virtio_fs_config` (virtio 1.2, 5.11.4).
pub const TAG_BYTES: usize = 36;

/// The device cannot be made or served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the tag \"{0}\" must be 1 to {TAG_BYTES} bytes long")]
    Tag(String),
    #[error(transparent)]
    Inflight(#[from] inflight::Error),
    #[error("cannot make an eventfd: {0}; is the limit of open files (ulimit -n) reached?")]
    Eventfd(#[source] rustix::io::Errno),
    #[error("cannot wait on the vhost-user socket: {0}")]
    Wait(#[source] rustix::io::Errno),
    #[error("cannot use the vhost-user socket: {0}")]
    Listener(#[source] std::io::Error),
    #[error("cannot set up vhost-user: {0}")]
    Setup(String),
    #[error("cannot start a thread: {0}; is the process limit (ulimit -u, pids cgroup) reached?")]
    Thread(#[source] std::io::Error),
    #[error("the VMM does not speak vhost-user as expected: {0}")]
    Protocol(String),
}

/// What a device is made of.
pub struct DeviceConfig {
    /// The mount tag, for VMMs that ask the device for it. QEMU does not.
    pub tag: Option<String>,
    /// Request queues as `virtio_fs_config` tells them; 1 to 255. Only told: what the VMM sets
    /// up is served.
    pub request_queues: u16,
    /// Threads for blocking calls, shared by all queues.
    pub pool: Arc<Pool>,
    /// How long a queue's worker may look for work before it sleeps; zero for not at all.
    pub poll_limit: Duration,
    /// A memfd from [`InflightLog::create`] if requests in flight shall outlive the process.
    pub inflight: Option<OwnedFd>,
}

/// A way to start a worker, whatever it serves with.
type Starter = Box<dyn Fn(Start) -> Result<Handle, worker::Error> + Send + Sync>;

/// What the device's parts share.
struct Shared {
    starter: Starter,
    pool: Arc<Pool>,
    poll_limit: Duration,
    inflight: Option<Arc<InflightLog>>,
    config_space: Option<Vec<u8>>,
    /// Virtio features that the driver took.
    features: AtomicU64,
    /// Grows with each change of guest memory.
    generation: Arc<AtomicU64>,
    /// No queue starts until the next VMM connects.
    closed: AtomicBool,
    /// [`Device::shutdown`] was called.
    shut_down: AtomicBool,
    rings: Mutex<Vec<Arc<Ring>>>,
    /// Wakes [`Device::serve`].
    wake: OwnedFd,
}

impl Shared {
    fn rings(&self) -> MutexGuard<'_, Vec<Arc<Ring>>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only where 2^64 - 1 wakes are pending.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// The virtio-fs device; its clones are one and the same.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

impl Device {
    /// A device whose queues are served by `service`.
    pub fn new<S: Serve>(service: Arc<S>, config: DeviceConfig) -> Result<Device, Error> {
        let config_space = config
            .tag
            .map(|tag| config_space(tag, config.request_queues));
        let inflight = config.inflight.as_ref().map(InflightLog::open);
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let shared = Shared {
            starter: Box::new(move |start| worker::spawn(service.clone(), start)),
            pool: config.pool,
            poll_limit: config.poll_limit,
            inflight: inflight.transpose()?.map(Arc::new),
            config_space: config_space.transpose()?,
            features: AtomicU64::new(0),
            generation: Arc::default(),
            closed: AtomicBool::new(false),
            shut_down: AtomicBool::new(false),
            rings: Mutex::default(),
            wake: rustix::event::eventfd(0, flags).map_err(Error::Eventfd)?,
        };
        Ok(Device {
            shared: Arc::new(shared),
        })
    }

    /// Stops all queues in order: what is in flight is answered, nothing new is taken. None
    /// starts again until the next [`Device::serve`]. After [`Device::shutdown`], requests that
    /// take long are left in the in-flight log, if that is shared, for the next process.
    pub fn stop_all(&self) {
        self.shared.closed.store(true, Ordering::Release);
        let last = self.shared.shut_down.load(Ordering::Acquire);
        let rings = self.shared.rings().clone();
        for ring in &rings {
            ring.begin_stop(last);
        }
        for ring in &rings {
            ring.stopped();
        }
    }

    /// Makes [`Device::serve`] stop all queues and return, for good, from any thread.
    pub fn shutdown(&self) {
        self.shared.shut_down.store(true, Ordering::Release);
        self.shared.wake();
    }

    /// The requests in flight, with the queue of each.
    pub fn in_flight(&self) -> Vec<(u16, InFlight)> {
        let now_ms = now_ms();
        let rings = self.shared.rings().clone();
        let of = |ring: &Arc<Ring>| {
            let index = ring.index();
            let found = ring.in_flight(now_ms);
            found.into_iter().map(move |request| (index, request))
        };
        rings.iter().flat_map(of).collect()
    }
}

/// `struct virtio_fs_config`: `tag`, padded with NULs, and `num_request_queues`.
fn config_space(tag: String, request_queues: u16) -> Result<Vec<u8>, Error> {
    if !(1..=TAG_BYTES).contains(&tag.len()) {
        return Err(Error::Tag(tag));
    }
    let mut space = tag.into_bytes();
    space.resize(TAG_BYTES, 0);
    space.extend(u32::from(request_queues).clamp(1, 255).to_le_bytes());
    Ok(space)
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES_MAX
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE_MAX.into()
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn acked_features(&self, features: u64) {
        self.shared.features.store(features, Ordering::Release);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let mut features = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        if self.shared.config_space.is_some() {
            features |= VhostUserProtocolFeatures::CONFIG;
        }
        features
    }

    fn set_event_idx(&self, _enabled: bool) {
        // Each ring is told by `Vring::set_queue_event_idx`.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // An answer of another size than was asked for tells the VMM that there is none.
        let range = offset as usize..(offset as usize).saturating_add(size as usize);
        let space = self.shared.config_space.as_deref().unwrap_or_default();
        space.get(range).unwrap_or_default().to_vec()
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> std::io::Result<()> {
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        // No thread of the crate's serves a queue.
        Vec::new()
    }

    fn handle_event(
        &self,
        _event: u16,
        _set: EventSet,
        _vrings: &[Vring],
        _thread: usize,
    ) -> std::io::Result<()> {
        Err(std::io::Error::other("no queue is served by events"))
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("wake", &self.shared.wake.as_raw_fd())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
