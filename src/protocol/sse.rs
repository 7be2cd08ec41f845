//! Server-sent events (the WHATWG's HTML standard, section 9.2): one way, UTF-8 text, read line by line.

use std::io::Write as _;

use super::websocket::Assembly;
use super::{EncodeError, Item, Label, Protocol, Step, Violation, utf8};

/// A comment: it keeps the way open, and clients pass over it.
const HEARTBEAT: &[u8] = b":\n\n";

/// The head of a stream, with these header lines besides. The stream ends with the connection. Proxies may neither compress
/// it, since then they gather events until there is enough to compress, nor hold it back, which `X-Accel-Buffering` tells
/// nginx.
#[cfg(feature = "web")]
pub(crate) fn response(lines: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-store, no-transform\r\n\
         X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n{lines}Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// Makes the client wait this long before it connects again.
#[cfg(feature = "web")]
pub(crate) fn retry(out: &mut Vec<u8>, ms: u64) {
    put(out, format_args!("retry: {ms}\n\n"));
}

/// A stream of events.
pub(super) struct Sse;

impl Protocol for Sse {
    const KEEP_ALIVE: Option<&'static [u8]> = Some(HEARTBEAT);
    const IS_ANSWERED: bool = false;

    fn next(bytes: &mut [u8], _: usize, _: &mut Option<Box<Assembly>>, _: usize) -> Result<Step, Violation> {
        Ok(Step::of(Item::Stray, bytes.len()))
    }

    fn encode(label: Label, message: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode(label, message, out)
    }
}

/// A line end inside the message, whichever it is (CR, LF, or both), begins a new line of
/// data, which clients read as LF.
fn encode(label: Label, message: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if utf8::from_utf8(message).is_err() {
        return Err(EncodeError::NotUtf8);
    }
    if let Some(id) = label.id {
        put(out, format_args!("id: {id}\n"));
    }
    if let Some(event) = label.event {
        put(out, format_args!("event: {event}\n"));
    }
    out.reserve(message.len() + 8);
    let mut rest = message;
    loop {
        let end = memchr::memchr2(b'\r', b'\n', rest);
        // The space is one that clients drop; without it they would drop one of the message's own.
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        out.push(b'\n');
        match end {
            Some(at) if rest[at..].starts_with(b"\r\n") => rest = &rest[at + 2..],
            Some(at) => rest = &rest[at + 1..],
            None => break,
        }
    }
    out.push(b'\n');
    Ok(())
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::PublishId;
    use proptest::prelude::*;

    fn encoded(label: Label, message: &[u8]) -> String {
        let mut out = Vec::new();
        encode(label, message, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Reads a stream as the standard says that a browser does: events with id, type and data.
    fn read(stream: &str) -> Vec<(String, String, String)> {
        let (mut events, mut id, mut kind, mut data) = (Vec::new(), String::new(), String::new(), None::<String>);
        let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
        for line in stream.split('\n') {
            if line.is_empty() {
                if let Some(data) = data.take() {
                    events.push((id.clone(), std::mem::take(&mut kind), data));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => value.clone_into(&mut id),
                "event" => value.clone_into(&mut kind),
                "data" => match &mut data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => data = Some(value.to_owned()),
                },
                _ => {}
            }
        }
        events
    }

    #[test]
    fn each_line_end_of_a_message_begins_a_line_of_data() {
        let label = Label { event: Some("gap"), id: Some(PublishId::new(0, 7)), ..Label::default() };
        assert_eq!(encoded(label, b"a\nb"), "id: 7\nevent: gap\ndata: a\ndata: b\n\n");
        assert_eq!(encoded(Label::default(), b" a\r\nb\rc\n\n"), "data:  a\ndata: b\ndata: c\ndata: \ndata: \n\n");
        assert_eq!(encoded(Label::default(), b""), "data: \n\n");
        assert_eq!(encode(Label::default(), b"\xff", &mut Vec::new()), Err(EncodeError::NotUtf8));
    }

    proptest! {
        #[test]
        fn a_browser_reads_what_was_sent(messages in prop::collection::vec("[ a:\r\n\u{e9}]{0,20}", 0..5)) {
            let mut stream = Vec::new();
            for message in &messages {
                encode(Label::default(), message.as_bytes(), &mut stream).unwrap();
                stream.extend_from_slice(HEARTBEAT);
            }
            let read: Vec<_> = read(std::str::from_utf8(&stream).unwrap()).into_iter().map(|event| event.2).collect();
            let sent: Vec<_> =
                messages.iter().map(|message| message.replace("\r\n", "\n").replace('\r', "\n")).collect();
            prop_assert_eq!(read, sent);
        }
    }
}
