//! Text and binary are kinds: what a message was sent as is what it arrives as.

use corecast::{Context, Dialect, Event, Framing, Handler, Kind, Payload};

use crate::support::http::{BINARY, FIN, HttpClient, TEXT, frame};
use crate::support::{Fixture, config};

/// The payloads that every way of publishing is tried with: bytes that are text, none, and bytes that can't be text.
const PAYLOADS: [&[u8]; 3] = [b"text", b"", b"\xff"];

fn publishing() -> corecast::Config {
    settings! { client_publish: true, ..config() }
}

fn websocket(server: &Fixture, target: &str, protocol: &str) -> HttpClient {
    HttpClient::websocket(server.addr(Framing::Http), target, protocol)
}

fn opcode(kind: Kind) -> u8 {
    if kind == Kind::Text { TEXT } else { BINARY }
}

/// The kind that a payload arrives as: what is not UTF-8 can't be text, whatever it was called.
fn arrives(said: Kind, payload: &[u8]) -> Kind {
    if std::str::from_utf8(payload).is_ok() { said } else { Kind::Binary }
}

/// Subscribers in each form that shows the kind.
struct Subscribers {
    words: HttpClient,
    objects: HttpClient,
    events: HttpClient,
}

impl Subscribers {
    fn of(server: &Fixture) -> Self {
        let mut words = websocket(server, "/ws?topic=t", "");
        let mut objects = websocket(server, "/ws?topic=t", "corecast.v1.json");
        words.recv();
        objects.recv();
        let events = HttpClient::events(server.addr(Framing::Http), "/sse?topic=t");
        Subscribers { words, objects, events }
    }

    /// Asserts that a message of the topic arrives at all of them as what it is.
    #[track_caller]
    fn expect(&mut self, kind: Kind, payload: &[u8], how: &str) {
        let words = [b"MSG t ", payload].concat();
        assert_eq!(self.words.recv_frame(), (opcode(kind), words), "{how}: {payload:?}");
        let field = match (kind, payload) {
            (Kind::Text, text) => format!(r#""payload":"{}""#, str::from_utf8(text).unwrap()),
            (Kind::Binary, b"text") => r#""payload_base64":"dGV4dA==""#.into(),
            (Kind::Binary, b"") => r#""payload_base64":"""#.into(),
            (Kind::Binary, _) => r#""payload_base64":"/w==""#.into(),
        };
        let object = format!(r#"{{"type":"msg","topic":"t",{field}}}"#);
        assert_eq!(self.objects.recv(), object, "{how}: {payload:?}");
        assert_eq!(self.events.recv_event().data, object, "{how}: {payload:?}");
    }
}

#[test]
fn an_echo_is_of_the_kind_that_came() {
    let server = Fixture::echo(config());
    for protocol in ["", "corecast.v1.json"] {
        let mut client = websocket(&server, "/ws", protocol);
        for (opcode, payload) in
            [(TEXT, &b"text"[..]), (BINARY, b"text"), (TEXT, b""), (BINARY, b""), (BINARY, b"\xff")]
        {
            client.send(frame(FIN | opcode, payload));
            assert_eq!(client.recv_frame(), (opcode, payload.to_vec()));
            // In pieces it is put together elsewhere.
            let (first, rest) = payload.split_at(payload.len() / 2);
            client.send([frame(opcode, first), frame(0, ""), frame(FIN, rest)].concat());
            assert_eq!(client.recv_frame(), (opcode, payload.to_vec()));
        }
    }
}

#[test]
fn what_a_websocket_publishes_keeps_its_kind() {
    let server = Fixture::hub(publishing());
    let mut subscribers = Subscribers::of(&server);
    let mut publisher = websocket(&server, "/ws", "");
    for (opcode, kind) in [(TEXT, Kind::Text), (BINARY, Kind::Binary)] {
        for payload in PAYLOADS.iter().filter(|payload| arrives(kind, payload) == kind) {
            publisher.send(frame(FIN | opcode, [b"PUB t ", *payload].concat()));
            let (replied, ok) = publisher.recv_frame();
            assert!(replied == TEXT && ok.starts_with(b"OK PUB "), "an answer is text: {replied}");
            subscribers.expect(kind, payload, "words");
        }
    }
    let mut publisher = websocket(&server, "/ws", "corecast.v1.json");
    for (field, kind, payload) in [
        (r#""payload":"text""#, Kind::Text, &b"text"[..]),
        (r#""payload":"""#, Kind::Text, b""),
        (r#""payload_base64":"dGV4dA==""#, Kind::Binary, b"text"),
        (r#""payload_base64":"""#, Kind::Binary, b""),
        (r#""payload_base64":"/w==""#, Kind::Binary, b"\xff"),
    ] {
        // The object says it, and not the opcode in which the object comes.
        for opcode in [TEXT, BINARY] {
            publisher.send(frame(FIN | opcode, format!(r#"{{"type":"pub","topic":"t",{field}}}"#)));
            let (replied, ok) = publisher.recv_frame();
            assert!(replied == TEXT && ok.starts_with(br#"{"type":"ok","verb":"PUB""#), "{replied}");
            subscribers.expect(kind, payload, "objects");
        }
    }
}

#[test]
fn what_comes_without_a_kind_is_text_where_it_is_utf8() {
    let server = Fixture::hub(publishing());
    let mut subscribers = Subscribers::of(&server);
    for framing in [Framing::Line, Framing::Length] {
        let mut publisher = server.client(framing);
        for payload in PAYLOADS {
            assert!(publisher.ask([b"PUB t ", payload].concat()).starts_with("OK PUB "));
            subscribers.expect(arrives(Kind::Text, payload), payload, framing.name());
        }
    }
    for payload in PAYLOADS {
        server.publish("t", payload).unwrap();
        subscribers.expect(arrives(Kind::Text, payload), payload, "open");
        server.publish("t", Payload::text(payload)).unwrap();
        subscribers.expect(arrives(Kind::Text, payload), payload, "text");
        server.publish("t", Payload::binary(payload)).unwrap();
        subscribers.expect(Kind::Binary, payload, "binary");
    }
    server.publish("t", "text").unwrap();
    subscribers.expect(Kind::Text, b"text", "a string");
}

#[test]
fn messages_to_all_and_to_one_keep_their_kind_too() {
    let server = Fixture::hub(publishing());
    let mut client = websocket(&server, "/ws", "");
    let id = client.ask("ID").strip_prefix("ID ").unwrap().parse().unwrap();
    for kind in [Kind::Text, Kind::Binary] {
        server.broadcast(Payload::of_kind(kind, "x")).unwrap();
        assert_eq!(client.recv_frame(), (opcode(kind), b"ALL x".to_vec()));
        server.send(id, Payload::of_kind(kind, "x")).unwrap();
        assert_eq!(client.recv_frame(), (opcode(kind), b"SELF x".to_vec()));
        client.send(frame(FIN | opcode(kind), "CAST x"));
        let mut got = [client.recv_frame(), client.recv_frame()];
        got.sort_by_key(|(_, message)| message[0]);
        assert_eq!(got[0], (opcode(kind), b"ALL x".to_vec()));
        assert!(got[1].0 == TEXT && got[1].1.starts_with(b"OK CAST "));
    }
}

#[test]
fn a_pong_is_of_the_kind_of_its_ping_and_other_answers_are_text() {
    let server = Fixture::hub(publishing());
    let mut client = websocket(&server, "/ws", "");
    for opcode in [TEXT, BINARY] {
        client.send(frame(FIN | opcode, "PING x"));
        assert_eq!(client.recv_frame(), (opcode, b"PONG x".to_vec()));
        for command in ["SUB t", "UNSUB t", "ID", "what"] {
            client.send(frame(FIN | opcode, command));
            assert_eq!(client.recv_frame().0, TEXT, "{command}");
        }
    }
    client.send(frame(FIN | BINARY, b"PING \xff"));
    assert_eq!(client.recv_frame(), (BINARY, b"PONG \xff".to_vec()));
}

#[test]
fn a_burst_of_both_kinds_keeps_each_of_them() {
    let server = Fixture::hub(publishing());
    let mut subscriber = websocket(&server, "/ws?topic=t", "");
    subscriber.recv();
    let mut publisher = websocket(&server, "/ws", "");
    let burst: Vec<u8> = (0..500)
        .flat_map(|n: usize| frame(FIN | if n.is_multiple_of(3) { BINARY } else { TEXT }, format!("PUB t {n}")))
        .collect();
    publisher.send(burst);
    for n in 0..500_usize {
        let opcode = if n.is_multiple_of(3) { BINARY } else { TEXT };
        // What is joined into one write is still a frame each.
        assert_eq!(subscriber.recv_frame(), (opcode, format!("MSG t {n}").into_bytes()));
    }
}

/// Passes on what it gets in each way that a handler has, and has words of its own for a topic.
struct Relay;

impl Handler for Relay {
    fn on_connect(&mut self, cx: &mut Context<'_>) {
        assert_eq!(cx.kind(), Kind::Text);
        cx.subscribe("t").unwrap();
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        cx.send(format!("{:?}", cx.kind()).as_bytes()).unwrap();
        cx.send_as(Kind::Text, message).unwrap();
        cx.send_as(Kind::Binary, message).unwrap();
        cx.publish("t", message.to_vec()).unwrap();
        cx.publish("t", "a string").unwrap();
        cx.publish("t", Payload::binary("bytes")).unwrap();
    }

    fn render(event: Event<'_>, _: Dialect, out: &mut Vec<u8>) -> Option<Kind> {
        let Event::Publish { payload, kind, .. } = event else { return None };
        out.extend_from_slice(payload);
        out.extend_from_slice(format!(" {kind:?}").as_bytes());
        // Words of its own, which are text whatever they tell of.
        Some(if payload == b"bytes" { Kind::Text } else { kind })
    }
}

#[test]
fn a_handler_learns_and_chooses_the_kind() {
    let server = Fixture::start(config(), |_| Relay);
    let mut client = websocket(&server, "/ws", "");
    for (came, name) in [(TEXT, "Text"), (BINARY, "Binary")] {
        client.send(frame(FIN | came, "x"));
        let expected: [(u8, String); 6] = [
            (came, name.into()),
            (TEXT, "x".into()),
            (BINARY, "x".into()),
            (came, format!("x {name}")),
            (TEXT, "a string Text".into()),
            (TEXT, "bytes Binary".into()),
        ];
        for (opcode, message) in expected {
            assert_eq!(client.recv_frame(), (opcode, message.into_bytes()));
        }
    }
    // A framing that tells no kinds apart, on a server where nothing is under way.
    let server = Fixture::start(config(), |_| Relay);
    assert_eq!(server.client(Framing::Line).ask("x"), "Text");
}
