//! The end, as HTTP sees it.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use corecast::Framing;
use rustix::process::Signal;
use serde_json::json;

use super::Plane;
use super::http::Http;
use crate::support::{Client, Program, wait_until};

fn control_addr(program: &Program) -> SocketAddr {
    let log = program.log();
    let addr = log.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("the ready line");
    addr.parse().unwrap()
}

/// What balancers ask, each with the status that it gets.
fn probes(addr: SocketAddr) -> Vec<(String, u16)> {
    let mut probes = Vec::new();
    for method in ["OPTIONS", "HEAD", "GET"] {
        for target in ["/readyz", "/healthz", "/", "*"] {
            // The page itself does not tell of readiness, and only OPTIONS knows the asterisk.
            if method == "OPTIONS" || target.ends_with('z') {
                probes.push(format!("{method} {target} HTTP/1.0\r\n\r\n"));
                probes.push(format!("{method} {target} HTTP/1.1\r\nHost: balancer\r\n\r\n"));
            }
        }
    }
    let status = |probe: &String| {
        let mut http = Http::connect(addr);
        http.stream.write_all(probe.as_bytes()).unwrap();
        let response = http.response(true);
        assert_eq!(response.header("connection"), Some("close"), "{probe:?}");
        response.status
    };
    let statuses: Vec<_> = probes.iter().map(status).collect();
    probes.into_iter().zip(statuses).collect()
}

/// The server drains, tells so first, and goes on telling to the end; then it exits with success.
fn drains_and_tells(begin: impl Fn(&Program, &mut Http)) {
    let mut program = Program::serve(["--shards=2", "--control=127.0.0.1:0", "--drain-time=5s"]);
    let addr = control_addr(&program);
    let mut clients: Vec<Client> = (0..40).map(|n| program.client(Framing::ALL[n % 2])).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("SUB a"), "OK SUB a"));
    let mut http = Http::connect(addr);
    assert_eq!(http.get("/readyz").text(), "ready");
    assert!(probes(addr).iter().all(|(_, status)| *status == 200), "{:?}", probes(addr));
    begin(&program, &mut http);
    wait_until("the server is not ready", || {
        let ready = http.get("/readyz");
        (ready.status, ready.text()) == (503, "draining")
    });
    assert_eq!(http.get("/healthz").status, 200);
    for (probe, status) in probes(addr) {
        assert_eq!(status, if probe.contains("/healthz") { 200 } else { 503 }, "{probe:?} while it drains");
    }
    let mut last = 40;
    wait_until("the connections become fewer", || {
        let stats = http.get("/v1/stats").json();
        assert_eq!(stats["state"], json!("draining"));
        let left = stats["connections"].as_u64().unwrap();
        assert!(left <= last);
        last = left;
        left < 30 && left > 0
    });
    // Who has not been told to go still gets what is published.
    let receipt = http.post("/v1/topics/a/messages?receipt=true", "late").json();
    let count = |value: &serde_json::Value| value.as_u64().unwrap();
    let (matched, written) = (count(&receipt["matched"]), count(&receipt["written"]));
    assert!(matched <= last && written > 0, "{receipt}");
    assert_eq!(matched, written + count(&receipt["dropped"]["closed"]), "{receipt}");
    let streams: Vec<_> = clients.iter_mut().map(Client::recv_to_end).collect();
    let late = streams.iter().filter(|messages| messages.iter().any(|message| message == "MSG a late")).count();
    assert_eq!(late as u64, written);
    for messages in streams {
        assert_eq!(messages.last().map(String::as_str), Some("BYE drain"));
    }
    drop(clients);
    assert_eq!(program.wait(), Some(0), "{}", program.log());
    let log = program.log();
    for part in ["draining: 40 connections over 5s", "connections left", "drained"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn a_signal_drains_and_the_control_plane_tells_of_it() {
    drains_and_tells(|program, _| program.signal(Signal::TERM));
}

#[test]
fn a_post_drains_as_the_signal_does() {
    drains_and_tells(|_, http| {
        for (headers, bad) in [
            (&["Content-Type: application/json"][..], r#"{"over":"soon"}"#),
            (&["Content-Type: application/json"], r#"{"over":"2days"}"#),
            (&["Content-Type: application/json"], r#"{"time":"1s"}"#),
        ] {
            http.send("POST", "/v1/drain", headers, bad.as_bytes()).is_problem(400, "bad-body");
        }
        http.send("POST", "/v1/drain", &[], b"{}").is_problem(415, "unsupported-media-type");
        assert_eq!(http.get("/readyz").status, 200);
        let response = http.post("/v1/drain", "");
        assert_eq!((response.status, &response.json()["state"]), (202, &json!("draining")));
        // It has begun; another time changes nothing.
        let headers = ["Content-Type: application/json"];
        assert_eq!(http.send("POST", "/v1/drain", &headers, br#"{"over":"1h"}"#).status, 202);
    });
}

#[test]
fn the_time_to_drain_over_may_be_given() {
    let plane = Plane::hub();
    let mut client = plane.client(Framing::Line);
    client.expect_nothing();
    let headers = ["Content-Type: application/json"];
    let mut http = plane.http();
    assert_eq!(http.send("POST", "/v1/drain", &headers, br#"{"over":"0"}"#).json()["connections"], json!(1));
    client.expect("BYE drain");
    drop(client);
    wait_until("the server is down", || {
        let response = http.post("/v1/broadcast", "x");
        response.status == 503 && response.json()["code"] == "shutting-down"
    });
    // The control plane of a server that has ended still answers.
    assert_eq!(http.get("/v1/stats").json()["connections"], json!(0));
    http.get("/v1/connections").is_problem(503, "shutting-down");
    assert_eq!(http.get("/healthz").status, 200);
}

#[test]
fn a_control_plane_that_stops_lets_requests_end() {
    let mut plane = Plane::hub();
    let mut http = plane.http();
    assert_eq!(http.get("/healthz").status, 200);
    let idle = plane.http();
    plane.control.take().unwrap().stop();
    assert!(http.is_closed());
    idle.stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    drop(idle);
}

#[test]
fn clients_are_taken_and_served_for_the_grace_though_the_server_says_that_it_is_not_ready() {
    let mut program = Program::serve(["--shards=2", "--control=127.0.0.1:0", "--drain-grace=1h", "--drain-time=0"]);
    let mut old = program.client(Framing::Line);
    old.expect_nothing();
    let mut http = Http::connect(control_addr(&program));
    program.signal(Signal::TERM);
    wait_until("the server is not ready", || http.get("/readyz").status == 503);
    assert_eq!(http.get("/v1/stats").json()["state"], json!("draining"));
    let mut new = program.client(Framing::Length);
    for client in [&mut old, &mut new] {
        client.expect_nothing();
    }
    let headers = ["Content-Type: application/json"];
    http.send("POST", "/v1/drain", &headers, br#"{"grace":"2 days"}"#).is_problem(400, "bad-body");
    // A later end is not taken, a sooner one is.
    assert_eq!(http.send("POST", "/v1/drain", &headers, br#"{"grace":"2h"}"#).status, 202);
    new.expect_nothing();
    assert_eq!(http.send("POST", "/v1/drain", &headers, br#"{"grace":"0s"}"#).status, 202);
    for client in [&mut old, &mut new] {
        client.expect("BYE drain");
    }
    drop((old, new));
    assert_eq!(program.wait(), Some(0));
    let log = program.log();
    assert!(log.contains("not ready from now on") && log.contains("draining: 2 connections over 0"), "{log}");
}

#[test]
fn a_grace_ends_by_itself_and_a_second_signal_ends_it_at_once() {
    let mut program = Program::serve(["--shards=2", "--drain-grace=500ms"]);
    program.signal(Signal::TERM);
    assert_eq!(program.wait(), Some(0));
    let mut program = Program::serve(["--shards=2", "--drain-grace=1h"]);
    program.signal(Signal::TERM);
    program.wait_for_line(0, |line| line.contains("not ready from now on"));
    program.signal(Signal::TERM);
    assert_eq!(program.wait(), Some(1));
}
