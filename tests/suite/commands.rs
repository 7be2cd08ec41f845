//! The commands that speak to a running server: `push` and `stats`.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use corecast::Framing;
use serde_json::Value;

use crate::support::http::{BINARY, HttpClient, TEXT};
use crate::support::{Client, DEADLINE, Program, free_port};

/// The program with a command and the server's address. Nothing of the environment changes what it does.
fn corecast(control: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.args(words).args(["--control", control]).stdin(Stdio::null());
    command.env_remove("CORECAST_TOKEN_FILE").env_remove("CORECAST_CONTROL");
    command
}

/// Runs a command to its end.
fn run(control: &str, words: &[&str]) -> Output {
    corecast(control, words).output().unwrap()
}

/// Runs a command with a text on its stdin.
fn run_with(control: &str, words: &[&str], input: &[u8]) -> Output {
    let mut child =
        corecast(control, words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // The command may end before it has read everything.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn assert_ended(output: &Output, code: i32, stderr: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(stderr), "`{stderr}` is missing in: {said}");
}

/// A server with a control plane, and the address of that.
fn serve(flags: &[&str]) -> (Program, String) {
    let mut program = Program::serve(["--control", "127.0.0.1:0"].iter().chain(flags));
    let ready = program.wait_for_line(0, |line| line.contains("ready: "));
    let control = ready.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    (program, control)
}

fn subscriber(program: &Program, topic: &str) -> Client {
    let mut client = program.client(Framing::Line);
    assert_eq!(client.ask(format!("SUB {topic}")), format!("OK SUB {topic}"));
    client
}

/// A file that goes with the value.
struct Secret(PathBuf);

impl Secret {
    fn new(token: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("corecast-token-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Secret(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_push_reaches_its_recipients_and_its_receipt_counts_them() {
    let (program, control) = serve(&[]);
    let mut clients = [subscriber(&program, "sport/été.%"), subscriber(&program, "sport/été.%")];
    let mut other = program.client(Framing::Line);
    let id = other.id().to_string();

    let pushed = run(&control, &["push", "sport/été.%", "two words", "--receipt", "--json"]);
    assert_ended(&pushed, 0, "");
    let receipt: Value = serde_json::from_slice(&pushed.stdout).unwrap();
    assert_eq!((&receipt["matched"], &receipt["written"]), (&2.into(), &2.into()), "{receipt}");
    let pushed = run(&control, &["push", "--all", "to all", "--receipt"]);
    assert!(text(&pushed.stdout).contains(": 3 matched on "), "{pushed:?}");
    let pushed = run(&control, &["push", "--connection", &id, "to one", "--slow-consumer", "keep-latest"]);
    assert!(text(&pushed.stdout).starts_with("published "), "{pushed:?}");

    for client in &mut clients {
        client.expect("MSG sport/été.% two words");
        client.expect("ALL to all");
    }
    other.expect("ALL to all");
    other.expect("SELF to one");
    assert_ended(&run(&control, &["push", "--connection", "9", "x"]), 1, "(no-connection)");
}

#[test]
fn each_line_of_stdin_is_a_message_and_their_order_is_kept() {
    let (program, control) = serve(&["--queue-messages-max", "2000"]);
    let mut client = subscriber(&program, "count");
    let lines: String = (0..1_000).map(|n| format!("line {n}\n")).collect();
    let pushed = run_with(&control, &["push", "count"], lines.as_bytes());
    assert_ended(&pushed, 0, "");
    assert_eq!(text(&pushed.stdout), "published 1,000 messages\n");
    for n in 0..1_000 {
        client.expect(&format!("MSG count line {n}"));
    }
    // Any bytes, an empty line, and an end that is missing.
    let pushed = run_with(&control, &["push", "count", "-", "--receipt", "--json"], b"\xff\0\r\n\nlast");
    assert_ended(&pushed, 0, "");
    assert_eq!(text(&pushed.stdout).lines().count(), 3);
    assert_eq!(client.recv_bytes(), b"MSG count \xff\0");
    client.expect("MSG count ");
    client.expect("MSG count last");
}

#[test]
fn a_line_goes_out_before_the_next_one_is_there() {
    let (program, control) = serve(&[]);
    let mut client = subscriber(&program, "live");
    let mut push = corecast(&control, &["push", "live"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = push.stdin.take().unwrap();
    for line in ["one", "two"] {
        writeln!(stdin, "{line}").unwrap();
        client.expect(&format!("MSG live {line}"));
    }
    drop(stdin);
    assert!(push.wait().unwrap().success());
}

#[test]
fn a_line_that_is_refused_is_named_and_the_others_go_out() {
    let (program, control) = serve(&["--max-message", "16"]);
    let mut client = subscriber(&program, "t");
    let pushed = run_with(&control, &["push", "t"], b"one\nthis is longer than sixteen bytes\nthree\n");
    assert_ended(&pushed, 1, "corecast: line 2: ");
    assert_eq!(text(&pushed.stdout), "published 2 messages, 1 refused\n");
    client.expect("MSG t one");
    client.expect("MSG t three");
}

#[test]
fn the_token_is_shown_where_one_is_needed() {
    let (right, wrong) = (Secret::new("open-sesame\n"), Secret::new("sesame"));
    let (_program, control) = serve(&["--control-token-file", right.path()]);
    for command in [&["push", "t", "x"][..], &["stats"]] {
        assert_ended(&run(&control, command), 1, "give the server's token with --token-file");
        let with = |file: &str| run(&control, &[command, &["--token-file", file]].concat());
        assert_ended(&with(wrong.path()), 1, "(unauthorized)");
        assert_ended(&with(right.path()), 0, "");
        assert_ended(&with("/no/such/file"), 2, "the token file /no/such/file: it can't be read");
    }
    let by_environment = corecast(&control, &["push", "t", "x"]).env("CORECAST_TOKEN_FILE", right.path()).output();
    assert_ended(&by_environment.unwrap(), 0, "");
    let empty = Secret::new("\n");
    assert_ended(&run(&control, &["stats", "--token-file", empty.path()]), 2, "it is empty");
}

#[test]
fn a_token_file_that_others_can_read_is_warned_of_and_one_that_they_can_write_is_refused() {
    let secret = Secret::new("open-sesame\n");
    let (_program, control) = serve(&["--control-token-file", secret.path()]);
    let link = std::env::temp_dir().join(format!("corecast-token-link-{}", std::process::id()));
    std::os::unix::fs::symlink(secret.path(), &link).unwrap();
    for command in [&["push", "t", "x"][..], &["stats", "--json"]] {
        let with = |path: &str, mode: u32| {
            std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            run(&control, &[command, &["--token-file", path]].concat())
        };
        for path in [secret.path(), link.to_str().unwrap()] {
            for mode in [0o600, 0o400, 0o640, 0o440] {
                let output = with(path, mode);
                assert_ended(&output, 0, "");
                assert!(output.stderr.is_empty(), "{mode:o}: {}", text(&output.stderr));
            }
            for mode in [0o644, 0o444] {
                assert_ended(&with(path, mode), 0, &format!("can read the token file {path} (mode {mode:03o})"));
            }
            assert_ended(&with(path, 0o660), 0, "its group can write the token file");
            for mode in [0o602, 0o666] {
                assert_ended(
                    &with(path, mode),
                    2,
                    &format!("everybody on this machine can write it (mode {mode:03o})"),
                );
            }
        }
    }
    std::fs::remove_file(link).unwrap();
}

#[test]
fn an_absent_server_is_named_with_what_to_do() {
    // A port that was free a moment ago, and that nothing here takes.
    let addr = format!("127.0.0.1:{}", free_port());
    for command in [&["push", "t", "x"][..], &["stats"], &["stats", "--watch"]] {
        let output = run(&addr, command);
        assert_ended(&output, 1, &format!("can't reach the control API at http://{addr}"));
        assert_ended(&output, 1, "start the server (`corecast serve`), or say with --control");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    let output = run_with(&addr, &["push", "t"], b"one\n");
    assert_ended(&output, 1, "can't reach the control API");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn wrong_usage_is_told_apart() {
    for (words, said) in [
        (&["push"][..], "push needs a recipient"),
        (&["push", "two words", "x"], "`two words` is not a topic"),
        (&["push", "--all", "a", "b"], "there is no topic"),
        (&["push", "--all", "--connection", "7", "x"], "cannot be used with"),
        (&["push", "t", "x", "--slow-consumer", "never"], "not a slow-consumer policy"),
        (&["stats", "--control", "https://a"], "doesn't speak TLS"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_corecast")).args(words).stdin(Stdio::null()).output().unwrap();
        assert_ended(&output, 2, said);
    }
}

/// Answers one request after the other, each on a connection of its own, and gives the bodies it got.
fn answering(answers: &'static [(&'static str, &'static str)]) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let mut bodies = Vec::new();
        for (status, answer) in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            bodies.push(String::from_utf8(body).unwrap());
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nRetry-After: 0\r\n", answer.len());
            (&stream).write_all(format!("{head}Connection: close\r\n\r\n{answer}").as_bytes()).unwrap();
        }
        bodies
    };
    (addr, std::thread::spawn(serve))
}

const BUSY: &str = r#"{"code":"busy","detail":"a queue is full","status":503}"#;

#[test]
fn a_push_says_whether_it_is_text() {
    let (program, control) = serve(&["--listen", "http=127.0.0.1:0"]);
    let mut client = HttpClient::websocket(program.addr(Framing::Http), "/ws?topic=t", "");
    client.recv();
    for (flags, payload, opcode) in [
        (&[][..], &b"text"[..], TEXT),
        (&["--binary"], b"text", BINARY),
        (&[], b"", TEXT),
        (&["--binary"], b"", BINARY),
        (&[], b"\xff", BINARY),
    ] {
        let message = [b"MSG t ", payload].concat();
        let mut push = corecast(&control, &["push", "t"]);
        assert_ended(&push.arg(OsStr::from_bytes(payload)).args(flags).output().unwrap(), 0, "");
        assert_eq!(client.recv_frame(), (opcode, message.clone()), "{flags:?}");
        let words = [&["push", "t"], flags].concat();
        assert_ended(&run_with(&control, &words, &[payload, b"\n"].concat()), 0, "");
        assert_eq!(client.recv_frame(), (opcode, message), "{flags:?}, a line of stdin");
    }
    // A last line without its end has nothing to drop.
    assert_ended(&run_with(&control, &["push", "t"], b"a\r\nb\r"), 0, "");
    assert_eq!([client.recv(), client.recv()], ["MSG t a", "MSG t b\r"]);
}

#[test]
fn a_busy_server_is_asked_again() {
    let (addr, bodies) = answering(&[
        ("503 Service Unavailable", BUSY),
        ("503 Service Unavailable", BUSY),
        ("202 Accepted", r#"{"id":"7"}"#),
    ]);
    let pushed = run(&addr, &["push", "t", "x"]);
    assert_ended(&pushed, 0, "");
    assert_eq!(text(&pushed.stdout), "published 7\n");
    assert_eq!(bodies.join().unwrap(), ["x", "x", "x"]);
}

#[test]
fn what_a_busy_server_left_out_of_a_batch_goes_first() {
    const SOME: &str = concat!(
        r#"{"id":"1"}"#,
        "\n",
        r#"{"code":"busy","detail":"a queue is full","status":503}"#,
        "\n",
        r#"{"code":"busy","detail":"a queue is full","status":503}"#,
        "\n"
    );
    let (addr, bodies) = answering(&[("200 OK", SOME), ("200 OK", "{\"id\":\"2\"}\n{\"id\":\"3\"}\n")]);
    let pushed = run_with(&addr, &["push", "t", "--json"], b"a\nb\nc\n");
    assert_ended(&pushed, 0, "");
    assert_eq!(text(&pushed.stdout).lines().collect::<Vec<_>>(), [r#"{"id":"1"}"#, r#"{"id":"2"}"#, r#"{"id":"3"}"#]);
    let bodies = bodies.join().unwrap();
    assert_eq!(bodies[1], "{\"topic\":\"t\",\"payload\":\"b\"}\n{\"topic\":\"t\",\"payload\":\"c\"}\n");
}

#[test]
fn a_server_of_another_kind_is_recognised() {
    for (status, answer) in [("200 OK", "<html>"), ("404 Not Found", "nothing here"), ("200 OK", "{}")] {
        let answers: &'static [_] = vec![(status, answer)].leak();
        let (addr, bodies) = answering(answers);
        assert_ended(
            &run(&addr, &["stats"]),
            1,
            "not as corecast's control plane does: give the server's control address with --control",
        );
        bodies.join().unwrap();
    }
}

#[test]
fn stats_show_a_server_as_it_is() {
    let (program, control) = serve(&["--shards", "2"]);
    let mut client = subscriber(&program, "news");
    assert_ended(&run(&control, &["push", "news", "x", "--receipt"]), 0, "");
    client.expect("MSG news x");
    let screen = run(&control, &["stats"]);
    assert_ended(&screen, 0, "");
    let screen = text(&screen.stdout);
    for said in ["running", "connections  1 of ", "of 1 since the start", "dropped      none", "    1 ", "\nnews "] {
        assert!(screen.contains(said), "`{said}` is missing in\n{screen}");
    }
    let json = run(&control, &["stats", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["totals"]["delivered"], 1, "{json}");
    assert_eq!(json["rates"]["delivered"], 0, "{json}");
    assert_eq!(json["top_topics"][0]["topic"], "news", "{json}");
    assert_eq!(json["shards"].as_array().unwrap().len(), 2);
}

#[test]
fn when_the_server_is_too_busy_for_a_line_it_takes_none_after_it() {
    // Room for one publish: almost every line finds the queues full and waits, until the batch has waited long enough.
    let (_program, control) = serve(&["--control-queue", "1", "--publish-queue", "1", "--shards", "2"]);
    let addr = control.strip_prefix("http://").unwrap();
    let body = "{\"topic\":\"t\",\"payload\":\"\"}\n".repeat(10_000);
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head =
        format!("POST /v1/batch HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    stream.write_all(format!("{head}Content-Type: application/x-ndjson\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let answers: Vec<_> = answer.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(answers.len(), 10_000, "{answer}");
    let taken = answers.iter().take_while(|line| line.starts_with("{\"id\"")).count();
    assert!(taken > 0);
    let overtaking = answers[taken..].iter().position(|line| !line.contains("\"code\":\"busy\""));
    assert_eq!(overtaking, None, "line {taken} was refused, and a later one was not");
}

/// Reads up to and with a text.
fn read_until(from: &mut impl Read, wanted: &str) -> String {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(wanted.as_bytes()) {
        assert_eq!(from.read(&mut byte).unwrap(), 1, "`{wanted}` is missing in {}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[test]
fn a_watch_that_nobody_sees_is_a_line_a_second_until_nobody_reads() {
    let (_program, control) = serve(&[]);
    let mut watch = corecast(&control, &["stats", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.starts_with("running connections=0 ("), "{line}");
    drop(lines);
    assert!(watch.wait().unwrap().success());
}

/// A watch in a terminal that `script` makes.
struct Terminal(Child);

impl Terminal {
    fn watch(control: &str) -> Self {
        let command =
            format!("stty rows 24 cols 80; {} stats --watch --control {control}", env!("CARGO_BIN_EXE_corecast"));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env("TERM", "xterm");
        Terminal(script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_live_view_takes_the_terminal_and_gives_it_back() {
    let (_program, control) = serve(&[]);
    for farewell in [b"q", b"\x03"] {
        let mut terminal = Terminal::watch(&control);
        let mut screen = terminal.0.stdout.take().unwrap();
        read_until(&mut screen, "\x1b[?1049h");
        read_until(&mut screen, "quits");
        terminal.0.stdin.as_mut().unwrap().write_all(farewell).unwrap();
        read_until(&mut screen, "\x1b[?1049l");
        assert!(terminal.0.wait().unwrap().success());
    }
}
