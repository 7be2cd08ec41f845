//! What a handler's callback may do: a shard's state, seen from one connection.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;

use super::driver::Driver;
use super::visit::Visit;
use crate::config::Framing;
use crate::handler::{Actions, Context, PublishError, SendError, SubscribeError};
use crate::message::{CloseReason, Dialect, Kind, PublishId, Target, Topic};
use crate::protocol::Encoding;

impl<D: Driver> Visit<'_, D> {
    /// Calls a handler back about this connection. `kind`: that of the message that came in.
    pub(crate) fn call(&mut self, kind: Kind, callback: impl FnOnce(&mut Context<'_>)) {
        callback(&mut Context::new(self.row.id, kind, self));
    }

    /// The connection's encoding. Callbacks begin when it is settled.
    fn settled(&self) -> Encoding {
        self.row.encoding.expect("a handler hears of a connection once it has said what it speaks")
    }
}

impl<D: Driver> Actions for Visit<'_, D> {
    fn peer(&self) -> SocketAddr {
        let row = self.base.registry.get(self.row.id);
        row.map_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), |row| row.peer())
    }

    fn framing(&self) -> Framing {
        self.settled().framing()
    }

    fn dialect(&self) -> Dialect {
        self.settled().dialect()
    }

    fn shard(&self) -> usize {
        self.base.index
    }

    fn send(&mut self, kind: Kind, message: &[u8]) -> Result<(), SendError> {
        self.reply(kind, message)
    }

    fn close(&mut self) {
        Visit::close(self, CloseReason::Handler);
    }

    fn publish(&mut self, target: Target, kind: Kind, payload: Bytes) -> Result<PublishId, PublishError> {
        self.base.publish(target, kind, payload)
    }

    fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        let settings = &self.base.settings;
        Topic::check(topic.as_bytes(), settings.topic_bytes_max)?;
        if self.row.closing.is_some() {
            return Err(SubscribeError::Closed);
        }
        if self.base.topics.count(self.key) >= settings.topics_max && !self.is_subscribed(topic) {
            return Err(SubscribeError::TooMany { max: settings.topics_max });
        }
        if self.base.registry.excess().is_some() && !self.is_subscribed(topic) {
            return Err(SubscribeError::Full);
        }
        Ok(self.base.topics.subscribe(self.key, topic))
    }

    fn unsubscribe(&mut self, topic: &str) -> bool {
        self.base.topics.unsubscribe(self.key, topic)
    }

    fn topics(&self) -> usize {
        self.base.topics.count(self.key)
    }

    fn is_subscribed(&self, topic: &str) -> bool {
        self.base.topics.is_subscribed(self.key, topic)
    }
}
