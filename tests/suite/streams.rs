//! The standard streams and the signals of a program: a reader that leaves or stalls, and signals that nobody expects.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::process::{Command, Output, Stdio};

use corecast::Framing;
use rustix::process::Signal;

use crate::support::{Client, PLAIN, Program, wait_until};

/// A pipe whose reader is gone.
fn broken_pipe() -> PipeWriter {
    io::pipe().unwrap().1
}

/// A pipe that takes no byte more, and its reader, which must live as long as it shall not break.
fn full_pipe() -> (io::PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// Drains a server with one client on it, whatever happens to its log.
fn assert_drains(mut program: Program, client: &mut Client) {
    client.expect_nothing();
    program.signal(Signal::TERM);
    client.expect("BYE drain");
    client.expect_end();
    assert_eq!(program.wait(), Some(0));
}

/// Two signals end a server that would drain for hours.
fn assert_exits_at_the_second_signal(mut program: Program) {
    let mut clients: Vec<Client> = (0..20).map(|_| program.client(Framing::Line)).collect();
    clients.iter_mut().for_each(Client::expect_nothing);
    program.signal(Signal::TERM);
    wait_until("new clients are refused", || Client::try_connect(program.addr(Framing::Line), Framing::Line).is_err());
    program.signal(Signal::TERM);
    assert_eq!(program.wait(), Some(1));
}

// ---- The server's log ----

#[test]
fn a_log_whose_reader_is_gone_harms_no_client_and_no_drain() {
    for flags in [&["--log-format=text"][..], &["--log-format=json"]] {
        let flags = flags.iter().chain(&["--shards=1", "--max-connections=1", "--drain-time=0s", "--log=trace"]);
        let (program, log) = Program::serve_unread(flags);
        drop(log);
        let mut client = program.client(Framing::Line);
        assert_eq!(client.ask("SUB news"), "OK SUB news");
        for n in 0..20 {
            assert!(!program.client(PLAIN[n % 2]).is_served(), "there is room for one");
            client.expect_nothing();
        }
        assert_drains(program, &mut client);
    }
}

#[test]
fn a_second_signal_ends_a_server_whose_log_nobody_reads() {
    let (program, log) = Program::serve_unread(["--shards=1", "--drain-time=2h"]);
    drop(log);
    assert_exits_at_the_second_signal(program);
}

/// Publishes until log lines are dropped, since nobody reads the log and the pipe and the queue are full. The
/// subscriber gets all messages meanwhile. Returns how many lines were dropped.
fn fill(publisher: &mut Client, subscriber: &mut Client, control: &str) -> u64 {
    const NAME: &str = "corecast_log_lines_dropped_total ";
    let mut count = 0;
    loop {
        for _ in 0..100 {
            assert!(publisher.ask(format!("PUB news {count}")).starts_with("OK PUB "));
            subscriber.expect(&format!("MSG news {count}"));
            count += 1;
        }
        let metrics = crate::deploy::scrape(control);
        let line = metrics.lines().find_map(|line| line.strip_prefix(NAME)).expect("the metric is there");
        match line.parse().unwrap() {
            0 => assert!(count < 100_000, "no line is dropped"),
            dropped => return dropped,
        }
    }
}

/// A server that logs every publish, on a log that is full.
fn stalled(drain_time: &str) -> (Program, crate::support::Log, Client, String) {
    let flags = ["--shards=1", "--client-publish", "--log=trace", "--control", "127.0.0.1:0", drain_time];
    let (program, log) = Program::serve_unread(flags);
    let ready = program.log();
    let control = ready.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap().to_owned();
    let (mut client, mut publisher) = (program.client(Framing::Line), program.client(Framing::Length));
    assert_eq!(client.ask("SUB news"), "OK SUB news");
    assert!(fill(&mut publisher, &mut client, &control) > 0);
    (program, log, client, control)
}

#[test]
fn a_log_whose_reader_stalls_stops_neither_messages_nor_the_drain() {
    let (program, _log, mut client, _) = stalled("--drain-time=0s");
    assert_drains(program, &mut client);
    let (program, _log, ..) = stalled("--drain-time=2h");
    assert_exits_at_the_second_signal(program);
}

#[test]
fn every_dropped_log_line_is_counted_and_told_of_when_there_is_room_again() {
    let (mut program, log, _client, control) = stalled("--drain-time=0s");
    program.read(log);
    // One notice tells of them all, or several do if lines are lost in between.
    let told = || -> u64 {
        let count = |line: String| line.contains("log lines were dropped").then(|| number_after(&line, "count="));
        program.lines().into_iter().filter_map(count).sum()
    };
    let dropped = || -> u64 {
        let metrics = crate::deploy::scrape(&control);
        number_after(&metrics, "\ncorecast_log_lines_dropped_total ")
    };
    wait_until("each dropped line is told of", || told() > 0 && told() == dropped());
}

/// The number that stands behind the first occurrence of a text.
fn number_after(text: &str, before: &str) -> u64 {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("`{before}` is missing in {text}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn a_start_that_fails_ends_although_nobody_reads_why() {
    let (_reader, full) = full_pipe();
    for stderr in [Stdio::from(full), Stdio::from(broken_pipe())] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_corecast"))
            .args(["serve", "--max-connections=0"])
            .stderr(stderr)
            .spawn()
            .unwrap();
        wait_until("it ends", || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().code(), Some(2));
    }
}

// ---- Signals ----

#[test]
fn signals_that_ask_for_nothing_are_said_once_and_kill_no_server() {
    let mut program = Program::serve(["--shards=1", "--drain-time=0s"]);
    let mut client = program.client(Framing::Line);
    for _ in 0..3 {
        program.signal(Signal::PIPE);
        for (signal, name) in [(Signal::HUP, "SIGHUP"), (Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
            program.signal(signal);
            program.wait_for_line(0, |line| line.contains(&format!("{name} is ignored")));
            client.expect_nothing();
        }
    }
    let lines = program.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("SIGHUP is ignored")).count(), 1, "{lines:#?}");
    assert_drains(program, &mut client);
}

// ---- Commands ----

/// A command with its standard output on `stdout`.
fn run(words: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.args(words).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    command.env_remove("CORECAST_TOKEN_FILE").env_remove("CORECAST_CONTROL");
    command.spawn().unwrap().wait_with_output().unwrap()
}

/// Every command that prints something, with a server for those that need one.
fn each_command(check: impl Fn(&[&str])) {
    let program = Program::serve(["--shards=1", "--client-publish", "--control=127.0.0.1:0"]);
    let log = program.log();
    let target = program.addr(Framing::Line).to_string();
    let load = ["load", "fanout", "--connections=5", "--duration=200ms", "--publish-rate=20", "--target", &target];
    check(&load);
    check(&[&load[..], &["--processes=2"]].concat());
    check(&["serve", "--check", "--control=off", "--listen=line=127.0.0.1:0"]);
    check(&["serve", "--help"]);
    check(&["--version"]);
    check(&["doctor"]);
    check(&["doctor", "--json"]);
    let control = log.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    check(&["push", "news", "hello", "--receipt", "--control", control]);
    check(&["push", "news", "hello", "--json", "--control", control]);
    check(&["push", "news", "--control", control]);
    check(&["stats", "--control", control]);
    check(&["stats", "--json", "--control", control]);
    check(&["stats", "--watch", "--control", control]);
    check(&["stats", "--watch", "--json", "--control", control]);
}

#[test]
fn a_reader_of_stdout_that_leaves_is_no_fault_of_any_command() {
    each_command(|words| {
        let output = run(words, broken_pipe(), Stdio::piped());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {said}");
        let is_log = |line: &&str| line.starts_with("load: ") || line.contains("  WARN ") || line.contains("  INFO ");
        let noise: Vec<_> = said.lines().filter(|line| !is_log(line)).collect();
        assert!(noise.is_empty(), "{words:?}: {said}");
    });
}

#[test]
fn readers_of_both_streams_that_leave_are_no_fault_of_any_command() {
    each_command(|words| {
        assert_eq!(run(words, broken_pipe(), broken_pipe()).status.code(), Some(0), "{words:?}");
    });
}

#[test]
fn output_that_a_full_disk_does_not_take_is_a_fault() {
    each_command(|words| {
        // What clap prints by itself it does not look after, and a line each second goes on.
        if words.contains(&"--watch") || words.contains(&"--help") || words.contains(&"--version") {
            return;
        }
        let output = run(words, File::options().write(true).open("/dev/full").unwrap(), Stdio::piped());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("can't write to stdout: No space left on device"), "{words:?}: {said}");
    });
}

#[test]
fn a_load_whose_progress_nobody_reads_comes_to_its_end() {
    let program = Program::serve(["--shards=1", "--client-publish"]);
    let target = program.addr(Framing::Line).to_string();
    for processes in ["--processes=1", "--processes=2"] {
        let (_reader, full) = full_pipe();
        let words = ["load", "fanout", "--connections=5", "--duration=200ms", "--target", &target, processes];
        let output = run(&words, Stdio::piped(), full);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty(), "the report is there");
    }
}

#[test]
fn a_stdout_that_does_not_wait_gets_all() {
    let (mut reader, writer) = io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let text = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text).unwrap()
    });
    let output = run(&["doctor", "--json"], writer, Stdio::piped());
    assert_eq!(output.status.code(), Some(0));
    serde_json::from_str::<serde_json::Value>(&text.join().unwrap()).expect("it is whole");
}
