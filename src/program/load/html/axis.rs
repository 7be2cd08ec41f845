//! Axes: where the ticks are and what stands at them.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// If the largest and the smallest value are this far apart, an axis of times is logarithmic.
const DECADES_LOG: f64 = 1.3;

/// What an axis counts, which tells how its ticks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Nanoseconds, written in the unit that fits.
    Time,
    /// Seconds since the start.
    Seconds,
    /// Anything that is counted: 1.5k, 2M.
    Count,
    /// The distance of a quantile to 1, in decades: 0 %, 90 %, 99 %.
    Nines,
}

/// An axis with its ticks.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    unit: Unit,
    is_log: bool,
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Axis {
    /// From 0 to a round number above all `values`; logarithmic if they are times that lie far apart.
    pub(super) fn upwards(unit: Unit, values: impl Iterator<Item = f64>, ticks_max: usize) -> Axis {
        let (mut least, mut most) = (f64::INFINITY, 0_f64);
        for value in values.filter(|value| *value > 0.0) {
            least = least.min(value);
            most = most.max(value);
        }
        if unit == Unit::Time && least.is_finite() && (most / least).log10() > DECADES_LOG {
            let (first, last) = (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0));
            let ticks = (0..=(last - first) as usize).map(|decade| first + decade as f64).collect();
            return Axis { unit, is_log: true, range: first..last, ticks };
        }
        let step = round_step(most.max(if unit == Unit::Count { 1.0 } else { 1e3 }), ticks_max, unit);
        let count = (most / step).ceil().max(1.0);
        let ticks = (0..=count as usize).map(|tick| tick as f64 * step).collect();
        Axis { unit, is_log: false, range: 0.0..count * step, ticks }
    }

    /// From 0 to `end`, with ticks at round numbers.
    pub(super) fn along(unit: Unit, end: f64, ticks_max: usize) -> Axis {
        let step = match unit {
            Unit::Nines => ((end + 1.0) / ticks_max as f64).ceil(),
            _ => round_step(end, ticks_max, unit),
        };
        let ticks = (0..).map(|tick| f64::from(tick) * step).take_while(|tick| *tick <= end + step * 1e-9).collect();
        Axis { unit, is_log: false, range: 0.0..end, ticks }
    }

    /// Where a value stands on the axis.
    pub(super) fn place(&self, value: f64) -> f64 {
        let place = if self.is_log { value.max(1.0).log10() } else { value };
        place.clamp(self.range.start, self.range.end)
    }

    /// What stands at a tick.
    pub(super) fn text(&self, tick: f64) -> String {
        let value = if self.is_log { 10_f64.powf(tick) } else { tick };
        match self.unit {
            Unit::Time => time(value),
            Unit::Seconds => short(value),
            Unit::Count => count(value),
            Unit::Nines => quantile(tick),
        }
    }

    pub(super) fn is_log(&self) -> bool {
        self.is_log
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// A round distance with which at most `ticks_max` steps reach `most`.
fn round_step(most: f64, ticks_max: usize, unit: Unit) -> f64 {
    let raw = most / ticks_max as f64;
    let decade = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * decade).into_iter().find(|step| *step >= raw * 0.999);
    let step = step.unwrap_or(10.0 * decade);
    match unit {
        Unit::Count | Unit::Seconds => step.max(1.0).ceil(),
        _ => step,
    }
}

/// A number without needless digits.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Nanoseconds in the unit that fits.
pub(super) fn time(ns: f64) -> String {
    match ns {
        ..0.5 => "0".to_owned(),
        ..1e3 => format!("{} ns", short(ns)),
        ..1e6 => format!("{} µs", short(ns / 1e3)),
        ..1e9 => format!("{} ms", short(ns / 1e6)),
        _ => format!("{} s", short(ns / 1e9)),
    }
}

fn count(value: f64) -> String {
    match value {
        ..1e3 => short(value),
        ..1e6 => format!("{}k", short(value / 1e3)),
        ..1e9 => format!("{}M", short(value / 1e6)),
        _ => format!("{}G", short(value / 1e9)),
    }
}

fn quantile(decades: f64) -> String {
    match decades.round() as usize {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        nines => format!("99.{} %", "9".repeat(nines - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|tick| axis.text(*tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_with_units() {
        let axis = |unit, most: f64| texts(&Axis::upwards(unit, [most / 2.0, most].into_iter(), 4));
        assert_eq!(axis(Unit::Count, 170_000.0), ["0", "50k", "100k", "150k", "200k"]);
        assert_eq!(axis(Unit::Count, 2.0), ["0", "1", "2"]);
        assert_eq!(axis(Unit::Count, 0.0), ["0", "1"]);
        assert_eq!(axis(Unit::Time, 1.9e6), ["0", "500 µs", "1 ms", "1.5 ms", "2 ms"]);
        assert_eq!(texts(&Axis::along(Unit::Seconds, 12.3, 6)), ["0", "3", "6", "9", "12"]);
        assert_eq!(texts(&Axis::along(Unit::Nines, 4.2, 6)), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn times_far_apart_stand_on_a_logarithmic_axis() {
        let axis = Axis::upwards(Unit::Time, [2e5, 5e8].into_iter(), 4);
        assert!(axis.is_log());
        assert_eq!(texts(&axis), ["100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!((axis.place(1e6), axis.place(0.0)), (6.0, 5.0));
    }
}
