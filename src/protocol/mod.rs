//! Protocols: bytes in, message ranges out, and back. No I/O, no clock, no copy of a message.
//!
//! Each is a [`Protocol`] in a file of its own, and has a row in the table of [`Encoding`]s: [`next`] looks at the bytes that
//! have come in so far and says what comes first in them, and [`encode`] puts a message into the bytes that a client reads.

pub(crate) mod answer;
#[cfg(feature = "web")]
pub(crate) mod deflate;
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
#[cfg(feature = "web")]
pub(crate) use websocket::encode_deflated;

/// A protocol: how bytes are decoded into messages and encoded from them. All else has a default that does nothing.
trait Protocol {
    /// A sign of life that is written to a connection on which nothing moves.
    const KEEP_ALIVE: Option<&'static [u8]> = None;

    /// Whether a client shows that it lives by what it sends; else by what it takes.
    const IS_ANSWERED: bool = true;

    /// See [`next`].
    fn next(
        bytes: &mut [u8],
        scanned: usize,
        assembly: &mut Option<Box<Assembly>>,
        message_max: usize,
    ) -> Result<Step, Violation>;

    /// See [`encode`].
    fn encode(label: Label, message: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// The answer to a client's [`Item::Ping`].
    fn pong(_payload: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    /// The answer to a client's [`Item::Close`].
    fn close_answer(_code: Option<u16>) -> Vec<u8> {
        Vec::new()
    }

    /// What is written last on a connection that the server closes.
    fn farewell(_reason: CloseReason, _words: Option<Words<'_>>) -> Option<Vec<u8>> {
        None
    }
}

/// Makes the encodings out of their table.
macro_rules! encodings {
    ($($(#[$doc:meta])* $encoding:ident: $protocol:ty, $framing:ident, $dialect:ident;)*) => {
        /// How messages are put into the bytes that a connection reads. Connections of one encoding share frames.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Encoding {
            $($(#[$doc])* $encoding,)*
        }

        impl Encoding {
            /// Every encoding, in the order of their numbers.
            pub(crate) const ALL: [Encoding; [$(Encoding::$encoding),*].len()] = [$(Encoding::$encoding),*];

            /// The framing of the addresses at which connections of this encoding are accepted.
            pub(crate) fn framing(self) -> Framing {
                match self { $(Encoding::$encoding => Framing::$framing,)* }
            }

            /// The form of the messages inside.
            pub(crate) fn dialect(self) -> Dialect {
                match self { $(Encoding::$encoding => Dialect::$dialect,)* }
            }

            /// See [`Protocol::KEEP_ALIVE`].
            pub(crate) fn keep_alive(self) -> Option<&'static [u8]> {
                match self { $(Encoding::$encoding => <$protocol>::KEEP_ALIVE,)* }
            }

            /// See [`Protocol::IS_ANSWERED`].
            pub(crate) fn is_answered(self) -> bool {
                match self { $(Encoding::$encoding => <$protocol>::IS_ANSWERED,)* }
            }

            /// See [`Protocol::pong`].
            pub(crate) fn pong(self, payload: &[u8]) -> Vec<u8> {
                match self { $(Encoding::$encoding => <$protocol>::pong(payload),)* }
            }

            /// See [`Protocol::close_answer`].
            pub(crate) fn close_answer(self, code: Option<u16>) -> Vec<u8> {
                match self { $(Encoding::$encoding => <$protocol>::close_answer(code),)* }
            }

            /// See [`Protocol::farewell`].
            pub(crate) fn farewell(self, reason: CloseReason, words: Option<Words<'_>>) -> Option<Vec<u8>> {
                match self { $(Encoding::$encoding => <$protocol>::farewell(reason, words),)* }
            }
        }

        /// Finds what comes first in `bytes`, of which `scanned` at the beginning are known to hold no end of a message (from an
        /// earlier call that found nothing in them). `assembly` holds a message that comes in pieces, where the protocol has
        /// such.
        ///
        /// # Errors
        /// The client breaks the protocol, or its message is larger than `message_max` bytes.
        #[inline]
        pub(crate) fn next(
            encoding: Encoding,
            bytes: &mut [u8],
            scanned: usize,
            assembly: &mut Option<Box<Assembly>>,
            message_max: usize,
        ) -> Result<Step, Violation> {
            match encoding { $(Encoding::$encoding => <$protocol>::next(bytes, scanned, assembly, message_max),)* }
        }

        /// Appends `message` to `out` as connections of `encoding` read it. On an error `out` is as it was.
        ///
        /// # Errors
        /// The encoding can't carry the message.
        pub(crate) fn encode(
            encoding: Encoding,
            label: Label,
            message: &[u8],
            out: &mut Vec<u8>,
        ) -> Result<(), EncodeError> {
            match encoding { $(Encoding::$encoding => <$protocol>::encode(label, message, out),)* }
        }
    };
}

// Each with its protocol, the framing of its addresses, and the dialect inside.
encodings! {
    /// Lines.
    Line: line::Line, Line, Text;
    /// Messages with their length before them.
    Length: length::Length, Length, Text;
    /// WebSocket messages in the text dialect.
    WebSocket: websocket::WebSocket<false>, Http, Text;
    /// WebSocket messages in the JSON dialect.
    WebSocketJson: websocket::WebSocket<false>, Http, Json;
    /// WebSocket messages in the text dialect, of which some are compressed.
    WebSocketWide: websocket::WebSocket<true>, Http, Text;
    /// The same in the JSON dialect.
    WebSocketWideJson: websocket::WebSocket<true>, Http, Json;
    /// WebSocket messages in the text dialect, of which some are compressed for a client with a small window.
    WebSocketNarrow: websocket::WebSocket<true>, Http, Text;
    /// The same in the JSON dialect.
    WebSocketNarrowJson: websocket::WebSocket<true>, Http, Json;
    /// Server-sent events, one way.
    Sse: sse::Sse, Http, Sse;
}

impl Encoding {
    /// What a new connection speaks; `None`: its first request will say.
    pub(crate) fn of(framing: Framing) -> Option<Self> {
        match framing {
            Framing::Http => None,
            framing => Encoding::ALL.into_iter().find(|encoding| encoding.framing() == framing),
        }
    }

    /// What is spoken inside a WebSocket, by the form of its messages, and the window that they are compressed in, if they
    /// are. That form is one that a WebSocket may have, which is seen to where routes are declared.
    #[cfg(feature = "web")]
    pub(crate) fn websocket(dialect: Dialect, window: Option<Window>) -> Self {
        let mut all = Encoding::ALL.into_iter().filter(|encoding| encoding.is_websocket());
        all.find(|encoding| (encoding.dialect(), encoding.window()) == (dialect, window)).expect("it is declared")
    }

    #[cfg(feature = "web")]
    pub(crate) fn is_websocket(self) -> bool {
        self.framing() == Framing::Http && self != Encoding::Sse
    }

    /// The window in which messages are compressed; `None`: none are.
    #[cfg(feature = "web")]
    pub(crate) fn window(self) -> Option<Window> {
        match self {
            Encoding::WebSocketWide | Encoding::WebSocketWideJson => Some(Window::Wide),
            Encoding::WebSocketNarrow | Encoding::WebSocketNarrowJson => Some(Window::Narrow),
            Encoding::Line | Encoding::Length | Encoding::WebSocket | Encoding::WebSocketJson | Encoding::Sse => None,
        }
    }
}

/// How far back a compressed message may point within itself. There are two, so that few forms of a message are made.
#[cfg(feature = "web")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// As far as the format goes.
    Wide,
    /// Not even 256 bytes: for clients that ask for a window of their own size, down to the smallest.
    Narrow,
}

#[cfg(feature = "web")]
impl Window {
    /// The logarithm of its bytes, as a compressor is told. One for 512 bytes keeps away from the end of its window so far
    /// that it stays within 256.
    pub(crate) fn bits(self) -> u8 {
        match self {
            Window::Wide => 15,
            Window::Narrow => 9,
        }
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
    /// A message that must be inflated, where it lies in the bytes.
    Compressed { kind: Kind, range: Range<usize> },
    /// A message is complete that the assembly holds, compressed or not; the caller takes it out.
    Assembled,
    /// A sign of life that is to be answered by [`Encoding::pong`] with these bytes.
    Ping { range: Range<usize> },
    /// A sign of life.
    Pong,
    /// The client closes, with a code or without one.
    Close { code: Option<u16> },
    /// The client has sent something in a protocol in which only the server sends.
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

impl Step {
    /// Something is there.
    fn of(item: Item, consumed: usize) -> Self {
        Step { item: Some(item), consumed, frame_bytes: None }
    }

    /// Nothing is there whole.
    fn more(consumed: usize) -> Self {
        Step { item: None, consumed, frame_bytes: None }
    }
}

/// What a client's bytes break. The connection can't go on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Violation {
    #[error("{0}")]
    Protocol(&'static str),
    #[error("a text message, or the reason of a close, is not UTF-8")]
    NotUtf8,
    #[error("a message has at most {max} bytes")]
    TooLarge { max: usize },
}

impl Violation {
    /// Why the connection is closed for it.
    pub(crate) fn close_reason(self) -> CloseReason {
        match self {
            Violation::Protocol(_) => CloseReason::ProtocolError,
            Violation::NotUtf8 => CloseReason::NotUtf8,
            Violation::TooLarge { .. } => CloseReason::MessageTooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 64;

    /// Cuts a stream that arrives in the given pieces, as a connection does.
    fn cut(encoding: Encoding, pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Violation>) {
        let (mut held, mut scanned, mut messages) = (Vec::new(), 0, Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                match next(encoding, &mut held, scanned, &mut None, MAX) {
                    Ok(Step { item: Some(item), consumed, .. }) => {
                        let Item::Message { range, kind: Kind::Text } = item else { panic!("{item:?}") };
                        assert!(range.end <= consumed && consumed <= held.len() && consumed > 0);
                        messages.push(held[range].to_vec());
                        held.drain(..consumed);
                        scanned = 0;
                    }
                    Ok(Step { item: None, consumed, .. }) => {
                        assert_eq!(consumed, 0);
                        scanned = held.len();
                        break;
                    }
                    Err(error) => return (messages, Some(error)),
                }
            }
        }
        (messages, None)
    }

    #[test]
    fn a_framing_is_that_of_its_encodings() {
        for framing in Framing::ALL {
            let all: Vec<_> = Encoding::ALL.into_iter().filter(|encoding| encoding.framing() == framing).collect();
            let at_once = Encoding::of(framing);
            assert!(!all.is_empty() && at_once.is_none_or(|encoding| all == [encoding]), "{framing}: {all:?}");
            assert_eq!(at_once.is_none(), framing == Framing::Http);
        }
        for (number, encoding) in Encoding::ALL.into_iter().enumerate() {
            assert_eq!(encoding as usize, number);
        }
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
