//! The state machine of one shard: what comes in, what goes out, and who runs out of time.
//!
//! It runs without sockets, runtime and clock: whoever drives it brings a [`Driver`] along, tells it what has happened, and
//! calls it once for each step. No call waits, and each has a bound.
//!
//! An [`Engine`] is a table of connections, and a [`Base`] that all of them share. A [`Visit`] is one connection at hand: its
//! row, borrowed once, beside the base. Bytes come in and go through `turn` to a handler, what that says goes by `actions` to
//! `outgoing` or `publish`, and what is published comes by `fanout` to `direct` or `outgoing`.

pub(crate) mod actions;
pub(crate) mod admission;
pub(crate) mod audience;
pub(crate) mod commands;
pub(crate) mod connection;
pub(crate) mod direct;
pub(crate) mod drain;
pub(crate) mod driver;
pub(crate) mod fanout;
pub(crate) mod gathering;
pub(crate) mod interest;
pub(crate) mod lanes;
pub(crate) mod latest;
pub(crate) mod liveness;
pub(crate) mod memory;
pub(crate) mod moves;
pub(crate) mod opening;
pub(crate) mod outbox;
pub(crate) mod outgoing;
pub(crate) mod packing;
pub(crate) mod panics;
pub(crate) mod parcel;
pub(crate) mod publish;
pub(crate) mod publish_queue;
pub(crate) mod pushed;
pub(crate) mod query;
pub(crate) mod reclaim;
pub(crate) mod refusals;
pub(crate) mod registry;
pub(crate) mod seen;
pub(crate) mod settings;
pub(crate) mod shard_msg;
pub(crate) mod subscriptions;
pub(crate) mod table;
pub(crate) mod timers;
pub(crate) mod trim;
pub(crate) mod turn;
pub(crate) mod turns;
pub(crate) mod visit;
pub(crate) mod wheel;
pub(crate) mod wording;

use std::collections::HashMap;
use std::io;
#[cfg(feature = "web")]
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, FANOUT_SLICE, REFUSAL_LOG_MS};
use crate::event::Event;
#[cfg(feature = "web")]
use crate::handler::Handler;
use crate::handler::{Handlers, OnPanic};
use crate::heap;
use crate::message::{CloseReason, Dialect, Kind};
use crate::metrics::ShardMetrics;
#[cfg(feature = "web")]
use crate::protocol::deflate::{Deflater, Inflater};
use crate::rate::Micros;
#[cfg(feature = "web")]
use crate::routes::Routes;
use crate::session::Session;
#[cfg(feature = "web")]
use crate::site::Site;
use connection::{Connection, Due, Polls};
use driver::{Driver, Watched};
use interest::Interest;
use lanes::Lanes;
use liveness::Proofs;
use memory::Holdings;
use moves::Moves;
use outbox::{Limits, Outbox};
use panics::Panics;
use publish_queue::PublishQueue;
use reclaim::Reclaim;
use refusals::Refusals;
use registry::Registry;
use settings::Settings;
use table::{Key, Table};
use timers::Timers;
use trim::Trim;
use turns::TurnQueue;
use visit::Visit;
use wheel::{NEVER, Wheel};

/// Puts an event into the bytes of a message; see [`crate::handler::Handler::render`].
pub(crate) type Render = fn(Event<'_>, Dialect, &mut Vec<u8>) -> Option<Kind>;

/// What a shard's handlers are to its engine.
pub(crate) struct Behaviour {
    /// By handler: how it puts events into words.
    pub(crate) renders: Vec<Render>,
    /// By handler: what it serves over HTTP.
    #[cfg(feature = "web")]
    pub(crate) routes: Vec<Routes>,
    pub(crate) on_panic: OnPanic,
}

impl Behaviour {
    /// That of these handlers, which say their routes.
    #[cfg_attr(not(feature = "web"), expect(unused_variables, reason = "they have no routes"))]
    pub(crate) fn new(handlers: &Handlers, renders: Vec<Render>, on_panic: OnPanic) -> Self {
        Behaviour {
            renders,
            #[cfg(feature = "web")]
            routes: handlers.iter().map(Handler::routes).collect(),
            on_panic,
        }
    }
}

/// What an idle connection takes in the shard's tables, in bytes, about.
const CONNECTION_BYTES: u64 = 128;

/// The state of one shard.
pub(crate) struct Engine<D: Driver> {
    pub(crate) table: Table<Connection<D::Socket>>,
    pub(crate) base: Base<D>,
}

/// What the connections of a shard share.
pub(crate) struct Base<D: Driver> {
    pub(crate) index: usize,
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    /// By handler.
    pub(crate) renders: Vec<Render>,
    pub(crate) panics: Panics,
    /// Of the connections that are somebody's, or have a state.
    pub(crate) sessions: HashMap<Key, Session>,
    pub(crate) timers: Timers,
    /// By handler.
    #[cfg(feature = "web")]
    pub(crate) sites: Vec<Rc<Site>>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) driver: D,
    pub(crate) topics: Interest,
    pub(crate) publishes: PublishQueue,
    pub(crate) lanes: Lanes<D::Socket>,
    pub(crate) moves: Moves,
    pub(crate) wheel: Wheel,
    pub(crate) refusals: Refusals<D::Socket>,
    pub(crate) holdings: Holdings,
    pub(crate) reclaim: Reclaim,
    pub(crate) trim: Trim,
    /// Connections that wait for their turn.
    pub(crate) turns: TurnQueue,
    pub(crate) proofs: Proofs,
    /// Slots of the table: each connection's is below it.
    pub(crate) slots: u32,
    /// The table's newest generation.
    pub(crate) generation: u32,
    /// Connections with something in their outbox that has not been tried to write yet.
    pub(crate) dirty: Vec<Key>,
    /// Connections that published while the queue of publishes was congested.
    pub(crate) congested: Vec<Key>,
    /// Empty outboxes for connections that need one next: a fan-out goes round in them without the allocator.
    #[allow(clippy::vec_box, reason = "a row holds a boxed outbox, so the boxes are what is kept")]
    pub(crate) spare: Vec<Box<Outbox>>,
    /// Where messages are rendered before they are framed.
    pub(crate) scratch: Vec<u8>,
    /// Where replies are framed before they are queued.
    pub(crate) framed: Vec<u8>,
    #[cfg(feature = "web")]
    pub(crate) deflater: Deflater,
    #[cfg(feature = "web")]
    pub(crate) inflater: Inflater,
    pub(crate) publish_sequence: u64,
    /// When the first publish of this step was accepted: those behind it count as accepted then, too.
    pub(crate) moment: Option<Instant>,
    /// Connections that have gone, to other shards too.
    pub(crate) departed: u64,
    /// Log lines about pages that may not connect.
    #[cfg(feature = "web")]
    pub(crate) foreign_pages: Limited,
    pub(crate) started: Instant,
    /// Whether new connections are turned away.
    pub(crate) draining: bool,
    /// How many other shards have said that they drain.
    pub(crate) draining_peers: usize,
}

impl<D: Driver> Engine<D> {
    /// The state of shard `index` of as many as the registry knows.
    pub(crate) fn new(
        index: usize,
        config: &Config,
        behaviour: Behaviour,
        registry: Arc<Registry>,
        metrics: Arc<ShardMetrics>,
        driver: D,
    ) -> Self {
        let settings = Settings::new(config);
        let holdings = Holdings::new(registry.buffers_max(), registry.shards());
        let topics = Interest::default();
        let base = Base {
            index,
            settings,
            limits: Limits::new(config),
            renders: behaviour.renders,
            panics: Panics::new(behaviour.on_panic),
            sessions: HashMap::new(),
            timers: Timers::default(),
            #[cfg(feature = "web")]
            sites: behaviour.routes.into_iter().map(|routes| Rc::new(Site::new(config, routes))).collect(),
            lanes: Lanes::new(index, registry.shards(), config),
            moves: Moves::new(registry.shards()),
            registry,
            metrics,
            started: driver.now(),
            driver,
            publishes: PublishQueue::new(config, topics.stale()),
            topics,
            wheel: Wheel::default(),
            refusals: Refusals::default(),
            holdings,
            reclaim: Reclaim::default(),
            trim: Trim::default(),
            turns: TurnQueue::default(),
            proofs: Proofs::new(settings.write_timeout),
            slots: 0,
            generation: 0,
            dirty: Vec::new(),
            congested: Vec::new(),
            spare: Vec::new(),
            scratch: Vec::new(),
            framed: Vec::new(),
            #[cfg(feature = "web")]
            deflater: Deflater::default(),
            #[cfg(feature = "web")]
            inflater: Inflater::default(),
            publish_sequence: 0,
            moment: None,
            departed: 0,
            #[cfg(feature = "web")]
            foreign_pages: Limited::default(),
            draining: false,
            draining_peers: 0,
        };
        Engine { table: Table::default(), base }
    }

    /// A connection at hand; `None`: it is gone.
    pub(crate) fn visit(&mut self, key: Key) -> Option<Visit<'_, D>> {
        Some(Visit { key, row: self.table.get_mut(key)?, base: &mut self.base })
    }

    /// The connections that there are.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        (0..self.table.slots()).filter_map(|slot| self.table.key_at(slot))
    }

    /// Takes a connection out and closes its socket. Its reason is counted, and so is each message that waited.
    pub(crate) fn remove(&mut self, key: Key) {
        let Some(mut row) = self.take_out(key) else { return };
        Visit { key, row: &mut row, base: &mut self.base }.drop_held();
        let base = &mut self.base;
        base.sessions.remove(&key);
        base.timers.remove_connection(key);
        base.registry.remove(row.id);
        base.registry.release(base.index);
        let reason = row.closing.unwrap_or(CloseReason::Reset);
        base.metrics.closed[reason as usize].add(1);
        if let Some(outbox) = row.outbox.take() {
            base.discard(outbox);
        }
        tracing::debug!(id = %row.id, %reason, "connection closed");
    }

    /// Takes a row out of the table, and ends what this shard has going for it.
    fn take_out(&mut self, key: Key) -> Option<Connection<D::Socket>> {
        let row = self.table.remove(key)?;
        let base = &mut self.base;
        base.departed += 1;
        base.slots = self.table.slots();
        base.metrics.connections.set(self.table.len() as u64);
        // A watch that is armed would keep the socket open.
        let watched = [(Polls::READ, Watched::Read(key)), (Polls::WRITE, Watched::Write(key))];
        for (_, watched) in watched.into_iter().filter(|(poll, _)| row.polls.has(*poll)) {
            base.driver.unwatch(watched);
            base.metrics.polls.sub(1);
        }
        base.topics.remove_connection(key);
        Some(row)
    }

    /// Follows a row that has been put into the table.
    ///
    /// # Errors
    /// There is nothing to watch it with.
    fn note_insertion(&mut self, key: Key) -> io::Result<()> {
        self.base.slots = self.table.slots();
        self.base.generation = self.table.generation();
        self.base.metrics.connections.set(self.table.len() as u64);
        self.base.driver.reserve(key.slot)
    }

    /// Looks at connections that the wheel has brought up.
    pub(crate) fn look_at(&mut self, keys: &[Key]) {
        let now = self.base.wheel.now();
        for key in keys.iter().copied() {
            let Some(mut visit) = self.visit(key) else { continue };
            // An entry that is not the connection's earliest is one that a nearer deadline has overtaken.
            if visit.row.check_at > now {
                continue;
            }
            visit.row.check_at = NEVER;
            match visit.row.due(&visit.base.settings, now) {
                None => {}
                Some(Due::ReadOn) => visit.wake(),
                Some(Due::Ping) => visit.ping(now),
                Some(Due::Close(_) | Due::End) => visit.give_last_turn(),
            }
            visit.schedule();
        }
        self.flush_dirty();
    }

    /// Calls handlers back about some of the timers that are due; whether there may be more.
    pub(crate) fn run_timers(&mut self, handlers: &mut Handlers) -> bool {
        let now = self.base.wheel.now();
        for _ in 0..FANOUT_SLICE {
            let Some((key, token)) = self.base.timers.take_due(now) else {
                self.flush_dirty();
                return false;
            };
            let mut visit = self.visit(key).expect("timers go with their connection");
            if visit.row.closing.is_none() {
                visit.call(handlers, Kind::Text, |handler, cx| handler.on_timer(cx, token));
            }
        }
        self.flush_dirty();
        true
    }

    /// Ends a step: writes what has been queued since the last one, each connection once.
    pub(crate) fn flush_dirty(&mut self) {
        self.base.moment = None;
        let mut dirty = std::mem::take(&mut self.base.dirty);
        for key in dirty.drain(..) {
            if let Some(mut visit) = self.visit(key) {
                visit.flush();
            }
        }
        // Flushing marks nothing dirty, so the list's memory can be kept.
        if self.base.dirty.is_empty() {
            self.base.dirty = dirty;
        }
    }

    /// Closes a connection, if it is still there.
    pub(crate) fn close(&mut self, key: Key, reason: CloseReason) {
        if let Some(mut visit) = self.visit(key) {
            visit.close(reason);
        }
    }

    /// Lets the clients go on that waited for the queue of publishes.
    pub(crate) fn relieve(&mut self) {
        self.base.metrics.publish_queue.set(self.base.publishes.len() as u64);
        if !self.base.is_congested() {
            for key in self.base.congested.split_off(0) {
                if let Some(mut visit) = self.visit(key) {
                    visit.wake();
                }
            }
        }
    }

    /// Hands memory back if the shard has needed much less for a while than it did before.
    pub(crate) fn trim_heap(&mut self) {
        let tables = u64::from(self.table.slots()) * CONNECTION_BYTES;
        if self.base.trim.is_due(tables + self.base.holdings.bytes() as u64) {
            heap::trim();
        }
    }
}

impl<D: Driver> Base<D> {
    /// Microseconds since the shard started, for rates. Everything else goes by the wheel's ticks.
    pub(crate) fn micros(&self) -> Micros {
        self.driver.now().saturating_duration_since(self.started).as_micros() as Micros
    }

    /// Drops what waits, for a shard that has ended: nobody is left to get it, and who waits for a receipt is told.
    pub(crate) fn end(&mut self) {
        self.publishes.clear();
        self.lanes.clear();
    }

    /// Counts a page that may not connect, and says so in the log: browsers don't show its people why.
    #[cfg(feature = "web")]
    pub(crate) fn note_foreign_page(&mut self, text: &str) {
        self.metrics.pages_refused.add(1);
        if let Some(count) = self.foreign_pages.another(self.driver.now()) {
            tracing::warn!(count, "pages refused: {text}");
        }
    }
}

/// Lets one log line through at a time, and says how many were held back with it.
#[derive(Default)]
pub(crate) struct Limited {
    since: Option<Instant>,
    count: u64,
}

impl Limited {
    /// Counts one more; the count to log now, or `None` if it is too early for the next line.
    pub(crate) fn another(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        let pause = Duration::from_millis(REFUSAL_LOG_MS);
        if self.since.is_some_and(|since| now.saturating_duration_since(since) < pause) {
            return None;
        }
        self.since = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_and_again_is_logged_once_in_a_while_with_its_count() {
        let (mut limited, start) = (Limited::default(), Instant::now());
        let lines: Vec<u64> = (0..1_000).filter_map(|_| limited.another(start)).collect();
        assert_eq!(lines, [1]);
        let later = start + Duration::from_millis(REFUSAL_LOG_MS);
        assert_eq!((limited.another(later), limited.another(later)), (Some(1_000), None));
    }
}
