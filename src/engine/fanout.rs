//! Delivery: from a shard's queue of publishes to its connections, through their outboxes or straight to their sockets.
//!
//! A batch of publishes is delivered together, and all that came in meanwhile is the next one. Publishes to small audiences
//! are gathered by connection, in `gathering`, so that each socket is written once for all of them. Publishes to a large
//! audience that follow each other go recipient by recipient. The work is cut into steps, with a chance for other tasks
//! between them; per connection, order is the order of the queue.

use std::collections::VecDeque;
use std::time::Instant;

use super::direct::Joined;
use super::driver::{Bell, Driver};
use super::gathering::Gathering;
use super::publish_queue::{Delivery, Job, Recipients};
use super::pushed::{Message, Rendered};
use super::table::Key;
use super::visit::Visit;
use super::wording::{ByWording, Wording};
use super::{Base, Engine};
use crate::config::{BATCH_PUBLISHES, FANOUT_SLICE, RUN_MESSAGES};

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
    /// Publishes to small audiences.
    gathering: Gathering,
}

/// How far a run is.
struct Progress {
    run: Run,
    /// The next place among its recipients.
    at: usize,
}

impl Fanout {
    /// Whether it has no batch in hand.
    pub(crate) fn is_idle(&self) -> bool {
        self.began.is_none()
    }

    /// One step of the delivery: a slice of the recipients, or the end of a batch. Whether there is more to do.
    pub(crate) fn step<D: Driver>(&mut self, engine: &mut Engine<D>) -> bool {
        if self.is_idle() {
            engine.base.publishes.take(BATCH_PUBLISHES, &mut self.jobs);
            if engine.base.publishes.has_room() {
                engine.base.driver.ring(Bell::Room);
            }
            if self.jobs.is_empty() {
                return false;
            }
            self.count = self.jobs.len();
            self.began = Some(engine.base.driver.now());
        }
        if let Some(progress) = self.current.take() {
            self.go_on(engine, progress);
        } else if self.gathering.is_begun() {
            self.gathering.step(engine);
        } else {
            self.begin_next(engine);
        }
        true
    }

    /// Begins what comes next in the batch, or ends it.
    fn begin_next<D: Driver>(&mut self, engine: &mut Engine<D>) {
        let mut others = 0;
        while others < FANOUT_SLICE {
            match self.jobs.pop_front() {
                Some(Job::Deliver(delivery)) if !delivery.recipients.are_many() => {
                    self.gathering.add(engine, delivery);
                    if self.gathering.is_full() {
                        return self.gathering.step(engine);
                    }
                    continue;
                }
                // What goes to all of these connections comes behind what was gathered for some.
                job if !self.gathering.is_empty() => {
                    if let Some(job) = job {
                        self.jobs.push_front(job);
                    }
                    return self.gathering.step(engine);
                }
                Some(Job::Deliver(delivery)) => return self.begin_run(engine, delivery),
                Some(Job::Close { key, reason }) => engine.close(key, reason),
                Some(Job::Move { key, to, seen }) => engine.send_off(key, to, seen),
                None => return self.end_batch(engine),
            }
            others += 1;
        }
    }

    /// Begins to deliver to a large audience, with what follows to the same.
    fn begin_run<D: Driver>(&mut self, engine: &mut Engine<D>, first: Delivery) {
        let mut run = Run::new(first);
        while run.messages.len() < RUN_MESSAGES
            && self.jobs.front().is_some_and(|next| run.takes(next))
            && let Some(Job::Deliver(next)) = self.jobs.pop_front()
        {
            run.messages.push(Message::new(next.publish, next.policy, next.recipients.slots()));
        }
        self.go_on(engine, Progress { run, at: 0 });
    }

    /// Delivers a run to the next slice of its recipients.
    fn go_on<D: Driver>(&mut self, engine: &mut Engine<D>, mut progress: Progress) {
        let Progress { run, at } = &mut progress;
        let slots = run.recipients.slots();
        let to = slots.min(*at + FANOUT_SLICE);
        // Who they are may change between two slices, but not within one.
        run.recipients.list(&engine.table, &engine.base.topics, *at..to, &mut self.keys);
        for key in self.keys.drain(..) {
            let Some(mut visit) = engine.visit(key) else { continue };
            if !run.write_to(&mut visit) {
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
            return;
        }
        engine.flush_dirty();
        engine.relieve_memory();
        run.note_writes(&engine.base.driver);
        run.settle(&mut engine.base);
    }

    fn end_batch<D: Driver>(&mut self, engine: &mut Engine<D>) {
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
            message.count_direct(direct, whole);
        }
        let written = self.messages.iter().map(Message::written).sum();
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
            message.settle(base, self.first_write, self.last_write);
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
