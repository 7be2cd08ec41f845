//! Seeing topics, and setting their policy for slow consumers.

use axum::extract::State;
use axum::response;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::control::api::Api;
use crate::control::body::Json;
use crate::control::extract::{PolicyName, TopicName};
use crate::control::problem::{Problem, ProblemCode};
use crate::control::query::{NoParams, Parameters, Params, Query};
use crate::message;
use crate::server::handle::TopicInfo;

/// Which page of topics.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// Only topics that begin with it.
    #[param(required = false)]
    prefix: String,
    /// The `next` of the page before: only topics after it.
    after: Option<String>,
    /// Topics on a page at the most.
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    limit: usize,
}

impl Parameters for PageParams {
    const NAMES: &'static [&'static str] = &["prefix", "after", "limit"];

    fn take(query: &mut Query) -> Result<Self, Problem> {
        let prefix = query.text("prefix").unwrap_or_default();
        Ok(PageParams { prefix, after: query.text("after"), limit: query.limit("limit")? })
    }
}

/// A page of topics that have subscribers, in the order of their names.
#[derive(Serialize, ToSchema)]
pub(super) struct TopicPage {
    topics: Vec<Topic>,
    /// The `after` of the next page; null: this is the last one.
    #[schema(required)]
    next: Option<String>,
}

/// One topic. Counts begin when it has a first subscriber.
#[derive(Serialize, ToSchema)]
pub(super) struct Topic {
    /// Its name.
    topic: String,
    /// Connections that are subscribed to it.
    subscribers: usize,
    /// The same, by shard.
    subscribers_by_shard: Vec<usize>,
    /// Messages published to it.
    published: u64,
    /// Messages of it that were written to a subscriber at once.
    delivered: u64,
    /// Messages of it that a subscriber missed.
    dropped: u64,
    /// The policy that was set for it; null: the server's holds.
    #[schema(required)]
    slow_consumer: Option<PolicyName>,
}

impl From<TopicInfo> for Topic {
    fn from(info: TopicInfo) -> Self {
        Topic {
            topic: info.name,
            subscribers: info.subscribers.iter().sum(),
            subscribers_by_shard: info.subscribers,
            published: info.published,
            delivered: info.written,
            dropped: info.dropped,
            slow_consumer: info.slow_consumer.map(PolicyName),
        }
    }
}

/// List topics
#[utoipa::path(
    get,
    path = "/v1/topics",
    tag = "observe",
    params(PageParams),
    responses((status = 200, description = "A page of them", body = TopicPage))
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<PageParams>,
) -> Result<response::Json<TopicPage>, Problem> {
    let limit = params.limit;
    let found = api.answer(api.handle().topics(&params.prefix, params.after.as_deref(), limit)).await?;
    // A full page may be the last one; the next is empty then.
    let next = if found.len() == limit { found.last().map(|topic| topic.name.clone()) } else { None };
    Ok(response::Json(TopicPage { topics: found.into_iter().map(Topic::from).collect(), next }))
}

/// Look at one topic
///
/// One that nobody is subscribed to has no subscribers, but may have a policy.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}",
    tag = "observe",
    params(("topic" = inline(TopicName), Path, description = "The topic, percent-encoded")),
    responses((status = 200, description = "It", body = Topic))
)]
pub(super) async fn get(
    State(api): State<Api>,
    TopicName(topic): TopicName,
    _: Params<NoParams>,
) -> Result<response::Json<Topic>, Problem> {
    look_at(&api, &topic).await
}

/// Look at one topic, by a name in the query
///
/// As `/v1/topics/{topic}`, for proxies that change paths: any name can be told this way.
#[utoipa::path(
    get,
    path = "/v1/topic",
    tag = "observe",
    params(NameParams),
    responses((status = 200, description = "It", body = Topic))
)]
pub(super) async fn get_named(
    State(api): State<Api>,
    Params(params): Params<NameParams>,
) -> Result<response::Json<Topic>, Problem> {
    look_at(&api, &api.topic(&params.name)?).await
}

async fn look_at(api: &Api, topic: &message::Topic) -> Result<response::Json<Topic>, Problem> {
    Ok(response::Json(api.answer(api.handle().topic(topic)).await?.into()))
}

/// Which topic.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct NameParams {
    /// The topic.
    #[param(value_type = TopicName, inline)]
    name: String,
}

impl Parameters for NameParams {
    const NAMES: &'static [&'static str] = &["name"];

    fn take(query: &mut Query) -> Result<Self, Problem> {
        Ok(NameParams { name: topic_name(query)? })
    }
}

/// Takes the `name` of a topic.
pub(super) fn topic_name(query: &mut Query) -> Result<String, Problem> {
    query.text("name").ok_or_else(|| {
        let detail = "the parameter `name` is missing: the topic's name, as in ?name=a/b";
        Problem::new(ProblemCode::BadQuery, detail)
    })
}

/// What can be set for a topic.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicSettings {
    /// The policy for slow consumers; null: the server's.
    #[serde(deserialize_with = "present")]
    #[schema(required)]
    slow_consumer: Option<PolicyName>,
}

/// Reads a field that may be null, but not left out.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PolicyName>, D::Error> {
    Option::deserialize(from)
}

/// Set a topic's policy for slow consumers
///
/// It holds for what is published from then on, until the server ends.
#[utoipa::path(
    put,
    path = "/v1/topics/{topic}",
    tag = "operate",
    params(("topic" = inline(TopicName), Path, description = "The topic, percent-encoded")),
    request_body = TopicSettings,
    responses(
        (status = 200, description = "It is set", body = Topic),
        (status = 409, description = "Too many topics have one", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn set(
    State(api): State<Api>,
    TopicName(topic): TopicName,
    _: Params<NoParams>,
    Json(settings): Json<TopicSettings>,
) -> Result<response::Json<Topic>, Problem> {
    change(&api, &topic, settings).await
}

/// Set a topic's policy for slow consumers, by a name in the query
///
/// As `/v1/topics/{topic}`, for proxies that change paths: any name can be told this way.
#[utoipa::path(
    put,
    path = "/v1/topic",
    tag = "operate",
    params(NameParams),
    request_body = TopicSettings,
    responses(
        (status = 200, description = "It is set", body = Topic),
        (status = 409, description = "Too many topics have one", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn set_named(
    State(api): State<Api>,
    Params(params): Params<NameParams>,
    Json(settings): Json<TopicSettings>,
) -> Result<response::Json<Topic>, Problem> {
    change(&api, &api.topic(&params.name)?, settings).await
}

async fn change(api: &Api, topic: &message::Topic, settings: TopicSettings) -> Result<response::Json<Topic>, Problem> {
    api.handle().set_slow_consumer(topic, settings.slow_consumer.map(|name| name.0))?;
    look_at(api, topic).await
}
