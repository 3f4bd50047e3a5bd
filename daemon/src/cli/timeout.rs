//! How long something may be kept, in seconds.

use std::time::Duration;

/// Longest time, in seconds: beyond it, what is kept is kept for good.
const MAX_SECONDS: f64 = 365.0 * 86400.0;

/// Reads a time such as `1`, `0.5` or `0`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        Ok(_) => Err("a time is from 0 to 31536000 seconds".to_owned()),
        Err(_) => Err("not a number of seconds".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_with_and_without_fractions() {
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        assert_eq!(parse("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "-1", "1s", "NaN", "inf", "1e30"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
