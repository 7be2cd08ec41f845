//! Fresh clients: taken in here, handed to a shard that has fewer, or told why not.

use super::Engine;
use super::connection::Connection;
use super::driver::Driver;
use super::parcel::Parcel;
use super::registry::{Place, Refusal, Row};
use super::visit::Visit;
use crate::handler::Handlers;
use crate::message::{CloseReason, ConnId};
use crate::protocol::Encoding;
use crate::transport::Transport;

impl<D: Driver> Engine<D> {
    /// Has a client taken in, here or by a shard that has fewer, or tells it why not, closes its connection and says why.
    ///
    /// # Errors
    /// Why it was refused, in words for the log.
    pub(crate) fn admit(&mut self, handlers: &mut Handlers, mut client: Parcel<D::Socket>) -> Result<(), String> {
        let base = &mut self.base;
        if let Err(refusal) = base.registry.admit() {
            let why = match refusal {
                Refusal::Full => {
                    base.metrics.refused_full.add(1);
                    format!("as many as allowed are open ({})", base.registry.max())
                }
                Refusal::Memory => {
                    base.metrics.refused_memory.add(1);
                    "the process has more memory in use than max_memory".into()
                }
            };
            base.refuse(client, CloseReason::Full);
            return Err(why);
        }
        let place = base.registry.place(base.index);
        if place != base.index {
            match base.lanes.hand_over(&mut base.driver, place, client, Place::new(&base.registry, place, None)) {
                Ok(()) => {
                    base.metrics.handed_over.add(1);
                    return Ok(());
                }
                // A shard that is behind gets no more to do.
                Err(returned) => client = returned,
            }
            base.registry.replace(place, base.index);
        }
        self.take_in(handlers, client)
    }

    /// Takes a client in that the registry has admitted and placed here, or tells it why not, closes its connection and says
    /// why.
    ///
    /// # Errors
    /// Why it was refused, in words for the log.
    pub(crate) fn take_in(&mut self, handlers: &mut Handlers, client: Parcel<D::Socket>) -> Result<(), String> {
        let base = &mut self.base;
        if base.draining {
            base.registry.release(base.index);
            base.metrics.refused_draining.add(1);
            base.refuse(client, CloseReason::Drain);
            return Err("the server is draining".into());
        }
        let peer = client.peer;
        let mut visit = match self.add(client) {
            Ok(visit) => visit,
            Err(why) => {
                self.base.registry.release(self.base.index);
                self.base.metrics.refused_full.add(1);
                return Err(why);
            }
        };
        // Of one with a handshake, or a request, before it the handler hears later.
        if visit.row.encoding.is_some() {
            visit.open_plain(handlers, peer);
        }
        self.flush_dirty();
        Ok(())
    }

    /// Makes a row for a client.
    fn add(&mut self, client: Parcel<D::Socket>) -> Result<Visit<'_, D>, String> {
        let Parcel { socket, peer, framing, handler, .. } = client;
        let base = &mut self.base;
        let (opened, now) = (base.wheel.age(), base.wheel.now());
        let mut id = None;
        let speaks = Encoding::of(framing);
        let (encoding, handshaking) = if socket.has_handshake() { (None, Some(speaks)) } else { (speaks, None) };
        let key = self.table.insert_with(|key| {
            id = base.registry.insert(Row::new(base.index as u16, key, peer));
            // A row without an id is taken out again below.
            let mut row =
                Connection::new(socket, id.unwrap_or(ConnId::from_u64(u64::MAX)), handler, encoding, opened, now);
            row.handshaking = handshaking;
            row
        });
        let watchable = self.note_insertion(key).map_err(|error| format!("no ring to watch it: {error}"));
        let base = &mut self.base;
        if let (None, _) | (_, Err(_)) = (id, &watchable) {
            self.take_out(key);
            id.into_iter().for_each(|id| self.base.registry.remove(id));
            return Err(watchable.err().unwrap_or_else(|| "the registry is full".into()));
        }
        base.metrics.accepted.add(1);
        let mut visit = self.visit(key).expect("it was made just now");
        visit.schedule();
        visit.wake();
        Ok(visit)
    }
}
