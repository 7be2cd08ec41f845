//! The server's state and counters, as one JSON object.

use axum::extract::State;
use axum::response::Json;

use crate::control::api::Api;
use crate::control::figures::Stats;
use crate::control::problem::Problem;
use crate::control::query::{NoParams, Params};

/// Everything the server counts
#[utoipa::path(get, path = "/v1/stats", tag = "observe", responses((status = 200, description = "The counters", body = Stats)))]
pub(super) async fn stats(State(api): State<Api>, _: Params<NoParams>) -> Result<Json<Stats>, Problem> {
    Ok(Json(api.stats()))
}
