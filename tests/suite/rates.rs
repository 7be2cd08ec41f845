//! What one client may send: every message and frame counts against its rate, and what comes too late is not read
//! without end.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use corecast::{CloseReason, Context, Framing, Handler};

use crate::support::http::{CLOSE, FIN, HttpClient, PING, PONG, TEXT, frame, upgrade};
use crate::support::{DEADLINE, Fixture, PLAIN, config, wait_until};

/// More than a second's worth.
const RATE: usize = 100;
const SENT: usize = 130;

fn limited() -> Fixture {
    Fixture::hub(settings! { shards: Some(1), message_rate: RATE as u32, ..config() })
}

#[test]
fn each_frame_of_a_websocket_counts_whatever_it_is_for() {
    let kinds: [(&str, Vec<u8>); 5] = [
        ("pongs", frame(FIN | PONG, "").repeat(SENT)),
        ("pings", frame(FIN | PING, "").repeat(SENT)),
        ("empty messages", frame(FIN | TEXT, "").repeat(SENT)),
        ("empty fragments", [frame(TEXT, "PING x"), frame(0, "").repeat(SENT), frame(FIN, "")].concat()),
        ("fragments", [frame(TEXT, "PING "), frame(0, "x").repeat(SENT), frame(FIN, "")].concat()),
    ];
    for (kind, bytes) in kinds {
        let server = limited();
        let mut client = HttpClient::websocket(server.addr(Framing::Http), "/ws", "");
        client.send(bytes);
        wait_until(&format!("{kind} are read more slowly"), || server.sum(|shard| shard.throttled.get()) > 0);
        // All of them are read in the end.
        client.say("PING last");
        while client.recv_frame() != (TEXT, b"PONG last".to_vec()) {}
    }
}

#[test]
fn messages_are_handled_at_their_rate_once_a_seconds_worth_has_come() {
    const MESSAGES: usize = 3 * RATE;
    for framing in PLAIN {
        let server = limited();
        let mut client = server.client(framing);
        let began = Instant::now();
        client.send_raw((0..MESSAGES).flat_map(|n| client.frame(format!("PING {n}"))).collect::<Vec<u8>>());
        for n in 0..MESSAGES {
            client.expect(&format!("PONG {n}"));
            // The clock is read last, so that a test which is slow only allows for more.
            let may = RATE as f64 * (1.0 + began.elapsed().as_secs_f64());
            assert!((n + 1) as f64 <= may + 1.0, "{} of {framing}, not {may}", n + 1);
        }
    }
}

#[test]
fn a_frame_counts_once_however_many_pieces_it_comes_in() {
    let server = limited();
    let mut client = HttpClient::websocket(server.addr(Framing::Http), "/ws", "");
    let before = server.sum(|shard| shard.bytes_in.get());
    let message = frame(FIN | TEXT, format!("PING {}", "x".repeat(2 * SENT)));
    for (count, byte) in message.iter().enumerate() {
        client.send([*byte]);
        wait_until("it is read", || server.sum(|shard| shard.bytes_in.get()) == before + count as u64 + 1);
    }
    assert!(client.recv().starts_with("PONG x"));
    assert_eq!(server.sum(|shard| shard.throttled.get()), 0);
}

#[test]
fn empty_messages_of_the_plain_framings_count() {
    for framing in PLAIN {
        let server = limited();
        let mut client = server.client(framing);
        client.send_raw(client.frame("").repeat(SENT));
        wait_until("they are read more slowly", || server.sum(|shard| shard.throttled.get()) > 0);
        client.send("PING last");
        while client.recv() != "PONG last" {}
    }
}

/// Sends until the server resets the connection, and returns how many MiB that took.
#[track_caller]
fn flood(mut stream: TcpStream) -> usize {
    const MIB: usize = 1 << 20;
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let bytes = vec![b'\n'; MIB];
    let mut sent = 0;
    while stream.write_all(&bytes).is_ok() {
        sent += 1;
        assert!(sent < 1_000, "the server reads without end");
    }
    sent
}

#[test]
fn what_a_client_sends_while_its_connection_closes_is_not_read_without_end() {
    let server = Fixture::hub(settings! { max_message: 1_000, ..config() });
    let http = server.addr(Framing::Http);
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let scenes = [
        ("an event stream", http, get("/sse?topic=news")),
        ("an answered request", http, get("/")),
        ("a closed WebSocket", http, [upgrade("/ws", "").into_bytes(), frame(FIN | CLOSE, "")].concat()),
        ("a WebSocket that breaks the rules", http, [upgrade("/ws", "").into_bytes(), vec![0xff; 2]].concat()),
        ("a request to a line port", server.addr(Framing::Line), get("/")),
        ("a line that is too long", server.addr(Framing::Line), vec![b'x'; 2_000]),
        ("a length that is too large", server.addr(Framing::Length), vec![0xff; 4]),
    ];
    for (count, (what, addr, begin)) in scenes.into_iter().enumerate() {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(&begin).unwrap();
        let before = server.sum(|shard| shard.bytes_in.get());
        let sent = flood(stream);
        wait_until("it is closed", || {
            CloseReason::ALL.map(|why| server.closed(why)).iter().sum::<u64>() > count as u64
        });
        let read = (server.sum(|shard| shard.bytes_in.get()) - before) >> 20;
        // The bound, and what is read at once.
        assert!(read <= 17, "{what}: {read} MiB were read, {sent} sent");
    }
}

#[test]
fn a_client_that_sends_no_more_than_that_reads_the_last_word() {
    let server = Fixture::hub(settings! { max_message: 1_000, ..config() });
    let mut client = server.client(Framing::Line);
    client.send_raw(vec![b'x'; 12 << 20]);
    assert!(client.recv().starts_with("ERR message-too-large "));
    client.expect("BYE message-too-large");
    client.expect_end();
}

/// Notes the first byte of each message, and holds the shard up while it is told to.
struct Diary(Arc<Mutex<Vec<u8>>>);

impl Handler for Diary {
    fn on_message(&mut self, _cx: &mut Context<'_>, message: &[u8]) {
        if message == b"hold" {
            self.0.lock().unwrap().push(b'h');
            std::thread::sleep(Duration::from_millis(300));
        }
        self.0.lock().unwrap().extend(message.first());
    }
}

#[test]
fn a_buffer_full_of_small_messages_does_not_hold_others_up() {
    const MANY: usize = 30_000;
    let diary = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&diary);
    let server = Fixture::start(settings! { shards: Some(1), ..config() }, move |_| Diary(Arc::clone(&notes)));
    let [mut holder, mut many, mut one] = [(); 3].map(|()| server.client(Framing::Line));
    server.wait_for_connections(3);
    holder.send("hold");
    wait_until("the shard is held up", || diary.lock().unwrap().contains(&b'h'));
    many.send_raw(b"m\n".repeat(MANY));
    one.send("o");
    let count = |byte: u8| diary.lock().unwrap().iter().filter(|noted| **noted == byte).count();
    wait_until("all are read", || count(b'm') == MANY && count(b'o') == 1);
    let diary = diary.lock().unwrap();
    assert_ne!(diary.last(), Some(&b'o'), "the one waited for all of the many");
}

#[test]
fn a_client_that_has_closed_its_side_behind_many_small_messages_gets_all_answers() {
    let server = Fixture::hub(config());
    let mut client = server.client(Framing::Line);
    client.send_raw("ID\n".repeat(10_000));
    client.finish_sending();
    for _ in 0..10_000 {
        assert!(client.recv().starts_with("ID "));
    }
    client.expect_end();
}
