//! The event stream: the statistics once a second, taken and written once for all who listen.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use futures_lite::stream;
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::api::Api;
use crate::control::figures::{ShardStats, Stats};
use crate::control::problem::Problem;
use crate::control::query::{NoParams, Params};

/// The statistics, and how fast they change.
#[derive(Serialize, ToSchema)]
pub(super) struct Event {
    #[serde(flatten)]
    stats: Stats,
    rates: Rates,
}

/// Per second, since the event before.
#[derive(Default, Serialize, ToSchema)]
struct Rates {
    messages_in: f64,
    messages_out: f64,
    delivered: f64,
    dropped: f64,
    accepted: f64,
    refused: f64,
    closed: f64,
}

/// Tells all listeners once a second, until there are none.
async fn tick(api: Api) {
    let mut last: Option<(Instant, ShardStats)> = None;
    let mut ticks = tokio::time::interval(api.limits().event_time);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (now, stats) = (Instant::now(), api.stats());
        let rates = last.map(|(then, totals)| Rates::between(&totals, &stats.totals, now - then)).unwrap_or_default();
        last = Some((now, stats.totals));
        // Numbers and plain words, which JSON can hold.
        let data = serde_json::to_string(&Event { stats, rates }).unwrap_or_default();
        if !api.listeners().send(format!("event: stats\ndata: {data}\n\n").into()) {
            break;
        }
    }
}

impl Rates {
    fn between(last: &ShardStats, now: &ShardStats, span: Duration) -> Self {
        let rate = |last: u64, now: u64| {
            let rate = now.saturating_sub(last) as f64 / span.as_secs_f64().max(1e-3);
            (rate * 10.0).round() / 10.0
        };
        Rates {
            messages_in: rate(last.messages_in, now.messages_in),
            messages_out: rate(last.messages_out, now.messages_out),
            delivered: rate(last.delivered, now.delivered),
            dropped: rate(last.dropped.sum(), now.dropped.sum()),
            accepted: rate(last.accepted, now.accepted),
            refused: rate(last.refused.sum(), now.refused.sum()),
            closed: rate(last.closed.sum(), now.closed.sum()),
        }
    }
}

/// Follow the statistics
///
/// Server-sent events: once a second an event `stats`, whose data is what `/v1/stats` answers, with rates. A listener
/// that does not read for a few seconds is let go.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "observe",
    responses((status = 200, description = "The stream", body = Event, content_type = "text/event-stream"))
)]
pub(super) async fn events(State(api): State<Api>, _: Params<NoParams>) -> Result<impl IntoResponse, Problem> {
    let (receiver, is_first) = api.listeners().join()?;
    if is_first {
        tokio::spawn(tick(api.clone()));
    }
    let stop = api.listeners().stop();
    let events = stream::unfold((receiver, stop), |(mut receiver, mut stop)| async move {
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
            None
        };
        // It ends also when some were missed: the client has not read them.
        let event = futures_lite::future::or(async { receiver.recv().await.ok() }, stopped).await?;
        Some((Ok::<_, std::convert::Infallible>(event), (receiver, stop)))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(events)))
}
