//! The server as a library, with handlers of the tests' own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

#[cfg(feature = "web")]
use corecast::routes::{Events, Routes, WebSocket};
use corecast::{
    CloseReason, ConfigError, ConnId, Context, Dialect, DropReason, Event, Framing, Handler, Kind, OnPanic,
    PublishError, SendError, Server, StartError, SubscribeError,
};

#[cfg(feature = "web")]
use crate::support::http::HttpClient;
use crate::support::{Client, DEADLINE, Fixture, PLAIN, config, everywhere, tight, wait_until};

/// What handlers on all shards have noted, in order.
type Journal<T> = Arc<Mutex<Vec<T>>>;

fn noted<T: Clone>(journal: &Journal<T>) -> Vec<T> {
    journal.lock().unwrap().clone()
}

#[derive(Clone, Debug, PartialEq)]
enum Call {
    Connect,
    Message(Vec<u8>),
    Close(CloseReason),
}

/// Notes each call.
struct Recorder(Journal<(ConnId, Call)>);

impl Recorder {
    fn note(&self, cx: &Context<'_>, call: Call) {
        self.0.lock().unwrap().push((cx.id(), call));
    }
}

impl Handler for Recorder {
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        self.note(cx, Call::Connect);
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        self.note(cx, Call::Message(message.to_vec()));
    }

    fn on_close(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
        self.note(cx, Call::Close(reason));
    }
}

#[test]
fn each_connection_is_announced_once_and_bid_farewell_once_with_its_messages_between() {
    const CLIENTS: usize = 60;
    let journal = Journal::default();
    let server = Fixture::start(config(), {
        let journal = Arc::clone(&journal);
        move |_| Recorder(Arc::clone(&journal))
    });
    let mut ends = HashMap::new();
    for n in 0..CLIENTS {
        let mut client = server.client(PLAIN[n % 2]);
        let name = format!("client {n}");
        client.send(&name);
        client.send("second");
        let end = match n % 3 {
            0 => CloseReason::ClientClosed,
            1 => CloseReason::Reset,
            _ => CloseReason::Kicked,
        };
        ends.insert(name.clone().into_bytes(), end);
        let id = || {
            let calls = noted(&journal);
            let first = Call::Message(name.clone().into_bytes());
            let id = calls.iter().find(|(_, call)| *call == first).map(|(id, _)| *id)?;
            calls.contains(&(id, Call::Message(b"second".to_vec()))).then_some(id)
        };
        wait_until("its messages are noted", || id().is_some());
        match end {
            CloseReason::Reset => client.reset(),
            CloseReason::Kicked => {
                server.close(id().unwrap()).unwrap();
                client.expect("BYE kicked");
                client.expect_end();
            }
            _ => drop(client),
        }
    }
    server.wait_for_connections(0);
    let mut calls: HashMap<ConnId, Vec<Call>> = HashMap::new();
    for (id, call) in noted(&journal) {
        calls.entry(id).or_default().push(call);
    }
    assert_eq!(calls.len(), CLIENTS);
    for calls in calls.values() {
        let [Call::Connect, Call::Message(name), Call::Message(second), Call::Close(reason)] = &calls[..] else {
            panic!("{calls:?}")
        };
        assert_eq!((&second[..], reason), (&b"second"[..], &ends[name]));
    }
}

/// Greets each client, tells of what it sees, and tries what a closed connection may not do.
struct Greeter(Journal<String>);

impl Handler for Greeter {
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        cx.send(b"welcome").unwrap();
        cx.send(format!("{} {} {}", cx.peer(), cx.framing(), cx.shard()).as_bytes()).unwrap();
        assert_eq!(cx.subscribe("news"), Ok(true));
        assert_eq!(cx.subscribe("news"), Ok(false));
        assert!(matches!(cx.subscribe("two words"), Err(SubscribeError::Topic(_))));
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        if message == b"bye" {
            cx.send(b"farewell").unwrap();
            cx.close();
            cx.close();
            cx.close();
            let after = (cx.send(b"too late"), cx.subscribe("late"));
            assert_eq!(after, (Err(SendError::NotOpen), Err(SubscribeError::NotOpen)));
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_>, reason: CloseReason) {
        assert_eq!(cx.send(b"nobody hears it"), Err(SendError::NotOpen));
        cx.close();
        self.0.lock().unwrap().push(format!("{} {reason}", cx.id()));
    }

    fn render(event: Event<'_>, _: Dialect, out: &mut Vec<u8>) -> Option<Kind> {
        match event {
            Event::Publish { topic, payload, kind } => {
                out.extend_from_slice(topic.as_str().as_bytes());
                out.push(b'=');
                out.extend_from_slice(payload);
                Some(kind)
            }
            _ => None,
        }
    }
}

#[test]
fn messages_sent_on_connect_arrive_first_and_closing_happens_once() {
    let journal = Journal::default();
    let server = Fixture::start(config(), {
        let journal = Arc::clone(&journal);
        move |_| Greeter(Arc::clone(&journal))
    });
    for (n, framing) in [Framing::Line, Framing::Length, Framing::Line].into_iter().enumerate() {
        let mut client = server.client(framing);
        client.expect("welcome");
        let seen = client.recv();
        assert!(seen.starts_with(&format!("{} {framing} ", client.addr())), "{seen}");
        // Every shard is done with it before the next client comes.
        futures_lite::future::block_on(server.publish("news", "text").unwrap().receipt());
        client.expect("news=text");
        client.send("bye");
        client.send("unread");
        client.expect("farewell");
        client.expect_end();
        drop(client);
        server.wait_for_connections(0);
        let closed = noted(&journal);
        assert_eq!(closed.len(), n + 1, "{closed:?}");
        assert!(closed[n].ends_with(" handler"), "{closed:?}");
    }
    assert_eq!(server.closed(CloseReason::Handler), 3);
}

/// Sends until the connection takes no more, at the word `flood`; echoes all else.
struct Flooder(Journal<(usize, SendError)>);

impl Handler for Flooder {
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        if message != b"flood" {
            return cx.send(message).unwrap();
        }
        let message = [b'x'; 1_000];
        let refused = (0..).find_map(|n| cx.send(&message).err().map(|error| (n, error))).unwrap();
        self.0.lock().unwrap().push(refused);
    }
}

#[test]
fn a_send_to_a_stalled_client_fails_at_once_and_the_shard_goes_on() {
    let journal = Journal::default();
    let server = Fixture::start(tight(), {
        let journal = Arc::clone(&journal);
        move |_| Flooder(Arc::clone(&journal))
    });
    let mut stalled = server.narrow_client(Framing::Line);
    let mut other = server.client(Framing::Line);
    stalled.send("flood");
    wait_until("the flood is refused", || !noted(&journal).is_empty());
    other.send("still here");
    other.expect("still here");
    let [(taken, SendError::QueueFull)] = noted(&journal)[..] else { panic!("{:?}", noted(&journal)) };
    assert!(taken > 4, "the socket and the queue took some: {taken}");
    // What was taken arrives whole, and nothing else.
    for _ in 0..taken {
        stalled.expect(&"x".repeat(1_000));
    }
    stalled.send("after it");
    stalled.expect("after it");
    assert_eq!(server.drops(), []);
}

/// Tries to send what can't be sent.
struct Misfit(Journal<Result<(), SendError>>);

impl Handler for Misfit {
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        let big = vec![b'x'; 100_000];
        let results = [cx.send(b"a\nb"), cx.send(b"cr\r"), cx.send(&big), cx.send(message)];
        self.0.lock().unwrap().extend(results);
    }
}

#[test]
fn messages_that_a_connection_cannot_carry_are_refused_to_the_handler() {
    let journal = Journal::default();
    let server = Fixture::start(settings! { max_message: 1_024, queue_bytes_max: 65_536, ..config() }, {
        let journal = Arc::clone(&journal);
        move |_| Misfit(Arc::clone(&journal))
    });
    let too_large = Err(SendError::TooLarge { len: 100_000, max: 65_536 });
    server.client(Framing::Line).ask("x");
    assert_eq!(noted(&journal), [Err(SendError::LineFeed), Err(SendError::CarriageReturn), too_large, Ok(())]);
    let mut client = server.client(Framing::Length);
    client.send("y");
    client.expect("a\nb");
    client.expect("cr\r");
    client.expect("y");
    assert_eq!(noted(&journal)[4..], [Ok(()), Ok(()), too_large, Ok(())]);
}

/// A handler that leaves the words to the defaults.
struct Silent;

impl Handler for Silent {
    fn on_message(&mut self, _: &mut Context<'_>, _: &[u8]) {}
}

#[test]
fn without_a_language_payloads_go_out_as_they_are_and_the_server_speaks_as_the_hub_does() {
    let server = Fixture::start(config(), |_| Silent);
    let mut clients = everywhere(&server, 1);
    server.broadcast("with\nline feed").unwrap();
    server.broadcast("plain").unwrap();
    let mut drops = 0;
    for (n, client) in clients.iter_mut().enumerate() {
        // `everywhere` connects over both framings, in an order of its own.
        let first = if client.framing() == Framing::Length {
            client.recv()
        } else {
            drops += 1;
            String::new()
        };
        assert!(first.is_empty() || first == "with\nline feed", "client {n}: {first}");
        // A gap is told once nothing waits before it, so what is published next may come first.
        let mut rest = vec![client.recv()];
        if first.is_empty() {
            rest.push(client.recv());
            rest.sort();
            assert_eq!(rest.remove(0), "GAP * 1 line-feed");
        }
        assert_eq!(rest, ["plain"]);
    }
    assert_eq!(server.dropped(DropReason::LineFeed), drops);
    server.shutdown();
    for client in &mut clients {
        client.expect("BYE drain");
        client.expect_end();
    }
}

/// Lets nobody near a topic.
#[cfg(feature = "web")]
struct Guard;

#[cfg(feature = "web")]
impl Handler for Guard {
    fn routes(&self) -> Routes {
        Routes::new().websocket("/ws", WebSocket::new()).events("/sse", Events::new())
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        cx.send(message).unwrap();
    }
}

#[cfg(feature = "web")]
#[test]
fn a_handler_that_says_nothing_of_topics_in_a_url_subscribes_nobody() {
    let server = Fixture::start(config(), |_| Guard);
    let addr = server.addr(Framing::Http);
    let mut events = HttpClient::events(addr, "/sse?topic=user:ann");
    let mut socket = HttpClient::websocket(addr, "/ws?topic=user:ann&topic=b", "");
    server.publish("user:ann", "private").unwrap();
    let why = "this server takes no topics from a URL";
    let bye = events.recv_event();
    assert_eq!((&bye.event[..], bye.data.contains(why)), ("bye", true), "{bye:?}");
    events.expect_end();
    assert_eq!(socket.recv(), format!("BYE handler {why}"));
    socket.expect_close(1008, why);
    assert_eq!(server.sum(|shard| shard.matched.get()), 0);
    drop((events, socket));
    wait_until("the handler has closed both", || server.closed(CloseReason::Handler) == 2);
    let mut other = HttpClient::websocket(addr, "/ws", "");
    assert_eq!(other.ask("still there"), "still there");
}

/// Panics where it is told to.
struct Fragile {
    shard: usize,
    at: &'static str,
}

impl Fragile {
    fn reach(&self, at: &str) {
        assert!(at != self.at, "fell over at {at} on shard {}", self.shard);
    }
}

impl Handler for Fragile {
    fn on_connect(&mut self, _: &mut Context<'_>) {
        self.reach("connect");
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        if message == b"panic" {
            self.reach("message");
        }
        cx.send(message).unwrap();
    }

    fn on_close(&mut self, _: &mut Context<'_>, _: CloseReason) {
        self.reach("close");
    }
}

/// Has the handler of `shard` panic in the callback `at`, and returns the server with all of its clients.
fn fail(at: &'static str, shard: usize) -> (Fixture, Vec<Client>) {
    println!("a panic at {at} on shard {shard}");
    // The other shard's handler is sound, so that only this one can fail.
    let make = move |own| Fragile { shard: own, at: if own == shard { at } else { "" } };
    let server = Fixture::build(config(), make, |builder| builder.on_panic(OnPanic::EndServer));
    if at == "connect" {
        let victim = server.client_on(shard, Framing::Line);
        return (server, vec![victim]);
    }
    let mut clients = everywhere(&server, 2);
    let mut victim = server.client_on(shard, Framing::Line);
    victim.send("panic");
    if at == "close" {
        victim.expect("panic");
        victim.finish_sending();
    }
    clients.push(victim);
    (server, clients)
}

/// A panic in a callback ends the server if it is to, which names the shard and does not hang.
fn assert_ends_by_panic(at: &'static str) {
    for shard in 0..2 {
        let (mut server, _clients) = fail(at, shard);
        let error = server.wait().expect("the server ends").expect_err("it ends with an error");
        assert_eq!(error.shard, shard);
        let text = error.to_string();
        assert!(text.contains(&format!("fell over at {at} on shard {shard}")), "{text}");
        assert_eq!(server.publish("news", "text").err(), Some(PublishError::Down));
    }
}

#[test]
fn a_panic_in_on_message_ends_the_server_with_an_error_that_names_the_shard() {
    assert_ends_by_panic("message");
}

#[test]
fn a_panic_in_on_connect_ends_the_server_with_an_error_that_names_the_shard() {
    assert_ends_by_panic("connect");
}

#[test]
fn a_panic_in_on_close_ends_the_server_with_an_error_that_names_the_shard() {
    assert_ends_by_panic("close");
}

#[test]
fn the_clients_of_a_shard_that_failed_are_let_go() {
    for at in ["message", "close"] {
        let (mut server, clients) = fail(at, 0);
        server.wait().expect("the server ends").unwrap_err();
        for mut client in clients {
            client.recv_to_end();
        }
        assert_eq!(server.conn_count(), 0);
        assert!(Client::try_connect(server.addr(Framing::Line), Framing::Line).is_err(), "nobody listens any more");
    }
}

#[test]
fn a_panic_while_the_handlers_are_made_is_an_error_of_the_start() {
    let (started_to, started) = mpsc::channel();
    std::thread::spawn(move || {
        let config = config();
        let started = Server::builder(config.listen.clone(), |shard| {
            assert!(shard.index() != 1, "no handler for shard {}", shard.index());
            Silent
        });
        let started = started.config(config).start();
        // The test has given up when nobody listens.
        let _ = started_to.send(started.map(|_| ()));
    });
    match started.recv_timeout(DEADLINE).expect("the start ends") {
        Err(StartError::Shard { shard: 1, reason }) => assert!(reason.contains("no handler for shard 1"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_settings_are_an_error_of_the_start() {
    let config = settings! { shards: Some(0), ..config() };
    let started = Server::builder(config.listen.clone(), |_| Silent).config(config).start();
    assert!(matches!(started, Err(StartError::Config(ConfigError { field: "shards", .. }))));
}

#[test]
fn a_server_ends_when_it_and_its_handles_are_dropped() {
    let config = config();
    let server = Server::builder(config.listen.clone(), |_| Silent).config(config).start().unwrap();
    let addr = server.addr(Framing::Line).unwrap();
    let mut client = Client::connect(addr, Framing::Line);
    wait_until("it is connected", || server.handle().conn_count() == 1);
    let handle = server.handle();
    drop(server);
    handle.broadcast("a handle is left").unwrap();
    client.expect("a handle is left");
    drop(handle);
    client.expect("BYE drain");
    client.expect_end();
    drop(client);
    wait_until("nobody listens any more", || Client::try_connect(addr, Framing::Line).is_err());
}

#[test]
fn a_drain_through_the_handle_is_spread_over_its_time() {
    let server = Fixture::start(config(), |_| Silent);
    let mut clients = everywhere(&server, 20);
    let count = clients.len();
    server.drain(Duration::from_secs(3));
    assert!(server.is_draining());
    // A second request changes nothing.
    server.shutdown();
    wait_until("half of them are closed", || {
        clients.retain_mut(|client| client.recv_within(Duration::from_micros(1)).is_none());
        clients.len() <= count / 2
    });
    assert!(!clients.is_empty(), "some are still open when half are closed");
    drop(clients);
    server.end().unwrap();
}

#[test]
fn a_client_that_connects_while_a_drain_begins_is_served_to_the_end_or_refused_but_never_left_hanging() {
    for _ in 0..20 {
        let server = Fixture::start(config(), |_| Silent);
        let addrs = PLAIN.map(|framing| server.addr(framing));
        std::thread::scope(|scope| {
            for n in 0..8 {
                scope.spawn(move || {
                    let framing = PLAIN[n % 2];
                    // One after the other, until nobody listens any more.
                    while let Ok(mut client) = Client::try_connect(addrs[framing as usize], framing) {
                        if n < 6 {
                            // The server may have refused it already.
                            let _ = client.try_finish_sending();
                        }
                        client.recv_to_end();
                    }
                });
            }
            wait_until("the storm is on", || server.sum(|shard| shard.accepted.get()) > 50);
            server.shutdown();
        });
        server.end().unwrap();
    }
}
