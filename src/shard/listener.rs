//! Listening and accepting.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use glommio::Task;
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use thiserror::Error;

use crate::config::{ACCEPT_BACKOFF_MS, Config, Framing, Listen, REFUSAL_LOG_MS, canonical};
use crate::engine::Engine;
use crate::engine::actions::Scope;
use crate::engine::mailbox::Client;
use crate::engine::registry::Refusal;
use crate::handler::{Context, Handler};
use crate::message::{CloseReason, Kind};
use crate::protocol::Encoding;
use crate::server::handover;
use crate::shard::poller::Interest;
use crate::shard::yielding::Slice;
use crate::shard::{Shard, guarded};

/// Why an address can't be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody listens there already.
    #[error("{listen}: the port is in use; stop the program that holds it (see `ss -ltnp`) or choose another port")]
    InUse {
        /// The address and its framing.
        listen: Listen,
    },
    /// The process may not listen there.
    #[error("{listen}: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE, or choose a higher port")]
    Denied {
        /// The address and its framing.
        listen: Listen,
    },
    /// The address is none of this machine's.
    #[error("{listen}: no interface of this machine has that address; use one of `ip addr`, or [::] for all")]
    NotHere {
        /// The address and its framing.
        listen: Listen,
    },
    /// Anything else.
    #[error("{listen}: {what} failed: {source}")]
    Other {
        /// The address and its framing.
        listen: Listen,
        /// What was tried.
        what: &'static str,
        /// The system's word.
        source: io::Error,
    },
}

/// Clients of one listener that are taken in at the most when the shard begins to drain.
const ACCEPTS_AT_END: usize = 65_536;

/// One shard's listening sockets, each with its framing.
pub(crate) type Sockets = Vec<(Framing, Socket)>;

/// Binds every address once for each shard: all of them, or none. Also returns the addresses, with the ports
/// that the kernel chose for port 0.
pub(crate) fn bind(config: &Config, shards: usize) -> Result<(Vec<Sockets>, Vec<Listen>), BindError> {
    let mut sockets: Vec<Sockets> = (0..shards).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    let wanted: Vec<Listen> = wanted(config).collect();
    // First of all, since they may share a port among themselves.
    for listen in &wanted {
        refuse_if_in_use(*listen, config)?;
    }
    for mut listen in wanted {
        for shard in &mut sockets {
            let socket = open(listen, config)?;
            // The first shard's socket settles the port for the others.
            listen.addr = local_addr(&socket, listen)?;
            shard.push((listen.framing, socket));
        }
        bound.push(listen);
    }
    Ok((sockets, bound))
}

fn named(listen: Listen, what: &'static str) -> impl Fn(io::Error) -> BindError {
    move |source| BindError::new(listen, what, source)
}

impl BindError {
    /// What an error of the system means here.
    pub(crate) fn new(listen: Listen, what: &'static str, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::ADDRINUSE) => BindError::InUse { listen },
            Some(Errno::ACCESS) => BindError::Denied { listen },
            Some(Errno::ADDRNOTAVAIL) => BindError::NotHere { listen },
            _ => BindError::Other { listen, what, source },
        }
    }
}

/// The addresses to listen on, as far as this machine has their kind.
pub(crate) fn wanted(config: &Config) -> impl Iterator<Item = Listen> {
    config.listen.iter().filter_map(|listen| present(*listen, config))
}

/// What an address comes to on this machine. Without IPv6, all addresses are those of IPv4 (`None` if they are listened on
/// anyway), and an address of the loopback is left out if its twin is listened on.
fn present(listen: Listen, config: &Config) -> Option<Listen> {
    let SocketAddr::V6(addr) = listen.addr else { return Some(listen) };
    let is_listened_on = |ip: Ipv4Addr| {
        let twin = SocketAddr::from((ip, addr.port()));
        config.listen.iter().any(|other| other.framing == listen.framing && other.addr == twin)
    };
    let is_known = Socket::new(Domain::IPV6, Type::STREAM.cloexec(), Some(Protocol::TCP))
        .is_ok_and(|socket| !addr.ip().is_loopback() || socket.bind(&SocketAddr::from((*addr.ip(), 0)).into()).is_ok());
    if is_known {
        return Some(listen);
    }
    if addr.ip().is_unspecified() {
        let all = Listen { addr: (Ipv4Addr::UNSPECIFIED, addr.port()).into(), ..listen };
        return (addr.port() == 0 || !is_listened_on(Ipv4Addr::UNSPECIFIED)).then_some(all);
    }
    (!addr.ip().is_loopback() || !is_listened_on(Ipv4Addr::LOCALHOST)).then_some(listen)
}

/// Whether a socket on an address of IPv6 takes no IPv4: only where another one is for all of that.
fn is_v6_only(listen: Listen, config: &Config) -> bool {
    let all_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.addr.port()));
    listen.addr.port() != 0 && config.listen.iter().any(|other| other.addr == all_v4)
}

fn socket(listen: Listen, config: &Config) -> Result<Socket, BindError> {
    let socket = Socket::new(Domain::for_address(listen.addr), Type::STREAM.cloexec(), Some(Protocol::TCP))
        .map_err(named(listen, "opening a socket"))?;
    if listen.addr.is_ipv6() {
        // Said always, whatever the machine's default is (net.ipv6.bindv6only).
        socket.set_only_v6(is_v6_only(listen, config)).map_err(named(listen, "setting IPV6_V6ONLY"))?;
    }
    // A port whose last owner's connections linger in TIME_WAIT can be taken; one that is listened on can't.
    socket.set_reuse_address(true).map_err(named(listen, "setting SO_REUSEADDR"))?;
    Ok(socket)
}

/// With SO_REUSEPORT, a second server of the same user would share the port in silence and take half of the
/// clients. A bind without it shows whether somebody listens there; then only a server that drains shares its port.
fn refuse_if_in_use(listen: Listen, config: &Config) -> Result<(), BindError> {
    if listen.addr.port() == 0 {
        return Ok(());
    }
    let is_free = || match socket(listen, config)?.bind(&listen.addr.into()).map_err(named(listen, "binding")) {
        Err(BindError::InUse { .. }) => Ok(false),
        bound => bound.map(|()| true),
    };
    if handover::may_bind(listen.addr, is_free)? { Ok(()) } else { Err(BindError::InUse { listen }) }
}

/// A listening socket with the options that its connections inherit.
fn open(listen: Listen, config: &Config) -> Result<Socket, BindError> {
    let socket = socket(listen, config)?;
    let option = |what| named(listen, what);
    socket.set_reuse_port(true).map_err(option("setting SO_REUSEPORT"))?;
    socket.set_tcp_nodelay(true).map_err(option("setting TCP_NODELAY"))?;
    if !config.keepalive.is_zero() {
        let keepalive = TcpKeepalive::new().with_time(config.keepalive).with_interval(config.keepalive).with_retries(3);
        socket.set_tcp_keepalive(&keepalive).map_err(option("setting keepalive"))?;
    }
    if let Some(size) = config.so_rcvbuf {
        socket.set_recv_buffer_size(size).map_err(option("setting SO_RCVBUF"))?;
    }
    if let Some(size) = config.so_sndbuf {
        socket.set_send_buffer_size(size).map_err(option("setting SO_SNDBUF"))?;
    }
    socket.bind(&listen.addr.into()).map_err(option("binding"))?;
    socket.listen(config.backlog as i32).map_err(option("listening"))?;
    Ok(socket)
}

fn local_addr(socket: &Socket, listen: Listen) -> Result<SocketAddr, BindError> {
    let addr = socket.local_addr().map_err(named(listen, "reading the bound address"))?;
    Ok(addr.as_socket().unwrap_or(listen.addr))
}

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

impl Engine {
    /// Ready when clients may have come since it was so last.
    fn poll_clients(&mut self, number: u32, socket: &Socket, cx: &TaskContext<'_>) -> Poll<()> {
        let Some(pending) = self.listeners.0.get_mut(number as usize) else { return Poll::Pending };
        if std::mem::take(&mut pending.ready) {
            return Poll::Ready(());
        }
        pending.acceptor = Some(cx.waker().clone());
        if !std::mem::replace(&mut pending.armed, true) {
            self.readiness.watch(Interest::Accept(number), socket.as_fd());
            self.submit_polls();
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
}

/// Starts to accept.
///
/// # Errors
/// There is no descriptor left for the second hold on the socket.
pub(crate) fn listen<H: Handler>(shard: &Rc<Shard<H>>, framing: Framing, socket: Socket) -> Result<Listening, String> {
    let second = socket.try_clone().map_err(|error| format!("holding on to a listener failed: {error}"))?;
    socket.set_nonblocking(true).map_err(|error| format!("making a listener non-blocking failed: {error}"))?;
    let number = shard.core.borrow_mut().listeners.add();
    let accept = accept(Rc::clone(shard), socket, number, framing);
    Ok(Listening { _task: glommio::spawn_local(guarded(Rc::clone(shard), accept)), socket: second, framing })
}

impl Listening {
    /// Takes in those who have connected before the shard drains.
    pub(crate) fn take_in_waiting<H: Handler>(&self, shard: &Shard<H>) {
        // As many as a queue holds at the most; those who come meanwhile have come too late.
        for _ in 0..ACCEPTS_AT_END {
            let Ok((socket, peer)) = accept_one(&self.socket) else { break };
            if let Err(refusal) = admit(shard, Client { socket, peer, framing: self.framing }) {
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
async fn accept<H: Handler>(shard: Rc<Shard<H>>, socket: Socket, number: u32, framing: Framing) {
    let (first, longest) = ACCEPT_BACKOFF_MS;
    let mut backoff = Duration::from_millis(first);
    let mut complaints = Limited::default();
    let mut refusals = Limited::default();
    let registry = Arc::clone(&shard.core.borrow().registry);
    let mut slice = Slice::begin();
    while !shard.core.borrow().draining {
        if let Some(pause) = registry.accept_pause() {
            glommio::timer::sleep(pause).await;
            continue;
        }
        match accept_one(&socket) {
            Ok((client, peer)) => {
                backoff = Duration::from_millis(first);
                if let Err(refusal) = admit(&shard, Client { socket: client, peer, framing })
                    && let Some(count) = refusals.another()
                {
                    tracing::warn!(count, "connections refused: {refusal}");
                }
            }
            Err(Errno::AGAIN) => {
                slice.wait(poll_fn(|cx| shard.core.borrow_mut().poll_clients(number, &socket, cx))).await;
            }
            Err(error) if is_about_one_connection(error) => {}
            Err(_) if shard.core.borrow().draining => break,
            Err(error) => {
                shard.core.borrow().metrics.accept_errors.add(1);
                if let Some(count) = complaints.another() {
                    tracing::warn!(%error, count, "accepting fails; new connections wait in the backlog");
                }
                glommio::timer::sleep(backoff).await;
                backoff = (backoff * 2).min(Duration::from_millis(longest));
            }
        }
        slice.pause_if_over().await;
    }
    let core = &mut *shard.core.borrow_mut();
    core.readiness.unwatch(Interest::Accept(number));
    core.submit_polls();
}

fn accept_one(socket: &Socket) -> Result<(OwnedFd, SocketAddr), Errno> {
    let (client, peer) = rustix::net::acceptfrom_with(socket, SocketFlags::CLOEXEC)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
    // A client that came by IPv4 to an address of IPv6 is shown as what it is.
    let peer = peer.map(canonical);
    Ok((client, peer.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))))
}

/// The client gave up before it was accepted; see accept(2).
fn is_about_one_connection(error: Errno) -> bool {
    matches!(error, Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM)
}

/// Has a client taken in, here or by a shard that has fewer, or tells it why not, closes its connection and says why.
fn admit<H: Handler>(shard: &Shard<H>, mut client: Client) -> Result<(), String> {
    {
        let core = &mut *shard.core.borrow_mut();
        if let Err(refusal) = core.registry.admit() {
            let why = match refusal {
                Refusal::Full => {
                    core.metrics.refused_full.add(1);
                    format!("as many as allowed are open ({})", core.registry.max())
                }
                Refusal::Memory => {
                    core.metrics.refused_memory.add(1);
                    "the process has more memory in use than max_memory".into()
                }
            };
            core.refuse(client, CloseReason::Full);
            return Err(why);
        }
        let place = core.registry.place(core.index);
        if place != core.index {
            match core.mesh.hand_over(place, client) {
                Ok(()) => {
                    core.metrics.handed_over.add(1);
                    return Ok(());
                }
                // A shard that is behind gets no more to do.
                Err(returned) => client = returned,
            }
            core.registry.replace(place, core.index);
        }
    }
    take_in(shard, client)
}

/// Takes a client in that the registry has admitted and placed here, or tells it why not, closes its connection and says
/// why.
pub(crate) fn take_in<H: Handler>(shard: &Shard<H>, client: Client) -> Result<(), String> {
    let core = &mut *shard.core.borrow_mut();
    if core.draining {
        core.registry.release(core.index);
        core.metrics.refused_draining.add(1);
        core.refuse(client, CloseReason::Drain);
        return Err("the server is draining".into());
    }
    let encoding = Encoding::of(client.framing);
    let (key, id) = core.add(client.socket, client.peer, encoding).inspect_err(|_| {
        core.registry.release(core.index);
        core.metrics.refused_full.add(1);
    })?;
    if encoding.is_some() {
        let mut scope = Scope { core, key, id };
        shard.handler.borrow_mut().on_connect(&mut Context::new(id, Kind::Text, &mut scope));
    }
    core.flush_dirty();
    Ok(())
}

/// Lets one log line through at a time, and says how many were held back with it.
#[derive(Default)]
pub(crate) struct Limited {
    since: Option<Instant>,
    count: u64,
}

impl Limited {
    /// Counts one more; the count to log now, or `None` if it is too early for the next line.
    pub(crate) fn another(&mut self) -> Option<u64> {
        self.count += 1;
        let pause = Duration::from_millis(REFUSAL_LOG_MS);
        if self.since.is_some_and(|since| since.elapsed() < pause) {
            return None;
        }
        self.since = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}
