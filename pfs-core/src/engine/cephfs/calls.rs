//! The threads that make blocking calls, so that no queue does.
//!
//! A call that the client answers from its own memory takes a microsecond or two, one that asks a
//! server a thousand times as long, and one whose server is dead has no end. So calls are told apart by
//! kind: of a kind that has lately been quick, one thread makes one after the other, since waking
//! another costs more than the call; of a slow kind, each has a thread of its own, as long as there
//! are any. A guess can be wrong: a watcher sees when what is queued gets no turn, and wakes
//! another thread.
//!
//! Threads are bounded. So are calls: no queue has more requests in flight than descriptors.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fs::reply::{gather, Gathered};
use crate::sync::lock;

/// Most threads, and so most calls that wait for servers at once.
const THREADS_MAX: usize = 512;
/// Stack of a thread, in bytes: the library's own calls go deep.
const STACK_BYTES: usize = 512 << 10;
/// How long an idle thread stays.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// A kind whose calls take longer than this, in nanoseconds, is slow.
const SLOW_NSEC: u32 = 30_000;
/// How long queued calls may get no turn.
const TICK: Duration = Duration::from_micros(500);
/// Ticks without need after which the watcher looks less often.
const QUIET_TICKS: u32 = 40;
/// How often calls under way are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a call may take before the log says so; later lines come after twice the time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Kinds of calls: their names in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Lookup,
    Getattr,
    Setattr,
    Names,
    Open,
    Create,
    Read,
    Write,
    Sync,
    Close,
    Readdir,
    Xattr,
    Lock,
    Other,
}

const KINDS: usize = Kind::Other as usize + 1;

type Job = Box<dyn FnOnce() + Send>;

struct Queued {
    kind: Kind,
    job: Job,
}

/// What ends a request that takes too long; answers whether there was still one.
struct Expiry {
    at: Instant,
    expire: Box<dyn FnOnce() -> bool + Send>,
}

/// A call under way.
struct Running {
    kind: Kind,
    since: Instant,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    /// Calls under way, by when they began: the first is the oldest.
    running: BTreeMap<u64, Running>,
    /// Calls begun in all.
    begun: u64,
    threads: usize,
    /// Threads that sleep, and that nobody has woken.
    idle: usize,
    /// Threads woken that still sleep.
    woken: usize,
    /// Threads that are awake, or woken, and in no slow call.
    quick: usize,
    watcher: Watcher,
    /// Workers with answers of quick calls, to be woken when there is no more of those.
    gathered: Gathered,
    /// In the order of their times.
    expiries: VecDeque<Expiry>,
    closed: bool,
}

/// What the thread that watches over the others does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Watcher {
    /// There is none yet.
    #[default]
    None,
    /// It sleeps until it is woken: nothing happens.
    Asleep,
    /// It looks every [`LOOK`].
    Looking,
    /// It looks every [`TICK`].
    Ticking,
}

impl State {
    /// Whether there is nothing to watch over.
    fn is_quiet(&self) -> bool {
        self.running.is_empty() && self.expiries.is_empty()
    }
}

struct Inner {
    state: Mutex<State>,
    work: Condvar,
    watch: Condvar,
    /// How long calls of each kind take, in nanoseconds, on a moving average.
    nsec: [AtomicU32; KINDS],
}

/// See the [module](self).
pub struct Calls(Arc<Inner>);

impl Calls {
    /// No threads yet: they begin as they are needed.
    pub fn new() -> Calls {
        Calls(Arc::new(Inner {
            state: Mutex::default(),
            work: Condvar::new(),
            watch: Condvar::new(),
            // The first are taken for slow.
            nsec: std::array::from_fn(|_| AtomicU32::new(SLOW_NSEC * 2)),
        }))
    }

    /// Runs `expire` when so much time is gone, unless the request that it is about is answered by then,
    /// which it finds out.
    pub fn expire_after(&self, limit: Duration, expire: impl FnOnce() -> bool + Send + 'static) {
        let at = Instant::now() + limit;
        let expire = Box::new(expire);
        lock(&self.0.state)
            .expiries
            .push_back(Expiry { at, expire });
    }

    /// Has `job` run by one of the threads. It is dropped unused once they are closed.
    pub fn run(&self, kind: Kind, job: impl FnOnce() + Send + 'static) {
        let queued = Queued {
            kind,
            job: Box::new(job),
        };
        let inner = &self.0;
        let mut state = lock(&inner.state);
        if state.closed {
            // What it holds answers on drop, and may ask for a lock.
            drop(state);
            drop(queued);
            return;
        }
        state.queue.push_back(queued);
        let goes_at_once = state.quick == 0 || inner.is_slow(kind);
        if goes_at_once {
            inner.wake_one(&mut state);
        }
        match state.watcher {
            Watcher::None | Watcher::Asleep => inner.wake_watcher(&mut state, Watcher::Looking),
            Watcher::Looking if !goes_at_once => inner.wake_watcher(&mut state, Watcher::Ticking),
            _ => {}
        }
    }

    /// Takes no more calls, and waits for those under way; answers whether they ended in time.
    pub fn close(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.0.end();
        while lock(&self.0.state).threads > 0 {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Inner {
    fn end(&self) {
        let unused = {
            let mut state = lock(&self.state);
            state.closed = true;
            std::mem::take(&mut state.queue)
        };
        self.work.notify_all();
        self.watch.notify_all();
        drop(unused);
    }

    fn is_slow(&self, kind: Kind) -> bool {
        self.nsec[kind as usize].load(Ordering::Relaxed) > SLOW_NSEC
    }

    fn took(&self, kind: Kind, time: Duration) {
        let average = &self.nsec[kind as usize];
        let before = average.load(Ordering::Relaxed);
        // One slow call among quick ones does not make the kind slow for long.
        let time = u32::try_from(time.as_nanos())
            .unwrap_or(u32::MAX)
            .min(SLOW_NSEC * 4);
        average.store(before - before / 8 + time / 8, Ordering::Relaxed);
    }

    /// Wakes a thread for what is queued, or starts one.
    fn wake_one(self: &Arc<Self>, state: &mut State) {
        if state.idle > 0 {
            state.idle -= 1;
            state.woken += 1;
            state.quick += 1;
            self.work.notify_one();
        } else if state.threads < THREADS_MAX {
            let inner = self.clone();
            match spawn("ceph-call", move || inner.work()) {
                Ok(()) => {
                    state.threads += 1;
                    state.quick += 1;
                }
                Err(error) => {
                    log::error!("cannot start a thread for calls to the cluster: {error}")
                }
            }
        }
    }

    /// The life of a thread.
    fn work(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        loop {
            while let Some(queued) = state.queue.pop_front() {
                state = self.run_one(state, queued);
            }
            if !state.gathered.is_empty() {
                state = self.wake_workers(state);
                continue;
            }
            state.quick -= 1;
            if state.closed {
                break;
            }
            state.idle += 1;
            match self.sleep(state) {
                Ok(awake) => state = awake,
                Err(ended) => {
                    state = ended;
                    break;
                }
            }
        }
        state.threads -= 1;
    }

    /// Runs a call; the others go on meanwhile.
    fn run_one<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        Queued { kind, job }: Queued,
    ) -> MutexGuard<'a, State> {
        let (slow, since) = (self.is_slow(kind), Instant::now());
        state.begun += 1;
        let id = state.begun;
        state.running.insert(id, Running { kind, since });
        if slow {
            state.quick -= 1;
            if state.quick == 0 && !state.queue.is_empty() {
                self.wake_one(&mut state);
            }
        } else if !state.queue.is_empty() && state.watcher == Watcher::Looking {
            // Those behind it wait for a guess.
            self.wake_watcher(&mut state, Watcher::Ticking);
        }
        if slow && !state.gathered.is_empty() {
            state = self.wake_workers(state);
        }
        drop(state);
        let run = || catch_unwind(AssertUnwindSafe(job));
        let (ended, gathered) = match slow {
            true => (run(), Gathered::default()),
            false => gather(run),
        };
        if ended.is_err() {
            log::error!("a call to the cluster panicked; its request fails");
        }
        self.took(kind, since.elapsed());
        let mut state = lock(&self.state);
        state.gathered.add(gathered);
        state.running.remove(&id);
        state.quick += usize::from(slow);
        state
    }

    /// Wakes the workers that have answers, without the lock.
    fn wake_workers<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let gathered = std::mem::take(&mut state.gathered);
        drop(state);
        gathered.wake();
        lock(&self.state)
    }

    /// Sleeps until it is woken; an error where that does not happen.
    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<MutexGuard<'a, State>, MutexGuard<'a, State>> {
        let until = Instant::now() + IDLE_LIMIT;
        loop {
            if state.woken > 0 {
                state.woken -= 1;
                return Ok(state);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                state.idle -= 1;
                return Err(state);
            }
            state = wait_for(&self.work, state, left);
        }
    }

    /// Ends the requests whose time is up; their calls go on.
    fn expire<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let now = Instant::now();
        // All have the same time, so the first are the oldest.
        let count = state
            .expiries
            .iter()
            .take_while(|expiry| expiry.at <= now)
            .count();
        if count == 0 {
            return state;
        }
        let expired: Vec<_> = state.expiries.drain(..count).collect();
        drop(state);
        let failed = expired
            .into_iter()
            .filter_map(|expiry| (expiry.expire)().then_some(()));
        match failed.count() {
            0 => {}
            count => log::warn!("{count} requests were not answered in time, and have failed"),
        }
        lock(&self.state)
    }

    fn wake_watcher(self: &Arc<Self>, state: &mut State, to: Watcher) {
        let there = state.watcher != Watcher::None;
        if !there {
            let inner = self.clone();
            if let Err(error) = spawn("ceph-watch", move || inner.watch_over()) {
                log::error!("cannot start the thread that watches over calls: {error}");
                return;
            }
        }
        state.watcher = to;
        if there {
            self.watch.notify_one();
        }
    }

    /// The life of the watcher.
    fn watch_over(self: &Arc<Self>) {
        let (mut begun, mut quiet, mut said) = (0, 0, Said::default());
        let mut state = lock(&self.state);
        while !state.closed {
            let moved = std::mem::replace(&mut begun, state.begun) != state.begun;
            if !moved && !state.gathered.is_empty() {
                state = self.wake_workers(state);
            }
            if !moved && !state.queue.is_empty() {
                self.wake_one(&mut state);
            }
            quiet = match state.queue.is_empty() {
                true => quiet + 1,
                false => 0,
            };
            state = self.expire(state);
            let oldest = state.running.values().next();
            said.look(oldest, state.running.len() + state.queue.len());
            state = match state.watcher {
                Watcher::Ticking if quiet < QUIET_TICKS => wait_for(&self.watch, state, TICK),
                _ if moved || said.is_waiting() || !state.is_quiet() => {
                    state.watcher = Watcher::Looking;
                    wait_for(&self.watch, state, LOOK)
                }
                _ => {
                    state.watcher = Watcher::Asleep;
                    self.watch
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// What the log was told of calls that take long.
#[derive(Default)]
struct Said {
    /// For how long the oldest had waited when it was said.
    waited: Option<Duration>,
}

impl Said {
    fn is_waiting(&self) -> bool {
        self.waited.is_some()
    }

    fn look(&mut self, oldest: Option<&Running>, count: usize) {
        let waits = oldest.map(|call| (call.kind, call.since.elapsed()));
        match (waits.filter(|(_, time)| *time >= PATIENCE), self.waited) {
            (None, None) => {}
            (None, Some(time)) => {
                log::warn!(
                    "the cluster answers again, after about {} s",
                    time.as_secs()
                );
                self.waited = None;
            }
            (Some((kind, time)), said) if said.is_none_or(|said| time >= 2 * said) => {
                log::warn!(
                    "{count} requests wait for the cluster, the oldest ({kind:?}) for {} s; see ceph -s",
                    time.as_secs()
                );
                self.waited = Some(time);
            }
            _ => {}
        }
    }
}

fn spawn(name: &str, life: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.stack_size(STACK_BYTES).spawn(life).map(drop)
}

fn wait_for<'a>(
    condvar: &Condvar,
    state: MutexGuard<'a, State>,
    time: Duration,
) -> MutexGuard<'a, State> {
    let waited = condvar.wait_timeout(state, time);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_call_behind_one_that_hangs_gets_its_turn() {
        let calls = Calls::new();
        // The kind has been quick for long: one thread serves it.
        for _ in 0..200 {
            let (tell, told) = mpsc::channel();
            calls.run(Kind::Getattr, move || tell.send(()).unwrap());
            told.recv().unwrap();
        }
        assert!(!calls.0.is_slow(Kind::Getattr));
        let (release, released) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        calls.run(Kind::Getattr, move || {
            let _ = released.recv();
        });
        calls.run(Kind::Getattr, move || tell.send(()).unwrap());
        told.recv().unwrap();
        drop(release);
        assert!(calls.close(Duration::from_secs(60)));
    }

    #[test]
    fn a_request_fails_in_time_and_its_call_goes_on() {
        let calls = Calls::new();
        let (release, released) = mpsc::channel::<()>();
        let (done, was_done) = mpsc::channel();
        let (expired, has_expired) = mpsc::channel();
        calls.run(Kind::Write, move || {
            let _ = released.recv();
            done.send(()).unwrap();
        });
        calls.expire_after(Duration::from_millis(50), move || {
            expired.send(()).unwrap();
            true
        });
        has_expired.recv().unwrap();
        assert!(was_done.try_recv().is_err());
        drop(release);
        was_done.recv().unwrap();
        assert!(calls.close(Duration::from_secs(60)));
    }

    #[test]
    fn slow_calls_run_side_by_side() {
        let calls = Calls::new();
        let count = 20;
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let (tell, told) = mpsc::channel();
        for _ in 0..count {
            let (released, tell) = (released.clone(), tell.clone());
            calls.run(Kind::Write, move || {
                tell.send(()).unwrap();
                let _ = lock(&released).recv();
            });
        }
        (0..count).for_each(|_| told.recv().unwrap());
        drop(release);
        assert!(calls.close(Duration::from_secs(60)));
    }

    #[test]
    fn a_panic_ends_no_thread_and_what_is_closed_runs_nothing() {
        let calls = Calls::new();
        let count = Arc::new(AtomicUsize::new(0));
        calls.run(Kind::Other, || panic!("as wanted"));
        let (counted, (tell, told)) = (count.clone(), mpsc::channel());
        calls.run(Kind::Other, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            tell.send(()).unwrap();
        });
        told.recv().unwrap();
        assert!(calls.close(Duration::from_secs(60)));
        let counted = count.clone();
        calls.run(Kind::Other, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }
}
