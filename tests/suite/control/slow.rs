//! HTTP clients that are slow, idle or too many harm neither each other nor the shards.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use corecast::Framing;
use corecast::control::ControlLimits;
use socket2::{Domain, Socket, Type};

use super::http::Http;
use super::{Plane, config};
use crate::support::{DEADLINE, Fixture, wait_until};

const SHORT: Duration = Duration::from_millis(200);

fn plane(limits: ControlLimits) -> Plane {
    Plane::limited(Fixture::hub(config()), limits)
}

/// Waits until the server has closed a connection, in order or not.
fn wait_for_close(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the server did not close"),
            Err(_) => break,
        }
    }
}

/// A connection whose client takes so little that responses get stuck.
pub(super) fn narrow(plane: &Plane) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&plane.addr().into()).unwrap();
    socket.into()
}

#[test]
fn a_client_that_never_reads_is_given_up_and_nobody_waits_for_it() {
    let limits = settings! { connections: 2, write_time: SHORT, head_time: 10 * DEADLINE, ..ControlLimits::default() };
    let plane = plane(limits);
    let mut client = plane.client(Framing::Line);
    let mut stuck = narrow(&plane);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", plane.addr());
    stuck.set_nonblocking(true).unwrap();
    for _ in 0..2000 {
        // Once the server reads no more, what it has taken is enough.
        if stuck.write_all(request.as_bytes()).is_err() {
            break;
        }
    }
    let mut http = plane.http();
    for _ in 0..20 {
        assert_eq!(http.post("/v1/broadcast?receipt=true", "x").json()["written"], 1);
        assert_eq!(client.recv(), "ALL x");
    }
    // Both places are taken, until the stuck client is given up.
    let _held = http;
    wait_until("its place is free", || plane.http().get_status("/v1/stats") == Some(200));
}

#[test]
fn a_head_that_trickles_in_and_a_connection_that_asks_nothing_are_closed() {
    let plane = plane(settings! { head_time: SHORT, ..ControlLimits::default() });
    let mut trickle = plane.http();
    let idle = plane.http();
    let mut used = plane.http();
    assert_eq!(used.get("/healthz").status, 200);
    let mut bytes = b"GET /healthz HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
    wait_until("the trickling client is closed", || {
        let byte = [*bytes.next().unwrap()];
        trickle.stream.write_all(&byte).is_err()
    });
    wait_for_close(&idle.stream);
    wait_for_close(&used.stream);
    assert_eq!(plane.http().get("/healthz").status, 200);
}

#[test]
fn a_body_that_trickles_in_is_refused() {
    let plane = plane(settings! { body_time: SHORT, ..ControlLimits::default() });
    let mut http = plane.http();
    let head = format!("POST /v1/broadcast HTTP/1.1\r\n{}Content-Length: 1000\r\n\r\nx", http.headers);
    http.stream.write_all(head.as_bytes()).unwrap();
    http.response(false).is_problem(408, "body-timeout");
    assert!(http.is_closed());
    assert_eq!(plane.sum(|shard| shard.publishes.get()), 0);
}

#[test]
fn bodies_that_wait_for_their_end_take_a_bounded_amount_of_memory() {
    let config = settings! { max_message: 16 << 20, queue_bytes_max: 32 << 20, ..config() };
    let plane = Plane::over(Fixture::hub(config));
    // Each announces 16 MiB; four of them are all that may be held.
    let announce = || {
        let mut http = plane.http();
        let head = format!("POST /v1/broadcast HTTP/1.1\r\n{}Content-Length: {}\r\n\r\n", http.headers, 16 << 20);
        http.stream.write_all(head.as_bytes()).unwrap();
        http
    };
    let held: Vec<Http> = (0..4).map(|_| announce()).collect();
    wait_until("the budget is used up", || {
        let response = announce_small(&plane);
        response.status == 503
    });
    drop(held);
    wait_until("it is given back", || announce_small(&plane).status == 202);
}

fn announce_small(plane: &Plane) -> super::http::Response {
    plane.http().post("/v1/broadcast", "x")
}

/// Listens to the event stream: a call that holds its place.
fn listen(plane: &Plane) -> Http {
    let mut http = plane.http();
    http.write("GET", "/v1/events", &[], b"");
    let head = http.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    http
}

#[test]
fn while_all_places_are_busy_callers_are_told_so_but_health_and_metrics_answer() {
    let plane = plane(settings! { connections: 3, ..ControlLimits::default() });
    let mut busy: Vec<Http> = (0..3).map(|_| listen(&plane)).collect();
    let refused = plane.http().get("/v1/stats");
    refused.is_problem(503, "busy");
    assert_eq!((refused.header("retry-after"), refused.header("connection")), (Some("1"), Some("close")));
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(plane.http().get(path).status, 200, "{path}");
    }
    busy.pop();
    wait_until("the place is free", || plane.http().get_status("/v1/stats") == Some(200));
}

#[test]
fn idle_and_slow_connections_keep_nobody_out() {
    let plane = plane(settings! { head_time: 10 * DEADLINE, ..ControlLimits::default() });
    let host = plane.addr();
    let mut held = Vec::new();
    for sent in [
        String::new(),
        format!("GET /v1/stats HTTP/1.1\r\nHost: {host}\r\nX-Slow: "),
        format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        // Each of these takes a place and rests there.
        format!("GET /v1/stats HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    ] {
        for _ in 0..150 {
            let mut stream = TcpStream::connect(host).unwrap();
            stream.write_all(sent.as_bytes()).unwrap();
            held.push(stream);
        }
        let mut http = plane.http();
        for path in ["/healthz", "/readyz", "/metrics"] {
            assert_eq!(http.get(path).status, 200, "{path} after 150 of {sent:?}");
        }
        assert_eq!(http.post("/v1/broadcast", "x").status, 202, "after 150 of {sent:?}");
    }
    // The longest silent ones had to go.
    wait_for_close(&held[0]);
}

#[test]
fn a_caller_who_only_asks_for_health_is_answered_and_closed() {
    let plane = Plane::hub();
    for path in ["/healthz", "/readyz"] {
        let mut http = plane.http();
        assert_eq!(http.get(path).header("connection"), Some("close"), "{path}");
        assert!(http.is_closed());
    }
    // Whoever has called may go on, also to ask for health.
    let mut http = plane.http();
    for path in ["/v1/stats", "/healthz", "/v1/stats"] {
        assert_eq!(http.get(path).header("connection"), None, "{path}");
    }
}

/// A body that is larger than all that fits between client and server.
const LARGE: usize = 24 << 20;

#[test]
fn a_large_body_that_is_refused_is_refused_in_words_the_client_gets() {
    let plane = Plane::hub();
    for (path, header, status) in [
        ("/v1/topics/a/messages", "X: y", 413),
        ("/v1/topics/a/messages", "Origin: http://evil.example", 403),
        ("/v1/nope", "X: y", 404),
        ("/v1/stats", "X: y", 405),
        ("/v1/broadcast?nope", "X: y", 400),
    ] {
        let mut http = plane.http();
        let head = format!("POST {path} HTTP/1.1\r\n{}{header}\r\nContent-Length: {LARGE}\r\n\r\n", http.headers);
        http.stream.write_all(head.as_bytes()).unwrap();
        // As many clients do: all is sent before anything is read.
        http.stream.write_all(&vec![b'x'; LARGE]).unwrap_or_else(|error| panic!("{status}: {error}"));
        let response = http.response(false);
        assert_eq!((response.status, response.header("connection")), (status, Some("close")), "{response:?}");
        assert!(http.is_closed());
    }
    // While all places are busy, too.
    let plane = self::plane(settings! { connections: 1, ..ControlLimits::default() });
    let _busy = listen(&plane);
    let mut http = plane.http();
    let head = format!("POST /v1/broadcast HTTP/1.1\r\n{}Content-Length: {LARGE}\r\n\r\n", http.headers);
    http.stream.write_all(head.as_bytes()).unwrap();
    http.stream.write_all(&vec![b'x'; LARGE]).unwrap();
    http.response(false).is_problem(503, "busy");
}

#[test]
fn a_client_that_asks_first_whether_to_send_is_answered_before_it_does() {
    let plane = Plane::over(Fixture::hub(settings! { max_message: 1024, ..config() }));
    let ask = |length: usize| {
        let mut http = plane.http();
        let head = format!(
            "POST /v1/broadcast HTTP/1.1\r\n{}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n",
            http.headers
        );
        http.stream.write_all(head.as_bytes()).unwrap();
        http
    };
    ask(1025).response(false).is_problem(413, "message-too-large");
    let mut http = ask(1024);
    assert_eq!(http.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    http.stream.write_all(&[b'x'; 1024]).unwrap();
    assert_eq!(http.response(false).status, 202);
}
