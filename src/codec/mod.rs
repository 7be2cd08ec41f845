//! Framings and encodings: bytes in, message ranges out. No I/O, no clock, no copy of a message.
//!
//! [`decode`] looks at the bytes that have come in so far and says where the first message lies in them.
//! [`encode`] puts a message into the bytes that a client of that encoding reads.

mod length;
mod line;

use std::ops::Range;

use thiserror::Error;

use crate::config::Framing;
use crate::message::{Dialect, PublishId};

/// How messages are put into the bytes that a connection reads. Connections of one encoding share frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Encoding {
    Line,
    Length,
}

impl Encoding {
    /// Every encoding, in the order of their numbers.
    pub(crate) const ALL: [Encoding; 2] = [Encoding::Line, Encoding::Length];

    /// What a new connection speaks.
    pub(crate) fn of(framing: Framing) -> Self {
        match framing {
            Framing::Line => Encoding::Line,
            Framing::Length => Encoding::Length,
        }
    }

    /// The framing of the addresses at which connections of this encoding are accepted.
    pub(crate) fn framing(self) -> Framing {
        match self {
            Encoding::Line => Framing::Line,
            Encoding::Length => Framing::Length,
        }
    }

    /// The form of the messages inside.
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Encoding::Line | Encoding::Length => Dialect::Text,
        }
    }
}

/// What goes along with a message, for encodings that have a place for it.
#[derive(Clone, Copy, Debug, Default)]
#[expect(dead_code, reason = "server-sent events have a place for it, the other encodings have none")]
pub(crate) struct Label {
    /// What kind of event it is.
    pub(crate) event: Option<&'static str>,
    /// The publish that it comes from.
    pub(crate) id: Option<PublishId>,
}

/// What the bytes at hand hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// One whole message.
    Message {
        /// Where the message lies in the bytes.
        range: Range<usize>,
        /// How many bytes it takes with its framing; the next message begins there.
        consumed: usize,
    },
    /// The message is not complete yet.
    Incomplete {
        /// Bytes the whole frame will take, where the framing tells.
        frame_bytes: Option<usize>,
    },
}

/// Why the bytes can't be cut into messages. The stream can't be trusted after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum DecodeError {
    /// A message is larger than allowed.
    #[error("a message has at most {max} bytes")]
    TooLarge {
        /// Bytes allowed.
        max: usize,
    },
}

/// Why an encoding can't carry a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum EncodeError {
    /// The message holds a line feed.
    #[error("the line framing can't carry a line feed inside a message")]
    LineFeed,
}

/// Finds the first message in `bytes`.
///
/// `scanned` bytes at the beginning are known to hold no end of a message (from an earlier call that said
/// [`Decoded::Incomplete`] of them), so a long message that comes in small pieces is looked through once.
///
/// # Errors
/// The message at the beginning is larger than `message_max` bytes.
pub(crate) fn decode(
    encoding: Encoding,
    bytes: &[u8],
    scanned: usize,
    message_max: usize,
) -> Result<Decoded, DecodeError> {
    match encoding {
        Encoding::Line => line::decode(bytes, scanned, message_max),
        Encoding::Length => length::decode(bytes, message_max),
    }
}

/// Appends `message` to `out` as connections of `encoding` read it. On an error `out` is as it was.
///
/// # Errors
/// The encoding can't carry the message.
pub(crate) fn encode(encoding: Encoding, _label: Label, message: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match encoding {
        Encoding::Line => line::encode(message, out),
        Encoding::Length => {
            length::encode(message, out);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 64;

    /// Cuts a stream that arrives in the given pieces, as a connection does.
    fn cut(encoding: Encoding, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<DecodeError>) {
        let (mut held, mut scanned, mut messages) = (Vec::new(), 0, Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                match decode(encoding, &held, scanned, MAX) {
                    Ok(Decoded::Message { range, consumed }) => {
                        assert!(range.end <= consumed && consumed <= held.len() && consumed > 0);
                        messages.push(held[range].to_vec());
                        held.drain(..consumed);
                        scanned = 0;
                    }
                    Ok(Decoded::Incomplete { .. }) => {
                        scanned = held.len();
                        break;
                    }
                    Err(error) => return (messages, Some(error)),
                }
            }
        }
        (messages, None)
    }

    fn encoding() -> impl Strategy<Value = Encoding> {
        prop::sample::select(Encoding::ALL.to_vec())
    }

    /// Bytes in which line ends and small lengths are common.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(b'\n'), Just(b'\r'), Just(0), Just(3), any::<u8>()];
        prop::collection::vec(byte, 0..300)
    }

    proptest! {
        #[test]
        fn any_split_of_any_stream_gives_the_same_messages(
            encoding in encoding(),
            stream in noise(),
            cuts in prop::collection::vec(0usize..300, 0..8),
        ) {
            let whole = cut(encoding, &[&stream]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|at| at.min(stream.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for at in cuts.into_iter().chain([stream.len()]) {
                pieces.push(&stream[from..at]);
                from = at;
            }
            prop_assert_eq!(&cut(encoding, &pieces), &whole);
            let bytes: Vec<_> = stream.chunks(1).collect();
            prop_assert_eq!(&cut(encoding, &bytes), &whole);
        }

        #[test]
        fn what_is_encoded_is_decoded(
            encoding in encoding(),
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..MAX), 0..20),
        ) {
            let (mut stream, mut carried) = (Vec::new(), Vec::new());
            for message in messages {
                let before = stream.len();
                match encode(encoding, Label::default(), &message, &mut stream) {
                    // One trailing CR belongs to the line's end, so a message can't keep one there.
                    Ok(()) if encoding == Encoding::Line && message.ends_with(b"\r") => stream.truncate(before),
                    Ok(()) => carried.push(message),
                    Err(EncodeError::LineFeed) => {
                        prop_assert!(encoding == Encoding::Line && message.contains(&b'\n'));
                        prop_assert_eq!(stream.len(), before);
                    }
                }
            }
            prop_assert_eq!(cut(encoding, &[&stream]), (carried, None));
        }
    }
}
