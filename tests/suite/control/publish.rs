//! Publishing one message, and many.

use std::io::Write;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use corecast::control::ControlLimits;
use corecast::{Context, DropReason, Framing, Handler, Kind, SlowConsumer};
use serde_json::{Value, json};

use super::{Plane, config};
use crate::support::http::{BINARY, HttpClient, TEXT};
use crate::support::{Fixture, everywhere, wait_until};

#[test]
fn a_message_reaches_a_topic_everyone_or_one_connection() {
    let plane = Plane::hub();
    let mut clients = everywhere(&plane, 2);
    let all = clients.len() as u64;
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("SUB a"), "OK SUB a"));
    let mut http = plane.http();

    let accepted = http.post("/v1/topics/a/messages", "one");
    assert_eq!(accepted.status, 202);
    assert!(accepted.json()["id"].as_str().unwrap().parse::<u64>().unwrap() > 1 << 53);
    let receipt = http.post("/v1/topics/a/messages?receipt=true", "two");
    assert_eq!(receipt.status, 200);
    let receipt = receipt.json();
    assert_eq!((&receipt["matched"], &receipt["written"], &receipt["queued"]), (&json!(all), &json!(all), &json!(0)));
    assert_eq!(receipt["shards"], json!(2));
    assert!(receipt["first_write_us"].as_u64().unwrap() <= receipt["last_write_us"].as_u64().unwrap());
    let dropped = receipt["dropped"].as_object().unwrap();
    assert_eq!(dropped.len(), DropReason::ALL.len());
    assert!(dropped.values().all(|count| *count == json!(0)));
    assert_eq!(http.post("/v1/broadcast?receipt=true", "three").json()["matched"], json!(all));
    for client in &mut clients {
        assert_eq!([client.recv(), client.recv(), client.recv()], ["MSG a one", "MSG a two", "ALL three"]);
    }
    for client in &mut clients {
        let id = client.id();
        let sent = http.post(&format!("/v1/connections/{id}/messages?receipt=true"), "four").json();
        assert_eq!((&sent["matched"], &sent["shards"]), (&json!(1), &json!(1)));
        assert_eq!(client.recv(), "SELF four");
    }
    let nobody = http.post("/v1/topics/nobody/messages?receipt=true", "").json();
    assert_eq!((&nobody["matched"], &nobody["first_write_us"]), (&json!(0), &Value::Null));
}

/// Responses go out together, and none of them waits for a request that is not whole.
#[test]
fn requests_in_a_pipeline_are_answered_in_order_though_the_next_one_is_not_whole() {
    let plane = Plane::hub();
    let mut client = plane.client(Framing::Line);
    assert_eq!(client.ask("SUB a"), "OK SUB a");
    let mut http = plane.http();
    let headers = http.headers.clone();
    let request = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let path = "/v1/topics/a/messages";
    let numbers = 0..40;
    let mut sent: String = numbers.clone().map(|number| request(path, &number.to_string())).collect();
    sent += &request(&format!("{path}?receipt"), "receipt");
    let last = request(path, "last");
    let (begun, rest) = last.split_at(last.len() - 20);
    sent += begun;
    http.stream.write_all(sent.as_bytes()).unwrap();
    for number in numbers {
        assert_eq!(http.response(false).status, 202);
        assert_eq!(client.recv(), format!("MSG a {number}"));
    }
    assert_eq!(http.response(false).json()["written"], 1);
    assert_eq!(client.recv(), "MSG a receipt");
    http.stream.write_all(rest.as_bytes()).unwrap();
    assert_eq!(http.response(false).status, 202);
    assert_eq!(client.recv(), "MSG a last");
}

#[test]
fn any_bytes_and_any_topic_go_through() {
    let plane = Plane::hub();
    let mut client = plane.client(Framing::Length);
    let mut http = plane.http();
    for (topic, path) in [
        ("a/b", "a%2Fb"),
        ("été", "%C3%A9t%C3%A9"),
        ("50%", "50%25"),
        ("?#&+", "%3F%23&+"),
        ("\u{1f980}", "%F0%9F%A6%80"),
        ("..", "%2E%2E"),
    ] {
        assert_eq!(client.ask(format!("SUB {topic}")), format!("OK SUB {topic}"));
        let payload: Vec<u8> = (0..=255).collect();
        let receipt = http.post(&format!("/v1/topics/{path}/messages?receipt=true"), &payload).json();
        assert_eq!(receipt["written"], json!(1), "{topic}");
        let expected = [format!("MSG {topic} ").as_bytes(), &payload].concat();
        assert_eq!(client.recv_bytes(), expected, "{topic}");
    }
    for bad in ["a%20b", "%0A", "%FF", &"x".repeat(256), "%E2%80%83"] {
        http.post(&format!("/v1/topics/{bad}/messages"), "x").is_problem(400, "bad-topic");
    }
    for (bad, said) in [
        ("receipt=", "receipt is ``; write receipt=true or receipt=false"),
        ("receipt=maybe", "receipt is `maybe`; write receipt=true"),
        ("reciept=true", "no parameter `reciept` here; this call takes receipt"),
        ("receipt[]=true", "no parameter `receipt[]`"),
        ("receipt=true&receipt=true", "`receipt` appears more than once"),
        ("receipt=%FF", "not UTF-8"),
    ] {
        let refused = http.post(&format!("/v1/broadcast?{bad}"), "x");
        refused.is_problem(400, "bad-query");
        assert!(refused.text().contains(said), "{}", refused.text());
    }
    for bad in ["Corecast-Slow-Consumer: later", "Corecast-Slow-Consumer:", "Corecast-Slow-Consumer: SKIP"] {
        http.send("POST", "/v1/broadcast", &[bad], b"x").is_problem(400, "bad-policy");
    }
    assert_eq!(plane.sum(|shard| shard.publishes.get()), 12, "nothing of what was refused was published");
}

#[test]
fn a_flag_is_understood_as_people_write_it() {
    let plane = Plane::hub();
    let mut http = plane.http();
    for (query, status) in [
        ("receipt", 200),
        ("receipt=1", 200),
        ("receipt=yes", 200),
        ("receipt=True", 200),
        ("receipt=on", 200),
        ("receipt=0", 202),
        ("receipt=no", 202),
        ("receipt=False", 202),
        ("&", 202),
    ] {
        assert_eq!(http.post(&format!("/v1/broadcast?{query}"), "x").status, status, "{query}");
    }
}

#[test]
fn a_topic_may_be_named_in_the_query_whatever_its_name() {
    let plane = Plane::hub();
    let mut client = plane.client(Framing::Length);
    let mut http = plane.http();
    for (topic, value) in [
        ("a/b", "a/b"),
        ("a//b/", "a%2F%2Fb%2F"),
        (".", "."),
        ("..", ".."),
        ("../x", "../x"),
        ("a+b", "a%2Bb"),
        ("?#&", "?%23%26"),
        ("é", "%C3%A9"),
    ] {
        assert_eq!(client.ask(format!("SUB {topic}")), format!("OK SUB {topic}"));
        let receipt = http.post(&format!("/v1/topic/messages?receipt=1&name={value}"), "x").json();
        assert_eq!(receipt["written"], json!(1), "{topic}");
        assert_eq!(client.recv(), format!("MSG {topic} x"));
        let found = http.get(&format!("/v1/topic?name={value}")).json();
        assert_eq!((&found["topic"], &found["subscribers"]), (&json!(topic), &json!(1)));
        let headers = ["Content-Type: application/x-www-form-urlencoded"];
        let body = br#"{"slow_consumer":"keep-latest"}"#;
        let set = http.send("PUT", &format!("/v1/topic?name={value}"), &headers, body).json();
        assert_eq!(set["slow_consumer"], "keep-latest", "{topic}");
    }
    assert_eq!(http.post("/v1/topic/messages?name=a", "x").status, 202);
    for bad in ["", "?name", "?name=", "?topic=a", "?name=a&name=b", "?name=a+b", "?name=%FF"] {
        assert_eq!(http.post(&format!("/v1/topic/messages{bad}"), "x").status, 400, "{bad}");
        assert_eq!(http.get(&format!("/v1/topic{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn the_content_type_says_whether_a_message_is_text() {
    let plane = Plane::hub();
    let mut words = HttpClient::websocket(plane.server.addr(Framing::Http), "/ws?topic=a", "");
    let mut objects = HttpClient::websocket(plane.server.addr(Framing::Http), "/ws?topic=a", "corecast.v1.json");
    words.recv();
    objects.recv();
    let mut http = plane.http();
    let cases: [(&[&str], Option<Kind>); 9] = [
        (&["Content-Type: text/plain"], Some(Kind::Text)),
        (&["Content-Type: application/json; charset=utf-8"], Some(Kind::Text)),
        (&["Content-Type: application/vnd.x+json"], Some(Kind::Text)),
        (&["Content-Type: application/octet-stream"], Some(Kind::Binary)),
        (&["Content-Type: application/protobuf"], Some(Kind::Binary)),
        (&["Content-Type: image/png"], Some(Kind::Binary)),
        // What curl sends by itself, and nothing.
        (&["Content-Type: application/x-www-form-urlencoded"], None),
        (&["Content-Type: "], None),
        (&[], None),
    ];
    for (headers, said) in cases {
        for payload in [&b"text"[..], b"", b"\xff"] {
            let is_utf8 = std::str::from_utf8(payload).is_ok();
            let answer = http.send("POST", "/v1/topics/a/messages", headers, payload);
            if said == Some(Kind::Text) && !is_utf8 {
                answer.is_problem(400, "bad-body");
                continue;
            }
            assert_eq!(answer.status, 202, "{headers:?}");
            let is_text = is_utf8 && said != Some(Kind::Binary);
            let message = [b"MSG a ", payload].concat();
            assert_eq!(words.recv_frame(), (if is_text { TEXT } else { BINARY }, message), "{headers:?}");
            let field = if is_text { "\"payload\":" } else { "\"payload_base64\":" };
            let object = objects.recv();
            assert!(object.contains(field), "{headers:?}: {object}");
        }
    }
    let binary = ["Content-Type: application/octet-stream"];
    assert_eq!(http.send("POST", "/v1/broadcast", &binary, b"x").status, 202);
    assert_eq!(words.recv_frame(), (BINARY, b"ALL x".to_vec()));
    let id = words.ask("ID").split_off(3);
    assert_eq!(http.send("POST", &format!("/v1/connections/{id}/messages"), &binary, b"x").status, 202);
    assert_eq!(words.recv_frame(), (BINARY, b"SELF x".to_vec()));
    let lines = "\u{feff}{\"topic\":\"a\",\"payload\":\"x\"}\r\n{\"topic\":\"a\",\"payload_base64\":\"eA==\"}\n\
                 {\"topic\":\"a\",\"payload\":\"\\ud83d\"}\n{\"topic\":\"a,b\",\"payload\":\"x\"}\n";
    let answer = http.send("POST", "/v1/batch", &["Content-Type: application/x-ndjson"], lines.as_bytes());
    let answers = String::from_utf8(answer.body).unwrap();
    let answers: Vec<_> = answers.lines().collect();
    assert!(answers[0].contains("\"id\"") && answers[1].contains("\"id\""), "{answers:?}");
    assert!(answers[2].contains("bad-body") && answers[2].contains("half of a surrogate pair"), "{answers:?}");
    assert!(answers[3].contains("bad-topic") && answers[3].contains("comma"), "{answers:?}");
    assert_eq!(words.recv_frame(), (TEXT, b"MSG a x".to_vec()));
    assert_eq!(words.recv_frame(), (BINARY, b"MSG a x".to_vec()));
}

#[test]
fn a_topic_that_clients_cannot_subscribe_to_is_refused() {
    let plane = Plane::over(Fixture::hub(settings! { topic_bytes_max: 8, ..config() }));
    let mut http = plane.http();
    assert_eq!(http.post("/v1/topics/12345678/messages", "x").status, 202);
    http.post("/v1/topics/123456789/messages", "x").is_problem(400, "bad-topic");
}

#[test]
fn a_body_that_is_too_large_is_refused_whether_it_tells_its_length_or_not() {
    let plane = Plane::over(Fixture::hub(settings! { max_message: 1024, ..config() }));
    let mut client = plane.client(Framing::Length);
    client.ask("PING");
    let mut http = plane.http();
    assert_eq!(http.post("/v1/broadcast?receipt=true", [b'x'; 1024]).json()["written"], json!(1));
    assert_eq!(client.recv_bytes().len(), "ALL ".len() + 1024);
    plane.http().post("/v1/broadcast", [b'x'; 1025]).is_problem(413, "message-too-large");
    plane.http().post("/v1/broadcast", vec![b'x'; 1 << 20]).is_problem(413, "message-too-large");
    // In chunks: its length shows only as it comes.
    use std::io::Write;
    let mut http = plane.http();
    let head = format!("POST /v1/broadcast HTTP/1.1\r\n{}Transfer-Encoding: chunked\r\n\r\n", http.headers);
    http.stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"100\r\n".as_slice(), &[b'x'; 256], b"\r\n"].concat();
    for _ in 0..5 {
        // The server may have refused by now.
        let _ = http.stream.write_all(&chunk);
    }
    http.response(false).is_problem(413, "message-too-large");
    assert_eq!(client.ask("PING"), "PONG", "nothing of it was published");
}

#[test]
fn a_policy_in_the_header_holds_for_that_message_alone() {
    let plane = Plane::over(Fixture::hub(settings! {
        queue_messages_max: 4,
        so_sndbuf: Some(4096),
        slow_consumer: SlowConsumer::Skip,
        ..config()
    }));
    let mut slow = plane.narrow_client(Framing::Length);
    assert_eq!(slow.ask("SUB a"), "OK SUB a");
    let mut http = plane.http();
    let payload = vec![b'x'; 32 * 1024];
    let path = "/v1/topics/a/messages?receipt=true";
    loop {
        let receipt = http.post(path, &payload).json();
        if receipt["dropped"]["queue-full"] == json!(1) {
            break;
        }
    }
    let headers = ["Corecast-Slow-Consumer: drop-oldest"];
    let receipt = http.send("POST", path, &headers, &payload).json();
    assert_eq!((&receipt["queued"], &receipt["dropped"]["queue-full"]), (&json!(1), &json!(0)), "{receipt}");
    assert_eq!(http.post(path, &payload).json()["dropped"]["queue-full"], json!(1));
}

/// Blocks its shard on a message until the test lets it go.
struct Blocker(Arc<Mutex<mpsc::Receiver<()>>>);

impl Handler for Blocker {
    fn on_message(&mut self, cx: &mut Context<'_>, _: &[u8]) {
        let _ = cx.send(b"blocking");
        // The end of the test lets it go too.
        let _ = self.0.lock().unwrap().recv();
    }
}

#[test]
fn while_a_shard_is_behind_publishes_are_refused_whole() {
    let (release, blocked) = mpsc::channel();
    let blocked = Arc::new(Mutex::new(blocked));
    let server = Fixture::start(settings! { control_queue: 1, ..config() }, move |_| Blocker(Arc::clone(&blocked)));
    let limits = settings! { answer_time: Duration::from_millis(50), ..ControlLimits::default() };
    let plane = Plane::limited(server, limits);
    // One shard is blocked, so what the clients of both get tells whether a publish was made by halves.
    let mut clients = everywhere(&plane, 1);
    clients[0].send("block");
    wait_until("the shard is blocked", || plane.sum(|shard| shard.messages_in.get()) == 1);

    let mut http = plane.http();
    let mut accepted = 0;
    let refused = loop {
        let response = http.post("/v1/broadcast", "x");
        match response.status {
            202 => accepted += 1,
            _ => break response,
        }
        assert!(accepted <= 2, "the queue of the blocked shard holds one");
    };
    refused.is_problem(503, "busy");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // The queue is full, so every publish to that shard is refused. The rest of the API goes on.
    http.post("/v1/broadcast?receipt=true", "x").is_problem(503, "busy");
    // A question has a place of its own, and that is taken from then on.
    http.get("/v1/topics").is_problem(504, "late");
    http.get("/v1/topics").is_problem(503, "busy");
    let headers = ["Content-Type: application/x-ndjson"];
    let response = http.send("POST", "/v1/batch", &headers, b"{\"broadcast\":true,\"payload\":\"x\"}\n");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert!(response.text().contains("\"busy\""), "{}", response.text());
    assert_eq!(http.get("/v1/stats").status, 200);
    assert_eq!(http.get("/metrics").status, 200);

    release.send(()).unwrap();
    assert_eq!(clients[0].recv(), "blocking");
    for client in &mut clients {
        for _ in 0..accepted {
            assert_eq!(client.recv(), "x", "what was accepted reached both shards");
        }
    }
    wait_until("publishes are taken again", || http.post("/v1/broadcast", "last").status == 202);
    let next: Vec<_> = clients.iter_mut().map(|client| client.recv()).filter(|text| text != "blocking").collect();
    assert!(next.iter().all(|text| text == "last"), "what was refused reached nobody: {next:?}");
    drop(release);
}

#[test]
fn a_receipt_that_does_not_come_is_late_and_names_the_publish() {
    let (release, blocked) = mpsc::channel();
    let blocked = Arc::new(Mutex::new(blocked));
    let server = Fixture::start(config(), move |_| Blocker(Arc::clone(&blocked)));
    let limits = settings! { answer_time: Duration::from_millis(50), ..ControlLimits::default() };
    let plane = Plane::limited(server, limits);
    let mut client = plane.client(Framing::Line);
    client.send("block");
    wait_until("the shard is blocked", || plane.sum(|shard| shard.messages_in.get()) == 1);
    let mut http = plane.http();
    let late = http.post("/v1/broadcast?receipt=true", "x");
    late.is_problem(504, "late");
    assert!(late.json()["id"].as_str().is_some_and(|id| id.parse::<u64>().is_ok()));
    http.get("/v1/topics").is_problem(504, "late");
    drop(release);
    assert_eq!((client.recv(), client.recv()), ("blocking".into(), "x".into()), "it was accepted, and arrived");
}

/// Sends a batch and returns the lines of the answer.
#[track_caller]
fn batch(plane: &Plane, query: &str, lines: impl AsRef<[u8]>) -> Vec<Value> {
    let headers = ["Content-Type: application/x-ndjson"];
    let response = plane.http().send("POST", &format!("/v1/batch{query}"), &headers, lines.as_ref());
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/x-ndjson")));
    response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_batch_answers_each_line_and_goes_on_behind_a_bad_one() {
    let plane = Plane::hub();
    let mut client = plane.client(Framing::Length);
    assert_eq!(client.ask("SUB a"), "OK SUB a");
    let id = client.id();
    let lines = format!(
        r#"{{"topic":"a","payload":"one"}}
nonsense
{{"broadcast":true,"payload_base64":"AAH/"}}

{{"connection":"{id}","payload":"two","slow_consumer":"disconnect"}}
{{"topic":"a b","payload":"x"}}
{{"topic":"a"}}
{{"topic":"a","payload":"x","payload_base64":""}}
{{"topic":"a","broadcast":true,"payload":"x"}}
{{"payload":"x"}}
{{"connection":"99","payload":"x"}}
{{"connection":"me","payload":"x"}}
{{"topic":"a","payload_base64":"?"}}
{{"topic":"a","payload":"x","slow_consumer":"later"}}
{{"topic":"a","payload":"x","extra":1}}
{{"topic":"a","payload":"{long}"}}
{{"topic":"a","payload":"three"}}"#,
        long = "x".repeat(64 * 1024 + 1),
    );
    let answers = batch(&plane, "?receipt=true", &lines);
    let codes: Vec<_> = answers.iter().map(|answer| answer["code"].as_str().unwrap_or("ok")).collect();
    let body = "bad-body";
    assert_eq!(
        codes,
        [
            "ok",
            body,
            "ok",
            body,
            "ok",
            "bad-topic",
            body,
            body,
            body,
            body,
            "no-connection",
            "bad-connection-id",
            body,
            body,
            body,
            "message-too-large",
            "ok"
        ]
    );
    for answer in answers.iter().filter(|answer| answer["code"].is_null()) {
        assert_eq!((&answer["matched"], &answer["written"]), (&json!(1), &json!(1)));
    }
    for expected in [b"MSG a one".as_slice(), b"ALL \0\x01\xff", b"SELF two", b"MSG a three"] {
        assert_eq!(client.recv_bytes(), expected);
    }
    let accepted = batch(&plane, "", "{\"topic\":\"a\",\"payload\":\"\"}\n");
    assert_eq!(accepted[0].as_object().unwrap().len(), 1, "an id and nothing else");
    assert!(batch(&plane, "", "").is_empty());
    plane
        .http()
        .send("POST", "/v1/batch", &["Content-Type: text/css"], b"{}")
        .is_problem(415, "unsupported-media-type");
    let headers = ["Content-Type: application/x-ndjson"];
    for large in [b"\n".repeat(10_002), b"{}".repeat(10_001)] {
        plane.http().send("POST", "/v1/batch", &headers, &large).is_problem(413, "message-too-large");
    }
}

#[test]
fn a_batch_as_curl_sends_it_is_understood() {
    let plane = Plane::hub();
    let mut client = plane.client(Framing::Length);
    assert_eq!(client.ask("SUB a"), "OK SUB a");
    // Without --data-binary curl takes the line feeds out of a file.
    let body = "{\"topic\":\"a\",\"payload\":\"1\"}{\"topic\":\"a\",\"payload\":\"}{\"}\r {\"broadcast\":true,\"payload\":\"3\"}";
    for kind in ["application/x-www-form-urlencoded", "text/plain; charset=utf-8", "application/json"] {
        let header = format!("Content-Type: {kind}");
        let response = plane.http().send("POST", "/v1/batch", &[&header], body.as_bytes());
        assert_eq!((response.status, response.text().lines().count()), (200, 3), "{}", response.text());
        assert_eq!([client.recv(), client.recv(), client.recv()], ["MSG a 1", "MSG a }{", "ALL 3"]);
    }
    let id: u64 = client.id().to_string().parse().unwrap();
    let response = batch(&plane, "", format!("\u{feff}{{\"connection\":{id},\"payload\":\"x\"}}\r\n"));
    assert!(response[0]["id"].is_string(), "{response:?}");
    assert_eq!(client.recv(), "SELF x");
}

#[test]
fn a_batch_of_which_nothing_was_published_says_so_by_its_status_and_why_line_by_line() {
    let plane = Plane::hub();
    let headers = ["Content-Type: application/x-ndjson"];
    for (line, said) in [
        (" ", "the line is empty"),
        ("hello", "the line is not JSON (expected value at byte 1)"),
        ("{\"topic\":\"a\"", "must stand on one line"),
        ("[{\"topic\":\"a\",\"payload\":\"x\"}]", "write each object on a line of its own"),
        ("7", "the line is not an object"),
        ("{\"topic\":\"a\",\"message\":\"x\"}", "there is no key \"message\" in a line, only topic, "),
        ("{\"topic\":7,\"payload\":\"x\"}", "\"topic\" must be text"),
        ("{\"topic\":\"a\",\"payload\":{\"x\":1}}", "\"payload\" must be text"),
        ("{\"broadcast\":\"yes\",\"payload\":\"x\"}", "\"broadcast\" must be true or false"),
        ("{\"topic\":\"a\",\"payload\":\"x\",\"slow_consumer\":\"later\"}", "\"slow_consumer\" must be skip, "),
        ("{\"topic\":\"a\",\"payload\":\"x\"}nonsense", "the line is not JSON (trailing characters"),
        ("{\"topic\":\"a\"}", "a line has one payload: "),
        ("{\"payload\":\"a\"}", "a line has one target: "),
    ] {
        let response = plane.http().send("POST", "/v1/batch", &headers, format!("{line}\n").as_bytes());
        assert_eq!((response.status, response.header("content-type")), (400, Some("application/x-ndjson")), "{line}");
        let answer: Value = serde_json::from_str(response.text().lines().next().unwrap()).unwrap();
        assert_eq!(answer["code"], "bad-body", "{line}");
        assert!(answer["detail"].as_str().unwrap().contains(said), "{line}: {answer}");
    }
    let half = "{\"topic\":\"a\",\"payload\":\"x\"}\nnonsense\n";
    assert_eq!(plane.http().send("POST", "/v1/batch", &headers, half.as_bytes()).status, 200);
}

#[test]
fn a_batch_that_outruns_the_shards_waits_for_them() {
    let plane = Plane::over(Fixture::hub(settings! { control_queue: 4, publish_queue: 4, ..config() }));
    let mut client = plane.client(Framing::Line);
    assert_eq!(client.ask("SUB a"), "OK SUB a");
    let lines: String = (0..100).map(|n| format!("{{\"topic\":\"a\",\"payload\":\"{n}\"}}\n")).collect();
    let reader = std::thread::spawn(move || (0..100).map(|_| client.recv()).collect::<Vec<_>>());
    let answers = batch(&plane, "?receipt=true", lines);
    assert!(answers.iter().all(|answer| answer["matched"] == json!(1)), "{answers:?}");
    assert_eq!(reader.join().unwrap(), (0..100).map(|n| format!("MSG a {n}")).collect::<Vec<_>>());
}
