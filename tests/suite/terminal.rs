//! What the commands show of what comes from elsewhere: no escape sequence, no invisible character, no forged line, and
//! not without end. And what they say where something else answers than was thought.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use corecast::Framing;

use crate::support::{DEADLINE, Program};

/// What a hostile server, file or script would have shown.
const NASTY: &str =
    "x\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{7f}\r\nINFO all is well \u{202e}gnp.exe\u{200b}\u{2066}\u{e0041}";

fn corecast(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.args(words).env_remove("CORECAST_TOKEN_FILE").env_remove("CORECAST_CONTROL").stdin(Stdio::null());
    command.output().unwrap()
}

/// All that a command wrote, which must be fit for a terminal. Returns it.
#[track_caller]
fn assert_harmless(output: &Output) -> String {
    let shown = [&output.stdout[..], &output.stderr[..]].concat();
    let shown = String::from_utf8(shown).unwrap();
    let bad = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{200b}\u{2066}\u{e0041}\u{9b}".contains(c);
    assert!(!shown.contains(bad), "{shown:?}");
    assert!(!shown.lines().any(|line| line.starts_with("INFO")), "a forged line: {shown}");
    assert!(shown.len() < 20_000, "{} bytes", shown.len());
    shown
}

/// A server that gives one answer to each request, the same each time. It ends with the test's process.
fn answers(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut buffer = [0; 8192];
            let count = stream.read(&mut buffer).unwrap_or(0);
            // Whoever asked may have left.
            let _ = stream.write_all(&answer(&String::from_utf8_lossy(&buffer[..count])));
            end(stream);
        }
    });
    addr
}

/// Closes without a reset: what the other side still sends is read.
fn end(mut stream: TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(200)));
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

fn http(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into()
}

#[test]
fn what_a_server_says_does_nothing_to_the_terminal() {
    use serde_json::{Value, json};
    let long = NASTY.repeat(5_000);
    let problem = json!({ "code": long, "detail": long, "status": 422 }).to_string();
    let receipt = json!({ "id": long, "matched": 1, "written": 0, "queued": 0, "dropped": { NASTY: 1 }, "shards": 1 });
    let reasons = json!({ long.clone(): 3, "reset": 1 });
    let stats = json!({
        "state": NASTY, "version": long, "uptime_s": 5.0, "connections": 1, "max_connections": 2,
        "totals": { "closed": reasons, "dropped": reasons, "refused": reasons }, "shards": [{ "shard": 0 }],
    });
    let topics = json!({ "topics": [{ "topic": NASTY, "subscribers": 1 }, { "topic": long }], "next": null });
    let receipt = receipt.to_string();
    let addr = answers(move |request| match request {
        _ if request.starts_with("GET /v1/stats") => http("200 OK", "application/json", &stats.to_string()),
        _ if request.starts_with("GET /v1/topics") => http("200 OK", "application/json", &topics.to_string()),
        _ if request.contains("receipt=true") => http("200 OK", "application/json", &receipt),
        _ => http("422 Unprocessable Content", "application/problem+json", &problem),
    });
    let control = format!("http://{addr}");
    let shown = assert_harmless(&corecast(&["push", "--control", &control, "news", "hello"]));
    assert!(shown.contains(r"x\u001b[2J") && shown.contains(r"\r\nINFO all is well \u202egnp.exe"), "{shown}");
    assert_harmless(&corecast(&["push", "--control", &control, "news", "hello", "--receipt"]));
    let shown = assert_harmless(&corecast(&["stats", "--control", &control]));
    assert!(shown.contains(r"x\u001b[2J"), "{shown}");

    // JSON stays JSON, and means the same.
    let output = corecast(&["push", "--control", &control, "news", "hello", "--receipt", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["dropped"][NASTY], 1);
    let output = corecast(&["stats", "--control", &control, "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["state"], &said["top_topics"][0]["topic"]), (&NASTY.into(), &NASTY.into()));
    assert!(!output.stdout.contains(&0x1b) && !String::from_utf8(output.stdout).unwrap().contains('\u{202e}'));
}

#[test]
fn what_a_server_says_to_a_load_does_nothing_to_the_terminal() {
    let said = NASTY.replace(['\r', '\n'], "");
    for line in [
        format!("{said}\n"),
        format!("ERR {said} {said}\n"),
        format!("BYE {said}\n"),
        format!("{}\n", said.repeat(999)),
    ] {
        let addr = answers(move |_| line.clone().into_bytes()).to_string();
        for kind in ["idle", "fanout", "echo"] {
            let words = ["load", kind, "--quiet", "--connections=1", "--duration=1s", "--target", &addr];
            let output = corecast(&words);
            assert_harmless(&output);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
        }
    }
}

#[test]
fn what_a_file_or_a_command_line_holds_does_nothing_to_the_terminal() {
    let file = std::env::temp_dir().join(format!("corecast-nasty-{}.toml", std::process::id()));
    for text in [
        format!("{} = 1\n", NASTY.replace(['\r', '\n'], "")),
        format!("listen = [\"{}\"]", NASTY.replace(['\r', '\n'], "")),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = corecast(&["serve", "--config", file.to_str().unwrap(), "--check"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_harmless(&output);
    }
    std::fs::remove_file(&file).unwrap();
    let line = NASTY.replace('\n', " ");
    let flag = format!("--{line}");
    for words in [
        &["serve", &flag][..],
        &["serve", "--listen", &line],
        &["serve", "--log", &line],
        &["load", "idle", "--target", &line],
    ] {
        let output = corecast(words);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
        assert_harmless(&output);
    }
}

#[test]
fn a_load_that_went_to_the_wrong_port_says_what_it_met() {
    let server = Program::serve(["--listen=http=127.0.0.1:0", "--client-publish"]);
    let addr = |framing| server.addr(framing).to_string();
    let (line, length, http_port) = (addr(Framing::Line), addr(Framing::Length), addr(Framing::Http));
    let web = answers(|_| http("404 Not Found", "text/plain", "no such page")).to_string();
    let tls =
        answers(|said| if said.starts_with('\u{16}') { b"\x15\x03\x01\x00\x02\x02\x28".to_vec() } else { Vec::new() });
    let redis = answers(|_| b"-ERR wrong number of arguments\r\n".to_vec()).to_string();
    for (framing, target, said) in [
        (
            "line",
            &http_port,
            "port for browsers, WebSocket and server-sent events over HTTP, and this run speaks line; use --framing ws or sse",
        ),
        ("length", &http_port, "use --framing ws or sse"),
        ("ws", &line, "speaks corecast's language in lines, and this run speaks ws; use --framing line"),
        ("sse", &length, "in messages preceded by their length, and this run speaks sse; use --framing length"),
        ("line", &length, "use --framing length"),
        ("length", &line, "use --framing line"),
        ("line", &web, "speaks HTTP, but has nothing at /ws"),
        ("ws", &web, "speaks HTTP, but has nothing at /ws"),
        ("line", &tls.to_string(), "speaks TLS, and this run speaks line; corecast load has no TLS"),
        ("line", &redis, "use --framing redis"),
    ] {
        for kind in ["idle", "fanout"] {
            let framing = format!("--framing={framing}");
            let output = corecast(&["load", kind, "--quiet", "-n2", "--duration=1s", &framing, "--target", target]);
            let shown = assert_harmless(&output);
            assert!(output.status.code() == Some(1) && shown.contains(said), "{kind} {framing}: {shown}");
            assert!(!shown.contains("--message-size"), "{shown}");
        }
    }
}

#[test]
fn a_command_that_went_to_the_wrong_port_says_what_it_met() {
    let mut server = Program::serve(["--listen=http=127.0.0.1:0", "--control=127.0.0.1:0"]);
    let ready = server.wait_for_line(0, |line| line.contains("ready: "));
    let control = ready.split([' ', ',']).find_map(|word| word.strip_prefix("http://")).unwrap().to_owned();
    let addr = |framing| server.addr(framing).to_string();
    for (target, said) in [
        (addr(Framing::Http), "this is the port of its clients; give the control address with --control"),
        (addr(Framing::Line), "this is the port of its clients"),
        (
            answers(|_| b"SSH-2.0-x\r\n".to_vec()).to_string(),
            "does not speak HTTP, so it is not corecast's control plane",
        ),
        (
            answers(|_| http("200 OK", "text/html", "<html>")).to_string(),
            "not as corecast's control plane does: give the server's",
        ),
        ("https://127.0.0.1:1".into(), "corecast doesn't speak TLS"),
    ] {
        for words in [&["push", "news", "hello"][..], &["stats"]] {
            let output = corecast(&[words, &["--control", &target]].concat());
            let shown = assert_harmless(&output);
            assert!(!output.status.success() && shown.contains(said), "{words:?} {target}: {shown}");
        }
    }
    // The control plane is not for clients.
    let output = corecast(&["load", "idle", "--quiet", "-n1", "--framing=ws", "--target", &control]);
    assert!(assert_harmless(&output).contains("is corecast's control plane"), "{output:?}");
}
