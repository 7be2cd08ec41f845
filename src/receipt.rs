//! Receipts: what became of one publish.

use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};

use crate::message::{DropReason, PublishId};

/// A publish that was accepted. It is on its way; whether it arrives, its receipt tells.
#[derive(Debug)]
pub struct Published {
    pub(crate) id: PublishId,
    pub(crate) accepted: Instant,
    /// Shards that were handed it, each of which answers.
    pub(crate) shards: usize,
    pub(crate) answers: Receiver<ShardReceipt>,
}

/// What one shard has to say of a publish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardReceipt {
    pub(crate) matched: u64,
    pub(crate) written: u64,
    pub(crate) dropped: [u64; DropReason::ALL.len()],
    pub(crate) first_write: Option<Instant>,
    pub(crate) last_write: Option<Instant>,
}

/// Where shards send their part of a receipt.
pub(crate) type ReceiptSender = Sender<ShardReceipt>;

/// What became of one publish, at the moment when every shard had gone through its recipients once.
///
/// It is exact: `matched = written + queued + dropped`. A message that is queued here may still be dropped, if its
/// client never takes it; that is counted in the metrics, and the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The publish.
    pub id: PublishId,
    /// Connections that it was meant for.
    pub matched: u64,
    /// Connections whose kernel buffer took it whole.
    pub written: u64,
    /// Connections in whose queue it waits.
    pub queued: u64,
    /// Shards that have answered. One that ended meanwhile has no connections left.
    pub shards: usize,
    /// Time from acceptance to the first write; `None`: there was none. Both times are taken after each slice of at
    /// most 128 writes.
    pub first_write: Option<Duration>,
    /// Time from acceptance to the last write.
    pub last_write: Option<Duration>,
    dropped: [u64; DropReason::ALL.len()],
}

impl Receipt {
    /// Connections that miss it, for any reason.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Connections that miss it for this reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }
}

impl Published {
    /// The publish's id.
    pub fn id(&self) -> PublishId {
        self.id
    }

    /// Waits until every shard has gone through the recipients once. It does not wait for slow clients.
    pub async fn receipt(self) -> Receipt {
        let mut receipt = Receipt {
            id: self.id,
            matched: 0,
            written: 0,
            queued: 0,
            shards: 0,
            first_write: None,
            last_write: None,
            dropped: [0; DropReason::ALL.len()],
        };
        let since = |at: Instant| at.saturating_duration_since(self.accepted);
        while receipt.shards < self.shards
            && let Ok(answer) = self.answers.recv().await
        {
            receipt.shards += 1;
            receipt.matched += answer.matched;
            receipt.written += answer.written;
            for (sum, dropped) in receipt.dropped.iter_mut().zip(answer.dropped) {
                *sum += dropped;
            }
            let first = answer.first_write.map(since);
            receipt.first_write = receipt.first_write.into_iter().chain(first).min();
            receipt.last_write = receipt.last_write.max(answer.last_write.map(since));
        }
        receipt.queued = receipt.matched - receipt.written - receipt.dropped();
        receipt
    }
}
