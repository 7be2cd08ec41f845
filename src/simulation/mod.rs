//! The engine of several shards over sockets, lanes and a clock of memory, in a schedule that a seed settles.
//!
//! In each step something happens anywhere: a client connects, sends some bytes, reads some, ends or breaks; a socket is
//! reported; a shard does one step of its work; a message crosses a lane; time passes. What must hold at all times is looked
//! at after each step, and what must hold in the end when all has come to rest.
//!
//! A failure names its seed. `CORECAST_SIM_SEED=N cargo test --lib simulation` runs that one again, and
//! `CORECAST_SIM_SECONDS=3600` goes on with new seeds for an hour.

mod client;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Framing, SlowConsumer, TICK_MS};
use crate::engine::drain::{CLOSES_MAX, Drain};
use crate::engine::driver::{Bell, Report, Watched};
use crate::engine::fanout::Fanout;
use crate::engine::parcel::Parcel;
use crate::engine::registry::Registry;
use crate::engine::shard_msg::ShardMsg;
use crate::engine::table::Key;
use crate::engine::wheel::NEVER;
use crate::engine::{Behaviour, Engine};
use crate::event::Event;
use crate::handler::{Context, Handler, Handlers, OnPanic};
use crate::hub::Hub;
use crate::message::{CloseReason, Dialect, DropReason, Kind, PublishId, Target};
use crate::metrics::{Counter, ShardMetrics};
use crate::publish::Publish;
use crate::session::Session;
use crate::testing::world::{Net, Socket, Wire, World};
use client::Client;

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
    /// Whether open connections are moved from shard to shard.
    moves: bool,
    /// How many of them have begun to move.
    moved: usize,
}

const TOPICS: [&str; 4] = ["a", "b", "a/b", "long-topic-name"];

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let shards = 1 + dice.below(3);
        let mut config = Simulation::config(&mut dice);
        config.message_rate = dice.one_of(&[0, 0, 0, 20]);
        config.buffers_max = dice.one_of(&[0, 6_000]);
        Simulation::with(dice, shards, config)
    }

    /// Settings that make bounds near.
    fn config(dice: &mut Dice) -> Config {
        Config {
            max_message: 160,
            queue_messages_max: 1 + dice.below(6),
            queue_bytes_max: 1_200,
            slow_consumer: dice.one_of(&[
                SlowConsumer::Skip,
                SlowConsumer::DropOldest,
                SlowConsumer::KeepLatest,
                SlowConsumer::Disconnect,
            ]),
            topics_per_connection_max: 1 + dice.below(4),
            publish_queue: 2 + dice.below(8),
            mesh_backlog: 1 + dice.below(4),
            read_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(3),
            ping_every: Duration::from_secs(4),
            client_publish: true,
            ..Config::default()
        }
    }

    fn with(mut dice: Dice, shards: usize, config: Config) -> Self {
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
            #[cfg_attr(not(feature = "web"), expect(unused_mut, reason = "nothing is compressed"))]
            let mut engine = Engine::new(index, &config, behaviour, registry, counted, world);
            // Messages are small here.
            #[cfg(feature = "web")]
            {
                engine.base.settings.deflate_bytes_min = 40;
                engine.base.settings.deflate_single_bytes_min = 60;
            }
            Shard { engine, handlers, account, fanout: Fanout::default(), drain: None, metrics, ticks: 0 }
        };
        let shards = (0..shards).map(make).collect();
        let moves = dice.once_in(2);
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
            moves,
            moved: 0,
        }
    }

    /// Lets something happen anywhere.
    fn step(&mut self) {
        let shard = self.dice.below(self.shards.len());
        match self.dice.below(25) {
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
            23 if self.moves && self.dice.once_in(3) => self.begin_to_move(shard),
            24 if self.dice.once_in(8) => self.pass(),
            _ => {}
        }
    }

    // ---- Clients ----

    fn connect(&mut self, shard: usize) {
        let spoken = [Framing::Line, Framing::Length, Framing::Http];
        let built_in = &spoken[..if cfg!(feature = "web") { 3 } else { 2 }];
        let framing = self.dice.one_of(built_in);
        let wire = Wire {
            room: self.dice.below(400),
            piece: 1 + self.dice.below(90),
            rounds: self.dice.once_in(3).then(|| 1 + self.dice.below(3)),
            ..Wire::default()
        };
        let wire = Rc::new(RefCell::new(wire));
        let (socket, peer) = (Socket(Rc::clone(&wire)), "192.0.2.1:9".parse().unwrap());
        let client = Parcel::fresh(socket, peer, framing, 0);
        let Shard { engine, handlers, .. } = &mut self.shards[shard];
        // A refused one is told, which its account does not expect.
        if engine.admit(handlers, client).is_ok() {
            let deflates = self.dice.once_in(2);
            self.clients.push(Client::new(framing, wire, deflates));
            self.published.push(0);
        }
    }

    fn speak(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let number = self.dice.below(self.clients.len());
        let topic = self.dice.one_of(&TOPICS);
        // Some are long enough to be compressed.
        let longest = if self.dice.once_in(4) { 130 } else { 60 };
        let (kind, filling) = (self.dice.below(8), self.dice.below(longest));
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
        let target = match self.dice.below(4) {
            0 => Target::All,
            1 => {
                let shard = self.dice.below(self.shards.len());
                let Some(key) = self.connection(shard) else { return };
                Target::Conn(self.shards[shard].engine.table.get(key).expect("it is there").id)
            }
            _ => Target::Topic(self.dice.one_of(&TOPICS).parse().unwrap()),
        };
        self.publish(target);
    }

    /// Publishes from outside; there is room.
    fn publish(&mut self, target: Target) {
        self.outside += 1;
        let own = match &target {
            Target::Conn(id) => self.registry.get(*id).map(|row| row.shard()),
            Target::All | Target::Topic(_) => None,
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
        let shards = own.map_or(0..self.shards.len(), |shard| shard..shard + 1);
        for shard in &mut self.shards[shards] {
            shard.engine.base.enqueue(publish.clone());
        }
    }

    // ---- Shards ----

    /// One of a shard's connections.
    fn connection(&mut self, shard: usize) -> Option<Key> {
        let keys: Vec<Key> = self.shards[shard].engine.keys().collect();
        (!keys.is_empty()).then(|| self.dice.one_of(&keys))
    }

    fn begin_to_move(&mut self, shard: usize) {
        let to = self.dice.below(self.shards.len());
        if let Some(key) = self.connection(shard) {
            self.moved += usize::from(self.shards[shard].engine.begin_to_move(key, to));
        }
    }

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
                // What there is no room for yet stays in the lane.
                lane.front().is_some_and(|message| self.shards[*to].engine.base.has_room_for(message))
            })
            .collect();
        if lanes.is_empty() {
            return false;
        }
        let (from, to) = self.dice.one_of(&lanes);
        let message = self.net.borrow_mut().lanes[from][to].pop_front().expect("it was there");
        let Shard { engine, handlers, .. } = &mut self.shards[to];
        engine.receive(handlers, message);
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
            let most = self.config.publish_queue + shard.engine.table.len() + base.moves.leaving();
            assert!(base.publishes.len() <= most);
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
                let is_held_up = base.congested.contains(&key) || base.moves.is_held_up(row.id);
                let is_paused = row.paused && (row.blocked || is_held_up || is_due);
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
            if shard.is_idle() && self.moved == 0 {
                check_books([shard], 0);
            }
        }
        let net = self.net.borrow();
        let backlogs = self.shards.iter().flat_map(|shard| shard.engine.base.lanes.backlog());
        let crossing = net.lanes.iter().flatten().flatten().chain(backlogs);
        let parcels =
            crossing.filter_map(|message| if let ShardMsg::Parcel(parcel, _) = message { Some(parcel) } else { None });
        let parcels: Vec<_> = parcels.collect();
        assert_eq!(self.registry.open(), open + parcels.len(), "connections are counted");
        if self.shards.iter().all(Shard::is_idle) {
            let queued = parcels.iter().filter_map(|parcel| parcel.open.as_ref()).map(|open| open.unsent().pushes());
            check_books(&self.shards, queued.sum());
        }
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
        assert!(self.net.borrow().lanes.iter().flatten().all(VecDeque::is_empty), "nothing is under way");
        for shard in &self.shards {
            assert!(shard.is_idle() && shard.engine.base.lanes.waiting() == 0);
            assert!(shard.engine.base.moves.is_quiet(), "nobody moves");
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
            assert!(engine.base.moves.is_quiet(), "nobody moves");
        }
        // Who has moved came to one shard and went from another.
        let sum = |count: fn(&Shard) -> u64| self.shards.iter().map(count).sum::<u64>();
        let (opened, closed) = (sum(|shard| shard.account.opened.get()), sum(|shard| shard.account.closed.get()));
        assert_eq!(opened, closed, "each connection that was announced was bid farewell");
        let reasons = sum(|shard| shard.metrics.closed.iter().map(Counter::get).sum());
        assert_eq!(reasons, sum(|shard| shard.metrics.accepted.get()), "each has one reason");
        assert!(self.clients.iter().all(|client| client.wire.borrow().closed), "all sockets are closed");
        assert_eq!(self.registry.open(), 0);
        assert!((0..self.shards.len()).all(|shard| self.registry.placed(shard) == 0), "all places are given back");
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
}

/// Between two batches: offered is written, queued and dropped. `queued`: what waits for connections on their way.
fn check_books<'a>(shards: impl IntoIterator<Item = &'a Shard>, mut queued: usize) {
    let (mut offered, mut written, mut dropped) = (0, 0, 0);
    for shard in shards {
        let reasons = DropReason::ALL.iter().filter(|reason| **reason != DropReason::NoConnection);
        dropped += reasons.map(|reason| shard.metrics.dropped[*reason as usize].get()).sum::<u64>();
        let rows = shard.engine.keys().filter_map(|key| shard.engine.table.get(key));
        queued += rows.filter_map(|row| row.outbox.as_ref()).map(|outbox| outbox.pushes()).sum::<usize>();
        offered += shard.metrics.matched.get();
        written += shard.metrics.delivered.get();
    }
    assert_eq!(offered, written + queued as u64 + dropped, "{written} written, {queued} queued, {dropped} dropped");
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

fn new_seed() -> u64 {
    Instant::now().elapsed().subsec_nanos() as u64 ^ u64::from(std::process::id()) << 20
}

#[test]
fn whatever_the_order_of_things_the_books_of_shards_and_clients_agree() {
    if let Some(seed) = number("CORECAST_SIM_SEED") {
        return run(seed);
    }
    let first = new_seed();
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

/// Whatever is published while connections move, and however far apart the shards are: each of them gets every message once,
/// those of one publisher in their order, or is told that it missed it.
#[test]
fn who_moves_from_shard_to_shard_misses_nothing_and_gets_nothing_twice() {
    let first = number("CORECAST_SIM_SEED").unwrap_or_else(new_seed);
    let (mut moved, mut stayed, mut closed) = (0, 0, 0);
    for seed in first..first + 20 {
        let _seed = Seed(seed);
        let mut dice = Dice(seed);
        let (shards, policies) = (2 + dice.below(2), [SlowConsumer::Skip, SlowConsumer::DropOldest]);
        let config = Config {
            slow_consumer: dice.one_of(&policies),
            topics_per_connection_max: TOPICS.len(),
            read_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
            ping_every: Duration::ZERO,
            ..Simulation::config(&mut dice)
        };
        let mut simulation = Simulation::with(dice, shards, config);
        simulation.moves = true;
        while simulation.clients.len() < 6 {
            simulation.connect(0);
        }
        simulation.clients.iter_mut().for_each(|client| client.say(&format!("SUB {}", TOPICS.join(" "))));
        simulation.come_to_rest();
        for _ in 0..STEPS {
            let shard = simulation.dice.below(shards);
            match simulation.dice.below(10) {
                0 => simulation.begin_to_move(shard),
                1 => {
                    let number = simulation.dice.below(6);
                    simulation.published[number] += 1;
                    let (verb, count) =
                        (simulation.dice.one_of(&["CAST", "PUB a", "PUB a/b"]), simulation.published[number]);
                    simulation.clients[number].say(&format!("{verb} c{number} {count} x"));
                }
                2 if simulation.shards.iter().all(|shard| shard.engine.base.publishes.has_room()) => {
                    let topic = Target::Topic(simulation.dice.one_of(&TOPICS).parse().unwrap());
                    let target = if simulation.dice.once_in(3) { Target::All } else { topic };
                    simulation.publish(target);
                }
                3 => simulation.send(),
                4 => simulation.read(),
                5 => _ = simulation.report(shard),
                6 => _ = simulation.turn(shard),
                7 => _ = simulation.deliver(shard),
                8 => _ = simulation.cross(),
                _ => _ = simulation.retry(shard),
            }
            simulation.check();
        }
        simulation.come_to_rest();
        simulation.check_at_rest();
        simulation.check_gaps();
        let sum = |count: fn(&Shard) -> u64| simulation.shards.iter().map(count).sum::<u64>();
        let refused = sum(|shard| shard.metrics.publishes_refused.get());
        let published = sum(|shard| shard.engine.base.publish_sequence) - refused + simulation.outside;
        for client in &simulation.clients {
            match client.farewell.as_deref() {
                None => {
                    let (came, missed) = (client.delivered, client.missed);
                    assert_eq!(came + missed, published, "{came} came, {missed} missed");
                    stayed += 1;
                }
                // More was published while it was expected than is kept.
                Some(reason) => {
                    assert_eq!(reason, "memory-pressure");
                    closed += 1;
                }
            }
        }
        moved += simulation.moved;
        simulation.drain();
    }
    assert!(moved > 200 && stayed > 5 * closed, "{moved} moved, {stayed} stayed, {closed} closed");
}

/// Two shards whose clocks differ, the first of which has begun before and the second was away, and a client of the first.
fn two_shards(config: Config) -> Simulation {
    let mut simulation = Simulation::with(Dice(3), 2, config);
    simulation.shards[0].ticks = 8;
    (0..8).for_each(|_| drop(simulation.shards[0].engine.base.wheel.turn()));
    simulation.shards[1].ticks = 30;
    while simulation.clients.is_empty() {
        simulation.connect(0);
    }
    simulation.come_to_rest();
    simulation
}

/// The only connection of a shard.
fn only(simulation: &Simulation, shard: usize) -> Key {
    let mut keys = simulation.shards[shard].engine.keys();
    keys.next().filter(|_| keys.next().is_none()).expect("there is one")
}

/// Moves the only connection of the first shard to the second, whatever else there is to do.
fn move_to_second(simulation: &mut Simulation) {
    let key = only(simulation, 0);
    assert!(simulation.shards[0].engine.begin_to_move(key, 1));
    while simulation.cross() {}
    while simulation.deliver(0) {}
    while simulation.cross() {}
    assert_eq!(simulation.shards[0].engine.table.len(), 0);
}

#[test]
fn the_times_of_who_moves_go_along_as_ages() {
    let mut simulation = two_shards(Config { write_timeout: Duration::ZERO, ..Config::default() });
    (0..40).for_each(|_| simulation.pass());
    simulation.clients[0].say("PING");
    simulation.come_to_rest();
    simulation.clients[0].say("PING but in part");
    simulation.clients[0].send(3);
    (0..7).for_each(|_| simulation.pass());
    while simulation.report(0) {}
    while simulation.turn(0) {}
    (0..5).for_each(|_| simulation.pass());
    let times = |simulation: &Simulation, shard: usize| {
        let engine = &simulation.shards[shard].engine;
        let (now, row) = (engine.base.wheel.now(), engine.table.get(only(simulation, shard)).unwrap());
        let held = row.held.as_ref().expect("a message has come in part");
        let ages = [row.last_message, row.last_write, row.last_ping, held.since].map(|then| now - then);
        (ages, engine.base.wheel.age() - row.opened, held.bytes.clone(), row.sent)
    };
    let before = times(&simulation, 0);
    assert_eq!((before.0[0], before.0[3]), (12, 5));
    let (key, base) = (only(&simulation, 0), &mut simulation.shards[0].engine.base);
    assert!(base.timers.set(key, 7, base.wheel.now() + 9));
    base.sessions.insert(key, Session::of("ann"));
    move_to_second(&mut simulation);
    assert_ne!(simulation.shards[0].engine.base.wheel.now(), simulation.shards[1].engine.base.wheel.now());
    assert_eq!(times(&simulation, 1), before);
    let row = simulation.shards[1].engine.table.get(only(&simulation, 1)).unwrap();
    assert_eq!(simulation.registry.get(row.id).map(|row| row.shard()), Some(1));
    assert!(simulation.shards[0].engine.base.sessions.is_empty());
    let (key, base) = (only(&simulation, 1), &mut simulation.shards[1].engine.base);
    assert_eq!(base.timers.take(key), [(7, base.wheel.now() + 9)]);
    assert_eq!(base.sessions[&key].user(), Some("ann"));
}

#[test]
fn messages_that_waited_for_their_rate_are_taken_on_the_other_shard() {
    let mut simulation = two_shards(Config { message_rate: 1, ..Config::default() });
    (0..3).for_each(|_| simulation.clients[0].say("PING"));
    simulation.clients[0].send(usize::MAX);
    while simulation.report(0) {}
    while simulation.turn(0) {}
    let row = simulation.shards[0].engine.table.get(only(&simulation, 0)).unwrap();
    assert!(row.paused && row.held.is_some());
    move_to_second(&mut simulation);
    simulation.come_to_rest();
    assert_eq!(simulation.clients[0].pings, 0);
}

#[test]
fn a_message_to_one_connection_that_goes_before_it_is_delivered_is_counted() {
    let mut simulation = two_shards(Config::default());
    let key = only(&simulation, 0);
    let id = simulation.shards[0].engine.table.get(key).unwrap().id;
    let missed = |simulation: &Simulation, shard: usize| {
        let metrics = &simulation.shards[shard].metrics;
        (metrics.dropped[DropReason::NoConnection as usize].get(), metrics.delivered.get())
    };
    // It comes in when the move is queued already.
    assert!(simulation.shards[0].engine.begin_to_move(key, 1));
    while simulation.cross() {}
    simulation.publish(Target::Conn(id));
    while simulation.deliver(0) {}
    while simulation.cross() {}
    assert_eq!((missed(&simulation, 0), missed(&simulation, 1)), ((1, 0), (0, 0)));
    // The client goes.
    simulation.publish(Target::Conn(id));
    simulation.clients[0].wire.borrow_mut().reset = true;
    while simulation.report(1) {}
    while simulation.turn(1) {}
    while simulation.deliver(1) {}
    assert_eq!((missed(&simulation, 0), missed(&simulation, 1)), ((1, 0), (1, 0)));
}

#[test]
fn who_goes_while_others_are_written_to_is_counted_and_who_leaves_a_topic_gets_no_more_of_it() {
    let mut simulation = two_shards(Config::default());
    while simulation.shards[0].engine.keys().count() < 6 {
        simulation.connect(0);
        simulation.come_to_rest();
    }
    let keys: Vec<Key> = simulation.shards[0].engine.keys().collect();
    let (last, before_last) = (keys[keys.len() - 1], keys[keys.len() - 2]);
    let topic = "a/topic/of/all";
    for key in &keys {
        simulation.shards[0].engine.base.topics.subscribe(*key, topic);
    }
    let metrics = &simulation.shards[0].metrics;
    let (delivered, matched) = (metrics.delivered.get(), metrics.matched.get());
    for key in &keys {
        let id = simulation.shards[0].engine.table.get(*key).unwrap().id;
        simulation.publish(Target::Conn(id));
    }
    simulation.publish(Target::Topic(topic.parse().unwrap()));
    // The first few get theirs.
    assert!(simulation.deliver(0));
    let engine = &mut simulation.shards[0].engine;
    engine.table.get(last).unwrap().socket.0.borrow_mut().reset = true;
    while simulation.report(0) {}
    while simulation.turn(0) {}
    let Shard { engine, metrics, .. } = &mut simulation.shards[0];
    assert!(engine.table.get(last).is_none(), "it is gone");
    assert!(metrics.delivered.get() - delivered < 2 * keys.len() as u64 - 3, "some are yet to be written to");
    engine.base.topics.unsubscribe(before_last, topic);
    while simulation.deliver(0) {}
    let metrics = &simulation.shards[0].metrics;
    let dropped = DropReason::ALL.map(|reason| metrics.dropped[reason as usize].get());
    assert_eq!(dropped[DropReason::NoConnection as usize], 1, "{dropped:?}");
    let each = keys.len() as u64;
    assert_eq!(metrics.matched.get() - matched, (each - 1) + (each - 2));
}
