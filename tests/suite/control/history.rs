//! The last minutes, for pages that open later.

use std::time::Duration;

use corecast::Framing;
use corecast::control::ControlLimits;
use serde_json::{Value, json};

use super::{Plane, config};
use crate::support::{Fixture, wait_until};

fn fast() -> Plane {
    let limits = settings! { event_time: Duration::from_millis(1), ..ControlLimits::default() };
    Plane::limited(Fixture::hub(config()), limits)
}

fn samples(past: &Value) -> &Vec<Value> {
    past["samples"].as_array().unwrap()
}

#[test]
fn what_happened_before_anybody_asked_is_remembered_up_to_a_bound() {
    let plane = fast();
    let mut http = plane.http();
    let mut client = plane.client(Framing::Line);
    assert_eq!(client.ask("SUB a"), "OK SUB a");
    assert_eq!(http.post("/v1/topics/a/messages?receipt=true", "x").json()["written"], json!(1));
    wait_until("there are as many samples as may be", || samples(&http.get("/v1/history").json()).len() == 300);
    let first = samples(&http.get("/v1/history").json())[0]["uptime_s"].as_f64().unwrap();
    wait_until("the oldest give way", || {
        let past = http.get("/v1/history").json();
        assert!(samples(&past).len() <= 300);
        samples(&past)[0]["uptime_s"].as_f64().unwrap() > first
    });
    let past = http.get("/v1/history").json();
    let ends = past["bucket_ends_us"].as_array().unwrap();
    assert_eq!((ends[0].as_u64(), ends.last()), (Some(1), Some(&Value::Null)));
    let newest = samples(&past).last().unwrap();
    assert!(newest["uptime_s"].as_f64() <= past["uptime_s"].as_f64());
    assert_eq!((&newest["connections"], &newest["queued_messages"]), (&json!(1), &json!(0)));
    assert_eq!(newest["connections_by_shard"].as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>(), 1);
    let spans = newest["time_to_last"].as_array().unwrap();
    assert_eq!((spans.len(), spans.iter().filter_map(Value::as_u64).sum::<u64>()), (ends.len(), 1));
    let times: Vec<_> = samples(&past).iter().map(|sample| sample["uptime_s"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    http.get("/v1/history?x").is_problem(400, "bad-query");
}
