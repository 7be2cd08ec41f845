//! Clients that vanish without a word: the kernel takes what is written to them for a quarter of an hour, and nothing
//! says that it never arrives.
//!
//! So a while after something was written, the kernel is asked whether the other side has acknowledged anything since. A
//! client that does not read, but whose machine answers, lives: it is left to the limits of its outbox. The option
//! `TCP_USER_TIMEOUT` does not tell the two apart, and makes one lost keepalive probe the end of an idle connection.

use crate::config::{FANOUT_SLICE, TICK_MS};
use crate::engine::Engine;
use crate::engine::connection::Connection;
use crate::engine::driver::Driver;
use crate::engine::table::{Key, Table};
use crate::engine::wheel::{NEVER, Tick};
use crate::message::CloseReason;
use crate::transport::{Outstanding, Transport};

/// Connections to which something was written that has not been seen to arrive: a bit for each slot of the table. A sweep
/// goes round over them, in as many ticks as lie between two looks at a connection.
pub(crate) struct Proofs {
    unproven: Vec<u64>,
    /// Bits that are set.
    count: usize,
    /// The word at which the sweep goes on, and how many it has yet to look at.
    at: usize,
    left: usize,
    /// Ticks that it has gone round for.
    phase: Tick,
    /// Time between two looks: a client that has vanished is closed between one and one and a half write timeouts later.
    /// `None`: nobody looks.
    every: Option<Tick>,
}

const BITS: usize = u64::BITS as usize;

impl Proofs {
    pub(crate) fn new(write_timeout: Option<Tick>) -> Self {
        let every = write_timeout.map(|timeout| timeout.div_ceil(2));
        Proofs { unproven: Vec::new(), count: 0, at: 0, left: 0, phase: 0, every }
    }

    /// Notes that bytes were written to a connection: before long it is looked whether they arrive.
    pub(crate) fn await_one<S>(&mut self, key: Key, connection: &mut Connection<S>, now: Tick) {
        if self.every.is_some() && connection.await_proof(now) {
            self.set(key.slot);
        }
    }

    /// Goes on looking at a connection that came with bytes under way.
    pub(crate) fn go_on(&mut self, key: Key) {
        if self.every.is_some() {
            self.set(key.slot);
        }
    }

    fn set(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / BITS, 1 << (slot as usize % BITS));
        if word >= self.unproven.len() {
            self.unproven.resize(word + 1, 0);
        }
        self.count += usize::from(self.unproven[word] & bit == 0);
        self.unproven[word] |= bit;
    }

    fn clear(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / BITS, 1 << (slot as usize % BITS));
        self.count -= usize::from(self.unproven[word] & bit != 0);
        self.unproven[word] &= !bit;
    }

    /// Lets the sweep go on for so many ticks.
    pub(crate) fn turn(&mut self, ticks: Tick) {
        let (Some(every), false) = (self.every, self.count == 0) else { return };
        let words = self.unproven.len();
        for _ in 0..ticks.min(every) {
            let share = |phase: Tick| words * phase as usize / every as usize;
            self.left += share(self.phase + 1) - share(self.phase);
            self.phase = (self.phase + 1) % every;
        }
    }

    /// Goes on with the sweep, over about a slice of connections, and says which of them are due at `now`; `None`: it is
    /// over for this tick.
    fn sweep<S>(&mut self, table: &Table<Connection<S>>, now: Tick) -> Option<Vec<Key>> {
        let every = self.every.filter(|_| self.left > 0)?;
        let (mut due, mut seen) = (Vec::new(), 0);
        while self.left > 0 && seen < FANOUT_SLICE {
            let mut bits = self.unproven[self.at];
            seen += bits.count_ones() as usize;
            while bits != 0 {
                let slot = (self.at * BITS) as u32 + bits.trailing_zeros();
                bits &= bits - 1;
                let key = table.key_at(slot);
                match key.and_then(|key| Some((key, table.get(key)?.unproven_since()?))) {
                    Some((key, since)) if now.saturating_sub(since) >= every => due.push(key),
                    Some(_) => {}
                    // It is gone or closing, or another one is in its place to which nothing was written.
                    None => self.clear(slot),
                }
            }
            self.at = (self.at + 1) % self.unproven.len();
            self.left -= 1;
        }
        Some(due)
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

impl<D: Driver> Engine<D> {
    /// Some of the connections that are to be looked at in this tick; `None`: there are no more.
    pub(crate) fn take_due_proofs(&mut self) -> Option<Vec<Key>> {
        self.base.proofs.sweep(&self.table, self.base.wheel.now())
    }

    /// Looks whether what was written to connections has arrived, and closes those that have acknowledged nothing within
    /// the write timeout.
    pub(crate) fn prove(&mut self, keys: &[Key]) {
        let (now, back_at) = (self.base.wheel.now(), self.base.wheel.back_at());
        let Some(timeout) = self.base.settings.write_timeout else { return };
        for key in keys.iter().copied() {
            let Some(mut visit) = self.visit(key) else { continue };
            let Some(since) = visit.row.unproven_since() else { continue };
            // A machine that was paused has missed answers, and gets them again.
            let since = since.max(back_at);
            // A socket that tells nothing is not connected any more, which its next read shows.
            let outstanding = visit.row.socket.outstanding();
            match outstanding.map_or(Verdict::Arrived, |outstanding| judge(outstanding, now - since)) {
                Verdict::Arrived => {
                    visit.row.set_unproven_since(NEVER);
                    visit.base.proofs.clear(key.slot);
                }
                Verdict::Lives => visit.row.set_unproven_since(now),
                Verdict::Silent if now - since >= timeout => visit.close(CloseReason::WriteTimeout),
                Verdict::Silent => visit.row.set_unproven_since(since),
            }
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

    /// Connections to which something was written at tick 0.
    fn written_to(count: usize) -> (Proofs, Table<Connection<()>>) {
        let (mut proofs, mut table) = (Proofs::new(Some(8)), Table::default());
        for _ in 0..count {
            let id = crate::message::ConnId::from_u64(1);
            let key = table.insert_with(|_| Connection::new((), id, 0, None, 0, 0));
            proofs.await_one(key, table.get_mut(key).unwrap(), 0);
        }
        (proofs, table)
    }

    /// What a sweep of one tick says is due, and in how many parts.
    fn due_at(proofs: &mut Proofs, table: &Table<Connection<()>>, now: Tick) -> (Vec<Key>, usize) {
        proofs.turn(1);
        let parts: Vec<_> = std::iter::from_fn(|| proofs.sweep(table, now)).collect();
        let len = parts.len();
        (parts.into_iter().flatten().collect(), len)
    }

    #[test]
    fn each_connection_is_looked_at_once_between_half_a_timeout_and_a_whole_one() {
        let (mut proofs, table) = written_to(10 * BITS + 7);
        let mut looked_at = std::collections::BTreeMap::new();
        for now in 0..8 {
            for key in due_at(&mut proofs, &table, now).0 {
                assert!((4..8).contains(&now));
                *looked_at.entry(key.slot).or_insert(0) += 1;
            }
        }
        assert_eq!(looked_at.len(), table.len());
        assert!(looked_at.values().all(|times| *times == 1));
    }

    #[test]
    fn a_sweep_over_many_is_cut_into_parts() {
        let (mut proofs, table) = written_to(8 * FANOUT_SLICE);
        let (due, parts) = due_at(&mut proofs, &table, 1);
        assert_eq!((due.len(), parts), (0, 2));
        let (due, parts) = due_at(&mut proofs, &table, 4);
        assert_eq!((due.len(), parts), (2 * FANOUT_SLICE, 2));
    }

    #[test]
    fn one_that_is_gone_or_closing_is_forgotten() {
        let (mut proofs, mut table) = written_to(3);
        let keys: Vec<Key> = (0..3).filter_map(|slot| table.key_at(slot)).collect();
        table.remove(keys[0]);
        table.get_mut(keys[1]).unwrap().begin_to_close(CloseReason::Kicked, NEVER);
        let due: Vec<Key> = (4..8).flat_map(|now| due_at(&mut proofs, &table, now).0).collect();
        assert_eq!(due, [keys[2]]);
        assert_eq!(proofs.count, 1);
        proofs.clear(keys[2].slot);
        assert_eq!(due_at(&mut proofs, &table, 8), (vec![], 0));
    }
}
