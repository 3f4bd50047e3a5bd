//! One slice: a workload runs on one daemon for a moment, and what that cost.

use std::time::{Duration, Instant};

use guest_tests::ring::fuse::{self, Client, Pump};

use crate::backend::Backend;
use crate::cpu;
use crate::error::Error;
use crate::floor::Floor;
use crate::rows::{Row, OPERATION};
use crate::stats::median;
use crate::workloads::Workload;

/// Latencies that are kept at most; later ones are not looked at.
const LATENCIES_MAX: usize = 1 << 20;
/// Operations between two looks at the clock, where latencies are not measured.
const OPERATIONS_PER_CLOCK_READ: u32 = 8;

/// How long to measure, and how the driver waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    pub duration: Duration,
    /// How long the driver looks at the used ring before it sleeps.
    pub poll: Duration,
    /// With one operation at a time: how long the driver takes from an answer to the next request.
    pub think: Duration,
}

/// What one slice measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// Operations, or what else the row counts.
    pub units: u64,
    pub elapsed: Duration,
    /// The daemon's.
    pub cpu: Duration,
    /// The median, with one operation at a time.
    pub latency: Option<Duration>,
    /// The daemon's.
    pub context_switches: u64,
}

impl Slice {
    /// Units per second.
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU time for each unit, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.units as f64
    }

    /// The median latency in microseconds.
    pub fn latency_us(&self) -> Option<f64> {
        self.latency.map(|latency| latency.as_secs_f64() * 1e6)
    }
}

/// Runs slices of a workload until so much time is measured: one may end before its time, when
/// nothing is left to do in it. The latency is that of the last.
pub fn run_for(
    backend: &mut Backend,
    workload: &mut dyn Workload,
    row: &Row,
    pace: Pace,
) -> Result<Slice, Error> {
    let mut sum = run(backend, workload, row, pace)?;
    while sum.elapsed < pace.duration {
        let left = Pace {
            duration: pace.duration - sum.elapsed,
            ..pace
        };
        let slice = run(backend, workload, row, left)?;
        sum = Slice {
            units: sum.units + slice.units,
            elapsed: sum.elapsed + slice.elapsed,
            cpu: sum.cpu + slice.cpu,
            latency: slice.latency,
            context_switches: sum.context_switches + slice.context_switches,
        };
    }
    Ok(sum)
}

/// Runs a workload that is prepared.
pub fn run(
    backend: &mut Backend,
    workload: &mut dyn Workload,
    row: &Row,
    pace: Pace,
) -> Result<Slice, Error> {
    let pid = backend.pid();
    let (client, folder) = backend.client_and_folder();
    let ready = workload.before(client, folder);
    ready.map_err(|source| backend.failed("before a slice", source))?;
    let switches_before = cpu::context_switches(pid);
    let cpu_before = backend.cpu_ns()?;
    let pumped = pump(backend.client(), workload, row, pace);
    let pumped = pumped.map_err(|source| backend.failed(row.name, source))?;
    let cpu = backend.cpu_ns()? - cpu_before;
    let context_switches = cpu::context_switches(pid).saturating_sub(switches_before);
    let done = workload.after(backend.client());
    done.map_err(|source| backend.failed("after a slice", source))?;
    if pumped.units == 0 {
        return Err(Error::NoOperations(format!(
            "{} on {}",
            row.name, backend.kind
        )));
    }
    Ok(Slice {
        cpu: Duration::from_nanos(cpu),
        context_switches,
        ..pumped
    })
}

/// Keeps `row.depth` operations going until the time is up, then lets them end.
fn pump(
    client: &mut Client,
    workload: &mut dyn Workload,
    row: &Row,
    pace: Pace,
) -> Result<Slice, fuse::Error> {
    let measures_latency = row.depth == 1 && row.unit == OPERATION;
    let mut latencies_ns = Vec::with_capacity(if measures_latency { LATENCIES_MAX } else { 0 });
    let mut pump = Pump::new(client, row.depth, row.data_len, pace.poll)?;
    let start = Instant::now();
    let mut now = start;
    let mut sent = start;
    let mut units = 0;
    let mut operations = 0_u32;
    for slot in 0..row.depth {
        workload.start(&mut pump, slot)?;
    }
    while pump.in_flight() > 0 {
        let answer = pump.next_answer()?;
        let Some(done) = workload.answered(&mut pump, answer)? else {
            continue;
        };
        units += done;
        operations = operations.wrapping_add(1);
        if measures_latency {
            now = Instant::now();
            if latencies_ns.len() < LATENCIES_MAX {
                latencies_ns.push((now - sent).as_nanos() as f64);
            }
            sent = think(now, pace.think);
        } else if operations % OPERATIONS_PER_CLOCK_READ == 0 {
            now = Instant::now();
        }
        if now - start < pace.duration {
            workload.start(&mut pump, answer.slot)?;
        }
    }
    let elapsed = start.elapsed();
    // What was forgotten belongs to the work.
    pump.client().drain_hiprio()?;
    Ok(Slice {
        units,
        elapsed,
        cpu: Duration::ZERO,
        latency: median(&mut latencies_ns).map(|ns| Duration::from_nanos(ns as u64)),
        context_switches: 0,
    })
}

/// Lets time pass as a guest's interrupt, scheduler and program do; when that was over.
fn think(since: Instant, duration: Duration) -> Instant {
    loop {
        let now = Instant::now();
        if now - since >= duration {
            return now;
        }
        std::hint::spin_loop();
    }
}

/// Runs the bare system calls for the same work; the CPU time is this thread's.
pub fn run_floor(floor: &mut dyn Floor, row: &Row, duration: Duration) -> Result<Slice, Error> {
    let failed = |source| Error::Floor {
        row: row.name,
        source,
    };
    floor.before().map_err(failed)?;
    let cpu_before = cpu::thread_ns();
    let start = Instant::now();
    let mut units = 0;
    while start.elapsed() < duration {
        match floor.operation().map_err(failed)? {
            0 => break,
            done => units += done,
        }
    }
    let elapsed = start.elapsed();
    let cpu = Duration::from_nanos(cpu::thread_ns() - cpu_before);
    floor.after().map_err(failed)?;
    if units == 0 {
        return Err(Error::NoOperations(format!("the floor of {}", row.name)));
    }
    Ok(Slice {
        units,
        elapsed,
        cpu,
        latency: None,
        context_switches: 0,
    })
}
