//! One VMM's connection, from its beginning to its end.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use rustix::event::{poll, PollFd, PollFlags};
use vhost::vhost_user::{Error as VhostUserError, Listener};
use vhost_user_backend::VhostUserDaemon;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use super::{vring, Device, Error};

/// Why serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The VMM closed its connection: it has ended, or let go of the device.
    Disconnected,
    /// [`Device::shutdown`] was called. The connection stays open until the process ends.
    ShutDown,
}

impl Device {
    /// Waits for one VMM to connect to `listener`, which is listening already, and serves it
    /// until it disconnects or [`Device::shutdown`] is called. All queues are drained when this
    /// returns, as far as the storage behind them answers.
    pub fn serve(&self, listener: UnixListener) -> Result<Served, Error> {
        if self.wait(Some(listener.as_fd()))? {
            return Ok(Served::ShutDown);
        }
        self.shared.closed.store(false, Ordering::Release);
        // `accept` would spin on a socket that does not block.
        listener.set_nonblocking(false).map_err(Error::Listener)?;
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let name = "vhost-user".to_owned();
        let make = || VhostUserDaemon::new(name, self.clone(), memory);
        let mut daemon =
            vring::making(&self.shared, make).map_err(|error| Error::Setup(error.to_string()))?;
        daemon
            .start(&mut Listener::from(listener))
            .map_err(|error| Error::Setup(error.to_string()))?;
        log::info!("a VMM has connected");

        let (ended, result) = mpsc::channel();
        let device = self.clone();
        std::thread::Builder::new()
            .name("vhost-user-end".to_owned())
            .spawn(move || {
                // Nobody listens any more after a shutdown.
                let _ = ended.send(end_of(daemon.wait()));
                device.shared.wake();
            })
            .map_err(Error::Thread)?;

        let served = loop {
            if self.wait(None)? {
                break Ok(Served::ShutDown);
            }
            if let Ok(result) = result.try_recv() {
                break result.map(|()| Served::Disconnected);
            }
        };
        self.stop_all();
        self.shared.rings().clear();
        served
    }

    /// Waits for `listener` to have a connection, or to be woken; answers whether it is time to
    /// end.
    fn wait(&self, listener: Option<BorrowedFd<'_>>) -> Result<bool, Error> {
        let wake = self.shared.wake.as_fd();
        let mut fds = vec![PollFd::new(&wake, PollFlags::IN)];
        if let Some(listener) = &listener {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::Wait(errno)),
            }
        }
        // Empty if it was the listener.
        let _ = rustix::io::read(wake, &mut [0; 8]);
        Ok(self.shared.shut_down.load(Ordering::Acquire))
    }
}

/// Whether the end of a connection is an ordinary one.
fn end_of(result: vhost_user_backend::Result<()>) -> Result<(), Error> {
    use vhost_user_backend::Error::HandleRequest;
    match result {
        // A VMM that ends is seen as any of these, depending on the moment.
        Ok(())
        | Err(HandleRequest(
            VhostUserError::Disconnected
            | VhostUserError::PartialMessage
            | VhostUserError::SocketBroken(_),
        )) => Ok(()),
        Err(error) => Err(Error::Protocol(error.to_string())),
    }
}
