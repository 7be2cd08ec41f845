//! One message on its way to its recipients.

use std::time::Instant;

use bytes::Bytes;

use crate::config::SlowConsumer;
use crate::message::{Kind, PublishId, Target};
use crate::receipt::ReceiptSender;

/// One message on its way to its recipients.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    /// Its id.
    pub(crate) id: PublishId,
    /// Who gets it.
    pub(crate) target: Target,
    /// What they get.
    pub(crate) payload: Bytes,
    /// What kind it is of.
    pub(crate) kind: Kind,
    /// Policy for slow consumers of this message, in place of the topic's or the server's.
    pub(crate) slow_consumer: Option<SlowConsumer>,
    /// When it was accepted.
    pub(crate) accepted: Instant,
    /// Where the shards report what became of it, if the publisher asked.
    pub(crate) receipt: Option<ReceiptSender>,
}
