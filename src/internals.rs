//! What the benches and the fuzz targets reach of the inside. It is not part of the API: it may change or go with any version.

#[cfg(feature = "web")]
pub mod fuzz;

#[cfg(feature = "web")]
use crate::config::Config;
use crate::engine::interest;
use crate::engine::table::{Key, Table};
#[cfg(feature = "web")]
use crate::handler::Handler as _;
#[cfg(feature = "web")]
use crate::hub::Hub;
#[cfg(feature = "web")]
use crate::protocol::http::Fields;
use crate::protocol::websocket::Assembly;
use crate::protocol::{self, Encoding, Item, Label, Step};
#[cfg(feature = "web")]
use crate::site::{Opening, Outcome, Site};

/// Bytes that a message may have: more than any bench makes.
const MESSAGE_MAX: usize = 1 << 30;

/// An encoding of messages, to measure it.
#[derive(Clone, Copy, Debug)]
pub struct Codec(Encoding);

impl Codec {
    /// Lines.
    pub const LINE: Codec = Codec(Encoding::Line);
    /// Messages with their length before them.
    pub const LENGTH: Codec = Codec(Encoding::Length);
    /// WebSocket messages.
    pub const WEBSOCKET: Codec = Codec(Encoding::WebSocket);
    /// Server-sent events.
    pub const SSE: Codec = Codec(Encoding::Sse);

    /// Appends a message to `out` as clients read it; `false`: the encoding can't carry it.
    pub fn encode(self, message: &[u8], out: &mut Vec<u8>) -> bool {
        protocol::encode(self.0, Label::default(), message, out).is_ok()
    }

    /// Cuts the messages out of whole frames of a client, where they lie, as far as they may be; the bytes of all messages.
    pub fn decode(self, mut bytes: &mut [u8]) -> usize {
        let (mut total, mut assembly): (usize, Option<Box<Assembly>>) = (0, None);
        while !bytes.is_empty() {
            let step = protocol::next(self.0, bytes, 0, &mut assembly, MESSAGE_MAX);
            let Ok(Step { item, consumed: consumed @ 1.., .. }) = step else { break };
            total += match item {
                Some(Item::Message { range, .. }) => range.len(),
                Some(Item::Assembled) => assembly.take().map_or(0, |whole| whole.message().len()),
                Some(_) => break,
                None => 0,
            };
            bytes = &mut bytes[consumed..];
        }
        total
    }
}

/// What requests are answered by.
#[cfg(feature = "web")]
pub struct Requests(Site);

/// What a request leads to.
#[cfg(feature = "web")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The head has not come in whole.
    Incomplete,
    /// It opens a WebSocket or an event stream.
    Open {
        /// The topics in the address.
        topics: Vec<String>,
        /// What is answered.
        response: Vec<u8>,
        /// Bytes of the request.
        consumed: usize,
    },
    /// It is answered, and that is all.
    Closed {
        /// What is answered.
        response: Vec<u8>,
        /// What the operator is told of a page that may not connect.
        notice: Option<String>,
    },
}

#[cfg(feature = "web")]
impl Default for Requests {
    fn default() -> Self {
        let host = vec!["push.example.com".parse().expect("it is a name")];
        Requests::new(&Config { host, ..Config::default() })
    }
}

#[cfg(feature = "web")]
impl Requests {
    /// Requests to a push server with these settings.
    pub fn new(config: &Config) -> Self {
        Requests(Site::new(config, Hub::new(config).routes()))
    }

    /// Answers a request of which `scanned` bytes are known to hold no end of its head.
    pub fn answer(&self, request: &[u8], scanned: usize, draining: bool) -> Answered {
        match self.0.respond(request, scanned, &mut Fields::default(), 0, draining) {
            Outcome::Incomplete => Answered::Incomplete,
            Outcome::Open(Opening { head, topics, response, .. }) => {
                Answered::Open { topics, response, consumed: head.consumed }
            }
            Outcome::Answer(response) => Answered::Closed { response, notice: None },
            Outcome::Foreign { answer, text } => Answered::Closed { response: answer, notice: Some(text) },
        }
    }

    /// Answers a request that opens a WebSocket or an event stream; the bytes it took, 0 if it does not.
    pub fn open(&self, request: &[u8]) -> usize {
        match self.0.respond(request, 0, &mut Fields::default(), 0, false) {
            Outcome::Open(Opening { head, .. }) => head.consumed,
            Outcome::Incomplete | Outcome::Answer(_) | Outcome::Foreign { .. } => 0,
        }
    }
}

/// The topics of one shard, with connections to subscribe.
#[derive(Default)]
pub struct Topics {
    topics: interest::Interest,
    connections: Vec<Key>,
}

impl Topics {
    /// Topics with this many connections that may subscribe to them.
    pub fn with_connections(connections: usize) -> Self {
        let mut table = Table::default();
        let connections = (0..connections).map(|_| table.insert_with(|_| ())).collect();
        Topics { topics: interest::Interest::default(), connections }
    }

    /// Subscribes a connection to a topic; `false`: it is already.
    pub fn subscribe(&mut self, connection: usize, name: &str) -> bool {
        self.topics.subscribe(self.connections[connection], name)
    }

    /// Ends a subscription; `false`: there was none.
    pub fn unsubscribe(&mut self, connection: usize, name: &str) -> bool {
        self.topics.unsubscribe(self.connections[connection], name)
    }

    /// How many subscribers a topic has, as a publish asks.
    pub fn members(&self, name: &str) -> usize {
        self.topics.audience(name).map_or(0, |audience| audience.len())
    }
}
