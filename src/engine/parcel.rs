//! A connection on its way from one shard to another.

use std::net::SocketAddr;

use crate::config::Framing;

/// An admitted client that no shard has taken in yet.
#[derive(Debug)]
pub(crate) struct Client<S> {
    pub(crate) socket: S,
    pub(crate) peer: SocketAddr,
    /// The framing of the address that it came to.
    pub(crate) framing: Framing,
    /// The number of the handler that serves that address.
    pub(crate) handler: u8,
}
