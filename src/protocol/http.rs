//! HTTP/1 as far as this server needs it: one request a connection, and what is answered to it.
//!
//! A request opens a WebSocket (RFC 6455, section 4.2) or a stream of server-sent events, or it gets an answer after
//! which the connection is closed.

mod cors;
mod fields;
mod query;
mod refusal;
mod upgrade;

use std::mem::MaybeUninit;

use httparse::{Header, Status};

use self::fields::single;
use self::query::Query;
use self::refusal::Refusal;
use super::answer::{TEXT, answer};
use super::{Encoding, sse};
use crate::config::{
    Config, HEAD_EMPTY_BYTES_MAX, HEAD_FIELDS_MAX, Origins, SSE_RETRY_MS, bytes_to_text, is_authority,
    is_same_authority,
};

const HELP: &str = "\
corecast, a push server.

  /ws?topic=a&topic=b    a WebSocket; subprotocols corecast.v1 (text) and corecast.v1.json
  /sse?topic=a&topic=b   server-sent events, as for EventSource
  /sse?all               those that are sent to everyone
  /readyz, /healthz      whether the server takes clients, and whether it is alive

Inside a WebSocket, SUB topic subscribes, UNSUB topic ends it, PING proves that both sides live.
";

/// The demo page and its files: path, type and content.
const DEMO: [(&str, &str, &str); 4] = [
    ("/demo", "text/html; charset=utf-8", include_str!("../../deploy/web/demo.html")),
    ("/demo.css", "text/css; charset=utf-8", include_str!("../../deploy/web/demo.css")),
    ("/demo.js", "text/javascript; charset=utf-8", include_str!("../../deploy/web/demo.js")),
    ("/corecast.js", "text/javascript; charset=utf-8", include_str!("../../deploy/web/corecast.js")),
];

/// The demo page loads nothing from elsewhere and is not shown inside other pages.
const DEMO_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the operator's settings say about requests.
pub(crate) struct Site {
    origins: Origins,
    head_bytes_max: usize,
    topics_max: usize,
    topic_bytes_max: usize,
    demo: bool,
}

impl Site {
    pub(crate) fn new(config: &Config) -> Self {
        Site {
            origins: Origins::new(&config.allow_origin, &config.host),
            head_bytes_max: config.head_bytes_max,
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
    /// As `Answer`, to a page that may not connect. The text tells the operator what it was, and what would let it in.
    Foreign { answer: Vec<u8>, text: String },
}

/// Reads the request that begins `bytes`, of which `scanned` are known to hold no end of a head. `seed` spreads the
/// moments at which clients connect again; `draining`: checks of the server's health are told that it takes no clients.
pub(crate) fn respond(bytes: &[u8], scanned: usize, site: &Site, seed: u64, draining: bool) -> Outcome {
    let empty = bytes.iter().take(HEAD_EMPTY_BYTES_MAX + 1).take_while(|byte| is_line_end(**byte)).count();
    if empty > HEAD_EMPTY_BYTES_MAX {
        return Refusal::new(400, "the request begins with too many empty lines").answer("", false);
    }
    // A head that trickles in is not read anew with each byte, but what is no HTTP at all is found out at once.
    let is_first_look = scanned == 0;
    let is_too_large = bytes.len() > site.head_bytes_max;
    if !is_first_look && !is_too_large && !has_end(bytes, scanned.max(empty)) {
        return Outcome::Incomplete;
    }
    let too_large = || {
        let most = bytes_to_text(site.head_bytes_max);
        Refusal::new(431, format!("a request's head has at most {most} (head_bytes_max)")).answer("", false)
    };
    let mut fields = [const { MaybeUninit::uninit() }; HEAD_FIELDS_MAX];
    let mut head = httparse::Request::new(&mut []);
    let consumed = match head.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Complete(consumed)) if consumed > site.head_bytes_max => return too_large(),
        Ok(Status::Complete(consumed)) => consumed,
        Ok(Status::Partial) if is_too_large => return too_large(),
        Ok(Status::Partial) => return Outcome::Incomplete,
        Err(error) => return refuse_head(bytes, error).answer("", false),
    };
    let (Some(method), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Refusal::new(400, "the request line is not complete").answer("", false);
    };
    match Request::new(method, target, minor, head.headers) {
        Ok(request) => request.route(site, seed, draining, consumed).unwrap_or_else(|refusal| {
            let cors = request.cors(site);
            refusal.answer(&cors, request.method == "HEAD")
        }),
        Err(refusal) => refusal.answer("", method == "HEAD"),
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Whether an empty line ends a head behind the first `scanned` bytes, or the three before them. Lines may end with LF
/// alone (RFC 9112, section 2.2).
fn has_end(bytes: &[u8], scanned: usize) -> bool {
    let from = scanned.saturating_sub(3);
    let rest = bytes.get(from..).unwrap_or_default();
    memchr::memchr_iter(b'\n', rest).any(|at| {
        let line = &rest[at + 1..];
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
    /// The scheme of a target in absolute form.
    target_scheme: Option<&'static str>,
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
        let target_scheme = absolute.map(|(scheme, _)| scheme);
        let origin = single(fields, "Origin")?;
        Ok(Request { method, target_scheme, path, query, minor, host, origin, fields })
    }

    fn route(&self, site: &Site, seed: u64, draining: bool, consumed: usize) -> Result<Outcome, Refusal> {
        let outcome = self.carry_out(site, seed, draining, consumed)?;
        self.check_body()?;
        Ok(outcome)
    }

    fn carry_out(&self, site: &Site, seed: u64, draining: bool, consumed: usize) -> Result<Outcome, Refusal> {
        let file = DEMO.iter().find(|(path, ..)| *path == self.path);
        let allowed = match self.path {
            "/ws" => "GET, OPTIONS",
            "/sse" | "/" | "/healthz" | "/readyz" => "GET, HEAD, OPTIONS",
            // The server as a whole (RFC 9110, section 9.3.7).
            "*" => "OPTIONS",
            _ if file.is_some() && site.demo => "GET, HEAD, OPTIONS",
            _ if file.is_some() => return Err(Refusal::new(404, "the demo page is switched off; --demo serves it")),
            _ => return Err(Refusal::new(404, "there is nothing here; / lists what there is")),
        };
        self.allow_methods(allowed)?;
        // Balancers check with any of these, by GET, HEAD or OPTIONS.
        if draining && matches!(self.path, "/" | "*" | "/readyz") {
            return Err(Refusal::new(503, "draining"));
        }
        if self.method == "OPTIONS" {
            return self.options(site, allowed);
        }
        match (self.path, file) {
            ("/ws", _) => {
                self.check_origin(site)?;
                self.open_websocket(site, consumed)
            }
            ("/sse", _) => {
                self.check_origin(site)?;
                self.check_silent_browser(site)?;
                self.open_sse(site, seed, consumed)
            }
            ("/readyz", _) => Ok(self.page(site, TEXT, &[], "ready\n")),
            ("/healthz", _) => Ok(self.page(site, TEXT, &[], "ok\n")),
            // The policy is the page's. The module goes wherever it is imported, into workers, too.
            ("/demo", Some((_, kind, content))) => {
                Ok(self.page(site, kind, &[("Content-Security-Policy", DEMO_POLICY)], content))
            }
            (_, Some((_, kind, content))) => Ok(self.page(site, kind, &[], content)),
            _ => Ok(self.page(site, TEXT, &[], HELP)),
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

    fn page(&self, site: &Site, kind: &str, fields: &[(&str, &str)], body: &str) -> Outcome {
        Outcome::Answer(answer(200, kind, fields, &self.cors(site), body, self.method == "HEAD"))
    }

    fn open_sse(&self, site: &Site, seed: u64, consumed: usize) -> Result<Outcome, Refusal> {
        let Query { topics, all } = Query::read(self.query, site)?;
        if topics.is_empty() && !all {
            let text = "an event stream needs a topic, as in /sse?topic=news or /sse?topic=news&topic=sport; \
                        /sse?all has only what is sent to everyone";
            return Err(Refusal::new(400, text));
        }
        // The stream ends with the connection. Proxies may neither compress it, since then they gather events until
        // there is enough to compress, nor hold it back, which `X-Accel-Buffering` tells nginx.
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-store, no-transform\r\n\
             X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n{}Connection: close\r\n\r\n",
            self.cors(site)
        )
        .into_bytes();
        if self.method == "HEAD" {
            return Ok(Outcome::Answer(response));
        }
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
