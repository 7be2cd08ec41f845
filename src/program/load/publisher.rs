//! The publisher of a run: one connection of its own that sends on time, whatever the server does.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::LoadError;
use super::clock::{Clock, ns};
use super::dialect::{Dialect, Reply, readable, split_word};
use super::latency::Latency;
use super::link;
use super::payload::{STAMP_IDS, Stamp, Template};
use super::plan::{Plan, PublishPlan};
use super::shared::Shared;

/// Time for the connect and for the answer to the probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the publisher shows that it lives while it has nothing to publish.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Bytes that may wait for the kernel to take them; with more, publishing waits (and its lateness shows).
const UNSENT_BYTES_MAX: usize = 1024 * 1024;

const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How often the publisher looks whether the run was cut short.
const LOOK_STEP: Duration = Duration::from_millis(50);

/// A connection that has proved that it may publish.
#[derive(Debug)]
pub(super) struct Publisher {
    plan: Arc<Plan>,
    publish: PublishPlan,
    stream: TcpStream,
    dialect: Dialect,
    template: Template,
    ping: Vec<u8>,
    /// Pings of its own that wait for their answer; all of them went out before the first publish.
    pings: u32,
    last_sent_ns: u64,
    unsent: Vec<u8>,
    tail: Vec<u8>,
    /// The number behind the last message that the server accepted.
    accepted: u32,
    result: PublisherResult,
}

/// What was published.
#[derive(Debug, Default)]
pub(super) struct PublisherResult {
    /// Messages sent, those that were refused among them.
    pub(super) published: u32,
    /// Messages that the server had no room for, in rising order.
    pub(super) refused: Vec<Range<u32>>,
    /// How many that are.
    pub(super) refused_count: u64,
    /// Messages that the server answered.
    pub(super) answered: u32,
    /// How long after they were due bursts were handed to the connection.
    pub(super) lateness: Latency,
    /// Why the connection ended, if it did.
    pub(super) closed: Option<String>,
}

impl PublisherResult {
    /// The oldest message without an answer was refused.
    fn refuse_next(&mut self) {
        let seq = self.answered;
        self.refused_count += 1;
        match self.refused.last_mut() {
            Some(last) if last.end == seq => last.end += 1,
            _ => self.refused.push(seq..seq + 1),
        }
    }
}

impl Publisher {
    /// Connects, and publishes once before anyone listens, to see whether the server allows it.
    pub(super) fn connect(plan: &Arc<Plan>, publish: &PublishPlan, now: u64) -> Result<Publisher, LoadError> {
        let unreachable =
            |source| LoadError::Unreachable { target: plan.target, source, server: plan.server_command() };
        let stream = TcpStream::connect_timeout(&plan.target, PROBE_TIMEOUT).map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let dialect = plan.dialect.publishing();
        let mut publisher = Publisher {
            plan: plan.clone(),
            publish: publish.clone(),
            stream,
            dialect,
            template: Template::new(publish.message_bytes, |payload| dialect.publish(&publish.topic, payload)),
            ping: dialect.ping(),
            pings: 0,
            last_sent_ns: now,
            unsent: Vec::new(),
            tail: Vec::new(),
            accepted: 0,
            result: PublisherResult::default(),
        };
        publisher.probe().map_err(|error| match error {
            // What a blocking read says when its time is up.
            ProbeError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => LoadError::NoAnswer {
                target: plan.target,
                sent: dialect.publish_text(&publish.topic),
                seconds: PROBE_TIMEOUT.as_secs(),
                framing: dialect.framing.name(),
            },
            ProbeError::Io(error) => unreachable(error),
            ProbeError::Load(error) => error,
        })?;
        publisher.stream.set_nonblocking(true).map_err(unreachable)?;
        Ok(publisher)
    }

    fn probe(&mut self) -> Result<(), ProbeError> {
        // Another run's number, so that no subscriber takes it for a message of this one.
        let run = (self.plan.run + 1) % STAMP_IDS;
        self.stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
        let stamp = Stamp { run, source: 0, seq: 0, at_ns: 0 };
        self.stream.write_all(&self.dialect.introduction())?;
        match self.dialect.opening(None) {
            Some(opening) => self.stream.write_all(&opening)?,
            None => self.stream.write_all(self.template.stamp(stamp))?,
        }
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        loop {
            while let Some((range, used)) = self.dialect.decode(&self.tail).map_err(|_| self.foreign(&self.tail))? {
                let message =
                    self.dialect.message(&self.tail, range).map_err(|_| self.foreign(&self.tail))?.into_owned();
                match self.dialect.reply(&message) {
                    reply if self.confirms(&reply) => {
                        self.tail.drain(..used);
                        return Ok(());
                    }
                    Reply::Error(error) if split_word(error).0 == b"busy" => {
                        self.tail.drain(..used);
                        return Ok(());
                    }
                    Reply::Error(error) => return Err(ProbeError::Load(self.refusal(error))),
                    Reply::Upgraded => self.stream.write_all(self.template.stamp(stamp))?,
                    Reply::Ping => self.stream.write_all(&self.dialect.pong(&message))?,
                    Reply::Greeting | Reply::Message { .. } | Reply::Gap { .. } | Reply::Pong => {}
                    _ => {
                        return Err(self.foreign(&message));
                    }
                }
                self.tail.drain(..used);
            }
            match link::read(&mut self.stream, &mut buffer)? {
                0 => return Err(io::Error::other("it closed the publisher's connection without an answer").into()),
                count => self.tail.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// The error for an answer to the probe that this run can't use.
    fn foreign(&self, said: &[u8]) -> ProbeError {
        ProbeError::Load(LoadError::WrongServer {
            target: self.plan.target,
            sent: self.dialect.publish_text(&self.publish.topic),
            said: readable(said),
            server: self.plan.server_command(),
        })
    }

    /// Whether a reply says that the server has taken the oldest publish without an answer.
    fn confirms(&self, reply: &Reply<'_>) -> bool {
        match reply {
            Reply::Published => true,
            Reply::Pong => self.dialect.confirms_by_pong() && self.pings == 0,
            _ => false,
        }
    }

    fn refusal(&self, error: &[u8]) -> LoadError {
        refusal(self.plan.target, error)
    }

    /// While the subscribers connect: shows that it lives, when it is time to.
    pub(super) fn keep_alive(&mut self, now: u64) {
        if now - self.last_sent_ns >= ns(KEEP_ALIVE) {
            self.last_sent_ns = now;
            self.unsent.extend_from_slice(&self.ping);
            self.pings += u32::from(!self.ping.is_empty());
            // An error shows again when publishing begins.
            let _ = self.flush();
        }
    }

    /// Publishes from `begin_ns` on, on time, and reads the answers until all are in or none comes any more.
    pub(super) fn run(mut self, shared: &Shared, clock: Clock, begin_ns: u64) -> Result<PublisherResult, LoadError> {
        // Without it the kernel may wake this thread 50 µs late, and that would count as latency. If it can't be
        // set, the lateness tells.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let settle_ns = ns(self.plan.settle_timeout);
        let mut turn = 0_u32;
        let mut buffer = vec![0; READ_BUFFER_BYTES];
        let mut progress = (0, 0, clock.now());
        loop {
            let now = clock.now();
            let due = self.publish.due_ns(begin_ns, turn);
            let has_more = self.result.published < self.publish.messages && !shared.is_cut_short();
            let has_room = self.unsent.len() < UNSENT_BYTES_MAX;
            if has_more && has_room && due <= now {
                self.queue_burst(due, now);
                turn += 1;
                continue;
            }
            if let Err(reason) = self.exchange(&mut buffer)? {
                self.result.closed = Some(reason);
                shared.cut_short();
                break;
            }
            shared.accepted.store(self.accepted, Ordering::Release);
            shared.published.store(self.result.published.into(), Ordering::Relaxed);
            shared.refused.store(self.result.refused_count, Ordering::Relaxed);
            if !has_more && self.result.answered == self.result.published {
                break;
            }
            let state = (self.result.answered, self.unsent.len());
            if has_more || state != (progress.0, progress.1) {
                progress = (state.0, state.1, now);
            } else if now - progress.2 > settle_ns {
                break;
            }
            let next = if has_more && has_room { due.saturating_sub(clock.now()) } else { u64::MAX };
            self.wait(next.min(ns(LOOK_STEP))).map_err(LoadError::system("wait for the publisher's socket"))?;
        }
        shared.published.store(self.result.published.into(), Ordering::Relaxed);
        shared.refused.store(self.result.refused_count, Ordering::Relaxed);
        shared.publisher_done.store(true, Ordering::Release);
        shared.notify();
        Ok(self.result)
    }

    fn queue_burst(&mut self, due: u64, now: u64) {
        for _ in 0..self.publish.burst {
            let stamp = Stamp { run: self.plan.run, source: 0, seq: self.result.published, at_ns: due };
            self.unsent.extend_from_slice(self.template.stamp(stamp));
            self.result.published += 1;
        }
        self.result.lateness.record(now - due);
    }

    /// Sends and reads what can be sent and read now. The inner error says why the connection ended.
    fn exchange(&mut self, buffer: &mut [u8]) -> Result<Result<(), String>, LoadError> {
        if let Err(error) = self.flush() {
            return Ok(Err(error.to_string()));
        }
        loop {
            match link::read(&mut self.stream, buffer) {
                Ok(0) => return Ok(Err("closed by the server".into())),
                Ok(count) => {
                    if let Err(reason) = self.replies(&buffer[..count])? {
                        return Ok(Err(reason));
                    }
                    if count < buffer.len() {
                        return Ok(Ok(()));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Ok(())),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
    }

    fn replies(&mut self, bytes: &[u8]) -> Result<Result<(), String>, LoadError> {
        self.tail.extend_from_slice(bytes);
        let mut used = 0;
        while let Some((range, consumed)) = match self.dialect.decode(&self.tail[used..]) {
            Ok(found) => found,
            Err(_) => return Ok(Err("not a message in this framing".into())),
        } {
            let Ok(message) = self.dialect.message(&self.tail[used..], range) else {
                return Ok(Err("not a compressed message".into()));
            };
            match self.dialect.reply(&message) {
                reply if self.confirms(&reply) => {
                    self.result.answered += 1;
                    self.accepted = self.result.answered;
                }
                Reply::Pong => self.pings = self.pings.saturating_sub(1),
                Reply::Ping => self.unsent.extend_from_slice(&self.dialect.pong(&message)),
                Reply::Error(error) if split_word(error).0 == b"busy" => {
                    self.result.refuse_next();
                    self.result.answered += 1;
                }
                Reply::Error(error) => return Err(self.refusal(error)),
                Reply::Bye(reason) => return Ok(Err(format!("BYE {}", readable(reason)))),
                _ => {}
            }
            used += consumed;
        }
        self.tail.drain(..used);
        Ok(Ok(()))
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        let result = loop {
            if sent == self.unsent.len() {
                break Ok(());
            }
            match self.stream.write(&self.unsent[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.unsent.drain(..sent);
        result
    }

    /// Waits until there is something to read or room to send, or `time_ns` is over.
    fn wait(&self, time_ns: u64) -> io::Result<()> {
        let mut interest = PollFlags::IN;
        if !self.unsent.is_empty() {
            interest |= PollFlags::OUT;
        }
        // At most LOOK_STEP, so the seconds are few.
        let timeout = Timespec { tv_sec: (time_ns / 1_000_000_000) as i64, tv_nsec: (time_ns % 1_000_000_000) as i64 };
        match poll(&mut [PollFd::new(&self.stream, interest)], Some(&timeout)) {
            Err(error) if error != rustix::io::Errno::INTR => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// What an `ERR` to a publish means for the whole run.
pub(super) fn refusal(target: SocketAddr, error: &[u8]) -> LoadError {
    match split_word(error).0 {
        b"publish-forbidden" => LoadError::PublishForbidden { target },
        _ => LoadError::PublishRefused { target, error: readable(error) },
    }
}

enum ProbeError {
    Io(io::Error),
    Load(LoadError),
}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        ProbeError::Io(error)
    }
}
