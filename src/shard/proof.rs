//! Clients that vanish without a word: the kernel takes what is written to them for a quarter of an hour, and nothing
//! says that it never arrives.
//!
//! So a while after something was written, the kernel is asked whether the other side has acknowledged anything since. A
//! client that does not read, but whose machine answers, lives: it is left to the limits of its outbox. The option
//! `TCP_USER_TIMEOUT` does not tell the two apart, and makes one lost keepalive probe the end of an idle connection.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use crate::config::{FANOUT_SLICE, TICK_MS};
use crate::message::CloseReason;
use crate::shard::connection::Connection;
use crate::shard::core::Core;
use crate::shard::table::Key;
use crate::shard::timeouts::{NEVER, Tick};
use crate::sys::{self, Outstanding};

/// Connections to which something was written that has not been seen to arrive, each once, in the order in which they are
/// to be looked at.
pub(super) struct Proofs {
    queue: VecDeque<(Key, Tick)>,
    /// Time between two looks: a client that has vanished is closed between one and one and a half write timeouts later.
    /// `None`: nobody looks.
    every: Option<Tick>,
}

impl Proofs {
    pub(super) fn new(write_timeout: Option<Tick>) -> Self {
        Proofs { queue: VecDeque::new(), every: write_timeout.map(|timeout| timeout.div_ceil(2)) }
    }

    /// Notes that bytes were written to a connection: before long it is looked whether they arrive.
    pub(super) fn await_one(&mut self, key: Key, connection: &mut Connection, now: Tick) {
        if self.every.is_some() && connection.await_proof(now) {
            self.push(key, now);
        }
    }

    fn push(&mut self, key: Key, now: Tick) {
        if let Some(every) = self.every {
            self.queue.push_back((key, now + every));
        }
    }

    /// Some of those that are due at `now`.
    fn take_due(&mut self, now: Tick) -> Vec<Key> {
        let due = self.queue.iter().take(FANOUT_SLICE).take_while(|(_, due)| *due <= now).count();
        let keys = self.queue.drain(..due).map(|(key, _)| key).collect();
        // After a moment in which all were written to.
        if self.queue.is_empty() {
            self.queue.shrink_to(FANOUT_SLICE);
        }
        keys
    }
}

/// What the kernel knows of bytes that were written some time ago, and of others that came after them.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The other side has acknowledged all of them.
    Arrived,
    /// It has acknowledged something since.
    Lives,
    /// It has acknowledged nothing since.
    Silent,
}

impl Core {
    /// Some of the connections that are to be looked at now.
    pub(super) fn take_due_proofs(&mut self) -> Vec<Key> {
        self.proofs.take_due(self.wheel.now())
    }

    /// Looks whether what was written to connections has arrived, and closes those that have acknowledged nothing within
    /// the write timeout.
    pub(super) fn prove(&mut self, keys: &[Key]) {
        let (now, back_at) = (self.wheel.now(), self.wheel.back_at());
        let Some(timeout) = self.settings.write_timeout else { return };
        for key in keys.iter().copied() {
            let Some(connection) = self.table.get_mut(key) else { continue };
            let Some(since) = connection.unproven_since() else { continue };
            // A machine that was paused has missed answers, and gets them again.
            let since = since.max(back_at);
            let outstanding = sys::outstanding(connection.socket.as_fd());
            // A socket that tells nothing is no longer connected, which its next read shows.
            let verdict = outstanding.map_or(Verdict::Arrived, |outstanding| judge(outstanding, now - since));
            match verdict {
                Verdict::Arrived => {
                    connection.set_unproven_since(NEVER);
                    continue;
                }
                Verdict::Lives => connection.set_unproven_since(now),
                Verdict::Silent if now - since >= timeout => {
                    self.close(key, CloseReason::WriteTimeout);
                    continue;
                }
                Verdict::Silent => connection.set_unproven_since(since),
            }
            self.proofs.push(key, now);
        }
    }
}

/// What is known of bytes that were written `ticks` ago.
fn judge(outstanding: Outstanding, ticks: Tick) -> Verdict {
    // The first bytes went out during a tick, and a tick comes late.
    const TICKS_UNSURE: u64 = 2;
    let Outstanding { packets, unsent, probes, since_answer_ms } = outstanding;
    if packets == 0 && unsent == 0 {
        return Verdict::Arrived;
    }
    let is_answered = u64::from(since_answer_ms) < (u64::from(ticks) + TICKS_UNSURE) * TICK_MS;
    // A client that takes no more is asked less and less often whether it does now: no answer is due before it is asked.
    let is_asked = packets > 0 || probes > 1;
    if is_answered || !is_asked { Verdict::Lives } else { Verdict::Silent }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Outstanding = Outstanding { packets: 0, unsent: 0, probes: 0, since_answer_ms: 100_000 };

    #[test]
    fn only_a_client_that_owes_an_answer_since_the_write_is_silent() {
        let in_flight = Outstanding { packets: 1, unsent: 10, ..QUIET };
        assert_eq!(judge(QUIET, 40), Verdict::Arrived);
        assert_eq!(judge(in_flight, 40), Verdict::Silent);
        assert_eq!(judge(Outstanding { since_answer_ms: 9_000, ..in_flight }, 40), Verdict::Lives);
        // An answer that came in the tick of the write may be one to it.
        assert_eq!(judge(Outstanding { since_answer_ms: 10_100, ..in_flight }, 40), Verdict::Lives);
    }

    #[test]
    fn a_client_that_takes_nothing_lives_while_it_answers_probes() {
        let full = Outstanding { unsent: 10_000, ..QUIET };
        for probes in [0, 1] {
            assert_eq!(judge(Outstanding { probes, ..full }, 40), Verdict::Lives);
        }
        assert_eq!(judge(Outstanding { probes: 2, ..full }, 40), Verdict::Silent);
    }

    #[test]
    fn connections_are_looked_at_when_they_are_due_some_at_a_time() {
        let mut proofs = Proofs::new(Some(9));
        (0..FANOUT_SLICE as u32 + 2).for_each(|slot| proofs.push(Key::new(slot, 1), 0));
        proofs.push(Key::new(7_000, 1), 1);
        assert!(proofs.take_due(4).is_empty());
        assert_eq!(proofs.take_due(5).len(), FANOUT_SLICE);
        assert_eq!(proofs.take_due(5).len(), 2);
        assert!(proofs.take_due(5).is_empty());
        assert_eq!(proofs.take_due(7), [Key::new(7_000, 1)]);
    }
}
