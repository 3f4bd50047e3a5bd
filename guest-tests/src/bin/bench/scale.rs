//! How bandwidth grows with the number of targets: a large file, written and read once in
//! requests of 1 MiB, on targets whose bandwidth and latency are known.

use std::fmt::Write;
use std::time::{Duration, Instant};

use guest_tests::ring::fuse::abi::{WriteOut, ROOT_ID};
use guest_tests::ring::fuse::{self, ops, Client, Handle, Pump};
use guest_tests::simulated;

use crate::backend::{Backend, Kind};
use crate::cli::Scale;
use crate::cpu;
use crate::error::Error;

const BLOCK_LEN: usize = 1 << 20;
const MIB: f64 = (1 << 20) as f64;

/// The way that the data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Write,
    Read,
}

/// The file written, or read, once.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    pub mib_per_s: f64,
    /// The daemon's CPU time.
    pub cpu_us_per_mib: f64,
}

/// What a number of targets gave.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub targets: u32,
    pub write: Pass,
    pub read: Pass,
}

impl Point {
    /// Parts of what as many times the targets of `first` could give, written and read.
    pub fn ratios(&self, first: &Point) -> [f64; 2] {
        let times = f64::from(self.targets) / f64::from(first.targets);
        [(&self.write, &first.write), (&self.read, &first.read)]
            .map(|(pass, first)| pass.mib_per_s / (times * first.mib_per_s))
    }
}

/// Measures each number of targets.
pub fn measure(args: &Scale) -> Result<Vec<Point>, Error> {
    simulated::private_mounts().map_err(Error::Mounts)?;
    let point = |&targets: &u32| {
        eprintln!("{targets} targets");
        measure_point(args, targets)
    };
    args.targets.iter().map(point).collect()
}

fn measure_point(args: &Scale, targets: u32) -> Result<Point, Error> {
    let mut backend = Backend::start(Kind::Striped(targets), &args.setup())?;
    let blocks_per_target = (args.seconds.as_secs_f64() * args.mib_per_s).ceil() as u64;
    let blocks = u64::from(targets) * blocks_per_target;
    let depth = (targets * args.depth) as usize;
    let created = backend
        .client()
        .create(ROOT_ID, "file", 0o600, libc::O_RDWR);
    let (_, file) = created.map_err(|source| backend.failed("CREATE", source))?;
    let mut pass = |way, action| -> Result<Pass, Error> {
        let cpu_before = cpu::process_ns(backend.pid())?;
        let elapsed = run(backend.client(), way, file, blocks, depth);
        let elapsed = elapsed.map_err(|source| backend.failed(action, source))?;
        let cpu_ns = cpu::process_ns(backend.pid())? - cpu_before;
        let mib = blocks as f64 * BLOCK_LEN as f64 / MIB;
        Ok(Pass {
            mib_per_s: mib / elapsed.as_secs_f64(),
            cpu_us_per_mib: cpu_ns as f64 / 1e3 / mib,
        })
    };
    Ok(Point {
        targets,
        write: pass(Way::Write, "writing the file")?,
        read: pass(Way::Read, "reading the file")?,
    })
}

/// Goes through the file once, in order, with `depth` requests in flight.
fn run(
    client: &mut Client,
    way: Way,
    file: Handle,
    blocks: u64,
    depth: usize,
) -> Result<Duration, fuse::Error> {
    let mut pump = Pump::new(client, depth, BLOCK_LEN, Duration::ZERO)?;
    let mut offsets = (0..blocks).map(|block| block * BLOCK_LEN as u64);
    let begin = Instant::now();
    for (slot, offset) in (0..depth).zip(offsets.by_ref()) {
        send(&mut pump, way, file, slot, offset)?;
    }
    while pump.in_flight() > 0 {
        let answer = pump.next_answer()?.success()?;
        let moved = match way {
            Way::Write => pump.decode::<WriteOut>(answer)?.size as usize,
            Way::Read => answer.len,
        };
        if moved != BLOCK_LEN {
            return Err(fuse::Error::WriteCount {
                len: BLOCK_LEN,
                written: moved,
            });
        }
        if let Some(offset) = offsets.next() {
            send(&mut pump, way, file, answer.slot, offset)?;
        }
    }
    Ok(begin.elapsed())
}

fn send(
    pump: &mut Pump<'_>,
    way: Way,
    file: Handle,
    slot: usize,
    offset: u64,
) -> Result<(), fuse::Error> {
    let data = pump.data(slot).slice(0, BLOCK_LEN);
    match way {
        Way::Write => pump.send(slot, &ops::write(file, offset, &data)),
        Way::Read => pump.send(slot, &ops::read(file, offset, &data)),
    }
}

/// An error that says which numbers of targets give too little, if some do.
pub fn judge(points: &[Point], at_least: f64) -> Result<(), Error> {
    let Some(first) = points.first() else {
        return Ok(());
    };
    let mut text = String::new();
    for point in points {
        for (ratio, way) in point.ratios(first).into_iter().zip(["write", "read"]) {
            // So that what is no number is too little.
            let is_enough = ratio >= at_least;
            if !is_enough {
                // Writing to a string does not fail.
                let _ = write!(text, "\n  {way}, {} targets: {ratio:.3}", point.targets);
            }
        }
    }
    match text.is_empty() {
        true => Ok(()),
        false => Err(Error::NotScaled { at_least, text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(targets: u32, write: f64, read: f64) -> Point {
        let pass = |mib_per_s| Pass {
            mib_per_s,
            cpu_us_per_mib: 0.0,
        };
        Point {
            targets,
            write: pass(write),
            read: pass(read),
        }
    }

    #[test]
    fn ratios_are_to_what_the_first_promises() {
        let first = point(2, 20.0, 40.0);
        assert_eq!(first.ratios(&first), [1.0, 1.0]);
        assert_eq!(point(8, 80.0, 80.0).ratios(&first), [1.0, 0.5]);
    }

    #[test]
    fn what_gives_too_little_is_named() {
        let points = [point(1, 10.0, 10.0), point(4, 39.0, 30.0)];
        let text = judge(&points, 0.95).unwrap_err().to_string();
        assert!(text.contains("read, 4 targets: 0.750"), "{text}");
        assert!(!text.contains("write"), "{text}");
        judge(&points, 0.75).unwrap();
        judge(&[], 0.95).unwrap();
    }
}
