//! Time spans, collected in a histogram.

use hdrhistogram::Histogram;

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
