//! Questions about connections and topics, answered by the shard that holds them, a bounded page at a time.

use std::net::SocketAddr;
use std::time::Duration;

use async_channel::Sender;

use crate::config::{Framing, QUERY_SLOTS_MAX, SlowConsumer, TICK_MS};
use crate::engine::Engine;
use crate::engine::driver::Driver;
use crate::engine::table::Key;
use crate::message::{ConnId, Topic};

/// A question, with where the answer goes.
#[derive(Debug)]
pub(crate) enum Query {
    /// Up to `limit` connections in slots from `slot` on.
    Connections { slot: u32, limit: usize, answer: Sender<ConnectionPage> },
    /// One connection.
    Connection { id: ConnId, answer: Sender<Option<ConnectionInfo>> },
    /// Up to `limit` topics that begin with `prefix`, by name, after `after`.
    Topics { prefix: String, after: Option<String>, limit: usize, answer: Sender<Vec<ShardTopic>> },
    /// One topic.
    Topic { name: String, answer: Sender<ShardTopic> },
}

/// One connection, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnId,
    /// The client's address.
    pub peer: SocketAddr,
    /// The shard that holds it.
    pub shard: usize,
    /// How its messages are framed.
    pub framing: Framing,
    /// How long it has been open, to a tick of the shard's clock.
    pub age: Duration,
    /// The topics it is subscribed to.
    pub topics: Vec<Topic>,
    /// Messages that wait for it.
    pub queued_messages: usize,
    /// Bytes that wait for it.
    pub queued_bytes: usize,
    /// Messages written to it, up to 4,294,967,295: from there on it stays.
    pub sent: u64,
    /// Messages that it missed, up to as many.
    pub dropped: u64,
}

/// Some of a shard's connections, and the slot at which to go on; `None`: there are no more.
#[derive(Debug)]
pub(crate) struct ConnectionPage {
    pub(crate) connections: Vec<ConnectionInfo>,
    pub(crate) next: Option<u32>,
}

/// What one shard knows of a topic.
#[derive(Clone, Debug)]
pub(crate) struct ShardTopic {
    pub(crate) name: String,
    pub(crate) subscribers: usize,
    pub(crate) published: u64,
    pub(crate) written: u64,
    pub(crate) dropped: u64,
    pub(crate) policy: Option<SlowConsumer>,
}

/// Answers a question. Who asked may have given up waiting, which is no fault.
pub(crate) fn answer<D: Driver>(engine: &Engine<D>, query: Query) {
    match query {
        Query::Connections { slot, limit, answer } => {
            let _ = answer.try_send(connections(engine, slot, limit));
        }
        Query::Connection { id, answer } => {
            let row = engine.base.registry.get(id).filter(|row| row.shard() == engine.base.index);
            let _ = answer.try_send(row.and_then(|row| connection(engine, row.key())));
        }
        Query::Topics { prefix, after, limit, answer } => {
            let topics = engine.base.topics.list(&prefix, after.as_deref()).take(limit);
            let topics = topics.map(|(name, ..)| topic(engine, name.as_str())).collect();
            let _ = answer.try_send(topics);
        }
        Query::Topic { name, answer } => {
            let _ = answer.try_send(topic(engine, &name));
        }
    }
}

fn connections<D: Driver>(engine: &Engine<D>, slot: u32, limit: usize) -> ConnectionPage {
    let mut connections = Vec::new();
    // A table that is mostly empty is not walked through at one go.
    let end = engine.table.slots().min(slot.saturating_add(QUERY_SLOTS_MAX));
    for slot in slot..end {
        if connections.len() == limit {
            return ConnectionPage { connections, next: Some(slot) };
        }
        connections.extend(engine.table.key_at(slot).and_then(|key| connection(engine, key)));
    }
    ConnectionPage { connections, next: (end < engine.table.slots()).then_some(end) }
}

fn connection<D: Driver>(engine: &Engine<D>, key: Key) -> Option<ConnectionInfo> {
    // One that has had its farewell is only waited for.
    let connection = engine.table.get(key).filter(|connection| connection.closing.is_none())?;
    let peer = engine.base.registry.get(connection.id)?.peer();
    let (queued_messages, queued_bytes) =
        connection.outbox.as_ref().map_or((0, 0), |outbox| (outbox.messages(), outbox.bytes()));
    Some(ConnectionInfo {
        id: connection.id,
        peer,
        shard: engine.base.index,
        framing: connection.framing(),
        age: Duration::from_millis(u64::from(engine.base.wheel.age() - connection.opened) * TICK_MS),
        topics: engine.base.topics.names(key).cloned().collect(),
        queued_messages,
        queued_bytes,
        sent: connection.sent.into(),
        dropped: connection.dropped.into(),
    })
}

fn topic<D: Driver>(engine: &Engine<D>, name: &str) -> ShardTopic {
    let found = engine.base.topics.list(name, None).next().filter(|(found, ..)| found.as_str() == name);
    let (subscribers, counts) = found.map(|(_, subscribers, counts)| (subscribers, counts)).unwrap_or_default();
    ShardTopic {
        name: name.to_owned(),
        subscribers,
        published: counts.published,
        written: counts.written,
        dropped: counts.dropped,
        policy: engine.base.topics.policy(name),
    }
}
