//! From a run of messages straight to the sockets of connections for which nothing waits.
//!
//! Connections of one encoding read the same bytes. These are put together once for the whole run, and each socket is
//! given all of them in one piece. What it does not take goes through the connection's outbox.

use std::rc::Rc;

use super::driver::Driver;
use super::outbox::{Frame, Written};
use super::visit::Visit;
use super::wording::Wording;
use crate::config::{GATHER_BUFFER_BYTES, SlowConsumer};
use crate::message::CloseReason;
use crate::transport::{Broken, Transport};

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

impl<D: Driver> Visit<'_, D> {
    /// How the connection is written to, if nothing waits for it and it may be.
    pub(crate) fn idle_wording(&self) -> Option<Wording> {
        let idle = self.row.outbox.is_none() && self.row.closing.is_none() && !self.row.blocked;
        self.row.wording().filter(|_| idle)
    }

    /// Writes messages to a connection for which nothing waits. `true`: its socket took all of them, and the caller
    /// counts that in their tallies. Else what it did not take is queued, or dropped as the policy says, and counted.
    pub(crate) fn write_directly(&mut self, joined: &Joined) -> bool {
        let bytes = joined.bytes();
        let taken = self.send_now(bytes);
        if taken == bytes.len() {
            self.count_direct(joined.messages.len(), taken);
            return true;
        }
        self.queue_rest(joined, taken);
        false
    }

    /// Gives bytes to the socket of a connection for which nothing waits, and says how many it took. If not all of them, the
    /// connection waits for room from here on, or is given up.
    pub(super) fn send_now(&mut self, bytes: &[u8]) -> usize {
        self.base.metrics.sends.add(1);
        match self.row.socket.send(bytes) {
            Ok(taken) => {
                if taken < bytes.len() {
                    self.blocked();
                }
                taken
            }
            Err(Broken) => {
                self.abort(CloseReason::Reset);
                0
            }
        }
    }

    /// Queues what comes after the first `taken` bytes.
    fn queue_rest(&mut self, joined: &Joined, taken: usize) {
        let (whole, begun) = joined.split(taken);
        self.count_direct(whole, taken);
        let (written, rest) = joined.messages.split_at(whole);
        written.iter().for_each(|(frame, _)| frame.tally().count_written(1));
        for (index, (frame, policy)) in rest.iter().enumerate() {
            if index == 0 && begun > 0 {
                self.push_begun(frame, begun);
            } else {
                self.push(frame, *policy);
            }
        }
    }

    pub(super) fn count_direct(&mut self, messages: usize, bytes: usize) {
        let written = Written { messages, pushes: messages, bytes };
        let now = self.base.wheel.now();
        self.row.count_written(written, now);
        self.base.proofs.await_one(self.key, self.row, now);
        self.base.count_sent(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::outbox::Meter;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_split_lies_where_the_bytes_end(lens in prop::collection::vec(1usize..100, 1..20), part in 0.0..=1.0) {
            let mut joined = Joined::default();
            let mut all = Vec::new();
            for (n, len) in lens.iter().enumerate() {
                let bytes = vec![n as u8; *len];
                all.extend_from_slice(&bytes);
                prop_assert!(joined.push(Frame::new(bytes, None, Rc::default(), &Meter::default()), SlowConsumer::Skip));
            }
            prop_assert_eq!(joined.bytes(), &all);
            let taken = (all.len() as f64 * part) as usize;
            let (whole, begun) = joined.split(taken);
            prop_assert_eq!(lens[..whole].iter().sum::<usize>() + begun, taken);
            prop_assert!(lens.get(whole).map_or(begun == 0, |next| begun < *next));
        }
    }
}
