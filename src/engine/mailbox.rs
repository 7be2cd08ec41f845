//! What reaches a shard from elsewhere, and what waits to be done for its connections.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::config::{Config, Framing, PUBLISH_QUEUE_BYTES_MAX, SlowConsumer};
use crate::engine::interest::Members;
use crate::engine::query::Query;
use crate::engine::table::{Key, Table};
use crate::message::{CloseReason, ConnId, Publish, Topic};

/// What one shard says to another.
#[derive(Debug)]
pub(crate) enum ShardMsg<S> {
    /// The sender's number: the first message of each lane, since the mesh numbers its peers in its own way.
    Hello { shard: usize },
    /// A message to deliver.
    Publish(Publish),
    /// A client that the sender has accepted and the receiver shall serve, since it has fewer.
    Client(Client<S>),
    /// All shards together hold too much memory, and the receiver more than its part.
    Reclaim,
    /// The sender has begun to drain: all it published before is ahead of this in the lane.
    Draining,
}

/// An admitted client that no shard has taken in yet.
#[derive(Debug)]
pub(crate) struct Client<S> {
    pub(crate) socket: S,
    pub(crate) peer: SocketAddr,
    /// The framing of the address that it came to.
    pub(crate) framing: Framing,
}

/// What the rest of the process says to a shard.
#[derive(Debug)]
pub(crate) enum Command {
    /// Deliver a message. Every shard is told of it, so none passes it on.
    Publish(Publish),
    /// Close one connection.
    Close { id: ConnId, reason: CloseReason },
    /// Tell about connections or topics.
    Query(Query),
    /// Set a topic's policy for slow consumers, or take it back.
    SetPolicy { topic: Topic, policy: Option<SlowConsumer> },
}

/// What waits to be done for this shard's connections, in order.
pub(crate) enum Job {
    /// Deliver a publish.
    Deliver(Delivery),
    /// Close a connection, behind what was published to it before.
    Close { key: Key, reason: CloseReason },
}

/// A publish on one shard, with those who shall get it: who they are is settled when it comes in, so that a client
/// that subscribes later does not get it and one that leaves its topic later does.
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
            Job::Close { .. } => 0,
        }
    }
}

/// The connections of one shard that a publish is for.
pub(crate) enum Recipients {
    /// All that are in the table, in slots below this one.
    All {
        slots: u32,
    },
    Members(Members),
    One(Key),
}

impl Recipients {
    /// How many places there are to look at; some may be empty.
    pub(crate) fn slots(&self) -> usize {
        match self {
            Recipients::All { slots } => *slots as usize,
            Recipients::Members(members) => members.len(),
            Recipients::One(_) => 1,
        }
    }

    /// The connection in a place.
    pub(crate) fn at<T>(&self, table: &Table<T>, index: usize) -> Option<Key> {
        match self {
            Recipients::All { .. } => table.key_at(index as u32),
            Recipients::Members(members) => Some(members[index].key),
            Recipients::One(key) => Some(*key),
        }
    }

    /// Whether both are the same connections in the same order.
    pub(crate) fn same_as(&self, other: &Recipients) -> bool {
        match (self, other) {
            (Recipients::All { slots }, Recipients::All { slots: other }) => slots == other,
            (Recipients::Members(members), Recipients::Members(other)) => Rc::ptr_eq(members, other),
            (Recipients::One(key), Recipients::One(other)) => key == other,
            _ => false,
        }
    }
}

/// Publishes that wait to be delivered to this shard's connections, bounded in number and bytes, and closes that wait
/// behind them, of which there is at most one a connection.
pub(crate) struct PublishQueue {
    queue: VecDeque<Job>,
    bytes: usize,
    max: usize,
    /// Publishes put in so far.
    enqueued: u64,
    /// Publishes delivered so far.
    delivered: u64,
}

impl PublishQueue {
    pub(crate) fn new(config: &Config) -> Self {
        PublishQueue { queue: VecDeque::new(), bytes: 0, max: config.publish_queue, enqueued: 0, delivered: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// A queue takes a payload of any size while it is below its bounds.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < self.max && self.bytes < PUBLISH_QUEUE_BYTES_MAX
    }

    /// Whether clients of this shard should be read no further before some of it is delivered.
    pub(crate) fn is_congested(&self) -> bool {
        self.queue.len() >= self.max.div_ceil(2) || self.bytes >= PUBLISH_QUEUE_BYTES_MAX / 2
    }

    /// Puts a job in; the caller has looked for room, where it is a publish.
    pub(crate) fn push(&mut self, job: Job) {
        self.bytes += job.bytes();
        self.enqueued += 1;
        self.queue.push_back(job);
    }

    /// Moves up to `max` publishes into `batch`.
    pub(crate) fn take(&mut self, max: usize, batch: &mut VecDeque<Job>) {
        for job in self.queue.drain(..max.min(self.queue.len())) {
            self.bytes -= job.bytes();
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

    /// Counts publishes that have been taken and are now delivered.
    pub(crate) fn count_delivered(&mut self, count: usize) {
        self.delivered += count as u64;
    }
}
