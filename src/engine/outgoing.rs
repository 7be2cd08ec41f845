//! From a message to the socket: into a connection's outbox, under the slow-consumer policy, and out of it.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::config::{FANOUT_SLICE, FRAME_OVERHEAD_BYTES_MAX, SlowConsumer};
use crate::engine::Engine;
use crate::engine::memory::Holdings;
use crate::engine::outbox::{Frame, Gap, Load, Offer, Outbox, Written};
use crate::engine::table::Key;
use crate::handler::{Event, SendError};
use crate::message::{CloseReason, DropReason, Kind, Topic};
use crate::metrics::ShardMetrics;
use crate::protocol::{self, EncodeError, Encoding, Label};

impl Engine {
    /// Offers a pushed message to a connection, under the slow-consumer policy.
    pub(crate) fn push(&mut self, key: Key, frame: &Rc<Frame>, policy: SlowConsumer) {
        let mut flushed = false;
        loop {
            let Some(connection) = self.table.get_mut(key).filter(|connection| connection.closing.is_none()) else {
                frame.tally().count_dropped(DropReason::Closed);
                return self.dropped(DropReason::Closed, 1);
            };
            let blocked = connection.blocked || flushed;
            let before = connection.load();
            let outbox = connection.outbox_or(&mut self.spare);
            let offer = outbox.offer(frame, policy, &self.limits, blocked);
            follow(&self.metrics, &mut self.holdings, before, outbox.load());
            match offer {
                Offer::Queued { removed, reason } => {
                    connection.count_dropped(removed);
                    self.dropped(reason, removed);
                    self.mark_dirty(key);
                    return;
                }
                Offer::Full => {
                    self.flush(key);
                    flushed = true;
                }
                Offer::Dropped { removed, reason } => {
                    connection.count_dropped(removed + 1);
                    self.dropped(reason, removed);
                    return self.dropped(DropReason::QueueFull, 1);
                }
                Offer::Disconnect => {
                    self.close(key, CloseReason::SlowConsumer);
                    return self.dropped(DropReason::QueueFull, 1);
                }
            }
        }
    }

    /// Queues the rest of a pushed message of which the socket took `written` bytes; nothing else waits.
    pub(crate) fn push_begun(&mut self, key: Key, frame: &Rc<Frame>, written: usize) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let before = connection.load();
        let outbox = connection.outbox_or(&mut self.spare);
        outbox.push_begun(frame, written);
        follow(&self.metrics, &mut self.holdings, before, outbox.load());
    }

    /// Notes that a pushed message can't be carried to a connection at all.
    pub(crate) fn push_unfit(&mut self, key: Key, topic: Option<&Topic>, reason: DropReason) {
        if let Some(connection) = self.table.get_mut(key) {
            let before = connection.load();
            let outbox = connection.outbox_or(&mut self.spare);
            outbox.note_gap(topic, reason);
            follow(&self.metrics, &mut self.holdings, before, outbox.load());
            connection.count_dropped(1);
            self.mark_dirty(key);
        }
        self.dropped(reason, 1);
    }

    /// Queues a reply; [`Context::send`](crate::handler::Context::send) says how it behaves.
    pub(crate) fn reply(&mut self, key: Key, kind: Kind, message: &[u8]) -> Result<(), SendError> {
        let connection = self.table.get(key).filter(|connection| connection.closing.is_none());
        let encoding = connection.and_then(|connection| connection.encoding).ok_or(SendError::Closed)?;
        if message.len() + FRAME_OVERHEAD_BYTES_MAX > self.limits.bytes() {
            return Err(SendError::TooLarge { len: message.len(), max: self.limits.bytes() });
        }
        if !self.has_reply_room(key, message.len() + FRAME_OVERHEAD_BYTES_MAX) {
            return Err(SendError::QueueFull);
        }
        let mut bytes = Vec::new();
        let label = Label { kind, ..Label::default() };
        protocol::encode(encoding, label, message, &mut bytes).map_err(|error| match error {
            EncodeError::LineFeed => SendError::LineFeed,
            EncodeError::CarriageReturn => SendError::CarriageReturn,
            EncodeError::NotUtf8 => SendError::NotUtf8,
        })?;
        self.push_reply(key, bytes);
        Ok(())
    }

    /// Whether a reply of `len` bytes has room. A full outbox is flushed on the spot first.
    pub(crate) fn has_reply_room(&mut self, key: Key, len: usize) -> bool {
        for flushed in [false, true] {
            let Some(connection) = self.table.get(key) else { return false };
            if connection.outbox.as_ref().is_none_or(|outbox| outbox.has_reply_room(len, &self.limits)) {
                return true;
            }
            if !flushed {
                self.flush(key);
            }
        }
        false
    }

    /// Queues what the server itself has to tell a client: an error, a gap, its farewell. There are few of them,
    /// each bounded, so they don't wait for room.
    pub(crate) fn notice(&mut self, key: Key, event: Event<'_>) {
        let Some(encoding) = self.table.get(key).and_then(|connection| connection.encoding) else { return };
        self.notice_in(encoding, key, event);
    }

    /// Does so in the words of an encoding that may be another than the connection's.
    pub(crate) fn notice_in(&mut self, encoding: Encoding, key: Key, event: Event<'_>) {
        let mut bytes = Vec::new();
        if self.put_into_words(encoding, event, &mut bytes) {
            self.push_reply(key, bytes);
        }
    }

    /// Appends what the handler says of an event, as connections of an encoding read it; whether it says something that
    /// can be framed.
    pub(crate) fn put_into_words(&mut self, encoding: Encoding, event: Event<'_>, out: &mut Vec<u8>) -> bool {
        self.scratch.clear();
        let Some(kind) = (self.render)(event, encoding.dialect(), &mut self.scratch) else { return false };
        let label = Label { event: event.name(), id: None, kind };
        protocol::encode(encoding, label, &self.scratch, out).is_ok()
    }

    /// Queues bytes of the server's own that are in the connection's encoding already.
    pub(crate) fn push_reply(&mut self, key: Key, bytes: Vec<u8>) {
        let Some(connection) = self.table.get_mut(key) else { return };
        let before = connection.load();
        let outbox = connection.outbox_or(&mut self.spare);
        outbox.push_reply(bytes);
        follow(&self.metrics, &mut self.holdings, before, outbox.load());
        self.mark_dirty(key);
    }

    pub(crate) fn mark_dirty(&mut self, key: Key) {
        if let Some(connection) = self.table.get_mut(key)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    pub(crate) fn dropped(&self, reason: DropReason, count: usize) {
        if count > 0 {
            self.metrics.dropped[reason as usize].add(count as u64);
        }
    }

    // ---- Out of the outbox ----

    /// How many connections wait to be flushed.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Writes what has been queued since the last flush: each connection once.
    pub(crate) fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            self.flush(key);
        }
        // Flushing marks nothing dirty, so the list's memory can be kept.
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Writes a connection's outbox until it is empty or the socket takes no more.
    pub(crate) fn flush(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.dirty = false;
        if connection.blocked || connection.abort {
            return;
        }
        match self.write_out(key) {
            Ok(true) => self.release_outbox(key),
            Ok(false) => self.blocked(key),
            Err(_) => self.abort(key, CloseReason::Reset),
        }
    }

    /// `Ok(true)`: all is written. `Ok(false)`: the socket takes no more for now.
    fn write_out(&mut self, key: Key) -> Result<bool, Errno> {
        let mut buffer = self.pool.take_gather();
        let outcome = self.write_through(key, buffer.as_bytes_mut());
        self.pool.give_back_gather(buffer);
        outcome
    }

    /// Does so by way of a buffer in which small frames are gathered.
    fn write_through(&mut self, key: Key, buffer: &mut [u8]) -> Result<bool, Errno> {
        loop {
            let Some(connection) = self.table.get_mut(key) else { return Ok(true) };
            let Some(outbox) = &mut connection.outbox else { return Ok(true) };
            if outbox.is_empty() {
                if !self.report_gaps(key) {
                    return Ok(true);
                }
                continue;
            }
            let bytes = outbox.gather(buffer);
            let len = bytes.len();
            let taken = send(&self.metrics, connection.socket.as_fd(), bytes)?;
            let before = outbox.load();
            let written = outbox.advance(taken);
            follow(&self.metrics, &mut self.holdings, before, outbox.load());
            connection.count_written(written, self.wheel.now());
            self.proofs.await_one(key, connection, self.wheel.now());
            self.count_sent(written);
            if taken < len {
                return Ok(false);
            }
        }
    }

    /// Counts what was written, from wherever.
    pub(crate) fn count_sent(&self, written: Written) {
        self.metrics.messages_out.add(written.messages as u64);
        self.metrics.delivered.add(written.pushes as u64);
        self.metrics.bytes_out.add(written.bytes as u64);
    }

    /// Queues a notice for each gap that has room now; whether there was one.
    pub(crate) fn report_gaps(&mut self, key: Key) -> bool {
        let mut reported = false;
        while let Some(connection) = self.table.get_mut(key)
            && let Some(outbox) = &mut connection.outbox
            && let Some(gap) = outbox.take_gap(&self.limits)
        {
            self.report_gap(key, &gap);
            reported = true;
        }
        reported
    }

    /// Queues a notice for every gap there is, before the farewell.
    pub(crate) fn report_last_gaps(&mut self, key: Key) {
        while let Some(connection) = self.table.get_mut(key)
            && let Some(outbox) = &mut connection.outbox
            && let Some(gap) = outbox.take_last_gap()
        {
            self.report_gap(key, &gap);
        }
    }

    fn report_gap(&mut self, key: Key, gap: &Gap) {
        let event = Event::Gap { topic: gap.topic.as_ref(), count: gap.count, reason: gap.reason };
        self.notice(key, event);
    }

    /// Writes on to a socket that was blocked and has room again.
    pub(crate) fn resume(&mut self, key: Key) {
        match self.write_out(key) {
            Ok(true) => {
                if let Some(connection) = self.table.get_mut(key) {
                    connection.blocked = false;
                }
                self.release_outbox(key);
            }
            // It stays blocked; since when it has taken nothing, `write_out` has noted.
            Ok(false) => {
                self.report_gaps(key);
            }
            Err(_) => self.abort(key, CloseReason::Reset),
        }
    }

    /// The socket took less than it was given: from here on its room is waited for.
    pub(crate) fn blocked(&mut self, key: Key) {
        let now = self.wheel.now();
        if let Some(connection) = self.table.get_mut(key) {
            connection.blocked = true;
            connection.last_write = now;
            self.metrics.sends_blocked.add(1);
            self.schedule(key);
            self.wake(key);
        }
    }

    /// An outbox that has emptied gives its memory back.
    pub(crate) fn release_outbox(&mut self, key: Key) {
        if let Some(connection) = self.table.get_mut(key)
            && connection.outbox.as_ref().is_some_and(|outbox| outbox.is_idle())
            && let Some(outbox) = connection.outbox.take()
        {
            self.holdings.change(outbox.load().memory, 0);
            self.keep_spare(outbox);
        }
    }

    /// Counts as dropped what waits in an outbox whose connection goes.
    pub(crate) fn discard(&mut self, mut outbox: Box<Outbox>) {
        follow(&self.metrics, &mut self.holdings, outbox.load(), Load::default());
        self.metrics.dropped[DropReason::Closed as usize].add(outbox.abandon() as u64);
        self.keep_spare(outbox);
    }

    pub(crate) fn keep_spare(&mut self, mut outbox: Box<Outbox>) {
        if self.spare.len() < FANOUT_SLICE {
            outbox.clear();
            self.spare.push(outbox);
        }
    }
}

/// Gives bytes to a socket and says how many it took: none, if it has no room. It never waits.
pub(crate) fn send(metrics: &ShardMetrics, socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        metrics.sends.add(1);
        match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            outcome => return outcome,
        }
    }
}

/// Follows what there is in an outbox, in the gauges and in what the shard holds.
fn follow(metrics: &ShardMetrics, holdings: &mut Holdings, before: Load, after: Load) {
    metrics.queued_messages.add((after.messages as u64).wrapping_sub(before.messages as u64));
    metrics.queued_bytes.add((after.bytes as u64).wrapping_sub(before.bytes as u64));
    holdings.change(before.memory, after.memory);
}
