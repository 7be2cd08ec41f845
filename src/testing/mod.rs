//! A shard in memory, to test a [`Handler`] without a server: no sockets, no threads, and a time that passes when it is told to.
//!
//! A [`Shard`] runs what a server's shards run. Its clients are in the test's hands: what they say, what they have heard, and
//! whether they take what they are sent. Each call returns when all has been done that follows from it.
//!
//! ```
//! use std::time::Duration;
//! use corecast::testing::Shard;
//! use corecast::{CloseReason, Context, Framing, Handler};
//!
//! struct Chat;
//!
//! impl Handler for Chat {
//!     fn on_connect(&mut self, cx: &mut Context<'_>) {
//!         let _ = cx.subscribe("room");
//!         let _ = cx.after(Duration::from_secs(30), 0);
//!     }
//!
//!     fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
//!         let _ = cx.publish("room", message.to_vec());
//!     }
//!
//!     fn on_timer(&mut self, cx: &mut Context<'_>, _token: u64) {
//!         let _ = cx.send(b"still there?");
//!     }
//! }
//!
//! let mut shard = Shard::new(Chat);
//! let (ann, bob) = (shard.connect(Framing::Line), shard.connect(Framing::Length));
//! shard.say(ann, "hello");
//! assert_eq!(shard.heard(bob), ["hello"]);
//!
//! shard.advance(Duration::from_secs(31));
//! assert_eq!(shard.heard(bob), ["still there?"]);
//!
//! shard.leave(ann);
//! assert_eq!(shard.closed(ann), Some(CloseReason::ClientClosed));
//! shard.publish("room", "who is left?");
//! assert_eq!(shard.heard(bob), ["who is left?"]);
//! ```

pub(crate) mod world;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, Framing, SHARDS_MAX, TICK_MS};
use crate::engine::driver::{Bell, Report, Watched};
use crate::engine::fanout::Fanout;
use crate::engine::parcel::Parcel;
use crate::engine::registry::Registry;
use crate::engine::wheel::Tick;
use crate::engine::{Behaviour, Engine};
use crate::handler::{Handler, Handlers, OnPanic};
use crate::message::{CloseReason, ConnId, Kind, Payload, PublishId, Target, Topic};
use crate::metrics::{Counter, ShardMetrics};
use crate::protocol::{self, Encoding, Item, Label};
use crate::publish::Publish;
use world::{Net, Socket, Wire, World};

/// Connections that a shard takes.
const CONNECTIONS_MAX: usize = 1 << 16;

/// Bytes that a client which reads takes at once: more than any test sends.
const ROOM: usize = 1 << 40;

/// A client of a [`Shard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(usize);

/// The test's end of a connection.
struct Peer {
    encoding: Encoding,
    wire: Rc<RefCell<Wire>>,
    /// What it has read and not been asked for.
    read: Vec<u8>,
    closed: Option<CloseReason>,
}

/// A shard with its handler and its clients.
pub struct Shard {
    engine: Engine<World>,
    handlers: Handlers,
    fanout: Fanout,
    metrics: Arc<ShardMetrics>,
    clock: Rc<Cell<Duration>>,
    peers: Vec<Peer>,
    published: u64,
}

impl Shard {
    /// A shard with the default settings.
    pub fn new<H: Handler>(handler: H) -> Self {
        Shard::with_config(Config::default(), handler)
    }

    /// A shard with settings of its own. Addresses, and what else concerns a whole server, mean nothing to it.
    pub fn with_config<H: Handler>(config: Config, handler: H) -> Self {
        let clock = Rc::<Cell<Duration>>::default();
        let net = Net { lanes: vec![vec![VecDeque::new()]], capacity: 1 };
        let world = World {
            index: 0,
            start: Instant::now(),
            clock: Rc::clone(&clock),
            net: Rc::new(RefCell::new(net)),
            watched: Vec::new(),
            rung: [false; Bell::COUNT],
            lent: 0,
        };
        let registry = Arc::new(Registry::new(1, CONNECTIONS_MAX, &config));
        let metrics = Arc::new(ShardMetrics::default());
        let handlers = Handlers::new(vec![Box::new(handler)]);
        // A panic is the test's to see.
        let behaviour = Behaviour::new(&handlers, vec![H::render], OnPanic::EndServer);
        let engine = Engine::new(0, &config, behaviour, registry, Arc::clone(&metrics), world);
        Shard { engine, handlers, fanout: Fanout::default(), metrics, clock, peers: Vec::new(), published: 0 }
    }

    /// Has a client connect. The handler may refuse it, which shows in [`closed`](Shard::closed).
    ///
    /// # Panics
    /// The framing is [`Framing::Http`], whose clients begin with a request.
    pub fn connect(&mut self, framing: Framing) -> Client {
        let encoding = Encoding::of(framing).expect("clients of HTTP begin with a request, as in connect_websocket");
        self.enter(framing, encoding)
    }

    fn enter(&mut self, framing: Framing, encoding: Encoding) -> Client {
        let wire = Rc::new(RefCell::new(Wire { room: ROOM, piece: usize::MAX, ..Wire::default() }));
        let peer = ([192, 0, 2, 1], 1_024 + self.peers.len() as u16).into();
        let parcel = Parcel::fresh(Socket(Rc::clone(&wire)), peer, framing, 0);
        self.engine.admit(&mut self.handlers, parcel).expect("a shard has room for the clients of a test");
        self.peers.push(Peer { encoding, wire, read: Vec::new(), closed: None });
        self.settle();
        Client(self.peers.len() - 1)
    }

    /// Has a client open a WebSocket by a request for `target`, with header fields besides those of the handshake.
    ///
    /// # Errors
    /// The answer, if it is another than the handshake's: head and body, as they came.
    #[cfg(feature = "web")]
    pub fn connect_websocket(&mut self, target: &str, fields: &[(&str, &str)]) -> Result<Client, String> {
        let mut request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        );
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        let client = self.enter(Framing::Http, Encoding::WebSocket);
        self.send(client, request + "\r\n");
        let peer = &mut self.peers[client.0];
        peer.read.extend(peer.wire.borrow_mut().to_client.drain(..));
        let end = memchr::memmem::find(&peer.read, b"\r\n\r\n").map(|end| end + 4);
        let head = end.map(|end| String::from_utf8_lossy(&peer.read[..end]).into_owned()).unwrap_or_default();
        if head.starts_with("HTTP/1.1 101 ") {
            peer.read.drain(..head.len());
            return Ok(client);
        }
        Err(String::from_utf8_lossy(&peer.read).into_owned())
    }

    /// Has a client send a whole message.
    ///
    /// # Panics
    /// The client's framing can't carry it.
    pub fn say(&mut self, client: Client, message: impl AsRef<[u8]>) {
        let mut bytes = Vec::new();
        let encoded = protocol::encode(self.peers[client.0].encoding, Label::default(), message.as_ref(), &mut bytes);
        encoded.expect("the framing carries the message");
        if self.peers[client.0].encoding.framing() == Framing::Http {
            mask(&mut bytes);
        }
        self.send(client, bytes);
    }

    /// Has a client send bytes as they are: a part of a message, or something that is none.
    pub fn send(&mut self, client: Client, bytes: impl AsRef<[u8]>) {
        self.peers[client.0].wire.borrow_mut().to_server.extend(bytes.as_ref());
        self.settle();
    }

    /// The whole messages that a client has got since this was called last, with what is not UTF-8 replaced.
    pub fn heard(&mut self, client: Client) -> Vec<String> {
        let messages = self.heard_bytes(client);
        messages.iter().map(|message| String::from_utf8_lossy(message).into_owned()).collect()
    }

    /// The same, as they are.
    ///
    /// # Panics
    /// They are no messages of the client's framing, which would be an error of this library.
    pub fn heard_bytes(&mut self, client: Client) -> Vec<Vec<u8>> {
        let Peer { encoding, wire, read, .. } = &mut self.peers[client.0];
        read.extend(wire.borrow_mut().to_client.drain(..));
        let mut messages = Vec::new();
        if encoding.framing() == Framing::Http {
            while let Some(frame) = ServerFrame::first(read) {
                messages.extend(frame.is_message.then(|| frame.message(read)));
                read.drain(..frame.end);
            }
            return messages;
        }
        loop {
            let step = protocol::next(*encoding, read, 0, &mut None, usize::MAX >> 1);
            let step = step.expect("a server sends what its clients can read");
            let Some(Item::Message { range, .. }) = step.item else { return messages };
            messages.push(read[range].to_vec());
            read.drain(..step.consumed);
        }
    }

    /// Has a client's socket take nothing any more, or take all again. What it has taken before has arrived.
    pub fn stall(&mut self, client: Client, stalled: bool) {
        self.peers[client.0].wire.borrow_mut().room = if stalled { 0 } else { ROOM };
        self.settle();
    }

    /// Has a client close its connection.
    pub fn leave(&mut self, client: Client) {
        self.peers[client.0].wire.borrow_mut().client_ended = true;
        self.settle();
    }

    /// Has a client's connection break.
    pub fn reset(&mut self, client: Client) {
        self.peers[client.0].wire.borrow_mut().reset = true;
        self.settle();
    }

    /// Publishes to a topic from outside the handler.
    ///
    /// # Panics
    /// The name can't be one of a topic.
    pub fn publish(&mut self, topic: &str, payload: impl Into<Payload>) {
        self.publish_to(Target::Topic(topic.parse::<Topic>().expect("a topic's name")), payload);
    }

    /// Sends to all clients from outside the handler.
    pub fn broadcast(&mut self, payload: impl Into<Payload>) {
        self.publish_to(Target::All, payload);
    }

    /// Publishes to a target from outside the handler.
    pub fn publish_to(&mut self, target: Target, payload: impl Into<Payload>) {
        let (payload, kind) = payload.into().into_parts(Kind::Text);
        self.published += 1;
        let id = PublishId::new(SHARDS_MAX as u16, self.published);
        let accepted = self.engine.base.started + self.clock.get();
        let publish = Publish { id, target, payload, kind, slow_consumer: None, accepted, receipt: None };
        self.engine.base.enqueue(publish);
        self.settle();
    }

    /// Lets time pass: timers, timeouts. The shard's clock ticks four times a second, and goes on by whole ticks.
    pub fn advance(&mut self, time: Duration) {
        let until = self.clock.get() + time;
        while self.clock.get() < until {
            self.clock.set(self.clock.get() + Duration::from_millis(TICK_MS));
            let passed = self.clock.get().as_millis() / u128::from(TICK_MS);
            let turns = self.engine.base.wheel.catch_up(passed as Tick);
            for _ in 0..turns {
                let due = self.engine.base.wheel.turn();
                self.engine.look_at(&due);
            }
            while self.engine.run_timers(&mut self.handlers) {}
            self.engine.see_to_memory();
            self.settle();
        }
    }

    /// The id of a client's connection; `None`: it is closed.
    pub fn id(&self, client: Client) -> Option<ConnId> {
        let wire = &self.peers[client.0].wire;
        let rows = self.engine.keys().filter_map(|key| self.engine.table.get(key));
        rows.filter(|row| Rc::ptr_eq(&row.socket.0, wire)).map(|row| row.id).next()
    }

    /// Why a client's connection was closed; `None`: it is open.
    pub fn closed(&self, client: Client) -> Option<CloseReason> {
        self.peers[client.0].closed
    }

    /// Whether a client's connection is open.
    pub fn is_open(&self, client: Client) -> bool {
        self.closed(client).is_none()
    }

    /// What the shard counts.
    pub fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    /// Does all that there is to do.
    fn settle(&mut self) {
        loop {
            let reported = self.report();
            let turned = self.turn();
            let delivered = self.fanout.step(&mut self.engine);
            // A client whose connection is closed by the server closes it, too.
            for peer in &self.peers {
                let wire = &mut *peer.wire.borrow_mut();
                wire.client_ended |= wire.server_ended;
            }
            if !reported && !turned && !delivered {
                return;
            }
        }
    }

    /// Reports what has come on the sockets that are watched; whether there was anything.
    fn report(&mut self) -> bool {
        let watched = std::mem::take(&mut self.engine.base.driver.watched);
        let (ready, rest): (Vec<_>, Vec<_>) = watched.into_iter().partition(|watched| {
            let (Watched::Read(key) | Watched::Write(key)) = *watched else { return false };
            self.engine.table.get(key).is_some_and(|row| row.socket.is_ready(*watched))
        });
        self.engine.base.driver.watched = rest;
        for watched in ready.iter().copied() {
            let (Watched::Read(key) | Watched::Write(key)) = watched else { continue };
            let wire = self.engine.table.get(key).map(|row| Rc::clone(&row.socket.0)).expect("it is ready");
            let hangup = wire.borrow().client_ended || wire.borrow().reset;
            self.engine.take_report(key, Report { watched, hangup, armed: false });
        }
        !ready.is_empty()
    }

    /// Gives the next connection its turn; whether there was one.
    fn turn(&mut self) -> bool {
        let Some(key) = self.engine.next_turn() else { return false };
        let counts = |metrics: &ShardMetrics| metrics.closed.iter().map(Counter::get).collect::<Vec<_>>();
        let before = counts(&self.metrics);
        let wire = self.engine.table.get(key).map(|row| Rc::clone(&row.socket.0)).expect("it has its turn");
        self.engine.take_turn(&mut self.handlers, key);
        if wire.borrow().closed {
            let after = counts(&self.metrics);
            let reason = CloseReason::ALL.into_iter().find(|reason| after[*reason as usize] > before[*reason as usize]);
            let peer = self.peers.iter_mut().find(|peer| Rc::ptr_eq(&peer.wire, &wire));
            peer.expect("each connection is a client's").closed = reason;
        }
        true
    }
}

/// Makes a server's frame one of a client: masked, though with a mask of zeros, which changes nothing (RFC 6455, section
/// 5.3).
fn mask(frame: &mut Vec<u8>) {
    const MASKED: u8 = 0x80;
    let header = ServerFrame::first(frame).expect("it was made whole").start;
    frame[1] |= MASKED;
    frame.splice(header..header, [0; 4]);
}

/// A frame as servers send it: whole, and without a mask.
struct ServerFrame {
    /// It carries a message; else it is a ping or the like.
    is_message: bool,
    /// Where its payload begins and ends.
    start: usize,
    end: usize,
}

impl ServerFrame {
    /// The frame at the beginning of bytes; `None`: it has not come whole.
    fn first(bytes: &[u8]) -> Option<Self> {
        const CONTROL: u8 = 0x08;
        let (start, len) = match *bytes.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
            len => (2, usize::from(len)),
        };
        let frame = ServerFrame { is_message: bytes[0] & CONTROL == 0, start, end: start + len };
        (frame.end <= bytes.len()).then_some(frame)
    }

    /// The message in the bytes that it was found in.
    fn message(&self, bytes: &[u8]) -> Vec<u8> {
        let payload = &bytes[self.start..self.end];
        #[cfg(feature = "web")]
        if bytes[0] & 0x40 != 0 {
            // It is compressed.
            let mut inflater = crate::protocol::deflate::Inflater::default();
            let message = inflater.inflate(Kind::Binary, payload, usize::MAX >> 1);
            return message.expect("a server sends what its clients can read").to_vec();
        }
        payload.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Echo;
    use crate::handler::{Context, SendError};
    use crate::request::{Reject, Request};
    use crate::session::Session;

    /// Says `n` times what it is told, and notes when it may go on.
    struct Floods(Rc<Cell<usize>>);

    impl Handler for Floods {
        fn on_open(&mut self, cx: &mut Context<'_>, _: &Request<'_>) -> Result<Session, Reject> {
            let is_late = cx.peer().port() > 1_025;
            if is_late { Err(Reject::forbidden("enough")) } else { Ok(Session::anonymous()) }
        }

        fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
            while let Ok(()) = cx.send(message) {}
            assert_eq!(cx.send(message), Err(SendError::QueueFull));
        }

        fn on_writable(&mut self, _: &mut Context<'_>) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn a_stalled_client_fills_its_queue_and_the_handler_hears_when_it_reads_on() {
        let written = Rc::<Cell<usize>>::default();
        let mut shard = Shard::new(Floods(Rc::clone(&written)));
        let (slow, quick) = (shard.connect(Framing::Line), shard.connect(Framing::Length));
        shard.stall(slow, true);
        shard.say(slow, "again");
        assert_eq!((shard.heard(slow).len(), written.get()), (0, 0));
        shard.broadcast("for all");
        assert_eq!(shard.heard(quick), ["for all"]);
        shard.stall(slow, false);
        assert_eq!(written.get(), 1);
        let heard = shard.heard(slow);
        assert!(heard.len() > 60 && heard.iter().take(60).all(|message| message == "again"), "{heard:?}");
        assert!(shard.is_open(slow) && shard.id(slow).is_some());
    }

    #[test]
    fn a_client_is_refused_or_breaks_or_sends_in_parts_or_is_silent() {
        let mut shard = Shard::with_config(Config { read_timeout: Duration::from_secs(10), ..Config::default() }, Echo);
        let (ann, bob, eve) =
            (shard.connect(Framing::Line), shard.connect(Framing::Line), shard.connect(Framing::Line));
        shard.send(ann, "he");
        assert!(shard.heard(ann).is_empty());
        shard.send(ann, "llo\nyou");
        assert_eq!(shard.heard(ann), ["hello"]);
        shard.reset(bob);
        assert_eq!(shard.closed(bob), Some(CloseReason::Reset));
        shard.advance(Duration::from_secs(6));
        shard.say(ann, "");
        shard.advance(Duration::from_secs(6));
        assert_eq!(shard.closed(eve), Some(CloseReason::ReadTimeout));
        assert!(shard.is_open(ann));

        let mut shard = Shard::new(Floods(Rc::default()));
        let clients: Vec<Client> = (0..3).map(|_| shard.connect(Framing::Line)).collect();
        let reasons: Vec<_> = clients.iter().map(|client| shard.closed(*client)).collect();
        assert_eq!(reasons, [None, None, Some(CloseReason::Rejected)]);
        assert_eq!(shard.metrics().connections.get(), 2);
    }

    /// Takes whoever shows the word for it.
    #[cfg(feature = "web")]
    struct Door;

    #[cfg(feature = "web")]
    impl Handler for Door {
        fn on_open(&mut self, _: &mut Context<'_>, request: &Request<'_>) -> Result<Session, Reject> {
            match request.bearer() {
                Some("sesame") => Ok(Session::of(request.path())),
                _ => Err(Reject::unauthorized("what is the word?")),
            }
        }

        fn on_connect(&mut self, cx: &mut Context<'_>) {
            let user = cx.user().unwrap().to_owned();
            cx.send(user.as_bytes()).unwrap();
        }

        fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
            cx.send(message).unwrap();
            if message == b"bye" {
                cx.close_with(4_000, "so long");
            }
        }
    }

    #[cfg(feature = "web")]
    #[test]
    fn a_websocket_opens_by_its_request_or_is_refused_with_an_answer() {
        let mut shard = Shard::new(Door);
        let refused = shard.connect_websocket("/ws", &[]).unwrap_err();
        assert!(refused.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{refused}");
        assert!(refused.ends_with("\r\n\r\nwhat is the word?\n"), "{refused}");
        assert!(shard.connect_websocket("/elsewhere", &[]).unwrap_err().starts_with("HTTP/1.1 404 "));
        let client = shard.connect_websocket("/ws", &[("Authorization", "Bearer sesame")]).unwrap();
        assert_eq!(shard.heard(client), ["/ws"]);
        for len in [0, 125, 126, 60_000] {
            shard.say(client, vec![b'x'; len]);
            assert_eq!(shard.heard_bytes(client), [vec![b'x'; len]]);
        }
        shard.say(client, "bye");
        assert_eq!(shard.heard(client), ["bye", "BYE handler so long"]);
        assert_eq!(shard.closed(client), Some(CloseReason::Handler));
    }
}
