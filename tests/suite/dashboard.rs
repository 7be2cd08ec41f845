//! The dashboard in a real browser. `tests/browser/dashboard.mjs` clicks; here are the server and its clients.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use corecast::Framing;
use rustix::process::Signal;

use crate::support::http::{HttpClient, TEXT};
use crate::support::{Program, can_browse};

/// A topic that would run a script, were its name ever taken for markup.
const NASTY_TOPIC: &str = "<img/src=x/onerror=alert(1)>";

fn browser_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

/// Starts the server with two shards and a control plane.
fn serve(flags: &[&str]) -> (Program, String) {
    let mut program = Program::serve(["--shards", "2", "--control", "127.0.0.1:0"].iter().chain(flags));
    let ready = program.wait_for_line(0, |line| line.contains("ready: "));
    let url = ready.split([' ', ',']).find(|word| word.starts_with("http://"));
    let url = url.unwrap_or_else(|| panic!("the ready line has no control address: {ready}")).to_owned();
    (program, url)
}

/// Runs a node script of `tests/browser`. It is killed when it is dropped.
struct Script(Child);

impl Script {
    fn start(arguments: &[&str]) -> Script {
        let command = Command::new("node")
            .args(arguments)
            .current_dir(browser_folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Script(command.expect("node is installed: .ci/setup does it"))
    }

    /// Waits for a line of its output; `None`: it has ended.
    fn line(&mut self, output: &mut impl BufRead) -> Option<String> {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| line.trim_end().to_owned())
    }

    /// Waits for its end. It gives up by itself on what does not happen.
    #[track_caller]
    fn succeed(mut self) {
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut out).unwrap();
        }
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "the script failed, {status}; is all of .ci/setup installed?\n{out}{err}");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_message_published_on_the_page_reaches_its_subscriber_and_shows_its_receipt() {
    if !can_browse() {
        return;
    }
    let (program, url) = serve(&["--listen", "http=127.0.0.1:0"]);
    let mut subscriber = HttpClient::websocket(program.addr(Framing::Http), "/ws", "");
    assert_eq!(subscriber.ask(&format!("SUB {NASTY_TOPIC}")), format!("OK SUB {NASTY_TOPIC}"));
    Script::start(&["dashboard.mjs", "publish", &url, NASTY_TOPIC, "grüße <b>alle</b>"]).succeed();
    // As text, which what is typed into a page is.
    assert_eq!(subscriber.recv_frame(), (TEXT, format!("MSG {NASTY_TOPIC} grüße <b>alle</b>").into_bytes()));
    assert_eq!(subscriber.ask("PING"), "PONG");
}

#[test]
fn the_page_shows_what_happened_before_it_was_opened() {
    if !can_browse() {
        return;
    }
    let (program, url) = serve(&["--client-publish"]);
    let mut subscriber = program.client(Framing::Line);
    assert_eq!(subscriber.ask("SUB a"), "OK SUB a");
    // A sample without the publish, then one with it: the chart shows what lies between.
    let addr = url.strip_prefix("http://").unwrap();
    let past = || crate::support::get(addr, "/v1/history");
    let has = |zeros: bool| {
        let past: serde_json::Value = serde_json::from_str(&past()).unwrap();
        let spans = |sample: &serde_json::Value| -> u64 {
            sample["time_to_last"].as_array().unwrap().iter().filter_map(serde_json::Value::as_u64).sum()
        };
        // The newest is too fresh for the page.
        let samples = past["samples"].as_array().unwrap();
        samples.iter().rev().skip(1).any(|sample| (spans(sample) == 0) == zeros)
    };
    crate::support::wait_until("there are samples before the publish", || has(true));
    assert!(program.client(Framing::Line).ask("PUB a x").starts_with("OK PUB "));
    crate::support::wait_until("there are samples after the publish", || has(false));
    Script::start(&["dashboard.mjs", "history", &url]).succeed();
}

#[test]
fn the_page_asks_for_the_token_until_it_is_right() {
    if !can_browse() {
        return;
    }
    let file = std::env::temp_dir().join(format!("corecast-dashboard-token-{}", std::process::id()));
    std::fs::write(&file, "correct-horse\n").unwrap();
    let chmod = Command::new("chmod").arg("600").arg(&file).status().unwrap();
    assert!(chmod.success());
    let (_program, url) = serve(&["--control-token-file", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    Script::start(&["dashboard.mjs", "token", &url, "correct-horse"]).succeed();
}

#[test]
fn the_page_says_that_the_server_is_away_and_finds_it_again() {
    if !can_browse() {
        return;
    }
    let (program, url) = serve(&[]);
    let mut script = Script::start(&["dashboard.mjs", "outage", &url]);
    let mut output = BufReader::new(script.0.stdout.take().unwrap());
    if script.line(&mut output).as_deref() == Some("connected") {
        program.signal(Signal::STOP);
        let line = script.line(&mut output);
        program.signal(Signal::CONT);
        assert!(line.as_deref() == Some("disconnected") || line.is_none(), "{line:?}");
    }
    script.succeed();
}

#[test]
fn what_the_page_computes_is_right() {
    if !can_browse() {
        return;
    }
    Script::start(&["--test", "dashboard.unit.mjs"]).succeed();
}
