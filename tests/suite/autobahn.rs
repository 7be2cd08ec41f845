//! The Autobahn suite, 517 cases that try a WebSocket server with all that RFC 6455 and RFC 7692 allow and forbid.
//!
//! 216 of them try compression, with a thousand messages each. Those whose messages have 64 KiB and more take minutes, so that
//! but one group of them is tried where `CORECAST_AUTOBAHN=all` does not ask for all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use corecast::Framing;
use serde_json::{Value, json};

use crate::support::Program;

/// Cases of the suite in the version that `.ci/setup` installs.
const CASES: usize = 517;

/// The groups, in parts that are tried side by side and take about as long.
const PARTS: [&[&str]; 4] = [
    &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.1.*"],
    &["12.2.*", "12.3.*", "12.4.*", "12.5.*"],
    &["13.1.*", "13.2.*", "13.3.*", "13.4.*"],
    &["13.5.*", "13.6.*", "13.7.*"],
];

/// The cases with large messages in each group that tries compression, and the group in which they are always tried.
const LARGE: [u32; 7] = [9, 10, 14, 15, 16, 17, 18];
const LARGE_GROUP: &str = "12.1";

/// Where the results go, for this test alone.
struct Reports(PathBuf);

impl Drop for Reports {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the suite says of each case.
type Results = BTreeMap<String, Value>;

/// Tries the cases of one part, without some.
fn try_part(tools: &Path, url: &str, folder: &Path, cases: &[&str], without: &[String]) -> Results {
    std::fs::create_dir_all(folder).unwrap();
    let spec = folder.join("spec.json");
    let outdir = folder.to_str().unwrap();
    let servers = json!([{"agent": "corecast", "url": url}]);
    let text = json!({
        "outdir": outdir, "servers": servers, "cases": cases, "exclude-cases": without, "exclude-agent-cases": {},
    });
    std::fs::write(&spec, text.to_string()).unwrap();
    // It has a limit of its own for each case.
    let run = Command::new(tools.join("bin/wstest"))
        .args(["--mode", "fuzzingclient", "--spec"])
        .arg(&spec)
        .env("PYTHONWARNINGS", "ignore")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let index = std::fs::read(folder.join("index.json")).expect("the suite writes its results");
    let mut index: BTreeMap<String, Results> = serde_json::from_slice(&index).unwrap();
    index.remove("corecast").expect("it has tried the server")
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
    let is_all = std::env::var_os("CORECAST_AUTOBAHN").is_some_and(|which| which == "all");
    let groups = (1..=5).map(|group| format!("12.{group}")).chain((1..=7).map(|group| format!("13.{group}")));
    let groups = groups.filter(|group| group != LARGE_GROUP && !is_all);
    let without: Vec<String> = groups.flat_map(|group| LARGE.map(|case| format!("{group}.{case}"))).collect();
    // The largest of its messages have 16 MiB.
    let sizes = ["--max-message", "16MiB", "--queue-bytes-max", "64MiB"];
    let server =
        Program::serve(["--app", "echo", "--control", "off", "--listen", "http=127.0.0.1:0"].into_iter().chain(sizes));
    let reports = Reports(std::env::temp_dir().join(format!("corecast-{}-autobahn", std::process::id())));
    let url = format!("ws://{}/ws", server.addr(Framing::Http));
    let results: Results = std::thread::scope(|scope| {
        let start = |(number, cases): (usize, &&'static [&'static str])| {
            let (tools, url, folder, without) = (&tools, &url, reports.0.join(number.to_string()), &without);
            let cases = *cases;
            scope.spawn(move || try_part(tools, url, &folder, cases, without))
        };
        let parts: Vec<_> = PARTS.iter().enumerate().map(start).collect();
        parts.into_iter().flat_map(|part| part.join().expect("the part was tried")).collect()
    });

    assert_eq!(results.len(), CASES - without.len());
    let mut failed = String::new();
    for (case, result) in results {
        for part in ["behavior", "behaviorClose"] {
            let verdict = result[part].as_str().unwrap_or_default();
            if !matches!(verdict, "OK" | "INFORMATIONAL") {
                failed.push_str(&format!("case {case}, {part}: {verdict}\n"));
            }
        }
    }
    assert!(failed.is_empty(), "{failed}");
}
