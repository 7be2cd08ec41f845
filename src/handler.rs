//! What a server does with its connections: the [`Handler`] trait and the [`Context`] its callbacks act through.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use crate::config::Framing;
use crate::event::Event;
use crate::message::{CloseReason, ConnId, Dialect, Kind, Payload, PublishId, Target, TopicError};
use crate::request::{Reject, Request};
#[cfg(feature = "web")]
use crate::routes::{Routes, WebSocket};
use crate::session::Session;

/// The behaviour of a server. Each shard has an instance of its own and calls it on that shard's core alone.
///
/// Callbacks must not block: all connections of the shard wait for them. They get a [`Context`], which acts
/// at once and never waits.
///
/// What is kept of one connection is best kept in its [`Session`]. **What a handler keeps in itself is one shard's**: a
/// counter there counts this shard's connections alone. What concerns all shards goes behind an `Arc` that the instances share,
/// or is asked of the [`ServerHandle`](crate::ServerHandle), which [`ShardContext`](crate::ShardContext) leads to.
///
/// A panic in a callback ends its connection as [`CloseReason::HandlerPanic`], unless
/// [`ServerBuilder::on_panic`](crate::ServerBuilder::on_panic) says otherwise. The handler goes on as it is, so it must not leave
/// its own state half changed where it may panic.
pub trait Handler: 'static {
    /// What is served over HTTP, on addresses of the framing `http`. It is asked once for each shard, as the shard starts.
    ///
    /// By default WebSockets open at `/ws`, without a subprotocol, and `/` lists what there is.
    #[cfg(feature = "web")]
    fn routes(&self) -> Routes {
        Routes::new().websocket("/ws", WebSocket::new())
    }

    /// A client wants to connect: over `line` and `length`, it was accepted; over HTTP, its request for a WebSocket or an event
    /// stream has come in and is not answered yet. Says who it is, or refuses it.
    ///
    /// Nothing can be sent to it here: [`Context::send`] says [`SendError::NotOpen`]. It may be subscribed, and timers may be
    /// set; a refused client loses both. By default everybody is taken, as an anonymous session.
    ///
    /// # Errors
    /// What the client is refused with. No other callback hears of it then.
    fn on_open(&mut self, cx: &mut Context<'_>, request: &Request<'_>) -> Result<Session, Reject> {
        let _ = (cx, request);
        Ok(Session::anonymous())
    }

    /// The client was taken, and can be sent to.
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// The client named topics as it connected, in the URL of a WebSocket or an event stream. They are names that
    /// can be used, each once, and no more than it may have.
    ///
    /// By default the connection is closed: anybody can write any name into a URL, so a handler must decide which of them a
    /// client may read before it subscribes it.
    fn on_topics(&mut self, cx: &mut Context<'_>, topics: &[String]) {
        tracing::debug!(id = %cx.id(), ?topics, "the handler takes no topics from a URL; closing");
        cx.close_with(CLOSE_POLICY, "this server takes no topics from a URL");
    }

    /// A whole message came in. `message` is valid for the length of the call; copy what must stay.
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]);

    /// There is room again for messages to a connection to which [`Context::send`] said [`SendError::QueueFull`]: half of
    /// its queue has emptied. Called once for each time that it was so.
    fn on_writable(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// A timer is due that [`Context::after`] has set, under this token.
    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        let _ = (cx, token);
    }

    /// The connection is gone: nothing can be sent to it any more. Called once for each client that `on_open` took.
    fn on_close(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
        let _ = (cx, reason);
    }

    /// Writes the message that tells clients of a dialect of `event`, and says of what kind it is; `None`: there is none
    /// to send.
    ///
    /// It is called once per publish, shard and encoding, not per client, so it depends on its arguments alone.
    /// By default a payload goes out as it is, of its own kind, and [`Event::write`] tells of gaps, errors and the server's
    /// farewell; a JSON client gets all of them as objects.
    fn render(event: Event<'_>, dialect: Dialect, out: &mut Vec<u8>) -> Option<Kind>
    where
        Self: Sized,
    {
        match event.payload() {
            Some((payload, kind)) if dialect != Dialect::Json => {
                out.extend_from_slice(payload);
                Some(kind)
            }
            _ => Some(event.write(dialect, out)),
        }
    }
}

/// The code with which a WebSocket is closed that breaks the server's rules (RFC 6455, section 7.4.1).
const CLOSE_POLICY: u16 = 1008;

/// The code of a WebSocket's end without a fault.
const CLOSE_NORMAL: u16 = 1000;

/// What a panic in a callback of a [`Handler`] leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnPanic {
    /// The connection that it was called for is closed, as [`CloseReason::HandlerPanic`]. It is counted, and logged at a
    /// bounded rate.
    #[default]
    CloseConnection,
    /// Its shard ends, and with it the server: [`Server::wait`](crate::Server::wait) says so. For handlers whose state can't be
    /// trusted after it.
    EndServer,
}

/// The handlers of one shard, by their numbers.
pub(crate) struct Handlers(Vec<Box<dyn Handler>>);

impl Handlers {
    /// There must be one at least.
    pub(crate) fn new(handlers: Vec<Box<dyn Handler>>) -> Self {
        Handlers(handlers)
    }

    pub(crate) fn get_mut(&mut self, number: u8) -> &mut dyn Handler {
        &mut *self.0[usize::from(number)]
    }

    #[cfg(feature = "web")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &dyn Handler> {
        self.0.iter().map(|handler| &**handler)
    }
}

/// Why [`Context::send`] did not take a message. It never waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection's outbox is full and its socket takes nothing.
    #[error("the connection's queue is full")]
    QueueFull,
    /// The connection is not open: it is closed or closing, or the handler has not taken it yet.
    #[error("the connection is not open")]
    NotOpen,
    /// The message is larger than a queue may be.
    #[error("the message has {len} bytes, more than a queue of {max} bytes takes")]
    TooLarge {
        /// Bytes of the message.
        len: usize,
        /// Bytes a queue takes.
        max: usize,
    },
    /// The connection speaks the line framing and the message holds a line feed.
    #[error("the message holds a line feed, which the line framing can't carry")]
    LineFeed,
    /// The connection speaks the line framing and the message ends in a carriage return.
    #[error("the message ends in a carriage return, which the line framing takes for part of the line's end")]
    CarriageReturn,
    /// The connection reads server-sent events and the message is not UTF-8.
    #[error("the message is not UTF-8, which server-sent events can't carry")]
    NotUtf8,
}

/// Why a publish was refused. Nothing of it was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A queue on the way is full; try again later.
    #[error("the server is busy: a queue of publishes is full; try again later")]
    Busy,
    /// The payload is larger than `max_message`.
    #[error("the payload has {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// Bytes of the payload.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The topic's name can't be used.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The connection that the message is for is not open.
    #[error("the connection is not open")]
    NotOpen,
    /// The server has shut down.
    #[error("the server has shut down")]
    Down,
}

/// Why a subscription was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The connection has as many topics as it may have.
    #[error("a connection may subscribe to at most {max} topics")]
    TooMany {
        /// Topics allowed.
        max: usize,
    },
    /// The topic's name can't be used.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The process has more memory in use than `max_memory`.
    #[error("the server has no memory for more subscriptions; try again later")]
    Full,
    /// The connection is closed or closing.
    #[error("the connection is not open")]
    NotOpen,
}

/// Why a timer was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TimerError {
    /// The connection has as many timers as it may have.
    #[error("a connection may have at most {max} timers at a time")]
    TooMany {
        /// Timers allowed.
        max: usize,
    },
    /// The connection is closed or closing.
    #[error("the connection is not open")]
    NotOpen,
}

/// What a shard does for a callback on the connection it is called for.
pub(crate) trait Actions {
    fn peer(&self) -> SocketAddr;
    fn framing(&self) -> Framing;
    fn dialect(&self) -> Dialect;
    fn shard(&self) -> usize;
    fn send(&mut self, kind: Kind, message: &[u8]) -> Result<(), SendError>;
    fn close(&mut self, words: Option<(u16, &str)>);
    fn after(&mut self, delay: Duration, token: u64) -> Result<(), TimerError>;
    fn cancel(&mut self, token: u64) -> bool;
    fn session(&mut self) -> Option<&mut Session>;
    fn set_session(&mut self, session: Session);
    fn publish(&mut self, target: Target, kind: Kind, payload: Bytes) -> Result<PublishId, PublishError>;
    fn publish_to_topic(&mut self, topic: &str, kind: Kind, payload: Bytes) -> Result<PublishId, PublishError>;
    fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError>;
    fn unsubscribe(&mut self, topic: &str) -> bool;
    fn topics(&self) -> usize;
    fn is_subscribed(&self, topic: &str) -> bool;
}

/// The connection a callback is about, and what can be done from there.
pub struct Context<'a> {
    id: ConnId,
    /// The kind of the message that came in.
    kind: Kind,
    actions: &'a mut dyn Actions,
}

impl<'a> Context<'a> {
    pub(crate) fn new(id: ConnId, kind: Kind, actions: &'a mut dyn Actions) -> Self {
        Context { id, kind, actions }
    }

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.actions.peer()
    }

    /// How the connection's messages are framed.
    pub fn framing(&self) -> Framing {
        self.actions.framing()
    }

    /// The form in which the client wants messages.
    pub fn dialect(&self) -> Dialect {
        self.actions.dialect()
    }

    /// The kind of the message that [`Handler::on_message`] is called with. Only WebSockets tell kinds apart; over the
    /// other framings, and in the other callbacks, it is [`Kind::Text`].
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of the shard that holds the connection.
    pub fn shard(&self) -> usize {
        self.actions.shard()
    }

    /// Sends a message to this connection, of the same [kind](Context::kind) as the one that came in. It is queued, and
    /// written together with what else waits when the shard's current batch ends.
    ///
    /// # Errors
    /// [`SendError::QueueFull`] at once when the outbox is full and the socket is not writable; the message
    /// is then not sent. The other errors say what is wrong with the message or the connection.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_as(self.kind, message)
    }

    /// Sends a message of this kind, as [`Context::send`] does.
    ///
    /// # Errors
    /// As of [`Context::send`].
    pub fn send_as(&mut self, kind: Kind, message: &[u8]) -> Result<(), SendError> {
        self.actions.send(kind, message)
    }

    /// Closes this connection once what is queued has been written. Further calls do nothing.
    pub fn close(&mut self) {
        self.actions.close(None);
    }

    /// Closes this connection as [`Context::close`] does, with last words: a WebSocket's client gets them as the code and the
    /// reason of its close event (up to 123 bytes), and [`Handler::render`] gets the text as part of [`Event::Bye`].
    ///
    /// Codes from 4000 to 4999 are free for applications; 1000 to 1014 have meanings of their own (RFC 6455, section 7.4).
    /// Others, and those that must not be sent (1004, 1005, 1006), count as 1000.
    pub fn close_with(&mut self, code: u16, text: &str) {
        let is_sendable = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        self.actions.close(Some((if is_sendable { code } else { CLOSE_NORMAL }, text)));
    }

    /// Has [`Handler::on_timer`] called for this connection after `delay`, once, with `token`. A timer that runs under the
    /// same token is set anew. Timers go with their connection.
    ///
    /// They are coarse: one comes up to half a second late. Time in which the machine or the process was paused is left out.
    ///
    /// # Errors
    /// The connection has as many timers as it may have, or is closing.
    pub fn after(&mut self, delay: Duration, token: u64) -> Result<(), TimerError> {
        self.actions.after(delay, token)
    }

    /// Ends the timer of a token; `false`: none runs.
    pub fn cancel(&mut self, token: u64) -> bool {
        self.actions.cancel(token)
    }

    /// The name of the connection's user; `None`: it is anonymous.
    pub fn user(&mut self) -> Option<&str> {
        self.actions.session()?.user()
    }

    /// What the handler keeps of this connection; `None`: nothing of this type.
    pub fn state<T: std::any::Any + Send>(&mut self) -> Option<&mut T> {
        self.actions.session()?.state()
    }

    /// Puts another session in place of the connection's, as of a client that has logged in by a message.
    pub fn set_session(&mut self, session: Session) {
        self.actions.set_session(session);
    }

    /// Sends `payload` to the subscribers of `topic`, on all shards, each of which gets what
    /// [`Handler::render`] makes of it. One publisher's messages arrive in the order of its publishes. A payload whose
    /// kind is open is of the [kind](Context::kind) of the message that came in.
    ///
    /// # Errors
    /// The publish was refused and reaches nobody.
    pub fn publish(&mut self, topic: &str, payload: impl Into<Payload>) -> Result<PublishId, PublishError> {
        let (bytes, kind) = payload.into().into_parts(self.kind);
        self.actions.publish_to_topic(topic, kind, bytes)
    }

    /// Sends `payload` to every connection of the server.
    ///
    /// # Errors
    /// The broadcast was refused and reaches nobody.
    pub fn broadcast(&mut self, payload: impl Into<Payload>) -> Result<PublishId, PublishError> {
        self.publish_to(Target::All, payload.into())
    }

    /// Sends `payload` to another connection, on whichever shard it is. Whether that connection is still open shows only
    /// there: a message that finds nobody is counted as `no-connection`.
    ///
    /// # Errors
    /// The message was refused.
    pub fn send_to(&mut self, id: ConnId, payload: impl Into<Payload>) -> Result<PublishId, PublishError> {
        self.publish_to(Target::Conn(id), payload.into())
    }

    fn publish_to(&mut self, target: Target, payload: Payload) -> Result<PublishId, PublishError> {
        let (bytes, kind) = payload.into_parts(self.kind);
        self.actions.publish(target, kind, bytes)
    }

    /// Subscribes this connection to a topic; `false`: it was subscribed already.
    ///
    /// # Errors
    /// The topic's name can't be used, or the connection has as many topics as it may have.
    pub fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        self.actions.subscribe(topic)
    }

    /// Ends a subscription of this connection; `false`: there was none. A closed connection loses all of its
    /// subscriptions by itself.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        self.actions.unsubscribe(topic)
    }

    /// How many topics this connection is subscribed to.
    pub fn topics(&self) -> usize {
        self.actions.topics()
    }

    /// Whether this connection is subscribed to a topic.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        self.actions.is_subscribed(topic)
    }
}
