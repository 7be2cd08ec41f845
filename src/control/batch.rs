//! Many publishes in one request: a JSON object a line in, one a line out.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::config::control::{BATCH_BYTES_MAX, BATCH_LINES_MAX, BATCH_PATIENCE_MS};
use crate::control::api::Api;
use crate::control::body::{self, AnyBytes};
use crate::control::extract::{PolicyName, connection_id};
use crate::control::lines::{self, Text};
use crate::control::problem::{Problem, ProblemCode};
use crate::control::publish::{Accepted, PublishParams, receipt_of};
use crate::control::query::Params;
use crate::handler::PublishError;
use crate::message::{Payload, PublishId, Target, Topic};
use crate::receipt::Published;

/// The media type of lines of JSON.
const NDJSON: &str = "application/x-ndjson";

/// What lines of JSON may be called. The last but one is what curl says of everything.
const TYPES: &[&str] = &[
    NDJSON,
    "application/ndjson",
    "application/jsonl",
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
];

/// Lines that are worked through before other requests get their turn.
const LINES_PER_TURN: usize = 128;

/// One publish of a batch. It has one target (`topic`, `broadcast: true` or `connection`) and one payload.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    /// Publish to this topic.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    topic: Option<Text<'a>>,
    /// Publish to everyone.
    #[serde(default)]
    broadcast: bool,
    /// Send to this connection.
    #[serde(default, deserialize_with = "lines::id")]
    connection: Option<String>,
    /// The message, as text.
    #[schema(value_type = Option<String>)]
    payload: Option<Text<'a>>,
    /// The message, in base64: binary.
    #[schema(value_type = Option<String>)]
    payload_base64: Option<Text<'a>>,
    /// Policy for slow consumers of this message.
    slow_consumer: Option<PolicyName>,
}

/// What became of one line: its id, and what its receipt comes from, if one is wanted.
type Outcome = Result<(PublishId, Option<Published>), Problem>;

/// The topic of the line before, which many have in common.
#[derive(Default)]
struct Topics(Option<Topic>);

impl Topics {
    fn take(&mut self, api: &Api, name: &str) -> Result<Topic, Problem> {
        if let Some(topic) = self.0.as_ref().filter(|topic| topic.as_str() == name) {
            return Ok(topic.clone());
        }
        let topic = api.topic(name)?;
        self.0 = Some(topic.clone());
        Ok(topic)
    }
}

/// Publish many messages
///
/// The body has one JSON object per line, and so has the answer, in the same order: the accepted publish, the receipt,
/// or a problem. A line that can't be published does not keep the others from it; but when the server is too busy for a
/// line, it takes none of those after it, so that they can be sent again in order. Where no line was published, the status
/// says so: 503 if the server was too busy, 400 otherwise.
#[utoipa::path(
    post,
    path = "/v1/batch",
    tag = "publish",
    params(PublishParams),
    request_body(content = inline(AnyBytes), content_type = "application/x-ndjson"),
    responses(
        (status = 200, description = "A line of answer for each line; at least one was published", body = String, content_type = "application/x-ndjson"),
        (status = 400, description = "Nothing was published: a line of answer for each line, or a problem with the whole", content((String = "application/x-ndjson"), (Problem = "application/problem+json"))),
        (status = 503, description = "Nothing was published: a line of answer for each line, or a problem with the whole", content((String = "application/x-ndjson"), (Problem = "application/problem+json"))),
    )
)]
pub(super) async fn batch(
    State(api): State<Api>,
    Params(params): Params<PublishParams>,
    request: Request,
) -> Result<Response, Problem> {
    let body = body::read_typed(request, &api, BATCH_BYTES_MAX, TYPES).await?;
    let lines = lines::split(&body.bytes, BATCH_LINES_MAX);
    if lines.len() > BATCH_LINES_MAX {
        let detail = format!("the batch has more than {BATCH_LINES_MAX} lines");
        return Err(Problem::new(ProblemCode::MessageTooLarge, detail));
    }
    let mut published = Vec::with_capacity(lines.len());
    let mut topics = Topics::default();
    let mut patience = Duration::from_millis(BATCH_PATIENCE_MS);
    let mut is_behind = false;
    for (number, line) in lines.into_iter().enumerate() {
        if number % LINES_PER_TURN == LINES_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
        let answer = if is_behind {
            Err(PublishError::Busy.into())
        } else {
            publish(&api, line, &mut topics, params.receipt, &mut patience).await
        };
        // No later line may overtake it: whoever sends the refused ones again keeps their order.
        is_behind |= answer.as_ref().is_err_and(Problem::is_busy);
        published.push(answer);
    }
    let status = status(&published);
    let mut answers = Vec::new();
    for published in published {
        write(&api, &mut answers, published).await;
    }
    let mut response = (status, [(CONTENT_TYPE, NDJSON)], answers).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

/// The status of the whole: whoever looks at nothing else must not take a batch of which nothing was published for one
/// that was.
fn status(published: &[Outcome]) -> StatusCode {
    let is_refused = |published: &Outcome| published.as_ref().is_err_and(Problem::is_refusal);
    match published {
        [] => StatusCode::OK,
        all if all.iter().any(Result::is_ok) => StatusCode::OK,
        all if all.iter().all(is_refused) => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Publishes one line. A shard that is behind is waited for, as long as the batch has patience left.
async fn publish(api: &Api, line: &[u8], topics: &mut Topics, receipt: bool, patience: &mut Duration) -> Outcome {
    const PAUSE: Duration = Duration::from_millis(2);
    let line: Line<'_> = lines::parse(line)?;
    let (target, payload) = (line.target(api, topics)?, line.payload(api)?);
    let policy = line.slow_consumer.map(|name| name.0);
    loop {
        match api.publish(target.clone(), payload.clone(), policy, receipt) {
            Err(PublishError::Busy) if !patience.is_zero() => {
                tokio::time::sleep(PAUSE).await;
                *patience = patience.saturating_sub(PAUSE);
            }
            published => return Ok(published?),
        }
    }
}

async fn write(api: &Api, answers: &mut Vec<u8>, published: Outcome) {
    let line = match published {
        Ok((_, Some(published))) => match receipt_of(api, published).await {
            Ok(receipt) => serde_json::to_writer(&mut *answers, &receipt),
            Err(problem) => serde_json::to_writer(&mut *answers, &problem),
        },
        Ok((id, None)) => Accepted::write(id, answers),
        Err(problem) => serde_json::to_writer(&mut *answers, &problem),
    };
    // A vector takes it all, and these are plain values.
    debug_assert!(line.is_ok());
    answers.push(b'\n');
}

impl Line<'_> {
    fn target(&self, api: &Api, topics: &mut Topics) -> Result<Target, Problem> {
        match (&self.topic, self.broadcast, &self.connection) {
            (Some(topic), false, None) => topics.take(api, topic).map(Target::Topic),
            (None, true, None) => Ok(Target::All),
            (None, false, Some(id)) => {
                let id = connection_id(id)?;
                api.handle().peer(id).map(|_| Target::Conn(id)).ok_or_else(Problem::no_connection)
            }
            _ => {
                let detail = "a line has one target: \"topic\", \"broadcast\": true, or \"connection\"";
                Err(Problem::new(ProblemCode::BadBody, detail))
            }
        }
    }

    fn payload(&self, api: &Api) -> Result<Payload, Problem> {
        let payload = match (&self.payload, &self.payload_base64) {
            (Some(text), None) => Payload::text(Bytes::copy_from_slice(text.as_bytes())),
            (None, Some(text)) => Payload::binary(
                BASE64_STANDARD
                    .decode(text.as_bytes())
                    .map_err(|error| Problem::new(ProblemCode::BadBody, format!("payload_base64: {error}")))?,
            ),
            _ => {
                let detail = "a line has one payload: \"payload\" (text) or \"payload_base64\"";
                return Err(Problem::new(ProblemCode::BadBody, detail));
            }
        };
        let max = api.handle().config().max_message;
        let len = payload.bytes().len();
        if len > max {
            return Err(PublishError::TooLarge { len, max }.into());
        }
        Ok(payload)
    }
}
