//! How a connection opens: its handler says whether it takes the client, and as whom.

use super::connection::Marks;
use super::driver::Driver;
use super::visit::Visit;
use crate::event::Event;
use crate::handler::Handlers;
use crate::message::{CloseReason, Kind};
use crate::request::{Reject, Request};

impl<D: Driver> Visit<'_, D> {
    /// Asks the handler whether it takes the client. The encoding must be settled. A panic counts as a refusal.
    ///
    /// # Errors
    /// What the handler refuses it with.
    pub(crate) fn ask(&mut self, handlers: &mut Handlers, request: &Request<'_>) -> Result<(), Option<Reject>> {
        self.row.marks.set(Marks::OPENING);
        let answer = self.call(handlers, Kind::Text, |handler, cx| handler.on_open(cx, request));
        self.row.marks.clear(Marks::OPENING);
        match answer {
            Some(Ok(session)) => {
                if !session.is_empty() {
                    self.base.sessions.insert(self.key, session);
                }
                self.row.marks.set(Marks::KNOWN);
                Ok(())
            }
            Some(Err(reject)) => Err(Some(reject)),
            None => Err(None),
        }
    }

    /// Opens a connection whose client asks for nothing but that.
    pub(crate) fn open_plain(&mut self, handlers: &mut Handlers) {
        let peer = self.base.registry.get(self.row.id).map(|row| row.peer());
        let request = Request::new(self.row.framing());
        let request = match peer {
            Some(peer) => request.with_peer(peer),
            None => request,
        };
        match self.ask(handlers, &request) {
            Ok(()) => {
                self.call(handlers, Kind::Text, |handler, cx| handler.on_connect(cx));
            }
            Err(Some(reject)) => {
                self.notice(Event::Error { code: reject.code(), text: reject.text() });
                self.notice(Event::Bye { reason: CloseReason::Rejected, text: None });
                self.close(CloseReason::Rejected);
            }
            // It has been closed for the panic.
            Err(None) => {}
        }
    }
}
