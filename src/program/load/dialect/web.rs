//! What browsers speak: WebSocket (RFC 6455) and server-sent events, both behind the head of an HTTP response.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::Range;

use memchr::{memchr, memmem};
use zlib_rs::{Inflate, InflateFlush};

use super::{BadFrame, Decoded, MESSAGE_BYTES_MAX, Reply};

/// First byte of a WebSocket text frame that is a whole message, and bit of the second that says it is masked.
const WS_TEXT: u8 = 0x81;
const WS_MASKED: u8 = 0x80;

/// First bytes of control frames.
const WS_CLOSE: u8 = 0x88;
const WS_PING: u8 = 0x89;
const WS_PONG: u8 = 0x8a;

/// What the masked frames of this client are masked with. A browser needs masks that nobody can foresee, a load
/// generator needs messages that it can stamp in place.
const WS_MASK: [u8; 4] = [0; 4];

/// The head of a response, as far as it is one: `None` if these bytes are the beginning of something else.
///
/// No frame of a server and no event begins with these bytes.
pub(super) fn decode_head(buf: &[u8]) -> Option<Option<Decoded>> {
    const START: &[u8] = b"HTTP/1.1 ";
    if buf.len() < START.len() {
        return START.starts_with(buf).then_some(None);
    }
    buf.starts_with(START).then(|| memmem::find(buf, b"\r\n\r\n").map(|end| (0..end, end + 4)))
}

/// A frame of a server.
struct WsFrame {
    /// Its first byte: whether it is the last one of its message, and what it is.
    first: u8,
    payload: Range<usize>,
}

/// The frame that begins at `from`, if it is complete.
fn ws_frame(buf: &[u8], from: usize) -> Result<Option<WsFrame>, BadFrame> {
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
    let is_known = matches!(*first, 0..=2 | 0x80..=0x82 | 0xc1 | 0xc2 | WS_CLOSE | WS_PING | WS_PONG);
    if length > MESSAGE_BYTES_MAX as u64 || !is_known {
        return Err(BadFrame);
    }
    let start = from + header;
    let payload = start..start + length as usize;
    Ok((buf.len() >= payload.end).then_some(WsFrame { first: *first, payload }))
}

/// What comes first: the payload of a message in one frame; else the whole frame of a ping, pong or close, or all frames
/// of a message in fragments, for [`reply_ws`] and [`whole_ws`] to take apart. `deflates`: a message in one frame may be a
/// compressed one.
pub(super) fn decode_ws(buf: &[u8], deflates: bool) -> Result<Option<Decoded>, BadFrame> {
    let Some(WsFrame { first, payload }) = ws_frame(buf, 0)? else { return Ok(None) };
    let end = payload.end;
    match first {
        0x81 | 0x82 => Ok(Some((payload, end))),
        0xc1 | 0xc2 if deflates => Ok(Some((payload, end))),
        1 | 2 => Ok(ws_fragments(buf, end)?.map(|end| (0..end, end))),
        WS_PING | WS_PONG | WS_CLOSE => Ok(Some((0..end, end))),
        // A continuation of nothing, or what was not offered.
        _ => Err(BadFrame),
    }
}

/// The end of a message whose first fragment ends at `from`, if it is complete.
fn ws_fragments(buf: &[u8], mut from: usize) -> Result<Option<usize>, BadFrame> {
    loop {
        let Some(WsFrame { first, payload }) = ws_frame(buf, from)? else { return Ok(None) };
        from = payload.end;
        match first {
            0x80 => return Ok(Some(from)),
            // One that stands between fragments is lost on a client that waits for the message.
            0 | WS_PING | WS_PONG | WS_CLOSE => {}
            _ => return Err(BadFrame),
        }
    }
}

/// A message in one piece, as [`decode_ws`] has found it.
pub(super) fn whole_ws(message: &[u8]) -> Cow<'_, [u8]> {
    if !matches!(message.first(), Some(1 | 2)) {
        return Cow::Borrowed(message);
    }
    let (mut whole, mut from) = (Vec::new(), 0);
    while let Ok(Some(WsFrame { first, payload })) = ws_frame(message, from) {
        from = payload.end;
        if first & 0x08 == 0 {
            whole.extend_from_slice(&message[payload]);
        }
    }
    // One that only looks like fragments.
    if from == message.len() { Cow::Owned(whole) } else { Cow::Borrowed(message) }
}

/// What a frame says that is no message; no text begins with the first byte of one.
pub(super) fn reply_ws(message: &[u8]) -> Option<Reply<'_>> {
    match message {
        [WS_PING, ..] => Some(Reply::Ping),
        [WS_PONG, ..] => Some(Reply::Greeting),
        // Its code comes before the words.
        [WS_CLOSE, _, said @ ..] => Some(Reply::Bye(said.get(2..).unwrap_or_default())),
        _ => None,
    }
}

/// What answers a ping: its own payload, which is short.
pub(super) fn pong(ping: &[u8]) -> Vec<u8> {
    let payload = ping.get(2..).unwrap_or_default();
    [&[WS_PONG, WS_MASKED | payload.len() as u8], &WS_MASK[..], payload].concat()
}

/// Whether the frame whose payload is at `range` is a compressed one. Its header has the shortest form.
pub(super) fn is_compressed(buf: &[u8], range: &Range<usize>) -> bool {
    let header = match range.len() {
        0..126 => 2,
        126..0x1_0000 => 4,
        _ => 10,
    };
    // In the head of a response there is nothing before the payload.
    range.start.checked_sub(header).is_some_and(|start| buf[start] & 0x40 != 0)
}

/// A message out of its compressed form (RFC 7692): each is one by itself, as this client asks.
pub(super) fn inflate(payload: &[u8]) -> Result<Vec<u8>, BadFrame> {
    const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
    thread_local! {
        static INFLATE: RefCell<Inflate> = RefCell::new(Inflate::new(false, 15));
    }
    INFLATE.with_borrow_mut(|inflate| {
        inflate.reset(false);
        let mut message = vec![0; 4 * payload.len() + 64];
        for bytes in [payload, &TAIL] {
            let end = inflate.total_in() + bytes.len() as u64;
            loop {
                let (used, made) = (end - inflate.total_in(), inflate.total_out() as usize);
                let rest = &bytes[bytes.len() - used as usize..];
                inflate.decompress(rest, &mut message[made..], InflateFlush::SyncFlush).map_err(|_| BadFrame)?;
                if (inflate.total_out() as usize) < message.len() {
                    break;
                }
                if message.len() > MESSAGE_BYTES_MAX {
                    return Err(BadFrame);
                }
                message.resize(2 * message.len(), 0);
            }
        }
        message.truncate(inflate.total_out() as usize);
        Ok(message)
    })
}

/// The data of the first event that has any, on its first line: the hub writes one line.
pub(super) fn decode_sse(buf: &[u8]) -> Option<Decoded> {
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

/// What stands before a message of this size in a WebSocket frame.
pub(super) fn ws_header(message_bytes: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(14);
    header.push(WS_TEXT);
    match message_bytes {
        length @ 0..126 => header.push(WS_MASKED | length as u8),
        length @ 126..0x1_0000 => {
            header.push(WS_MASKED | 126);
            header.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            header.push(WS_MASKED | 127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header.extend_from_slice(&WS_MASK);
    header
}

/// The fields that open a WebSocket. Any 16 bytes are a key; what is made of it is not looked at.
pub(super) const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                                  Sec-WebSocket-Key: Y29yZWNhc3QtbG9hZC0xMg==\r\n";

/// The same with an offer to have messages compressed.
pub(super) const UPGRADE_DEFLATE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                                          Sec-WebSocket-Key: Y29yZWNhc3QtbG9hZC0xMg==\r\n\
                                          Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n";

/// A request for a path and a query that may hold a parameter, with `fields` besides.
pub(super) fn request(path: &str, parameter: Option<(&str, &str)>, fields: &str) -> Vec<u8> {
    let mut request = format!("GET {path}");
    if let Some((name, value)) = parameter {
        let _ = write!(request, "?{name}=");
        push_encoded(&mut request, value);
    }
    request.push_str(" HTTP/1.1\r\nHost: corecast\r\n");
    request.push_str(fields);
    request.push_str("\r\n");
    request.into_bytes()
}

/// Appends a parameter's value, percent-encoded.
pub(super) fn push_encoded(out: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::take_all;
    use super::super::{BadFrame, Dialect, Framing, Reply, decode};

    #[test]
    fn a_websocket_is_read_from_its_head_on() {
        let stream = b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n\x8a\x00\x81\x02hi\x82\x01x";
        let mut messages = Vec::new();
        let mut from = 0;
        while let Some((range, used)) = decode(Framing::Ws, &stream[from..]).unwrap() {
            messages.push(stream[from..][range].to_vec());
            from += used;
        }
        assert_eq!(from, stream.len());
        assert_eq!(messages, [&b"HTTP/1.1 101 Switching Protocols\r\nA: b"[..], b"\x8a\0", b"hi", b"x"]);
        for cut in 0..42 {
            assert_eq!(decode(Framing::Ws, &stream[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(decode(Framing::Ws, b"\x81\x81masked"), Err(BadFrame));
    }

    #[test]
    fn a_compressed_message_is_inflated_and_only_where_that_was_offered() {
        // "Hello" in the form of RFC 7692, section 7.2.3.1.
        let stream = b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\x81\x02hi\xc1\x01\x06";
        let dialect = Dialect { framing: Framing::WsDeflate };
        let (range, used) = dialect.decode(stream).unwrap().unwrap();
        assert_eq!(dialect.message(stream, range).unwrap(), &b"Hello"[..]);
        let rest = &stream[used..];
        let (range, used) = dialect.decode(rest).unwrap().unwrap();
        assert_eq!(dialect.message(rest, range).unwrap(), &b"hi"[..]);
        let broken = &rest[used..];
        let (range, _) = dialect.decode(broken).unwrap().unwrap();
        assert_eq!(dialect.message(broken, range), Err(BadFrame));
        assert_eq!(decode(Framing::Ws, stream), Err(BadFrame));
    }

    #[test]
    fn fragments_are_joined_pings_are_answered_and_a_close_tells_why() {
        let dialect = Dialect { framing: Framing::Ws };
        let stream = b"\x01\x02he\x89\x00\x00\x01l\x80\x02lo\x89\x03abc\x88\x05\x03\xe8bye";
        let fragments = b"\x01\x02he\x89\x00\x00\x01l\x80\x02lo".len();
        let messages = take_all(dialect, stream);
        assert_eq!(dialect.message(&messages[0], 0..fragments).unwrap(), &b"hello"[..]);
        assert_eq!((dialect.reply(&messages[1]), dialect.reply(&messages[2])), (Reply::Ping, Reply::Bye(b"bye")));
        assert_eq!(dialect.pong(&messages[1]), b"\x8a\x83\0\0\0\0abc");
        for cut in 0..fragments {
            assert_eq!(decode(Framing::Ws, &stream[..cut]), Ok(None), "cut at {cut}");
        }
        assert_eq!(decode(Framing::Ws, b"\x80\x01x"), Err(BadFrame));
        assert_eq!(dialect.message(b"\x01\x7fno frame", 0..10).unwrap(), &b"\x01\x7fno frame"[..]);
    }

    #[test]
    fn an_event_stream_is_read_from_its_head_on_and_comments_are_passed_over() {
        let stream = b"HTTP/1.1 200 OK\r\n\r\nretry: 5\n\n:\n\nid: 1\ndata: {\"type\":\"msg\"}\n\n";
        let (head, used) = decode(Framing::Sse, stream).unwrap().unwrap();
        assert_eq!(Dialect { framing: Framing::Sse }.reply(&stream[head]), Reply::Subscribed);
        let rest = &stream[used..];
        let (data, used) = decode(Framing::Sse, rest).unwrap().unwrap();
        assert_eq!((&rest[data], used), (&b"{\"type\":\"msg\"}"[..], rest.len()));
    }
}
