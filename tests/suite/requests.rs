//! HTTP requests on the client port as balancers, proxies and browsers send them.

use std::time::Duration;

use corecast::{CloseReason, Framing, HostName, Origin};

use crate::support::http::{FIN, HttpClient, TEXT, frame, upgrade};
use crate::support::{Fixture, Program, config};

fn ask(server: &Fixture, request: &str) -> String {
    let mut client = HttpClient::connect(server.addr(Framing::Http));
    client.send(request);
    client.recv_answer()
}

#[test]
fn a_balancer_can_check_the_client_port() {
    let server = Fixture::hub(config());
    for check in
        ["OPTIONS / HTTP/1.0", "OPTIONS * HTTP/1.0", "GET / HTTP/1.0", "HEAD / HTTP/1.0", "GET /readyz HTTP/1.0"]
    {
        let answer = ask(&server, &format!("{check}\r\n\r\n"));
        let status = if check.starts_with("OPTIONS") { "204" } else { "200" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{check}: {answer}");
    }
    server.wait_for_connections(0);
    assert_eq!(server.closed(CloseReason::Answered), 5);
}

#[test]
fn within_the_grace_checks_fail_and_clients_are_served() {
    let server = Fixture::hub(settings! { drain_grace: Duration::from_secs(3_600), ..config() });
    server.drain(Duration::ZERO);
    for check in ["OPTIONS /", "OPTIONS *", "GET /", "HEAD /", "GET /readyz", "OPTIONS /readyz"] {
        let answer = ask(&server, &format!("{check} HTTP/1.0\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 503 "), "{check}: {answer}");
    }
    assert!(ask(&server, "GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200 "));
    let mut client = HttpClient::websocket(server.addr(Framing::Http), "/ws", "");
    assert_eq!(client.ask("PING"), "PONG");
    server.shutdown();
}

/// A request with so many bytes of cookies, over several fields as some proxies leave them.
fn with_cookies(bytes: usize) -> String {
    let cookie = format!("Cookie: session={}\r\n", "c".repeat(1_000));
    upgrade("/ws", &cookie.repeat(bytes / cookie.len()))
}

#[test]
fn heads_with_real_cookies_open_whole_or_in_pieces() {
    let server = Fixture::hub(config());
    let head = with_cookies(31 * 1024);
    let mut whole = HttpClient::connect(server.addr(Framing::Http));
    whole.send(&head);
    assert!(whole.recv_head().starts_with("HTTP/1.1 101 "));
    let mut pieces = HttpClient::connect(server.addr(Framing::Http));
    for piece in head.as_bytes().chunks(700) {
        pieces.send(piece);
    }
    pieces.send(frame(FIN | TEXT, "PING behind"));
    assert!(pieces.recv_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(pieces.recv(), "PONG behind");
}

#[test]
fn a_head_is_bounded_by_its_setting() {
    let server = Fixture::hub(settings! { head_bytes_max: 4 * 1024, ..config() });
    let mut small = HttpClient::connect(server.addr(Framing::Http));
    small.send(with_cookies(3 * 1024));
    assert!(small.recv_head().starts_with("HTTP/1.1 101 "));
    let answer = ask(&server, &with_cookies(8 * 1024));
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("4KiB (head_bytes_max)"), "{answer}");
    // One that has no end is answered as soon as it is too long.
    let mut endless = HttpClient::connect(server.addr(Framing::Http));
    endless.send(format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}", "c".repeat(5 * 1024)));
    assert!(endless.recv_answer().starts_with("HTTP/1.1 431 "));
}

#[test]
fn every_key_that_other_servers_take_opens() {
    let server = Fixture::hub(config());
    // The first is the example of RFC 6455, section 4.1.
    for key in
        ["AQIDBAUGBwgJCgsMDQ4PEC==", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25jZQ", " dGhlIHNhbXBsZSBub25jZQ== "]
    {
        let mut client = HttpClient::connect(server.addr(Framing::Http));
        client.send(upgrade("/ws", "").replace("dGhlIHNhbXBsZSBub25jZQ==", key));
        assert!(client.recv_head().starts_with("HTTP/1.1 101 "), "{key}");
    }
}

#[test]
fn a_query_in_another_style_is_understood_or_refused() {
    let server = Fixture::hub(config());
    let mut array = HttpClient::events(server.addr(Framing::Http), "/sse?topic[]=news&topic[]=sport&_=1700000000");
    server.publish("sport", "goal").unwrap();
    assert!(array.recv_event().data.contains("goal"));
    let mut all = HttpClient::events(server.addr(Framing::Http), "/sse?all");
    server.wait_for_connections(2);
    server.broadcast("to all").unwrap();
    assert!(all.recv_event().data.contains("to all"));
    for query in [
        "",
        "?topics=news",
        "?topic=news,sport",
        "?topic=news%2Csport",
        "?channel=news",
        "?Topic=news",
        "?topic=a;topic=b",
    ] {
        let answer = ask(&server, &format!("GET /sse{query} HTTP/1.1\r\nHost: corecast\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("topic="), "{query}: {answer}");
    }
}

fn origins(list: &[&str]) -> Vec<Origin> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_page_that_may_not_connect_is_counted() {
    let host: Vec<HostName> = vec!["push.example".parse().unwrap()];
    let allow_origin = origins(&["https://*.good.example", "null"]);
    let server = Fixture::hub(settings! { allow_origin, host, ..config() });
    let open = |host: &str, origin: &str| {
        let fields = format!("Origin: {origin}\r\n");
        let mut client = HttpClient::connect(server.addr(Framing::Http));
        client.send(upgrade("/ws", &fields).replace("Host: corecast", &format!("Host: {host}")));
        client.recv_head()[9..12].to_owned()
    };
    assert_eq!(open("push.example", "https://app.good.example"), "101");
    assert_eq!(open("push.example", "https://APP.good.example:443"), "101");
    assert_eq!(open("push.example", "null"), "101");
    assert_eq!(open("push.example", "https://push.example"), "101");
    assert_eq!(open("localhost:1", "http://localhost:1"), "101");
    assert_eq!(server.sum(|shard| shard.pages_refused.get()), 0);
    assert_eq!(open("push.example", "https://good.example"), "403");
    assert_eq!(open("evil.example", "http://evil.example"), "403");
    assert_eq!(open("localhost:1", "https://localhost:1"), "403");
    assert_eq!(server.sum(|shard| shard.pages_refused.get()), 3);
}

#[test]
fn the_log_tells_the_operator_what_would_let_a_page_in_and_not_too_often() {
    let mut program = Program::serve(["--shards=1", "--listen=http=127.0.0.1:0"]);
    let ask = |program: &Program, origin: &str| {
        let mut client = HttpClient::connect(program.addr(Framing::Http));
        client.send(upgrade("/ws", &format!("Origin: {origin}\r\n")).replace("Host: corecast", "Host: push.example"));
        assert!(client.recv_answer().starts_with("HTTP/1.1 403 "));
    };
    ask(&program, "https://push.example");
    let line = program.wait_for_line(0, |line| line.contains("pages refused"));
    assert!(line.contains("--host push.example") && line.contains("--allow-origin https://push.example"), "{line}");
    for _ in 0..20 {
        ask(&program, "https://\u{202e}other.example\u{9b}");
    }
    let lines: Vec<_> = program.lines().into_iter().filter(|line| line.contains("pages refused")).collect();
    // One for the first, and one in so many seconds for the rest.
    assert!(lines.len() < 10 && lines.iter().all(|line| line.is_ascii()), "{lines:?}");
}

#[test]
fn an_origin_that_no_browser_sends_is_refused_at_the_start() {
    for (flags, told) in [
        (&["--allow-origin", "https://example.com/app"][..], "write https://example.com"),
        (&["--allow-origin", "example.com"], "write https://example.com"),
        (&["--allow-origin", "https://a.example,https://b.example"], "each origin by itself"),
        (&["--allow-origin", "wss://example.com"], "write https://example.com"),
        (&["--host", "https://push.example.com:443"], "write push.example.com"),
        (&["--head-bytes-max", "10"], "from 1KiB to 1MiB"),
    ] {
        let ended = Program::run(flags);
        assert_eq!(ended.code, Some(2), "{flags:?}");
        assert!(ended.stderr.contains(told), "{flags:?}: {}", ended.stderr);
    }
}
