//! Named steps: many checks in one booted guest, each reported by its name.

use std::error::Error;
use std::fmt::Write;
use std::time::Instant;

/// What a step returns: any error fails the test.
pub type StepResult<T = ()> = Result<T, Box<dyn Error>>;

/// Runs steps one after another; the first that fails ends the test.
#[derive(Debug, Default)]
pub struct Steps(());

impl Steps {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs one step and prints how long it took.
    ///
    /// # Panics
    /// With the step's name and the whole chain of causes, when the step fails.
    #[track_caller]
    pub fn step<T>(&self, name: &str, body: impl FnOnce() -> StepResult<T>) -> T {
        eprintln!("step: {name}");
        let start = Instant::now();
        match body() {
            Ok(value) => {
                eprintln!("  ok: {name} ({:.1} s)", start.elapsed().as_secs_f64());
                value
            }
            Err(error) => panic!("step failed: {name}: {}", chain(error.as_ref())),
        }
    }
}

/// How much random data a guest test moves: `PFS_GUEST_DATA_MIB`, 256 by default. Under TCG a
/// guest makes and hashes data at tens of MiB/s, so this decides how long such a test takes.
pub fn data_mib() -> u64 {
    std::env::var("PFS_GUEST_DATA_MIB").map_or(256, |text| {
        text.parse().expect("PFS_GUEST_DATA_MIB is a number of MiB")
    })
}

/// An error with all of its causes, as text.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}
