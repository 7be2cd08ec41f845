//! Clients that are not taken in: each gets a word in what it speaks, and some of them the time to read it.
//!
//! A socket that is closed while bytes of its client are unread is reset, and a reset may destroy what the client has not
//! read yet. So a refused client is told, its sending side is shut, and it is read for a moment. That takes a descriptor,
//! so only few get it; beyond them the word is sent and the socket closed.

#[cfg(feature = "web")]
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Base;
use super::connection::spread;
use super::driver::{Bell, Driver};
use super::parcel::Parcel;
use super::wording::Wording;
#[cfg(feature = "web")]
use crate::config::REFUSAL_HEAD_BYTES_MAX;
use crate::config::{REFUSAL_BYTES_MAX, REFUSAL_MS};
use crate::event::Event;
use crate::message::{CloseReason, ConnId};
#[cfg(feature = "web")]
use crate::protocol::http::Fields;
use crate::protocol::{Encoding, answer};
#[cfg(feature = "web")]
use crate::site::{Opening, Outcome};
use crate::transport::{Received, Transport};

/// A client that is not taken in.
struct Refused<S> {
    socket: S,
    /// What it speaks; `None`: its request will say.
    encoding: Option<Encoding>,
    /// The number of the handler in whose words it is told.
    handler: u8,
    reason: CloseReason,
    /// What has come in of its request.
    head: Vec<u8>,
    /// It has been told, and only its farewell is waited for.
    told: bool,
    /// Bytes that it has sent.
    received: usize,
    until: Instant,
    /// Spreads the moments at which clients come back.
    seed: u64,
}

/// Those of a shard that have got time to read why.
pub(crate) struct Refusals<S> {
    lingering: Vec<Refused<S>>,
    count: u64,
}

impl<S> Default for Refusals<S> {
    fn default() -> Self {
        Refusals { lingering: Vec::new(), count: 0 }
    }
}

impl<S> Refusals<S> {
    /// Whether nobody lingers.
    pub(crate) fn is_empty(&self) -> bool {
        self.lingering.is_empty()
    }
}

impl<D: Driver> Base<D> {
    /// Tells a client that it is not taken in, and closes its connection: after a moment, if there is a place for that.
    pub(crate) fn refuse(&mut self, client: Parcel<D::Socket>, reason: CloseReason) {
        // One that would have to shake hands first is not worth it: it is closed without a word.
        if client.socket.has_handshake() {
            return;
        }
        self.refusals.count += 1;
        let mut refused = Refused {
            socket: client.socket,
            encoding: Encoding::of(client.framing),
            handler: client.handler,
            reason,
            head: Vec::new(),
            told: false,
            received: 0,
            until: self.driver.now() + Duration::from_millis(REFUSAL_MS),
            seed: spread(ConnId::from_u64(self.refusals.count << 16 | u64::from(client.peer.port()))),
        };
        if self.attend(&mut refused) {
            return;
        }
        if self.registry.take_refusal_place() {
            self.refusals.lingering.push(refused);
            self.driver.ring(Bell::Refusals);
        } else if !refused.told {
            self.tell_unavailable(&mut refused);
        }
    }

    /// Gives each that lingers its turn.
    pub(crate) fn attend_refused(&mut self) {
        let now = self.driver.now();
        let mut lingering = std::mem::take(&mut self.refusals.lingering);
        lingering.retain_mut(|refused| {
            let is_over = self.attend(refused) || refused.until <= now;
            if is_over && !refused.told && !refused.head.is_empty() {
                self.tell_unavailable(refused);
            }
            if is_over {
                self.registry.give_refusal_place();
            }
            !is_over
        });
        // Nobody is refused meanwhile.
        self.refusals.lingering = lingering;
    }

    /// Tells a refused client as soon as it can be told, and reads what it sends; whether it is over.
    fn attend(&mut self, refused: &mut Refused<D::Socket>) -> bool {
        if !refused.told
            && let Some(encoding) = refused.encoding
        {
            let mut words = Vec::new();
            let wording = Wording { handler: refused.handler, encoding };
            if !self.put_into_words(wording, Event::Bye { reason: refused.reason, text: None }, &mut words) {
                return true;
            }
            self.tell(refused, words);
        }
        let mut buffer = self.driver.read_buffer();
        let is_over = loop {
            match refused.socket.recv(&mut buffer) {
                Received::End | Received::Failed => break true,
                Received::Nothing => break false,
                Received::Bytes { count, .. } => {
                    refused.received += count;
                    if !refused.told {
                        refused.head.extend_from_slice(&buffer[..count]);
                        #[cfg(feature = "web")]
                        self.answer_head(refused);
                    }
                    if refused.received > REFUSAL_BYTES_MAX {
                        break true;
                    }
                }
            }
        };
        self.driver.return_read_buffer(buffer);
        is_over
    }

    /// Answers a request once it has come in whole.
    #[cfg(feature = "web")]
    fn answer_head(&mut self, refused: &mut Refused<D::Socket>) {
        let site = Rc::clone(&self.sites[usize::from(refused.handler)]);
        let answer = match site.respond(&refused.head, 0, &mut Fields::default(), refused.seed, false) {
            Outcome::Incomplete if refused.head.len() <= REFUSAL_HEAD_BYTES_MAX => return,
            // A page is told the status of no handshake, but the code of a close.
            Outcome::Open(Opening { encoding, mut response, .. }) if encoding.is_websocket() => {
                // Without a word of the handler's, the close alone says it.
                let wording = Wording { handler: refused.handler, encoding };
                self.put_into_words(wording, Event::Bye { reason: refused.reason, text: None }, &mut response);
                response.extend(encoding.farewell(refused.reason, None).unwrap_or_default());
                response
            }
            _ => answer::unavailable(refused.reason, &refused.head, refused.seed),
        };
        refused.head = Vec::new();
        self.tell(refused, answer);
    }

    /// Tells a refused client whose request has not come in whole.
    fn tell_unavailable(&mut self, refused: &mut Refused<D::Socket>) {
        let answer = answer::unavailable(refused.reason, &refused.head, refused.seed);
        self.tell(refused, answer);
    }

    /// Sends a refused client all that it will get. A new socket has room for it.
    fn tell(&mut self, refused: &mut Refused<D::Socket>, words: Vec<u8>) {
        refused.told = true;
        self.metrics.sends.add(1);
        let _ = refused.socket.send(&words);
        refused.socket.finish();
    }
}
