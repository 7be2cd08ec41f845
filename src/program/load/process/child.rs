//! A process that takes part in a run: as the leader says, and as long as there is one.

use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;

use super::{Order, Word};
use crate::load::LoadError;
use crate::load::clock::Clock;
use crate::load::coordinator::cpu_ns;
use crate::load::crew::{join, start_threads, wake};
use crate::load::part::Part;
use crate::load::plan::Plan;
use crate::load::shared::{Phase, Shared, Totals};
use crate::load::worker::{Post, WorkerResult};

/// How often the leader is told how far this process is.
const TELL_STEP: Duration = Duration::from_millis(20);

/// Does `work` in the plan's threads. What goes wrong is for the leader to tell.
pub(in crate::load) fn take_part<R: Serialize + Send + 'static>(
    plan: &Arc<Plan>,
    part: Part,
    work: impl FnOnce(Post) -> Result<WorkerResult<R>, LoadError> + Clone + Send + 'static,
) {
    // If the leader is gone, there is nobody to be told.
    let _ = match follow(plan, part, work) {
        Ok(word) => tell(&word),
        Err(error) => tell::<R>(&Word::Failed(error.to_string())),
    };
}

fn follow<R: Serialize + Send + 'static>(
    plan: &Arc<Plan>,
    part: Part,
    work: impl FnOnce(Post) -> Result<WorkerResult<R>, LoadError> + Clone + Send + 'static,
) -> Result<Word<R>, LoadError> {
    let shared = Arc::new(Shared::new(plan.threads, plan.first_step(), !plan.quiet));
    let orders = listen();
    let (wakers, workers) = start_threads(plan, &shared, Clock::from_base(part.base_ns), work)?;
    let (mut told, mut cpu_begin_ns) = (Totals::default(), 0);
    while shared.phase() != Phase::Stopping && !workers.iter().any(JoinHandle::is_finished) {
        match orders.recv_timeout(TELL_STEP) {
            Ok(Order::Accepted(end)) => shared.accepted.store(end, Ordering::Release),
            Ok(Order::Enter { phase, begin_ns, is_cut_short }) => {
                shared.set_begin(begin_ns);
                if is_cut_short {
                    shared.cut_short();
                }
                if phase == Phase::Running {
                    cpu_begin_ns = cpu_ns();
                }
                shared.set_phase(phase);
                wake(&wakers);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(Word::Failed("its leader is gone".into())),
        }
        let totals = shared.totals();
        if totals != told {
            told = totals;
            let Totals { links, counts, p99_ns, .. } = totals;
            tell::<R>(&Word::Figures { links, counts, p99_ns }).map_err(LoadError::system("write to the leader"))?;
        }
    }
    let workers = workers.into_iter().filter(|worker| shared.phase() == Phase::Stopping || worker.is_finished());
    let workers = workers.map(join).collect::<Result<_, _>>()?;
    Ok(Word::Result { workers, cpu_ns: cpu_ns() - cpu_begin_ns })
}

/// The leader's orders; they end with the leader.
fn listen() -> Receiver<Order> {
    let (to, orders) = mpsc::channel();
    thread::spawn(move || {
        let lines = io::stdin().lock().lines().map_while(Result::ok);
        for order in lines.map_while(|line| serde_json::from_str(&line).ok()) {
            if to.send(order).is_err() {
                return;
            }
        }
    });
    orders
}

fn tell<R: Serialize>(word: &Word<R>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, word)?;
    out.write_all(b"\n")?;
    out.flush()
}
