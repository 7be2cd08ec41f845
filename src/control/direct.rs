//! The calls that come by the ten thousand a second, without the router: it takes more time than the rest of their way.
//!
//! What is called, and what is checked before, is the same: the routes' own functions.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};

use crate::control::api::Api;
use crate::control::body::Message;
use crate::control::extract::{Policy, TopicName};
use crate::control::places::Visit;
use crate::control::problem::Problem;
use crate::control::query::Params;
use crate::control::{assets, auth, batch, publish};

/// Such a call.
enum Call {
    /// A message to a topic, whose name is in these bytes of the path.
    Topic(std::ops::Range<usize>),
    Batch,
}

/// What a request is, if it is such a call.
fn find(request: &Request) -> Option<Call> {
    if *request.method() != Method::POST {
        return None;
    }
    let (path, before) = (request.uri().path(), "/v1/topics/");
    if path == "/v1/batch" {
        return Some(Call::Batch);
    }
    let name = path.strip_prefix(before)?.strip_suffix("/messages")?;
    let is_segment = !name.is_empty() && !name.contains('/');
    is_segment.then(|| Call::Topic(before.len()..before.len() + name.len()))
}

/// Answers such a call; any other is given back.
pub(super) async fn answer(api: &Api, visit: &Arc<Visit>, request: Request) -> Result<Response, Request> {
    let Some(call) = find(&request) else { return Err(request) };
    let mut response = carry_out(api, visit, call, request).await.unwrap_or_else(IntoResponse::into_response);
    assets::protect(response.headers_mut());
    Ok(response)
}

async fn carry_out(api: &Api, visit: &Arc<Visit>, call: Call, request: Request) -> Result<Response, Problem> {
    auth::check(api.access(), &request)?.settle(Some(visit), request.uri().path())?;
    let (mut parts, body) = request.into_parts();
    // In the order in which a route takes its parts.
    match call {
        Call::Topic(name) => {
            let topic = TopicName::decode(api, &parts.uri.path()[name])?;
            let params = Params::from_request_parts(&mut parts, api).await?;
            let policy = Policy::from_request_parts(&mut parts, api).await?;
            let message = Message::from_request(Request::from_parts(parts, body), api).await?;
            publish::publish_to_topic(State(api.clone()), topic, params, policy, message).await
        }
        Call::Batch => {
            let params = Params::from_request_parts(&mut parts, api).await?;
            batch::batch(State(api.clone()), params, Request::from_parts(parts, body)).await
        }
    }
}
