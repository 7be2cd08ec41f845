//! The control thread's connections: accepted always, driven out by newcomers when they are idle, and given up when they
//! neither ask nor take.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use futures_lite::future::or;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::config::ACCEPT_BACKOFF_MS;
use crate::config::control::{
    CONTROL_HEAD_BYTES_MAX, CONTROL_LINGER_BYTES_MAX, CONTROL_LINGER_MS, CONTROL_LINGER_SILENCE_MS, CONTROL_STOP_MS,
};
use crate::control::api::Api;
use crate::control::gathered::Gathered;
use crate::control::places::{Places, Visit};
use crate::control::visit;

/// Bytes that are read at once of what nobody wants.
const DISCARD_BYTES: usize = 16 * 1024;

/// What all connections have in common.
#[derive(Clone)]
struct Common {
    router: Router,
    api: Api,
    stop: watch::Receiver<bool>,
    /// Held by each connection, and by the one who accepts: the channel ends with the last of them.
    _open: mpsc::Sender<()>,
}

/// Serves until `stop` changes, and then for as long as requests in progress may take.
pub(super) async fn serve(
    listeners: Vec<(TcpListener, watch::Receiver<bool>)>,
    router: Router,
    api: Api,
    mut stop: watch::Receiver<bool>,
) {
    let (open, mut closed) = mpsc::channel(1);
    let limits = *api.limits();
    let common = Common { router, api, stop: stop.clone(), _open: open };
    let stopped = async {
        // An error means that whoever could stop it is gone, which is to stop.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let places = Places::new(limits.connections, limits.lobby);
    let accepting = listeners
        .into_iter()
        .map(|(listener, gone)| tokio::spawn(accept(listener, gone, Arc::clone(&places), common.clone())));
    let accepting: Vec<_> = accepting.collect();
    drop(common);
    stopped.await;
    accepting.iter().for_each(tokio::task::JoinHandle::abort);
    let _ = timeout(Duration::from_millis(CONTROL_STOP_MS), closed.recv()).await;
}

async fn accept(listener: TcpListener, mut gone: watch::Receiver<bool>, places: Arc<Places>, common: Common) {
    loop {
        let taken_over = async {
            if gone.wait_for(|gone| *gone).await.is_err() {
                std::future::pending::<()>().await;
            }
            // Those who have connected before are still served here.
            futures_lite::future::poll_once(listener.accept()).await
        };
        let Some(accepted) = or(taken_over, async { Some(listener.accept().await) }).await else { return };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, Arc::new(places.enter()), common.clone()));
                // What it has sent already is looked at before a newcomer can drive it out.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(%error, "the control plane can't accept a connection");
                tokio::time::sleep(Duration::from_millis(ACCEPT_BACKOFF_MS.1)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, visit: Arc<Visit>, common: Common) {
    let evicted = async {
        visit.evicted().await;
        None
    };
    let served = async { serve_requests(stream, &visit, &common).await };
    if let Some(mut stream) = or(served, evicted).await {
        visit.leave();
        or(linger(&mut stream), visit.evicted()).await;
    }
}

/// Answers requests until either side wants no more; the stream, if a response may be on its way.
async fn serve_requests(stream: TcpStream, visit: &Arc<Visit>, common: &Common) -> Option<Gathered> {
    // It only tells that the connection is gone, which the next read does too.
    let _ = stream.set_nodelay(true);
    let limits = common.api.limits();
    let stream = Gathered::new(stream, limits.write_time);
    let answer = service_fn(|request| {
        Box::pin(visit::answer(common.router.clone(), common.api.clone(), Arc::clone(visit), request))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(CONTROL_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream.clone()), answer);
    let mut stop = common.stop.clone();
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
        None
    };
    let served = async { Some(poll_fn(|cx| send_after(connection.poll_without_shutdown(cx), &stream, cx)).await) };
    let result = match or(served, stopped).await {
        Some(result) => result,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| send_after(connection.poll_without_shutdown(cx), &stream, cx)).await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the control plane ended");
        // Whose head did not come in time was told nothing, and has nothing to wait for.
        if error.is_timeout() {
            return None;
        }
    }
    drop(connection);
    Some(stream)
}

/// Sends the responses that a connection's turn has come to. If the client is gone, so is the connection.
fn send_after(turn: Poll<hyper::Result<()>>, stream: &Gathered, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
    match stream.poll_send(cx) {
        Poll::Ready(Err(_)) => Poll::Ready(Ok(())),
        _ => turn,
    }
}

/// Ends a connection so that the client gets its last response, also while it still sends: to close a socket with
/// unread bytes in it is to reset it, and then what waits in the client's is lost.
async fn linger(stream: &mut Gathered) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let silence = Duration::from_millis(CONTROL_LINGER_SILENCE_MS);
    let end = Instant::now() + Duration::from_millis(CONTROL_LINGER_MS);
    let (mut left, mut buffer) = (CONTROL_LINGER_BYTES_MAX, vec![0; DISCARD_BYTES]);
    while let Ok(Ok(read @ 1..)) = timeout(silence, stream.read(&mut buffer)).await {
        left = left.saturating_sub(read);
        if left == 0 || end <= Instant::now() {
            break;
        }
    }
}
