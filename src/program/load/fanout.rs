//! Fan-out: subscribers that check what they get, and measure how late it is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::LoadError;
use super::deliveries::{Deliveries, Published};
use super::dialect::Reply;
use super::link::Link;
use super::payload::Template;
use super::plan::{FanoutPlan, Plan};
use super::scenario::{Scenario, Step};
use super::shared::{Counts, Phase, Totals};
use super::subscriber::Subscriber;
use super::tally::{Arrival, Tally};

/// Messages whose last recipient is noted; of more of them, every second, third … one.
const LAST_SAMPLES_MAX: u32 = 1 << 20;

/// The topic under which a server reports gaps of many topics together.
pub(super) const ANY_TOPIC: &[u8] = b"*";

/// Checks and measures what subscribers get.
pub(super) struct Fanout {
    plan: Arc<Plan>,
    fanout: FanoutPlan,
    subscriber: Subscriber,
    template: Template,
    is_settling: bool,
    result: FanoutResult,
    accounted: u64,
    listening: u64,
}

/// What one thread has seen; of stalled subscribers only their number.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct FanoutResult {
    pub(super) deliveries: Deliveries,
    /// The longest latency of each noted message, in nanoseconds; 0 if none came.
    pub(super) last_ns: Vec<u64>,
    /// What each subscriber got that is open at the end.
    pub(super) tallies: Vec<Tally>,
    /// Subscribers that were told to stall, connected ones.
    pub(super) stalled: u64,
}

/// A subscriber.
pub(super) struct FanoutConn {
    tally: Tally,
    is_stalled: bool,
}

impl Fanout {
    pub(super) fn new(plan: &Arc<Plan>, fanout: &FanoutPlan) -> Fanout {
        let publish = &fanout.publish;
        let noted = publish.messages.div_ceil(last_stride(publish.messages));
        Fanout {
            plan: plan.clone(),
            fanout: fanout.clone(),
            subscriber: Subscriber::new(plan, &publish.topic),
            template: Template::new(publish.message_bytes, |payload| {
                plan.dialect.publishing().publish(&publish.topic, payload)
            }),
            is_settling: false,
            result: FanoutResult { last_ns: vec![0; noted as usize], ..FanoutResult::default() },
            accounted: 0,
            listening: 0,
        }
    }

    fn delivered(&mut self, conn: &mut FanoutConn, topic: Option<&[u8]>, payload: &[u8], now: u64) {
        let publish = &self.fanout.publish;
        let published = Published {
            run: self.plan.run,
            topic: &publish.topic,
            messages: publish.messages,
            template: &self.template,
        };
        let Some(stamp) = self.result.deliveries.check(&published, topic, payload) else { return };
        if conn.tally.receive(stamp.seq) == Arrival::Duplicate {
            return;
        }
        let latency = self.result.deliveries.receive(stamp, now);
        self.accounted += 1;
        let stride = last_stride(publish.messages);
        if stamp.seq.is_multiple_of(stride) {
            let last = &mut self.result.last_ns[(stamp.seq / stride) as usize];
            *last = latency.max(*last).max(1);
        }
    }
}

/// Every how many messages the last recipient is noted, so that there are not more than the memory allows.
fn last_stride(messages: u32) -> u32 {
    messages.div_ceil(LAST_SAMPLES_MAX).max(1)
}

impl Scenario for Fanout {
    type Conn = FanoutConn;
    type Result = FanoutResult;

    fn conn(&self, index: usize) -> FanoutConn {
        FanoutConn { tally: Tally::default(), is_stalled: self.fanout.is_stalled(index) }
    }

    fn is_stalled(&self, conn: &FanoutConn) -> bool {
        conn.is_stalled
    }

    fn greet(&mut self, link: &mut Link, _conn: &mut FanoutConn, _now: u64) {
        self.subscriber.greet(link);
    }

    fn message(&mut self, link: &mut Link, conn: &mut FanoutConn, message: &[u8], now: u64) -> Result<Step, LoadError> {
        if conn.is_stalled && link.is_ready() {
            return Ok(Step::Stay);
        }
        match self.subscriber.dialect().reply(message) {
            Reply::Message { topic, payload } if link.is_ready() => self.delivered(conn, topic, payload, now),
            Reply::Gap { topic, count } if topic == self.fanout.publish.topic.as_bytes() || topic == ANY_TOPIC => {
                conn.tally.gap(count);
                self.accounted += count;
                self.result.deliveries.gap(count, now);
            }
            Reply::Gap { .. } => {}
            Reply::Pong if link.is_ready() => {}
            reply => {
                let step = self.subscriber.answer(link, reply, message)?;
                if step == Step::Ready && !link.is_ready() {
                    if conn.is_stalled {
                        self.result.stalled += 1;
                    } else {
                        self.listening += 1;
                    }
                }
                return Ok(step);
            }
        }
        Ok(Step::Stay)
    }

    fn keep_alive(&mut self, link: &mut Link, _conn: &mut FanoutConn, _now: u64) {
        if !self.is_settling {
            self.subscriber.ping(link);
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.is_settling = phase >= Phase::Settling;
    }

    fn closed(&mut self, link: &Link, conn: &mut FanoutConn) {
        if link.is_ready() && !conn.is_stalled {
            self.listening -= 1;
        }
        self.accounted -= conn.tally.accounted();
        conn.tally = Tally::default();
    }

    fn counts(&self) -> Counts {
        Counts {
            received: self.result.deliveries.received,
            accounted: self.accounted,
            listening: self.listening,
            outstanding: 0,
        }
    }

    fn p99_ns(&self) -> u64 {
        self.result.deliveries.latency.at(0.99)
    }

    fn is_settled(totals: &Totals) -> bool {
        let expected = (totals.published - totals.refused) * totals.counts.listening;
        totals.publisher_done && totals.counts.accounted >= expected
    }

    fn finish(mut self, conns: impl Iterator<Item = (FanoutConn, bool)>) -> FanoutResult {
        let open = conns.filter(|(conn, is_open)| *is_open && !conn.is_stalled);
        self.result.tallies = open.map(|(conn, _)| conn.tally).collect();
        self.result
    }
}
