use super::*;
use crate::protocol::http::tests::upgrade;
use proptest::prelude::*;

const HELP: &str = "what there is\n";

/// As a push server has them.
fn routes() -> Routes {
    let socket = WebSocket::new()
        .subprotocol("corecast.v1", Dialect::Text)
        .subprotocol("corecast.v1.json", Dialect::Json)
        .topics(Topics::Checked);
    let events = Events::new().topics(Topics::Required);
    Routes::new().websocket("/ws", socket).events("/sse", events).help(HELP).missing("/demo", "--demo serves it")
}

fn site(allow_origin: &[&str]) -> Site {
    let allow_origin = allow_origin.iter().map(|text| text.parse().unwrap()).collect();
    let host = vec!["push.example".parse().unwrap()];
    Site::new(&Config { allow_origin, host, topics_per_connection_max: 3, ..Config::default() }, routes())
}

/// An outcome that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    Incomplete,
    Open { encoding: Encoding, subprotocol: Option<String>, topics: Vec<String>, response: String, consumed: usize },
    Answer(String),
    Foreign { answer: String, text: String },
}

fn respond(bytes: &[u8], scanned: usize, site: &Site, draining: bool) -> Kept {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match site.respond(bytes, scanned, &mut Fields::default(), 7, draining) {
        Outcome::Incomplete => Kept::Incomplete,
        Outcome::Open(Opening { head, encoding, subprotocol, topics, response, .. }) => Kept::Open {
            encoding,
            subprotocol: subprotocol.map(str::to_owned),
            topics,
            response: text(response),
            consumed: head.consumed,
        },
        Outcome::Answer(answer) => Kept::Answer(text(answer)),
        Outcome::Foreign { answer, text: why } => Kept::Foreign { answer: text(answer), text: why },
    }
}

fn respond_to(request: &str, site: &Site) -> Kept {
    respond(request.as_bytes(), 0, site, false)
}

/// The answer to a request that opens nothing, as text.
#[track_caller]
fn answer_to(request: &str) -> String {
    answer_of(respond_to(request, &site(&[])))
}

#[track_caller]
fn answer_of(outcome: Kept) -> String {
    let (Kept::Answer(text) | Kept::Foreign { answer: text, .. }) = outcome else { panic!("{outcome:?}") };
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
        Kept::Open { encoding, subprotocol, topics, response, consumed } => {
            assert_eq!(consumed, request.len());
            let named = response.split_once("\r\nSec-WebSocket-Protocol: ").map(|(_, rest)| rest);
            assert_eq!(named.and_then(|rest| rest.lines().next()), subprotocol.as_deref());
            (encoding, topics, response)
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
fn compression_is_agreed_upon_where_it_is_offered_and_switched_on() {
    let open = |offer: &str, protocol: &str, deflate: bool| {
        let site = Site::new(&Config { deflate, ..Config::default() }, routes());
        let fields = [("Sec-WebSocket-Protocol", protocol), ("Sec-WebSocket-Extensions", offer)];
        let (encoding, _, response) = opened(&upgrade("/ws", &fields), &site);
        let said = response.split_once("\r\nSec-WebSocket-Extensions: ").map(|(_, rest)| rest);
        (encoding, said.and_then(|rest| rest.lines().next()).map(str::to_owned))
    };
    let said = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offer, words, objects, more) in [
        ("permessage-deflate", Encoding::WebSocketWide, Encoding::WebSocketWideJson, ""),
        (
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            Encoding::WebSocketNarrow,
            Encoding::WebSocketNarrowJson,
            "; server_max_window_bits=9",
        ),
    ] {
        let said = Some(format!("{said}{more}"));
        assert_eq!(open(offer, "corecast.v1", true), (words, said.clone()), "{offer}");
        assert_eq!(open(offer, "corecast.v1.json", true), (objects, said), "{offer}");
        assert_eq!(open(offer, "corecast.v1", false), (Encoding::WebSocket, None), "{offer}");
        assert_eq!(open(offer, "corecast.v1.json", false), (Encoding::WebSocketJson, None), "{offer}");
    }
    assert_eq!(open("permessage-deflate; server_max_window_bits=7", "corecast.v1", true), (Encoding::WebSocket, None));
    let answer = answer_to(&upgrade("/ws", &[("Sec-WebSocket-Extensions", "permessage-deflate; =")]));
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("Sec-WebSocket-Extensions"), "{answer}");
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
    assert_eq!(head, Kept::Answer(format!("{}\r\n\r\n", response.split_once("\r\n\r\n").unwrap().0)));
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
            Kept::Open { .. } => assert!(allowed, "{origin}"),
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
fn the_fields_of_an_answer_are_ascii_whatever_the_origin() {
    let request = "GET /sse?all HTTP/1.1\r\nHost: x\r\nOrigin: https://b\u{fc}cher.good.example\r\n\r\n";
    let (_, _, response) = opened(request, &site(&["https://*.good.example"]));
    assert!(response.is_ascii() && response.contains("\r\nVary: Origin\r\n"), "{response}");
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
        answer_of(respond(request.as_bytes(), 0, &site(&[]), draining))[9..12].to_owned()
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
    assert!(matches!(respond(open.as_bytes(), 0, &site(&[]), true), Kept::Open { .. }));
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
        let Kept::Foreign { answer, text } = ask("/sse?all", "evil.example:8080", evil, allow) else { panic!() };
        assert!(answer.starts_with("HTTP/1.1 403 "));
        assert!(
            text.contains("--host evil.example,") && text.contains("--allow-origin http://evil.example:8080"),
            "{text}"
        );
        let mut head = upgrade("/ws", &[("Host", "evil.example:8080"), ("Origin", "http://evil.example:8080")]);
        assert!(matches!(respond_to(&head, &site(allow)), Kept::Foreign { .. }));
        head = head.replace("evil.example", "push.example");
        opened(&head, &site(allow));
    }
    // A browser leaves the origin out when a page asks the site that it came from.
    let browser = "Accept-Language: en\r\n";
    let Kept::Foreign { text, .. } = ask("/sse?all", "evil.example:8080", browser, &[]) else { panic!() };
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
        assert!(matches!(ask("/sse?all", host, fields, allow), Kept::Open { .. }), "{host} {fields}");
    }
    for fields in ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n"] {
        assert!(matches!(ask("/sse?all", "localhost", fields, &[]), Kept::Foreign { .. }), "{fields}");
    }
    assert!(matches!(ask("/sse?all", "evil.example", "Sec-Fetch-Site: same-origin\r\n", &[]), Kept::Foreign { .. }));
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
            Kept::Open { .. } => assert!(allowed, "{request}"),
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
    let Kept::Foreign { answer, text } = respond_to(request, &site(&[])) else { panic!() };
    assert!(text.is_ascii() && answer.is_ascii() && text.contains("\\u{202e}"), "{text}");
    let long = format!("GET /sse?all HTTP/1.1\r\nHost: x\r\nOrigin: https://{}\r\n\r\n", "a".repeat(9_000));
    let Kept::Foreign { text, .. } = respond_to(&long, &site(&[])) else { panic!() };
    assert!(text.len() < 1_000, "{text}");
}

#[test]
fn a_request_that_is_too_large_or_not_whole_leads_nowhere() {
    let site = Site::new(&Config { head_bytes_max: 1_024, ..Config::default() }, routes());
    assert_eq!(respond_to("GET / HTTP/1.1\r\nHost: x\r\n", &site), Kept::Incomplete);
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n", "c".repeat(1_024));
    assert!(answer_of(respond_to(&large, &site)).starts_with("HTTP/1.1 431 "));
    // An answer to HEAD has no body, whatever is wrong.
    assert!(answer_to("HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
}

/// A site with the default settings and these routes.
fn site_of(routes: Routes) -> Site {
    Site::new(&Config::default(), routes)
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[test]
fn a_declared_path_is_served_and_another_is_told_what_there_is() {
    let site = site_of(Routes::new().websocket("/rooms/*", WebSocket::new()).events("/feed", Events::new()));
    assert_eq!(opened(&upgrade("/rooms/42?a=b", &[]), &site).0, Encoding::WebSocket);
    assert_eq!(opened(&get("/feed"), &site).0, Encoding::Sse);
    let front = answer_of(respond_to(&get("/"), &site));
    assert!(front.starts_with("HTTP/1.1 200 ") && front.contains("\n  /rooms/* ") && front.contains("\n  /feed "));
    for path in ["/ws", "/sse", "/demo", "/rooms/", "/rooms", "/feed/"] {
        let answer = answer_of(respond_to(&upgrade(path, &[]), &site));
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("/ lists what there is\n"), "{answer}");
    }
    // With a front page of its own, nothing else tells.
    let page = Page::html("hello").header("Content-Security-Policy", "default-src 'none'");
    let own = site_of(Routes::new().websocket("/rooms/*", WebSocket::new()).page("/", page));
    let answer = answer_of(respond_to(&get("/ws"), &own));
    assert!(answer.ends_with("there is nothing here; there is /rooms/*, /\n"), "{answer}");
    let front = answer_of(respond_to(&get("/"), &own));
    assert!(front.contains("\r\nContent-Type: text/html; charset=utf-8\r\n") && front.ends_with("\r\n\r\nhello"));
    assert!(front.contains("\r\nContent-Security-Policy: default-src 'none'\r\n"), "{front}");
    let head = answer_of(respond_to(&get("/").replace("GET", "HEAD"), &own));
    assert!(head.contains("\r\nContent-Length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_draining_server_says_so_at_its_front_page_and_opens_what_is_there_instead() {
    let open = site_of(Routes::new().websocket("/", WebSocket::new()));
    assert!(matches!(respond(upgrade("/", &[]).as_bytes(), 0, &open, true), Kept::Open { .. }));
    let page = site_of(Routes::new().page("/", Page::text("hello")));
    assert_eq!(answer_of(respond(get("/").as_bytes(), 0, &page, true))[9..12], *"503");
}

#[test]
fn subprotocols_are_those_that_are_declared() {
    let with = |offer: &str, route: WebSocket| {
        let site = site_of(Routes::new().websocket("/ws", route));
        respond_to(&upgrade("/ws", &[("Sec-WebSocket-Protocol", offer)]), &site)
    };
    let one = || WebSocket::new().subprotocol("chat.v1", Dialect::Json);
    for (offer, route, agreed) in [
        ("", WebSocket::new(), (Encoding::WebSocket, None)),
        ("", one(), (Encoding::WebSocket, None)),
        ("chat.v1", one(), (Encoding::WebSocketJson, Some("chat.v1"))),
        ("other, chat.v1", one().subprotocol_required(), (Encoding::WebSocketJson, Some("chat.v1"))),
    ] {
        let outcome = with(offer, route);
        let Kept::Open { encoding, subprotocol, .. } = outcome else { panic!("{offer}: {outcome:?}") };
        assert_eq!((encoding, subprotocol.as_deref()), agreed, "{offer}");
    }
    for (offer, route, told) in [
        ("chat.v1", WebSocket::new(), "no subprotocol is spoken here"),
        ("CHAT.v1", one(), "the subprotocol spoken here is chat.v1"),
        ("", one().subprotocol_required(), "the subprotocol spoken here is chat.v1"),
        ("a", one().subprotocol("b", Dialect::Text), "the subprotocols spoken here are chat.v1 and b"),
    ] {
        let answer = answer_of(with(offer, route));
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(told), "{offer}: {answer}");
    }
}

#[test]
fn a_route_says_what_is_made_of_its_query() {
    let ask = |query: &str, topics: Topics| {
        let events = Events::new().topics(topics);
        let site = site_of(Routes::new().websocket("/ws", WebSocket::new().topics(topics)).events("/feed", events));
        let outcomes = [
            respond_to(&upgrade(&format!("/ws?{query}"), &[]), &site),
            respond_to(&get(&format!("/feed?{query}")), &site),
        ];
        let [one, other] = outcomes.map(|outcome| match outcome {
            Kept::Open { topics, .. } => Ok(topics.join(" ")),
            refused => Err(answer_of(refused)[9..12].to_owned()),
        });
        assert_eq!(one, other, "{query}");
        one
    };
    let (ok, bad) = (|topics: &str| Ok(topics.to_owned()), Err("400".to_owned()));
    for (query, ignored, read, checked, required) in [
        ("topic=a&topic=b", ok(""), ok("a b"), ok("a b"), ok("a b")),
        ("", ok(""), ok(""), ok(""), bad.clone()),
        ("token=x", ok(""), ok(""), ok(""), bad.clone()),
        ("all", ok(""), ok(""), ok(""), ok("")),
        ("all=news", ok(""), ok(""), bad.clone(), bad.clone()),
        ("room=42", ok(""), ok(""), bad.clone(), bad.clone()),
        ("topic=a,b", ok(""), bad.clone(), bad.clone(), bad.clone()),
        ("topic=", ok(""), bad.clone(), bad.clone(), bad.clone()),
    ] {
        assert_eq!(ask(query, Topics::Ignored), ignored, "{query}");
        assert_eq!(ask(query, Topics::Read), read, "{query}");
        assert_eq!(ask(query, Topics::Checked), checked, "{query}");
        assert_eq!(ask(query, Topics::Required), required, "{query}");
    }
    let rooms = Routes::new().websocket("/rooms/*", WebSocket::new().topics(Topics::Required));
    let answer = answer_of(respond_to(&upgrade("/rooms/\u{202e}7", &[]), &site_of(rooms)));
    assert!(answer.contains("as in /rooms/\\u{202e}7?topic=news or "), "{answer}");
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = respond(&bytes, 0, &site(&[]), false);
        let _ = respond(&bytes, bytes.len() / 2, &site(&[]), true);
    }

    #[test]
    fn no_query_panics(query in "[ -~]{0,60}", path in "/(ws|sse)") {
        let _ = respond_to(&upgrade(&format!("{path}?{}", query.replace(' ', "+")), &[]), &site(&[]));
    }
}
