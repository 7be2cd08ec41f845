//! nchan, nginx's module for push, for comparing (<https://nchan.io>): subscribers on a WebSocket at `/sub`, a publisher
//! that posts to `/pub`, both with `?id=` and the topic.

use std::fmt::Write as _;

use super::{BadFrame, Decoded, Framed, Reply, web};

/// Bytes and headers of a response's head at the most.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// The name of the parameter that holds the topic.
const TOPIC: &str = "id";

/// The first message of a subscriber: the head, then the data of a WebSocket frame each.
pub(super) fn decode(buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    match web::decode_head(buf) {
        Some(head) => Ok(head),
        None => web::decode_ws(buf, false),
    }
}

/// The first response to a publisher: its head is the message, its body is passed over.
pub(super) fn decode_response(buf: &[u8]) -> Result<Option<Decoded>, BadFrame> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(buf).map_err(|_| BadFrame)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial if buf.len() > HEAD_BYTES_MAX => return Err(BadFrame),
        httparse::Status::Partial => return Ok(None),
    };
    let body = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    // nchan gives a length with every answer to a publish.
    let length = match body {
        Some(header) => str::from_utf8(header.value).ok().and_then(|text| text.trim().parse::<u32>().ok()),
        None if response.code == Some(204) => Some(0),
        None => None,
    };
    let end = head + length.ok_or(BadFrame)? as usize;
    Ok((buf.len() >= end).then_some((0..head, end)))
}

/// Takes a message of a subscriber apart. It does not name its topic, of which there is one to a connection.
pub(super) fn reply(message: &[u8]) -> Reply<'_> {
    match message.strip_prefix(b"HTTP/1.1 ") {
        Some(status) if status.starts_with(b"101 ") => Reply::Subscribed,
        Some(status) => Reply::Error(first_line(status)),
        None => web::reply_ws(message).unwrap_or(Reply::Message { topic: None, payload: message }),
    }
}

/// Takes a response to a publisher apart.
pub(super) fn reply_to_publisher(head: &[u8]) -> Reply<'_> {
    match head.strip_prefix(b"HTTP/1.1 ") {
        Some([b'2', ..]) => Reply::Published,
        Some(status) => Reply::Error(first_line(status)),
        None => Reply::Other,
    }
}

fn first_line(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'\r').next().unwrap_or_default()
}

pub(super) fn subscribe(topic: &str) -> Vec<u8> {
    web::request("/sub", Some((TOPIC, topic)), web::UPGRADE)
}

pub(super) fn publish(topic: &str, payload: &[u8]) -> Framed {
    let mut head = format!("POST /pub?{TOPIC}=");
    web::push_encoded(&mut head, topic);
    let _ = write!(head, " HTTP/1.1\r\nHost: corecast\r\nContent-Length: {}\r\n\r\n", payload.len());
    Framed::new(head.as_bytes(), payload, b"")
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_says;
    use super::super::{Dialect, Framing};
    use super::*;

    const NCHAN: Dialect = Dialect { framing: Framing::Nchan };
    const POST: Dialect = Dialect { framing: Framing::NchanPost };

    #[test]
    fn a_subscriber_is_read_wherever_it_is_cut() {
        let stream = b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n\x81\x03a b\x8a\x00\x82\x01x";
        let replies = [
            Reply::Subscribed,
            Reply::Message { topic: None, payload: b"a b" },
            Reply::Greeting,
            Reply::Message { topic: None, payload: b"x" },
        ];
        assert_says(NCHAN, stream, &replies);
        assert_eq!(NCHAN.reply(b"HTTP/1.1 403 Forbidden\r\nA: b"), Reply::Error(b"403 Forbidden"));
    }

    #[test]
    fn a_publisher_is_read_wherever_it_is_cut() {
        let stream = b"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No Content\r\n\r\n\
            HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n";
        let replies = [Reply::Published, Reply::Published, Reply::Error(b"413 Request Entity Too Large")];
        assert_says(POST, stream, &replies);
    }

    #[test]
    fn responses_without_a_length_are_refused() {
        for bad in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"MSG t 1 1\r\n",
        ] {
            assert_eq!(decode_response(bad), Err(BadFrame), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_topic_is_encoded() {
        let framed = publish("a/b", b"x y");
        assert_eq!(framed.bytes, b"POST /pub?id=a%2Fb HTTP/1.1\r\nHost: corecast\r\nContent-Length: 3\r\n\r\nx y");
        assert_eq!(&framed.bytes[framed.payload], b"x y");
        assert!(subscribe("a/b").starts_with(b"GET /sub?id=a%2Fb HTTP/1.1\r\n"));
    }
}
