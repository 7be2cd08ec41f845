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
    respond(request.as_bytes(), 0, site, 7, false)
}

/// The answer to a request that opens nothing, as text.
#[track_caller]
fn answer_to(request: &str) -> String {
    answer_of(respond_to(request, &site(&[])))
}

#[track_caller]
fn answer_of(outcome: Outcome) -> String {
    let (Outcome::Answer(bytes) | Outcome::Foreign { answer: bytes, .. }) = outcome else { panic!("{outcome:?}") };
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nX-Content-Type-Options: nosniff"), "{head}");
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
    assert_eq!(topics("/ws?topic[]=a&topic[]=b"), ["a", "b"]);
    assert_eq!(topics("/ws?topic%5B%5D=a&topic%5b1%5d=b&topic[02]=c"), ["a", "b", "c"]);
    assert_eq!(topics("/ws?topic=c%3Bd"), ["c;d"]);
    assert_eq!(topics("/ws?topic=a&_=123&token=x,y&access_token=a%2Cb&EIO=4&utm_source=z&lastEventId=7&since="), ["a"]);
    assert_eq!(topics("/ws?"), [""; 0]);
    assert_eq!(topics("/ws?&&topic=a&"), ["a"]);
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
        (&[("Sec-WebSocket-Version", "8, 7")], 426, "\r\nSec-WebSocket-Version: 13\r\n"),
        (&[("Sec-WebSocket-Key", "")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "c2hvcnQ=")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j")], 400, "16 bytes in base64"),
        (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j!!==")], 400, "16 bytes in base64"),
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
    for name in ["Host", "Origin", "Sec-WebSocket-Key", "Content-Length"] {
        let twice = request.replace("\r\n\r\n", &format!("\r\n{name}: 0\r\n{name}: 0\r\n\r\n"));
        let answer = answer_to(&twice);
        assert!(answer.contains(&format!("the {name} header appears twice")), "{answer}");
    }
}

#[test]
fn an_event_stream_opens_with_a_pause_before_the_next_try() {
    let (encoding, topics, response) = opened("GET /sse?topic=a HTTP/1.1\r\nHost: x\r\n\r\n", &site(&["*"]));
    assert_eq!((encoding, topics), (Encoding::Sse, vec!["a".to_owned()]));
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-store, no-transform\r\n\
         X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n"
    ));
    assert!(!head.contains("Access-Control"));
    assert_eq!(body, "retry: 2007\n\n");
    opened("GET /sse?topic=a HTTP/1.0\r\n\r\n", &site(&[]));
    opened("GET /sse?topic=a HTTP/1.1\nHost: x\n\n", &site(&[]));
    let head = respond_to("HEAD /sse?topic=a HTTP/1.1\r\nHost: x\r\n\r\n", &site(&["*"]));
    assert_eq!(
        head,
        Outcome::Answer(format!("{head_of}\r\n\r\n", head_of = response.split_once("\r\n\r\n").unwrap().0).into())
    );
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
    let standard = "GET /sse?all HTTP/1.1\r\nHost: push.example:80\r\nOrigin: http://push.example\r\n\r\n";
    opened(standard, &site(&[]));
    opened(&standard.replace(":80\r\n", "\r\n").replace("http:", "https:"), &site(&[]));
}

#[test]
fn an_allowed_page_may_read_the_stream() {
    let request = "GET /sse?all HTTP/1.1\r\nHost: x\r\nOrigin: https://good.example\r\n\r\n";
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
    let answer = answer_of(respond_to(&request.replace("/sse?all", "/sse?topic="), &site(&["*"])));
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
    assert!(answer_to(&get("/sse").replace("GET", "POST")).contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"));
    assert!(answer_to(&get("/ws").replace("GET", "POST")).contains("\r\nAllow: GET, OPTIONS\r\n"));
    assert_eq!(status_of(&get("/").replace("GET", "DELETE")), 405);
    assert_eq!(status_of("CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"), 404);
    assert_eq!(status_of("GET * HTTP/1.1\r\nHost: x\r\n\r\n"), 405);
    for body in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        assert_eq!(status_of(&get("/sse?all").replace("\r\n\r\n", &format!("\r\n{body}\r\n\r\n"))), 413);
    }
    opened(&get("/sse?all").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"), &site(&[]));
}

#[test]
fn the_demo_is_served_where_it_is_switched_on() {
    let site = Site::new(&Config { demo: true, ..Config::default() });
    let page = answer_of(respond_to("GET /demo HTTP/1.1\r\nHost: x\r\n\r\n", &site));
    assert!(page.contains("Content-Type: text/html; charset=utf-8\r\n") && page.contains("/demo.js"));
    assert!(page.contains("\r\nContent-Security-Policy: default-src 'none'; script-src 'self';"), "{page}");
    // The policy lets nothing run that stands in the page itself.
    assert!(
        !page.contains("<style") && !page.contains("<script>") && !page.contains(" style=") && !page.contains(" on")
    );
    for file in DEMO {
        let file = answer_of(respond_to(&format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", file.0), &site));
        assert!(file.starts_with("HTTP/1.1 200 "), "{file}");
    }
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
    let first = |bytes: &[u8]| answer_of(respond(bytes, 0, &site(&[]), 0, false));
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
        let head = "GET / HTTP/1.1\r\nHost: x\r\nCookie: ";
        format!("{head}{}\r\n\r\n", "x".repeat(len - head.len() - 4))
    };
    assert_eq!(Config::default().head_bytes_max, 32 * 1024);
    for most in [1024, 9_000, 32 * 1024] {
        let site = Site::new(&Config { head_bytes_max: most, ..Config::default() });
        let look = |len: usize, scanned: usize| respond(&of(2 * most).as_bytes()[..len], scanned, &site, 0, false);
        assert!(answer_of(respond_to(&of(most), &site)).ends_with(HELP));
        let answer = answer_of(respond_to(&of(most + 1), &site));
        assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("(head_bytes_max)"), "{answer}");
        assert_eq!(look(most, 0), Outcome::Incomplete);
        assert_eq!(look(most, most - 1), Outcome::Incomplete);
        assert!(answer_of(look(most + 1, most)).starts_with("HTTP/1.1 431 "));
    }
    let with_fields = |n: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(n - 1));
    assert_eq!(status_of(&with_fields(HEAD_FIELDS_MAX)), 200);
    assert_eq!(status_of(&with_fields(HEAD_FIELDS_MAX + 1)), 431);
    let with_empty = |n: usize| format!("{}GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\n".repeat(n));
    assert_eq!(status_of(&with_empty(HEAD_EMPTY_BYTES_MAX)), 200);
    assert_eq!(status_of(&with_empty(HEAD_EMPTY_BYTES_MAX + 1)), 400);
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

#[test]
fn keys_are_taken_as_other_servers_take_them() {
    // The accepts were computed by another implementation.
    for (key, accept) in [
        ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        // The example of RFC 6455, section 4.1.
        ("AQIDBAUGBwgJCgsMDQ4PEC==", "OfS0wDaT5NoxF2gqm7Zj2YtetzM="),
        ("dGhlIHNhbXBsZSBub25jZR==", "Zgw8jYXtqX5qJr7MJ1Q/MqzeSRI="),
        ("dGhlIHNhbXBsZSBub25jZQ", "RZWuh2JK/hL0RMgTNJFfZIAppXg="),
        ("dGhlIHNhbXBsZSBub25jZQ=", "pKh//x18h+UqQMnMiqvoRJiH5T4="),
        ("_-hlIHNhbXBsZSBub25jZQ==", "B0Hf7sVAcrVIcZDfoBXIKYMc/Lc="),
        ("  dGhlIHNhbXBsZSBub25jZQ==\t ", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ] {
        let (.., response) = opened(&upgrade("/ws", &[("Sec-WebSocket-Key", key)]), &site(&[]));
        assert!(response.contains(&format!("Sec-WebSocket-Accept: {accept}\r\n")), "{key}: {response}");
    }
}

#[test]
fn handshakes_open_as_they_come() {
    for changes in [
        &[("Connection", "Upgrade")][..],
        &[("Connection", "upgrade,keep-alive")],
        &[("Upgrade", "WebSocket")],
        &[("Upgrade", "h2c, websocket")],
        &[("Sec-WebSocket-Version", "13, 8")],
        &[("Sec-WebSocket-Version", " 13 ")],
        &[("Sec-WebSocket-Version", "13\r\nSec-WebSocket-Version: 13")],
        &[("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")],
        &[("Connection", "keep-alive\r\nConnection: Upgrade")],
        &[("Content-Length", "0")],
    ] {
        let (.., response) = opened(&upgrade("/ws", changes), &site(&[]));
        assert!(response.starts_with("HTTP/1.1 101 ") && !response.contains("Extensions"), "{changes:?}: {response}");
    }
    let answer = answer_to(&upgrade("/ws", &[]).replace("HTTP/1.1", "HTTP/1.0"));
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("proxy_http_version 1.1"), "{answer}");
}

#[test]
fn a_query_that_would_be_silent_is_told_what_was_meant() {
    for (query, told) in [
        ("topic=news,sport", "written ?topic=news&topic=sport"),
        ("topic=news;sport", "written ?topic=news&topic=sport; a semicolon in a topic's name is %3B"),
        ("topic=news;topic=sport", "written ?topic=news&topic=sport"),
        ("topic=news,", "written ?topic=news"),
        ("topic=news%2Csport", "written ?topic=news&topic=sport"),
        ("topic[]=news,sport", "written ?topic=news&topic=sport"),
        ("topic=[%22news%22,%22sport%22]", "means several topics"),
        ("topic=%5B%22news%22%5D", "not written as JSON"),
        ("topics=news", "`topics` is not known here; write topic=news"),
        ("topics=news,sport", "write topic=news&topic=sport"),
        ("topics[]=news", "write topic=news"),
        ("Topic=news", "`Topic` is not known here; write topic=news"),
        ("TOPIC=news", "write topic=news"),
        ("tpoic=news", "write topic=news"),
        ("topc=news", "write topic=news"),
        ("topic[name]=news", "write topic=news"),
        ("topic.0=news", "write topic=news"),
        ("topicId=news", "write topic=news"),
        ("channel=news", "write topic=news"),
        ("Channels[]=news", "write topic=news"),
        ("subscribe=news", "write topic=news"),
        ("room=", "write topic=news&topic=sport"),
        ("topic=a&topics=b", "write topic=b"),
        ("all=false", "`all` takes no value"),
        ("all=news", "`all` takes no value"),
        ("topics=%1b[31m%E2%80%AE", "write topic=%1b"),
    ] {
        for path in ["/ws", "/sse"] {
            let answer = answer_to(&upgrade(&format!("{path}?{query}"), &[]));
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(told), "{path}?{query}: {answer}");
            assert!(answer.is_ascii() && !answer.contains('\x1b'), "{answer}");
        }
    }
    for silent in ["/sse", "/sse?", "/sse?_=123", "/sse?token=x"] {
        let answer = answer_to(&upgrade(silent, &[]));
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("/sse?topic=news"), "{silent}: {answer}");
        assert!(answer.contains("/sse?all"), "{answer}");
    }
    for all in ["/sse?all", "/sse?all=", "/sse?all=1", "/sse?all=true&_=1"] {
        assert_eq!(opened(&format!("GET {all} HTTP/1.1\r\nHost: x\r\n\r\n"), &site(&[])).1, [""; 0]);
    }
    assert_eq!(opened("GET /sse?all&topic=a HTTP/1.1\r\nHost: x\r\n\r\n", &site(&[])).1, ["a"]);
}

#[test]
fn balancers_learn_whether_the_server_takes_clients() {
    let status = |request: &str, draining: bool| {
        answer_of(respond(request.as_bytes(), 0, &site(&[]), 0, draining))[9..12].to_owned()
    };
    for target in ["OPTIONS *", "OPTIONS /", "GET /", "HEAD /", "GET /readyz", "HEAD /readyz", "OPTIONS /readyz"] {
        for version in ["HTTP/1.0\r\n", "HTTP/1.1\r\nHost: x\r\n", "HTTP/1.1\r\nHost:\r\n"] {
            let request = format!("{target} {version}\r\n");
            let ready = if target.starts_with("OPTIONS") { "204" } else { "200" };
            assert_eq!(status(&request, false), ready, "{request}");
            assert_eq!(status(&request, true), "503", "{request}");
        }
    }
    assert_eq!(status("GET /healthz HTTP/1.0\r\n\r\n", true), "200");
    // Those that come until the port is closed are served.
    let open = upgrade("/ws", &[]);
    assert!(matches!(respond(open.as_bytes(), 0, &site(&[]), 0, true), Outcome::Open { .. }));
}

#[test]
fn options_tell_what_is_allowed_and_pages_what_they_may_send() {
    let ask = |target: &str, fields: &str, site: &Site| {
        answer_of(respond_to(&format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"), site))
    };
    for (target, allow) in [("/", "GET, HEAD, OPTIONS"), ("/sse", "GET, HEAD, OPTIONS"), ("/ws", "GET, OPTIONS")] {
        let answer = ask(target, "", &site(&[]));
        assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains(&format!("\r\nAllow: {allow}\r\n")), "{answer}");
        assert!(!answer.contains("Access-Control"), "{answer}");
    }
    assert!(ask("/nothing", "", &site(&[])).starts_with("HTTP/1.1 404 "));
    let preflight = "Origin: https://good.example\r\nAccess-Control-Request-Method: GET\r\n\
                     Access-Control-Request-Headers: authorization,x-trace-id, bad header ,last-event-id\r\n";
    for target in ["/sse?topic=a", "/", "/ws", "/readyz"] {
        let answer = ask(target, preflight, &site(&["https://good.example", "*"]));
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        for field in ["Authorization", "Last-Event-ID", "Cache-Control", "Content-Type", "x-trace-id"] {
            let allowed = answer.split("Access-Control-Allow-Headers: ").nth(1).unwrap().split("\r\n").next().unwrap();
            assert_eq!(allowed.split(", ").filter(|name| name.eq_ignore_ascii_case(field)).count(), 1, "{allowed}");
        }
        assert!(!answer.contains("bad header"), "{answer}");
        assert!(answer.contains("\r\nAccess-Control-Allow-Origin: https://good.example\r\n"), "{answer}");
        assert!(answer.contains("\r\nAccess-Control-Allow-Credentials: true\r\n"), "{answer}");
        assert!(answer.contains("\r\nAccess-Control-Max-Age: "), "{answer}");
        let refused = ask(target, &preflight.replace("good", "evil"), &site(&["https://good.example"]));
        assert!(refused.starts_with("HTTP/1.1 403 ") && !refused.contains("Access-Control"), "{refused}");
    }
    // What a page asks for is repeated up to a bound.
    let many: Vec<_> = (0..2_000).map(|n| format!("x-{n}")).collect();
    let many = format!("{}{}\r\n", preflight.trim_end(), many.join(","));
    assert!(ask("/sse", &many, &site(&["*"])).len() < 2 * crate::config::PREFLIGHT_FIELDS_BYTES_MAX);
}

#[test]
fn named_origins_come_with_credentials_and_others_without() {
    let ask = |allow: &[&str], origin: &str| {
        let request = format!("GET /sse?all HTTP/1.1\r\nHost: localhost\r\n{origin}\r\n");
        opened(&request, &site(allow)).2.split_once("\r\n\r\n").unwrap().0.to_owned()
    };
    let (named, other) = ("Origin: https://named.example\r\n", "Origin: https://other.example\r\n");
    let mixed = &["*", "https://named.example"][..];
    let head = ask(mixed, named);
    assert!(head.contains("Access-Control-Allow-Origin: https://named.example\r\n"), "{head}");
    assert!(head.contains("Allow-Credentials: true") && head.contains("Vary: Origin"), "{head}");
    let head = ask(mixed, other);
    assert!(head.contains("Access-Control-Allow-Origin: *\r\n") && !head.contains("Credentials"), "{head}");
    assert!(head.contains("Vary: Origin"), "{head}");
    // Without an origin, too, since a cache may keep that answer for those with one.
    assert!(ask(mixed, "").contains("Vary: Origin"));
    let head = ask(&["*"], named);
    assert!(head.contains("Allow-Origin: *") && !head.contains("Vary") && !head.contains("Credentials"), "{head}");
    let head = ask(&["https://*.named.example"], "Origin: https://a.named.example\r\n");
    assert!(head.contains("Allow-Origin: https://a.named.example\r\n") && head.contains("Credentials: true"), "{head}");
}

#[test]
fn a_name_that_a_stranger_points_here_opens_nothing() {
    let ask = |path: &str, host: &str, fields: &str, allow: &[&str]| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        respond_to(&request, &site(allow))
    };
    let evil = "Origin: http://evil.example:8080\r\n";
    for allow in [&[][..], &["https://other.example"]] {
        let Outcome::Foreign { answer, text } = ask("/sse?all", "evil.example:8080", evil, allow) else { panic!() };
        assert!(answer.starts_with(b"HTTP/1.1 403 "));
        assert!(
            text.contains("--host evil.example,") && text.contains("--allow-origin http://evil.example:8080"),
            "{text}"
        );
        let mut head = upgrade("/ws", &[("Host", "evil.example:8080"), ("Origin", "http://evil.example:8080")]);
        assert!(matches!(respond_to(&head, &site(allow)), Outcome::Foreign { .. }));
        head = head.replace("evil.example", "push.example");
        opened(&head, &site(allow));
    }
    // A browser leaves the origin out when a page asks the site that it came from.
    let browser = "Accept-Language: en\r\n";
    let Outcome::Foreign { text, .. } = ask("/sse?all", "evil.example:8080", browser, &[]) else { panic!() };
    assert!(text.contains("--host evil.example"), "{text}");
    for (host, fields, allow) in [
        ("localhost:8080", browser, &[][..]),
        ("127.0.0.1:8080", browser, &[]),
        ("push.example", browser, &[]),
        ("evil.example", browser, &["*"]),
        // Clients that are not browsers.
        ("backend", "", &[]),
        ("backend", "Accept-Language: *\r\nSec-Fetch-Mode: cors\r\n", &[]),
        ("push.example", "Sec-Fetch-Site: same-origin\r\n", &[]),
    ] {
        assert!(matches!(ask("/sse?all", host, fields, allow), Outcome::Open { .. }), "{host} {fields}");
    }
    for fields in ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n"] {
        assert!(matches!(ask("/sse?all", "localhost", fields, &[]), Outcome::Foreign { .. }), "{fields}");
    }
    assert!(matches!(ask("/sse?all", "evil.example", "Sec-Fetch-Site: same-origin\r\n", &[]), Outcome::Foreign { .. }));
}

#[test]
fn the_scheme_of_a_page_counts() {
    for (host, origin, fields, allowed) in [
        ("127.0.0.1:8080", "http://127.0.0.1:8080", "", true),
        ("127.0.0.1:8080", "https://127.0.0.1:8080", "", false),
        ("127.0.0.1:8443", "https://127.0.0.1:8443", "X-Forwarded-Proto: https\r\n", true),
        ("127.0.0.1:8443", "https://127.0.0.1:8443", "X-Forwarded-Proto: wss\r\n", true),
        ("127.0.0.1:8443", "http://127.0.0.1:8443", "X-Forwarded-Proto: https, http\r\n", false),
        ("127.0.0.1:8443", "https://127.0.0.1:8443", "Forwarded: for=192.0.2.1;Proto=\"https\", for=x\r\n", true),
        ("push.example", "https://push.example", "", true),
        ("push.example", "http://push.example", "", true),
        ("push.example", "http://push.example", "X-Forwarded-Proto: https\r\n", false),
    ] {
        let request = format!("GET /sse?all HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n{fields}\r\n");
        match respond_to(&request, &site(&[])) {
            Outcome::Open { .. } => assert!(allowed, "{request}"),
            refused => {
                let answer = answer_of(refused);
                assert!(!allowed && answer.contains("X-Forwarded-Proto"), "{request}{answer}");
            }
        }
    }
}

#[test]
fn what_a_client_says_comes_back_escaped() {
    let request = "GET /sse?all HTTP/1.1\r\nHost: x\r\nOrigin: https://\u{202e}\u{9b}31m\r\n\r\n";
    let Outcome::Foreign { answer, text } = respond_to(request, &site(&[])) else { panic!() };
    assert!(text.is_ascii() && answer.is_ascii() && text.contains("\\u{202e}"), "{text}");
    let long = format!("GET /sse?all HTTP/1.1\r\nHost: x\r\nOrigin: https://{}\r\n\r\n", "a".repeat(9_000));
    let Outcome::Foreign { text, .. } = respond_to(&long, &site(&[])) else { panic!() };
    assert!(text.len() < 1_000, "{text}");
}

/// Reads a request that arrives in pieces, as a connection does.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut held, mut scanned) = (Vec::new(), 0);
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        held.extend_from_slice(piece);
        match respond(&held, scanned, &site(&[]), 7, false) {
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
        let _ = respond(&bytes, 0, &site(&[]), 0, false);
        let _ = respond(&bytes, bytes.len() / 2, &site(&[]), 0, true);
    }
}
