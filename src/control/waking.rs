//! Waking the shards for what is published, once for all requests that are answered in one turn of the control thread: it
//! takes longer than to publish.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::config::control::QUIET_PUBLISHES_MAX;
use crate::server::handle::ServerHandle;

/// What has been published since the shards were woken.
#[derive(Default)]
pub(super) struct Waking {
    quiet: AtomicUsize,
    some: Notify,
}

impl Waking {
    /// Counts a publish for which the shards are yet to be woken.
    pub(super) fn note(&self, handle: &ServerHandle) {
        match self.quiet.fetch_add(1, Ordering::Relaxed) {
            0 => self.some.notify_one(),
            count if count + 1 >= QUIET_PUBLISHES_MAX => self.wake(handle),
            _ => {}
        }
    }

    /// Wakes the shards.
    pub(super) fn wake(&self, handle: &ServerHandle) {
        self.quiet.store(0, Ordering::Relaxed);
        handle.wake_shards();
    }

    /// Wakes the shards whenever there is something for them and the requests that are ready have had their turns, for as
    /// long as it is polled. It must be a task of its own, which comes after those.
    pub(super) async fn run(&self, handle: &ServerHandle) {
        loop {
            self.some.notified().await;
            self.wake(handle);
        }
    }
}
