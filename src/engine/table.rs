//! The connection table of one shard: rows in pages, found by slot and guarded by a generation.

use std::collections::BTreeSet;

/// Names a row for as long as it is taken. A key of a removed row finds nothing, also when its slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    generation: u32,
}

impl Key {
    /// A key that was taken apart, to go through hands that know numbers only.
    pub(crate) fn new(slot: u32, generation: u32) -> Self {
        Key { slot, generation }
    }

    pub(crate) fn generation(self) -> u32 {
        self.generation
    }
}

/// Rows of one page. Growth allocates a page and moves no row, so it costs the same at a million rows as at one.
const PAGE_ROWS: usize = 1024;

const NO_SLOT: u32 = u32::MAX;

enum Slot<T> {
    Taken { generation: u32, row: T },
    Free { next: u32 },
}

/// Rows that lie together. Their memory goes back when the last one has gone.
struct Page<T> {
    slots: Vec<Slot<T>>,
    /// The first free slot, by its place in the page.
    free: u32,
    taken: u32,
}

impl<T> Page<T> {
    fn new() -> Self {
        Page { slots: Vec::new(), free: NO_SLOT, taken: 0 }
    }

    fn has_room(&self) -> bool {
        (self.taken as usize) < PAGE_ROWS
    }

    /// Puts a row into the free slot that was used last, or into a new one.
    fn insert(&mut self, place: u32, taken: Slot<T>) {
        self.taken += 1;
        match self.slots.get_mut(place as usize) {
            Some(slot) => {
                let Slot::Free { next } = std::mem::replace(slot, taken) else {
                    unreachable!("the free list holds free slots")
                };
                self.free = next;
            }
            None => {
                self.slots.reserve_exact(PAGE_ROWS - self.slots.len());
                self.slots.push(taken);
            }
        }
    }

    /// The place that the next row gets.
    fn next(&self) -> u32 {
        if self.free == NO_SLOT { self.slots.len() as u32 } else { self.free }
    }

    fn remove(&mut self, place: u32) -> Option<T> {
        let slot = self.slots.get_mut(place as usize)?;
        let Slot::Taken { row, .. } = std::mem::replace(slot, Slot::Free { next: self.free }) else { return None };
        self.free = place;
        self.taken -= 1;
        Some(row)
    }
}

/// Rows of `T`, inserted and removed in constant time (but for the search among the pages, of which there are few).
/// New rows go to the lowest page that has room, so that the highest ones empty when there are fewer rows.
pub(crate) struct Table<T> {
    pages: Vec<Page<T>>,
    with_room: BTreeSet<u32>,
    len: usize,
    /// One counter for all slots: a key repeats only after 2^32 rows.
    generation: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { pages: Vec::new(), with_room: BTreeSet::new(), len: 0, generation: 0 }
    }
}

impl<T> Table<T> {
    /// What a row takes in a page.
    #[cfg(test)]
    pub(crate) const BYTES_PER_ROW: usize = size_of::<Slot<T>>();

    /// Rows that are taken.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Each row's slot is below it.
    pub(crate) fn slots(&self) -> u32 {
        let full = self.pages.len().saturating_sub(1) * PAGE_ROWS;
        (full + self.pages.last().map_or(0, |page| page.slots.len())) as u32
    }

    /// Makes a row; `make` gets the key that it will have.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        let number = self.with_room.first().copied().unwrap_or_else(|| {
            self.pages.push(Page::new());
            let number = (self.pages.len() - 1) as u32;
            self.with_room.insert(number);
            number
        });
        let page = &mut self.pages[number as usize];
        let place = page.next();
        self.generation = self.generation.wrapping_add(1);
        let key = Key { slot: number * PAGE_ROWS as u32 + place, generation: self.generation };
        assert!(key.slot != NO_SLOT, "a shard holds fewer than 2^32 connections");
        page.insert(place, Slot::Taken { generation: self.generation, row: make(key) });
        if !page.has_room() {
            self.with_room.remove(&number);
        }
        self.len += 1;
        key
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (number, place) = (key.slot / PAGE_ROWS as u32, key.slot % PAGE_ROWS as u32);
        let page = &mut self.pages[number as usize];
        let row = page.remove(place)?;
        self.len -= 1;
        let next = self.with_room.first().copied();
        self.with_room.insert(number);
        self.free_if_empty(number);
        // The page that the next row would have gone to, if it was another one until now.
        next.into_iter().filter(|next| *next > number).for_each(|next| self.free_if_empty(next));
        Some(row)
    }

    /// Gives the memory of a page back if no row is left in it, unless the next row goes to it: or it would be allocated
    /// and freed by turns.
    fn free_if_empty(&mut self, number: u32) {
        if self.pages[number as usize].taken > 0 || self.with_room.first() == Some(&number) {
            return;
        }
        self.pages[number as usize] = Page::new();
        while self.pages.last().is_some_and(|page| page.slots.is_empty()) {
            self.pages.pop();
            self.with_room.remove(&(self.pages.len() as u32));
        }
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.slot(key.slot)? {
            Slot::Taken { generation, row } if *generation == key.generation => Some(row),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slot_mut(key.slot)? {
            Slot::Taken { generation, row } if *generation == key.generation => Some(row),
            _ => None,
        }
    }

    /// The generation of the newest row.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether a row that is there came after a generation. They are told apart by how many rows have come since: a row may
    /// stay for longer than it takes the counter to pass half of its range.
    pub(crate) fn is_newer(&self, key: Key, generation: u32) -> bool {
        self.generation.wrapping_sub(key.generation) < self.generation.wrapping_sub(generation)
    }

    /// The key of the row in a slot, if one is there.
    pub(crate) fn key_at(&self, slot: u32) -> Option<Key> {
        match self.slot(slot)? {
            Slot::Taken { generation, .. } => Some(Key { slot, generation: *generation }),
            Slot::Free { .. } => None,
        }
    }

    fn slot(&self, slot: u32) -> Option<&Slot<T>> {
        self.pages.get(slot as usize / PAGE_ROWS)?.slots.get(slot as usize % PAGE_ROWS)
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot<T>> {
        self.pages.get_mut(slot as usize / PAGE_ROWS)?.slots.get_mut(slot as usize % PAGE_ROWS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_of_a_removed_row_finds_nothing_when_its_slot_is_used_again() {
        let mut table = Table::default();
        let first = table.insert_with(|_| "first");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert_with(|_| "second");
        assert_eq!(second.slot, first.slot);
        assert_eq!(table.get(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&"second"));
        assert_eq!(table.key_at(second.slot), Some(second));
    }

    #[test]
    fn a_row_is_newer_than_the_generations_before_it_also_when_the_counter_begins_again() {
        let mut table = Table { generation: u32::MAX - 3, ..Table::default() };
        let keys: Vec<Key> = (0..6).map(|n| table.insert_with(|_| n)).collect();
        assert!(keys[5].generation < keys[0].generation);
        for (at, key) in keys.iter().enumerate() {
            for (row, other) in keys.iter().enumerate() {
                assert_eq!(table.is_newer(*other, key.generation), row > at);
            }
        }
    }

    #[test]
    fn pages_that_have_emptied_give_their_memory_back() {
        let mut table = Table::default();
        let keys: Vec<Key> = (0..3 * PAGE_ROWS as u32 + 1).map(|n| table.insert_with(|_| n)).collect();
        assert_eq!(table.pages.len(), 4);
        // The first and the third page lose all, the second keeps one row.
        for key in keys.iter().filter(|key| key.slot / PAGE_ROWS as u32 != 1 || key.slot % 2 == 1) {
            table.remove(*key);
        }
        assert_eq!(table.pages.len(), 2);
        assert_eq!(table.get(keys[PAGE_ROWS]), Some(&(PAGE_ROWS as u32)));
        let rows = table.len();
        // New rows fill the gaps before they take new pages.
        (0..2 * PAGE_ROWS - rows).for_each(|n| assert!(table.insert_with(|_| n as u32).slot < 2 * PAGE_ROWS as u32));
        assert_eq!(table.insert_with(|_| 0).slot, 2 * PAGE_ROWS as u32);
    }

    #[test]
    fn pages_give_their_memory_back_in_whatever_order_they_empty() {
        let mut table = Table::default();
        let mut keys: Vec<Key> = (0..3 * PAGE_ROWS).map(|_| table.insert_with(|_| ())).collect();
        keys.drain(1..).rev().for_each(|key| assert!(table.remove(key).is_some()));
        assert_eq!((table.pages.len(), table.slots()), (1, PAGE_ROWS as u32));
    }

    #[test]
    fn a_row_that_comes_and_goes_alone_keeps_its_page() {
        let mut table = Table::default();
        for _ in 0..3 {
            let key = table.insert_with(|_| ());
            table.remove(key);
            assert_eq!(table.pages[0].slots.capacity(), PAGE_ROWS);
        }
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_map(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..4000)) {
            let mut table = Table::default();
            let mut rows: Vec<(Key, u32)> = Vec::new();
            for (number, (insert, index)) in steps.into_iter().enumerate() {
                if insert || rows.is_empty() {
                    let key = table.insert_with(|_| number as u32);
                    rows.push((key, number as u32));
                } else {
                    let (key, value) = rows.swap_remove(index.index(rows.len()));
                    prop_assert_eq!(table.remove(key), Some(value));
                }
                prop_assert_eq!(table.len(), rows.len());
            }
            for (key, value) in &rows {
                prop_assert_eq!(table.get(*key), Some(value));
                prop_assert!(key.slot < table.slots());
            }
            let found = (0..table.slots()).filter_map(|slot| table.key_at(slot)).count();
            prop_assert_eq!(found, rows.len());
        }
    }
}
