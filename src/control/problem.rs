//! What the API says when it does not do what was asked: problem documents of RFC 9457 with a stable code.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::handler::PublishError;
use crate::message::{PublishId, TopicError};
use crate::server::handle::{CloseError, PolicyError, QueryError};

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $status:ident $name:literal,)*) => {
        /// The stable words for what can go wrong with a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum ProblemCode {
            $($(#[doc = $doc])* $variant,)*
        }

        impl ProblemCode {
            /// Every code.
            pub const ALL: [ProblemCode; [$($name),*].len()] = [$(ProblemCode::$variant),*];

            /// The word, as in the `code` of a problem.
            pub fn name(self) -> &'static str {
                match self {
                    $(ProblemCode::$variant => $name,)*
                }
            }

            /// The HTTP status that comes with it.
            pub fn status(self) -> u16 {
                self.status_code().as_u16()
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(ProblemCode::$variant => concat!($($doc),*).trim_ascii(),)*
                }
            }

            fn status_code(self) -> StatusCode {
                match self {
                    $(ProblemCode::$variant => StatusCode::$status,)*
                }
            }
        }
    };
}

codes! {
    /// The topic is empty, too long, not UTF-8, or holds a character that topics may not have.
    BadTopic = BAD_REQUEST "bad-topic",
    /// The connection id is not a number.
    BadConnectionId = BAD_REQUEST "bad-connection-id",
    /// A query parameter is unknown, or its value can't be used.
    BadQuery = BAD_REQUEST "bad-query",
    /// A header appears twice, or the target names another server than `Host`.
    BadHeader = BAD_REQUEST "bad-header",
    /// The `Corecast-Slow-Consumer` header names no policy.
    BadPolicy = BAD_REQUEST "bad-policy",
    /// The body, or a line of the batch, can't be understood.
    BadBody = BAD_REQUEST "bad-body",
    /// The call needs `Authorization: Bearer` with the server's token.
    Unauthorized = UNAUTHORIZED "unauthorized",
    /// A page of another site sent the request, or it reached a server without a token under a foreign name.
    ForeignOrigin = FORBIDDEN "foreign-origin",
    /// There is nothing at this path.
    NotFound = NOT_FOUND "not-found",
    /// The connection is not open.
    NoConnection = NOT_FOUND "no-connection",
    /// The path takes other methods; `Allow` names them.
    MethodNotAllowed = METHOD_NOT_ALLOWED "method-not-allowed",
    /// The body did not arrive in time.
    BodyTimeout = REQUEST_TIMEOUT "body-timeout",
    /// The limit on topics with a policy of their own is reached.
    TooManyPolicies = CONFLICT "too-many-policies",
    /// The body is larger than allowed; nothing was published.
    MessageTooLarge = PAYLOAD_TOO_LARGE "message-too-large",
    /// The body must have another media type.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE "unsupported-media-type",
    /// A queue is full: nothing was published; try again after `Retry-After` seconds.
    Busy = SERVICE_UNAVAILABLE "busy",
    /// The server has shut down; nothing was published.
    ShuttingDown = SERVICE_UNAVAILABLE "shutting-down",
    /// A shard did not answer in time. A publish with an `id` was accepted, and its receipt is lost.
    Late = GATEWAY_TIMEOUT "late",
}

/// A problem document.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the code says what it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The name of the status.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened, and what to do.
    detail: String,
    /// What happened, for programs: a stable word.
    code: ProblemCode,
    /// The publish that it is about, where one was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

impl Serialize for ProblemCode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl PartialSchema for ProblemCode {
    fn schema() -> RefOr<Schema> {
        let names = ProblemCode::ALL.map(ProblemCode::name);
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
    }
}

impl ToSchema for ProblemCode {}

impl Problem {
    pub(super) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Problem {
            kind: "about:blank",
            title: code.status_code().canonical_reason().unwrap_or_default(),
            status: code.status(),
            detail: detail.into(),
            code,
            id: None,
        }
    }

    /// Whether a queue was full, and a later try may fare better.
    pub(super) fn is_busy(&self) -> bool {
        self.code == ProblemCode::Busy
    }

    /// Whether it is the request that is at fault, and not the state of the server.
    pub(super) fn is_refusal(&self) -> bool {
        self.code.status_code().is_client_error()
    }

    /// A shard did not answer.
    pub(super) fn late() -> Self {
        Problem::new(ProblemCode::Late, "a shard did not answer in time; it may be overloaded")
    }

    /// A shard did not say what became of a publish that was accepted.
    pub(super) fn late_receipt(id: PublishId) -> Self {
        let detail = "the message was accepted, but a shard did not say in time what became of it; don't send it again";
        Problem { id: Some(id.to_string()), ..Problem::new(ProblemCode::Late, detail) }
    }

    pub(super) fn no_connection() -> Self {
        Problem::new(ProblemCode::NoConnection, "this connection is not open")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.code;
        // Plain strings and numbers, which JSON can hold.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (code.status_code(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match code {
            ProblemCode::Busy | ProblemCode::ShuttingDown => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            ProblemCode::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"corecast\""));
            }
            _ => {}
        }
        response
    }
}

impl From<PublishError> for Problem {
    fn from(error: PublishError) -> Self {
        let code = match error {
            PublishError::Busy => ProblemCode::Busy,
            PublishError::NotOpen => return Problem::no_connection(),
            PublishError::Down => ProblemCode::ShuttingDown,
            PublishError::TooLarge { .. } => ProblemCode::MessageTooLarge,
            PublishError::Topic(_) => ProblemCode::BadTopic,
        };
        Problem::new(code, error.to_string())
    }
}

impl From<TopicError> for Problem {
    fn from(error: TopicError) -> Self {
        Problem::new(ProblemCode::BadTopic, error.to_string())
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let code = match error {
            QueryError::NotOpen => return Problem::no_connection(),
            QueryError::Busy { .. } => ProblemCode::Busy,
            QueryError::Down => ProblemCode::ShuttingDown,
        };
        Problem::new(code, error.to_string())
    }
}

impl From<CloseError> for Problem {
    fn from(error: CloseError) -> Self {
        match error {
            CloseError::NotOpen => Problem::no_connection(),
            CloseError::Busy => Problem::new(ProblemCode::Busy, error.to_string()),
        }
    }
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        let code = match error {
            PolicyError::Busy => ProblemCode::Busy,
            PolicyError::TooMany { .. } => ProblemCode::TooManyPolicies,
        };
        Problem::new(code, error.to_string())
    }
}
