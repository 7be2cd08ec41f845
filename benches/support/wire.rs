//! What clients say in each framing: just enough to subscribe, and to send a message in the plain ones.

use std::str::FromStr;

/// The topic that all clients subscribe to.
pub(crate) const TOPIC: &str = "bench";

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Line,
    Length,
    WebSocket,
    /// A WebSocket whose client offers to have messages compressed.
    Deflate,
    Sse,
}

impl Wire {
    pub(crate) const ALL: [Wire; 5] = [Wire::Line, Wire::Length, Wire::WebSocket, Wire::Deflate, Wire::Sse];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Wire::Line => "line",
            Wire::Length => "length",
            Wire::WebSocket => "ws",
            Wire::Deflate => "ws-deflate",
            Wire::Sse => "sse",
        }
    }

    /// The framing of the address that such clients connect to.
    pub(crate) fn framing(self) -> &'static str {
        match self {
            Wire::Line => "line",
            Wire::Length => "length",
            Wire::WebSocket | Wire::Deflate | Wire::Sse => "http",
        }
    }

    /// What a client sends to subscribe.
    pub(crate) fn subscribe(self) -> Vec<u8> {
        match self {
            Wire::Line | Wire::Length => self.frame(format!("SUB {TOPIC}").as_bytes()),
            Wire::WebSocket | Wire::Deflate => self.upgrade(&format!("/ws?topic={TOPIC}")),
            Wire::Sse => format!("GET /sse?topic={TOPIC} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes(),
        }
    }

    /// Whether what came back says, to its end, that the client is subscribed.
    pub(crate) fn is_subscribed(self, answer: &[u8]) -> bool {
        let confirmed = format!("OK SUB {TOPIC}");
        match self {
            Wire::Line => answer == [confirmed.as_bytes(), b"\n"].concat(),
            Wire::Length => answer == self.frame(confirmed.as_bytes()),
            Wire::WebSocket | Wire::Deflate => {
                answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(confirmed.as_bytes())
            }
            // The stream begins with the time after which a client is to connect again.
            Wire::Sse => {
                let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| &answer[at + 4..]);
                answer.starts_with(b"HTTP/1.1 200 ")
                    && body.is_some_and(|body| body.starts_with(b"retry: ") && body.ends_with(b"\n\n"))
            }
        }
    }

    /// A message as it goes over the wire.
    pub(crate) fn frame(self, message: &[u8]) -> Vec<u8> {
        match self {
            Wire::Line => [message, b"\n"].concat(),
            Wire::Length => [&(message.len() as u32).to_be_bytes(), message].concat(),
            Wire::WebSocket | Wire::Deflate => [&header(message.len(), 0x80)[..], &[0; 4], message].concat(),
            Wire::Sse => unreachable!("an event stream goes one way"),
        }
    }

    /// A message as the server sends it; `None`: that depends on how it is compressed.
    pub(crate) fn served(self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Wire::Line | Wire::Length => Some(self.frame(message)),
            Wire::WebSocket => Some([&header(message.len(), 0)[..], message].concat()),
            Wire::Deflate | Wire::Sse => None,
        }
    }

    /// What opens a WebSocket.
    pub(crate) fn upgrade(self, target: &str) -> Vec<u8> {
        let offer = if self == Wire::Deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        format!(
            "GET {target} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
        )
        .into_bytes()
    }
}

/// The header of a WebSocket's text message, with the bit that says it is masked, or 0.
fn header(len: usize, masked: u8) -> Vec<u8> {
    match len {
        0..126 => vec![0x81, masked | len as u8],
        126..0x1_0000 => [&[0x81, masked | 126][..], &(len as u16).to_be_bytes()].concat(),
        _ => [&[0x81, masked | 127][..], &(len as u64).to_be_bytes()].concat(),
    }
}

/// The payload of the WebSocket frame that begins bytes, once it is there whole, with whether it is compressed.
pub(crate) fn served_frame(bytes: &[u8]) -> Option<(bool, &[u8])> {
    let (start, len) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?) as usize),
        len => (2, usize::from(len)),
    };
    Some((bytes[0] & 0x40 != 0, bytes.get(start..start + len)?))
}

impl FromStr for Wire {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Wire::ALL.into_iter().find(|wire| wire.name() == name).ok_or_else(|| format!("`{name}` is not a framing"))
    }
}
