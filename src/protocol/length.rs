//! `length`: a message is a u32 in big-endian order, then that many bytes.

use super::{DecodeError, Decoded};

/// Bytes of the length in front of each message.
const HEADER_BYTES: usize = 4;

/// See [`super::decode`].
pub(super) fn decode(bytes: &[u8], message_max: usize) -> Result<Decoded, DecodeError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Decoded::Incomplete { frame_bytes: None });
    };
    let len = u32::from_be_bytes(*header) as usize;
    if len > message_max {
        return Err(DecodeError::TooLarge { max: message_max });
    }
    let frame_bytes = HEADER_BYTES + len;
    if rest.len() < len {
        return Ok(Decoded::Incomplete { frame_bytes: Some(frame_bytes) });
    }
    Ok(Decoded::Message { range: HEADER_BYTES..frame_bytes, consumed: frame_bytes })
}

/// See [`super::encode`]. A message above `u32::MAX` bytes can't come here: `max_message` is far below it.
pub(super) fn encode(message: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(message.len()).expect("messages are bounded by max_message, far below 4 GiB");
    out.reserve(HEADER_BYTES + message.len());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        assert_eq!(decode(&[0, 0, 0, 10], 9), Err(DecodeError::TooLarge { max: 9 }));
        assert_eq!(decode(b"\xff\xff\xff\xff", 9), Err(DecodeError::TooLarge { max: 9 }));
    }

    #[test]
    fn the_frame_size_is_told_as_soon_as_it_is_known() {
        assert_eq!(decode(&[0, 0, 0], 9), Ok(Decoded::Incomplete { frame_bytes: None }));
        assert_eq!(decode(&[0, 0, 0, 5, 1], 9), Ok(Decoded::Incomplete { frame_bytes: Some(9) }));
        assert_eq!(decode(&[0, 0, 0, 0], 9), Ok(Decoded::Message { range: 4..4, consumed: 4 }));
    }
}
