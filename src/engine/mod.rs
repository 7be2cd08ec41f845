//! The state of one shard: its connections come, go, and run out of time.
//!
//! What is written to them stands in `outgoing`, what is published in `publish`, what a handler may do in `scope`: all
//! of them are parts of [`Engine`]. Everything here runs on the shard's own core and none of it waits. The tasks around it
//! (accept, fan-out, the connections' turns) borrow it for the length of one step.

pub(crate) mod actions;
pub(crate) mod connection;
pub(crate) mod direct;
pub(crate) mod drain;
pub(crate) mod fanout;
pub(crate) mod interest;
pub(crate) mod liveness;
pub(crate) mod mailbox;
pub(crate) mod memory;
pub(crate) mod outbox;
pub(crate) mod outgoing;
pub(crate) mod publish;
pub(crate) mod query;
pub(crate) mod reclaim;
pub(crate) mod refusals;
pub(crate) mod registry;
pub(crate) mod subscriptions;
pub(crate) mod table;
pub(crate) mod trim;
pub(crate) mod turn;
pub(crate) mod wheel;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::Shutdown;

use crate::config::{
    Config, FRAME_OVERHEAD_BYTES_MAX, LANGUAGE_OVERHEAD_BYTES_MAX, LINGER_MS, OVERDUE_TURNS_MAX, SlowConsumer, TICK_MS,
};
use crate::engine::connection::{Connection, Due, Polls, spread};
use crate::engine::interest::Topics;
use crate::engine::liveness::Proofs;
use crate::engine::mailbox::{Mesh, PublishQueue};
use crate::engine::memory::Holdings;
use crate::engine::outbox::{Limits, Outbox};
use crate::engine::reclaim::Reclaim;
use crate::engine::refusals::Refusals;
use crate::engine::registry::{Registry, Row};
use crate::engine::table::{Key, Table};
use crate::engine::trim::Trim;
use crate::engine::wheel::{NEVER, Tick, Wheel};
use crate::handler::Event;
use crate::message::{CloseReason, ConnId, Dialect, Kind};
use crate::metrics::ShardMetrics;
use crate::protocol::http::{self, Site};
use crate::protocol::{Encoding, sse, websocket};
use crate::rate::{Micros, Rate};
use crate::shard::buffers::Pool;
use crate::shard::listener::{Limited, Listeners};
use crate::shard::poller::{self, Interest, Readiness, Report};
use crate::shard::turns::TurnQueue;
use crate::sys;

/// Puts an event into the bytes of a message; see [`crate::handler::Handler::render`].
pub(crate) type Render = fn(Event<'_>, Dialect, &mut Vec<u8>) -> Option<Kind>;

/// The settings that the data path looks at, in the units it uses.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) message_max: usize,
    pub(crate) reply_bytes_max: usize,
    pub(crate) slow_consumer: SlowConsumer,
    pub(crate) topics_max: usize,
    pub(crate) topic_bytes_max: usize,
    pub(crate) message_rate: Option<Rate>,
    pub(crate) read_timeout: Option<Tick>,
    pub(crate) write_timeout: Option<Tick>,
    pub(crate) head_timeout: Tick,
    pub(crate) ping_every: Option<Tick>,
    linger: Tick,
}

/// What an idle connection takes in the shard's tables, in bytes, by and large.
const CONNECTION_BYTES: u64 = 128;

/// Ticks that a time span takes, rounded up; a shard's clock may be up to one tick behind.
pub(crate) fn ticks(span: Duration) -> Tick {
    let ticks = span.as_millis().div_ceil(u128::from(TICK_MS));
    Tick::try_from(ticks).unwrap_or(NEVER - 1) + 1
}

impl Settings {
    fn new(config: &Config) -> Self {
        let timeout = |span: Duration| (!span.is_zero()).then(|| ticks(span));
        // A ping must be answered before its silence is taken for death.
        let most = if config.read_timeout.is_zero() { Duration::MAX } else { config.read_timeout / 2 };
        let ping_every = Some(config.ping_every.min(most)).filter(|every| !every.is_zero());
        Settings {
            message_max: config.max_message,
            reply_bytes_max: config.max_message + LANGUAGE_OVERHEAD_BYTES_MAX + FRAME_OVERHEAD_BYTES_MAX,
            slow_consumer: config.slow_consumer,
            message_rate: Rate::new(config.message_rate),
            topics_max: config.topics_per_connection_max,
            topic_bytes_max: config.topic_bytes_max,
            read_timeout: timeout(config.read_timeout),
            write_timeout: timeout(config.write_timeout),
            head_timeout: ticks(config.head_timeout),
            ping_every: ping_every.map(ticks),
            linger: ticks(Duration::from_millis(LINGER_MS)),
        }
    }

    /// How long a closing connection may take nothing of what waits for it.
    pub(crate) fn close_patience(&self) -> Tick {
        self.write_timeout.unwrap_or(self.linger)
    }
}

/// The state of one shard.
pub(crate) struct Engine {
    pub(crate) index: usize,
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) render: Render,
    pub(crate) site: Rc<Site>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) table: Table<Connection>,
    pub(crate) topics: Topics,
    pub(crate) publishes: PublishQueue,
    pub(crate) mesh: Mesh,
    pub(crate) pool: Pool,
    pub(crate) wheel: Wheel,
    pub(crate) readiness: Readiness,
    /// What the ring has reported and nobody has looked at.
    pub(crate) reports: Vec<Report>,
    pub(crate) listeners: Listeners,
    pub(crate) refusals: Refusals,
    pub(crate) holdings: Holdings,
    pub(crate) reclaim: Reclaim,
    pub(crate) trim: Trim,
    /// Connections that wait for their turn.
    pub(crate) turns: TurnQueue,
    pub(crate) proofs: Proofs,
    /// Connections with something in their outbox that has not been tried to write yet.
    pub(crate) dirty: Vec<Key>,
    /// Connections that published while the queue of publishes was congested.
    pub(crate) congested: Vec<Key>,
    /// Empty outboxes for connections that need one next: a fan-out goes round in them without the allocator.
    #[allow(clippy::vec_box, reason = "a row holds a boxed outbox, so the boxes are what is kept")]
    pub(crate) spare: Vec<Box<Outbox>>,
    /// Where messages are rendered before they are framed.
    pub(crate) scratch: Vec<u8>,
    pub(crate) publish_sequence: u64,
    /// Log lines about pages that may not connect.
    foreign_pages: Limited,
    started: Instant,
    /// Whether new connections are turned away.
    pub(crate) draining: bool,
    /// How many other shards have said that they drain.
    pub(crate) draining_peers: usize,
}

impl Engine {
    /// The state of shard `index`. It must be made on the shard's executor, whose registered memory it takes.
    pub(crate) fn new(
        index: usize,
        config: &Config,
        render: Render,
        registry: Arc<Registry>,
        metrics: Arc<ShardMetrics>,
        mesh: Mesh,
    ) -> io::Result<Self> {
        let settings = Settings::new(config);
        let holdings = Holdings::new(registry.buffers_max(), registry.shards());
        Ok(Engine {
            index,
            settings,
            limits: Limits::new(config),
            render,
            site: Rc::new(Site::new(config)),
            registry,
            metrics,
            table: Table::default(),
            topics: Topics::default(),
            publishes: PublishQueue::new(config),
            mesh,
            pool: Pool::new(),
            wheel: Wheel::default(),
            readiness: Readiness::new(true)?,
            reports: Vec::new(),
            listeners: Listeners::default(),
            refusals: Refusals::default(),
            holdings,
            reclaim: Reclaim::default(),
            trim: Trim::default(),
            turns: TurnQueue::default(),
            proofs: Proofs::new(settings.write_timeout),
            dirty: Vec::new(),
            congested: Vec::new(),
            spare: Vec::new(),
            scratch: Vec::new(),
            publish_sequence: 0,
            foreign_pages: Limited::default(),
            started: Instant::now(),
            draining: false,
            draining_peers: 0,
        })
    }

    /// Counts a page that may not connect, and says so in the log: browsers don't show its people why.
    pub(crate) fn note_foreign_page(&mut self, text: &str) {
        self.metrics.pages_refused.add(1);
        if let Some(count) = self.foreign_pages.another() {
            tracing::warn!(count, "pages refused: {text}");
        }
    }

    // ---- Connections come and go ----

    /// Takes a connection in that the registry has admitted.
    ///
    /// # Errors
    /// What there is no room for, in words.
    pub(crate) fn add(
        &mut self,
        socket: OwnedFd,
        peer: SocketAddr,
        encoding: Option<Encoding>,
    ) -> Result<(Key, ConnId), String> {
        let (registry, shard) = (Arc::clone(&self.registry), self.index as u16);
        let (opened, now) = (self.wheel.age(), self.wheel.now());
        let mut id = None;
        let key = self.table.insert_with(|key| {
            id = registry.insert(Row::new(shard, key, peer));
            // A row without an id is taken out again below.
            Connection::new(socket, id.unwrap_or(ConnId::from_u64(u64::MAX)), encoding, opened, now)
        });
        let watchable = self.readiness.reserve(key.slot).map_err(|error| format!("no ring to watch it: {error}"));
        let id = match (id, watchable) {
            (Some(id), Ok(())) => id,
            (id, watchable) => {
                self.table.remove(key);
                id.into_iter().for_each(|id| self.registry.remove(id));
                return Err(watchable.err().unwrap_or_else(|| "the registry is full".into()));
            }
        };
        self.metrics.accepted.add(1);
        self.metrics.connections.set(self.table.len() as u64);
        self.schedule(key);
        self.wake(key);
        Ok((key, id))
    }

    /// Takes a connection out and closes its socket. Its reason is counted, and so is each message that waited.
    pub(crate) fn remove(&mut self, key: Key) {
        self.drop_held(key);
        let Some(mut connection) = self.table.remove(key) else { return };
        // A poll that is armed would keep the socket open.
        let watched = [(Polls::READ, Interest::Read(key)), (Polls::WRITE, Interest::Write(key))];
        for (_, interest) in watched.into_iter().filter(|(poll, _)| connection.polls.has(*poll)) {
            self.readiness.unwatch(interest);
            self.metrics.polls.sub(1);
        }
        self.topics.remove_connection(key);
        self.registry.remove(connection.id);
        self.registry.release(self.index);
        let reason = connection.closing.unwrap_or(CloseReason::Reset);
        self.metrics.closed[reason as usize].add(1);
        self.metrics.connections.set(self.table.len() as u64);
        if let Some(outbox) = connection.outbox.take() {
            self.discard(outbox);
        }
        tracing::debug!(id = %connection.id, %reason, "connection closed");
    }

    /// Closes a connection: what is queued is written first, and then its farewell, unless the reason says that
    /// nothing can be written any more. Further calls do nothing.
    pub(crate) fn close(&mut self, key: Key, reason: CloseReason) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if connection.closing.is_some() {
            return;
        }
        connection.begin_to_close(reason, NEVER);
        match reason {
            CloseReason::Reset | CloseReason::SlowConsumer | CloseReason::WriteTimeout => connection.abort = true,
            CloseReason::ClientClosed => {
                self.report_last_gaps(key);
            }
            _ => {
                connection.set_close_by(self.wheel.now() + self.settings.close_patience().max(self.settings.linger));
                self.report_last_gaps(key);
                self.say_farewell(key, reason);
            }
        }
        self.wake(key);
        self.mark_dirty(key);
        self.schedule(key);
    }

    /// Queues the last words to a client, in the way of what it speaks.
    fn say_farewell(&mut self, key: Key, reason: CloseReason) {
        let Some(connection) = self.table.get(key) else { return };
        match connection.encoding {
            // A browser opens connections in advance, and one that asked for nothing expects no answer.
            None if reason == CloseReason::HeadTimeout && connection.is_receiving() => {
                self.push_reply(key, http::timed_out());
            }
            None if reason == CloseReason::MemoryPressure => {
                let answer = http::unavailable(reason, b"", spread(connection.id));
                self.push_reply(key, answer);
            }
            None => {}
            // It has been told, in words that it can read.
            Some(_) if reason == CloseReason::WrongProtocol => {}
            Some(encoding) => {
                self.notice(key, Event::Bye { reason });
                if encoding.is_websocket() {
                    self.push_reply(key, websocket::close(reason));
                }
            }
        }
    }

    /// Gives up on a connection: its next turn takes it out.
    pub(crate) fn abort(&mut self, key: Key, reason: CloseReason) {
        if let Some(connection) = self.table.get_mut(key) {
            if connection.closing.is_none() {
                connection.begin_to_close(reason, NEVER);
            }
            connection.abort = true;
            self.wake(key);
        }
    }

    // ---- Time ----

    /// Microseconds since the shard started, for rates. Everything else goes by the wheel's ticks.
    pub(crate) fn micros(&self) -> Micros {
        self.started.elapsed().as_micros() as Micros
    }

    /// Hands memory back if the shard has needed much less for a while than it did before.
    pub(crate) fn trim_heap(&mut self) {
        let tables = u64::from(self.table.slots()) * CONNECTION_BYTES;
        if self.trim.is_due(tables + self.holdings.bytes() as u64) {
            sys::trim_heap();
        }
    }

    /// Looks at connections that the wheel has brought up.
    pub(crate) fn look_at(&mut self, keys: &[Key]) {
        let now = self.wheel.now();
        for key in keys.iter().copied() {
            // An entry that is not the connection's earliest is one that a nearer deadline has overtaken.
            let Some(connection) = self.table.get_mut(key).filter(|connection| connection.check_at <= now) else {
                continue;
            };
            connection.check_at = NEVER;
            match connection.due(&self.settings, now) {
                None => {}
                Some(Due::ReadOn) => self.wake(key),
                Some(Due::Ping) => self.ping(key, now),
                Some(Due::Close(_) | Due::End) => self.give_last_turn(key),
            }
            self.schedule(key);
        }
        self.flush_dirty();
    }

    /// Gives a connection whose time is over a turn in which it is read, and written to if there is room, whatever was
    /// reported of it. Then it is judged.
    fn give_last_turn(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if connection.overdue == 0 {
            connection.overdue = 1;
            connection.readable = true;
            connection.writable |= connection.blocked && poller::has_room(connection.socket.as_fd());
            self.wake(key);
        }
    }

    /// Judges a connection that has had a turn since its time was over. `more`: it has not read all that there is.
    pub(crate) fn judge(&mut self, key: Key, more: bool) {
        let now = self.wheel.now();
        let Some(connection) = self.table.get_mut(key).filter(|connection| connection.overdue > 0) else { return };
        if more && connection.overdue < OVERDUE_TURNS_MAX {
            connection.overdue += 1;
            return;
        }
        connection.overdue = 0;
        match connection.due(&self.settings, now) {
            Some(Due::Close(reason)) => self.close(key, reason),
            Some(Due::End) => self.abort(key, CloseReason::WriteTimeout),
            // What else is due the wheel brings up.
            Some(Due::ReadOn | Due::Ping) | None => {}
        }
    }

    /// Gives a silent connection a sign of life, and has a client that can answer give one.
    fn ping(&mut self, key: Key, now: Tick) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.last_ping = now;
        match connection.encoding {
            Some(Encoding::Sse) => self.push_reply(key, sse::HEARTBEAT.to_vec()),
            _ => self.push_reply(key, websocket::PING_FRAME.to_vec()),
        }
    }

    /// Makes sure that the connection is looked at when its nearest deadline comes.
    pub(crate) fn schedule(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if let Some(due) = connection.next_deadline(&self.settings)
            && due < connection.check_at
        {
            connection.check_at = self.wheel.insert(key, due);
        }
    }

    /// Shuts a connection's sending side once all is written, and gives the client a moment to close its own, so
    /// that what was written is not destroyed by a reset.
    pub(crate) fn start_linger(&mut self, key: Key) {
        let by = self.wheel.now() + self.settings.linger;
        if let Some(connection) = self.table.get_mut(key)
            && !connection.shut
        {
            connection.shut = true;
            connection.rate = 0;
            connection.set_close_by(by);
            // A socket that is not connected any more shows it at the next read.
            let _ = rustix::net::shutdown(connection.socket.as_fd(), Shutdown::Write);
            self.schedule(key);
        }
    }
}
