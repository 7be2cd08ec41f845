//! What the engine needs of the world around it: whoever runs it brings that along.

use std::io;
use std::ops::DerefMut;
use std::time::Instant;

use super::shard_msg::ShardMsg;
use super::table::Key;
use crate::transport::Transport;

/// The world, as the engine of one shard sees it. None of the calls waits.
pub(crate) trait Driver: Sized {
    /// What carries a connection's bytes.
    type Socket: Transport;
    /// Memory that is lent for one step.
    type Buffer: DerefMut<Target = [u8]>;

    /// The time. It never goes back.
    fn now(&self) -> Instant;

    /// Makes sure that the socket of a slot can be watched.
    ///
    /// # Errors
    /// The system gives nothing to watch it with.
    fn reserve(&mut self, slot: u32) -> io::Result<()>;

    /// Has it reported when what is waited for on a socket comes, at once if it is there already.
    fn watch(&mut self, watched: Watched, socket: &Self::Socket);

    /// Ends that.
    fn unwatch(&mut self, watched: Watched);

    /// Offers a message to another shard; it comes back if that takes none for now. A shard that has ended takes everything
    /// and does nothing.
    fn offer(&mut self, shard: usize, message: ShardMsg<Self::Socket>) -> Option<ShardMsg<Self::Socket>>;

    /// Has somebody look soon at what there is to do.
    fn ring(&mut self, bell: Bell);

    /// A buffer to read into. It holds whatever its last user left in it.
    fn read_buffer(&mut self) -> Self::Buffer;

    /// Takes it back.
    fn return_read_buffer(&mut self, buffer: Self::Buffer);

    /// A buffer to gather small frames in. It holds whatever its last user left in it.
    fn gather_buffer(&mut self) -> Self::Buffer;

    /// Takes it back.
    fn return_gather_buffer(&mut self, buffer: Self::Buffer);
}

/// Whom something to do is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bell {
    /// A connection waits for its turn.
    Turns,
    /// A publish waits to be delivered.
    Publishes,
    /// The queue of publishes has room again.
    Room,
    /// Something waits for a full lane to another shard.
    Backlog,
    /// Publishes have been taken in while connections move.
    Seen,
    /// A refused client lingers.
    Refusals,
}

impl Bell {
    /// How many there are.
    pub(crate) const COUNT: usize = Bell::Refusals as usize + 1;
}

/// What is waited for on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// That the connection of this key has something to read, or has ended.
    Read(Key),
    /// That its socket takes bytes again.
    Write(Key),
    /// That the listener of this number has connections to accept.
    Accept(u32),
}

/// A report about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) watched: Watched,
    /// The other side has ended its stream, or both: more may be there than one read shows.
    pub(crate) hangup: bool,
    /// The watch goes on.
    pub(crate) armed: bool,
}
