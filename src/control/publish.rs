//! Publishing one message: to a topic, to everyone, to one connection.

use std::io::Write;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::config::SlowConsumer;
use crate::control::api::Api;
use crate::control::body::{AnyBytes, Message};
use crate::control::counts::Dropped;
use crate::control::extract::{ConnectionId, Policy, TopicName};
use crate::control::problem::Problem;
use crate::control::query::{Flag, Parameters, Params, Query};
use crate::control::topics::topic_name;
use crate::message::{Payload, PublishId, Target};
use crate::receipt::{Published, Receipt};

/// How to publish.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PublishParams {
    /// Whether to wait until every shard has gone through the recipients, and tell what became of the message.
    #[param(value_type = Flag, required = false, inline)]
    pub(super) receipt: bool,
}

impl Parameters for PublishParams {
    const NAMES: &'static [&'static str] = &["receipt"];

    fn take(query: &mut Query) -> Result<Self, Problem> {
        Ok(PublishParams { receipt: query.flag("receipt")? })
    }
}

/// How to publish to a topic that the query names.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct NamedParams {
    /// The topic.
    #[param(value_type = TopicName, inline)]
    name: String,
    /// Whether to wait until every shard has gone through the recipients, and tell what became of the message.
    #[param(value_type = Flag, required = false, inline)]
    receipt: bool,
}

impl Parameters for NamedParams {
    const NAMES: &'static [&'static str] = &["name", "receipt"];

    fn take(query: &mut Query) -> Result<Self, Problem> {
        Ok(NamedParams { name: topic_name(query)?, receipt: query.flag("receipt")? })
    }
}

/// A message that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// The publish. A decimal number, as text: it may be larger than what JSON numbers hold exactly.
    id: String,
}

/// What became of one message: `matched = written + queued + dropped`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReceiptBody {
    /// The publish. A decimal number, as text: it may be larger than what JSON numbers hold exactly.
    id: String,
    /// Connections that it was meant for.
    matched: u64,
    /// Connections whose kernel buffer took it whole.
    written: u64,
    /// Connections in whose queue it waits.
    queued: u64,
    /// Connections that miss it, by reason.
    dropped: Dropped,
    /// Shards that have answered.
    shards: usize,
    /// Microseconds from acceptance to the first write; null: there was none.
    #[schema(required)]
    first_write_us: Option<u64>,
    /// Microseconds from acceptance to the last write; null: there was none.
    #[schema(required)]
    last_write_us: Option<u64>,
}

impl Accepted {
    pub(super) fn new(id: PublishId) -> Self {
        Accepted { id: id.to_string() }
    }

    /// The same as JSON, without one.
    pub(super) fn write(id: PublishId, to: &mut Vec<u8>) -> serde_json::Result<()> {
        write!(to, "{{\"id\":\"{id}\"}}").map_err(serde_json::Error::io)
    }
}

impl From<Receipt> for ReceiptBody {
    fn from(receipt: Receipt) -> Self {
        let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        ReceiptBody {
            id: receipt.id.to_string(),
            matched: receipt.matched,
            written: receipt.written,
            queued: receipt.queued,
            dropped: Dropped::from_fn(|reason| receipt.dropped_for(reason)),
            shards: receipt.shards,
            first_write_us: receipt.first_write.map(us),
            last_write_us: receipt.last_write.map(us),
        }
    }
}

/// Publish to a topic
///
/// The body is the message, any bytes. `Content-Type` says whether they are text (as `text/plain` and `application/json`
/// do) or binary (as any other does); where it says neither, they are text if they are UTF-8. It is handed to every shard,
/// or to none.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/messages",
    tag = "publish",
    params(
        ("topic" = inline(TopicName), Path, description = "The topic, percent-encoded"),
        PublishParams,
        Policy,
    ),
    request_body(content = inline(AnyBytes), content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "What became of it, where a receipt was asked for", body = ReceiptBody),
        (status = 202, description = "It is on its way", body = Accepted),
    )
)]
pub(super) async fn publish_to_topic(
    State(api): State<Api>,
    TopicName(topic): TopicName,
    Params(params): Params<PublishParams>,
    policy: Policy,
    Message(payload): Message,
) -> Result<Response, Problem> {
    publish(&api, Target::Topic(topic), payload, policy.slow_consumer(), params.receipt).await
}

/// Publish to a topic that the query names
///
/// As `/v1/topics/{topic}/messages`, for proxies that change paths: any name can be told this way.
#[utoipa::path(
    post,
    path = "/v1/topic/messages",
    tag = "publish",
    params(
        NamedParams,
        Policy,
    ),
    request_body(content = inline(AnyBytes), content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "What became of it, where a receipt was asked for", body = ReceiptBody),
        (status = 202, description = "It is on its way", body = Accepted),
    )
)]
pub(super) async fn publish_to_named(
    State(api): State<Api>,
    Params(params): Params<NamedParams>,
    policy: Policy,
    Message(payload): Message,
) -> Result<Response, Problem> {
    let topic = api.topic(&params.name)?;
    publish(&api, Target::Topic(topic), payload, policy.slow_consumer(), params.receipt).await
}

/// Publish to everyone
///
/// The body is the message, any bytes. `Content-Type` says whether they are text (as `text/plain` and `application/json`
/// do) or binary (as any other does); where it says neither, they are text if they are UTF-8. It is handed to every shard,
/// or to none.
#[utoipa::path(
    post,
    path = "/v1/broadcast",
    tag = "publish",
    params(
        PublishParams,
        Policy,
    ),
    request_body(content = inline(AnyBytes), content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "What became of it, where a receipt was asked for", body = ReceiptBody),
        (status = 202, description = "It is on its way", body = Accepted),
    )
)]
pub(super) async fn broadcast(
    State(api): State<Api>,
    Params(params): Params<PublishParams>,
    policy: Policy,
    Message(payload): Message,
) -> Result<Response, Problem> {
    publish(&api, Target::All, payload, policy.slow_consumer(), params.receipt).await
}

/// Send to one connection
///
/// The body is the message, any bytes. `Content-Type` says whether they are text (as `text/plain` and `application/json`
/// do) or binary (as any other does); where it says neither, they are text if they are UTF-8.
#[utoipa::path(
    post,
    path = "/v1/connections/{id}/messages",
    tag = "publish",
    params(
        ("id" = u64, Path, description = "The connection"),
        PublishParams,
        Policy,
    ),
    request_body(content = inline(AnyBytes), content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "What became of it, where a receipt was asked for", body = ReceiptBody),
        (status = 202, description = "It is on its way", body = Accepted),
        (status = 404, description = "The connection is not open", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn send_to_connection(
    State(api): State<Api>,
    ConnectionId(id): ConnectionId,
    Params(params): Params<PublishParams>,
    policy: Policy,
    Message(payload): Message,
) -> Result<Response, Problem> {
    if api.handle().peer(id).is_none() {
        return Err(Problem::no_connection());
    }
    publish(&api, Target::Conn(id), payload, policy.slow_consumer(), params.receipt).await
}

async fn publish(
    api: &Api,
    target: Target,
    payload: Payload,
    policy: Option<SlowConsumer>,
    receipt: bool,
) -> Result<Response, Problem> {
    match api.publish(target, payload, policy, receipt)? {
        (_, Some(published)) => Ok(Json(receipt_of(api, published).await?).into_response()),
        (id, None) => Ok((StatusCode::ACCEPTED, Json(Accepted::new(id))).into_response()),
    }
}

/// Waits for a receipt, but not for ever: a shard may hang in its handler.
pub(super) async fn receipt_of(api: &Api, published: Published) -> Result<ReceiptBody, Problem> {
    let id = published.id();
    match tokio::time::timeout(api.limits().answer_time, published.receipt()).await {
        Ok(receipt) => Ok(receipt.into()),
        Err(_) => Err(Problem::late_receipt(id)),
    }
}
