//! The vhost-user front-end of one virtio-fs device, as QEMU plays it.
//!
//! [`Device::connect`] negotiates, hands over memory and rings and starts every queue.
//! [`Device::reattach`] hands the same memory and rings to another daemon, so a test can kill a
//! daemon with requests in flight and let the next one serve them.
//!
//! Device: virtio 1.2, section 5.11. Messages: QEMU's `docs/interop/vhost-user.rst`.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::memory::{self, GuestMemory, RegionConfig};
use super::queue::{self, Queue, Ring};
use watchdog::Watchdog;

mod reset;
mod watchdog;

/// Index of the queue for FORGET and INTERRUPT (virtio 1.2, 5.11.2).
pub const HIPRIO_QUEUE: usize = 0;

/// Bytes of `tag` in the configuration space (virtio 1.2, 5.11.4).
const TAG_LEN: usize = 36;
/// Bytes of the configuration space that are read: the tag and `num_request_queues`.
const CONFIG_LEN: usize = TAG_LEN + 4;

/// What can go wrong between front-end and daemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Guest memory.
    #[error("guest memory")]
    Memory(#[from] memory::Error),
    /// A ring.
    #[error("ring")]
    Queue(#[from] queue::Error),
    /// A vhost-user message failed: refused, or the daemon is gone.
    #[error("vhost-user: {action} failed")]
    Message {
        /// What was asked.
        action: &'static str,
        /// The front-end's error.
        #[source]
        source: vhost::Error,
    },
    /// The daemon lacks a feature that is needed.
    #[error("the daemon offers {offered:#x}, needed is {needed:#x}")]
    Features {
        /// The feature bits it offers.
        offered: u64,
        /// Those that must be among them.
        needed: u64,
    },
    /// It serves fewer queues than are wanted.
    #[error("the daemon serves {offered} queues, wanted are {wanted}")]
    Queues {
        /// Queues it has, with the hiprio queue.
        offered: u64,
        /// Queues wanted, with the hiprio queue.
        wanted: usize,
    },
    /// A vhost-user message was not answered in time; the connection is shut down.
    #[error("vhost-user: no answer to {action} after {timeout_ms} ms")]
    NoAnswer {
        /// What was asked.
        action: &'static str,
        /// Time waited.
        timeout_ms: u128,
    },
    /// One vring base is needed for each queue.
    #[error("{given} vring bases for {queues} queues")]
    Bases {
        /// Bases given.
        given: usize,
        /// Queues of the device.
        queues: usize,
    },
    /// The connection was closed by `disconnect`.
    #[error("no daemon is connected")]
    Disconnected,
    /// The eventfd or socket of a queue.
    #[error("cannot signal a queue")]
    Signal(#[source] std::io::Error),
}

/// Shape of the device, as QEMU's command line gives it.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// Request queues, beside the hiprio queue.
    pub request_queues: usize,
    /// Descriptors in each queue.
    pub queue_size: u16,
    /// Take VIRTIO_F_EVENT_IDX if offered.
    pub event_idx: bool,
    /// Take VIRTIO_F_INDIRECT_DESC if offered.
    pub indirect: bool,
    /// Guest memory.
    pub memory: Vec<RegionConfig>,
    /// How long one vhost-user message may go unanswered.
    pub control_timeout: Duration,
}

impl Default for DeviceConfig {
    /// One request queue of 1024, all features, 128 MiB in two regions as a PC has them.
    fn default() -> Self {
        DeviceConfig {
            request_queues: 1,
            queue_size: 1024,
            event_idx: true,
            indirect: true,
            memory: vec![
                RegionConfig {
                    guest_addr: 0x10_0000,
                    len: 64 << 20,
                },
                RegionConfig {
                    guest_addr: 1 << 32,
                    len: 64 << 20,
                },
            ],
            control_timeout: Duration::from_secs(10),
        }
    }
}

/// The configuration space (`struct virtio_fs_config`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsConfig {
    /// The tag, without its padding.
    pub tag: String,
    /// Request queues that the device has.
    pub num_request_queues: u32,
}

/// The daemon's end of the socket, for those who sleep: it hangs up when the daemon dies.
#[derive(Debug, Default)]
pub struct Link {
    socket: Mutex<Option<Arc<OwnedFd>>>,
}

impl Link {
    /// The connected socket, if there is one.
    pub fn socket(&self) -> Option<Arc<OwnedFd>> {
        self.lock().clone()
    }

    pub(super) fn set(&self, socket: Option<OwnedFd>) {
        *self.lock() = socket.map(Arc::new);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<OwnedFd>>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The front-end of one device.
pub struct Device {
    connection: Option<Connection>,
    memory: GuestMemory,
    rings: Vec<Arc<Ring>>,
    features: u64,
    control_timeout: Duration,
    link: Arc<Link>,
}

/// One negotiated connection to a daemon.
struct Connection {
    frontend: Frontend,
    protocol_features: VhostUserProtocolFeatures,
    watchdog: Watchdog,
}

impl Connection {
    /// Runs one exchange; the socket is shut down if it takes too long.
    fn ask<T>(
        &mut self,
        action: &'static str,
        exchange: impl FnOnce(&mut Frontend) -> vhost::Result<T>,
    ) -> Result<T, Error> {
        let guard = self.watchdog.arm();
        let result = exchange(&mut self.frontend);
        drop(guard);
        result.map_err(|source| match self.watchdog.fired() {
            Some(timeout) => Error::NoAnswer {
                action,
                timeout_ms: timeout.as_millis(),
            },
            None => Error::Message { action, source },
        })
    }
}

impl Device {
    /// Connects to a daemon, makes memory and queues, and starts every queue. The queues are
    /// the driver's: `[0]` is hiprio, the rest are request queues.
    pub fn connect(
        stream: UnixStream,
        config: &DeviceConfig,
    ) -> Result<(Device, Vec<Queue>), Error> {
        let mut device = Device {
            connection: None,
            memory: GuestMemory::new(&config.memory)?,
            rings: Vec::new(),
            features: 0,
            control_timeout: config.control_timeout,
            link: Arc::default(),
        };
        let queue_count = config.request_queues + 1;
        let offered = device.negotiate(stream, queue_count)?;
        let mut wanted = needed_features();
        if config.event_idx {
            wanted |= 1 << VIRTIO_RING_F_EVENT_IDX;
        }
        if config.indirect {
            wanted |= 1 << VIRTIO_RING_F_INDIRECT_DESC;
        }
        device.features = offered & wanted;
        let queues = device.set_up(queue_count, config.queue_size)?;
        Ok((device, queues))
    }

    /// Hands the memory and rings to another daemon, as the keeper does after a worker's death:
    /// features, memory, each ring from its base, then one write to every kick and call eventfd,
    /// since the old daemon may have eaten a kick or owed a call.
    ///
    /// A base is what [`stop_queue`](Self::stop_queue) or [`Queue::offer_again`] returned, or for
    /// a daemon with an in-flight log what it counts from, see
    /// [`used_indices`](Self::used_indices).
    pub fn reattach(&mut self, stream: UnixStream, bases: &[u16]) -> Result<(), Error> {
        if bases.len() != self.rings.len() {
            return Err(Error::Bases {
                given: bases.len(),
                queues: self.rings.len(),
            });
        }
        self.disconnect();
        let offered = self.negotiate(stream, bases.len())?;
        if self.features & !offered != 0 {
            return Err(Error::Features {
                offered,
                needed: self.features,
            });
        }
        self.hand_over(bases)?;
        for ring in &self.rings {
            ring.kick().write(1).map_err(Error::Signal)?;
            ring.call().write(1).map_err(Error::Signal)?;
        }
        Ok(())
    }

    /// Closes the connection, as a VMM that dies. Memory and rings stay.
    pub fn disconnect(&mut self) {
        self.link.set(None);
        self.connection = None;
    }

    /// Stops a queue as QEMU does. Returns the base from which it can be started again; the
    /// daemon must not touch the ring any more.
    pub fn stop_queue(&mut self, index: usize) -> Result<u16, Error> {
        let connection = self.connection()?;
        connection.ask("SET_VRING_ENABLE 0", |f| f.set_vring_enable(index, false))?;
        let base = connection.ask("GET_VRING_BASE", |f| f.get_vring_base(index))?;
        Ok(base as u16)
    }

    /// Starts a queue that was stopped.
    pub fn start_queue(&mut self, index: usize, base: u16) -> Result<(), Error> {
        let ring = Arc::clone(&self.rings[index]);
        let connection = self.connection()?;
        start_ring(connection, index, &ring, base)
    }

    /// Adds a region to guest memory and tells the daemon (ADD_MEM_REG).
    pub fn add_region(&mut self, config: RegionConfig) -> Result<(), Error> {
        let region = self.memory.add_region(config)?;
        self.connection()?
            .ask("ADD_MEM_REG", |f| f.add_mem_region(&region.info()))
    }

    /// Takes the region at a guest address from the daemon (REM_MEM_REG) and from guest memory.
    pub fn remove_region(&mut self, guest_addr: u64) -> Result<(), Error> {
        let region = self.memory.remove_region(guest_addr)?;
        self.connection()?
            .ask("REM_MEM_REG", |f| f.remove_mem_region(&region.info()))
    }

    /// Most memory regions that the daemon takes (GET_MAX_MEM_SLOTS).
    pub fn max_mem_slots(&mut self) -> Result<u64, Error> {
        self.connection()?
            .ask("GET_MAX_MEM_SLOTS", Frontend::get_max_mem_slots)
    }

    /// Queues that the daemon serves, with the hiprio queue (GET_QUEUE_NUM).
    pub fn queue_num(&mut self) -> Result<u64, Error> {
        self.connection()?
            .ask("GET_QUEUE_NUM", Frontend::get_queue_num)
    }

    /// Reads the configuration space; an error if the daemon does not offer CONFIG.
    pub fn config_space(&mut self) -> Result<FsConfig, Error> {
        let zeros = [0; CONFIG_LEN];
        let flags = VhostUserConfigFlags::empty();
        let (_, bytes) = self.connection()?.ask("GET_CONFIG", |f| {
            f.get_config(0, CONFIG_LEN as u32, flags, &zeros)
        })?;
        let (tag, rest) = bytes.split_at(TAG_LEN);
        let end = tag.iter().position(|&b| b == 0).unwrap_or(TAG_LEN);
        let count = rest.first_chunk().copied().unwrap_or_default();
        Ok(FsConfig {
            tag: String::from_utf8_lossy(&tag[..end]).into_owned(),
            num_request_queues: u32::from_le_bytes(count),
        })
    }

    /// The virtio features in force.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The vhost-user protocol features in force; none while disconnected.
    pub fn protocol_features(&self) -> VhostUserProtocolFeatures {
        self.connection
            .as_ref()
            .map_or(VhostUserProtocolFeatures::empty(), |c| c.protocol_features)
    }

    /// Guest memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The rings, hiprio first.
    pub fn rings(&self) -> &[Arc<Ring>] {
        &self.rings
    }

    /// The used index of each ring: the bases for a daemon that is told what was in flight.
    pub fn used_indices(&self) -> Vec<u16> {
        self.rings.iter().map(|ring| ring.used_index()).collect()
    }

    /// Where sleepers see that the daemon is gone.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The `vhost` crate's front-end, for messages that this type does not send. Not watched:
    /// an answer that never comes is waited for without end.
    pub fn frontend(&mut self) -> Result<&mut Frontend, Error> {
        Ok(&mut self.connection()?.frontend)
    }

    fn connection(&mut self) -> Result<&mut Connection, Error> {
        self.connection.as_mut().ok_or(Error::Disconnected)
    }

    /// Owner and protocol features. Returns the virtio features offered.
    fn negotiate(&mut self, stream: UnixStream, queue_count: usize) -> Result<u64, Error> {
        let watched = stream.try_clone().map_err(Error::Signal)?;
        let link = stream.as_fd().try_clone_to_owned().map_err(Error::Signal)?;
        let mut connection = Connection {
            frontend: Frontend::from_stream(stream, queue_count as u64),
            protocol_features: VhostUserProtocolFeatures::empty(),
            watchdog: Watchdog::new(watched, self.control_timeout),
        };
        connection.ask("SET_OWNER", |f| f.set_owner())?;
        let offered = connection.ask("GET_FEATURES", |f| f.get_features())?;
        let needed = needed_features();
        if needed & !offered != 0 {
            return Err(Error::Features { offered, needed });
        }
        let protocol = connection.ask("GET_PROTOCOL_FEATURES", Frontend::get_protocol_features)?
            & wanted_protocol_features();
        connection.ask("SET_PROTOCOL_FEATURES", |f| {
            f.set_protocol_features(protocol)
        })?;
        connection.protocol_features = protocol;
        if protocol.contains(VhostUserProtocolFeatures::MQ) {
            let offered = connection.ask("GET_QUEUE_NUM", Frontend::get_queue_num)?;
            if offered < queue_count as u64 {
                let wanted = queue_count;
                return Err(Error::Queues { offered, wanted });
            }
        }
        if protocol.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            connection
                .frontend
                .set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        self.connection = Some(connection);
        self.link.set(Some(link));
        Ok(offered)
    }

    /// Features, memory and rings.
    fn hand_over(&mut self, bases: &[u16]) -> Result<(), Error> {
        let features = self.features;
        let regions: Vec<_> = self.memory.regions().iter().map(|r| r.info()).collect();
        let rings = self.rings.clone();
        let connection = self.connection()?;
        connection.ask("SET_FEATURES", |f| f.set_features(features))?;
        connection.ask("SET_MEM_TABLE", |f| f.set_mem_table(&regions))?;
        for (index, (ring, base)) in rings.iter().zip(bases).enumerate() {
            start_ring(connection, index, ring, *base)?;
        }
        Ok(())
    }
}

fn needed_features() -> u64 {
    1 << VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
}

fn wanted_protocol_features() -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::REPLY_ACK
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
}

fn start_ring(
    connection: &mut Connection,
    index: usize,
    ring: &Ring,
    base: u16,
) -> Result<(), Error> {
    let addresses = VringConfigData {
        queue_max_size: ring.size(),
        queue_size: ring.size(),
        flags: 0,
        desc_table_addr: ring.desc().host_addr(),
        used_ring_addr: ring.used().host_addr(),
        avail_ring_addr: ring.avail().host_addr(),
        log_addr: None,
    };
    connection.ask("SET_VRING_NUM", |f| f.set_vring_num(index, ring.size()))?;
    connection.ask("SET_VRING_BASE", |f| f.set_vring_base(index, base))?;
    connection.ask("SET_VRING_ADDR", |f| f.set_vring_addr(index, &addresses))?;
    connection.ask("SET_VRING_CALL", |f| f.set_vring_call(index, ring.call()))?;
    connection.ask("SET_VRING_ERR", |f| f.set_vring_err(index, ring.err()))?;
    connection.ask("SET_VRING_KICK", |f| f.set_vring_kick(index, ring.kick()))?;
    connection.ask("SET_VRING_ENABLE 1", |f| f.set_vring_enable(index, true))
}
