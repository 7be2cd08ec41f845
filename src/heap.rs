//! Handing memory back to the system, on a thread of its own: the allocator goes through all of its arenas for it, which
//! takes too long for a thread that has clients to serve.

use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use crate::sys;

static TRIMMER: Errand = Errand::new("heap-trim", sys::trim_heap);

/// Has the process hand memory back that the allocator keeps, soon. Returns at once.
pub(crate) fn trim() {
    TRIMMER.ask();
}

/// Something that one thread does whenever it is asked to, once for all who ask before it begins.
struct Errand {
    name: &'static str,
    work: fn(),
    /// The way to the thread, once somebody has asked. It has one place: for what is asked while the thread is at work.
    asked: Mutex<Option<SyncSender<()>>>,
}

impl Errand {
    const fn new(name: &'static str, work: fn()) -> Self {
        Errand { name, work, asked: Mutex::new(None) }
    }

    /// Asks for it, unless somebody has done so and it has not begun. Who finds that just being looked at need not ask.
    fn ask(&self) {
        let Ok(mut asked) = self.asked.try_lock() else { return };
        match asked.as_ref().map(|asked| asked.try_send(())) {
            Some(Ok(()) | Err(TrySendError::Full(()))) => {}
            Some(Err(TrySendError::Disconnected(()))) | None => *asked = self.start(),
        }
    }

    /// Starts the thread, which begins at once.
    fn start(&self) -> Option<SyncSender<()>> {
        let (asked, asks) = sync_channel(1);
        let work = self.work;
        let run = move || {
            work();
            asks.iter().for_each(|()| work());
        };
        match thread::Builder::new().name(self.name.into()).spawn(run) {
            Ok(_) => Some(asked),
            Err(error) => {
                tracing::debug!(%error, "the thread {} can't be started; it is tried again when it is needed", self.name);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    #[test]
    fn who_asks_never_waits_and_what_many_ask_meanwhile_is_done_once() {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        static ON_THIS_THREAD: AtomicBool = AtomicBool::new(false);
        static GATE: Barrier = Barrier::new(2);
        fn work() {
            ON_THIS_THREAD.fetch_or(thread::current().name() != Some("errand"), Ordering::Relaxed);
            BEGUN.fetch_add(1, Ordering::Relaxed);
            GATE.wait();
        }
        let wait_for = |begun| {
            let started = Instant::now();
            while BEGUN.load(Ordering::Relaxed) != begun {
                assert!(started.elapsed() < Duration::from_secs(10), "{BEGUN:?}, not {begun}");
                thread::yield_now();
            }
        };
        static ERRAND: Errand = Errand::new("errand", work);
        ERRAND.ask();
        wait_for(1);
        // It is at work until the gate opens.
        (0..100).for_each(|_| ERRAND.ask());
        GATE.wait();
        wait_for(2);
        GATE.wait();
        ERRAND.ask();
        wait_for(3);
        GATE.wait();
        assert!(!ON_THIS_THREAD.load(Ordering::Relaxed));
    }
}
