//! What the program logs, and where.

use corecast::Framing;
use rustix::process::Signal;

use crate::support::{PLAIN, Program, wait_until};

#[test]
fn the_status_line_tells_the_connections_of_each_shard() {
    let mut program = Program::serve(["--shards", "2", "--report-every", "1s"]);
    let mut clients = Vec::new();
    let counts = |line: &str| {
        let (total, rest) = line.split_once("connections=")?.1.split_once(" (")?;
        let shards = rest.split_once(')')?.0.split('+').map(|count| count.parse().ok());
        Some((total.parse::<usize>().ok()?, shards.collect::<Option<Vec<usize>>>()?))
    };
    let line = program.wait_for_line(0, |line| line.contains("connections="));
    assert_eq!(counts(&line), Some((0, vec![0, 0])), "{line}");
    // Each client lands on one of the shards; with so many it is both.
    for n in 0..64 {
        let mut client = program.client(PLAIN[n % 2]);
        assert!(client.is_served());
        clients.push(client);
    }
    let logged = program.lines().len();
    let line = program.wait_for_line(logged, |line| line.contains("connections=64 "));
    let (total, by_shard) = counts(&line).expect("numbers");
    assert_eq!((total, by_shard.iter().sum()), (64, 64), "{line}");
    assert!(by_shard.iter().all(|count| *count > 0), "{line}");
    for part in [" in=", " out=", " polls=64 ", " resident=", " bytes/connection="] {
        assert!(line.contains(part), "`{part}` is missing in: {line}");
    }
}

#[test]
fn no_status_line_appears_when_none_is_asked_for() {
    let silent = Program::serve(["--shards", "1", "--report-every", "0"]);
    let mut other = Program::serve(["--shards", "1", "--report-every", "200ms"]);
    // It started first, and in its time the other one writes several.
    let count = |program: &Program| program.lines().iter().filter(|line| line.contains("connections=")).count();
    wait_until("the other has reported", || count(&other) >= 3);
    other.wait_for_line(0, |line| line.contains("connections=0"));
    assert_eq!(count(&silent), 0, "{}", silent.log());
}

#[test]
fn json_lines_are_json_from_the_first_to_the_last() {
    let mut program = Program::serve([
        "--shards",
        "2",
        "--report-every",
        "200ms",
        "--log-format",
        "json",
        "--log",
        "debug",
        "--max-connections",
        "1",
    ]);
    let mut client = program.client(Framing::Line);
    assert!(client.is_served());
    assert!(!program.client(Framing::Line).is_served());
    program.wait_for_line(0, |line| line.contains("connections=1"));
    program.wait_for_line(0, |line| line.contains("connections refused"));
    program.signal(Signal::TERM);
    client.expect("BYE drain");
    client.expect_end();
    drop(client);
    assert_eq!(program.wait(), Some(0));
    let mut messages = Vec::new();
    for line in program.lines() {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(value[key].is_string(), "`{key}` is missing in: {line}");
        }
        messages.push(value["message"].as_str().unwrap().to_owned());
    }
    for start in ["ready: hub on line=127.0.0.1:", "connections=", "connection closed", "draining: ", "drained"] {
        assert!(messages.iter().any(|message| message.starts_with(start)), "`{start}` is missing in: {messages:#?}");
    }
}

#[test]
fn the_ready_line_names_app_addresses_shards_and_the_limit() {
    let program = Program::serve(["--shards", "2", "--app", "echo", "--max-connections", "123"]);
    let line = program.lines().into_iter().find(|line| line.contains("ready: ")).unwrap();
    let [text, length] = PLAIN.map(|framing| program.addr(framing));
    let expected = format!("ready: echo on line={text} length={length}, 2 shards, up to 123 connections");
    assert!(line.contains(&expected), "{line}");
    assert_eq!(program.client(Framing::Length).ask("back"), "back");
}

#[test]
fn the_level_of_the_log_is_what_was_asked_for() {
    let program = Program::serve(["--shards", "1", "--log", "corecast=debug"]);
    drop(program.client(Framing::Line));
    wait_until("the close is logged", || program.log().contains("reason=client-closed"));
}
