//! From a run of messages straight to the sockets of connections for which nothing waits.
//!
//! Connections of one encoding read the same bytes. These are put together once for the whole run, and each socket is
//! given all of them in one piece. What it does not take goes through the connection's outbox.

use std::os::fd::AsFd;
use std::rc::Rc;

use crate::codec::Encoding;
use crate::config::{GATHER_BUFFER_BYTES, SlowConsumer};
use crate::message::CloseReason;
use crate::shard::core::Core;
use crate::shard::outbox::{Frame, Written};
use crate::shard::outgoing::send;
use crate::shard::table::Key;

/// Messages as connections of one encoding read them, one after the other.
#[derive(Default)]
pub(crate) struct Joined {
    messages: Vec<(Rc<Frame>, SlowConsumer)>,
    /// The bytes of all of them. A single one is not copied.
    bytes: Vec<u8>,
}

impl Joined {
    /// Adds the next message, with the policy that holds for it; `false`: that would be too much to copy.
    pub(crate) fn push(&mut self, frame: Rc<Frame>, policy: SlowConsumer) -> bool {
        if let [(first, _)] = &self.messages[..] {
            self.bytes.extend_from_slice(first.bytes());
        }
        if !self.messages.is_empty() {
            self.bytes.extend_from_slice(frame.bytes());
        }
        self.messages.push((frame, policy));
        self.bytes.len() <= GATHER_BUFFER_BYTES
    }

    fn bytes(&self) -> &[u8] {
        match &self.messages[..] {
            [(only, _)] => only.bytes(),
            _ => &self.bytes,
        }
    }

    /// How many messages lie whole within the first `taken` bytes, and how many of these bytes are the next one's.
    fn split(&self, mut taken: usize) -> (usize, usize) {
        for (whole, (frame, _)) in self.messages.iter().enumerate() {
            match taken.checked_sub(frame.bytes().len()) {
                Some(left) => taken = left,
                None => return (whole, taken),
            }
        }
        (self.messages.len(), 0)
    }
}

impl Core {
    /// What a connection reads for which nothing waits and that may be written to.
    pub(crate) fn idle_encoding(&self, key: Key) -> Option<Encoding> {
        let connection = self.table.get(key)?;
        let idle = connection.outbox.is_none() && connection.closing.is_none() && !connection.blocked;
        connection.encoding.filter(|_| idle)
    }

    /// Writes messages to a connection for which nothing waits. `true`: its socket took all of them, and the caller
    /// counts that in their tallies. Else what it did not take is queued, or dropped as the policy says, and counted.
    pub(crate) fn write_directly(&mut self, key: Key, joined: &Joined) -> bool {
        let Some(connection) = self.table.get_mut(key) else { return false };
        let bytes = joined.bytes();
        let taken = send(&self.metrics, connection.socket.as_fd(), bytes);
        let (whole, begun) = match taken {
            Ok(taken) if taken == bytes.len() => (joined.messages.len(), 0),
            Ok(taken) => joined.split(taken),
            Err(_) => (0, 0),
        };
        let written = Written { messages: whole, pushes: whole, bytes: taken.unwrap_or_default() };
        connection.count_written(written, self.wheel.now());
        self.count_sent(written);
        if whole == joined.messages.len() {
            return true;
        }
        match taken {
            Ok(_) => self.blocked(key),
            Err(_) => self.abort(key, CloseReason::Reset),
        }
        joined.messages[..whole].iter().for_each(|(frame, _)| frame.tally().count_written(1));
        let mut rest = joined.messages[whole..].iter();
        if begun > 0
            && let Some((frame, _)) = rest.next()
        {
            self.push_begun(key, frame, begun);
        }
        rest.for_each(|(frame, policy)| self.push(key, frame, *policy));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_split_lies_where_the_bytes_end(lens in prop::collection::vec(1usize..100, 1..20), part in 0.0..=1.0) {
            let mut joined = Joined::default();
            let mut all = Vec::new();
            for (n, len) in lens.iter().enumerate() {
                let bytes = vec![n as u8; *len];
                all.extend_from_slice(&bytes);
                prop_assert!(joined.push(Frame::new(bytes, None, Rc::default()), SlowConsumer::Skip));
            }
            prop_assert_eq!(joined.bytes(), &all);
            let taken = (all.len() as f64 * part) as usize;
            let (whole, begun) = joined.split(taken);
            prop_assert_eq!(lens[..whole].iter().sum::<usize>() + begun, taken);
            prop_assert!(lens.get(whole).map_or(begun == 0, |next| begun < *next));
        }
    }
}
