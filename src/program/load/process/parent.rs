//! The leader's side of a run of several processes.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{Order, Word};
use crate::load::LoadError;
use crate::load::part::Part;
use crate::load::plan::Plan;
use crate::load::shared::{Phase, Shared};
use crate::load::worker::WorkerResult;

/// The way to a process.
#[derive(Debug)]
pub(in crate::load) struct Process {
    orders: ChildStdin,
}

impl Process {
    pub(in crate::load) fn enter(&mut self, phase: Phase, shared: &Shared) {
        let (begin_ns, is_cut_short) = (shared.begin_ns(), shared.is_cut_short());
        self.send(Order::Enter { phase, begin_ns, is_cut_short });
    }

    pub(in crate::load) fn accepted(&mut self, end: u32) {
        self.send(Order::Accepted(end));
    }

    /// A process that takes no order any more has ended, and the one who listens to it will tell.
    fn send(&mut self, order: Order) {
        if let Ok(mut line) = serde_json::to_vec(&order) {
            line.push(b'\n');
            let _ = self.orders.write_all(&line);
        }
    }
}

/// What a process has said so far, and how it ended.
#[derive(Debug)]
pub(in crate::load) struct Listener {
    number: usize,
    count: usize,
    child: Child,
    words: BufReader<ChildStdout>,
}

/// Starts process `index` of the plan: this program with its own arguments.
pub(in crate::load) fn start(plan: &Plan, index: usize, base_ns: u64) -> Result<(Process, Listener), LoadError> {
    let part = Part { index, base_ns, run: plan.run };
    let failed = LoadError::system("start a process of the run");
    let mut child = env::current_exe()
        .and_then(|program| {
            Command::new(program)
                .args(env::args_os().skip(1))
                .arg(format!("--part={part}"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                // Ctrl-C is for the leader, who then ends the run in order.
                .process_group(0)
                .spawn()
        })
        .map_err(failed)?;
    let piped = "both were asked to be pipes";
    let orders = child.stdin.take().expect(piped);
    let words = BufReader::new(child.stdout.take().expect(piped));
    Ok((Process { orders }, Listener { number: index + 1, count: plan.processes, child, words }))
}

impl Listener {
    /// Listens to the end: passes the figures on, and returns what the process measured, and its CPU time in
    /// nanoseconds.
    pub(in crate::load) fn run<R: DeserializeOwned>(
        mut self,
        shared: &Arc<Shared>,
    ) -> Result<(Vec<WorkerResult<R>>, u64), LoadError> {
        let mut line = String::new();
        loop {
            line.clear();
            match self.words.read_line(&mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(self.failure(format!("can't be heard any more: {error}"))),
            }
            match serde_json::from_str(&line) {
                Ok(Word::Figures { links, counts, p99_ns }) => {
                    let worker = self.number - 1;
                    shared.report_counts(worker, counts);
                    shared.report_links(worker, links);
                    shared.report_p99(worker, p99_ns);
                    shared.notify();
                }
                Ok(Word::Result { workers, cpu_ns }) => {
                    // It has said all; how it ends does not matter.
                    let _ = self.child.wait();
                    return Ok((workers, cpu_ns));
                }
                Ok(Word::Failed(what)) => return Err(self.failure(format!("gave up: {what}"))),
                Err(error) => return Err(self.failure(format!("said what can't be understood: {error}"))),
            }
        }
        let ended: io::Result<_> = self.child.wait();
        let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        Err(self.failure(format!("ended before it handed in its result ({how}); what it measured is lost")))
    }

    fn failure(&self, what: String) -> LoadError {
        LoadError::Process { number: self.number, count: self.count, pid: self.child.id(), what }
    }
}
