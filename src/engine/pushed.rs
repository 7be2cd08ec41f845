//! A publish on its way to one shard's connections: its bytes in each wording, and what became of it.

use std::rc::Rc;
use std::time::Instant;

use super::Base;
use super::driver::Driver;
use super::outbox::{Frame, Tally};
use super::publish::answer;
use super::visit::Visit;
use super::wording::{ByWording, Wording};
use crate::config::SlowConsumer;
use crate::event::Event;
use crate::message::{DropReason, Target, Topic};
use crate::protocol::Label;
use crate::publish::Publish;
use crate::receipt::ShardReceipt;

/// A publish, with the policy that holds for it.
pub(crate) struct Message {
    pub(crate) publish: Publish,
    pub(crate) policy: SlowConsumer,
    /// How many it is for, about.
    recipients: usize,
    /// One for each wording, made when the first connection of that wording needs it.
    frames: Option<Box<ByWording<Option<Rendered>>>>,
    /// Connections that it was meant for.
    matched: u64,
    /// Connections whose sockets took it at once.
    direct: u64,
    /// What became of it where it waited.
    tally: Option<Rc<Tally>>,
}

/// What a publish is in one wording.
#[derive(Clone)]
pub(crate) enum Rendered {
    Frame(Rc<Frame>),
    /// The encoding can't carry it.
    Unfit(DropReason),
    /// The handler has nothing to say of it.
    Silent,
}

impl Message {
    pub(crate) fn new(publish: Publish, policy: SlowConsumer, recipients: usize) -> Self {
        Message { publish, policy, recipients, frames: None, matched: 0, direct: 0, tally: None }
    }

    pub(crate) fn topic(&self) -> Option<&Topic> {
        match &self.publish.target {
            Target::Topic(topic) => Some(topic),
            Target::All | Target::Conn(_) => None,
        }
    }

    fn tally(&mut self) -> &Rc<Tally> {
        self.tally.get_or_insert_default()
    }

    /// Connections that it has been written to whole.
    pub(crate) fn written(&self) -> u64 {
        self.direct + self.tally.as_ref().map_or(0, |tally| tally.written())
    }

    /// Whether it has waited in an outbox.
    pub(crate) fn has_waited(&self) -> bool {
        self.tally.is_some()
    }

    /// Counts connections that got it without waiting, of which `whole` sockets took all of it.
    pub(crate) fn count_direct(&mut self, matched: u64, whole: u64) {
        self.matched += matched;
        self.direct += whole;
    }

    /// Notes that the connection that it was for is gone.
    pub(crate) fn note_gone<D: Driver>(&mut self, base: &Base<D>) {
        self.tally().count_dropped(DropReason::NoConnection);
        base.dropped(DropReason::NoConnection, 1);
    }

    /// Queues it for a connection of a wording.
    pub(crate) fn queue_for<D: Driver>(&mut self, visit: &mut Visit<'_, D>, wording: Wording) {
        match self.rendered(visit.base, wording) {
            Rendered::Frame(frame) => visit.push(&frame, self.policy),
            Rendered::Unfit(reason) => return self.push_unfit(visit, reason),
            Rendered::Silent => return,
        }
        self.matched += 1;
    }

    /// Notes for a connection that it can't be carried to it.
    pub(crate) fn push_unfit<D: Driver>(&mut self, visit: &mut Visit<'_, D>, reason: DropReason) {
        self.tally().count_dropped(reason);
        visit.push_unfit(self.topic(), reason);
        self.matched += 1;
    }

    /// The message as connections of `wording` read it.
    pub(crate) fn rendered<D: Driver>(&mut self, base: &mut Base<D>, wording: Wording) -> Rendered {
        if let Some(rendered) = self.frames.as_mut().and_then(|frames| frames.get_mut(wording).clone()) {
            return rendered;
        }
        let mut bytes = Vec::new();
        match self.write(base, wording, &mut bytes) {
            Ok(true) => Rendered::Frame(self.keep(base, wording, bytes)),
            Ok(false) => self.put(wording, Rendered::Silent),
            Err(reason) => self.put(wording, Rendered::Unfit(reason)),
        }
    }

    /// Makes a frame of its bytes in a wording, which all connections of that share. One that is there already is taken.
    pub(crate) fn keep<D: Driver>(&mut self, base: &Base<D>, wording: Wording, bytes: impl Into<Vec<u8>>) -> Rc<Frame> {
        let there = self.frames.as_mut().and_then(|frames| frames.get_mut(wording).clone());
        if let Some(Rendered::Frame(frame)) = there {
            return frame;
        }
        let tally = Rc::clone(self.tally());
        let frame = Frame::new(bytes.into(), self.topic().cloned(), tally, base.holdings.frames());
        self.put(wording, Rendered::Frame(Rc::clone(&frame)));
        frame
    }

    fn put(&mut self, wording: Wording, rendered: Rendered) -> Rendered {
        let frames = self.frames.get_or_insert_default();
        *frames.get_mut(wording) = Some(rendered.clone());
        rendered
    }

    /// Appends the message as connections of `wording` read it; `false`: the handler has nothing to say of it.
    ///
    /// # Errors
    /// Why it can't be sent to them. What was appended counts for nothing.
    pub(crate) fn write<D: Driver>(
        &self,
        base: &mut Base<D>,
        wording: Wording,
        out: &mut Vec<u8>,
    ) -> Result<bool, DropReason> {
        let Publish { payload, kind, .. } = &self.publish;
        let kind = *kind;
        let event = match &self.publish.target {
            Target::All => Event::Broadcast { payload, kind },
            Target::Topic(topic) => Event::Publish { topic, payload, kind },
            Target::Conn(_) => Event::Direct { payload, kind },
        };
        let mut message = std::mem::take(&mut base.scratch);
        message.clear();
        let before = out.len();
        let written = base.render(wording, event, &mut message).and_then(|said| {
            let Some(kind) = said else { return Ok(false) };
            base.metrics.encoded.add(1);
            let label = Label { event: event.name(), id: Some(self.publish.id), kind };
            base.encode(wording.encoding, label, &message, self.recipients, out).map_err(DropReason::from)?;
            if out.len() - before > base.limits.bytes() { Err(DropReason::FrameTooLarge) } else { Ok(true) }
        });
        base.keep_scratch(message);
        written
    }

    /// Counts what became of it, and says so to the publisher, if it asked for a receipt.
    pub(crate) fn settle<D: Driver>(
        &self,
        base: &mut Base<D>,
        first_write: Option<Instant>,
        last_write: Option<Instant>,
    ) {
        let (publish, matched, written) = (&self.publish, self.matched, self.written());
        let dropped = self.tally.as_ref().map(|tally| tally.dropped()).unwrap_or_default();
        base.metrics.publishes.add(1);
        base.metrics.matched.add(matched);
        if let Some(last) = last_write {
            base.metrics.time_to_last.add(last.saturating_duration_since(publish.accepted));
        }
        if let Target::Topic(topic) = &publish.target {
            base.topics.record(topic.as_str(), written, dropped.iter().sum());
        }
        tracing::trace!(id = %publish.id, matched, written, "delivered");
        if let Some(receipt) = &publish.receipt {
            let matched = matched + dropped[DropReason::NoConnection as usize];
            answer(receipt, ShardReceipt { matched, written, dropped, first_write, last_write });
        }
    }
}

impl<D: Driver> Visit<'_, D> {
    /// Queues a publish of before the connection came to this shard, if it is for it.
    pub(crate) fn push_late(&mut self, publish: &Publish) {
        let is_meant = match &publish.target {
            Target::All => true,
            Target::Topic(topic) => self.base.topics.is_subscribed(self.key, topic.as_str()),
            Target::Conn(_) => false,
        };
        if let Some(wording) = self.row.wording().filter(|_| is_meant) {
            let mut message = Message::new(publish.clone(), self.base.policy(publish), 1);
            message.queue_for(self, wording);
            self.base.metrics.matched.add(message.matched);
        }
    }
}
