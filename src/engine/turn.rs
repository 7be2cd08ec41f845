//! A connection's turn: it reads, writes, and closes.

#[cfg(feature = "web")]
use std::rc::Rc;

use super::Engine;
#[cfg(feature = "web")]
use super::connection::spread;
use super::connection::{Held, Marks};
use super::driver::Driver;
use super::table::Key;
use super::visit::Visit;
use super::wheel::NEVER;
use crate::config::{INFLATED_BYTES_PER_TURN, LINGER_BYTES_MAX, MESSAGES_PER_TURN, READS_PER_TURN};
use crate::event::Event;
use crate::handler::{Actions, Handlers};
use crate::message::{CloseReason, Kind};
use crate::protocol::foreign::{self, Foreign};
#[cfg(feature = "web")]
use crate::protocol::http::Fields;
use crate::protocol::websocket::Assembly;
use crate::protocol::{self, Encoding, Item, answer};
use crate::rate::Rate;
#[cfg(feature = "web")]
use crate::site::Outcome;
use crate::transport::{Handshake, Received, Transport};

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

impl<D: Driver> Engine<D> {
    /// Gives a connection its turn.
    pub(crate) fn take_turn(&mut self, handlers: &mut Handlers, key: Key) {
        let Some(mut visit) = self.visit(key) else { return };
        match (Turn { visit: &mut visit, handlers }).run() {
            Step::Over => {
                // The handler has not heard of a connection whose request opened nothing.
                if visit.row.marks.has(Marks::KNOWN) {
                    let reason = visit.row.closing.unwrap_or(CloseReason::Reset);
                    visit.call(handlers, Kind::Text, |handler, cx| handler.on_close(cx, reason));
                }
                self.remove(key);
            }
            Step::Go | Step::Again => {
                visit.wake();
                visit.judge(true);
            }
            Step::Wait => {
                visit.watch();
                visit.judge(false);
            }
        }
        self.flush_dirty();
        self.relieve_memory();
    }
}

/// One turn of a connection.
struct Turn<'t, 'a, D: Driver> {
    visit: &'t mut Visit<'a, D>,
    handlers: &'t mut Handlers,
}

impl<D: Driver> Turn<'_, '_, D> {
    fn run(&mut self) -> Step {
        if let Some(encoding) = self.visit.row.handshaking
            && !self.visit.row.abort
        {
            let step = self.shake_hands(encoding);
            if !matches!(step, Step::Go) {
                return step;
            }
        }
        // A connection that is only slow is read on all the same.
        let row = &mut *self.visit.row;
        if std::mem::take(&mut row.writable) && row.blocked && !row.abort {
            self.visit.resume();
            self.tell_of_room();
        }
        for _ in 0..READS_PER_TURN {
            let row = &*self.visit.row;
            if row.abort {
                return Step::Over;
            }
            let step = if row.closing.is_some() { self.finish() } else { self.read() };
            if !matches!(step, Step::Go) {
                return step;
            }
        }
        // Others get their turn before this connection goes on.
        Step::Again
    }

    /// Tells a handler that waits for it that half of the outbox has emptied.
    fn tell_of_room(&mut self) {
        let row = &mut *self.visit.row;
        if !row.marks.has(Marks::WANTS_ROOM) || row.closing.is_some() {
            return;
        }
        if row.outbox.as_ref().is_none_or(|outbox| outbox.is_half_empty(&self.visit.base.limits)) {
            row.marks.clear(Marks::WANTS_ROOM);
            self.visit.call(self.handlers, Kind::Text, |handler, cx| handler.on_writable(cx));
        }
    }

    /// One step of the transport's handshake. The handler hears of the connection when it is done.
    fn shake_hands(&mut self, encoding: Option<Encoding>) -> Step {
        let row = &mut *self.visit.row;
        if row.closing.is_some() {
            return Step::Over;
        }
        // What it has read and written it has done until nothing more came, so it is told of what comes next.
        row.readable = false;
        row.blocked = false;
        match row.socket.handshake() {
            Handshake::Done => {
                row.handshaking = None;
                row.encoding = encoding;
                // Its first bytes may have come together with the handshake's last.
                row.readable = true;
                row.last_message = self.visit.base.wheel.now();
                self.visit.schedule();
                if encoding.is_some() {
                    let peer = self.visit.peer();
                    self.visit.open_plain(self.handlers, peer);
                }
                Step::Go
            }
            Handshake::WantsRead => Step::Wait,
            Handshake::WantsWrite => {
                row.blocked = true;
                Step::Wait
            }
            Handshake::Failed => {
                self.visit.abort(CloseReason::Reset);
                Step::Over
            }
        }
    }

    /// One step of an open connection: one `recv`, and what came in.
    fn read(&mut self) -> Step {
        if self.visit.base.moves.is_held_up(self.visit.row.id)
            || !self.visit.has_reply_room(self.visit.base.settings.reply_bytes_max)
        {
            return self.pause();
        }
        if self.visit.row.closing.is_some() {
            return Step::Go;
        }
        let now = self.visit.base.wheel.now();
        let row = &mut *self.visit.row;
        if row.paused {
            row.paused = false;
            row.throttled_until = NEVER;
            row.last_message = now;
            self.visit.schedule();
            self.receive(&mut []);
            return self.after_messages();
        }
        if row.is_unfinished() {
            self.receive(&mut []);
            return self.after_messages();
        }
        let mut buffer = self.visit.base.driver.read_buffer();
        let step = match self.recv(&mut buffer) {
            Received::Nothing => Step::Wait,
            Received::End => {
                self.visit.row.eof = true;
                self.visit.close(CloseReason::ClientClosed);
                Step::Go
            }
            Received::Bytes { count, .. } => {
                self.visit.base.metrics.bytes_in.add(count as u64);
                self.receive(&mut buffer[..count]);
                self.after_messages()
            }
            Received::Failed => {
                self.visit.abort(CloseReason::Reset);
                Step::Over
            }
        };
        self.visit.base.driver.return_read_buffer(buffer);
        step
    }

    /// Reads once, if there may be something to read.
    fn recv(&mut self, buffer: &mut [u8]) -> Received {
        let row = &mut *self.visit.row;
        if !row.readable {
            return Received::Nothing;
        }
        let received = row.socket.recv(buffer);
        match received {
            // What comes later is reported; but the end of a stream that was reported together with its last bytes is not
            // reported again.
            Received::Bytes { more, .. } => row.readable = more || row.hangup,
            Received::Nothing => row.readable = false,
            Received::End | Received::Failed => {}
        }
        received
    }

    /// Stops reading until the outbox, or the queue of publishes, has room again. What they wait for wakes the connection.
    fn pause(&mut self) -> Step {
        self.visit.row.paused = true;
        Step::Wait
    }

    /// What follows after messages were taken.
    fn after_messages(&mut self) -> Step {
        match &self.visit.row {
            row if row.paused => Step::Wait,
            row if row.is_unfinished() => Step::Again,
            _ => Step::Go,
        }
    }

    /// Takes the messages out of what is held and of what is fresh, and keeps what is not used up.
    fn receive(&mut self, fresh: &mut [u8]) {
        let mut held = self.visit.row.held.take();
        let before = held.as_ref().map_or(0, |held| held.memory());
        let began = held.as_ref().map(|held| held.since);
        let mut assembly = held.as_mut().and_then(|held| held.assembly.take());
        let Used { bytes: used, scanned, frame_bytes, inflated: _, unfinished } = match &mut held {
            Some(held) if !held.bytes.is_empty() => {
                held.bytes.extend_from_slice(fresh);
                self.take_messages(&mut held.bytes, held.scanned, &mut assembly)
            }
            _ => {
                held = None;
                self.take_messages(fresh, 0, &mut assembly)
            }
        };
        self.visit.base.holdings.change(before, 0);
        let now = self.visit.base.wheel.now();
        let row = &mut *self.visit.row;
        let total = held.as_ref().map_or(fresh.len(), |held| held.bytes.len());
        if (used == total && assembly.is_none()) || row.closing.is_some() {
            return;
        }
        // A message that has ended since was another one.
        let since = began.filter(|began| row.last_message <= *began).unwrap_or(now);
        let held = row.held.insert(match held {
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
        self.visit.base.holdings.change(0, held.memory());
    }

    /// Hands the whole messages in `bytes` to the handler, of which `scanned` are known to hold no end of one.
    fn take_messages(&mut self, bytes: &mut [u8], scanned: usize, assembly: &mut Option<Box<Assembly>>) -> Used {
        let mut used = Used { bytes: 0, scanned, frame_bytes: None, inflated: 0, unfinished: false };
        for count in 0.. {
            if used.bytes == bytes.len() {
                break;
            }
            if count == MESSAGES_PER_TURN || used.inflated >= INFLATED_BYTES_PER_TURN {
                used.unfinished = true;
                break;
            }
            let room = self.visit.base.settings.reply_bytes_max;
            if !self.visit.has_reply_room(room) || self.visit.wait_if_congested() {
                self.pause();
                break;
            }
            if self.visit.base.settings.message_rate.is_some_and(|rate| self.throttle(rate)) {
                break;
            }
            if self.visit.row.closing.is_some() {
                break;
            }
            let go_on = match self.visit.row.encoding {
                Some(encoding) => self.take_item(encoding, bytes, assembly, &mut used),
                #[cfg(feature = "web")]
                None => self.take_request(bytes, &mut used),
                #[cfg(not(feature = "web"))]
                None => unreachable!("a framing whose first request says what is spoken is not listened for"),
            };
            if !go_on {
                break;
            }
        }
        used
    }

    /// Whether the client has sent more than its rate; then it is read on at the next tick, and not before.
    fn throttle(&mut self, rate: Rate) -> bool {
        if rate.allows(self.visit.row.rate, self.visit.base.micros()) {
            return false;
        }
        self.visit.row.throttled_until = self.visit.base.wheel.now() + 1;
        self.pause();
        self.visit.base.metrics.throttled.add(1);
        self.visit.schedule();
        true
    }

    /// Counts what a client sent against its rate.
    fn count_rate(&mut self) {
        if let Some(rate) = self.visit.base.settings.message_rate {
            self.visit.row.rate = rate.taken(self.visit.row.rate, self.visit.base.micros());
        }
    }

    /// Takes what comes next, or the part of it that is there; `false`: more bytes are needed first.
    fn take_item(
        &mut self,
        encoding: Encoding,
        bytes: &mut [u8],
        assembly: &mut Option<Box<Assembly>>,
        used: &mut Used,
    ) -> bool {
        let rest = &mut bytes[used.bytes..];
        if self.is_foreign(rest) {
            return false;
        }
        let message_max = self.visit.base.settings.message_max;
        let is_begun = assembly.as_ref().is_some_and(|assembly| assembly.is_within_frame());
        let step = match protocol::next(encoding, rest, used.scanned, assembly, message_max) {
            Ok(step) => step,
            Err(violation) => {
                self.complain(violation.close_reason(), &violation);
                return false;
            }
        };
        if let Some(Item::Message { range, .. }) = &step.item
            && self.is_foreign_message(encoding, &rest[range.clone()])
        {
            return false;
        }
        // Each frame counts once, as it begins, whatever it is for: all of them cost the same to read.
        if !is_begun && step.consumed > 0 {
            self.count_rate();
        }
        used.bytes += step.consumed;
        used.scanned = 0;
        let Some(item) = step.item else {
            used.scanned = rest.len() - step.consumed;
            used.frame_bytes = step.frame_bytes;
            return step.consumed > 0;
        };
        match item {
            Item::Message { kind, range } => self.handle(kind, &rest[range]),
            Item::Assembled => {
                let whole = assembly.take().expect("it is there when it is complete");
                if whole.is_compressed() {
                    return self.inflate(whole.kind(), whole.message(), used);
                }
                self.handle(whole.kind(), whole.message());
            }
            Item::Compressed { kind, range } => return self.inflate(kind, &rest[range], used),
            Item::Ping { range } => {
                self.note_life(assembly.is_some());
                self.visit.push_reply(&encoding.pong(&rest[range]));
            }
            Item::Pong => self.note_life(assembly.is_some()),
            Item::Close { code } => {
                self.visit.push_reply(&encoding.close_answer(code));
                self.visit.close(CloseReason::ClientClosed);
            }
            Item::Stray => self.visit.close(CloseReason::ProtocolError),
        }
        true
    }

    /// Whether the first bytes of a connection are of another protocol; then it closes. Once a message has come in, they
    /// are not looked at any more.
    fn is_foreign(&mut self, bytes: &[u8]) -> bool {
        if self.visit.row.marks.has(Marks::SPOKEN) {
            return false;
        }
        let foreign = foreign::greeting(self.visit.row.framing(), bytes);
        foreign.inspect(|foreign| self.refuse(*foreign)).is_some()
    }

    /// Whether the first message of a connection is of another protocol; then it closes.
    fn is_foreign_message(&mut self, encoding: Encoding, message: &[u8]) -> bool {
        if self.visit.row.marks.has(Marks::SPOKEN) {
            return false;
        }
        // An empty line before a request is passed over by those who read requests (RFC 9112, section 2.2).
        if !message.is_empty() {
            self.visit.row.marks.set(Marks::SPOKEN);
        }
        let foreign = foreign::first_message(encoding.framing(), message);
        foreign.inspect(|foreign| self.refuse(*foreign)).is_some()
    }

    /// Tells a client that it came to the wrong port, in its own words where it has some, and closes the connection.
    fn refuse(&mut self, foreign: Foreign) {
        let framing = self.visit.row.framing();
        let text = foreign.explain(framing);
        if let Some(answer) = foreign.answer(&text) {
            self.visit.push_reply(&answer);
        } else if let Some(encoding) = Encoding::of(foreign.reads(framing)) {
            let (reason, text) = (CloseReason::WrongProtocol, format!("{text}; the connection is closed"));
            self.visit.notice_in(encoding, Event::Error { code: reason.name(), text: &text });
            self.visit.notice_in(encoding, Event::Bye { reason, text: None });
        } else {
            self.visit.push_reply(&answer::bad_request(&text));
        }
        self.visit.close(CloseReason::WrongProtocol);
    }

    /// Notes a sign of life that is no message. While a message is under way only its end counts: it must not take
    /// for ever, however often its sender waves meanwhile.
    fn note_life(&mut self, message_under_way: bool) {
        if !message_under_way {
            self.visit.row.last_message = self.visit.base.wheel.now();
        }
    }

    /// Takes an HTTP request; `false`: more bytes are needed first, or nothing that follows is looked at.
    #[cfg(feature = "web")]
    #[inline(never)] // The fields take kilobytes of the stack, which messages need not pay for.
    fn take_request(&mut self, bytes: &[u8], used: &mut Used) -> bool {
        if self.is_foreign(&bytes[used.bytes..]) {
            return false;
        }
        let site = Rc::clone(&self.visit.base.sites[usize::from(self.visit.row.handler)]);
        let mut fields = Fields::default();
        let (seed, draining) = (spread(self.visit.row.id), self.visit.base.registry.is_draining());
        match site.respond(&bytes[used.bytes..], used.scanned, &mut fields, seed, draining) {
            Outcome::Incomplete => {
                used.scanned = bytes.len() - used.bytes;
                false
            }
            Outcome::Answer(answer) => {
                self.visit.push_reply(&answer);
                self.visit.close(CloseReason::Answered);
                false
            }
            Outcome::Foreign { answer, text } => {
                self.visit.base.note_foreign_page(&text);
                self.visit.push_reply(&answer);
                self.visit.close(CloseReason::Answered);
                false
            }
            Outcome::Open(opening) => {
                used.bytes += opening.head.consumed;
                used.scanned = 0;
                self.visit.open_by_request(self.handlers, opening)
            }
        }
    }

    /// Hands a message that came compressed to the handler; `false`: it breaks the protocol.
    #[cfg(feature = "web")]
    fn inflate(&mut self, kind: Kind, payload: &[u8], used: &mut Used) -> bool {
        let mut inflater = std::mem::take(&mut self.visit.base.inflater);
        match inflater.inflate(kind, payload, self.visit.base.settings.message_max) {
            Ok(message) => {
                used.inflated += message.len();
                self.visit.base.metrics.inflated.add(1);
                self.handle(kind, message);
            }
            Err(violation) => self.complain(violation.close_reason(), &violation),
        }
        self.visit.base.inflater = inflater;
        self.visit.row.closing.is_none()
    }

    #[cfg(not(feature = "web"))]
    fn inflate(&mut self, _: Kind, _: &[u8], _: &mut Used) -> bool {
        unreachable!("compression is agreed upon over HTTP alone")
    }

    /// Hands a message to the handler.
    fn handle(&mut self, kind: Kind, message: &[u8]) {
        self.visit.row.last_message = self.visit.base.wheel.now();
        self.visit.base.metrics.messages_in.add(1);
        self.visit.call(self.handlers, kind, |handler, cx| handler.on_message(cx, message));
    }

    /// Tells the client what is wrong with its bytes, and closes the connection.
    fn complain(&mut self, reason: CloseReason, error: &dyn std::error::Error) {
        let text = format!("{error}; the connection is closed");
        self.visit.notice(Event::Error { code: reason.name(), text: &text });
        self.visit.close(reason);
    }

    /// One step of a closing connection: write what waits, shut the sending side, wait for the client to close
    /// its own.
    fn finish(&mut self) -> Step {
        self.visit.flush();
        self.visit.drop_held();
        let row = &*self.visit.row;
        if row.abort {
            return Step::Over;
        }
        if !row.outbox_is_empty() {
            return Step::Wait;
        }
        if row.eof {
            return Step::Over;
        }
        self.visit.start_linger();
        let mut buffer = self.visit.base.driver.read_buffer();
        let step = match self.recv(&mut buffer) {
            Received::Nothing => Step::Wait,
            Received::End | Received::Failed => Step::Over,
            Received::Bytes { count, .. } => self.count_late(count as u64),
        };
        self.visit.base.driver.return_read_buffer(buffer);
        step
    }

    /// Counts what a client has sent since its connection was shut. It is read, so that a reset does not destroy what was
    /// written to it last, but not without end.
    fn count_late(&mut self, bytes: u64) -> Step {
        self.visit.base.metrics.bytes_in.add(bytes);
        let row = &mut *self.visit.row;
        row.rate += bytes;
        if row.rate <= LINGER_BYTES_MAX {
            return Step::Go;
        }
        row.abort = true;
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
    /// Bytes that compressed messages were inflated to.
    inflated: usize,
    /// The turn ends before the rest has been looked at.
    unfinished: bool,
}
