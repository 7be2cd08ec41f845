//! The figures of what was published and delivered, for all kinds of load that publish.

use super::{FULL, Report, SHORT, Section, Value};
use crate::load::deliveries::Deliveries;
use crate::load::publisher::PublisherResult;
use crate::load::tally::Verdict;

impl Section {
    pub(super) fn published(&mut self, publisher: &PublisherResult) {
        self.count("published", "published", publisher.published.into());
        self.count("refused", "refused (ERR busy)", publisher.refused_count);
        self.latency("publish_late_us", "published late by", &publisher.lateness, SHORT);
    }

    /// What came, and how fast. `begin_ns`: when the load began.
    pub(super) fn delivered(&mut self, deliveries: &Deliveries, begin_ns: Option<u64>) {
        self.count("delivered", "delivered", deliveries.received);
        let span_ns = begin_ns.and_then(|begin| deliveries.last_ns.checked_sub(begin)).filter(|&ns| ns > 0);
        if let Some(span_ns) = span_ns {
            let rate = deliveries.received as f64 * 1e9 / span_ns as f64;
            self.add("delivered_per_s", "delivered per second", Value::PerSecond(rate));
        }
        self.latency("latency_us", "latency", &deliveries.latency, FULL);
    }

    /// What did not come, or not as it should.
    pub(super) fn verdict(&mut self, verdict: &Verdict, deliveries: &Deliveries) {
        self.count("lost", "lost", verdict.lost);
        self.count("gaps_reported", "missing, told by GAP", verdict.reported);
        self.count("gap_notices", "GAP notices", deliveries.gap_notices);
        self.count("gaps_over_reported", "told by GAP, not missing", verdict.over_reported);
        self.count("duplicated", "duplicated", verdict.duplicated);
        self.count("reordered", "reordered", verdict.reordered);
        self.count("corrupted", "corrupted", deliveries.corrupted);
        self.count("unexpected", "delivered though refused", verdict.unexpected);
        self.count("foreign", "of other publishers", deliveries.foreign);
    }
}

impl Report {
    /// Adds what is wrong with the deliveries.
    pub(super) fn deliveries(&mut self, verdict: &Verdict, deliveries: &Deliveries) {
        self.problem(verdict.lost, "deliveries were lost without a GAP");
        self.problem(verdict.duplicated, "deliveries came twice");
        self.problem(verdict.reordered, "deliveries came out of order");
        self.problem(deliveries.corrupted, "deliveries were not what was published");
        self.problem(verdict.unexpected, "deliveries came although their publish was refused");
    }

    /// Adds what went wrong with the publisher.
    pub(super) fn publisher(&mut self, publisher: &PublisherResult) {
        self.problem(u64::from(publisher.published - publisher.answered), "publishes had no answer");
        if let Some(reason) = &publisher.closed {
            self.problems.push(format!("the publisher's connection was lost ({reason})"));
        }
    }
}
