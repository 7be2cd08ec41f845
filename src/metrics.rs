//! Counters of one shard: written by its own thread alone, read by any.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// How many close reasons, drop reasons and framings there may be; the enums are held against it at compile time.
pub(crate) const REASONS_MAX: usize = 16;

/// What one shard counts. Gauges say so; everything else only grows.
#[derive(Debug, Default)]
pub struct ShardMetrics {
    /// Gauge: open connections.
    pub connections: Counter,
    /// Gauge: connection tasks.
    pub tasks: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections refused because `max_connections` were open.
    pub refused_full: Counter,
    /// `accept` calls that failed for want of fds or memory.
    pub accept_errors: Counter,
    /// Connections closed, by the number of their `CloseReason`.
    pub closed: [Counter; REASONS_MAX],
    /// Complete messages received.
    pub messages_in: Counter,
    /// Bytes received.
    pub bytes_in: Counter,
    /// Messages handed to the kernel whole.
    pub messages_out: Counter,
    /// Bytes handed to the kernel.
    pub bytes_out: Counter,
    /// Publishes that this shard delivered to its own connections.
    pub publishes: Counter,
    /// Publishes by this shard's clients that were refused because a queue was full.
    pub publishes_refused: Counter,
    /// Recipients that publishes were meant for.
    pub matched: Counter,
    /// Messages not delivered, by the number of their `DropReason`.
    pub dropped: [Counter; REASONS_MAX],
    /// Frames encoded (once per publish and framing, not per connection).
    pub encoded: Counter,
    /// `send` calls.
    pub sends: Counter,
    /// `send` calls that the kernel took only in part or not at all.
    pub sends_blocked: Counter,
    /// Gauge: frames that wait in outboxes.
    pub queued_messages: Counter,
    /// Gauge: bytes that wait in outboxes.
    pub queued_bytes: Counter,
    /// Gauge: publishes that wait in this shard's queue.
    pub publish_queue: Counter,
    /// Gauge: messages that wait for other shards whose mesh queue is full.
    pub mesh_backlog: Counter,
    /// Messages that did not fit into a mesh queue at once and waited.
    pub mesh_full: Counter,
}
