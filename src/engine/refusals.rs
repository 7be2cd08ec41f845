//! Clients that are not taken in: each gets a word in what it speaks, and some of them the time to read it.
//!
//! A socket that is closed while bytes of its client are unread is reset, and a reset may destroy what the client has not
//! read yet. So a refused client is told, its sending side is shut, and it is read for a moment. That takes a descriptor,
//! so only few get it; beyond them the word is sent and the socket closed.

use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use glommio::timer::sleep;
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};

use crate::config::{REFUSAL_BYTES_MAX, REFUSAL_HEAD_BYTES_MAX, REFUSAL_LOOK_MS, REFUSAL_MS};
use crate::engine::Engine;
use crate::engine::connection::spread;
use crate::engine::mailbox::Client;
use crate::engine::outgoing::send;
use crate::handler::{Event, Handler};
use crate::message::{CloseReason, ConnId};
use crate::protocol::http::{self, Outcome};
use crate::protocol::{Encoding, websocket};
use crate::shard::Shard;

/// A client that is not taken in.
struct Refused {
    socket: OwnedFd,
    /// What it speaks; `None`: its request will say.
    encoding: Option<Encoding>,
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
#[derive(Default)]
pub(crate) struct Refusals {
    lingering: Vec<Refused>,
    count: u64,
    task: Option<Waker>,
}

impl Refusals {
    fn poll_nonempty(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.lingering.is_empty() {
            return Poll::Ready(());
        }
        self.task = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Engine {
    /// Tells a client that it is not taken in, and closes its connection: after a moment, if there is a place for that.
    pub(crate) fn refuse(&mut self, client: Client, reason: CloseReason) {
        self.refusals.count += 1;
        let mut refused = Refused {
            socket: client.socket,
            encoding: Encoding::of(client.framing),
            reason,
            head: Vec::new(),
            told: false,
            received: 0,
            until: Instant::now() + Duration::from_millis(REFUSAL_MS),
            seed: spread(ConnId::from_u64(self.refusals.count << 16 | u64::from(client.peer.port()))),
        };
        if self.attend(&mut refused) {
            return;
        }
        if self.registry.take_refusal_place() {
            self.refusals.lingering.push(refused);
            if let Some(task) = self.refusals.task.take() {
                task.wake();
            }
        } else if !refused.told {
            self.tell_unavailable(&mut refused);
        }
    }

    /// Gives each that lingers its turn.
    fn attend_all(&mut self) {
        let now = Instant::now();
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
    fn attend(&mut self, refused: &mut Refused) -> bool {
        if !refused.told
            && let Some(encoding) = refused.encoding
        {
            let mut words = Vec::new();
            if !self.put_into_words(encoding, Event::Bye { reason: refused.reason }, &mut words) {
                return true;
            }
            self.tell(refused, words);
        }
        let mut buffer = self.pool.take_read();
        let is_over = loop {
            match rustix::net::recv(refused.socket.as_fd(), buffer.as_bytes_mut(), RecvFlags::DONTWAIT) {
                Ok((_, 0)) => break true,
                Ok((_, n)) => {
                    refused.received += n;
                    if !refused.told {
                        refused.head.extend_from_slice(&buffer.as_bytes()[..n]);
                        self.answer_head(refused);
                    }
                    if refused.received > REFUSAL_BYTES_MAX {
                        break true;
                    }
                }
                Err(Errno::AGAIN) => break false,
                Err(Errno::INTR) => {}
                Err(_) => break true,
            }
        };
        self.pool.give_back_read(buffer);
        is_over
    }

    /// Answers a request once it has come in whole.
    fn answer_head(&mut self, refused: &mut Refused) {
        let site = Rc::clone(&self.site);
        let answer = match http::respond(&refused.head, 0, &site, refused.seed, false) {
            Outcome::Incomplete if refused.head.len() <= REFUSAL_HEAD_BYTES_MAX => return,
            // A page is told the status of no handshake, but the code of a close.
            Outcome::Open { encoding, mut response, .. } if encoding.is_websocket() => {
                // Without a word of the handler's, the close alone says it.
                self.put_into_words(encoding, Event::Bye { reason: refused.reason }, &mut response);
                response.extend_from_slice(&websocket::close(refused.reason));
                response
            }
            _ => http::unavailable(refused.reason, &refused.head, refused.seed),
        };
        refused.head = Vec::new();
        self.tell(refused, answer);
    }

    /// Tells a refused client whose request has not come in whole.
    fn tell_unavailable(&mut self, refused: &mut Refused) {
        let answer = http::unavailable(refused.reason, &refused.head, refused.seed);
        self.tell(refused, answer);
    }

    /// Sends a refused client all that it will get. A new socket has room for it.
    fn tell(&mut self, refused: &mut Refused, words: Vec<u8>) {
        refused.told = true;
        let _ = send(&self.metrics, refused.socket.as_fd(), &words);
        let _ = rustix::net::shutdown(refused.socket.as_fd(), Shutdown::Write);
    }
}

/// Attends to refused clients for as long as the shard runs.
pub(crate) async fn run<H: Handler>(shard: Rc<Shard<H>>) {
    loop {
        poll_fn(|cx| shard.core.borrow_mut().refusals.poll_nonempty(cx)).await;
        sleep(Duration::from_millis(REFUSAL_LOOK_MS)).await;
        shard.core.borrow_mut().attend_all();
    }
}
