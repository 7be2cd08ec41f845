//! The row of one client connection.

use crate::config::{Framing, PING_SPREAD};
use crate::engine::outbox::{Load, Outbox, Written};
use crate::engine::settings::Settings;
use crate::engine::wheel::{NEVER, Tick};
use crate::engine::wording::Wording;
use crate::message::{CloseReason, ConnId};
use crate::protocol::Encoding;
use crate::protocol::websocket::Assembly;
use crate::rate::Nanos;

/// The row of one connection. Idle, it owns no buffer and no queue.
pub(crate) struct Connection<S> {
    pub(crate) socket: S,
    pub(crate) id: ConnId,
    /// What waits to be written, and gaps to be told; `None` when there is neither.
    pub(crate) outbox: Option<Box<Outbox>>,
    /// Bytes of a message that is not complete, or that could not be taken yet; `None` when there are none.
    pub(crate) held: Option<Box<Held>>,
    /// When it was accepted, by the shard's age.
    pub(crate) opened: Tick,
    /// Messages written to it.
    pub(crate) sent: u32,
    /// Messages that it missed.
    pub(crate) dropped: u32,
    /// When the bucket of its message rate will be full again; once its sending side is shut, bytes that it sent since.
    pub(crate) rate: Nanos,
    /// While it sends more than its rate: when it is looked at again.
    pub(crate) throttled_until: Tick,
    /// When the last complete message came in.
    pub(crate) last_message: Tick,
    /// When the socket last took a byte, or when it stopped taking any.
    pub(crate) last_write: Tick,
    /// When the server last gave it a sign of life.
    pub(crate) last_ping: Tick,
    /// The earliest tick at which the wheel will bring this connection up.
    pub(crate) check_at: Tick,
    /// While open: since when bytes have been under way that were not seen to arrive; [`NEVER`]: none are. While closing:
    /// when it ends at the latest.
    pub(super) mark: Tick,
    /// Set once, when the connection begins to close.
    pub(crate) closing: Option<CloseReason>,
    /// What the connection speaks; `None`: that is not settled yet, and nothing can be sent to it.
    pub(crate) encoding: Option<Encoding>,
    /// While the transport's handshake goes on: what the connection will speak. The handler has not heard of it.
    pub(crate) handshaking: Option<Option<Encoding>>,
    /// Waits for its turn.
    pub(crate) queued: bool,
    /// The socket may have something to read: nothing has shown yet that it is empty.
    pub(crate) readable: bool,
    /// The client has ended its stream, or both: reading goes on until that shows.
    pub(crate) hangup: bool,
    /// The polls that are armed on the socket.
    pub(crate) polls: Polls,
    /// What is seldom asked for.
    pub(crate) marks: Marks,
    /// The number of the handler that serves it.
    pub(crate) handler: u8,
    /// The socket took less than it was given, and room is waited for.
    pub(crate) blocked: bool,
    /// The socket that was blocked has room again.
    pub(crate) writable: bool,
    /// Waits to be flushed when the batch ends.
    pub(crate) dirty: bool,
    /// The next turn takes the connection out at once.
    pub(crate) abort: bool,
    /// The client has closed its sending side.
    pub(crate) eof: bool,
    /// The server does not read on for now, so silence is not the client's fault.
    pub(crate) paused: bool,
    /// Turns given to it since a deadline of it came, to read and write what it can before it is judged; zero: none came.
    pub(crate) overdue: u8,
}

/// What a connection's nearest deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It is read on.
    ReadOn,
    /// It gets a sign of life.
    Ping,
    /// It is closed for this reason, unless its next turn shows that it lives.
    Close(CloseReason),
    /// It was closing, and its time for that is over.
    End,
}

/// Which polls are armed on a connection's socket. A byte for both, since a row has none to spare.
#[derive(Clone, Copy, Default)]
pub(crate) struct Polls(u8);

impl Polls {
    /// It is reported when there is something to read.
    pub(crate) const READ: Polls = Polls(1);
    /// It is reported when the socket takes bytes again.
    pub(crate) const WRITE: Polls = Polls(2);

    pub(crate) fn has(self, poll: Polls) -> bool {
        self.0 & poll.0 != 0
    }

    pub(crate) fn set(&mut self, poll: Polls, armed: bool) {
        self.0 = if armed { self.0 | poll.0 } else { self.0 & !poll.0 };
    }
}

/// Yes or no to what is seldom asked of a connection. A byte for all of it, since a row has none to spare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    /// The client has sent a message, or the request that says what it speaks: it is not looked at for another protocol.
    pub(crate) const SPOKEN: Marks = Marks(1);
    /// The sending side is shut; only the client's farewell is waited for.
    pub(crate) const SHUT: Marks = Marks(2);
    /// The handler is asked whether it takes the client; nothing can be sent to it yet.
    pub(crate) const OPENING: Marks = Marks(4);
    /// The handler was told that the outbox is full, and waits to hear that it has room.
    pub(crate) const WANTS_ROOM: Marks = Marks(8);
    /// The handler has been told of the connection, and will be told of its end.
    pub(crate) const KNOWN: Marks = Marks(16);
    /// The handler closed it while it was asked whether it takes the client.
    pub(crate) const UNWANTED: Marks = Marks(32);

    pub(crate) fn has(self, mark: Marks) -> bool {
        self.0 & mark.0 != 0
    }

    pub(crate) fn set(&mut self, mark: Marks) {
        self.0 |= mark.0;
    }

    pub(crate) fn clear(&mut self, mark: Marks) {
        self.0 &= !mark.0;
    }
}

/// Bytes that came in and are not used up.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    /// How many of them are known to hold no end of a message.
    pub(crate) scanned: usize,
    /// What has come in of a WebSocket message whose end has not.
    pub(crate) assembly: Option<Box<Assembly>>,
    /// There may be whole messages among the bytes, left for the next turn.
    pub(crate) unfinished: bool,
    /// When the first of them came.
    pub(crate) since: Tick,
}

impl<S> Connection<S> {
    /// A connection that comes in at `now`, when the shard has the age `opened`, for the handler of a number.
    pub(crate) fn new(socket: S, id: ConnId, handler: u8, encoding: Option<Encoding>, opened: Tick, now: Tick) -> Self {
        Connection {
            socket,
            id,
            outbox: None,
            held: None,
            opened,
            sent: 0,
            dropped: 0,
            rate: 0,
            throttled_until: NEVER,
            last_message: now,
            last_write: now,
            last_ping: now,
            check_at: NEVER,
            mark: NEVER,
            closing: None,
            encoding,
            handshaking: None,
            queued: false,
            readable: false,
            hangup: false,
            polls: Polls::default(),
            marks: Marks::default(),
            handler,
            blocked: false,
            writable: false,
            dirty: false,
            abort: false,
            eof: false,
            paused: false,
            overdue: 0,
        }
    }

    /// What is due at `now`, if anything.
    pub(crate) fn due(&self, settings: &Settings, now: Tick) -> Option<Due> {
        let is_over = |deadline: Option<Tick>| deadline.is_some_and(|deadline| deadline <= now);
        if self.abort {
            return None;
        }
        if self.closing.is_some() {
            return is_over(self.close_deadline(settings.close_patience())).then_some(Due::End);
        }
        if is_over(self.throttle_deadline()) {
            Some(Due::ReadOn)
        } else if is_over(self.write_deadline(settings.write_timeout)) {
            Some(Due::Close(CloseReason::WriteTimeout))
        } else if is_over(self.read_deadline(settings)) {
            let is_open = self.encoding.is_some();
            Some(Due::Close(if is_open { CloseReason::ReadTimeout } else { CloseReason::HeadTimeout }))
        } else if is_over(self.ping_deadline(settings.ping_every)) {
            Some(Due::Ping)
        } else {
            None
        }
    }

    /// When something is due next.
    pub(crate) fn next_deadline(&self, settings: &Settings) -> Option<Tick> {
        if self.closing.is_some() {
            return self.close_deadline(settings.close_patience());
        }
        let deadlines = [
            self.throttle_deadline(),
            self.read_deadline(settings),
            self.write_deadline(settings.write_timeout),
            self.ping_deadline(settings.ping_every),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The outbox, one of the spare ones if it has none.
    #[allow(clippy::vec_box, reason = "a row holds a boxed outbox, so the boxes are what is kept")]
    pub(crate) fn outbox_or(&mut self, spare: &mut Vec<Box<Outbox>>) -> &mut Outbox {
        self.outbox.get_or_insert_with(|| spare.pop().unwrap_or_default())
    }

    pub(crate) fn count_written(&mut self, written: Written, now: Tick) {
        // The write timeout runs from the last byte that was taken.
        if written.bytes > 0 {
            self.last_write = now;
        }
        self.sent = self.sent.saturating_add(written.messages as u32);
    }

    /// Notes that bytes were written at `now`; whether none were under way before.
    pub(crate) fn await_proof(&mut self, now: Tick) -> bool {
        let is_first = self.closing.is_none() && self.mark == NEVER;
        if is_first {
            self.mark = now;
        }
        is_first
    }

    /// Since when bytes have been under way that were not seen to arrive.
    pub(crate) fn unproven_since(&self) -> Option<Tick> {
        Some(self.mark).filter(|since| self.closing.is_none() && *since != NEVER)
    }

    /// Notes since when, or with [`NEVER`] that all have arrived. The connection must be open.
    pub(crate) fn set_unproven_since(&mut self, since: Tick) {
        debug_assert!(self.closing.is_none(), "a closing connection ends by its own time");
        self.mark = since;
    }

    /// Begins to close: for this reason, and by then at the latest.
    pub(crate) fn begin_to_close(&mut self, reason: CloseReason, by: Tick) {
        self.closing = Some(reason);
        self.mark = by;
    }

    /// Changes by when a closing connection ends at the latest.
    pub(crate) fn set_close_by(&mut self, by: Tick) {
        debug_assert!(self.closing.is_some(), "an open connection has no such time");
        self.mark = by;
    }

    pub(crate) fn count_dropped(&mut self, count: usize) {
        self.dropped = self.dropped.saturating_add(count as u32);
    }

    /// When the client must have completed a message, or its first request.
    fn read_deadline(&self, settings: &Settings) -> Option<Tick> {
        let timeout = match self.encoding {
            None => Some(settings.head_timeout),
            // That a client which has nothing to say is gone shows when it takes nothing.
            Some(encoding) => settings.read_timeout.filter(|_| encoding.is_answered()),
        };
        timeout.filter(|_| !self.paused).map(|timeout| self.last_message.saturating_add(timeout))
    }

    /// When the server shall give a sign of life: when a WebSocket's client has been silent for long, or nothing was
    /// written to an event stream. What waits for a socket that takes nothing is sign enough.
    fn ping_deadline(&self, every: Option<Tick>) -> Option<Tick> {
        let encoding = self.encoding?;
        encoding.keep_alive()?;
        let silent_since = if encoding.is_answered() { self.last_message } else { self.last_write };
        // Clients that came together shall not all be pinged at once.
        let every = every.filter(|_| !self.blocked)?;
        let earlier = (spread(self.id) % u64::from(every / PING_SPREAD + 1)) as Tick;
        Some(silent_since.max(self.last_ping).saturating_add(every - earlier))
    }

    /// Whether bytes have come in that are no message yet.
    pub(crate) fn is_receiving(&self) -> bool {
        self.held.is_some()
    }

    /// When a client that sends more than its rate is read again.
    fn throttle_deadline(&self) -> Option<Tick> {
        Some(self.throttled_until).filter(|until| self.paused && *until != NEVER)
    }

    /// When the client must have taken a byte of what waits for it.
    fn write_deadline(&self, timeout: Option<Tick>) -> Option<Tick> {
        timeout.filter(|_| self.blocked).map(|timeout| self.last_write.saturating_add(timeout))
    }

    /// When a closing connection ends although the client takes nothing, or does not close its side.
    fn close_deadline(&self, patience: Tick) -> Option<Tick> {
        let stalled = if self.blocked { self.last_write.saturating_add(patience) } else { NEVER };
        Some(self.mark.min(stalled)).filter(|deadline| *deadline != NEVER)
    }

    /// In whose words it is written to, and how; `None`: it has not said what it speaks.
    pub(crate) fn wording(&self) -> Option<Wording> {
        self.encoding.map(|encoding| Wording { handler: self.handler, encoding })
    }

    /// How the connection's messages are framed.
    pub(crate) fn framing(&self) -> Framing {
        self.encoding.map_or(Framing::Http, Encoding::framing)
    }

    /// Whether messages that have come in were left for its next turn.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.unfinished)
    }

    /// What there is in its outbox.
    pub(crate) fn load(&self) -> Load {
        self.outbox.as_ref().map(|outbox| outbox.load()).unwrap_or_default()
    }

    pub(crate) fn outbox_is_empty(&self) -> bool {
        self.outbox.as_ref().is_none_or(|outbox| outbox.is_empty())
    }
}

impl Held {
    /// Bytes of memory that they take.
    pub(crate) fn memory(&self) -> usize {
        let assembly = self.assembly.as_ref().map_or(0, |assembly| assembly.memory());
        size_of::<Held>() + self.bytes.capacity() + assembly
    }

    /// Makes room for a message of a known size, though never for more than four times what has come in: a
    /// client must send bytes before it costs memory.
    pub(crate) fn reserve_towards(&mut self, frame_bytes: Option<usize>) {
        const AT_ONCE: usize = 1024;
        let have = self.bytes.len();
        if let Some(frame_bytes) = frame_bytes {
            let most = (4 * have).max(AT_ONCE);
            self.bytes.reserve_exact(frame_bytes.min(most).saturating_sub(have));
        }
    }
}

/// A number that has no pattern in the order of ids (the finishing steps of splitmix64).
pub(crate) fn spread(id: ConnId) -> u64 {
    let mut mixed = id.as_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::table::Table;
    use crate::transport::Plain;

    /// The manual says what a connection costs. What makes this grow makes a million of them grow.
    #[test]
    fn a_row_takes_no_more_than_it_did() {
        assert_eq!(size_of::<Connection<Plain>>(), 88);
        assert_eq!(Table::<Connection<Plain>>::BYTES_PER_ROW, 96);
        // A fresh client is handed over as its socket, and where it came from.
        assert_eq!(size_of::<crate::engine::parcel::Parcel<Plain>>(), 48);
        assert_eq!(size_of::<crate::engine::registry::Record>(), 28);
    }
}
