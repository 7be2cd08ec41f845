//! Values in the shape that the Prometheus encoder takes.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric};

use crate::metrics::Spans;

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

pub(super) fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let (mut metric, mut counter) = (labelled(labels), Counter::default());
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let (mut metric, mut gauge) = (labelled(labels), Gauge::default());
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

pub(super) fn histogram(labels: &[(&str, &str)], spans: &Spans) -> Metric {
    let (mut metric, mut histogram) = (labelled(labels), Histogram::default());
    let (mut buckets, mut count) = (Vec::new(), 0);
    for (end, spans) in spans.buckets() {
        count += spans;
        if let Some(end) = end {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(end.as_secs_f64());
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count);
    histogram.set_sample_sum(spans.sum().as_secs_f64());
    metric.set_histogram(histogram);
    metric
}
