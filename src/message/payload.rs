//! What is published: bytes, and whether they are text or binary.

use bytes::Bytes;

/// Whether a message is text or binary.
///
/// Over WebSocket it is the opcode that a message comes with and goes out with. A plain framing does not tell: what
/// comes over one counts as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text. Bytes that are not UTF-8 can't go out as text, so they go out as binary all the same.
    #[default]
    Text,
    /// Bytes, even where they happen to be UTF-8.
    Binary,
}

/// The bytes of a message to publish, and their kind.
///
/// Strings are text. Of other bytes the kind is open, until [`Payload::text`] or [`Payload::binary`] says it: published
/// from [`Handler::on_message`](crate::Handler::on_message) they are of the kind of the message that came in, from
/// elsewhere they are text where they are UTF-8, and binary where they are not.
///
/// ```
/// use corecast::{Kind, Payload};
///
/// assert_eq!(Payload::from("héllo").kind(), Some(Kind::Text));
/// assert_eq!(Payload::from(vec![1, 2, 3]).kind(), None);
/// assert_eq!(Payload::binary(vec![1, 2, 3]).kind(), Some(Kind::Binary));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    kind: Option<Kind>,
}

impl Payload {
    /// Text: UTF-8.
    pub fn text(bytes: impl Into<Bytes>) -> Self {
        Payload::of_kind(Kind::Text, bytes)
    }

    /// Binary, even where the bytes happen to be UTF-8.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Payload::of_kind(Kind::Binary, bytes)
    }

    /// A payload of this kind.
    pub fn of_kind(kind: Kind, bytes: impl Into<Bytes>) -> Self {
        Payload { bytes: bytes.into(), kind: Some(kind) }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The kind, where it has been said.
    pub fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// The bytes, and their kind, which is `otherwise` where it has not been said.
    pub(crate) fn into_parts(self, otherwise: Kind) -> (Bytes, Kind) {
        (self.bytes, self.kind.unwrap_or(otherwise))
    }
}

macro_rules! payload_from {
    ($kind:expr, $($bytes:ty),*) => {$(
        impl From<$bytes> for Payload {
            fn from(bytes: $bytes) -> Self {
                Payload { bytes: bytes.into(), kind: $kind }
            }
        }
    )*};
}

payload_from!(Some(Kind::Text), &'static str, String);
payload_from!(None, &'static [u8], Vec<u8>, Box<[u8]>, Bytes, bytes::BytesMut);

impl<const N: usize> From<&'static [u8; N]> for Payload {
    fn from(bytes: &'static [u8; N]) -> Self {
        Payload::from(&bytes[..])
    }
}
