//! What every subscribed connection does, whatever is measured on it.

use super::LoadError;
use super::dialect::{Dialect, Reply, readable, split_word};
use super::link::Link;
use super::plan::Plan;
use super::scenario::Step;

/// Says hello and judges the answer.
#[derive(Debug)]
pub(super) struct Subscriber {
    hello: Vec<u8>,
    /// The same in words.
    hello_text: String,
    ping: Vec<u8>,
    dialect: Dialect,
    target: std::net::SocketAddr,
    server: String,
}

impl Subscriber {
    pub(super) fn new(plan: &Plan, topic: &str) -> Subscriber {
        Subscriber {
            hello: plan.dialect.subscribe(topic),
            hello_text: readable(plan.dialect.subscribe_text(topic).as_bytes()),
            ping: plan.dialect.ping(),
            dialect: plan.dialect,
            target: plan.target,
            server: plan.server_command(),
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn greet(&self, link: &mut Link) {
        link.send(&self.hello);
    }

    /// Whether a ping of this client has an answer.
    pub(super) fn can_ping(&self) -> bool {
        !self.dialect.is_one_way()
    }

    pub(super) fn ping(&self, link: &mut Link) {
        if self.can_ping() {
            link.send(&self.ping);
        }
    }

    /// Judges a reply that the scenario has no use for itself.
    pub(super) fn answer(&self, link: &mut Link, reply: Reply<'_>, message: &[u8]) -> Result<Step, LoadError> {
        match reply {
            Reply::Subscribed | Reply::Pong => Ok(Step::Ready),
            Reply::Greeting | Reply::Upgraded => Ok(Step::Stay),
            Reply::Ping => {
                link.send(&self.dialect.pong(message));
                Ok(Step::Stay)
            }
            Reply::Error(error) => Ok(Step::Close(format!("ERR {}", readable(self.dialect.error_kind(error))))),
            Reply::Bye(reason) => Ok(Step::Close(format!("BYE {}", readable(split_word(reason).0)))),
            _ if link.is_ready() => Ok(Step::Stay),
            _ => Err(LoadError::WrongServer {
                target: self.target,
                sent: self.hello_text.clone(),
                said: readable(message),
                server: self.server.clone(),
            }),
        }
    }
}
