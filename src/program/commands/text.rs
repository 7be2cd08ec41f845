//! Numbers as people read them.

use std::time::Duration;

use bytesize::ByteSize;

/// A number with its digits in groups of three: `1,048,576`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the unit that suits it: `936 B`, `22.7 GiB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A time span in the unit that suits it: `40 µs`, `1.5 ms`, `2.0 s`.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// How long something has been up, in its two largest units: `3d 4h`, `12m 5s`.
pub(super) fn uptime(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_from_the_right() {
        let texts = [0, 999, 1_000, 20_000, 1_048_576].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "20,000", "1,048,576"]);
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn spans_and_sizes_take_the_unit_that_suits_them() {
        assert_eq!([999, 1_500, 2_000_000].map(micros), ["999 µs", "1.5 ms", "2.0 s"]);
        assert_eq!([936, 1 << 20].map(size), ["936 B", "1.0 MiB"]);
        assert_eq!([5, 65, 3_700, 90_000].map(|s| uptime(Duration::from_secs(s))), ["5s", "1m 5s", "1h 1m", "1d 1h"]);
    }
}
