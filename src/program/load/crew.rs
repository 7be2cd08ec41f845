//! Those that make the connections: threads of this process, or processes.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use mio::{Poll, Waker};
use serde::de::DeserializeOwned;

use super::LoadError;
use super::clock::Clock;
use super::plan::Plan;
use super::process::{self, Process};
use super::shared::{Phase, Shared};
use super::worker::{Post, WAKE, WorkerResult};

/// What a thread does, wherever it runs.
pub(super) trait Work<R>: FnOnce(Post) -> Result<WorkerResult<R>, LoadError> + Clone + Send + 'static {}

impl<R, F: FnOnce(Post) -> Result<WorkerResult<R>, LoadError> + Clone + Send + 'static> Work<R> for F {}

/// What one thread, or one process, has measured; and the CPU time of a process, in nanoseconds.
pub(super) type Handed<R> = (Vec<WorkerResult<R>>, u64);

/// Those that connect, and how to reach them.
pub(super) enum Crew {
    Threads(Vec<Waker>),
    Processes(Vec<Process>),
}

/// A thread that hands something in.
pub(super) type Hand<T> = JoinHandle<Result<T, LoadError>>;

/// How to reach those that were started, and what they will hand in.
type Started<W, T> = (Vec<W>, Vec<Hand<T>>);

impl Crew {
    /// Has all of them enter the phase that stands in `shared`.
    pub(super) fn enter(&mut self, phase: Phase, shared: &Shared) {
        match self {
            Crew::Threads(wakers) => wake(wakers),
            Crew::Processes(processes) => processes.iter_mut().for_each(|process| process.enter(phase, shared)),
        }
    }

    /// Has threads of this process see that more connections are wanted. Only a ramp goes on to more, and it has no
    /// other processes.
    pub(super) fn extended(&self) {
        if let Crew::Threads(wakers) = self {
            wake(wakers);
        }
    }

    /// Tells those who can't see it that the server has accepted all messages before `end`.
    pub(super) fn accepted(&mut self, end: u32) {
        if let Crew::Processes(processes) = self {
            processes.iter_mut().for_each(|process| process.accepted(end));
        }
    }
}

/// The plan's threads of this process, with the way to wake them.
pub(super) fn start_threads<T: Send + 'static>(
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    clock: Clock,
    work: impl FnOnce(Post) -> Result<T, LoadError> + Clone + Send + 'static,
) -> Result<Started<Waker, T>, LoadError> {
    let (mut wakers, mut threads) = (Vec::new(), Vec::new());
    for index in 0..plan.threads {
        let poll = Poll::new().map_err(LoadError::system("make a poll loop"))?;
        wakers.push(Waker::new(poll.registry(), WAKE).map_err(LoadError::system("make a waker"))?);
        let post = Post { index, plan: plan.clone(), shared: shared.clone(), clock, poll };
        let work = work.clone();
        let thread = spawn(format!("load-{index}"), move || work(post)).inspect_err(|_| {
            shared.set_phase(Phase::Stopping);
            wake(&wakers);
        });
        threads.push(thread?);
    }
    Ok((wakers, threads))
}

/// The plan's processes, with a thread that listens to each.
pub(super) fn start_processes<R: DeserializeOwned + Send + 'static>(
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    clock: Clock,
) -> Result<Started<Process, Handed<R>>, LoadError> {
    let (mut processes, mut threads) = (Vec::new(), Vec::new());
    for index in 0..plan.processes {
        // If one can't be started, the others end with the pipes to them.
        let (process, listener) = process::start(plan, index, clock.base_ns())?;
        let shared = shared.clone();
        processes.push(process);
        threads.push(spawn(format!("load-{index}"), move || listener.run(&shared))?);
    }
    Ok((processes, threads))
}

pub(super) fn wake(wakers: &[Waker]) {
    for waker in wakers {
        // It writes to an eventfd of our own; without it the run could not end.
        waker.wake().expect("an eventfd takes a wake-up");
    }
}

pub(super) fn spawn<T: Send + 'static>(
    name: String,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, LoadError> {
    thread::Builder::new().name(name).spawn(f).map_err(LoadError::system("start a thread"))
}

/// A thread's result; its panic is passed on.
pub(super) fn join<T>(thread: Hand<T>) -> Result<T, LoadError> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
