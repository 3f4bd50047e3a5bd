//! Whether what is to be reached is reached.

use std::fmt::Write;

use crate::compare::Measured;
use crate::error::Error;
use crate::slice::Slice;

/// What is wanted of one daemon in one row, and what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub row: &'static str,
    pub backend: String,
    /// Highest ratio of our CPU time to virtiofsd's that is wanted.
    pub goal: f64,
    pub ratio: f64,
}

impl Verdict {
    /// Whether the goal is missed by more than `percent`.
    pub fn is_lost(&self, percent: f64) -> bool {
        // So that what is no number is lost.
        let is_won = self.ratio <= self.goal * (1.0 + percent / 100.0);
        !is_won
    }
}

/// The verdicts on all rows that have a goal.
pub fn verdicts(rows: &[Measured]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for measured in rows {
        let Some(goal) = measured.row.goal else {
            continue;
        };
        for series in &measured.backends {
            let peer = measured.peer_of(series);
            let Some(ratio) = peer.and_then(|peer| series.ratio(peer, Slice::cpu_us)) else {
                continue;
            };
            verdicts.push(Verdict {
                row: measured.row.name,
                backend: series.kind.to_string(),
                goal,
                ratio: ratio.median,
            });
        }
    }
    verdicts
}

/// An error that says which rows are lost, if some are.
pub fn judge(verdicts: &[Verdict], percent: f64) -> Result<(), Error> {
    let lost = verdicts.iter().filter(|verdict| verdict.is_lost(percent));
    let mut text = String::new();
    for verdict in lost {
        let Verdict {
            row,
            backend,
            goal,
            ratio,
        } = verdict;
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {row} on {backend}: {ratio:.2}, wanted {goal:.2}");
    }
    match text.is_empty() {
        true => Ok(()),
        false => Err(Error::Lost { percent, text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ratio: f64) -> Verdict {
        Verdict {
            row: "getattr-d16",
            backend: "posix".to_owned(),
            goal: 0.4,
            ratio,
        }
    }

    #[test]
    fn a_row_is_lost_beyond_the_tolerance() {
        assert!(judge(&[], 15.0).is_ok());
        assert!(judge(&[verdict(0.1), verdict(0.459)], 15.0).is_ok());
        let error = judge(&[verdict(0.1), verdict(0.461)], 15.0).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("getattr-d16 on posix: 0.46, wanted 0.40"),
            "{text}"
        );
        assert!(!text.contains("0.10"), "{text}");
    }

    #[test]
    fn a_ratio_that_is_no_number_is_lost() {
        assert!(judge(&[verdict(f64::NAN)], 15.0).is_err());
    }
}
