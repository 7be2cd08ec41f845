//! The sockets that a server listens on: one for each address and shard.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use thiserror::Error;

use super::handover;
use crate::config::{Config, Listen};
use crate::shard::{Listener, Sockets};

/// Why an address can't be listened on.
#[derive(Debug, Error)]
#[non_exhaustive]
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

/// Binds every address once for each shard: all of them, or none. `handlers`: by address, the number of the handler that
/// serves it. Also returns the addresses, with the ports that the kernel chose for port 0.
pub(crate) fn bind(config: &Config, handlers: &[u8], shards: usize) -> Result<(Vec<Sockets>, Vec<Listen>), BindError> {
    let mut sockets: Vec<Sockets> = (0..shards).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    let wanted: Vec<(usize, Listen)> = wanted(config).collect();
    // First of all, since they may share a port among themselves.
    for (_, listen) in &wanted {
        refuse_if_in_use(*listen, config)?;
    }
    for (index, mut listen) in wanted {
        for shard in &mut sockets {
            let socket = open(listen, config)?;
            // The first shard's socket settles the port for the others.
            listen.addr = local_addr(&socket, listen)?;
            shard.push(Listener { socket, framing: listen.framing, handler: handlers[index] });
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

/// The addresses to listen on, as far as this machine has their kind, each with its place in the settings.
pub(crate) fn wanted(config: &Config) -> impl Iterator<Item = (usize, Listen)> {
    let all = config.listen.iter().enumerate();
    all.filter_map(|(index, listen)| Some((index, present(*listen, config)?)))
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
