//! Sizes as people write them: `65536`, `64K`, `1M`, `4GiB`; always powers of 1024.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// Bytes, written with a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a size: write bytes, or a number with K, M, G or T (powers of 1024)")]
pub struct Error(String);

const UNITS: [char; 4] = ['K', 'M', 'G', 'T'];

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Size, Error> {
        let bad = || Error(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit());
        let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
        let number: u64 = number.parse().map_err(|_| bad())?;
        let unit = unit.trim_start().to_ascii_uppercase();
        let mut letters = unit.chars();
        let shift = match letters.next() {
            None | Some('B') if letters.as_str().is_empty() => 0,
            Some(letter) if matches!(letters.as_str(), "" | "B" | "IB") => {
                let power = UNITS.iter().position(|&unit| unit == letter);
                10 * (power.ok_or_else(bad)? as u32 + 1)
            }
            _ => return Err(bad()),
        };
        let bytes = number.checked_mul(1 << shift).ok_or_else(bad)?;
        Ok(Size(bytes))
    }
}

/// Written so that it reads back as the same number: in the largest unit that divides it.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut unit) = (self.0, None);
        for letter in UNITS {
            if number == 0 || number % 1024 != 0 {
                break;
            }
            (number, unit) = (number / 1024, Some(letter));
        }
        match unit {
            Some(unit) => write!(f, "{number}{unit}"),
            None => write!(f, "{number}"),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size, in bytes or like \"64K\" or \"1M\"")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Size, E> {
                u64::try_from(value)
                    .map(Size)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Size, E> {
                Ok(Size(value))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Size, E> {
                value.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64K", 65536),
            ("64k", 65536),
            ("64 KiB", 65536),
            ("1M", 1 << 20),
            ("1MB", 1 << 20),
            ("2GiB", 2 << 30),
            ("3T", 3 << 40),
            ("12B", 12),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in [
            "",
            "M",
            "-1",
            "1.5M",
            "1X",
            "1MM",
            "1iB",
            "99999999999T",
            "0x10",
            "1 2",
        ] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for (bytes, text) in [(0, "0"), (1000, "1000"), (65536, "64K"), (1 << 20, "1M")] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        for bytes in [1, 4095, 4096, 5 << 30, 1 << 50, u64::MAX] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
    }
}
