//! Counters of one shard: written by its own thread alone, read by any.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that one thread changes and any thread reads.
///
/// Since there is one writer, a change is a plain load and store: no locked instruction on the data path.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning shard's thread may call it.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts `n`. Only the owning shard's thread may call it.
    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets the value. Only the owning shard's thread may call it.
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A histogram of time spans: written by one thread, read by any.
#[derive(Debug, Default)]
pub struct Spans {
    /// Spans in each bucket: up to `1 << n` microseconds in the n-th, the rest in the last.
    buckets: [Counter; Spans::BUCKETS],
    /// Sum of all spans in microseconds.
    sum_us: Counter,
}

impl Spans {
    /// Buckets: the last but one ends at 2^22 microseconds, about 4 s.
    pub const BUCKETS: usize = 24;

    /// Counts a span. Only the owning shard's thread may call it.
    pub(crate) fn add(&self, span: Duration) {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(Spans::BUCKETS - 1)].add(1);
        self.sum_us.add(us);
    }

    /// Spans in each bucket, and the bucket's upper end (`None` for the last: there is none).
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        self.buckets.iter().enumerate().map(|(n, count)| {
            let end = (n < Spans::BUCKETS - 1).then(|| Duration::from_micros(1 << n));
            (end, count.get())
        })
    }

    /// Sum of all spans.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.get())
    }
}

/// How many close reasons, drop reasons and framings there may be; the enums are held against it at compile time.
pub(crate) const REASONS_MAX: usize = 32;

/// What one shard counts. Gauges say so; everything else only grows.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ShardMetrics {
    /// Gauge: open connections.
    pub connections: Counter,
    /// Gauge: topics that have a subscriber on this shard.
    pub topics: Counter,
    /// Times that the shard was away from its tasks for `STALL_MS` (50 ms) or longer.
    pub stalls: Counter,
    /// The longest of those times so far, in milliseconds.
    pub stall_ms_max: Counter,
    /// Buffers that the shard's pool could not lend, so that they were made for one use.
    pub pool_misses: Counter,
    /// Gauge: polls that are armed on the sockets of connections: one for each, and a second for one that is blocked.
    pub polls: Counter,
    /// Connections taken in.
    pub accepted: Counter,
    /// Connections accepted here and handed over to a shard that had fewer.
    pub handed_over: Counter,
    /// Connections refused because `max_connections` were open.
    pub refused_full: Counter,
    /// Connections refused because the process had more memory than `max_memory`.
    pub refused_memory: Counter,
    /// Connections refused because the server was draining.
    pub refused_draining: Counter,
    /// Requests by pages that may not connect (`allow_origin`, `host`).
    pub pages_refused: Counter,
    /// Times that a client was read more slowly because it sent more than `message_rate`.
    pub throttled: Counter,
    /// `accept` calls that failed for lack of fds or memory.
    pub accept_errors: Counter,
    /// Connections closed, by the number of their `CloseReason`.
    pub closed: [Counter; REASONS_MAX],
    /// Complete messages received.
    pub messages_in: Counter,
    /// Bytes received.
    pub bytes_in: Counter,
    /// Pushed messages handed to the kernel whole.
    pub delivered: Counter,
    /// Messages handed to the kernel whole, replies included.
    pub messages_out: Counter,
    /// Bytes handed to the kernel.
    pub bytes_out: Counter,
    /// Publishes that this shard delivered to its own connections.
    pub publishes: Counter,
    /// Publishes by this shard's clients that were refused because a queue was full.
    pub publishes_refused: Counter,
    /// Time from a publish's acceptance to its last write on this shard.
    pub time_to_last: Spans,
    /// Time a batch of publishes took to deliver.
    pub fanout: Spans,
    /// Recipients that publishes were meant for.
    pub matched: Counter,
    /// Messages not delivered, by the number of their `DropReason`.
    pub dropped: [Counter; REASONS_MAX],
    /// Frames encoded (once per publish and encoding, not per connection).
    pub encoded: Counter,
    /// Frames whose message was compressed.
    pub deflated: Counter,
    /// Bytes of these messages before they were compressed.
    pub deflated_from: Counter,
    /// Bytes of these messages once they were compressed.
    pub deflated_to: Counter,
    /// Compressed messages received whole.
    pub inflated: Counter,
    /// `send` calls.
    pub sends: Counter,
    /// `send` calls that the kernel took only in part or not at all.
    pub sends_blocked: Counter,
    /// Gauge: frames that wait in outboxes.
    pub queued_messages: Counter,
    /// Gauge: bytes that wait in outboxes.
    pub queued_bytes: Counter,
    /// Gauge: bytes that connections hold: messages that have not come in whole, and what waits to be written.
    pub held_bytes: Counter,
    /// Gauge: publishes that wait in this shard's queue.
    pub publish_queue: Counter,
    /// Gauge: messages that wait for other shards whose mesh queue is full.
    pub mesh_backlog: Counter,
    /// Messages that did not fit into a mesh queue at once and waited.
    pub mesh_full: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_fall_into_the_bucket_whose_end_they_reach() {
        let spans = Spans::default();
        for us in [0, 1, 2, 3, 4, 5, 1 << 22, (1 << 22) + 1, u64::MAX / 1000] {
            spans.add(Duration::from_micros(us));
        }
        let counts: Vec<_> = spans.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts[..4], [2, 1, 2, 1]);
        assert_eq!(counts[22..], [1, 2]);
        assert_eq!(spans.buckets().map(|(end, _)| end).last(), Some(None));
    }
}
