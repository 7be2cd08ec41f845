//! WebSocket: handshake, messages, control frames, closes, and the clients that keep to no rule.

use std::time::Duration;

use corecast::{CloseReason, Config, ConnId, Context, DropReason, Framing, Handler};

use crate::support::http::{BINARY, CLOSE, FIN, HttpClient, PING, PONG, TEXT, frame, upgrade};
use crate::support::{Fixture, Random, config, wait_until};

/// A quarter second is a tick; nothing is sooner.
const SOON: Duration = Duration::from_millis(500);

fn websocket(server: &Fixture, target: &str) -> HttpClient {
    HttpClient::websocket(server.addr(Framing::Http), target, "")
}

fn json(server: &Fixture, target: &str) -> HttpClient {
    HttpClient::websocket(server.addr(Framing::Http), target, "corecast.v1.json")
}

fn publishing() -> Config {
    settings! { client_publish: true, ..config() }
}

#[test]
fn the_language_runs_inside_messages() {
    let server = Fixture::hub(publishing());
    let mut client = HttpClient::websocket(server.addr(Framing::Http), "/ws", "corecast.v1");
    assert_eq!(client.ask("SUB news"), "OK SUB news");
    // A binary message is read alike.
    client.send(frame(FIN | BINARY, "PING hello"));
    assert_eq!(client.recv_frame(), (BINARY, b"PONG hello".to_vec()));
    server.publish("news", "two\nlines").unwrap();
    assert_eq!(client.recv(), "MSG news two\nlines");
    server.publish("news", &b"\xff"[..]).unwrap();
    assert_eq!(client.recv_frame(), (BINARY, b"MSG news \xff".to_vec()));
    assert!(client.ask("PUB news x").starts_with("OK PUB "));
    assert_eq!(client.recv(), "MSG news x");
    assert!(client.ask("").starts_with("ERR empty-message "));
}

#[test]
fn the_language_has_a_json_form() {
    let server = Fixture::hub(publishing());
    let mut client = json(&server, "/ws?topic=a&topic=b%2Fc");
    assert_eq!(client.recv(), r#"{"type":"ok","verb":"SUB","topics":["a","b/c"],"from":"url"}"#);
    assert_eq!(client.ask(r#"{"type":"unsub","topics":["a"]}"#), r#"{"type":"ok","verb":"UNSUB","topics":["a"]}"#);
    server.publish("b/c", "say \"hi\"").unwrap();
    assert_eq!(client.recv(), r#"{"type":"msg","topic":"b/c","payload":"say \"hi\""}"#);
    let ok = client.ask(r#"{"type":"pub","topic":"b/c","payload_base64":"/wA="}"#);
    assert!(ok.starts_with(r#"{"type":"ok","verb":"PUB","id":""#), "{ok}");
    assert_eq!(client.recv(), r#"{"type":"msg","topic":"b/c","payload_base64":"/wA="}"#);
    server.broadcast("all").unwrap();
    assert_eq!(client.recv(), r#"{"type":"all","payload":"all"}"#);
    let id = client.ask(r#"{"type":"id"}"#);
    let id: ConnId = id.split('"').nth(7).unwrap().parse().unwrap();
    server.send(id, "you").unwrap();
    assert_eq!(client.recv(), r#"{"type":"self","payload":"you"}"#);
    assert_eq!(client.ask(r#"{"type":"ping"}"#), r#"{"type":"pong"}"#);
    assert!(client.ask("SUB a").starts_with(r#"{"type":"err","code":"bad-json","text":""#));
    server.close(id).unwrap();
    assert_eq!(client.recv(), r#"{"type":"bye","reason":"kicked"}"#);
    client.expect_close(1008, "kicked");
}

#[test]
fn an_answer_in_json_repeats_the_id_of_its_command() {
    let server = Fixture::hub(settings! { topics_per_connection_max: 2, ..publishing() });
    let mut client = json(&server, "/ws?topic=a");
    assert_eq!(client.recv(), r#"{"type":"ok","verb":"SUB","topics":["a"],"from":"url"}"#);
    let sub = r#"{"type":"sub","topics":["b"],"id":"first"}"#;
    assert_eq!(client.ask(sub), r#"{"type":"ok","verb":"SUB","topics":["b"],"id":"first"}"#);
    assert_eq!(client.ask(r#"{"type":"ping","text":"x","id":-1}"#), r#"{"type":"pong","text":"x","id":-1}"#);
    let unsub = r#"{"type":"unsub","topics":["b"],"id":0}"#;
    assert_eq!(client.ask(unsub), r#"{"type":"ok","verb":"UNSUB","topics":["b"],"id":0}"#);
    let ok = client.ask(r#"{"type":"cast","payload":"x","id":9}"#);
    assert!(ok.starts_with(r#"{"type":"ok","verb":"CAST","id":9,"publish_id":""#), "{ok}");
    assert_eq!(client.recv(), r#"{"type":"all","payload":"x"}"#);
    let id = client.ask(r#"{"type":"id","id":"i"}"#);
    assert!(id.starts_with(r#"{"type":"id","id":"i","connection_id":""#), "{id}");

    // An answer that says no says to what, whichever room it comes from.
    for (command, code) in [
        (r#"{"type":"sub","topics":["b","c"],"id":"no"}"#, "too-many-topics"),
        (r#"{"type":"sub","topics":["b d"],"id":"no"}"#, "bad-topic"),
        (r#"{"type":"pub","topic":"a","id":"no"}"#, "missing-payload"),
        (r#"{"type":"hello","id":"no"}"#, "bad-json"),
        (r#"{"id":"no"}"#, "bad-json"),
    ] {
        let err = client.ask(command);
        assert!(err.starts_with(&format!(r#"{{"type":"err","code":"{code}""#)), "{err}");
        assert!(err.ends_with(r#","id":"no"}"#), "{err}");
    }
    let err = client.ask(r#"{"type":"ping","id":[]}"#);
    assert!(err.contains("an id that is a string of at most 64 bytes") && !err.contains(r#""id":"#), "{err}");
}

#[test]
fn topics_in_the_url_are_subscribed_to_at_once() {
    let server = Fixture::hub(config());
    let mut client = websocket(&server, "/ws?topic=news&topic=%C3%A9t%C3%A9");
    assert_eq!(client.recv(), "OK SUB news été");
    server.publish("été", "x").unwrap();
    assert_eq!(client.recv(), "MSG été x");
    for (target, said) in [
        ("/ws?topic=a%20b", "no white space"),
        ("/ws?topic=news,sport", "?topic=news&topic=sport"),
        ("/ws?topic=a&topic=%E2%80%AEb", "U+202E"),
    ] {
        let mut bad = HttpClient::connect(server.addr(Framing::Http));
        bad.send(upgrade(target, ""));
        let answer = bad.recv_answer();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(said), "{answer}");
    }
    wait_until("the refused ones are gone", || server.closed(CloseReason::Answered) == 3);
}

#[test]
fn a_line_end_behind_a_command_is_dropped_and_one_in_a_payload_is_not() {
    let server = Fixture::hub(publishing());
    let mut client = websocket(&server, "/ws");
    for end in ["\n", "\r\n", " \n"] {
        assert_eq!(client.ask(&format!("SUB news{end}")), "OK SUB news");
        assert_eq!(client.ask(&format!("PING{}", end.trim_start_matches(' '))), "PONG");
        assert!(client.ask(&format!("ID{end}")).starts_with("ID "));
        assert!(client.ask(&format!("PUB news{}", end.trim_start_matches(' '))).starts_with("ERR missing-payload "));
        assert!(client.ask(&format!("PUB news x{end}")).starts_with("OK PUB "));
        assert_eq!(client.recv(), format!("MSG news x{end}"));
    }
    assert_eq!(json(&server, "/ws").ask("{\"type\":\"ping\"}\r\n"), r#"{"type":"pong"}"#);
    assert_eq!(json(&server, "/ws").ask("\u{feff}{\"type\":\"ping\"}"), r#"{"type":"pong"}"#);
}

#[test]
fn the_other_dialect_and_half_a_character_are_named() {
    let server = Fixture::hub(publishing());
    let mut words = websocket(&server, "/ws");
    let error = words.ask(r#"{"type":"sub","topics":["news"]}"#);
    assert!(error.starts_with("ERR unknown-verb ") && error.contains("subprotocol corecast.v1.json"), "{error}");
    let mut objects = json(&server, "/ws");
    let error = objects.ask("SUB news");
    assert!(
        error.contains("\"bad-json\"") && error.contains("opened with the subprotocol corecast.v1.json"),
        "{error}"
    );
    for half in [r"\ud83d", r"\ude00", r"\ud83d\ud83d", r"\ud83dx"] {
        for command in [
            format!(r#"{{"type":"cast","payload":"cut{half}"}}"#),
            format!(r#"{{"type":"sub","topics":["a{half}"]}}"#),
            format!(r#"{{"type":"ping","text":"{half}"}}"#),
        ] {
            let error = objects.ask(&command);
            assert!(error.contains("\"bad-json\"") && error.contains("half of a surrogate pair"), "{command}: {error}");
        }
    }
    // The same bytes without an escape, in a binary message since a text would break the protocol.
    objects.send(frame(FIN | BINARY, b"{\"type\":\"cast\",\"payload\":\"\xf0\x9f\x98\"}"));
    let error = objects.recv();
    assert!(error.contains("\"bad-json\"") && error.contains("not UTF-8"), "{error}");
    assert_eq!(objects.ask(r#"{"type":"ping","text":"\ud83d\ude00"}"#), "{\"type\":\"pong\",\"text\":\"\u{1f600}\"}");
}

#[test]
fn fragments_and_the_pings_between_them_are_taken_apart() {
    let server = Fixture::hub(config());
    let mut client = websocket(&server, "/ws");
    let stream = [
        frame(TEXT, "PING fr"),
        frame(FIN | PING, "between"),
        frame(0, "ag"),
        frame(FIN | PONG, "nobody asked"),
        frame(FIN, "ment"),
    ]
    .concat();
    for cut in 0..stream.len() {
        let before = server.sum(|shard| shard.bytes_in.get());
        client.send(&stream[..cut]);
        server.wait_for_bytes_in(before as usize + cut);
        client.send(&stream[cut..]);
        assert_eq!(client.recv_frame(), (PONG, b"between".to_vec()));
        assert_eq!(client.recv(), "PONG fragment");
    }
    // Two messages, a close and what must not be read any more, in one piece.
    let burst = [frame(FIN | TEXT, "PING 1"), frame(FIN | TEXT, "PING 2"), frame(FIN | CLOSE, b"\x03\xe9away")];
    client.send([burst.concat(), frame(FIN | TEXT, "PING 3")].concat());
    assert_eq!((client.recv(), client.recv()), ("PONG 1".into(), "PONG 2".into()));
    client.expect_close(1001, "");
}

#[test]
fn messages_of_any_size_come_back_from_the_echo() {
    let server = Fixture::echo(config());
    let mut random = Random::new();
    let mut client = websocket(&server, "/ws");
    let sizes = [0, 1, 125, 126, 127, 65_535, 65_536].into_iter();
    for size in sizes.chain((0..30).map(|_| random.below(65_536))).collect::<Vec<_>>() {
        let message = random.bytes(size);
        // In up to four fragments.
        let mut rest = &message[..];
        let mut first = BINARY;
        for _ in 0..random.below(4) {
            let (now, later) = rest.split_at(random.below(rest.len() + 1));
            client.send(frame(first, now));
            (first, rest) = (0, later);
        }
        client.send(frame(FIN | first, rest));
        assert_eq!(client.recv_frame(), (BINARY, message));
    }
}

#[test]
fn a_close_is_answered_with_its_code_and_ends_the_connection() {
    let server = Fixture::hub(config());
    for (payload, answer) in [(&b"\x03\xe8"[..], &b"\x03\xe8"[..]), (b"\x0f\xa0done", b"\x0f\xa0"), (b"", b"")] {
        let mut client = websocket(&server, "/ws");
        client.send(frame(FIN | CLOSE, payload));
        assert_eq!(client.recv_frame(), (CLOSE, answer.to_vec()));
        client.expect_end();
    }
    server.wait_for_connections(0);
    assert_eq!(server.closed(CloseReason::ClientClosed), 3);
    // One that hangs up without a word has closed too.
    websocket(&server, "/ws").finish_sending();
    wait_until("it is gone", || server.closed(CloseReason::ClientClosed) == 4);
}

#[test]
fn each_breach_of_the_rules_has_its_close_code_and_its_reason() {
    let server = Fixture::hub(settings! { max_message: 1000, ..config() });
    let breaches: [(&[u8], u16, CloseReason); 9] = [
        (b"\x81\x02hi", 1002, CloseReason::ProtocolError),
        (&frame(FIN | 0x40 | TEXT, "x"), 1002, CloseReason::ProtocolError),
        (&frame(FIN | 3, "x"), 1002, CloseReason::ProtocolError),
        (&frame(FIN, "x"), 1002, CloseReason::ProtocolError),
        (&frame(PING, "x"), 1002, CloseReason::ProtocolError),
        (&frame(FIN | CLOSE, b"\x03\xec"), 1002, CloseReason::ProtocolError),
        (&frame(FIN | TEXT, b"\xff"), 1007, CloseReason::NotUtf8),
        (&frame(TEXT, b"\xf4\x90"), 1007, CloseReason::NotUtf8),
        (&frame(FIN | TEXT, vec![b'x'; 1001])[..10], 1009, CloseReason::MessageTooLarge),
    ];
    for (bytes, code, reason) in breaches {
        let before = server.closed(reason);
        let mut client = websocket(&server, "/ws");
        client.send(bytes);
        let error = client.recv();
        assert!(error.starts_with(&format!("ERR {reason} ")), "{error}");
        assert_eq!(client.recv(), format!("BYE {reason}"));
        client.expect_close(code, reason.name());
        wait_until("it is counted", || server.closed(reason) == before + 1);
    }
    let mut client = websocket(&server, "/ws");
    client.send([frame(TEXT, [b'x'; 600]), frame(FIN, [b'x'; 400])].concat());
    assert!(client.recv().starts_with("ERR unknown-verb "), "a message at the limit is taken");
    client.send([frame(TEXT, [b'x'; 600]), frame(FIN, [b'x'; 401])].concat());
    assert!(client.recv().starts_with("ERR message-too-large "));
}

#[test]
fn a_drain_says_going_away() {
    let mut server = Fixture::hub(config());
    let mut clients = [websocket(&server, "/ws"), json(&server, "/ws")];
    assert_eq!(clients[0].ask("PING"), "PONG");
    assert_eq!(clients[1].ask(r#"{"type":"ping"}"#), r#"{"type":"pong"}"#);
    let mut silent = HttpClient::connect(server.addr(Framing::Http));
    server.wait_for_connections(3);
    server.shutdown();
    assert_eq!(clients[0].recv(), "BYE drain");
    assert_eq!(clients[1].recv(), r#"{"type":"bye","reason":"drain"}"#);
    for client in &mut clients {
        client.expect_close(1001, "drain");
    }
    silent.expect_end();
    drop((clients, silent));
    server.wait().expect("it ends").unwrap();
}

#[test]
fn a_client_that_answers_pings_lives_and_one_that_does_not_is_closed() {
    let server = Fixture::hub(settings! { read_timeout: 4 * SOON, ping_every: SOON, ..config() });
    let (mut lively, mut dead) = (websocket(&server, "/ws"), websocket(&server, "/ws"));
    // Eight pings take longer than the read timeout.
    for _ in 0..8 {
        assert_eq!(lively.recv_frame(), (PING, vec![]));
        lively.send(frame(FIN | PONG, ""));
    }
    let closing = loop {
        match dead.recv_frame() {
            (PING, _) => {}
            other => break other,
        }
    };
    assert_eq!(closing, (TEXT, b"BYE read-timeout".to_vec()));
    dead.expect_close(1008, "read-timeout");
    assert_eq!(server.closed(CloseReason::ReadTimeout), 1);
}

#[test]
fn pongs_do_not_keep_a_message_open_that_never_ends() {
    let server = Fixture::hub(settings! { read_timeout: 3 * SOON, ping_every: SOON, ..config() });
    let mut client = websocket(&server, "/ws");
    client.send(frame(TEXT, "PING never"));
    loop {
        match client.recv_frame() {
            (PING, _) => client.send([frame(FIN | PONG, ""), frame(0, "more")].concat()),
            (TEXT, text) => break assert_eq!(text, b"BYE read-timeout"),
            other => panic!("{other:?}"),
        }
    }
    client.expect_close(1008, "read-timeout");
}

#[test]
fn a_head_must_come_in_time() {
    let server = Fixture::hub(settings! { head_timeout: SOON, ..config() });
    let addr = server.addr(Framing::Http);
    let mut silent = HttpClient::connect(addr);
    let mut slow = HttpClient::connect(addr);
    slow.send("GET /ws HTTP/1.1\r\nHo");
    let answer = slow.recv_answer();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // Whoever asked for nothing is told nothing.
    silent.expect_end();
    // Each byte is one too early to be given up on, and still the head is late.
    let mut trickling = HttpClient::connect(addr);
    let endless = upgrade("/ws", "").repeat(2).replace("\r\n\r\n", "\r\n");
    let all_taken = endless.bytes().all(|byte| {
        std::thread::sleep(Duration::from_millis(10));
        trickling.try_send([byte])
    });
    assert!(!all_taken || trickling.recv_answer().starts_with("HTTP/1.1 408 "));
    wait_until("all three are counted", || server.closed(CloseReason::HeadTimeout) == 3);
    // An open WebSocket is none that a head is waited for.
    let mut open = websocket(&server, "/ws");
    std::thread::sleep(2 * SOON);
    assert_eq!(open.ask("PING"), "PONG");
}

#[test]
fn requests_of_all_sorts_are_answered_and_closed() {
    let server = Fixture::hub(config());
    let junk = "\0\u{7f}junk GET / HTTP/1.1\r\n\r\n".repeat(100);
    let long = "x".repeat(33_000);
    let requests = [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 200),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 200),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n\r\n{junk}"), 200),
        ("GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 200),
        ("GET http://x/ HTTP/1.1\r\nHost: y\r\n\r\n".to_owned(), 400),
        ("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 426),
        (upgrade("/ws", "Origin: http://evil.example\r\n"), 403),
        ("GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 404),
        ("DELETE / HTTP/1.1\r\nHOST: x\r\n\r\n".to_owned(), 405),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 431),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n".to_owned(), 400),
        ("SUB news\n".to_owned(), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
    ];
    for (request, status) in &requests {
        let mut client = HttpClient::connect(server.addr(Framing::Http));
        client.send(request);
        let answer = client.recv_answer();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.80}: {answer}");
        assert!(answer.split_once("\r\n\r\n").unwrap().1.len() > 10, "{answer}");
    }
    server.wait_for_connections(0);
    assert_eq!(server.closed(CloseReason::Answered), requests.len() as u64);
    assert_eq!(server.sum(|shard| shard.messages_in.get()), 0);
}

#[test]
fn frames_right_behind_the_head_are_read() {
    let server = Fixture::hub(config());
    let mut client = HttpClient::connect(server.addr(Framing::Http));
    client.send([upgrade("/ws", "").into_bytes(), frame(FIN | TEXT, "PING early")].concat());
    assert!(client.recv_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.recv(), "PONG early");
}

/// Counts what it hears of connections, and sends each its own messages.
struct Witness;

impl Handler for Witness {
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        cx.subscribe("connected").unwrap();
    }

    fn on_topics(&mut self, cx: &mut Context<'_>, topics: &[String]) {
        for topic in topics {
            cx.subscribe(topic).unwrap();
        }
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        assert_eq!(cx.framing(), Framing::Http);
        let _ = cx.send(message);
    }

    fn on_close(&mut self, cx: &mut Context<'_>, _reason: CloseReason) {
        cx.publish("closed", cx.id().to_string()).unwrap();
    }
}

#[test]
fn a_connection_without_a_request_is_none_to_handlers_and_publishers() {
    let server = Fixture::start(config(), |_| Witness);
    let addr = server.addr(Framing::Http);
    let (mut silent, mut asking) = (HttpClient::connect(addr), HttpClient::connect(addr));
    let mut client = websocket(&server, "/ws?topic=closed");
    server.wait_for_connections(3);
    server.broadcast("to all").unwrap();
    server.publish("connected", "to some").unwrap();
    assert_eq!((client.recv(), client.recv()), ("to all".into(), "to some".into()));
    asking.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(asking.recv_answer().starts_with("HTTP/1.1 200 "));
    silent.finish_sending();
    silent.expect_end();
    server.wait_for_connections(1);
    let other = websocket(&server, "/ws");
    server.wait_for_connections(2);
    drop(other);
    // The first that the handler heard of the end of.
    client.recv();
    assert_eq!(client.ask("nothing between"), "nothing between");
    assert_eq!(server.sum(|shard| shard.matched.get()), 3);
}

#[test]
fn a_message_that_grows_too_large_in_json_is_dropped_by_name_and_told() {
    let server = Fixture::hub(settings! { max_message: 1000, queue_bytes_max: 2000, ..config() });
    let (mut text, mut object) = (websocket(&server, "/ws?topic=a"), json(&server, "/ws?topic=a"));
    text.recv();
    object.recv();
    let controls = "\u{1}".repeat(1000);
    server.publish("a", controls.clone()).unwrap();
    assert_eq!(text.recv(), format!("MSG a {controls}"));
    assert_eq!(object.recv(), r#"{"type":"gap","topic":"a","count":1,"reason":"frame-too-large"}"#);
    assert_eq!(server.drops(), [(DropReason::FrameTooLarge, 1)]);
}

#[test]
fn a_flood_of_pings_is_answered_in_order_within_bounds() {
    let server = Fixture::hub(config());
    let mut client = websocket(&server, "/ws");
    let flood: Vec<u8> = (0..20_000_u32).flat_map(|n| frame(FIN | PING, n.to_be_bytes())).collect();
    std::thread::scope(|scope| {
        let mut sender = client.try_clone();
        scope.spawn(move || sender.send(flood));
        for n in 0..20_000_u32 {
            assert_eq!(client.recv_frame(), (PONG, n.to_be_bytes().to_vec()));
        }
    });
    assert_eq!(client.ask("PING"), "PONG");
}
