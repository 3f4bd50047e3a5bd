//! What more queues give: bursts of random reads of 4 KiB, on one queue and on several.
//!
//! Workers have a CPU each. A burst is offered while they sleep, begins with the kicks, and ends
//! when the last one calls; the driver sleeps meanwhile. So as many workers as there are CPUs are
//! measured without a driver that takes one from them.

use std::time::{Duration, Instant};

use guest_tests::fixture::Noise;
use guest_tests::ring::device::DeviceConfig;
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{self, ops, Client, Handle, Pump};
use guest_tests::ring::memory::RegionConfig;

use crate::backend::{Backend, Kind};
use crate::cli::Queues;
use crate::cpu;
use crate::error::Error;
use crate::stats::{median, Ratio};

const BLOCK_LEN: usize = 4 << 10;
const FILE_LEN: u64 = 32 << 20;
const FILL_LEN: usize = 1 << 20;
/// Descriptors of a queue.
const QUEUE_SIZE: u16 = 4096;
/// Requests of a burst on each queue.
const BURST: usize = 4000;
/// Blocks of guest memory of a queue that are read to in turn.
const DATA_BLOCKS: usize = 64;
/// Guest memory of a queue: ring, requests and replies.
const QUEUE_MEMORY_LEN: usize = 160 << 20;
/// Bursts of a turn.
const BURSTS: usize = 10;
/// How long a worker has to fall asleep before a burst.
const SETTLE: Duration = Duration::from_millis(1);

/// Which files the queues read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// All the same one, by the same handle.
    Shared,
    /// Each its own.
    Own,
}

/// What a number of queues did in its turns.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// Reads per second, of each burst.
    pub rates: Vec<f64>,
    /// The daemon's CPU time for each read, of each turn.
    pub cpu_us: Vec<f64>,
}

impl Series {
    pub fn rate(&self) -> f64 {
        median(&mut self.rates.clone()).unwrap_or_default()
    }

    /// That of the burst which least else was done beside.
    pub fn best_rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    pub fn cpu_us(&self) -> f64 {
        median(&mut self.cpu_us.clone()).unwrap_or_default()
    }
}

/// One queue, and several.
#[derive(Debug, Clone)]
pub struct Measured {
    pub kind: Kind,
    pub files: Files,
    pub queues: usize,
    pub one: Series,
    pub all: Series,
}

impl Measured {
    /// How many times the rate of one queue all have.
    pub fn rate_ratio(&self) -> Option<Ratio> {
        Ratio::of_pairs(&self.all.rates, &self.one.rates)
    }

    /// The same of the best bursts: on a machine that does other things too, all queues at once are
    /// seldom alone.
    pub fn best_rate_ratio(&self) -> f64 {
        self.all.best_rate() / self.one.best_rate()
    }

    /// How many times the CPU time for each read.
    pub fn cpu_ratio(&self) -> Option<Ratio> {
        Ratio::of_pairs(&self.all.cpu_us, &self.one.cpu_us)
    }
}

/// Measures each daemon, with one file and with one for each queue.
pub fn measure(args: &Queues) -> Result<Vec<Measured>, Error> {
    let mut measured = Vec::new();
    for &kind in &args.backend {
        eprintln!("{kind}");
        let queues = usize::from(args.queues);
        let mut backend = Backend::start(kind, &args.setup(device(queues)))?;
        pin_workers(&backend, queues)?;
        for files in [Files::Shared, Files::Own] {
            measured.push(measure_files(&mut backend, args, files)?);
        }
    }
    Ok(measured)
}

fn device(queues: usize) -> DeviceConfig {
    DeviceConfig {
        request_queues: queues,
        queue_size: QUEUE_SIZE,
        memory: vec![RegionConfig {
            guest_addr: 1 << 32,
            len: (queues + 1) * QUEUE_MEMORY_LEN,
        }],
        ..DeviceConfig::default()
    }
}

/// Gives each worker a CPU, the last one first.
fn pin_workers(backend: &Backend, queues: usize) -> Result<(), Error> {
    let cpus = cpu::available();
    if cpus.len() < queues {
        return Err(Error::TooFewCpus { queues });
    }
    for (queue, &cpu) in (1..=queues).zip(cpus.iter().rev()) {
        if !cpu::pin_thread(backend.pid(), &format!("vq-{queue}"), cpu)? {
            let backend = backend.kind.to_string();
            return Err(Error::NoWorker { backend, queue });
        }
    }
    Ok(())
}

fn measure_files(backend: &mut Backend, args: &Queues, files: Files) -> Result<Measured, Error> {
    let queues = usize::from(args.queues);
    let made = make_files(backend.client(), queues, files);
    let handles = made.map_err(|source| backend.failed("making files", source))?;
    let (mut one, mut all) = (Series::default(), Series::default());
    // The first time, memory and code are touched that nobody touched before.
    turn(backend, &handles, queues, &mut Series::default())?;
    for _ in 0..args.rounds {
        turn(backend, &handles, 1, &mut one)?;
        turn(backend, &handles, queues, &mut all)?;
        turn(backend, &handles, queues, &mut all)?;
        turn(backend, &handles, 1, &mut one)?;
    }
    Ok(Measured {
        kind: backend.kind,
        files,
        queues,
        one,
        all,
    })
}

/// The handles by which the queues read.
fn make_files(
    client: &mut Client,
    queues: usize,
    files: Files,
) -> Result<Vec<Handle>, fuse::Error> {
    let count = match files {
        Files::Shared => 1,
        Files::Own => queues,
    };
    let bytes = Noise::new(1).bytes(FILL_LEN);
    let mut handles = Vec::new();
    for number in 0..count {
        let name = format!("{files:?}-{number}");
        let (_, handle) = client.create(ROOT_ID, &name, 0o600, libc::O_RDWR)?;
        for at in (0..FILE_LEN).step_by(FILL_LEN) {
            client.write(handle, at, &bytes)?;
        }
        handles.push(handle);
    }
    Ok((0..queues).map(|queue| handles[queue % count]).collect())
}

/// Bursts on the first `active` queues.
fn turn(
    backend: &mut Backend,
    handles: &[Handle],
    active: usize,
    series: &mut Series,
) -> Result<(), Error> {
    let pid = backend.pid();
    let mut pumps = Vec::new();
    let made: Result<(), fuse::Error> = backend.clients()[..active]
        .iter_mut()
        .map(|client| Pump::new(client, BURST, 0, Duration::ZERO))
        .try_for_each(|pump| {
            pumps.push(pump?);
            Ok(())
        });
    let cpu_before = cpu::process_ns(pid)?;
    let ran = made.and_then(|()| {
        for seed in 0..BURSTS {
            let elapsed = burst(&mut pumps, handles, seed as u64)?;
            let reads = (BURST * active) as f64;
            series.rates.push(reads / elapsed.as_secs_f64());
        }
        Ok(())
    });
    drop(pumps);
    ran.map_err(|source| backend.failed("reading", source))?;
    let cpu_ns = cpu::process_ns(pid)? - cpu_before;
    let reads = (BURSTS * BURST * active) as f64;
    series.cpu_us.push(cpu_ns as f64 / 1e3 / reads);
    Ok(())
}

/// Fills the queues, lets the workers begin, and sleeps until they are done.
fn burst(pumps: &mut [Pump<'_>], handles: &[Handle], seed: u64) -> Result<Duration, fuse::Error> {
    std::thread::sleep(SETTLE);
    for (queue, (pump, &handle)) in pumps.iter_mut().zip(handles).enumerate() {
        let mut noise = Noise::new(seed << 8 | queue as u64);
        let data = pump
            .client()
            .memory()
            .alloc_pages(DATA_BLOCKS * BLOCK_LEN)?;
        for slot in 0..BURST {
            let block = data.slice(slot % DATA_BLOCKS * BLOCK_LEN, BLOCK_LEN);
            let at = noise.below(FILE_LEN / BLOCK_LEN as u64) * BLOCK_LEN as u64;
            pump.offer(slot, &ops::read(handle, at, &block))?;
        }
    }
    let begin = Instant::now();
    for pump in pumps.iter_mut() {
        pump.kick()?;
    }
    for pump in pumps.iter_mut() {
        pump.sleep_until_answered()?;
    }
    let elapsed = begin.elapsed();
    for pump in pumps.iter_mut() {
        while pump.in_flight() > 0 {
            pump.next_answer()?.success()?;
        }
    }
    Ok(elapsed)
}
