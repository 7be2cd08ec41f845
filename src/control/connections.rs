//! Seeing and closing connections.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::control::api::Api;
use crate::control::extract::ConnectionId;
use crate::control::problem::{Problem, ProblemCode};
use crate::control::query::{NoParams, Parameters, Params, Query};
use crate::engine::query::ConnectionInfo;
use crate::server::handle::{ConnectionCursor, QueryError};

/// Which page of connections.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// The `next` of the page before; left out: the first page.
    #[param(pattern = r"^(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,7})$")]
    after: Option<String>,
    /// Connections on a page at the most.
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    limit: usize,
}

impl Parameters for PageParams {
    const NAMES: &'static [&'static str] = &["after", "limit"];

    fn take(query: &mut Query) -> Result<Self, Problem> {
        Ok(PageParams { after: query.text("after"), limit: query.limit("limit")? })
    }
}

/// A page of connections, in no particular order. One that is open all the while is on exactly one page.
#[derive(Serialize, ToSchema)]
pub(super) struct ConnectionPage {
    connections: Vec<Connection>,
    /// The `after` of the next page; null: this is the last one.
    #[schema(required)]
    next: Option<String>,
}

/// One connection.
#[derive(Serialize, ToSchema)]
pub(super) struct Connection {
    /// Its id. A decimal number, as text: it may be larger than what JSON numbers hold exactly.
    id: String,
    /// The client's address.
    peer: String,
    /// The shard that holds it.
    shard: usize,
    /// How its messages are framed.
    framing: &'static str,
    /// Seconds since it was opened.
    age_s: f64,
    /// The topics it is subscribed to.
    topics: Vec<String>,
    /// Messages that wait for it.
    queued_messages: usize,
    /// Bytes that wait for it.
    queued_bytes: usize,
    /// Messages written to it, up to 4294967295.
    sent: u64,
    /// Messages that it missed, up to 4294967295.
    dropped: u64,
}

impl From<ConnectionInfo> for Connection {
    fn from(info: ConnectionInfo) -> Self {
        Connection {
            id: info.id.to_string(),
            peer: info.peer.to_string(),
            shard: info.shard,
            framing: info.framing.name(),
            age_s: info.age.as_secs_f64(),
            topics: info.topics.iter().map(ToString::to_string).collect(),
            queued_messages: info.queued_messages,
            queued_bytes: info.queued_bytes,
            sent: info.sent,
            dropped: info.dropped,
        }
    }
}

/// List connections
#[utoipa::path(
    get,
    path = "/v1/connections",
    tag = "observe",
    params(PageParams),
    responses((status = 200, description = "A page of them", body = ConnectionPage))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<PageParams>,
) -> Result<Json<ConnectionPage>, Problem> {
    let from = match params.after.as_deref() {
        None => ConnectionCursor::default(),
        Some(text) => cursor(text)?,
    };
    let (connections, next) = api.answer(api.handle().connections(from, params.limit)).await?;
    let connections = connections.into_iter().map(Connection::from).collect();
    Ok(Json(ConnectionPage { connections, next: next.map(|next| next.to_string()) }))
}

fn cursor(text: &str) -> Result<ConnectionCursor, Problem> {
    match text.parse::<ConnectionCursor>() {
        // Only what was given out: `parse` alone takes signs and zeros before a number.
        Ok(cursor) if cursor.to_string() == text => Ok(cursor),
        _ => Err(Problem::new(
            ProblemCode::BadQuery,
            "after is not the `next` of a page before; leave it out for the first page",
        )),
    }
}

/// Look at one connection
#[utoipa::path(
    get,
    path = "/v1/connections/{id}",
    tag = "observe",
    params(("id" = u64, Path, description = "The connection")),
    responses(
        (status = 200, description = "It", body = Connection),
        (status = 404, description = "It is not open", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    ConnectionId(id): ConnectionId,
    _: Params<NoParams>,
) -> Result<Json<Connection>, Problem> {
    api.answer(api.handle().connection(id)).await.map(|info| Json(info.into()))
}

/// Close one connection
///
/// What waits for it is written first. It is counted as `kicked`.
#[utoipa::path(
    delete,
    path = "/v1/connections/{id}",
    tag = "operate",
    params(("id" = u64, Path, description = "The connection")),
    responses(
        (status = 204, description = "It no longer takes anything, and is closing"),
        (status = 404, description = "It is not open", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn close(
    State(api): State<Api>,
    ConnectionId(id): ConnectionId,
    _: Params<NoParams>,
) -> Result<StatusCode, Problem> {
    let handle = api.handle();
    api.answer(handle.connection(id)).await?;
    handle.close(id)?;
    // It closes behind what was published to it before; then it is not found any more.
    let closed = async {
        loop {
            match handle.connection(id).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(QueryError::NotOpen) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    };
    api.answer(closed).await.map(|()| StatusCode::NO_CONTENT)
}
