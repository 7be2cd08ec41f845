//! How a connection becomes a parcel, and a parcel a connection.

use std::time::Duration;

use super::Engine;
use super::connection::Connection;
use super::driver::Driver;
use super::parcel::{Open, Parcel};
use super::seen::Seen;
use super::table::Key;
use super::visit::Visit;
use super::wheel::{NEVER, Tick};
use crate::config::{Framing, TICK_MS};
use crate::message::CloseReason;
use crate::protocol::Encoding;

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
