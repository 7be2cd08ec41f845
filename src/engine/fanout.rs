//! Delivery: from a shard's queue of publishes to its connections, through their outboxes or straight to their sockets.
//!
//! A batch of publishes is delivered together. Publishes that follow each other to the same recipients go
//! recipient by recipient, so that each socket is written once for all of them. The work is cut into slices, with
//! a chance for other tasks between them; per connection, order is the order of the queue.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Instant;

use crate::config::{FANOUT_SLICE, PUBLISH_BATCH, SlowConsumer};
use crate::engine::Engine;
use crate::engine::direct::Joined;
use crate::engine::mailbox::{Delivery, Job, Recipients};
use crate::engine::outbox::{Frame, Tally};
use crate::engine::publish::answer;
use crate::engine::table::Key;
use crate::handler::{Event, Handler};
use crate::message::{DropReason, Publish, Target, Topic};
use crate::protocol::{self, Encoding, Label};
use crate::receipt::ShardReceipt;
use crate::shard::Shard;
use crate::shard::yielding::Slice;

/// Publishes with the same recipients, delivered together.
struct Run {
    recipients: Recipients,
    messages: Vec<Message>,
    /// When a frame of the run was first, and last, written whole; taken after each slice.
    first_write: Option<Instant>,
    last_write: Option<Instant>,
    written: u64,
    /// By encoding, once a connection needs it: all messages in one piece; `None`: they can't be written so.
    joined: [OnceCell<Option<Joined>>; Encoding::ALL.len()],
    /// Connections that were written directly, and those that took all, which the messages have not been told of yet.
    direct: u64,
    direct_whole: u64,
}

/// One publish with its frames: one for each encoding, made when the first connection of that encoding needs it.
struct Message {
    publish: Publish,
    policy: SlowConsumer,
    frames: [Option<Rendered>; Encoding::ALL.len()],
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

/// Delivers what is published for as long as the shard runs.
pub(crate) async fn run<H: Handler>(shard: Rc<Shard<H>>) {
    let mut batch = Vec::new();
    let mut slice = Slice::begin();
    loop {
        slice.wait(poll_fn(|cx| shard.core.borrow_mut().publishes.poll_nonempty(cx))).await;
        let started = Instant::now();
        shard.core.borrow_mut().publishes.take(PUBLISH_BATCH, &mut batch);
        let count = batch.len();
        let mut runs: Vec<Run> = Vec::new();
        let mut jobs = batch.drain(..).peekable();
        while let Some(job) = jobs.next() {
            let delivery = match job {
                Job::Deliver(delivery) => delivery,
                Job::Close { key, reason } => {
                    shard.core.borrow_mut().close(key, reason);
                    continue;
                }
            };
            let mut run = Run::new(delivery);
            while let Some(Job::Deliver(next)) = jobs.next_if(|next| run.takes(next)) {
                run.messages.push(Message::new(next.publish, next.policy));
            }
            // A small run is written with what follows it, each socket once for all. A large one is not kept waiting.
            let direct = jobs.peek().is_none() || run.recipients.slots() >= FANOUT_SLICE;
            run.deliver(&shard, direct, &mut slice).await;
            runs.push(run);
        }
        let core = &mut *shard.core.borrow_mut();
        core.flush_dirty();
        core.relieve_memory();
        for mut run in runs {
            run.note_writes();
            run.settle(core);
        }
        core.publishes.count_delivered(count);
        core.metrics.fanout.add(started.elapsed());
        core.relieve();
    }
}

impl Run {
    fn new(first: Delivery) -> Self {
        let Delivery { publish, policy, recipients } = first;
        let messages = vec![Message::new(publish, policy)];
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

    /// Delivers the messages to all recipients, a slice at a time: with `direct` straight to the sockets of those for
    /// whom nothing waits. What the last slices left unwritten is written at the end of the batch, where more may have
    /// joined it.
    async fn deliver<H: Handler>(&mut self, shard: &Shard<H>, direct: bool, slice: &mut Slice) {
        let slots = self.recipients.slots();
        let mut from = 0;
        while from < slots {
            let to = slots.min(from + FANOUT_SLICE);
            {
                let core = &mut *shard.core.borrow_mut();
                for index in from..to {
                    let Some(key) = self.recipients.at(&core.table, index) else { continue };
                    if !(direct && self.write_to(core, key)) {
                        self.queue_for(core, key);
                    }
                }
                if core.dirty() >= FANOUT_SLICE {
                    core.flush_dirty();
                    core.relieve_memory();
                }
                self.note_writes();
            }
            from = to;
            slice.pause_if_over().await;
        }
    }

    /// Queues the messages for one connection, if it is still there.
    fn queue_for(&mut self, core: &mut Engine, key: Key) {
        let Some(encoding) = core.table.get(key).and_then(|connection| connection.encoding) else { return };
        for message in &mut self.messages {
            match message.rendered(core, encoding) {
                Rendered::Frame(frame) => core.push(key, &frame, message.policy),
                Rendered::Unfit(reason) => {
                    message.tally.count_dropped(reason);
                    core.push_unfit(key, message.topic(), reason);
                }
                Rendered::Silent => continue,
            }
            message.matched += 1;
        }
    }

    /// Writes all messages to a connection for which nothing waits; `false`: they must go through its outbox.
    fn write_to(&mut self, core: &mut Engine, key: Key) -> bool {
        let Some(encoding) = core.idle_encoding(key) else { return false };
        let messages = &mut self.messages;
        let joined = self.joined[encoding as usize].get_or_init(|| join(messages, core, encoding));
        let Some(joined) = joined else { return false };
        self.direct += 1;
        self.direct_whole += u64::from(core.write_directly(key, joined));
        true
    }

    /// Follows what has been written since it was last called.
    fn note_writes(&mut self) {
        let (direct, whole) = (std::mem::take(&mut self.direct), std::mem::take(&mut self.direct_whole));
        for message in &mut self.messages {
            message.matched += direct;
            message.tally.count_written(whole);
        }
        let written = self.messages.iter().map(|message| message.tally.written()).sum();
        if written > self.written {
            self.written = written;
            let now = Instant::now();
            self.first_write.get_or_insert(now);
            self.last_write = Some(now);
        }
    }

    /// Counts what became of each message, and says so to who wants to know.
    fn settle(&self, core: &mut Engine) {
        for message in &self.messages {
            let (publish, dropped) = (&message.publish, message.tally.dropped());
            let (matched, written) = (message.matched, message.tally.written());
            core.metrics.publishes.add(1);
            core.metrics.matched.add(matched);
            if let Some(last) = self.last_write {
                core.metrics.time_to_last.add(last.saturating_duration_since(publish.accepted));
            }
            if let Target::Topic(topic) = &publish.target {
                core.topics.record(topic.as_str(), written, dropped.iter().sum());
            }
            tracing::trace!(id = %publish.id, matched, written, "delivered");
            if let Some(receipt) = &publish.receipt {
                let (first_write, last_write) = (self.first_write, self.last_write);
                answer(receipt, ShardReceipt { matched, written, dropped, first_write, last_write });
            }
        }
    }
}

/// The messages as connections of `encoding` read them; `None`: some can't be sent to those, or it is too much.
fn join(messages: &mut [Message], core: &Engine, encoding: Encoding) -> Option<Joined> {
    let mut joined = Joined::default();
    for message in messages {
        let Rendered::Frame(frame) = message.rendered(core, encoding) else { return None };
        if !joined.push(frame, message.policy) {
            return None;
        }
    }
    Some(joined)
}

impl Message {
    fn new(publish: Publish, policy: SlowConsumer) -> Self {
        Message { publish, policy, frames: [const { None }; Encoding::ALL.len()], matched: 0, tally: Rc::default() }
    }

    fn topic(&self) -> Option<&Topic> {
        match &self.publish.target {
            Target::Topic(topic) => Some(topic),
            Target::All | Target::Conn(_) => None,
        }
    }

    /// The message as connections of `encoding` read it.
    fn rendered(&mut self, core: &Engine, encoding: Encoding) -> Rendered {
        if let Some(rendered) = &self.frames[encoding as usize] {
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
        let rendered = if let Some(kind) = (core.render)(event, encoding.dialect(), &mut message) {
            core.metrics.encoded.add(1);
            let label = Label { event: event.name(), id: Some(self.publish.id), kind };
            match protocol::encode(encoding, label, &message, &mut bytes) {
                Ok(()) if bytes.len() > core.limits.bytes() => Rendered::Unfit(DropReason::FrameTooLarge),
                Ok(()) => {
                    let meter = core.holdings.frames();
                    Rendered::Frame(Frame::new(bytes, self.topic().cloned(), Rc::clone(&self.tally), meter))
                }
                Err(error) => Rendered::Unfit(error.into()),
            }
        } else {
            Rendered::Silent
        };
        self.frames[encoding as usize].insert(rendered).clone()
    }
}
