//! What an embedder's handler is told and may do: requests and refusals, sessions, timers, room, last words, panics, and a
//! handler for each listener.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use corecast::{
    CloseReason, Config, Context, DropReason, Framing, Handler, OnPanic, Reject, Request, SendError, Server, Session,
    ShardContext, TimerError,
};
use futures_lite::future::block_on;

#[cfg(feature = "web")]
use crate::support::http::{HttpClient, upgrade};
use crate::support::{Client, Fixture, PLAIN, config, tight, wait_until};

/// Takes clients by their number, refuses every second one, and tells what it keeps of them.
#[derive(Default)]
struct Door {
    count: u32,
}

impl Handler for Door {
    fn on_open(&mut self, cx: &mut Context<'_>, request: &Request<'_>) -> Result<Session, Reject> {
        self.count += 1;
        assert_eq!(cx.send(b"too early"), Err(SendError::NotOpen));
        assert_eq!((request.path(), request.framing(), request.peer()), ("", cx.framing(), cx.peer()));
        assert_eq!(cx.subscribe("taken"), Ok(true));
        cx.after(Duration::from_millis(1), 1).unwrap();
        if self.count.is_multiple_of(2) {
            return Err(Reject::unauthorized("no even numbers"));
        }
        Ok(Session::of(format!("user {}", self.count)).with_state(self.count))
    }

    fn on_connect(&mut self, cx: &mut Context<'_>) {
        let user = cx.user().unwrap().to_owned();
        cx.send(user.as_bytes()).unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        if message == b"leave" {
            cx.set_session(Session::anonymous());
        }
        let state = cx.state::<u32>().map(|count| std::mem::replace(count, *count + 100));
        let text = format!("{:?} {:?}", cx.user(), state);
        cx.send(text.as_bytes()).unwrap();
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        cx.send(format!("timer {token}").as_bytes()).unwrap();
    }
}

#[test]
fn a_handler_takes_clients_as_somebody_or_refuses_them_before_anything_else_is_heard_of_them() {
    let server = Fixture::start(settings! { shards: Some(1), ..config() }, |_| Door::default());
    for framing in PLAIN {
        let mut taken = server.client(framing);
        let user = taken.recv();
        assert!(user.starts_with("user "), "{user}");
        taken.expect("timer 1");
        let mut refused = server.client(framing);
        refused.expect("ERR unauthorized no even numbers");
        refused.expect("BYE rejected");
        refused.expect_end();
        drop(refused);
        server.wait_for_connections(1);
        block_on(server.publish("taken", "for those who were taken").unwrap().receipt());
        taken.expect("for those who were taken");

        let count: u32 = user["user ".len()..].parse().unwrap();
        taken.send("x");
        taken.expect(&format!("Some({user:?}) Some({count})"));
        taken.send("x");
        taken.expect(&format!("Some({user:?}) Some({})", count + 100));
        taken.send("leave");
        taken.expect("None None");
        drop(taken);
        server.wait_for_connections(0);
    }
    assert_eq!(server.closed(CloseReason::Rejected), 2);
}

/// Lets those in whose token is the word for it, and shows what they asked for.
#[cfg(feature = "web")]
struct Gate;

#[cfg(feature = "web")]
impl Handler for Gate {
    fn on_open(&mut self, cx: &mut Context<'_>, request: &Request<'_>) -> Result<Session, Reject> {
        assert_eq!((cx.framing(), cx.dialect()), (Framing::Http, request.dialect()));
        match request.bearer().map(str::to_owned).or(request.parameter("token").map(Into::into)).as_deref() {
            None => Err(Reject::unauthorized("show a token")),
            Some("open sesame") => {
                let said = format!(
                    "{} {} {:?} {:?} {:?}",
                    request.path(),
                    request.query(),
                    request.topics(),
                    request.header("x-own"),
                    request.subprotocol()
                );
                Ok(Session::of("ali").with_state(said))
            }
            Some("busy") => Err(Reject::unavailable("come\r\nback", 7)),
            Some("panic") => panic!("over a request"),
            Some("close") => {
                cx.close();
                Ok(Session::anonymous())
            }
            Some(_) => Err(Reject::forbidden("that is not the word")),
        }
    }

    fn on_connect(&mut self, cx: &mut Context<'_>) {
        let said = cx.state::<String>().unwrap().clone();
        cx.send(said.as_bytes()).unwrap();
    }

    fn on_topics(&mut self, cx: &mut Context<'_>, topics: &[String]) {
        assert_eq!(topics.len(), 1);
        cx.subscribe(&topics[0]).unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        cx.close_with(4_321, &String::from_utf8_lossy(message));
    }
}

#[cfg(feature = "web")]
#[test]
fn a_request_is_shown_to_the_handler_whose_refusal_is_the_answer() {
    let config = settings! { allow_origin: vec!["https://page.example".parse().unwrap()], ..config() };
    let server = Fixture::start(config, |_| Gate);
    let addr = server.addr(Framing::Http);
    let answer = |target: &str, fields: &str| {
        let mut client = HttpClient::connect(addr);
        client.send(upgrade(target, fields));
        let answer = client.recv_answer();
        client.expect_end();
        answer
    };
    let refused = answer("/ws", "Origin: https://page.example\r\n");
    assert!(refused.starts_with("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n"), "{refused}");
    assert!(refused.contains("\r\nAccess-Control-Allow-Origin: https://page.example\r\n"), "{refused}");
    assert!(refused.ends_with("\r\n\r\nshow a token\n"), "{refused}");
    for (token, start, end) in [
        ("other", "HTTP/1.1 403 Forbidden\r\n", "that is not the word\n"),
        ("busy", "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n", "come  back\n"),
        ("panic", "HTTP/1.1 500 Internal Server Error\r\n", "the server failed over this\n"),
        ("close", "HTTP/1.1 403 Forbidden\r\n", "the server does not take this client\n"),
    ] {
        let refused = answer(&format!("/ws?token={token}"), "");
        assert!(refused.starts_with(start) && refused.ends_with(end), "{refused}");
    }
    wait_until("they are gone", || server.conn_count() == 0);
    assert_eq!((server.closed(CloseReason::Rejected), server.closed(CloseReason::HandlerPanic)), (4, 1));

    let mut client = HttpClient::connect(addr);
    client.send(upgrade("/ws?topic=a&x=%20", "Authorization: Bearer open sesame\r\nX-Own: 1\r\n"));
    assert!(client.recv_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.recv(), r#"/ws topic=a&x=%20 ["a"] Some("1") None"#);
    block_on(server.publish("a", "b").unwrap().receipt());
    assert_eq!(client.recv(), "b");
    client.say("why not");
    assert_eq!(client.recv(), "BYE handler why not");
    client.expect_close(4_321, "why not");
}

/// Says what it is told: sets and cancels timers.
struct Clockwork;

impl Handler for Clockwork {
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        cx.after(Duration::from_secs(1), 9).unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        match message {
            b"again" => cx.after(Duration::from_secs(1), 9).unwrap(),
            b"cancel" => {
                let text = format!("{} {}", cx.cancel(9), cx.cancel(9));
                cx.send(text.as_bytes()).unwrap();
            }
            b"many" => {
                let set = (0..).map_while(|token| cx.after(Duration::from_secs(3_600), token).ok()).count();
                let error = cx.after(Duration::ZERO, u64::MAX).unwrap_err();
                assert_eq!(error, TimerError::TooMany { max: set });
                cx.send(error.to_string().as_bytes()).unwrap();
            }
            _ => {
                cx.close();
                assert_eq!(cx.after(Duration::ZERO, 9), Err(TimerError::NotOpen));
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, token: u64) {
        cx.close_with(4_000, &format!("timer {token}"));
    }
}

#[test]
fn a_timer_comes_when_it_is_due_unless_it_is_set_anew_or_cancelled() {
    let server = Fixture::start(config(), |_| Clockwork);
    let start = Instant::now();
    let (mut silent, mut cancelled) = (server.client(Framing::Line), server.client(Framing::Length));
    cancelled.send("cancel");
    cancelled.expect("true false");
    let mut again = server.client(Framing::Line);
    std::thread::sleep(Duration::from_millis(700));
    again.send("again");
    silent.expect("BYE handler timer 9");
    assert!(start.elapsed() >= Duration::from_secs(1));
    again.expect("BYE handler timer 9");
    assert!(start.elapsed() >= Duration::from_millis(1_700));
    cancelled.send("many");
    cancelled.expect("a connection may have at most 16 timers at a time");
    cancelled.send("end");
    cancelled.expect("BYE handler");
    cancelled.expect_end();
    drop((silent, cancelled, again));
    server.wait_for_connections(0);
    assert_eq!(server.closed(CloseReason::Handler), 3);
}

/// Sends a lot, and goes on when it hears that there is room.
struct Firehose {
    left: u32,
    pauses: Arc<Mutex<Vec<u32>>>,
}

impl Firehose {
    fn pump(&mut self, cx: &mut Context<'_>) {
        while self.left > 0 {
            match cx.send(&[b'x'; 1_000]) {
                Ok(()) => self.left -= 1,
                Err(SendError::QueueFull) => return self.pauses.lock().unwrap().push(self.left),
                Err(error) => panic!("{error}"),
            }
        }
        cx.send(b"end").unwrap();
    }
}

impl Handler for Firehose {
    fn on_message(&mut self, cx: &mut Context<'_>, _: &[u8]) {
        self.pump(cx);
    }

    fn on_writable(&mut self, cx: &mut Context<'_>) {
        self.pump(cx);
    }
}

#[test]
fn a_handler_that_found_the_queue_full_hears_when_there_is_room_again() {
    const MESSAGES: u32 = 2_000;
    let pauses = Arc::new(Mutex::new(Vec::new()));
    let server = Fixture::start(tight(), {
        let pauses = Arc::clone(&pauses);
        move |_| Firehose { left: MESSAGES, pauses: Arc::clone(&pauses) }
    });
    let mut client = server.narrow_client(Framing::Line);
    client.send("begin");
    wait_until("it has paused", || !pauses.lock().unwrap().is_empty());
    for _ in 0..MESSAGES {
        assert_eq!(client.recv().len(), 1_000);
    }
    client.expect("end");
    let pauses = pauses.lock().unwrap();
    assert!(pauses.len() > 10, "{} pauses", pauses.len());
    assert!(pauses.windows(2).all(|pair| pair[1] < pair[0]), "each time some of it went: {pauses:?}");
    assert_eq!(server.drops(), []);
}

/// Panics wherever it is told to.
struct Clumsy;

impl Handler for Clumsy {
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        cx.subscribe("all").unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        match message {
            b"message" => panic!("over a message"),
            b"timer" => cx.after(Duration::ZERO, 1).unwrap(),
            b"close" => {
                cx.set_session(Session::of("panics as it closes"));
                cx.close();
            }
            _ => cx.send(message).unwrap(),
        }
    }

    fn on_timer(&mut self, _: &mut Context<'_>, _: u64) {
        panic!("over a timer");
    }

    fn on_close(&mut self, cx: &mut Context<'_>, _: CloseReason) {
        assert!(cx.user().is_none(), "over a close");
    }

    fn render(event: corecast::Event<'_>, _: corecast::Dialect, out: &mut Vec<u8>) -> Option<corecast::Kind> {
        let (payload, kind) = event.payload()?;
        out.extend_from_slice(payload);
        assert!(payload != b"unspeakable", "over words");
        Some(kind)
    }
}

#[test]
fn a_panic_ends_the_connection_that_it_is_about_and_no_other() {
    let server = Fixture::start(settings! { shards: Some(1), ..config() }, |_| Clumsy);
    let mut witness = server.client(Framing::Length);
    for (word, reason) in
        [("message", CloseReason::HandlerPanic), ("timer", CloseReason::HandlerPanic), ("close", CloseReason::Handler)]
    {
        let before = server.closed(reason);
        let mut victim = server.client(Framing::Line);
        victim.send(word);
        victim.expect_end();
        drop(victim);
        server.wait_for_connections(1);
        assert_eq!(server.closed(reason), before + 1, "{word}");
        witness.send("still here");
        witness.expect("still here");
    }
    // What can't be put into words is dropped, and counted.
    let receipt = block_on(server.publish("all", "unspeakable").unwrap().receipt());
    assert_eq!((receipt.matched, receipt.written), (1, 0));
    assert_eq!(server.dropped(DropReason::HandlerPanic), 1);
    block_on(server.publish("all", "spoken").unwrap().receipt());
    witness.expect("spoken");
    server.end().unwrap();
}

#[test]
fn a_panic_over_words_ends_the_server_where_it_is_to() {
    let mut server = Fixture::build(config(), |_| Clumsy, |builder| builder.on_panic(OnPanic::EndServer));
    let mut client = server.client(Framing::Line);
    client.send("here");
    client.expect("here");
    server.publish("all", "unspeakable").unwrap();
    let error = server.wait().expect("it ends").expect_err("by an error").to_string();
    assert!(error.contains("over words"), "{error}");
}

/// Calls itself by name, and says so of all that is published.
struct Named<const NAME: char>;

impl<const NAME: char> Handler for Named<NAME> {
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        cx.subscribe("news").unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        let text = format!("{NAME} heard {}", String::from_utf8_lossy(message));
        cx.send(text.as_bytes()).unwrap();
    }

    fn render(event: corecast::Event<'_>, _: corecast::Dialect, out: &mut Vec<u8>) -> Option<corecast::Kind> {
        let (payload, kind) = event.payload()?;
        out.extend_from_slice(NAME.to_string().as_bytes());
        out.extend_from_slice(b" says ");
        out.extend_from_slice(payload);
        Some(kind)
    }
}

#[test]
fn each_listener_has_a_handler_of_its_own_and_they_share_topics() {
    let listen = |text: &str| [text.parse().unwrap()];
    let config = settings! { shards: Some(2), ..config() };
    let server = Server::builder(listen("line=127.0.0.1:0"), |_| Named::<'a'>)
        .listen(listen("line=127.0.0.2:0"), |_| Named::<'b'>)
        .listen(listen("length=127.0.0.1:0"), |_| Named::<'c'>)
        .config(config)
        .start()
        .unwrap();
    let mut clients: Vec<_> = (server.listen().iter().zip(["a", "b", "c"]))
        .flat_map(|(listen, name)| (0..8).map(move |_| (Client::connect(listen.addr, listen.framing), name)))
        .collect();
    for (client, name) in &mut clients {
        client.send("hello");
        client.expect(&format!("{name} heard hello"));
    }
    let receipt = block_on(server.handle().publish("news", "x").unwrap().receipt());
    assert_eq!(receipt.written, clients.len() as u64);
    for (client, name) in &mut clients {
        client.expect(&format!("{name} says x"));
    }
    server.handle().shutdown();
    block_on(server.ended()).unwrap();
}

/// Answers for the whole server, by the handle that its shard's context leads to.
struct Counter(ShardContext);

impl Handler for Counter {
    fn on_message(&mut self, cx: &mut Context<'_>, _: &[u8]) {
        let server = self.0.server().upgrade().expect("it runs");
        let text = format!("{} of {}: {}", self.0.index(), self.0.shards(), server.conn_count());
        assert_eq!(cx.shard(), self.0.index());
        cx.send(text.as_bytes()).unwrap();
    }
}

#[test]
fn a_shards_context_leads_to_the_server_and_does_not_keep_it_running() {
    let server = Server::builder(["line=127.0.0.1:0".parse().unwrap()], |shard| Counter(shard.clone()))
        .config(settings! { shards: Some(2), ..config() })
        .start()
        .unwrap();
    let addr = server.addr(Framing::Line).unwrap();
    let mut clients: Vec<_> = (0..16).map(|_| Client::connect(addr, Framing::Line)).collect();
    wait_until("all are in", || server.handle().conn_count() == clients.len());
    for client in &mut clients {
        client.send("who");
        let answer = client.recv();
        assert!(["0 of 2: 16", "1 of 2: 16"].contains(&&answer[..]), "{answer}");
    }
    drop(server);
    for client in &mut clients {
        client.recv_to_end();
    }
}

#[test]
fn a_server_without_an_address_says_what_it_needs_and_one_without_a_control_plane_keeps_no_port_free_for_it() {
    let nowhere = Server::builder([], |_| corecast::Echo).start().err().unwrap().to_string();
    assert_eq!(nowhere, "listen is empty; it needs at least one address, as in line=[::]:8888");

    // The default place of the control plane is nothing to a server that has none.
    let addr = Config::default().control.0[0];
    let builder = || {
        let listen = corecast::Listen { framing: Framing::Line, addr };
        Server::builder([listen], |_| corecast::Echo).config(settings! { listen: Vec::new(), ..config() })
    };
    let error = builder().config(settings! { shards: Some(1), ..Config::default() }).with_control_plane().start();
    let error = error.err().unwrap().to_string();
    assert!(error.contains("each needs a port of its own"), "{error}");
}
