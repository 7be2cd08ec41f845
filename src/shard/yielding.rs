//! How tasks with much to do make room for each other, and for what comes from outside.
//!
//! The runtime has time slices of its own: a timer in the kernel ends them. But an executor whose slice ends before it has
//! looked for tasks takes itself for idle and falls asleep, whatever waits to be run (glommio 0.9), and where CPUs are
//! taken away for milliseconds at a time that happens all the time. So its timer is set for so long that it does not
//! fire ([`NEVER`]), and each task with a loop that may be long ends its slices itself.

use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use glommio::timer::Timer;

use crate::config::SLICE_MS;

/// What the runtime's own time slices are set to.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// Over before the executor gets to look at its timers, so that it does not sleep for it.
const MOMENT: Duration = Duration::from_micros(1);

/// The time that a task has been at work without letting the executor look for events.
pub(crate) struct Slice {
    began: Instant,
}

impl Slice {
    /// A slice that begins now.
    pub(crate) fn begin() -> Self {
        Slice { began: Instant::now() }
    }

    /// Waits for something. If that was not there at once, a new slice begins with it.
    pub(crate) async fn wait<T>(&mut self, event: impl Future<Output = T>) -> T {
        let (value, waited) = await_noting(event).await;
        if waited {
            *self = Slice::begin();
        }
        value
    }

    /// Whether it is time to let others run.
    pub(crate) fn is_over(&self) -> bool {
        self.began.elapsed() >= Duration::from_millis(SLICE_MS)
    }

    /// If the slice is over, lets all other tasks run and the executor look for events; then a new one begins. Whether
    /// it was over.
    pub(crate) async fn pause_if_over(&mut self) -> bool {
        let is_over = self.is_over();
        if is_over {
            look_for_events(MOMENT).await;
            *self = Slice::begin();
        }
        is_over
    }
}

/// Returns once the executor has looked for events, which it does when no task can run: it has a timer to look at that
/// runs for at least a `moment`.
async fn look_for_events(mut moment: Duration) {
    // One that is over before it is polled is none that the executor has looked at: where reading the clock takes long,
    // it must be a longer one.
    while !await_noting(Timer::new(moment)).await.1 {
        moment *= 2;
    }
}

/// What a future comes to, and whether it had to be waited for.
async fn await_noting<T>(future: impl Future<Output = T>) -> (T, bool) {
    let mut future = pin!(future);
    let mut waited = false;
    let value = poll_fn(|cx| {
        let poll = future.as_mut().poll(cx);
        waited |= poll.is_pending();
        poll
    })
    .await;
    (value, waited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    use glommio::{LocalExecutorBuilder, Placement};

    use crate::config::POOL_ARENA_BYTES;

    /// Runs something on an executor like a shard's.
    fn on_shard<T: Send + 'static>(work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(POOL_ARENA_BYTES).preempt_timer(NEVER);
        builder.spawn(move || async move { work().await }).unwrap().join().unwrap()
    }

    #[test]
    fn events_get_through_to_tasks_that_are_never_idle() {
        async fn work_until(came: Rc<Cell<bool>>) -> bool {
            let (began, mut slice) = (Instant::now(), Slice::begin());
            while !came.get() && began.elapsed() < Duration::from_secs(10) {
                if !slice.pause_if_over().await {
                    glommio::executor().yield_task_queue_now().await;
                }
            }
            came.get()
        }
        let came = on_shard(async || {
            let came = Rc::new(Cell::new(false));
            let busy = [(); 2].map(|()| glommio::spawn_local(work_until(Rc::clone(&came))));
            glommio::timer::sleep(Duration::from_millis(1)).await;
            came.set(true);
            let [one, other] = busy;
            one.await && other.await
        });
        assert!(came, "the busy tasks have kept the timer from firing");
    }

    #[test]
    fn a_moment_that_is_over_at_once_is_made_longer() {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            on_shard(async || look_for_events(Duration::from_nanos(1)).await);
            done.send(()).unwrap();
        });
        assert!(ended.recv_timeout(Duration::from_secs(10)).is_ok(), "it never had to wait");
    }

    #[test]
    fn a_slice_begins_with_what_had_to_be_waited_for() {
        on_shard(async || {
            let began = Instant::now();
            let mut slice = Slice { began };
            assert_eq!(slice.wait(async { 7 }).await, 7);
            assert_eq!(slice.began, began);
            slice.wait(glommio::timer::sleep(Duration::from_millis(1))).await;
            assert!(slice.began > began);
        });
    }

    #[test]
    fn only_a_slice_that_is_over_makes_a_pause() {
        on_shard(async || {
            let long_ago = Instant::now() - Duration::from_secs(1);
            let mut slice = Slice { began: long_ago };
            assert!(slice.pause_if_over().await);
            assert!(slice.began > long_ago);
            let mut slice = Slice { began: Instant::now() + Duration::from_secs(60) };
            assert!(!slice.pause_if_over().await);
        });
    }
}
