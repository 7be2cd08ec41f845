//! What the readings mean: how many connections each resource allows, what stops the server first, and what lifts it.
//! Pure: a snapshot in, findings out.

use serde::Serialize;

use super::super::text::{grouped, size};
use super::reading::{Limit, Snapshot};
use corecast::{Config, HostError, SHARDS_MAX, host};

/// Process memory of one idle subscribed connection in bytes, generously: it is about a quarter of a kilobyte, and a
/// connection that is not idle has buffers.
pub(super) const PROCESS_BYTES: u64 = 512;

/// Kernel memory of one idle TCP connection in bytes: its socket (2.4 KB), inode, file and directory entry (1.2 KB), and
/// the ring's request that waits for it (0.4 KB), as /proc/slabinfo shows them on a 64-bit Linux 6. Data that waits in
/// its queues comes on top.
pub(super) const KERNEL_BYTES: u64 = 4_096;

/// Bytes that the process takes before its first connection, generously.
const SERVER_BYTES: u64 = 32 << 20;

/// Bytes of locked memory that each shard's ring and buffers may take, rounded up.
const LOCKED_BYTES_PER_SHARD: u64 = 1 << 20;

/// deploy/tune.sh never sets up for fewer connections.
const TUNE_CONNECTIONS_MIN: u64 = 10_000;

/// How many connections are spoken of when nobody says: what `max_connections` is by itself.
pub(super) fn default_connections() -> u64 {
    Config::default().max_connections as u64
}

/// A command that lifts an obstacle, and where it is typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Remedy {
    pub(super) place: &'static str,
    pub(super) command: String,
}

fn remedy(place: &'static str, command: impl Into<String>) -> Remedy {
    Remedy { place, command: command.into() }
}

/// A resource that each connection takes a part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Bound {
    /// Its name, which scripts may rely on.
    pub(super) resource: &'static str,
    /// Connections that it has room for.
    pub(super) allows: u64,
    /// What was read, and how the number comes from it.
    pub(super) reading: String,
    /// What gives it room for as many as are spoken of; empty if it has.
    pub(super) remedies: Vec<Remedy>,
}

/// Something else worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) resource: &'static str,
    pub(super) says: String,
    pub(super) remedies: Vec<Remedy>,
}

/// The doctor's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Diagnosis {
    /// Connections that were asked for.
    pub(super) wanted: Option<u64>,
    /// Connections that this host can reach; `None`: nothing could be read that tells. 0 if the server can't start.
    pub(super) reaches: Option<u64>,
    /// Shards that the server would run.
    pub(super) shards: usize,
    /// What keeps the server from starting at all.
    pub(super) faults: Vec<Finding>,
    /// What bounds the number of connections, tightest first.
    pub(super) bounds: Vec<Bound>,
    /// What does not bound it, and hurts all the same.
    pub(super) advice: Vec<Finding>,
    /// Resources that could not be read.
    pub(super) unknown: Vec<&'static str>,
}

impl Diagnosis {
    /// Connections that remedies are for.
    pub(super) fn target(&self) -> u64 {
        self.wanted.unwrap_or_else(default_connections)
    }

    /// Whether the server starts and as many connections as were asked for fit.
    pub(super) fn is_well(&self) -> bool {
        self.faults.is_empty()
            && self.wanted.is_none_or(|wanted| self.reaches.is_none_or(|connections| connections >= wanted))
    }
}

/// Says what a host with these readings can do.
pub(super) fn diagnose(host: &Snapshot, wanted: Option<u64>) -> Diagnosis {
    let mut doctor = Doctor {
        host,
        target: wanted.unwrap_or_else(default_connections),
        shards: shards(host),
        bounds: Vec::new(),
        advice: Vec::new(),
        unknown: Vec::new(),
    };
    let faults = doctor.faults();
    doctor.open_files();
    doctor.memory();
    doctor.conntrack();
    doctor.tcp();
    doctor.locked_memory();
    doctor.cpus();
    let Doctor { shards, mut bounds, advice, unknown, .. } = doctor;
    bounds.sort_by_key(|bound| bound.allows);
    let reaches = if faults.is_empty() { bounds.first().map(|bound| bound.allows) } else { Some(0) };
    Diagnosis { wanted, reaches, shards, faults, bounds, advice, unknown }
}

/// As the server chooses by itself: one for each CPU, and no more than the quota has time for.
fn shards(host: &Snapshot) -> usize {
    let allowed = host.cpus_allowed.unwrap_or(1);
    let quota = host.cgroup.cpus.map_or(allowed, |cpus| cpus as usize);
    allowed.min(quota).clamp(1, SHARDS_MAX)
}

/// A diagnosis in the making.
struct Doctor<'a> {
    host: &'a Snapshot,
    target: u64,
    shards: usize,
    bounds: Vec<Bound>,
    advice: Vec<Finding>,
    unknown: Vec<&'static str>,
}

impl Doctor<'_> {
    /// Adds a bound. Remedies are kept only if it is an obstacle.
    fn bound(&mut self, resource: &'static str, allows: u64, reading: String, remedies: Vec<Remedy>) {
        let remedies = if allows < self.target { remedies } else { Vec::new() };
        self.bounds.push(Bound { resource, allows, reading, remedies });
    }

    fn advise(&mut self, resource: &'static str, says: String, remedies: Vec<Remedy>) {
        self.advice.push(Finding { resource, says, remedies });
    }

    fn faults(&mut self) -> Vec<Finding> {
        let mut faults = Vec::new();
        let mut fault = |resource, says: String| faults.push(Finding { resource, says, remedies: Vec::new() });
        match &self.host.kernel {
            Some(release) => {
                if let Err(error) = host::check_release(release) {
                    fault("kernel", error.to_string());
                }
            }
            None => self.unknown.push("kernel"),
        }
        match (&self.host.io_uring_refused, self.host.io_uring_disabled) {
            (Some(refused), _) if refused.is_empty() => {}
            (Some(refused), _) => fault("io_uring", refused.clone()),
            (None, Some(value @ 1..)) => {
                let value = u32::try_from(value).unwrap_or(u32::MAX);
                fault("io_uring", HostError::Disabled { value }.to_string());
            }
            (None, _) => self.unknown.push("io_uring"),
        }
        match self.host.memlock {
            Some(memlock) => {
                if let Err(error) = host::check_memlock(memlock.soft.into()) {
                    fault("locked-memory", error.to_string());
                }
            }
            None => self.unknown.push("locked-memory"),
        }
        if let Some(files) = self.host.files()
            && let Err(error) = host::fds_for(files, self.shards, true)
        {
            fault("open-files", error.to_string());
        }
        faults
    }

    /// What `deploy/tune.sh` sets limits to for the target: a fifth to spare.
    fn files_wanted(&self) -> u64 {
        let connections = self.target.max(TUNE_CONNECTIONS_MIN);
        connections + connections.div_ceil(5)
    }

    fn tune(&self, command: &str) -> String {
        format!("sudo deploy/tune.sh {command} --connections {}", self.target)
    }

    /// The command for a kernel setting that belongs to the machine, not to the container.
    fn tune_machine(&self) -> Vec<Remedy> {
        vec![remedy(if self.host.is_container { "on the host" } else { "now" }, self.tune("apply"))]
    }

    fn open_files(&mut self) {
        let own = host::own_fds(self.shards, true);
        match self.host.nofile {
            Some(nofile) => {
                let reading = match (nofile.hard, &self.host.nofile_refused) {
                    (_, Some((_, refusal))) => refusal.clone(),
                    (Limit::Unlimited, None) => "no limit".to_owned(),
                    (Limit::Is(hard), None) => format!(
                        "hard limit {}: one descriptor a connection, {own} for the server itself ({})",
                        grouped(hard),
                        match nofile.soft {
                            soft if soft == nofile.hard => "the soft limit is the same".to_owned(),
                            soft => format!("it raises its soft limit of {} by itself", grouped(soft.number())),
                        },
                    ),
                };
                let remedies = self.nofile_remedies();
                let files = self.host.files().unwrap_or(u64::MAX);
                self.bound("open-files", files.saturating_sub(own), reading, remedies);
            }
            None => self.unknown.push("open-files"),
        }
        match self.host.nr_open {
            Some(nr_open) => {
                let reading = format!("{}: the limit on open files can't be raised beyond it", grouped(nr_open));
                let remedies = self.tune_machine();
                self.bound("fs.nr_open", nr_open.saturating_sub(own), reading, remedies);
            }
            None => self.unknown.push("fs.nr_open"),
        }
        match self.host.file_max {
            Some(file_max) => {
                let open = self.host.files_open.unwrap_or(0);
                let reading = format!("{} for the whole machine, {} open now", files_text(file_max), grouped(open));
                let remedies = self.tune_machine();
                self.bound("fs.file-max", file_max.saturating_sub(open).saturating_sub(own), reading, remedies);
            }
            None => self.unknown.push("fs.file-max"),
        }
    }

    fn nofile_remedies(&self) -> Vec<Remedy> {
        let wanted = self.files_wanted();
        if self.host.is_container {
            return vec![
                remedy("docker", format!("docker run --ulimit nofile={wanted}:{wanted} …")),
                remedy("Kubernetes", format!("LimitNOFILE={wanted} for the node's containerd (deploy/README.md)")),
                remedy("root's shell", format!("ulimit -n {wanted} (with CAP_SYS_RESOURCE)")),
            ];
        }
        let mut remedies = Vec::new();
        // Nobody can go beyond fs.nr_open.
        if self.host.nr_open.is_some_and(|nr_open| nr_open < wanted) {
            remedies.push(remedy("first", self.tune("apply")));
        }
        remedies.extend([
            remedy("root's shell", format!("ulimit -n {wanted}")),
            remedy("logins", format!("{} --user \"$USER\"; log in again", self.tune("persist"))),
            remedy("systemd", format!("LimitNOFILE={wanted} below [Service], by `systemctl edit corecast`")),
        ]);
        remedies
    }

    fn memory(&mut self) {
        let each = PROCESS_BYTES + KERNEL_BYTES;
        let fit = |bytes: u64| bytes.saturating_sub(SERVER_BYTES) / each;
        let assumed = format!("{} a connection", size(each));
        let wanted = (self.target.saturating_mul(each)).saturating_add(SERVER_BYTES);
        match self.host.memory_available {
            Some(available) => {
                let total = self.host.memory_total.map(|total| format!(" of {}", size(total))).unwrap_or_default();
                let reading = format!("{}{total} available, {assumed}", size(available));
                let command = format!(
                    "none: {} more are needed; or serve --max-connections {}",
                    size(wanted.saturating_sub(available)),
                    fit(available)
                );
                self.bound("memory", fit(available), reading, vec![remedy("command", command)]);
            }
            None => self.unknown.push("memory"),
        }
        if let (Some(left), Some(limit)) = (self.host.cgroup.memory_left, self.host.cgroup.memory_limit) {
            let reading = format!("{} left of the control group's limit of {}, {assumed}", size(left), size(limit));
            // What is used already stays used.
            let wanted = mib_up(wanted.saturating_add(limit - left.min(limit)));
            let remedies = if self.host.is_container {
                vec![
                    remedy("docker", format!("docker run --memory {wanted}m …")),
                    remedy("Kubernetes", format!("resources: {{ limits: {{ memory: {wanted}Mi }} }}")),
                ]
            } else {
                vec![remedy("systemd", format!("systemctl set-property corecast.service MemoryMax={wanted}M"))]
            };
            self.bound("cgroup-memory", fit(left), reading, remedies);
        }
    }

    fn conntrack(&mut self) {
        // No file: the module is not loaded, and nothing is tracked.
        let (Some(max), Some(count)) = (self.host.nf_conntrack_max, self.host.nf_conntrack_count) else { return };
        let allows = max.saturating_sub(count);
        if count > 0 {
            let reading = format!("{} tracked connections at most, {} now", grouped(max), grouped(count));
            let mut remedies = self.tune_machine();
            remedies.push(remedy("or track none", "the nft rules in deploy/README.md, \"What the settings cost\""));
            self.bound("nf_conntrack_max", allows, reading, remedies);
        } else if allows < self.target {
            let says = format!(
                "the firewall can track {} connections and tracks none now; once it tracks this port, a full table drops \
                 every new connection",
                grouped(max)
            );
            let remedies = self.tune_machine();
            self.advise("nf_conntrack_max", says, remedies);
        }
    }

    fn tcp(&mut self) {
        let backlog = u64::from(Config::default().backlog);
        for (resource, reading, why) in [
            ("net.core.somaxconn", self.host.somaxconn, "connections that wait to be accepted on each shard"),
            ("net.ipv4.tcp_max_syn_backlog", self.host.tcp_max_syn_backlog, "handshakes under way at once"),
        ] {
            match reading {
                Some(value) if value < backlog => {
                    let says = format!(
                        "{} {why}, and {} would be better: a herd that comes back after an outage is turned away",
                        grouped(value),
                        grouped(backlog)
                    );
                    let remedies = self.tune_machine();
                    self.advise(resource, says, remedies);
                }
                Some(_) => {}
                None => self.unknown.push(resource),
            }
        }
        match self.host.tcp_mem {
            Some([.., most]) => {
                let free = most.saturating_sub(self.host.tcp_mem_used.unwrap_or(0));
                if free < self.target {
                    let says = format!(
                        "{} pages for the data in all TCP queues; a connection with data under way takes one at least, so \
                         about {} of {} can have some at once, and beyond that sends stall",
                        grouped(most),
                        grouped(free),
                        grouped(self.target)
                    );
                    let remedies = self.tune_machine();
                    self.advise("net.ipv4.tcp_mem", says, remedies);
                }
            }
            None => self.unknown.push("net.ipv4.tcp_mem"),
        }
        if let (Some([.., receive]), Some([.., send]), Some(available)) =
            (self.host.tcp_rmem, self.host.tcp_wmem, self.host.memory_available)
        {
            let pinned = receive.saturating_add(send).max(1);
            // A few slow clients are nothing unusual: a hundredth of the target must not fill the memory.
            if available / pinned < self.target / 100 {
                let says = format!(
                    "one slow client can fill {} of kernel memory (the last numbers of tcp_rmem and tcp_wmem); {} of them \
                     would fill what is available",
                    size(pinned),
                    grouped(available / pinned)
                );
                let remedies = self.tune_machine();
                self.advise("net.ipv4.tcp_wmem", says, remedies);
            }
        }
        if let Some([first, last]) = self.host.ip_local_port_range {
            let says = format!(
                "{} ports to connect from ({first} to {last}): no limit for a server, but for a load generator on this host \
                 (for each address that it connects from)",
                grouped(last.saturating_sub(first) + 1)
            );
            self.advise("net.ipv4.ip_local_port_range", says, Vec::new());
        }
    }

    fn locked_memory(&mut self) {
        let wanted = LOCKED_BYTES_PER_SHARD * self.shards as u64;
        let Some(Limit::Is(soft)) = self.host.memlock.map(|memlock| memlock.soft) else { return };
        if soft >= wanted || host::check_memlock(Some(soft)).is_err() {
            return;
        }
        let says = format!(
            "{} may be locked, and {} shards can take {}: some may not start",
            size(soft),
            self.shards,
            size(wanted)
        );
        let remedies = if self.host.is_container {
            vec![remedy("docker", format!("docker run --ulimit memlock={wanted}:{wanted} …"))]
        } else {
            vec![
                remedy("root's shell", format!("ulimit -l {}", wanted / 1_024)),
                remedy("logins", format!("{} --user \"$USER\"; log in again", self.tune("persist"))),
                remedy("systemd", format!("LimitMEMLOCK={} below [Service], by `systemctl edit corecast`", wanted)),
            ]
        };
        self.advise("locked-memory", says, remedies);
    }

    fn cpus(&mut self) {
        let Some(allowed) = self.host.cpus_allowed else {
            self.unknown.push("cpu-affinity");
            return;
        };
        let Some(quota) = self.host.cgroup.cpus.filter(|quota| *quota < allowed as f64) else { return };
        let says = format!(
            "the control group grants {quota:.1} CPUs' worth of time on {allowed} CPUs: the server runs {} shards, and all \
             of them stop together when the quota of a period is used up",
            self.shards
        );
        let remedies = if self.host.is_container {
            vec![remedy("docker", format!("docker run --cpuset-cpus 0-{} … (in place of --cpus)", self.shards - 1))]
        } else {
            vec![remedy("systemd", "systemctl set-property corecast.service CPUQuota=")]
        };
        self.advise("cgroup-cpu", says, remedies);
    }
}

/// Linux starts with a file-max near 2^63 today; such a number says nothing.
fn files_text(number: u64) -> String {
    if number >= 1 << 62 { "no limit".to_owned() } else { grouped(number) }
}

fn mib_up(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
