//! The engine of several shards over sockets, lanes and a clock of memory, in a schedule that a seed settles.
//!
//! In each step something happens anywhere: a client connects, sends some bytes, reads some, ends or breaks; a socket is
//! reported; a shard does one step of its work; a message crosses a lane; time passes. What must hold at all times is looked
//! at after each step, and what must hold in the end when all has come to rest.
//!
//! A failure names its seed. `CORECAST_SIM_SEED=N cargo test --lib simulation` runs that one again, and
//! `CORECAST_SIM_SECONDS=3600` goes on with new seeds for an hour.

mod client;
mod world;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Framing, SlowConsumer, TICK_MS};
use crate::engine::drain::{CLOSES_MAX, Drain};
use crate::engine::driver::{Bell, Report, Watched};
use crate::engine::fanout::Fanout;
use crate::engine::lanes::ShardMsg;
use crate::engine::parcel;
use crate::engine::registry::Registry;
use crate::engine::wheel::NEVER;
use crate::engine::{Behaviour, Engine};
use crate::event::Event;
use crate::handler::{Context, Handler, Handlers, OnPanic};
use crate::hub::Hub;
use crate::message::{CloseReason, Dialect, DropReason, Kind, Publish, PublishId, Target};
use crate::metrics::ShardMetrics;
use client::Client;
use world::{Net, Socket, Wire, World};

/// Runs of a test, and steps of a run.
const RUNS: u64 = 60;
const STEPS: usize = 3_000;

/// A source of numbers that a seed settles (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Whether something happens that happens once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Says which seed a failure came with.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the simulation failed: CORECAST_SIM_SEED={} runs it again", self.0);
        }
    }
}

/// The hub, with an account of the connections that it hears of.
struct Counted {
    hub: Hub,
    account: Rc<Account>,
}

/// How many connections a handler has heard of.
#[derive(Default)]
struct Account {
    opened: Cell<u64>,
    closed: Cell<u64>,
}

impl Handler for Counted {
    #[cfg(feature = "web")]
    fn routes(&self) -> crate::routes::Routes {
        self.hub.routes()
    }

    fn on_connect(&mut self, cx: &mut Context<'_>) {
        self.account.opened.update(|count| count + 1);
        self.hub.on_connect(cx);
    }

    fn on_topics(&mut self, cx: &mut Context<'_>, topics: &[String]) {
        self.hub.on_topics(cx, topics);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        self.hub.on_message(cx, message);
    }

    fn on_close(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
        self.account.closed.update(|count| count + 1);
        self.hub.on_close(cx, reason);
    }

    fn render(event: Event<'_>, dialect: Dialect, out: &mut Vec<u8>) -> Option<Kind> {
        Hub::render(event, dialect, out)
    }
}

/// One shard with what its driver does.
struct Shard {
    engine: Engine<World>,
    handlers: Handlers,
    account: Rc<Account>,
    fanout: Fanout,
    drain: Option<Drain>,
    metrics: Arc<ShardMetrics>,
    ticks: u32,
}

/// All shards, with their clients.
struct Simulation {
    dice: Dice,
    config: Config,
    clock: Rc<Cell<Duration>>,
    start: Instant,
    net: Rc<RefCell<Net>>,
    registry: Arc<Registry>,
    shards: Vec<Shard>,
    clients: Vec<Client>,
    /// The number of each publisher's last publish: the clients in their order, then the one outside.
    published: Vec<u64>,
    outside: u64,
}

const TOPICS: [&str; 4] = ["a", "b", "a/b", "long-topic-name"];

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let shards = 1 + dice.below(3);
        let config = Config {
            max_message: 160,
            queue_messages_max: 1 + dice.below(6),
            queue_bytes_max: 1_200,
            slow_consumer: dice.one_of(&[
                SlowConsumer::Skip,
                SlowConsumer::DropOldest,
                SlowConsumer::KeepLatest,
                SlowConsumer::Disconnect,
            ]),
            message_rate: dice.one_of(&[0, 0, 0, 20]),
            topics_per_connection_max: 1 + dice.below(4),
            publish_queue: 2 + dice.below(8),
            mesh_backlog: 1 + dice.below(4),
            read_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(3),
            ping_every: Duration::from_secs(4),
            client_publish: true,
            buffers_max: dice.one_of(&[0, 6_000]),
            ..Config::default()
        };
        let clock = Rc::new(Cell::new(Duration::ZERO));
        let start = Instant::now();
        let lanes = (0..shards).map(|_| (0..shards).map(|_| VecDeque::new()).collect()).collect();
        let net = Rc::new(RefCell::new(Net { lanes, capacity: 1 + dice.below(4) }));
        let registry = Arc::new(Registry::new(shards, 12, &config));
        let hub = Hub::new(&config);
        let make = |index| {
            let world = World {
                index,
                start,
                clock: Rc::clone(&clock),
                net: Rc::clone(&net),
                watched: Vec::new(),
                rung: [false; Bell::COUNT],
                lent: 0,
            };
            let metrics = Arc::new(ShardMetrics::default());
            let account = Rc::<Account>::default();
            let handler = Counted { hub: hub.clone(), account: Rc::clone(&account) };
            let handlers = Handlers::new(vec![Box::new(handler)]);
            let behaviour = Behaviour::new(&handlers, vec![Counted::render], OnPanic::EndServer);
            let (registry, counted) = (Arc::clone(&registry), Arc::clone(&metrics));
            Shard {
                engine: Engine::new(index, &config, behaviour, registry, counted, world),
                handlers,
                account,
                fanout: Fanout::default(),
                drain: None,
                metrics,
                ticks: 0,
            }
        };
        let shards = (0..shards).map(make).collect();
        Simulation {
            dice,
            config,
            clock,
            start,
            net,
            registry,
            shards,
            clients: Vec::new(),
            published: Vec::new(),
            outside: 0,
        }
    }

    /// Lets something happen anywhere.
    fn step(&mut self) {
        let shard = self.dice.below(self.shards.len());
        match self.dice.below(24) {
            0 => self.connect(shard),
            1..=3 => self.speak(),
            4..=6 => self.send(),
            7..=9 => self.read(),
            10 if self.dice.once_in(6) => self.end(),
            10 | 11 => self.publish_from_outside(),
            12..=14 => _ = self.report(shard),
            15..=17 => _ = self.turn(shard),
            18 | 19 => _ = self.deliver(shard),
            20 | 21 => _ = self.cross(),
            22 => _ = self.retry(shard),
            _ if self.dice.once_in(8) => self.pass(),
            _ => {}
        }
    }

    // ---- Clients ----

    fn connect(&mut self, shard: usize) {
        let built_in = if cfg!(feature = "web") { &Framing::ALL[..] } else { &[Framing::Line, Framing::Length] };
        let framing = self.dice.one_of(built_in);
        let wire = Wire {
            room: self.dice.below(400),
            piece: 1 + self.dice.below(90),
            rounds: self.dice.once_in(3).then(|| 1 + self.dice.below(3)),
            ..Wire::default()
        };
        let wire = Rc::new(RefCell::new(wire));
        let (socket, peer) = (Socket(Rc::clone(&wire)), "192.0.2.1:9".parse().unwrap());
        let client = parcel::Client { socket, peer, framing, handler: 0 };
        let Shard { engine, handlers, .. } = &mut self.shards[shard];
        // A refused one is told, which its account does not expect.
        if engine.admit(handlers, client).is_ok() {
            self.clients.push(Client::new(framing, wire));
            self.published.push(0);
        }
    }

    fn speak(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let number = self.dice.below(self.clients.len());
        let topic = self.dice.one_of(&TOPICS);
        let (kind, filling) = (self.dice.below(8), self.dice.below(60));
        let mut payload = || {
            self.published[number] += 1;
            format!("c{number} {} {}", self.published[number], "x".repeat(filling))
        };
        let text = match kind {
            0..=2 => format!("SUB {topic}"),
            3 => format!("UNSUB {topic}"),
            4 | 5 => format!("PUB {topic} {}", payload()),
            6 => format!("CAST {}", payload()),
            _ => "PING".to_owned(),
        };
        self.clients[number].say(&text);
    }

    fn send(&mut self) {
        if !self.clients.is_empty() {
            let number = self.dice.below(self.clients.len());
            let most = 1 + self.dice.below(200);
            self.clients[number].send(most);
        }
    }

    fn read(&mut self) {
        if !self.clients.is_empty() {
            let number = self.dice.below(self.clients.len());
            // Some read seldom.
            if !number.is_multiple_of(3) || self.dice.once_in(10) {
                let room = self.dice.below(300);
                self.clients[number].read(room);
            }
        }
    }

    fn end(&mut self) {
        if !self.clients.is_empty() {
            let number = self.dice.below(self.clients.len());
            let wire = &mut *self.clients[number].wire.borrow_mut();
            if self.dice.once_in(2) { wire.reset = true } else { wire.client_ended = true }
        }
    }

    fn publish_from_outside(&mut self) {
        if !self.shards.iter().all(|shard| shard.engine.base.publishes.has_room()) {
            return;
        }
        self.outside += 1;
        let target = match self.dice.below(3) {
            0 => Target::All,
            _ => Target::Topic(self.dice.one_of(&TOPICS).parse().unwrap()),
        };
        let payload = format!("outside {} {}", self.outside, "y".repeat(self.dice.below(60)));
        let publish = Publish {
            id: PublishId::new(99, self.outside),
            target,
            payload: payload.into(),
            kind: Kind::Text,
            slow_consumer: None,
            accepted: self.start + self.clock.get(),
            receipt: None,
        };
        for shard in &mut self.shards {
            shard.engine.base.enqueue(publish.clone());
        }
    }

    // ---- Shards ----

    /// What is watched for on a shard and would be reported.
    fn ready(&self, shard: usize) -> Vec<Watched> {
        let engine = &self.shards[shard].engine;
        let is_ready = |watched: &Watched| match watched {
            Watched::Read(key) | Watched::Write(key) => {
                engine.table.get(*key).is_some_and(|row| row.socket.is_ready(*watched))
            }
            Watched::Accept(_) => false,
        };
        engine.base.driver.watched.iter().copied().filter(is_ready).collect()
    }

    fn report(&mut self, shard: usize) -> bool {
        let ready = self.ready(shard);
        if ready.is_empty() {
            return false;
        }
        let watched = self.dice.one_of(&ready);
        let engine = &mut self.shards[shard].engine;
        let (Watched::Read(key) | Watched::Write(key)) = watched else { unreachable!("there are no listeners") };
        let wire = Rc::clone(&engine.table.get(key).expect("it is ready").socket.0);
        let hangup = wire.borrow().client_ended || wire.borrow().reset;
        // Who waits for room waits once; other watches go on, or don't, as the kernel likes.
        let armed = matches!(watched, Watched::Read(_)) && !self.dice.once_in(3);
        if !armed {
            engine.base.driver.watched.retain(|other| *other != watched);
        }
        engine.take_report(key, Report { watched, hangup, armed });
        true
    }

    /// Whether a bell has been rung; then it is answered.
    fn answer(&mut self, shard: usize, bell: Bell) -> bool {
        std::mem::take(&mut self.shards[shard].engine.base.driver.rung[bell as usize])
    }

    fn turn(&mut self, shard: usize) -> bool {
        if !self.answer(shard, Bell::Turns) {
            return false;
        }
        let Shard { engine, handlers, .. } = &mut self.shards[shard];
        if let Some(key) = engine.next_turn() {
            engine.take_turn(handlers, key);
        }
        let has_more = !engine.base.turns.is_empty();
        engine.base.driver.rung[Bell::Turns as usize] |= has_more;
        true
    }

    fn deliver(&mut self, shard: usize) -> bool {
        if !self.answer(shard, Bell::Publishes) {
            return false;
        }
        let Shard { engine, fanout, .. } = &mut self.shards[shard];
        let has_more = fanout.step(engine);
        engine.base.driver.rung[Bell::Publishes as usize] |= has_more;
        true
    }

    /// Has a message cross one of the lanes.
    fn cross(&mut self) -> bool {
        let shards = self.shards.len();
        let lanes: Vec<(usize, usize)> = (0..shards)
            .flat_map(|from| (0..shards).map(move |to| (from, to)))
            .filter(|(from, to)| {
                let lane = &self.net.borrow().lanes[*from][*to];
                let has_room = self.shards[*to].engine.base.publishes.has_room();
                // While the queue is full nothing is taken out of the lane.
                lane.front().is_some_and(|message| has_room || !matches!(message, ShardMsg::Publish(_)))
            })
            .collect();
        if lanes.is_empty() {
            return false;
        }
        let (from, to) = self.dice.one_of(&lanes);
        let message = self.net.borrow_mut().lanes[from][to].pop_front().expect("it was there");
        let Shard { engine, handlers, .. } = &mut self.shards[to];
        match message {
            ShardMsg::Publish(publish) => engine.base.enqueue(publish),
            ShardMsg::Client(client, place) => {
                place.keep();
                let _ = engine.take_in(handlers, client);
            }
            ShardMsg::Reclaim => engine.reclaim_if_needed(),
            ShardMsg::Draining => engine.base.draining_peers += 1,
            ShardMsg::Hello { .. } => unreachable!("the lanes are numbered here"),
        }
        true
    }

    fn retry(&mut self, shard: usize) -> bool {
        if !self.answer(shard, Bell::Backlog) {
            return false;
        }
        let engine = &mut self.shards[shard].engine;
        engine.retry_lanes();
        let waits = engine.base.lanes.waiting() > 0;
        engine.base.driver.rung[Bell::Backlog as usize] |= waits;
        true
    }

    /// Lets a tick pass.
    fn pass(&mut self) {
        self.clock.set(self.clock.get() + Duration::from_millis(TICK_MS));
        for shard in &mut self.shards {
            shard.ticks += 1;
            let engine = &mut shard.engine;
            engine.see_to_memory();
            let turns = engine.base.wheel.catch_up(shard.ticks);
            for _ in 0..turns {
                let due = engine.base.wheel.turn();
                engine.look_at(&due);
            }
            engine.base.proofs.turn(turns);
            while let Some(written) = engine.take_due_proofs() {
                engine.prove(&written);
            }
            if std::mem::take(&mut engine.base.driver.rung[Bell::Refusals as usize]) {
                engine.base.attend_refused();
                engine.base.driver.rung[Bell::Refusals as usize] = !engine.base.refusals.is_empty();
            }
        }
    }

    // ---- What must hold ----

    /// What holds after each step.
    fn check(&self) {
        let mut open = 0;
        for shard in &self.shards {
            let base = &shard.engine.base;
            open += shard.engine.table.len();
            assert_eq!(base.driver.lent, 0, "all buffers are back");
            assert!(base.dirty.is_empty() || shard.metrics.publish_queue.get() > 0 || !shard.is_idle());
            assert_eq!(shard.metrics.polls.get(), base.driver.watched.len() as u64, "watches are counted");
            assert!(base.publishes.len() <= self.config.publish_queue + shard.engine.table.len());
            let (mut messages, mut bytes) = (0, 0);
            for key in shard.engine.keys() {
                let row = shard.engine.table.get(key).unwrap();
                let load = row.load();
                messages += load.messages as u64;
                bytes += load.bytes as u64;
                let reserve = 2 * base.settings.reply_bytes_max + 1_024;
                assert!(load.bytes <= self.config.queue_bytes_max + reserve, "an outbox holds {} bytes", load.bytes);
                // Somebody will look at it: because it waits for its turn or a report, or for those that it was told to.
                let is_watched = base.driver.watched.contains(&Watched::Read(key));
                let is_due = row.check_at != NEVER;
                let is_paused = row.paused && (row.blocked || base.congested.contains(&key) || is_due);
                let is_waited_for = is_paused || row.closing.is_some() && (row.blocked || is_due);
                assert!(
                    row.queued || is_watched || is_waited_for,
                    "{key:?} is forgotten: paused {}, blocked {}, closing {:?}, readable {}, check_at {}, hs {:?} {:?} cong {:?} watched {:?}",
                    row.paused,
                    row.blocked,
                    row.closing,
                    row.readable,
                    row.check_at,
                    row.handshaking,
                    row.encoding,
                    base.congested,
                    base.driver.watched
                );
                let is_written_on = row.queued || row.abort || base.driver.watched.contains(&Watched::Write(key));
                assert!(!row.blocked || is_written_on, "{key:?} is blocked for ever");
            }
            assert_eq!(shard.metrics.queued_messages.get(), messages, "what waits is counted");
            assert_eq!(shard.metrics.queued_bytes.get(), bytes, "its bytes are, too");
            if shard.is_idle() {
                shard.check_books();
            }
        }
        let crossing = self
            .net
            .borrow()
            .lanes
            .iter()
            .flatten()
            .flatten()
            .filter(|message| matches!(message, ShardMsg::Client(..)))
            .count();
        assert_eq!(self.registry.open(), open + crossing, "connections are counted");
    }

    /// Lets everything come to rest: all is sent and read, and nothing else happens.
    fn come_to_rest(&mut self) {
        for _ in 0..200_000 {
            let mut moved = false;
            for client in &mut self.clients {
                moved |= client.send(usize::MAX);
                moved |= client.read(1_000);
            }
            for shard in 0..self.shards.len() {
                while self.report(shard) {
                    moved = true;
                    self.turn(shard);
                }
                moved |= self.turn(shard);
                moved |= self.deliver(shard);
                moved |= self.retry(shard);
            }
            moved |= self.cross();
            self.check();
            // Who sends too much is read on at the next tick.
            if !moved && !self.shards.iter().any(Shard::waits_for_a_tick) {
                return;
            }
            if !moved {
                self.pass();
            }
        }
        panic!("it does not come to rest");
    }

    /// What holds when everything has come to rest.
    fn check_at_rest(&self) {
        let mut delivered = 0;
        for client in &self.clients {
            delivered += client.delivered;
            let wire = client.wire.borrow();
            if wire.closed || wire.reset || wire.client_ended {
                continue;
            }
            assert!(client.is_whole(), "a message came in part");
            assert_eq!(client.pings, 0, "each PING has its PONG");
        }
        let counted: u64 = self.shards.iter().map(|shard| shard.metrics.delivered.get()).sum();
        // A broken connection may have lost some on its way.
        assert!(delivered <= counted, "clients have read {delivered} messages, of which {counted} were counted");
        for shard in &self.shards {
            assert!(shard.is_idle() && shard.engine.base.lanes.waiting() == 0);
            assert_eq!(shard.metrics.queued_messages.get(), 0, "nothing waits");
        }
        if !self.clients.iter().any(|client| client.wire.borrow().reset) {
            assert_eq!(delivered, counted, "what was counted as delivered was read");
        }
    }

    /// What clients that are still there have missed they were told of, to the message.
    fn check_gaps(&self) {
        for shard in &self.shards {
            for key in shard.engine.keys() {
                let row = shard.engine.table.get(key).unwrap();
                let client = self.clients.iter().find(|client| Rc::ptr_eq(&client.wire, &row.socket.0));
                let client = client.expect("each connection is a client's");
                if row.closing.is_none() {
                    assert_eq!(client.missed, u64::from(row.dropped), "of what it missed a client is told");
                }
            }
        }
    }

    /// Drains all shards; nothing may be left of anybody.
    fn drain(&mut self) {
        let over = Duration::from_millis(self.dice.one_of(&[0, 700]));
        self.begin_to_drain(over);
        self.end_drain();
    }

    fn begin_to_drain(&mut self, over: Duration) {
        for shard in &mut self.shards {
            shard.drain = Some(Drain::begin(&mut shard.engine, over));
        }
    }

    fn end_drain(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "the drain does not end");
            let mut is_over = true;
            for Shard { engine, drain, .. } in &mut self.shards {
                is_over &= drain.as_mut().expect("it drains").step(engine).is_none();
                assert!(engine.base.publishes.closes() <= CLOSES_MAX, "few closes wait at a time");
            }
            if is_over {
                break;
            }
            for shard in 0..self.shards.len() {
                while self.report(shard) {}
                while self.turn(shard) {}
                while self.deliver(shard) {}
                self.retry(shard);
            }
            while self.cross() {}
            for client in &mut self.clients {
                client.read(500);
                // Who has been told goes.
                if client.farewell.is_some() {
                    client.wire.borrow_mut().client_ended = true;
                }
            }
            self.pass();
            self.check();
        }
        for shard in &self.shards {
            let engine = &shard.engine;
            assert_eq!(engine.table.len(), 0);
            assert_eq!(engine.base.topics.len(), 0, "no topic is left");
            assert!(engine.base.driver.watched.is_empty(), "nothing is watched");
            assert_eq!(engine.base.holdings.bytes(), 0, "nothing is held");
            assert_eq!(
                shard.account.opened.get(),
                shard.account.closed.get(),
                "each connection that was announced was bid farewell"
            );
            let closed: u64 = CloseReason::ALL.iter().map(|reason| shard.metrics.closed[*reason as usize].get()).sum();
            assert_eq!(closed, shard.metrics.accepted.get(), "each has one reason");
        }
        assert!(self.clients.iter().all(|client| client.wire.borrow().closed), "all sockets are closed");
        assert_eq!(self.registry.open(), 0);
    }
}

impl Shard {
    /// Whether no batch is being delivered and nothing waits for that.
    fn is_idle(&self) -> bool {
        self.engine.base.publishes.is_empty() && self.fanout.is_idle()
    }

    /// Whether somebody is read on at the next tick.
    fn waits_for_a_tick(&self) -> bool {
        self.engine.keys().any(|key| self.engine.table.get(key).is_some_and(|row| row.paused || row.closing.is_some()))
    }

    /// Between two batches: offered is written, queued and dropped.
    fn check_books(&self) {
        let dropped: u64 = DropReason::ALL
            .iter()
            .filter(|reason| **reason != DropReason::NoConnection)
            .map(|reason| self.metrics.dropped[*reason as usize].get())
            .sum();
        let rows = self.engine.keys().filter_map(|key| self.engine.table.get(key));
        let queued: usize = rows.filter_map(|row| row.outbox.as_ref()).map(|outbox| outbox.pushes()).sum();
        let (offered, written) = (self.metrics.matched.get(), self.metrics.delivered.get());
        assert_eq!(offered, written + queued as u64 + dropped, "{written} written, {queued} queued, {dropped} dropped");
    }
}

fn run(seed: u64) {
    let _seed = Seed(seed);
    let mut simulation = Simulation::new(seed);
    for _ in 0..STEPS {
        simulation.step();
        simulation.check();
    }
    simulation.come_to_rest();
    simulation.check_at_rest();
    simulation.check_gaps();
    simulation.drain();
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_the_order_of_things_the_books_of_shards_and_clients_agree() {
    if let Some(seed) = number("CORECAST_SIM_SEED") {
        return run(seed);
    }
    let first = Instant::now().elapsed().subsec_nanos() as u64 ^ u64::from(std::process::id()) << 20;
    (0..RUNS).for_each(|number| run(first + number));
    let end = Instant::now() + Duration::from_secs(number("CORECAST_SIM_SECONDS").unwrap_or(0));
    let mut seed = first + RUNS;
    while Instant::now() < end {
        run(seed);
        seed += 1;
    }
}

#[test]
fn a_drain_whose_closes_take_long_bids_everybody_farewell() {
    let mut simulation = Simulation::new(1);
    while simulation.clients.len() < 3 {
        simulation.connect(0);
    }
    simulation.come_to_rest();
    let open = simulation.shards.iter().map(|shard| shard.engine.table.len()).sum::<usize>();
    simulation.begin_to_drain(Duration::ZERO);
    while simulation.cross() {}
    // Much else is to be delivered first: the closes wait for longer than a client may linger.
    for _ in 0..40 {
        for Shard { engine, drain, .. } in &mut simulation.shards {
            drain.as_mut().expect("it drains").step(engine);
        }
        simulation.pass();
    }
    simulation.end_drain();
    let told = simulation.clients.iter().filter(|client| client.farewell.as_deref() == Some("drain")).count();
    assert_eq!((told, open), (3, 3));
}
