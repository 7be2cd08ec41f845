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

    /// One message with its framing.
    pub(super) fn encode(self, message: &[u8]) -> Vec<u8> {
        let mut framed = Vec::with_capacity(self.header_bytes(message.len()) + message.len() + 1);
        match self.framing {
            Framing::Line => {
                framed.extend_from_slice(message);
                framed.push(b'\n');
            }
            Framing::Length => {
                // No message of a plan is near 4 GiB: the plan's own limit is 16 MiB.
                framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
                framed.extend_from_slice(message);
            }
            Framing::Ws => {
                framed.extend_from_slice(&web::ws_header(message.len()));
                framed.extend_from_slice(message);
            }
            Framing::Sse => {}
        }
        framed
    }

    /// Bytes that stand before a message of this size in its frame.
    pub(super) fn header_bytes(self, message_bytes: usize) -> usize {
        match self.framing {
            Framing::Line | Framing::Sse => 0,
            Framing::Length => corecast::LENGTH_BYTES,
            Framing::Ws => web::ws_header_bytes(message_bytes),
        }
    }

    /// What a connection says before its first message, where that is not the message itself.
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
        self.opening(Some(topic)).unwrap_or_else(|| self.encode(format!("SUB {topic}").as_bytes()))
    }

    pub(super) fn ping(self) -> Vec<u8> {
        self.encode(b"PING")
    }

    /// What stands before the payload of a publish.
    pub(super) fn publish_head(self, topic: &str) -> String {
        format!("PUB {topic} ")
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

impl<'a> Reply<'a> {
    /// Takes a message apart.
    pub(super) fn parse(message: &'a [u8]) -> Reply<'a> {
        corecast::parse(message)
    }
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
