//! The server's state and counters: what `/v1/stats`, the event stream and the history tell.

use std::time::Instant;

use serde::Serialize;
use utoipa::ToSchema;

use crate::control::counts::{Closed, Dropped, Refusal, Refused};
use crate::host;
use crate::metrics::{ShardMetrics, Spans};
use crate::server::handle::ServerHandle;

/// Whether the server takes connections.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Phase {
    Running,
    Draining,
}

/// The server.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    state: Phase,
    /// The server's version.
    version: &'static str,
    /// Seconds since the control plane started.
    pub(super) uptime_s: f64,
    /// Open connections.
    pub(super) connections: usize,
    /// Connections that may be open at a time.
    max_connections: usize,
    /// Bytes of memory that connections may hold together.
    buffers_max: usize,
    /// Memory of the process.
    resident_bytes: u64,
    /// What it was when the control plane started, with few connections or none.
    resident_bytes_at_start: u64,
    /// Memory that came since then, divided by the connections; null: there are none.
    #[schema(required)]
    pub(super) bytes_per_connection: Option<u64>,
    /// Sums over the shards; of `stall_ms_max`, the longest.
    pub(super) totals: ShardStats,
    /// Each shard.
    shards: Vec<Shard>,
    /// Time from a publish's acceptance to its last write on a shard.
    time_to_last_us: TimeToLast,
}

/// One shard.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct Shard {
    /// Its number.
    shard: usize,
    #[serde(flatten)]
    stats: ShardStats,
}

/// Quantiles, each the upper end of its bucket; null: there is none, or it is above 4 s.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct TimeToLast {
    /// Times measured: one for each publish and shard with a recipient.
    count: u64,
    #[schema(required)]
    p50: Option<u64>,
    #[schema(required)]
    p99: Option<u64>,
    #[schema(required)]
    max_bucket: Option<u64>,
    /// The histogram: two of them, taken one after the other, tell the quantiles of the time between.
    buckets: Vec<Bucket>,
}

/// Times of a histogram that are longer than the bucket before allows.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct Bucket {
    /// The longest time in it; null: there is no upper end.
    #[schema(required)]
    up_to: Option<u64>,
    /// Times in it.
    count: u64,
}

macro_rules! shard_stats {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What a shard counts. Those named in the present are gauges, the others only grow.
        #[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
        pub(super) struct ShardStats {
            /// Connections refused, by reason.
            pub(super) refused: Refused,
            /// Connections closed, by reason.
            pub(super) closed: Closed,
            /// Messages not delivered, by reason.
            pub(super) dropped: Dropped,
            /// The longest stall, in milliseconds.
            stall_ms_max: u64,
            $($(#[doc = $doc])* pub(super) $name: u64,)*
        }

        impl ShardStats {
            fn of(shard: &ShardMetrics) -> Self {
                ShardStats {
                    refused: Refused::from_fn(|reason: Refusal| reason.count(shard)),
                    closed: Closed::from_fn(|reason| shard.closed[reason as usize].get()),
                    dropped: Dropped::from_fn(|reason| shard.dropped[reason as usize].get()),
                    stall_ms_max: shard.stall_ms_max.get(),
                    $($name: shard.$name.get(),)*
                }
            }

            fn add(&mut self, other: &Self) {
                self.refused.add(&other.refused);
                self.closed.add(&other.closed);
                self.dropped.add(&other.dropped);
                self.stall_ms_max = self.stall_ms_max.max(other.stall_ms_max);
                $(self.$name += other.$name;)*
            }
        }
    };
}

shard_stats! {
    /// Open connections.
    connections,
    /// Topics that have a subscriber on the shard.
    topics,
    /// Polls armed on the sockets of connections.
    polls,
    /// Connections accepted.
    accepted,
    /// Connections accepted and handed over to a shard that had fewer.
    handed_over,
    /// `accept` calls that failed for lack of file descriptors or memory.
    accept_errors,
    /// Times that a client was read more slowly because it sent more than `message_rate`.
    throttled,
    /// Complete messages received.
    messages_in,
    /// Bytes received.
    bytes_in,
    /// Messages handed to the kernel whole, replies included.
    messages_out,
    /// Bytes handed to the kernel.
    bytes_out,
    /// Publishes delivered to the shard's connections: each shard counts each publish.
    publishes,
    /// Publishes by clients that were refused because a queue was full.
    publishes_refused,
    /// Recipients that publishes were meant for.
    matched,
    /// Pushed messages handed to the kernel whole.
    delivered,
    /// Messages that wait for clients.
    queued_messages,
    /// Bytes that wait for clients.
    queued_bytes,
    /// Bytes of memory that connections hold.
    held_bytes,
    /// Publishes that wait in the shard's queue.
    publish_queue,
    /// Messages that wait for other shards.
    mesh_backlog,
    /// `send` calls.
    sends,
    /// `send` calls that the kernel took only in part or not at all.
    sends_blocked,
    /// Frames encoded.
    encoded,
    /// Times that the shard was away from its tasks for 50 ms or longer.
    stalls,
    /// Buffers that the pool could not lend.
    pool_misses,
}

/// What a process was when its control plane started, and who counts what it loses of its log.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) at: Instant,
    pub(super) resident_bytes: u64,
    pub(super) log_lines_dropped: fn() -> u64,
}

impl Start {
    /// Seconds since then, to the millisecond.
    pub(super) fn uptime_s(self) -> f64 {
        (self.at.elapsed().as_secs_f64() * 1e3).round() / 1e3
    }
}

impl Stats {
    pub(super) fn take(handle: &ServerHandle, start: Start) -> Self {
        let shards: Vec<_> = handle.stats().map(ShardStats::of).collect();
        let mut totals = ShardStats::default();
        shards.iter().for_each(|shard| totals.add(shard));
        let connections = handle.conn_count();
        let resident_bytes = host::resident_bytes().unwrap_or(0);
        let grown = resident_bytes.saturating_sub(start.resident_bytes);
        Stats {
            state: if handle.is_draining() { Phase::Draining } else { Phase::Running },
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: start.uptime_s(),
            connections,
            max_connections: handle.max_connections(),
            buffers_max: handle.buffers_max(),
            resident_bytes,
            resident_bytes_at_start: start.resident_bytes,
            bytes_per_connection: grown.checked_div(connections as u64),
            totals,
            shards: shards.into_iter().enumerate().map(|(shard, stats)| Shard { shard, stats }).collect(),
            time_to_last_us: TimeToLast::of(handle.stats().map(|shard| &shard.time_to_last)),
        }
    }
}

impl TimeToLast {
    fn of<'a>(all: impl Iterator<Item = &'a Spans>) -> Self {
        let mut counts = [0; Spans::BUCKETS];
        let mut ends = [None; Spans::BUCKETS];
        for spans in all {
            for (n, (end, count)) in spans.buckets().enumerate() {
                counts[n] += count;
                ends[n] = end.map(|end| end.as_micros() as u64);
            }
        }
        let count: u64 = counts.iter().sum();
        let quantile = |percent: u64| {
            let rank = (count * percent).div_ceil(100);
            let mut seen = 0;
            let bucket = counts.iter().position(|count| {
                seen += count;
                seen >= rank && rank > 0
            });
            bucket.and_then(|bucket| ends[bucket])
        };
        let buckets = ends.into_iter().zip(counts).map(|(up_to, count)| Bucket { up_to, count }).collect();
        TimeToLast { count, p50: quantile(50), p99: quantile(99), max_bucket: quantile(100), buckets }
    }
}
