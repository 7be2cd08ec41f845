//! Listening and accepting.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glommio::net::{TcpListener, TcpStream};
use glommio::{GlommioError, Task};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use thiserror::Error;

use crate::codec::Encoding;
use crate::config::{ACCEPT_BACKOFF_MS, Config, Framing, Listen, REFUSAL_LOG_MS};
use crate::handler::{Context, Handler};
use crate::registry::Refusal;
use crate::shard::scope::Scope;
use crate::shard::{Shard, guarded};
use crate::sys;

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
    #[error("{listen}: no interface of this machine has that address; use one of `ip addr`, or 0.0.0.0 for all")]
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

/// One shard's listening sockets, each with its framing.
pub(crate) type Sockets = Vec<(Framing, Socket)>;

/// Binds every address once for each shard: all of them, or none. Also returns the addresses, with the ports
/// that the kernel chose for port 0.
pub(crate) fn bind(config: &Config, shards: usize) -> Result<(Vec<Sockets>, Vec<Listen>), BindError> {
    let mut sockets: Vec<Sockets> = (0..shards).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    for listen in &config.listen {
        let mut listen = *listen;
        refuse_if_in_use(listen)?;
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
    move |source| match Errno::from_io_error(&source) {
        Some(Errno::ADDRINUSE) => BindError::InUse { listen },
        Some(Errno::ACCESS) => BindError::Denied { listen },
        Some(Errno::ADDRNOTAVAIL) => BindError::NotHere { listen },
        _ => BindError::Other { listen, what, source },
    }
}

fn socket(listen: Listen) -> Result<Socket, BindError> {
    let socket = Socket::new(Domain::for_address(listen.addr), Type::STREAM.cloexec(), Some(Protocol::TCP))
        .map_err(named(listen, "opening a socket"))?;
    // A port whose last owner's connections linger in TIME_WAIT can be taken; one that is listened on can't.
    socket.set_reuse_address(true).map_err(named(listen, "setting SO_REUSEADDR"))?;
    Ok(socket)
}

/// With SO_REUSEPORT, a second server of the same user would share the port in silence and take half of the
/// clients. A bind without it shows whether somebody listens there.
fn refuse_if_in_use(listen: Listen) -> Result<(), BindError> {
    if listen.addr.port() == 0 {
        return Ok(());
    }
    socket(listen)?.bind(&listen.addr.into()).map_err(named(listen, "binding"))
}

/// A listening socket with the options that its connections inherit.
fn open(listen: Listen, config: &Config) -> Result<Socket, BindError> {
    let socket = socket(listen)?;
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

/// A socket that is listened on, and the task that accepts from it.
pub(crate) struct Listening {
    /// Ends when it is dropped, at the latest.
    _task: Task<()>,
    /// A second descriptor of the socket, to end it with: the task owns the first.
    socket: Socket,
}

/// Starts to accept.
///
/// # Errors
/// There is no descriptor left for the second hold on the socket.
pub(crate) fn listen<H: Handler>(shard: &Rc<Shard<H>>, framing: Framing, socket: Socket) -> Result<Listening, String> {
    let second = socket.try_clone().map_err(|error| format!("holding on to a listener failed: {error}"))?;
    let accept = accept(Rc::clone(shard), sys::from_fd(socket), framing);
    Ok(Listening { _task: glommio::spawn_local(guarded(Rc::clone(shard), accept)), socket: second })
}

impl Listening {
    /// Stops listening. The shard must be draining.
    ///
    /// Cancelling the task would not do: a connection that the ring has accepted at that moment would stay open and
    /// belong to nobody. Shutting the socket down ends the pending accept with an error instead, and the task itself.
    pub(crate) fn stop(&self) {
        // A listening socket can always be shut down.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Accepts until the shard drains.
async fn accept<H: Handler>(shard: Rc<Shard<H>>, listener: TcpListener, framing: Framing) {
    let (first, longest) = ACCEPT_BACKOFF_MS;
    let mut backoff = Duration::from_millis(first);
    let mut complaints = Limited::default();
    let mut refusals = Limited::default();
    let registry = Arc::clone(&shard.core.borrow().registry);
    loop {
        while let Some(pause) = registry.accept_pause() {
            glommio::timer::sleep(pause).await;
        }
        if shard.core.borrow().draining {
            return;
        }
        match listener.shared_accept().await {
            Ok(accepted) => {
                backoff = Duration::from_millis(first);
                if let Err(refusal) = admit(&shard, accepted.bind_to_executor(), framing)
                    && let Some(count) = refusals.another()
                {
                    tracing::warn!(count, "connections refused: {refusal}");
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(_) if shard.core.borrow().draining => return,
            Err(error) => {
                shard.core.borrow().metrics.accept_errors.add(1);
                if let Some(count) = complaints.another() {
                    tracing::warn!(%error, count, "accepting fails; new connections wait in the backlog");
                }
                glommio::timer::sleep(backoff).await;
                backoff = (backoff * 2).min(Duration::from_millis(longest));
            }
        }
        glommio::yield_if_needed().await;
    }
}

/// The client gave up before it was accepted; see accept(2).
fn is_about_one_connection(error: &GlommioError<()>) -> bool {
    let GlommioError::IoError(error) = error else { return false };
    matches!(Errno::from_io_error(error), Some(Errno::CONNABORTED | Errno::INTR | Errno::PROTO | Errno::PERM))
}

/// Takes a connection in and starts its task, or closes it and says why.
fn admit<H: Handler>(shard: &Rc<Shard<H>>, stream: TcpStream, framing: Framing) -> Result<(), String> {
    let (key, pass) = {
        let core = &mut *shard.core.borrow_mut();
        let Some(pass) = shard.gate.enter().ok().filter(|_| !core.draining) else {
            core.metrics.refused_draining.add(1);
            return Err("the server is draining".into());
        };
        if let Err(refusal) = core.registry.admit() {
            return Err(match refusal {
                Refusal::Full => {
                    core.metrics.refused_full.add(1);
                    format!("as many as allowed are open ({})", core.registry.max())
                }
                Refusal::Memory => {
                    core.metrics.refused_memory.add(1);
                    "the process has more memory in use than max_memory".into()
                }
            });
        }
        let Some((key, id)) = core.add(stream, Encoding::of(framing)) else {
            core.registry.release();
            core.metrics.refused_full.add(1);
            return Err("the registry is full".into());
        };
        core.metrics.tasks.add(1);
        if Encoding::of(framing).is_some() {
            let mut scope = Scope { core, key, id };
            shard.handler.borrow_mut().on_connect(&mut Context::new(id, &mut scope));
        }
        core.flush_dirty();
        (key, pass)
    };
    // The task has its first turn in here, so nothing of the shard may be borrowed.
    shard.spawn_connection(key, pass);
    Ok(())
}

/// Lets one log line through at a time, and says how many were held back with it.
#[derive(Default)]
struct Limited {
    since: Option<Instant>,
    count: u64,
}

impl Limited {
    /// Counts one more; the count to log now, or `None` if it is too early for the next line.
    fn another(&mut self) -> Option<u64> {
        self.count += 1;
        let pause = Duration::from_millis(REFUSAL_LOG_MS);
        if self.since.is_some_and(|since| since.elapsed() < pause) {
            return None;
        }
        self.since = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}
