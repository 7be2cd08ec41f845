//! The dialect: which bytes a client and the server say to each other.
//!
//! Scenarios speak in the terms of this file and never see a framing. The server's own framings come first; those of
//! other push servers are there so that all of them can be measured by the same client.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;

use crate::printable;

mod corecast;
mod framing;
mod mqtt;
mod nats;
mod nchan;
mod redis;
mod web;

pub(crate) use framing::Framing;

/// Largest message, in bytes. A longer one means that the other side speaks another framing.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A message's place in a slice, and the bytes to drop with it.
type Decoded = (Range<usize>, usize);

/// The stream can't be cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadFrame;

/// Finds the first complete message in `buf`; `None` when more bytes are needed. The head of an HTTP response counts
/// as a message.
pub(super) fn decode(framing: Framing, buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    match framing {
        Framing::Line => corecast::decode_line(buf),
        Framing::Length => corecast::decode_length(buf),
        Framing::Ws | Framing::WsDeflate | Framing::Sse => match web::decode_head(buf) {
            Some(head) => Ok(head),
            None if framing == Framing::Sse => Ok(web::decode_sse(buf)),
            None => web::decode_ws(buf, framing == Framing::WsDeflate),
        },
        Framing::Nats => nats::decode(buf),
        Framing::Redis => redis::decode(buf),
        Framing::Mqtt => mqtt::decode(buf),
        Framing::Nchan => nchan::decode(buf),
        Framing::NchanPost => nchan::decode_response(buf),
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
            Framing::Nchan => Dialect { framing: Framing::NchanPost },
            _ => self,
        }
    }

    /// Whether a client of this dialect only listens.
    pub(super) fn is_one_way(self) -> bool {
        matches!(self.framing, Framing::Sse | Framing::Nchan)
    }

    /// The first complete message in `buf`.
    pub(super) fn decode(self, buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
        decode(self.framing, buf)
    }

    /// The message that [`Dialect::decode`] has found in `buf`: in one piece, and inflated, if it is compressed.
    pub(super) fn message(self, buf: &[u8], range: Range<usize>) -> Result<Cow<'_, [u8]>, BadFrame> {
        match self.framing {
            Framing::WsDeflate if web::is_compressed(buf, &range) => web::inflate(&buf[range]).map(Cow::Owned),
            Framing::Ws | Framing::WsDeflate | Framing::Nchan => Ok(web::whole_ws(&buf[range])),
            _ => Ok(Cow::Borrowed(&buf[range])),
        }
    }

    /// Takes a message apart that [`Dialect::message`] gives.
    pub(super) fn reply(self, message: &[u8]) -> Reply<'_> {
        match self.framing {
            Framing::Ws | Framing::WsDeflate => web::reply_ws(message).unwrap_or_else(|| corecast::reply(message)),
            Framing::Line | Framing::Length | Framing::Sse => corecast::reply(message),
            Framing::Nats => nats::reply(message),
            Framing::Redis => redis::reply(message),
            Framing::Mqtt => mqtt::reply(message),
            Framing::Nchan => nchan::reply(message),
            Framing::NchanPost => nchan::reply_to_publisher(message),
        }
    }

    /// What a connection says before its first message, if the server must answer that first.
    pub(super) fn opening(self, topic: Option<&str>) -> Option<Vec<u8>> {
        let topic = topic.map(|topic| ("topic", topic));
        match self.framing {
            Framing::Ws => Some(web::request("/ws", topic, web::UPGRADE)),
            Framing::WsDeflate => Some(web::request("/ws", topic, web::UPGRADE_DEFLATE)),
            Framing::Sse => Some(web::request("/sse", topic, "")),
            _ => None,
        }
    }

    /// What a connection that publishes says first, without waiting for an answer.
    pub(super) fn introduction(self) -> Vec<u8> {
        match self.framing {
            Framing::Nats => nats::introduction(),
            Framing::Mqtt => mqtt::introduction(),
            _ => Vec::new(),
        }
    }

    /// What a connection says to be subscribed to a topic. A [`Reply::Subscribed`] or, where a subscription has no
    /// answer of its own, a [`Reply::Pong`] tells that it is.
    pub(super) fn subscribe(self, topic: &str) -> Vec<u8> {
        match self.framing {
            Framing::Nats => nats::subscribe(topic),
            Framing::Redis => redis::subscribe(topic),
            Framing::Mqtt => mqtt::subscribe(topic),
            Framing::Nchan => nchan::subscribe(topic),
            _ => self
                .opening(Some(topic))
                .unwrap_or_else(|| corecast::frame(self.framing, &format!("SUB {topic}"), b"").bytes),
        }
    }

    /// What a connection that is subscribed says to be subscribed to a further topic; it is answered by a
    /// [`Reply::Subscribed`]. `None` where that has not been needed yet, or can't be.
    pub(super) fn subscribe_also(self, topic: &str) -> Option<Vec<u8>> {
        match self.framing {
            Framing::Line | Framing::Length | Framing::Ws | Framing::WsDeflate => {
                Some(corecast::frame(self.framing, &format!("SUB {topic}"), b"").bytes)
            }
            _ => None,
        }
    }

    /// The same in words, for messages to people.
    pub(super) fn subscribe_text(self, topic: &str) -> String {
        match self.framing {
            Framing::Line | Framing::Length | Framing::Nats => format!("SUB {topic}"),
            Framing::Ws | Framing::WsDeflate => format!("GET /ws?topic={topic}"),
            Framing::Sse => format!("GET /sse?topic={topic}"),
            Framing::Redis | Framing::Mqtt => format!("SUBSCRIBE {topic}"),
            Framing::Nchan | Framing::NchanPost => format!("GET /sub?id={topic}"),
        }
    }

    /// What shows that the client lives; it is answered by a [`Reply::Pong`].
    pub(super) fn ping(self) -> Vec<u8> {
        match self.framing {
            Framing::Nats => nats::PING.to_vec(),
            Framing::Redis => redis::ping(),
            Framing::Mqtt => mqtt::PING.to_vec(),
            // nginx keeps a connection open for as long as its settings say, whatever is said on it.
            Framing::Nchan | Framing::NchanPost => Vec::new(),
            _ => corecast::frame(self.framing, "PING", b"").bytes,
        }
    }

    /// What answers a message that is a [`Reply::Ping`].
    pub(super) fn pong(self, ping: &[u8]) -> Vec<u8> {
        match self.framing {
            Framing::Nats => nats::PONG.to_vec(),
            Framing::Ws | Framing::WsDeflate | Framing::Nchan => web::pong(ping),
            // The others' servers don't ask, or not in a message.
            _ => Vec::new(),
        }
    }

    /// One message to the subscribers of a topic. It is answered by a [`Reply::Published`] or, if
    /// [`Dialect::confirms_by_pong`], a [`Reply::Pong`].
    pub(super) fn publish(self, topic: &str, payload: &[u8]) -> Framed {
        match self.framing {
            Framing::Nats => nats::publish(topic, payload),
            Framing::Redis => redis::publish(topic, payload),
            Framing::Mqtt => mqtt::publish(topic, payload),
            Framing::NchanPost => nchan::publish(topic, payload),
            _ => corecast::frame(self.framing, &corecast::publish_head(topic), payload),
        }
    }

    /// Whether a publish has no answer of its own, so that it ends with a ping.
    pub(super) fn confirms_by_pong(self) -> bool {
        matches!(self.framing, Framing::Nats | Framing::Mqtt)
    }

    /// The same in words, for messages to people.
    pub(super) fn publish_text(self, topic: &str) -> String {
        match self.framing {
            Framing::Redis | Framing::Mqtt => format!("PUBLISH {topic} …"),
            Framing::Nchan | Framing::NchanPost => format!("POST /pub?id={topic}"),
            _ => corecast::publish_head(topic) + "…",
        }
    }

    /// One message that an echo sends back.
    pub(super) fn echo(self, payload: &[u8]) -> Framed {
        match self.framing {
            Framing::Redis => redis::echo(payload),
            _ => corecast::frame(self.framing, "", payload),
        }
    }

    /// The part of an error that is the same each time: the server's own begin with a code.
    pub(super) fn error_kind(self, error: &[u8]) -> &[u8] {
        match self.framing {
            Framing::Line | Framing::Length | Framing::Ws | Framing::WsDeflate | Framing::Sse => split_word(error).0,
            _ => error,
        }
    }
}

/// A message of the server, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    /// The server has said who it is, or that it lives.
    Greeting,
    /// The WebSocket is open.
    Upgraded,
    /// `OK SUB topic…`, or the beginning of an event stream
    Subscribed,
    /// `OK PUB id`
    Published,
    /// `MSG topic payload`; some dialects don't name the topic
    Message { topic: Option<&'a [u8]>, payload: &'a [u8] },
    /// `GAP topic count reason`
    Gap { topic: &'a [u8], count: u64 },
    /// `PONG [text]`
    Pong,
    /// The server asks whether this side lives.
    Ping,
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

/// A peer's text for a message to people: one line, of bounded length, that can't do anything to a terminal.
pub(super) fn readable(text: &[u8]) -> String {
    printable::line_of_bytes(text, 60)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use proptest::prelude::*;

    use super::*;

    /// All messages of a stream that must be whole.
    pub(super) fn take_all(dialect: Dialect, stream: &[u8]) -> Vec<Vec<u8>> {
        let (messages, used) = take(dialect, stream);
        assert_eq!(used, stream.len());
        messages
    }

    /// A stream must say just this, wherever it is cut in two.
    pub(super) fn assert_says(dialect: Dialect, stream: &[u8], replies: &[Reply<'_>]) {
        let messages = take_all(dialect, stream);
        assert_eq!(messages.iter().map(|message| dialect.reply(message)).collect::<Vec<_>>(), replies);
        for cut in 0..stream.len() {
            assert_eq!(pieces(dialect, stream, cut), messages, "cut at {cut}");
        }
    }

    /// The messages of a stream that comes in two pieces.
    fn pieces(dialect: Dialect, stream: &[u8], cut: usize) -> Vec<Vec<u8>> {
        let (mut messages, used) = take(dialect, &stream[..cut]);
        messages.extend(take_all(dialect, &stream[used..]));
        messages
    }

    fn take(dialect: Dialect, stream: &[u8]) -> (Vec<Vec<u8>>, usize) {
        let (mut messages, mut from) = (Vec::new(), 0);
        while let Some((range, used)) = dialect.decode(&stream[from..]).unwrap() {
            messages.push(stream[from..][range].to_vec());
            from += used;
        }
        (messages, from)
    }

    /// Bytes of which many look like the beginning of a message.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let words: [&[u8]; 14] = [
            b"MSG t 1 3\r\n",
            b"INFO {}\r\n",
            b"-ERR 'x'\r\n",
            b"*3\r\n$7\r\nmessage\r\n",
            b"$-1\r\n",
            b":1\r\n",
            b"\x30\x06\x00\x01tabc",
            b"\x20\x02\x00\x00",
            b"HTTP/1.1 201 Created\r\n",
            b"Content-Length: 3\r\n",
            b"\r\n\r\n",
            b"\x81\x03abc",
            b"data: {}\n\n",
            b"abc",
        ];
        let word = prop_oneof![
            proptest::sample::select(words.to_vec()).prop_map(<[u8]>::to_vec),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(word, 0..8).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn whatever_a_server_sends_is_read_within_its_bounds(stream in streams()) {
            for framing in Framing::value_variants() {
                let dialect = Dialect { framing: *framing };
                let mut from = 0;
                while let Ok(Some((range, used))) = dialect.decode(&stream[from..]) {
                    prop_assert!(range.start <= range.end && range.end <= used && used > 0 && from + used <= stream.len());
                    let _ = dialect.reply(&stream[from..][range]);
                    from += used;
                }
            }
        }

        #[test]
        fn what_is_decoded_does_not_depend_on_what_follows(stream in streams(), more in streams()) {
            for framing in Framing::value_variants() {
                let dialect = Dialect { framing: *framing };
                if let Ok(Some(found)) = dialect.decode(&stream) {
                    prop_assert_eq!(dialect.decode(&[stream.clone(), more.clone()].concat()), Ok(Some(found)));
                }
            }
        }
    }
}
