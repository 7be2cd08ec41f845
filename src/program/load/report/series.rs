//! The course of a run: one value for each slot of time.

use serde_json::{Map, Value as Json, json};

use crate::load::coordinator::Run;
use crate::load::timeline::{Arrivals, Sample, Spans, Timeline};

/// What was measured by time, brought to slots of one width.
#[derive(Clone, Debug, Default)]
pub(in crate::load) struct Series {
    samples: Timeline<Sample>,
    connects: Timeline<Spans>,
    arrivals: Timeline<Arrivals>,
    /// When the load began, in nanoseconds of the run's clock.
    begin_ns: Option<u64>,
    end_ns: u64,
}

/// One value for each slot; `None` where nothing was measured.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::load) struct Column {
    /// Ends in its unit, as all keys of the JSON do. Times are given in nanoseconds all the same.
    pub(in crate::load) key: &'static str,
    pub(in crate::load) values: Vec<Option<f64>>,
}

impl Series {
    pub(super) fn new<R>(run: &Run<R>) -> Series {
        Series {
            samples: run.samples.clone(),
            connects: run.connects.over_time.clone(),
            arrivals: Timeline::default(),
            begin_ns: run.begin_ns,
            end_ns: run.end_ns,
        }
    }

    /// Adds what one thread received.
    pub(super) fn add(&mut self, arrivals: &Timeline<Arrivals>) {
        self.arrivals.merge(arrivals.clone());
    }

    /// Seconds of a slot.
    pub(in crate::load) fn slot_s(&self) -> u64 {
        self.samples.slot_s().max(self.connects.slot_s()).max(self.arrivals.slot_s())
    }

    /// When each slot begins, in seconds since the run began.
    pub(in crate::load) fn times(&self) -> Vec<f64> {
        let slot_s = self.slot_s();
        let count = (self.end_ns as f64 / 1e9 / slot_s as f64).ceil() as u64;
        (0..count).map(|index| (index * slot_s) as f64).collect()
    }

    /// The columns that have a value at all.
    pub(in crate::load) fn columns(&self) -> Vec<Column> {
        let slot_s = self.slot_s();
        let (mut samples, mut connects, mut arrivals) =
            (self.samples.clone(), self.connects.clone(), self.arrivals.clone());
        samples.widen_to(slot_s);
        connects.widen_to(slot_s);
        arrivals.widen_to(slot_s);
        let count = self.times().len();
        let column =
            |key, value: &dyn Fn(usize) -> Option<f64>| Column { key, values: (0..count).map(value).collect() };
        let is_whole = |index| enough(slot_s, self.overlap(index, 0)).is_some();
        let spans = |index| arrivals.slots().get(index).filter(|_| is_whole(index)).map(|slot| &slot.spans);
        let first = |index| connects.slots().get(index).filter(|_| is_whole(index));
        let sample = |index: usize| samples.slots().get(index).copied().unwrap_or_default();
        let load = |index, count: u64| Some(count as f64 / self.seconds_of_load(index)?);
        let ns = |ns: u64| ns as f64;
        let mut columns = vec![
            column("latency_us_p50", &|index| spans(index)?.at(0.5).map(ns)),
            column("latency_us_p99", &|index| spans(index)?.at(0.99).map(ns)),
            column("latency_us_max", &|index| spans(index)?.max().map(ns)),
            column("delivered_per_s", &|index| load(index, spans(index).map_or(0, Spans::count))),
            column("dropped_per_s", &|index| load(index, arrivals.slots().get(index).map_or(0, |slot| slot.dropped))),
            column("published_per_s", &|index| load(index, sample(index).published)),
            column("connections", &|index| sample(index).open.map(|open| open as f64)),
            column("connects_per_s", &|index| {
                Some(sample(index).connects as f64 / enough(slot_s, self.overlap(index, 0))?)
            }),
            column("connect_us_p50", &|index| first(index)?.at(0.5).map(ns)),
            column("connect_us_p99", &|index| first(index)?.at(0.99).map(ns)),
            column("connect_us_max", &|index| first(index)?.max().map(ns)),
        ];
        let has_messages = arrivals.slots().iter().any(|slot| slot.spans.count() > 0);
        let has_publishes = samples.slots().iter().any(|slot| slot.published > 0);
        columns.retain(|column| match column.key {
            "delivered_per_s" => has_messages,
            "dropped_per_s" | "published_per_s" => has_publishes,
            _ => column.values.iter().any(Option::is_some),
        });
        columns
    }

    /// Seconds of a slot in which the load was on. A slot that it has only begun to fill says nothing about rates.
    fn seconds_of_load(&self, index: usize) -> Option<f64> {
        enough(self.slot_s(), self.overlap(index, self.begin_ns?))
    }

    /// Seconds of a slot between `from_ns` and the end of the run.
    fn overlap(&self, index: usize, from_ns: u64) -> f64 {
        let slot_ns = self.slot_s() * 1_000_000_000;
        let start = (index as u64 * slot_ns).max(from_ns);
        let end = ((index as u64 + 1) * slot_ns).min(self.end_ns);
        end.saturating_sub(start) as f64 / 1e9
    }

    pub(super) fn to_json(&self) -> Json {
        let mut object = Map::new();
        object.insert("slot_s".into(), json!(self.slot_s()));
        object.insert("time_s".into(), json!(self.times()));
        for Column { key, values } in self.columns() {
            let scale = if key.contains("_us_") { 1e3 } else { 1.0 };
            let rounded = |value: &Option<f64>| value.map(|value| (value / scale * 1e3).round() / 1e3);
            object.insert(key.into(), values.iter().map(rounded).collect());
        }
        Json::Object(object)
    }
}

/// The seconds, if they are half a slot at least.
fn enough(slot_s: u64, seconds: f64) -> Option<f64> {
    (seconds >= slot_s as f64 / 2.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_in_which_the_load_was_on() {
        let mut series = Series { begin_ns: Some(400_000_000), end_ns: 2_200_000_000, ..Series::default() };
        for (ms, count) in [(500, 60), (1_500, 100), (2_100, 30)] {
            let now = ms * 1_000_000;
            *series.samples.at(now) += Sample { published: count, connects: 1, open: Some(count) };
            (0..count).for_each(|_| series.arrivals.at(now).spans.record(now));
        }
        let columns = series.columns();
        let values = |key| &columns.iter().find(|column| column.key == key).unwrap().values;
        assert_eq!(values("delivered_per_s"), &[Some(100.0), Some(100.0), None]);
        assert_eq!(values("published_per_s"), values("delivered_per_s"));
        assert_eq!(values("connects_per_s"), &[Some(1.0), Some(1.0), None]);
        assert_eq!(values("connections"), &[Some(60.0), Some(100.0), Some(30.0)]);
        assert!(columns.iter().all(|column| !column.key.starts_with("connect_us")), "no connect was timed");
        assert_eq!(series.to_json()["time_s"], json!([0.0, 1.0, 2.0]));
    }
}
