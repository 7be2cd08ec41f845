//! The framings `line` and `length`.

use super::stream::{Sent, read};
use super::{Arrival, is_one_line};
use crate::config::Framing;
use crate::message::{CloseReason, Kind, PublishId};
use crate::protocol::{EncodeError, Encoding, Label, Violation, encode, foreign};

/// Bytes that a message may have.
const MESSAGE_MAX: [usize; 4] = [0, 3, 40, 1000];

/// Bytes of a client of `line` or `length`: any split of them gives the same messages and the same error, which are those
/// of a plain reading of the framing. A message that an encoding takes reads back as it was.
pub fn plain(data: &[u8]) {
    let Some(arrival) = Arrival::of(data) else { return };
    let message_max = MESSAGE_MAX[usize::from(arrival.settings >> 1) % MESSAGE_MAX.len()];
    let (encoding, (messages, is_too_large)) = if arrival.settings & 1 == 0 {
        (Encoding::Line, lines(arrival.bytes, message_max))
    } else {
        (Encoding::Length, lengths(arrival.bytes, message_max))
    };
    let sent: Vec<_> = messages.into_iter().map(|message| Sent::Message(Kind::Text, message)).collect();
    let violation = is_too_large.then_some(Violation::TooLarge { max: message_max });
    assert!(violation.is_none_or(|violation| violation.close_reason() == CloseReason::MessageTooLarge));
    for pieces in arrival.splits() {
        assert_eq!(read(encoding, &pieces, message_max), (sent.clone(), violation));
    }
    check_encoded(arrival.bytes);
    check_foreign(encoding.framing(), arrival.bytes);
}

/// The messages of `line`, and whether the one behind them is too large.
fn lines(stream: &[u8], message_max: usize) -> (Vec<Vec<u8>>, bool) {
    let mut messages = Vec::new();
    let mut lines = stream.split_inclusive(|byte| *byte == b'\n');
    let is_too_large = lines.any(|line| match line.strip_suffix(b"\n") {
        Some(line) => {
            let message = line.strip_suffix(b"\r").unwrap_or(line);
            let fits = message.len() <= message_max;
            messages.extend(fits.then(|| message.to_vec()));
            !fits
        }
        // A CR at its end may belong to the line's end.
        None => {
            let begun = if line.len() == message_max + 1 { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
            begun.len() > message_max
        }
    });
    (messages, is_too_large)
}

/// The messages of `length`, and whether the one behind them is too large.
fn lengths(mut stream: &[u8], message_max: usize) -> (Vec<Vec<u8>>, bool) {
    let mut messages = Vec::new();
    while let Some((length, behind)) = stream.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        if length > message_max {
            return (messages, true);
        }
        let Some((message, behind)) = behind.split_at_checked(length) else { break };
        messages.push(message.to_vec());
        stream = behind;
    }
    (messages, false)
}

/// A message between two others, in each encoding that takes it.
fn check_encoded(message: &[u8]) {
    for encoding in [Encoding::Line, Encoding::Length] {
        let mut stream = Vec::new();
        let mut put = |message: &[u8]| encode(encoding, Label::default(), message, &mut stream);
        put(b"before").expect("it is a line");
        let put_message = put(message);
        put(b"after").expect("it is a line");
        let mut expected: Vec<&[u8]> = vec![b"before", message, b"after"];
        if let Err(error) = put_message {
            assert_eq!(encoding, Encoding::Line);
            assert_eq!(error == EncodeError::LineFeed, message.contains(&b'\n'));
            assert!(error == EncodeError::LineFeed || message.ends_with(b"\r"));
            expected.remove(1);
        }
        let expected: Vec<_> = expected.into_iter().map(|text| Sent::Message(Kind::Text, text.to_vec())).collect();
        assert_eq!(read(encoding, &[&stream], message.len().max(6)), (expected, None));
    }
    let mut event = Vec::new();
    let label = Label { event: Some("msg"), id: Some(PublishId::new(0, 7)), kind: Kind::Text };
    match encode(Encoding::Sse, label, message, &mut event) {
        Ok(()) => check_event(std::str::from_utf8(message).expect("others are refused"), event),
        Err(error) => {
            assert!(error == EncodeError::NotUtf8 && event.is_empty() && std::str::from_utf8(message).is_err());
        }
    }
}

/// An event is a few fields and one empty line at its end, and its data is the message but for the form of its line ends.
fn check_event(message: &str, event: Vec<u8>) {
    let event = String::from_utf8(event).expect("an event stream is UTF-8");
    assert!(!event.contains('\r'), "{event:?}");
    let fields = event.strip_prefix("id: 7\nevent: msg\ndata: ").and_then(|data| data.strip_suffix("\n\n"));
    let data: Vec<_> = fields.expect("the fields stand around the data").split("\ndata: ").collect();
    assert_eq!(data.join("\n"), message.replace("\r\n", "\n").replace('\r', "\n"));
    assert!(data.iter().all(|line| !line.contains('\n')), "{event:?}");
}

/// What is said to clients of other protocols is one line, and more in their own words.
fn check_foreign(own: Framing, bytes: &[u8]) {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    for framing in [own, Framing::Http] {
        for foreign in [foreign::greeting(framing, bytes), foreign::first_line(line)].into_iter().flatten() {
            let text = foreign.explain(framing);
            assert!(is_one_line(&text), "{text:?}");
            assert!(foreign.answer(&text).is_none_or(|answer| !answer.is_empty()));
        }
    }
}
