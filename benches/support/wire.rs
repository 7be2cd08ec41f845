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
    Sse,
}

impl Wire {
    pub(crate) const ALL: [Wire; 4] = [Wire::Line, Wire::Length, Wire::WebSocket, Wire::Sse];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Wire::Line => "line",
            Wire::Length => "length",
            Wire::WebSocket => "ws",
            Wire::Sse => "sse",
        }
    }

    /// The framing of the address that such clients connect to.
    pub(crate) fn framing(self) -> &'static str {
        match self {
            Wire::Line => "line",
            Wire::Length => "length",
            Wire::WebSocket | Wire::Sse => "http",
        }
    }

    /// What a client sends to subscribe.
    pub(crate) fn subscribe(self) -> Vec<u8> {
        match self {
            Wire::Line | Wire::Length => self.frame(format!("SUB {TOPIC}").as_bytes()),
            Wire::WebSocket => format!(
                "GET /ws?topic={TOPIC} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            .into_bytes(),
            Wire::Sse => format!("GET /sse?topic={TOPIC} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes(),
        }
    }

    /// Whether what came back says, to its end, that the client is subscribed.
    pub(crate) fn is_subscribed(self, answer: &[u8]) -> bool {
        let confirmed = format!("OK SUB {TOPIC}");
        match self {
            Wire::Line => answer == [confirmed.as_bytes(), b"\n"].concat(),
            Wire::Length => answer == self.frame(confirmed.as_bytes()),
            Wire::WebSocket => answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(confirmed.as_bytes()),
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
            Wire::WebSocket | Wire::Sse => unreachable!("only the plain framings are sent over"),
        }
    }
}

impl FromStr for Wire {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Wire::ALL.into_iter().find(|wire| wire.name() == name).ok_or_else(|| format!("`{name}` is not a framing"))
    }
}
