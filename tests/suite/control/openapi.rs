//! The API's description says what the API does.

use std::path::PathBuf;
use std::process::Command;

use corecast::Framing;
use corecast::control::{Control, ControlLimits, ControlOptions, ProblemCode};
use serde_json::Value;

use super::{Plane, config, tool};
use crate::guide::assert_table;
use crate::support::Fixture;

/// The version that `.ci/setup` installs.
const SCHEMATHESIS: &str = "4.32.5";

#[test]
fn each_path_of_the_document_takes_the_methods_that_it_lists_and_no_others() {
    let plane = Plane::hub();
    let document = plane.http().get("/openapi.json").json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    let paths = document["paths"].as_object().unwrap();
    let mut operations = 0;
    for (path, item) in paths {
        let real = path.replace("{topic}", "a").replace("{id}", "1");
        let allow = plane.http().send("OPTIONS", &real, &[], b"");
        let mut allowed: Vec<_> = allow.header("allow").unwrap_or_default().split(',').collect();
        allowed.retain(|method| *method != "HEAD");
        allowed.sort_unstable();
        let mut listed: Vec<_> = item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        listed.sort_unstable();
        assert_eq!(listed, allowed, "{path}");
        operations += listed.len();
        for operation in item.as_object().unwrap().values() {
            assert!(operation["summary"].as_str().is_some(), "{path} has a summary");
            assert!(operation["responses"].as_object().is_some_and(|responses| !responses.is_empty()));
        }
    }
    assert_eq!((paths.len(), operations), (17, 20));
    let codes = &document["components"]["schemas"]["ProblemCode"]["enum"];
    assert_eq!(codes.as_array().map(Vec::len), Some(ProblemCode::ALL.len()));
    let mut missing = Vec::new();
    missing_references(&document, &document, &mut missing);
    assert!(missing.is_empty(), "{missing:?}");
}

/// Collects references that lead nowhere.
fn missing_references(document: &Value, value: &Value, missing: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref")
                && document.pointer(reference.trim_start_matches('#')).is_none()
            {
                missing.push(reference.clone());
            }
            object.values().for_each(|value| missing_references(document, value, missing));
        }
        Value::Array(values) => values.iter().for_each(|value| missing_references(document, value, missing)),
        _ => {}
    }
}

#[test]
fn every_problem_is_in_the_guide() {
    let mut rows = vec!["| problem code | status | meaning |".to_owned(), "| --- | --- | --- |".to_owned()];
    rows.extend(ProblemCode::ALL.map(|code| format!("| `{}` | {} | {} |", code.name(), code.status(), code.meaning())));
    assert_table("http_api", &rows);
}

#[test]
fn schemathesis_finds_no_violation() {
    // The folder that cargo builds into.
    let target = std::env::current_exe().ok().and_then(|exe| Some(exe.ancestors().nth(3)?.to_owned())).unwrap();
    let candidate = target.join(format!("tools/schemathesis-{SCHEMATHESIS}/bin/schemathesis"));
    let Some(schemathesis) = tool("schemathesis", [candidate]) else { return };
    let server = Fixture::hub(config());
    let mut client = server.client(Framing::Length);
    assert_eq!(client.ask("SUB a"), "OK SUB a");
    let token = std::env::temp_dir().join(format!("corecast-{}-schemathesis", std::process::id()));
    let file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).clone();
    write_private(&file, &token);
    let addr = "127.0.0.1:0".parse().unwrap();
    let options =
        ControlOptions { addrs: vec![addr], token_file: Some(token.clone()), limits: ControlLimits::default() };
    let control = Control::start(server.clone(), &options).unwrap();
    std::fs::remove_file(&token).unwrap();

    let hooks = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite/control/schemathesis_hooks.py");
    let run = Command::new(schemathesis)
        .arg("run")
        .arg(format!("http://{}/openapi.json", control.addr()))
        // One would end the server, the other does not end by itself.
        .args(["--exclude-path", "/v1/drain", "--exclude-path", "/v1/events"])
        .args(["-H", "Authorization: Bearer for-schemathesis"])
        .args(["--max-examples", "20", "--seed", "1", "--no-color", "--workers", "1", "--request-timeout", "20"])
        .env("SCHEMATHESIS_HOOKS", hooks)
        // What it keeps between runs goes where it can be thrown away.
        .current_dir(&target)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    // It warns of calls that found no connection, since it closes the only one itself at some point: no violation.
    assert!(!said.contains("FAILURES") && !said.contains("ERRORS"), "{said}");
    assert!(said.contains("18 selected / 20 total"), "{said}");
    let cases = said.lines().find_map(|line| line.trim().split_once(" generated, ")).expect("it counts its cases");
    let passed = cases.1.split_once(" passed").expect("some pass").0;
    assert_eq!(cases.0, passed, "{said}");
    control.stop();
}

fn write_private(options: &std::fs::OpenOptions, path: &PathBuf) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    options.clone().mode(0o600).open(path).unwrap().write_all(b"for-schemathesis").unwrap();
}
