//! Panics of handlers: each ends the connection that the handler was called for, and not the shard.

use std::any::Any;
use std::time::Instant;

use super::Limited;
use crate::handler::OnPanic;

/// What the words of a panic are.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// What is done about the panics of one shard's handlers.
pub(crate) struct Panics {
    policy: OnPanic,
    /// Log lines about them.
    lines: Limited,
}

impl Panics {
    pub(crate) fn new(policy: OnPanic) -> Self {
        Panics { policy, lines: Limited::default() }
    }

    /// Tells of a panic, or lets it go on to end the shard, as the policy says.
    pub(crate) fn note(&mut self, panic: Box<dyn Any + Send>, now: Instant) {
        if self.policy == OnPanic::EndServer {
            std::panic::resume_unwind(panic);
        }
        if let Some(count) = self.lines.another(now) {
            let text = panic_text(&*panic);
            tracing::error!(count, "the handler panicked ({text}); what it was called for ends as handler-panic");
        }
    }
}
