//! A run's coordinator: starts the threads, leads them through the phases, gathers what they measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;

use super::LoadError;
use super::clock::{Clock, ns};
use super::connect::{ConnectStats, Reasons};
use super::crew::{Crew, Hand, Handed, Work, join, spawn, start_processes, start_threads};
use super::plan::{Plan, PublishPlan};
use super::progress::Progress;
use super::publisher::{Publisher, PublisherResult};
use super::scenario::Scenario;
use super::shared::{LinkCounts, Phase, Shared, Totals};
use super::timeline::{Sample, Timeline};
use super::usage::{ServerUse, Usage};
use super::worker::{Post, Worker, WorkerResult};

/// How often the coordinator looks at the figures.
const LOOK_STEP: Duration = Duration::from_millis(100);

/// The same while it waits for the last messages.
const SETTLE_STEP: Duration = Duration::from_millis(10);

/// When all is in, what comes within this time still shows, so that duplicates do.
const GRACE: Duration = Duration::from_millis(100);

/// How often progress is shown.
const SHOW_STEP: Duration = Duration::from_millis(200);

/// What all threads measured. Times are nanoseconds of the run's clock.
pub(super) struct Run<R> {
    pub(super) connects: ConnectStats,
    pub(super) links: LinkCounts,
    pub(super) closed: Reasons,
    pub(super) stalled_closed: u64,
    pub(super) scenarios: Vec<R>,
    pub(super) publisher: Option<PublisherResult>,
    /// When the load began; `None` if the run was interrupted before.
    pub(super) begin_ns: Option<u64>,
    /// How long the load was on.
    pub(super) held_ns: u64,
    /// CPU time of this process from the begin of the load on.
    pub(super) cpu_ns: u64,
    /// What the server took, if its process was named and is still there.
    pub(super) server: Option<ServerUse>,
    pub(super) is_interrupted: bool,
    /// What the coordinator saw, by time.
    pub(super) samples: Timeline<Sample>,
    /// When the threads were told to stop.
    pub(super) end_ns: u64,
}

/// The connections are made first and then stay.
pub(super) fn steady<S: Scenario>(scenario: impl Fn(&Arc<Plan>) -> S + Clone + Send + 'static) -> impl Work<S::Result> {
    move |post: Post| {
        let scenario = scenario(&post.plan);
        Worker::new(post, scenario).run()
    }
}

pub(super) fn lead<R: DeserializeOwned + Send + 'static>(
    plan: &Arc<Plan>,
    publish: Option<&PublishPlan>,
    is_settled: fn(&Totals) -> bool,
    work: impl Work<R>,
    interrupted: &AtomicBool,
) -> Result<Run<R>, LoadError> {
    Coordinator::start(plan, publish, is_settled, work)?.lead(interrupted)
}

pub(super) struct Coordinator<R> {
    plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) progress: Progress,
    /// What the server took before the first connection.
    server_before: Option<Usage>,
    crew: Crew,
    workers: Vec<Hand<Handed<R>>>,
    publisher: Option<Publisher>,
    publishing: Option<Hand<PublisherResult>>,
    /// Whether all that is under way is in.
    is_settled: fn(&Totals) -> bool,
    samples: Samples,
}

/// What the coordinator has seen, by time.
#[derive(Default)]
struct Samples {
    timeline: Timeline<Sample>,
    /// When it was looked last.
    last_ns: u64,
    published: u64,
    connects: u64,
    /// What the processes were told that the server has accepted.
    accepted: u32,
}

impl Samples {
    fn take(&mut self, now: u64, totals: &Totals) {
        // What has come since the last look came then rather than now.
        *self.timeline.at(self.last_ns) += Sample {
            published: totals.published - self.published,
            connects: totals.links.ready - self.connects,
            open: Some(totals.links.open()),
        };
        (self.last_ns, self.published, self.connects) = (now, totals.published, totals.links.ready);
    }
}

impl<R: DeserializeOwned + Send + 'static> Coordinator<R> {
    /// Starts the threads, each of which does `work`, or the processes; they begin to connect at once.
    pub(super) fn start(
        plan: &Arc<Plan>,
        publish: Option<&PublishPlan>,
        is_settled: fn(&Totals) -> bool,
        work: impl Work<R>,
    ) -> Result<Self, LoadError> {
        let clock = Clock::start();
        let progress = Progress::new(plan.quiet);
        let server_before = server_usage(plan);
        // Before anything else, because it shows whether the server does what the run needs.
        let publisher = publish.map(|publish| Publisher::connect(plan, publish, clock.now())).transpose()?;
        let count = if plan.processes > 1 { plan.processes } else { plan.threads };
        let shared = Arc::new(Shared::new(count, plan.first_step(), progress.is_live()));
        let (crew, workers) = if plan.processes > 1 {
            let (processes, workers) = start_processes(plan, &shared, clock)?;
            (Crew::Processes(processes), workers)
        } else {
            let alone = move |post| Ok((vec![work(post)?], 0));
            let (wakers, workers) = start_threads(plan, &shared, clock, alone)?;
            (Crew::Threads(wakers), workers)
        };
        Ok(Coordinator {
            plan: plan.clone(),
            shared,
            clock,
            progress,
            server_before,
            crew,
            workers,
            publisher,
            publishing: None,
            is_settled,
            samples: Samples::default(),
        })
    }

    /// Leads the run through its phases.
    fn lead(mut self, interrupted: &AtomicBool) -> Result<Run<R>, LoadError> {
        let is_connected = self.connect(interrupted);
        let cpu_begin_ns = cpu_ns();
        let mut begin_ns = None;
        let mut held_ns = 0;
        let mut server = None;
        if is_connected {
            let begin = self.clock.now();
            begin_ns = Some(begin);
            let server_begin = server_usage(&self.plan);
            self.begin_load(begin)?;
            held_ns = self.hold(begin, interrupted);
            self.progress.settling();
            self.enter(Phase::Settling);
            self.settle();
            if let (Some(before), Some(begin), Some(end)) = (self.server_before, server_begin, server_usage(&self.plan))
            {
                server = Some(ServerUse { before, begin, end });
            }
        }
        let cpu_ns = cpu_ns() - cpu_begin_ns;
        let run = self.gather(begin_ns, held_ns, cpu_ns, interrupted)?;
        Ok(Run { server, ..run })
    }

    /// Ends the run: all threads close their connections and hand in their results.
    pub(super) fn gather(
        mut self,
        begin_ns: Option<u64>,
        held_ns: u64,
        cpu_ns: u64,
        interrupted: &AtomicBool,
    ) -> Result<Run<R>, LoadError> {
        let end_ns = self.clock.now();
        self.shared.cut_short();
        self.enter(Phase::Stopping);
        self.progress.done();

        let mut run = Run {
            connects: ConnectStats::default(),
            links: LinkCounts::default(),
            closed: Reasons::default(),
            stalled_closed: 0,
            scenarios: Vec::new(),
            publisher: None,
            begin_ns,
            held_ns,
            cpu_ns,
            server: None,
            is_interrupted: interrupted.load(Ordering::Relaxed),
            samples: self.samples.timeline,
            end_ns,
        };
        for worker in self.workers {
            let (results, cpu_ns) = join(worker)?;
            run.cpu_ns += cpu_ns;
            results.into_iter().for_each(|result| run.add(result));
        }
        run.publisher = self.publishing.map(join).transpose()?;
        if run.links.ready == 0 && !run.is_interrupted {
            return Err(LoadError::NothingConnected {
                connections: run.attempts(&self.plan),
                target: self.plan.target,
                kinds: run.connects.failures.to_string(),
                framing: self.plan.dialect.framing.name(),
            });
        }
        Ok(run)
    }

    /// Has the threads make connections up to so many.
    pub(super) fn extend(&self, wanted: usize) {
        self.shared.extend(wanted);
        self.crew.extended();
    }

    /// Waits until every connection is ready or given up; `false` if the run ended before.
    pub(super) fn connect(&mut self, interrupted: &AtomicBool) -> bool {
        if self.plan.connects_under_load() {
            return !self.is_over(interrupted);
        }
        self.progress.connecting(&self.plan, self.shared.wanted());
        loop {
            let totals = self.look();
            self.progress.connected(&totals);
            if self.is_over(interrupted) {
                return false;
            }
            if totals.links.ready + totals.links.given_up == self.shared.wanted() as u64 {
                return totals.links.ready > 0;
            }
            if let Some(publisher) = &mut self.publisher {
                publisher.keep_alive(self.clock.now());
            }
            thread::park_timeout(LOOK_STEP);
        }
    }

    fn begin_load(&mut self, begin_ns: u64) -> Result<(), LoadError> {
        self.progress.running(&self.plan, &self.shared.totals());
        self.shared.set_begin(begin_ns);
        self.enter(Phase::Running);
        if let Some(publisher) = self.publisher.take() {
            let (shared, clock) = (self.shared.clone(), self.clock);
            let thread = spawn("load-pub".into(), move || publisher.run(&shared, clock, begin_ns));
            self.publishing = Some(thread.inspect_err(|_| self.enter(Phase::Stopping))?);
        }
        Ok(())
    }

    /// Keeps the load on until its time is over; returns how long it was on.
    fn hold(&mut self, begin_ns: u64, interrupted: &AtomicBool) -> u64 {
        let duration_ns = ns(self.plan.duration);
        let (mut shown_ns, mut shown) = (begin_ns, 0);
        loop {
            let now = self.clock.now();
            let elapsed_ns = now - begin_ns;
            let totals = self.look();
            let is_empty = !self.plan.connects_under_load() && totals.links.closed == totals.links.ready;
            if elapsed_ns >= duration_ns || is_empty || self.is_over(interrupted) {
                if elapsed_ns < duration_ns {
                    self.shared.cut_short();
                }
                return elapsed_ns;
            }
            if now - shown_ns >= ns(SHOW_STEP) {
                let rate = (totals.counts.received - shown) as f64 * 1e9 / (now - shown_ns) as f64;
                self.progress.tick(Duration::from_nanos(elapsed_ns), rate, &totals);
                (shown_ns, shown) = (now, totals.counts.received);
            }
            // A look at each full second keeps what was published in it apart from the next.
            let second_ns = 1_000_000_000 - now % 1_000_000_000;
            thread::park_timeout(LOOK_STEP.min(Duration::from_nanos(second_ns.min(duration_ns - elapsed_ns))));
        }
    }

    /// Waits until all is in, or nothing has come for some time. What is missing then, the scenario knows.
    fn settle(&mut self) {
        let progress = |totals: &Totals| {
            let counts = totals.counts;
            (counts.received, counts.accounted, counts.outstanding, totals.published, totals.links.closed)
        };
        let (mut last, mut last_ns) = (progress(&self.shared.totals()), self.clock.now());
        loop {
            let (totals, now) = (self.look(), self.clock.now());
            if (self.is_settled)(&totals) {
                thread::sleep(GRACE);
                return;
            }
            if progress(&totals) != last {
                (last, last_ns) = (progress(&totals), now);
            }
            if now - last_ns > ns(self.plan.settle_timeout) || self.has_failed() {
                return;
            }
            thread::park_timeout(SETTLE_STEP);
        }
    }

    /// Looks at the figures, and notes what they have come to meanwhile.
    pub(super) fn look(&mut self) -> Totals {
        let totals = self.shared.totals();
        self.samples.take(self.clock.now(), &totals);
        let accepted = self.shared.accepted.load(Ordering::Acquire);
        if accepted != self.samples.accepted {
            self.samples.accepted = accepted;
            self.crew.accepted(accepted);
        }
        totals
    }

    fn enter(&mut self, phase: Phase) {
        self.shared.set_phase(phase);
        self.crew.enter(phase, &self.shared);
    }

    pub(super) fn is_over(&self, interrupted: &AtomicBool) -> bool {
        interrupted.load(Ordering::Relaxed) || self.shared.is_cut_short() || self.has_failed()
    }

    /// Whether a thread has ended although none was told to; its result says why.
    fn has_failed(&self) -> bool {
        let is_publisher_broken = self.publishing.as_ref().is_some_and(|publishing| publishing.is_finished())
            && !self.shared.totals().publisher_done;
        is_publisher_broken || self.workers.iter().any(JoinHandle::is_finished)
    }
}

/// Whether nothing waits for its answer.
pub(super) fn nothing_is_outstanding(totals: &Totals) -> bool {
    totals.counts.outstanding == 0
}

impl<R> Run<R> {
    /// Connections that were to be made.
    pub(super) fn attempts(&self, plan: &Plan) -> usize {
        if plan.connects_under_load() { (self.links.ready + self.links.given_up) as usize } else { plan.connections }
    }

    fn add(&mut self, worker: WorkerResult<R>) {
        self.connects.merge(worker.connects);
        self.links += worker.links;
        self.closed.merge(worker.closed);
        self.stalled_closed += worker.stalled_closed;
        self.scenarios.push(worker.scenario);
    }
}

/// What the server has taken so far; `None` if nobody asked, or if it is gone.
fn server_usage(plan: &Plan) -> Option<Usage> {
    plan.server.and_then(|server| server.usage().ok())
}

/// CPU time of this process so far, in nanoseconds.
pub(super) fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
