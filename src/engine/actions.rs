//! What a handler's callback may do: a shard's state, seen from one connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use bytes::Bytes;

use super::connection::Marks;
use super::driver::Driver;
use super::settings::ticks;
use super::visit::Visit;
use crate::config::{Framing, TIMERS_PER_CONNECTION_MAX};
use crate::handler::{Actions, Context, Handler, Handlers, PublishError, SendError, SubscribeError, TimerError};
use crate::message::{CloseReason, Dialect, Kind, PublishId, Target, Topic};
use crate::protocol::{Encoding, Words};
use crate::session::Session;

impl<D: Driver> Visit<'_, D> {
    /// Calls the connection's handler back. `kind`: that of the message that came in. `None`: the handler panicked, and the
    /// connection is closing.
    pub(crate) fn call<T>(
        &mut self,
        handlers: &mut Handlers,
        kind: Kind,
        callback: impl FnOnce(&mut dyn Handler, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let handler = handlers.get_mut(self.row.handler);
        let mut cx = Context::new(self.row.id, kind, self);
        // What the handler left half done in itself is its own; what it did to the shard it did by whole calls.
        match panic::catch_unwind(AssertUnwindSafe(|| callback(handler, &mut cx))) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.base.panics.note(panic, self.base.driver.now());
                // One that is not open yet is closed by whoever opens it.
                if !self.row.marks.has(Marks::OPENING) {
                    self.close(CloseReason::HandlerPanic);
                }
                None
            }
        }
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

    fn close(&mut self, words: Option<(u16, &str)>) {
        if self.row.marks.has(Marks::OPENING) {
            self.row.marks.set(Marks::UNWANTED);
            return;
        }
        let words = words.map(|(code, text)| Words { code, text });
        self.close_with(CloseReason::Handler, words);
    }

    fn after(&mut self, delay: Duration, token: u64) -> Result<(), TimerError> {
        if self.row.closing.is_some() {
            return Err(TimerError::NotOpen);
        }
        let at = self.base.wheel.now().saturating_add(ticks(delay));
        let is_set = self.base.timers.set(self.key, token, at);
        if is_set { Ok(()) } else { Err(TimerError::TooMany { max: TIMERS_PER_CONNECTION_MAX }) }
    }

    fn cancel(&mut self, token: u64) -> bool {
        self.base.timers.cancel(self.key, token)
    }

    fn session(&mut self) -> Option<&mut Session> {
        self.base.sessions.get_mut(&self.key)
    }

    fn set_session(&mut self, session: Session) {
        if session.is_empty() {
            self.base.sessions.remove(&self.key);
        } else {
            self.base.sessions.insert(self.key, session);
        }
    }

    fn publish(&mut self, target: Target, kind: Kind, payload: Bytes) -> Result<PublishId, PublishError> {
        self.base.publish(target, kind, payload)
    }

    fn publish_to_topic(&mut self, topic: &str, kind: Kind, payload: Bytes) -> Result<PublishId, PublishError> {
        // A topic that has subscribers here has been checked, and its name is shared.
        let topic = match self.base.topics.name(topic) {
            Some(topic) => topic.clone(),
            None => Topic::new(topic.as_bytes())?,
        };
        self.base.publish(Target::Topic(topic), kind, payload)
    }

    fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        let settings = &self.base.settings;
        Topic::check(topic.as_bytes(), settings.topic_bytes_max)?;
        if self.row.closing.is_some() {
            return Err(SubscribeError::NotOpen);
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
