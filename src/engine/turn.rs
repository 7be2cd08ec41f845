//! A connection's turn: it reads, writes, and closes.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::config::{LINGER_BYTES_MAX, MESSAGES_PER_TURN, READS_PER_TURN};
use crate::engine::Engine;
use crate::engine::actions::Scope;
use crate::engine::connection::{Connection, Held, spread};
use crate::engine::table::Key;
use crate::engine::wheel::NEVER;
use crate::handler::{Context, Event, Handler};
use crate::message::{CloseReason, Kind};
use crate::protocol::foreign::{self, Foreign};
use crate::protocol::http::{self, Outcome};
use crate::protocol::websocket::{self, Assembly};
use crate::protocol::{self, Decoded, Encoding};
use crate::rate::Rate;
use crate::shard::Shard;

/// What a step of a turn leads to.
enum Step {
    /// Go on with the next step.
    Go,
    /// The turn ends; there is more to do in the next one.
    Again,
    /// The turn ends; the connection waits until something wakes it.
    Wait,
    /// The connection is over.
    Over,
}

/// What a non-blocking `recv` says.
enum Received {
    Bytes(usize),
    /// The client has closed its sending side.
    End,
    /// There is nothing for now.
    Nothing,
    Failed,
}

/// Gives a connection its turn.
pub(crate) fn take<H: Handler>(shard: &Shard<H>, key: Key) {
    let core = &mut *shard.core.borrow_mut();
    match (Turn { core, handler: &shard.handler, key }).run() {
        Step::Over => {
            let Some(connection) = core.table.get(key) else { return };
            let (id, reason) = (connection.id, connection.closing.unwrap_or(CloseReason::Reset));
            // The handler has not heard of a connection whose request opened nothing.
            if connection.encoding.is_some() {
                let mut scope = Scope { core, key, id };
                shard.handler.borrow_mut().on_close(&mut Context::new(id, Kind::Text, &mut scope), reason);
            }
            core.remove(key);
        }
        Step::Go | Step::Again => {
            core.wake(key);
            core.judge(key, true);
        }
        Step::Wait => {
            core.watch(key);
            core.judge(key, false);
        }
    }
    core.flush_dirty();
    core.relieve_memory();
}

/// One turn of a connection.
struct Turn<'a, H> {
    core: &'a mut Engine,
    handler: &'a RefCell<H>,
    key: Key,
}

impl<H: Handler> Turn<'_, H> {
    fn connection(&mut self) -> Option<&mut Connection> {
        self.core.table.get_mut(self.key)
    }

    fn run(&mut self) -> Step {
        let Some(connection) = self.connection() else { return Step::Over };
        // A connection that is only slow is read on all the same.
        if std::mem::take(&mut connection.writable) && connection.blocked && !connection.abort {
            self.core.resume(self.key);
        }
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connection() else { return Step::Over };
            if connection.abort {
                return Step::Over;
            }
            let step = if connection.closing.is_some() { self.finish() } else { self.read() };
            if !matches!(step, Step::Go) {
                return step;
            }
        }
        // Others get their turn before this connection goes on.
        Step::Again
    }

    /// One step of an open connection: one `recv`, and what came in.
    fn read(&mut self) -> Step {
        let room = self.core.settings.reply_bytes_max;
        if !self.core.has_reply_room(self.key, room) {
            return self.pause();
        }
        let now = self.core.wheel.now();
        let Some(connection) = self.connection() else { return Step::Over };
        if connection.paused {
            connection.paused = false;
            connection.throttled_until = NEVER;
            connection.last_message = now;
            self.core.schedule(self.key);
            self.receive(&mut []);
            return self.after_messages();
        }
        if connection.is_unfinished() {
            self.receive(&mut []);
            return self.after_messages();
        }
        let mut buffer = self.core.pool.take_read();
        let step = match self.recv(buffer.as_bytes_mut()) {
            Received::Nothing => Step::Wait,
            Received::End => {
                if let Some(connection) = self.connection() {
                    connection.eof = true;
                }
                self.core.close(self.key, CloseReason::ClientClosed);
                Step::Go
            }
            Received::Bytes(n) => {
                self.core.metrics.bytes_in.add(n as u64);
                self.receive(&mut buffer.as_bytes_mut()[..n]);
                self.after_messages()
            }
            Received::Failed => {
                self.core.abort(self.key, CloseReason::Reset);
                Step::Over
            }
        };
        self.core.pool.give_back_read(buffer);
        step
    }

    /// Reads once, if there may be something to read.
    fn recv(&mut self, buffer: &mut [u8]) -> Received {
        let Some(connection) = self.core.table.get_mut(self.key) else { return Received::Failed };
        if !connection.readable {
            return Received::Nothing;
        }
        let room = buffer.len();
        match rustix::net::recv(connection.socket.as_fd(), buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Received::End,
            Ok((_, n)) => {
                // A read that did not fill the buffer has emptied the socket, and what comes later is reported; but
                // the end of a stream that was reported together with its last bytes is not reported again.
                connection.readable = n == room || connection.hangup;
                Received::Bytes(n)
            }
            Err(Errno::AGAIN) => {
                connection.readable = false;
                Received::Nothing
            }
            Err(Errno::INTR) => Received::Bytes(0),
            Err(_) => Received::Failed,
        }
    }

    /// Stops reading until the outbox, or the queue of publishes, has room again. What they wait for wakes the connection.
    fn pause(&mut self) -> Step {
        if let Some(connection) = self.connection() {
            connection.paused = true;
        }
        Step::Wait
    }

    /// What follows after messages were taken.
    fn after_messages(&mut self) -> Step {
        match self.connection() {
            Some(connection) if connection.paused => Step::Wait,
            Some(connection) if connection.is_unfinished() => Step::Again,
            _ => Step::Go,
        }
    }

    /// Takes the messages out of what is held and of what is fresh, and keeps what is not used up.
    fn receive(&mut self, fresh: &mut [u8]) {
        let Some(connection) = self.connection() else { return };
        let mut held = connection.held.take();
        let before = held.as_ref().map_or(0, |held| held.memory());
        let began = held.as_ref().map(|held| held.since);
        let mut assembly = held.as_mut().and_then(|held| held.assembly.take());
        let Used { bytes: used, scanned, frame_bytes, unfinished } = match &mut held {
            Some(held) if !held.bytes.is_empty() => {
                held.bytes.extend_from_slice(fresh);
                self.take_messages(&mut held.bytes, held.scanned, &mut assembly)
            }
            _ => {
                held = None;
                self.take_messages(fresh, 0, &mut assembly)
            }
        };
        self.core.holdings.change(before, 0);
        let now = self.core.wheel.now();
        let Some(connection) = self.core.table.get_mut(self.key) else { return };
        let total = held.as_ref().map_or(fresh.len(), |held| held.bytes.len());
        if (used == total && assembly.is_none()) || connection.closing.is_some() {
            return;
        }
        // A message that has ended since was another one.
        let since = began.filter(|began| connection.last_message <= *began).unwrap_or(now);
        let held = connection.held.insert(match held {
            Some(mut held) if used == 0 => {
                held.scanned = scanned;
                held.assembly = assembly;
                held.unfinished = unfinished;
                held.reserve_towards(frame_bytes);
                held
            }
            held => {
                let rest = match &held {
                    Some(held) => &held.bytes[used..],
                    None => &fresh[used..],
                };
                let mut held = Box::new(Held { bytes: rest.to_vec(), scanned, assembly, unfinished, since });
                held.reserve_towards(frame_bytes);
                held
            }
        });
        self.core.holdings.change(0, held.memory());
    }

    /// Hands the whole messages in `bytes` to the handler, of which `scanned` are known to hold no end of one.
    fn take_messages(&mut self, bytes: &mut [u8], scanned: usize, assembly: &mut Option<Box<Assembly>>) -> Used {
        let mut used = Used { bytes: 0, scanned, frame_bytes: None, unfinished: false };
        for count in 0.. {
            if used.bytes == bytes.len() {
                break;
            }
            if count == MESSAGES_PER_TURN {
                used.unfinished = true;
                break;
            }
            let room = self.core.settings.reply_bytes_max;
            if !self.core.has_reply_room(self.key, room) || self.core.wait_if_congested(self.key) {
                self.pause();
                break;
            }
            if self.core.settings.message_rate.is_some_and(|rate| self.throttle(rate)) {
                break;
            }
            let Some(connection) = self.connection().filter(|connection| connection.closing.is_none()) else { break };
            let go_on = match connection.encoding {
                Some(encoding @ (Encoding::Line | Encoding::Length)) => self.take_message(encoding, bytes, &mut used),
                Some(Encoding::WebSocket | Encoding::WebSocketJson) => self.take_frame(bytes, assembly, &mut used),
                Some(Encoding::Sse) => {
                    self.core.close(self.key, CloseReason::ProtocolError);
                    false
                }
                None => self.take_request(bytes, &mut used),
            };
            if !go_on {
                break;
            }
        }
        used
    }

    /// Whether the client has sent more than its rate; then it is read on at the next tick, and not before.
    fn throttle(&mut self, rate: Rate) -> bool {
        let (now, tick) = (self.core.micros(), self.core.wheel.now());
        let Some(connection) = self.connection() else { return false };
        if rate.allows(connection.rate, now) {
            return false;
        }
        connection.throttled_until = tick + 1;
        self.pause();
        self.core.metrics.throttled.add(1);
        self.core.schedule(self.key);
        true
    }

    /// Counts what a client sent against its rate.
    fn count_rate(&mut self) {
        let Some(rate) = self.core.settings.message_rate else { return };
        let now = self.core.micros();
        if let Some(connection) = self.connection() {
            connection.rate = rate.taken(connection.rate, now);
        }
    }

    /// Takes the next message of a plain framing; `false`: more bytes are needed first.
    fn take_message(&mut self, encoding: Encoding, bytes: &[u8], used: &mut Used) -> bool {
        let message_max = self.core.settings.message_max;
        let rest = &bytes[used.bytes..];
        if self.is_foreign(rest) {
            return false;
        }
        match protocol::decode(encoding, rest, used.scanned, message_max) {
            Ok(Decoded::Message { range, consumed }) => {
                let message = &rest[range];
                if self.is_foreign_message(encoding, message) {
                    return false;
                }
                used.bytes += consumed;
                used.scanned = 0;
                self.count_rate();
                self.handle(Kind::Text, message);
                true
            }
            Ok(Decoded::Incomplete { frame_bytes }) => {
                used.scanned = bytes.len() - used.bytes;
                used.frame_bytes = frame_bytes;
                false
            }
            Err(error) => {
                self.complain(CloseReason::MessageTooLarge, &error);
                false
            }
        }
    }

    /// Whether the first bytes of a connection are of another protocol; then it closes. Once a message has come in, they
    /// are not looked at any more.
    fn is_foreign(&mut self, bytes: &[u8]) -> bool {
        let Some(connection) = self.connection().filter(|connection| !connection.spoken) else { return false };
        let foreign = foreign::greeting(connection.framing(), bytes);
        foreign.inspect(|foreign| self.refuse(*foreign)).is_some()
    }

    /// Whether the first message of a connection is of another protocol; then it closes.
    fn is_foreign_message(&mut self, encoding: Encoding, message: &[u8]) -> bool {
        let Some(connection) = self.connection().filter(|connection| !connection.spoken) else { return false };
        // An empty line before a request is passed over by those who read requests (RFC 9112, section 2.2).
        connection.spoken = !message.is_empty();
        let foreign = foreign::first_line(message).filter(|_| encoding == Encoding::Line);
        foreign.inspect(|foreign| self.refuse(*foreign)).is_some()
    }

    /// Tells a client that it came to the wrong port, in its own words where it has some, and closes the connection.
    fn refuse(&mut self, foreign: Foreign) {
        let Some(framing) = self.connection().map(|connection| connection.framing()) else { return };
        let text = foreign.explain(framing);
        if let Some(answer) = foreign.answer(&text) {
            self.core.push_reply(self.key, answer);
        } else if let Some(encoding) = Encoding::of(foreign.reads(framing)) {
            let (reason, text) = (CloseReason::WrongProtocol, format!("{text}; the connection is closed"));
            self.core.notice_in(encoding, self.key, Event::Error { code: reason.name(), text: &text });
            self.core.notice_in(encoding, self.key, Event::Bye { reason });
        } else {
            self.core.push_reply(self.key, http::bad_request(&text));
        }
        self.core.close(self.key, CloseReason::WrongProtocol);
    }

    /// Takes the next frame of a WebSocket, or the part of it that is there; `false`: more bytes are needed first.
    fn take_frame(&mut self, bytes: &mut [u8], assembly: &mut Option<Box<Assembly>>, used: &mut Used) -> bool {
        use websocket::Decoded;
        let message_max = self.core.settings.message_max;
        let rest = &mut bytes[used.bytes..];
        let is_frame_begun = assembly.as_ref().is_some_and(|assembly| assembly.is_within_frame());
        let decoded = match websocket::decode(rest, assembly, message_max) {
            Ok(decoded) => decoded,
            Err(violation) => {
                self.complain(violation.close_reason(), &violation);
                return false;
            }
        };
        // Each frame counts once, as it begins, whatever it is for: all of them cost the same to read.
        if !is_frame_begun && !matches!(decoded, Decoded::Incomplete { consumed: 0 }) {
            self.count_rate();
        }
        match decoded {
            Decoded::Message { kind, range, consumed } => {
                used.bytes += consumed;
                self.handle(kind, &rest[range]);
            }
            Decoded::Assembled { consumed } => {
                used.bytes += consumed;
                if let Some(whole) = assembly.take() {
                    self.handle(whole.kind(), whole.message());
                }
            }
            Decoded::Ping { range, consumed } => {
                used.bytes += consumed;
                self.note_life(assembly.is_some());
                self.core.push_reply(self.key, websocket::pong(&rest[range]));
            }
            Decoded::Pong { consumed } => {
                used.bytes += consumed;
                self.note_life(assembly.is_some());
            }
            Decoded::Close { code, consumed } => {
                used.bytes += consumed;
                self.core.push_reply(self.key, websocket::close_answer(code));
                self.core.close(self.key, CloseReason::ClientClosed);
            }
            Decoded::Incomplete { consumed } => {
                used.bytes += consumed;
                return consumed > 0;
            }
        }
        true
    }

    /// Notes a sign of life that is no message. While a message is under way only its end counts: it must not take
    /// for ever, however often its sender waves meanwhile.
    fn note_life(&mut self, message_under_way: bool) {
        let now = self.core.wheel.now();
        if let Some(connection) = self.connection().filter(|_| !message_under_way) {
            connection.last_message = now;
        }
    }

    /// Takes an HTTP request; `false`: more bytes are needed first, or nothing that follows is looked at.
    fn take_request(&mut self, bytes: &[u8], used: &mut Used) -> bool {
        let Some(id) = self.connection().map(|connection| connection.id) else { return false };
        if self.is_foreign(&bytes[used.bytes..]) {
            return false;
        }
        let site = Rc::clone(&self.core.site);
        match http::respond(&bytes[used.bytes..], used.scanned, &site, spread(id), self.core.registry.is_draining()) {
            Outcome::Incomplete => {
                used.scanned = bytes.len() - used.bytes;
                false
            }
            Outcome::Answer(answer) => {
                self.core.push_reply(self.key, answer);
                self.core.close(self.key, CloseReason::Answered);
                false
            }
            Outcome::Foreign { answer, text } => {
                self.core.note_foreign_page(&text);
                self.core.push_reply(self.key, answer);
                self.core.close(self.key, CloseReason::Answered);
                false
            }
            Outcome::Open { encoding, topics, response, consumed } => {
                used.bytes += consumed;
                used.scanned = 0;
                let now = self.core.wheel.now();
                if let Some(connection) = self.connection() {
                    connection.encoding = Some(encoding);
                    connection.spoken = true;
                    connection.last_message = now;
                    connection.last_ping = now;
                }
                self.core.push_reply(self.key, response);
                self.core.schedule(self.key);
                let mut scope = Scope { core: self.core, key: self.key, id };
                let cx = &mut Context::new(id, Kind::Text, &mut scope);
                let handler = &mut *self.handler.borrow_mut();
                handler.on_connect(cx);
                if !topics.is_empty() {
                    handler.on_topics(cx, &topics);
                }
                true
            }
        }
    }

    /// Hands a message to the handler.
    fn handle(&mut self, kind: Kind, message: &[u8]) {
        let now = self.core.wheel.now();
        let Some(connection) = self.connection() else { return };
        connection.last_message = now;
        let id = connection.id;
        self.core.metrics.messages_in.add(1);
        let mut scope = Scope { core: self.core, key: self.key, id };
        self.handler.borrow_mut().on_message(&mut Context::new(id, kind, &mut scope), message);
    }

    /// Tells the client what is wrong with its bytes, and closes the connection.
    fn complain(&mut self, reason: CloseReason, error: &dyn std::error::Error) {
        let text = format!("{error}; the connection is closed");
        self.core.notice(self.key, Event::Error { code: reason.name(), text: &text });
        self.core.close(self.key, reason);
    }

    /// One step of a closing connection: write what waits, shut the sending side, wait for the client to close
    /// its own.
    fn finish(&mut self) -> Step {
        self.core.flush(self.key);
        self.core.drop_held(self.key);
        let Some(connection) = self.connection() else { return Step::Over };
        if connection.abort {
            return Step::Over;
        }
        if !connection.outbox_is_empty() {
            return Step::Wait;
        }
        if connection.eof {
            return Step::Over;
        }
        self.core.start_linger(self.key);
        let mut buffer = self.core.pool.take_read();
        let step = match self.recv(buffer.as_bytes_mut()) {
            Received::Nothing => Step::Wait,
            Received::End | Received::Failed => Step::Over,
            Received::Bytes(n) => self.count_late(n as u64),
        };
        self.core.pool.give_back_read(buffer);
        step
    }

    /// Counts what a client has sent since its connection was shut. It is read, so that a reset does not destroy what was
    /// written to it last, but not without end.
    fn count_late(&mut self, bytes: u64) -> Step {
        self.core.metrics.bytes_in.add(bytes);
        let Some(connection) = self.connection() else { return Step::Over };
        connection.rate += bytes;
        if connection.rate <= LINGER_BYTES_MAX {
            return Step::Go;
        }
        connection.abort = true;
        Step::Over
    }
}

/// How much of what came in is used up.
struct Used {
    bytes: usize,
    /// How much of the rest is known to hold no end of a message.
    scanned: usize,
    /// Bytes that the message at the rest's beginning will take, if that is known.
    frame_bytes: Option<usize>,
    /// The turn ends before the rest has been looked at.
    unfinished: bool,
}
