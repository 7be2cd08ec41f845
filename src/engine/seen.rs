//! How far a shard is in what goes to all shards.

use crate::message::PublishId;

/// By publisher: the number of the last publish that it took in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen(Box<[u64]>);

impl Seen {
    /// Nothing was published yet by so many shards, and from outside.
    pub(crate) fn new(shards: usize) -> Self {
        Seen(vec![0; shards + 1].into())
    }

    fn publisher(&self, id: PublishId) -> usize {
        // What comes from outside has a lane behind those of all shards that there may be.
        id.lane().min(self.0.len() - 1)
    }

    pub(super) fn note(&mut self, id: PublishId) {
        self.0[self.publisher(id)] = id.sequence();
    }

    /// Whether it goes as far as a publish.
    pub(super) fn includes(&self, id: PublishId) -> bool {
        self.0[self.publisher(id)] >= id.sequence()
    }

    /// Whether it goes at least as far as another, with each publisher.
    pub(super) fn reaches(&self, other: &Seen) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own >= other)
    }
}
