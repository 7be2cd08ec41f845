//! Memory that connections hold is given back when it is too much: by closing those that hold the most, for the longest.

use crate::config::{RECLAIM_CLOSES, RECLAIM_EVERY_MS, RECLAIM_SHARE, RECLAIM_SLOTS, TICK_MS};
use crate::engine::Engine;
use crate::engine::connection::Connection;
use crate::engine::driver::Driver;
use crate::engine::memory::Verdict;
use crate::engine::shard_msg::ShardMsg;
use crate::engine::table::Key;
use crate::engine::visit::Visit;
use crate::engine::wheel::Tick;
use crate::heap;
use crate::message::CloseReason;

/// Ticks between two times that memory is given back since the process has too much.
const RECLAIM_EVERY: Tick = (RECLAIM_EVERY_MS / TICK_MS) as Tick;

/// Where a shard is in giving memory back.
#[derive(Default)]
pub(crate) struct Reclaim {
    /// The slot at which the next look begins.
    slot: u32,
    /// When memory was last given back since the process had too much.
    last: Tick,
    /// What was given back since then lies with the allocator.
    trim: bool,
}

impl<D: Driver> Engine<D> {
    /// Gives memory back if too much is held. It may be called at any time but while a connection has its turn.
    pub(crate) fn relieve_memory(&mut self) {
        self.tell_holdings();
        if !self.base.holdings.is_quiet() {
            self.reclaim_if_needed();
        }
    }

    /// Tells the others what is held here.
    fn tell_holdings(&mut self) {
        if let Some(bytes) = self.base.holdings.news() {
            self.base.metrics.held_bytes.set(bytes as u64);
            self.base.registry.note_held(self.base.index, bytes);
        }
    }

    /// Looks at what all shards hold, and gives memory back if that is too much.
    pub(crate) fn reclaim_if_needed(&mut self) {
        match self.base.holdings.judge(self.base.registry.held()) {
            Verdict::Fine => {}
            Verdict::Reclaim { target } => self.reclaim(target),
            Verdict::AskOthers => {
                let part = self.base.registry.buffers_max() / self.base.registry.shards();
                for peer in self.base.lanes.peers().iter().copied() {
                    if self.base.registry.held_by(peer) > part {
                        self.base.send_to_shard(peer, ShardMsg::Reclaim);
                    }
                }
            }
        }
    }

    /// Does once a tick what nothing else would bring about.
    pub(crate) fn see_to_memory(&mut self) {
        self.tell_holdings();
        self.reclaim_if_needed();
        if std::mem::take(&mut self.base.reclaim.trim) {
            heap::trim();
        }
        let now = self.base.wheel.now();
        if let Some(excess) = self.base.registry.excess()
            && now >= self.base.reclaim.last + RECLAIM_EVERY
        {
            let (held, sum) = (self.base.holdings.bytes(), self.base.registry.held());
            // Where connections hold little, closing them would be of no use.
            if sum > self.base.registry.buffers_max() / RECLAIM_SHARE {
                let share = held as f64 / sum as f64;
                self.base.reclaim.last = now;
                self.base.reclaim.trim = true;
                self.reclaim(held.saturating_sub((excess as f64 * share) as usize));
            }
        }
    }

    /// Closes connections until no more than `target` bytes are held: those first that hold the most, for the longest.
    /// Some of a large table are looked at, and some of a crowd are closed; the rest is for the next time.
    fn reclaim(&mut self, target: usize) {
        let (now, slots) = (self.base.wheel.now(), self.table.slots());
        let looked_at = slots.min(RECLAIM_SLOTS);
        let from = if self.base.reclaim.slot < slots { self.base.reclaim.slot } else { 0 };
        let mut holders: Vec<(u64, Key)> = (0..looked_at)
            .filter_map(|step| self.table.key_at((from + step) % slots))
            .filter_map(|key| self.table.get(key)?.grip(now).map(|grip| (grip, key)))
            .collect();
        self.base.reclaim.slot = from + looked_at;
        holders.sort_unstable_by_key(|(grip, _)| std::cmp::Reverse(*grip));
        let fresh = self.base.dirty.len();
        let mut closed = 0;
        for (_, key) in holders.iter().take(RECLAIM_CLOSES) {
            if self.base.holdings.bytes() <= target {
                break;
            }
            self.visit(*key).expect("it was found in the table").evict();
            closed += 1;
        }
        // Each writes its farewell when it has its turn, or this would take too long.
        for key in self.base.dirty.split_off(fresh) {
            self.table.get_mut(key).expect("none is taken out here").dirty = false;
        }
        self.tell_holdings();
        let is_done = self.base.holdings.bytes() <= target;
        if !is_done && holders.len() > RECLAIM_CLOSES || !is_done && looked_at < slots && closed > 0 {
            self.base.holdings.be_alert();
        } else {
            self.base.holdings.be_quiet_for_now();
        }
    }
}

impl<D: Driver> Visit<'_, D> {
    /// Closes the connection and frees what it holds. One whose socket takes nothing can't be told.
    fn evict(&mut self) {
        self.drop_held();
        if self.row.blocked || self.row.closing.is_some() {
            if let Some(outbox) = self.row.outbox.take() {
                self.base.discard(outbox);
            }
            self.abort(CloseReason::MemoryPressure);
        } else {
            self.close(CloseReason::MemoryPressure);
        }
    }

    /// Frees what has come in of a message.
    pub(crate) fn drop_held(&mut self) {
        if let Some(held) = self.row.held.take() {
            self.base.holdings.change(held.memory(), 0);
        }
    }
}

impl<S> Connection<S> {
    /// How much memory it holds, times how long: bytes and ticks. `None`: it holds none, or is given up already. What is
    /// about to be written is not held.
    fn grip(&self, now: Tick) -> Option<u64> {
        let held = self.held.as_ref().map(|held| (held.memory(), held.since));
        let waiting = self.outbox.as_ref().filter(|_| self.blocked).map(|outbox| {
            let load = outbox.load();
            (load.memory + load.bytes, self.last_write)
        });
        if self.abort || (held.is_none() && waiting.is_none()) {
            return None;
        }
        let grip = |(bytes, since): (usize, Tick)| bytes as u64 * (1 + u64::from(now.saturating_sub(since)));
        Some(held.map_or(0, grip) + waiting.map_or(0, grip))
    }
}
