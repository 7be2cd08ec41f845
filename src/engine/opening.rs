//! How a connection opens: its handler says whether it takes the client, and as whom.

#[cfg(feature = "web")]
use std::borrow::Cow;
use std::net::SocketAddr;

use super::connection::Marks;
use super::driver::Driver;
use super::visit::Visit;
use crate::event::Event;
use crate::handler::{Actions, Handlers};
use crate::message::{CloseReason, Kind};
#[cfg(feature = "web")]
use crate::protocol::http::Refusal;
use crate::request::{Reject, Request};
#[cfg(feature = "web")]
use crate::site::Opening;

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
            Some(Ok(_)) if self.row.marks.has(Marks::UNWANTED) => {
                Err(Some(Reject::forbidden("the server does not take this client")))
            }
            Some(Ok(session)) => {
                if !session.is_empty() {
                    self.set_session(session);
                }
                self.row.marks.set(Marks::KNOWN);
                Ok(())
            }
            Some(Err(reject)) => Err(Some(reject)),
            None => Err(None),
        }
    }

    /// Opens a connection whose client asks for nothing but that.
    pub(crate) fn open_plain(&mut self, handlers: &mut Handlers, peer: SocketAddr) {
        let request = Request::new(self.row.framing()).with_peer(peer);
        match self.ask(handlers, &request) {
            Ok(()) => {
                self.call(handlers, Kind::Text, |handler, cx| handler.on_connect(cx));
            }
            Err(Some(reject)) => {
                self.notice(Event::Error { code: reject.code(), text: reject.text() });
                self.notice(Event::Bye { reason: CloseReason::Rejected, text: None });
                self.close(CloseReason::Rejected);
            }
            Err(None) => self.close(CloseReason::HandlerPanic),
        }
    }

    /// Opens a connection whose client asks for it by an HTTP request; whether the handler takes it.
    #[cfg(feature = "web")]
    pub(crate) fn open_by_request(&mut self, handlers: &mut Handlers, opening: Opening<'_>) -> bool {
        let Opening { head, encoding, subprotocol, topics, response, cors } = opening;
        self.row.encoding = Some(encoding);
        let request = Request::new(encoding.framing())
            .with_peer(self.peer())
            .with_head(head.path, head.query, head.fields())
            .with_dialect(encoding.dialect(), subprotocol.map(Cow::Borrowed))
            .with_topics(&topics[..]);
        let refused = self.ask(handlers, &request).err();
        let now = self.base.wheel.now();
        let row = &mut *self.row;
        row.marks.set(Marks::SPOKEN);
        if let Some(reject) = refused {
            // It stays a request that is answered.
            row.encoding = None;
            let (reason, reject) = match reject {
                Some(reject) => (CloseReason::Rejected, reject),
                None => (CloseReason::HandlerPanic, Reject::new(500, "handler-panic", "the server failed over this")),
            };
            let refusal = Refusal::new(reject.status(), reject.text());
            let refusal =
                reject.fields().fold(refusal, |refusal, (name, value)| refusal.with_field(name, value.to_owned()));
            self.push_reply(&refusal.in_answer_to(head.method).answer(&cors));
            self.close(reason);
            return false;
        }
        row.last_message = now;
        row.last_ping = now;
        self.push_reply(&response);
        self.schedule();
        self.call(handlers, Kind::Text, |handler, cx| {
            handler.on_connect(cx);
            if !topics.is_empty() {
                handler.on_topics(cx, &topics);
            }
        });
        true
    }
}
