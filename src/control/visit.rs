//! One request on its connection: whether the connection may stay afterwards.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use crate::control::api::Api;
use crate::control::direct;
use crate::control::places::Visit;

/// Answers a request, and says so where the connection ends with it: the caller has no place, or the body is not read to
/// its end, so that another request can't be told from the rest of it.
pub(super) async fn answer(
    router: Router,
    api: Api,
    visit: Arc<Visit>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    visit.begin();
    // Dropped with the response's body, or with this future if the client goes away.
    let busy = Busy(Arc::clone(&visit));
    let is_whole = Arc::new(AtomicBool::new(request.body().is_end_stream()));
    let request = request.map(|body| Body::new(Received { body, is_whole: Arc::clone(&is_whole) }));
    let mut response = match direct::answer(&api, &visit, request).await {
        Ok(response) => response,
        Err(mut request) => {
            request.extensions_mut().insert(Arc::clone(&visit));
            TowerToHyperService::new(router).call(request).await?
        }
    };
    if !visit.has_place() || !is_whole.load(Ordering::Relaxed) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Body::new(Answer { body, _busy: busy })))
}

/// Makes the connection idle when it is dropped.
struct Busy(Arc<Visit>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// A request's body, which notes whether it was read to its end.
struct Received {
    body: Incoming,
    is_whole: Arc<AtomicBool>,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.is_whole.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body, whose connection is busy until it is written.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
