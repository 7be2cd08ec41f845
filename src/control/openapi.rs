//! The API's description: OpenAPI 3.1, put together from the handlers.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, ContentBuilder, Ref, RefOr, Required, Response, ResponseBuilder};

use crate::control::problem::Problem;

#[derive(OpenApi)]
#[openapi(
    info(title = "corecast control API", description = "Publish, observe and operate a corecast server."),
    components(schemas(Problem)),
    security(("token" = [])),
    tags(
        (name = "publish", description = "Push messages to clients"),
        (name = "observe", description = "See what the server does"),
        (name = "operate", description = "Steer it"),
    ),
)]
struct Document;

/// What is not said by the handlers.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    // A server without a token takes any.
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("Of --control-token-file")).build();
    document.components.get_or_insert_with(Components::new).add_security_scheme("token", SecurityScheme::Http(token));
    document
}

/// Adds the problems that any call may meet, and writes the document.
pub(super) fn finish(mut document: utoipa::openapi::OpenApi) -> Bytes {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            add_problems(path, operation);
        }
    }
    // It holds nothing that JSON can't.
    document.to_pretty_json().unwrap_or_default().into()
}

pub(super) async fn serve(document: Bytes) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], document)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

fn add_problems(path: &str, operation: &mut Operation) {
    if matches!(path, "/healthz" | "/readyz") {
        return;
    }
    let mut add = |status: &str, description: &str| {
        let responses = &mut operation.responses.responses;
        responses.entry(status.to_owned()).or_insert_with(|| problem(description).into());
    };
    add("400", "A part of the request can't be used");
    add("401", "The token is missing or wrong");
    add("403", "A page of another site sent it");
    add("503", "A queue is full, or the server has shut down");
    add("504", "A shard did not answer in time");
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        // A message may be empty, and only PUT says nothing without a body.
        if !path.ends_with("topic") && !path.ends_with("{topic}") {
            body.required = Some(Required::False);
        }
        let mut add = |status: &str, description: &str| {
            let responses = &mut operation.responses.responses;
            responses.entry(status.to_owned()).or_insert_with(|| problem(description).into());
        };
        add("408", "The body did not arrive in time");
        add("413", "The body is too large");
        add("415", "The body has another media type");
    }
}

fn problem(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}
