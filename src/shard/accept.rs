//! Accepting: a task for each socket that a shard listens on.

use std::future::poll_fn;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use glommio::Task;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::Socket;

use crate::config::{ACCEPT_BACKOFF_MS, Framing, canonical};
use crate::engine::Limited;
use crate::engine::driver::{Driver, Watched};
use crate::engine::parcel::Parcel;
use crate::shard::yielding::Slice;
use crate::shard::{Listener, Shard, guarded};
use crate::transport::Plain;

/// Clients of one listener that are taken in at the most when the shard begins to drain.
const ACCEPTS_AT_END: usize = 65_536;

/// What the ring has reported about a shard's listeners, by their number.
#[derive(Default)]
pub(crate) struct Listeners(Vec<Pending>);

#[derive(Default)]
struct Pending {
    /// Clients may wait.
    ready: bool,
    /// A poll is armed.
    armed: bool,
    acceptor: Option<Waker>,
}

impl Listeners {
    fn add(&mut self) -> u32 {
        self.0.push(Pending::default());
        self.0.len() as u32 - 1
    }

    pub(crate) fn report(&mut self, number: u32, armed: bool) {
        let Some(pending) = self.0.get_mut(number as usize) else { return };
        pending.ready = true;
        pending.armed = armed;
        if let Some(acceptor) = pending.acceptor.take() {
            acceptor.wake();
        }
    }
}

impl Shard {
    /// Ready when clients may have come since it was so last.
    fn poll_clients(&self, number: u32, socket: &Socket, cx: &Context<'_>) -> Poll<()> {
        let pending = &mut self.listeners.borrow_mut().0[number as usize];
        if std::mem::take(&mut pending.ready) {
            return Poll::Ready(());
        }
        pending.acceptor = Some(cx.waker().clone());
        if !std::mem::replace(&mut pending.armed, true) {
            let driver = &mut self.engine.borrow_mut().base.driver;
            driver.poller.watch(Watched::Accept(number), socket.as_fd());
            driver.submit_polls();
        }
        Poll::Pending
    }
}

/// A socket that is listened on, and the task that accepts from it.
pub(crate) struct Listening {
    /// Ends when it is dropped, at the latest.
    _task: Task<()>,
    /// A second descriptor of the socket, to end it with: the task owns the first.
    socket: Socket,
    framing: Framing,
    handler: u8,
}

/// Starts to accept.
///
/// # Errors
/// There is no descriptor left for the second hold on the socket.
pub(crate) fn listen(shard: &Rc<Shard>, listener: Listener) -> Result<Listening, String> {
    let Listener { socket, framing, handler } = listener;
    let second = socket.try_clone().map_err(|error| format!("holding on to a listener failed: {error}"))?;
    socket.set_nonblocking(true).map_err(|error| format!("making a listener non-blocking failed: {error}"))?;
    let number = shard.listeners.borrow_mut().add();
    let accept = accept(Rc::clone(shard), socket, number, framing, handler);
    Ok(Listening { _task: glommio::spawn_local(guarded(Rc::clone(shard), accept)), socket: second, framing, handler })
}

impl Listening {
    /// Takes in those who have connected before the shard drains.
    pub(crate) fn take_in_waiting(&self, shard: &Shard) {
        // As many as a queue holds at the most; those who come meanwhile have come too late.
        for _ in 0..ACCEPTS_AT_END {
            let Ok((socket, peer)) = accept_one(&self.socket) else { break };
            if let Err(refusal) = shard.admit(socket, peer, self.framing, self.handler) {
                tracing::debug!("a connection was refused: {refusal}");
            }
        }
    }

    /// Stops listening. The shard must be draining: then the task ends, too.
    pub(crate) fn stop(&self) {
        // A listening socket can always be shut down.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Accepts until the shard drains.
async fn accept(shard: Rc<Shard>, socket: Socket, number: u32, framing: Framing, handler: u8) {
    let (first, longest) = ACCEPT_BACKOFF_MS;
    let mut backoff = Duration::from_millis(first);
    let mut complaints = Limited::default();
    let mut refusals = Limited::default();
    let registry = Arc::clone(&shard.engine.borrow().base.registry);
    let mut slice = Slice::begin();
    while !shard.engine.borrow().base.draining {
        if let Err(pause) = registry.take_accept(Instant::now()) {
            glommio::timer::sleep(pause).await;
            continue;
        }
        let accepted = accept_one(&socket);
        if accepted.is_err() {
            registry.put_back_accept();
        }
        match accepted {
            Ok((client, peer)) => {
                backoff = Duration::from_millis(first);
                if let Err(refusal) = shard.admit(client, peer, framing, handler)
                    && let Some(count) = refusals.another(Instant::now())
                {
                    tracing::warn!(count, "connections refused: {refusal}");
                }
            }
            Err(Errno::AGAIN) => {
                slice.wait(poll_fn(|cx| shard.poll_clients(number, &socket, cx))).await;
            }
            Err(error) if is_about_one_connection(error) => {}
            Err(_) if shard.engine.borrow().base.draining => break,
            Err(error) => {
                shard.engine.borrow().base.metrics.accept_errors.add(1);
                if let Some(count) = complaints.another(Instant::now()) {
                    tracing::warn!(%error, count, "accepting fails; new connections wait in the backlog");
                }
                glommio::timer::sleep(backoff).await;
                backoff = (backoff * 2).min(Duration::from_millis(longest));
            }
        }
        slice.pause_if_over().await;
    }
    let driver = &mut shard.engine.borrow_mut().base.driver;
    driver.unwatch(Watched::Accept(number));
    driver.submit_polls();
}

fn accept_one(socket: &Socket) -> Result<(OwnedFd, SocketAddr), Errno> {
    let (client, peer) = rustix::net::acceptfrom_with(socket, SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    // A client that came by IPv4 to an address of IPv6 is shown as what it is.
    let peer = peer.map(canonical);
    Ok((client, peer.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))))
}

impl Shard {
    /// Has a client taken in.
    fn admit(&self, socket: OwnedFd, peer: SocketAddr, framing: Framing, handler: u8) -> Result<(), String> {
        let client = Parcel::fresh(Plain::new(socket), peer, framing, handler);
        self.engine.borrow_mut().admit(&mut self.handlers.borrow_mut(), client)
    }
}

/// The client gave up before it was accepted; see accept(2).
fn is_about_one_connection(error: Errno) -> bool {
    matches!(error, Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM)
}
