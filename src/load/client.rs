//! The dialect: which bytes a client and the server say to each other.
//!
//! Scenarios speak in the terms of this file and never see a framing, so another dialect can be put in its place.

use std::fmt::Write as _;
use std::ops::Range;

use clap::ValueEnum;
use memchr::{memchr, memmem};
use serde::Deserialize;

/// Bytes of one message at the most. A longer one means that the other side speaks another framing.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a `length` header.
const LENGTH_BYTES: usize = 4;

/// First byte of a WebSocket text frame that is a whole message, and bit of the second that says it is masked.
const WS_TEXT: u8 = 0x81;
const WS_MASKED: u8 = 0x80;

/// What the masked frames of this client are masked with. A browser needs masks that nobody can foresee, a load
/// generator needs messages that it can stamp in place.
const WS_MASK: [u8; 4] = [0; 4];

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
        Framing::Line => match memchr(b'\n', buf) {
            Some(end) => {
                let text = end - usize::from(end > 0 && buf[end - 1] == b'\r');
                Ok(Some((0..text, end + 1)))
            }
            None if buf.len() > MESSAGE_BYTES_MAX => Err(BadFrame),
            None => Ok(None),
        },
        Framing::Length => {
            let Some(header) = buf.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
            let end = LENGTH_BYTES + u32::from_be_bytes(*header) as usize;
            if end > MESSAGE_BYTES_MAX {
                return Err(BadFrame);
            }
            Ok((buf.len() >= end).then_some((LENGTH_BYTES..end, end)))
        }
        // No frame of a server and no event begins with these bytes.
        Framing::Ws | Framing::Sse if buf.len() < 9 && b"HTTP/1.1 ".starts_with(buf) => Ok(None),
        Framing::Ws | Framing::Sse if buf.starts_with(b"HTTP/1.1 ") => {
            Ok(memmem::find(buf, b"\r\n\r\n").map(|end| (0..end, end + 4)))
        }
        Framing::Ws => decode_ws(buf),
        Framing::Sse => Ok(decode_sse(buf)),
    }
}

/// The first data frame; pings and closes before it are passed over. A server of this project does not fragment.
fn decode_ws(buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    let mut from = 0;
    loop {
        let [first, second, rest @ ..] = &buf[from..] else { return Ok(None) };
        let (length, header) = match second {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 10),
                None => return Ok(None),
            },
            0..126 => (u64::from(*second), 2),
            // A server does not mask.
            WS_MASKED.. => return Err(BadFrame),
        };
        if length > MESSAGE_BYTES_MAX as u64 || !matches!(first, 0x81 | 0x82 | 0x88..=0x8a) {
            return Err(BadFrame);
        }
        let start = from + header;
        let end = start + length as usize;
        if buf.len() < end {
            return Ok(None);
        }
        if first & 0x08 == 0 {
            return Ok(Some((start..end, end)));
        }
        from = end;
    }
}

/// The data of the first event that has any, on its first line: the hub writes one line.
fn decode_sse(buf: &[u8]) -> Option<Decoded> {
    let mut from = 0;
    loop {
        let end = from + memmem::find(&buf[from..], b"\n\n")?;
        let mut line = from;
        while line < end {
            let line_end = memchr(b'\n', &buf[line..end]).map_or(end, |at| line + at);
            if buf[line..line_end].starts_with(b"data: ") {
                return Some((line + b"data: ".len()..line_end, end + 2));
            }
            line = line_end + 1;
        }
        from = end + 2;
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
                framed.push(WS_TEXT);
                match message.len() {
                    length @ 0..126 => framed.push(WS_MASKED | length as u8),
                    length @ 126..0x1_0000 => {
                        framed.push(WS_MASKED | 126);
                        framed.extend_from_slice(&(length as u16).to_be_bytes());
                    }
                    length => {
                        framed.push(WS_MASKED | 127);
                        framed.extend_from_slice(&(length as u64).to_be_bytes());
                    }
                }
                framed.extend_from_slice(&WS_MASK);
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
            Framing::Length => LENGTH_BYTES,
            Framing::Ws if message_bytes < 126 => 2 + WS_MASK.len(),
            Framing::Ws if message_bytes < 0x1_0000 => 4 + WS_MASK.len(),
            Framing::Ws => 10 + WS_MASK.len(),
        }
    }

    /// What a connection says before its first message, where that is not the message itself.
    pub(super) fn opening(self, topic: Option<&str>) -> Option<Vec<u8>> {
        let mut request = String::from(match self.framing {
            Framing::Line | Framing::Length => return None,
            Framing::Ws => "GET /ws",
            Framing::Sse => "GET /sse",
        });
        if let Some(topic) = topic {
            request.push_str("?topic=");
            for byte in topic.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => request.push(byte.into()),
                    _ => {
                        let _ = write!(request, "%{byte:02X}");
                    }
                }
            }
        }
        request.push_str(" HTTP/1.1\r\nHost: corecast\r\n");
        if self.framing == Framing::Ws {
            // Any 16 bytes are a key; what is made of it is not looked at.
            request.push_str(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: Y29yZWNhc3QtbG9hZC0xMg==\r\n",
            );
        }
        request.push_str("\r\n");
        Some(request.into_bytes())
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
    pub(super) fn parse(message: &'a [u8]) -> Reply<'a> {
        if message.starts_with(b"{") {
            return Reply::parse_json(message).unwrap_or(Reply::Other);
        }
        let (verb, rest) = split_word(message);
        match verb {
            b"HTTP/1.1" => match split_word(rest).0 {
                b"101" => Reply::Upgraded,
                b"200" => Reply::Subscribed,
                _ => Reply::Error(rest),
            },
            b"MSG" => {
                let (topic, payload) = split_word(rest);
                Reply::Message { topic, payload }
            }
            b"OK" => match split_word(rest).0 {
                b"SUB" => Reply::Subscribed,
                b"PUB" => Reply::Published,
                _ => Reply::Other,
            },
            b"GAP" => {
                let (topic, rest) = split_word(rest);
                let count = str::from_utf8(split_word(rest).0).ok().and_then(|count| count.parse().ok());
                count.map_or(Reply::Other, |count| Reply::Gap { topic, count })
            }
            b"PONG" => Reply::Pong,
            b"ERR" => Reply::Error(rest),
            b"BYE" => Reply::Bye(rest),
            _ => Reply::Other,
        }
    }

    /// Takes an event of a stream apart. What the generator publishes needs no escapes in JSON.
    fn parse_json(message: &'a [u8]) -> Option<Reply<'a>> {
        #[derive(Deserialize)]
        struct Event<'a> {
            r#type: &'a str,
            topic: Option<&'a str>,
            payload: Option<&'a str>,
            count: Option<u64>,
            reason: Option<&'a str>,
        }
        let event: Event<'_> = serde_json::from_slice(message).ok()?;
        Some(match event.r#type {
            "msg" => Reply::Message { topic: event.topic?.as_bytes(), payload: event.payload?.as_bytes() },
            "gap" => Reply::Gap { topic: event.topic?.as_bytes(), count: event.count? },
            "bye" => Reply::Bye(event.reason?.as_bytes()),
            _ => Reply::Other,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_framings_decode_what_they_encode_and_wait_for_the_rest() {
        for framing in Framing::PLAIN {
            let dialect = Dialect { framing };
            let frame = dialect.encode(b"MSG a b");
            for cut in 0..frame.len() {
                assert_eq!(dialect.decode(&frame[..cut]), Ok(None), "{framing:?} cut at {cut}");
            }
            let two = [frame.clone(), frame.clone()].concat();
            let (range, used) = dialect.decode(&two).unwrap().unwrap();
            assert_eq!((&two[range], used), (&b"MSG a b"[..], frame.len()));
        }
    }

    #[test]
    fn a_line_drops_one_cr() {
        assert_eq!(decode(Framing::Line, b"a\r\r\nb"), Ok(Some((0..2, 4))));
        assert_eq!(decode(Framing::Line, b"\n"), Ok(Some((0..0, 1))));
    }

    #[test]
    fn a_length_that_no_server_sends_is_refused() {
        // What a `line` server says to a client that speaks `length`.
        assert_eq!(decode(Framing::Length, b"ERR unknown"), Err(BadFrame));
    }

    #[test]
    fn a_websocket_is_read_from_its_head_on_and_control_frames_are_passed_over() {
        let stream = b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n\x89\x00\x81\x02hi\x82\x01x";
        let mut messages = Vec::new();
        let mut from = 0;
        while let Some((range, used)) = decode(Framing::Ws, &stream[from..]).unwrap() {
            messages.push(stream[from..][range].to_vec());
            from += used;
        }
        assert_eq!(from, stream.len());
        assert_eq!(messages, [&b"HTTP/1.1 101 Switching Protocols\r\nA: b"[..], b"hi", b"x"]);
        for cut in 0..42 {
            assert_eq!(decode(Framing::Ws, &stream[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(decode(Framing::Ws, b"\x81\x81masked"), Err(BadFrame));
    }

    #[test]
    fn an_event_stream_is_read_from_its_head_on_and_comments_are_passed_over() {
        let stream = b"HTTP/1.1 200 OK\r\n\r\nretry: 5\n\n:\n\nid: 1\ndata: {\"type\":\"msg\"}\n\n";
        let (head, used) = decode(Framing::Sse, stream).unwrap().unwrap();
        assert_eq!(Reply::parse(&stream[head]), Reply::Subscribed);
        let rest = &stream[used..];
        let (data, used) = decode(Framing::Sse, rest).unwrap().unwrap();
        assert_eq!((&rest[data], used), (&b"{\"type\":\"msg\"}"[..], rest.len()));
    }

    #[test]
    fn replies_are_taken_apart() {
        assert_eq!(Reply::parse(b"MSG t a b"), Reply::Message { topic: b"t", payload: b"a b" });
        assert_eq!(Reply::parse(b"GAP t 12 queue-full"), Reply::Gap { topic: b"t", count: 12 });
        assert_eq!(Reply::parse(b"GAP t many"), Reply::Other);
        assert_eq!(Reply::parse(b"OK SUB t u"), Reply::Subscribed);
        assert_eq!(Reply::parse(b"OK PUB 7"), Reply::Published);
        assert_eq!(Reply::parse(b"ERR busy try later"), Reply::Error(b"busy try later"));
        assert_eq!(Reply::parse(b"PONG"), Reply::Pong);
        assert_eq!(Reply::parse(b"BYE drain"), Reply::Bye(b"drain"));
        assert_eq!(Reply::parse(b""), Reply::Other);
        assert_eq!(Reply::parse(b"HTTP/1.1 101 Switching Protocols"), Reply::Upgraded);
        assert_eq!(Reply::parse(b"HTTP/1.1 403 Forbidden"), Reply::Error(b"403 Forbidden"));
        let message = br#"{"type":"msg","topic":"t","payload":"a b"}"#;
        assert_eq!(Reply::parse(message), Reply::Message { topic: b"t", payload: b"a b" });
        let gap = br#"{"type":"gap","topic":"*","count":12,"reason":"queue-full"}"#;
        assert_eq!(Reply::parse(gap), Reply::Gap { topic: b"*", count: 12 });
        assert_eq!(Reply::parse(br#"{"type":"bye","reason":"drain"}"#), Reply::Bye(b"drain"));
    }
}
