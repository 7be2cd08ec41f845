//! The control plane's addresses: all of them that the machine has, on one port.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::control::ControlError;
use crate::server::handover;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Tries to find one port that is free on all addresses, where the kernel is to choose it.
const TRIES: usize = 16;

/// Listens on all addresses, the first of which must be this machine's.
///
/// # Errors
/// One of them can't be listened on.
pub(super) fn all(addrs: &[SocketAddr]) -> Result<Vec<(TcpListener, SocketAddr)>, ControlError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match at_once(addrs) {
            Err(ControlError::Bind { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse
                    && tries < TRIES
                    && addrs.first().is_some_and(|addr| addr.port() == 0) => {}
            outcome => return outcome,
        }
    }
}

fn at_once(addrs: &[SocketAddr]) -> Result<Vec<(TcpListener, SocketAddr)>, ControlError> {
    let mut listeners: Vec<(TcpListener, SocketAddr)> = Vec::new();
    for addr in addrs {
        let mut addr = *addr;
        // The first one settles the port for the others.
        if let Some((_, first)) = listeners.first().filter(|_| addr.port() == 0) {
            addr.set_port(first.port());
        }
        match listen(addr, addrs.len() > 1) {
            Ok(listener) => {
                let addr = listener.local_addr().map_err(|source| ControlError::Bind { addr, source })?;
                listeners.push((listener, addr));
            }
            Err(source) if !listeners.is_empty() && is_absent(&source) => {}
            Err(source) => return Err(ControlError::Bind { addr, source }),
        }
    }
    Ok(listeners)
}

fn open(addr: SocketAddr, is_one_of_several: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // Alone, `[::]` takes IPv4, too, whatever the machine's default is.
        socket.set_only_v6(is_one_of_several)?;
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn listen(addr: SocketAddr, is_one_of_several: bool) -> io::Result<TcpListener> {
    let is_free = || match open(addr, is_one_of_several)?.bind(&addr.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        bound => bound.map(|()| true),
    };
    if addr.port() != 0 && !handover::may_bind(addr, is_free)? {
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    }
    let socket = open(addr, is_one_of_several)?;
    // So that a server that drains, and the one that takes over from it, can share the port.
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether the machine does not have the address, or its whole family.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}
