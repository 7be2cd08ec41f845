//! What shards say to each other.

use super::parcel::Parcel;
use super::registry::Place;
use super::seen::Seen;
use crate::message::ConnId;
use crate::publish::Publish;

/// What two shards say to each other about a connection that moves from the one to the other.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Shard `from` wants to hand over a connection.
    Expect { from: usize, id: ConnId },
    /// Shard `by` is ready for it, keeps what is published from now on, and is so far.
    Expected { by: usize, id: ConnId, seen: Seen },
    /// It won't come: it stays where it is, or has closed there.
    CalledOff,
    /// The sender has sent it off to shard `to`. Behind this nothing comes in the lane that it has published before.
    SentOff { to: usize, id: ConnId },
    /// The sender has got that, and all that was before it.
    Behind { id: ConnId },
}

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
