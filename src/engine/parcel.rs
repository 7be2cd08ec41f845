//! A connection as a value, on its way from one shard to another.
//!
//! A [`Parcel`] is all that there is of a connection, and nothing in it points into a shard. A fresh client is little more
//! than its socket. Of an open one [`Engine::pack`](super::Engine::pack) takes everything out of a shard, and [`Engine::unpack`](super::Engine::unpack) puts it into
//! another: what it speaks, what has come in of its next message, what it is subscribed to, what waits for it and what it
//! has missed, and its times as ages, since each shard has a clock of its own. Its id stays, its socket is not touched, and
//! its handler hears nothing of it. Polls, entries of the wheel and the like are made anew.
//!
//! When that is done, and what becomes of messages that are published meanwhile, is said in `moves`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::connection::{Held, Marks};
use super::outbox::Unsent;
use super::seen::Seen;
use crate::config::Framing;
use crate::message::{ConnId, Topic};
use crate::protocol::Encoding;
use crate::session::Session;

/// A connection that no shard holds.
#[derive(Debug)]
pub(crate) struct Parcel<S> {
    pub(crate) socket: S,
    pub(crate) peer: SocketAddr,
    /// The framing of the address that it came to.
    pub(crate) framing: Framing,
    /// The number of the handler that serves that address.
    pub(crate) handler: u8,
    /// What there is of it besides; `None`: no shard has taken it in yet.
    pub(crate) open: Option<Box<Open>>,
}

/// What an open connection has and a fresh one has not. Whatever else a row, or a map beside the rows by their slots, comes to
/// hold of a connection has its place here.
pub(crate) struct Open {
    pub(crate) id: ConnId,
    /// What was published before, on the shard that it comes from.
    pub(crate) seen: Seen,
    pub(super) encoding: Option<Encoding>,
    pub(super) handshaking: Option<Option<Encoding>>,
    /// What has come in of its next message, and for how long it has been coming.
    pub(super) held: Option<(Box<Held>, Duration)>,
    pub(super) topics: Vec<Topic>,
    pub(super) unsent: Unsent,
    pub(super) sent: u32,
    pub(super) dropped: u32,
    /// Until the bucket of its message rate is full again.
    pub(super) rate: Duration,
    /// How long ago it was accepted, its last message came in, its socket took a byte or stopped taking any, and the server
    /// gave it a sign of life.
    pub(super) opened: Duration,
    pub(super) last_message: Duration,
    pub(super) last_write: Duration,
    pub(super) last_ping: Duration,
    /// For how long bytes have been under way that were not seen to arrive.
    pub(super) unproven: Option<Duration>,
    pub(super) session: Option<Session>,
    /// Its timers by their tokens, with the time that is left.
    pub(super) timers: Vec<(u64, Duration)>,
    pub(super) hangup: bool,
    pub(super) marks: Marks,
    pub(super) blocked: bool,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Open {
    pub(crate) fn unsent(&self) -> &Unsent {
        &self.unsent
    }
}

impl<S> Parcel<S> {
    /// A client that has been accepted and that no shard has taken in yet.
    pub(crate) fn fresh(socket: S, peer: SocketAddr, framing: Framing, handler: u8) -> Self {
        Parcel { socket, peer, framing, handler, open: None }
    }

    /// Bytes that it keeps in memory beside itself, about.
    pub(crate) fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| {
            let held = open.held.as_ref().map_or(0, |(held, _)| held.memory());
            size_of::<Open>() + held + open.unsent.bytes()
        })
    }
}
