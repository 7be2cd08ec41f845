//! `length`: a message is a u32 in big-endian order, then that many bytes.

use super::websocket::Assembly;
use super::{EncodeError, Item, Label, Protocol, Step, Violation};
use crate::message::Kind;

/// Bytes of the length in front of each message.
const HEADER_BYTES: usize = 4;

/// The framing `length`.
pub(super) struct Length;

impl Protocol for Length {
    #[inline]
    fn next(bytes: &mut [u8], _: usize, _: &mut Option<Box<Assembly>>, message_max: usize) -> Result<Step, Violation> {
        decode(bytes, message_max)
    }

    /// A message above `u32::MAX` bytes can't come here: `max_message` is far below it.
    fn encode(_: Label, message: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let len = u32::try_from(message.len()).expect("messages are bounded by max_message, far below 4 GiB");
        out.reserve(HEADER_BYTES + message.len());
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(message);
        Ok(())
    }
}

#[inline]
fn decode(bytes: &[u8], message_max: usize) -> Result<Step, Violation> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(Step::more(0)) };
    let len = u32::from_be_bytes(*header) as usize;
    if len > message_max {
        return Err(Violation::TooLarge { max: message_max });
    }
    let frame_bytes = HEADER_BYTES + len;
    if rest.len() < len {
        return Ok(Step { frame_bytes: Some(frame_bytes), ..Step::more(0) });
    }
    Ok(Step::of(Item::Message { kind: Kind::Text, range: HEADER_BYTES..frame_bytes }, frame_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        assert_eq!(decode(&[0, 0, 0, 10], 9), Err(Violation::TooLarge { max: 9 }));
        assert_eq!(decode(b"\xff\xff\xff\xff", 9), Err(Violation::TooLarge { max: 9 }));
    }

    #[test]
    fn the_frame_size_is_told_as_soon_as_it_is_known() {
        assert_eq!(decode(&[0, 0, 0], 9), Ok(Step::more(0)));
        assert_eq!(decode(&[0, 0, 0, 5, 1], 9), Ok(Step { frame_bytes: Some(9), ..Step::more(0) }));
        assert_eq!(decode(&[0, 0, 0, 0], 9), Ok(Step::of(Item::Message { kind: Kind::Text, range: 4..4 }, 4)));
    }
}
