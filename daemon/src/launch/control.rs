//! The control plane of a running daemon: signals, and the wait for the device's end.

use std::os::unix::net::UnixListener;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{signal, Signal, SignalKind};
use tokio::sync::oneshot;

use crate::device::{self, Device, Served};

/// Control is lost.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot set up the control plane")]
    Setup(#[source] std::io::Error),
    #[error("cannot start the device's thread")]
    Thread(#[source] std::io::Error),
    #[error("the device's thread has failed; see the messages before this one")]
    ThreadFailed,
    #[error(transparent)]
    Device(#[from] device::Error),
    #[error("ended by a second signal, with requests unanswered")]
    Forced,
}

/// Takes signals from when it is made, so that none leaves a socket behind.
pub(super) struct Control {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Control {
    pub(super) fn new() -> Result<Control, Error> {
        // On this thread alone: a sandbox must come before any other.
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(Error::Setup)?;
        let _inside = runtime.enter();
        Ok(Control {
            terminate: signal(SignalKind::terminate()).map_err(Error::Setup)?,
            interrupt: signal(SignalKind::interrupt()).map_err(Error::Setup)?,
            runtime,
        })
    }

    /// Lets `device` serve the VMM that connects to `listener`, until it ends. The first signal
    /// stops all queues in order; the second does not wait for what is in flight.
    pub(super) fn run(mut self, device: &Device, listener: UnixListener) -> Result<Served, Error> {
        let (ended, mut end) = oneshot::channel();
        let serving = device.clone();
        std::thread::Builder::new()
            .name("device".to_owned())
            .spawn(move || {
                // Nobody listens any more after a second signal.
                let _ = ended.send(serving.serve(listener));
            })
            .map_err(Error::Thread)?;
        self.runtime.block_on(async {
            let mut stopping = false;
            loop {
                tokio::select! {
                    served = &mut end => {
                        return Ok(served.map_err(|_| Error::ThreadFailed)??);
                    }
                    _ = self.terminate.recv() => {}
                    _ = self.interrupt.recv() => {}
                }
                if std::mem::replace(&mut stopping, true) {
                    return Err(Error::Forced);
                }
                log::info!("told to end: stopping all queues");
                device.shutdown();
            }
        })
    }
}
