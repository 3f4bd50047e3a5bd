//! Random sequences of operations by two clients on one volume, compared with a model of a POSIX
//! file system in memory; what differs is shrunk to the shortest sequence that does.
//!
//! Each client has a daemon of its own, reached over the rings, without any caching: what one
//! did, the other must see with its next request. Daemons are killed in between.
//!
//! - [`posix`]: the model. [`step`]: what can be done. [`steps`]: doing it to both, comparing.
//! - [`guest`]: one client. [`world`]: all of it. [`whole`]: comparing everything.
//!
//! Tests on bytes alone are what fsx(1) does, over the rings.
//!
//! `PFS_MODEL_OPS` says how many operations each test runs, `PFS_MODEL_SEED` which.

mod guest;
mod known;
mod posix;
mod regressions;
mod shrink;
mod step;
mod steps;
mod whole;
mod world;

use guest_tests::fixture::Volume;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use step::Step;
use world::{Mismatch, Shape, World};

/// Most operations of one sequence.
const SEQUENCE_MAX: usize = 400;
/// Operations of each test where the environment does not say, and of each nightly one. Together
/// they are 20,000, and a million.
const ALL_OPS: (u64, u64) = (4000, 200_000);
/// The same of tests on bytes alone.
const BYTES_OPS: (u64, u64) = (5000, 100_000);

/// Stripes so small that everything crosses them.
const SMALL: Shape = Shape {
    targets: 4,
    stripe_unit: 4 << 10,
    mdt_size: 8192,
};
/// Nothing in the inode, and a count that divides nothing.
const ODD: Shape = Shape {
    targets: 3,
    stripe_unit: 12 << 10,
    mdt_size: 0,
};
const SINGLE: Shape = Shape {
    targets: 1,
    stripe_unit: 4 << 10,
    mdt_size: 4096,
};
const WIDE: Shape = Shape {
    targets: 4,
    stripe_unit: 64 << 10,
    mdt_size: 64 << 10,
};

fn striped(shape: Shape) -> Volume {
    Volume::striped_as(
        shape.targets,
        shape.stripe_unit as usize,
        shape.mdt_size as usize,
    )
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs one sequence on a volume of its own. A fault comes with the number of steps up to it.
fn run_sequence(volume: Volume, shape: Shape, steps: &[Step]) -> Result<(), (usize, Mismatch)> {
    let mut world = World::new(volume, shape);
    for (index, step) in steps.iter().enumerate() {
        world.run(step).map_err(|what| (index + 1, what))?;
    }
    world.finish().map_err(|what| (steps.len(), what))
}

/// Runs one sequence on volumes of every shape.
fn check(steps: &[Step]) {
    let striped = [SMALL, ODD, SINGLE, WIDE].map(|shape| (striped(shape), shape));
    for (volume, shape) in striped.into_iter().chain([(Volume::posix(), WIDE)]) {
        let result = run_sequence(volume, shape, steps);
        if let Err((_, Mismatch(why))) = result {
            panic!("{shape:?}: {why}");
        }
    }
}

/// Which steps there are.
enum Steps {
    All,
    /// On the bytes of two files that both clients have open.
    Bytes,
}

impl Steps {
    fn sequence(&self, runner: &mut TestRunner) -> Vec<Step> {
        let (min, max) = (SEQUENCE_MAX / 4, SEQUENCE_MAX);
        let (first, rest) = match self {
            Steps::All => (
                Vec::new(),
                prop::collection::vec(step::step(), min..max).boxed(),
            ),
            Steps::Bytes => {
                let rest = prop::collection::vec(step::bytes_step(), 3 * min..3 * max);
                (step::open_files(), rest.boxed())
            }
        };
        let rest = rest.new_tree(runner).expect("steps").current();
        [first, rest].concat()
    }
}

/// Runs sequences until there were `ops` operations.
fn run(volume: fn(Shape) -> Volume, shape: Shape, kind: &Steps, ops: u64) {
    let ops = number("PFS_MODEL_OPS").unwrap_or(ops);
    let seed = number("PFS_MODEL_SEED").unwrap_or(1);
    println!("{ops} operations, PFS_MODEL_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut done = 0;
    while done < ops {
        let steps = kind.sequence(&mut runner);
        done += steps.len() as u64;
        if let Err((count, Mismatch(why))) = run_sequence(volume(shape), shape, &steps) {
            eprintln!("after {done} operations: {why}\nlooking for a shorter way there");
            let (steps, why) = shrink::shrink(steps[..count].to_vec(), why, |steps| {
                let fault = run_sequence(volume(shape), shape, steps).err();
                fault.map(|(count, Mismatch(why))| (count, why))
            });
            panic!("PFS_MODEL_SEED={seed}: {why}\n\nsteps: {steps:?}");
        }
    }
}

macro_rules! models {
    ($($name:ident, $nightly:ident: $volume:expr, $shape:expr, $steps:expr, $ops:expr;)*) => {$(
        #[test]
        fn $name() {
            run($volume, $shape, &$steps, $ops.0);
        }

        #[test]
        #[ignore = "nightly"]
        fn $nightly() {
            run($volume, $shape, &$steps, $ops.1);
        }
    )*};
}

fn posix(_: Shape) -> Volume {
    Volume::posix()
}

models! {
    small_stripes, nightly_small_stripes: striped, SMALL, Steps::All, ALL_OPS;
    odd_stripes, nightly_odd_stripes: striped, ODD, Steps::All, ALL_OPS;
    single_target, nightly_single_target: striped, SINGLE, Steps::All, ALL_OPS;
    wide_stripes, nightly_wide_stripes: striped, WIDE, Steps::All, ALL_OPS;
    posix_directory, nightly_posix_directory: posix, WIDE, Steps::All, ALL_OPS;
    bytes_in_stripes, nightly_bytes_in_stripes: striped, WIDE, Steps::Bytes, BYTES_OPS;
    bytes_in_a_directory, nightly_bytes_in_a_directory: posix, WIDE, Steps::Bytes, BYTES_OPS;
}
