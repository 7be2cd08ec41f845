//! What reaches a shard from elsewhere, and what it sends to other shards.
//!
//! Nothing here waits for another shard: a mesh queue that is full is not waited for (two full shards would wait
//! for each other), what it refuses is kept in a bounded backlog, in order, and tried again. When that is full
//! too, a publish is refused to its publisher.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use glommio::channels::channel_mesh::Senders;

use crate::config::{Config, Framing, PUBLISH_QUEUE_BYTES_MAX, SlowConsumer};
use crate::engine::interest::Members;
use crate::engine::query::Query;
use crate::engine::table::{Key, Table};
use crate::message::{CloseReason, ConnId, Publish, Topic};

/// What one shard says to another.
#[derive(Debug)]
pub(crate) enum ShardMsg {
    /// The sender's number: the first message of each lane, since the mesh numbers its peers in its own way.
    Hello { shard: usize },
    /// A message to deliver.
    Publish(Publish),
    /// A client that the sender has accepted and the receiver shall serve, since it has fewer.
    Client(Client),
    /// All shards together hold too much memory, and the receiver more than its part.
    Reclaim,
    /// The sender has begun to drain: all it published before is ahead of this in the lane.
    Draining,
}

/// An admitted client that no shard has taken in yet.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
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
    /// The fan-out, while it waits for something to do.
    worker: Option<Waker>,
    /// Lanes that wait for room.
    senders: Vec<Waker>,
}

impl PublishQueue {
    pub(crate) fn new(config: &Config) -> Self {
        PublishQueue {
            queue: VecDeque::new(),
            bytes: 0,
            max: config.publish_queue,
            enqueued: 0,
            delivered: 0,
            worker: None,
            senders: Vec::new(),
        }
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
        if let Some(worker) = self.worker.take() {
            worker.wake();
        }
    }

    /// Moves up to `max` publishes into `batch`.
    pub(crate) fn take(&mut self, max: usize, batch: &mut Vec<Job>) {
        for job in self.queue.drain(..max.min(self.queue.len())) {
            self.bytes -= job.bytes();
            batch.push(job);
        }
        if self.has_room() {
            self.senders.drain(..).for_each(Waker::wake);
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

    pub(crate) fn poll_nonempty(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_empty() {
            self.worker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.senders.push(cx.waker().clone());
        Poll::Pending
    }
}

/// The way to the other shards.
pub(crate) struct Mesh {
    senders: Option<Senders<ShardMsg>>,
    /// By shard: its number in the mesh. `None` for this shard.
    lanes: Vec<Option<usize>>,
    peers: Rc<[usize]>,
    /// By shard: what its full queue did not take.
    backlogs: Vec<Backlog>,
    backlog_max: usize,
    /// The task that tries again, while there is nothing to try.
    retrier: Option<Waker>,
}

#[derive(Default)]
struct Backlog {
    queue: VecDeque<ShardMsg>,
    bytes: usize,
}

fn payload_bytes(message: &ShardMsg) -> usize {
    match message {
        ShardMsg::Publish(publish) => publish.payload.len(),
        ShardMsg::Hello { .. } | ShardMsg::Client(_) | ShardMsg::Reclaim | ShardMsg::Draining => 0,
    }
}

impl Mesh {
    /// The mesh of a server with one shard.
    pub(crate) fn alone() -> Self {
        Mesh {
            senders: None,
            lanes: vec![None],
            peers: Rc::new([]),
            backlogs: vec![Backlog::default()],
            backlog_max: 0,
            retrier: None,
        }
    }

    /// A mesh in which `lanes[shard]` is the shard's number among the peers.
    pub(crate) fn new(senders: Senders<ShardMsg>, lanes: Vec<Option<usize>>, config: &Config) -> Self {
        let backlogs = lanes.iter().map(|_| Backlog::default()).collect();
        let peers = (0..lanes.len()).filter(|shard| lanes[*shard].is_some()).collect();
        Mesh { senders: Some(senders), lanes, peers, backlogs, backlog_max: config.mesh_backlog, retrier: None }
    }

    /// The numbers of the other shards.
    pub(crate) fn peers(&self) -> Rc<[usize]> {
        Rc::clone(&self.peers)
    }

    /// Whether a message to this shard would be taken.
    pub(crate) fn has_room(&self, shard: usize) -> bool {
        let backlog = &self.backlogs[shard];
        backlog.queue.len() < self.backlog_max && backlog.bytes < PUBLISH_QUEUE_BYTES_MAX
    }

    /// Sends to a shard, behind what waits for it already. The caller has looked for room. Says whether it had
    /// to be put into the backlog.
    pub(crate) fn send(&mut self, shard: usize, message: ShardMsg) -> bool {
        let message = if self.backlogs[shard].queue.is_empty() { self.try_send(shard, message) } else { Some(message) };
        match message {
            Some(message) => {
                let backlog = &mut self.backlogs[shard];
                backlog.bytes += payload_bytes(&message);
                backlog.queue.push_back(message);
                if let Some(retrier) = self.retrier.take() {
                    retrier.wake();
                }
                true
            }
            None => false,
        }
    }

    /// Sends a client to a shard, unless something waits for that shard already; then it is given back.
    pub(crate) fn hand_over(&mut self, shard: usize, client: Client) -> Result<(), Client> {
        if !self.backlogs[shard].queue.is_empty() {
            return Err(client);
        }
        match self.try_send(shard, ShardMsg::Client(client)) {
            Some(ShardMsg::Client(client)) => Err(client),
            _ => Ok(()),
        }
    }

    /// Tries again to send what waits.
    pub(crate) fn retry(&mut self) {
        for shard in self.peers().iter().copied() {
            while let Some(message) = self.backlogs[shard].queue.pop_front() {
                let bytes = payload_bytes(&message);
                if let Some(message) = self.try_send(shard, message) {
                    self.backlogs[shard].queue.push_front(message);
                    break;
                }
                self.backlogs[shard].bytes -= bytes;
            }
        }
    }

    /// Ready while a message waits for a full queue.
    pub(crate) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting() > 0 {
            return Poll::Ready(());
        }
        self.retrier = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Messages that wait for full queues.
    pub(crate) fn waiting(&self) -> usize {
        self.backlogs.iter().map(|backlog| backlog.queue.len()).sum()
    }

    /// Closes the lanes to the other shards.
    pub(crate) fn close(&mut self) {
        if let Some(senders) = self.senders.take() {
            senders.close();
        }
    }

    /// Gives the message back if the queue is full. A shard that has ended takes nothing any more and has no
    /// connections either, so a message to it is done with.
    fn try_send(&self, shard: usize, message: ShardMsg) -> Option<ShardMsg> {
        use glommio::{GlommioError, ResourceType};
        let (Some(senders), Some(lane)) = (&self.senders, self.lanes[shard]) else { return None };
        match senders.try_send_to(lane, message) {
            Err(GlommioError::WouldBlock(ResourceType::Channel(message))) => Some(message),
            Ok(()) | Err(_) => None,
        }
    }
}
