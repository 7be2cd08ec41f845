//! Numbers as people read them.

/// A time span of nanoseconds in the unit in which it reads best.
pub(super) fn time_text(ns: f64) -> String {
    match ns {
        ..1e4 => format!("{:.2} µs", ns / 1e3),
        ..1e6 => format!("{:.0} µs", ns / 1e3),
        ..1e7 => format!("{:.2} ms", ns / 1e6),
        ..1e9 => format!("{:.0} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}
