//! A watch over the shards that wakes one whose clock stands still.
//!
//! An executor can fall asleep although its tasks have work (glommio 0.9): if its time slice ends between the moment when
//! it sets the timer for it and the moment when it looks for tasks, it takes itself for idle. The shard's own tick wakes
//! it then, unless the tick is among the tasks that wait to be run; after that only a client could. On a machine whose
//! CPUs are taken away for milliseconds at a time that is no rare event. A wake-up from another thread always gets
//! through.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use crate::config::PULSE_LOOK_MS;

/// The sign of life of one shard.
#[derive(Default)]
pub(crate) struct Pulse {
    beats: AtomicU64,
    /// Wakes the task that beats, while there is one.
    waker: Mutex<Option<Waker>>,
}

/// Has the pulse let go of its task at the end of it.
pub(crate) struct Beating(Arc<Pulse>);

impl Pulse {
    /// Begins to watch over the task of this context, which must call [`Beating::beat`] at every tick.
    pub(crate) fn begin(self: &Arc<Self>, cx: &Context<'_>) -> Beating {
        self.set(Some(cx.waker().clone()));
        Beating(Arc::clone(self))
    }

    fn set(&self, waker: Option<Waker>) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = waker;
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

impl Beating {
    /// Shows that the shard's clock goes on.
    pub(crate) fn beat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// Starts a thread that looks after these pulses until all of their shards have ended.
///
/// # Errors
/// The system gives no thread.
pub(crate) fn watch(pulses: &[Arc<Pulse>]) -> std::io::Result<()> {
    let mut watched: Vec<Watched> = pulses.iter().map(Watched::new).collect();
    let look = move || {
        while !watched.is_empty() {
            thread::sleep(Duration::from_millis(PULSE_LOOK_MS));
            watched.retain_mut(Watched::look);
        }
    };
    thread::Builder::new().name("pulse".into()).spawn(look).map(drop)
}

struct Watched {
    pulse: Weak<Pulse>,
    beats: u64,
    /// For how many looks in a row it has not beaten.
    still: u32,
}

impl Watched {
    fn new(pulse: &Arc<Pulse>) -> Self {
        Watched { pulse: Arc::downgrade(pulse), beats: 0, still: 0 }
    }

    /// Wakes the shard if its pulse has stood still for two looks, which are longer than a tick; `false`: it has ended.
    fn look(&mut self) -> bool {
        let Some(pulse) = self.pulse.upgrade() else { return false };
        let beats = pulse.beats.load(Ordering::Relaxed);
        self.still = if beats == self.beats { self.still + 1 } else { 0 };
        self.beats = beats;
        if self.still >= 2 {
            pulse.wake();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_pulse_that_stands_still_is_woken_again_and_again_until_its_shard_has_ended() {
        let (pulse, woken) = (Arc::new(Pulse::default()), Arc::new(Woken::default()));
        let count = || woken.0.load(Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&woken));
        let mut watched = Watched::new(&pulse);
        let beating = pulse.begin(&Context::from_waker(&waker));
        for _ in 0..5 {
            beating.beat();
            assert!(watched.look() && watched.look());
        }
        assert_eq!(count(), 0, "two looks may fall between two beats");
        assert!(watched.look() && watched.look());
        assert_eq!(count(), 2, "no wake-up is taken for granted");
        beating.beat();
        watched.look();
        assert_eq!(count(), 2);
        drop(beating);
        (0..4).for_each(|_| assert!(watched.look()));
        assert_eq!(count(), 2, "the task has ended");
        drop(pulse);
        assert!(!watched.look());
    }
}
