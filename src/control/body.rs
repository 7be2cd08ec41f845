//! Bodies of requests, bounded in bytes each and in all, and in the time they may take.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::config::control::PERMIT_BYTES;
use crate::control::api::Api;
use crate::control::media_type;
use crate::control::problem::{Problem, ProblemCode};
use crate::json;
use crate::message::{Kind, Payload};

/// A whole body, and the part of the budget that it takes while it is held.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// One message to publish: any bytes up to `max_message`, of the kind that `Content-Type` says.
pub(super) struct Message(pub(super) Payload);

impl FromRequest<Api> for Message {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let max = api.handle().config().max_message;
        let kind = media_type::kind(request.headers());
        // From here on the shards' queues account for it.
        let bytes = read(request, api, max).await?.bytes;
        if kind == Some(Kind::Text) && simdutf8::basic::from_utf8(&bytes).is_err() {
            let detail = "Content-Type says that the body is text, and it is not UTF-8; send it as UTF-8, or as it is with \
                          Content-Type: application/octet-stream";
            return Err(Problem::new(ProblemCode::BadBody, detail));
        }
        Ok(Message(match kind {
            Some(kind) => Payload::of_kind(kind, bytes),
            None => bytes.into(),
        }))
    }
}

/// How the API's description calls a body of any bytes.
pub(super) struct AnyBytes;

impl PartialSchema for AnyBytes {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).into()
    }
}

impl ToSchema for AnyBytes {}

/// A small JSON body.
pub(super) struct Json<T>(pub(super) T);

/// A small JSON body, or the default where there is none.
pub(super) struct OptionalJson<T>(pub(super) T);

/// The media types of JSON.
/// What curl and others call any body is understood as well.
const JSON: &[&str] = &["application/json", "application/x-www-form-urlencoded"];

/// Bytes of a JSON body at the most.
const JSON_BYTES_MAX: usize = 4096;

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        require_type(request.headers(), JSON)?;
        parse(&read(request, api, JSON_BYTES_MAX).await?.bytes).map(Json)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Api> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let body = read_typed(request, api, JSON_BYTES_MAX, JSON).await?;
        if body.bytes.is_empty() { Ok(OptionalJson(T::default())) } else { parse(&body.bytes).map(OptionalJson) }
    }
}

/// Reads JSON into `T`.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    json::read_object(bytes).map_err(|error| {
        let detail = format!("the body is not the JSON object that this call takes: {error}; see /openapi.json");
        Problem::new(ProblemCode::BadBody, detail)
    })
}

/// Refuses a body whose media type is not one of these.
fn require_type(headers: &HeaderMap, wanted: &[&str]) -> Result<(), Problem> {
    let value = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if wanted.iter().any(|wanted| essence.eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let given = if essence.is_empty() { "none".to_owned() } else { format!("`{essence}`") };
    let wanted = wanted.first().copied().unwrap_or_default();
    let detail = format!("the body must come with `Content-Type: {wanted}`; the request has {given}");
    Err(Problem::new(ProblemCode::UnsupportedMediaType, detail))
}

/// Reads a body that is empty, or of one of these media types.
pub(super) async fn read_typed(request: Request, api: &Api, max: usize, types: &[&str]) -> Result<Held, Problem> {
    let typed = require_type(request.headers(), types);
    let body = read(request, api, max).await?;
    if body.bytes.is_empty() { Ok(body) } else { typed.map(|()| body) }
}

/// Reads a body of at most `max` bytes.
pub(super) async fn read(request: Request, api: &Api, max: usize) -> Result<Held, Problem> {
    let too_large = || Problem::new(ProblemCode::MessageTooLarge, format!("the body has more than {max} bytes"));
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > max) {
        return Err(too_large());
    }
    // A body that does not tell its length may become as long as allowed.
    let permits = length.unwrap_or(max).div_ceil(PERMIT_BYTES) as u32;
    let permit = api.body_budget().try_acquire_many_owned(permits).map_err(|_| {
        Problem::new(ProblemCode::Busy, "the control plane has no room for more bytes of requests; try again later")
    })?;
    let body: Body = request.into_body();
    let whole = Limited::new(body, max).collect();
    match tokio::time::timeout(api.limits().body_time, whole).await {
        Ok(Ok(whole)) => Ok(Held { bytes: whole.to_bytes(), _permit: permit }),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(ProblemCode::BadBody, format!("the body did not arrive whole: {error}"))),
        Err(_) => Err(Problem::new(ProblemCode::BodyTimeout, "the body did not arrive in time")),
    }
}
