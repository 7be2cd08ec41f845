//! The load generator as a program, against a real server: what only shows across processes.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use corecast::Framing;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Program, wait_until};

/// `corecast load` with a line of arguments, against a server's `line` address.
fn load(server: &Program, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.arg("load").args(line.split(' ')).arg("--quiet");
    command.arg(format!("--target={}", server.addr(Framing::Line)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The exit code, and what was written to stdout and stderr.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut text = String::new();
    let code = child.wait().unwrap().code();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (code, text)
}

/// Processes that a process has started.
fn children(pid: u32) -> Vec<Pid> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

fn runs(pid: Pid) -> bool {
    // A zombie that nobody has waited for yet runs no more.
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn several_processes_make_one_exact_report() {
    let server = Program::serve(["--client-publish"]);
    let folder = own_folder();
    for (kind, key) in [
        ("fanout --connections 61 --threads 2 --publish-rate 50 --burst 2 --stalled-percent 10", "subscribers"),
        ("churn --connections 100 --rate 61 --stay 100ms-200ms --publish-rate 50 --abrupt-percent 20", "begun"),
    ] {
        let json = folder.join(format!("{key}.json"));
        let line = format!("{kind} --processes 3 --duration 1s --json {}", json.display());
        let (code, text) = end(load(&server, &line).spawn().unwrap());
        assert_eq!(code, Some(0), "{text}");
        let result: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
        let own = &result[kind.split(' ').next().unwrap()];
        assert_eq!((&result["connect"]["ready"], &result["settings"]["processes"]), (&61.into(), &3.into()), "{text}");
        // Stalled subscribers are not among those who are counted at the end.
        let counted = if key == "subscribers" { 55 } else { 61 };
        assert_eq!((&own[key], &own["lost"]), (&counted.into(), &0.into()), "{text}");
        if key == "subscribers" {
            assert_eq!(own["delivered"], 55 * 100, "{text}");
        }
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_process_that_dies_is_named_and_fails_the_run() {
    let server = Program::serve(["--client-publish"]);
    let run = load(&server, "idle --connections 10 --processes 2 --duration 1h").spawn().unwrap();
    wait_until("both processes run", || children(run.id()).len() == 2);
    let victim = children(run.id())[1];
    kill_process(victim, Signal::KILL).unwrap();
    let (code, text) = end(run);
    assert_eq!(code, Some(1), "{text}");
    let named = format!("process 2 of 2 (pid {}) ended before it handed in its result", victim.as_raw_nonzero());
    assert!(text.contains(&named) && text.contains("SIGKILL"), "{text}");
}

#[test]
fn processes_end_with_the_one_that_leads_them() {
    let server = Program::serve(["--client-publish"]);
    let mut run = load(&server, "idle --connections 10 --processes 2 --duration 1h").spawn().unwrap();
    wait_until("both processes run", || children(run.id()).len() == 2);
    let others = children(run.id());
    run.kill().unwrap();
    run.wait().unwrap();
    wait_until("no process is left", || !others.iter().any(|pid| runs(*pid)));
}

#[test]
fn what_a_process_runs_into_is_told_by_the_one_that_leads() {
    let server = Program::serve(["--app=echo"]);
    let (code, text) = end(load(&server, "idle --connections 2 --processes 2 --duration 1s").spawn().unwrap());
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("of 2 (pid ") && text.contains("gave up: ") && text.contains("answered `SUB load-"),
        "{text}"
    );
}

#[test]
fn an_interrupt_ends_all_processes_with_a_report() {
    let server = Program::serve(["--client-publish"]);
    let idle_fds = server.open_fds();
    let run = load(&server, "churn --rate 50 --processes 2 --publish-rate 20 --duration 1h").spawn().unwrap();
    // The publisher is the first to come; the others come once the load is on.
    wait_until("subscribers have come", || server.open_fds() > idle_fds + 2);
    kill_process(Pid::from_raw(run.id() as i32).unwrap(), Signal::INT).unwrap();
    let (code, text) = end(run);
    assert!(code == Some(0) && text.ends_with("result: all well\n"), "{code:?}: {text}");
}

/// A folder of this test's own.
fn own_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("load-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}
