//! The processes of a measure: the server or its floor, and the client of each.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

use super::proc::Proc;
use super::wait_until;
use super::wire::Wire;

/// First words that make this program one of the processes of a measure.
pub(crate) const BARE: &str = "--bare";
pub(crate) const CLIENT: &str = "--client";
pub(crate) const POSTER: &str = "--poster";
pub(crate) const LEASH: &str = "--leash";

/// Whether all threads of a process on a leash have one CPU, or those it takes for itself.
pub(crate) const PINNED: &str = "pinned";
const FREE: &str = "free";

/// The CPU for server and floor, and the one for their clients.
pub(crate) fn cpus() -> Result<(usize, usize), String> {
    let set = rustix::thread::sched_getaffinity(None).map_err(|errno| format!("reading the CPU affinity: {errno}"))?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    let first = allowed.next().ok_or("this process may run on no CPU")?;
    Ok((first, allowed.next().unwrap_or(first)))
}

/// Pins the calling thread, and lets this process end with the one that started it.
pub(crate) fn settle_on(cpu: usize) -> Result<(), String> {
    end_with_parent()?;
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(|errno| format!("pinning to CPU {cpu}: {errno}"))
}

/// Lets this process open as many files as it may at all; the server does so by itself.
pub(crate) fn raise_open_files() -> Result<(), String> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(Resource::Nofile, raised).map_err(|errno| format!("raising the open files: {errno}"))
}

fn end_with_parent() -> Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| errno.to_string())
}

/// Becomes another program that ends when this one's parent does, and has the server's CPU alone if the first word says so.
pub(crate) fn run_on_leash(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    end_with_parent()?;
    if words.next().as_deref() == Some(PINNED) {
        settle_on(cpus()?.0)?;
    }
    let program = words.next().ok_or("no program named")?;
    let error = Command::new(&program).args(words).exec();
    Err(format!("starting {program}: {error}"))
}

/// This very program, to be started in one of its other roles.
pub(crate) fn this_program(role: &str) -> Result<Command, String> {
    let program = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let mut command = Command::new(program);
    command.arg(role).stdin(Stdio::null());
    Ok(command)
}

/// Which program answers the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    Hub,
    Echo,
    /// Only a floor: it accepts connections, and has them.
    Hold,
    /// A hub whose clients publish by HTTP.
    Publish,
    /// Only a floor: it passes on to the subscribers of topics what is published to these.
    Topics,
}

impl App {
    pub(crate) fn name(self) -> &'static str {
        match self {
            App::Hub => "hub",
            App::Echo => "echo",
            App::Hold => "hold",
            App::Publish => "publish",
            App::Topics => "topics",
        }
    }
}

impl FromStr for App {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [App::Hub, App::Echo, App::Hold, App::Publish, App::Topics];
        all.into_iter().find(|app| app.name() == name).ok_or_else(|| format!("`{name}` is no app"))
    }
}

/// A process with clients: the server, or its floor.
pub(crate) struct Served {
    child: Child,
    /// Where it listens first.
    pub(crate) addr: SocketAddr,
    /// Everywhere that it listens, in the order in which it was told to.
    pub(crate) addrs: Vec<SocketAddr>,
    /// Where the control plane of a server is, if it has one.
    pub(crate) control: Option<SocketAddr>,
    pub(crate) proc: Proc,
}

impl Served {
    /// The server under test, with one shard.
    pub(crate) fn server(app: App, wire: Wire) -> Result<Self, String> {
        Self::serve(app, 1, &[wire.framing()], &[])
    }

    /// The server under test, with so many shards, that listens for these framings and has other settings besides.
    pub(crate) fn serve(app: App, shards: usize, framings: &[&str], settings: &[&str]) -> Result<Self, String> {
        let (first, second) = cpus()?;
        let cpus = if shards == 1 { first.to_string() } else { format!("{first},{second}") };
        let mut command = this_program(LEASH)?;
        // The control plane shares the shard's CPU.
        let (name, control, place) =
            if app == App::Publish { ("hub", "127.0.0.1:0", PINNED) } else { (app.name(), "off", FREE) };
        command.args([place, env!("CARGO_BIN_EXE_corecast")]).args(["serve", "--app", name, "--cpus", &cpus]);
        command.args(["--shards", &shards.to_string()]);
        for framing in framings {
            command.args(["--listen", &format!("{framing}=127.0.0.1:0")]);
        }
        command.args(["--report-every", "0", "--control", control, "--read-timeout", "1h", "--ping-every", "0"]);
        command.arg("--client-publish").args(settings);
        Self::start(command, &format!("{}=", framings[0]))
    }

    /// A process that listens at an address already.
    pub(crate) fn of(child: Child, addr: SocketAddr) -> Self {
        Served { proc: Proc::of(&child), child, addr, addrs: vec![addr], control: None }
    }

    /// The floor of an app.
    pub(crate) fn bare(app: App) -> Result<Self, String> {
        let mut command = this_program(BARE)?;
        command.arg(app.name());
        Self::start(command, "")
    }

    /// Starts a process and waits until it says, after the word `before`, where it listens.
    fn start(mut command: Command, before: &str) -> Result<Self, String> {
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let mut said = String::new();
        for line in lines.by_ref() {
            let ready = line.split_once("ready: ").filter(|(_, rest)| rest.contains(before));
            if let Some((_, rest)) = ready {
                let (listening, control) = rest.split_once("http://").unwrap_or((rest, ""));
                let addrs = |text: &str| text.split([',', ' ', '=']).filter_map(|word| word.parse().ok()).collect();
                let (addrs, control): (Vec<SocketAddr>, Vec<SocketAddr>) = (addrs(listening), addrs(control));
                let addr = *addrs.first().ok_or_else(|| format!("no address in `{line}`"))?;
                // The rest is passed on, so that a full pipe stops nobody.
                std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
                return Ok(Served { proc: Proc::of(&child), child, addr, addrs, control: control.first().copied() });
            }
            said = said + "\n" + &line;
        }
        let _ = child.wait();
        Err(format!("{command:?} did not start:{said}"))
    }

    /// Waits until it has just so many descriptors open.
    pub(crate) fn wait_for_descriptors(&self, count: usize) -> Result<(), String> {
        wait_until(&format!("{count} open descriptors"), || Ok(self.proc.descriptors()? == count))
    }

    /// Has it stand still. Until [`Served::resume`], its connections wait to be accepted.
    pub(crate) fn pause(&self) -> Result<(), String> {
        self.signal(Signal::STOP)?;
        // The signal takes effect a little later.
        wait_until("a server that stands still", || Ok(self.proc.state()? == 'T'))
    }

    pub(crate) fn resume(&self) -> Result<(), String> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let process = Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).map_err(|errno| format!("signalling {process:?}: {errno}"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clients that were started; see [`Client::start`].
static CLIENTS: AtomicU8 = AtomicU8::new(0);

/// The process that holds the connections of one side.
pub(crate) struct Client {
    child: Child,
    pub(crate) proc: Proc,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Client {
    /// Starts a client of an app, without connections yet.
    pub(crate) fn start(to: SocketAddr, app: App, wire: Wire) -> Result<Self, String> {
        // No bench has more than 256 clients at a time, so the number may begin anew.
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        Self::run(CLIENT, &[&to.to_string(), app.name(), wire.name(), &number.to_string()])
    }

    /// Starts a client that publishes by HTTP, and subscribes where there is something to subscribe to.
    pub(crate) fn poster(to: &Served) -> Result<Self, String> {
        let listen = to.control.map_or("-".to_owned(), |_| to.addr.to_string());
        Self::run(POSTER, &[&to.control.unwrap_or(to.addr).to_string(), &listen])
    }

    /// Starts this very program as a client of another role, which obeys commands as this one does.
    pub(crate) fn run(role: &str, words: &[&str]) -> Result<Self, String> {
        let mut command = this_program(role)?;
        command.args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let (to, from) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        Ok(Client { proc: Proc::of(&child), child, to, from: BufReader::new(from) })
    }

    /// Opens so many connections, of which those to a hub each subscribe. How many there are with the publisher's.
    pub(crate) fn connect(&mut self, connections: usize) -> Result<usize, String> {
        let answer = self.ask(&format!("connect {connections}"))?;
        answer.first().map(|open| *open as usize).ok_or_else(|| "the client gave no number".into())
    }

    /// Closes all connections.
    pub(crate) fn close(&mut self) -> Result<(), String> {
        self.ask("close").map(drop)
    }

    /// Publishes so many messages at once and waits until every connection has them all. The time it took.
    pub(crate) fn publish(&mut self, messages: usize) -> Result<Duration, String> {
        let answer = self.ask(&format!("publish {messages}"))?;
        answer.first().copied().map(Duration::from_nanos).ok_or_else(|| "the client gave no time".into())
    }

    /// Opens the WebSocket that publishes to the others.
    pub(crate) fn open_publisher(&mut self) -> Result<(), String> {
        self.ask("publisher").map(drop)
    }

    /// Publishes JSON of about so many bytes, or over the line framing a line that has just so many with its framing, and
    /// waits until every connection has it. How many bytes one got, and how many the message has.
    pub(crate) fn push(&mut self, bytes: usize, is_chat: bool) -> Result<(usize, usize), String> {
        match self.ask(&format!("push {bytes} {}", u8::from(is_chat)))?[..] {
            [_, wire, message] => Ok((wire as usize, message as usize)),
            _ => Err("the client gave no counts".into()),
        }
    }

    /// Has every connection send its message again as soon as it is back. How many came back within the time, how
    /// long that was, and how many came back in all.
    pub(crate) fn echo(&mut self, span: Duration) -> Result<(f64, Duration, f64), String> {
        self.work(&format!("echo {}", span.as_millis()))
    }

    /// Has every connection send so many requests that publish a message each, and again as soon as they are answered.
    /// The figures are as those of [`Client::echo`].
    pub(crate) fn post(&mut self, at_once: usize, span: Duration) -> Result<(f64, Duration, f64), String> {
        self.work(&format!("post {at_once} {}", span.as_millis()))
    }

    /// As [`Client::post`], with one request for so many messages, which are what is counted.
    pub(crate) fn batch(&mut self, lines: usize, span: Duration) -> Result<(f64, Duration, f64), String> {
        self.work(&format!("batch {lines} {}", span.as_millis()))
    }

    fn work(&mut self, command: &str) -> Result<(f64, Duration, f64), String> {
        match self.ask(command)?[..] {
            [within, nanos, all] => Ok((within as f64, Duration::from_nanos(nanos), all as f64)),
            _ => Err("the client gave no counts".into()),
        }
    }

    /// Sends so many PINGs, each on the next connection, evenly over the time, and waits for all answers.
    pub(crate) fn ping(&mut self, pings: usize, span: Duration) -> Result<(), String> {
        self.ask(&format!("ping {pings} {}", span.as_millis())).map(drop)
    }

    /// Gives it a command; the numbers of its answer.
    pub(crate) fn ask(&mut self, command: &str) -> Result<Vec<u64>, String> {
        writeln!(self.to, "{command}").map_err(|error| format!("the client is gone: {error}"))?;
        self.answer()
    }

    /// Waits for what it says next; the numbers in it.
    pub(crate) fn answer(&mut self) -> Result<Vec<u64>, String> {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            Ok(1..) => Ok(line.split_whitespace().filter_map(|word| word.parse().ok()).collect()),
            // It has said why on stderr.
            Ok(0) => Err("the client gave up".into()),
            Err(error) => Err(format!("the client is gone: {error}")),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
