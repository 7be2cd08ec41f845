//! The control thread's connections: accepted up to a bound, and given up when they neither ask nor take.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_io_timeout::TimeoutStream;

use crate::config::ACCEPT_BACKOFF_MS;
use crate::config::control::{CONTROL_HEAD_BYTES_MAX, CONTROL_STOP_MS};
use crate::control::ControlLimits;

/// What a connection too many is told.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Serves until `stop` changes, and then for as long as requests in progress may take.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ControlLimits,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let stopping = stop.clone();
    let stopped = async {
        // An error means that whoever could stop it is gone, which is to stop.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    futures_lite::future::or(stopped, accept(listener, router, limits, &places, stopping)).await;
    // With all places free there is no connection left.
    let ended = places.acquire_many(limits.connections as u32);
    let _ = tokio::time::timeout(Duration::from_millis(CONTROL_STOP_MS), ended).await;
}

async fn accept(
    listener: TcpListener,
    router: Router,
    limits: ControlLimits,
    places: &Arc<Semaphore>,
    stop: watch::Receiver<bool>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Arc::clone(places).try_acquire_owned() {
                Ok(place) => drop(tokio::spawn(connection(stream, router.clone(), limits, place, stop.clone()))),
                // Best effort: it does not wait for room.
                Err(_) => drop(stream.try_write(FULL)),
            },
            Err(error) => {
                tracing::warn!(%error, "the control plane can't accept a connection");
                tokio::time::sleep(Duration::from_millis(ACCEPT_BACKOFF_MS.1)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: ControlLimits,
    _place: OwnedSemaphorePermit,
    mut stop: watch::Receiver<bool>,
) {
    // It only tells that the connection is gone, which the next read does too.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_time));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(CONTROL_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
        None
    };
    let served = async { Some(connection.as_mut().await) };
    let result = match futures_lite::future::or(served, stopped).await {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the control plane ended");
    }
}
