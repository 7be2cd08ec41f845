//! Those who listen to the event stream, a bounded number of them.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::sync::watch;

use crate::config::control::{EVENT_LISTENERS_MAX, EVENT_QUEUE};
use crate::control::problem::{Problem, ProblemCode};

/// Those who listen.
pub(super) struct Listeners {
    events: Sender<Bytes>,
    /// Whether the ticker runs: it does while somebody listens.
    ticking: Mutex<bool>,
    stop: watch::Receiver<bool>,
}

impl Listeners {
    /// Nobody yet. All are let go when `stop` changes.
    pub(super) fn new(stop: watch::Receiver<bool>) -> Self {
        Listeners { events: broadcast::channel(EVENT_QUEUE).0, ticking: Mutex::new(false), stop }
    }

    /// Adds a listener. `true`: nobody sends to them yet, and the caller sees to it that somebody does.
    pub(super) fn join(&self) -> Result<(Receiver<Bytes>, bool), Problem> {
        if self.events.receiver_count() >= EVENT_LISTENERS_MAX {
            let detail = format!("there are {EVENT_LISTENERS_MAX} listeners already, and no more are allowed");
            return Err(Problem::new(ProblemCode::Busy, detail));
        }
        let receiver = self.events.subscribe();
        let mut ticking = self.ticking.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !std::mem::replace(&mut *ticking, true);
        Ok((receiver, is_first))
    }

    /// What changes to `true` when all are to be let go.
    pub(super) fn stop(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }

    /// Sends to all; says whether somebody is left.
    pub(super) fn send(&self, event: Bytes) -> bool {
        let mut ticking = self.ticking.lock().unwrap_or_else(PoisonError::into_inner);
        *ticking = self.events.send(event).is_ok();
        *ticking
    }
}
