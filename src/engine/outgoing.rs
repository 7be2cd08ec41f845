//! From a message to the socket: into a connection's outbox, under the slow-consumer policy, and out of it.

use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use super::Base;
use super::connection::Marks;
use super::driver::Driver;
use super::memory::Holdings;
use super::outbox::{Frame, Gap, Load, Offer, Outbox, Unsent, Written};
use super::visit::Visit;
use super::wording::Wording;
#[cfg(feature = "web")]
use crate::config::DEFLATE_MANY;
use crate::config::{FANOUT_SLICE, GATHER_BUFFER_BYTES, SlowConsumer};
use crate::event::Event;
use crate::handler::SendError;
use crate::message::{CloseReason, DropReason, Kind, Topic};
use crate::metrics::ShardMetrics;
#[cfg(feature = "web")]
use crate::protocol::deflate::Effort;
use crate::protocol::{self, EncodeError, Encoding, Label};
use crate::transport::{Broken, Transport};

impl<D: Driver> Visit<'_, D> {
    /// Offers a pushed message, under the slow-consumer policy.
    pub(crate) fn push(&mut self, frame: &Rc<Frame>, policy: SlowConsumer) {
        let mut flushed = false;
        loop {
            if self.row.closing.is_some() {
                frame.tally().count_dropped(DropReason::Closed);
                return self.base.dropped(DropReason::Closed, 1);
            }
            let blocked = self.row.blocked || flushed;
            let limits = self.base.limits;
            match self.with_outbox(|outbox| outbox.offer(frame, policy, &limits, blocked)) {
                Offer::Queued { removed, reason } => {
                    self.row.count_dropped(removed);
                    self.base.dropped(reason, removed);
                    return self.mark_dirty();
                }
                Offer::Full => {
                    self.flush();
                    flushed = true;
                }
                Offer::Dropped { removed, reason } => {
                    self.row.count_dropped(removed + 1);
                    self.base.dropped(reason, removed);
                    return self.base.dropped(DropReason::QueueFull, 1);
                }
                Offer::Disconnect => {
                    self.close(CloseReason::SlowConsumer);
                    return self.base.dropped(DropReason::QueueFull, 1);
                }
            }
        }
    }

    /// Queues the rest of a pushed message of which the socket took `written` bytes; nothing else waits.
    pub(crate) fn push_begun(&mut self, frame: &Rc<Frame>, written: usize) {
        self.with_outbox(|outbox| outbox.push_begun(frame, written));
    }

    /// Notes that a pushed message can't be carried to the connection at all.
    pub(crate) fn push_unfit(&mut self, topic: Option<&Topic>, reason: DropReason) {
        self.with_outbox(|outbox| outbox.note_gap(topic, reason));
        self.row.count_dropped(1);
        self.mark_dirty();
        self.base.dropped(reason, 1);
    }

    /// Queues a reply; [`Context::send`](crate::handler::Context::send) says how it behaves.
    pub(crate) fn reply(&mut self, kind: Kind, message: &[u8]) -> Result<(), SendError> {
        let is_open = self.row.closing.is_none();
        let is_open = is_open && !self.row.marks.has(Marks::OPENING);
        let encoding = self.row.encoding.filter(|_| is_open).ok_or(SendError::NotOpen)?;
        let max = self.base.limits.bytes();
        if message.len() > max {
            return Err(SendError::TooLarge { len: message.len(), max });
        }
        let mut bytes = std::mem::take(&mut self.base.framed);
        bytes.clear();
        let queued = self.reply_by_way_of(encoding, kind, message, &mut bytes);
        if bytes.capacity() <= GATHER_BUFFER_BYTES {
            self.base.framed = bytes;
        }
        queued
    }

    /// Does so by way of a buffer in which the reply is framed.
    fn reply_by_way_of(
        &mut self,
        encoding: Encoding,
        kind: Kind,
        message: &[u8],
        bytes: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let max = self.base.limits.bytes();
        let label = Label { kind, ..Label::default() };
        let encoded = self.base.encode(encoding, label, message, 1, bytes);
        encoded.map_err(|error| match error {
            EncodeError::LineFeed => SendError::LineFeed,
            EncodeError::CarriageReturn => SendError::CarriageReturn,
            EncodeError::NotUtf8 => SendError::NotUtf8,
        })?;
        // Server-sent events say a word before each line, so a message of short ones grows to a multiple.
        if bytes.len() > max {
            return Err(SendError::TooLarge { len: bytes.len(), max });
        }
        if !self.has_reply_room(bytes.len()) {
            self.row.marks.set(Marks::WANTS_ROOM);
            return Err(SendError::QueueFull);
        }
        self.push_reply(bytes);
        Ok(())
    }

    /// Whether a reply of `len` bytes has room. A full outbox is flushed on the spot first.
    pub(crate) fn has_reply_room(&mut self, len: usize) -> bool {
        let has_room = |visit: &Self| {
            let outbox = visit.row.outbox.as_ref();
            outbox.is_none_or(|outbox| outbox.has_reply_room(len, &visit.base.limits))
        };
        has_room(self) || {
            self.flush();
            has_room(self)
        }
    }

    /// Queues what the server itself has to tell a client: an error, a gap, its farewell. There are few of them,
    /// each bounded, so they don't wait for room. A connection that has not said what it speaks is told nothing.
    pub(crate) fn notice(&mut self, event: Event<'_>) {
        if let Some(encoding) = self.row.encoding {
            self.notice_in(encoding, event);
        }
    }

    /// Does so in an encoding that may be another than the connection's.
    pub(crate) fn notice_in(&mut self, encoding: Encoding, event: Event<'_>) {
        let mut bytes = Vec::new();
        let wording = Wording { handler: self.row.handler, encoding };
        if self.base.put_into_words(wording, event, &mut bytes) {
            self.push_reply(&bytes);
        }
    }

    /// Queues bytes of the server's own that are in the connection's encoding already.
    pub(crate) fn push_reply(&mut self, bytes: &[u8]) {
        self.with_outbox(|outbox| outbox.push_reply(bytes));
        self.mark_dirty();
    }

    /// Does something with the outbox, and follows what there is in it.
    fn with_outbox<T>(&mut self, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let before = self.row.load();
        let outbox = self.row.outbox_or(&mut self.base.spare);
        let changed = change(outbox);
        follow(&self.base.metrics, &mut self.base.holdings, before, outbox.load());
        changed
    }

    pub(crate) fn mark_dirty(&mut self) {
        if !std::mem::replace(&mut self.row.dirty, true) {
            self.base.dirty.push(self.key);
        }
    }

    // ---- Out of the outbox ----

    /// Writes the outbox until it is empty or the socket takes no more.
    pub(crate) fn flush(&mut self) {
        self.row.dirty = false;
        if self.row.blocked || self.row.abort {
            return;
        }
        match self.write_out() {
            Ok(true) => self.release_outbox(),
            Ok(false) => self.blocked(),
            Err(Broken) => self.abort(CloseReason::Reset),
        }
    }

    /// Writes on to a socket that was blocked and has room again.
    pub(crate) fn resume(&mut self) {
        match self.write_out() {
            Ok(true) => {
                self.row.blocked = false;
                self.release_outbox();
            }
            // It stays blocked; since when it has taken nothing, `write_out` has noted.
            Ok(false) => {
                self.report_gaps();
            }
            Err(Broken) => self.abort(CloseReason::Reset),
        }
    }

    /// `Ok(true)`: all is written. `Ok(false)`: the socket takes no more for now.
    fn write_out(&mut self) -> Result<bool, Broken> {
        if self.row.outbox.is_none() {
            return Ok(true);
        }
        let mut buffer = self.base.driver.gather_buffer();
        let outcome = self.write_through(&mut buffer);
        self.base.driver.return_gather_buffer(buffer);
        outcome
    }

    /// Does so by way of a buffer in which small frames are gathered.
    fn write_through(&mut self, buffer: &mut [u8]) -> Result<bool, Broken> {
        loop {
            let Visit { key, row, base } = self;
            let Some(outbox) = &mut row.outbox else { return Ok(true) };
            if outbox.is_empty() {
                if !self.report_gaps() {
                    return Ok(true);
                }
                continue;
            }
            let bytes = outbox.gather(buffer);
            let len = bytes.len();
            base.metrics.sends.add(1);
            let taken = row.socket.send(bytes)?;
            let before = outbox.load();
            let written = outbox.advance(taken);
            follow(&base.metrics, &mut base.holdings, before, outbox.load());
            row.count_written(written, base.wheel.now());
            base.proofs.await_one(*key, row, base.wheel.now());
            base.count_sent(written);
            if taken < len {
                return Ok(false);
            }
        }
    }

    /// Queues a notice for each gap that has room now; whether there was one.
    fn report_gaps(&mut self) -> bool {
        let mut reported = false;
        while let Some(gap) = self.row.outbox.as_mut().and_then(|outbox| outbox.take_gap(&self.base.limits)) {
            self.report_gap(&gap);
            reported = true;
        }
        reported
    }

    /// Queues a notice for every gap there is, before the farewell.
    pub(crate) fn report_last_gaps(&mut self) {
        while let Some(gap) = self.row.outbox.as_mut().and_then(|outbox| outbox.take_last_gap()) {
            self.report_gap(&gap);
        }
    }

    fn report_gap(&mut self, gap: &Gap) {
        self.notice(Event::Gap { topic: gap.topic.as_ref(), count: gap.count, reason: gap.reason });
    }

    /// The socket took less than it was given: from here on its room is waited for.
    pub(crate) fn blocked(&mut self) {
        self.row.blocked = true;
        self.row.last_write = self.base.wheel.now();
        self.base.metrics.sends_blocked.add(1);
        self.schedule();
        self.wake();
    }

    /// An outbox that has emptied gives its memory back.
    fn release_outbox(&mut self) {
        if let Some(outbox) = self.row.outbox.take_if(|outbox| outbox.is_idle()) {
            self.base.holdings.change(outbox.load().memory, 0);
            self.base.keep_spare(outbox);
        }
    }
}

impl<D: Driver> Base<D> {
    /// Appends what a handler says of an event, as connections of a wording read it; whether it says something that can be
    /// framed.
    pub(crate) fn put_into_words(&mut self, wording: Wording, event: Event<'_>, out: &mut Vec<u8>) -> bool {
        let mut message = std::mem::take(&mut self.scratch);
        message.clear();
        let mut is_framed = false;
        if let Ok(Some(kind)) = self.render(wording, event, &mut message) {
            let label = Label { event: event.name(), id: None, kind };
            is_framed = protocol::encode(wording.encoding, label, &message, out).is_ok();
        }
        self.keep_scratch(message);
        is_framed
    }

    /// Appends a message as connections of an encoding read it: compressed, where they read that and it is worth it for so
    /// many of them.
    #[cfg_attr(not(feature = "web"), expect(unused_variables, reason = "nothing is compressed"))]
    pub(crate) fn encode(
        &mut self,
        encoding: Encoding,
        label: Label,
        message: &[u8],
        recipients: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        #[cfg(feature = "web")]
        if let Some(window) = encoding.window()
            && let Some(effort) = self.effort(message.len(), recipients)
            && let Some(deflated) = self.deflater.deflate(window, effort, message)
        {
            self.metrics.deflated.add(1);
            self.metrics.deflated_from.add(message.len() as u64);
            self.metrics.deflated_to.add(deflated.len() as u64);
            protocol::encode_deflated(label, message, deflated, out);
            return Ok(());
        }
        protocol::encode(encoding, label, message, out)
    }

    /// How hard a message of so many bytes is compressed for so many; `None`: it is left alone.
    #[cfg(feature = "web")]
    fn effort(&self, bytes: usize, recipients: usize) -> Option<Effort> {
        let (least, effort) = match recipients {
            0..=1 => (self.settings.deflate_single_bytes_min, Effort::Few),
            2..DEFLATE_MANY => (self.settings.deflate_bytes_min, Effort::Few),
            DEFLATE_MANY.. => (self.settings.deflate_bytes_min, Effort::Many),
        };
        (bytes >= least).then_some(effort)
    }

    /// Takes back what messages are rendered in.
    pub(crate) fn keep_scratch(&mut self, scratch: Vec<u8>) {
        if scratch.capacity() <= GATHER_BUFFER_BYTES {
            self.scratch = scratch;
        }
    }

    /// What a handler says of an event; `None`: nothing. An error: it panicked.
    pub(crate) fn render(
        &mut self,
        wording: Wording,
        event: Event<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Kind>, DropReason> {
        let render = self.renders[usize::from(wording.handler)];
        let rendered = panic::catch_unwind(AssertUnwindSafe(|| render(event, wording.encoding.dialect(), out)));
        rendered.map_err(|panic| {
            self.panics.note(panic, self.driver.now());
            DropReason::HandlerPanic
        })
    }

    pub(crate) fn dropped(&self, reason: DropReason, count: usize) {
        if count > 0 {
            self.metrics.dropped[reason as usize].add(count as u64);
        }
    }

    /// Counts what was written, from wherever.
    pub(crate) fn count_sent(&self, written: Written) {
        self.metrics.messages_out.add(written.messages as u64);
        self.metrics.delivered.add(written.pushes as u64);
        self.metrics.bytes_out.add(written.bytes as u64);
    }

    /// Counts as dropped what waits in an outbox whose connection goes.
    pub(crate) fn discard(&mut self, mut outbox: Box<Outbox>) {
        follow(&self.metrics, &mut self.holdings, outbox.load(), Load::default());
        self.metrics.dropped[DropReason::Closed as usize].add(outbox.abandon() as u64);
        self.keep_spare(outbox);
    }

    /// Takes out what waits in an outbox whose connection moves to another shard.
    pub(crate) fn detach(&mut self, mut outbox: Box<Outbox>) -> Unsent {
        follow(&self.metrics, &mut self.holdings, outbox.load(), Load::default());
        let unsent = outbox.detach();
        self.keep_spare(outbox);
        unsent
    }

    /// An outbox with what waits for a connection that comes from another shard; `None`: nothing does.
    pub(crate) fn attach(&mut self, unsent: Unsent) -> Option<Box<Outbox>> {
        if unsent.is_empty() {
            return None;
        }
        let mut outbox = self.spare.pop().unwrap_or_default();
        outbox.attach(unsent, self.holdings.frames());
        follow(&self.metrics, &mut self.holdings, Load::default(), outbox.load());
        Some(outbox)
    }

    fn keep_spare(&mut self, mut outbox: Box<Outbox>) {
        if self.spare.len() < FANOUT_SLICE {
            outbox.clear();
            self.spare.push(outbox);
        }
    }
}

/// Follows what there is in an outbox, in the gauges and in what the shard holds.
fn follow(metrics: &ShardMetrics, holdings: &mut Holdings, before: Load, after: Load) {
    metrics.queued_messages.add((after.messages as u64).wrapping_sub(before.messages as u64));
    metrics.queued_bytes.add((after.bytes as u64).wrapping_sub(before.bytes as u64));
    holdings.change(before.memory, after.memory);
}
