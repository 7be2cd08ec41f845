//! The soak script: that it runs to its end, that it fails on what stays behind, and that it leaves nothing running.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{is_here, runs};

const BINARY: &str = env!("CARGO_BIN_EXE_corecast");

fn soak(program: &Path, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/soak.sh");
    Command::new(script).args(arguments).env("CORECAST_BIN", program).output().unwrap()
}

fn has_tools() -> bool {
    is_here("curl", runs("curl")) && is_here("jq", runs("jq"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Whether a process runs this program file.
fn is_running(program: &Path) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok()).any(|line| {
        let mut words = line.split(|byte| *byte == 0);
        words.any(|word| word == program.as_os_str().as_encoded_bytes())
    })
}

/// A program of this test's own, so that it can be told from those of other tests: a link to the real one, or a script
/// around it.
fn own_program(name: &str, script: Option<&str>) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("corecast");
    match script {
        None => std::os::unix::fs::symlink(BINARY, &program).unwrap(),
        Some(script) => {
            fs::write(&program, script).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    program
}

#[test]
fn a_short_soak_is_all_well_and_leaves_nothing_running() {
    if !has_tools() {
        return;
    }
    let program = own_program("well", None);
    let output = soak(&program, &["--smoke"]);
    let text = text(&output);
    assert!(output.status.success() && text.ends_with("result: all well\n"), "{text}");
    assert!(text.contains("2 drains") && text.contains("round 2 "), "{text}");
    assert!(!is_running(&program), "something still runs");
    fs::remove_dir_all(program.parent().unwrap()).unwrap();
}

#[test]
fn a_connection_that_stays_fails_the_soak() {
    if !has_tools() {
        return;
    }
    // The churn leaves one client behind, for longer than the soak waits.
    let script = format!(
        r#"#!/usr/bin/env bash
target=
for word; do
    [[ $target == next ]] && target=$word
    [[ $word == --target ]] && target=next
done
if [[ $1 == load && $2 == churn ]]; then
    (exec 3<>"/dev/tcp/${{target%:*}}/${{target##*:}}" && exec sleep 20) >/dev/null 2>&1 &
fi
exec {BINARY} "$@"
"#
    );
    let program = own_program("held", Some(&script));
    let output = soak(&program, &["--smoke"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let held = text.contains("\"connections\":1,\"polls\":1,") && text.contains("the registry lists 1 connections");
    assert!(held && text.contains("file descriptors are open") && text.contains("result: FAILED"), "{text}");
    fs::remove_dir_all(program.parent().unwrap()).unwrap();
}

#[test]
fn arguments_that_can_not_be_used_are_refused() {
    for (arguments, why) in [
        (&["--minutes", "soon"][..], "--minutes is 'soon'; write a whole number"),
        (&["--hours"], "--hours needs a value"),
        (&["--days", "1"], "unknown argument '--days'"),
    ] {
        let output = soak(Path::new(BINARY), arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains(why), "{}", text(&output));
    }
}
