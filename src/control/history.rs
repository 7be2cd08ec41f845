//! What the server did in the last minutes: a sample a second, for pages that open later.

use axum::extract::State;
use axum::response::Json;
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use utoipa::ToSchema;

use crate::control::api::Api;
use crate::control::problem::Problem;
use crate::control::query::{NoParams, Params};
use crate::control::samples::Sample;
use crate::metrics::Spans;

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

/// Takes samples for ever.
pub(super) async fn record(api: Api) {
    let mut ticks = tokio::time::interval(api.limits().event_time);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        api.samples().push(Sample::take(api.handle(), api.start()));
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
    Ok(Json(Past { uptime_s: api.start().uptime_s(), bucket_ends_us, samples: api.samples().all() }))
}
