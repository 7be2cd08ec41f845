//! A bounded way into a shard from other threads.
//!
//! Places are counted beside the queue, which has no bound of its own: whoever has a place can put something in at once.
//! Whoever puts in many things wakes the shard once for all of them: to wake a thread costs more than to take an item. The
//! shard takes out at once all that is there.
//!
//! A lane ends with its exit: what is in it then is dropped, and with it the senders of answers that somebody waits for.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::config::LANE_BYTES_MAX;

/// Items that an empty queue keeps the room for.
const KEPT_ITEMS: usize = 512;

/// What may wait in a lane.
pub(crate) trait Item {
    /// Bytes that it keeps on the heap.
    fn bytes(&self) -> usize {
        0
    }
}

/// Makes a lane in which `max` items may wait, and bytes of them up to [`LANE_BYTES_MAX`].
pub(crate) fn lane<T: Item>(max: usize) -> (Entrance<T>, Exit<T>) {
    let queue = Queue { items: VecDeque::new(), waiting: None, has_entrance: true, has_exit: true };
    let common = Arc::new(Common {
        queue: Mutex::new(queue),
        taken: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        entered: AtomicU64::new(0),
    });
    (Entrance { lane: Arc::clone(&common), max }, Exit { lane: common, out: RefCell::default() })
}

/// What both ends of a lane share.
struct Common<T> {
    queue: Mutex<Queue<T>>,
    /// Places that are taken.
    taken: AtomicUsize,
    /// Bytes of the items.
    bytes: AtomicUsize,
    /// Items that have come in.
    entered: AtomicU64,
}

struct Queue<T> {
    items: VecDeque<T>,
    /// The shard, where it waits for an item.
    waiting: Option<Waker>,
    has_entrance: bool,
    has_exit: bool,
}

impl<T> Common<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let waiting = self.queue().waiting.take();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

/// Where items come in, from any thread.
pub(crate) struct Entrance<T: Item> {
    lane: Arc<Common<T>>,
    max: usize,
}

/// Why there is no place in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// As many items wait as may.
    Full,
    /// The shard has ended.
    Ended,
}

impl<T: Item> Entrance<T> {
    /// Takes a place. A lane that is below its bytes takes an item of any size.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn reserve(&self) -> Result<Place<'_, T>, NoPlace> {
        if !self.lane.queue().has_exit {
            return Err(NoPlace::Ended);
        }
        if self.lane.bytes.load(Ordering::Relaxed) >= LANE_BYTES_MAX {
            return Err(NoPlace::Full);
        }
        let take = |taken| (taken < self.max).then_some(taken + 1);
        match self.lane.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(Place { entrance: self }),
            Err(_) => Err(NoPlace::Full),
        }
    }

    /// Items that have come in so far.
    pub(crate) fn entered(&self) -> u64 {
        self.lane.entered.load(Ordering::Acquire)
    }

    /// Wakes the shard, if it waits and there is something to take.
    #[cfg_attr(not(feature = "control"), allow(dead_code, reason = "the control plane publishes in that way"))]
    pub(crate) fn wake(&self) {
        if !self.lane.queue().items.is_empty() {
            self.lane.wake();
        }
    }
}

impl<T: Item> Drop for Entrance<T> {
    fn drop(&mut self) {
        self.lane.queue().has_entrance = false;
        self.lane.wake();
    }
}

/// A place in a lane. It is given back when it is dropped.
pub(crate) struct Place<'a, T: Item> {
    entrance: &'a Entrance<T>,
}

impl<T: Item> Place<'_, T> {
    /// Puts an item into the place, and wakes the shard. If that has ended meanwhile the item is dropped.
    pub(crate) fn fill(self, item: T) {
        let entrance = self.entrance;
        self.fill_quietly(item);
        entrance.lane.wake();
    }

    /// As [`Place::fill`], but lets the shard sleep until [`Entrance::wake`].
    pub(crate) fn fill_quietly(self, item: T) {
        let lane = &self.entrance.lane;
        let mut queue = lane.queue();
        if !queue.has_exit {
            drop(queue);
            return;
        }
        lane.bytes.fetch_add(item.bytes(), Ordering::Relaxed);
        queue.items.push_back(item);
        lane.entered.fetch_add(1, Ordering::Release);
        drop(queue);
        // The exit gives it back.
        std::mem::forget(self);
    }
}

impl<T: Item> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.entrance.lane.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the shard takes items out, in the order in which they came in.
pub(crate) struct Exit<T: Item> {
    lane: Arc<Common<T>>,
    /// What has been taken out of the queue at once, and keeps its places until its turn comes.
    out: RefCell<VecDeque<T>>,
}

impl<T: Item> Exit<T> {
    /// Waits for the next item, whose place is free from then on; `None`: there is no entrance any more.
    pub(crate) async fn next(&self) -> Option<T> {
        let item = poll_fn(|cx| self.poll_next(cx)).await?;
        self.lane.taken.fetch_sub(1, Ordering::Relaxed);
        self.lane.bytes.fetch_sub(item.bytes(), Ordering::Relaxed);
        Some(item)
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<T>> {
        let out = &mut *self.out.borrow_mut();
        if out.is_empty() {
            // What a burst needed is not kept for ever.
            out.shrink_to(KEPT_ITEMS);
            let queue = &mut *self.lane.queue();
            std::mem::swap(&mut queue.items, out);
            if out.is_empty() && queue.has_entrance {
                queue.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(out.pop_front())
    }
}

impl<T: Item> Drop for Exit<T> {
    fn drop(&mut self) {
        // The entrance would keep what is left.
        let left = {
            let queue = &mut *self.lane.queue();
            queue.has_exit = false;
            (std::mem::take(&mut queue.items), queue.waiting.take())
        };
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_channel::Sender;
    use futures_lite::future::block_on;

    impl Item for i32 {}
    impl Item for () {}
    impl Item for Sender<()> {}
    impl Item for Vec<u8> {
        fn bytes(&self) -> usize {
            self.len()
        }
    }

    /// What `reserve` says.
    fn refusal<T: Item>(entrance: &Entrance<T>) -> Option<NoPlace> {
        entrance.reserve().err()
    }

    #[test]
    fn a_lane_takes_as_many_items_as_may_wait_in_it() {
        let (entrance, exit) = lane(2);
        for item in 0..2 {
            entrance.reserve().unwrap().fill(item);
        }
        assert_eq!(refusal(&entrance), Some(NoPlace::Full));
        assert_eq!(block_on(exit.next()), Some(0));
        // One that is reserved counts, until it is given up.
        let place = entrance.reserve().unwrap();
        assert_eq!(refusal(&entrance), Some(NoPlace::Full));
        drop(place);
        assert_eq!(refusal(&entrance), None);
        assert_eq!(entrance.entered(), 2);
    }

    #[test]
    fn a_lane_takes_as_many_bytes_as_may_wait_in_it_and_an_item_of_any_size_while_it_is_below() {
        let (entrance, exit) = lane(1_000);
        entrance.reserve().unwrap().fill(vec![0; LANE_BYTES_MAX - 1]);
        entrance.reserve().unwrap().fill(vec![0; 1 << 20]);
        assert_eq!(refusal(&entrance), Some(NoPlace::Full));
        block_on(exit.next()).unwrap();
        entrance.reserve().unwrap().fill(vec![0; LANE_BYTES_MAX]);
        assert_eq!(refusal(&entrance), Some(NoPlace::Full));
        (0..2).for_each(|_| drop(block_on(exit.next()).unwrap()));
        assert_eq!((refusal(&entrance), entrance.lane.bytes.load(Ordering::Relaxed)), (None, 0));
    }

    #[test]
    fn a_place_can_be_filled_at_once_whatever_the_other_end_does() {
        const EACH: usize = 20_000;
        let (entrance, exit) = lane(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut left = EACH;
                    while left > 0 {
                        if let Ok(place) = entrance.reserve() {
                            place.fill(());
                            left -= 1;
                        }
                    }
                });
            }
            (0..2 * EACH).for_each(|_| block_on(exit.next()).unwrap());
        });
        assert_eq!((entrance.entered(), entrance.lane.taken.load(Ordering::Relaxed)), (2 * EACH as u64, 0));
    }

    #[test]
    fn what_is_put_in_quietly_wakes_the_shard_once_it_is_told_to_and_leaves_in_order() {
        let (entrance, exit) = lane(9);
        let woken = std::sync::Arc::new(Woken::default());
        let waker = Waker::from(std::sync::Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        assert!(exit.poll_next(&cx).is_pending());
        entrance.wake();
        for item in 0..3 {
            entrance.reserve().unwrap().fill_quietly(item);
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 0, "nothing was there, and then nobody said so");
        entrance.wake();
        entrance.reserve().unwrap().fill(3);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "it is awake already");
        for item in 0..4 {
            assert_eq!(block_on(exit.next()), Some(item));
        }
        assert!(exit.poll_next(&cx).is_pending());
        drop(entrance);
        assert_eq!((woken.0.load(Ordering::Relaxed), block_on(exit.next())), (2, None));
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_waits_in_a_lane_that_ends_is_dropped_and_a_full_one_has_ended_too() {
        let (entrance, exit) = lane(1);
        let (answer, answers) = async_channel::bounded::<()>(1);
        let late = entrance.reserve().unwrap();
        drop(exit);
        late.fill(answer.clone());
        assert_eq!(refusal(&entrance), Some(NoPlace::Ended));

        let (full, exit) = lane(1);
        full.reserve().unwrap().fill(answer);
        drop(exit);
        assert_eq!(refusal(&full), Some(NoPlace::Ended));
        assert!(block_on(answers.recv()).is_err(), "nobody can answer any more, and who waits is told");
    }
}
