//! The shortest sequence that still differs (delta debugging).
//!
//! proptest removes one element of a list at a time; with some hundred steps, and processes to
//! start for each try, halves are the better first guess.

use std::time::{Duration, Instant};

use crate::step::Step;

/// How long to look for a shorter sequence.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Removes what can be removed while `fails` finds fault; answers the rest, and its fault.
pub fn shrink(
    mut steps: Vec<Step>,
    mut fault: String,
    fails: impl Fn(&[Step]) -> Option<(usize, String)>,
) -> (Vec<Step>, String) {
    let start = Instant::now();
    let mut size = steps.len().div_ceil(2);
    while start.elapsed() < TIME_MAX {
        let mut removed = false;
        let mut at = 0;
        while at < steps.len() && start.elapsed() < TIME_MAX {
            let end = (at + size).min(steps.len());
            let shorter = [&steps[..at], &steps[end..]].concat();
            match fails(&shorter) {
                Some((count, other)) => {
                    steps = shorter;
                    steps.truncate(count);
                    fault = other;
                    removed = true;
                }
                None => at = end,
            }
        }
        if size == 1 && !removed {
            break;
        }
        size = if removed { size } else { size.div_ceil(2) }.clamp(1, steps.len().max(1));
    }
    (steps, fault)
}
