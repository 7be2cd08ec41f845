//! What this host says of itself: files below /proc and /sys, read into plain values.
//!
//! Each value may be missing: a container hides some files, and a kernel without a feature has none for it.

use std::fs;
use std::path::Path;

use serde::Serialize;

use corecast::host;

/// A limit that may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "Option<u64>")]
pub(super) enum Limit {
    /// So much and no more.
    Is(u64),
    /// As much as there is.
    Unlimited,
}

impl From<Limit> for Option<u64> {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Is(number) => Some(number),
            Limit::Unlimited => None,
        }
    }
}

impl Limit {
    /// The limit as a number to compare with.
    pub(super) fn number(self) -> u64 {
        Option::from(self).unwrap_or(u64::MAX)
    }

    fn from_text(text: &str) -> Option<Self> {
        if matches!(text, "unlimited" | "max" | "-1") {
            return Some(Limit::Unlimited);
        }
        text.parse().ok().map(Limit::Is)
    }
}

/// A resource limit of this process: what is in force, and how far it may raise that by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Rlimit {
    pub(super) soft: Limit,
    pub(super) hard: Limit,
}

/// What a control group allows; the tightest of this process's group and those above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Cgroup {
    /// Bytes of memory that may still be taken.
    pub(super) memory_left: Option<u64>,
    /// The memory limit that says so, in bytes.
    pub(super) memory_limit: Option<u64>,
    /// CPUs' worth of time.
    pub(super) cpus: Option<f64>,
}

/// Everything that the doctor looks at.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Snapshot {
    /// The kernel's release.
    pub(super) kernel: Option<String>,
    /// What forbids to set up a ring, with the remedy; empty: nothing; `None`: not tried.
    pub(super) io_uring_refused: Option<String>,
    /// kernel.io_uring_disabled: 0 for everyone, 1 for one group, 2 for nobody.
    pub(super) io_uring_disabled: Option<u64>,
    /// Open files of a process.
    pub(super) nofile: Option<Rlimit>,
    /// What the server's limit on open files would be where the system does not let it be raised to the hard one, and why.
    pub(super) nofile_refused: Option<(u64, String)>,
    /// Bytes of locked memory.
    pub(super) memlock: Option<Rlimit>,
    /// fs.nr_open: the most that the limit on open files can be raised to.
    pub(super) nr_open: Option<u64>,
    /// fs.file-max: open files of the whole machine.
    pub(super) file_max: Option<u64>,
    /// How many of those are open now.
    pub(super) files_open: Option<u64>,
    pub(super) somaxconn: Option<u64>,
    pub(super) tcp_max_syn_backlog: Option<u64>,
    /// Pages of data in all TCP queues: relaxed, pressure, limit.
    pub(super) tcp_mem: Option<[u64; 3]>,
    /// Pages of them in use.
    pub(super) tcp_mem_used: Option<u64>,
    /// Bytes of one connection's receive queue: least, at first, most.
    pub(super) tcp_rmem: Option<[u64; 3]>,
    /// The same of its send queue.
    pub(super) tcp_wmem: Option<[u64; 3]>,
    /// First and last port to connect from.
    pub(super) ip_local_port_range: Option<[u64; 2]>,
    pub(super) nf_conntrack_max: Option<u64>,
    pub(super) nf_conntrack_count: Option<u64>,
    /// Bytes of memory that this machine has.
    pub(super) memory_total: Option<u64>,
    /// Bytes that a program could take without swapping.
    pub(super) memory_available: Option<u64>,
    pub(super) cgroup: Cgroup,
    /// CPUs that this process may run on.
    pub(super) cpus_allowed: Option<usize>,
    /// Whether this is a container, so that limits come from its runtime.
    pub(super) is_container: bool,
}

/// Reads the files below `root`, which is `/` but in tests. Whether io_uring works is tried only on the real host.
pub(super) fn read(root: &Path) -> Snapshot {
    let tree = Tree { root };
    let kernel = tree.text("proc/sys/kernel/osrelease");
    let io_uring_refused = (root == Path::new("/")).then(|| {
        let release = kernel.clone().unwrap_or_default();
        host::check_io_uring(release).err().map(|error| error.to_string()).unwrap_or_default()
    });
    let sysctl = |name: &str| tree.numbers(&format!("proc/sys/{name}"));
    let one = |name: &str| sysctl(name).and_then(|numbers| numbers.first().copied());
    let three = |name: &str| sysctl(name).and_then(|numbers| numbers.try_into().ok());
    Snapshot {
        kernel,
        io_uring_refused,
        io_uring_disabled: one("kernel/io_uring_disabled"),
        nofile: tree.rlimit("Max open files"),
        nofile_refused: (root == Path::new("/")).then(nofile_refused).flatten(),
        memlock: tree.rlimit("Max locked memory"),
        nr_open: one("fs/nr_open"),
        file_max: one("fs/file-max"),
        files_open: one("fs/file-nr"),
        somaxconn: one("net/core/somaxconn"),
        tcp_max_syn_backlog: one("net/ipv4/tcp_max_syn_backlog"),
        tcp_mem: three("net/ipv4/tcp_mem"),
        tcp_mem_used: tree.tcp_pages(),
        tcp_rmem: three("net/ipv4/tcp_rmem"),
        tcp_wmem: three("net/ipv4/tcp_wmem"),
        ip_local_port_range: sysctl("net/ipv4/ip_local_port_range").and_then(|numbers| numbers.try_into().ok()),
        nf_conntrack_max: one("net/netfilter/nf_conntrack_max"),
        nf_conntrack_count: one("net/netfilter/nf_conntrack_count"),
        memory_total: tree.memory("MemTotal:"),
        memory_available: tree.memory("MemAvailable:"),
        cgroup: tree.cgroup(),
        cpus_allowed: tree.cpus_allowed(),
        is_container: tree.is_container(),
    }
}

/// Raises the limit on open files of this process, as the server does with its own, to see how far that goes.
fn nofile_refused() -> Option<(u64, String)> {
    let raised = host::raise_open_files().ok()?;
    raised.refusal.map(|refusal| (raised.limit, refusal))
}

impl Snapshot {
    /// Files that the server may open, once it has raised its limit.
    pub(super) fn files(&self) -> Option<u64> {
        let hard = self.nofile?.hard.number();
        Some(self.nofile_refused.as_ref().map_or(hard, |(limit, _)| *limit))
    }
}

/// The file tree that is read.
struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok().map(|text| text.trim().to_owned())
    }

    fn numbers(&self, path: &str) -> Option<Vec<u64>> {
        self.text(path)?.split_whitespace().map(|word| word.parse().ok()).collect()
    }

    /// A line of /proc/self/limits, see proc_pid_limits(5).
    fn rlimit(&self, name: &str) -> Option<Rlimit> {
        let text = self.text("proc/self/limits")?;
        let mut words = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
        Some(Rlimit { soft: Limit::from_text(words.next()?)?, hard: Limit::from_text(words.next()?)? })
    }

    /// A line of /proc/meminfo in bytes.
    fn memory(&self, name: &str) -> Option<u64> {
        let text = self.text("proc/meminfo")?;
        let kib: u64 =
            text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()?;
        kib.checked_mul(1024)
    }

    /// Pages in TCP queues now, from /proc/net/sockstat.
    fn tcp_pages(&self) -> Option<u64> {
        let text = self.text("proc/net/sockstat")?;
        let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
        let mut words = line.split_whitespace();
        words.find(|word| *word == "mem")?;
        words.next()?.parse().ok()
    }

    fn cpus_allowed(&self) -> Option<usize> {
        let text = self.text("proc/self/status")?;
        let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        list.trim().split(',').try_fold(0_usize, |sum, part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
        })
    }

    fn is_container(&self) -> bool {
        self.root.join(".dockerenv").exists()
            || self.root.join("run/.containerenv").exists()
            || self.text("proc/self/cgroup").is_some_and(|text| text.contains("kubepods") || text.contains("/docker/"))
    }

    /// Limits of control groups, of either version; a machine may have both at once.
    fn cgroup(&self) -> Cgroup {
        let mut found = Cgroup::default();
        for line in self.text("proc/self/cgroup").unwrap_or_default().lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                let mount = if self.root.join("sys/fs/cgroup/unified").is_dir() { "unified" } else { "" };
                for folder in host::group_folders(self.root, mount, path) {
                    found.tighten_memory(&folder, ["memory.max", "memory.current", "inactive_file"]);
                    found.tighten_cpus(cpu_max(&folder));
                }
                continue;
            }
            for controller in controllers.split(',') {
                // The mount is named after the controller, and where several share one also after all of them.
                let mount =
                    if self.root.join("sys/fs/cgroup").join(controller).is_dir() { controller } else { controllers };
                for folder in host::group_folders(self.root, mount, path) {
                    match controller {
                        "memory" => {
                            let names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"];
                            found.tighten_memory(&folder, names);
                        }
                        "cpu" => found.tighten_cpus(cfs_quota(&folder)),
                        _ => {}
                    }
                }
            }
        }
        found
    }
}

impl Cgroup {
    /// Takes a folder's memory limit into account. File pages that nobody used lately can be had back, so they are
    /// not counted as used.
    fn tighten_memory(&mut self, folder: &Path, [limit, used, inactive_file]: [&str; 3]) {
        // Version 1 says "no limit" by a number near 2^63, rounded to pages.
        let Some(Limit::Is(limit)) = word(folder, limit).and_then(|word| Limit::from_text(&word)) else { return };
        if limit >= 1 << 62 {
            return;
        }
        let used = word(folder, used).and_then(|word| word.parse().ok()).unwrap_or(0_u64);
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let reclaimable = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find_map(|(name, value)| (name == inactive_file).then(|| value.trim().parse::<u64>().ok())?)
            .unwrap_or(0);
        let left = limit.saturating_sub(used.saturating_sub(reclaimable));
        if self.memory_left.is_none_or(|tightest| left < tightest) {
            self.memory_left = Some(left);
            self.memory_limit = Some(limit);
        }
    }

    fn tighten_cpus(&mut self, cpus: Option<f64>) {
        if let Some(cpus) = cpus
            && self.cpus.is_none_or(|tightest| cpus < tightest)
        {
            self.cpus = Some(cpus);
        }
    }
}

/// The first word of a file.
fn word(folder: &Path, name: &str) -> Option<String> {
    fs::read_to_string(folder.join(name)).ok()?.split_whitespace().next().map(str::to_owned)
}

/// CPUs of a version 2 group: quota and period in microseconds.
fn cpu_max(folder: &Path) -> Option<f64> {
    let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

/// CPUs of a version 1 group; a quota of -1 is none.
fn cfs_quota(folder: &Path) -> Option<f64> {
    ratio(
        word(folder, "cpu.cfs_quota_us")?.parse().ok()?,
        word(folder, "cpu.cfs_period_us").and_then(|period| period.parse().ok()).unwrap_or(100_000.0),
    )
}

fn ratio(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}
