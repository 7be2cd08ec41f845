//! The dialect: which bytes a client and the server say to each other.
//!
//! Scenarios speak in the terms of this file and never see a framing, so another dialect can be put in its place.

use std::ops::Range;

use clap::ValueEnum;
use memchr::memchr;

mod corecast;
mod web;

/// Bytes of one message at the most. A longer one means that the other side speaks another framing.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A message's place in a slice, and the bytes to drop with it.
type Decoded = (Range<usize>, usize);

/// The stream can't be cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadFrame;

/// What the load generator speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Framing {
    /// Lines
    Line,
    /// Messages behind their length
    Length,
    /// A WebSocket at /ws
    Ws,
    /// Server-sent events at /sse; what is published goes through a WebSocket
    Sse,
}

impl Framing {
    /// Those in which a connection begins with messages at once.
    #[cfg(test)]
    pub(super) const PLAIN: [Framing; 2] = [Framing::Line, Framing::Length];

    /// The name used in options and reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Framing::Line => "line",
            Framing::Length => "length",
            Framing::Ws => "ws",
            Framing::Sse => "sse",
        }
    }

    /// The server's own name for it.
    pub(super) fn listen_name(self) -> &'static str {
        match self {
            Framing::Line | Framing::Length => self.name(),
            Framing::Ws | Framing::Sse => "http",
        }
    }
}

/// Finds the first complete message in `buf`; `None` when more bytes are needed. The head of an HTTP response counts
/// as a message.
pub(super) fn decode(framing: Framing, buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    match framing {
        Framing::Line => corecast::decode_line(buf),
        Framing::Length => corecast::decode_length(buf),
        Framing::Ws | Framing::Sse => match web::decode_head(buf) {
            Some(head) => Ok(head),
            None if framing == Framing::Ws => web::decode_ws(buf),
            None => Ok(web::decode_sse(buf)),
        },
    }
}

/// A whole message as it goes out, and where its payload stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Framed {
    pub(super) bytes: Vec<u8>,
    pub(super) payload: Range<usize>,
}

impl Framed {
    /// A payload between what stands before it and behind it.
    fn new(before: &[u8], payload: &[u8], behind: &[u8]) -> Framed {
        let start = before.len();
        Framed { bytes: [before, payload, behind].concat(), payload: start..start + payload.len() }
    }
}

/// How messages are written and read on a connection of this run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) framing: Framing,
}

impl Dialect {
    /// The dialect of a connection that publishes.
    pub(super) fn publishing(self) -> Dialect {
        match self.framing {
            Framing::Sse => Dialect { framing: Framing::Ws },
            _ => self,
        }
    }

    /// Whether a client of this dialect only listens.
    pub(super) fn is_one_way(self) -> bool {
        self.framing == Framing::Sse
    }

    /// The first complete message in `buf`.
    pub(super) fn decode(self, buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
        decode(self.framing, buf)
    }

    /// Takes a message apart that [`Dialect::decode`] has found.
    pub(super) fn reply(self, message: &[u8]) -> Reply<'_> {
        corecast::reply(message)
    }

    /// What a connection says before its first message, if the server must answer that first.
    pub(super) fn opening(self, topic: Option<&str>) -> Option<Vec<u8>> {
        let topic = topic.map(|topic| ("topic", topic));
        match self.framing {
            Framing::Line | Framing::Length => None,
            Framing::Ws => Some(web::request("/ws", topic, true)),
            Framing::Sse => Some(web::request("/sse", topic, false)),
        }
    }

    /// What a connection says to be subscribed to a topic.
    pub(super) fn subscribe(self, topic: &str) -> Vec<u8> {
        self.opening(Some(topic)).unwrap_or_else(|| corecast::frame(self.framing, &format!("SUB {topic}"), b"").bytes)
    }

    /// The same in words, for messages to people.
    pub(super) fn subscribe_text(self, topic: &str) -> String {
        match self.framing {
            Framing::Line | Framing::Length => format!("SUB {topic}"),
            Framing::Ws => format!("GET /ws?topic={topic}"),
            Framing::Sse => format!("GET /sse?topic={topic}"),
        }
    }

    /// What shows that the client lives; it is answered by a [`Reply::Pong`].
    pub(super) fn ping(self) -> Vec<u8> {
        corecast::frame(self.framing, "PING", b"").bytes
    }

    /// One message to the subscribers of a topic. It is answered by a [`Reply::Published`].
    pub(super) fn publish(self, topic: &str, payload: &[u8]) -> Framed {
        corecast::frame(self.framing, &corecast::publish_head(topic), payload)
    }

    /// The same in words, for messages to people.
    pub(super) fn publish_text(self, topic: &str) -> String {
        corecast::publish_head(topic) + "…"
    }

    /// One message that an echo sends back.
    pub(super) fn echo(self, payload: &[u8]) -> Framed {
        corecast::frame(self.framing, "", payload)
    }
}

/// A message of the server, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// The WebSocket is open.
    Upgraded,
    /// `OK SUB topic…`, or the beginning of an event stream
    Subscribed,
    /// `OK PUB id`
    Published,
    /// `MSG topic payload`
    Message { topic: &'a [u8], payload: &'a [u8] },
    /// `GAP topic count reason`
    Gap { topic: &'a [u8], count: u64 },
    /// `PONG [text]`
    Pong,
    /// `ERR code text`, without the `ERR`
    Error(&'a [u8]),
    /// `BYE reason`, without the `BYE`
    Bye(&'a [u8]),
    /// Anything else.
    Other,
}

/// The word before the first space, and all behind that space.
pub(super) fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

/// A peer's text for a message to people: one line, of bounded length.
pub(super) fn readable(text: &[u8]) -> String {
    const BYTES_SHOWN: usize = 60;
    let cut = text.len() > BYTES_SHOWN;
    let shown = String::from_utf8_lossy(&text[..text.len().min(BYTES_SHOWN)]);
    let mut shown: String = shown.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if cut {
        shown.push('…');
    }
    shown
}
