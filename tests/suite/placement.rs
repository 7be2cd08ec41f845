//! On which CPUs the shards of a program run.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use rustix::process::Pid;

use crate::support::Program;

/// What /proc says of the CPUs that a thread may run on.
fn cpus_of(task: &str) -> String {
    let status = fs::read_to_string(format!("{task}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
}

/// The CPUs that the shards of a program may run on. Each has a second thread, which the runtime gives it.
fn shards_of(pid: Pid) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path().to_str().unwrap().to_owned());
    let is_shard = |task: &String| fs::read_to_string(format!("{task}/comm")).unwrap().starts_with("shard-");
    tasks.filter(is_shard).map(|task| cpus_of(&task)).collect()
}

fn ready(program: &Program) -> String {
    program.lines().into_iter().find(|line| line.contains("ready: ")).unwrap()
}

#[test]
fn a_shard_is_pinned_to_a_cpu_of_its_own_and_the_ready_line_names_it() {
    for flags in [&["--shards=1"][..], &["--cpus=0"], &["--shards=1", "--pin=auto"]] {
        let program = Program::serve(flags);
        let shards = shards_of(program.pid());
        let cpu = shards.first().unwrap();
        assert!(shards.len() == 1 && cpu.parse::<usize>().is_ok(), "{shards:?}");
        let line = ready(&program);
        assert!(line.contains(&format!(", pinned to CPU {cpu}")), "{line}");
    }
}

#[test]
fn a_shard_floats_if_that_is_asked_for() {
    let program = Program::serve(["--shards=2", "--pin=off"]);
    assert_eq!(shards_of(program.pid()), BTreeSet::from([cpus_of("/proc/self")]));
    assert!(ready(&program).contains(", not pinned (pin is off)"), "{}", program.log());
}

/// Starts two servers one after the other where no others are seen, and prints the CPUs of their shards.
const TWO_SERVERS: &str = r#"
for n in 1 2; do
    : >"$1.$n" # the round before left a ready line in it
    "$0" serve --shards 1 --control off --listen line=127.0.0.1:0 2>"$1.$n" & pid=$!; pids="$pids $pid"
    until grep -q 'ready: ' "$1.$n"; do kill -0 "$pid" || exit 1; sleep 0.05; done
    for task in /proc/$pid/task/*; do
        grep -q '^shard-' "$task/comm" && sed -n 's/^Cpus_allowed_list:[[:space:]]*/cpu /p' "$task/status"
    done
done
kill $pids
wait
"#;

#[test]
fn two_servers_with_a_shard_each_are_pinned_to_different_cpus() {
    const ALONE: [&str; 5] = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let alone = Command::new("unshare").args(ALONE).arg("true").output();
    if !alone.is_ok_and(|output| output.status.success()) || !cpus_of("/proc/self").contains(['-', ',']) {
        println!("left out: it takes two CPUs, and a process namespace of its own");
        return;
    }
    let log = std::env::temp_dir().join(format!("corecast-suite-{}-pin", std::process::id()));
    for _ in 0..3 {
        let output = Command::new("unshare")
            .args(ALONE)
            .args(["sh", "-c", TWO_SERVERS, env!("CARGO_BIN_EXE_corecast")])
            .arg(&log)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let cpus: BTreeSet<_> = said.lines().filter(|line| line.starts_with("cpu ")).collect();
        assert_eq!(cpus.len(), 2, "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    for n in 1..=2 {
        fs::remove_file(format!("{}.{n}", log.display())).unwrap();
    }
}
