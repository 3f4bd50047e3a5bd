//! A whole mount: device, INIT, one client for each request queue.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::abi::{self, FsOptions, InitIn, InitOut};
use super::client::{Client, Limits, Shared};
use super::error::Error;
use super::hiprio::Hiprio;
use super::ops;
use crate::ring::device::{Device, DeviceConfig};
use crate::ring::memory::PAGE_SIZE;
use crate::ring::queue::Queue;

/// Descriptors of a request that carry no data (FUSE_HEADER_OVERHEAD in Linux).
const HEADER_DESCRIPTORS: usize = 4;

/// Largest write if INIT's reply names no number of pages.
const DEFAULT_MAX_PAGES: u16 = 32;

/// What the guest offers in INIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitOptions {
    /// Minor version of the protocol.
    pub minor: u32,
    /// Bytes.
    pub max_readahead: u32,
    /// All 64 flags; the upper half is sent if FUSE_INIT_EXT is among them.
    pub flags: u64,
}

impl Default for InitOptions {
    /// What a 6.12 guest offers.
    fn default() -> Self {
        InitOptions {
            minor: 41,
            max_readahead: 128 << 10,
            flags: abi::LINUX_6_12_FLAGS,
        }
    }
}

/// Shape of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The device.
    pub device: DeviceConfig,
    /// INIT.
    pub init: InitOptions,
    /// Requests in flight on each queue.
    pub depth: u16,
    /// How long a request may go unanswered.
    pub timeout: Duration,
}

impl Default for SessionConfig {
    /// One queue, 64 requests in flight, 10 s.
    fn default() -> Self {
        SessionConfig {
            device: DeviceConfig::default(),
            init: InitOptions::default(),
            depth: 64,
            timeout: Duration::from_secs(10),
        }
    }
}

impl SessionConfig {
    /// The default with another number of request queues.
    pub fn with_queues(request_queues: usize) -> Self {
        let mut config = SessionConfig::default();
        config.device.request_queues = request_queues;
        config
    }
}

/// A mounted file system.
pub struct Session {
    /// The vhost-user side.
    pub device: Device,
    /// One for each request queue. May be taken out to work on threads of their own.
    pub clients: Vec<Client>,
    /// What the daemon answered to INIT.
    pub init: InitOut,
    init_options: InitOptions,
    shared: Arc<Shared>,
}

impl Session {
    /// Connects to a daemon and sends INIT on the first request queue.
    pub fn connect(stream: UnixStream, config: &SessionConfig) -> Result<Self, Error> {
        let mut session = Self::connect_without_init(stream, config)?;
        session.send_init(config.init)?;
        Ok(session)
    }

    /// Connects to a daemon and sends nothing: for tests of INIT itself.
    pub fn connect_without_init(stream: UnixStream, config: &SessionConfig) -> Result<Self, Error> {
        let (device, queues) = Device::connect(stream, &config.device)?;
        let (shared, clients) = clients_of(&device, queues, config)?;
        Ok(Session {
            device,
            clients,
            init: InitOut::default(),
            init_options: config.init,
            shared,
        })
    }

    /// What a guest that reboots without a word does: [`Device::reset`], then INIT. What was in
    /// flight is never taken.
    pub fn reboot(&mut self, config: &SessionConfig) -> Result<(), Error> {
        let queues = self.device.reset(&config.device)?;
        (self.shared, self.clients) = clients_of(&self.device, queues, config)?;
        self.send_init(config.init)?;
        Ok(())
    }

    /// Sends INIT and keeps what the daemon answers. At mount, and again with a daemon that
    /// knows nothing of the session.
    pub fn send_init(&mut self, options: InitOptions) -> Result<InitOut, Error> {
        let extended = options.flags & FsOptions::INIT_EXT.bits() != 0;
        let request = ops::init(&InitIn {
            major: 7,
            minor: options.minor,
            max_readahead: options.max_readahead,
            flags: options.flags as u32,
            flags2: if extended {
                (options.flags >> 32) as u32
            } else {
                0
            },
            unused: [0; 11],
        });
        self.init = self.fs().call(&request)?;
        self.init_options = options;
        let limits = self.limits();
        for client in &mut self.clients {
            client.limits = limits;
        }
        Ok(self.init)
    }

    /// The flags that both sides have.
    pub fn flags(&self) -> u64 {
        let mut flags = u64::from(self.init.flags);
        if flags & FsOptions::INIT_EXT.bits() != 0 {
            flags |= u64::from(self.init.flags2) << 32;
        }
        flags & self.init_options.flags
    }

    /// The client of the first request queue.
    pub fn fs(&mut self) -> &mut Client {
        &mut self.clients[0]
    }

    /// Gives everything to another daemon that goes on with the same FUSE session: what was in
    /// flight is offered again, and no INIT is sent. The daemon before must be dead.
    ///
    /// For a daemon that keeps an in-flight log of its own, or with clients that are elsewhere,
    /// see [`Device::reattach`].
    pub fn reattach(&mut self, stream: UnixStream) -> Result<(), Error> {
        let mut bases = vec![self.offer_hiprio_again()?];
        for client in &mut self.clients {
            bases.push(client.offer_again()?);
        }
        self.device.reattach(stream, &bases)?;
        Ok(())
    }

    /// [`Client::offer_again`] of the hiprio queue.
    pub fn offer_hiprio_again(&mut self) -> Result<u16, Error> {
        self.shared.hiprio().offer_again()
    }

    fn limits(&self) -> Limits {
        let flags = self.flags();
        let max_pages = if flags & FsOptions::MAX_PAGES.bits() != 0 {
            self.init.max_pages
        } else {
            DEFAULT_MAX_PAGES
        };
        let queue_size = self.device.rings()[0].size();
        let data_descriptors = usize::from(queue_size).saturating_sub(HEADER_DESCRIPTORS);
        let pages = usize::from(max_pages).min(data_descriptors).max(1);
        let max_write = (self.init.max_write as usize).max(PAGE_SIZE);
        Limits {
            io_len: max_write.min(pages * PAGE_SIZE),
            setxattr_ext: flags & abi::SETXATTR_EXT != 0,
        }
    }
}

/// The clients of a device's queues, and what they share.
fn clients_of(
    device: &Device,
    queues: Vec<Queue>,
    config: &SessionConfig,
) -> Result<(Arc<Shared>, Vec<Client>), Error> {
    let mut queues = queues.into_iter();
    let link = device.link();
    let hiprio = queues.next().ok_or(Error::Busy)?;
    let hiprio = Hiprio::new(hiprio, device.memory(), Arc::clone(link))?;
    let shared = Arc::new(Shared::new(hiprio));
    let client = |queue| {
        Client::new(
            queue,
            device.memory(),
            Arc::clone(&shared),
            Arc::clone(link),
            config.depth,
            config.timeout,
        )
    };
    let clients = queues.map(client).collect::<Result<_, _>>()?;
    Ok((Arc::clone(&shared), clients))
}
