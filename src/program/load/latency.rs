//! Time spans, collected in a histogram.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::serialization::{Deserializer as V2Deserializer, Serializer as _, V2Serializer};
use hdrhistogram::{Counter, Histogram};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Spans are told apart from here on, in nanoseconds.
const NS_MIN: u64 = 64;

/// Longer spans count as this one, in nanoseconds (10 minutes).
const NS_MAX: u64 = 600_000_000_000;

/// Points of the curve for each halving of the distance to the maximum.
const CURVE_STEPS: u32 = 8;

/// Significant decimal digits.
const DIGITS: u8 = 3;

/// A histogram of time spans in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Latency(Histogram::new_with_bounds(NS_MIN, NS_MAX, DIGITS).expect("the bounds are constants that fit"))
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_text(&self.0))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from_text(&String::deserialize(from)?).map(Latency).map_err(D::Error::custom)
    }
}

/// A histogram in HdrHistogram's own format (V2), as text. Nothing of it is lost.
pub(super) fn to_text<T: Counter>(histogram: &Histogram<T>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).expect("a vector takes a histogram of any size");
    BASE64_STANDARD.encode(bytes)
}

/// Reads what [`to_text`] wrote.
pub(super) fn from_text<T: Counter>(text: &str) -> Result<Histogram<T>, String> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
    V2Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| error.to_string())
}

impl Latency {
    pub(super) fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub(super) fn merge(&mut self, other: &Latency) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// Nanoseconds that a share of `quantile` (0 to 1) of the spans does not exceed; 0 if there are none.
    pub(super) fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    pub(super) fn max(&self) -> u64 {
        self.0.max()
    }

    /// Points of the curve of percentiles: quantile and nanoseconds, closer together towards the end.
    pub(super) fn curve(&self) -> Vec<(f64, u64)> {
        let steps = self.0.iter_quantiles(CURVE_STEPS);
        steps.map(|step| (step.quantile_iterated_to(), step.value_iterated_to().min(self.0.max()))).collect()
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_survives_as_text_and_is_merged_exactly() {
        let (mut first, mut second) = (Latency::default(), Latency::default());
        let mut both = Latency::default();
        for step in 0..10_000_u64 {
            let ns = step * step * 31 + 7;
            if step % 3 == 0 {
                first.record(ns)
            } else {
                second.record(ns)
            }
            both.record(ns);
        }
        let text = serde_json::to_string(&second).unwrap();
        first.merge(&serde_json::from_str(&text).unwrap());
        assert_eq!(first.0, both.0);
        assert!(serde_json::from_str::<Latency>("\"AAAA\"").is_err());
    }
}
