//! Every route, with what it takes and what it refuses.

use corecast::{CloseReason, Framing};
use serde_json::{Value, json};

use super::Plane;
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn stats_have_totals_that_are_the_sum_of_the_shards() {
    let plane = Plane::hub();
    let mut clients: Vec<_> = (0..8).map(|_| plane.client(Framing::Line)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("SUB a"), "OK SUB a"));
    let mut http = plane.http();
    http.post("/v1/topics/a/messages?receipt=true", "x");
    let stats = http.get("/v1/stats").json();
    assert_eq!((&stats["state"], &stats["connections"]), (&json!("running"), &json!(8)));
    assert_eq!(stats["max_connections"], json!(2000));
    assert_eq!(stats["version"], json!(env!("CARGO_PKG_VERSION")));
    assert!(stats["resident_bytes"].as_u64().unwrap() > 1_000_000);
    let shards = stats["shards"].as_array().unwrap();
    assert_eq!((shards.len(), &shards[1]["shard"]), (2, &json!(1)));
    let totals = &stats["totals"];
    for key in ["accepted", "delivered", "matched", "messages_in", "bytes_out", "publishes"] {
        let sum: u64 = shards.iter().map(|shard| shard[key].as_u64().unwrap()).sum();
        assert_eq!(totals[key], json!(sum), "{key}");
    }
    assert_eq!((&totals["accepted"], &totals["matched"], &totals["delivered"]), (&json!(8), &json!(8), &json!(8)));
    let mut shard_keys = keys(&shards[0]);
    shard_keys.retain(|key| *key != "shard");
    assert_eq!(shard_keys, keys(totals));
    let reasons = CloseReason::ALL.len();
    assert_eq!(keys(&totals["closed"]).len(), reasons);
    assert_eq!(keys(&totals["refused"]), ["draining", "max-connections", "max-memory"]);
    let spans = &stats["time_to_last_us"];
    assert!(spans["count"].as_u64().unwrap() >= 1 && spans["p50"].as_u64() <= spans["p99"].as_u64(), "{spans}");
    http.get("/v1/stats?x=1").is_problem(400, "bad-query");
}

#[test]
fn connections_are_listed_page_by_page_looked_at_and_closed() {
    let plane = Plane::hub();
    let mut clients: Vec<_> = (0..7).map(|n| plane.client(Framing::ALL[n % 2])).collect();
    let mut ids: Vec<String> = clients.iter_mut().map(|client| client.id().to_string()).collect();
    assert_eq!(clients[3].ask("SUB a b"), "OK SUB a b");
    let mut http = plane.http();

    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("/v1/connections?limit=2{after}")).json();
        let found = page["connections"].as_array().unwrap();
        assert!(found.len() <= 2);
        listed.extend(found.iter().map(|connection| connection["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    listed.sort();
    ids.sort_unstable();
    assert_eq!(listed, ids);

    let id = clients[3].id().to_string();
    let one = http.get(&format!("/v1/connections/{id}")).json();
    assert_eq!((&one["id"], &one["framing"]), (&json!(id), &json!("length")));
    assert_eq!(one["peer"], json!(clients[3].addr().to_string()));
    assert_eq!((&one["topics"], &one["queued_messages"]), (&json!(["a", "b"]), &json!(0)));
    assert_eq!(http.send("DELETE", &format!("/v1/connections/{id}"), &[], b"").status, 204);
    // The client has not closed its side yet.
    http.get(&format!("/v1/connections/{id}")).is_problem(404, "no-connection");
    http.send("DELETE", &format!("/v1/connections/{id}"), &[], b"").is_problem(404, "no-connection");
    assert_eq!(clients[3].recv(), "BYE kicked");
    drop(clients.remove(3));
    plane.wait_for_connections(6);
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/messages")] {
        let mut ask = |id: &str| http.send(method, &format!("/v1/connections/{id}{path}"), &[], b"x");
        ask(&id).is_problem(404, "no-connection");
        for bad in ["x1", "-1", "+1", "18446744073709551616"] {
            ask(bad).is_problem(400, "bad-connection-id");
        }
    }
    for bad in ["limit=0", "limit=1001", "limit=x", "limit=", "after=", "after=1", "after=+1.2", "limit=1&limit=2", "x"]
    {
        http.get(&format!("/v1/connections?{bad}")).is_problem(400, "bad-query");
    }
}

#[test]
fn topics_are_listed_by_name_and_take_a_policy() {
    let plane = Plane::hub();
    let mut client = plane.client(Framing::Line);
    let mut other = plane.client(Framing::Length);
    assert_eq!(client.ask("SUB a/1 a/2 b"), "OK SUB a/1 a/2 b");
    assert_eq!(other.ask("SUB a/1 é"), "OK SUB a/1 é");
    let mut http = plane.http();
    let names = |page: &Value| {
        let topics = page["topics"].as_array().unwrap().iter();
        topics.map(|topic| topic["topic"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&http.get("/v1/topics").json()), ["a/1", "a/2", "b", "é"]);
    assert_eq!(names(&http.get("/v1/topics?prefix=a%2F").json()), ["a/1", "a/2"]);
    let page = http.get("/v1/topics?limit=3").json();
    assert_eq!((names(&page).len(), &page["next"]), (3, &json!("b")));
    let page = http.get("/v1/topics?limit=3&after=b").json();
    assert_eq!((names(&page), &page["next"]), (vec!["é".to_owned()], &Value::Null));

    http.post("/v1/topics/a%2F1/messages?receipt=true", "x");
    let topic = http.get("/v1/topics/a%2F1").json();
    assert_eq!((&topic["topic"], &topic["subscribers"]), (&json!("a/1"), &json!(2)));
    let by_shard = topic["subscribers_by_shard"].as_array().unwrap();
    assert_eq!(by_shard.iter().map(|count| count.as_u64().unwrap()).sum::<u64>(), 2);
    assert_eq!((&topic["published"], &topic["delivered"], &topic["dropped"]), (&json!(1), &json!(2), &json!(0)));
    assert_eq!(http.get("/v1/topics/nobody").json()["subscribers"], json!(0));

    let json_body = ["Content-Type: application/json; charset=utf-8"];
    let mut set = |path: &str, body: &str| http.send("PUT", path, &json_body, body.as_bytes());
    assert_eq!(set("/v1/topics/b", r#"{"slow_consumer":"keep-latest"}"#).json()["slow_consumer"], "keep-latest");
    assert_eq!(set("/v1/topics/b", r#"{"slow_consumer":null}"#).json()["slow_consumer"], Value::Null);
    for bad in ["", "{}", "[]", "nope", r#"{"slow_consumer":"later"}"#, r#"{"slow_consumer":null,"x":1}"#] {
        set("/v1/topics/b", bad).is_problem(400, "bad-body");
    }
    set("/v1/topics/b", &format!(r#"{{"slow_consumer":"{}"}}"#, "x".repeat(5000))).is_problem(413, "message-too-large");
    http.send("PUT", "/v1/topics/b", &[], b"{}").is_problem(415, "unsupported-media-type");
    for bad in ["a%20b", "%00", "%FF", &"x".repeat(256), "%C2%A0"] {
        http.get(&format!("/v1/topics/{bad}")).is_problem(400, "bad-topic");
        http.send("PUT", &format!("/v1/topics/{bad}"), &json_body, b"{}").is_problem(400, "bad-topic");
    }
}

#[test]
fn paths_and_methods_that_are_not_there_are_explained() {
    let plane = Plane::hub();
    let mut http = plane.http();
    for path in ["/nope", "/v1", "/v1/topics/", "/v1/topics/a/b", "/assets/nope", "/assets/../x"] {
        http.get(path).is_problem(404, "not-found");
    }
    http.post("/v1/topics//messages", "x").is_problem(400, "bad-topic");
    for (path, meant) in [
        ("/v1/topics/a/b/messages", "/v1/topics/a%2Fb/messages; or name it in the query"),
        ("/v1/topics/a/b/messages", "/v1/topic/messages?name=a/b;"),
        ("/v1/topics/a/b", "/v1/topic?name=a/b;"),
        ("/v1/topics/a//b/", "/v1/topic?name=a//b;"),
        ("/v1/topics/", "the topic's name is missing: write /v1/topics/TOPIC;"),
        ("/v1/topics/a/", "did you mean /v1/topics/a?"),
        ("/v1/topics/a/messages/", "did you mean /v1/topics/a/messages?"),
        ("/v1/topic/a/messages", "/v1/topic/messages?name=a/b"),
        ("//v1//broadcast", "did you mean /v1/broadcast?"),
        ("/v1/stats/", "did you mean /v1/stats?"),
        ("/metrics/", "did you mean /metrics?"),
        ("/health", "did you mean /healthz?"),
        ("/ws", "this is the control address"),
        ("/v1/publish", "did you mean /v1/topic/messages?name=TOPIC?"),
        ("/nope/%3Cb%3E", "there is nothing here;"),
    ] {
        for method in ["GET", "POST"] {
            let response = http.send(method, path, &[], b"");
            response.is_problem(404, "not-found");
            assert!(response.text().contains(meant), "{path}: {}", response.text());
        }
    }
    for (method, path, allow) in [
        ("GET", "/v1/broadcast", "POST"),
        ("POST", "/v1/stats", "GET,HEAD"),
        ("DELETE", "/v1/topics/a", "GET,HEAD,PUT"),
        ("PATCH", "/v1/connections/1", "GET,HEAD,DELETE"),
        ("POST", "/metrics", "GET,HEAD"),
    ] {
        let response = http.send(method, path, &[], b"");
        response.is_problem(405, "method-not-allowed");
        let mut allowed: Vec<_> = response.header("allow").unwrap().split(',').collect();
        let mut wanted: Vec<_> = allow.split(',').collect();
        allowed.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(allowed, wanted, "{method} {path}");
        let options = http.send("OPTIONS", path, &[], b"");
        assert_eq!((options.status, options.body.len()), (204, 0));
        assert_eq!(options.header("allow"), response.header("allow"));
    }
    for path in ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/stats", "/v1/topics"] {
        let (get, head) = (http.get(path), http.send("HEAD", path, &[], b""));
        assert_eq!((get.status, head.status, head.body.len()), (200, 200, 0), "{path}");
        assert_eq!(get.header("content-type"), head.header("content-type"));
    }
    assert_eq!((http.get("/healthz").text(), http.get("/readyz").text()), ("ok", "ready"));
    for path in ["/metrics", "/openapi.json", "/v1/stats", "/nope", "/healthz", "/v1/broadcast"] {
        let response = http.get(path);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(response.header(name), Some(value), "{path}");
        }
    }
    let page = http.get("/");
    assert_eq!(
        (page.header("x-content-type-options"), page.header("cache-control")),
        (Some("nosniff"), Some("no-cache"))
    );
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
}

#[test]
fn what_is_no_http_is_refused_and_leaves_the_others_alone() {
    let plane = Plane::hub();
    for bytes in [&b"\0\xff\xfe nonsense\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"SUB news\r\n\r\n"] {
        use std::io::Write;
        let mut http = plane.http();
        http.stream.write_all(bytes).unwrap();
        assert!(http.head().starts_with("HTTP/1.1 400 "));
        assert!(http.is_closed());
    }
    let mut http = plane.http();
    http.write("GET", &format!("/{}", "x".repeat(70_000)), &[], b"");
    let status = http.head();
    assert!(status.starts_with("HTTP/1.1 414 ") || status.starts_with("HTTP/1.1 431 "), "{status}");
    assert_eq!(plane.http().get("/healthz").status, 200);
}

#[test]
fn two_control_planes_may_serve_one_server_and_end_on_their_own() {
    let plane = Plane::hub();
    let second = plane.second();
    let mut client = plane.client(Framing::Line);
    client.ask("SUB a");
    let addr = second.addr();
    assert_eq!(super::http::Http::connect(addr).post("/v1/broadcast?receipt=true", "x").json()["matched"], json!(1));
    second.stop();
    assert!(std::net::TcpStream::connect(addr).is_err());
    assert_eq!(plane.http().post("/v1/broadcast?receipt=true", "y").json()["matched"], json!(1));
}
