//! How a running server ends: it says that it is not ready, serves on for a grace, offers its addresses to a new server,
//! and has its shards drain.

use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Inner, ServerHandle};
use crate::config::duration_to_text;
use crate::server::handover::Offer;

/// The grace if a caller's is too long for a clock: as good as no end.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What others may take over while the server drains.
#[derive(Default)]
pub(crate) struct Offers {
    /// The control plane's addresses, each with what lets it go.
    control: Vec<(SocketAddr, Box<dyn FnOnce() + Send>)>,
    /// The addresses of clients that nobody has taken over.
    clients: usize,
    published: Vec<Offer>,
}

/// How far a drain is.
pub(crate) enum Drain {
    /// Nobody has asked for one.
    Not,
    /// It begins then, and is to take so long.
    Grace {
        until: Instant,
        over: Duration,
    },
    Begun,
}

impl Inner {
    fn drain(&self) -> MutexGuard<'_, Drain> {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the shards drain, unless they have been told before.
    fn begin_drain(&self, drain: &mut Drain) {
        let Drain::Grace { over, .. } = std::mem::replace(drain, Drain::Begun) else { return };
        tracing::info!("draining: {} connections over {}", self.registry.open(), duration_to_text(over));
        // From now on the clients' addresses are let go, and the offers of the control plane's stay.
        self.offers().clients = 0;
        self.client_offers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for shard in &self.shards {
            // A closed channel belongs to a shard that has ended.
            let _ = shard.drain.try_send(over);
        }
    }

    fn offers(&self) -> MutexGuard<'_, Offers> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers the control plane's addresses to a new server.
    fn offer_control(&self) {
        let mut offers = self.offers();
        for (addr, taken) in std::mem::take(&mut offers.control) {
            match Offer::publish(addr, taken) {
                Ok(offer) => offers.published.push(offer),
                Err(error) => tracing::warn!(%error, "{addr} can't be offered to a new server"),
            }
        }
    }

    /// Offers the clients' addresses to a new server. When it has taken over all of them the grace is over.
    fn offer_clients(self: &Arc<Self>) {
        self.offers().clients = self.listen.len();
        for addr in &self.listen {
            let server = Arc::downgrade(self);
            let taken = move || {
                if let Some(server) = server.upgrade() {
                    server.let_go();
                }
            };
            match Offer::publish(*addr, taken) {
                Ok(offer) => self.client_offers.lock().unwrap_or_else(PoisonError::into_inner).push(offer),
                Err(error) => tracing::warn!(%error, "{addr} can't be offered to a new server"),
            }
        }
    }

    /// Notes that one of the clients' addresses has been taken over.
    fn let_go(&self) {
        let mut offers = self.offers();
        offers.clients = offers.clients.saturating_sub(1);
        let is_last = offers.clients == 0;
        drop(offers);
        if is_last {
            tracing::info!("a new server has taken over; the grace is over");
            self.begin_drain(&mut self.drain());
        }
    }

    /// Waits until the grace is over, and has the drain begin.
    fn end_grace(&self) {
        let mut drain = self.drain();
        while let Drain::Grace { until, .. } = *drain {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.begin_drain(&mut drain);
            }
            drain = self.changed.wait_timeout(drain, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl ServerHandle {
    /// Drains the server as [`ServerHandle::drain_after`] does, after the `drain_grace` of the settings.
    pub fn drain(&self, over: Duration) {
        self.drain_after(self.inner.config.drain_grace, over);
    }

    /// Says from now on that the server is not ready, goes on as before for a time of `grace`, and then stops accepting
    /// and closes all connections, spread evenly over `over`, each after what waits for it has been written; then the
    /// server ends. Once it has stopped accepting, further calls change nothing; before, one that would have it do so
    /// sooner counts instead of the first.
    pub fn drain_after(&self, grace: Duration, over: Duration) {
        let mut drain = self.inner.drain();
        let now = Instant::now();
        let until = now.checked_add(grace).unwrap_or_else(|| now + LONGEST_GRACE);
        match *drain {
            Drain::Not => {
                self.inner.registry.note_draining();
                self.inner.offer_control();
                if !grace.is_zero() {
                    self.inner.offer_clients();
                }
            }
            Drain::Grace { until: before, .. } if until < before => {}
            Drain::Grace { .. } | Drain::Begun => return,
        }
        let has_thread = matches!(*drain, Drain::Grace { .. });
        *drain = Drain::Grace { until, over };
        if grace.is_zero() {
            self.inner.begin_drain(&mut drain);
        }
        if has_thread {
            self.inner.changed.notify_all();
        } else if !grace.is_zero() {
            tracing::info!("not ready from now on; clients are served for {} more", duration_to_text(grace));
            let inner = Arc::clone(&self.inner);
            let thread = std::thread::Builder::new().name("drain-grace".into());
            if let Err(error) = thread.spawn(move || inner.end_grace()) {
                tracing::warn!(%error, "can't start a thread to wait; draining at once");
                self.inner.begin_drain(&mut drain);
            }
        }
    }

    /// Has `taken` called when a new server takes over an address of the control plane while this one drains.
    #[cfg(feature = "control")]
    pub(crate) fn offer(&self, addr: SocketAddr, taken: impl FnOnce() + Send + 'static) {
        self.inner.offers().control.push((addr, Box::new(taken)));
        if self.is_draining() {
            self.inner.offer_control();
        }
    }

    /// Closes all connections at once, each after what waits for it has been written, and ends the server.
    pub fn shutdown(&self) {
        self.drain_after(Duration::ZERO, Duration::ZERO);
    }

    /// Whether the server has been asked to drain.
    pub fn is_draining(&self) -> bool {
        self.inner.registry.is_draining()
    }
}
