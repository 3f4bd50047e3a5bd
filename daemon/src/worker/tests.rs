use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Mutex;
use std::time::Duration;

use pfs_core::fs::{Answer, Errno, Intent, Reply};
use pfs_core::io::Pool;
use rustix::event::{eventfd, EventfdFlags};
use vm_memory::{Bytes, GuestAddress, GuestMemoryAtomic};

use super::*;
use crate::inflight::crash::in_test::{die_at, Died};
use crate::inflight::crash::Point;
use crate::inflight::InflightLog;
use crate::queue::testing::*;

/// A service of requests of one byte after the header: what to do.
#[derive(Default)]
struct Toy {
    /// How often each request was executed.
    runs: Mutex<HashMap<u64, u32>>,
    held: Mutex<Vec<Reply<u32>>>,
    /// Until the queue stops.
    waiting: Mutex<Vec<Reply<u32>>>,
}

const NOW: u8 = 0;
const INLINE: u8 = 1;
const HOLD: u8 = 2;
const SILENT: u8 = 3;
const POOL: u8 = 4;
const INTENT: u8 = 5;
const WAIT: u8 = 6;

impl Serve for Toy {
    type Pending = u64;
    type Source = ();

    fn source(&self, _: u16, _: u16, _: bool) {}

    fn stop_waits(&self, _: &()) {
        let waiting = self.waiting.lock().unwrap().drain(..).collect::<Vec<_>>();
        waiting.into_iter().for_each(|reply| reply.err(RESTART));
    }

    fn submit(
        &self,
        io: &mut Io,
        ticket: Ticket,
        chain: &Chain,
        pending: &mut u64,
        intent: Option<&dyn IntentLog>,
        _: &(),
    ) -> Submitted {
        let mut request = [0; 17];
        assert_eq!(chain.reader().read(&mut request), 17);
        let unique = u64::from_le_bytes(request[8..16].try_into().unwrap());
        *pending = unique;
        *self.runs.lock().unwrap().entry(unique).or_default() += 1;
        let reply = Reply::<u32>::new(io.mailbox(), ticket);
        match request[16] {
            NOW => reply.ok(1),
            INLINE => {
                drop(reply);
                chain.writer().write(b"inline");
                return Submitted::Replied(6);
            }
            HOLD => self.held.lock().unwrap().push(reply),
            WAIT => self.waiting.lock().unwrap().push(reply),
            SILENT => {
                drop(reply);
                return Submitted::NoReply;
            }
            POOL => io.blocking(move || reply.ok(2)),
            _ => {
                let intent = intent.unwrap();
                match intent.replayed() {
                    Some(Intent::NameAbsent) => reply.ok(77),
                    _ => {
                        intent.record(Intent::NameAbsent);
                        reply.ok(7);
                    }
                }
            }
        }
        Submitted::Later
    }

    fn answer(
        &self,
        pending: &mut u64,
        chain: &Chain,
        result: &mut pfs_core::fs::Result<Answer>,
    ) -> u32 {
        let value = match result {
            Ok(Answer::Count(value)) => u64::from(*value),
            _ => 0xdead,
        };
        chain.writer().write(&pending.to_le_bytes());
        let mut writer = chain.writer();
        writer.skip(8);
        writer.write(&value.to_le_bytes());
        16
    }
}

fn request(unique: u64, what: u8) -> [u8; 17] {
    let mut request = [0; 17];
    request[4] = 15;
    request[8..16].copy_from_slice(&unique.to_le_bytes());
    request[16] = what;
    request
}

fn event() -> Fd {
    Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap())
}

fn memory(driver: &Driver) -> Memory {
    Memory {
        atomic: GuestMemoryAtomic::from(driver.memory.clone()),
        generation: Arc::default(),
    }
}

fn start(driver: &Driver, base: u16, kick: &Fd, call: Option<Fd>) -> Start {
    let mut state = driver.state(true);
    state.next_avail = base;
    Start {
        poll_limit: Duration::ZERO,
        nap: Duration::ZERO,
        index: 1,
        state,
        indirect: true,
        enabled: true,
        kick: kick.clone(),
        call,
        memory: memory(driver),
        pool: Pool::new(2).unwrap(),
        inflight: None,
        left: None,
    }
}

fn put(driver: &mut Driver, head: u16, unique: u64, what: u8) {
    driver.request(head, &request(unique, what));
    driver.offer(head);
}

fn ring(event: &Fd) {
    rustix::io::write(event, &1u64.to_ne_bytes()).unwrap();
}

fn stop(worker: Handle) -> Stopped {
    worker.begin_stop(false);
    worker.stopped().unwrap()
}

/// Waits for `count` completions.
fn wait_used(driver: &mut Driver, count: usize) -> Vec<(u32, u32)> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut used = Vec::new();
    while used.len() < count {
        used.extend(driver.used());
        assert!(Instant::now() < end, "only {used:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    used
}

#[test]
fn what_gathers_in_a_nap_needs_no_kick() {
    let mut driver = Driver::new(16);
    let kick = event();
    let napping = |nap| Start {
        nap,
        ..start(&driver, 0, &kick, None)
    };
    let worker = spawn(Arc::new(Toy::default()), napping(Duration::from_secs(1))).unwrap();
    put(&mut driver, 0, 100, NOW);
    ring(&kick);
    wait_used(&mut driver, 1);
    put(&mut driver, 2, 102, NOW);
    wait_used(&mut driver, 1);
    // After a nap in which nothing came, it sleeps until it is kicked.
    std::thread::sleep(Duration::from_secs(3));
    put(&mut driver, 4, 104, NOW);
    ring(&kick);
    wait_used(&mut driver, 1);
    // A nap ends with the queue.
    stop(worker);
}

#[test]
fn serves_all_kinds_of_answers_and_stops_in_order() {
    let mut driver = Driver::new(16);
    let (kick, call) = (event(), event());
    let toy = Arc::new(Toy::default());
    put(&mut driver, 0, 100, NOW);
    let worker = spawn(toy.clone(), start(&driver, 0, &kick, Some(call.clone()))).unwrap();
    assert_eq!(wait_used(&mut driver, 1), [(0, 16)], "without any kick");
    assert_eq!(driver.reply(0)[0], 100);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(rustix::io::read(&call, &mut [0; 8]), Ok(8));

    for (head, what) in [(2, INLINE), (4, SILENT), (6, POOL), (8, HOLD)] {
        put(&mut driver, head, 100 + u64::from(head), what);
    }
    ring(&kick);
    let mut used = wait_used(&mut driver, 3);
    used.sort_unstable();
    assert_eq!(used, [(2, 6), (4, 0), (6, 16)]);
    let held = worker.records().in_flight(now_ms());
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].head, held[0].unique, held[0].opcode), (8, 108, 15));

    // The queue drains before it stops, and what comes meanwhile is left for later.
    worker.begin_stop(false);
    std::thread::sleep(Duration::from_millis(20));
    put(&mut driver, 10, 110, NOW);
    ring(&kick);
    let reply = toy.held.lock().unwrap().pop().unwrap();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        reply.ok(9);
    });
    let stopped = worker.stopped().unwrap();
    assert_eq!((stopped.base, stopped.hung), (5, 0));
    assert!(stopped.left.is_none());
    assert_eq!(driver.used(), [(8, 16)]);
    assert_eq!(driver.reply(8)[8], 9);
    thread.join().unwrap();

    let again = spawn(toy, start(&driver, stopped.base, &kick, None)).unwrap();
    assert_eq!(wait_used(&mut driver, 1), [(10, 16)]);
    assert_eq!(stop(again).base, 6);
}

#[test]
fn a_call_owed_is_made_once_there_is_an_eventfd() {
    let mut driver = Driver::new(16);
    let (kick, other) = (event(), event());
    let worker = spawn(Arc::new(Toy::default()), start(&driver, 0, &kick, None)).unwrap();
    put(&mut driver, 0, 1, NOW);
    ring(&kick);
    wait_used(&mut driver, 1);
    let call = event();
    worker.set_call(Some(call.clone()));
    worker.set_kick(other.clone());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(rustix::io::read(&call, &mut [0; 8]), Ok(8));
    put(&mut driver, 2, 2, NOW);
    ring(&other);
    wait_used(&mut driver, 1);
    stop(worker);
}

#[test]
fn a_disabled_ring_is_left_alone() {
    let mut driver = Driver::new(16);
    let kick = event();
    let mut disabled = start(&driver, 0, &kick, None);
    disabled.enabled = false;
    let worker = spawn(Arc::new(Toy::default()), disabled).unwrap();
    put(&mut driver, 0, 1, NOW);
    ring(&kick);
    std::thread::sleep(Duration::from_millis(50));
    assert!(driver.used().is_empty());
    worker.set_enabled(true);
    wait_used(&mut driver, 1);
    stop(worker);
}

#[test]
fn a_bad_chain_is_dropped_and_a_bad_ring_stops_until_it_is_set_up() {
    let mut driver = Driver::new(16);
    let kick = event();
    let toy = Arc::new(Toy::default());
    let worker = spawn(toy.clone(), start(&driver, 0, &kick, None)).unwrap();
    driver.desc(0, (END, 8, 0, 0));
    driver.offer(0);
    put(&mut driver, 2, 2, NOW);
    ring(&kick);
    let mut used = wait_used(&mut driver, 2);
    used.sort_unstable();
    assert_eq!(used, [(0, 0), (2, 16)]);

    driver.set_avail_idx(1000);
    ring(&kick);
    std::thread::sleep(Duration::from_millis(50));
    put(&mut driver, 2, 2, NOW);
    ring(&kick);
    std::thread::sleep(Duration::from_millis(50));
    assert!(driver.used().is_empty());
    stop(worker);

    driver.reset();
    let worker = spawn(toy, start(&driver, 0, &kick, None)).unwrap();
    put(&mut driver, 2, 2, NOW);
    ring(&kick);
    wait_used(&mut driver, 1);
    stop(worker);
}

#[test]
fn memory_added_while_running_is_served() {
    let mut driver = Driver::new(16);
    let kick = event();
    let begun = start(&driver, 0, &kick, None);
    let memory = begun.memory.clone();
    let worker = spawn(Arc::new(Toy::default()), begun).unwrap();
    let region = vm_memory::GuestRegionMmap::from_range(GuestAddress(END), 0x1000, None).unwrap();
    let larger = driver.memory.insert_region(Arc::new(region)).unwrap();
    memory.atomic.lock().unwrap().replace(larger);
    memory.generation.fetch_add(1, Ordering::AcqRel);
    let larger = memory.atomic.memory();
    larger
        .write_slice(&request(1, NOW), GuestAddress(END))
        .unwrap();
    driver.desc(0, (END, 17, NEXT, 1));
    driver.desc(1, (END + 64, 64, WRITE, 0));
    driver.offer(0);
    ring(&kick);
    assert_eq!(wait_used(&mut driver, 1), [(0, 16)]);
    stop(worker);
}

/// Runs a worker on this thread until it dies at its point, or is idle.
fn life(driver: &Driver, log: &OwnedFd, toy: &Arc<Toy>) -> bool {
    let log = InflightLog::open(log)
        .unwrap()
        .queue(1, driver.size)
        .unwrap();
    let begun = start(driver, 0, &event(), None);
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let made = Worker::new(toy.clone(), begun, log, Arc::default());
        let (mut worker, left) = made.unwrap();
        worker.replay(&left.unwrap_or_default());
        for _ in 0..20 {
            worker.turn(Wait::AtMost(Duration::from_millis(1)));
        }
    }));
    match lived {
        Ok(()) => true,
        Err(payload) if payload.is::<Died>() => false,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Dies at `point` the `count`th time it is passed, lives on, and answers how often each of
/// three requests ran. Each comes back once.
fn die_once(point: Point, count: u32, whats: [u8; 3]) -> (Driver, [u32; 3]) {
    let mut driver = Driver::new(16);
    let log = InflightLog::create(2, 16).unwrap();
    let toy = Arc::new(Toy::default());
    for (index, what) in whats.into_iter().enumerate() {
        put(&mut driver, index as u16 * 2, index as u64, what);
    }
    die_at(point, count);
    assert!(!life(&driver, &log, &toy), "{point:?} was not passed");
    assert!(life(&driver, &log, &toy));
    let mut used = driver.used();
    used.sort_unstable();
    assert_eq!(used, [(0, 16), (2, 16), (4, 16)], "{point:?} {count}");
    // The ring is in order: it goes on.
    put(&mut driver, 6, 6, NOW);
    assert!(life(&driver, &log, &toy));
    assert_eq!(driver.used(), [(6, 16)]);
    let runs = toy.runs.lock().unwrap();
    let runs = [0, 1, 2].map(|unique| runs[&unique]);
    (driver, runs)
}

#[test]
fn no_death_loses_or_repeats_an_answer() {
    for count in 1..=3 {
        // Nothing that was recorded as executed runs again.
        for point in [
            Point::AfterExecute,
            Point::BeforeAddUsed,
            Point::AfterAddUsed,
        ] {
            let (_, runs) = die_once(point, count, [NOW; 3]);
            let done = &runs[..count as usize];
            assert!(done.iter().all(|runs| *runs == 1), "{point:?} {count}");
        }
        for point in [Point::BeforePop, Point::AfterPop, Point::AfterAnswer] {
            let (_, runs) = die_once(point, count, [NOW; 3]);
            assert!(runs.iter().all(|runs| (1..=2).contains(runs)));
        }
    }
}

#[test]
fn a_replay_finds_its_intent() {
    let (driver, runs) = die_once(Point::AfterAnswer, 2, [INTENT; 3]);
    assert_eq!(runs[..2], [1, 2]);
    // Whether the third had been begun is a matter of time.
    let third = match runs[2] {
        1 => 7,
        _ => 77,
    };
    let values = [0, 2, 4].map(|head| driver.reply(head)[8]);
    assert_eq!(values, [7, 77, third]);
}

#[test]
fn a_request_that_kills_three_times_is_refused() {
    let mut driver = Driver::new(16);
    let log = InflightLog::create(2, 16).unwrap();
    let toy = Arc::new(Toy::default());
    put(&mut driver, 0, 5, NOW);
    for _ in 0..REPLAYS_MAX {
        die_at(Point::AfterAnswer, 1);
        assert!(!life(&driver, &log, &toy));
    }
    assert!(life(&driver, &log, &toy));
    assert_eq!(driver.used(), [(0, 16)]);
    let reply = driver.reply(0);
    assert_eq!(reply[..4], 16u32.to_le_bytes());
    assert_eq!(reply[4..8], (-libc::EIO).to_le_bytes());
    assert_eq!(reply[8..16], 5u64.to_le_bytes());
    assert_eq!(toy.runs.lock().unwrap()[&5], REPLAYS_MAX);
}

#[test]
fn a_late_answer_to_a_dead_worker_is_ignored() {
    let mut driver = Driver::new(16);
    let log = InflightLog::create(2, 16).unwrap();
    let toy = Arc::new(Toy::default());
    put(&mut driver, 0, 5, HOLD);
    assert!(life(&driver, &log, &toy));
    let late = toy.held.lock().unwrap().pop().unwrap();
    late.err(Errno::IO);
    assert!(life(&driver, &log, &toy));
    assert!(driver.used().is_empty(), "it was replayed and is held");
    assert_eq!(toy.runs.lock().unwrap()[&5], 2);
}

#[test]
fn what_takes_long_is_left_to_the_next_process() {
    let mut driver = Driver::new(16);
    let log = InflightLog::create(2, 16).unwrap();
    let toy = Arc::new(Toy::default());
    let mut begun = start(&driver, 0, &event(), None);
    begun.inflight = Some(Arc::new(InflightLog::open(&log).unwrap()));
    put(&mut driver, 0, 5, HOLD);
    put(&mut driver, 2, 6, NOW);
    let worker = spawn(toy.clone(), begun).unwrap();
    assert_eq!(wait_used(&mut driver, 1), [(2, 16)]);
    worker.begin_stop(true);
    let stopped = worker.stopped().unwrap();
    assert_eq!((stopped.base, stopped.hung), (2, 1));
    // Only the process's end would end its execution; a late answer goes nowhere.
    toy.held.lock().unwrap().clear();
    put(&mut driver, 4, 7, NOW);
    assert!(life(&driver, &log, &toy));
    assert_eq!(driver.used(), [(4, 16)]);
    assert_eq!(toy.runs.lock().unwrap()[&5], 2);
}

/// What waits for others does not keep a queue from stopping, and waits on when that starts again;
/// but not in another queue in the same place.
#[test]
fn what_waits_is_left_in_the_queue() {
    for (again, shared) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut driver = Driver::new(16);
        let toy = Arc::new(Toy::default());
        let memfd = InflightLog::create(2, 16).unwrap();
        let log = || shared.then(|| Arc::new(InflightLog::open(&memfd).unwrap()));
        let kick = event();
        put(&mut driver, 2, 102, WAIT);
        put(&mut driver, 4, 104, NOW);
        put(&mut driver, 6, 106, WAIT);
        let begun = Start {
            inflight: log(),
            ..start(&driver, 0, &kick, None)
        };
        let worker = spawn(toy.clone(), begun).unwrap();
        assert_eq!(wait_used(&mut driver, 1), [(4, 16)]);
        let before = Instant::now();
        let stopped = stop(worker);
        assert!(before.elapsed() < Duration::from_secs(5));
        assert_eq!((stopped.base, stopped.hung), (3, 0));
        assert!(driver.used().is_empty() && stopped.left.is_some());

        let base = if again { stopped.base } else { 1 };
        put(&mut driver, 8, 108, NOW);
        let begun = Start {
            inflight: log(),
            left: stopped.left,
            ..start(&driver, base, &kick, None)
        };
        let worker = spawn(toy.clone(), begun).unwrap();
        if again {
            assert_eq!(wait_used(&mut driver, 1), [(8, 16)]);
            assert_eq!(toy.waiting.lock().unwrap().len(), 2);
            let waiting = std::mem::take(&mut *toy.waiting.lock().unwrap());
            waiting.into_iter().for_each(|reply| reply.ok(1));
            assert_eq!(wait_used(&mut driver, 2), [(2, 16), (6, 16)]);
            assert_eq!(toy.runs.lock().unwrap()[&102], 2);
            assert!(stop(worker).left.is_none());
        } else {
            // Base 1 is the request answered before: popped as any other, none is taken up.
            assert_eq!(wait_used(&mut driver, 2), [(4, 16), (8, 16)]);
            assert_eq!(toy.runs.lock().unwrap()[&102], 1);
            assert_eq!(toy.runs.lock().unwrap()[&106], 2);
            stop(worker);
        }
    }
}
