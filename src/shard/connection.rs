//! One client connection: its row in the table, and the one task that reads and writes it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use glommio::sync::Pass;

use crate::codec::{self, Decoded, Encoding};
use crate::config::{Framing, READS_PER_TURN};
use crate::handler::{Context, Event, Handler};
use crate::message::{CloseReason, ConnId};
use crate::rate::{Micros, Rate};
use crate::shard::Shard;
use crate::shard::core::{Core, Scope};
use crate::shard::outbox::{Outbox, Written};
use crate::shard::table::Key;
use crate::shard::timeouts::{NEVER, Tick};

/// The row of one connection. Idle, it owns no buffer and no queue.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) id: ConnId,
    /// What waits to be written, and gaps to be told; `None` when there is neither.
    pub(crate) outbox: Option<Box<Outbox>>,
    /// Bytes of a message that is not complete, or that could not be taken yet; `None` when there are none.
    held: Option<Box<Held>>,
    /// Wakes the connection's task.
    waker: Option<Waker>,
    /// When it was accepted.
    pub(crate) opened: Tick,
    /// Messages written to it.
    pub(crate) sent: u32,
    /// Messages that it missed.
    pub(crate) dropped: u32,
    /// When the bucket of its message rate will be full again.
    rate: Micros,
    /// While it sends more than its rate: when it is looked at again.
    throttled_until: Tick,
    /// When the last complete message came in.
    last_message: Tick,
    /// When the socket last took a byte, or when it stopped taking any.
    pub(crate) last_write: Tick,
    /// The earliest tick at which the wheel will bring this connection up.
    pub(crate) check_at: Tick,
    /// While closing: when it ends at the latest.
    pub(crate) close_by: Tick,
    /// Set once, when the connection begins to close.
    pub(crate) closing: Option<CloseReason>,
    /// What the connection speaks; `None`: that is not settled yet, and nothing can be sent to it.
    pub(crate) encoding: Option<Encoding>,
    /// The socket took less than it was given, and its task waits for it to become writable.
    pub(crate) blocked: bool,
    /// Waits to be flushed when the batch ends.
    pub(crate) dirty: bool,
    /// The task takes the connection out at once.
    pub(crate) abort: bool,
    /// The sending side is shut; only the client's farewell is waited for.
    pub(crate) shut: bool,
    /// The client has closed its sending side.
    eof: bool,
    /// The server does not read on for now, so silence is not the client's fault.
    paused: bool,
}

/// Bytes that came in and are not used up.
#[derive(Default)]
struct Held {
    bytes: Vec<u8>,
    /// How many of them are known to hold no end of a message.
    scanned: usize,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, id: ConnId, encoding: Option<Encoding>, now: Tick) -> Self {
        Connection {
            stream,
            id,
            outbox: None,
            held: None,
            waker: None,
            opened: now,
            sent: 0,
            dropped: 0,
            rate: 0,
            throttled_until: NEVER,
            last_message: now,
            last_write: now,
            check_at: NEVER,
            close_by: NEVER,
            closing: None,
            encoding,
            blocked: false,
            dirty: false,
            abort: false,
            shut: false,
            eof: false,
            paused: false,
        }
    }

    /// Has the connection's task run. Before its first turn it needs no waking.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn count_written(&mut self, written: Written, now: Tick) {
        self.last_write = now;
        self.sent = self.sent.saturating_add(written.messages as u32);
    }

    pub(crate) fn count_dropped(&mut self, count: usize) {
        self.dropped = self.dropped.saturating_add(count as u32);
    }

    /// When the client must have completed a message.
    pub(crate) fn read_deadline(&self, timeout: Option<Tick>) -> Option<Tick> {
        timeout.filter(|_| !self.paused).map(|timeout| self.last_message.saturating_add(timeout))
    }

    /// When a client that sends more than its rate is read again.
    pub(crate) fn throttle_deadline(&self) -> Option<Tick> {
        Some(self.throttled_until).filter(|until| self.paused && *until != NEVER)
    }

    /// When the client must have taken a byte of what waits for it.
    pub(crate) fn write_deadline(&self, timeout: Option<Tick>) -> Option<Tick> {
        timeout.filter(|_| self.blocked).map(|timeout| self.last_write.saturating_add(timeout))
    }

    /// When a closing connection ends although the client takes nothing, or does not close its side.
    pub(crate) fn close_deadline(&self, patience: Tick) -> Option<Tick> {
        let stalled = if self.blocked { self.last_write.saturating_add(patience) } else { NEVER };
        Some(self.close_by.min(stalled)).filter(|deadline| *deadline != NEVER)
    }

    /// How the connection's messages are framed.
    pub(crate) fn framing(&self) -> Framing {
        self.encoding.map_or(Framing::Line, Encoding::framing)
    }

    fn outbox_is_empty(&self) -> bool {
        self.outbox.as_ref().is_none_or(|outbox| outbox.is_empty())
    }
}

/// What a step of a connection's task leads to.
enum Step {
    /// Go on with the next step.
    Go,
    /// Wait until something wakes the task.
    Wait,
    /// The connection is over.
    Over,
}

/// The task of one connection. It ends when the connection does.
pub(crate) struct ConnectionTask<H> {
    pub(crate) shard: Rc<Shard<H>>,
    pub(crate) key: Key,
    /// The shard ends only when all of its connections have.
    pub(crate) _pass: Pass,
}

impl<H: Handler> Future for ConnectionTask<H> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.shard.catch(|| self.turn(cx)).unwrap_or(Poll::Ready(()))
    }
}

impl<H: Handler> ConnectionTask<H> {
    fn turn(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let core = &mut *self.shard.core.borrow_mut();
        let step = Turn { core, handler: &self.shard.handler, key: self.key }.run(cx);
        if let Step::Over = step {
            let Some(connection) = core.table.get(self.key) else { return Poll::Ready(()) };
            let (id, reason) = (connection.id, connection.closing.unwrap_or(CloseReason::Reset));
            let mut scope = Scope { core, key: self.key, id };
            self.shard.handler.borrow_mut().on_close(&mut Context::new(id, &mut scope), reason);
            core.remove(self.key);
            core.metrics.tasks.sub(1);
        }
        core.flush_dirty();
        match step {
            Step::Over => Poll::Ready(()),
            Step::Go | Step::Wait => Poll::Pending,
        }
    }
}

/// One run of a connection's task.
struct Turn<'a, H> {
    core: &'a mut Core,
    handler: &'a RefCell<H>,
    key: Key,
}

impl<H: Handler> Turn<'_, H> {
    fn connection(&mut self) -> Option<&mut Connection> {
        self.core.table.get_mut(self.key)
    }

    fn run(&mut self, cx: &mut TaskContext<'_>) -> Step {
        let Some(connection) = self.connection() else { return Step::Over };
        if !connection.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            connection.waker = Some(cx.waker().clone());
        }
        if let step @ (Step::Wait | Step::Over) = self.write(cx) {
            return step;
        }
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connection() else { return Step::Over };
            if connection.abort {
                return Step::Over;
            }
            let step = if connection.closing.is_some() { self.finish(cx) } else { self.read(cx) };
            if let Step::Wait | Step::Over = step {
                return step;
            }
        }
        // Others get their turn before this connection goes on.
        cx.waker().wake_by_ref();
        Step::Wait
    }

    /// Writes what the socket did not take before. A connection that is only slow is read on all the same.
    fn write(&mut self, cx: &mut TaskContext<'_>) -> Step {
        while self.connection().is_some_and(|connection| connection.blocked && !connection.abort) {
            let mut buffer = self.core.pool.take_gather();
            let outcome = self.write_some(cx, buffer.as_bytes_mut());
            self.core.pool.give_back_gather(buffer);
            match outcome {
                Poll::Pending => break,
                Poll::Ready(Ok(true)) => {
                    if let Some(connection) = self.connection() {
                        connection.blocked = false;
                    }
                    self.core.flush(self.key);
                }
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(_)) => self.core.abort(self.key, CloseReason::Reset),
            }
        }
        Step::Go
    }

    /// Writes once through the runtime's stream, which has the ring wake this task when the socket is writable.
    /// `Ready(true)`: the socket took all that it was given.
    fn write_some(&mut self, cx: &mut TaskContext<'_>, buffer: &mut [u8]) -> Poll<std::io::Result<bool>> {
        let Some(connection) = self.core.table.get_mut(self.key) else { return Poll::Ready(Ok(true)) };
        let Some(outbox) = &mut connection.outbox else { return Poll::Ready(Ok(true)) };
        let bytes = outbox.gather(buffer);
        if bytes.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let len = bytes.len();
        match Pin::new(&mut connection.stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(sent)) => {
                let written = outbox.advance(sent);
                connection.count_written(written, self.core.wheel.now());
                self.core.count_written(written);
                self.core.report_gaps(self.key);
                Poll::Ready(Ok(sent == len))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// One step of an open connection: one `recv`, and what came in.
    fn read(&mut self, cx: &mut TaskContext<'_>) -> Step {
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
            self.receive(&[]);
            return self.go_unless_paused();
        }
        let mut buffer = self.core.pool.take_read();
        let Some(connection) = self.core.table.get_mut(self.key) else { return Step::Over };
        let outcome = Pin::new(&mut connection.stream).poll_read(cx, buffer.as_bytes_mut());
        let step = match outcome {
            Poll::Pending => Step::Wait,
            Poll::Ready(Ok(0)) => {
                connection.eof = true;
                self.core.close(self.key, CloseReason::ClientClosed);
                Step::Go
            }
            Poll::Ready(Ok(n)) => {
                self.core.metrics.bytes_in.add(n as u64);
                self.receive(&buffer.as_bytes()[..n]);
                self.go_unless_paused()
            }
            Poll::Ready(Err(_)) => {
                self.core.abort(self.key, CloseReason::Reset);
                Step::Over
            }
        };
        self.core.pool.give_back_read(buffer);
        step
    }

    /// Stops reading until the outbox, or the queue of publishes, has room again. What they wait for wakes the task.
    fn pause(&mut self) -> Step {
        if let Some(connection) = self.connection() {
            connection.paused = true;
        }
        Step::Wait
    }

    fn go_unless_paused(&mut self) -> Step {
        if self.connection().is_some_and(|connection| connection.paused) { Step::Wait } else { Step::Go }
    }

    /// Takes the messages out of what is held and of what is fresh, and keeps what is not used up.
    fn receive(&mut self, fresh: &[u8]) {
        let Some(connection) = self.connection() else { return };
        let mut held = connection.held.take();
        let Used { bytes: used, scanned, frame_bytes } = match &mut held {
            Some(held) => {
                held.bytes.extend_from_slice(fresh);
                self.take_messages(&held.bytes, held.scanned)
            }
            None => self.take_messages(fresh, 0),
        };
        let Some(connection) = self.core.table.get_mut(self.key) else { return };
        let total = held.as_ref().map_or(fresh.len(), |held| held.bytes.len());
        if used == total || connection.closing.is_some() {
            return;
        }
        connection.held = Some(match held {
            Some(mut held) if used == 0 => {
                held.scanned = scanned;
                held.reserve_towards(frame_bytes);
                held
            }
            held => {
                let rest = match &held {
                    Some(held) => &held.bytes[used..],
                    None => &fresh[used..],
                };
                let mut held = Box::new(Held { bytes: rest.to_vec(), scanned });
                held.reserve_towards(frame_bytes);
                held
            }
        });
    }

    /// Hands the whole messages in `bytes` to the handler, of which `scanned` are known to hold no end of one.
    fn take_messages(&mut self, bytes: &[u8], scanned: usize) -> Used {
        let settings = self.core.settings;
        let mut used = Used { bytes: 0, scanned, frame_bytes: None };
        while used.bytes < bytes.len() {
            if !self.core.has_reply_room(self.key, settings.reply_bytes_max) || self.core.wait_if_congested(self.key) {
                self.pause();
                break;
            }
            if self.core.settings.message_rate.is_some_and(|rate| self.throttle(rate)) {
                break;
            }
            let now = self.core.wheel.now();
            let Some(connection) = self.connection().filter(|connection| connection.closing.is_none()) else { break };
            let Some(encoding) = connection.encoding else { break };
            let id = connection.id;
            match codec::decode(encoding, &bytes[used.bytes..], used.scanned, settings.message_max) {
                Ok(Decoded::Message { range, consumed }) => {
                    connection.last_message = now;
                    let message = &bytes[used.bytes..][range];
                    used.bytes += consumed;
                    used.scanned = 0;
                    if let Some(rate) = settings.message_rate {
                        let now = self.core.micros();
                        if let Some(connection) = self.connection() {
                            connection.rate = rate.taken(connection.rate, now);
                        }
                    }
                    self.core.metrics.messages_in.add(1);
                    let mut scope = Scope { core: self.core, key: self.key, id };
                    self.handler.borrow_mut().on_message(&mut Context::new(id, &mut scope), message);
                }
                Ok(Decoded::Incomplete { frame_bytes }) => {
                    used.scanned = bytes.len() - used.bytes;
                    used.frame_bytes = frame_bytes;
                    break;
                }
                Err(error) => {
                    let text = format!("{error}; the connection is closed");
                    self.core.notice(self.key, Event::Error { code: "message-too-large", text: &text });
                    self.core.close(self.key, CloseReason::MessageTooLarge);
                }
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

    /// One step of a closing connection: write what waits, shut the sending side, wait for the client to close
    /// its own.
    fn finish(&mut self, cx: &mut TaskContext<'_>) -> Step {
        self.core.flush(self.key);
        let Some(connection) = self.connection() else { return Step::Over };
        connection.held = None;
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
        let Some(connection) = self.core.table.get_mut(self.key) else { return Step::Over };
        let step = match Pin::new(&mut connection.stream).poll_read(cx, buffer.as_bytes_mut()) {
            Poll::Pending => Step::Wait,
            Poll::Ready(Ok(0) | Err(_)) => Step::Over,
            Poll::Ready(Ok(_)) => Step::Go,
        };
        self.core.pool.give_back_read(buffer);
        step
    }
}

/// How much of what came in is used up.
struct Used {
    bytes: usize,
    /// How much of the rest is known to hold no end of a message.
    scanned: usize,
    /// Bytes that the message at the rest's beginning will take, if that is known.
    frame_bytes: Option<usize>,
}

impl Held {
    /// Makes room for a message of a known size, though never for more than four times what has come in: a
    /// client must send bytes before it costs memory.
    fn reserve_towards(&mut self, frame_bytes: Option<usize>) {
        const AT_ONCE: usize = 1024;
        let have = self.bytes.len();
        if let Some(frame_bytes) = frame_bytes {
            let most = (4 * have).max(AT_ONCE);
            self.bytes.reserve_exact(frame_bytes.min(most).saturating_sub(have));
        }
    }
}
