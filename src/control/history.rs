//! What the server did in the last minutes: a sample a second, for pages that open later.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::extract::State;
use axum::response::Json;
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use utoipa::ToSchema;

use crate::config::control::HISTORY_SAMPLES;
use crate::control::api::Api;
use crate::control::counts::Dropped;
use crate::control::problem::Problem;
use crate::control::query::{NoParams, Params};
use crate::metrics::Spans;

/// The samples, the oldest first.
#[derive(Default)]
pub(super) struct Samples(Mutex<VecDeque<Sample>>);

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

/// The last minutes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Past {
    /// Seconds since the control plane started, now.
    uptime_s: f64,
    /// The longest time in each bucket of `time_to_last`, in microseconds; null: there is no upper end.
    bucket_ends_us: Vec<Option<u64>>,
    /// A sample a second, the oldest first.
    samples: Vec<Sample>,
}

impl Sample {
    fn take(api: &Api) -> Self {
        let stats = api.stats();
        let mut time_to_last = [0; Spans::BUCKETS];
        for shard in api.handle().stats() {
            time_to_last.iter_mut().zip(shard.time_to_last.buckets()).for_each(|(sum, (_, count))| *sum += count);
        }
        Sample {
            uptime_s: stats.uptime_s,
            connections: stats.connections,
            connections_by_shard: api.handle().stats().map(|shard| shard.connections.get()).collect(),
            bytes_per_connection: stats.bytes_per_connection,
            messages_in: stats.totals.messages_in,
            messages_out: stats.totals.messages_out,
            queued_messages: stats.totals.queued_messages,
            dropped: stats.totals.dropped,
            time_to_last,
        }
    }
}

/// Takes samples for ever.
pub(super) async fn record(api: Api) {
    let mut ticks = tokio::time::interval(api.limits().event_time);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = Sample::take(&api);
        let mut samples = api.samples().0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= HISTORY_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

/// The last five minutes
///
/// What `/v1/stats` told of the most important counters, once a second: what the dashboard begins with.
#[utoipa::path(
    get,
    path = "/v1/history",
    tag = "observe",
    responses((status = 200, description = "The samples", body = Past))
)]
pub(super) async fn history(State(api): State<Api>, _: Params<NoParams>) -> Result<Json<Past>, Problem> {
    let ends = Spans::default();
    let bucket_ends_us = ends.buckets().map(|(end, _)| end.map(|end| end.as_micros() as u64)).collect();
    let samples = api.samples().0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
    Ok(Json(Past { uptime_s: api.start().uptime_s(), bucket_ends_us, samples }))
}
