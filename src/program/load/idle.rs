//! Idle connections: subscribed, silent but for a PING now and then.

use serde::{Deserialize, Serialize};

use super::LoadError;
use super::dialect::Reply;
use super::latency::Latency;
use super::link::Link;
use super::plan::Plan;
use super::scenario::{Scenario, Step};
use super::shared::{Counts, Phase};
use super::subscriber::Subscriber;
use super::timeline::{Arrivals, Timeline};

/// Holds connections.
pub(super) struct Idle {
    subscriber: Subscriber,
    is_settling: bool,
    result: IdleResult,
    /// Pings that wait for their answer.
    outstanding: u64,
}

/// What one thread has seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct IdleResult {
    pub(super) pings: u64,
    pub(super) answered: u64,
    /// Pings without an answer on connections that are open.
    pub(super) unanswered: u64,
    pub(super) rtt: Latency,
    /// Answered pings, by the time of the answer.
    pub(super) over_time: Timeline<Arrivals>,
}

/// An idle connection.
pub(super) struct IdleConn {
    /// When the ping was sent that has no answer yet.
    pinged_ns: Option<u64>,
}

impl Idle {
    pub(super) fn new(plan: &Plan, topic: &str) -> Idle {
        Idle {
            subscriber: Subscriber::new(plan, topic),
            is_settling: false,
            result: IdleResult::default(),
            outstanding: 0,
        }
    }
}

impl Scenario for Idle {
    type Conn = IdleConn;
    type Result = IdleResult;

    fn conn(&self, _index: usize) -> IdleConn {
        IdleConn { pinged_ns: None }
    }

    fn greet(&mut self, link: &mut Link, _conn: &mut IdleConn, _now: u64) {
        self.subscriber.greet(link);
    }

    fn message(&mut self, link: &mut Link, conn: &mut IdleConn, message: &[u8], now: u64) -> Result<Step, LoadError> {
        match self.subscriber.dialect().reply(message) {
            Reply::Pong if link.is_ready() => {
                if let Some(pinged_ns) = conn.pinged_ns.take() {
                    self.outstanding -= 1;
                    self.result.answered += 1;
                    self.result.rtt.record(now - pinged_ns);
                    self.result.over_time.at(now).spans.record(now - pinged_ns);
                }
                Ok(Step::Stay)
            }
            reply => self.subscriber.answer(link, reply, message),
        }
    }

    fn keep_alive(&mut self, link: &mut Link, conn: &mut IdleConn, now: u64) {
        // A ping that had no answer in a whole period is reported in the end; a second one would hide it.
        if self.is_settling || conn.pinged_ns.is_some() || !self.subscriber.can_ping() {
            return;
        }
        conn.pinged_ns = Some(now);
        self.outstanding += 1;
        self.result.pings += 1;
        self.subscriber.ping(link);
    }

    fn enter(&mut self, phase: Phase) {
        self.is_settling = phase >= Phase::Settling;
    }

    fn closed(&mut self, _link: &Link, conn: &mut IdleConn) {
        self.outstanding -= u64::from(conn.pinged_ns.take().is_some());
    }

    fn counts(&self) -> Counts {
        Counts { received: self.result.answered, outstanding: self.outstanding, ..Counts::default() }
    }

    fn p99_ns(&self) -> u64 {
        self.result.rtt.at(0.99)
    }

    fn finish(mut self, _conns: impl Iterator<Item = (IdleConn, bool)>) -> IdleResult {
        self.result.unanswered = self.outstanding;
        self.result
    }
}
