//! Time that jumps: a process that was stopped, or a shard that was busy with one thing, reads first and judges then.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use corecast::routes::{Events, Routes, WebSocket};
use corecast::{CloseReason, Config, Context, Framing, Handler};
use rustix::process::Signal;

use crate::support::http::{CLOSE, FIN, HttpClient, PING, PONG, TEXT, frame};
use crate::support::{Client, DEADLINE, Fixture, PLAIN, Program, config, wait_until};

const TIMEOUT: Duration = Duration::from_secs(3);

/// For longer than each timeout. That time passes is what these tests are about, so they let it pass.
const PAUSE: Duration = Duration::from_secs(5);

/// Stops a program for [`PAUSE`]. `meanwhile` runs while it stands still.
fn pause(program: &Program, meanwhile: impl FnOnce()) {
    program.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", program.pid().as_raw_nonzero());
    wait_until("the program stands still", || {
        let stat = std::fs::read_to_string(&stat).unwrap();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    });
    std::thread::sleep(PAUSE / 2);
    meanwhile();
    std::thread::sleep(PAUSE / 2);
    program.signal(Signal::CONT);
}

#[test]
fn nobody_whose_bytes_came_while_the_program_stood_still_is_closed() {
    let program = Program::serve([
        "--shards=2",
        "--read-timeout=3s",
        "--head-timeout=3s",
        "--ping-every=3s",
        "--listen=http=127.0.0.1:0",
    ]);
    let http = program.addr(Framing::Http);
    let mut plain: Vec<Client> = (0..8).map(|n| program.client(PLAIN[n % 2])).collect();
    let mut halves: Vec<Client> = PLAIN.map(|framing| program.client(framing)).into();
    let mut websockets = ["corecast.v1", "corecast.v1.json"].map(|name| HttpClient::websocket(http, "/ws", name));
    let mut silent_websocket = HttpClient::websocket(http, "/ws", "");
    let mut heads = [(); 2].map(|()| HttpClient::connect(http));
    let mut events = HttpClient::events(http, "/sse?topic=news");
    let mut silent = program.client(Framing::Line);
    let ping: Vec<_> = halves.iter().map(|client| client.frame("PING")).collect();
    halves.iter_mut().zip(&ping).for_each(|(client, ping)| client.send_raw(&ping[..2]));
    heads.iter_mut().for_each(|client| client.send("GET /sse?topic=news HTTP/1.1\r\nHost: corecast\r\n"));

    pause(&program, || {
        plain.iter_mut().for_each(|client| client.send("PING"));
        halves.iter_mut().zip(&ping).for_each(|(client, ping)| client.send_raw(&ping[2..]));
        websockets[0].say("PING");
        websockets[1].say(r#"{"type":"ping"}"#);
        heads.iter_mut().for_each(|client| client.send("\r\n"));
    });

    plain.iter_mut().chain(&mut halves).for_each(|client| client.expect("PONG"));
    assert_eq!(websockets.each_mut().map(HttpClient::recv), ["PONG", r#"{"type":"pong"}"#]);
    for head in &mut heads {
        let head = head.recv_head();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    }
    // A client that only answers pings is asked before it is judged, and goes on living by its answers.
    for _ in 0..3 {
        assert_eq!(silent_websocket.recv_frame().0, PING);
        silent_websocket.send(frame(FIN | PONG, ""));
    }
    assert_eq!(events.recv_block(), ":");
    // One that was silent all the time has had its time now.
    silent.expect("BYE read-timeout");
    silent.expect_end();
    let log = program.log();
    assert!(log.contains("away for ") && log.contains("counts against no client"), "{log}");
}

/// Echoes. At `stall` it keeps its shard busy until the test lets go of it.
struct Staller {
    stalled: mpsc::Sender<()>,
    let_go: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Handler for Staller {
    fn routes(&self) -> Routes {
        Routes::new().websocket("/ws", WebSocket::new()).events("/sse", Events::new())
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        if message == b"stall" {
            self.stalled.send(()).unwrap();
            self.let_go.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        }
        let _ = cx.send(message);
    }
}

/// A server of one shard, and what keeps that busy for [`PAUSE`].
struct Stalling {
    server: Fixture,
    client: Client,
    stalled: mpsc::Receiver<()>,
    let_go: mpsc::Sender<()>,
}

impl Stalling {
    fn start(config: Config) -> Stalling {
        let ((stalled_to, stalled), (let_go, let_go_from)) = (mpsc::channel(), mpsc::channel());
        let let_go_from = Arc::new(Mutex::new(let_go_from));
        let config = settings! { shards: Some(1), ..config };
        let server =
            Fixture::start(config, move |_| Staller { stalled: stalled_to.clone(), let_go: Arc::clone(&let_go_from) });
        let client = server.client(Framing::Line);
        Stalling { server, client, stalled, let_go }
    }

    /// Keeps the shard busy; `meanwhile` runs while it is.
    fn stall(&mut self, meanwhile: impl FnOnce()) {
        self.client.send("stall");
        self.stalled.recv_timeout(DEADLINE).unwrap();
        std::thread::sleep(PAUSE / 2);
        meanwhile();
        std::thread::sleep(PAUSE / 2);
        self.let_go.send(()).unwrap();
        self.client.expect("stall");
    }
}

#[test]
fn what_came_while_a_shard_was_busy_is_read_before_its_clients_are_judged() {
    let mut scene = Stalling::start(settings! {
        read_timeout: TIMEOUT,
        head_timeout: TIMEOUT,
        ping_every: Duration::ZERO,
        max_message: 8 << 20,
        queue_bytes_max: 16 << 20,
        ..config()
    });
    let http = scene.server.addr(Framing::Http);
    let mut plain = PLAIN.map(|framing| scene.server.client(framing));
    let mut websocket = HttpClient::websocket(http, "/ws", "");
    let mut head = HttpClient::connect(http);
    head.send("GET /sse?topic=a HTTP/1.1\r\nHost: corecast\r\n");
    let mut silent = PLAIN.map(|framing| scene.server.client(framing));
    let mut silent_websocket = HttpClient::websocket(http, "/ws", "");
    // More than one turn reads. Its first bytes are in before the stall, what its socket takes comes during that.
    let mut large = scene.server.client(Framing::Length);
    let message = vec![b'x'; 8 << 20];
    let bytes = large.frame(&message);
    large.send_raw(&bytes[..100]);
    scene.server.wait_for_connections(9);
    let mut sender = large.clone();
    let sending = Mutex::new(None);
    scene.stall(|| {
        plain.iter_mut().for_each(|client| client.send("hello"));
        websocket.send(frame(FIN | TEXT, "hello"));
        head.send("\r\n");
        *sending.lock().unwrap() = Some(std::thread::spawn(move || sender.send_raw(&bytes[100..])));
    });
    plain.iter_mut().for_each(|client| client.expect("hello"));
    assert_eq!(websocket.recv(), "hello");
    assert!(head.recv_head().starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(large.recv_bytes() == message, "the large message came back");
    sending.into_inner().unwrap().expect("it was begun").join().unwrap();
    for client in &mut silent {
        client.expect("BYE read-timeout");
        client.expect_end();
    }
    assert_eq!(silent_websocket.recv(), "BYE read-timeout");
    assert_eq!(silent_websocket.recv_frame().0, CLOSE);
}

#[test]
fn a_reader_that_made_room_while_its_shard_was_busy_is_not_closed_by_the_write_timeout() {
    let mut scene = Stalling::start(settings! {
        read_timeout: Duration::ZERO,
        write_timeout: TIMEOUT,
        so_sndbuf: Some(4096),
        queue_messages_max: 1000,
        queue_bytes_max: 16 << 20,
        ..config()
    });
    let mut reader = scene.server.narrow_client(Framing::Length);
    let mut stuck = scene.server.narrow_client(Framing::Length);
    scene.server.wait_for_connections(3);
    let message = "x".repeat(60_000);
    for _ in 0..20 {
        scene.server.broadcast(message.clone()).unwrap();
    }
    wait_until("both are blocked", || scene.server.sum(|shard| shard.sends_blocked.get()) >= 2);
    (0..20).for_each(|_| scene.client.expect(&message));
    // What the kernel holds for it is less than a message.
    scene.stall(|| assert!(reader.recv_within(PAUSE / 4).is_none()));
    (0..20).for_each(|_| reader.expect(&message));
    wait_until("the one that takes nothing is closed", || scene.server.closed(CloseReason::WriteTimeout) == 1);
    assert_eq!(scene.server.conn_count(), 2);
    drop(stuck.recv_to_end());
}
