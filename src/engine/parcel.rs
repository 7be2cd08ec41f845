//! A connection as a value, on its way from one shard to another.
//!
//! A [`Parcel`] is all that there is of a connection, and nothing in it points into a shard. A fresh client is little more
//! than its socket. Of an open one [`Engine::pack`] takes everything out of a shard, and [`Engine::unpack`] puts it into
//! another: what it speaks, what has come in of its next message, what it is subscribed to, what waits for it and what it
//! has missed, and its times as ages, since each shard has a clock of its own. Its id stays, its socket is not touched, and
//! its handler hears nothing of it. Polls, entries of the wheel and the like are made anew.
//!
//! When that is done, and what becomes of messages that are published meanwhile, is said in `moves`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Engine;
use super::connection::{Connection, Held, Marks};
use super::driver::Driver;
use super::moves::Seen;
use super::outbox::Unsent;
use super::table::Key;
use super::visit::Visit;
use super::wheel::{NEVER, Tick};
use crate::config::{Framing, TICK_MS};
use crate::message::{CloseReason, ConnId, Topic};
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
    encoding: Option<Encoding>,
    handshaking: Option<Option<Encoding>>,
    /// What has come in of its next message, and for how long it has been coming.
    held: Option<(Box<Held>, Duration)>,
    topics: Vec<Topic>,
    unsent: Unsent,
    sent: u32,
    dropped: u32,
    /// Until the bucket of its message rate is full again.
    rate: Duration,
    /// How long ago it was accepted, its last message came in, its socket took a byte or stopped taking any, and the server
    /// gave it a sign of life.
    opened: Duration,
    last_message: Duration,
    last_write: Duration,
    last_ping: Duration,
    /// For how long bytes have been under way that were not seen to arrive.
    unproven: Option<Duration>,
    session: Option<Session>,
    /// Its timers by their tokens, with the time that is left.
    timers: Vec<(u64, Duration)>,
    hangup: bool,
    marks: Marks,
    blocked: bool,
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

/// How long ago something was.
fn age(now: Tick, then: Tick) -> Duration {
    Duration::from_millis(u64::from(now.saturating_sub(then)) * TICK_MS)
}

/// When something was that long ago, by a clock that may not go back so far: then as far as it does.
fn at(now: Tick, age: Duration) -> Tick {
    now.saturating_sub(to_ticks(age))
}

fn to_ticks(span: Duration) -> Tick {
    Tick::try_from(span.as_millis() / u128::from(TICK_MS)).unwrap_or(NEVER)
}

impl<D: Driver> Engine<D> {
    /// Takes an open connection out of this shard. `None`: it is gone, or about to close, which it does where it is. `seen`:
    /// what has been offered to it of what was published.
    pub(crate) fn pack(&mut self, key: Key, seen: Seen) -> Option<Parcel<D::Socket>> {
        let row = self.table.get(key).filter(|row| row.closing.is_none())?;
        let peer = self.base.registry.get(row.id).expect("an open connection has its row").peer();
        let speaks = row.handshaking.unwrap_or(row.encoding);
        let topics = self.base.topics.names(key).cloned().collect();
        let unproven = row.unproven_since();
        let session = self.base.sessions.remove(&key);
        let timers = self.base.timers.take(key);
        let row = self.take_out(key)?;

        let base = &mut self.base;
        let (now, clock) = (base.wheel.now(), Duration::from_micros(base.micros()));
        // Each field by its name, so that none is forgotten that comes.
        let Connection {
            socket,
            id,
            outbox,
            held,
            opened,
            sent,
            dropped,
            rate,
            throttled_until: _,
            last_message,
            last_write,
            last_ping,
            check_at: _,
            mark: _,
            closing: _,
            encoding,
            handshaking,
            queued: _,
            readable: _,
            hangup,
            polls: _,
            marks,
            handler,
            blocked,
            writable: _,
            dirty: _,
            abort: _,
            eof: _,
            paused,
            overdue: _,
        } = row;
        let held = held.map(|mut held| {
            base.holdings.change(held.memory(), 0);
            // Who was read no further has whole messages, perhaps.
            held.unfinished |= paused;
            let since = age(now, held.since);
            (held, since)
        });
        let open = Open {
            id,
            seen,
            encoding,
            handshaking,
            held,
            topics,
            unsent: outbox.map(|outbox| base.detach(outbox)).unwrap_or_default(),
            sent,
            dropped,
            rate: Duration::from_nanos(rate).saturating_sub(clock),
            opened: age(base.wheel.age(), opened),
            // While it was not read, its silence was not its fault.
            last_message: if paused { Duration::ZERO } else { age(now, last_message) },
            last_write: age(now, last_write),
            last_ping: age(now, last_ping),
            unproven: unproven.map(|since| age(now, since)),
            session,
            timers: timers.into_iter().map(|(token, at)| (token, age(at, now))).collect(),
            hangup,
            marks,
            blocked,
        };
        let framing = speaks.map_or(Framing::Http, Encoding::framing);
        Some(Parcel { socket, peer, framing, handler, open: Some(Box::new(open)) })
    }

    /// Puts a connection into this shard that another one has taken out. If there is nothing to watch it with, it is closed.
    pub(crate) fn unpack(&mut self, socket: D::Socket, handler: u8, open: Open) -> Visit<'_, D> {
        let base = &mut self.base;
        let (now, clock) = (base.wheel.now(), Duration::from_micros(base.micros()));
        let mut row = Connection::new(socket, open.id, handler, open.encoding, at(base.wheel.age(), open.opened), now);
        row.handshaking = open.handshaking;
        row.held = open.held.map(|(mut held, since)| {
            base.holdings.change(0, held.memory());
            held.since = at(now, since);
            held
        });
        row.sent = open.sent;
        row.dropped = open.dropped;
        row.rate = (clock + open.rate).as_nanos() as u64;
        row.last_message = at(now, open.last_message);
        row.last_write = at(now, open.last_write);
        row.last_ping = at(now, open.last_ping);
        // What its socket has to say it says again.
        row.readable = true;
        row.hangup = open.hangup;
        row.marks = open.marks;
        row.blocked = open.blocked;
        row.outbox = base.attach(open.unsent);

        let key = self.table.insert_with(|_| row);
        let is_watchable = self.note_insertion(key);
        self.base.registry.relocate(open.id, self.base.index, key);
        open.session.into_iter().for_each(|session| drop(self.base.sessions.insert(key, session)));
        for (token, left) in open.timers {
            self.base.timers.set(key, token, now.saturating_add(to_ticks(left)));
        }
        for topic in &open.topics {
            self.base.topics.subscribe(key, topic.as_str());
        }
        let mut visit = self.visit(key).expect("it was made just now");
        if let Some(unproven) = open.unproven {
            visit.row.set_unproven_since(at(now, unproven));
            visit.base.proofs.go_on(key);
        }
        visit.schedule();
        visit.wake();
        visit.mark_dirty();
        if let Err(error) = is_watchable {
            tracing::warn!(%error, id = %visit.row.id, "a connection that moved is closed: no ring to watch it");
            visit.abort(CloseReason::Full);
        }
        visit
    }
}
