//! A bounded way into a shard from other threads.
//!
//! Places are counted beside the queue, which has no bound of its own: whoever has a place can put something in at once. A
//! bounded queue can refuse that for a moment while its other end takes something out, and then one could only try again
//! and again.
//!
//! A lane ends with its exit: what is in it then is dropped, and with it the senders of answers that somebody waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_channel::{Receiver, Sender};

use crate::config::LANE_BYTES_MAX;

/// What may wait in a lane.
pub(crate) trait Item {
    /// Bytes that it keeps on the heap.
    fn bytes(&self) -> usize {
        0
    }
}

/// Makes a lane in which `max` items may wait, and bytes of them up to [`LANE_BYTES_MAX`].
pub(crate) fn lane<T: Item>(max: usize) -> (Entrance<T>, Exit<T>) {
    let (sender, receiver) = async_channel::unbounded();
    let load = Arc::new(Load::default());
    let entrance = Entrance { queue: sender, load: Arc::clone(&load), max, entered: AtomicU64::new(0) };
    (entrance, Exit { queue: receiver, load })
}

/// What is in a lane.
#[derive(Default)]
struct Load {
    /// Places that are taken.
    taken: AtomicUsize,
    /// Bytes of the items.
    bytes: AtomicUsize,
}

/// Where items come in, from any thread.
pub(crate) struct Entrance<T: Item> {
    queue: Sender<T>,
    load: Arc<Load>,
    max: usize,
    /// Items that have come in.
    entered: AtomicU64,
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
        if self.queue.is_closed() {
            return Err(NoPlace::Ended);
        }
        if self.load.bytes.load(Ordering::Relaxed) >= LANE_BYTES_MAX {
            return Err(NoPlace::Full);
        }
        let take = |taken| (taken < self.max).then_some(taken + 1);
        match self.load.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(Place { entrance: self }),
            Err(_) => Err(NoPlace::Full),
        }
    }

    /// Items that have come in so far.
    pub(crate) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Acquire)
    }
}

/// A place in a lane. It is given back when it is dropped.
pub(crate) struct Place<'a, T: Item> {
    entrance: &'a Entrance<T>,
}

impl<T: Item> Place<'_, T> {
    /// Puts an item into the place. If the shard has ended meanwhile it is dropped.
    pub(crate) fn fill(self, item: T) {
        let (bytes, load) = (item.bytes(), &self.entrance.load);
        load.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.entrance.queue.try_send(item).is_ok() {
            self.entrance.entered.fetch_add(1, Ordering::Release);
            // The exit gives it back.
            std::mem::forget(self);
        } else {
            load.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl<T: Item> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.entrance.load.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the shard takes items out, in the order in which they came in.
pub(crate) struct Exit<T: Item> {
    queue: Receiver<T>,
    load: Arc<Load>,
}

impl<T: Item> Exit<T> {
    /// Waits for the next item, whose place is free from then on; `None`: there is no entrance any more.
    pub(crate) async fn next(&self) -> Option<T> {
        let item = self.queue.recv().await.ok()?;
        self.load.taken.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(item.bytes(), Ordering::Relaxed);
        Some(item)
    }
}

impl<T: Item> Drop for Exit<T> {
    fn drop(&mut self) {
        self.queue.close();
        // The entrance would keep what is left.
        while self.queue.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!((refusal(&entrance), entrance.load.bytes.load(Ordering::Relaxed)), (None, 0));
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
        assert_eq!((entrance.entered(), entrance.load.taken.load(Ordering::Relaxed)), (2 * EACH as u64, 0));
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
