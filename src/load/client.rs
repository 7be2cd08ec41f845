//! The dialect: which bytes a client and the server say to each other.
//!
//! Scenarios speak in the terms of this file and never see a framing, so another dialect can be put in its place.

use std::ops::Range;

use memchr::memchr;

use crate::config::Framing;

/// Bytes of one message at the most. A longer one means that the other side speaks another framing.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a `length` header.
const LENGTH_BYTES: usize = 4;

/// A message's place in a slice, and the bytes to drop with it.
type Decoded = (Range<usize>, usize);

/// The stream can't be cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadFrame;

/// Finds the first complete message in `buf`; `None` when more bytes are needed.
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
    }
}

/// How messages are written and read on a connection of this run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) framing: Framing,
}

impl Dialect {
    /// The first complete message in `buf`.
    pub(super) fn decode(self, buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
        decode(self.framing, buf)
    }

    /// One message with its framing.
    pub(super) fn encode(self, message: &[u8]) -> Vec<u8> {
        let mut framed = Vec::with_capacity(message.len() + LENGTH_BYTES);
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
        }
        framed
    }

    /// Bytes that stand before a message in its frame.
    pub(super) fn header_bytes(self) -> usize {
        match self.framing {
            Framing::Line => 0,
            Framing::Length => LENGTH_BYTES,
        }
    }

    pub(super) fn subscribe(self, topic: &str) -> Vec<u8> {
        self.encode(format!("SUB {topic}").as_bytes())
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
    /// `OK SUB topic…`
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
        let (verb, rest) = split_word(message);
        match verb {
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
    fn both_framings_decode_what_they_encode_and_wait_for_the_rest() {
        for framing in Framing::ALL {
            let dialect = Dialect { framing };
            let frame = dialect.encode(b"MSG a b");
            for cut in 0..frame.len() {
                assert_eq!(dialect.decode(&frame[..cut]), Ok(None), "{framing} cut at {cut}");
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
    }
}
