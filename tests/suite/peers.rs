//! The comparison with other servers, `benches/peers.sh`: with those that are installed, and small.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{is_here, runs, wait_until};

/// All but those on tokio, which would have to be built from the registry.
const SERVERS: [&str; 7] = ["bare", "corecast", "classic", "nats", "redis", "mosquitto", "nchan"];

fn can_compare() -> bool {
    ["jq", "taskset", "cc", "gnuplot"].into_iter().all(|tool| is_here(tool, runs(tool)))
}

/// The script, in a process group of its own, by which what it leaves behind is found.
fn script(options: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers.sh"));
    command.args(["--quick", "--no-install", "--connections", "50", "--corecast", env!("CARGO_BIN_EXE_corecast")]);
    command.args(options).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The processes of a group; see proc_pid_stat(5).
fn processes_of(group: u32) -> Vec<String> {
    let stats = fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_in = |stat: &String| {
        let fields = stat.rsplit(')').next().unwrap_or_default();
        fields.split_whitespace().nth(2).and_then(|field| field.parse().ok()) == Some(group)
    };
    stats.filter(is_in).collect()
}

#[test]
fn every_server_has_a_row_or_a_reason_and_none_is_left_running() {
    if !can_compare() {
        return;
    }
    let [json, svg] =
        ["json", "svg"].map(|name| std::env::temp_dir().join(format!("corecast-peers-{}.{name}", std::process::id())));
    let options = ["--only", &SERVERS.join(","), "--json", json.to_str().unwrap(), "--svg", svg.to_str().unwrap()];
    let child = script(&options).spawn().unwrap();
    let group = child.id();
    let ran = child.wait_with_output().unwrap();
    let (table, log) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{log}{table}");
    for server in SERVERS {
        let is_there = table.contains(&format!("\n| {server} |"));
        let is_named = table.contains(&format!("\n- {server}: left out, not installed (apt-get install "));
        assert!(is_there != is_named, "{server}: {log}{table}");
    }
    let result: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    fs::remove_file(&json).unwrap();
    for server in result["servers"].as_array().unwrap() {
        for figure in ["fanout_cpu_us_per_message", "burst_cpu_us_per_message", "fanout_latency_us_p99"] {
            assert!(server[figure].as_f64().unwrap() > 0.0, "{figure}: {server:#}");
        }
        // 50 subscribers, a second at 8 messages, and half a second with two bursts of 32.
        assert_eq!(server["expected"], 50 * (8 + 2 * 32), "{server:#}");
        assert_eq!((&server["duplicated"], &server["corrupted"]), (&0.into(), &0.into()), "{server:#}");
    }
    let own = result["servers"].as_array().unwrap().iter().find(|server| server["name"] == "corecast").unwrap();
    assert_eq!((&own["lost"], &own["reordered"], &own["closed"]), (&0.into(), &0.into(), &0.into()), "{own:#}");
    assert!(own["echo_per_s"].as_f64().unwrap() > 0.0);
    assert!(own["websocket_echo_per_s"].as_f64().unwrap() > 0.0);
    let picture = fs::read_to_string(&svg).unwrap();
    fs::remove_file(&svg).unwrap();
    for part in ["</svg>", "One message to all 50:", ">corecast<", ">Go<"] {
        let is_missing = part == ">Go<" && !table.contains("\n| classic |");
        assert!(picture.contains(part) != is_missing, "{part}: {picture}");
    }
    assert_eq!(processes_of(group), [""; 0]);
}

#[test]
fn a_signal_ends_the_comparison_and_its_servers() {
    if !can_compare() {
        return;
    }
    let mut child = script(&["--only", "corecast", "--rounds", "100"]).spawn().unwrap();
    let group = child.id();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("round 1 of 100: corecast")));
    wait_until("a server and a client run", || processes_of(group).len() >= 3);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(processes_of(group), [""; 0]);
}

#[test]
fn what_can_not_be_used_is_refused_by_name() {
    for (options, said) in [
        (&["--only", "redis,nobody"][..], "--only names 'nobody'"),
        (&["--connections", "0"], "--connections is '0'"),
        (&["--message-size", "31"], "--message-size is '31'; it must be from 32"),
        (&["--rounds"], "--rounds needs a value"),
        (&["--fast"], "no option '--fast'"),
    ] {
        let ran = script(options).output().unwrap();
        assert_eq!(ran.status.code(), Some(2), "{options:?}");
        let log = String::from_utf8_lossy(&ran.stderr);
        assert!(log.contains(said) && log.contains("usage: peers.sh"), "{log}");
    }
}
