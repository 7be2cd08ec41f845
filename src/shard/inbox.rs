//! What the rest of the process asks of a shard, in three lanes with a task each, so that none waits behind another.
//!
//! - Publishes wait for room in the shard's queue of publishes.
//! - A close waits for the publishes that came in before it, and so gets behind them in that queue; not for later ones. The
//!   queue empties whatever clients do, so a close waits no longer than those publishes take.
//! - A command waits for nothing.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::engine::commands::{Close, Command};
use crate::engine::query;
use crate::publish::Publish;
use crate::shard::Shard;
use crate::shard::lane::{Entrance, Exit, Item, lane};
use crate::shard::yielding::Slice;

/// The lanes where the rest of the process holds them.
pub(crate) struct Entrances {
    pub(crate) publishes: Entrance<Publish>,
    pub(crate) closes: Entrance<Close>,
    pub(crate) commands: Entrance<Command>,
}

/// The lanes where the shard holds them.
pub(crate) struct Inbox {
    pub(crate) publishes: Exit<Publish>,
    pub(crate) closes: Exit<Close>,
    pub(crate) commands: Exit<Command>,
}

impl Item for Publish {
    fn bytes(&self) -> usize {
        self.payload.len()
    }
}

impl Item for Close {}

impl Item for Command {}

/// Makes the lanes of one shard, in each of which `max` items may wait.
pub(crate) fn lanes(max: usize) -> (Entrances, Inbox) {
    let (publishes_in, publishes) = lane(max);
    let (closes_in, closes) = lane(max);
    let (commands_in, commands) = lane(max);
    let entrances = Entrances { publishes: publishes_in, closes: closes_in, commands: commands_in };
    (entrances, Inbox { publishes, closes, commands })
}

/// How many of the publishes that came in are in the shard's queue.
#[derive(Default)]
pub(crate) struct Queued {
    count: Cell<u64>,
    /// The task that waits for more.
    waiting: RefCell<Option<Waker>>,
}

impl Queued {
    fn count_one(&self) {
        self.count.set(self.count.get() + 1);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Ready once so many are in the queue.
    fn poll_reach(&self, count: u64, cx: &Context<'_>) -> Poll<()> {
        if self.count.get() >= count {
            return Poll::Ready(());
        }
        self.waiting.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// Queues what is published, as there is room.
pub(crate) async fn publish(shard: Rc<Shard>, publishes: Exit<Publish>, queued: Rc<Queued>) {
    let mut slice = Slice::begin();
    while let Some(publish) = slice.wait(publishes.next()).await {
        shard.room().await;
        shard.engine.borrow_mut().base.enqueue(publish);
        queued.count_one();
        slice.pause_if_over().await;
    }
}

/// Closes connections, each behind what was published before.
pub(crate) async fn close(shard: Rc<Shard>, closes: Exit<Close>, queued: Rc<Queued>) {
    let mut slice = Slice::begin();
    while let Some(Close { id, reason, after }) = slice.wait(closes.next()).await {
        slice.wait(poll_fn(|cx| queued.poll_reach(after, cx))).await;
        {
            let engine = &mut *shard.engine.borrow_mut();
            let row = engine.base.registry.get(id).filter(|row| row.shard() == engine.base.index);
            if let Some(row) = row {
                engine.close_in_order(row.key(), reason);
            }
        }
        slice.pause_if_over().await;
    }
}

/// Does at once what else is asked for.
pub(crate) async fn obey(shard: Rc<Shard>, commands: Exit<Command>) {
    let mut slice = Slice::begin();
    while let Some(command) = slice.wait(commands.next()).await {
        match command {
            Command::Query(query) => query::answer(&shard.engine.borrow(), query),
            Command::SetPolicy { topic, policy } => shard.engine.borrow_mut().base.topics.set_policy(topic, policy),
        }
        slice.pause_if_over().await;
    }
}
