//! What the server says of itself, taken once a second, and what changed in between.
//!
//! Only what is shown is read, and what an older server does not tell is zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::commands::client::{CONTROL_ADDRESS, Client};
use crate::commands::error::CommandError;

/// Topics that one look takes in at the most: one page.
const TOPICS_SEEN: usize = 1_000;

/// Topics that are kept, those with the most subscribers.
const TOPICS_KEPT: usize = 50;

/// Counts by reason.
pub(super) type Reasons = BTreeMap<String, u64>;

/// The server's own words, as far as they are shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) state: String,
    pub(super) version: String,
    pub(super) uptime_s: f64,
    pub(super) connections: u64,
    pub(super) max_connections: u64,
    pub(super) buffers_max: u64,
    pub(super) resident_bytes: u64,
    pub(super) bytes_per_connection: Option<u64>,
    pub(super) totals: Counts,
    pub(super) shards: Vec<Shard>,
    pub(super) time_to_last_us: TimeToLast,
}

/// One shard's counters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shard {
    pub(super) shard: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

/// Counters of one shard, or their sums.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) connections: u64,
    pub(super) accepted: u64,
    pub(super) accept_errors: u64,
    pub(super) refused: Reasons,
    pub(super) closed: Reasons,
    pub(super) dropped: Reasons,
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    pub(super) delivered: u64,
    pub(super) queued_messages: u64,
    pub(super) queued_bytes: u64,
    pub(super) held_bytes: u64,
    pub(super) publish_queue: u64,
    pub(super) mesh_backlog: u64,
    pub(super) stalls: u64,
    pub(super) stall_ms_max: u64,
}

/// Time from a publish to its last write.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TimeToLast {
    pub(super) count: u64,
    pub(super) p50: Option<u64>,
    pub(super) p99: Option<u64>,
}

/// One topic.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Topic {
    pub(super) topic: String,
    pub(super) subscribers: u64,
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
}

/// The topics with the most subscribers.
#[derive(Clone, Debug, Default)]
pub(super) struct Topics {
    pub(super) top: Vec<Topic>,
    /// Whether there are more than one look takes in, so that the largest may be missing.
    pub(super) is_part: bool,
}

/// A page of topics.
#[derive(Deserialize)]
struct Page {
    topics: Vec<Topic>,
    next: Option<String>,
}

/// The server at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) stats: Stats,
    /// All that it said.
    pub(super) said: Value,
}

impl Sample {
    /// Asks the server.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub(super) fn take(client: &Client) -> Result<Self, CommandError> {
        let path = "/v1/stats";
        let said: Value = client.get(path)?;
        match Stats::deserialize(&said) {
            Ok(stats) if !stats.state.is_empty() => Ok(Sample { stats, said }),
            _ => Err(CommandError::Foreign { url: client.url(path), status: 200, meant: CONTROL_ADDRESS }),
        }
    }

    /// What the server said, with what was worked out from it.
    pub(super) fn json(&self, rates: Option<Rates>, topics: &Topics) -> Value {
        let mut json = self.said.clone();
        if let Value::Object(object) = &mut json {
            object.insert("rates".into(), serde_json::to_value(rates).unwrap_or_default());
            object.insert("top_topics".into(), serde_json::to_value(&topics.top).unwrap_or_default());
        }
        json
    }
}

impl Topics {
    /// Asks the server.
    ///
    /// # Errors
    /// See [`Client::get`].
    pub(super) fn take(client: &Client) -> Result<Self, CommandError> {
        let page: Page = client.get(&format!("/v1/topics?limit={TOPICS_SEEN}"))?;
        let mut top = page.topics;
        top.sort_by(|a, b| (b.subscribers, b.published, &a.topic).cmp(&(a.subscribers, a.published, &b.topic)));
        top.truncate(TOPICS_KEPT);
        Ok(Topics { top, is_part: page.next.is_some() })
    }
}

/// Changes per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    pub(super) accepted: u64,
    pub(super) closed: u64,
    /// Delivered by each shard.
    #[serde(skip)]
    pub(super) delivered_by_shard: Vec<u64>,
}

impl Rates {
    /// What changed between two moments, by the server's clock; none, if it was started anew in between.
    pub(super) fn between(old: &Stats, new: &Stats) -> Option<Self> {
        let seconds = new.uptime_s - old.uptime_s;
        if seconds <= 0.0 || new.totals.accepted < old.totals.accepted {
            return None;
        }
        let rate = |old: u64, new: u64| (new.saturating_sub(old) as f64 / seconds).round() as u64;
        let sum = |reasons: &Reasons| reasons.values().sum::<u64>();
        let (a, b) = (&old.totals, &new.totals);
        Some(Rates {
            messages_in: rate(a.messages_in, b.messages_in),
            messages_out: rate(a.messages_out, b.messages_out),
            delivered: rate(a.delivered, b.delivered),
            dropped: rate(sum(&a.dropped), sum(&b.dropped)),
            accepted: rate(a.accepted, b.accepted),
            closed: rate(sum(&a.closed), sum(&b.closed)),
            delivered_by_shard: (old.shards.iter().zip(&new.shards))
                .map(|(a, b)| rate(a.counts.delivered, b.counts.delivered))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(json: &str) -> Stats {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rates_are_by_the_servers_clock_and_end_with_it() {
        let old = stats(
            r#"{"state":"running","uptime_s":10.0,"totals":{"delivered":100,"dropped":{"queue-full":1}},
                "shards":[{"shard":0,"delivered":100}]}"#,
        );
        let new = stats(
            r#"{"state":"running","uptime_s":12.0,"totals":{"delivered":300,"dropped":{"queue-full":5,"closed":2}},
                "shards":[{"shard":0,"delivered":300}]}"#,
        );
        let rates = Rates::between(&old, &new).unwrap();
        assert_eq!((rates.delivered, rates.dropped, rates.messages_in), (100, 3, 0));
        assert_eq!(rates.delivered_by_shard, [100]);
        assert_eq!(Rates::between(&new, &old), None, "the server was started anew");
        assert_eq!(Rates::between(&new, &new), None);
    }

    #[test]
    fn what_a_server_does_not_tell_is_zero() {
        let old = stats(r#"{"state":"running","totals":{"closed":{"reset":1}},"shards":[{"shard":3}],"news":[1]}"#);
        assert_eq!((old.totals.closed["reset"], old.totals.accept_errors, old.shards[0].shard), (1, 0, 3));
    }
}
