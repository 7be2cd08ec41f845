//! What the rest of the process asks of a shard, beside publishes.

use crate::config::SlowConsumer;
use crate::engine::query::Query;
use crate::message::{CloseReason, ConnId, Topic};

/// What the rest of the process asks of a shard at once, whatever waits to be published.
#[derive(Debug)]
pub(crate) enum Command {
    /// Tell about connections or topics.
    Query(Query),
    /// Set a topic's policy for slow consumers, or take it back.
    SetPolicy { topic: Topic, policy: Option<SlowConsumer> },
}

/// That the rest of the process wants a connection closed.
#[derive(Debug)]
pub(crate) struct Close {
    pub(crate) id: ConnId,
    pub(crate) reason: CloseReason,
    /// How many publishes the shard had been handed from outside before: they come first.
    pub(crate) after: u64,
}
