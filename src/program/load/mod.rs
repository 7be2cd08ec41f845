//! The load generator: `corecast load idle|echo|fanout|churn|ramp`.
//!
//! A command becomes a plan (`plan`); the coordinator (`run`) leads the threads, or the processes with threads of their
//! own (`crew`, `process`), through the phases of the run.
//! Each thread is a poll loop over its share of the connections (`worker`). What is measured stands in a scenario
//! (`idle`, `echo`, `fanout`, `ramp`); a churn, whose connections come and go, has a poll loop of its own (`churn`). Which
//! bytes are spoken stands in `dialect`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::{log, output};
use corecast::{bytes_from_text, duration_from_text};

mod alarm;
mod checks;
mod churn;
mod clock;
mod connect;
mod coordinator;
mod crew;
mod deliveries;
mod diagnosis;
mod dialect;
mod echo;
mod error;
mod fanout;
mod html;
mod idle;
mod latency;
mod link;
mod machine;
mod part;
mod payload;
mod plan;
mod process;
mod progress;
mod publisher;
mod ramp;
mod report;
mod run;
mod scenario;
mod shared;
mod sources;
mod subscriber;
mod tally;
#[cfg(test)]
mod tests;
mod text;
mod time_range;
mod timeline;
mod turns;
mod usage;
mod worker;

pub(crate) use dialect::Framing as LoadFraming;
pub(crate) use error::LoadError;
pub(crate) use part::Part as ProcessPart;
pub(crate) use ramp::RampArgs;
pub(crate) use sources::SourceIps;
pub(crate) use time_range::TimeRange;

/// What to measure.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LoadCommand {
    /// Hold idle, subscribed connections, and tell whether all of them are alive.
    ///
    /// Each connection subscribes to a topic and sends PING every 20 s. The exit code is 0 if every
    /// connection was made and none was lost.
    Idle(IdleArgs),
    /// Measure round trips: each connection sends a message, waits for it to come back, and sends the next.
    ///
    /// The server must run with `--app echo`. The exit code is 0 if every message came back as it was sent.
    Echo(EchoArgs),
    /// Measure fan-out: one publisher, many subscribers of one topic.
    ///
    /// The server must run with `--client-publish`. Latency counts from the moment a message was due to be
    /// sent. The exit code is 0 if every subscriber got every message once and in order, or was told by a
    /// GAP what it missed.
    Fanout(FanoutArgs),
    /// Connect, subscribe, stay a while, leave, again and again.
    ///
    /// Connects start at --rate, whatever the server does, and one that is late counts from when it was
    /// due. With --publish-rate the server must run with `--client-publish`. The exit code is 0 if every
    /// connect succeeded, no connection was lost before its time, each clean end was answered, and every
    /// subscriber got each message of its stay once and in order, or was told by a GAP what it missed.
    Churn(ChurnArgs),
    /// Measure what connections cost: more and more of them, and messages to all and to one in a hundred.
    ///
    /// The server must run with `--client-publish`, and on this machine with --server-pid if its memory, CPU time and
    /// file descriptors are to be measured. At each step all subscribe to one topic, one in a hundred to a
    /// second one too. At the end all are closed, and the server must be as it was before. The exit code is 0
    /// if every message reached exactly those it was for, nothing was left behind, and no limit was broken.
    Ramp(RampArgs),
}

impl LoadCommand {
    /// This process's part of a run of several, if it is one.
    fn part(&self) -> Option<ProcessPart> {
        match self {
            LoadCommand::Idle(args) => args.load.part,
            LoadCommand::Echo(args) => args.load.part,
            LoadCommand::Fanout(args) => args.load.part,
            LoadCommand::Churn(args) => args.load.part,
            // The coordinator sees each arrival in the memory that its threads share, so it is a run of one process.
            LoadCommand::Ramp(_) => None,
        }
    }
}

/// Options of every kind of load.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// The server, as address:port or name:port. The default is 127.0.0.1 with the port that servers of the framing
    /// listen on.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8888",
        default_value_ifs = [("framing", "ws", "127.0.0.1:8080"), ("framing", "ws-deflate", "127.0.0.1:8080"), ("framing", "sse", "127.0.0.1:8080"), ("framing", "nats", "127.0.0.1:4222"), ("framing", "redis", "127.0.0.1:6379"), ("framing", "mqtt", "127.0.0.1:1883"), ("framing", "nchan", "127.0.0.1:80")]
    )]
    pub(crate) target: String,
    /// Connections to make.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1_000)]
    pub(crate) connections: usize,
    /// Connects per second; without it as many as the server takes.
    #[arg(long, value_name = "CONNECTS/S")]
    pub(crate) rate: Option<f64>,
    /// Spread the connects evenly over this time.
    #[arg(long, value_name = "TIME", value_parser = duration_from_text, conflicts_with = "rate")]
    pub(crate) ramp: Option<Duration>,
    /// How long to measure once all are connected.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration_from_text)]
    pub(crate) duration: Duration,
    /// Addresses to connect from, first and last. On a loopback target the default is 127.0.0.2 and up,
    /// one address for 2,000 connections.
    #[arg(long, value_name = "A-B")]
    pub(crate) source_ips: Option<SourceIps>,
    /// Threads that share the connections.
    #[arg(long, value_name = "T", default_value_t = 1)]
    pub(crate) threads: usize,
    /// Processes that share the connections, each with as many threads and with file descriptors of its own.
    #[arg(long, value_name = "P", default_value_t = 1)]
    pub(crate) processes: usize,
    /// Given by a run of several processes to each of them.
    #[arg(long, value_name = "PART", hide = true)]
    pub(crate) part: Option<ProcessPart>,
    /// The protocol to speak with the server.
    #[arg(long, value_enum, default_value_t = LoadFraming::Line)]
    pub(crate) framing: LoadFraming,
    /// The server's process, if it runs on this machine: its CPU time and memory are measured too, with those of
    /// the processes that it has started.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also write a page with plots to this file, as HTML. It is self-contained.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Show no progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Options of `load idle`.
#[derive(Clone, Debug, Args)]
pub(crate) struct IdleArgs {
    /// What all kinds of load share.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The topic to subscribe to; by default one that no other run uses.
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
}

/// Options of `load echo`.
#[derive(Clone, Debug, Args)]
pub(crate) struct EchoArgs {
    /// What all kinds of load share.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Bytes of each message, at least 32.
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = bytes_from_text)]
    pub(crate) message_size: usize,
}

/// Options of `load fanout`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FanoutArgs {
    /// What all kinds of load share.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The topic to subscribe and to publish to; by default one that no other run uses.
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
    /// Bytes of each message's payload, at least 32.
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = bytes_from_text)]
    pub(crate) message_size: usize,
    /// Publishes per second. With --burst each of them is a burst.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    pub(crate) publish_rate: f64,
    /// Messages that are published back to back each time.
    #[arg(long, value_name = "B", default_value_t = 1)]
    pub(crate) burst: u32,
    /// Percentage of subscribers that stop reading once they have subscribed. They are reported separately.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) stalled_percent: f64,
}

/// Options of `load churn`.
#[derive(Clone, Debug, Args)]
#[command(
    mut_arg("connections", |arg| arg.help("Connections that may be open at a time")),
    mut_arg("rate", |arg| arg.help("Connects per second [default: 100]")),
    mut_arg("duration", |arg| arg.help("How long to go on connecting")),
    mut_arg("ramp", |arg| arg.hide(true))
)]
pub(crate) struct ChurnArgs {
    /// What all kinds of load share.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// The topic to subscribe and to publish to; by default one that no other run uses.
    #[arg(long, value_name = "NAME")]
    pub(crate) topic: Option<String>,
    /// How long a connection stays once it has subscribed: one time, or the shortest and the longest, which
    /// are then spread evenly.
    #[arg(long, value_name = "TIME[-TIME]", default_value = "500ms-1500ms")]
    pub(crate) stay: TimeRange,
    /// Percentage of connections that end with a reset instead of a clean shutdown.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) abrupt_percent: f64,
    /// Publishes per second to all that are connected; 0: none.
    #[arg(long, value_name = "R", default_value_t = 0.0)]
    pub(crate) publish_rate: f64,
    /// Bytes of each message's payload, at least 32.
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = bytes_from_text)]
    pub(crate) message_size: usize,
}

/// Runs a load, prints the result to stdout, and writes it to the files that were asked for. Returns whether nothing was
/// lost, duplicated or reordered in silence, and no connection failed.
///
/// # Errors
/// The command can't be used, the server can't be reached or doesn't offer what the load needs, or the
/// result can't be written.
pub(crate) fn run(command: LoadCommand) -> Result<bool, LoadError> {
    let plan = plan::Plan::new(command)?;
    if let Some(part) = plan.part {
        run::take_part(plan, part);
        return Ok(true);
    }
    let create = |option, path: &Option<PathBuf>| {
        path.as_deref().map(|path| report::OutputFile::create(option, path)).transpose()
    };
    let (json, html) = (create("--json", &plan.json)?, create("--html", &plan.html)?);
    let svg = match &plan.load {
        plan::Load::Ramp(ramp) => create("--svg", &ramp.svg)?,
        _ => None,
    };
    // What is told on the way may find a reader that stalls: it must not hold up the run.
    log::start().map_err(LoadError::system("start a thread that writes to stderr"))?;
    let (target, framing) = (plan.target, plan.dialect.framing);
    let report = run::execute(plan, &*interrupts()?).map_err(|error| diagnosis::explain(error, target, framing))?;
    log::finish();
    output::print(&format!("{report}\n"));
    if let Some(json) = json {
        json.write(&format!("{:#}\n", report.to_json()))?;
    }
    if let Some(html) = html {
        html.write(&html::page(&report, &html::Origin::here()))?;
    }
    if let (Some(svg), Some(climb)) = (svg, &report.picture) {
        svg.write(&ramp::plot::svg(climb)?)?;
    }
    Ok(report.problems.is_empty())
}

/// A flag that Ctrl-C and SIGTERM set; the second one ends the process at once.
fn interrupts() -> Result<Arc<AtomicBool>, LoadError> {
    let raised = Arc::new(AtomicBool::new(false));
    for (signal, code) in [(SIGINT, 130), (SIGTERM, 143)] {
        flag::register_conditional_shutdown(signal, code, raised.clone())
            .and_then(|_| flag::register(signal, raised.clone()))
            .map_err(LoadError::system("catch Ctrl-C"))?;
    }
    Ok(raised)
}
