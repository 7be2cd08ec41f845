//! What every subscribed connection does, whatever is measured on it.

use super::LoadError;
use super::dialect::{Dialect, Framing, Reply, readable, split_word};
use super::link::Link;
use super::plan::Plan;
use super::scenario::Step;

/// Says hello and judges the answer.
#[derive(Debug)]
pub(super) struct Subscriber {
    hello: Vec<u8>,
    ping: Vec<u8>,
    dialect: Dialect,
    target: std::net::SocketAddr,
    flags: String,
}

impl Subscriber {
    pub(super) fn new(plan: &Plan, topic: &str) -> Subscriber {
        Subscriber {
            hello: plan.dialect.subscribe(topic),
            ping: plan.dialect.ping(),
            dialect: plan.dialect,
            target: plan.target,
            flags: plan.server_flags(),
        }
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
    pub(super) fn answer(&self, link: &Link, reply: Reply<'_>, message: &[u8]) -> Result<Step, LoadError> {
        match reply {
            Reply::Subscribed => Ok(Step::Ready),
            Reply::Upgraded => Ok(Step::Stay),
            Reply::Error(error) => Ok(Step::Close(format!("ERR {}", readable(split_word(error).0)))),
            Reply::Bye(reason) => Ok(Step::Close(format!("BYE {}", readable(split_word(reason).0)))),
            _ if link.is_ready() => Ok(Step::Stay),
            _ => {
                let sent = match self.dialect.framing {
                    Framing::Line | Framing::Length => match self.dialect.decode(&self.hello) {
                        Ok(Some((range, _))) => &self.hello[range],
                        _ => &self.hello,
                    },
                    Framing::Ws | Framing::Sse => self.hello.split(|byte| *byte == b'\r').next().unwrap_or_default(),
                };
                Err(LoadError::WrongServer {
                    target: self.target,
                    sent: readable(sent),
                    said: readable(message),
                    flags: self.flags.clone(),
                })
            }
        }
    }
}
