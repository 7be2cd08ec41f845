//! The event stream.

use std::io::Write;
use std::time::Duration;

use corecast::Framing;
use corecast::control::ControlLimits;
use serde_json::{Value, json};

use super::http::Http;
use super::slow::narrow;
use super::{Plane, config};
use crate::support::{DEADLINE, Fixture, wait_until};

/// Begins to listen.
fn listen(plane: &Plane) -> Http {
    let mut http = plane.http();
    http.write("GET", "/v1/events", &[], b"");
    let head = http.head();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: text/event-stream\r\n"), "{head}");
    http
}

/// The data of the next event.
#[track_caller]
fn event(http: &mut Http) -> Value {
    let chunk = String::from_utf8(http.chunk().expect("the stream goes on")).unwrap();
    let data = chunk.strip_prefix("event: stats\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
    serde_json::from_str(data.unwrap_or_else(|| panic!("no event: {chunk}"))).unwrap()
}

fn fast(limits: ControlLimits) -> Plane {
    let event_time = Duration::from_millis(2);
    Plane::limited(Fixture::hub(config()), settings! { event_time, ..limits })
}

#[test]
fn listeners_get_the_same_statistics_with_rates() {
    let plane = fast(ControlLimits::default());
    let mut client = plane.client(Framing::Line);
    assert_eq!(client.ask("SUB a"), "OK SUB a");
    let (mut one, mut other) = (listen(&plane), listen(&plane));
    let stats = plane.http().get("/v1/stats").json();
    let first = event(&mut other);
    // What one listener got, the other gets too: they are taken once for both.
    loop {
        let found = event(&mut one);
        if found["uptime_s"] == first["uptime_s"] {
            assert_eq!(found, first);
            break;
        }
    }
    for key in stats.as_object().unwrap().keys() {
        assert!(!first[key].is_null() || key == "bytes_per_connection", "{key} is missing");
    }
    let rates: Vec<_> = first["rates"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(rates, ["accepted", "closed", "delivered", "dropped", "messages_in", "messages_out", "refused"]);
    assert_eq!(plane.http().post("/v1/topics/a/messages", "x").status, 202);
    wait_until("the rate of deliveries rises", || event(&mut one)["rates"]["delivered"].as_f64() > Some(0.0));
    wait_until("and falls", || event(&mut one)["rates"]["delivered"].as_f64() == Some(0.0));
    plane.http().get("/v1/events?x").is_problem(400, "bad-query");
}

#[test]
fn the_ticker_rests_without_listeners_and_begins_again() {
    let plane = fast(ControlLimits::default());
    for _ in 0..3 {
        let mut http = listen(&plane);
        assert_eq!(event(&mut http)["state"], json!("running"));
    }
}

#[test]
fn a_listener_that_does_not_read_is_let_go_and_the_others_go_on() {
    let write_time = Duration::from_millis(200);
    let plane = fast(settings! { connections: 2, write_time, head_time: 10 * DEADLINE, ..ControlLimits::default() });
    let mut good = listen(&plane);
    let mut slow = narrow(&plane);
    write!(slow, "GET /v1/events HTTP/1.1\r\nHost: {}\r\n\r\n", plane.addr()).unwrap();
    let mut last = 0.0;
    wait_until("the slow listener's place is free", || {
        for _ in 0..50 {
            let now = event(&mut good)["uptime_s"].as_f64().unwrap();
            assert!(now >= last);
            last = now;
        }
        plane.http().get_status("/v1/stats") == Some(200)
    });
}

#[test]
fn there_are_so_many_listeners_and_no_more() {
    let plane = Plane::hub();
    let listeners: Vec<_> = (0..32).map(|_| listen(&plane)).collect();
    plane.http().get("/v1/events").is_problem(503, "busy");
    drop(listeners);
    wait_until("a place is free", || plane.http().get_status("/v1/events") == Some(200));
}

#[test]
fn a_stream_ends_in_order_when_the_control_plane_stops() {
    let mut plane = fast(ControlLimits::default());
    let mut http = listen(&plane);
    event(&mut http);
    plane.control.take().unwrap().stop();
    while http.chunk().is_some() {}
    assert!(http.is_closed());
}
