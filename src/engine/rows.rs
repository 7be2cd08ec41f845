//! The rows of the registry: written by the shard that has the connection, read by every thread, without a lock.
//!
//! A row is found by its connection's id, which holds the shard, the slot in that shard's table, and how often the slot was
//! used before. So an id comes back only when the count of one slot has gone round: with two shards and a million
//! connections after 2^42 of them, which is 139 years of a thousand connects a second through one slot; with as many shards
//! and slots as there can be, after 2^29.
//!
//! Each slot is a sequence lock: who reads looks at its stamp before and after, and ids don't come back meanwhile.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::engine::registry::Row;
use crate::engine::table::Key;
use crate::message::ConnId;

/// Slots of one page. A page is allocated when its first slot is used, and stays.
const PAGE_SLOTS: usize = 1024;

/// Lists of pages, each twice as long as the one before, so that a shard with few connections has short ones.
const LISTS: usize = 16;

/// In a stamp: nobody has the slot. Ids are below it, so they also fit into signed numbers.
const FREE: u64 = 1 << 63;

/// One slot: a stamp, which is the id of the connection that has it, or of the last one that had, and [`FREE`]; and what the
/// row holds.
#[derive(Default)]
struct Slot {
    stamp: AtomicU64,
    ip: [AtomicU64; 2],
    /// The port, above the generation of the key.
    rest: AtomicU64,
}

type Page = Box<[Slot]>;

/// The rows of one shard.
struct Pages([OnceLock<Box<[OnceLock<Page>]>>; LISTS]);

impl Pages {
    fn new() -> Self {
        Pages(array::from_fn(|_| OnceLock::new()))
    }

    /// The list that a slot's page is in, the page's place there, and the slot's in the page.
    fn place(slot: u32) -> (usize, usize, usize) {
        let (page, index) = (slot as usize / PAGE_SLOTS + 1, slot as usize % PAGE_SLOTS);
        let list = page.ilog2();
        (list as usize, page - (1 << list), index)
    }

    fn get(&self, slot: u32) -> Option<&Slot> {
        let (list, page, index) = Pages::place(slot);
        self.0.get(list)?.get()?.get(page)?.get()?.get(index)
    }

    fn get_or_allocate(&self, slot: u32) -> Option<&Slot> {
        fn filled<T: Default>(len: usize) -> Box<[T]> {
            (0..len).map(|_| T::default()).collect()
        }
        let (list, page, index) = Pages::place(slot);
        let pages = self.0.get(list)?.get_or_init(|| filled(1 << list));
        pages.get(page)?.get_or_init(|| filled(PAGE_SLOTS)).get(index)
    }
}

/// The rows of all shards.
pub(crate) struct Rows {
    shards: Box<[Pages]>,
    /// Bits of an id that name the slot, and above them those that name the shard.
    slot_bits: u32,
    shard_bits: u32,
}

impl Rows {
    /// Rows for as many shards, of which each may have up to `max` connections.
    pub(crate) fn new(shards: usize, max: usize) -> Self {
        // A table keeps its rows in pages, of which it may leave one unfilled.
        let slots = (max as u64).max(1) + 2 * PAGE_SLOTS as u64;
        Rows {
            shards: (0..shards).map(|_| Pages::new()).collect(),
            slot_bits: u64::BITS - slots.leading_zeros(),
            shard_bits: usize::BITS - shards.saturating_sub(1).leading_zeros(),
        }
    }

    /// Adds a row; only the row's shard may do so, when no other row has its slot. `None`: there is no such slot.
    pub(crate) fn insert(&self, row: Row) -> Option<ConnId> {
        let key = row.key();
        if u64::from(key.slot) >> self.slot_bits > 0 {
            return None;
        }
        let slot = self.shards.get(row.shard())?.get_or_allocate(key.slot)?;
        let before = slot.stamp.load(Ordering::Relaxed);
        assert!(before == 0 || before & FREE != 0, "a slot has one row at a time");
        let id = self.id(row.shard(), key.slot, before & !FREE);
        // Who sees one of the new words sees that the stamp before is gone, too: it went when the last row was removed.
        fence(Ordering::Release);
        let (ip, port) = row.words();
        slot.ip[0].store(ip[0], Ordering::Relaxed);
        slot.ip[1].store(ip[1], Ordering::Relaxed);
        slot.rest.store(u64::from(port) << 32 | u64::from(key.generation()), Ordering::Relaxed);
        slot.stamp.store(id, Ordering::Release);
        Some(ConnId::from_u64(id))
    }

    /// The id of a slot's next connection; `last`: that of the one before, or 0. None is 0.
    fn id(&self, shard: usize, slot: u32, last: u64) -> u64 {
        let low_bits = self.slot_bits + self.shard_bits;
        let uses = if last == 0 { 0 } else { ((last - 1) >> low_bits) + 1 };
        let low = (shard as u64) << self.slot_bits | u64::from(slot);
        // The last count of all is left out, so that the id stays below `FREE`.
        let uses = if uses < (FREE >> low_bits) - 1 { uses } else { 0 };
        (uses << low_bits | low) + 1
    }

    /// The row of an open connection.
    pub(crate) fn get(&self, id: ConnId) -> Option<Row> {
        let (shard, slot) = self.find(id)?;
        let stored = self.shards.get(shard)?.get(slot)?;
        if stored.stamp.load(Ordering::Acquire) != id.as_u64() {
            return None;
        }
        let ip = [stored.ip[0].load(Ordering::Relaxed), stored.ip[1].load(Ordering::Relaxed)];
        let rest = stored.rest.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if stored.stamp.load(Ordering::Relaxed) != id.as_u64() {
            return None;
        }
        Some(Row::from_words(shard as u16, Key::new(slot, rest as u32), ip, (rest >> 32) as u16))
    }

    /// Removes a row, which only its shard may do. Its id finds nothing from now on.
    pub(crate) fn remove(&self, id: ConnId) {
        let Some((shard, slot)) = self.find(id) else { return };
        let Some(slot) = self.shards.get(shard).and_then(|pages| pages.get(slot)) else { return };
        if slot.stamp.load(Ordering::Relaxed) == id.as_u64() {
            slot.stamp.store(id.as_u64() | FREE, Ordering::Release);
        }
    }

    /// The shard and the slot that an id names.
    fn find(&self, id: ConnId) -> Option<(usize, u32)> {
        let number = id.as_u64().checked_sub(1).filter(|_| id.as_u64() & FREE == 0)?;
        let slot = number & ((1 << self.slot_bits) - 1);
        let shard = (number >> self.slot_bits) & ((1 << self.shard_bits) - 1);
        Some((shard as usize, slot as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicBool;

    use crate::config::SHARDS_MAX;

    fn row(shard: u16, slot: u32, generation: u32) -> Row {
        let peer: SocketAddr = format!("192.0.2.{}:{}", generation % 200, generation % 60_000).parse().unwrap();
        Row::new(shard, Key::new(slot, generation), peer)
    }

    #[test]
    fn a_slot_takes_no_more_than_its_four_words() {
        assert_eq!(size_of::<Slot>(), 32);
    }

    #[test]
    fn each_row_is_found_by_its_id_with_all_that_it_holds() {
        let rows = Rows::new(3, 100_000);
        let slots = [0, 1, 1_023, 1_024, 3_071, 3_072, 100_000];
        let all: Vec<_> = (0..3).flat_map(|shard| slots.map(|slot| row(shard, slot, 1_000 + slot))).collect();
        let ids: Vec<ConnId> = all.iter().map(|row| rows.insert(*row).unwrap()).collect();
        for (row, id) in all.iter().zip(&ids) {
            let found = rows.get(*id).unwrap();
            assert_eq!((found.shard(), found.key(), found.peer()), (row.shard(), row.key(), row.peer()));
        }
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), ids.len());
        ids.iter().for_each(|id| rows.remove(*id));
        assert!(ids.iter().all(|id| rows.get(*id).is_none()));
    }

    #[test]
    fn an_id_does_not_come_back_in_the_life_of_a_server() {
        let rows = Rows::new(2, 1_000_000);
        let low_bits = rows.slot_bits + rows.shard_bits;
        let uses = FREE >> low_bits;
        assert!(uses >= 1 << 40, "{uses}");
        // The slot was used for years.
        let (mut last, mut ids) = ((uses - 1_000) << low_bits | 1, std::collections::HashSet::new());
        for _ in 0..998 {
            last = rows.id(0, 0, last);
            assert!(ids.insert(last) && last & FREE == 0, "{last}");
        }
        assert_eq!(rows.id(0, 0, last), rows.id(0, 0, 0), "only then it begins anew");
    }

    #[test]
    fn there_are_slots_for_as_many_connections_as_may_be_configured() {
        let rows = Rows::new(SHARDS_MAX, 16_000_000);
        let id = rows.insert(row(SHARDS_MAX as u16 - 1, 16_001_000, 7)).unwrap();
        assert_eq!(rows.get(id).unwrap().key(), Key::new(16_001_000, 7));
        assert!(rows.insert(row(0, u32::MAX, 7)).is_none());
        assert!(rows.insert(row(SHARDS_MAX as u16, 0, 7)).is_none());
    }

    #[test]
    fn who_reads_while_rows_come_and_go_gets_a_whole_row_or_none() {
        const ROUNDS: u32 = 100_000;
        let rows = Rows::new(1, 10);
        let (current, over) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for generation in 0..ROUNDS {
                    let id = rows.insert(row(0, 5, generation)).unwrap();
                    current.store(id.as_u64(), Ordering::Relaxed);
                    rows.remove(id);
                }
                over.store(true, Ordering::Relaxed);
            });
            while !over.load(Ordering::Relaxed) {
                let id = current.load(Ordering::Relaxed);
                // The next id, which may come just now, and the one that just went.
                for id in [id, id.saturating_add(1 << (rows.slot_bits + rows.shard_bits))] {
                    if let Some(found) = rows.get(ConnId::from_u64(id)) {
                        assert_eq!(found.peer(), row(0, 5, found.key().generation()).peer());
                    }
                }
            }
        });
    }
}
