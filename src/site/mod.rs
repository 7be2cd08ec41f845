//! What the server makes of an HTTP request: which paths there are, who may come in, and what it is answered.
//!
//! A request opens a WebSocket (RFC 6455, section 4.2) or a stream of server-sent events, or it gets an answer after
//! which the connection is closed.

mod cors;
mod query;

use self::query::Query;
use crate::config::{Config, Origins, SSE_RETRY_MS};
use crate::message::Dialect;
use crate::protocol::answer::{TEXT, answer};
use crate::protocol::http::{self, Fields, Head, Refusal, Upgrade, quoted};
use crate::protocol::{Encoding, sse};
use crate::routes::{Events, Page, Routes, Target, Topics, WebSocket};

/// Characters of a path that an answer repeats at the most.
const PATH_CHARS_MAX: usize = 100;

/// What the operator's settings and the handler say about requests.
pub(crate) struct Site {
    routes: Routes,
    /// Whether `/` lists what there is.
    is_listed: bool,
    origins: Origins,
    head_bytes_max: usize,
    topics_max: usize,
    topic_bytes_max: usize,
    deflate: bool,
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
    pub(crate) fn new(config: &Config, routes: Routes) -> Self {
        let (routes, is_listed) = routes.settle();
        Site {
            routes,
            is_listed,
            origins: Origins::new(&config.allow_origin, &config.host),
            head_bytes_max: config.head_bytes_max,
            topics_max: config.topics_per_connection_max,
            topic_bytes_max: config.topic_bytes_max,
            deflate: config.deflate,
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
        let place = self.place()?;
        let allowed = match place {
            Place::Server => "OPTIONS",
            Place::WebSocket(_) => "GET, OPTIONS",
            Place::Events(_) | Place::Page(_) | Place::Ready | Place::Alive => "GET, HEAD, OPTIONS",
        };
        self.allow_methods(allowed)?;
        // Balancers check with any of these, by GET, HEAD or OPTIONS.
        let is_check = match place {
            Place::Server | Place::Ready => true,
            Place::Page(_) => self.head.path == "/",
            Place::WebSocket(_) | Place::Events(_) | Place::Alive => false,
        };
        if draining && is_check {
            return Err(Refusal::new(503, "draining").into());
        }
        if self.head.method == "OPTIONS" {
            return self.options(allowed);
        }
        match place {
            Place::WebSocket(route) => {
                self.check_origin()?;
                self.open_websocket(route)
            }
            Place::Events(route) => {
                self.check_origin()?;
                self.check_silent_browser()?;
                self.open_events(route, seed)
            }
            Place::Page(page) => {
                let fields = page.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                Ok(self.page(&page.content_type, fields, &page.body))
            }
            Place::Ready => Ok(self.page(TEXT, [], b"ready\n")),
            Place::Alive => Ok(self.page(TEXT, [], b"ok\n")),
            Place::Server => unreachable!("no method but OPTIONS is allowed"),
        }
    }

    /// What the request's path leads to.
    fn place(&self) -> Result<Place<'a>, Refusal> {
        let site = self.site;
        match self.head.path {
            // The server as a whole (RFC 9110, section 9.3.7).
            "*" => return Ok(Place::Server),
            "/readyz" => return Ok(Place::Ready),
            "/healthz" => return Ok(Place::Alive),
            _ => {}
        }
        match site.routes.find(self.head.path) {
            Some(Target::WebSocket(route)) => Ok(Place::WebSocket(route)),
            Some(Target::Events(route)) => Ok(Place::Events(route)),
            Some(Target::Page(page)) => Ok(Place::Page(page)),
            Some(Target::Missing(why)) => Err(Refusal::new(404, why)),
            None if site.is_listed => Err(Refusal::new(404, "there is nothing here; / lists what there is")),
            None => {
                let paths: Vec<_> = site.routes.paths().collect();
                Err(Refusal::new(404, format!("there is nothing here; there is {}", paths.join(", "))))
            }
        }
    }

    fn allow_methods(&self, allowed: &'static str) -> Result<(), Refusal> {
        if allowed.split(", ").any(|method| method == self.head.method) {
            return Ok(());
        }
        let text = format!("only {allowed} is understood here");
        Err(Refusal::new(405, text).with_field("Allow", allowed))
    }

    fn page<'f>(&self, kind: &str, fields: impl IntoIterator<Item = (&'f str, &'f str)>, body: &[u8]) -> Done<'a> {
        Done::Answer(answer(200, kind, fields, &self.cors(), body, self.head.is_bodiless()))
    }

    fn deny(&self, denial: Denial) -> Outcome<'a> {
        let answer = |refusal: Refusal| refusal.in_answer_to(self.head.method).answer(&self.cors());
        match denial {
            Denial::Request(refusal) => Outcome::Answer(answer(refusal)),
            Denial::Foreign(text) => Outcome::Foreign { answer: answer(Refusal::new(403, text.clone())), text },
        }
    }

    fn open_websocket(&self, route: &'a WebSocket) -> Result<Done<'a>, Denial> {
        let upgrade = Upgrade::read(&self.head)?;
        let (subprotocol, dialect) = agree(route, &upgrade)?;
        let topics = self.topics(route.topics, "a WebSocket here")?;
        let compression = upgrade.compression().filter(|_| self.site.deflate);
        let response = upgrade.response(subprotocol, compression);
        let encoding = Encoding::websocket(dialect, compression.map(|compression| compression.window));
        Ok(Done::Open { encoding, subprotocol, topics, response })
    }

    fn open_events(&self, route: &Events, seed: u64) -> Result<Done<'a>, Denial> {
        let topics = self.topics(route.topics, "an event stream")?;
        let mut response = sse::response(&self.cors());
        if self.head.is_bodiless() {
            return Ok(Done::Answer(response));
        }
        let (least, spread) = SSE_RETRY_MS;
        sse::retry(&mut response, least + seed % spread);
        Ok(Done::Open { encoding: Encoding::Sse, subprotocol: None, topics, response })
    }

    /// The topics that the client named in its URL; `what`: that which needs them, if the rule says so.
    fn topics(&self, rule: Topics, what: &str) -> Result<Vec<String>, Refusal> {
        let Query { topics, all } = Query::read(self.head.query, rule, self.site)?;
        if rule == Topics::Required && topics.is_empty() && !all {
            let path = quoted(self.head.path, PATH_CHARS_MAX);
            let text = format!(
                "{what} needs a topic, as in {path}?topic=news or {path}?topic=news&topic=sport; \
                 {path}?all has only what is sent to everyone"
            );
            return Err(Refusal::new(400, text));
        }
        Ok(topics)
    }
}

/// What a path leads to.
#[derive(Clone, Copy)]
enum Place<'a> {
    Server,
    Ready,
    Alive,
    WebSocket(&'a WebSocket),
    Events(&'a Events),
    Page(&'a Page),
}

/// The first of the client's subprotocols that is declared, and its dialect. A client that names none speaks text.
fn agree<'a>(route: &'a WebSocket, upgrade: &Upgrade<'_>) -> Result<(Option<&'a str>, Dialect), Refusal> {
    let mut offered = upgrade.offered().peekable();
    if offered.peek().is_none() && !route.required {
        return Ok((None, Dialect::Text));
    }
    let known = |offer: &str| route.subprotocols.iter().find(|(name, _)| *name == offer);
    if let Some((name, dialect)) = offered.find_map(known) {
        return Ok((Some(name), *dialect));
    }
    let names = route.names();
    let text = match route.subprotocols.len() {
        0 => "no subprotocol is spoken here; connect without one".to_owned(),
        1 => format!("the subprotocol spoken here is {names}"),
        _ => format!("the subprotocols spoken here are {names}"),
    };
    Err(Refusal::new(400, text))
}

#[cfg(test)]
mod tests;
