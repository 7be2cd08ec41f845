//! The CPUs of this machine: which of them this process may use, and which of those others use least.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::config::{CPU_LOOK_MS, CPU_LOOK_THREADS_MAX};

/// What is known of a CPU's use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Use {
    cpu: usize,
    /// Processes that have a thread pinned to this CPU alone, as other servers like this one have.
    pinned: usize,
    /// Quarters of the last moment that it was busy.
    busy: u64,
    /// CPUs that share a core with it.
    siblings: Vec<usize>,
}

/// The CPUs that this process may run on.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    sched_getaffinity(None).map_or_else(|_| Vec::new(), |set| members(&set).collect())
}

fn members(set: &CpuSet) -> impl Iterator<Item = usize> {
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu))
}

/// CPUs' worth of time that this process may use: no more than it may run on, and no more than its cgroup's quota.
pub(crate) fn parallelism() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// `count` of the CPUs `among`, in rising order: those that others use least. It takes some [`CPU_LOOK_MS`].
pub(crate) fn least_used(among: &[usize], count: usize) -> Vec<usize> {
    let before = times();
    thread::sleep(Duration::from_millis(CPU_LOOK_MS));
    let after = times();
    let pinned = pinned();
    let uses = among.iter().map(|&cpu| Use {
        cpu,
        pinned: pinned.get(&cpu).copied().unwrap_or(0),
        busy: busy(before.get(&cpu), after.get(&cpu)),
        siblings: siblings(cpu),
    });
    // Among equals, chance keeps servers apart that don't see each other, as in two containers.
    let chance = RandomState::new();
    choose(uses.collect(), count, |cpu| chance.hash_one(cpu))
}

/// Chooses `count` CPUs, one after the other: each time the one with the fewest pinned to it, then with the fewest pinned
/// or chosen on the same core, then the least busy one, then by `chance`.
fn choose(uses: Vec<Use>, count: usize, chance: impl Fn(usize) -> u64) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    let pinned: HashMap<usize, usize> = uses.iter().map(|used| (used.cpu, used.pinned)).collect();
    for _ in 0..count {
        let on_core = |used: &Use| -> usize {
            let taken = |cpu: &usize| pinned.get(cpu).copied().unwrap_or(0) + usize::from(chosen.contains(cpu));
            used.siblings.iter().filter(|cpu| **cpu != used.cpu).map(taken).sum()
        };
        let left = uses.iter().filter(|used| !chosen.contains(&used.cpu));
        let best = left.min_by_key(|used| (used.pinned, on_core(used), used.busy, chance(used.cpu)));
        let Some(cpu) = best.map(|used| used.cpu) else { break };
        chosen.push(cpu);
    }
    chosen.sort_unstable();
    chosen
}

/// How many processes, this one included, have threads that are pinned to one CPU alone, by CPU. Those that this process
/// can't see are not counted, and no more than [`CPU_LOOK_THREADS_MAX`] threads are looked at.
fn pinned() -> HashMap<usize, usize> {
    let mut count = HashMap::new();
    let mut threads = 0;
    for process in numbers("/proc") {
        // The kernel's own threads have no command line; each CPU has some.
        if fs::read(format!("/proc/{process}/cmdline")).map_or(true, |line| line.is_empty()) {
            continue;
        }
        let mut cpus = HashSet::new();
        for thread in numbers(&format!("/proc/{process}/task")) {
            let set = Pid::from_raw(thread).and_then(|thread| sched_getaffinity(Some(thread)).ok());
            if let Some(set) = set.filter(|set| set.count() == 1) {
                cpus.extend(members(&set));
            }
            threads += 1;
        }
        for cpu in cpus {
            *count.entry(cpu).or_default() += 1;
        }
        if threads > CPU_LOOK_THREADS_MAX {
            break;
        }
    }
    count
}

/// The entries of a folder whose names are numbers.
fn numbers(folder: &str) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Time that each CPU was idle, and all of its time, in ticks since the boot; see proc_stat(5).
fn times() -> HashMap<usize, (u64, u64)> {
    times_in(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn times_in(stat: &str) -> HashMap<usize, (u64, u64)> {
    let of_line = |line: &str| {
        let (name, numbers) = line.split_once(' ')?;
        let cpu = name.strip_prefix("cpu")?.parse().ok()?;
        let ticks: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted to the first two already.
        let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0);
        Some((cpu, (idle, ticks.iter().take(8).sum())))
    };
    stat.lines().filter_map(of_line).collect()
}

/// Quarters of the time between two looks that a CPU was busy; 0 where that can't be known.
fn busy(before: Option<&(u64, u64)>, after: Option<&(u64, u64)>) -> u64 {
    let (Some(before), Some(after)) = (before, after) else { return 0 };
    let (idle, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    (4 * all.saturating_sub(idle) + all / 2).checked_div(all).unwrap_or(0)
}

/// The CPUs of the core that a CPU belongs to.
fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    let list = fs::read_to_string(path).unwrap_or_default();
    list.trim().parse::<crate::config::Cpus>().map(|cpus| cpus.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu: usize, pinned: usize, busy: u64, siblings: &[usize]) -> Use {
        Use { cpu, pinned, busy, siblings: siblings.to_vec() }
    }

    /// By the number, so that a test knows what comes.
    fn in_order(cpu: usize) -> u64 {
        cpu as u64
    }

    #[test]
    fn pinned_cpus_come_last_then_shared_cores_then_busy_cpus() {
        let four = |pinned: [usize; 4], busy: [u64; 4]| -> Vec<Use> {
            (0..4).map(|cpu| used(cpu, pinned[cpu], busy[cpu], &[cpu, cpu ^ 1])).collect()
        };
        for (pinned, busy, count, expected) in [
            ([0, 0, 0, 0], [0, 0, 0, 0], 1, &[0][..]),
            ([0, 0, 0, 0], [0, 0, 0, 0], 2, &[0, 2]),
            ([0, 0, 0, 0], [4, 0, 0, 4], 2, &[1, 2]),
            ([1, 0, 0, 0], [0, 0, 0, 0], 1, &[2]),
            ([1, 0, 0, 0], [0, 0, 4, 4], 2, &[1, 2]),
            ([1, 0, 0, 0], [0, 0, 4, 4], 3, &[1, 2, 3]),
            ([1, 1, 1, 0], [0, 0, 0, 4], 1, &[3]),
            ([2, 1, 2, 2], [0, 4, 0, 0], 1, &[1]),
            ([0, 0, 0, 0], [1, 2, 3, 4], 9, &[0, 1, 2, 3]),
        ] {
            assert_eq!(choose(four(pinned, busy), count, in_order), expected, "{pinned:?} {busy:?} {count}");
        }
    }

    #[test]
    fn equals_are_left_to_chance() {
        let equal = || (0..4).map(|cpu| used(cpu, 0, 0, &[])).collect();
        assert_eq!(choose(equal(), 1, |cpu| 3 - cpu as u64), [3]);
    }

    #[test]
    fn a_thread_that_is_pinned_counts_for_its_cpu_as_long_as_it_lives() {
        let cpu = *allowed_cpus().last().unwrap();
        let count = || pinned().get(&cpu).copied().unwrap_or(0);
        // Other tests of this process may pin threads meanwhile; all of its threads count once.
        thread::scope(|scope| {
            let (pinned_to, pinned_here) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                let mut set = CpuSet::new();
                set.set(cpu);
                rustix::thread::sched_setaffinity(None, &set).unwrap();
                pinned_to.send(()).unwrap();
                let _ = ended.recv();
            });
            pinned_here.recv().unwrap();
            assert!(count() >= 1);
            drop(end);
        });
    }

    #[test]
    fn the_share_of_busy_time_is_read_from_the_ticks() {
        let before = times_in("cpu  1 2 3\ncpu0 10 0 10 100 0 0 0 0 0 0\ncpu1 0 0 0 50 50 0 0 0 0 0\nintr 5\n");
        let after = times_in("cpu  1 2 3\ncpu0 85 0 10 125 0 0 0 0 9 9\ncpu1 0 0 0 100 100 0 0 0 0 0\n");
        let quarters = [0, 1, 2].map(|cpu| busy(before.get(&cpu), after.get(&cpu)));
        assert_eq!(quarters, [3, 0, 0]);
        assert!(!times().is_empty(), "this machine has CPUs");
    }
}
