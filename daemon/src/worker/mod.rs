//! The worker: the one thread of a started virtqueue, with the one [`Io`] it owns.
//!
//! It pops requests, hands them to the service, and completes them in whatever order they are
//! answered. It waits in one place only ([`Io::turn`]), for the kick eventfd, completions,
//! answers of other threads and the device's commands alike; a request that takes long keeps
//! nothing waiting but itself.
//!
//! - [`control`]: how the device talks to it.
//! - [`poll`]: how long it looks for work before it sleeps.
//! - [`serve`]: what it serves requests with.
//! - [`slots`]: what it has in flight.
//! - [`start`]: how it is started.

mod control;
mod poll;
mod serve;
mod slots;
mod start;

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

use pfs_core::fs::{Done, IntentLog, Ticket, RESTART};
use pfs_core::io::{Fd, Io, Wait};
use vm_memory::GuestAddressSpace;

use crate::chain::Chain;
use crate::fuse::Submitted;
use crate::inflight::{crash, now_ms, QueueLog, REPLAYS_MAX};
use crate::queue::{self, ChainError, Queue, Snapshot};
use control::{Command, Control};
pub use control::{Handle, Left, Stopped, DRAIN_LIMIT, HAND_OVER_LIMIT};
use poll::Poll;
use serve::Peek;
pub use serve::Serve;
use slots::Slots;
pub use start::{spawn, Error, Memory, Start};

/// Requests popped before answers are looked at again: few, so that a guest with many in flight
/// goes on while the rest is served, and caches still hold what is answered.
const BATCH_MAX: usize = 16;
/// Bytes moved on the spot before that.
const BATCH_BYTES_MAX: u64 = 64 << 10;
/// Time that may have gone by before that, at one of [`BATCH_GLANCES`]: a driver that gets nothing back
/// goes to sleep, and is dear to wake.
const BATCH_TIME_MAX: Duration = Duration::from_micros(20);
/// Before which requests of a batch the clock is read.
const BATCH_GLANCES: [usize; 4] = [2, 4, 8, 12];

struct Worker<S: Serve> {
    index: u16,
    service: Arc<S>,
    source: S::Source,
    control: Arc<Control>,
    // Before `slots`: the ring goes before the memory that its operations name.
    io: Io,
    queue: Queue,
    slots: Slots<S::Pending>,
    memory: Memory,
    generation: u64,
    call: Option<Fd>,
    /// Changes with each kick eventfd, so that two are never taken for one.
    kick_token: u32,
    enabled: bool,
    /// No more requests are popped.
    stopping: bool,
    /// What cannot be answered soon is left to the next process.
    hands_over: bool,
    /// Requests that wait for others, left in the queue.
    left: usize,
    /// The ring is not touched any more.
    dead: bool,
    /// The driver was asked to kick.
    armed: bool,
    /// Requests were completed and the driver was not asked if it wants to know.
    unsignalled: bool,
    bad_chains: u64,
    poll: Poll,
    /// See [`Start::nap`].
    nap: Duration,
    /// When the last nap ends, or has ended.
    nap_end: Option<Instant>,
    /// Something was popped since that was set.
    popped: bool,
    done: Vec<Done>,
    fired: Vec<u32>,
}

impl<S: Serve> Worker<S> {
    fn new(
        service: Arc<S>,
        start: Start,
        log: QueueLog,
        control: Arc<Control>,
    ) -> Result<(Self, Option<Vec<u16>>), Error> {
        let mut io = Io::new(start.pool)?;
        let generation = start.memory.generation.load(Ordering::Acquire);
        let snapshot = Snapshot::new(start.memory.atomic.memory().into_inner());
        let (queue, left) = Queue::start(start.state, start.indirect, Rc::new(snapshot), log)?;
        io.watch(start.kick, 0);
        let worker = Worker {
            index: start.index,
            source: service.source(start.index, queue.size(), start.indirect),
            service,
            control,
            io,
            slots: Slots::new(queue.size()),
            queue,
            memory: start.memory,
            generation,
            call: start.call,
            kick_token: 0,
            enabled: start.enabled,
            stopping: false,
            hands_over: false,
            left: 0,
            dead: false,
            armed: true,
            unsignalled: false,
            bad_chains: 0,
            poll: Poll::new(start.poll_limit),
            nap: start.nap,
            nap_end: None,
            popped: false,
            done: Vec::new(),
            fired: Vec::new(),
        };
        Ok((worker, left))
    }

    fn run(&mut self, left: Option<Vec<u16>>, stopped: &mpsc::SyncSender<Stopped>) {
        if let Some(heads) = left {
            self.replay(&heads);
        }
        while !self.stopping {
            self.turn(Wait::Forever);
            self.obey();
        }
        self.drain(stopped);
    }

    /// Executes again what a dead worker had popped.
    fn replay(&mut self, heads: &[u16]) {
        if !heads.is_empty() {
            log::info!("queue {}: {} requests again", self.index, heads.len());
        }
        for &head in heads {
            let mut chain = self.slots.spare();
            let filled = self.queue.chain_of(head, &mut chain);
            let replays = self.queue.log().replayed(head);
            if let Err(error) = filled {
                self.drop_bad(head, chain, error);
            } else if replays >= REPLAYS_MAX {
                let request = Peek::at(&chain);
                log::error!(
                    "queue {}: a request of opcode {} was in flight in {replays} crashes; it is \
                     answered EIO",
                    self.index,
                    request.opcode
                );
                let len = request.refuse(&chain);
                self.slots.give_back(chain);
                self.complete(head, len);
            } else {
                self.begin(head, chain);
            }
        }
        // The dead worker may have owed an interrupt.
        self.call();
    }

    /// One turn: pops, hands over, collects, completes, signals, and waits as told if there was
    /// nothing to do.
    fn turn(&mut self, wait: Wait) {
        self.refresh_memory();
        let more = self.pop_batch();
        self.io.collect(&mut self.done);
        self.finish_done();
        let wait = match more {
            true => Wait::No,
            false => match self.nap_left(wait) {
                Some(left) => Wait::AtMost(left),
                None if self.look(wait) || self.arm() => Wait::No,
                None => wait,
            },
        };
        if let Err(error) = self.io.turn(wait, &mut self.done, &mut self.fired) {
            log::error!("queue {}: {error}; trying again", self.index);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        self.poll.slept();
        self.fired.clear();
        self.finish_done();
    }

    /// For how long it lets requests gather, after it has served some: what is left of that, since a
    /// wait may end before its time. None for not at all.
    fn nap_left(&mut self, wait: Wait) -> Option<Duration> {
        if self.nap.is_zero() || wait != Wait::Forever || !self.serving() {
            return None;
        }
        let now = Instant::now();
        if std::mem::take(&mut self.popped) {
            self.nap_end = Some(now + self.nap);
        }
        let left = self.nap_end?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Looks for more to do before sleeping, as long as that is worth it.
    fn look(&mut self, wait: Wait) -> bool {
        if wait == Wait::No || !self.serving() {
            return false;
        }
        // What was asked for is on its way meanwhile; an error shows in the turn that follows.
        let _ = self.io.submit();
        let (queue, io) = (&mut self.queue, &mut self.io);
        // A broken ring is something to do, too.
        self.poll
            .look(|| io.has_news() || queue.has_more().unwrap_or(true))
    }

    /// Whether requests may be popped.
    fn serving(&self) -> bool {
        self.enabled && !self.stopping && !self.dead && self.slots.has_room()
    }

    /// Pops and hands over some requests; answers whether there may be more.
    fn pop_batch(&mut self) -> bool {
        if self.armed && self.serving() {
            self.armed = false;
            self.queue.disable_kicks();
        }
        let (now_ms, begun) = (now_ms(), Instant::now());
        let mut bytes = 0;
        for index in 0..BATCH_MAX {
            bytes += self.io.take_at_once_bytes();
            let late = || BATCH_GLANCES.contains(&index) && begun.elapsed() > BATCH_TIME_MAX;
            if bytes > BATCH_BYTES_MAX || late() {
                break;
            }
            if !self.serving() {
                return false;
            }
            let mut chain = self.slots.spare();
            let popped = self.queue.pop(&mut chain, now_ms);
            let Some(Some(popped)) = self.check(popped) else {
                self.slots.give_back(chain);
                return false;
            };
            self.popped = true;
            let mut filled = popped.chain;
            if filled == Err(ChainError::Unmapped) && self.refresh_memory() {
                filled = self.queue.chain_of(popped.head, &mut chain);
            }
            match filled {
                Ok(()) => self.begin(popped.head, chain),
                Err(error) => self.drop_bad(popped.head, chain, error),
            }
        }
        true
    }

    /// Asks for kicks; answers whether requests have come in meanwhile.
    fn arm(&mut self) -> bool {
        if !self.serving() {
            return false;
        }
        self.armed = true;
        let enabled = self.queue.enable_kicks();
        self.check(enabled).unwrap_or(false)
    }

    /// Hands a request to the service.
    fn begin(&mut self, head: u16, chain: Chain) {
        let log = self.queue.log();
        let request = Peek::at(&chain);
        log.identify(head, request.unique, request.opcode);
        let intent = log.shared().then(|| log.intent(head));
        if intent.is_some() && request.is_forget() {
            // Forgetting twice would free what is in use; not forgetting only keeps it.
            log.executed(head, 0);
        }
        let memory = self.queue.memory().clone();
        let (ticket, slot) = self.slots.begin(head, chain, memory);
        let submitted = self.service.submit(
            &mut self.io,
            ticket,
            &slot.chain,
            &mut slot.pending,
            intent.as_ref().map(|intent| intent as &dyn IntentLog),
            &self.source,
        );
        match submitted {
            Submitted::Later => {}
            Submitted::Replied(len) => self.end(head, len),
            Submitted::NoReply => self.end(head, 0),
        }
    }

    /// Completes what has been answered.
    fn finish_done(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        // By reference: an answer is large.
        for Done { ticket, result } in &mut done {
            self.finish(*ticket, result);
        }
        done.clear();
        self.done = done;
        self.signal();
    }

    fn finish(&mut self, ticket: Ticket, result: &mut pfs_core::fs::Result<pfs_core::fs::Answer>) {
        let Some((head, slot)) = self.slots.find(ticket) else {
            return;
        };
        if self.stopping && matches!(result, Err(RESTART)) {
            // It stays in flight in the log, for whoever serves the queue next.
            self.left += 1;
            return self.slots.end(head);
        }
        // Once the ring is gone, its memory may have another use: the answer goes nowhere.
        let nowhere = Chain::default();
        let chain = if self.dead { &nowhere } else { &slot.chain };
        let len = self.service.answer(&mut slot.pending, chain, result);
        self.end(head, len);
    }

    /// A request is done with.
    fn end(&mut self, head: u16, len: u32) {
        crash::point(crash::Point::AfterAnswer);
        self.slots.end(head);
        self.complete(head, len);
    }

    fn complete(&mut self, head: u16, len: u32) {
        if !self.dead {
            self.unsignalled = true;
            self.queue.complete(head, len);
        }
    }

    fn drop_bad(&mut self, head: u16, chain: Chain, error: ChainError) {
        if self.bad_chains == 0 {
            log::warn!(
                "queue {}: dropped a request: {error}; the guest's driver is at fault, and this \
                 is not said again",
                self.index
            );
        }
        self.bad_chains += 1;
        self.slots.give_back(chain);
        self.complete(head, 0);
    }

    /// Tells the driver of completed requests, if it wants to know.
    fn signal(&mut self) {
        if !self.unsignalled || self.dead || self.call.is_none() {
            return;
        }
        self.unsignalled = false;
        if self.queue.needs_signal() {
            self.call();
        }
    }

    fn call(&self) {
        if let Some(call) = &self.call {
            // Fails only where 2^64 - 1 calls are pending, or on what is no eventfd.
            let _ = rustix::io::write(call, &1u64.to_ne_bytes());
        }
    }

    /// Takes up a new state of guest memory; answers whether there was one.
    fn refresh_memory(&mut self) -> bool {
        let generation = self.memory.generation.load(Ordering::Acquire);
        if generation == self.generation || self.dead {
            return false;
        }
        self.generation = generation;
        let snapshot = Snapshot::new(self.memory.atomic.memory().into_inner());
        let taken = self.queue.set_memory(Rc::new(snapshot));
        self.check(taken);
        !self.dead
    }

    /// The value; or, where the ring is broken, stops it.
    fn check<T>(&mut self, result: Result<T, queue::Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if !self.dead {
                    log::error!(
                        "queue {} stopped: {error}; it works again once the guest's driver has \
                         set it up anew",
                        self.index
                    );
                }
                self.dead = true;
                None
            }
        }
    }

    /// Does what the device says.
    fn obey(&mut self) {
        for command in self.control.take() {
            match command {
                Command::Kick(kick) => {
                    self.io.unwatch(self.kick_token);
                    self.kick_token ^= 1;
                    self.io.watch(kick, self.kick_token);
                }
                Command::Call(call) => {
                    self.call = call;
                    self.signal();
                }
                Command::Enable(enabled) => self.enabled = enabled,
                Command::Stop { last } => {
                    self.stopping = true;
                    self.hands_over = last && self.queue.log().shared();
                }
            }
        }
    }

    /// Answers what is in flight, but for what waits for others, then says how the queue was left.
    fn drain(&mut self, stopped: &mpsc::SyncSender<Stopped>) {
        let limit = match self.hands_over {
            true => HAND_OVER_LIMIT,
            false => DRAIN_LIMIT,
        };
        let deadline = Instant::now() + limit;
        self.service.stop_waits(&self.source);
        self.io.collect(&mut self.done);
        self.finish_done();
        while self.slots.in_flight() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.turn(Wait::AtMost(left));
            self.obey();
        }
        let hung = self.slots.in_flight();
        let left = self.left;
        let hands_over = hung == 0 || self.hands_over;
        if hung + left > 0 && hands_over {
            log::info!(
                "queue {}: leaves {} requests to the next",
                self.index,
                hung + left
            );
            self.queue.hand_over();
        } else {
            if hung > 0 {
                self.complain(hung + left);
            }
            self.queue.stop();
        }
        self.dead = true;
        let base = self.queue.next_avail();
        // The device may have given up waiting; then nobody wants to know.
        let left = (left > 0 && hands_over).then(|| Left {
            records: self.queue.log().records().clone(),
            base,
        });
        let _ = stopped.send(Stopped { base, hung, left });
        while self.slots.in_flight() > 0 || self.io.in_flight() > 0 {
            self.turn(Wait::Forever);
        }
    }

    fn complain(&self, hung: usize) {
        let requests = self.queue.log().records().in_flight(now_ms());
        let Some(oldest) = requests.iter().max_by_key(|request| request.age_ms) else {
            return;
        };
        log::error!(
            "queue {}: abandons {hung} requests after {} s, the oldest of opcode {} after {} ms; \
             is the storage behind it alive?",
            self.index,
            DRAIN_LIMIT.as_secs(),
            oldest.opcode,
            oldest.age_ms
        );
    }
}

#[cfg(test)]
mod tests;
