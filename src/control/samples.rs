//! Samples of the counters, a bounded number of them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use crate::config::control::HISTORY_SAMPLES;
use crate::control::counts::Dropped;
use crate::control::figures::{Start, Stats};
use crate::metrics::Spans;
use crate::server::handle::ServerHandle;

/// The samples, the oldest first.
#[derive(Default)]
pub(super) struct Samples(Mutex<VecDeque<Sample>>);

impl Samples {
    /// Takes one more in, in place of the oldest if there are as many as are kept.
    pub(super) fn push(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= HISTORY_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// The counters at one time. What they count is told with `/v1/stats`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Sample {
    /// Seconds since the control plane started.
    uptime_s: f64,
    /// Open connections.
    connections: usize,
    /// The same, by shard.
    connections_by_shard: Box<[u64]>,
    /// Memory growth since the start, divided by the connections; null: there are none.
    #[schema(required)]
    bytes_per_connection: Option<u64>,
    /// Complete messages received.
    messages_in: u64,
    /// Messages handed to the kernel whole, replies included.
    messages_out: u64,
    /// Messages that wait for clients.
    queued_messages: u64,
    /// Messages not delivered, by reason.
    dropped: Dropped,
    /// Times from a publish's acceptance to its last write on a shard: how many lie in each bucket of `bucket_ends_us`.
    time_to_last: [u64; Spans::BUCKETS],
}

impl Sample {
    pub(super) fn take(handle: &ServerHandle, start: Start) -> Self {
        let stats = Stats::take(handle, start);
        let mut time_to_last = [0; Spans::BUCKETS];
        for shard in handle.stats() {
            time_to_last.iter_mut().zip(shard.time_to_last.buckets()).for_each(|(sum, (_, count))| *sum += count);
        }
        Sample {
            uptime_s: stats.uptime_s,
            connections: stats.connections,
            connections_by_shard: handle.stats().map(|shard| shard.connections.get()).collect(),
            bytes_per_connection: stats.bytes_per_connection,
            messages_in: stats.totals.messages_in,
            messages_out: stats.totals.messages_out,
            queued_messages: stats.totals.queued_messages,
            dropped: stats.totals.dropped,
            time_to_last,
        }
    }
}
