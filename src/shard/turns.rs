//! The one task that finds out which connections have something to do, and gives each its turn.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use glommio::io::BufferedFile;

use crate::config::{MESH_RETRY_MS, TURNS_PER_BATCH};
use crate::engine::Limited;
use crate::engine::driver::{Bell, Watched};
use crate::shard::Shard;
use crate::shard::yielding::Slice;
use crate::sys;

impl Shard {
    /// Takes in what the ring has reported; whether there was anything.
    fn take_reports(&self) -> bool {
        let mut reports = self.reports.take();
        let engine = &mut *self.engine.borrow_mut();
        engine.base.driver.poller.collect(&mut reports);
        let any = !reports.is_empty();
        for report in reports.drain(..) {
            match report.watched {
                Watched::Accept(number) => self.listeners.borrow_mut().report(number, report.armed),
                Watched::Read(key) | Watched::Write(key) => engine.take_report(key, report),
            }
        }
        self.reports.replace(reports);
        any
    }

    /// Does again what the kernel may have refused for a moment, when nothing else would have it done; and gives back
    /// rings that many connections needed once.
    pub(crate) fn see_to_polls(&self) {
        self.engine.borrow_mut().base.driver.submit_polls();
        self.take_reports();
        let engine = &mut *self.engine.borrow_mut();
        engine.base.driver.poller.release(engine.table.slots());
    }
}

/// Collects what the ring reports, and gives each connection that waits for one its turn, for as long as the shard runs.
/// `signal` becomes readable when there is something to collect.
pub(crate) async fn run(shard: Rc<Shard>, signal: OwnedFd) {
    const COUNTER_BYTES: usize = size_of::<u64>();
    let signal: BufferedFile = sys::from_fd(signal);
    // A read that has begun goes on while turns are taken.
    let mut reading = pin!(None);
    let mut complaints = Limited::default();
    let mut slice = Slice::begin();
    let mut listens = true;
    loop {
        let any = shard.take_reports();
        for _ in 0..TURNS_PER_BATCH {
            let engine = &mut *shard.engine.borrow_mut();
            let Some(key) = engine.next_turn() else { break };
            engine.take_turn(&mut shard.handlers.borrow_mut(), key);
            // Turns of clients that send as much as they can are long.
            if slice.is_over() {
                break;
            }
        }
        shard.engine.borrow_mut().base.driver.submit_polls();
        let has_more = !shard.engine.borrow().base.turns.is_empty();
        if !slice.pause_if_over().await && has_more {
            // Messages go out between two batches, however much there is to read.
            glommio::executor().yield_task_queue_now().await;
        }
        if any || !listens {
            // Who listens anew looks once more before waiting.
            listens = !any;
            shard.engine.borrow_mut().base.driver.poller.listen(listens);
            continue;
        }
        if reading.is_none() {
            reading.set(Some(signal.read_at(0, COUNTER_BYTES)));
        }
        let woken = poll_fn(|cx| {
            if let Some(Poll::Ready(read)) = reading.as_mut().as_pin_mut().map(|reading| reading.poll(cx)) {
                return Poll::Ready(Some(read));
            }
            let base = &mut shard.engine.borrow_mut().base;
            if base.turns.is_empty() { base.driver.wait_for(Bell::Turns, cx).map(|()| None) } else { Poll::Ready(None) }
        });
        let woken = slice.wait(woken).await;
        listens = false;
        shard.engine.borrow_mut().base.driver.poller.listen(listens);
        if let Some(read) = woken {
            reading.set(None);
            if let Err(error) = read {
                if let Some(count) = complaints.another(Instant::now()) {
                    tracing::error!(%error, count, "waiting for the ring's signal fails; trying again and again");
                }
                glommio::timer::sleep(Duration::from_millis(MESH_RETRY_MS)).await;
            }
        }
    }
}
