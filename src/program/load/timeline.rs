//! What is measured, by time: one slot a second, and wider slots once a run is too long for them.

use std::ops::AddAssign;

use hdrhistogram::Histogram;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::latency::{from_text, to_text};

/// Slots of a run at the most. When there would be more, each becomes twice as wide.
const SLOTS_MAX: usize = 600;

const NS_PER_S: u64 = 1_000_000_000;

/// Spans are told apart from here on, in nanoseconds.
const NS_MIN: u64 = 256;

/// Longer spans count as this one, in nanoseconds (10 minutes).
const NS_MAX: u64 = 600_000_000_000;

/// Significant decimal digits; a plot shows no more.
const DIGITS: u8 = 2;

/// A slot for each second of a run (or for each 2, 4 … seconds), from the begin of its clock on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Timeline<T> {
    /// Seconds of a slot.
    slot_s: u64,
    slots: Vec<T>,
}

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Timeline { slot_s: 1, slots: Vec::new() }
    }
}

impl<T: Default + AddAssign> Timeline<T> {
    /// The slot of a moment, in nanoseconds of the run's clock.
    pub(super) fn at(&mut self, now_ns: u64) -> &mut T {
        while self.index(now_ns) >= SLOTS_MAX {
            self.widen();
        }
        let index = self.index(now_ns);
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, T::default);
        }
        &mut self.slots[index]
    }

    fn index(&self, now_ns: u64) -> usize {
        (now_ns / NS_PER_S / self.slot_s) as usize
    }

    /// Adds what another thread has measured.
    pub(super) fn merge(&mut self, mut other: Timeline<T>) {
        while other.slot_s < self.slot_s {
            other.widen();
        }
        self.widen_to(other.slot_s);
        if self.slots.len() < other.slots.len() {
            self.slots.resize_with(other.slots.len(), T::default);
        }
        for (slot, other) in self.slots.iter_mut().zip(other.slots) {
            *slot += other;
        }
    }

    /// Makes the slots at least as wide as this.
    pub(super) fn widen_to(&mut self, slot_s: u64) {
        while self.slot_s < slot_s {
            self.widen();
        }
    }

    fn widen(&mut self) {
        let mut slots = std::mem::take(&mut self.slots).into_iter();
        while let Some(mut slot) = slots.next() {
            if let Some(second) = slots.next() {
                slot += second;
            }
            self.slots.push(slot);
        }
        self.slot_s *= 2;
    }

    pub(super) fn slot_s(&self) -> u64 {
        self.slot_s
    }

    pub(super) fn slots(&self) -> &[T] {
        &self.slots
    }
}

/// The time spans of one slot, told apart less finely than those of the run as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Spans(
    #[serde(serialize_with = "write_spans", deserialize_with = "read_spans")] Option<Box<Histogram<u32>>>,
);

fn write_spans<S: Serializer>(spans: &Option<Box<Histogram<u32>>>, to: S) -> Result<S::Ok, S::Error> {
    spans.as_deref().map(to_text).serialize(to)
}

fn read_spans<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<Histogram<u32>>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let mut histogram = from_text(&text).map_err(D::Error::custom)?;
    histogram.auto(true);
    Ok(Some(Box::new(histogram)))
}

impl Spans {
    pub(super) fn record(&mut self, ns: u64) {
        let histogram = self.0.get_or_insert_with(|| {
            let mut histogram =
                Histogram::new_with_bounds(NS_MIN, 2 * NS_MIN, DIGITS).expect("the bounds are constants that fit");
            // It grows up to the longest span, which is mostly a small part of what it could hold.
            histogram.auto(true);
            Box::new(histogram)
        });
        histogram.record(ns.min(NS_MAX)).expect("it grows as far as needed");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// Nanoseconds that a share of `quantile` (0 to 1) of the spans does not exceed; `None` if there are none.
    pub(super) fn at(&self, quantile: f64) -> Option<u64> {
        Some(self.0.as_ref()?.value_at_quantile(quantile))
    }

    pub(super) fn max(&self) -> Option<u64> {
        Some(self.0.as_ref()?.max())
    }
}

impl AddAssign for Spans {
    fn add_assign(&mut self, other: Spans) {
        match (&mut self.0, other.0) {
            (_, None) => {}
            (Some(own), Some(other)) => own.add(&*other).expect("it grows as far as needed"),
            (own, other) => *own = other,
        }
    }
}

/// What came in one slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Arrivals {
    /// How late each message was, or how long its way and back took.
    pub(super) spans: Spans,
    /// Messages that GAPs told of.
    pub(super) dropped: u64,
}

impl AddAssign for Arrivals {
    fn add_assign(&mut self, other: Arrivals) {
        self.spans += other.spans;
        self.dropped += other.dropped;
    }
}

/// What the coordinator saw in one slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub(super) published: u64,
    /// Connections that became ready.
    pub(super) connects: u64,
    /// Connections that were open when it was last looked at; `None` if it never was.
    pub(super) open: Option<u64>,
}

impl AddAssign for Sample {
    fn add_assign(&mut self, later: Sample) {
        self.published += later.published;
        self.connects += later.connects;
        self.open = later.open.or(self.open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_wider_slots_and_loses_nothing() {
        let mut timeline = Timeline::<u64>::default();
        for second in 0..2_500 {
            *timeline.at(second * NS_PER_S) += 1;
        }
        assert_eq!((timeline.slot_s(), timeline.slots().len()), (8, 313));
        assert_eq!((timeline.slots()[0], timeline.slots().iter().sum()), (8, 2_500));
    }

    #[test]
    fn timelines_of_unlike_widths_are_merged_into_the_wider_one() {
        let filled = |seconds: u64| {
            let mut timeline = Timeline::<u64>::default();
            (0..seconds).for_each(|second| *timeline.at(second * NS_PER_S) += 1);
            timeline
        };
        for (first, second) in [(10, 700), (700, 10)] {
            let mut sum = filled(first);
            sum.merge(filled(second));
            assert_eq!((sum.slot_s(), sum.slots().len(), sum.slots()[0]), (2, 350, 4));
            assert_eq!(sum.slots().iter().sum::<u64>(), 710);
        }
    }

    #[test]
    fn spans_are_added_exactly() {
        let (mut sum, mut other) = (Spans::default(), Spans::default());
        assert_eq!((sum.at(0.5), sum.count()), (None, 0));
        sum.record(1_000);
        other.record(80_000_000_000);
        other.record(u64::MAX);
        sum += other;
        assert_eq!(sum.count(), 3);
        assert!(sum.at(0.5).unwrap().abs_diff(80_000_000_000) < 800_000_000);
        assert!(sum.max().unwrap().abs_diff(NS_MAX) < NS_MAX / 100);
    }

    #[test]
    fn a_timeline_survives_as_text() {
        let mut timeline = Timeline::<Arrivals>::default();
        timeline.at(0).dropped = 5;
        timeline.at(2 * NS_PER_S).spans.record(1_000_000);
        let text = serde_json::to_string(&timeline).unwrap();
        let mut read: Timeline<Arrivals> = serde_json::from_str(&text).unwrap();
        assert_eq!((read.slots()[0].dropped, read.slots()[2].spans.at(1.0)), (5, timeline.slots()[2].spans.at(1.0)));
        // It still grows.
        read.at(2 * NS_PER_S).spans.record(NS_MAX);
        assert_eq!(read.slots()[2].spans.count(), 2);
    }

    #[test]
    fn the_last_look_at_the_connections_counts() {
        let mut sample = Sample { published: 1, connects: 2, open: Some(7) };
        sample += Sample { published: 1, connects: 1, open: Some(5) };
        sample += Sample::default();
        assert_eq!((sample.published, sample.connects, sample.open), (2, 3, Some(5)));
    }
}
