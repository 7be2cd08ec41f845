//! The push server: clients subscribe to topics, and what is published reaches them.
//!
//! [`Hub`] reads the language that [`language`] defines and acts on its connection. It holds no state of its
//! own: subscriptions live in the shard.

mod language;

use crate::config::Config;
use crate::handler::{Context, Event, Handler, PublishError, SubscribeError};
use crate::message::{Dialect, Topic};

pub use language::ErrorCode;
use language::{Command, Mistake};

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

    fn run(&self, cx: &mut Context<'_>, message: &[u8], reply: &mut Vec<u8>) -> Result<(), Mistake> {
        match language::parse(message, self.topic_bytes_max)? {
            Command::Subscribe(topics) => {
                let new = topics.clone().filter(|topic| !cx.is_subscribed(topic)).count();
                // Two new names that are the same count twice here, which only a careless client meets.
                if cx.topics() + new > self.topics_per_connection_max {
                    return Err(SubscribeError::TooMany { max: self.topics_per_connection_max }.into());
                }
                language::ok_topics(reply, "SUB", topics.clone());
                for topic in topics {
                    cx.subscribe(topic)?;
                }
            }
            Command::Unsubscribe(topics) => {
                language::ok_topics(reply, "UNSUB", topics.clone());
                for topic in topics {
                    cx.unsubscribe(topic);
                }
            }
            Command::Publish { topic, payload } => {
                self.check_publishing()?;
                let id = cx.publish(topic, payload.to_vec())?;
                language::ok_publish(reply, "PUB", id);
            }
            Command::Cast { payload } => {
                self.check_publishing()?;
                let id = cx.broadcast(payload.to_vec())?;
                language::ok_publish(reply, "CAST", id);
            }
            Command::Ping { text } => language::pong(reply, text),
            Command::Id => language::id(reply, cx.id()),
        }
        Ok(())
    }

    fn check_publishing(&self) -> Result<(), Mistake> {
        if self.client_publish { Ok(()) } else { Err(Mistake::publish_forbidden()) }
    }
}

impl Handler for Hub {
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        if let Err(mistake) = self.run(cx, message, &mut reply) {
            reply.clear();
            language::error(&mut reply, mistake.code.name(), &mistake.text);
        }
        // A shard reads a connection only while its outbox has room for the reply, so a refusal means that
        // the connection is closing.
        let _ = cx.send(&reply);
        self.reply = reply;
    }

    fn render(event: Event<'_>, _dialect: Dialect, out: &mut Vec<u8>) -> bool {
        language::render(event, out);
        true
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
