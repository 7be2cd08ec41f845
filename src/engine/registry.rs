//! Where each connection is: one table for the process, readable from every thread.
//!
//! A row's key in the slab, which carries a generation, is the connection's [`ConnId`]. Shards insert and
//! remove their rows without contending with each other. The registry also counts the open connections of
//! all shards, so that `max_connections` holds exactly.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sharded_slab::{Config as SlabConfig, DefaultConfig, Slab};

use crate::config::{Config, REFUSALS_MAX, SHARDS_MAX, UNEVEN_CONNECTIONS, UNEVEN_SHARE};
use crate::engine::table::Key;
use crate::message::ConnId;
use crate::rate::{Rate, SharedBucket};

/// Sizes of the slab. A key is packed from an address, a thread number and, above them, a generation, which grows with each
/// row that goes through a slot. After 2^26 of them it would begin anew, and with it the ids: a slot that comes so far is
/// given up.
struct Rows;

/// Where the generation begins in a key.
const GENERATION_SHIFT: u32 = 38;

/// The last generation of a slot: the slab's own count goes no further. Tests get less far.
const GENERATION_LAST: usize = if cfg!(test) { 62 } else { (1 << (usize::BITS - GENERATION_SHIFT)) - 2 };

impl SlabConfig for Rows {
    const MAX_THREADS: usize = DefaultConfig::MAX_THREADS;
    const INITIAL_PAGE_SIZE: usize = 1024;
    const MAX_PAGES: usize = 14;
}

/// One connection, as the rest of the process sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    key: Key,
    /// An IPv4 address is kept as its IPv4-mapped IPv6 one: half the bytes of a `SocketAddr`.
    ip: [u8; 16],
    port: u16,
    shard: u16,
}

impl Row {
    pub(crate) fn new(shard: u16, key: Key, peer: SocketAddr) -> Self {
        let ip = match peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Row { key, ip: ip.octets(), port: peer.port(), shard }
    }

    pub(crate) fn shard(&self) -> usize {
        self.shard as usize
    }

    /// Where the connection is in its shard's table.
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(self.ip).to_canonical(), self.port)
    }
}

/// The shard of a record whose connection is gone.
const RETIRED: u16 = u16::MAX;

const _: () = assert!(SHARDS_MAX <= RETIRED as usize, "no shard has the number of none");

/// A row as the slab keeps it: where the connection is may change.
pub(crate) struct Record {
    slot: AtomicU32,
    generation: AtomicU32,
    ip: [u8; 16],
    port: u16,
    shard: AtomicU16,
}

impl Record {
    fn new(row: Row) -> Self {
        let Row { key, ip, port, shard } = row;
        Record { slot: key.slot.into(), generation: key.generation().into(), ip, port, shard: shard.into() }
    }

    fn row(&self) -> Row {
        // The key is for the shard that has the connection, which was the one to write it. Any other may find parts of two
        // keys, but not its own number beside them: who writes a key has written its own number before.
        let (slot, generation) = (self.slot.load(Ordering::Acquire), self.generation.load(Ordering::Acquire));
        let shard = self.shard.load(Ordering::Acquire);
        Row { key: Key::new(slot, generation), ip: self.ip, port: self.port, shard }
    }

    /// Notes that its connection is gone, though the record stays.
    fn retire(&self) {
        self.shard.store(RETIRED, Ordering::Release);
    }

    fn is_retired(&self) -> bool {
        self.shard.load(Ordering::Acquire) == RETIRED
    }

    fn relocate(&self, shard: u16, key: Key) {
        self.shard.store(shard, Ordering::Release);
        self.slot.store(key.slot, Ordering::Release);
        self.generation.store(key.generation(), Ordering::Release);
    }
}

/// All connections of the server.
pub(crate) struct Registry {
    slab: Slab<Record, Rows>,
    open: AtomicUsize,
    /// By shard: how many of them are its own, or on their way to it.
    placed: Box<[AtomicUsize]>,
    max: usize,
    /// Resident bytes of the process, as last read by a shard.
    resident: AtomicU64,
    resident_max: Option<u64>,
    /// Bytes that connections may hold together, and by shard what they hold.
    buffers_max: usize,
    held: Box<[Held]>,
    accepts: Option<SharedBucket>,
    /// Refused clients that linger.
    refusals: AtomicUsize,
    /// Whether the server has been told to drain: new clients should go elsewhere, though those that come are taken in
    /// until the grace is over.
    draining: AtomicBool,
    /// When the first connection was accepted, for `accept_rate`.
    accepts_since: OnceLock<Instant>,
}

/// Bytes that the connections of one shard hold. Each has a cache line of its own, since it changes often.
#[derive(Default)]
#[repr(align(64))]
struct Held(AtomicUsize);

/// The place of a connection that is on its way from one shard to another. If it never arrives, since that shard has ended,
/// the place is given back, and its id, if it has one, finds nothing any more.
pub(crate) struct Place(Option<(Arc<Registry>, usize, Option<ConnId>)>);

impl Place {
    /// The place on a shard that [`Registry::admit`] and [`Registry::place`] gave, or [`Registry::replace`]. `id`: that of a
    /// connection which is no longer a fresh one.
    pub(crate) fn new(registry: &Arc<Registry>, shard: usize, id: Option<ConnId>) -> Self {
        Place(Some((Arc::clone(registry), shard, id)))
    }

    /// Leaves it to the caller to give the place back with [`Registry::release`].
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((registry, shard, id)) = self.0.take() {
            id.into_iter().for_each(|id| registry.remove(id));
            registry.release(shard);
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many as may be are open.
    Full,
    /// The process has more memory than it may.
    Memory,
}

impl Registry {
    /// A registry of `shards` shards that admits `max` connections at a time, within the limits of `config`.
    pub(crate) fn new(shards: usize, max: usize, config: &Config) -> Self {
        Registry {
            slab: Slab::new_with_config(),
            open: AtomicUsize::new(0),
            placed: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            max,
            resident: AtomicU64::new(0),
            buffers_max: if config.buffers_max > 0 { config.buffers_max } else { usize::MAX / 2 },
            held: (0..shards).map(|_| Held::default()).collect(),
            resident_max: (config.max_memory > 0).then_some(config.max_memory as u64),
            accepts: Rate::new(config.accept_rate).map(SharedBucket::new),
            refusals: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            accepts_since: OnceLock::new(),
        }
    }

    /// Connections that are open now, over all shards.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections admitted at a time.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Takes one of the `max` places.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn admit(&self) -> Result<(), Refusal> {
        if self.resident_max.is_some_and(|max| self.resident.load(Ordering::Relaxed) > max) {
            return Err(Refusal::Memory);
        }
        let take = |open| (open < self.max).then_some(open + 1);
        match self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::Full),
        }
    }

    /// Takes one of the places for refused clients that linger; `false`: there is none.
    pub(crate) fn take_refusal_place(&self) -> bool {
        let take = |lingering| (lingering < REFUSALS_MAX).then_some(lingering + 1);
        self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Gives it back.
    pub(crate) fn give_refusal_place(&self) {
        self.refusals.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that the server has been told to drain.
    pub(crate) fn note_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server has been told to drain, be it that its grace goes on.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes from `accept_rate` what one connection needs to be accepted.
    ///
    /// # Errors
    /// How long to wait before the next try: there are too many at once.
    pub(crate) fn take_accept(&self, now: Instant) -> Result<(), Duration> {
        let Some(accepts) = &self.accepts else { return Ok(()) };
        let since = *self.accepts_since.get_or_init(|| now);
        let now = now.saturating_duration_since(since).as_micros() as u64;
        accepts.take(now).map_err(Duration::from_micros)
    }

    /// Puts that back, since nobody came.
    pub(crate) fn put_back_accept(&self) {
        if let Some(accepts) = &self.accepts {
            accepts.put_back();
        }
    }

    /// Whether the resident memory is wanted at all.
    pub(crate) fn limits_memory(&self) -> bool {
        self.resident_max.is_some()
    }

    /// By how many bytes the process has more memory than it may.
    pub(crate) fn excess(&self) -> Option<u64> {
        self.resident.load(Ordering::Relaxed).checked_sub(self.resident_max?).filter(|excess| *excess > 0)
    }

    /// Shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.placed.len()
    }

    /// Bytes that connections may hold together.
    pub(crate) fn buffers_max(&self) -> usize {
        self.buffers_max
    }

    /// Notes the bytes that the connections of a shard hold.
    pub(crate) fn note_held(&self, shard: usize, bytes: usize) {
        self.held[shard].0.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that the connections of a shard hold.
    pub(crate) fn held_by(&self, shard: usize) -> usize {
        self.held[shard].0.load(Ordering::Relaxed)
    }

    /// Bytes that all connections hold.
    pub(crate) fn held(&self) -> usize {
        (0..self.held.len()).map(|shard| self.held_by(shard)).sum()
    }

    /// Notes the resident memory of the process.
    pub(crate) fn note_resident(&self, bytes: u64) {
        self.resident.store(bytes, Ordering::Relaxed);
    }

    /// Says which shard an admitted connection shall go to that shard `own` has accepted: `own`, or the one with the
    /// fewest if that has clearly fewer. Counts it there.
    pub(crate) fn place(&self, own: usize) -> usize {
        let loads = self.placed.iter().map(|placed| placed.load(Ordering::Relaxed));
        let shard = lightest(own, loads).unwrap_or(own);
        self.placed[shard].fetch_add(1, Ordering::Relaxed);
        shard
    }

    /// Connections that are a shard's own, or on their way to it.
    #[cfg(test)]
    pub(crate) fn placed(&self, shard: usize) -> usize {
        self.placed[shard].load(Ordering::Relaxed)
    }

    /// Counts a connection for shard `to` that was placed on shard `from`.
    pub(crate) fn replace(&self, from: usize, to: usize) {
        self.placed[from].fetch_sub(1, Ordering::Relaxed);
        self.placed[to].fetch_add(1, Ordering::Relaxed);
    }

    /// Gives back what [`Registry::admit`] and [`Registry::place`] gave.
    pub(crate) fn release(&self, shard: usize) {
        self.placed[shard].fetch_sub(1, Ordering::Relaxed);
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds an admitted connection; `None`: the slab is full, which `max_connections` keeps out of reach.
    pub(crate) fn insert(&self, row: Row) -> Option<ConnId> {
        self.slab.insert(Record::new(row)).map(|key| ConnId::from_u64(key as u64 + 1))
    }

    /// Notes that an open connection is on another shard now, which is the one that calls this. Its id stays.
    pub(crate) fn relocate(&self, id: ConnId, shard: usize, key: Key) {
        let record = slab_key(id).and_then(|slab_key| self.slab.get(slab_key));
        record.expect("an open connection has its row").relocate(shard as u16, key);
    }

    /// The row of an open connection.
    pub(crate) fn get(&self, id: ConnId) -> Option<Row> {
        self.slab.get(slab_key(id)?).filter(|record| !record.is_retired()).map(|record| record.row())
    }

    /// Removes a connection. Its id finds nothing from now on.
    pub(crate) fn remove(&self, id: ConnId) {
        let Some(key) = slab_key(id) else { return };
        if key >> GENERATION_SHIFT < GENERATION_LAST {
            self.slab.remove(key);
        } else if let Some(record) = self.slab.get(key) {
            // It keeps its slot for good, so that none of the slot's ids is given out again.
            record.retire();
        }
    }
}

/// The shard with the fewest connections, if it has so many fewer than shard `own` that a connection is better there.
fn lightest(own: usize, loads: impl Iterator<Item = usize> + Clone) -> Option<usize> {
    let have = loads.clone().nth(own)?;
    let (shard, fewest) = loads.enumerate().min_by_key(|(_, load)| *load)?;
    (have > fewest + UNEVEN_CONNECTIONS + fewest / UNEVEN_SHARE).then_some(shard)
}

/// Ids are the slab's keys plus one, so that none is 0.
fn slab_key(id: ConnId) -> Option<usize> {
    usize::try_from(id.as_u64().checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(slot: u32) -> Row {
        Row::new(3, Key::new(slot, 1), "192.0.2.1:99".parse().unwrap())
    }

    #[test]
    fn connections_go_to_the_lightest_shard_once_the_difference_counts() {
        let at_least = UNEVEN_CONNECTIONS + 1;
        assert_eq!(lightest(0, [at_least - 1, 5, 0].into_iter()), None);
        assert_eq!(lightest(0, [at_least, 5, 0].into_iter()), Some(2));
        assert_eq!(lightest(2, [at_least, 5, 0].into_iter()), None);
        assert_eq!(lightest(0, [64_000 + 1_000 + at_least - 1, 64_000].into_iter()), None);
        assert_eq!(lightest(0, [64_000 + 1_000 + at_least, 64_000].into_iter()), Some(1));
        assert_eq!(lightest(0, [7].into_iter()), None);
    }

    #[test]
    fn however_the_kernel_spreads_them_no_shard_has_many_more_than_another() {
        let registry = Registry::new(3, 10_000, &Config::default());
        for number in 0..9_000 {
            registry.admit().unwrap();
            // Shard 0 accepts most of them, and shard 2 none.
            registry.place(usize::from(number % 10 == 0));
        }
        let loads: Vec<usize> = registry.placed.iter().map(|placed| placed.load(Ordering::Relaxed)).collect();
        assert_eq!(loads.iter().sum::<usize>(), 9_000);
        let (most, fewest) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
        assert!(*most as f64 <= *fewest as f64 * 1.05, "{loads:?}");
    }

    #[test]
    fn an_id_of_a_closed_connection_never_reaches_a_later_one() {
        let registry = Registry::new(2, 10, &Config::default());
        let first = registry.insert(row(1)).unwrap();
        assert_eq!(registry.get(first).unwrap().peer().to_string(), "192.0.2.1:99");
        registry.remove(first);
        for slot in 2..10_000 {
            let later = registry.insert(row(slot)).unwrap();
            assert_ne!(later, first);
            assert!(registry.get(first).is_none());
            registry.remove(later);
        }
    }

    #[test]
    fn numbers_that_name_nothing_find_nothing() {
        let registry = Registry::new(2, 10, &Config::default());
        let id = registry.insert(row(1)).unwrap().as_u64();
        for number in [0, 2, id + 1, id ^ (1 << 63), id ^ (1 << 40), u64::MAX] {
            if number != id {
                assert!(registry.get(ConnId::from_u64(number)).is_none(), "{number}");
            }
        }
    }

    #[test]
    fn places_are_counted_exactly_over_threads() {
        let registry = Registry::new(2, 1000, &Config::default());
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..500).filter(|_| registry.admit().is_ok()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, registry.open()), (1000, 1000));
        registry.place(1);
        registry.release(1);
        assert_eq!(registry.admit(), Ok(()));
        assert_eq!(registry.admit(), Err(Refusal::Full));
    }

    #[test]
    fn a_client_that_is_handed_over_and_never_arrives_gives_its_place_back() {
        let registry = Arc::new(Registry::new(2, 10, &Config::default()));
        for arrives in [false, true] {
            registry.admit().unwrap();
            let shard = registry.place(1);
            let place = Place::new(&registry, shard, None);
            if arrives {
                place.keep()
            } else {
                drop(place)
            }
            let placed = registry.placed[1].load(Ordering::Relaxed);
            assert_eq!((registry.open(), placed), (usize::from(arrives), usize::from(arrives)));
        }
    }

    #[test]
    fn a_connection_that_moves_keeps_its_id_and_one_that_never_arrives_loses_it() {
        let registry = Arc::new(Registry::new(2, 10, &Config::default()));
        registry.admit().unwrap();
        let from = registry.place(0);
        let id = registry.insert(row(1)).unwrap();
        registry.replace(from, 1);
        let place = Place::new(&registry, 1, Some(id));
        registry.relocate(id, 1, Key::new(7, 8));
        place.keep();
        let found = registry.get(id).unwrap();
        assert_eq!((found.shard(), found.key(), found.peer().port()), (1, Key::new(7, 8), 99));
        registry.replace(1, 0);
        drop(Place::new(&registry, 0, Some(id)));
        assert!(registry.get(id).is_none());
        assert_eq!(registry.open(), 0);
    }

    #[test]
    fn shards_accept_at_the_rate_together_and_looks_that_find_nobody_cost_nothing() {
        const RATE: u32 = 50;
        let registry = Registry::new(2, 1_000, &Config { accept_rate: RATE, ..Config::default() });
        let (start, mut accepted) = (Instant::now(), 0);
        for ms in 0..4_000 {
            let now = start + Duration::from_millis(ms);
            // Each looks once more behind each client, and finds nobody.
            for found in [true, false, true, false] {
                if registry.take_accept(now).is_ok() {
                    accepted += u32::from(found);
                    if !found {
                        registry.put_back_accept();
                    }
                }
            }
        }
        assert!((5 * RATE - 2..=5 * RATE).contains(&accepted), "{accepted}");
    }

    #[test]
    fn nobody_is_admitted_while_there_is_too_much_memory_in_use() {
        let registry = Registry::new(2, 10, &Config { max_memory: 1 << 20, ..Config::default() });
        registry.note_resident((1 << 20) + 1);
        assert_eq!(registry.admit(), Err(Refusal::Memory));
        registry.note_resident(1 << 20);
        assert_eq!(registry.admit(), Ok(()));
    }

    #[test]
    fn it_holds_as_many_rows_as_may_be_configured_from_one_thread() {
        let most: usize = (0..Rows::MAX_PAGES).map(|page| Rows::INITIAL_PAGE_SIZE << page).sum();
        assert!(most >= 16_000_000, "{most}");
    }

    #[test]
    fn no_id_is_given_out_twice_however_often_a_slot_is_used() {
        let registry = Registry::new(1, 10, &Config::default());
        let mut ids = std::collections::HashSet::new();
        for n in 0..1_000 {
            let id = registry.insert(row(n)).unwrap();
            assert!(ids.insert(id), "{id} came back after {n} connections");
            assert_eq!(registry.get(id).map(|row| row.key()), Some(Key::new(n, 1)));
            registry.remove(id);
            assert!(ids.iter().all(|id| registry.get(*id).is_none()));
        }
        let slots: std::collections::HashSet<_> =
            ids.iter().map(|id| (id.as_u64() - 1) & ((1 << GENERATION_SHIFT) - 1)).collect();
        let each = GENERATION_LAST + 1;
        assert_eq!(slots.len(), ids.len().div_ceil(each), "each slot is used as often as it may be");
    }
}
