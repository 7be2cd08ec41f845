//! What shards say to each other.

use super::moves::Notice;
use super::parcel::Parcel;
use super::registry::Place;
use crate::publish::Publish;

/// What one shard says to another.
#[derive(Debug)]
pub(crate) enum ShardMsg<S> {
    /// The sender's number: the first message of each lane, since the mesh numbers its peers in its own way.
    Hello { shard: usize },
    /// A message to deliver.
    Publish(Publish),
    /// A connection that the receiver shall serve: a fresh client that the sender has accepted, since the receiver has fewer,
    /// or one that the sender has served so far.
    Parcel(Parcel<S>, Place),
    /// About a connection that moves.
    Move(Notice),
    /// All shards together hold too much memory, and the receiver more than its part.
    Reclaim,
    /// The sender has begun to drain: all it published before is ahead of this in the lane.
    Draining,
}

impl<S> ShardMsg<S> {
    /// Bytes that it keeps on the heap.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            ShardMsg::Publish(publish) => publish.payload.len(),
            ShardMsg::Parcel(parcel, _) => parcel.bytes(),
            ShardMsg::Hello { .. } | ShardMsg::Move(_) | ShardMsg::Reclaim | ShardMsg::Draining => 0,
        }
    }
}
