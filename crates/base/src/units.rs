//! Sizes and spans of time as people write them in configuration: always with their unit.

use serde::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `64MiB`, `10GB`, `512B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time: `500ms`, `5s`, `10m`, `2h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Text that is not a whole number followed by a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: write a whole number and its unit, like {example}")]
pub struct BadUnit {
    text: String,
    what: &'static str,
    example: &'static str,
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

const SPAN_UNITS_MS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The number times its unit; `None` for an unknown unit, no number, or one that does not fit.
fn read(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl FromStr for ByteSize {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = || BadUnit { text: text.to_owned(), what: "size", example: "64MiB" };
        read(text, &BYTE_UNITS).map(Self).ok_or_else(bad)
    }
}

impl FromStr for Span {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = || BadUnit { text: text.to_owned(), what: "span of time", example: "5s" };
        read(text, &SPAN_UNITS_MS).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = BYTE_UNITS[..5]
            .iter()
            .rev()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (name, factor) = whole.unwrap_or(&BYTE_UNITS[0]);
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let whole = SPAN_UNITS_MS
            .iter()
            .rev()
            .find(|(_, factor)| ms >= u128::from(*factor) && ms.is_multiple_of(u128::from(*factor)));
        let (name, factor) = whole.unwrap_or(&SPAN_UNITS_MS[0]);
        write!(f, "{}{name}", ms / u128::from(*factor))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_need_a_unit_and_print_as_they_were_written() {
        for text in ["64MiB", "1B", "10GiB", "1000B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["500ms", "5s", "10m", "36h", "7d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("2 kb".parse::<ByteSize>().unwrap(), ByteSize(2000));
        for text in ["", "64", "MiB", "-1MiB", "1.5GiB", "99999999TiB", "7 weeks"] {
            assert!(text.parse::<ByteSize>().is_err() && text.parse::<Span>().is_err(), "{text}");
        }
    }
}
