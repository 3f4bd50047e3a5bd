//! Medians, and ratios of what was measured side by side.

/// The median; none of nothing. Sorts the values.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len(), values.len() % 2) {
        (0, _) => None,
        (_, 1) => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Ratios of pairs, and how far apart they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Ratio {
    /// The ratios of `ours` to `theirs`, pair by pair: two values of one pair were measured one
    /// after the other, so what else the machine did at that time is in both.
    pub fn of_pairs(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
        let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        let median = median(&mut ratios)?;
        Some(Ratio {
            median,
            min: *ratios.first()?,
            max: *ratios.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&mut [9.0, 1.0, 5.0, 7.0]), Some(6.0));
    }

    #[test]
    fn ratios_are_of_pairs() {
        // A machine that is twice as slow in the second pair changes no ratio.
        let ratio = Ratio::of_pairs(&[1.0, 2.0, 3.0], &[2.0, 4.0, 4.0]).unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.5, 0.5, 0.75));
        assert_eq!(Ratio::of_pairs(&[], &[]), None);
    }
}
