//! The push server: clients subscribe to topics, and what is published reaches them.
//!
//! [`Hub`] reads the language that [`language`] defines and acts on its connection. It holds no state of its
//! own: subscriptions live in the shard.

mod json;
mod language;

use std::borrow::Cow;

use crate::config::Config;
use crate::handler::{Context, Event, Handler, PublishError, SubscribeError};
use crate::message::{Dialect, Topic};

pub use language::ErrorCode;
use language::{Command, Mistake, Reply};

/// The handler of the push server.
#[derive(Clone, Debug)]
pub struct Hub {
    client_publish: bool,
    topic_bytes_max: usize,
    topics_per_connection_max: usize,
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
            reply: Vec::new(),
        }
    }

    /// Does what a message asks for, and puts the answer into `out`.
    fn run(&self, cx: &mut Context<'_>, message: &[u8], out: &mut Vec<u8>) -> Result<(), Mistake> {
        let dialect = cx.dialect();
        let command = match dialect {
            Dialect::Text => language::parse(message, self.topic_bytes_max)?,
            Dialect::Json | Dialect::Sse => json::parse(message, self.topic_bytes_max)?,
        };
        match command {
            Command::Subscribe(topics) => {
                self.subscribe(cx, &topics)?;
                write_reply(dialect, &Reply::Topics { verb: "SUB", topics: &topics }, out);
            }
            Command::Unsubscribe(topics) => {
                for topic in &topics {
                    cx.unsubscribe(topic);
                }
                write_reply(dialect, &Reply::Topics { verb: "UNSUB", topics: &topics }, out);
            }
            Command::Publish { topic, payload } => {
                self.check_publishing()?;
                let id = cx.publish(&topic, payload.into_owned())?;
                write_reply(dialect, &Reply::Published { verb: "PUB", id }, out);
            }
            Command::Cast { payload } => {
                self.check_publishing()?;
                let id = cx.broadcast(payload.into_owned())?;
                write_reply(dialect, &Reply::Published { verb: "CAST", id }, out);
            }
            Command::Ping { text } => write_reply(dialect, &Reply::Pong { text: text.as_deref() }, out),
            Command::Id => write_reply(dialect, &Reply::Id { id: cx.id() }, out),
        }
        Ok(())
    }

    /// Subscribes to all of the topics, or to none.
    fn subscribe(&self, cx: &mut Context<'_>, topics: &[Cow<'_, str>]) -> Result<(), Mistake> {
        let new = topics.iter().filter(|topic| !cx.is_subscribed(topic)).count();
        // Two new names that are the same count twice here, which only a careless client meets.
        if cx.topics() + new > self.topics_per_connection_max {
            return Err(SubscribeError::TooMany { max: self.topics_per_connection_max }.into());
        }
        for topic in topics {
            cx.subscribe(topic)?;
        }
        Ok(())
    }

    /// Sends the answer that `answer` makes, or what it says is wrong.
    fn reply(
        &mut self,
        cx: &mut Context<'_>,
        answer: impl FnOnce(&Self, &mut Context<'_>, &mut Vec<u8>) -> Result<(), Mistake>,
    ) {
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        if let Err(mistake) = answer(self, cx, &mut reply) {
            reply.clear();
            write_reply(cx.dialect(), &Reply::Error(&mistake), &mut reply);
        }
        // A shard reads a connection only while its outbox has room for the reply, so a refusal means that
        // the connection is closing.
        let _ = cx.send(&reply);
        self.reply = reply;
    }

    fn check_publishing(&self) -> Result<(), Mistake> {
        if self.client_publish { Ok(()) } else { Err(Mistake::publish_forbidden()) }
    }
}

impl Handler for Hub {
    fn on_topics(&mut self, cx: &mut Context<'_>, topics: &[String]) {
        let topics: Vec<_> = topics.iter().map(|topic| Cow::Borrowed(topic.as_str())).collect();
        // Whoever reads an event stream knows by its beginning that it is subscribed.
        if cx.dialect() == Dialect::Sse {
            let _ = self.subscribe(cx, &topics);
            return;
        }
        self.reply(cx, |hub, cx, out| {
            hub.subscribe(cx, &topics)?;
            write_reply(cx.dialect(), &Reply::Topics { verb: "SUB", topics: &topics }, out);
            Ok(())
        });
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        self.reply(cx, |hub, cx, out| hub.run(cx, message, out));
    }

    fn render(event: Event<'_>, dialect: Dialect, out: &mut Vec<u8>) -> bool {
        match dialect {
            Dialect::Text => language::render(event, out),
            Dialect::Json | Dialect::Sse => json::render(event, out),
        }
        true
    }
}

/// Writes a reply in a connection's dialect.
fn write_reply(dialect: Dialect, reply: &Reply<'_>, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Text => language::reply(reply, out),
        Dialect::Json | Dialect::Sse => json::reply(reply, out),
    }
}

impl From<PublishError> for Mistake {
    fn from(error: PublishError) -> Self {
        let code = match error {
            PublishError::Busy | PublishError::Down => ErrorCode::Busy,
            PublishError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            PublishError::Topic(_) => ErrorCode::BadTopic,
        };
        Mistake { code, text: error.to_string() }
    }
}

impl From<SubscribeError> for Mistake {
    fn from(error: SubscribeError) -> Self {
        let code = match error {
            SubscribeError::TooMany { .. } | SubscribeError::Closed => ErrorCode::TooManyTopics,
            SubscribeError::Topic(_) => ErrorCode::BadTopic,
        };
        Mistake { code, text: error.to_string() }
    }
}

/// What a topic is called where no single topic can be named.
pub(crate) fn topic_word(topic: Option<&Topic>) -> &str {
    topic.map_or("*", Topic::as_str)
}
