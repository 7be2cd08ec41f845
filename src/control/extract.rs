//! Parts of a request, checked: each refusal is a problem that names the part and what would be right.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::config::{ParseError, SlowConsumer, TOPIC_BYTES_MAX};
use crate::control::api::Api;
use crate::control::problem::{Problem, ProblemCode};
use crate::message::{ConnId, Topic, topic_pattern};

/// The header that overrides the slow-consumer policy for one message.
pub(super) const SLOW_CONSUMER: &str = "corecast-slow-consumer";

/// The `{topic}` of a path.
pub(super) struct TopicName(pub(super) Topic);

impl PartialSchema for TopicName {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some(topic_pattern()));
        name.min_length(Some(1)).max_length(Some(TOPIC_BYTES_MAX)).into()
    }
}

impl ToSchema for TopicName {}

impl TopicName {
    /// Reads a segment of a path.
    pub(super) fn decode(api: &Api, segment: &str) -> Result<Self, Problem> {
        let name = percent_decode_str(segment).decode_utf8().map_err(|_| not_utf8())?;
        api.topic(&name).map(TopicName)
    }
}

fn not_utf8() -> Problem {
    Problem::new(ProblemCode::BadTopic, "a topic is UTF-8 text, percent-encoded where it is part of a path")
}

impl FromRequestParts<Api> for TopicName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        // What is left to go wrong with one segment is that it is not UTF-8.
        let Path(name) = Path::<String>::from_request_parts(parts, api).await.map_err(|_| not_utf8())?;
        api.topic(&name).map(TopicName)
    }
}

/// The `{id}` of a path.
pub(super) struct ConnectionId(pub(super) ConnId);

impl FromRequestParts<Api> for ConnectionId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, api).await.map(|Path(text)| text).unwrap_or_default();
        connection_id(&text).map(ConnectionId)
    }
}

/// Reads a connection's id.
pub(super) fn connection_id(text: &str) -> Result<ConnId, Problem> {
    // `parse` alone would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        let detail = "a connection's id is a decimal number, as `ID` tells a client and GET /v1/connections lists it";
        Problem::new(ProblemCode::BadConnectionId, detail)
    })
}

/// A slow-consumer policy, in JSON and in the API's description.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct PolicyName(pub(super) SlowConsumer);

impl PartialSchema for PolicyName {
    fn schema() -> RefOr<Schema> {
        let names = SlowConsumer::ALL.map(SlowConsumer::name);
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
    }
}

impl ToSchema for PolicyName {}

/// The policy for slow consumers of this message, where the request names one.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(super) struct Policy {
    /// Policy for slow consumers of this message, in place of the topic's or the server's.
    #[param(rename = "Corecast-Slow-Consumer", value_type = PolicyName, required = false, inline)]
    name: Option<PolicyName>,
}

impl Policy {
    pub(super) fn slow_consumer(&self) -> Option<SlowConsumer> {
        self.name.map(|name| name.0)
    }
}

impl FromRequestParts<Api> for Policy {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(SLOW_CONSUMER).iter();
        let Some(value) = values.next() else { return Ok(Policy { name: None }) };
        if values.next().is_some() {
            return Err(Problem::new(ProblemCode::BadPolicy, "there is more than one Corecast-Slow-Consumer header"));
        }
        let text = String::from_utf8_lossy(value.as_bytes());
        text.parse()
            .map(|policy| Policy { name: Some(PolicyName(policy)) })
            .map_err(|error: ParseError| Problem::new(ProblemCode::BadPolicy, error.to_string()))
    }
}
