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
    /// Highest ratio of our CPU time to virtiofsd's that it is held to.
    pub held_to: f64,
    pub ratio: f64,
}

impl Verdict {
    /// Whether that is missed by more than `percent`.
    pub fn is_lost(&self, percent: f64) -> bool {
        // So that what is no number is lost.
        let is_won = self.ratio <= self.held_to * (1.0 + percent / 100.0);
        !is_won
    }
}

/// The verdicts on all rows that have a goal.
pub fn verdicts(rows: &[Measured]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for measured in rows {
        let Some(held_to) = measured.row.held_to() else {
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
                held_to,
                ratio: ratio.median,
            });
        }
    }
    verdicts
}

/// Those that are lost; of them only those that were lost in `before`, too.
pub fn lost(verdicts: Vec<Verdict>, percent: f64, before: Option<&[Verdict]>) -> Vec<Verdict> {
    let is_same =
        |one: &Verdict, other: &Verdict| (one.row, &one.backend) == (other.row, &other.backend);
    let was_lost = |verdict: &Verdict| {
        before.is_none_or(|before| before.iter().any(|lost| is_same(lost, verdict)))
    };
    let is_lost = |verdict: &Verdict| verdict.is_lost(percent) && was_lost(verdict);
    verdicts.into_iter().filter(is_lost).collect()
}

/// An error that says which rows are lost, if some are.
pub fn judge(lost: &[Verdict], percent: f64) -> Result<(), Error> {
    let mut text = String::new();
    for verdict in lost {
        let Verdict {
            row,
            backend,
            held_to,
            ratio,
        } = verdict;
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n  {row} on {backend}: {ratio:.2}, held to {held_to:.2}"
        );
    }
    match text.is_empty() {
        true => Ok(()),
        false => Err(Error::Lost { percent, text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(row: &'static str, ratio: f64) -> Verdict {
        Verdict {
            row,
            backend: "posix".to_owned(),
            held_to: 0.4,
            ratio,
        }
    }

    #[test]
    fn a_row_is_lost_beyond_the_tolerance() {
        assert!(judge(&[], 15.0).is_ok());
        let verdicts = [0.1, 0.459, 0.461].map(|ratio| verdict("getattr-d16", ratio));
        let lost = lost(verdicts.to_vec(), 15.0, None);
        assert_eq!(lost, verdicts[2..]);
        let text = judge(&lost, 15.0).unwrap_err().to_string();
        let says = "getattr-d16 on posix: 0.46, held to 0.40";
        assert!(text.contains(says), "{text}");
    }

    #[test]
    fn a_ratio_that_is_no_number_is_lost() {
        assert!(verdict("getattr-d16", f64::NAN).is_lost(15.0));
    }

    #[test]
    fn a_row_that_is_won_once_is_not_lost() {
        let (a, b) = (verdict("a", 9.0), verdict("b", 9.0));
        let first = lost(vec![a.clone(), b.clone()], 15.0, None);
        let second = lost(vec![verdict("a", 0.1), b.clone()], 15.0, Some(&first));
        assert_eq!(second, [b]);
        // What was won before is not lost again.
        assert_eq!(lost(vec![a], 15.0, Some(&second)), []);
    }
}
