//! What waits to be done for a shard's connections, in order: publishes to deliver, and closes behind them.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use crate::config::{
    BATCH_BYTES, BATCH_WRITES, Config, FANOUT_SLICE, PUBLISH_QUEUE_BYTES_MAX, RUN_MESSAGES, SlowConsumer,
};
use crate::engine::interest::{Audience, Interest};
use crate::engine::outbox::Meter;
use crate::engine::seen::Seen;
use crate::engine::table::{Key, Table};
use crate::message::CloseReason;
use crate::publish::Publish;

/// What waits to be done for this shard's connections, in order.
pub(crate) enum Job {
    /// Deliver a publish.
    Deliver(Delivery),
    /// Close a connection, behind what was published to it before.
    Close { key: Key, reason: CloseReason },
    /// Send a connection off to another shard, behind what it shall get here: what was `seen`.
    Move { key: Key, to: usize, seen: Seen },
}

/// A publish on one shard, with those who shall get it: who they are is settled when it comes in, so that a client
/// that comes or subscribes later does not get it. Nor does one that has left its topic before its turn comes: it was told
/// that nothing follows.
pub(crate) struct Delivery {
    pub(crate) publish: Publish,
    /// The policy that holds for it.
    pub(crate) policy: SlowConsumer,
    pub(crate) recipients: Recipients,
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Job::Deliver(delivery) => delivery.publish.payload.len(),
            Job::Close { .. } | Job::Move { .. } => 0,
        }
    }

    /// Connections to look at.
    fn slots(&self) -> usize {
        match self {
            Job::Deliver(delivery) => delivery.recipients.slots(),
            Job::Close { .. } | Job::Move { .. } => 1,
        }
    }

    /// Whether it goes to a large audience.
    fn is_run(&self) -> bool {
        matches!(self, Job::Deliver(delivery) if delivery.recipients.are_many())
    }

    /// Whether it goes where another goes, and may be written with it.
    fn joins(&self, other: &Job) -> bool {
        match (self, other) {
            (Job::Deliver(own), Job::Deliver(other)) => own.recipients.same_as(&other.recipients),
            _ => false,
        }
    }
}

/// The connections of one shard that a publish is for.
pub(crate) enum Recipients {
    /// All that were in the table: in slots below this one, with this or an earlier generation.
    All {
        slots: u32,
        generation: u32,
    },
    Audience(Audience),
    One(Key),
}

impl Recipients {
    /// How many places there are to look at; some may be empty.
    pub(crate) fn slots(&self) -> usize {
        match self {
            Recipients::All { slots, .. } => *slots as usize,
            Recipients::Audience(audience) => audience.len(),
            Recipients::One(_) => 1,
        }
    }

    /// Whether they are delivered to on their own, and not gathered with others.
    pub(crate) fn are_many(&self) -> bool {
        self.slots() >= FANOUT_SLICE
    }

    /// Puts the connections in some places into `keys`, as far as they are still meant.
    pub(crate) fn list<T>(&self, table: &Table<T>, interest: &Interest, places: Range<usize>, keys: &mut Vec<Key>) {
        match self {
            Recipients::All { generation, .. } => {
                let there = places.filter_map(|slot| table.key_at(slot as u32));
                keys.extend(there.filter(|key| !table.is_newer(*key, *generation)));
            }
            Recipients::Audience(audience) => {
                interest.present(audience, places, |slot| keys.extend(table.key_at(slot)));
            }
            Recipients::One(key) => keys.push(*key),
        }
    }

    /// Whether both are the same connections in the same order.
    pub(crate) fn same_as(&self, other: &Recipients) -> bool {
        match (self, other) {
            (
                Recipients::All { slots, generation },
                Recipients::All { slots: other_slots, generation: other_generation },
            ) => (slots, generation) == (other_slots, other_generation),
            (Recipients::Audience(audience), Recipients::Audience(other)) => audience.same_as(other),
            (Recipients::One(key), Recipients::One(other)) => key == other,
            _ => false,
        }
    }
}

/// Publishes that wait to be delivered to this shard's connections, bounded in number and bytes, and closes that wait
/// behind them, of which there is at most one a connection.
pub(crate) struct PublishQueue {
    queue: VecDeque<Job>,
    /// Bytes of payload.
    bytes: usize,
    /// Bytes that the publishes keep of audiences that have changed since.
    stale: Meter,
    max: usize,
    /// Publishes to large audiences among them.
    runs: usize,
    /// Connections that the others are for, each counted for each of its messages.
    places: usize,
    /// The connections of the closes that wait.
    closes: HashSet<Key>,
    /// Publishes put in so far.
    enqueued: u64,
    /// Publishes delivered so far.
    delivered: u64,
}

impl PublishQueue {
    /// An empty queue. `stale` counts what its publishes keep of audiences that have changed since.
    pub(crate) fn new(config: &Config, stale: &Meter) -> Self {
        let (stale, max) = (stale.clone(), config.publish_queue);
        PublishQueue {
            queue: VecDeque::new(),
            bytes: 0,
            stale,
            max,
            runs: 0,
            places: 0,
            closes: HashSet::new(),
            enqueued: 0,
            delivered: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of memory that it keeps.
    fn bytes(&self) -> usize {
        self.bytes + self.stale.bytes()
    }

    /// A queue takes a payload of any size while it is below its bounds.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < self.max && self.bytes() < PUBLISH_QUEUE_BYTES_MAX
    }

    /// Whether clients of this shard should be read no further before some of it is delivered.
    pub(crate) fn is_congested(&self) -> bool {
        self.queue.len() >= self.max.div_ceil(2) || self.bytes() >= PUBLISH_QUEUE_BYTES_MAX / 2
    }

    /// Puts a job in; the caller has looked for room, where it is a publish.
    pub(crate) fn push(&mut self, job: Job) {
        self.bytes += job.bytes();
        if job.is_run() {
            self.runs += 1;
        } else {
            self.places += job.slots();
        }
        self.enqueued += 1;
        self.queue.push_back(job);
    }

    /// Puts a close in, unless one waits for the same connection already. The first reason is the one that counts.
    pub(crate) fn push_close(&mut self, key: Key, reason: CloseReason) {
        if self.closes.insert(key) {
            self.push(Job::Close { key, reason });
        }
    }

    /// Whether a close waits for a connection.
    pub(crate) fn closes_later(&self, key: Key) -> bool {
        self.closes.contains(&key)
    }

    /// Closes that wait.
    pub(crate) fn closes(&self) -> usize {
        self.closes.len()
    }

    /// Moves the next jobs into the empty `batch`: up to `max` of them, as far as their payloads, and the connections to
    /// write to, are not too many to be delivered together.
    pub(crate) fn take(&mut self, max: usize, batch: &mut VecDeque<Job>) {
        debug_assert!(batch.is_empty(), "a batch is delivered before the next is taken");
        let all_are_small = self.runs == 0 && self.places <= BATCH_WRITES;
        if all_are_small && self.queue.len() <= max && self.bytes <= BATCH_BYTES {
            std::mem::swap(&mut self.queue, batch);
            self.closes.clear();
            (self.bytes, self.places) = (0, 0);
            return;
        }
        let (mut bytes, mut writes, mut run) = (0, 0, 0);
        while batch.len() < max && bytes < BATCH_BYTES {
            let Some(job) = self.queue.front() else { break };
            run = if batch.back().is_some_and(|last| job.joins(last)) && run < RUN_MESSAGES { run + 1 } else { 1 };
            if run == 1 {
                if writes >= BATCH_WRITES {
                    break;
                }
                writes += job.slots();
            }
            let Some(job) = self.queue.pop_front() else { break };
            bytes += job.bytes();
            self.bytes -= job.bytes();
            match &job {
                Job::Close { key, .. } => drop(self.closes.remove(key)),
                job if job.is_run() => self.runs -= 1,
                job => self.places -= job.slots(),
            }
            batch.push_back(job);
        }
    }

    /// Publishes put in so far, to be held against [`PublishQueue::delivered`] later.
    pub(crate) fn enqueued(&self) -> u64 {
        self.enqueued
    }

    /// Publishes delivered so far: the first that were put in.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Drops all that waits, for a shard that has ended: nobody is left to get it, and who waits for a receipt is told.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.closes.clear();
        (self.bytes, self.runs, self.places) = (0, 0, 0);
    }

    /// Counts publishes that have been taken and are now delivered.
    pub(crate) fn count_delivered(&mut self, count: usize) {
        self.delivered += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BATCH_PUBLISHES;
    use std::time::Instant;

    use crate::message::{Kind, PublishId, Target, Topic};

    fn all(recipients: &Recipients, table: &Table<()>, interest: &Interest) -> Vec<Key> {
        let mut keys = Vec::new();
        recipients.list(table, interest, 0..recipients.slots(), &mut keys);
        keys
    }

    #[test]
    fn a_broadcast_is_not_for_a_client_that_came_after_it_whatever_slot_it_got() {
        let mut table = Table::default();
        let keys = [(); 3].map(|()| table.insert_with(|_| ()));
        let recipients = Recipients::All { slots: table.slots(), generation: table.generation() };
        table.remove(keys[1]);
        let late = table.insert_with(|_| ());
        assert_eq!(late.slot, keys[1].slot);
        assert_eq!(all(&recipients, &table, &Interest::default()), [keys[0], keys[2]]);
    }

    fn deliver(interest: &Interest, payload: usize) -> Job {
        let topic: Topic = "big".parse().unwrap();
        let recipients = Recipients::Audience(interest.audience("big").unwrap());
        let (id, target) = (PublishId::new(0, 1), Target::Topic(topic));
        let (kind, accepted) = (Kind::Text, Instant::now());
        let payload = vec![0; payload].into();
        let publish = Publish { id, target, payload, kind, slow_consumer: None, accepted, receipt: None };
        Job::Deliver(Delivery { publish, policy: SlowConsumer::Skip, recipients })
    }

    /// The bound holds for what publishes keep of lists that have changed, as it does for payloads, until they are
    /// delivered.
    #[test]
    fn what_publishes_keep_of_changed_audiences_counts_against_the_queue() {
        const SUBSCRIBERS: u32 = 10_000;
        let config = Config { publish_queue: 1 << 20, ..Config::default() };
        let mut interest = Interest::default();
        let keys: Vec<Key> = (0..SUBSCRIBERS).map(|slot| Key::new(slot, slot + 1)).collect();
        keys.iter().for_each(|key| assert!(interest.subscribe(*key, "big")));
        let mut queue = PublishQueue::new(&config, interest.stale());
        let mut publishes = 0;
        while queue.has_room() {
            queue.push(deliver(&interest, 1));
            publishes += 1;
            // All of them go and come back, so that each publish has a list to itself.
            keys.iter().for_each(|key| assert!(interest.unsubscribe(*key, "big") && interest.subscribe(*key, "big")));
            assert!(publishes < 1_000, "the queue takes no notice");
            assert_eq!(queue.is_congested(), queue.bytes() >= PUBLISH_QUEUE_BYTES_MAX / 2);
        }
        let list = SUBSCRIBERS as usize * 12;
        assert!(queue.bytes() < PUBLISH_QUEUE_BYTES_MAX + 3 * list, "{} bytes", queue.bytes());

        let (mut batch, mut delivered) = (VecDeque::new(), Vec::new());
        while !queue.is_empty() {
            queue.take(publishes, &mut batch);
            delivered.extend(batch.drain(..));
        }
        assert!(!queue.has_room(), "what is being delivered still keeps them");
        drop(delivered);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_batch_is_all_that_waits_as_far_as_that_is_not_too_much() {
        let mut interest = Interest::default();
        for slot in 0..9_000 {
            interest.subscribe(Key::new(slot, 1), "big");
            interest.subscribe(Key::new(slot, 1), &format!("t{slot}"));
        }
        let config = Config { publish_queue: 1 << 20, ..Config::default() };
        let mut queue = PublishQueue::new(&config, interest.stale());
        let mut take = |names: &[&str], bytes: usize, count: usize| -> Vec<usize> {
            for name in names.iter().cycle().take(count) {
                let Job::Deliver(mut delivery) = deliver(&interest, bytes) else { unreachable!() };
                let audience = interest.audience(name).expect("it has subscribers");
                delivery.recipients = Recipients::Audience(audience);
                queue.push(Job::Deliver(delivery));
            }
            let (mut batch, mut sizes) = (VecDeque::new(), Vec::new());
            while !queue.is_empty() {
                queue.take(BATCH_PUBLISHES, &mut batch);
                sizes.push(batch.len());
                batch.clear();
            }
            assert_eq!((queue.bytes, queue.runs, queue.places), (0, 0, 0));
            sizes
        };
        assert_eq!(take(&["t1", "t2", "t3"], 32, 6_000), [6_000]);
        assert_eq!(take(&["t1", "t2"], 32, BATCH_PUBLISHES + 1), [BATCH_PUBLISHES, 1]);
        assert_eq!(take(&["t1"], BATCH_BYTES / 2, 5), [2, 2, 1], "of so many bytes");
        // One large audience is written in runs, two of which are as much as a batch may be.
        assert_eq!(take(&["big"], 32, 32), [32]);
        assert_eq!(take(&["big"], 32, 5 * RUN_MESSAGES), [2 * RUN_MESSAGES, 2 * RUN_MESSAGES, RUN_MESSAGES]);
        assert_eq!(take(&["big", "t1"], 32, 6), [3, 3], "a large audience, a small one, and a large one again");
    }

    /// As seen: a client that publishes, leaves and comes back as fast as it can, in a topic that many others have too.
    #[test]
    fn one_that_comes_and_goes_between_its_publishes_costs_a_chunk_each_time() {
        const SUBSCRIBERS: u32 = 9_000;
        let mut interest = Interest::default();
        (0..SUBSCRIBERS).for_each(|slot| assert!(interest.subscribe(Key::new(slot, 1), "big")));
        let mut queue = PublishQueue::new(&Config::default(), interest.stale());
        let own = Key::new(77, 1);
        while queue.has_room() {
            queue.push(deliver(&interest, 1));
            assert!(interest.unsubscribe(own, "big") && interest.subscribe(own, "big"));
        }
        assert_eq!(queue.len(), Config::default().publish_queue, "the bytes are not what it is full of");
    }

    #[test]
    fn one_close_waits_for_a_connection_however_often_it_is_asked_for() {
        let mut queue = PublishQueue::new(&Config::default(), &Meter::default());
        let (key, other, mut jobs) = (Key::new(7, 1), Key::new(8, 2), VecDeque::new());
        for _ in 0..1_000 {
            queue.push_close(key, CloseReason::Kicked);
            queue.push_close(key, CloseReason::Drain);
            queue.push_close(other, CloseReason::Drain);
        }
        assert_eq!((queue.len(), queue.closes()), (2, 2));
        queue.take(1, &mut jobs);
        assert!(matches!(jobs[0], Job::Close { key: closed, reason: CloseReason::Kicked } if closed == key));
        assert_eq!((queue.len(), queue.closes()), (1, 1));
    }
}
