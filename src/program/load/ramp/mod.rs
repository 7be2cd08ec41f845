//! A ramp: more and more connections, and at each step what they cost and whether messages reach all of them, or only
//! those that asked. In the end all are closed, and the server must be as it was before.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use self::crowd::{Board, Crowd, quiet_until};
use self::plan::RampPlan;
use self::voice::Voice;
use super::LoadError;
use super::clock::ns;
use super::coordinator::{Coordinator, Run, cpu_ns, steady};
use super::payload::{STAMP_IDS, Stamp, Template};
use super::plan::{Load, Plan};
use super::scenario::Scenario;
use super::usage::{MemoryOfAll, ServerProcess};

mod args;
mod crowd;
mod line;
pub(super) mod plan;
pub(super) mod plot;
mod stage;
mod voice;

pub(crate) use args::RampArgs;
pub(super) use stage::{Again, Climb, Closed, Delivery, Stage, percent};

/// How often the crowd is looked at while a message is under way.
const LOOK_STEP: Duration = Duration::from_millis(5);

/// When all have a message, what comes within this time still shows, so that duplicates do; and the server comes to rest.
const GRACE: Duration = Duration::from_millis(200);

/// How often the server is looked at while it closes connections.
const CLOSE_STEP: Duration = Duration::from_millis(500);

/// How long a server that has closed all connections may take to hand their memory back.
const HAND_BACK: Duration = Duration::from_secs(5);

/// Carries out a ramp. `interrupted` ends it early.
pub(super) fn climb(
    plan: &Arc<Plan>,
    ramp: &RampPlan,
    interrupted: &AtomicBool,
) -> Result<(Run<()>, Climb), LoadError> {
    let mut climber = Climber::new(plan, ramp)?;
    let counted_before = ramp.counted()?;
    let fds_before = climber.fds()?;
    climber.climb.before = climber.memory()?;
    let cpu_begin_ns = cpu_ns();

    let board = &climber.board;
    // The threads begin to connect at once.
    let begun = Instant::now();
    let mut coordinator = start(plan, ramp, board)?;
    let climbed = climber.steps(&mut coordinator, begun, interrupted);
    let is_through = *climbed.as_ref().unwrap_or(&false);
    coordinator.progress.closing();
    let begin_ns = is_through.then_some(0);
    let run = coordinator.gather(begin_ns, ns(begun.elapsed()), cpu_ns() - cpu_begin_ns, interrupted);
    // What ended the climb comes before what is found in the end.
    climbed?;
    let mut run = run?;
    // It has the pauses of the steps in it; each step has a rate of its own.
    run.connects.first_begin_ns = None;
    climber.climb.wrongs = climber.board.wrongs();
    if is_through {
        climber.end(counted_before, fds_before, interrupted)?;
    }
    Ok((run, climber.climb))
}

/// Starts the threads of a crowd.
fn start(plan: &Arc<Plan>, ramp: &RampPlan, board: &Arc<Board>) -> Result<Coordinator<()>, LoadError> {
    let (ramp, board) = (ramp.clone(), board.clone());
    Coordinator::start(plan, None, Crowd::is_settled, steady(move |plan: &Arc<Plan>| Crowd::new(plan, &ramp, &board)))
}

/// A ramp under way.
struct Climber<'a> {
    plan: &'a Plan,
    ramp: &'a RampPlan,
    board: Arc<Board>,
    to_all: Template,
    to_few: Template,
    /// The number of the last message; they begin with 1.
    message: u32,
    climb: Climb,
}

impl<'a> Climber<'a> {
    /// Publishes once before anyone listens, to see whether the server allows it.
    fn new(plan: &'a Plan, ramp: &'a RampPlan) -> Result<Climber<'a>, LoadError> {
        let dialect = plan.dialect.publishing();
        let template = |topic: &str| Template::new(ramp.message_bytes, |payload| dialect.publish(topic, payload));
        let mut to_all = template(&ramp.topic);
        // Another run's number, so that no subscriber takes it for a message of this one.
        let probe = Stamp { run: (plan.run + 1) % STAMP_IDS, source: 0, seq: 0, at_ns: 0 };
        Voice::connect(plan)?.publish(to_all.stamp(probe), &dialect.publish_text(&ramp.topic))?;
        Ok(Climber {
            plan,
            ramp,
            board: Arc::default(),
            to_all,
            to_few: template(&ramp.few_topic),
            message: 0,
            climb: Climb::default(),
        })
    }

    /// Goes through the steps; `false` if the run ended before the last one was measured.
    fn steps(
        &mut self,
        coordinator: &mut Coordinator<()>,
        begun: Instant,
        interrupted: &AtomicBool,
    ) -> Result<bool, LoadError> {
        let mut begun = begun;
        for &step in &self.ramp.steps {
            let had = self.board.everyone();
            coordinator.extend(step);
            if !coordinator.connect(interrupted) || self.board.everyone() == 0 {
                return Ok(false);
            }
            let connect_ns = ns(begun.elapsed());
            coordinator.progress.measuring();
            if !self.settle(coordinator, interrupted) {
                return Ok(false);
            }
            let connections = self.board.everyone();
            let mut stage = Stage {
                connections,
                connect_ns,
                added: connections.saturating_sub(had),
                idle: self.memory()?,
                ..Stage::default()
            };
            for _ in 0..self.ramp.messages {
                stage.to_all.push(self.deliver(false, coordinator, interrupted)?);
            }
            stage.to_few = self.deliver(true, coordinator, interrupted)?;
            stage.after = self.memory()?;
            coordinator.progress.note(&line::line(&stage, &self.climb.before));
            self.climb.stages.push(stage);
            if coordinator.is_over(interrupted) {
                return Ok(false);
            }
            begun = Instant::now();
        }
        Ok(true)
    }

    fn memory(&self) -> Result<MemoryOfAll, LoadError> {
        MemoryOfAll::now(self.plan.server)
    }

    /// CPU time of the server so far, in nanoseconds.
    fn cpu_ns(&self) -> Result<Option<u64>, LoadError> {
        self.plan.server.map(ServerProcess::cpu_ns).transpose()
    }

    /// File descriptors that the server has open.
    fn fds(&self) -> Result<Option<u64>, LoadError> {
        self.plan.server.map(ServerProcess::fds).transpose()
    }

    /// Leaves the server alone; `false` if the run ended meanwhile.
    fn settle(&self, coordinator: &mut Coordinator<()>, interrupted: &AtomicBool) -> bool {
        let until = Instant::now() + self.ramp.settle;
        while let Some(rest) = until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            if coordinator.is_over(interrupted) {
                return false;
            }
            coordinator.look();
            thread::sleep(rest.min(Duration::from_millis(100)));
        }
        true
    }

    /// Publishes one message, and waits until all who are meant have it, or nobody gets it any more.
    fn deliver(
        &mut self,
        is_to_few: bool,
        coordinator: &mut Coordinator<()>,
        interrupted: &AtomicBool,
    ) -> Result<Delivery, LoadError> {
        let board = &self.board;
        let expected = if is_to_few { board.few() } else { board.everyone() };
        let topic = if is_to_few { &self.ramp.few_topic } else { &self.ramp.topic };
        self.message += 1;
        // The connection is made before the server's time is taken, so that it does not count.
        let mut voice = Voice::connect(self.plan)?;
        voice.ping()?;
        let cpu_begin_ns = self.cpu_ns()?;
        let begin_ns = coordinator.clock.now();
        board.begin(self.message, quiet_until(self.plan, begin_ns));
        let stamp = Stamp { run: self.plan.run, source: 0, seq: self.message, at_ns: begin_ns };
        let template = if is_to_few { &mut self.to_few } else { &mut self.to_all };
        voice.publish(template.stamp(stamp), &self.plan.dialect.publishing().publish_text(topic))?;

        let (mut last, mut last_ns) = (0, coordinator.clock.now());
        loop {
            let (received, now) = (board.received().0, coordinator.clock.now());
            if received != last {
                (last, last_ns) = (received, now);
            }
            let is_given_up = now - last_ns > ns(self.plan.settle_timeout) || coordinator.is_over(interrupted);
            if received >= expected || is_given_up {
                break;
            }
            coordinator.look();
            thread::sleep(LOOK_STEP);
        }
        thread::sleep(GRACE);
        let cpu_end_ns = self.cpu_ns()?;
        board.end();
        let (received, arrived_ns) = board.received();
        Ok(Delivery {
            expected,
            received,
            took_ns: arrived_ns.saturating_sub(begin_ns),
            // Less is what processes took with them that have ended.
            cpu_ns: cpu_end_ns.zip(cpu_begin_ns).map(|(end, begin)| end.saturating_sub(begin)),
        })
    }

    /// All connections are closed: looks at what is left of them, and whether the server can use again what it keeps.
    fn end(
        &mut self,
        counted_before: Option<u64>,
        fds_before: Option<u64>,
        interrupted: &AtomicBool,
    ) -> Result<(), LoadError> {
        let closed = self.closed(counted_before, fds_before)?;
        self.climb.kept = self.climb.left(&closed.memory);
        self.climb.closed = Some(closed);
        if self.climb.keeps_much() {
            self.climb.again = self.again(interrupted)?;
            self.climb.closed = Some(self.closed(counted_before, fds_before)?);
        }
        let fresh = Voice::connect(self.plan).and_then(|mut voice| voice.ping());
        self.climb.refused_fresh = fresh.err().map(|error| error.to_string());
        Ok(())
    }

    /// Connects all once more, in one step; `None` if the run was interrupted.
    fn again(&self, interrupted: &AtomicBool) -> Result<Option<Again>, LoadError> {
        let ramp = RampPlan { steps: vec![self.plan.connections], ..self.ramp.clone() };
        let plan = Arc::new(Plan { load: Load::Ramp(ramp), ..self.plan.clone() });
        let board = Arc::default();
        let mut coordinator = start(&plan, self.ramp, &board)?;
        coordinator.progress.note("the server keeps much of the memory; connecting all once more");
        let is_through = coordinator.connect(interrupted) && self.settle(&mut coordinator, interrupted);
        let memory = self.memory();
        let missing = plan.connections as u64 - board.everyone();
        coordinator.progress.closing();
        coordinator.gather(Some(0), 0, 0, interrupted)?;
        Ok(Some(Again { missing, memory: memory? }).filter(|_| is_through))
    }

    /// Waits until the server has let go of all connections and of most of their memory, or lets go of no more.
    fn closed(&self, counted_before: Option<u64>, fds_before: Option<u64>) -> Result<Closed, LoadError> {
        let begun = Instant::now();
        let more =
            |now: Option<u64>, before: Option<u64>| now.zip(before).map(|(now, before)| now.saturating_sub(before));
        let (mut last, mut changed, mut closed_all) = (Closed::default(), begun, None);
        loop {
            let closed = Closed {
                memory: self.memory()?,
                took_ns: 0,
                fds_left: more(self.fds()?, fds_before),
                connections_left: more(self.ramp.counted()?, counted_before),
            };
            let now = Instant::now();
            let is_free = closed.fds_left.unwrap_or(0) == 0 && closed.connections_left.unwrap_or(0) == 0;
            closed_all = is_free.then(|| closed_all.unwrap_or(now));
            let of_server = |closed: &Closed| (closed.memory.server, closed.fds_left, closed.connections_left);
            let patience = match closed_all {
                Some(_) if self.climb.should_hand_back(self.climb.left(&closed.memory)) => HAND_BACK,
                Some(_) => Duration::ZERO,
                None => self.plan.settle_timeout,
            };
            if of_server(&closed) != of_server(&last) {
                (last, changed) = (closed, now);
            } else if now - changed >= patience {
                return Ok(Closed { took_ns: ns(closed_all.unwrap_or(changed) - begun), ..closed });
            }
            thread::sleep(CLOSE_STEP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tests::plan;

    #[test]
    fn the_last_step_is_the_plan_and_patience_is_for_all_that_is_waited_for() {
        let plan = plan("ramp --steps 200,1k --patience 70s --ping-every 0").unwrap();
        assert_eq!((plan.connections, plan.first_step(), plan.ping_every), (1_000, 200, None));
        assert_eq!((plan.settle_timeout, plan.connect_timeout), (Duration::from_secs(70), Duration::from_secs(70)));
        let Load::Ramp(ramp) = &plan.load else { unreachable!() };
        assert_eq!(ramp.few_topic, format!("{}-few", ramp.topic));
    }

    #[test]
    fn unusable_values_are_refused_by_name() {
        for (line, start) in [
            ("ramp --messages 0", "--messages is 0; it must be from 1"),
            ("ramp --message-size 31", "--message-size is 31; it must be from 32"),
            ("ramp --framing sse", "--framing is sse; a ramp adds a second topic"),
            ("ramp --patience 0", "--patience is 0; it must be above 0"),
            ("ramp --framing redis", "--framing is redis; a ramp adds a second topic"),
            ("ramp --server-pid 0", "--server-pid is 0; it must be a process of this machine"),
            ("ramp --kept-max 101", "--kept-max is 101; it must be from 0 to 100"),
            ("ramp --spread-max NaN", "--spread-max is NaN; it must be from 0 to 100"),
        ] {
            let error = plan(line).unwrap_err();
            assert!(error.is_usage() && error.to_string().starts_with(start), "{line}: {error}");
        }
    }
}
