//! Liveness, readiness, and draining.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::duration_from_text;
use crate::control::api::Api;
use crate::control::body::OptionalJson;
use crate::control::problem::{Problem, ProblemCode};
use crate::control::query::{NoParams, Params};

/// Is the process alive
#[utoipa::path(get, path = "/healthz", tag = "operate", security(()), responses((status = 200, description = "It is", body = String, content_type = "text/plain")))]
pub(super) async fn healthz() -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], "ok")
}

/// Does the server take connections
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operate",
    security(()),
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain"),
        (status = 503, description = "It is draining", body = String, content_type = "text/plain"),
    )
)]
pub(super) async fn readyz(State(api): State<Api>) -> impl IntoResponse {
    let (status, word) = match api.handle().is_draining() {
        false => (StatusCode::OK, "ready"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    (status, [(CACHE_CONTROL, "no-store")], word)
}

/// How to drain.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Drain {
    /// Time for which clients are still taken and served, as in `5s`; left out: `drain_grace` of the settings.
    grace: Option<String>,
    /// Time over which connections are closed, as in `10s`; left out: `drain_time` of the settings.
    over: Option<String>,
}

/// A drain that has begun.
#[derive(Serialize, ToSchema)]
pub(super) struct Draining {
    /// Always `draining`.
    state: &'static str,
    /// Connections left.
    connections: usize,
}

/// The longest drain.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Drain the server
///
/// It is not ready any more, takes no more connections after a grace, closes those it has evenly over a time, and ends.
/// What SIGTERM does.
#[utoipa::path(
    post,
    path = "/v1/drain",
    tag = "operate",
    request_body(content = Option<Drain>, content_type = "application/json"),
    responses((status = 202, description = "It has begun, now or earlier", body = Draining))
)]
pub(super) async fn drain(
    State(api): State<Api>,
    _: Params<NoParams>,
    OptionalJson(drain): OptionalJson<Drain>,
) -> Result<impl IntoResponse, Problem> {
    let handle = api.handle();
    let time = |name: &str, text: &Option<String>, otherwise: Duration| {
        let Some(text) = text else { return Ok(otherwise) };
        duration_from_text(text)
            .map_err(String::from)
            .and_then(|time| if time <= DRAIN_MAX { Ok(time) } else { Err(format!("{text} is longer than a day")) })
            .map_err(|error| Problem::new(ProblemCode::BadBody, format!("{name}: {error}")))
    };
    let grace = time("grace", &drain.grace, handle.config().drain_grace)?;
    let over = time("over", &drain.over, handle.config().drain_time)?;
    handle.drain_after(grace, over);
    Ok((StatusCode::ACCEPTED, Json(Draining { state: "draining", connections: handle.conn_count() })))
}
