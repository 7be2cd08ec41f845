//! HTTP/1 as far as this server needs it: one request a connection, and what is answered to it.
//!
//! A request opens a WebSocket (RFC 6455, section 4.2) or a stream of server-sent events, or it gets an answer after
//! which the connection is closed.

mod answer;
mod cors;
mod fields;
mod query;
mod upgrade;

use httparse::{Header, Status};

use self::answer::{Refusal, TEXT, answer};
use self::fields::single;
use super::{Encoding, sse};
use crate::config::{
    Config, HEAD_BYTES_MAX, HEAD_FIELDS_MAX, Origins, RETRY_AFTER_S, SSE_RETRY_MS, is_authority, is_same_authority,
};
use crate::message::CloseReason;

const HELP: &str = "\
corecast, a push server.

  /ws?topic=a&topic=b    a WebSocket; subprotocols corecast.v1 (text) and corecast.v1.json
  /sse?topic=a&topic=b   server-sent events, as for EventSource

Inside a WebSocket, SUB topic subscribes, UNSUB topic ends it, PING proves that both sides live.
";

const DEMO_PAGE: &str = include_str!("../../deploy/web/demo.html");
const CLIENT_MODULE: &str = include_str!("../../deploy/web/corecast.js");

/// What the operator's settings say about requests.
pub(crate) struct Site {
    origins: Origins,
    topics_max: usize,
    topic_bytes_max: usize,
    demo: bool,
}

impl Site {
    pub(crate) fn new(config: &Config) -> Self {
        Site {
            origins: Origins::new(&config.allow_origin, &config.host),
            topics_max: config.topics_per_connection_max,
            topic_bytes_max: config.topic_bytes_max,
            demo: config.demo,
        }
    }
}

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The head has not come in whole.
    Incomplete,
    /// The connection changes over to an encoding, after `response`.
    Open {
        encoding: Encoding,
        /// The topics that the client named, checked, each once.
        topics: Vec<String>,
        response: Vec<u8>,
        /// Bytes of the request.
        consumed: usize,
    },
    /// The request is answered, and the connection has served its purpose.
    Answer(Vec<u8>),
}

/// Reads the request that begins `bytes`, of which `scanned` are known to hold no end of a head. `seed` spreads the
/// moments at which clients connect again.
pub(crate) fn respond(bytes: &[u8], scanned: usize, site: &Site, seed: u64) -> Outcome {
    // A head that trickles in is not read anew with each byte, but what is no HTTP at all is found out at once.
    let is_first_look = scanned == 0;
    if !is_first_look && bytes.len() <= HEAD_BYTES_MAX && !has_end(bytes, scanned) {
        return Outcome::Incomplete;
    }
    let too_large = || Refusal::new(431, format!("a request's head has at most {HEAD_BYTES_MAX} bytes")).into();
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let consumed = match head.parse(bytes) {
        Ok(Status::Complete(consumed)) if consumed > HEAD_BYTES_MAX => return too_large(),
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) if bytes.len() > HEAD_BYTES_MAX => return too_large(),
        Ok(Status::Partial) => return Outcome::Incomplete,
        Err(error) => return refuse_head(bytes, error).into(),
    };
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Refusal::new(400, "the request line is not complete").into();
    };
    match Request::new(method, target, minor, head.headers) {
        Ok(request) => request.route(site, seed, consumed).unwrap_or_else(|refusal| {
            let cors = request.cors(site);
            refusal.answer(&cors, request.method == "HEAD")
        }),
        Err(refusal) => refusal.into(),
    }
}

/// The answer to a client that did not complete its request in time.
pub(crate) fn timed_out() -> Vec<u8> {
    refused(408, "the request did not come in whole in time")
}

/// The answer to a client that came to the wrong port.
pub(crate) fn bad_request(text: &str) -> Vec<u8> {
    refused(400, text)
}

/// The answer to a client that the server has no room for, whose request begins with `head`. `seed` spreads the moments at
/// which clients come back.
pub(crate) fn unavailable(reason: CloseReason, head: &[u8], seed: u64) -> Vec<u8> {
    let (least, spread) = RETRY_AFTER_S;
    let seconds = least + seed % spread;
    let text = match reason {
        CloseReason::Drain => "the server is shutting down",
        _ => "the server is full",
    };
    let body = format!("{reason}: {text}; try again in {seconds} seconds\n");
    let field = format!("Retry-After: {seconds}\r\n");
    answer(503, TEXT, None, &field, &body, head.starts_with(b"HEAD "))
}

fn refused(status: u16, text: &str) -> Vec<u8> {
    match Refusal::new(status, text).into() {
        Outcome::Answer(bytes) => bytes,
        Outcome::Incomplete | Outcome::Open { .. } => unreachable!("a refusal is an answer"),
    }
}

/// Whether an empty line ends a head. Lines may end with LF alone (RFC 9112, section 2.2).
fn has_end(bytes: &[u8], scanned: usize) -> bool {
    // Empty lines before the request line are passed over, and don't end it.
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let from = scanned.saturating_sub(3).max(begin);
    memchr::memchr_iter(b'\n', bytes.get(from..).unwrap_or_default()).any(|at| {
        let line = &bytes[from + at + 1..];
        line.starts_with(b"\n") || line.starts_with(b"\r\n")
    })
}

fn refuse_head(bytes: &[u8], error: httparse::Error) -> Refusal {
    // The version is what a request for a later HTTP fails at first, and the least that a reader must be told.
    match error {
        httparse::Error::Version => Refusal::new(505, "this server speaks HTTP/1.1; so must the proxy before it"),
        httparse::Error::TooManyHeaders => {
            Refusal::new(431, format!("a request has at most {HEAD_FIELDS_MAX} header fields"))
        }
        // A TLS record of the handshake type.
        _ if bytes.starts_with(&[0x16, 0x03]) => Refusal::new(400, "this port speaks plain HTTP, without TLS"),
        error => {
            let text = "this port speaks HTTP; clients of the framings line and length have ports of their own";
            Refusal::new(400, format!("this is not an HTTP request: {error}; {text}"))
        }
    }
}

/// What the server makes of a request's head.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    minor: u8,
    host: Option<&'a str>,
    origin: Option<&'a str>,
    fields: &'a [Header<'a>],
}

impl<'a> Request<'a> {
    fn new(method: &'a str, target: &'a str, minor: u8, fields: &'a [Header<'a>]) -> Result<Self, Refusal> {
        let (absolute, target) = split_target(target);
        let host = single(fields, "Host")?;
        if minor > 0 && host.is_none() {
            return Err(Refusal::new(400, "an HTTP/1.1 request needs a Host header"));
        }
        // A Host header may be empty: then the client does not know the name (RFC 9112, section 3.2).
        if host.is_some_and(|host| !host.is_empty() && !is_authority(host)) {
            return Err(Refusal::new(400, "the Host header is not a name or an address, with or without a port"));
        }
        // A target in absolute form repeats the host (RFC 9112, section 3.2.2). One that names another is a trick.
        if let (Some((scheme, authority)), Some(host)) = (absolute, host)
            && !is_same_authority(authority, host, scheme)
        {
            return Err(Refusal::new(400, "the request's target and its Host header name different hosts"));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        // A fragment is not sent by a client that knows the rules; it names nothing here.
        let query = query.split('#').next().unwrap_or_default();
        let host = absolute.map(|(_, authority)| authority).or(host);
        Ok(Request { method, path, query, minor, host, origin: single(fields, "Origin")?, fields })
    }

    fn route(&self, site: &Site, seed: u64, consumed: usize) -> Result<Outcome, Refusal> {
        let outcome = self.carry_out(site, seed, consumed)?;
        self.check_body()?;
        Ok(outcome)
    }

    fn carry_out(&self, site: &Site, seed: u64, consumed: usize) -> Result<Outcome, Refusal> {
        match self.path {
            "/ws" => {
                self.allow_methods("GET")?;
                self.check_origin(site)?;
                self.open_websocket(site, consumed)
            }
            "/sse" => {
                self.check_origin(site)?;
                if self.method == "OPTIONS" {
                    return Ok(self.preflight(site));
                }
                self.allow_methods("GET, OPTIONS")?;
                self.open_sse(site, seed, consumed)
            }
            "/" => self.page(site, TEXT, HELP),
            "/demo" if site.demo => self.page(site, "text/html; charset=utf-8", DEMO_PAGE),
            "/corecast.js" if site.demo => self.page(site, "text/javascript; charset=utf-8", CLIENT_MODULE),
            "/demo" | "/corecast.js" => Err(Refusal::new(404, "the demo page is switched off; --demo serves it")),
            _ => Err(Refusal::new(404, "there is nothing here; / says what there is")),
        }
    }

    /// No request that is understood here has a body, and one that came would be taken for what follows the head.
    fn check_body(&self) -> Result<(), Refusal> {
        let length = single(self.fields, "Content-Length")?.unwrap_or("0");
        if length != "0" || single(self.fields, "Transfer-Encoding")?.is_some() {
            return Err(Refusal::new(413, "a request with a body is not understood here"));
        }
        Ok(())
    }

    fn allow_methods(&self, allowed: &'static str) -> Result<(), Refusal> {
        if allowed.split(", ").any(|method| method == self.method) {
            return Ok(());
        }
        let text = format!("only {allowed} is understood here");
        Err(Refusal::new(405, text).with_field("Allow", allowed))
    }

    fn page(&self, site: &Site, kind: &str, body: &str) -> Result<Outcome, Refusal> {
        self.allow_methods("GET, HEAD")?;
        Ok(Outcome::Answer(answer(200, kind, None, &self.cors(site), body, self.method == "HEAD")))
    }

    fn open_sse(&self, site: &Site, seed: u64, consumed: usize) -> Result<Outcome, Refusal> {
        let topics = self.topics(site)?;
        // The stream ends with the connection. `X-Accel-Buffering` keeps nginx from holding events back.
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
             X-Accel-Buffering: no\r\n{}Connection: close\r\n\r\n",
            self.cors(site)
        )
        .into_bytes();
        let (least, spread) = SSE_RETRY_MS;
        sse::retry(&mut response, least + seed % spread);
        Ok(Outcome::Open { encoding: Encoding::Sse, topics, response, consumed })
    }
}

/// The scheme and the authority of a target in absolute form (RFC 9112, section 3.2.2), which others don't have, and the
/// rest. A WebSocket's scheme is that of the web it belongs to.
fn split_target(target: &str) -> (Option<(&'static str, &str)>, &str) {
    const SCHEMES: [(&str, &str); 4] =
        [("http://", "http"), ("https://", "https"), ("ws://", "http"), ("wss://", "https")];
    let absolute = SCHEMES.into_iter().find_map(|(start, scheme)| {
        let found = target.get(..start.len())?;
        found.eq_ignore_ascii_case(start).then(|| (scheme, &target[start.len()..]))
    });
    let Some((scheme, rest)) = absolute else { return (None, target) };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => (Some((scheme, &rest[..at])), &rest[at..]),
        Some(at) => (Some((scheme, &rest[..at])), "/"),
        None => (Some((scheme, rest)), "/"),
    }
}

#[cfg(test)]
mod tests;
