//! Which connections have something to do, and the one task that finds it out and gives each its turn.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use glommio::io::BufferedFile;

use crate::config::{MESH_RETRY_MS, TURNS_PER_BATCH};
use crate::engine::Engine;
use crate::engine::connection::Polls;
use crate::engine::table::Key;
use crate::engine::turn;
use crate::handler::Handler;
use crate::shard::Shard;
use crate::shard::poller::{Interest, Report};
use crate::shard::yielding::Slice;
use crate::sys;

/// Connections that wait for their turn, in the order in which they came. Each is in it once, as its row says.
#[derive(Default)]
pub(crate) struct TurnQueue {
    keys: VecDeque<Key>,
    runner: Option<Waker>,
}

impl TurnQueue {
    fn push(&mut self, key: Key) {
        self.keys.push_back(key);
        if let Some(runner) = self.runner.take() {
            runner.wake();
        }
    }

    fn pop(&mut self) -> Option<Key> {
        let key = self.keys.pop_front();
        if self.keys.is_empty() {
            // After a moment in which all were busy.
            self.keys.shrink_to(TURNS_PER_BATCH);
        }
        key
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn poll_nonempty(&mut self, cx: &Context<'_>) -> Poll<()> {
        if !self.keys.is_empty() {
            return Poll::Ready(());
        }
        self.runner = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Engine {
    /// Gives a connection a turn soon.
    pub(crate) fn wake(&mut self, key: Key) {
        if let Some(connection) = self.table.get_mut(key)
            && !connection.queued
        {
            connection.queued = true;
            self.turns.push(key);
        }
    }

    /// The connection whose turn it is.
    fn next_turn(&mut self) -> Option<Key> {
        loop {
            let key = self.turns.pop()?;
            // Others have gone meanwhile.
            if let Some(connection) = self.table.get_mut(key) {
                connection.queued = false;
                return Some(key);
            }
        }
    }

    /// Has the ring report what the connection waits for, unless it does so already.
    pub(crate) fn watch(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        // What is known to be there is read before more is asked for.
        if !connection.polls.has(Polls::READ) && !connection.readable {
            connection.polls.set(Polls::READ, true);
            self.metrics.polls.add(1);
            self.readiness.watch(Interest::Read(key), connection.socket.as_fd());
        }
        if !connection.polls.has(Polls::WRITE) && connection.blocked {
            connection.polls.set(Polls::WRITE, true);
            self.metrics.polls.add(1);
            self.readiness.watch(Interest::Write(key), connection.socket.as_fd());
        }
    }

    /// Takes in what the ring has reported; whether there was anything.
    fn take_reports(&mut self) -> bool {
        let mut reports = std::mem::take(&mut self.reports);
        self.readiness.collect(&mut reports);
        let any = !reports.is_empty();
        for report in reports.drain(..) {
            self.take_report(report);
        }
        self.reports = reports;
        any
    }

    fn take_report(&mut self, report: Report) {
        let key = match report.interest {
            Interest::Accept(number) => return self.listeners.report(number, report.armed),
            Interest::Read(key) | Interest::Write(key) => key,
        };
        let Some(connection) = self.table.get_mut(key) else {
            // It is gone, and the cancellation of its poll may have come between two reports.
            if report.armed {
                self.readiness.unwatch(report.interest);
            }
            return;
        };
        self.metrics.polls.sub(u64::from(!report.armed));
        if let Interest::Write(_) = report.interest {
            connection.writable = true;
            connection.polls.set(Polls::WRITE, report.armed);
        } else {
            connection.readable = true;
            connection.hangup |= report.hangup;
            connection.polls.set(Polls::READ, report.armed);
            // A connection that is read no further for now is woken by what it waits for.
            if connection.paused && connection.closing.is_none() {
                return;
            }
        }
        self.wake(key);
    }

    /// Hands to the ring what is to be watched from now on. What it does not take, for want of memory or because
    /// reports wait to be collected, it is handed again.
    pub(crate) fn submit_polls(&mut self) {
        if let Err(error) = self.readiness.submit() {
            tracing::debug!(%error, "the ring takes no polls for now");
        }
    }

    /// Does again what the kernel may have refused for a moment, when nothing else would have it done; and gives back
    /// rings that many connections needed once.
    pub(crate) fn see_to_polls(&mut self) {
        self.submit_polls();
        self.take_reports();
        self.readiness.release(self.table.slots());
    }
}

/// Collects what the ring reports, and gives each connection that waits for one its turn, for as long as the shard runs.
/// `signal` becomes readable when there is something to collect.
pub(crate) async fn run<H: Handler>(shard: Rc<Shard<H>>, signal: OwnedFd) {
    const COUNTER_BYTES: usize = size_of::<u64>();
    let signal: BufferedFile = sys::from_fd(signal);
    // A read that has begun goes on while turns are taken.
    let mut reading = pin!(None);
    let mut slice = Slice::begin();
    loop {
        let any = shard.core.borrow_mut().take_reports();
        for _ in 0..TURNS_PER_BATCH {
            let Some(key) = shard.core.borrow_mut().next_turn() else { break };
            turn::take(&shard, key);
            // Turns of clients that send as much as they can are long.
            if slice.is_over() {
                break;
            }
        }
        shard.core.borrow_mut().submit_polls();
        let has_more = !shard.core.borrow().turns.is_empty();
        if !slice.pause_if_over().await && has_more {
            // Messages go out between two batches, however much there is to read.
            glommio::executor().yield_task_queue_now().await;
        }
        if any {
            continue;
        }
        if reading.is_none() {
            reading.set(Some(signal.read_at(0, COUNTER_BYTES)));
        }
        let woken = poll_fn(|cx| {
            if let Some(Poll::Ready(read)) = reading.as_mut().as_pin_mut().map(|reading| reading.poll(cx)) {
                return Poll::Ready(Some(read));
            }
            shard.core.borrow_mut().turns.poll_nonempty(cx).map(|()| None)
        });
        if let Some(read) = slice.wait(woken).await {
            reading.set(None);
            if let Err(error) = read {
                tracing::error!(%error, "waiting for the ring's signal failed");
                glommio::timer::sleep(Duration::from_millis(MESH_RETRY_MS)).await;
            }
        }
    }
}
