//! `benches/million.sh`, as far as it can be tried without a guest: what it is told, and what it tells.

use std::process::{Command, Output};

fn million(flags: &str) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/million.sh");
    Command::new(script).args(flags.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_help_names_every_option() {
    let output = million("--help");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let help = text(&output.stdout);
    for option in [
        "--connections",
        "--steps",
        "--memory",
        "--timeout",
        "--messages",
        "--out",
        "--no-build",
        "--check",
        "Exit code",
    ] {
        assert!(help.contains(&format!("\n  {option} ")) || help.contains(&format!("\n{option}")), "{option}: {help}");
    }
}

#[test]
fn wrong_usage_is_refused_by_name() {
    for (flags, said) in [
        ("--fast", "what is --fast?"),
        ("--connections", "--connections needs a value"),
        ("--connections many", "--connections many: write a number"),
        ("--connections 500", "the first step is 50; it must be 100 at least"),
        ("--connections 9M", "9000000 connections"),
        ("--steps 2k,1k", "--steps 2k,1k: they must rise"),
        ("--steps 1k,x", "--steps 1k,x: write numbers"),
        ("--steps 1k --connections 1k", "--connections or --steps, not both"),
        ("--memory 5", "--memory 5; write megabytes"),
        ("--timeout soon", "--timeout soon; write 90s"),
        ("--messages 0", "--messages 0; it must be from 1 to 99"),
    ] {
        let output = million(flags);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(said) && told.contains("usage: "), "{flags}: {told}");
    }
}

#[test]
fn a_check_says_what_is_missing_or_that_nothing_is() {
    let output = million("--check --no-build --connections 1000");
    let (told, missing) = (text(&output.stdout), text(&output.stderr));
    match output.status.code() {
        Some(0) => assert!(told.contains("this machine can do it: 1000 connections in a guest with 1215 MB"), "{told}"),
        Some(1) => assert!(missing.starts_with("million.sh: this machine lacks "), "{missing}"),
        code => panic!("{code:?}: {told}{missing}"),
    }
    let output = million("--check --no-build --memory 9999999");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("lacks memory: 10000699 MB for the guest and qemu"), "{output:?}");
}
