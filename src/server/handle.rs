//! The way into a running server from any thread: publish, ask, close, drain.

mod drain;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_channel::Sender;
use thiserror::Error;

use crate::config::{Config, ParseError, QUERY_PAGE_MAX, SHARDS_MAX, SlowConsumer, TOPIC_POLICIES_MAX};
use crate::engine::commands::{Close, Command};
use crate::engine::query::{ConnectionInfo, Query, ShardTopic};
use crate::engine::registry::Registry;
use crate::handler::PublishError;
use crate::message::{CloseReason, ConnId, Kind, Payload, PublishId, Target, Topic};
use crate::metrics::ShardMetrics;
use crate::publish::Publish;
use crate::receipt::{Published, ReceiptSender};
use crate::server::handover::Offer;
use crate::shard::inbox::Entrances;
use crate::shard::lane::{NoPlace, Place};
use drain::{Drain, Offers};

/// What the process keeps of one shard.
pub(crate) struct ShardEnd {
    pub(crate) entrances: Entrances,
    pub(crate) drain: Sender<Duration>,
    pub(crate) metrics: Arc<ShardMetrics>,
}

struct Inner {
    shards: Vec<ShardEnd>,
    registry: Arc<Registry>,
    /// Held while something is handed to several shards, so that all get it in the same order.
    publishes: Mutex<Outside>,
    drain: Mutex<Drain>,
    /// Told when a drain is to begin sooner.
    changed: Condvar,
    /// Where clients connect.
    listen: Vec<SocketAddr>,
    offers: Mutex<Offers>,
    client_offers: Mutex<Vec<Offer>>,
    config: Arc<Config>,
}

/// What came from outside the shards so far.
#[derive(Default)]
struct Outside {
    /// Publishes.
    sequence: u64,
    /// Topics with a policy of their own, and which.
    policies: HashMap<Topic, SlowConsumer>,
}

impl Outside {
    /// The policy for slow consumers of what is published to a target without one of its own.
    fn policy(&self, target: &Target, config: &Config) -> SlowConsumer {
        let own = match target {
            Target::Topic(topic) => self.policies.get(topic).copied(),
            Target::All | Target::Conn(_) => None,
        };
        own.unwrap_or(config.slow_consumer)
    }
}

/// When the shards are woken for a publish.
#[derive(Clone, Copy)]
enum Waking {
    Now,
    /// When the publisher says so.
    #[cfg_attr(not(feature = "control"), allow(dead_code, reason = "the control plane publishes in that way"))]
    Later,
}

/// Steers a running server from any thread. Clones are cheap and all the same.
#[derive(Clone)]
pub struct ServerHandle {
    inner: Arc<Inner>,
}

/// A handle that does not keep its server running.
#[derive(Clone)]
pub struct WeakHandle {
    inner: Weak<Inner>,
}

impl WeakHandle {
    /// The handle, for as long as the caller keeps it; `None`: the server has ended, or nobody has a handle any more and it
    /// is about to.
    pub fn upgrade(&self) -> Option<ServerHandle> {
        self.inner.upgrade().map(|inner| ServerHandle { inner })
    }
}

impl ServerHandle {
    /// A handle to the same server that does not keep it running.
    pub fn downgrade(&self) -> WeakHandle {
        WeakHandle { inner: Arc::downgrade(&self.inner) }
    }

    pub(crate) fn new(
        shards: Vec<ShardEnd>,
        registry: Arc<Registry>,
        config: Arc<Config>,
        listen: Vec<SocketAddr>,
    ) -> Self {
        let (publishes, drain) = (Mutex::default(), Mutex::new(Drain::Not));
        let changed = Condvar::new();
        ServerHandle {
            inner: Arc::new(Inner {
                shards,
                registry,
                publishes,
                drain,
                changed,
                listen,
                offers: Mutex::default(),
                client_offers: Mutex::default(),
                config,
            }),
        }
    }

    /// Sends `payload` to the subscribers of `topic`. It reaches all shards, or none.
    ///
    /// # Errors
    /// The publish was refused and reaches nobody.
    pub fn publish(&self, topic: &str, payload: impl Into<Payload>) -> Result<Published, PublishError> {
        let topic = Topic::new(topic.as_bytes())?;
        self.publish_to(Target::Topic(topic), payload, None)
    }

    /// Sends `payload` to every connection.
    ///
    /// # Errors
    /// The broadcast was refused and reaches nobody.
    pub fn broadcast(&self, payload: impl Into<Payload>) -> Result<Published, PublishError> {
        self.publish_to(Target::All, payload, None)
    }

    /// Sends `payload` to one connection. One that closes while the message is on its way does not get it; that is counted
    /// as `no-connection` or `closed`.
    ///
    /// # Errors
    /// The connection is not open, or the message was refused.
    pub fn send(&self, id: ConnId, payload: impl Into<Payload>) -> Result<Published, PublishError> {
        if self.inner.registry.get(id).is_none() {
            return Err(PublishError::NotOpen);
        }
        self.publish_to(Target::Conn(id), payload, None)
    }

    /// Closes one connection, after what was published before has been written to it as far as it is for this connection.
    /// It waits for nothing else: not for what others publish meanwhile.
    ///
    /// # Errors
    /// The connection is not open, or as many closes wait for its shard as may.
    pub fn close(&self, id: ConnId) -> Result<(), CloseError> {
        let row = self.inner.registry.get(id).ok_or(CloseError::NotOpen)?;
        let Entrances { publishes, closes, .. } = &self.inner.shards[row.shard()].entrances;
        match closes.reserve() {
            Ok(place) => {
                place.fill(Close { id, reason: CloseReason::Kicked, after: publishes.entered() });
                Ok(())
            }
            Err(NoPlace::Full) => Err(CloseError::Busy),
            Err(NoPlace::Ended) => Err(CloseError::NotOpen),
        }
    }

    /// Sends `payload` to a target, with a slow-consumer policy for this message if one is given. It is handed to
    /// every shard that may hold a recipient, or to none if one of them is behind.
    ///
    /// # Errors
    /// The publish was refused and reaches nobody.
    pub fn publish_to(
        &self,
        target: Target,
        payload: impl Into<Payload>,
        slow_consumer: Option<SlowConsumer>,
    ) -> Result<Published, PublishError> {
        let (receipt, answers) = async_channel::bounded(self.inner.shards.len());
        let (id, accepted, shards) = self.accept(target, payload.into(), slow_consumer, Some(receipt), Waking::Now)?;
        Ok(Published { id, accepted, shards, answers })
    }

    /// As [`ServerHandle::publish_to`], for a publisher of many messages: the shards sleep until
    /// [`ServerHandle::wake_shards`], and there is a receipt only if one is wanted.
    #[cfg_attr(not(feature = "control"), allow(dead_code, reason = "the control plane publishes in that way"))]
    pub(crate) fn publish_quietly(
        &self,
        target: Target,
        payload: Payload,
        slow_consumer: Option<SlowConsumer>,
        receipt: bool,
    ) -> Result<(PublishId, Option<Published>), PublishError> {
        let (receipt, answers) = receipt.then(|| async_channel::bounded(self.inner.shards.len())).unzip();
        let (id, accepted, shards) = self.accept(target, payload, slow_consumer, receipt, Waking::Later)?;
        Ok((id, answers.map(|answers| Published { id, accepted, shards, answers })))
    }

    /// Wakes the shards for what has been published quietly.
    #[cfg_attr(not(feature = "control"), allow(dead_code, reason = "the control plane publishes in that way"))]
    pub(crate) fn wake_shards(&self) {
        for shard in &self.inner.shards {
            shard.entrances.publishes.wake();
        }
    }

    /// Hands a publish to the shards. Its id, when it was accepted, and how many shards have it.
    fn accept(
        &self,
        target: Target,
        payload: Payload,
        slow_consumer: Option<SlowConsumer>,
        receipt: Option<ReceiptSender>,
        waking: Waking,
    ) -> Result<(PublishId, Instant, usize), PublishError> {
        let (payload, kind) = payload.into_parts(Kind::Text);
        let max = self.inner.config.max_message;
        if payload.len() > max {
            return Err(PublishError::TooLarge { len: payload.len(), max });
        }
        let shards = match &target {
            Target::Conn(id) => match self.inner.registry.get(*id) {
                Some(row) => &self.inner.shards[row.shard()..=row.shard()],
                // It closed a moment ago; whichever shard is asked will count it.
                None => &self.inner.shards[..1],
            },
            Target::All | Target::Topic(_) => &self.inner.shards[..],
        };
        let mut outside = self.outside();
        let mut places = Vec::with_capacity(shards.len());
        for shard in shards {
            match shard.entrances.publishes.reserve() {
                Ok(place) => places.push(place),
                // It has no connections left to miss it.
                Err(NoPlace::Ended) => {}
                Err(NoPlace::Full) => return Err(PublishError::Busy),
            }
        }
        if places.is_empty() {
            return Err(PublishError::Down);
        }
        outside.sequence += 1;
        let id = PublishId::new(SHARDS_MAX as u16, outside.sequence);
        // The policy that holds now: the shards may get to know of a new one before they come to this, or after.
        let slow_consumer = slow_consumer.unwrap_or_else(|| outside.policy(&target, &self.inner.config));
        let accepted = Instant::now();
        let publish = Publish { id, target, payload, kind, slow_consumer: Some(slow_consumer), accepted, receipt };
        let fill = |place: Place<'_, Publish>, publish| match waking {
            Waking::Now => place.fill(publish),
            Waking::Later => place.fill_quietly(publish),
        };
        let last = places.pop();
        for place in places {
            fill(place, publish.clone());
        }
        if let Some(last) = last {
            fill(last, publish);
        }
        Ok((id, accepted, shards.len()))
    }

    /// The address of an open connection's client.
    pub fn peer(&self, id: ConnId) -> Option<SocketAddr> {
        self.inner.registry.get(id).map(|row| row.peer())
    }

    /// Connections that are open now.
    pub fn conn_count(&self) -> usize {
        self.inner.registry.open()
    }

    /// Bytes that all connections together may hold: `buffers_max`, or what stands for it where it is not set.
    pub fn buffers_max(&self) -> usize {
        self.inner.registry.buffers_max()
    }

    /// Connections that may be open at a time: `max_connections`, or what the limit on open files leaves room for.
    pub fn max_connections(&self) -> usize {
        self.inner.registry.max()
    }

    /// The counters of each shard, in the order of their numbers. They go on counting.
    pub fn stats(&self) -> impl ExactSizeIterator<Item = &ShardMetrics> {
        self.inner.shards.iter().map(|shard| &*shard.metrics)
    }

    /// The settings that the server was started with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// A page of connections: up to `limit` of them (at most [`QUERY_PAGE_MAX`]) from `from` on, in no particular
    /// order, and where to go on. A connection that is open all the while is on exactly one page.
    ///
    /// # Errors
    /// [`QueryError`]: a shard has too much to do, or the server has ended.
    pub async fn connections(
        &self,
        from: ConnectionCursor,
        limit: usize,
    ) -> Result<(Vec<ConnectionInfo>, Option<ConnectionCursor>), QueryError> {
        let limit = limit.clamp(1, QUERY_PAGE_MAX);
        let mut found = Vec::new();
        let mut cursor = from;
        while cursor.shard < self.inner.shards.len() {
            let (slot, left) = (cursor.slot, limit - found.len());
            let page = self.ask(cursor.shard, |answer| Query::Connections { slot, limit: left, answer }).await?;
            found.extend(page.connections);
            cursor = match page.next {
                Some(slot) => ConnectionCursor { slot, ..cursor },
                None => ConnectionCursor { shard: cursor.shard + 1, slot: 0 },
            };
            if found.len() == limit {
                break;
            }
        }
        Ok((found, (cursor.shard < self.inner.shards.len()).then_some(cursor)))
    }

    /// One connection.
    ///
    /// # Errors
    /// [`QueryError`]: it is not open, its shard has too much to do, or the server has ended.
    pub async fn connection(&self, id: ConnId) -> Result<ConnectionInfo, QueryError> {
        let row = self.inner.registry.get(id).ok_or(QueryError::NotOpen)?;
        let found = self.ask(row.shard(), |answer| Query::Connection { id, answer }).await?;
        found.ok_or(QueryError::NotOpen)
    }

    /// Up to `limit` topics (at most [`QUERY_PAGE_MAX`]) that have subscribers and begin with `prefix`, in the order
    /// of their names, after the name `after`.
    ///
    /// # Errors
    /// [`QueryError`]: a shard has too much to do, or the server has ended.
    pub async fn topics(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<TopicInfo>, QueryError> {
        let limit = limit.clamp(1, QUERY_PAGE_MAX);
        let mut topics: BTreeMap<String, TopicInfo> = BTreeMap::new();
        for shard in 0..self.inner.shards.len() {
            let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
            // A topic among the first of all shards is among the first of each shard that has it.
            let found = self.ask(shard, |answer| Query::Topics { prefix, after, limit, answer }).await?;
            for topic in found {
                let name = topic.name.clone();
                let info = topics.entry(name).or_insert_with_key(|name| self.no_topic(name));
                info.add(shard, topic);
            }
        }
        Ok(topics.into_values().take(limit).collect())
    }

    /// One topic; one that nobody is subscribed to has no subscribers, but may have a policy.
    ///
    /// # Errors
    /// [`QueryError`]: a shard has too much to do, or the server has ended.
    pub async fn topic(&self, topic: &Topic) -> Result<TopicInfo, QueryError> {
        let mut info = self.no_topic(topic.as_str());
        for shard in 0..self.inner.shards.len() {
            let name = topic.to_string();
            info.add(shard, self.ask(shard, |answer| Query::Topic { name, answer }).await?);
        }
        Ok(info)
    }

    /// Sets the policy for slow consumers of a topic in place of the server's; `None`: takes it back. It holds for
    /// what is published from then on, until the server ends.
    ///
    /// # Errors
    /// [`PolicyError`]: as many topics as may have a policy of their own, or a shard has too much to do.
    pub fn set_slow_consumer(&self, topic: &Topic, policy: Option<SlowConsumer>) -> Result<(), PolicyError> {
        let mut outside = self.outside();
        let policies = &mut outside.policies;
        if policy.is_some() && !policies.contains_key(topic) && policies.len() >= TOPIC_POLICIES_MAX {
            return Err(PolicyError::TooMany { max: TOPIC_POLICIES_MAX });
        }
        let mut places = Vec::with_capacity(self.inner.shards.len());
        for shard in &self.inner.shards {
            match shard.entrances.commands.reserve() {
                Ok(place) => places.push(place),
                // It publishes nothing any more.
                Err(NoPlace::Ended) => {}
                Err(NoPlace::Full) => return Err(PolicyError::Busy),
            }
        }
        match policy {
            Some(policy) => policies.insert(topic.clone(), policy),
            None => policies.remove(topic),
        };
        for place in places {
            place.fill(Command::SetPolicy { topic: topic.clone(), policy });
        }
        Ok(())
    }

    fn outside(&self) -> MutexGuard<'_, Outside> {
        self.inner.publishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_topic(&self, name: &str) -> TopicInfo {
        TopicInfo {
            name: name.to_owned(),
            subscribers: vec![0; self.inner.shards.len()],
            published: 0,
            written: 0,
            dropped: 0,
            slow_consumer: None,
        }
    }

    /// Asks one shard and waits for its answer.
    async fn ask<T>(&self, shard: usize, question: impl FnOnce(Sender<T>) -> Query) -> Result<T, QueryError> {
        let (answer, answers) = async_channel::bounded(1);
        match self.inner.shards[shard].entrances.commands.reserve() {
            Ok(place) => place.fill(Command::Query(question(answer))),
            Err(NoPlace::Full) => return Err(QueryError::Busy { shard }),
            Err(NoPlace::Ended) => return Err(QueryError::Down),
        }
        answers.recv().await.map_err(|_| QueryError::Down)
    }
}

/// Where a page of connections begins. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCursor {
    shard: usize,
    slot: u32,
}

impl fmt::Display for ConnectionCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shard, self.slot)
    }
}

impl FromStr for ConnectionCursor {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        ConnectionCursor::read(text).map_err(ParseError::new)
    }
}

impl ConnectionCursor {
    fn read(text: &str) -> Result<Self, String> {
        let parse = || {
            let (shard, slot) = text.split_once('.')?;
            Some(ConnectionCursor { shard: shard.parse().ok()?, slot: slot.parse().ok()? })
        };
        parse().ok_or_else(|| format!("`{text}` is not a cursor; use the one that came with the page before"))
    }
}

/// A topic, over all shards. Counts begin when it first has a subscriber on a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Subscribers by shard.
    pub subscribers: Vec<usize>,
    /// Messages published to it while it had subscribers.
    pub published: u64,
    /// Messages of it that were written to a subscriber within their batch.
    pub written: u64,
    /// Messages of it that a subscriber missed within their batch.
    pub dropped: u64,
    /// The policy that was set for it.
    pub slow_consumer: Option<SlowConsumer>,
}

impl TopicInfo {
    fn add(&mut self, shard: usize, part: ShardTopic) {
        self.subscribers[shard] = part.subscribers;
        // Every shard with subscribers delivers each publish.
        self.published = self.published.max(part.published);
        self.written += part.written;
        self.dropped += part.dropped;
        self.slow_consumer = self.slow_consumer.or(part.policy);
    }
}

/// Why a connection was not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The connection is not open.
    #[error("the connection is not open")]
    NotOpen,
    /// As many closes wait for its shard as may.
    #[error("the server is busy: as many closes wait for a shard as may; try again later")]
    Busy,
}

/// Why a question was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The connection that was asked about is not open.
    #[error("the connection is not open")]
    NotOpen,
    /// As many questions wait for a shard as may; try again later.
    #[error("shard {shard} is busy: as many questions wait for it as may; try again later")]
    Busy {
        /// The shard.
        shard: usize,
    },
    /// The server has shut down.
    #[error("the server has shut down")]
    Down,
}

/// Why a topic's policy was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// As many topics as may have a policy of their own.
    #[error("at most {max} topics may have a policy of their own; take one back first")]
    TooMany {
        /// Topics allowed.
        max: usize,
    },
    /// As many questions wait for a shard as may.
    #[error("the server is busy: as many questions wait for a shard as may; try again later")]
    Busy,
}
