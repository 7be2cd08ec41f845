//! The values that cross layers and shards: ids, topics, publishes, and the named reasons for a close or a drop.

use std::fmt;
use std::str::FromStr;

use crate::config::ParseError;

mod payload;
mod topic;

pub use payload::{Kind, Payload};
pub(crate) use topic::Named;
#[cfg(feature = "control")]
pub(crate) use topic::pattern as topic_pattern;
pub use topic::{Topic, TopicError};

/// Names one connection, for as long as the process runs.
///
/// An id of a closed connection never reaches a later one: it carries a generation beside its slot. On the
/// wire and in logs it is a decimal number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    /// The id with this number, as [`ConnId::as_u64`] gave it. Whether it names a connection shows when it is used.
    pub fn from_u64(number: u64) -> Self {
        ConnId(number)
    }

    /// The id as a number.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({})", self.0)
    }
}

impl FromStr for ConnId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.parse().map(ConnId);
        number.map_err(|_| ParseError::new(format!("`{text}` is not the id of a connection, which is a number")))
    }
}

/// The form in which a client wants the messages of a handler's language. A handler with one form ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Words, the payload as it is.
    Text,
    /// JSON: the client asked for it when it connected.
    Json,
    /// The data of a server-sent event: UTF-8 text. Its line ends become those of the stream, whichever they were.
    Sse,
}

/// Names one publish in this process: the publisher's lane in the high 16 bits, its sequence number below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublishId(u64);

impl PublishId {
    /// The `sequence`-th publish of a lane. Lanes `0..SHARDS_MAX` are the shards, the one above them is
    /// everything outside.
    pub(crate) fn new(lane: u16, sequence: u64) -> Self {
        PublishId(u64::from(lane) << 48 | (sequence & 0xffff_ffff_ffff))
    }

    /// The publisher's lane.
    pub(crate) fn lane(self) -> usize {
        (self.0 >> 48) as usize
    }

    /// Its number among the publishes of that lane.
    pub(crate) fn sequence(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }
}

impl PublishId {
    /// Appends its digits, as [`Display`](fmt::Display) writes them, in a fraction of the time.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let (mut digits, mut at, mut left) = ([0; 20], 20, self.0);
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        out.extend_from_slice(&digits[at..]);
    }
}

impl fmt::Display for PublishId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who gets a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// Every connection.
    All,
    /// The subscribers of a topic.
    Topic(Topic),
    /// One connection.
    Conn(ConnId),
}

macro_rules! reasons {
    (
        $(#[$type_doc:meta])* $type:ident {
            $($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*
        }
    ) => {
        $(#[$type_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum $type {
            $($(#[doc = $doc])* $variant,)*
        }

        impl $type {
            /// Every reason, in the order of their numbers.
            pub const ALL: [$type; [$($name),*].len()] = [$($type::$variant),*];

            /// The name on the wire, in logs and in metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)*
                }
            }

            /// What it means, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $($type::$variant => concat!($($doc),*).trim_ascii(),)*
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

reasons! {
    /// Why a connection was closed. Each closed connection has exactly one.
    CloseReason {
        /// The client closed its side.
        ClientClosed = "client-closed",
        /// The connection was reset, or the socket failed.
        Reset = "reset",
        /// The server's handler closed it.
        Handler = "handler",
        /// The server's handler refused it as it opened.
        Rejected = "rejected",
        /// The server's handler panicked over it.
        HandlerPanic = "handler-panic",
        /// It was closed from outside, through the server's handle.
        Kicked = "kicked",
        /// No complete message within the read timeout.
        ReadTimeout = "read-timeout",
        /// The client took nothing of what waited, or acknowledged nothing of what was sent, within the write timeout.
        WriteTimeout = "write-timeout",
        /// Its queue was full and the slow-consumer policy is to disconnect.
        SlowConsumer = "slow-consumer",
        /// All connections together held more memory than allowed, and it was among those that held the most.
        MemoryPressure = "memory-pressure",
        /// A message was larger than allowed.
        MessageTooLarge = "message-too-large",
        /// What the client sent breaks the rules of its protocol.
        ProtocolError = "protocol-error",
        /// The client's first bytes are of another protocol than its port's.
        WrongProtocol = "wrong-protocol",
        /// A WebSocket text message was not UTF-8.
        NotUtf8 = "not-utf8",
        /// No complete HTTP request within the head timeout.
        HeadTimeout = "head-timeout",
        /// It was an HTTP request, and has been answered.
        Answered = "answered",
        /// The server is shutting down.
        Drain = "drain",
        /// The server has no room for it: it is refused, and counted as a refusal.
        Full = "full",
    }
}

reasons! {
    /// Why a message did not reach a client. Each message that is not delivered is counted under one.
    DropReason {
        /// The client's queue was full and this message was skipped.
        QueueFull = "queue-full",
        /// The client's queue was full and this message, the oldest, made room.
        DropOldest = "drop-oldest",
        /// A newer message of the same topic took its place in the queue.
        Superseded = "superseded",
        /// The payload holds a line feed, which the line framing can't carry.
        LineFeed = "line-feed",
        /// The payload ends in a carriage return, which the line framing takes as part of the line end.
        CarriageReturn = "carriage-return",
        /// The payload is not UTF-8, which server-sent events can't carry.
        NotUtf8 = "not-utf8",
        /// Encoded for the client, the message is larger than `queue_bytes_max`.
        FrameTooLarge = "frame-too-large",
        /// The server's handler panicked over putting it into words.
        HandlerPanic = "handler-panic",
        /// The connection was closed while the message waited.
        Closed = "closed",
        /// The connection that the message was addressed to no longer exists.
        NoConnection = "no-connection",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_it_is_shown() {
        for number in [0, 9, 10, 12_345, u64::MAX - 1, u64::MAX] {
            let mut written = b"id ".to_vec();
            PublishId(number).write(&mut written);
            assert_eq!(String::from_utf8(written).unwrap(), format!("id {}", PublishId(number)));
        }
    }

    #[test]
    fn reasons_have_distinct_names_and_a_meaning() {
        let names: std::collections::HashSet<_> = CloseReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), CloseReason::ALL.len());
        assert_eq!(
            DropReason::LineFeed.meaning(),
            "The payload holds a line feed, which the line framing can't carry."
        );
    }
}
