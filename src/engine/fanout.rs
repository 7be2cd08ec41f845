//! Delivery: from a shard's queue of publishes to its connections, through their outboxes or straight to their sockets.
//!
//! A batch of publishes is delivered together. Publishes that follow each other to the same recipients go
//! recipient by recipient, so that each socket is written once for all of them. The work is cut into steps, with
//! a chance for other tasks between them; per connection, order is the order of the queue.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use super::direct::Joined;
use super::driver::{Bell, Driver};
use super::outbox::{Frame, Tally};
use super::publish::answer;
use super::publish_queue::{Delivery, Job, Recipients};
use super::table::Key;
use super::visit::Visit;
use super::wording::{ByWording, Wording};
use super::{Base, Engine};
use crate::config::{FANOUT_SLICE, PUBLISH_BATCH, SlowConsumer};
use crate::event::Event;
use crate::message::{DropReason, Target, Topic};
use crate::protocol::Label;
use crate::publish::Publish;
use crate::receipt::ShardReceipt;

/// Publishes with the same recipients, delivered together.
struct Run {
    recipients: Recipients,
    messages: Vec<Message>,
    /// When a frame of the run was first, and last, written whole; taken after each slice.
    first_write: Option<Instant>,
    last_write: Option<Instant>,
    written: u64,
    /// By wording, once a connection needs it: all messages in one piece; `None`: they can't be written so.
    joined: ByWording<Option<Option<Joined>>>,
    /// Connections that were written directly, and those that took all, which the messages have not been told of yet.
    direct: u64,
    direct_whole: u64,
}

/// One publish with its frames: one for each wording, made when the first connection of that wording needs it.
struct Message {
    publish: Publish,
    policy: SlowConsumer,
    /// How many it is for, about.
    recipients: usize,
    frames: ByWording<Option<Rendered>>,
    matched: u64,
    tally: Rc<Tally>,
}

/// What a publish is in one encoding.
#[derive(Clone)]
enum Rendered {
    Frame(Rc<Frame>),
    /// The encoding can't carry it.
    Unfit(DropReason),
    /// The handler has nothing to say of it.
    Silent,
}

/// The delivery of one batch after the other.
#[derive(Default)]
pub(crate) struct Fanout {
    /// What is left of the batch.
    jobs: VecDeque<Job>,
    /// How many jobs it had.
    count: usize,
    began: Option<Instant>,
    /// Who gets the next slice, while it is delivered.
    keys: Vec<Key>,
    /// The run that is being delivered, and where it goes on.
    current: Option<Progress>,
    /// Runs that wait for the end of the batch.
    runs: Vec<Run>,
}

/// How far a run is.
struct Progress {
    run: Run,
    /// The next place among its recipients.
    at: usize,
    /// Whether it goes straight to the sockets of those for whom nothing waits.
    direct: bool,
}

impl Fanout {
    /// Whether it has no batch in hand.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && self.jobs.is_empty() && self.runs.is_empty()
    }

    /// One step of the delivery: a slice of the recipients, or the end of a batch. Whether there is more to do.
    pub(crate) fn step<D: Driver>(&mut self, engine: &mut Engine<D>) -> bool {
        if self.is_idle() {
            engine.base.publishes.take(PUBLISH_BATCH, &mut self.jobs);
            if engine.base.publishes.has_room() {
                engine.base.driver.ring(Bell::Room);
            }
            if self.jobs.is_empty() {
                return false;
            }
            self.count = self.jobs.len();
            self.began = Some(engine.base.driver.now());
        }
        match self.current.take().or_else(|| self.next_run(engine)) {
            Some(progress) => self.go_on(engine, progress),
            None => self.end_batch(engine),
        }
        true
    }

    /// Does what comes before the next run, and begins that.
    fn next_run<D: Driver>(&mut self, engine: &mut Engine<D>) -> Option<Progress> {
        loop {
            let delivery = match self.jobs.pop_front()? {
                Job::Deliver(delivery) => delivery,
                Job::Close { key, reason } => {
                    engine.close(key, reason);
                    continue;
                }
                Job::Move { key, to, seen } => {
                    engine.send_off(key, to, seen);
                    continue;
                }
            };
            let mut run = Run::new(delivery);
            while self.jobs.front().is_some_and(|next| run.takes(next))
                && let Some(Job::Deliver(next)) = self.jobs.pop_front()
            {
                run.messages.push(Message::new(next.publish, next.policy, next.recipients.slots()));
            }
            // A small run is written with what follows it, each socket once for all. A large one is not kept waiting.
            let direct = self.jobs.is_empty() || run.recipients.slots() >= FANOUT_SLICE;
            return Some(Progress { run, at: 0, direct });
        }
    }

    /// Delivers a run to the next slice of its recipients. What the last slices left unwritten is written at the end of the
    /// batch, where more may have joined it.
    fn go_on<D: Driver>(&mut self, engine: &mut Engine<D>, mut progress: Progress) {
        let Progress { run, at, direct } = &mut progress;
        let slots = run.recipients.slots();
        let to = slots.min(*at + FANOUT_SLICE);
        // Who they are may change between two slices, but not within one.
        run.recipients.list(&engine.table, &engine.base.topics, *at..to, &mut self.keys);
        for key in self.keys.drain(..) {
            let Some(mut visit) = engine.visit(key) else {
                run.note_gone(&engine.base);
                continue;
            };
            if !(*direct && run.write_to(&mut visit)) {
                run.queue_for(&mut visit);
            }
        }
        if engine.base.dirty.len() >= FANOUT_SLICE {
            engine.flush_dirty();
            engine.relieve_memory();
        }
        run.note_writes(&engine.base.driver);
        *at = to;
        if to < slots {
            self.current = Some(progress);
        } else {
            self.runs.push(progress.run);
        }
    }

    fn end_batch<D: Driver>(&mut self, engine: &mut Engine<D>) {
        engine.flush_dirty();
        engine.relieve_memory();
        for mut run in self.runs.drain(..) {
            run.note_writes(&engine.base.driver);
            run.settle(&mut engine.base);
        }
        let count = std::mem::take(&mut self.count);
        engine.base.publishes.count_delivered(count);
        if let Some(began) = self.began.take() {
            engine.base.metrics.fanout.add(engine.base.driver.now().saturating_duration_since(began));
        }
        engine.relieve();
    }
}

impl Run {
    fn new(first: Delivery) -> Self {
        let Delivery { publish, policy, recipients } = first;
        let messages = vec![Message::new(publish, policy, recipients.slots())];
        Run {
            recipients,
            messages,
            first_write: None,
            last_write: None,
            written: 0,
            joined: Default::default(),
            direct: 0,
            direct_whole: 0,
        }
    }

    /// Whether the job that comes next may be delivered together with this run.
    fn takes(&self, job: &Job) -> bool {
        matches!(job, Job::Deliver(next) if self.recipients.same_as(&next.recipients))
    }

    /// Queues the messages for one connection.
    fn queue_for<D: Driver>(&mut self, visit: &mut Visit<'_, D>) {
        let Some(wording) = visit.row.wording() else { return };
        self.messages.iter_mut().for_each(|message| message.queue_for(visit, wording));
    }

    /// Notes that a recipient has gone since the messages came in. One that they were for alone is missed.
    fn note_gone<D: Driver>(&self, base: &Base<D>) {
        if let Recipients::One(_) = self.recipients {
            for message in &self.messages {
                message.tally.count_dropped(DropReason::NoConnection);
                base.dropped(DropReason::NoConnection, 1);
            }
        }
    }

    /// Writes all messages to a connection for which nothing waits; `false`: they must go through its outbox.
    fn write_to<D: Driver>(&mut self, visit: &mut Visit<'_, D>) -> bool {
        let Some(wording) = visit.idle_wording() else { return false };
        let messages = &mut self.messages;
        let joined = self.joined.get_mut(wording).get_or_insert_with(|| join(messages, visit.base, wording));
        let Some(joined) = joined else { return false };
        self.direct += 1;
        self.direct_whole += u64::from(visit.write_directly(joined));
        true
    }

    /// Follows what has been written since it was last called.
    fn note_writes(&mut self, driver: &impl Driver) {
        let (direct, whole) = (std::mem::take(&mut self.direct), std::mem::take(&mut self.direct_whole));
        for message in &mut self.messages {
            message.matched += direct;
            message.tally.count_written(whole);
        }
        let written = self.messages.iter().map(|message| message.tally.written()).sum();
        if written > self.written {
            self.written = written;
            let now = driver.now();
            self.first_write.get_or_insert(now);
            self.last_write = Some(now);
        }
    }

    /// Counts what became of each message, and says so to the publisher, if it asked for a receipt.
    fn settle<D: Driver>(&self, base: &mut Base<D>) {
        for message in &self.messages {
            let (publish, dropped) = (&message.publish, message.tally.dropped());
            let (matched, written) = (message.matched, message.tally.written());
            base.metrics.publishes.add(1);
            base.metrics.matched.add(matched);
            if let Some(last) = self.last_write {
                base.metrics.time_to_last.add(last.saturating_duration_since(publish.accepted));
            }
            if let Target::Topic(topic) = &publish.target {
                base.topics.record(topic.as_str(), written, dropped.iter().sum());
            }
            tracing::trace!(id = %publish.id, matched, written, "delivered");
            if let Some(receipt) = &publish.receipt {
                let (first_write, last_write) = (self.first_write, self.last_write);
                let matched = matched + dropped[DropReason::NoConnection as usize];
                answer(receipt, ShardReceipt { matched, written, dropped, first_write, last_write });
            }
        }
    }
}

/// The messages as connections of `wording` read them; `None`: some can't be sent to those, or it is too much.
fn join<D: Driver>(messages: &mut [Message], base: &mut Base<D>, wording: Wording) -> Option<Joined> {
    let mut joined = Joined::default();
    for message in messages {
        let Rendered::Frame(frame) = message.rendered(base, wording) else { return None };
        if !joined.push(frame, message.policy) {
            return None;
        }
    }
    Some(joined)
}

impl Message {
    fn new(publish: Publish, policy: SlowConsumer, recipients: usize) -> Self {
        Message { publish, policy, recipients, frames: ByWording::default(), matched: 0, tally: Rc::default() }
    }

    /// Queues it for a connection of a wording.
    fn queue_for<D: Driver>(&mut self, visit: &mut Visit<'_, D>, wording: Wording) {
        match self.rendered(visit.base, wording) {
            Rendered::Frame(frame) => visit.push(&frame, self.policy),
            Rendered::Unfit(reason) => {
                self.tally.count_dropped(reason);
                visit.push_unfit(self.topic(), reason);
            }
            Rendered::Silent => return,
        }
        self.matched += 1;
    }

    fn topic(&self) -> Option<&Topic> {
        match &self.publish.target {
            Target::Topic(topic) => Some(topic),
            Target::All | Target::Conn(_) => None,
        }
    }

    /// The message as connections of `wording` read it.
    fn rendered<D: Driver>(&mut self, base: &mut Base<D>, wording: Wording) -> Rendered {
        if let Some(rendered) = self.frames.get_mut(wording) {
            return rendered.clone();
        }
        let Publish { payload, kind, .. } = &self.publish;
        let kind = *kind;
        let event = match &self.publish.target {
            Target::All => Event::Broadcast { payload, kind },
            Target::Topic(topic) => Event::Publish { topic, payload, kind },
            Target::Conn(_) => Event::Direct { payload, kind },
        };
        let (mut message, mut bytes) = (Vec::new(), Vec::new());
        let rendered = match base.render(wording, event, &mut message) {
            Ok(Some(kind)) => {
                base.metrics.encoded.add(1);
                let label = Label { event: event.name(), id: Some(self.publish.id), kind };
                match base.encode(wording.encoding, label, &message, self.recipients, &mut bytes) {
                    Ok(()) if bytes.len() > base.limits.bytes() => Rendered::Unfit(DropReason::FrameTooLarge),
                    Ok(()) => {
                        let meter = base.holdings.frames();
                        Rendered::Frame(Frame::new(bytes, self.topic().cloned(), Rc::clone(&self.tally), meter))
                    }
                    Err(error) => Rendered::Unfit(error.into()),
                }
            }
            Ok(None) => Rendered::Silent,
            Err(reason) => Rendered::Unfit(reason),
        };
        self.frames.get_mut(wording).insert(rendered).clone()
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
