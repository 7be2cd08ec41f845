//! Server-sent events: one way, with ids, names, heartbeats, and rules for pages of other origins.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use corecast::routes::Events;
use corecast::{CloseReason, Context, DropReason, Framing, Handler, Routes, SendError};

use crate::support::http::{HttpClient, SseEvent};
use crate::support::{Client, Fixture, config, wait_until};

fn events(server: &Fixture, target: &str) -> HttpClient {
    HttpClient::events(server.addr(Framing::Http), target)
}

#[test]
fn messages_are_events_with_the_publish_id() {
    let server = Fixture::hub(config());
    let mut client = events(&server, "/sse?topic=news&topic=sport");
    let id = server.publish("news", "two\r\nlines").unwrap();
    let data = r#"{"type":"msg","topic":"news","payload":"two\r\nlines"}"#;
    assert_eq!(client.recv_event(), SseEvent { id: id.id().to_string(), event: String::new(), data: data.into() });
    server.publish("other", "not for it").unwrap();
    server.publish("sport", &b"\xff"[..]).unwrap();
    assert_eq!(client.recv_event().data, r#"{"type":"msg","topic":"sport","payload_base64":"/w=="}"#);
    server.broadcast("all").unwrap();
    assert_eq!(client.recv_event().data, r#"{"type":"all","payload":"all"}"#);
}

/// Lets everybody read what they ask for, in no words of its own.
struct Open;

impl Handler for Open {
    fn routes(&self) -> Routes {
        Routes::new().events("/sse", Events::new())
    }

    fn on_topics(&mut self, cx: &mut Context<'_>, topics: &[String]) {
        for topic in topics {
            cx.subscribe(topic).unwrap();
        }
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: &[u8]) {}
}

#[test]
fn a_handler_without_words_of_its_own_sends_payloads_line_by_line() {
    let server = Fixture::start(config(), |_| Open);
    let mut client = events(&server, "/sse?topic=a");
    let mut line = Client::connect(server.addr(Framing::Line), Framing::Line);
    server.wait_for_connections(2);
    server.publish("a", " one\ntwo\rthree\r\n").unwrap();
    assert_eq!(client.recv_block().split_once('\n').unwrap().1, "data:  one\ndata: two\ndata: three\ndata: ");
    server.broadcast(&b"\xff"[..]).unwrap();
    assert_eq!(line.recv_bytes(), b"\xff");
    wait_until("it is counted", || server.drops() == [(DropReason::NotUtf8, 1)]);
    server.publish("a", "after").unwrap();
    assert_eq!((client.recv_event().event.as_str(), client.recv_event().data.as_str()), ("gap", "after"));
}

/// Sends a message of so many empty lines to whoever comes, and notes how that went.
struct Lines(usize, Arc<Mutex<Vec<Result<(), SendError>>>>);

impl Handler for Lines {
    fn routes(&self) -> Routes {
        Routes::new().events("/sse", Events::new())
    }

    fn on_connect(&mut self, cx: &mut Context<'_>) {
        let sent = cx.send("\n".repeat(self.0).as_bytes());
        self.1.lock().unwrap().push(sent);
    }

    fn on_message(&mut self, _: &mut Context<'_>, _: &[u8]) {}
}

#[test]
fn a_message_of_many_lines_is_measured_as_the_stream_carries_it() {
    let max = 1 << 20;
    let sent = Arc::default();
    let server = Fixture::start(settings! { queue_bytes_max: max, ..config() }, {
        let sent = Arc::clone(&sent);
        // Each line takes seven bytes.
        move |_| Lines(max / 6, Arc::clone(&sent))
    });
    let _client = events(&server, "/sse?all");
    wait_until("it was sent", || !sent.lock().unwrap().is_empty());
    let sent = sent.lock().unwrap();
    assert!(matches!(sent[..], [Err(SendError::TooLarge { len, .. })] if len > max), "{sent:?}");
}

#[test]
fn an_idle_stream_gets_comments_and_outlives_the_read_timeout() {
    let second = Duration::from_secs(1);
    let server = Fixture::hub(settings! { read_timeout: second, ping_every: second / 2, ..config() });
    let mut client = events(&server, "/sse?topic=a");
    for _ in 0..5 {
        assert_eq!(client.recv_block(), ":");
    }
    server.publish("a", "still here").unwrap();
    assert!(client.recv_event().data.contains("still here"));
    assert_eq!(server.closed(CloseReason::ReadTimeout), 0);
}

#[test]
fn gaps_and_the_farewell_are_events_of_their_own() {
    let server = Fixture::hub(settings! { max_message: 1000, queue_bytes_max: 2000, ..config() });
    let mut client = events(&server, "/sse?topic=a");
    server.publish("a", "\u{1}".repeat(1000)).unwrap();
    let gap = client.recv_event();
    assert_eq!(gap.event, "gap");
    assert_eq!(gap.data, r#"{"type":"gap","topic":"a","count":1,"reason":"frame-too-large"}"#);
    server.shutdown();
    let bye = client.recv_event();
    assert_eq!((&*bye.event, &*bye.data), ("bye", r#"{"type":"bye","reason":"drain"}"#));
    client.expect_end();
}

#[test]
fn whatever_follows_the_request_ends_the_stream() {
    let server = Fixture::hub(config());
    let mut client = HttpClient::connect(server.addr(Framing::Http));
    client.send("GET /sse?all HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.recv_head().starts_with("HTTP/1.1 200 "));
    assert!(client.recv_block().starts_with("retry: "));
    assert_eq!(client.recv_event().data, r#"{"type":"bye","reason":"protocol-error"}"#);
    client.expect_end();
    wait_until("it is counted", || server.closed(CloseReason::ProtocolError) == 1);
}

#[test]
fn pages_of_listed_origins_may_read_and_others_may_not() {
    let allow_origin = vec!["https://good.example".parse().unwrap()];
    let host = vec!["push.example".parse().unwrap()];
    let server = Fixture::hub(settings! { allow_origin, host, ..config() });
    let ask_at = |host: &str, method: &str, origin: &str| {
        let mut client = HttpClient::connect(server.addr(Framing::Http));
        client.send(format!("{method} /sse?topic=a HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n"));
        client.recv_head()
    };
    let ask = |method: &str, origin: &str| ask_at("push.example", method, origin);
    let head = ask("GET", "https://good.example");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Allow-Origin: https://good.example\r\n"), "{head}");
    assert!(ask("GET", "https://push.example").starts_with("HTTP/1.1 200 "));
    assert!(ask("OPTIONS", "https://good.example").starts_with("HTTP/1.1 204 "));
    let head = ask("GET", "https://evil.example");
    assert!(head.starts_with("HTTP/1.1 403 ") && !head.contains("Allow-Origin"), "{head}");
    // A name that leads here is the server's own only if the server says so.
    assert!(ask_at("evil.example", "GET", "https://evil.example").starts_with("HTTP/1.1 403 "));
    assert!(ask_at("localhost:80", "GET", "http://localhost").starts_with("HTTP/1.1 200 "));
    assert!(ask_at("127.0.0.1:8080", "GET", "http://127.0.0.1:8080").starts_with("HTTP/1.1 200 "));
}
