//! What the server makes of an HTTP request: which paths there are, who may come in, and what it is answered.
//!
//! A request opens a WebSocket (RFC 6455, section 4.2) or a stream of server-sent events, or it gets an answer after
//! which the connection is closed.

mod cors;
mod query;

use self::query::Query;
use crate::config::{Config, Origins, SSE_RETRY_MS};
use crate::protocol::answer::{TEXT, answer};
use crate::protocol::http::{self, Fields, Head, Refusal, Upgrade};
use crate::protocol::{Encoding, sse};

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

/// What a client may ask to speak inside a WebSocket, by the names that go over the wire.
const SUBPROTOCOLS: [(&str, Encoding); 2] =
    [("corecast.v1", Encoding::WebSocket), ("corecast.v1.json", Encoding::WebSocketJson)];

/// What the operator's settings say about requests.
pub(crate) struct Site {
    origins: Origins,
    head_bytes_max: usize,
    topics_max: usize,
    topic_bytes_max: usize,
    demo: bool,
}

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    /// The head has not come in whole.
    Incomplete,
    /// The client may come in.
    Open(Opening<'a>),
    /// The request is answered, and the connection has served its purpose.
    Answer(Vec<u8>),
    /// As `Answer`, to a page that may not connect. The text tells the operator what it was, and what would let it in.
    Foreign { answer: Vec<u8>, text: String },
}

/// A connection that changes over to an encoding, after `response`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opening<'a> {
    pub(crate) head: Head<'a>,
    pub(crate) encoding: Encoding,
    /// The subprotocol that was agreed upon.
    pub(crate) subprotocol: Option<&'a str>,
    /// The topics that the client named, checked, each once.
    pub(crate) topics: Vec<String>,
    pub(crate) response: Vec<u8>,
    /// What else the page that sent it must be told with any answer, for one in place of `response`.
    pub(crate) cors: String,
}

/// Why a request is not carried out.
#[derive(Debug)]
enum Denial {
    Request(Refusal),
    /// A page may not connect. Browsers don't show why, so the operator is told.
    Foreign(String),
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Denial::Request(refusal)
    }
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

    /// Reads the request that begins `bytes`, of which `scanned` are known to hold no end of a head. `seed` spreads the
    /// moments at which clients connect again; `draining`: checks of the server's health are told that it takes no clients.
    pub(crate) fn respond<'a>(
        &'a self,
        bytes: &'a [u8],
        scanned: usize,
        fields: &'a mut Fields<'a>,
        seed: u64,
        draining: bool,
    ) -> Outcome<'a> {
        let head = match http::read(bytes, scanned, self.head_bytes_max, fields) {
            Ok(Some(head)) => head,
            Ok(None) => return Outcome::Incomplete,
            Err(refusal) => return Outcome::Answer(refusal.answer("")),
        };
        let origin = match head.single("Origin") {
            Ok(origin) => origin,
            Err(refusal) => return Outcome::Answer(refusal.in_answer_to(head.method).answer("")),
        };
        let exchange = Exchange { site: self, head, origin };
        match exchange.carry_out(seed, draining).and_then(|done| Ok(exchange.head.check_body().map(|()| done)?)) {
            Ok(Done::Answer(answer)) => Outcome::Answer(answer),
            Ok(Done::Open { encoding, subprotocol, topics, response }) => {
                let cors = exchange.cors();
                Outcome::Open(Opening { head: exchange.head, encoding, subprotocol, topics, response, cors })
            }
            Err(denial) => exchange.deny(denial),
        }
    }
}

/// What comes of a request that is carried out.
enum Done<'a> {
    Answer(Vec<u8>),
    Open { encoding: Encoding, subprotocol: Option<&'a str>, topics: Vec<String>, response: Vec<u8> },
}

/// One request, and what its answer depends on.
struct Exchange<'a> {
    site: &'a Site,
    head: Head<'a>,
    /// The page that sent it, if one did and says so.
    origin: Option<&'a str>,
}

impl<'a> Exchange<'a> {
    fn carry_out(&self, seed: u64, draining: bool) -> Result<Done<'a>, Denial> {
        let path = self.head.path;
        let file = DEMO.iter().find(|file| file.0 == path);
        let allowed = match path {
            "/ws" => "GET, OPTIONS",
            "/sse" | "/" | "/healthz" | "/readyz" => "GET, HEAD, OPTIONS",
            // The server as a whole (RFC 9110, section 9.3.7).
            "*" => "OPTIONS",
            _ if file.is_some() && self.site.demo => "GET, HEAD, OPTIONS",
            _ if file.is_some() => {
                return Err(Refusal::new(404, "the demo page is switched off; --demo serves it").into());
            }
            _ => return Err(Refusal::new(404, "there is nothing here; / lists what there is").into()),
        };
        self.allow_methods(allowed)?;
        // Balancers check with any of these, by GET, HEAD or OPTIONS.
        if draining && matches!(path, "/" | "*" | "/readyz") {
            return Err(Refusal::new(503, "draining").into());
        }
        if self.head.method == "OPTIONS" {
            return self.options(allowed);
        }
        match (path, file) {
            ("/ws", _) => {
                self.check_origin()?;
                self.open_websocket()
            }
            ("/sse", _) => {
                self.check_origin()?;
                self.check_silent_browser()?;
                self.open_sse(seed)
            }
            ("/readyz", _) => Ok(self.page(TEXT, &[], "ready\n")),
            ("/healthz", _) => Ok(self.page(TEXT, &[], "ok\n")),
            // The policy is the page's. The module goes wherever it is imported, into workers, too.
            ("/demo", Some((_, kind, content))) => {
                Ok(self.page(kind, &[("Content-Security-Policy", DEMO_POLICY)], content))
            }
            (_, Some((_, kind, content))) => Ok(self.page(kind, &[], content)),
            _ => Ok(self.page(TEXT, &[], HELP)),
        }
    }

    fn allow_methods(&self, allowed: &'static str) -> Result<(), Refusal> {
        if allowed.split(", ").any(|method| method == self.head.method) {
            return Ok(());
        }
        let text = format!("only {allowed} is understood here");
        Err(Refusal::new(405, text).with_field("Allow", allowed))
    }

    fn page(&self, kind: &str, fields: &[(&str, &str)], body: &str) -> Done<'a> {
        Done::Answer(answer(200, kind, fields, &self.cors(), body, self.head.is_bodiless()))
    }

    fn deny(&self, denial: Denial) -> Outcome<'a> {
        let answer = |refusal: Refusal| refusal.in_answer_to(self.head.method).answer(&self.cors());
        match denial {
            Denial::Request(refusal) => Outcome::Answer(answer(refusal)),
            Denial::Foreign(text) => Outcome::Foreign { answer: answer(Refusal::new(403, text.clone())), text },
        }
    }

    fn open_websocket(&self) -> Result<Done<'a>, Denial> {
        let upgrade = Upgrade::read(&self.head)?;
        let (subprotocol, encoding) = subprotocol(&upgrade)?;
        let topics = Query::read(self.head.query, self.site)?.topics;
        let response = upgrade.response(subprotocol);
        Ok(Done::Open { encoding, subprotocol, topics, response })
    }

    fn open_sse(&self, seed: u64) -> Result<Done<'a>, Denial> {
        let Query { topics, all } = Query::read(self.head.query, self.site)?;
        if topics.is_empty() && !all {
            let text = "an event stream needs a topic, as in /sse?topic=news or /sse?topic=news&topic=sport; \
                        /sse?all has only what is sent to everyone";
            return Err(Refusal::new(400, text).into());
        }
        let mut response = sse::response(&self.cors());
        if self.head.is_bodiless() {
            return Ok(Done::Answer(response));
        }
        let (least, spread) = SSE_RETRY_MS;
        sse::retry(&mut response, least + seed % spread);
        Ok(Done::Open { encoding: Encoding::Sse, subprotocol: None, topics, response })
    }
}

/// The first of the client's subprotocols that is known here. A client that names none speaks text.
fn subprotocol(upgrade: &Upgrade<'_>) -> Result<(Option<&'static str>, Encoding), Refusal> {
    let mut offered = upgrade.offered().peekable();
    if offered.peek().is_none() {
        return Ok((None, Encoding::WebSocket));
    }
    let known = |offer: &str| SUBPROTOCOLS.into_iter().find(|(name, _)| *name == offer);
    match offered.find_map(known) {
        Some((name, encoding)) => Ok((Some(name), encoding)),
        None => Err(Refusal::new(400, "the subprotocols spoken here are corecast.v1 and corecast.v1.json")),
    }
}

#[cfg(test)]
mod tests;
