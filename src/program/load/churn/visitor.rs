//! Those who come, stay and leave: what they are about to do, and what they hear.

use std::sync::Arc;

use super::plan::ChurnPlan;
use super::{ChurnResult, Visit};
use crate::load::LoadError;
use crate::load::deliveries::Published;
use crate::load::dialect::Reply;
use crate::load::fanout::ANY_TOPIC;
use crate::load::link::Link;
use crate::load::payload::{STAMP_BYTES, Template};
use crate::load::scenario::Step;
use crate::load::shared::Shared;
use crate::load::subscriber::Subscriber;
use crate::load::tally::Arrival;
use crate::load::worker::Post;

/// A subscriber.
#[derive(Default)]
pub(super) struct Visitor {
    pub(super) visit: Visit,
    pub(super) state: State,
}

/// What a subscriber is about to do.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    /// To stay until its time is over. Of those who are not yet subscribed, too.
    #[default]
    Staying,
    /// To leave as soon as all messages before this one have come.
    Leaving { end: u32 },
    /// To see the server close: it has said that it is done.
    Closing { since_ns: u64, end: u32 },
}

/// What the visitors of a thread hear.
pub(super) struct Visitors {
    pub(super) subscriber: Subscriber,
    template: Template,
    churn: ChurnPlan,
    run: u32,
    shared: Arc<Shared>,
    pub(super) result: ChurnResult,
}

impl Visitors {
    pub(super) fn new(post: &Post, churn: &ChurnPlan) -> Visitors {
        let message_bytes = churn.publish.as_ref().map_or(STAMP_BYTES, |publish| publish.message_bytes);
        Visitors {
            subscriber: Subscriber::new(&post.plan, &churn.topic),
            template: Template::new(message_bytes, |payload| post.plan.dialect.publishing().publish("", payload)),
            churn: churn.clone(),
            run: post.plan.run,
            shared: post.shared.clone(),
            result: ChurnResult::default(),
        }
    }

    pub(super) fn message(
        &mut self,
        link: &mut Link,
        visitor: &mut Visitor,
        message: &[u8],
        now: u64,
    ) -> Result<Step, LoadError> {
        match self.subscriber.dialect().reply(message) {
            Reply::Message { topic, payload } if link.is_ready() => self.delivered(visitor, topic, payload, now),
            Reply::Gap { topic, count } if topic == self.churn.topic.as_bytes() || topic == ANY_TOPIC => {
                visitor.visit.gap(count);
                self.result.deliveries.gap(count, now);
            }
            Reply::Gap { .. } => {}
            Reply::Pong if link.is_ready() => {}
            reply => {
                let step = self.subscriber.answer(link, reply, message)?;
                if step == Step::Ready && !link.is_ready() {
                    let begin_ns = self.shared.begin_ns();
                    let first = self.churn.publish.as_ref().map_or(0, |publish| publish.first_after(begin_ns, now));
                    visitor.visit = Visit::from(first);
                }
                return Ok(step);
            }
        }
        Ok(Step::Stay)
    }

    fn delivered(&mut self, visitor: &mut Visitor, topic: Option<&[u8]>, payload: &[u8], now: u64) {
        let published = Published {
            run: self.run,
            topic: &self.churn.topic,
            messages: self.churn.publish.as_ref().map_or(0, |publish| publish.messages),
            template: &self.template,
        };
        let Some(stamp) = self.result.deliveries.check(&published, topic, payload) else { return };
        if visitor.visit.receive(stamp.seq) != Arrival::Duplicate {
            self.result.deliveries.receive(stamp, now);
        }
    }

    pub(super) fn p99_ns(&self) -> u64 {
        self.result.deliveries.latency.at(0.99)
    }
}
