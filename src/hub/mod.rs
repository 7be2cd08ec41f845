//! The push server: clients subscribe to topics, and what is published reaches them.
//!
//! [`Hub`] reads the language that [`language`] defines and acts on its connection. It holds no state of its
//! own: subscriptions live in the shard.

pub(crate) mod cause;
mod hints;
#[cfg(feature = "web")]
pub(crate) mod json;
pub(crate) mod language;
#[cfg(feature = "web")]
mod web;

use std::borrow::Cow;

use crate::config::Config;
use crate::event::Event;
use crate::handler::{Context, Handler, PublishError, SendError, SubscribeError};
use crate::message::{Dialect, Kind, Payload};
#[cfg(feature = "web")]
use crate::routes::Routes;

use cause::Cause;
#[cfg(feature = "web")]
use json::Parsed;
pub use language::ErrorCode;
use language::{Command, Mistake, Reply};

/// The handler of the push server.
#[derive(Clone, Debug)]
pub struct Hub {
    client_publish: bool,
    topic_bytes_max: usize,
    topics_per_connection_max: usize,
    #[cfg(feature = "web")]
    demo: bool,
    /// Where replies are put together; kept from call to call, so that a reply costs no allocation.
    reply: Vec<u8>,
}

impl Hub {
    /// A hub with the limits and permissions of `config`.
    pub fn new(config: &Config) -> Self {
        Hub {
            client_publish: config.client_publish,
            topic_bytes_max: config.topic_bytes_max,
            topics_per_connection_max: config.topics_per_connection_max,
            #[cfg(feature = "web")]
            demo: config.demo,
            reply: Vec::new(),
        }
    }

    /// Does what a command asks for, puts the answer into `out`, and says of what kind it is.
    fn run(
        &self,
        cx: &mut Context<'_>,
        command: Command<'_>,
        cause: &Cause<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Kind, Mistake> {
        let dialect = cx.dialect();
        let mut kind = Kind::Text;
        match command {
            Command::Subscribe(topics) => {
                self.subscribe(cx, &topics)?;
                write_reply(dialect, &Reply::Topics { verb: "SUB", topics: &topics }, cause, out);
            }
            Command::Unsubscribe(topics) => {
                for topic in &topics {
                    cx.unsubscribe(topic);
                }
                write_reply(dialect, &Reply::Topics { verb: "UNSUB", topics: &topics }, cause, out);
            }
            Command::Publish { topic, payload, kind } => {
                self.check_publishing()?;
                let payload = Payload::of_kind(kind.unwrap_or(cx.kind()), payload.into_owned());
                let id = cx.publish(&topic, payload)?;
                write_reply(dialect, &Reply::Published { verb: "PUB", id }, cause, out);
            }
            Command::Cast { payload, kind } => {
                self.check_publishing()?;
                let payload = Payload::of_kind(kind.unwrap_or(cx.kind()), payload.into_owned());
                let id = cx.broadcast(payload)?;
                write_reply(dialect, &Reply::Published { verb: "CAST", id }, cause, out);
            }
            Command::Ping { text } => {
                // It goes back as it came; an object is text in any case.
                if dialect == Dialect::Text {
                    kind = cx.kind();
                }
                write_reply(dialect, &Reply::Pong { text: text.as_deref() }, cause, out);
            }
            Command::Id => write_reply(dialect, &Reply::Id { id: cx.id() }, cause, out),
        }
        Ok(kind)
    }

    /// Subscribes to all of the topics, or to none.
    fn subscribe(&self, cx: &mut Context<'_>, topics: &[Cow<'_, str>]) -> Result<(), Mistake> {
        let new = topics.iter().filter(|topic| !cx.is_subscribed(topic)).count();
        // Two new names that are the same count twice here, which only a careless client meets.
        if cx.topics() + new > self.topics_per_connection_max {
            return Err(SubscribeError::TooMany { max: self.topics_per_connection_max }.into());
        }
        let mut added = Vec::new();
        for topic in topics {
            match cx.subscribe(topic) {
                Ok(is_new) => added.extend(is_new.then_some(topic)),
                Err(error) => {
                    for topic in added {
                        cx.unsubscribe(topic);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Carries out a command, and sends the answer or what is wrong.
    fn answer(&mut self, cx: &mut Context<'_>, command: Result<Command<'_>, Mistake>, cause: &Cause<'_>) {
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        // A shard reads a connection only while its outbox has room for the reply, so any other refusal means that the
        // connection is closing.
        let answer = command.and_then(|command| {
            let kind = self.run(cx, command, cause, &mut reply)?;
            match cx.send_as(kind, &reply) {
                Err(error @ SendError::CarriageReturn) => Err(Mistake::unsendable(&error)),
                _ => Ok(()),
            }
        });
        if let Err(mistake) = answer {
            reply.clear();
            write_reply(cx.dialect(), &Reply::Error(&mistake), cause, &mut reply);
            let _ = cx.send_as(Kind::Text, &reply);
        }
        self.reply = reply;
    }

    fn check_publishing(&self) -> Result<(), Mistake> {
        if self.client_publish { Ok(()) } else { Err(Mistake::publish_forbidden()) }
    }
}

impl Handler for Hub {
    #[cfg(feature = "web")]
    fn routes(&self) -> Routes {
        web::routes(self.demo)
    }

    fn on_topics(&mut self, cx: &mut Context<'_>, topics: &[String]) {
        let topics: Vec<_> = topics.iter().map(|topic| Cow::Borrowed(topic.as_str())).collect();
        // Whoever reads an event stream knows by its beginning that it is subscribed.
        if cx.dialect() == Dialect::Sse {
            // One that will stay silent had better come back later.
            if self.subscribe(cx, &topics).is_err() {
                cx.close();
            }
            return;
        }
        self.answer(cx, Ok(Command::Subscribe(topics)), &Cause::Url);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        match cx.dialect() {
            #[cfg(feature = "web")]
            Dialect::Json | Dialect::Sse => {
                let Parsed { id, command } = json::parse(message, self.topic_bytes_max);
                self.answer(cx, command, &Cause::Command(id));
            }
            _ => {
                let command = language::parse(message, self.topic_bytes_max);
                self.answer(cx, command, &Cause::Command(None));
            }
        }
    }

    fn render(event: Event<'_>, dialect: Dialect, out: &mut Vec<u8>) -> Option<Kind> {
        Some(event.write(dialect, out))
    }
}

/// Writes a reply in a connection's dialect.
#[cfg_attr(not(feature = "web"), allow(unused_variables, reason = "words don't repeat what they answer"))]
fn write_reply(dialect: Dialect, reply: &Reply<'_>, cause: &Cause<'_>, out: &mut Vec<u8>) {
    match dialect {
        #[cfg(feature = "web")]
        Dialect::Json | Dialect::Sse => json::reply(reply, cause, out),
        _ => language::reply(reply, out),
    }
}

impl From<PublishError> for Mistake {
    fn from(error: PublishError) -> Self {
        let code = match error {
            // No command of the hub is for one connection.
            PublishError::Busy | PublishError::Down | PublishError::NotOpen => ErrorCode::Busy,
            PublishError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            PublishError::Topic(_) => ErrorCode::BadTopic,
        };
        Mistake { code, text: error.to_string() }
    }
}

impl From<SubscribeError> for Mistake {
    fn from(error: SubscribeError) -> Self {
        let code = match error {
            SubscribeError::TooMany { .. } | SubscribeError::NotOpen => ErrorCode::TooManyTopics,
            SubscribeError::Full => ErrorCode::Full,
            SubscribeError::Topic(_) => ErrorCode::BadTopic,
        };
        Mistake { code, text: error.to_string() }
    }
}
