//! What a ramp measured, and what follows from it. Pure figures.

use super::crowd::Wrongs;
use super::plan::Limits;
use crate::load::usage::{Memory, MemoryOfAll};

/// A server that keeps more than this share of what its connections took has to show that it can use it again.
const KEPT_LITTLE_PERCENT: f64 = 10.0;

/// Less memory than that is not worth handing back.
const HAND_BACK_MIN_BYTES: u64 = 1_024 * 1_024;

/// The same connections may take this share more the second time: they fall into other gaps of the memory.
const LOST_MAX_PERCENT: f64 = 5.0;

/// So little is never a loss: the second time they may be spread over the shards in another way.
const LOST_MIN_BYTES: u64 = 512 * 1_024;

/// One message, from its publish to the last subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::load) struct Delivery {
    /// Subscribers of its topic when it was published.
    pub(in crate::load) expected: u64,
    /// Subscribers that got it.
    pub(in crate::load) received: u64,
    /// From its publish to the last arrival, in nanoseconds; 0 if there was none.
    pub(in crate::load) took_ns: u64,
    /// CPU time of the server meanwhile.
    pub(in crate::load) cpu_ns: Option<u64>,
}

/// The measures with one number of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::load) struct Stage {
    pub(in crate::load) connections: u64,
    /// How long the connections took that this step added, in nanoseconds, and how many they were.
    pub(in crate::load) connect_ns: u64,
    pub(in crate::load) added: u64,
    /// Memory before the messages, and after them.
    pub(in crate::load) idle: MemoryOfAll,
    pub(in crate::load) after: MemoryOfAll,
    /// The messages to all, one after the other.
    pub(in crate::load) to_all: Vec<Delivery>,
    /// The one to the few.
    pub(in crate::load) to_few: Delivery,
}

/// The server once all connections are closed. What is compared is compared with the time before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::load) struct Closed {
    pub(in crate::load) memory: MemoryOfAll,
    /// How long the server took to get there, in nanoseconds.
    pub(in crate::load) took_ns: u64,
    /// File descriptors that it has more than before.
    pub(in crate::load) fds_left: Option<u64>,
    /// Connections that it says it has more than before.
    pub(in crate::load) connections_left: Option<u64>,
}

/// All connections once more, after a server has kept much of the memory of the first ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::load) struct Again {
    /// Connections that did not come about this time.
    pub(in crate::load) missing: u64,
    pub(in crate::load) memory: MemoryOfAll,
}

/// A whole ramp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::load) struct Climb {
    pub(in crate::load) before: MemoryOfAll,
    pub(in crate::load) stages: Vec<Stage>,
    /// `None` if the run was interrupted. If all connected once more, what was left after the second time.
    pub(in crate::load) closed: Option<Closed>,
    /// Private memory that was kept after the first time, in bytes.
    pub(in crate::load) kept: Option<u64>,
    /// `None` if what was kept was little.
    pub(in crate::load) again: Option<Again>,
    pub(in crate::load) wrongs: Wrongs,
    /// Why a fresh connection could not be served in the end.
    pub(in crate::load) refused_fresh: Option<String>,
}

impl Delivery {
    /// CPU time of the server for each subscriber that got it, in nanoseconds.
    pub(in crate::load) fn cost_ns(&self) -> Option<f64> {
        self.cpu_ns.filter(|_| self.received > 0).map(|cpu_ns| cpu_ns as f64 / self.received as f64)
    }
}

impl Stage {
    /// The median of what the messages to all cost, and of how long they took, in nanoseconds.
    pub(in crate::load) fn cost_ns(&self) -> Option<f64> {
        median(self.to_all.iter().filter_map(Delivery::cost_ns))
    }

    pub(in crate::load) fn took_ns(&self) -> Option<f64> {
        median(self.to_all.iter().filter(|sent| sent.received > 0).map(|sent| sent.took_ns as f64))
    }

    fn each(&self, grown: u64) -> f64 {
        grown as f64 / self.connections.max(1) as f64
    }

    /// Bytes of the server's private memory that came with each connection.
    pub(in crate::load) fn private_each(&self, before: &MemoryOfAll) -> Option<f64> {
        self.server_each(before, |server| server.private)
    }

    /// The same of its resident memory.
    pub(in crate::load) fn resident_each(&self, before: &MemoryOfAll) -> Option<f64> {
        self.server_each(before, |server| server.resident)
    }

    fn server_each(&self, before: &MemoryOfAll, part: impl Fn(&Memory) -> u64) -> Option<f64> {
        let grown = part(self.idle.server.as_ref()?).saturating_sub(part(before.server.as_ref()?));
        Some(self.each(grown))
    }

    /// Bytes of this process that came with each connection.
    pub(in crate::load) fn client_each(&self, before: &MemoryOfAll) -> f64 {
        self.each(self.idle.client.saturating_sub(before.client))
    }

    /// Bytes of the machine that came with each connection, with both of its ends, but without this process. `None`
    /// if it is less than the server's own process took: then others on the machine have given memory back.
    pub(in crate::load) fn machine_each(&self, before: &MemoryOfAll) -> Option<f64> {
        let grown = self.idle.machine.saturating_sub(before.machine);
        let each = self.each(grown.saturating_sub(self.idle.client.saturating_sub(before.client)));
        Some(each).filter(|&each| each > self.private_each(before).unwrap_or(0.0))
    }
}

impl Climb {
    /// How far the cost of a delivered message strays up and down from the middle of the lowest and the highest step,
    /// in percent.
    pub(in crate::load) fn cost_spread_percent(&self) -> Option<f64> {
        let costs = self.stages.iter().filter_map(Stage::cost_ns);
        let (low, high) = costs.fold((f64::MAX, 0.0_f64), |(low, high), cost| (low.min(cost), high.max(cost)));
        (self.stages.len() > 1 && high > 0.0).then(|| (high - low) / (high + low) * 100.0)
    }

    /// Private memory of the server at its highest, beyond what it had before, in bytes.
    pub(in crate::load) fn grown(&self) -> Option<u64> {
        let before = self.before.server?.private;
        let all = self.stages.iter().flat_map(|stage| [stage.idle.server, stage.after.server]).flatten();
        all.map(|server| server.private.saturating_sub(before)).max()
    }

    /// How much more the server has than before the first connection, in bytes.
    pub(in crate::load) fn left(&self, now: &MemoryOfAll) -> Option<u64> {
        Some(now.server?.private.saturating_sub(self.before.server?.private))
    }

    /// Whether the server keeps so much that it must show that it can use it again.
    pub(in crate::load) fn keeps_much(&self) -> bool {
        self.is_much(self.kept)
    }

    /// Whether a server that keeps this many bytes may be expected to hand some of them back.
    pub(in crate::load) fn should_hand_back(&self, kept: Option<u64>) -> bool {
        kept > Some(HAND_BACK_MIN_BYTES) && self.is_much(kept)
    }

    fn is_much(&self, kept: Option<u64>) -> bool {
        kept.zip(self.grown()).is_some_and(|(kept, grown)| percent(kept, grown) > KEPT_LITTLE_PERCENT)
    }

    /// Memory that the same connections took beyond what they took the first time, in bytes: what was kept and could
    /// not be used for them.
    pub(in crate::load) fn lost(&self) -> Option<u64> {
        let again = self.left(&self.again?.memory)?;
        Some(again.saturating_sub(self.grown()?))
    }

    /// What went wrong, a sentence each. Connections that failed or were lost are not looked at here.
    pub(in crate::load) fn problems(&self, limits: &Limits) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |count: u64, text: &str| {
            if count > 0 {
                problems.push(format!("{count} {text}"));
            }
        };
        let Wrongs { duplicated, strayed, late, corrupted, gaps } = self.wrongs;
        wrong(duplicated, "messages arrived twice");
        wrong(strayed, "messages reached connections that had not subscribed to their topic");
        wrong(late, "messages arrived late, or belonged to another run");
        wrong(corrupted, "messages were not what was published");
        wrong(gaps, "messages were dropped, as a GAP told");
        for stage in &self.stages {
            for (sent, whom) in stage.to_all.iter().map(|sent| (sent, "all")).chain([(&stage.to_few, "the few")]) {
                let missing = sent.expected.saturating_sub(sent.received);
                wrong(missing, &format!("of {} subscribers missed a message to {whom}", sent.expected));
            }
        }
        if let Some(again) = &self.again {
            wrong(again.missing, "connections could not be opened a second time");
        }
        if let Some(closed) = &self.closed {
            wrong(closed.fds_left.unwrap_or(0), "file descriptors of closed connections are left in the server");
            wrong(closed.connections_left.unwrap_or(0), "connections are left in the server's own count");
        }
        problems.extend(self.refused_fresh.iter().map(|error| format!("a fresh connection was not served: {error}")));
        problems.extend(self.broken_limits(limits));
        problems
    }

    /// What times alone say, a sentence each. Whatever else runs on the machine can be the cause, so it is not a
    /// verdict on the server.
    pub(in crate::load) fn warnings(&self, limits: &Limits) -> Vec<String> {
        let spread = self.cost_spread_percent().zip(limits.spread_max).filter(|(spread, max)| spread > max);
        let text = |(spread, max): (f64, f64)| {
            format!(
                "the cost of a message differs by ±{spread:.1} % between the steps, more than ±{max} %; something else \
                 may have kept the machine busy, so measure again"
            )
        };
        spread.map(text).into_iter().collect()
    }

    fn broken_limits(&self, limits: &Limits) -> Vec<String> {
        let mut broken = Vec::new();
        let last = self.stages.last().and_then(|stage| stage.private_each(&self.before));
        if let (Some(max), Some(each)) = (limits.bytes_max, last)
            && each > max as f64
        {
            broken.push(format!("a connection takes {each:.0} B of the server's private memory; at most {max} B"));
        }
        let share = |bytes| self.grown().map_or(0.0, |grown| percent(bytes, grown));
        if let (Some(max), Some(kept)) = (limits.kept_max, self.kept)
            && share(kept) > max
        {
            let share = share(kept);
            broken
                .push(format!("the server keeps {kept} B, {share:.1} % of what its connections took; at most {max} %"));
        }
        if let Some(lost) = self.lost().filter(|&lost| lost > LOST_MIN_BYTES && share(lost) > LOST_MAX_PERCENT) {
            let share = share(lost);
            broken.push(format!(
                "the server loses memory: the same connections took {lost} B more the second time, {share:.1} %"
            ));
        }
        broken
    }
}

/// What share of `whole` `part` is, in percent.
pub(in crate::load) fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes_max: Some(1_024), spread_max: Some(10.0), kept_max: Some(10.0) };

    fn memory(machine: u64, client: u64, private: u64) -> MemoryOfAll {
        MemoryOfAll { machine, client, server: Some(Memory { resident: private + 500, private }) }
    }

    fn sent(count: u64, cost_ns: u64) -> Delivery {
        Delivery { expected: count, received: count, took_ns: count * 10, cpu_ns: Some(count * cost_ns) }
    }

    /// Connections of 1,000 B each, 5,000 B of the machine for both ends and 100 B of the client.
    fn stage(connections: u64, cost_ns: u64) -> Stage {
        let idle = memory(10_000 + connections * 5_100, 700 + connections * 100, 2_000 + connections * 1_000);
        Stage {
            connections,
            connect_ns: 1,
            added: connections,
            idle,
            after: idle,
            to_all: vec![sent(connections, cost_ns), sent(connections, cost_ns * 9), sent(connections, cost_ns)],
            to_few: sent(connections / 100, cost_ns),
        }
    }

    /// So many bytes more than the first time.
    fn again(more: u64) -> Again {
        Again { memory: memory(0, 0, 2_002_000 + more), missing: 0 }
    }

    fn climb() -> Climb {
        let closed = Closed { memory: memory(10_000, 700, 2_000), fds_left: Some(0), ..Closed::default() };
        Climb {
            before: memory(10_000, 700, 2_000),
            stages: vec![stage(1_000, 9_000), stage(2_000, 10_000)],
            closed: Some(closed),
            kept: Some(0),
            again: Some(again(500_000)),
            ..Climb::default()
        }
    }

    #[test]
    fn memory_is_what_came_with_the_connections_and_the_clients_share_is_apart() {
        let climb = climb();
        let stage = &climb.stages[1];
        assert_eq!(
            (stage.private_each(&climb.before), stage.resident_each(&climb.before)),
            (Some(1_000.0), Some(1_000.0))
        );
        assert_eq!((stage.client_each(&climb.before), stage.machine_each(&climb.before)), (100.0, Some(5_000.0)));
        assert_eq!((climb.grown(), climb.left(&stage.idle)), (Some(2_000_000), Some(2_000_000)));
        let noisy = MemoryOfAll { machine: 9_900_000, ..climb.before };
        assert_eq!(stage.machine_each(&noisy), None);
        let unknown = MemoryOfAll { server: None, ..climb.before };
        assert_eq!(stage.private_each(&unknown), None);
    }

    #[test]
    fn costs_are_medians_and_their_spread_is_up_and_down_from_the_middle() {
        let climb = climb();
        assert_eq!(climb.stages[0].cost_ns(), Some(9_000.0));
        let spread = climb.cost_spread_percent().unwrap();
        assert!((spread - 100.0 / 19.0).abs() < 1e-9, "{spread}");
        assert_eq!(median([4.0, 1.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
        assert_eq!(Climb { stages: vec![stage(1_000, 9)], ..climb }.cost_spread_percent(), None);
    }

    #[test]
    fn only_a_server_that_keeps_much_is_asked_to_use_it_again() {
        let keeps = |kept| Climb { kept, ..climb() }.keeps_much();
        assert!(keeps(Some(200_001)) && !keeps(Some(200_000)) && !keeps(None));
        let should_hand_back = |kept| climb().should_hand_back(kept);
        let least = HAND_BACK_MIN_BYTES;
        assert!(should_hand_back(Some(least + 1)) && !should_hand_back(Some(least)) && !should_hand_back(None));
    }

    #[test]
    fn a_ramp_without_a_fault_has_no_problem() {
        assert_eq!(climb().problems(&LIMITS), Vec::<String>::new());
        // Without the server's process only the messages are judged.
        let mut blind = climb();
        blind.before.server = None;
        assert_eq!(blind.problems(&LIMITS), Vec::<String>::new());
    }

    #[test]
    fn what_times_alone_say_is_a_warning() {
        assert_eq!(climb().warnings(&LIMITS), Vec::<String>::new());
        let mut climb = climb();
        climb.stages[1] = stage(2_000, 11_100);
        assert_eq!(climb.problems(&LIMITS), Vec::<String>::new());
        let warnings = climb.warnings(&LIMITS);
        assert!(
            warnings.len() == 1 && warnings[0].starts_with("the cost of a message differs by ±10.4 %"),
            "{warnings:?}"
        );
    }

    #[test]
    fn each_fault_is_a_problem_of_its_own() {
        type Fault = fn(&mut Climb);
        let closed = |climb: &mut Climb, with: fn(&mut Closed)| with(climb.closed.as_mut().unwrap());
        let faults: [(Fault, &str); 14] = [
            (|climb| climb.wrongs.duplicated = 3, "3 messages arrived twice"),
            (|climb| climb.wrongs.strayed = 1, "1 messages reached connections that had not subscribed"),
            (|climb| climb.wrongs.late = 1, "1 messages arrived late"),
            (|climb| climb.wrongs.corrupted = 1, "1 messages were not what was published"),
            (|climb| climb.wrongs.gaps = 7, "7 messages were dropped, as a GAP told"),
            (|climb| climb.stages[1].to_all[2].received -= 2, "2 of 2000 subscribers missed a message to all"),
            (|climb| climb.stages[0].to_few.received = 9, "1 of 10 subscribers missed a message to the few"),
            (
                |climb| climb.closed.as_mut().unwrap().fds_left = Some(4),
                "4 file descriptors of closed connections are left",
            ),
            (|climb| climb.closed.as_mut().unwrap().connections_left = Some(5), "5 connections are left"),
            (|climb| climb.refused_fresh = Some("why".into()), "a fresh connection was not served: why"),
            (
                |climb| climb.stages[1].idle.server.as_mut().unwrap().private += 2_000 * 25,
                "a connection takes 1025 B of the server's private memory; at most 1024 B",
            ),
            (|climb| climb.kept = Some(200_001), "the server keeps 200001 B, 10.0 % of what its connections took"),
            (
                |climb| climb.again = Some(Again { missing: 1, ..again(0) }),
                "1 connections could not be opened a second",
            ),
            (
                |climb| climb.again = Some(again(600_000)),
                "the server loses memory: the same connections took 600000 B more",
            ),
        ];
        for (fault, said) in faults {
            let mut climb = climb();
            fault(&mut climb);
            let problems = climb.problems(&LIMITS);
            assert!(problems.len() == 1 && problems[0].starts_with(said), "{said}: {problems:?}");
        }
        let mut climb = climb();
        closed(&mut climb, |closed| closed.fds_left = None);
        assert!(climb.problems(&LIMITS).is_empty());
    }
}
