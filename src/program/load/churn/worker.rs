//! One thread's poll loop of a churn: connects at their times, leads visitors out again, and reuses their places.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::mem;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Interest, Token};
use socket2::SockRef;

use super::ChurnResult;
use super::plan::ChurnPlan;
use super::visitor::{State, Visitor, Visitors};
use crate::load::LoadError;
use crate::load::alarm::Alarm;
use crate::load::clock::ns;
use crate::load::connect::{self, ConnectStats, Reasons};
use crate::load::link::{Link, Stage};
use crate::load::plan::CONNECT_TIMEOUT;
use crate::load::scenario::deliver;
use crate::load::shared::{Counts, LinkCounts, Phase};
use crate::load::turns::Turns;
use crate::load::worker::{Post, WAKE, WorkerResult};

/// The token of the alarm; no place has one as high.
const ALARM: Token = Token(usize::MAX - 1);

/// Events taken from the kernel at once.
const EVENTS: usize = 1_024;

/// Bytes of the one read buffer that all connections of a thread share.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Reads of one connection before the next one gets its turn.
const READS_PER_TURN: usize = 16;

/// How long the server may take to answer a shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A visitor waits for what it is owed for so many times the run's patience: a server that lags far behind is slow, and
/// has lost nothing yet.
const LEAVE_PATIENCE: u32 = 6;

/// How often the live percentile is worked out, if anyone looks at it.
const P99_STEP: Duration = Duration::from_millis(200);

/// A thread's places, and those who come and go there.
pub(in crate::load) struct ChurnWorker {
    post: Post,
    churn: ChurnPlan,
    visitors: Visitors,
    phase: Phase,
    places: Vec<Place>,
    free: Vec<usize>,
    /// Connects begun, of this thread's share.
    begun: u64,
    /// When to look at which place again, for which of its visitors.
    timers: BinaryHeap<Reverse<(u64, usize, u32)>>,
    turns: Turns,
    connects: ConnectStats,
    links: LinkCounts,
    closed: Reasons,
    buffer: Vec<u8>,
    /// Places that had more to read than their turn allowed.
    unread: Vec<(usize, u32)>,
    p99_due_ns: u64,
    /// Wakes the thread for the next connect; the poll loop's own time-out comes up to a millisecond late.
    alarm: Alarm,
}

/// Where one connection is at a time.
#[derive(Default)]
struct Place {
    link: Link,
    visitor: Visitor,
    /// Tells the visitors of a place apart.
    generation: u32,
    /// The connection's number in the whole run.
    number: u64,
    /// When the connect was due.
    due_ns: u64,
}

impl ChurnWorker {
    pub(in crate::load) fn new(post: Post, churn: &ChurnPlan) -> Result<ChurnWorker, LoadError> {
        let count = post.plan.share(post.index).len();
        let alarm = Alarm::new(&post.poll, ALARM)?;
        Ok(ChurnWorker {
            visitors: Visitors::new(&post, churn),
            churn: churn.clone(),
            phase: Phase::Connecting,
            places: (0..count).map(|_| Place::default()).collect(),
            free: (0..count).rev().collect(),
            begun: 0,
            timers: BinaryHeap::new(),
            turns: Turns::new(count, post.plan.ping_every, post.clock.now()),
            connects: ConnectStats::default(),
            links: LinkCounts::default(),
            closed: Reasons::default(),
            buffer: vec![0; READ_BUFFER_BYTES],
            unread: Vec::new(),
            p99_due_ns: 0,
            alarm,
            post,
        })
    }

    /// Runs until the coordinator says to stop.
    pub(in crate::load) fn run(mut self) -> Result<WorkerResult<ChurnResult>, LoadError> {
        let mut events = Events::with_capacity(EVENTS);
        while self.phase != Phase::Stopping {
            self.begin_connects()?;
            self.follow_timers()?;
            self.keep_alive();
            self.alarm.set(self.connect_due().map(|(_, due)| due), self.post.clock.now())?;
            match self.post.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(LoadError::System { what: "wait for socket events", source: error });
                }
                _ => {}
            }
            for event in &events {
                match event.token() {
                    WAKE => self.follow_phase(),
                    // The next round looks what is due.
                    ALARM => {}
                    _ => self.event(event)?,
                }
            }
            for (index, generation) in mem::take(&mut self.unread) {
                if self.places[index].generation == generation {
                    self.read(index)?;
                }
            }
            self.report();
        }
        Ok(self.finish())
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.unread.is_empty() {
            return Some(Duration::ZERO);
        }
        let connect = self.connect_due().filter(|_| !self.free.is_empty()).map(|(_, due)| due);
        let timer = self.timers.peek().map(|Reverse((due, ..))| *due);
        let due = [connect, timer, self.turns.due_at()].into_iter().flatten().min()?;
        Some(Duration::from_nanos(due.saturating_sub(self.post.clock.now())))
    }

    /// The number of the next connect of this thread and when it is due, if one is due in this run at all.
    fn connect_due(&self) -> Option<(u64, u64)> {
        if self.phase != Phase::Running {
            return None;
        }
        self.next_connect()
    }

    fn next_connect(&self) -> Option<(u64, u64)> {
        // The threads take turns.
        let plan = &self.post.plan;
        let number = self.begun * plan.workers() as u64 + plan.worker(self.post.index) as u64;
        let begin_ns = self.post.shared.begin_ns();
        let due = self.churn.due_ns(begin_ns, number);
        (due < begin_ns + ns(self.post.plan.duration)).then_some((number, due))
    }

    fn begin_connects(&mut self) -> Result<(), LoadError> {
        for _ in 0..connect::BATCH {
            let now = self.post.clock.now();
            let Some((number, due_ns)) = self.connect_due().filter(|&(_, due)| due <= now) else { break };
            let Some(index) = self.free.pop() else { break };
            self.begun += 1;
            self.visitors.result.begun_late.record(now - due_ns);
            self.connects.first_begin_ns.get_or_insert(now);
            let place = &mut self.places[index];
            place.number = number;
            place.due_ns = due_ns;
            place.link.began_ns = now;
            place.link.stage = Stage::Connecting;
            let token = token(index, place.generation);
            let opened = connect::open(&self.post.plan, number as usize, false).and_then(|mut stream| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.post.poll.registry().register(&mut stream, token, interest)?;
                Ok(stream)
            });
            match opened {
                Ok(stream) => {
                    place.link.stream = Some(stream);
                    self.set_timer(index, now + ns(CONNECT_TIMEOUT));
                }
                Err(error) => self.failed(index, error)?,
            }
        }
        Ok(())
    }

    fn set_timer(&mut self, index: usize, due_ns: u64) {
        self.timers.push(Reverse((due_ns, index, self.places[index].generation)));
    }

    fn follow_timers(&mut self) -> Result<(), LoadError> {
        let now = self.post.clock.now();
        while let Some(&Reverse((due_ns, index, generation))) = self.timers.peek()
            && due_ns <= now
        {
            self.timers.pop();
            let place = &self.places[index];
            if place.generation != generation {
                continue;
            }
            match (place.link.stage, place.visitor.state) {
                (Stage::Down, _) => {}
                (Stage::Connecting, _) => self.failed(index, io::ErrorKind::TimedOut.into())?,
                (Stage::Greeting, _) => self.lost(index, "no answer".into()),
                // The first timer is the connect's; it may come while the visitor stays.
                (Stage::Ready, State::Staying) if now < self.leave_ns(index) => {}
                (Stage::Ready, State::Staying) => self.leave(index, now),
                // What has not come by now does not come any more: the verdict will tell.
                (Stage::Ready, State::Leaving { end }) => self.shut_down(index, end, now),
                (Stage::Ready, State::Closing { since_ns, .. }) if now < since_ns + ns(CLOSE_TIMEOUT) => {}
                (Stage::Ready, State::Closing { end, .. }) => {
                    self.visitors.result.not_closed += 1;
                    self.links.left += 1;
                    self.vacate(index, Some(end));
                }
            }
        }
        Ok(())
    }

    /// When a visitor who is ready is to leave; kept in the link, which needs its begin no more.
    fn leave_ns(&self, index: usize) -> u64 {
        self.places[index].link.began_ns
    }

    /// A visitor's time is over: it ends its connection, cleanly or not.
    fn leave(&mut self, index: usize, now: u64) {
        let place = &mut self.places[index];
        if self.churn.is_abrupt(place.number) {
            if let Some(stream) = &place.link.stream {
                // If it can't be set, the close is a clean one, and that is not the server's fault.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            self.visitors.result.left_abrupt += 1;
            self.links.left += 1;
            self.vacate(index, None);
            return;
        }
        let end = self.post.shared.accepted.load(Ordering::Acquire);
        if place.visitor.visit.covers(end) {
            self.shut_down(index, end, now);
        } else {
            place.visitor.state = State::Leaving { end };
            self.set_timer(index, now + ns(LEAVE_PATIENCE * self.post.plan.settle_timeout));
        }
    }

    fn shut_down(&mut self, index: usize, end: u32, now: u64) {
        let place = &mut self.places[index];
        place.visitor.state = State::Closing { since_ns: now, end };
        if let Some(stream) = &place.link.stream {
            // An error means that the connection is gone; reading tells how.
            let _ = stream.shutdown(Shutdown::Write);
        }
        self.set_timer(index, now + ns(CLOSE_TIMEOUT));
    }

    fn keep_alive(&mut self) {
        let now = self.post.clock.now();
        while let Some(index) = self.turns.next(now) {
            let Place { link, visitor, .. } = &mut self.places[index];
            if link.is_ready() && link.is_flushed() && visitor.state == State::Staying {
                // An error shows when the connection is read.
                self.visitors.subscriber.ping(link);
            }
        }
    }

    fn follow_phase(&mut self) {
        let phase = self.post.shared.phase();
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        if phase == Phase::Settling {
            let now = self.post.clock.now();
            if !self.post.shared.is_cut_short() {
                self.count_not_begun();
            }
            for index in 0..self.places.len() {
                let place = &self.places[index];
                if place.link.is_ready() && place.visitor.state == State::Staying {
                    self.leave(index, now);
                }
            }
        }
    }

    /// Counts the connects that were due and for which there was no place.
    fn count_not_begun(&mut self) {
        let begun = self.begun;
        while self.next_connect().is_some() {
            self.begun += 1;
        }
        self.visitors.result.not_begun = self.begun - begun;
        self.begun = begun;
    }

    fn event(&mut self, event: &Event) -> Result<(), LoadError> {
        let (index, generation) = place_of(event.token());
        let place = &mut self.places[index];
        if place.generation != generation {
            return Ok(());
        }
        let link = &mut place.link;
        if link.stage == Stage::Connecting {
            if let Some(error) = link.take_error() {
                return self.failed(index, error);
            }
            if !event.is_writable() {
                return Ok(());
            }
            link.stage = Stage::Greeting;
            self.connects.connect.record(self.post.clock.now() - place.due_ns);
            self.links.connected += 1;
            self.post.shared.report_links(self.post.index, self.links);
            self.visitors.subscriber.greet(link);
        } else if event.is_writable() {
            link.flush();
        }
        if let Some(error) = link.take_send_error() {
            self.lost(index, connect::reason(&error));
            return Ok(());
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(index)?;
        }
        Ok(())
    }

    /// Reads what is there, within the bounds of a turn, and passes the messages on.
    fn read(&mut self, index: usize) -> Result<(), LoadError> {
        for _ in 0..READS_PER_TURN {
            let Place { link, visitor, due_ns, number, .. } = &mut self.places[index];
            let count = match link.receive(&mut self.buffer) {
                Ok(None) => return Ok(()),
                Ok(Some(0)) => {
                    self.ended(index);
                    return Ok(());
                }
                Ok(Some(count)) => count,
                Err(error) => {
                    self.lost(index, connect::reason(&error));
                    return Ok(());
                }
            };
            let now = self.post.clock.now();
            let was_ready = link.is_ready();
            let visitors = &mut self.visitors;
            let (dialect, bytes) = (self.post.plan.dialect, &self.buffer[..count]);
            let close = deliver(dialect, link, bytes, |link, message| visitors.message(link, visitor, message, now))?;
            if link.is_ready() && !was_ready {
                self.connects.ready(*due_ns, now);
                self.links.ready += 1;
                let leave_ns = if self.phase == Phase::Running { now + self.churn.stay_ns(*number) } else { now };
                link.began_ns = leave_ns;
                self.set_timer(index, leave_ns);
            }
            if let Some(reason) = close {
                self.lost(index, reason);
                return Ok(());
            }
            let Place { visitor, .. } = &self.places[index];
            if let State::Leaving { end } = visitor.state
                && visitor.visit.covers(end)
            {
                self.shut_down(index, end, now);
            }
        }
        self.unread.push((index, self.places[index].generation));
        Ok(())
    }

    /// The server has closed: rightly so, if the visitor has said that it is done.
    fn ended(&mut self, index: usize) {
        match self.places[index].visitor.state {
            State::Closing { since_ns, end } => {
                self.visitors.result.close.record(self.post.clock.now() - since_ns);
                self.visitors.result.left_clean += 1;
                self.links.left += 1;
                self.vacate(index, Some(end));
            }
            _ => self.lost(index, "closed by the server".into()),
        }
    }

    /// A connect failed. If none ever came about, there is no server to be measured.
    fn failed(&mut self, index: usize, error: io::Error) -> Result<(), LoadError> {
        let error = match self.post.shared.has_connected() {
            false => connect::unless_nobody_is_there(&self.post.plan, error)?,
            true => error,
        };
        self.lost(index, connect::reason(&error));
        Ok(())
    }

    /// A connection ended although it was to go on, or never was ready.
    fn lost(&mut self, index: usize, reason: String) {
        if self.places[index].link.is_ready() {
            self.links.closed += 1;
            self.closed.add(reason);
            self.vacate(index, None);
        } else {
            self.links.given_up += 1;
            self.connects.failures.add(reason);
            self.release(index);
        }
    }

    /// A visit is over: judges it and makes room.
    fn vacate(&mut self, index: usize, end: Option<u32>) {
        let visit = mem::take(&mut self.places[index].visitor.visit);
        self.visitors.result.judged.add(visit, end);
        self.release(index);
    }

    fn release(&mut self, index: usize) {
        let generation = self.places[index].generation.wrapping_add(1) & GENERATION_MASK;
        self.places[index] = Place { generation, ..Place::default() };
        self.free.push(index);
    }

    /// Lets the coordinator see how far this thread is.
    fn report(&mut self) {
        let shared = &self.post.shared;
        let counts = Counts {
            received: if self.churn.publish.is_some() {
                self.visitors.result.deliveries.received
            } else {
                self.links.ready
            },
            outstanding: (self.places.len() - self.free.len()) as u64,
            ..Counts::default()
        };
        shared.report_counts(self.post.index, counts);
        shared.report_links(self.post.index, self.links);
        if shared.shows_progress && self.post.clock.now() >= self.p99_due_ns {
            self.p99_due_ns = self.post.clock.now() + ns(P99_STEP);
            let p99_ns =
                if self.churn.publish.is_some() { self.visitors.p99_ns() } else { self.connects.ready.at(0.99) };
            shared.report_p99(self.post.index, p99_ns);
        }
    }

    fn finish(mut self) -> WorkerResult<ChurnResult> {
        for index in 0..self.places.len() {
            let place = &self.places[index];
            match (place.link.stage, place.visitor.state) {
                (Stage::Down, _) => {}
                (Stage::Ready, State::Closing { end, .. } | State::Leaving { end }) => {
                    self.visitors.result.not_closed += 1;
                    self.vacate(index, Some(end));
                }
                (Stage::Ready, State::Staying) => self.vacate(index, None),
                _ => self.lost(index, "not ready at the end".into()),
            }
        }
        self.visitors.result.begun = self.begun;
        WorkerResult {
            connects: self.connects,
            links: self.links,
            closed: self.closed,
            stalled_closed: 0,
            scenario: self.visitors.result,
        }
    }
}

/// Generations are told apart by as many bits as a token has besides the place, less the one of the waker's token.
const GENERATION_MASK: u32 = u32::MAX >> 1;

/// The token of a place's present visitor: an event of an earlier one must not hit it.
fn token(index: usize, generation: u32) -> Token {
    Token((generation as usize) << 32 | index)
}

fn place_of(token: Token) -> (usize, u32) {
    (token.0 & u32::MAX as usize, (token.0 >> 32) as u32)
}
