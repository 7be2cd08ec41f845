//! What carries a connection's bytes: the only place that reads from and writes to a client's socket.
//!
//! The engine knows a [`Transport`] and nothing of descriptors, so that it runs over sockets of its tests' own as well. None
//! of the calls waits.

mod plain;

pub(crate) use plain::Plain;

/// The bytes of one connection, in both directions.
pub(crate) trait Transport {
    /// Whether the two sides have to agree on something before the first byte of the protocol.
    fn has_handshake(&self) -> bool {
        false
    }

    /// Goes on with what must be settled between both sides before the first byte of the protocol, each time that the socket
    /// can be read or written again. A transport without a handshake is done at once.
    fn handshake(&mut self) -> Handshake {
        Handshake::Done
    }

    /// Reads once.
    fn recv(&mut self, buffer: &mut [u8]) -> Received;

    /// Gives bytes to the other side and says how many were taken: none, if there is no room.
    ///
    /// # Errors
    /// [`Broken`]: nothing more will be taken.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken>;

    /// Says that nothing more will be sent, in the transport's own words if it has some. Reading goes on.
    fn finish(&mut self);

    /// Whether bytes would be taken now.
    fn has_room(&self) -> bool;

    /// What was sent and has not arrived; `None`: the transport is not connected any more.
    fn outstanding(&self) -> Option<Outstanding>;
}

/// How far a handshake is.
#[allow(dead_code, reason = "a plain socket has none")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// The protocol begins.
    Done,
    /// The other side has to send something first.
    WantsRead,
    /// Something is to be sent, and there is no room for it.
    WantsWrite,
    /// The two can't agree, which the other side has been told where that is possible.
    Failed,
}

/// What a read says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes came. `more`: there may be others behind them.
    Bytes { count: usize, more: bool },
    /// The client has closed its sending side.
    End,
    /// There is nothing for now.
    Nothing,
    /// The connection is broken.
    Failed,
}

/// A connection that takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

pub(crate) use crate::sys::Outstanding;
