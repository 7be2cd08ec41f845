//! The simplest server: every message goes back to where it came from.

use crate::event::Event;
use crate::handler::{Context, Handler, SendError};
use crate::message::{Dialect, Kind};
#[cfg(feature = "web")]
use crate::routes::{Routes, Topics, WebSocket};

/// Sends each message back, in the framing it came in and of the kind it was. One that ends in a carriage return can't go
/// back in the framing `line`; its connection is closed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    /// Takes the subprotocols of the hub's clients, too, so that they can be tried here.
    #[cfg(feature = "web")]
    fn routes(&self) -> Routes {
        let hub = WebSocket::new().subprotocol("corecast.v1", Dialect::Text);
        Routes::new().websocket("/ws", hub.subprotocol("corecast.v1.json", Dialect::Json).topics(Topics::Ignored))
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        // A shard reads a connection only while its outbox has room for the reply, so any other refusal means that the
        // connection is closing.
        if let Err(SendError::CarriageReturn) = cx.send(message) {
            cx.close();
        }
    }

    /// Says nothing of its own: whoever tries a protocol here gets back what was sent, and nothing else.
    fn render(event: Event<'_>, _: Dialect, out: &mut Vec<u8>) -> Option<Kind> {
        let (payload, kind) = event.payload()?;
        out.extend_from_slice(payload);
        Some(kind)
    }
}
