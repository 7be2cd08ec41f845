//! The routes, and what holds for all of them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::control::api::Api;
use crate::control::places::Visit;
use crate::control::problem::{Problem, ProblemCode};
use crate::control::{
    assets, auth, batch, connections, events, guide, health, history, metrics, openapi, probes, publish, stats, topics,
};

/// The routes that the API's description lists, with the description.
fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::document())
        .routes(routes!(publish::publish_to_topic))
        .routes(routes!(publish::publish_to_named))
        .routes(routes!(publish::broadcast))
        .routes(routes!(publish::send_to_connection))
        .routes(routes!(batch::batch))
        .routes(routes!(connections::list))
        .routes(routes!(connections::get, connections::close))
        .routes(routes!(topics::list))
        .routes(routes!(topics::get, topics::set))
        .routes(routes!(topics::get_named, topics::set_named))
        .routes(routes!(stats::stats))
        .routes(routes!(history::history))
        .routes(routes!(events::events))
        .routes(routes!(metrics::metrics))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::drain))
}

/// Everything under the control address.
pub(super) fn router(api: Api) -> Router {
    let (router, document) = described().split_for_parts();
    let routes: Arc<[String]> = document.paths.paths.keys().cloned().chain(["/openapi.json".to_owned()]).collect();
    let document = openapi::finish(document);
    let not_found = move |uri: Uri| async move { guide::not_found(&routes, uri.path()) };
    let router = router
        .route("/openapi.json", get(move || openapi::serve(document.clone())))
        .route("/", get(assets::page))
        .route("/assets/{*path}", get(assets::asset))
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(api.clone(), guard))
        .with_state(api);
    // Around the whole, since a router adds `Allow` outside of its own layers.
    Router::new().fallback_service(router).layer(middleware::from_fn(finish))
}

/// What holds for responses of all routes, and those of the router itself.
async fn finish(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    if method == Method::OPTIONS && probes::is_probed(request.uri().path()) {
        return probe(request, next).await;
    }
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = explain_method(&method, response.headers().get(ALLOW).cloned());
    }
    assets::protect(response.headers_mut());
    response
}

/// Answers OPTIONS where balancers probe: with the status of GET, which is all that they look at.
async fn probe(mut request: Request, next: Next) -> Response {
    let path = probes::probe_of(request.uri().path());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_static(path);
    let mut response = next.run(request).await;
    *response.body_mut() = Body::empty();
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.remove(CONTENT_LENGTH);
    headers.insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
    assets::protect(headers);
    response
}

/// Answers OPTIONS, and says so where a path does not take a method.
fn explain_method(method: &Method, allow: Option<HeaderValue>) -> Response {
    let allow = allow.unwrap_or(HeaderValue::from_static(""));
    let mut response = if *method == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let detail = format!("{method} can't be used here; use {}", allow.to_str().unwrap_or_default());
        Problem::new(ProblemCode::MethodNotAllowed, detail).into_response()
    };
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// Lets a request through, or says why not.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let visit = request.extensions().get::<Arc<Visit>>();
    match auth::check(api.access(), &request).and_then(|caller| caller.settle(visit, request.uri().path())) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}
