//! Clients that nobody here wrote: two Python packages, one of Node, curl, and a browser on the demo page.
//!
//! `.ci/setup` installs them; their scripts are in `tests/clients/` and `tests/browser/`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use corecast::Framing;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Program, can_browse, free_port, is_here, node_has, runs};

/// A hub as a program, with an `http` address on a port of the kernel's choice.
fn hub(flags: &[&str]) -> Program {
    // It is started again at the same place.
    let listen = format!("--listen=http=127.0.0.1:{}", free_port());
    Program::serve(["--client-publish", "--control=off", &listen].iter().chain(flags))
}

/// A script below `tests/`, to be run by a program.
fn script(program: impl AsRef<Path>, path: &str, argument: &str) -> Command {
    let mut command = Command::new(program.as_ref());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)).arg(argument);
    command
}

/// The Python that has the packages.
fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in cargo's target folder");
    target.join("clients/bin/python")
}

/// Runs a script, which says in the end that all is well.
#[track_caller]
fn assert_well(mut command: Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; .ci/setup installs it"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.ends_with("all is well\n"), "{command:?}\n{stdout}\n{stderr}");
}

#[test]
fn python_websockets() {
    if !is_here("the Python clients", runs(python())) {
        return;
    }
    let server = hub(&[]);
    assert_well(script(python(), "clients/websockets_client.py", &server.addr(Framing::Http).to_string()));
}

#[test]
fn python_aiohttp() {
    if !is_here("the Python clients", runs(python())) {
        return;
    }
    let server = hub(&[]);
    assert_well(script(python(), "clients/aiohttp_client.py", &server.addr(Framing::Http).to_string()));
}

#[test]
fn node_ws() {
    if !node_has("ws") {
        return;
    }
    let server = hub(&[]);
    assert_well(script("node", "browser/ws.mjs", &server.addr(Framing::Http).to_string()));
}

#[test]
fn curl_reads_an_event_stream_as_it_comes() {
    if !is_here("curl", runs("curl")) {
        return;
    }
    let server = hub(&[]);
    let url = format!("http://{}/sse?topic=news", server.addr(Framing::Http));
    let mut curl = Command::new("curl");
    curl.args(["--no-buffer", "--silent", "--show-error", "--include", "--max-time", "60", &url]);
    let mut curl = Driven::start(curl);
    curl.wait_for("HTTP/1.1 200 OK");
    curl.wait_for("Content-Type: text/event-stream");
    curl.wait_for("retry: ");
    let mut publisher = server.client(Framing::Line);
    for number in 0..3 {
        let ok = publisher.ask(format!("PUB news {number}"));
        let id = ok.strip_prefix("OK PUB ").unwrap_or_else(|| panic!("{ok}"));
        curl.wait_for(&format!("id: {id}"));
        curl.wait_for(&format!(r#"data: {{"type":"msg","topic":"news","payload":"{number}"}}"#));
    }
}

#[test]
fn a_browser_subscribes_loses_the_server_and_comes_back() {
    if !can_browse() {
        return;
    }
    let mut server = hub(&["--demo"]);
    let addr = server.addr(Framing::Http);
    let mut browser = Driven::start(script("node", "browser/demo.mjs", &format!("http://{addr}/demo")));
    browser.wait_for("subscribed");
    server.client(Framing::Line).ask("PUB news pushed from outside");
    browser.go_on();
    browser.wait_for("received");

    server.signal(Signal::KILL);
    server.wait();
    browser.go_on();
    browser.wait_for("lost");

    let server = Program::serve(["--client-publish", "--control=off", "--demo", &format!("--listen=http={addr}")]);
    browser.go_on();
    browser.wait_for("reconnected");
    let mut publisher = server.client(Framing::Line);
    publisher.ask("PUB news after the restart");
    browser.go_on();
    browser.wait_for("streaming");
    publisher.ask("PUB events as an event");
    browser.go_on();
    browser.wait_for("all is well");
}

/// Runs the client module somewhere against a server that is killed and started again meanwhile.
fn try_the_module(place: &str, node_flags: &[&str]) {
    let flags = ["--demo", "--topics-per-connection-max=200"];
    let mut server = hub(&flags);
    let addr = server.addr(Framing::Http);
    let mut command = Command::new("node");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/client.mjs");
    command.args(node_flags).arg(path).arg(place).arg(addr.to_string());
    let mut client = Driven::start(command);
    client.wait_for("subscribed");
    server.signal(Signal::KILL);
    server.wait();
    let listen = format!("--listen=http={addr}");
    let _server = Program::serve(["--client-publish", "--control=off", &listen].iter().chain(&flags));
    client.go_on();
    client.wait_for("all is well");
}

#[test]
fn the_client_module_keeps_its_topics_in_node() {
    if !node_has("ws") {
        return;
    }
    try_the_module("ws", &[]);
    // Before Node 22 its own WebSocket is behind this flag.
    try_the_module("node", &["--experimental-websocket", "--no-warnings"]);
}

#[test]
fn the_client_module_keeps_its_topics_in_a_browser() {
    if !can_browse() {
        return;
    }
    try_the_module("page", &[]);
    try_the_module("worker", &[]);
}

#[test]
fn the_client_module_bears_with_servers_of_all_sorts() {
    if !node_has("ws") {
        return;
    }
    let mut command = Command::new("node");
    command.args(["--test", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/client.unit.mjs")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_client_module_is_a_package_with_types() {
    if !node_has("typescript") || !is_here("npm", runs("npm")) {
        return;
    }
    let mut command = Command::new("node");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/client.package.mjs"));
    assert_well(command);
}

/// A client that runs beside the test and is told when to go on. It is killed when it is dropped.
struct Driven {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Driven {
    fn start(mut command: Command) -> Driven {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; .ci/setup installs it"));
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Driven { child, stdin, stdout: BufReader::new(stdout) }
    }

    /// Reads lines up to one that begins with `text`. Each client gives up by itself when nothing comes.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.lines().last().is_some_and(|line| line.starts_with(text)) {
            if self.stdout.read_line(&mut seen).unwrap() == 0 {
                let mut log = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
                panic!("it ended before it said `{text}`:\n{seen}\n{log}");
            }
        }
    }

    fn go_on(&mut self) {
        self.stdin.write_all(b"go on\n").unwrap();
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // It may have ended already. A script that steers a browser ends that first.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
