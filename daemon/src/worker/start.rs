//! How a worker is started.

use std::sync::atomic::AtomicU64;
use std::sync::{mpsc, Arc};
use std::time::Duration;

use pfs_core::io::{Fd, Pool};
use virtio_queue::QueueState;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use super::control::{Control, Left};
use super::{Handle, Serve, Worker};
use crate::inflight::{self, InflightLog, QueueLog};
use crate::queue;

/// A worker cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot start a thread: {0}; is the process limit (ulimit -u, pids cgroup) reached?")]
    Thread(#[source] std::io::Error),
    #[error(transparent)]
    Io(#[from] pfs_core::io::Error),
    #[error("the ring is unusable: {0}")]
    Queue(#[from] queue::Error),
    #[error(transparent)]
    Inflight(#[from] inflight::Error),
    #[error("its thread ended while starting")]
    Ended,
}

/// The guest's memory as it changes.
#[derive(Clone)]
pub struct Memory {
    /// What the VMM described last.
    pub atomic: GuestMemoryAtomic<GuestMemoryMmap>,
    /// Grows whenever `atomic` has changed.
    pub generation: Arc<AtomicU64>,
}

/// What a worker starts with.
pub struct Start {
    /// Number of the virtqueue.
    pub index: u16,
    /// Its size, addresses and base.
    pub state: QueueState,
    /// INDIRECT_DESC was negotiated.
    pub indirect: bool,
    pub enabled: bool,
    pub kick: Fd,
    pub call: Option<Fd>,
    pub memory: Memory,
    pub pool: Arc<Pool>,
    /// How long it may look for work before it sleeps; zero for not at all.
    pub poll_limit: Duration,
    /// How long it lets requests gather after it has served some, without being kicked; zero for not
    /// at all. For a queue that nobody waits for.
    pub nap: Duration,
    /// Where requests in flight are recorded, if the records shall outlive the process.
    pub inflight: Option<Arc<InflightLog>>,
    /// What the last worker of the queue left in it.
    pub left: Option<Left>,
}

/// Starts a worker; answers once it is ready to serve.
pub fn spawn<S: Serve>(service: Arc<S>, start: Start) -> Result<Handle, Error> {
    let log = log(&start)?;
    let records = log.records().clone();
    let control = Arc::new(Control::default());
    let own_control = control.clone();
    let (ready, is_ready) = mpsc::sync_channel(1);
    let (done, stopped) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name(format!("vq-{}", start.index))
        .spawn(move || {
            let _guard = AbortOnPanic;
            match Worker::new(service, start, log, own_control) {
                Ok((mut worker, left)) => {
                    let told = ready.send(Ok(worker.io.mailbox().clone()));
                    if told.is_ok() {
                        worker.run(left, &done);
                    }
                }
                // Whoever started it may have given up: then nobody wants to know.
                Err(error) => drop(ready.send(Err(error))),
            }
        })
        .map_err(Error::Thread)?;
    let mailbox = is_ready.recv().map_err(|_| Error::Ended)??;
    Ok(Handle {
        control,
        mailbox,
        records,
        stopped,
    })
}

/// The log of the queue's requests in flight: with those in it that were left there, if it is
/// still the same queue.
fn log(start: &Start) -> Result<QueueLog, inflight::Error> {
    let (base, size) = (start.state.next_avail, start.state.size);
    let same = |left: &Left| left.base == base;
    match (&start.inflight, &start.left) {
        (Some(shared), left) => {
            let mut log = shared.queue(start.index, size)?;
            if left.as_ref().is_some_and(|left| !same(left)) {
                log.stop();
            }
            Ok(log)
        }
        (None, Some(left)) if same(left) && left.records.len() == size => {
            Ok(QueueLog::again(left.records.clone()))
        }
        (None, _) => QueueLog::private(size),
    }
}

/// The kernel may be writing to memory on behalf of a worker's requests. So a worker that panics
/// takes the process with it, which is restarted, rather than to free that memory.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("a queue worker panicked; this is a bug, and the daemon ends");
            std::process::abort();
        }
    }
}
