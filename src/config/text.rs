//! How values are written in files and flags: time spans and sizes with their units, all else as it reads itself.

use std::time::Duration;

#[cfg(feature = "serde")]
use bytesize::ByteSize;

use thiserror::Error;

use crate::config::KIB;

/// A text that is not the value it should be. It names the text and says how such a value is written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ParseError(String);

impl ParseError {
    pub(crate) fn new(text: String) -> Self {
        ParseError(text)
    }
}

impl From<ParseError> for String {
    fn from(error: ParseError) -> String {
        error.0
    }
}

/// Reads a time span: a number with a unit (`10s`, `250ms`, `2m`), or `0` or `off` for none.
///
/// # Errors
/// It is none; the error names it and shows how to write one.
#[cfg(feature = "serde")]
pub fn duration_from_text(text: &str) -> Result<Duration, ParseError> {
    if text == "0" || text == "off" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a time span; write a number and a unit, as in 10s, 250ms or 2m"))
        .map_err(ParseError::new)
}

/// Writes a time span as `duration_from_text` reads it.
pub fn duration_to_text(value: Duration) -> String {
    let (seconds, nanos) = (value.as_secs(), value.subsec_nanos());
    let days = seconds / 86_400;
    let parts = [
        (days, if days == 1 { "day" } else { "days" }),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(nanos / 1_000_000), "ms"),
        (u64::from(nanos / 1_000 % 1_000), "us"),
        (u64::from(nanos % 1_000), "ns"),
    ];
    let parts: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if parts.is_empty() { "0".into() } else { parts.join(" ") }
}

/// Reads a number of bytes: plain, or with a unit (`64KiB`, `1MB`).
///
/// # Errors
/// It is none; the error names it and shows how to write one.
#[cfg(feature = "serde")]
pub fn bytes_from_text(text: &str) -> Result<usize, ParseError> {
    text.parse::<ByteSize>()
        .ok()
        .and_then(|size| usize::try_from(size.as_u64()).ok())
        .ok_or_else(|| format!("`{text}` is not a size; write a number of bytes, or a unit with it, as in 64KiB"))
        .map_err(ParseError::new)
}

/// Writes a number of bytes as `bytes_from_text` reads it.
pub fn bytes_to_text(value: usize) -> String {
    for (unit, name) in [(1024 * 1024 * KIB, "GiB"), (1024 * KIB, "MiB"), (KIB, "KiB")] {
        if value >= unit && value.is_multiple_of(unit) {
            return format!("{}{name}", value / unit);
        }
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_written_in_the_units_that_they_have() {
        let ms = Duration::from_millis;
        let texts = [0, 250, 1_500, 60_000, 3_600_000, 86_400_000, 2 * 86_400_000 + 1].map(|n| duration_to_text(ms(n)));
        assert_eq!(texts, ["0", "250ms", "1s 500ms", "1m", "1h", "1day", "2days 1ms"]);
    }

    #[cfg(feature = "serde")]
    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0..u64::from(u32::MAX), nanos in 0..1_000_000_000_u32, bytes in 0..usize::MAX) {
            let span = Duration::new(seconds, nanos);
            proptest::prop_assert_eq!(duration_from_text(&duration_to_text(span)), Ok(span));
            proptest::prop_assert_eq!(bytes_from_text(&bytes_to_text(bytes)), Ok(bytes));
        }
    }
}
