//! Memory that connections hold is given back when it is too much: by closing those that hold the most, for the longest.

use crate::config::{RECLAIM_CLOSES, RECLAIM_EVERY_MS, RECLAIM_SHARE, RECLAIM_SLOTS, TICK_MS};
use crate::engine::Engine;
use crate::engine::connection::Connection;
use crate::engine::mailbox::ShardMsg;
use crate::engine::memory::Verdict;
use crate::engine::table::Key;
use crate::engine::wheel::Tick;
use crate::message::CloseReason;
use crate::sys;

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

impl Engine {
    /// Gives memory back if too much is held. It may be called at any time but while a connection has its turn.
    pub(crate) fn relieve_memory(&mut self) {
        self.tell_holdings();
        if !self.holdings.is_quiet() {
            self.reclaim_if_needed();
        }
    }

    /// Tells the others what is held here.
    fn tell_holdings(&mut self) {
        if let Some(bytes) = self.holdings.news() {
            self.metrics.held_bytes.set(bytes as u64);
            self.registry.note_held(self.index, bytes);
        }
    }

    /// Looks at what all shards hold, and gives memory back if that is too much.
    pub(crate) fn reclaim_if_needed(&mut self) {
        match self.holdings.judge(self.registry.held()) {
            Verdict::Fine => {}
            Verdict::Reclaim { target } => self.reclaim(target),
            Verdict::AskOthers => {
                let part = self.registry.buffers_max() / self.registry.shards();
                for peer in self.mesh.peers().iter().copied() {
                    if self.registry.held_by(peer) > part {
                        self.send_to_shard(peer, ShardMsg::Reclaim);
                    }
                }
            }
        }
    }

    /// Does once a tick what nothing else would bring about.
    pub(crate) fn see_to_memory(&mut self) {
        self.tell_holdings();
        self.reclaim_if_needed();
        if std::mem::take(&mut self.reclaim.trim) {
            sys::trim_heap();
        }
        let now = self.wheel.now();
        if let Some(excess) = self.registry.excess()
            && now >= self.reclaim.last + RECLAIM_EVERY
        {
            let (held, sum) = (self.holdings.bytes(), self.registry.held());
            // Where connections hold little, closing them would be of no use.
            if sum > self.registry.buffers_max() / RECLAIM_SHARE {
                let share = held as f64 / sum as f64;
                self.reclaim.last = now;
                self.reclaim.trim = true;
                self.reclaim(held.saturating_sub((excess as f64 * share) as usize));
            }
        }
    }

    /// Closes connections until no more than `target` bytes are held: those first that hold the most, for the longest.
    /// Some of a large table are looked at, and some of a crowd are closed; the rest is for the next time.
    fn reclaim(&mut self, target: usize) {
        let (now, slots) = (self.wheel.now(), self.table.slots());
        let looked_at = slots.min(RECLAIM_SLOTS);
        let from = if self.reclaim.slot < slots { self.reclaim.slot } else { 0 };
        let mut holders: Vec<(u64, Key)> = (0..looked_at)
            .filter_map(|step| self.table.key_at((from + step) % slots))
            .filter_map(|key| self.table.get(key)?.grip(now).map(|grip| (grip, key)))
            .collect();
        self.reclaim.slot = from + looked_at;
        holders.sort_unstable_by_key(|(grip, _)| std::cmp::Reverse(*grip));
        let fresh = self.dirty.len();
        let mut closed = 0;
        for (_, key) in holders.iter().take(RECLAIM_CLOSES) {
            if self.holdings.bytes() <= target {
                break;
            }
            self.evict(*key);
            closed += 1;
        }
        // Each writes its farewell when it has its turn, or this would take too long.
        for key in self.dirty.split_off(fresh) {
            if let Some(connection) = self.table.get_mut(key) {
                connection.dirty = false;
            }
        }
        self.tell_holdings();
        let is_done = self.holdings.bytes() <= target;
        if !is_done && holders.len() > RECLAIM_CLOSES || !is_done && looked_at < slots && closed > 0 {
            self.holdings.be_alert();
        } else {
            self.holdings.be_quiet_for_now();
        }
    }

    /// Closes a connection and frees what it holds. One whose socket takes nothing can't be told.
    fn evict(&mut self, key: Key) {
        self.drop_held(key);
        let Some(connection) = self.table.get_mut(key) else { return };
        if connection.blocked || connection.closing.is_some() {
            if let Some(outbox) = connection.outbox.take() {
                self.discard(outbox);
            }
            self.abort(key, CloseReason::MemoryPressure);
        } else {
            self.close(key, CloseReason::MemoryPressure);
        }
    }

    /// Frees what has come in of a message.
    pub(crate) fn drop_held(&mut self, key: Key) {
        if let Some(held) = self.table.get_mut(key).and_then(|connection| connection.held.take()) {
            self.holdings.change(held.memory(), 0);
        }
    }
}

impl Connection {
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
