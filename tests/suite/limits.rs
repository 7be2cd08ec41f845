//! Limits on connections, and a host that grants less than is asked for.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use corecast::{Config, Framing};
use rustix::process::{Resource, Rlimit, prlimit};

use crate::support::{Client, Fixture, PLAIN, Program, config, wait_until};

/// Connects `count` clients from several threads at once and returns those that are served.
fn connect(addrs: [SocketAddr; 2], count: usize) -> Vec<Client> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn(move || {
                    let mine = (thread..count).step_by(8);
                    let clients = mine.filter_map(|n| {
                        let framing = PLAIN[n % 2];
                        Client::try_connect(addrs[framing as usize], framing).ok()
                    });
                    clients.filter_map(|mut client| client.is_served().then_some(client)).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn exactly_as_many_connections_as_allowed_are_served_over_all_shards() {
    const MAX: usize = 50;
    let server = Fixture::hub(settings! { max_connections: MAX, ..config() });
    let addrs = PLAIN.map(|framing| server.addr(framing));
    let mut clients = connect(addrs, 80);
    assert_eq!(clients.len(), MAX);
    assert_eq!(server.sum(|shard| shard.refused_full.get()), 30);
    assert_eq!(server.conn_count(), MAX);

    clients.truncate(MAX - 10);
    server.wait_for_connections(MAX - 10);
    clients.extend(connect(addrs, 20));
    assert_eq!(clients.len(), MAX);
    clients.iter_mut().for_each(Client::expect_nothing);
    assert_eq!(server.sum(|shard| shard.refused_full.get()), 40);
}

#[test]
fn too_few_fds_lower_the_limit_on_connections_which_is_said_and_kept_exactly() {
    // 64 are the server's own, and 16 each shard's.
    const FDS: usize = 150;
    const MAX: usize = FDS - 64 - 2 * 16;
    let limit = format!("--nofile={FDS}");
    let program = Program::serve_under(&["prlimit", &limit, "--"], ["--shards", "2", "--max-connections", "1000"]);
    let log = program.log();
    assert!(log.contains(&format!("up to {MAX} connections")), "{log}");
    let warning = program.lines().into_iter().find(|line| line.contains("WARN")).expect("a warning");
    for part in ["max_connections is 1000", "150", &format!("{MAX}, which is the limit now"), "ulimit -n"] {
        assert!(warning.contains(part), "{warning}");
    }
    let addrs = PLAIN.map(|framing| program.addr(framing));
    let mut clients = connect(addrs, MAX + 20);
    assert_eq!(clients.len(), MAX);
    clients.iter_mut().for_each(Client::expect_nothing);
}

#[test]
fn a_soft_limit_on_fds_is_raised_to_the_hard_one() {
    let program =
        Program::serve_under(&["prlimit", "--nofile=150:300", "--"], ["--shards", "1", "--max-connections", "200"]);
    let log = program.log();
    assert!(log.contains("up to 200 connections") && !log.contains("WARN"), "{log}");
    let addrs = PLAIN.map(|framing| program.addr(framing));
    assert_eq!(connect(addrs, 210).len(), 200);
}

#[test]
fn new_connections_wait_while_fds_are_exhausted_and_are_served_when_there_are_some_again() {
    let mut program = Program::serve(["--shards", "1"]);
    let mut old = program.client(Framing::Line);
    old.expect_nothing();
    let limit = nofile_of(&program);
    let exhausted = Rlimit { current: Some(3), ..limit };
    prlimit(Some(program.pid()), Resource::Nofile, exhausted).unwrap();
    // An accept that was under way may still get its fd, so one of them may be served.
    let mut waiting: Vec<Client> = (0..5).map(|_| program.client(Framing::Line)).collect();
    waiting.iter_mut().for_each(|client| client.send("PING"));
    program.wait_for_line(0, |line| line.contains("WARN") && line.contains("accepting fails"));
    old.expect_nothing();
    let last = waiting.last_mut().unwrap();
    assert!(last.recv_within(Duration::from_millis(1)).is_none(), "it waits, it is not refused");

    prlimit(Some(program.pid()), Resource::Nofile, limit).unwrap();
    waiting.iter_mut().for_each(|client| client.expect("PONG"));
    old.expect_nothing();
    assert!(program.client(Framing::Length).is_served());
}

/// The program's limit on open files.
fn nofile_of(program: &Program) -> Rlimit {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", program.pid().as_raw_nonzero())).unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().skip(3).map(|word| word.parse().ok());
    Rlimit { current: numbers.next().unwrap(), maximum: numbers.next().unwrap() }
}

#[test]
fn little_locked_memory_is_refused_with_the_remedy() {
    let ended = Program::run_under(&["prlimit", "--memlock=65536:65536", "--"], ["--listen", "line=127.0.0.1:0"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("locked memory is 65536 bytes"), "{ended:?}");
    assert!(ended.stderr.contains("`ulimit -l 512`"), "{ended:?}");
}

#[test]
fn too_few_fds_to_start_are_refused_with_the_remedy() {
    let ended =
        Program::run_under(&["prlimit", "--nofile=80:80", "--"], ["--shards", "1", "--listen", "line=127.0.0.1:0"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("open files is 80") && ended.stderr.contains("`ulimit -n 81`"), "{ended:?}");
}

/// A port that is taken refuses the start, whoever holds it.
fn assert_in_use(listen: &str) {
    // The address before it is free: all are bound, or none.
    let ended = Program::run(["--shards", "2", "--listen", "line=127.0.0.1:0", "--listen", listen]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in [listen, "the port is in use", "choose another port"] {
        assert!(ended.stderr.contains(part), "{ended:?}");
    }
}

#[test]
fn a_port_that_another_program_holds_is_refused_with_the_remedy() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_in_use(&format!("line={}", other.local_addr().unwrap()));
}

#[test]
fn a_port_that_another_corecast_holds_is_refused_and_not_shared() {
    let other = Program::serve(["--shards", "2"]);
    assert_in_use(&format!("length={}", other.addr(Framing::Length)));
    assert!(other.client(Framing::Length).is_served());
}

#[test]
fn a_port_is_free_again_as_soon_as_its_server_has_ended() {
    let first = Fixture::hub(config());
    let addr = first.addr(Framing::Line);
    let mut client = first.client(Framing::Line);
    client.expect_nothing();
    // The server closes first, so that its side of the connection lingers in TIME_WAIT.
    first.shutdown();
    client.expect("BYE drain");
    client.expect_end();
    drop(client);
    first.end().unwrap();
    let listen = ["length=127.0.0.1:0".parse().unwrap(), format!("line={addr}").parse().unwrap()];
    let second = Fixture::hub(settings! { listen: listen.to_vec(), ..config() });
    assert!(second.client(Framing::Line).is_served());
}

// ---- Settings ----

/// A config file that is removed when it is dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("corecast-suite-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }

    fn flag(&self) -> String {
        format!("--config={}", self.0.display())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Nothing is lost if it stays.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn settings_that_cannot_be_used_are_refused_with_field_value_and_what_is_allowed() {
    for (name, text, parts) in [
        ("unknown", "max_conections = 5", &["max_conections", "max_connections", "line 1"][..]),
        ("range", "queue_messages_max = 0", &["queue_messages_max is 0", "from 1 to 65536"]),
        ("relation", "queue_bytes_max = '1KiB'", &["queue_bytes_max is 1KiB", "max_message (64KiB)"]),
        ("span", "\nread_timeout = 'soon'", &["`soon` is not a time span", "10s, 250ms or 2m", "line 2"]),
        ("policy", "slow_consumer = 'wait'", &["wait", "skip", "drop-oldest", "keep-latest", "disconnect"]),
        ("framing", "listen = ['morse=127.0.0.1:0']", &["`morse` is not a framing", "line, length"]),
        ("type", "max_connections = 'many'", &["many", "line 1"]),
        ("toml", "max_connections = = 5", &["line 1"]),
    ] {
        let file = File::new(name, text);
        let ended = Program::run([file.flag(), "--listen=line=127.0.0.1:0".into()]);
        assert_eq!(ended.code, Some(2), "{text}: {ended:?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "{text}: `{part}` is missing in: {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("panicked"), "{text}: {}", ended.stderr);
    }
    let ended = Program::run(["--config=/no/such/file.toml"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("/no/such/file.toml"), "{ended:?}");
}

#[test]
fn flags_that_cannot_be_used_are_refused_with_the_flag_and_what_is_allowed() {
    for (flags, parts) in [
        (&["--no-such-flag"][..], &["--no-such-flag"][..]),
        (&["--max-connections", "0"], &["max_connections is 0", "from 1 to 16000000"]),
        (&["--max-connections", "many"], &["--max-connections", "many"]),
        (&["--read-timeout", "1ms"], &["read_timeout is 1ms", "from 500ms"]),
        (&["--max-message", "huge"], &["--max-message", "`huge` is not a size"]),
        (&["--listen", "127.0.0.1:0"], &["--listen", "framing=address:port"]),
        (&["--slow-consumer", "wait"], &["--slow-consumer", "skip, drop-oldest, keep-latest, disconnect"]),
        (&["--cpus", "9999"], &["--cpus", "9999"]),
        (&["--cpus", "1000"], &["cpus is 1000", "this process may not use CPU 1000"]),
        (&["--shards", "3", "--cpus", "0"], &["shards is 3", "cpus names 1"]),
        (&["--log", "a=b=c"], &["--log", "a=b=c"]),
        (&["--report-every", "often"], &["--report-every", "`often` is not a time span"]),
    ] {
        let ended = Program::run(flags);
        assert_eq!(ended.code, Some(2), "{flags:?}: {ended:?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "{flags:?}: `{part}` is missing in: {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("panicked"), "{flags:?}: {}", ended.stderr);
    }
}

#[test]
fn numbers_beyond_all_bounds_are_refused_like_any_other() {
    for flags in [["--max-connections", "18446744073709551615"], ["--max-message", "18446744073709551615"]] {
        let ended = Program::run(flags);
        assert_eq!(ended.code, Some(2), "{flags:?}: {ended:?}");
        assert!(ended.stderr.contains("it must be from"), "{flags:?}: {ended:?}");
    }
}

#[test]
fn check_prints_the_settings_in_force_and_starts_nothing() {
    let file = File::new("check", "max_connections = 7\nread_timeout = '30s'\nlisten = ['length=127.0.0.1:0']\n");
    let ended = Program::run(["--check", &file.flag(), "--max-connections", "9", "--client-publish"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let config: Config = toml::from_str(&ended.stdout).expect("it prints a config file");
    let expected = settings! {
        max_connections: 9,
        read_timeout: Duration::from_secs(30),
        listen: vec!["length=127.0.0.1:0".parse().unwrap()],
        client_publish: true,
        control: "off".parse().unwrap(),
        ..Config::default()
    };
    assert_eq!(config, expected);
    assert!(!ended.stderr.contains("ready"), "{ended:?}");
}

#[test]
fn check_finds_what_would_keep_the_server_from_starting() {
    for (flags, code, part) in [
        (
            &["--listen=line=192.0.2.1:8888"][..],
            1,
            "line=192.0.2.1:8888: no interface of this machine has that address",
        ),
        (&["--cpus=1000"], 2, "cpus is 1000"),
        (&["--max-connections=0"], 2, "max_connections is 0"),
        (&["--pin=off", "--cpus=0"], 2, "cpus pins the shards to CPUs 0"),
    ] {
        let ended = Program::run([&["--check"], flags].concat());
        assert_eq!(ended.code, Some(code), "{flags:?}: {ended:?}");
        assert!(ended.stderr.contains(part), "{flags:?}: {ended:?}");
    }
    let limit = ["prlimit", "--nofile=80:80", "--"];
    let ended = Program::run_under(&limit, ["--check", "--shards=1"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("open files is 80"), "{ended:?}");
}

#[test]
fn check_reads_the_token_and_looks_at_the_control_address() {
    let file = |name: &str, text: &str| {
        let path = std::env::temp_dir().join(format!("corecast-suite-{}-{name}.token", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    };
    let (good, empty) = (file("good", "s3cret"), file("empty", ""));
    for (token, control, code, part) in [
        (good.to_str().unwrap(), "127.0.0.1:0", 0, "settings and host are fine"),
        (good.to_str().unwrap(), "192.0.2.1:8081", 1, "the control plane can't listen on 192.0.2.1:8081"),
        (empty.to_str().unwrap(), "127.0.0.1:0", 2, "it is empty"),
        ("/no/such/token", "127.0.0.1:0", 2, "the token file /no/such/token: it can't be read"),
    ] {
        let ended = Program::run(["--check", "--control", control, "--control-token-file", token]);
        assert_eq!(ended.code, Some(code), "{token}: {ended:?}");
        assert!(ended.stderr.contains(part), "{token}: {ended:?}");
        assert!(ended.stdout.contains("max_connections = "), "the settings are printed first: {ended:?}");
    }
    [good, empty].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

#[test]
fn check_works_while_the_server_runs_and_takes_nothing_from_it() {
    let mut program = Program::serve(["--shards=1", "--control=127.0.0.1:0"]);
    let mut client = program.client(Framing::Line);
    let listen = PLAIN.map(|framing| format!("--listen={framing}={}", program.addr(framing)));
    let control = program.log();
    let control = control.split_whitespace().find_map(|word| word.strip_prefix("http://")).unwrap_or("127.0.0.1:0");
    let before = program.lines().len();
    let ended = Program::run(["--check", "--shards=1", "--control", control, &listen[0], &listen[1]]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("settings and host are fine: 1 shards, pinned to CPU "), "{ended:?}");
    client.expect_nothing();
    assert_eq!(program.lines().len(), before, "the server noticed nothing");
    drop(client);
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.wait(), Some(0));
}

// ---- Limits that can't be raised ----

/// Runs `corecast` under a system-call filter, or says that it can't be made here.
fn under_filter(rule: &str, words: &[&str]) -> Option<std::process::Output> {
    let has_library = "import ctypes; ctypes.CDLL('libseccomp.so.2')";
    let found = std::process::Command::new("python3").args(["-c", has_library]).output();
    if !crate::support::is_here("libseccomp", found.is_ok_and(|output| output.status.success())) {
        return None;
    }
    let profile = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": [{{"names": ["prlimit64"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1{rule}}}]}}"#
    );
    let file = std::env::temp_dir().join(format!("corecast-suite-{}-{}.json", std::process::id(), rule.len()));
    std::fs::write(&file, profile).unwrap();
    let output = std::process::Command::new("prlimit")
        .args(["--nofile=300:600", "python3", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/seccomp_run.py")])
        .arg(&file)
        .arg(env!("CARGO_BIN_EXE_corecast"))
        .args(words)
        .output()
        .unwrap();
    std::fs::remove_file(file).unwrap();
    Some(output)
}

/// A rule that forbids to set limits, and lets them be read.
#[cfg(feature = "load")]
const NO_SETTING: &str = r#", "args": [{"index": 2, "value": 0, "op": "SCMP_CMP_NE"}]"#;

#[cfg(feature = "load")]
#[test]
fn a_limit_that_must_not_be_raised_is_warned_of_and_what_there_is_does() {
    let check = ["serve", "--check", "--shards=1", "--control=off", "--listen=line=127.0.0.1:0"];
    let Some(output) = under_filter(NO_SETTING, &check) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in ["can't be raised from 300 to the hard limit, 600", "it is 300 now", "up to 220 connections"] {
        assert!(said.contains(part), "{said}");
    }
    let output = under_filter(NO_SETTING, &["doctor"]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).replace('\n', " ");
    assert!(said.contains("can't be raised from 300"), "{said}");
    let output = under_filter(NO_SETTING, &["load", "idle", "--connections=1000"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("may open 300") && said.contains("can't be raised from 300"), "{said}");
}

#[test]
fn limits_that_cannot_even_be_read_are_named() {
    let Some(output) = under_filter("", &["serve", "--control=off", "--listen=line=127.0.0.1:0"]) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("limits can't be read") && said.contains("prlimit64"), "{said}");
}

#[test]
fn connections_are_accepted_at_their_rate_once_a_seconds_worth_has_come() {
    const RATE: usize = 20;
    const CLIENTS: usize = 50;
    let server = Fixture::hub(settings! { accept_rate: RATE as u32, ..config() });
    let began = Instant::now();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| server.client(PLAIN[n % 2])).collect();
    wait_until("all are accepted", || {
        let accepted = server.sum(|shard| shard.accepted.get());
        // The clock is read last, so that a test which is slow only allows for more.
        let may = RATE as f64 * (1.0 + began.elapsed().as_secs_f64());
        assert!(accepted as f64 <= may + 1.0, "{accepted}, not {may}");
        accepted == CLIENTS as u64
    });
    clients.iter_mut().for_each(Client::expect_nothing);
}
