//! NATS, for comparing: the client protocol of nats-server (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).
//!
//! A `SUB` and a `PUB` have no answer of their own here, so a `PING` behind each asks for one: the server answers in
//! order, and its `PONG` says that what stood before it has been read.

use memchr::memchr;

use super::{BadFrame, Decoded, Framed, MESSAGE_BYTES_MAX, Reply, split_word};

/// Bytes of a line at the most. The longest is `INFO` with the addresses of a cluster.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The client's first words. With `verbose` off, only what is asked for is answered.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"corecast\",\"version\":\"1\"}\r\n";

pub(super) const PING: &[u8] = b"PING\r\n";

pub(super) const PONG: &[u8] = b"PONG\r\n";

/// The first line; of a `MSG`, with the payload behind it.
pub(super) fn decode(buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    let Some(end) = memchr(b'\n', buf) else {
        return if buf.len() > LINE_BYTES_MAX { Err(BadFrame) } else { Ok(None) };
    };
    let (line, rest) = (line(&buf[..end]), end + 1);
    if !line.starts_with(b"MSG ") {
        return Ok(Some((0..line.len(), rest)));
    }
    let size = line.rsplit(|byte| *byte == b' ').next().and_then(number).ok_or(BadFrame)?;
    if size > MESSAGE_BYTES_MAX {
        return Err(BadFrame);
    }
    let end = rest + size;
    match buf.get(end..end + 2) {
        Some(b"\r\n") => Ok(Some((0..end, end + 2))),
        Some(_) => Err(BadFrame),
        None => Ok(None),
    }
}

/// A line without its CR.
fn line(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\r").unwrap_or(text)
}

fn number(digits: &[u8]) -> Option<usize> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Takes a message of the server apart.
pub(super) fn reply(message: &[u8]) -> Reply<'_> {
    let (verb, rest) = split_word(message);
    match verb {
        b"MSG" => {
            // `MSG subject sid [reply] size`, and the payload on the next line.
            let Some(end) = memchr(b'\n', rest) else { return Reply::Other };
            Reply::Message { topic: Some(split_word(rest).0), payload: &rest[end + 1..] }
        }
        b"INFO" => Reply::Greeting,
        b"PING" => Reply::Ping,
        b"PONG" => Reply::Pong,
        b"-ERR" => Reply::Error(rest.strip_prefix(b"'").and_then(|text| text.strip_suffix(b"'")).unwrap_or(rest)),
        _ => Reply::Other,
    }
}

pub(super) fn introduction() -> Vec<u8> {
    CONNECT.into()
}

pub(super) fn subscribe(topic: &str) -> Vec<u8> {
    format!("{CONNECT}SUB {topic} 1\r\nPING\r\n").into_bytes()
}

pub(super) fn publish(topic: &str, payload: &[u8]) -> Framed {
    Framed::new(format!("PUB {topic} {}\r\n", payload.len()).as_bytes(), payload, b"\r\nPING\r\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_says;
    use super::super::{Dialect, Framing};
    use super::*;

    const NATS: Dialect = Dialect { framing: Framing::Nats };

    #[test]
    fn a_session_is_read_wherever_it_is_cut() {
        let stream = b"INFO {\"max_payload\":1}\r\nPONG\r\nMSG t 1 5\r\na\r\nb \r\nMSG t 1 inbox.7 0\r\n\r\nPING\r\n\
            -ERR 'Slow Consumer'\r\n+OK\r\n";
        let replies = [
            Reply::Greeting,
            Reply::Pong,
            Reply::Message { topic: Some(b"t"), payload: b"a\r\nb " },
            Reply::Message { topic: Some(b"t"), payload: b"" },
            Reply::Ping,
            Reply::Error(b"Slow Consumer"),
            Reply::Other,
        ];
        assert_says(NATS, stream, &replies);
    }

    #[test]
    fn what_is_no_nats_is_refused() {
        for bad in [&b"MSG t 1 many\r\n"[..], b"MSG t 1 -1\r\n", b"MSG t 1 99999999999\r\n", b"MSG t 1 1\r\nabc"] {
            assert_eq!(decode(bad), Err(BadFrame), "{}", bad.escape_ascii());
        }
        assert_eq!(decode(&vec![b'a'; LINE_BYTES_MAX + 1]), Err(BadFrame));
    }

    #[test]
    fn a_publish_asks_for_an_answer() {
        let framed = publish("t", b"a b");
        assert_eq!(framed.bytes, b"PUB t 3\r\na b\r\nPING\r\n");
        assert_eq!(&framed.bytes[framed.payload], b"a b");
    }
}
