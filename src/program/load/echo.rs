//! Round trips: on each connection one message is under way, and its return sends the next.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::LoadError;
use super::dialect::{Dialect, Reply, readable};
use super::latency::Latency;
use super::link::Link;
use super::payload::{Stamp, Template};
use super::plan::Plan;
use super::scenario::{Scenario, Step};
use super::shared::{Counts, Phase};
use super::timeline::{Arrivals, Timeline};

/// Sends and compares.
pub(super) struct Echo {
    run: u32,
    dialect: Dialect,
    /// What a connection says first, where that is not a message.
    opening: Option<Vec<u8>>,
    template: Template,
    target: SocketAddr,
    server: String,
    phase: Phase,
    result: EchoResult,
    /// Messages of the load that are under way.
    outstanding: u64,
}

/// What one thread has seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct EchoResult {
    /// Messages that came back as they were sent.
    pub(super) round_trips: u64,
    /// Those of them that came back before the time was up.
    pub(super) in_time: u64,
    /// Messages that came back changed.
    pub(super) corrupted: u64,
    /// Messages that came back again.
    pub(super) duplicated: u64,
    /// Messages that did not come back although the connection is open.
    pub(super) unanswered: u64,
    pub(super) rtt: Latency,
    /// Round trips, by the time when they ended.
    pub(super) over_time: Timeline<Arrivals>,
}

/// A connection's message under way.
pub(super) struct EchoConn {
    source: u32,
    /// The number of the next message.
    next: u32,
    waits: Waits,
}

/// What the connection waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Nothing,
    /// For a message that isn't measured: it shows that the server echoes, or that the client lives.
    Probe {
        sent_ns: u64,
    },
    Load {
        sent_ns: u64,
    },
}

impl Echo {
    pub(super) fn new(plan: &Plan, message_bytes: usize) -> Echo {
        Echo {
            run: plan.run,
            dialect: plan.dialect,
            opening: plan.dialect.opening(None),
            template: Template::new(message_bytes, |payload| plan.dialect.echo(payload)),
            target: plan.target,
            server: plan.server_command(),
            phase: Phase::Connecting,
            result: EchoResult::default(),
            outstanding: 0,
        }
    }

    fn send(&mut self, link: &mut Link, conn: &mut EchoConn, now: u64) {
        let stamp = Stamp { run: self.run, source: conn.source, seq: conn.next, at_ns: now };
        conn.next = conn.next.wrapping_add(1);
        link.send(self.template.stamp(stamp));
    }

    fn send_load(&mut self, link: &mut Link, conn: &mut EchoConn, now: u64) {
        conn.waits = Waits::Load { sent_ns: now };
        self.outstanding += 1;
        self.send(link, conn, now);
    }

    fn send_probe(&mut self, link: &mut Link, conn: &mut EchoConn, now: u64) {
        conn.waits = Waits::Probe { sent_ns: now };
        self.send(link, conn, now);
    }

    /// Whether `message` is what was sent last, byte for byte.
    fn is_expected(&mut self, conn: &EchoConn, sent_ns: u64, message: &[u8]) -> bool {
        let stamp = Stamp { run: self.run, source: conn.source, seq: conn.next.wrapping_sub(1), at_ns: sent_ns };
        self.template.stamp(stamp);
        self.template.payload() == message
    }

    /// Counts a message that was not the expected one.
    fn stray(&mut self, conn: &EchoConn, message: &[u8]) {
        let is_earlier = Stamp::parse(message).is_some_and(|stamp| {
            // Numbers may wrap around, so `earlier` is a distance.
            let distance = conn.next.wrapping_sub(stamp.seq);
            let is_answered = if conn.waits == Waits::Nothing { distance >= 1 } else { distance >= 2 };
            stamp.run == self.run && stamp.source == conn.source && is_answered && distance < u32::MAX / 2
        });
        if is_earlier {
            self.result.duplicated += 1;
        } else {
            self.result.corrupted += 1;
        }
    }
}

impl Scenario for Echo {
    type Conn = EchoConn;
    type Result = EchoResult;

    fn conn(&self, index: usize) -> EchoConn {
        // The plan has fewer connections than a stamp has sources.
        EchoConn { source: index as u32, next: 0, waits: Waits::Nothing }
    }

    fn greet(&mut self, link: &mut Link, conn: &mut EchoConn, now: u64) {
        match &self.opening {
            Some(opening) => link.send(opening),
            None => self.send_probe(link, conn, now),
        }
    }

    fn message(&mut self, link: &mut Link, conn: &mut EchoConn, message: &[u8], now: u64) -> Result<Step, LoadError> {
        match conn.waits {
            Waits::Load { sent_ns } if self.is_expected(conn, sent_ns, message) => {
                self.result.rtt.record(now - sent_ns);
                self.result.over_time.at(now).spans.record(now - sent_ns);
                self.result.round_trips += 1;
                self.outstanding -= 1;
                conn.waits = Waits::Nothing;
                if self.phase == Phase::Running {
                    self.result.in_time += 1;
                    self.send_load(link, conn, now);
                }
                Ok(Step::Stay)
            }
            Waits::Probe { sent_ns } if self.is_expected(conn, sent_ns, message) => {
                conn.waits = Waits::Nothing;
                if self.phase == Phase::Running {
                    self.send_load(link, conn, now);
                }
                Ok(Step::Ready)
            }
            _ if !link.is_ready() => match self.dialect.reply(message) {
                Reply::Upgraded => {
                    self.send_probe(link, conn, now);
                    Ok(Step::Stay)
                }
                Reply::Bye(reason) => Ok(Step::Close(format!("BYE {}", readable(reason)))),
                Reply::Ping => {
                    link.send(&self.dialect.pong(message));
                    Ok(Step::Stay)
                }
                Reply::Greeting => Ok(Step::Stay),
                _ => Err(LoadError::WrongServer {
                    target: self.target,
                    sent: readable(self.template.payload()),
                    said: readable(message),
                    server: self.server.clone(),
                }),
            },
            _ => {
                match self.dialect.reply(message) {
                    Reply::Bye(reason) => return Ok(Step::Close(format!("BYE {}", readable(reason)))),
                    Reply::Ping => link.send(&self.dialect.pong(message)),
                    Reply::Greeting => {}
                    _ => self.stray(conn, message),
                }
                Ok(Step::Stay)
            }
        }
    }

    fn keep_alive(&mut self, link: &mut Link, conn: &mut EchoConn, now: u64) {
        // Once the load is on, it keeps the connections alive.
        if self.phase == Phase::Connecting && conn.waits == Waits::Nothing {
            self.send_probe(link, conn, now);
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }

    fn begin(&mut self, link: &mut Link, conn: &mut EchoConn, now: u64) {
        // A probe that is still under way sends the first message when it is back.
        if conn.waits == Waits::Nothing {
            self.send_load(link, conn, now);
        }
    }

    fn closed(&mut self, _link: &Link, conn: &mut EchoConn) {
        self.outstanding -= u64::from(matches!(conn.waits, Waits::Load { .. }));
        conn.waits = Waits::Nothing;
    }

    fn counts(&self) -> Counts {
        Counts { received: self.result.round_trips, outstanding: self.outstanding, ..Counts::default() }
    }

    fn p99_ns(&self) -> u64 {
        self.result.rtt.at(0.99)
    }

    fn finish(mut self, _conns: impl Iterator<Item = (EchoConn, bool)>) -> EchoResult {
        self.result.unanswered = self.outstanding;
        self.result
    }
}
