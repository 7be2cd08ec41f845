//! `corecast doctor` on the real host.

use std::process::{Command, Output};

use serde_json::Value;

fn doctor(wrapper: &[&str], flags: &[&str]) -> Output {
    let words = [wrapper, &[env!("CARGO_BIN_EXE_corecast"), "doctor"], flags].concat();
    Command::new(words[0]).args(&words[1..]).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn this_host_can_run_the_server_and_its_bound_is_exact() {
    let output = doctor(&[], &["--json"]);
    let report = json(&output);
    assert_eq!((output.status.code(), &report["can_start"]), (Some(0), &true.into()), "{report}");
    let allows: Vec<_> = report["bounds"].as_array().unwrap().iter().map(|bound| bound["allows"].as_u64()).collect();
    assert!(allows.is_sorted() && allows.len() >= 3, "{report}");
    assert_eq!(report["reaches"], report["bounds"][0]["allows"]);
}

#[test]
fn the_limit_on_open_files_stops_at_the_very_connection() {
    let limited = ["prlimit", "--nofile=1000:1000"];
    let report = json(&doctor(&limited, &["--json"]));
    assert_eq!(report["stopped_by"], "open-files", "{report}");
    let reaches = report["reaches"].as_u64().unwrap();
    assert!((500..1000).contains(&reaches), "{report}");
    let enough = doctor(&limited, &["--connections", &reaches.to_string()]);
    assert_eq!(enough.status.code(), Some(0), "{enough:?}");
    let beyond = doctor(&limited, &["--connections", &(reaches + 1).to_string()]);
    assert_eq!(beyond.status.code(), Some(1), "{beyond:?}");
    let text = String::from_utf8(beyond.stdout).unwrap();
    let verdict = format!("{} connections are out of reach: open-files stops this host at {reaches}.\n", reaches + 1);
    assert!(text.starts_with(&verdict), "{text}");
    assert!(text.contains("hard limit 1,000: one descriptor a connection") && text.contains("12000"), "{text}");
}

#[test]
fn too_little_for_a_start_is_a_fault() {
    let output = doctor(&["prlimit", "--memlock=65536:65536"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("The server can't start on this host.") && text.contains("ulimit -l 512"), "{text}");
}

#[test]
fn zero_connections_are_wrong_usage() {
    assert_eq!(doctor(&[], &["--connections", "0"]).status.code(), Some(2));
}
