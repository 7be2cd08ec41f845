//! The Autobahn suite, 517 cases that try a WebSocket server with all that RFC 6455 allows and forbids.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use corecast::Framing;
use serde_json::{Value, json};

use crate::support::Program;

/// Cases of the suite in the version that `.ci/setup` installs.
const CASES: usize = 517;

/// Groups of cases that try compression, which is not offered.
const COMPRESSION: [&str; 2] = ["12.", "13."];

/// Where the results go, for this test alone.
struct Reports(PathBuf);

impl Drop for Reports {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_autobahn_suite_finds_nothing_that_fails() {
    // The folder that cargo builds into.
    let target = std::env::current_exe().ok().and_then(|exe| Some(exe.ancestors().nth(3)?.to_owned())).unwrap();
    let tools = target.join("tools/autobahn");
    // Its last file tells that it is there whole.
    if !tools.join("installed").exists() {
        println!("left out: the Autobahn suite is not here; .ci/setup installs it where there is a Python 2.7");
        return;
    }
    // The largest of its messages have 16 MiB.
    let sizes = ["--max-message", "16MiB", "--queue-bytes-max", "64MiB"];
    let server =
        Program::serve(["--app", "echo", "--control", "off", "--listen", "http=127.0.0.1:0"].into_iter().chain(sizes));
    let reports = Reports(std::env::temp_dir().join(format!("corecast-{}-autobahn", std::process::id())));
    std::fs::create_dir_all(&reports.0).unwrap();
    let spec = reports.0.join("spec.json");
    let url = format!("ws://{}/ws", server.addr(Framing::Http));
    let outdir = reports.0.to_str().unwrap();
    let servers = json!([{"agent": "corecast", "url": url}]);
    let text =
        json!({"outdir": outdir, "servers": servers, "cases": ["*"], "exclude-cases": [], "exclude-agent-cases": {}});
    std::fs::write(&spec, text.to_string()).unwrap();
    // It has a limit of its own for each case.
    let run = Command::new(tools.join("bin/wstest"))
        .args(["--mode", "fuzzingclient", "--spec"])
        .arg(&spec)
        .env("PYTHONWARNINGS", "ignore")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));

    let index = std::fs::read(reports.0.join("index.json")).expect("the suite writes its results");
    let index: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&index).unwrap();
    let results = &index["corecast"];
    assert_eq!(results.len(), CASES);
    let mut failed = String::new();
    for (case, result) in results {
        let is_compression = COMPRESSION.iter().any(|group| case.starts_with(group));
        for part in ["behavior", "behaviorClose"] {
            let verdict = result[part].as_str().unwrap_or_default();
            let passed = matches!(verdict, "OK" | "INFORMATIONAL") || (is_compression && verdict == "UNIMPLEMENTED");
            if !passed {
                failed.push_str(&format!("case {case}, {part}: {verdict}\n"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed}");
}
