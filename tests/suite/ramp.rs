//! `corecast load ramp` against a running server.

use std::path::PathBuf;
use std::process::{Command, Output};

use corecast::Framing;
use serde_json::Value;

use crate::support::Program;

/// A place for the results of one test.
struct Results(PathBuf);

impl Results {
    fn new(test: &str) -> Results {
        let folder = std::env::temp_dir().join(format!("corecast-ramp-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Results(folder)
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).to_str().unwrap().to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path("ramp.json")).unwrap()).unwrap()
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn ramp(program: &Program, framing: Framing, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.args(["load", "ramp", "--settle", "100ms", "--target", &program.addr(framing).to_string()]);
    command.args(flags).output().unwrap()
}

#[test]
fn a_ramp_measures_each_step_and_finds_the_server_as_it_was() {
    let results = Results::new("all");
    let program = Program::serve(["--client-publish", "--control", "off", "--shards", "2"]);
    let pid = program.pid().as_raw_nonzero().to_string();
    let [json, svg, html] = ["ramp.json", "ramp.svg", "ramp.html"].map(|file| results.path(file));
    let flags = [
        "--server-pid",
        &pid,
        "--steps",
        "100,300",
        "--messages",
        "2",
        "--threads",
        "2",
        "--json",
        &json,
        "--svg",
        &svg,
        "--html",
        &html,
    ];
    let output = ramp(&program, Framing::Line, &flags);
    let report = results.json();
    assert_eq!((output.status.code(), &report["problems"]), (Some(0), &serde_json::json!([])), "{output:?}");
    let steps = report["ramp"]["steps"].as_array().unwrap();
    for (step, connections) in steps.iter().zip([100, 300]) {
        let counts = ["connections", "all_received", "few_received"].map(|key| step[key].as_u64().unwrap());
        // One in a hundred of each thread's share, the first of all among them.
        assert!(counts[..2] == [connections; 2] && counts[2] >= 1 && counts[2] <= connections / 50, "{step}");
        for key in ["private_bytes_per_connection", "all_us", "all_cpu_us_per_message", "connects_per_s"] {
            assert!(step[key].as_f64().unwrap() > 0.0, "{key}: {step}");
        }
    }
    assert_eq!((steps.len(), &report["ramp"]["fds_left"]), (2, &0.into()), "{report}");
    let picture = std::fs::read_to_string(svg).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("bytes per connection"), "{picture}");
    let page = std::fs::read_to_string(html).unwrap();
    for part in ["<h1>corecast load ramp</h1>", "bytes per connection", "µs per delivered message", "got one to 1 %"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("  private  resident") && told.ends_with("result: all well\n"), "{told}");
}

#[test]
fn a_limit_that_is_broken_fails_the_ramp() {
    let program = Program::serve(["--client-publish", "--control", "off", "--shards", "1"]);
    let pid = program.pid().as_raw_nonzero().to_string();
    let output = ramp(&program, Framing::Line, &["--server-pid", &pid, "--steps", "100", "--bytes-max", "1"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("B of the server's private memory; at most 1 B"), "{told}");
}

#[test]
fn a_ramp_climbs_over_websockets_without_the_servers_process() {
    let results = Results::new("ws");
    let program = Program::serve(["--client-publish", "--control", "off", "--listen", "http=127.0.0.1:0"]);
    let output = ramp(
        &program,
        Framing::Http,
        &["--framing", "ws", "--steps", "200", "--messages", "1", "--json", &results.path("ramp.json")],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let step = &results.json()["ramp"]["steps"][0];
    assert_eq!((&step["all_received"], &step["few_received"]), (&200.into(), &2.into()), "{step}");
    assert!(step["private_bytes_per_connection"].is_null());
}

#[test]
fn the_servers_own_count_of_connections_is_back_in_the_end() {
    let results = Results::new("count");
    let mut program = Program::serve(["--client-publish", "--control", "127.0.0.1:0"]);
    let ready = program.wait_for_line(0, |line| line.contains("ready: "));
    let control = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    // One that was there before, and stays, does not count.
    let _before = program.client(Framing::Line).ask("PING");
    let json = results.path("ramp.json");
    let flags = ["--control", &control, "--steps", "100", "--messages", "1", "--json", &json];
    let output = ramp(&program, Framing::Line, &flags);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(results.json()["ramp"]["connections_left"], 0);
}

#[test]
fn a_server_or_a_process_that_will_not_do_is_named() {
    let program = Program::serve(["--control", "off"]);
    for (flags, code, said) in [
        (&["--steps", "100"][..], 1, "refuses publishes from clients; start the server with --client-publish"),
        (
            &["--steps", "100", "--server-pid", "2147483647"],
            2,
            "--server-pid is 2147483647; it must be a process of this machine whose memory you may look at (cannot read /proc/",
        ),
        (&["--steps", "100", "--svg", "/nowhere/a.svg"], 1, "cannot write the result to --svg /nowhere/a.svg"),
        (&["--steps", "200,100"], 2, "100 comes after 200; the steps must rise"),
    ] {
        let output = ramp(&program, Framing::Line, flags);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && told.contains(said), "{flags:?}: {:?} {told}", output.status);
    }
}
