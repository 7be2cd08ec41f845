//! What a handler's callback may do: a shard's state, seen from one connection.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;

use crate::config::Framing;
use crate::engine::Engine;
use crate::engine::table::Key;
use crate::handler::{Actions, PublishError, SendError, SubscribeError};
use crate::message::{CloseReason, ConnId, Dialect, Kind, PublishId, Target, Topic};
use crate::protocol::Encoding;

/// A shard's state, seen from the callback of one connection.
pub(crate) struct Scope<'a> {
    pub(crate) core: &'a mut Engine,
    pub(crate) key: Key,
    pub(crate) id: ConnId,
}

impl Scope<'_> {
    /// The connection's encoding. Callbacks begin when it is settled, and it is gone only when they are over.
    fn encoding(&self) -> Encoding {
        self.core.table.get(self.key).and_then(|connection| connection.encoding).unwrap_or(Encoding::Line)
    }
}

impl Actions for Scope<'_> {
    fn peer(&self) -> SocketAddr {
        let row = self.core.registry.get(self.id);
        row.map_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), |row| row.peer())
    }

    fn framing(&self) -> Framing {
        self.encoding().framing()
    }

    fn dialect(&self) -> Dialect {
        self.encoding().dialect()
    }

    fn shard(&self) -> usize {
        self.core.index
    }

    fn send(&mut self, kind: Kind, message: &[u8]) -> Result<(), SendError> {
        self.core.reply(self.key, kind, message)
    }

    fn close(&mut self) {
        self.core.close(self.key, CloseReason::Handler);
    }

    fn publish(&mut self, target: Target, kind: Kind, payload: Bytes) -> Result<PublishId, PublishError> {
        self.core.publish(target, kind, payload)
    }

    fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        let settings = &self.core.settings;
        Topic::check(topic.as_bytes(), settings.topic_bytes_max)?;
        if self.core.table.get(self.key).is_none_or(|connection| connection.closing.is_some()) {
            return Err(SubscribeError::Closed);
        }
        if self.core.topics.count(self.key) >= settings.topics_max && !self.is_subscribed(topic) {
            return Err(SubscribeError::TooMany { max: settings.topics_max });
        }
        if self.core.registry.excess().is_some() && !self.is_subscribed(topic) {
            return Err(SubscribeError::Full);
        }
        Ok(self.core.topics.subscribe(self.key, topic))
    }

    fn unsubscribe(&mut self, topic: &str) -> bool {
        self.core.topics.unsubscribe(self.key, topic)
    }

    fn topics(&self) -> usize {
        self.core.topics.count(self.key)
    }

    fn is_subscribed(&self, topic: &str) -> bool {
        self.core.topics.is_subscribed(self.key, topic)
    }
}
