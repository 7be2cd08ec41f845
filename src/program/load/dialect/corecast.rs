//! The server's own language, and the framings `line` and `length` of it.

use memchr::memchr;
use serde::Deserialize;

use super::{BadFrame, Decoded, Framed, Framing, MESSAGE_BYTES_MAX, Reply, split_word, web};

/// Bytes of a `length` header.
const LENGTH_BYTES: usize = 4;

/// The first line.
pub(super) fn decode_line(buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    match memchr(b'\n', buf) {
        Some(end) => {
            let text = end - usize::from(end > 0 && buf[end - 1] == b'\r');
            Ok(Some((0..text, end + 1)))
        }
        None if buf.len() > MESSAGE_BYTES_MAX => Err(BadFrame),
        None => Ok(None),
    }
}

/// The first message behind its length.
pub(super) fn decode_length(buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    let Some(header) = buf.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let end = LENGTH_BYTES + u32::from_be_bytes(*header) as usize;
    if end > MESSAGE_BYTES_MAX {
        return Err(BadFrame);
    }
    Ok((buf.len() >= end).then_some((LENGTH_BYTES..end, end)))
}

/// A message with its framing.
pub(super) fn frame(framing: Framing, head: &str, payload: &[u8]) -> Framed {
    let length = head.len() + payload.len();
    let (mut before, behind): (Vec<u8>, &[u8]) = match framing {
        Framing::Line => (Vec::new(), b"\n"),
        // No message of a plan is near 4 GiB: the plan's own limit is 16 MiB.
        Framing::Length => ((length as u32).to_be_bytes().to_vec(), b""),
        Framing::Ws | Framing::WsDeflate => (web::ws_header(length), b""),
        // An event stream takes no messages, and others frame their own.
        _ => return Framed::new(b"", b"", b""),
    };
    before.extend_from_slice(head.as_bytes());
    Framed::new(&before, payload, behind)
}

/// What stands before the payload of a publish.
pub(super) fn publish_head(topic: &str) -> String {
    format!("PUB {topic} ")
}

/// Takes a message of the language apart.
pub(super) fn reply(message: &[u8]) -> Reply<'_> {
    if message.starts_with(b"{") {
        return parse_json(message).unwrap_or(Reply::Other);
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
            Reply::Message { topic: Some(topic), payload }
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
fn parse_json(message: &[u8]) -> Option<Reply<'_>> {
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
        "msg" => Reply::Message { topic: Some(event.topic?.as_bytes()), payload: event.payload?.as_bytes() },
        "gap" => Reply::Gap { topic: event.topic?.as_bytes(), count: event.count? },
        "bye" => Reply::Bye(event.reason?.as_bytes()),
        _ => Reply::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Dialect, decode};
    use super::*;

    #[test]
    fn plain_framings_decode_what_they_encode_and_wait_for_the_rest() {
        for framing in Framing::PLAIN {
            let dialect = Dialect { framing };
            let frame = dialect.echo(b"MSG a b").bytes;
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
    fn replies_are_taken_apart() {
        assert_eq!(reply(b"MSG t a b"), Reply::Message { topic: Some(b"t"), payload: b"a b" });
        assert_eq!(reply(b"GAP t 12 queue-full"), Reply::Gap { topic: b"t", count: 12 });
        assert_eq!(reply(b"GAP t many"), Reply::Other);
        assert_eq!(reply(b"OK SUB t u"), Reply::Subscribed);
        assert_eq!(reply(b"OK PUB 7"), Reply::Published);
        assert_eq!(reply(b"ERR busy try later"), Reply::Error(b"busy try later"));
        assert_eq!(reply(b"PONG"), Reply::Pong);
        assert_eq!(reply(b"BYE drain"), Reply::Bye(b"drain"));
        assert_eq!(reply(b""), Reply::Other);
        assert_eq!(reply(b"HTTP/1.1 101 Switching Protocols"), Reply::Upgraded);
        assert_eq!(reply(b"HTTP/1.1 403 Forbidden"), Reply::Error(b"403 Forbidden"));
        let message = br#"{"type":"msg","topic":"t","payload":"a b"}"#;
        assert_eq!(reply(message), Reply::Message { topic: Some(b"t"), payload: b"a b" });
        let gap = br#"{"type":"gap","topic":"*","count":12,"reason":"queue-full"}"#;
        assert_eq!(reply(gap), Reply::Gap { topic: b"*", count: 12 });
        assert_eq!(reply(br#"{"type":"bye","reason":"drain"}"#), Reply::Bye(b"drain"));
    }
}
