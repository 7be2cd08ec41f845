//! What a server does with its connections: the [`Handler`] trait and the [`Context`] its callbacks act through.

use std::net::SocketAddr;

use bytes::Bytes;
use thiserror::Error;

use crate::config::Framing;
use crate::message::{CloseReason, ConnId, Dialect, DropReason, Kind, Payload, PublishId, Target, Topic, TopicError};

/// The behaviour of a server. Each shard has an instance of its own and calls it on that shard's core alone.
///
/// Callbacks must not block: all connections of the shard wait for them. They get a [`Context`], which acts
/// at once and never waits. State of one connection is best kept in a map by [`ConnId`], filled in
/// `on_connect` and emptied in `on_close`.
pub trait Handler: 'static {
    /// A connection was accepted; one over HTTP, once its request has opened a WebSocket or an event stream.
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
        cx.close();
    }

    /// A whole message came in. `message` is valid for the length of the call; copy what must stay.
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]);

    /// The connection is gone: nothing can be sent to it any more. Called once for each `on_connect`.
    fn on_close(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
        let _ = (cx, reason);
    }

    /// Writes the message that tells clients of a dialect of `event`, and says of what kind it is; `None`: there is none
    /// to send.
    ///
    /// It is called once per publish, shard and encoding, not per client, so it depends on its arguments alone.
    /// By default payloads go out as they are, of their own kind, and clients are not told of gaps, errors and the server's
    /// farewell; a handler with a language of its own puts all of them into words.
    fn render(event: Event<'_>, dialect: Dialect, out: &mut Vec<u8>) -> Option<Kind> {
        let _ = dialect;
        match event {
            Event::Publish { payload, kind, .. }
            | Event::Broadcast { payload, kind }
            | Event::Direct { payload, kind } => {
                out.extend_from_slice(payload);
                Some(kind)
            }
            Event::Gap { .. } | Event::Error { .. } | Event::Bye { .. } => None,
        }
    }
}

/// Something that clients are told of, for [`Handler::render`] to put into bytes.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A message published to a topic.
    Publish {
        /// The topic.
        topic: &'a Topic,
        /// The message.
        payload: &'a [u8],
        /// Its kind.
        kind: Kind,
    },
    /// A message to everyone.
    Broadcast {
        /// The message.
        payload: &'a [u8],
        /// Its kind.
        kind: Kind,
    },
    /// A message to this one connection, from elsewhere.
    Direct {
        /// The message.
        payload: &'a [u8],
        /// Its kind.
        kind: Kind,
    },
    /// Messages did not reach this client.
    Gap {
        /// Their topic; `None`: broadcasts, messages to this connection, or several topics.
        topic: Option<&'a Topic>,
        /// How many.
        count: u64,
        /// Why.
        reason: DropReason,
    },
    /// The client's bytes can't be cut into messages.
    Error {
        /// A stable word in kebab-case.
        code: &'static str,
        /// What is wrong and what would be right.
        text: &'a str,
    },
    /// The server is about to close the connection.
    Bye {
        /// Why.
        reason: CloseReason,
    },
}

impl Event<'_> {
    /// What server-sent events call it; `None`: by no name of its own, as browsers call what has none `message`.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self {
            Event::Publish { .. } | Event::Broadcast { .. } | Event::Direct { .. } => None,
            Event::Gap { .. } => Some("gap"),
            Event::Error { .. } => Some("err"),
            Event::Bye { .. } => Some("bye"),
        }
    }
}

/// Why [`Context::send`] did not take a message. It never waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The connection's outbox is full and its socket takes nothing.
    #[error("the connection's queue is full")]
    QueueFull,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
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
    /// The server has shut down.
    #[error("the server has shut down")]
    Down,
}

/// Why a subscription was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
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
    /// The connection is closed.
    #[error("the connection is closed")]
    Closed,
}

/// What a shard does for a callback on the connection it is called for.
pub(crate) trait Actions {
    fn peer(&self) -> SocketAddr;
    fn framing(&self) -> Framing;
    fn dialect(&self) -> Dialect;
    fn shard(&self) -> usize;
    fn send(&mut self, kind: Kind, message: &[u8]) -> Result<(), SendError>;
    fn close(&mut self);
    fn publish(&mut self, target: Target, kind: Kind, payload: Bytes) -> Result<PublishId, PublishError>;
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
        self.actions.close();
    }

    /// Sends `payload` to the subscribers of `topic`, on all shards, each of which gets what
    /// [`Handler::render`] makes of it. One publisher's messages arrive in the order of its publishes. A payload whose
    /// kind is open is of the [kind](Context::kind) of the message that came in.
    ///
    /// # Errors
    /// The publish was refused and reaches nobody.
    pub fn publish(&mut self, topic: &str, payload: impl Into<Payload>) -> Result<PublishId, PublishError> {
        let topic = Topic::new(topic.as_bytes())?;
        self.publish_to(Target::Topic(topic), payload.into())
    }

    /// Sends `payload` to every connection of the server.
    ///
    /// # Errors
    /// The broadcast was refused and reaches nobody.
    pub fn broadcast(&mut self, payload: impl Into<Payload>) -> Result<PublishId, PublishError> {
        self.publish_to(Target::All, payload.into())
    }

    /// Sends `payload` to another connection, on whichever shard it is. Whether that connection still exists
    /// shows only there: a message that finds nobody is counted as `no-connection`.
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
