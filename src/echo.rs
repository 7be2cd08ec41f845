//! The simplest server: every message goes back to where it came from.

use crate::handler::{Context, Handler};

/// Sends each message back, in the framing it came in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    fn on_message(&mut self, cx: &mut Context<'_>, message: &[u8]) {
        // A shard reads a connection only while its outbox has room for the reply, so a refusal means that
        // the connection is closing.
        let _ = cx.send(message);
    }
}
