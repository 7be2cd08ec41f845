//! Published messages as subscribers get them: checked, measured and counted.

use serde::{Deserialize, Serialize};

use super::latency::Latency;
use super::payload::{Stamp, Template};
use super::timeline::{Arrivals, Timeline};

/// What the subscribers of one thread got.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Deliveries {
    /// Messages that came for the first time.
    pub(super) received: u64,
    /// From the moment they were due to their arrival.
    pub(super) latency: Latency,
    /// Deliveries, by the time when they came.
    pub(super) over_time: Timeline<Arrivals>,
    /// When the last one came, in nanoseconds of the run's clock.
    pub(super) last_ns: u64,
    /// GAP messages.
    pub(super) gap_notices: u64,
    /// Messages whose stamp or filler is not what was sent.
    pub(super) corrupted: u64,
    /// Messages of other publishers or other topics.
    pub(super) foreign: u64,
}

/// What a run publishes.
pub(super) struct Published<'a> {
    pub(super) run: u32,
    pub(super) topic: &'a str,
    /// Messages at the most.
    pub(super) messages: u32,
    pub(super) template: &'a Template,
}

impl Deliveries {
    /// The stamp of a message that this run has published; of others it counts what they are.
    pub(super) fn check(&mut self, published: &Published<'_>, topic: Option<&[u8]>, payload: &[u8]) -> Option<Stamp> {
        let is_own = topic.is_none_or(|topic| topic == published.topic.as_bytes());
        let stamp = Stamp::parse(payload).filter(|stamp| is_own && stamp.run == published.run);
        let Some(stamp) = stamp else {
            self.foreign += 1;
            return None;
        };
        if stamp.seq >= published.messages {
            self.corrupted += 1;
            return None;
        }
        if !published.template.matches_filler(payload) {
            self.corrupted += 1;
        }
        Some(stamp)
    }

    /// Counts a message that came for the first time, and says after how many nanoseconds.
    pub(super) fn receive(&mut self, stamp: Stamp, now: u64) -> u64 {
        let latency = now.saturating_sub(stamp.at_ns);
        self.latency.record(latency);
        self.over_time.at(now).spans.record(latency);
        self.received += 1;
        self.last_ns = now;
        latency
    }

    /// Counts a GAP message that tells of `count` messages.
    pub(super) fn gap(&mut self, count: u64, now: u64) {
        self.gap_notices += 1;
        self.over_time.at(now).dropped += count;
    }

    /// Adds what the subscribers of another thread got. What came by time stays apart.
    pub(super) fn add(&mut self, other: &Deliveries) {
        self.received += other.received;
        self.latency.merge(&other.latency);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.gap_notices += other.gap_notices;
        self.corrupted += other.corrupted;
        self.foreign += other.foreign;
    }
}
