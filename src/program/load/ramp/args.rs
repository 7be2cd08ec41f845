//! The command line of a ramp.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::load::{LoadArgs, LoadFraming, SourceIps};
use corecast::{bytes_from_text, duration_from_text};

/// Steps at the most: each is a pause, a measure and a line of the result.
const STEPS_MAX: usize = 32;

/// Fewer connections tell nothing: a hundredth of them must be one at least.
const STEP_MIN: usize = 100;

/// Options of `load ramp`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RampArgs {
    /// The server, as address:port or name:port. For ws the default is 127.0.0.1:8080.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:8888",
        default_value_ifs = [("framing", "ws", "127.0.0.1:8080"), ("framing", "ws-deflate", "127.0.0.1:8080")]
    )]
    pub(crate) target: String,
    /// Numbers of connections to stop at and to measure with, in rising order; k and M stand for thousands and millions.
    #[arg(long, value_name = "N,N…", default_value = "1000,2500,5000,10k")]
    pub(crate) steps: Steps,
    /// The server's process, if it runs on this machine: its memory, CPU time and file descriptors are measured, with
    /// those of the processes that it has started.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// The server's control address, to ask how many connections are left at the end.
    #[arg(long, value_name = "URL")]
    pub(crate) control: Option<crate::commands::ControlUrl>,
    /// Messages to all at each step, one after the other; costs and times are their medians.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) messages: u32,
    /// Bytes of each message's payload, at least 32.
    #[arg(long, value_name = "BYTES", default_value = "128", value_parser = bytes_from_text)]
    pub(crate) message_size: usize,
    /// How long to leave the server alone before memory is read.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration_from_text)]
    pub(crate) settle: Duration,
    /// How long to wait for an answer, and for the next thing to happen. A slow machine needs more.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration_from_text)]
    pub(crate) patience: Duration,
    /// How often each connection sends PING; 0: never. None is sent while a message is measured.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration_from_text)]
    pub(crate) ping_every: Duration,
    /// Fail if the server needs more private memory for a connection at the last step.
    #[arg(long, value_name = "BYTES", value_parser = bytes_from_text)]
    pub(crate) bytes_max: Option<usize>,
    /// Warn if the CPU time for a delivered message differs more between the steps, in percent up and down. Times depend
    /// on what else runs, so that alone does not fail the run.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) spread_max: Option<f64>,
    /// Fail if the server keeps more of the memory that its connections took once they are closed. Connecting all
    /// once more tells memory that is lost from memory that the allocator keeps for later.
    #[arg(long, value_name = "PERCENT")]
    pub(crate) kept_max: Option<f64>,
    /// Connects per second; without it as many as the server takes.
    #[arg(long, value_name = "CONNECTS/S")]
    pub(crate) rate: Option<f64>,
    /// Addresses to connect from, first and last. On a loopback target the default is 127.0.0.2 and up,
    /// one address for 2,000 connections.
    #[arg(long, value_name = "A-B")]
    pub(crate) source_ips: Option<SourceIps>,
    /// Threads that share the connections.
    #[arg(long, value_name = "T", default_value_t = 1)]
    pub(crate) threads: usize,
    /// The protocol to speak with the server.
    #[arg(long, value_enum, default_value_t = LoadFraming::Line)]
    pub(crate) framing: LoadFraming,
    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also draw memory and cost against connections, into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Also write a page with plots to this file, as HTML. It is self-contained.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Show no progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl RampArgs {
    /// What a ramp shares with every kind of load.
    pub(in crate::load) fn load(self) -> LoadArgs {
        LoadArgs {
            target: self.target,
            connections: self.steps.last(),
            rate: self.rate,
            ramp: None,
            // Nothing is held for a time of its own; the steps end when they are done.
            duration: Duration::from_secs(1),
            source_ips: self.source_ips,
            threads: self.threads,
            processes: 1,
            part: None,
            framing: self.framing,
            server_pid: self.server_pid,
            json: self.json,
            html: self.html,
            quiet: self.quiet,
        }
    }
}

/// Rising numbers of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Steps(Vec<usize>);

impl Steps {
    /// All of them.
    pub(in crate::load) fn all(&self) -> &[usize] {
        &self.0
    }

    fn last(&self) -> usize {
        *self.0.last().expect("there is one step at least")
    }
}

impl FromStr for Steps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let steps: Vec<usize> = text.split(',').map(step_from_text).collect::<Result<_, _>>()?;
        if steps.len() > STEPS_MAX {
            return Err(format!("{} steps are too many; give at most {STEPS_MAX}", steps.len()));
        }
        if let Some(pair) = steps.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("{} comes after {}; the steps must rise", pair[1], pair[0]));
        }
        Ok(Steps(steps))
    }
}

fn step_from_text(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let bad = || format!("`{text}` is not a number of connections; write 5000, 100k or 1M");
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1_000),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let number: usize = digits.parse().map_err(|_| bad())?;
    match number.checked_mul(unit).ok_or_else(bad)? {
        step @ STEP_MIN.. => Ok(step),
        step => Err(format!("{step} connections are too few for a step; give at least {STEP_MIN}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_suffixes_and_rise() {
        assert_eq!("1000, 100k,1M".parse(), Ok(Steps(vec![1_000, 100_000, 1_000_000])));
        for (text, said) in [
            ("", "`` is not a number"),
            ("1000,", "`` is not a number"),
            ("1.5k", "`1.5k` is not a number"),
            ("-5", "`-5` is not a number"),
            ("99999999999999999M", "is not a number"),
            ("10", "10 connections are too few"),
            ("100k,100000", "100000 comes after 100000; the steps must rise"),
            ("2k,1k", "1000 comes after 2000"),
        ] {
            let error = text.parse::<Steps>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
        let many: Vec<_> = (100..133).map(|step| step.to_string()).collect();
        assert!(many.join(",").parse::<Steps>().unwrap_err().contains("33 steps are too many"));
    }
}
