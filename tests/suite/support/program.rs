//! The program as a child process.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use corecast::{Framing, Listen};
use rustix::process::{Pid, Signal, kill_process};

use super::{Client, wait_until};

const BINARY: &str = env!("CARGO_BIN_EXE_corecast");

/// A running `corecast`. It is killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    stderr: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    listen: Vec<Listen>,
}

/// What a program logs.
pub(crate) type Log = BufReader<ChildStderr>;

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None`: a signal killed it.
    pub(crate) code: Option<i32>,
    /// What it wrote to its standard output.
    pub(crate) stdout: String,
    /// What it wrote to its standard error.
    pub(crate) stderr: String,
}

impl Program {
    /// Starts `corecast serve` with both framings on ports that the kernel chooses, and waits until it is ready.
    pub(crate) fn serve<S: AsRef<OsStr>>(flags: impl IntoIterator<Item = S>) -> Program {
        Program::serve_under(&[], flags)
    }

    /// Like [`Program::serve`], under another program that takes a command, as in `prlimit --nofile=99`.
    pub(crate) fn serve_under<S: AsRef<OsStr>>(wrapper: &[&str], flags: impl IntoIterator<Item = S>) -> Program {
        let (mut program, log) = Program::start(wrapper, flags);
        program.read(log);
        let ready = program.wait_for_line(0, |line| line.contains("ready: "));
        program.listen = addresses(&ready);
        program
    }

    /// Like [`Program::serve`], but from the ready line on nobody reads the log, unless the caller does.
    pub(crate) fn serve_unread<S: AsRef<OsStr>>(flags: impl IntoIterator<Item = S>) -> (Program, Log) {
        let (mut program, mut log) = Program::start(&[], flags);
        while program.listen.is_empty() {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the program has ended:\n{}", program.log());
            if line.contains("ready: ") {
                program.listen = addresses(&line);
            }
            program.stderr.lock().unwrap().push(line.trim_end().to_owned());
        }
        (program, log)
    }

    /// Starts `corecast serve` with both framings on ports that the kernel chooses.
    fn start<S: AsRef<OsStr>>(wrapper: &[&str], flags: impl IntoIterator<Item = S>) -> (Program, Log) {
        let mut command = command(wrapper, flags);
        command.args(["--listen", "line=127.0.0.1:0", "--listen", "length=127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        (Program { child, stderr: Arc::default(), reader: None, listen: Vec::new() }, log)
    }

    /// Reads the log from now on, on a thread of its own.
    pub(crate) fn read(&mut self, log: Log) {
        let lines = Arc::clone(&self.stderr);
        self.reader = Some(std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        }));
    }

    /// Runs `corecast serve` with `flags` to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(flags: impl IntoIterator<Item = S>) -> Ended {
        Program::run_under(&[], flags)
    }

    /// Like [`Program::run`], under another program that takes a command.
    pub(crate) fn run_under<S: AsRef<OsStr>>(wrapper: &[&str], flags: impl IntoIterator<Item = S>) -> Ended {
        let mut child = command(wrapper, flags).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = read_in_background(child.stdout.take().unwrap());
        let stderr = read_in_background(child.stderr.take().unwrap());
        let mut program = Program { child, stderr: Arc::default(), reader: None, listen: Vec::new() };
        let code = program.wait();
        Ended { code, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
    }

    /// The address of a framing, as the ready line gives it.
    pub(crate) fn addr(&self, framing: Framing) -> SocketAddr {
        let listen = self.listen.iter().find(|listen| listen.framing == framing);
        listen.unwrap_or_else(|| panic!("the ready line has no {framing} address: {}", self.log())).addr
    }

    /// Connects.
    pub(crate) fn client(&self, framing: Framing) -> Client {
        Client::connect(self.addr(framing), framing)
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Lines that the program has logged so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// All that the program has logged so far.
    pub(crate) fn log(&self) -> String {
        self.lines().join("\n")
    }

    /// Waits until the program has logged a line that `matches`, not looking at the first `skip` lines.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, skip: usize, matches: impl Fn(&str) -> bool) -> String {
        let mut found = None;
        wait_until("the program logs the line", || {
            // What was written before the end is still read after it.
            let ended = self.child.try_wait().unwrap().is_some()
                && self.reader.as_ref().is_none_or(|reader| reader.is_finished());
            found = self.lines().into_iter().skip(skip).find(|line| matches(line));
            assert!(found.is_some() || !ended, "the program has ended:\n{}", self.log());
            found.is_some()
        });
        found.unwrap()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end and returns the exit code; `None`: a signal killed it.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.unwrap().code()
    }

    /// File descriptors that the program has open.
    pub(crate) fn open_fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Resident memory of the program in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("---- log of the program ----\n{}", self.log());
        }
    }
}

/// The command with its flags. Where they don't say otherwise there is no control plane: programs that run at the same
/// time would want the same port for it.
fn command<S: AsRef<OsStr>>(wrapper: &[&str], flags: impl IntoIterator<Item = S>) -> Command {
    let mut words = wrapper.iter().copied().chain([BINARY, "serve"]);
    let mut command = Command::new(words.next().expect("there is the binary at least"));
    command.args(words).stdin(Stdio::null()).stderr(Stdio::piped());
    let flags: Vec<_> = flags.into_iter().map(|flag| flag.as_ref().to_owned()).collect();
    if !flags.iter().any(|flag| flag.as_bytes().starts_with(b"--control=") || flag == "--control") {
        command.arg("--control=off");
    }
    command.args(flags);
    command
}

/// The addresses in a ready line.
fn addresses(ready: &str) -> Vec<Listen> {
    ready.split([' ', ',']).filter_map(|word| word.parse().ok()).collect()
}

fn read_in_background(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}
