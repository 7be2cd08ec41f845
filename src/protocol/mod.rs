//! Framings and encodings: bytes in, message ranges out. No I/O, no clock, no copy of a message.
//!
//! [`decode`] looks at the bytes that have come in so far and says where the first message lies in them.
//! [`encode`] puts a message into the bytes that a client of that encoding reads.

pub(crate) mod answer;
pub(crate) mod foreign;
#[cfg(feature = "web")]
pub(crate) mod http;
mod length;
mod line;
pub(crate) mod sse;
mod utf8;
pub(crate) mod websocket;

use std::ops::Range;

use thiserror::Error;

use crate::config::Framing;
use crate::message::{CloseReason, Dialect, DropReason, Kind, PublishId};
use websocket::Assembly;

/// How messages are put into the bytes that a connection reads. Connections of one encoding share frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Encoding {
    Line,
    Length,
    /// WebSocket messages in the text dialect.
    WebSocket,
    /// WebSocket messages in the JSON dialect.
    WebSocketJson,
    /// Server-sent events, one way.
    Sse,
}

impl Encoding {
    /// Every encoding, in the order of their numbers.
    pub(crate) const ALL: [Encoding; 5] =
        [Encoding::Line, Encoding::Length, Encoding::WebSocket, Encoding::WebSocketJson, Encoding::Sse];

    /// What a new connection speaks; `None`: its first request will say.
    pub(crate) fn of(framing: Framing) -> Option<Self> {
        match framing {
            Framing::Line => Some(Encoding::Line),
            Framing::Length => Some(Encoding::Length),
            Framing::Http => None,
        }
    }

    /// What is spoken inside a WebSocket, by the form of its messages.
    #[cfg(feature = "web")]
    pub(crate) fn websocket(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Text => Encoding::WebSocket,
            Dialect::Json => Encoding::WebSocketJson,
            Dialect::Sse => unreachable!("it is refused where a WebSocket is declared"),
        }
    }

    /// The framing of the addresses at which connections of this encoding are accepted.
    pub(crate) fn framing(self) -> Framing {
        match self {
            Encoding::Line => Framing::Line,
            Encoding::Length => Framing::Length,
            Encoding::WebSocket | Encoding::WebSocketJson | Encoding::Sse => Framing::Http,
        }
    }

    /// The form of the messages inside.
    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Encoding::Line | Encoding::Length | Encoding::WebSocket => Dialect::Text,
            Encoding::WebSocketJson => Dialect::Json,
            Encoding::Sse => Dialect::Sse,
        }
    }

    /// A sign of life that is written to a connection on which nothing moves; `None`: the protocol has none.
    pub(crate) fn keep_alive(self) -> Option<&'static [u8]> {
        match self {
            Encoding::Line | Encoding::Length => None,
            Encoding::WebSocket | Encoding::WebSocketJson => Some(&websocket::PING_FRAME),
            Encoding::Sse => Some(sse::HEARTBEAT),
        }
    }

    /// Whether a client shows that it lives by what it sends; else by what it takes.
    pub(crate) fn is_answered(self) -> bool {
        !matches!(self, Encoding::Sse)
    }

    /// The answer to a client's [`Item::Ping`].
    pub(crate) fn pong(self, payload: &[u8]) -> Vec<u8> {
        websocket::pong(payload)
    }

    /// What is written last on a connection that the server closes; `None`: the protocol has no word for it.
    pub(crate) fn farewell(self, reason: CloseReason, words: Option<Words<'_>>) -> Option<Vec<u8>> {
        self.is_websocket().then(|| websocket::close(reason, words))
    }

    /// The answer to a client's [`Item::Close`].
    pub(crate) fn close_answer(self, code: Option<u16>) -> Vec<u8> {
        websocket::close_answer(code)
    }

    pub(crate) fn is_websocket(self) -> bool {
        matches!(self, Encoding::WebSocket | Encoding::WebSocketJson)
    }
}

/// Last words to a client that are not the reason's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    /// The code of a WebSocket's close frame.
    pub(crate) code: u16,
    pub(crate) text: &'a str,
}

/// What goes along with a message, for encodings that have a place for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Label {
    /// What kind of event it is.
    pub(crate) event: Option<&'static str>,
    /// The publish that it comes from.
    pub(crate) id: Option<PublishId>,
    /// Whether it is text or binary.
    pub(crate) kind: Kind,
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
    /// The message ends in a carriage return.
    #[error("the line framing can't carry a carriage return at the end of a message")]
    CarriageReturn,
    /// The message is not UTF-8.
    #[error("server-sent events can't carry a message that is not UTF-8")]
    NotUtf8,
}

impl From<EncodeError> for DropReason {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::LineFeed => DropReason::LineFeed,
            EncodeError::CarriageReturn => DropReason::CarriageReturn,
            EncodeError::NotUtf8 => DropReason::NotUtf8,
        }
    }
}

/// What comes first in the bytes at hand, in whichever protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A message, where it lies in the bytes.
    Message { kind: Kind, range: Range<usize> },
    /// A message is complete that the assembly holds; the caller takes it out.
    Assembled,
    /// A sign of life that is to be answered by [`Encoding::pong`] with these bytes.
    Ping { range: Range<usize> },
    /// A sign of life.
    Pong,
    /// The client closes, with a code or without one.
    Close { code: Option<u16> },
    /// The client has nothing to say in this protocol, and says it.
    Stray,
}

/// A step through the bytes at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What is there; `None`: more bytes are needed. What is not consumed must be there again with them.
    pub(crate) item: Option<Item>,
    /// Bytes that are used up.
    pub(crate) consumed: usize,
    /// Bytes that the item will take, if that is known.
    pub(crate) frame_bytes: Option<usize>,
}

/// What a client's bytes break. The connection can't go on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    WebSocket(#[from] websocket::Violation),
}

impl Violation {
    /// Why the connection is closed for it.
    pub(crate) fn close_reason(self) -> CloseReason {
        match self {
            Violation::Decode(DecodeError::TooLarge { .. }) => CloseReason::MessageTooLarge,
            Violation::WebSocket(violation) => violation.close_reason(),
        }
    }
}

/// Finds what comes first in `bytes`, of which `scanned` at the beginning are known to hold no end of a message. `assembly`
/// holds a message that comes in pieces, where the protocol has such.
///
/// # Errors
/// The client breaks the protocol, or its message is larger than `message_max` bytes.
pub(crate) fn next(
    encoding: Encoding,
    bytes: &mut [u8],
    scanned: usize,
    assembly: &mut Option<Box<Assembly>>,
    message_max: usize,
) -> Result<Step, Violation> {
    let step = |item, consumed| Step { item: Some(item), consumed, frame_bytes: None };
    Ok(match encoding {
        Encoding::Line | Encoding::Length => match decode(encoding, bytes, scanned, message_max)? {
            Decoded::Message { range, consumed } => step(Item::Message { kind: Kind::Text, range }, consumed),
            Decoded::Incomplete { frame_bytes } => Step { item: None, consumed: 0, frame_bytes },
        },
        Encoding::WebSocket | Encoding::WebSocketJson => match websocket::decode(bytes, assembly, message_max)? {
            websocket::Decoded::Message { kind, range, consumed } => step(Item::Message { kind, range }, consumed),
            websocket::Decoded::Assembled { consumed } => step(Item::Assembled, consumed),
            websocket::Decoded::Ping { range, consumed } => step(Item::Ping { range }, consumed),
            websocket::Decoded::Pong { consumed } => step(Item::Pong, consumed),
            websocket::Decoded::Close { code, consumed } => step(Item::Close { code }, consumed),
            websocket::Decoded::Incomplete { consumed } => Step { item: None, consumed, frame_bytes: None },
        },
        Encoding::Sse => step(Item::Stray, bytes.len()),
    })
}

/// Finds the first message in `bytes`, in the framing `line` or `length`.
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
        Encoding::WebSocket | Encoding::WebSocketJson | Encoding::Sse => {
            unreachable!("WebSocket frames have a decoder of their own, and event streams go one way")
        }
    }
}

/// Appends `message` to `out` as connections of `encoding` read it. On an error `out` is as it was.
///
/// # Errors
/// The encoding can't carry the message.
pub(crate) fn encode(encoding: Encoding, label: Label, message: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match encoding {
        Encoding::Line => return line::encode(message, out),
        Encoding::Length => length::encode(message, out),
        Encoding::WebSocket | Encoding::WebSocketJson => websocket::encode(label.kind, message, out),
        Encoding::Sse => return sse::encode(label, message, out),
    }
    Ok(())
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
        prop::sample::select(vec![Encoding::Line, Encoding::Length])
    }

    /// Bytes in which line ends and small lengths are common.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(b'\n'), Just(b'\r'), Just(0), Just(3), any::<u8>()];
        prop::collection::vec(byte, 0..300)
    }

    /// Bytes that end in a CR now and then.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => any::<u8>(), 1 => Just(b'\r')];
        prop::collection::vec(byte, 0..MAX)
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
            messages in prop::collection::vec(message(), 0..20),
        ) {
            let (mut stream, mut carried) = (Vec::new(), Vec::new());
            for message in messages {
                let before = stream.len();
                match encode(encoding, Label::default(), &message, &mut stream) {
                    Ok(()) => carried.push(message),
                    Err(EncodeError::CarriageReturn) => {
                        prop_assert!(encoding == Encoding::Line && message.ends_with(b"\r"));
                        prop_assert_eq!(stream.len(), before);
                    }
                    Err(EncodeError::LineFeed) => {
                        prop_assert!(encoding == Encoding::Line && message.contains(&b'\n'));
                        prop_assert_eq!(stream.len(), before);
                    }
                    Err(EncodeError::NotUtf8) => unreachable!("both carry any bytes"),
                }
            }
            prop_assert_eq!(cut(encoding, &[&stream]), (carried, None));
        }
    }
}
