//! Who may stay connected: places for callers that may call, and a lobby for all others.
//!
//! A connection begins in the lobby. Its first call that is let in takes it to a place, where nobody without the token
//! can drive it out; what is refused, and what asks for no more than health, is answered from the lobby and closed. Both
//! rooms are bounded, and a newcomer to a full one takes the room of whoever has been silent there for the longest time,
//! so that idle connections never keep anybody out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The connections of a control plane.
pub(super) struct Places {
    held: Mutex<Held>,
    /// Connections that may have a place.
    places: usize,
    /// Connections that may be in the lobby.
    lobby: usize,
}

#[derive(Default)]
struct Held {
    /// Grows with every change, and so tells what was longer ago.
    changes: u64,
    guests: HashMap<u64, Guest>,
}

struct Guest {
    room: Room,
    /// Whether a request of it is being answered.
    is_busy: bool,
    /// The change with which it came into its room, or was answered for the last time.
    since: u64,
    evicted: Arc<Notify>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Lobby,
    Place,
}

/// One connection among the others. It leaves when this is dropped.
pub(super) struct Visit {
    id: u64,
    all: Arc<Places>,
    evicted: Arc<Notify>,
}

impl Places {
    /// Room for so many connections of callers that may call, and so many others.
    pub(super) fn new(places: usize, lobby: usize) -> Arc<Self> {
        Arc::new(Places { held: Mutex::default(), places, lobby })
    }

    /// Takes a new connection into the lobby.
    pub(super) fn enter(self: &Arc<Self>) -> Visit {
        let evicted = Arc::new(Notify::new());
        let mut held = self.held();
        held.make_room(Room::Lobby, self.lobby);
        let id = held.next_change();
        let guest = Guest { room: Room::Lobby, is_busy: false, since: id, evicted: Arc::clone(&evicted) };
        held.guests.insert(id, guest);
        Visit { id, all: Arc::clone(self), evicted }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// Sees to it that one more fits into a room of `max`; `false`: all that are there are being served. In the lobby
    /// those have to go as well.
    fn make_room(&mut self, room: Room, max: usize) -> bool {
        let there = || self.guests.iter().filter(|(_, guest)| guest.room == room);
        if there().count() < max {
            return true;
        }
        let oldest = there()
            .filter(|(_, guest)| room == Room::Lobby || !guest.is_busy)
            .min_by_key(|(_, guest)| (guest.is_busy, guest.since))
            .map(|(id, _)| *id);
        let evicted = oldest.and_then(|id| self.guests.remove(&id));
        if let Some(guest) = &evicted {
            guest.evicted.notify_one();
        }
        evicted.is_some()
    }
}

impl Visit {
    /// A request has come.
    pub(super) fn begin(&self) {
        self.change(|guest, _| guest.is_busy = true);
    }

    /// Its response is written, or given up.
    pub(super) fn rest(&self) {
        self.change(|guest, now| (guest.is_busy, guest.since) = (false, now));
    }

    /// Takes a place for a caller that may call; `false`: all of them are busy, and it stays in the lobby.
    pub(super) fn claim(&self) -> bool {
        let mut held = self.all.held();
        if held.guests.get(&self.id).is_none_or(|guest| guest.room == Room::Place) {
            return true;
        }
        if !held.make_room(Room::Place, self.all.places) {
            return false;
        }
        if let Some(guest) = held.guests.get_mut(&self.id) {
            guest.room = Room::Place;
        }
        true
    }

    /// Whether it has a place.
    pub(super) fn has_place(&self) -> bool {
        self.all.held().guests.get(&self.id).is_some_and(|guest| guest.room == Room::Place)
    }

    /// It has had its last response: its place is free again, and it waits in the lobby for the client to go.
    pub(super) fn leave(&self) {
        let mut held = self.all.held();
        if held.guests.get(&self.id).is_some_and(|guest| guest.room == Room::Place) {
            held.make_room(Room::Lobby, self.all.lobby);
        }
        drop(held);
        self.change(|guest, now| (guest.room, guest.is_busy, guest.since) = (Room::Lobby, false, now));
    }

    /// Waits until a newcomer has taken its room.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// Changes its row, unless that is gone.
    fn change(&self, change: impl FnOnce(&mut Guest, u64)) {
        let mut held = self.all.held();
        let now = held.next_change();
        if let Some(guest) = held.guests.get_mut(&self.id) {
            change(guest, now);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.all.held().guests.remove(&self.id);
    }
}
