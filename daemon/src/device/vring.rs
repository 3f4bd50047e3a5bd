//! One ring as the VMM sets it up, and the worker that serves it.

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pfs_core::io::Fd;
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;
use virtio_queue::{Error as VirtQueError, QueueT};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use super::Shared;
use crate::inflight::{InFlight, Records};
use crate::worker::{Handle, Left, Memory, Start};

/// The queue of requests that have no answer, FORGET and INTERRUPT (virtio 1.2, 5.11.2).
const HIPRIO: u16 = 0;
/// How long it lets them gather: the requests beside them are what the processor is for.
const HIPRIO_NAP: Duration = Duration::from_micros(500);

type Guest = GuestMemoryAtomic<GuestMemoryMmap>;

thread_local! {
    /// The device for which this thread makes rings: their constructor is not told.
    static MAKING: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// Runs `make`, which makes the rings of the device behind `shared`.
pub(super) fn making<T>(shared: &Arc<Shared>, make: impl FnOnce() -> T) -> T {
    shared.rings().clear();
    MAKING.set(Some(shared.clone()));
    let made = make();
    MAKING.set(None);
    made
}

/// What a ring has beyond its `VringMutex`.
#[derive(Default)]
struct State {
    kick: Option<Fd>,
    call: Option<Fd>,
    enabled: bool,
    /// The VMM set a size that a ring cannot have.
    bad_size: Option<u16>,
    worker: Option<Handle>,
    /// What the last worker left in the ring.
    left: Option<Left>,
}

/// One ring.
pub(super) struct Ring {
    index: u16,
    shared: Arc<Shared>,
    memory: Guest,
    inner: VringMutex<Guest>,
    /// Held while the queue is being stopped, so that nobody sees a base that is not final.
    state: Mutex<State>,
    records: Mutex<Option<Records>>,
}

impl Ring {
    pub(super) fn index(&self) -> u16 {
        self.index
    }

    /// What the ring has in flight.
    pub(super) fn in_flight(&self, now_ms: u64) -> Vec<InFlight> {
        let records = self.records().clone();
        records.map_or(Vec::new(), |records| records.in_flight(now_ms))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> MutexGuard<'_, Option<Records>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to serve the ring. Where that fails the ring is dead until it is set up anew.
    fn start(&self) {
        let mut state = self.state();
        let Some(kick) = state.kick.clone() else {
            return;
        };
        if self.shared.closed.load(Ordering::Acquire) || state.worker.is_some() {
            return;
        }
        if let Some(size) = state.bad_size {
            log::error!(
                "queue {}: {size} is not a size a queue can have",
                self.index
            );
            return;
        }
        let features = self.shared.features.load(Ordering::Acquire);
        let (poll_limit, nap) = match self.index {
            HIPRIO => (Duration::ZERO, HIPRIO_NAP),
            _ => (self.shared.poll_limit, Duration::ZERO),
        };
        let start = Start {
            index: self.index,
            state: self.inner.get_ref().get_queue().state(),
            indirect: features & 1 << VIRTIO_RING_F_INDIRECT_DESC != 0,
            enabled: state.enabled,
            kick,
            call: state.call.clone(),
            memory: Memory {
                atomic: self.memory.clone(),
                generation: self.shared.generation.clone(),
            },
            pool: self.shared.pool.clone(),
            poll_limit,
            nap,
            inflight: self.shared.inflight.clone(),
            left: state.left.take(),
        };
        match (self.shared.starter)(start) {
            Ok(worker) => {
                *self.records() = Some(worker.records().clone());
                state.worker = Some(worker);
                log::debug!("queue {} started", self.index);
            }
            Err(error) => log::error!("queue {} is not served: {error}", self.index),
        }
    }

    /// Tells the worker to stop, without waiting for it. With `last` the process is about to end.
    pub(super) fn begin_stop(&self, last: bool) {
        if let Some(worker) = &self.state().worker {
            worker.begin_stop(last);
        }
    }

    /// After [`Ring::begin_stop`], waits until the queue is drained, and takes over its base.
    pub(super) fn stopped(&self) {
        let mut state = self.state();
        let Some(worker) = state.worker.take() else {
            return;
        };
        match worker.stopped() {
            Some(stopped) => {
                self.inner.set_queue_next_avail(stopped.base);
                state.left = stopped.left;
                log::debug!("queue {} stopped at {}", self.index, stopped.base);
            }
            None => log::error!("queue {} does not stop; its worker hangs", self.index),
        }
    }
}

/// [`Ring`] as `vhost-user-backend` handles it.
#[derive(Clone)]
pub struct Vring {
    ring: Arc<Ring>,
}

impl<'a> VringStateGuard<'a, Guest> for Vring {
    type G = MutexGuard<'a, VringState<Guest>>;
}

impl<'a> VringStateMutGuard<'a, Guest> for Vring {
    type G = MutexGuard<'a, VringState<Guest>>;
}

/// An eventfd of the VMM's twice, as two owners each want one.
fn twice(file: Option<File>) -> (Option<File>, Option<Fd>) {
    let own = file.as_ref().map(File::try_clone);
    match own.transpose() {
        Ok(own) => (file, own.map(|own| Arc::new(OwnedFd::from(own)))),
        Err(error) => {
            log::error!("cannot keep an eventfd: {error}; is ulimit -n reached?");
            (None, None)
        }
    }
}

impl VringT<Guest> for Vring {
    fn new(memory: Guest, size_max: u16) -> Result<Self, VirtQueError> {
        let shared = MAKING.with_borrow(Option::clone);
        let shared = shared.ok_or(VirtQueError::QueueNotReady)?;
        let mut rings = shared.rings();
        let ring = Arc::new(Ring {
            index: rings.len() as u16,
            shared: shared.clone(),
            inner: VringMutex::new(memory.clone(), size_max)?,
            memory,
            state: Mutex::default(),
            records: Mutex::default(),
        });
        rings.push(ring.clone());
        Ok(Vring { ring })
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Guest>>::G {
        self.ring.inner.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Guest>>::G {
        self.ring.inner.get_mut()
    }

    // Only a worker touches the ring itself; nobody asks these of a `Vring`.

    fn add_used(&self, _head: u16, _len: u32) -> Result<(), VirtQueError> {
        Err(VirtQueError::QueueNotReady)
    }

    fn signal_used_queue(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn enable_notification(&self) -> Result<bool, VirtQueError> {
        Err(VirtQueError::QueueNotReady)
    }

    fn disable_notification(&self) -> Result<(), VirtQueError> {
        Err(VirtQueError::QueueNotReady)
    }

    fn needs_notification(&self) -> Result<bool, VirtQueError> {
        Err(VirtQueError::QueueNotReady)
    }

    fn set_enabled(&self, enabled: bool) {
        self.ring.inner.set_enabled(enabled);
        let mut state = self.ring.state();
        state.enabled = enabled;
        if let Some(worker) = &state.worker {
            worker.set_enabled(enabled);
        }
    }

    fn set_queue_info(&self, table: u64, avail: u64, used: u64) -> Result<(), VirtQueError> {
        self.ring.inner.set_queue_info(table, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.ring.inner.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.ring.inner.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, index: u16) {
        self.ring.inner.set_queue_next_used(index);
    }

    fn queue_used_idx(&self) -> Result<u16, VirtQueError> {
        self.ring.inner.queue_used_idx()
    }

    fn set_queue_size(&self, size: u16) {
        self.ring.inner.set_queue_size(size);
        let taken = self.ring.inner.get_ref().get_queue().size();
        self.ring.state().bad_size = (taken != size).then_some(size);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.ring.inner.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.ring.inner.set_queue_ready(ready);
        match ready {
            true => self.ring.start(),
            false => {
                self.ring.begin_stop(false);
                self.ring.stopped();
            }
        }
    }

    fn set_kick(&self, file: Option<File>) {
        let (file, own) = twice(file);
        self.ring.inner.set_kick(file);
        let mut state = self.ring.state();
        state.kick = own;
        if let (Some(worker), Some(kick)) = (&state.worker, &state.kick) {
            worker.set_kick(kick.clone());
        }
    }

    fn read_kick(&self) -> std::io::Result<bool> {
        self.ring.inner.read_kick()
    }

    fn set_call(&self, file: Option<File>) {
        let (file, own) = twice(file);
        self.ring.inner.set_call(file);
        let mut state = self.ring.state();
        state.call = own;
        if let Some(worker) = &state.worker {
            worker.set_call(state.call.clone());
        }
    }

    fn set_err(&self, file: Option<File>) {
        self.ring.inner.set_err(file);
    }
}
