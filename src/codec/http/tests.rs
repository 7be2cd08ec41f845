use std::fmt::Write as _;

use super::*;
use proptest::prelude::*;

fn site(allow_origin: &[&str]) -> Site {
    let allow_origin = allow_origin.iter().map(|text| text.parse().unwrap()).collect();
    let host = vec!["push.example".parse().unwrap()];
    Site::new(&Config { allow_origin, host, topics_per_connection_max: 3, ..Config::default() })
}

/// The head of a WebSocket's request, with `changes` for what it says by default; an empty value leaves a field out.
fn upgrade(target: &str, changes: &[(&str, &str)]) -> String {
    let mut fields = vec![
        ("Host", "push.example:8080"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for change in changes {
        match fields.iter_mut().find(|field| field.0 == change.0) {
            Some(field) => field.1 = change.1,
            None => fields.push(*change),
        }
    }
    let mut head = format!("GET {target} HTTP/1.1\r\n");
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head + "\r\n"
}

fn respond_to(request: &str, site: &Site) -> Outcome {
    respond(request.as_bytes(), 0, site, 7)
}

/// The answer to a request that opens nothing, as text.
#[track_caller]
fn answer_to(request: &str) -> String {
    answer_of(respond_to(request, &site(&[])))
}

#[track_caller]
fn answer_of(outcome: Outcome) -> String {
    let Outcome::Answer(bytes) = outcome else { panic!("{outcome:?}") };
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    if !head.contains(" 204 ") {
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert!(head.contains("\r\nContent-Length: "), "{head}");
        let length = head.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        assert!(body.is_empty() || length == body.len().to_string(), "{text}");
    }
    text
}

#[track_caller]
fn status_of(request: &str) -> u16 {
    answer_to(request)[9..12].parse().unwrap()
}

/// What a request opens.
#[track_caller]
fn opened(request: &str, site: &Site) -> (Encoding, Vec<String>, String) {
    match respond_to(request, site) {
        Outcome::Open { encoding, topics, response, consumed } => {
            assert_eq!(consumed, request.len());
            (encoding, topics, String::from_utf8(response).unwrap())
        }
        other => panic!("{other:?}\n{request}"),
    }
}

#[test]
fn a_websocket_opens_with_the_accept_of_the_rfc() {
    let (encoding, topics, response) = opened(&upgrade("/ws", &[]), &site(&[]));
    assert_eq!((encoding, topics.len()), (Encoding::WebSocket, 0));
    assert_eq!(
        response,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

#[test]
fn the_first_subprotocol_that_is_known_is_taken() {
    for (offer, encoding, name) in [
        ("corecast.v1", Encoding::WebSocket, "corecast.v1"),
        ("corecast.v1.json", Encoding::WebSocketJson, "corecast.v1.json"),
        ("mqtt, corecast.v1.json , corecast.v1", Encoding::WebSocketJson, "corecast.v1.json"),
    ] {
        let (opened, _, response) = opened(&upgrade("/ws", &[("Sec-WebSocket-Protocol", offer)]), &site(&[]));
        assert_eq!(opened, encoding);
        assert!(response.contains(&format!("\r\nSec-WebSocket-Protocol: {name}\r\n")), "{response}");
    }
    let two = upgrade("/ws", &[])
        .replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: mqtt\r\nsec-websocket-protocol: corecast.v1.json\r\n\r\n");
    assert_eq!(opened(&two, &site(&[])).0, Encoding::WebSocketJson);
    let answer = answer_to(&upgrade("/ws", &[("Sec-WebSocket-Protocol", "mqtt")]));
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("corecast.v1.json"), "{answer}");
}

#[test]
fn topics_come_out_of_the_query_decoded_and_once() {
    let topics = |target: &str| opened(&upgrade(target, &[]), &site(&[])).1;
    assert_eq!(topics("/ws?topic=a&topic=b%2Fc&topic=a&other=x&topic"[..].trim_end_matches("&topic")), ["a", "b/c"]);
    assert_eq!(topics("/ws?topic=%C3%A9t%C3%A9"), ["été"]);
    assert_eq!(topics("/ws?topic=a%2Bb&topic=50%"), ["a+b", "50%"]);
    assert_eq!(topics("/ws?"), [""; 0]);
    for bad in ["/ws?topic=", "/ws?topic", "/ws?topic=a+b", "/ws?topic=%00", "/ws?topic=%ff", "/sse?topic=a%20b"] {
        let answer = answer_to(&upgrade(bad, &[]));
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("a topic"), "{bad}: {answer}");
    }
    let answer = answer_to(&upgrade("/ws?topic=a&topic=b&topic=c&topic=d", &[]));
    assert!(answer.contains("at most 3 topics"), "{answer}");
}

#[test]
fn what_is_no_upgrade_is_told_what_would_be() {
    for (changes, status, text) in [
        (&[("Upgrade", "")][..], 426, "\r\nUpgrade: websocket\r\n"),
        (&[("Upgrade", "h2c")], 426, "\r\nUpgrade: websocket\r\n"),
        (&[("Connection", "keep-alive")], 426, "\r\nConnection: close, Upgrade\r\n"),
        (&[("Sec-WebSocket-Version", "8")], 426, "\r\nSec-WebSocket-Version: 13\r\n"),
        (&[("Sec-WebSocket-Version", "")], 426, "\r\nSec-WebSocket-Version: 13\r\n"),
        (&[("Sec-WebSocket-Key", "")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "c2hvcnQ=")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ")], 400, "16 bytes in base64"),
        (&[("Host", "")], 400, "needs a Host header"),
    ] {
        let answer = answer_to(&upgrade("/ws", changes));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{changes:?}: {answer}");
    }
    assert_eq!(status_of(&upgrade("/ws", &[]).replace("GET ", "POST ")), 405);
    assert_eq!(status_of(&upgrade("/ws", &[]).replace("HTTP/1.1", "HTTP/1.0")), 400);
}

#[test]
fn header_names_are_read_in_any_case_and_single_ones_not_twice() {
    let request = upgrade("/ws", &[("Origin", "http://push.example:8080")]);
    opened(&request.replace("Sec-WebSocket", "SEC-WEBSOCKET").replace("Host", "hOST"), &site(&[]));
    opened(
        &request.replace("Sec-WebSocket", "sec-websocket").replace("Upgrade: websocket", "upgrade: WebSocket"),
        &site(&[]),
    );
    for name in ["Host", "Origin", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Content-Length"] {
        let twice = request.replace("\r\n\r\n", &format!("\r\n{name}: 0\r\n{name}: 0\r\n\r\n"));
        let answer = answer_to(&twice);
        assert!(answer.contains(&format!("the {name} header is there twice")), "{answer}");
    }
}

#[test]
fn an_event_stream_opens_with_a_pause_before_the_next_try() {
    let (encoding, topics, response) = opened("GET /sse?topic=a HTTP/1.1\r\nHost: x\r\n\r\n", &site(&[]));
    assert_eq!((encoding, topics), (Encoding::Sse, vec!["a".to_owned()]));
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"));
    assert!(!head.contains("Access-Control"));
    assert_eq!(body, "retry: 2007\n\n");
    opened("GET /sse HTTP/1.0\r\n\r\n", &site(&[]));
    opened("GET /sse HTTP/1.1\nHost: x\n\n", &site(&[]));
}

#[test]
fn pages_of_other_origins_are_refused_unless_they_are_listed() {
    let with = |origin: &str| upgrade("/ws", &[("Origin", origin)]);
    let listed = site(&["https://good.example", "http://dev:3000"]);
    for (origin, site, allowed) in [
        ("http://push.example:8080", &site(&[]), true),
        ("https://PUSH.example:8080", &site(&[]), true),
        ("http://push.example", &site(&[]), false),
        ("http://evil.example:8080", &site(&[]), false),
        ("http://push.example:8080.evil.example", &site(&[]), false),
        ("null", &site(&[]), false),
        ("", &site(&[]), true),
        ("https://good.example", &listed, true),
        ("https://Good.Example", &listed, true),
        ("http://good.example", &listed, false),
        ("https://good.example:444", &listed, false),
        ("http://dev:3000", &listed, true),
        ("http://push.example:8080", &listed, true),
        ("http://evil.example", &site(&["*"]), true),
        ("null", &site(&["*"]), true),
        ("null", &site(&["null"]), true),
        ("https://a.good.example", &site(&["https://*.good.example"]), true),
        ("https://good.example", &site(&["https://*.good.example"]), false),
    ] {
        match respond_to(&with(origin), site) {
            Outcome::Open { .. } => assert!(allowed, "{origin}"),
            refused => {
                let answer = answer_of(refused);
                assert!(!allowed && answer.starts_with("HTTP/1.1 403 "), "{origin}: {answer}");
                assert!(answer.contains("--allow-origin") && !answer.contains("Access-Control"), "{answer}");
            }
        }
    }
    let standard = "GET /sse HTTP/1.1\r\nHost: push.example:80\r\nOrigin: http://push.example\r\n\r\n";
    opened(standard, &site(&[]));
    opened(&standard.replace(":80\r\n", "\r\n").replace("http:", "https:"), &site(&[]));
}

#[test]
fn an_allowed_page_may_read_the_stream() {
    let request = "GET /sse HTTP/1.1\r\nHost: x\r\nOrigin: https://good.example\r\n\r\n";
    let (_, _, response) = opened(request, &site(&["https://good.example"]));
    assert!(response.contains("\r\nAccess-Control-Allow-Origin: https://good.example\r\n"), "{response}");
    assert!(response.contains("\r\nVary: Origin\r\n"), "{response}");
    let (_, _, response) = opened(request, &site(&["*"]));
    assert!(response.contains("\r\nAccess-Control-Allow-Origin: *\r\n"), "{response}");
    let preflight = request.replace("GET", "OPTIONS");
    let answer = answer_of(respond_to(&preflight, &site(&["*"])));
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("Access-Control-Allow-Methods: GET"), "{answer}");
    assert_eq!(answer_of(respond_to(&preflight, &site(&[])))[9..12], *"403");
    // A refusal can be read too.
    let answer = answer_of(respond_to(&request.replace("/sse", "/sse?topic="), &site(&["*"])));
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("Access-Control-Allow-Origin: *"), "{answer}");
}

#[test]
fn other_requests_are_answered_in_words() {
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer_to(&get("/")).ends_with(HELP));
    let head = answer_to(&get("/").replace("GET", "HEAD"));
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", HELP.len())));
    assert_eq!(status_of(&get("/other")), 404);
    assert_eq!(status_of(&get("/ws/")), 404);
    assert!(answer_to(&get("/demo")).contains("--demo"));
    assert!(answer_to(&get("/sse").replace("GET", "POST")).contains("\r\nAllow: GET, OPTIONS\r\n"));
    assert_eq!(status_of(&get("/").replace("GET", "DELETE")), 405);
    assert_eq!(status_of("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"), 404);
    assert_eq!(status_of("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n"), 404);
    for body in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        assert_eq!(status_of(&get("/sse").replace("\r\n\r\n", &format!("\r\n{body}\r\n\r\n"))), 413);
    }
    opened(&get("/sse").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"), &site(&[]));
}

#[test]
fn the_demo_is_served_where_it_is_switched_on() {
    let site = Site::new(&Config { demo: true, ..Config::default() });
    let page = answer_of(respond_to("GET /demo HTTP/1.1\r\nHost: x\r\n\r\n", &site));
    assert!(page.contains("Content-Type: text/html; charset=utf-8\r\n") && page.contains("/corecast.js"));
    let module = answer_of(respond_to("GET /corecast.js HTTP/1.1\r\nHost: x\r\n\r\n", &site));
    assert!(module.contains("Content-Type: text/javascript; charset=utf-8\r\n"));
}

#[test]
fn a_target_in_absolute_form_names_the_same_host() {
    let request = |target: &str, host: &str| upgrade(target, &[("Origin", "http://push.example:8080"), ("Host", host)]);
    opened(&request("http://push.example:8080/ws?topic=a", "push.example:8080"), &site(&[]));
    opened(&request("WS://PUSH.example:8080/ws", "push.example:8080"), &site(&[]));
    assert_eq!(status_of(&request("http://other/ws", "other")), 403);
    for (target, host) in [
        ("http://push.example:8080/ws", "proxy"),
        ("http://proxy/ws", "push.example:8080"),
        ("http://push.example/ws", "push.example:8080"),
        ("http://push.example:8080/ws", " "),
    ] {
        let answer = answer_to(&request(target, host));
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("different hosts"), "{target} {host}: {answer}");
    }
    assert!(answer_to("GET http://x HTTP/1.1\r\nHost: x\r\n\r\n").ends_with(HELP));
    assert!(answer_to("GET http://x?a=/ws HTTP/1.1\r\nHost: x:80\r\n\r\n").ends_with(HELP));
    assert!(answer_to("GET http://x/ HTTP/1.0\r\n\r\n").ends_with(HELP));
}

#[test]
fn a_host_is_a_name_or_an_address() {
    let status = |host: &str| status_of(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for good in ["", "x", "my_host:80", "[::1]:8080", "127.0.0.1", "b\u{fc}cher.example", "x:"] {
        assert_eq!(status(good), 200, "{good}");
    }
    for bad in ["a b", "a,b", "a/b", "me@a", "a:b", "[::1", "a..b", "a#b", ":80"] {
        assert_eq!(status(bad), 400, "{bad}");
    }
}

#[test]
fn what_is_no_http_is_refused_at_the_first_look() {
    let first = |bytes: &[u8]| answer_of(respond(bytes, 0, &site(&[]), 0));
    assert!(first(b"\x16\x03\x01\x02\x00\x01\x00").contains("plain HTTP, without TLS"));
    assert!(first(b"SUB news\n").starts_with("HTTP/1.1 "));
    assert!(first(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").starts_with("HTTP/1.1 505 "));
    assert!(first(b"GET / HTTP/3.7\r\n").starts_with("HTTP/1.1 505 "));
    assert!(first(b"\0\0\0\x04PING").starts_with("HTTP/1.1 400 "));
    assert!(first(b"GET / HTTP/1.1\r\nbad header\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn heads_are_bounded_in_bytes_and_fields() {
    let of = |len: usize| {
        let head = "GET / HTTP/1.1\r\nHost: x\r\nX: ";
        format!("{head}{}\r\n\r\n", "x".repeat(len - head.len() - 4))
    };
    assert!(answer_to(&of(HEAD_BYTES_MAX)).ends_with(HELP));
    assert_eq!(status_of(&of(HEAD_BYTES_MAX + 1)), 431);
    assert_eq!(respond(&of(9_000).as_bytes()[..HEAD_BYTES_MAX], 0, &site(&[]), 0), Outcome::Incomplete);
    assert!(answer_of(respond(&of(9_000).as_bytes()[..HEAD_BYTES_MAX + 1], 8_000, &site(&[]), 0)).contains(" 431 "));
    let fields = "A: b\r\n".repeat(HEAD_FIELDS_MAX);
    assert_eq!(status_of(&format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n")), 431);
}

#[test]
fn what_follows_a_head_is_left() {
    let request = upgrade("/ws", &[]);
    let Outcome::Open { consumed, .. } = respond_to(&format!("{request}\u{81}junk"), &site(&[])) else { panic!() };
    assert_eq!(consumed, request.len());
    // Empty lines before a request are passed over (RFC 9112, section 2.2).
    let Outcome::Open { consumed, .. } = respond_to(&format!("\r\n\r\n{request}"), &site(&[])) else { panic!() };
    assert_eq!(consumed, request.len() + 4);
}

/// Reads a request that arrives in pieces, as a connection does.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut held, mut scanned) = (Vec::new(), 0);
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        held.extend_from_slice(piece);
        match respond(&held, scanned, &site(&[]), 7) {
            Outcome::Incomplete => scanned = held.len(),
            outcome => return outcome,
        }
    }
    Outcome::Incomplete
}

proptest! {
    #[test]
    fn any_split_of_a_request_leads_to_the_same(
        noise in "[ -~\r\n]{0,40}",
        at in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        // A sound request, with noise somewhere in it half of the time.
        let mut request = upgrade("/ws?topic=a", &[]);
        if noise.len().is_multiple_of(2) {
            request.insert_str(at.index(request.len()), &noise);
        }
        // The first look goes for faults, the later ones wait for the end; so there must be one.
        request.push_str("\r\n\r\n");
        let bytes = request.as_bytes();
        let whole = read([bytes]);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for at in cuts.into_iter().chain([bytes.len()]) {
            pieces.push(&bytes[from..at]);
            from = at;
        }
        prop_assert_eq!(&read(pieces), &whole);
        prop_assert_eq!(&read(bytes.chunks(1)), &whole);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = respond(&bytes, 0, &site(&[]), 0);
        let _ = respond(&bytes, bytes.len() / 2, &site(&[]), 0);
    }
}
