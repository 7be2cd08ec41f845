//! A range of time spans.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use corecast::{duration_from_text, duration_to_text};

/// From a shortest to a longest time span, written `A-B`, or `A` for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeRange {
    pub(super) first: Duration,
    pub(super) last: Duration,
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration_to_text(self.first))?;
        if self.first < self.last {
            write!(f, "-{}", duration_to_text(self.last))?;
        }
        Ok(())
    }
}

impl FromStr for TimeRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = TimeRange { first: duration_from_text(first)?, last: duration_from_text(last)? };
        if range.first > range.last {
            return Err(format!("`{text}` ends before it begins; write the shorter time first, as in 500ms-2s"));
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_written() {
        for text in ["500ms-2s", "1s", "0-1s 500ms"] {
            assert_eq!(text.parse::<TimeRange>().unwrap().to_string(), text);
        }
        let range: TimeRange = "500ms-1500ms".parse().unwrap();
        assert_eq!((range.first.as_millis(), range.last.as_millis()), (500, 1_500));
    }

    #[test]
    fn what_is_no_range_is_refused_by_name() {
        for (bad, why) in [("2s-1s", "ends before it begins"), ("1s-", "not a time span"), ("soon", "not a time span")]
        {
            assert!(bad.parse::<TimeRange>().unwrap_err().contains(why), "{bad}");
        }
    }
}
