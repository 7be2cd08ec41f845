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
    let limits =
        ControlLimits { connections: 2, write_time: SHORT, head_time: 10 * DEADLINE, ..ControlLimits::default() };
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
    wait_until("its place is free", || plane.http().get_status("/healthz") == Some(200));
}

#[test]
fn a_head_that_trickles_in_and_a_connection_that_asks_nothing_are_closed() {
    let plane = plane(ControlLimits { head_time: SHORT, ..ControlLimits::default() });
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
    let plane = plane(ControlLimits { body_time: SHORT, ..ControlLimits::default() });
    let mut http = plane.http();
    let head = format!("POST /v1/broadcast HTTP/1.1\r\n{}Content-Length: 1000\r\n\r\nx", http.headers);
    http.stream.write_all(head.as_bytes()).unwrap();
    http.response(false).is_problem(408, "body-timeout");
    assert!(http.is_closed());
    assert_eq!(plane.sum(|shard| shard.publishes.get()), 0);
}

#[test]
fn bodies_that_wait_for_their_end_take_a_bounded_amount_of_memory() {
    let config = corecast::Config { max_message: 16 << 20, queue_bytes_max: 32 << 20, ..config() };
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

#[test]
fn connections_beyond_the_bound_are_told_so() {
    let plane = plane(ControlLimits { connections: 3, ..ControlLimits::default() });
    let mut open: Vec<Http> = (0..3).map(|_| plane.http()).collect();
    open.iter_mut().for_each(|http| assert_eq!(http.get("/healthz").status, 200));
    let mut more = plane.http();
    let head = more.head();
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: 1\r\n"), "{head}");
    assert!(more.is_closed());
    open.pop();
    wait_until("the place is free", || plane.http().get_status("/healthz") == Some(200));
}
