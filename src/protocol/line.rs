//! `line`: a message is the bytes up to LF; one CR before the LF is dropped; delivered with LF.
//!
//! A message with an LF in it can't be carried, and neither can one that ends in a CR: whoever reads it would drop that.

use super::websocket::Assembly;
use super::{EncodeError, Item, Label, Protocol, Step, Violation};
use crate::message::Kind;

/// The framing `line`.
pub(super) struct Line;

impl Protocol for Line {
    #[inline]
    fn next(
        bytes: &mut [u8],
        scanned: usize,
        _: &mut Option<Box<Assembly>>,
        message_max: usize,
    ) -> Result<Step, Violation> {
        decode(bytes, scanned, message_max)
    }

    fn encode(_: Label, message: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if memchr::memchr(b'\n', message).is_some() {
            return Err(EncodeError::LineFeed);
        }
        if message.ends_with(b"\r") {
            return Err(EncodeError::CarriageReturn);
        }
        out.reserve(message.len() + 1);
        out.extend_from_slice(message);
        out.push(b'\n');
        Ok(())
    }
}

#[inline]
fn decode(bytes: &[u8], scanned: usize, message_max: usize) -> Result<Step, Violation> {
    let too_large = Violation::TooLarge { max: message_max };
    match memchr::memchr(b'\n', &bytes[scanned..]) {
        Some(at) => {
            let end = scanned + at;
            let text_end = if end > 0 && bytes[end - 1] == b'\r' { end - 1 } else { end };
            if text_end > message_max {
                return Err(too_large);
            }
            Ok(Step::of(Item::Message { kind: Kind::Text, range: 0..text_end }, end + 1))
        }
        // One byte more is no error yet: it may be the CR that is dropped.
        None if bytes.len() > message_max + 1 || (bytes.len() > message_max && bytes[message_max] != b'\r') => {
            Err(too_large)
        }
        None => Ok(Step::more(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(range: std::ops::Range<usize>, consumed: usize) -> Result<Step, Violation> {
        Ok(Step::of(Item::Message { kind: Kind::Text, range }, consumed))
    }

    #[test]
    fn one_carriage_return_is_dropped() {
        assert_eq!(decode(b"ab\r\ncd", 0, 9), message(0..2, 4));
        assert_eq!(decode(b"ab\r\r\n", 0, 9), message(0..3, 5));
        assert_eq!(decode(b"\r\n", 0, 9), message(0..0, 2));
        assert_eq!(decode(b"\n", 0, 9), message(0..0, 1));
    }

    #[test]
    fn the_limit_counts_the_text_alone() {
        let too_large = Err(Violation::TooLarge { max: 3 });
        let incomplete = Ok(Step::more(0));
        assert_eq!(decode(b"abc\n", 0, 3), message(0..3, 4));
        assert_eq!(decode(b"abc\r\n", 0, 3), message(0..3, 5));
        assert_eq!(decode(b"abcd\n", 0, 3), too_large);
        assert_eq!(decode(b"abc", 0, 3), incomplete);
        assert_eq!(decode(b"abc\r", 0, 3), incomplete);
        assert_eq!(decode(b"abcd", 0, 3), too_large);
        assert_eq!(decode(b"abc\rx", 0, 3), too_large);
    }

    #[test]
    fn bytes_known_to_hold_no_end_are_not_looked_at_again() {
        // A lie about the scanned part shows that it is really skipped.
        assert_eq!(decode(b"a\nb\n", 2, 9), message(0..3, 4));
    }
}
