use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::diagnosis::{Diagnosis, KERNEL_BYTES, PROCESS_BYTES, diagnose};
use super::reading::{Cgroup, Limit, Rlimit, Snapshot, read};
use super::report;

/// File descriptors that a server takes however many shards it has: 64, and 200 for the control plane.
const OWN: u64 = 264;

/// A made-up /proc and /sys, removed with the value.
struct Tree(PathBuf);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("corecast-doctor-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let tree = Tree(std::env::temp_dir().join(name));
        fs::create_dir_all(&tree.0).unwrap();
        tree.with(files)
    }

    fn with(self, files: &[(&str, &str)]) -> Self {
        for (path, text) in files {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        self
    }

    /// As a stock kernel's.
    fn stock() -> Self {
        Tree::new(&[
            (
                "proc/self/limits",
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max open files            1024                 4096                 files     \n\
                 Max locked memory         8388608              unlimited            bytes     \n",
            ),
            ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-2,5\n"),
            ("proc/meminfo", "MemTotal:       65536000 kB\nMemFree: 1 kB\nMemAvailable:   60000000 kB\n"),
            ("proc/net/sockstat", "sockets: used 9\nTCP: inuse 3 orphan 0 tw 0 alloc 5 mem 17\nUDP: inuse 0 mem 99\n"),
            ("proc/sys/kernel/osrelease", "6.1.0-44-amd64\n"),
            ("proc/sys/kernel/io_uring_disabled", "0\n"),
            ("proc/sys/fs/nr_open", "1048576\n"),
            ("proc/sys/fs/file-max", "9223372036854775807\n"),
            ("proc/sys/fs/file-nr", "739\t0\t9223372036854775807\n"),
            ("proc/sys/net/core/somaxconn", "4096\n"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
            ("proc/sys/net/ipv4/tcp_mem", "191316\t255088\t382632\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ])
    }

    fn read(&self) -> Snapshot {
        read(&self.0)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn files(limit: u64) -> Option<Rlimit> {
    Some(Rlimit { soft: Limit::Is(1_024), hard: Limit::Is(limit) })
}

/// A host with room for four million connections.
fn roomy() -> Snapshot {
    Snapshot {
        kernel: Some("6.1.0".into()),
        io_uring_refused: Some(String::new()),
        nofile: files(5_000_000),
        memlock: Some(Rlimit { soft: Limit::Unlimited, hard: Limit::Unlimited }),
        nr_open: Some(5_000_000),
        file_max: Some(u64::MAX >> 1),
        files_open: Some(1_000),
        somaxconn: Some(65_535),
        tcp_max_syn_backlog: Some(65_535),
        tcp_mem: Some([1_000_000, 2_000_000, 4_000_000]),
        tcp_rmem: Some([4_096, 16_384, 262_144]),
        tcp_wmem: Some([4_096, 16_384, 262_144]),
        memory_total: Some(64 << 30),
        memory_available: Some(60 << 30),
        cpus_allowed: Some(8),
        ..Snapshot::default()
    }
}

fn allows(diagnosis: &Diagnosis, resource: &str) -> u64 {
    diagnosis.bounds.iter().find(|bound| bound.resource == resource).unwrap().allows
}

fn commands(diagnosis: &Diagnosis, resource: &str) -> Vec<String> {
    let bounds = diagnosis.bounds.iter().map(|bound| (bound.resource, &bound.remedies));
    let advice = diagnosis.advice.iter().map(|finding| (finding.resource, &finding.remedies));
    let (_, remedies) = bounds.chain(advice).find(|(name, _)| *name == resource).unwrap();
    remedies.iter().map(|remedy| remedy.command.clone()).collect()
}

#[test]
fn a_stock_kernel_is_read_to_the_last_number() {
    let host = Tree::stock().read();
    assert_eq!(host.kernel.as_deref(), Some("6.1.0-44-amd64"));
    assert_eq!(host.nofile, Some(Rlimit { soft: Limit::Is(1_024), hard: Limit::Is(4_096) }));
    assert_eq!(host.memlock, Some(Rlimit { soft: Limit::Is(8 << 20), hard: Limit::Unlimited }));
    assert_eq!((host.nr_open, host.file_max, host.files_open), (Some(1_048_576), Some(u64::MAX >> 1), Some(739)));
    assert_eq!((host.memory_total, host.memory_available), (Some(65_536_000 * 1_024), Some(60_000_000 * 1_024)));
    assert_eq!((host.tcp_mem, host.tcp_mem_used), (Some([191_316, 255_088, 382_632]), Some(17)));
    assert_eq!(host.ip_local_port_range, Some([32_768, 60_999]));
    assert_eq!(host.cpus_allowed, Some(4));
    assert_eq!((host.nf_conntrack_max, host.nf_conntrack_count), (None, None));
    assert_eq!(host.cgroup, Cgroup::default());
    assert!(!host.is_container);
    assert_eq!(host.io_uring_refused, None, "a ring was tried, though this is not the real host");
}

#[test]
fn the_tightest_resource_comes_first_and_each_obstacle_has_its_command() {
    let diagnosis = diagnose(&Tree::stock().read(), Some(1_000_000));
    let order: Vec<_> = diagnosis.bounds.iter().map(|bound| bound.resource).collect();
    assert_eq!(order, ["open-files", "fs.nr_open", "memory", "fs.file-max"]);
    // 4096 less what four shards take.
    assert_eq!(diagnosis.reaches, Some(4_096 - OWN - 4 * 16));
    assert!(!diagnosis.is_well());
    let commands = commands(&diagnosis, "open-files");
    assert_eq!(commands[0], "sudo deploy/tune.sh apply --connections 1000000", "1,200,000 is above fs.nr_open");
    assert_eq!(commands[1], "ulimit -n 1200000");
    assert!(commands[2].contains("tune.sh persist --connections 1000000 --user"), "{commands:?}");
    assert!(commands[3].contains("LimitNOFILE=1200000"), "{commands:?}");
    assert!(diagnosis.bounds[1].remedies.is_empty(), "fs.nr_open has room for a million");
}

#[test]
fn a_roomy_host_reaches_what_is_asked_for_and_no_more() {
    let enough = diagnose(&roomy(), Some(4_000_000));
    assert!(enough.is_well());
    assert!(enough.bounds.iter().all(|bound| bound.remedies.is_empty()));
    let beyond = diagnose(&roomy(), Some(5_000_000));
    assert!(!beyond.is_well());
    assert_eq!(beyond.reaches, Some(5_000_000 - OWN - 8 * 16));
    assert!(diagnose(&roomy(), None).is_well(), "nothing was asked for");
}

#[test]
fn memory_is_estimated_by_connection_and_names_what_is_missing() {
    let host = Snapshot { memory_available: Some(1 << 30), ..roomy() };
    let diagnosis = diagnose(&host, Some(1_000_000));
    assert_eq!(diagnosis.bounds[0].resource, "memory");
    assert_eq!(diagnosis.bounds[0].allows, ((1 << 30) - (32 << 20)) / (PROCESS_BYTES + KERNEL_BYTES));
    assert!(commands(&diagnosis, "memory")[0].contains("3.3 GiB more"), "{:?}", diagnosis.bounds[0]);
}

#[test]
fn open_files_of_the_machine_count_against_its_limit() {
    let host = Snapshot { file_max: Some(100_000), files_open: Some(40_000), ..roomy() };
    let diagnosis = diagnose(&host, Some(60_000));
    assert_eq!(allows(&diagnosis, "fs.file-max"), 60_000 - OWN - 8 * 16);
    assert_eq!(commands(&diagnosis, "fs.file-max"), ["sudo deploy/tune.sh apply --connections 60000"]);
}

#[test]
fn a_tracking_table_in_use_bounds_and_an_idle_one_is_mentioned() {
    let tracked = [
        ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "144\n"),
    ];
    let diagnosis = diagnose(&Tree::stock().with(&tracked).read(), Some(1_000_000));
    assert_eq!(allows(&diagnosis, "nf_conntrack_max"), 262_000);
    assert_eq!(commands(&diagnosis, "nf_conntrack_max").len(), 2);
    let idle = Snapshot { nf_conntrack_max: Some(262_144), nf_conntrack_count: Some(0), ..roomy() };
    let diagnosis = diagnose(&idle, Some(1_000_000));
    assert!(diagnosis.is_well());
    assert_eq!(commands(&diagnosis, "nf_conntrack_max").len(), 1);
}

#[test]
fn the_tightest_group_of_version_two_counts_and_its_cache_does_not() {
    let host = Tree::stock()
        .with(&[
            ("proc/self/cgroup", "0::/system.slice/corecast.service\n"),
            ("sys/fs/cgroup/system.slice/corecast.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/corecast.service/cpu.max", "250000 100000\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "800000000\n"),
            ("sys/fs/cgroup/system.slice/memory.stat", "anon 100\ninactive_file 700000000\nactive_file 5\n"),
            ("sys/fs/cgroup/system.slice/cpu.max", "max 100000\n"),
        ])
        .read();
    assert_eq!(host.cgroup.memory_limit, Some(1 << 30));
    assert_eq!(host.cgroup.memory_left, Some((1 << 30) - 100_000_000));
    assert_eq!(host.cgroup.cpus, Some(2.5));
    let diagnosis = diagnose(&host, Some(1_000_000));
    assert_eq!(diagnosis.shards, 2, "the server rounds the quota down");
    assert_eq!(allows(&diagnosis, "cgroup-memory"), ((1 << 30) - 100_000_000 - (32 << 20)) / 4_608);
    let command = &commands(&diagnosis, "cgroup-memory")[0];
    assert!(command.starts_with("systemctl set-property corecast.service MemoryMax="), "{command}");
    assert!(commands(&diagnosis, "cgroup-cpu")[0].contains("CPUQuota="));
}

#[test]
fn groups_of_version_one_are_read_beside_an_empty_version_two() {
    let host = Tree::stock()
        .with(&[
            ("proc/self/cgroup", "4:memory:/push\n3:cpu,cpuacct:/push\n1:name=systemd:/\n0::/\n"),
            ("sys/fs/cgroup/unified/cgroup.procs", "1\n"),
            ("sys/fs/cgroup/memory/push/memory.limit_in_bytes", "536870912\n"),
            ("sys/fs/cgroup/memory/push/memory.usage_in_bytes", "268435456\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu,cpuacct/push/cpu.cfs_quota_us", "150000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/push/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ])
        .read();
    assert_eq!(host.cgroup, Cgroup { memory_left: Some(256 << 20), memory_limit: Some(512 << 20), cpus: Some(1.5) });
}

#[test]
fn in_a_container_the_commands_are_its_runtimes() {
    let host = Tree::stock()
        .with(&[
            (".dockerenv", ""),
            // The host's path, which the container does not see: its own group is the root of what is mounted.
            ("proc/self/cgroup", "0::/docker/0123\n"),
            ("sys/fs/cgroup/memory.max", "104857600\n"),
            ("sys/fs/cgroup/memory.current", "0\n"),
        ])
        .read();
    assert!(host.is_container);
    assert_eq!(host.cgroup.memory_left, Some(100 << 20));
    let diagnosis = diagnose(&host, Some(100_000));
    assert!(commands(&diagnosis, "open-files")[0].starts_with("docker run --ulimit nofile=120000:120000"));
    // 100,000 connections of 4.5 KiB, and 32 MiB for the server.
    assert_eq!(commands(&diagnosis, "cgroup-memory")[0], "docker run --memory 472m …");
    assert_eq!(diagnosis.bounds[0].resource, "open-files");
}

#[test]
fn what_is_not_there_is_named_and_not_guessed() {
    let host = Tree::new(&[(
        "proc/self/limits",
        "Max open files            5000                 5000                 files\n",
    )])
    .read();
    let diagnosis = diagnose(&host, Some(4_000));
    assert_eq!(diagnosis.reaches, Some(5_000 - OWN - 16));
    for resource in ["kernel", "io_uring", "locked-memory", "fs.nr_open", "fs.file-max", "memory", "net.core.somaxconn"]
    {
        assert!(diagnosis.unknown.contains(&resource), "{resource} is missing in {:?}", diagnosis.unknown);
    }
    assert!(report::text(&diagnosis, &host).contains("Could not be read: kernel, io_uring, locked-memory"));
    let nothing = Tree::new(&[]).read();
    let diagnosis = diagnose(&nothing, None);
    assert_eq!((diagnosis.reaches, diagnosis.bounds.len()), (None, 0));
    assert!(diagnosis.is_well());
}

#[test]
fn what_keeps_the_server_from_starting_is_a_fault_with_its_remedy() {
    let locked = Some(Rlimit { soft: Limit::Is(65_536), hard: Limit::Is(65_536) });
    for (host, resource, remedy) in [
        (Snapshot { memlock: locked, ..roomy() }, "locked-memory", "ulimit -l 512"),
        (Snapshot { kernel: Some("5.4.0".into()), ..roomy() }, "kernel", "Linux 5.8 or later"),
        (Snapshot { io_uring_refused: Some("forbidden; do this".into()), ..roomy() }, "io_uring", "do this"),
        (
            Snapshot { io_uring_refused: None, io_uring_disabled: Some(2), ..roomy() },
            "io_uring",
            "sysctl kernel.io_uring_disabled=0",
        ),
        (Snapshot { nofile: files(100), ..roomy() }, "open-files", "ulimit -n"),
    ] {
        let diagnosis = diagnose(&host, None);
        assert!(!diagnosis.is_well());
        assert_eq!((diagnosis.faults[0].resource, diagnosis.reaches), (resource, Some(0)));
        let text = report::text(&diagnosis, &host);
        assert!(text.starts_with("The server can't start on this host.") && text.contains(remedy), "{text}");
    }
}

#[test]
fn low_settings_that_stop_nobody_are_advice() {
    let host = Snapshot {
        somaxconn: Some(128),
        tcp_mem: Some([1, 2, 500_000]),
        tcp_mem_used: Some(100_000),
        tcp_wmem: Some([4_096, 16_384, 16 << 20]),
        memlock: Some(Rlimit { soft: Limit::Is(1 << 20), hard: Limit::Is(1 << 20) }),
        ..roomy()
    };
    let diagnosis = diagnose(&host, Some(1_000_000));
    assert!(diagnosis.is_well());
    let advice: Vec<_> = diagnosis.advice.iter().map(|finding| finding.resource).collect();
    assert_eq!(advice, ["net.core.somaxconn", "net.ipv4.tcp_mem", "net.ipv4.tcp_wmem", "locked-memory"]);
    assert!(diagnosis.advice[1].says.contains("about 400,000 of 1,000,000"), "{}", diagnosis.advice[1].says);
    assert_eq!(commands(&diagnosis, "locked-memory")[0], "ulimit -l 8192");
    assert!(diagnose(&roomy(), Some(1_000_000)).advice.is_empty());
}

#[test]
fn programs_find_the_same_keys_every_time() {
    let host = Tree::stock().read();
    let json: serde_json::Value = serde_json::from_str(&report::json(&diagnose(&host, Some(9)), &host)).unwrap();
    assert_eq!(json["wanted"], 9);
    assert_eq!(json["reaches"], 4_096 - OWN - 4 * 16);
    assert_eq!(json["stopped_by"], "open-files");
    assert_eq!((&json["can_start"], &json["ok"]), (&true.into(), &true.into()));
    assert_eq!(json["bounds"][0]["resource"], "open-files");
    assert_eq!(json["readings"]["nofile"]["hard"], 4_096);
    assert_eq!(json["readings"]["memlock"]["hard"], serde_json::Value::Null);
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "advice",
            "bounds",
            "can_start",
            "faults",
            "kernel_bytes_per_connection",
            "ok",
            "process_bytes_per_connection",
            "reaches",
            "readings",
            "remedies_for",
            "shards",
            "stopped_by",
            "unknown",
            "wanted",
        ]
    );
}

#[test]
fn long_lines_are_broken_and_commands_are_not() {
    let host = Tree::stock().read();
    let text = report::text(&diagnose(&host, Some(1_000_000)), &host);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(text.contains("    root's shell  ulimit -n 1200000\n"), "{text}");
}

#[test]
fn a_limit_on_open_files_that_cannot_be_raised_bounds_by_what_is_in_force() {
    let refusal = "the limit on open files can't be raised from 1024".to_owned();
    let host = Snapshot { nofile_refused: Some((1_024, refusal.clone())), ..roomy() };
    let diagnosis = diagnose(&host, Some(1_000));
    let tightest = &diagnosis.bounds[0];
    assert_eq!((tightest.resource, tightest.allows), ("open-files", 1_024 - OWN - 8 * 16));
    assert_eq!(tightest.reading, refusal);
    assert!(!diagnosis.is_well());
    let too_few = Snapshot { nofile_refused: Some((100, refusal)), ..roomy() };
    assert_eq!(diagnose(&too_few, None).faults[0].resource, "open-files");
}
