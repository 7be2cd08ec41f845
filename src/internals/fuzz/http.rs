//! The head of a request, and what is answered to it.

use std::str;
use std::sync::OnceLock;

use httparse::{EMPTY_HEADER, Request, Status};

use super::{Arrival, is_one_line};
use crate::config::{Config, HEAD_EMPTY_BYTES_MAX, HEAD_FIELDS_MAX};
use crate::internals::{Answered, Requests};
use crate::message::Topic;

/// An origin that no settings here name.
const STRANGER: &str = "https://stranger.invalid";

/// What the settings choose from.
const DRAINING: u8 = 0x08;

/// Fields of answers. A client's bytes can't add another.
const FIELDS: [&str; 20] = [
    "Access-Control-Allow-Credentials",
    "Access-Control-Allow-Headers",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Private-Network",
    "Access-Control-Max-Age",
    "Allow",
    "Cache-Control",
    "Connection",
    "Content-Length",
    "Content-Security-Policy",
    "Content-Type",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Version",
    "Upgrade",
    "Vary",
    "X-Accel-Buffering",
    "X-Content-Type-Options",
    "Retry-After",
];

struct Server {
    requests: Requests,
    config: Config,
    /// Whether pages of every origin may connect.
    is_open: bool,
}

fn servers() -> &'static [Server; 4] {
    static SERVERS: OnceLock<[Server; 4]> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let all = [(&[][..], 32 * 1024), (&["https://good.example", "https://*.good.example"], 32 * 1024)];
        let more = [(&["*"][..], 32 * 1024), (&["*", "https://good.example"], 300)];
        [all[0], all[1], more[0], more[1]].map(|(origins, head_bytes_max)| {
            let config = Config {
                allow_origin: origins.iter().map(|origin| origin.parse().expect("it is an origin")).collect(),
                host: vec!["push.example".parse().expect("it is a name")],
                head_bytes_max,
                demo: true,
                topics_per_connection_max: 4,
                topic_bytes_max: 20,
                ..Config::default()
            };
            Server { requests: Requests::new(&config), config, is_open: origins.contains(&"*") }
        })
    })
}

/// A request, in any split: it leads to the same; what is answered is HTTP, made of fields that the server knows; and no page
/// of a stranger opens anything.
pub fn http(data: &[u8]) {
    let Some(arrival) = Arrival::of(data) else { return };
    let server = &servers()[usize::from(arrival.settings) % 4];
    let draining = arrival.settings & DRAINING != 0;
    // A head that trickles in is looked at when its end is there, so there must be one.
    let bytes = [arrival.bytes, b"\r\n\r\n"].concat();
    let arrival = Arrival { bytes: &bytes, ..arrival };
    let [whole, other_splits @ ..] = arrival.splits();
    let answered = read(server, &whole, draining);
    let head = Head::of(&bytes, server.config.head_bytes_max);
    for pieces in other_splits {
        let other = read(server, &pieces, draining);
        // What is no HTTP is refused in any case; in which words depends on how much has come in when that shows.
        if head.is_some() {
            assert_eq!(other, answered);
        } else {
            assert!(is_refused(&other), "{other:?}");
        }
    }
    check(server, &answered, head.as_ref());
    if let (Answered::Open { .. }, Some(head)) = (&answered, head) {
        check_strangers(server, &bytes[..head.bytes], draining);
    }
}

/// What is to be known of a request whose head is sound, and within the bounds.
struct Head {
    bytes: usize,
    is_head: bool,
}

impl Head {
    fn of(bytes: &[u8], bytes_max: usize) -> Option<Self> {
        let mut fields = [EMPTY_HEADER; HEAD_FIELDS_MAX];
        let mut request = Request::new(&mut fields);
        let Ok(Status::Complete(head_bytes)) = request.parse(bytes) else { return None };
        let empty_bytes = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let is_within = head_bytes <= bytes_max && empty_bytes <= HEAD_EMPTY_BYTES_MAX;
        is_within.then_some(Head { bytes: head_bytes, is_head: request.method == Some("HEAD") })
    }
}

/// Reads a request that arrives in pieces, as a connection does.
fn read(server: &Server, pieces: &[&[u8]], draining: bool) -> Answered {
    let (mut held, mut scanned) = (Vec::new(), 0);
    for piece in pieces {
        held.extend_from_slice(piece);
        match server.requests.answer(&held, scanned, draining) {
            Answered::Incomplete => scanned = held.len(),
            answered => return answered,
        }
        assert!(held.len() <= server.config.head_bytes_max, "a head is bounded");
    }
    Answered::Incomplete
}

fn is_refused(answered: &Answered) -> bool {
    match answered {
        Answered::Incomplete => true,
        Answered::Open { .. } => false,
        Answered::Closed { response, .. } => {
            ["400", "431", "505"].iter().any(|status| response[9..].starts_with(status.as_bytes()))
        }
    }
}

fn check(server: &Server, answered: &Answered, head: Option<&Head>) {
    match answered {
        Answered::Incomplete => assert!(head.is_none(), "a sound head is answered"),
        Answered::Open { topics, response, consumed } => {
            assert_eq!(Some(*consumed), head.map(|head| head.bytes));
            assert!(topics.len() <= server.config.topics_per_connection_max);
            for (index, topic) in topics.iter().enumerate() {
                assert!(Topic::check(topic.as_bytes(), server.config.topic_bytes_max).is_ok(), "{topic:?}");
                assert!(!topics[..index].contains(topic), "{topic:?} is there twice");
            }
            let Response { status, body, .. } = Response::of(response);
            match status {
                101 => assert_eq!(body, ""),
                200 => assert!(body.starts_with("retry: ") && body.ends_with("\n\n"), "{body:?}"),
                status => panic!("{status} opens nothing"),
            }
        }
        Answered::Closed { response, notice } => {
            let Response { status, fields, body } = Response::of(response);
            let length = fields.iter().find(|(name, _)| *name == "Content-Length").map(|(_, length)| *length);
            let is_bodiless = head.is_some_and(|head| head.is_head);
            match length {
                Some(length) if !is_bodiless => assert_eq!(length, body.len().to_string()),
                Some(length) => assert!(body.is_empty() && length.parse::<u32>().is_ok(), "{length} {body:?}"),
                None => assert!(body.is_empty() && (status == 204 || is_bodiless), "{status} {body:?}"),
            }
            assert!(fields.contains(&("Connection", if status == 426 { "close, Upgrade" } else { "close" })));
            if status >= 400 {
                let line = body.strip_suffix('\n').unwrap_or(if is_bodiless { "" } else { "\n" });
                assert!(is_one_line(line), "{body:?}");
            }
            assert!(notice.as_ref().is_none_or(|text| status == 403 && text.is_ascii() && is_one_line(text)));
        }
    }
}

/// A page of another site opens nothing that its origin was added to, unless every page may.
fn check_strangers(server: &Server, request: &[u8], draining: bool) {
    let begin = request.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).expect("there is a request line");
    let line_end = begin + request[begin..].iter().position(|byte| *byte == b'\n').expect("a request has lines") + 1;
    let field = format!("Origin: {STRANGER}\r\n");
    let of_stranger = [&request[..line_end], field.as_bytes(), &request[line_end..]].concat();
    let answered = server.requests.answer(&of_stranger, 0, draining);
    assert!(server.is_open || !matches!(answered, Answered::Open { .. }), "{}", of_stranger.escape_ascii());
}

/// An answer of the server's, taken apart without lenience.
struct Response<'a> {
    status: u16,
    fields: Vec<(&'a str, &'a str)>,
    body: &'a str,
}

impl<'a> Response<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let text = str::from_utf8(bytes).expect("answers are UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("an empty line ends the head");
        let mut lines = head.split("\r\n");
        let status_line = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).expect("it is HTTP");
        let (status, phrase) = status_line.split_once(' ').expect("a phrase follows the status");
        assert!(status.len() == 3 && !phrase.is_empty() && is_one_line(phrase), "{status_line:?}");
        let mut fields: Vec<(&str, &str)> = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(": ").expect("a field has a name and a value");
            assert!(FIELDS.contains(&name), "{line:?}");
            assert!(!value.is_empty() && value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
            assert!(fields.iter().all(|(other, _)| *other != name), "{name} is there twice");
            fields.push((name, value));
        }
        Response { status: status.parse().expect("the status is a number"), fields, body }
    }
}
