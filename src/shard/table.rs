//! The connection table of one shard: rows in pages, found by slot and guarded by a generation.

/// Names a row for as long as it is taken. A key of a removed row finds nothing, also when its slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Rows of `T`, inserted and removed in constant time.
pub(crate) struct Table<T> {
    pages: Vec<Vec<Slot<T>>>,
    free: u32,
    len: usize,
    /// One counter for all slots: a key repeats only after 2^32 rows.
    generation: u32,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { pages: Vec::new(), free: NO_SLOT, len: 0, generation: 0 }
    }
}

impl<T> Table<T> {
    /// Rows that are taken.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Slots ever used: each row's slot is below it.
    pub(crate) fn slots(&self) -> u32 {
        let full = self.pages.len().saturating_sub(1) * PAGE_ROWS;
        (full + self.pages.last().map_or(0, Vec::len)) as u32
    }

    /// Makes a row; `make` gets the key that it will have.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        self.len += 1;
        if self.free != NO_SLOT {
            let key = Key { slot: self.free, generation };
            let slot = self.slot_mut(key.slot).expect("the free list holds slots of the table");
            let Slot::Free { next } = *slot else { unreachable!("the free list holds free slots") };
            *slot = Slot::Taken { generation, row: make(key) };
            self.free = next;
            return key;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE_ROWS) {
            self.pages.push(Vec::with_capacity(PAGE_ROWS));
        }
        let key = Key { slot: self.slots(), generation };
        assert!(key.slot != NO_SLOT, "a shard holds fewer than 2^32 connections");
        let page = self.pages.last_mut().expect("a page was pushed");
        page.push(Slot::Taken { generation, row: make(key) });
        key
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let next = self.free;
        let slot = self.slot_mut(key.slot).expect("the row was just found");
        let Slot::Taken { row, .. } = std::mem::replace(slot, Slot::Free { next }) else { unreachable!() };
        self.free = key.slot;
        self.len -= 1;
        Some(row)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.pages.get(key.slot as usize / PAGE_ROWS)?.get(key.slot as usize % PAGE_ROWS)? {
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

    /// The key of the row in a slot, if one is there.
    pub(crate) fn key_at(&self, slot: u32) -> Option<Key> {
        match self.pages.get(slot as usize / PAGE_ROWS)?.get(slot as usize % PAGE_ROWS)? {
            Slot::Taken { generation, .. } => Some(Key { slot, generation: *generation }),
            Slot::Free { .. } => None,
        }
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot<T>> {
        self.pages.get_mut(slot as usize / PAGE_ROWS)?.get_mut(slot as usize % PAGE_ROWS)
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
