//! One thread's poll loop over its share of the connections.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use super::LoadError;
use super::clock::{Clock, ns};
use super::connect::{self, ConnectStats, Connector, Reasons};
use super::link::{Link, Stage};
use super::plan::Plan;
use super::scenario::{Scenario, deliver};
use super::shared::{LinkCounts, Phase, Shared};
use super::turns::Turns;

/// The token of the coordinator's waker.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Events taken from the kernel at once.
const EVENTS: usize = 1_024;

/// Bytes of the one read buffer that all connections of a thread share.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Reads of one connection before the next one gets its turn.
const READS_PER_TURN: usize = 16;

/// How often the live percentile is worked out, if anyone looks at it.
const P99_STEP: Duration = Duration::from_millis(200);

/// What each thread of a run is given.
pub(super) struct Post {
    pub(super) index: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) poll: Poll,
}

/// A thread's connections and all that drives them.
pub(super) struct Worker<S: Scenario> {
    index: usize,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    clock: Clock,
    poll: Poll,
    phase: Phase,
    slots: Vec<Slot<S::Conn>>,
    scenario: S,
    connector: Connector,
    turns: Turns,
    links: LinkCounts,
    closed: Reasons,
    stalled_closed: u64,
    buffer: Vec<u8>,
    /// Connections that had more to read than their turn allowed; and whether their end has come.
    unread: Vec<(usize, bool)>,
    p99_due_ns: u64,
}

struct Slot<C> {
    link: Link,
    conn: C,
}

/// What a thread hands in.
#[derive(Serialize, Deserialize)]
pub(super) struct WorkerResult<R> {
    pub(super) connects: ConnectStats,
    pub(super) links: LinkCounts,
    /// Ready connections that were closed, by reason; stalled ones are not among them.
    pub(super) closed: Reasons,
    /// Stalled connections that were closed.
    pub(super) stalled_closed: u64,
    pub(super) scenario: R,
}

impl<S: Scenario> Worker<S> {
    /// For one thread of the plan.
    pub(super) fn new(post: Post, scenario: S) -> Worker<S> {
        let Post { index, plan, shared, clock, poll } = post;
        let slot = |number| Slot { link: Link::default(), conn: scenario.conn(number) };
        let slots: Vec<_> = plan.share(index).map(slot).collect();
        let now = clock.now();
        Worker {
            index,
            connector: Connector::new(&plan, index, now),
            turns: Turns::new(slots.len(), plan.ping_every, now),
            plan,
            shared,
            clock,
            poll,
            phase: Phase::Connecting,
            slots,
            scenario,
            links: LinkCounts::default(),
            closed: Reasons::default(),
            stalled_closed: 0,
            buffer: vec![0; READ_BUFFER_BYTES],
            unread: Vec::new(),
            p99_due_ns: 0,
        }
    }

    /// Runs until the coordinator says to stop.
    pub(super) fn run(mut self) -> Result<WorkerResult<S::Result>, LoadError> {
        let mut events = Events::with_capacity(EVENTS);
        while self.phase != Phase::Stopping {
            self.begin_connects()?;
            self.drop_overdue()?;
            self.keep_alive()?;
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(LoadError::System { what: "wait for socket events", source: error });
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    WAKE => self.follow_phase()?,
                    _ => self.event(event)?,
                }
            }
            for (index, to_end) in mem::take(&mut self.unread) {
                self.read(index, to_end)?;
            }
            self.report();
        }
        Ok(self.finish())
    }

    /// How long to wait for events: until the next thing is due.
    fn timeout(&self) -> Option<Duration> {
        if !self.unread.is_empty() {
            return Some(Duration::ZERO);
        }
        let connect = if self.phase == Phase::Connecting { self.connector.due_at() } else { None };
        let due = [connect, self.connector.deadline(), self.turns.due_at()].into_iter().flatten().min()?;
        Some(Duration::from_nanos(due.saturating_sub(self.clock.now())))
    }

    fn begin_connects(&mut self) -> Result<(), LoadError> {
        if self.phase != Phase::Connecting {
            return Ok(());
        }
        for _ in 0..connect::BATCH {
            let now = self.clock.now();
            let Some(index) = self.connector.begin(now) else { break };
            let Slot { link, conn } = &mut self.slots[index];
            link.began_ns = now;
            link.stage = Stage::Connecting;
            link.is_stalled = self.scenario.is_stalled(conn);
            let number = self.plan.share(self.index).start + index;
            let opened = connect::open(&self.plan, number, link.is_stalled).and_then(|mut stream| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut stream, Token(index), interest)?;
                Ok(stream)
            });
            match opened {
                Ok(stream) => link.stream = Some(stream),
                Err(error) => self.lost_to(index, error)?,
            }
        }
        Ok(())
    }

    fn drop_overdue(&mut self) -> Result<(), LoadError> {
        if self.connector.deadline().is_none() {
            return Ok(());
        }
        let now = self.clock.now();
        while let Some((began_ns, index)) = self.connector.overdue(now) {
            let link = &self.slots[index].link;
            match link.stage {
                // It has been tried again since.
                _ if link.began_ns != began_ns => {}
                Stage::Connecting => self.lost_to(index, io::ErrorKind::TimedOut.into())?,
                Stage::Greeting => self.lost(index, "no answer".into()),
                Stage::Down | Stage::Ready => {}
            }
        }
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<(), LoadError> {
        let now = self.clock.now();
        while let Some(index) = self.turns.next(now) {
            let Slot { link, conn } = &mut self.slots[index];
            if link.is_ready() && link.is_flushed() {
                self.scenario.keep_alive(link, conn, now);
                self.check_send(index)?;
            }
        }
        Ok(())
    }

    fn follow_phase(&mut self) -> Result<(), LoadError> {
        self.connector.extend(self.plan.part(self.index, self.shared.wanted()));
        let phase = self.shared.phase();
        if phase == self.phase {
            return Ok(());
        }
        self.phase = phase;
        self.scenario.enter(phase);
        if phase == Phase::Running {
            for index in 0..self.slots.len() {
                let Slot { link, conn } = &mut self.slots[index];
                if link.is_ready() {
                    self.scenario.begin(link, conn, self.clock.now());
                    self.check_send(index)?;
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), LoadError> {
        let index = event.token().0;
        let Slot { link, conn } = &mut self.slots[index];
        if link.stage == Stage::Connecting {
            if let Some(error) = link.take_error() {
                return self.lost_to(index, error);
            }
            if !event.is_writable() {
                return Ok(());
            }
            let now = self.clock.now();
            link.stage = Stage::Greeting;
            self.connector.stats.connect.record(now - link.began_ns);
            self.links.connected += 1;
            self.shared.report_links(self.index, self.links);
            self.scenario.greet(link, conn, now);
        } else if event.is_writable() {
            link.flush();
        }
        self.check_send(index)?;
        let is_over = event.is_read_closed() || event.is_error();
        if event.is_readable() || is_over {
            self.read(index, is_over)?;
        }
        Ok(())
    }

    /// Reads what is there, within the bounds of a turn, and passes the messages on.
    ///
    /// A read that does not fill the buffer has emptied the socket; whatever comes later, the end too, is a
    /// new event. Only if the end came with this event (`to_end`), it must be read up to it.
    fn read(&mut self, index: usize, to_end: bool) -> Result<(), LoadError> {
        let Slot { link, conn } = &mut self.slots[index];
        for _ in 0..READS_PER_TURN {
            if link.is_stalled && link.is_ready() {
                // It asks for no data, so this event is an error.
                return match link.take_error() {
                    Some(error) => self.lost_to(index, error),
                    None => Ok(()),
                };
            }
            let count = match link.receive(&mut self.buffer) {
                Ok(None) => return Ok(()),
                Ok(Some(0)) => {
                    self.lost(index, "closed by the server".into());
                    return Ok(());
                }
                Ok(Some(count)) => count,
                Err(error) => return self.lost_to(index, error),
            };
            let now = self.clock.now();
            let was_ready = link.is_ready();
            let scenario = &mut self.scenario;
            let close = deliver(self.plan.dialect, link, &self.buffer[..count], |link, message| {
                scenario.message(link, conn, message, now)
            })?;
            if link.is_ready() && !was_ready {
                self.connector.ready(link.began_ns, now);
                self.links.ready += 1;
                if let (true, Some(stream)) = (link.is_stalled, &mut link.stream) {
                    self.poll
                        .registry()
                        .reregister(stream, Token(index), Interest::WRITABLE)
                        .map_err(LoadError::system("stop reading a connection"))?;
                }
            }
            if let Some(reason) = close {
                self.lost(index, reason);
                return Ok(());
            }
            if let Some(error) = link.take_send_error() {
                return self.lost_to(index, error);
            }
            if count < self.buffer.len() && !to_end {
                return Ok(());
            }
        }
        self.unread.push((index, to_end));
        Ok(())
    }

    fn check_send(&mut self, index: usize) -> Result<(), LoadError> {
        match self.slots[index].link.take_send_error() {
            Some(error) => self.lost_to(index, error),
            None => Ok(()),
        }
    }

    /// A connection failed with an error. If no connection ever came about, there is no server to be measured.
    fn lost_to(&mut self, index: usize, error: io::Error) -> Result<(), LoadError> {
        if self.slots[index].link.stage == Stage::Connecting && !self.shared.has_connected() {
            let error = connect::unless_nobody_is_there(&self.plan, error)?;
            self.lost(index, connect::reason(&error));
            return Ok(());
        }
        self.lost(index, connect::reason(&error));
        Ok(())
    }

    fn lost(&mut self, index: usize, reason: String) {
        let Slot { link, conn } = &mut self.slots[index];
        self.scenario.closed(link, conn);
        if !link.is_ready() {
            link.failed_tries += 1;
            if !self.connector.failed(index, link.failed_tries, reason, self.clock.now()) {
                self.links.given_up += 1;
            }
        } else if link.is_stalled {
            self.stalled_closed += 1;
        } else {
            self.links.closed += 1;
            self.closed.add(reason);
        }
        link.close();
    }

    /// Lets the coordinator see how far this thread is.
    fn report(&mut self) {
        self.shared.report_counts(self.index, self.scenario.counts());
        self.shared.report_links(self.index, self.links);
        if self.phase == Phase::Connecting && self.links.ready + self.links.given_up == self.connector.wanted() as u64 {
            self.shared.notify();
        }
        if self.shared.shows_progress && self.clock.now() >= self.p99_due_ns {
            self.p99_due_ns = self.clock.now() + ns(P99_STEP);
            self.shared.report_p99(self.index, self.scenario.p99_ns());
        }
    }

    fn finish(mut self) -> WorkerResult<S::Result> {
        for Slot { link, .. } in self.slots.iter_mut().filter(|slot| slot.link.is_stalled && slot.link.is_ready()) {
            if link.has_ended(&mut self.buffer, READS_PER_TURN) {
                self.stalled_closed += 1;
                link.close();
            }
        }
        let conns = self.slots.into_iter().map(|slot| (slot.conn, slot.link.is_ready()));
        WorkerResult {
            scenario: self.scenario.finish(conns),
            connects: self.connector.stats,
            links: self.links,
            closed: self.closed,
            stalled_closed: self.stalled_closed,
        }
    }
}
