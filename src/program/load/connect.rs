//! Making connections: paced, with a bound on those under way, and with a bounded number of tries.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::LoadError;
use super::clock::ns;
use super::latency::Latency;
use super::plan::Plan;
use super::timeline::{Spans, Timeline};

/// Connections under way over all threads; less than any usual backlog.
const UNDER_WAY_MAX: usize = 512;

/// Connections begun before events are looked at again.
pub(super) const BATCH: usize = 64;

/// Tries after the first one.
const RETRIES: u8 = 3;

/// Pause before the first retry; it doubles with each one.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// SO_RCVBUF of a connection that is to stall, in bytes.
const SMALL_BUFFER_BYTES: usize = 4_096;

/// Kinds of failures that are told apart; further ones are counted together.
const FAILURE_KINDS_MAX: usize = 32;

/// Counts by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reasons(pub(super) BTreeMap<String, u64>);

impl Reasons {
    pub(super) fn add(&mut self, reason: String) {
        self.add_many(reason, 1);
    }

    fn add_many(&mut self, reason: String, count: u64) {
        let is_known = self.0.contains_key(&reason) || self.0.len() < FAILURE_KINDS_MAX;
        *self.0.entry(if is_known { reason } else { "other".into() }).or_default() += count;
    }

    pub(super) fn merge(&mut self, other: Reasons) {
        for (reason, count) in other.0 {
            self.add_many(reason, count);
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl std::fmt::Display for Reasons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (reason, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} {reason}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// How connecting went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct ConnectStats {
    /// From the connect to the established connection.
    pub(super) connect: Latency,
    /// From the connect to the server's first answer.
    pub(super) ready: Latency,
    /// Failed tries, by reason.
    pub(super) failures: Reasons,
    /// When the first connect began, in nanoseconds of the run's clock.
    pub(super) first_begin_ns: Option<u64>,
    /// When the last connection became ready.
    pub(super) last_ready_ns: u64,
    /// The first answers, by the time when they came.
    pub(super) over_time: Timeline<Spans>,
}

impl ConnectStats {
    pub(super) fn merge(&mut self, other: ConnectStats) {
        self.connect.merge(&other.connect);
        self.ready.merge(&other.ready);
        self.failures.merge(other.failures);
        self.first_begin_ns = [self.first_begin_ns, other.first_begin_ns].into_iter().flatten().min();
        self.last_ready_ns = self.last_ready_ns.max(other.last_ready_ns);
        self.over_time.merge(other.over_time);
    }

    /// A connection whose connect began, or was due, at `began_ns` became ready.
    pub(super) fn ready(&mut self, began_ns: u64, now: u64) {
        self.ready.record(now - began_ns);
        self.over_time.at(now).record(now - began_ns);
        self.last_ready_ns = now;
    }
}

/// Decides which of a thread's connections to make, and when.
#[derive(Debug)]
pub(super) struct Connector {
    /// Connections to make, so far.
    wanted: usize,
    timeout_ns: u64,
    /// The first connection that has not been tried.
    next: usize,
    /// When to try which connection again.
    retries: BinaryHeap<Reverse<(u64, usize)>>,
    /// Connections begun, in order, with when they began. Some are done already; they are passed over in time.
    begun: VecDeque<(u64, usize)>,
    under_way: usize,
    window: usize,
    pace: Option<Pace>,
    pub(super) stats: ConnectStats,
}

/// The begin of one connect after another, at a fixed rate.
#[derive(Debug)]
struct Pace {
    next_ns: f64,
    interval_ns: f64,
}

impl Connector {
    /// For the share of thread `thread`.
    pub(super) fn new(plan: &Plan, thread: usize, now: u64) -> Connector {
        let pace = plan.connect_rate.map(|rate| {
            let interval_ns = 1e9 / rate;
            // The threads take turns.
            let next_ns = now as f64 + interval_ns * plan.worker(thread) as f64;
            Pace { next_ns, interval_ns: interval_ns * plan.workers() as f64 }
        });
        Connector {
            wanted: plan.part(thread, plan.first_step()),
            timeout_ns: ns(plan.connect_timeout),
            next: 0,
            retries: BinaryHeap::new(),
            begun: VecDeque::new(),
            under_way: 0,
            window: (UNDER_WAY_MAX / plan.workers()).max(1),
            pace,
            stats: ConnectStats::default(),
        }
    }

    /// Makes connections up to so many.
    pub(super) fn extend(&mut self, wanted: usize) {
        self.wanted = self.wanted.max(wanted);
    }

    /// Connections to make, so far.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    /// The next connection to begin now, if there is one.
    pub(super) fn begin(&mut self, now: u64) -> Option<usize> {
        if self.due_at().is_none_or(|due| due > now) {
            return None;
        }
        let slot = match self.retries.peek() {
            Some(&Reverse((due, slot))) if due <= now => {
                self.retries.pop();
                slot
            }
            _ => {
                self.next += 1;
                self.next - 1
            }
        };
        if let Some(pace) = &mut self.pace {
            pace.next_ns += pace.interval_ns;
        }
        self.under_way += 1;
        self.stats.first_begin_ns.get_or_insert(now);
        self.begun.push_back((now, slot));
        Some(slot)
    }

    /// When the next connection can begin; `None` as long as no event makes room for it.
    pub(super) fn due_at(&self) -> Option<u64> {
        if self.under_way >= self.window {
            return None;
        }
        let due = match self.retries.peek() {
            _ if self.next < self.wanted => 0,
            Some(&Reverse((due, _))) => due,
            None => return None,
        };
        Some(self.pace.as_ref().map_or(due, |pace| due.max(pace.next_ns as u64)))
    }

    /// The oldest connection whose time is up, with when it began. The caller looks whether it is done meanwhile.
    pub(super) fn overdue(&mut self, now: u64) -> Option<(u64, usize)> {
        if self.deadline()? > now {
            return None;
        }
        self.begun.pop_front()
    }

    /// When [`Connector::overdue`] must be asked next.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.begun.front().map(|&(began, _)| began + self.timeout_ns)
    }

    /// A connection that was begun became ready.
    pub(super) fn ready(&mut self, began: u64, now: u64) {
        self.stats.ready(began, now);
        self.finished();
    }

    /// A connection that was begun failed; whether it will be tried again.
    pub(super) fn failed(&mut self, slot: usize, failed_tries: u8, reason: String, now: u64) -> bool {
        self.stats.failures.add(reason);
        self.finished();
        let again = failed_tries <= RETRIES;
        if again {
            let pause = ns(RETRY_PAUSE) << (failed_tries - 1);
            self.retries.push(Reverse((now + pause, slot)));
        }
        again
    }

    fn finished(&mut self) {
        self.under_way -= 1;
        if self.under_way == 0 {
            self.begun.clear();
        }
    }
}

/// Begins a connection; whether it comes about, an event will tell.
pub(super) fn open(plan: &Plan, index: usize, has_small_buffer: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(plan.target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if has_small_buffer {
        // Before the connect, because the window's scale is agreed on there.
        socket.set_recv_buffer_size(SMALL_BUFFER_BYTES)?;
    }
    if let Some(sources) = plan.sources {
        // With this the port is chosen at connect, when the target is known, and one port serves many targets.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(sources.of(index), 0).into())?;
    }
    match socket.connect(&plan.target.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Passes the error of a first connect on, unless it says that there is no server to be measured.
pub(super) fn unless_nobody_is_there(plan: &Plan, error: io::Error) -> Result<io::Error, LoadError> {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut};
    match error.kind() {
        ConnectionRefused | HostUnreachable | NetworkUnreachable | PermissionDenied | TimedOut => {
            Err(LoadError::Unreachable { target: plan.target, source: error, server: plan.server_command() })
        }
        _ => Ok(error),
    }
}

/// An error in the few words that failures are counted under.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        kind => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::MFILE) => "too many open files".into(),
            _ => kind.to_string(),
        },
    }
}
