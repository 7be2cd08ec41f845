//! What the benches share.
//!
//! A bench holds the server against a floor: a program that makes the same system calls and does nothing else. Server
//! and floor take turns within one run, on the same core, with the same client on another core, so that a noisy
//! machine disturbs both alike. What counts is the ratio.
//!
//! ```text
//! cargo bench                                                all of them
//! cargo bench --bench fanout                                 one
//! cargo bench --bench fanout -- --connections 5000           of one size
//! cargo bench -- --smoke                                     a small version of all, in seconds
//! ```
//!
//! Without `--bench`, which `cargo bench` adds, a bench is a test and runs its small version. A message that is lost,
//! doubled or changed fails it; a slow machine does not.

#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod bare;
pub(crate) mod client;
pub(crate) mod hyper;
pub(crate) mod json;
pub(crate) mod pipeline;
pub(crate) mod poster;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod table;
pub(crate) mod turns;
pub(crate) mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use libtest_mimic::{Arguments, Trial};

use table::Table;

/// After so long without anything that is waited for, it is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One bench.
#[derive(Clone, Copy)]
pub(crate) struct Bench {
    /// As in `cargo bench --bench NAME`.
    pub(crate) name: &'static str,
    /// What the second column of its table counts.
    pub(crate) of: &'static str,
    pub(crate) full: Plan,
    /// The small version, which is a test.
    pub(crate) smoke: Plan,
    pub(crate) measure: fn(&Plan, &mut Table) -> Result<(), String>,
}

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Sizes to measure: connections, or what else the bench counts.
    pub(crate) sizes: &'static [usize],
    /// How often each side gets its turn.
    pub(crate) rounds: usize,
    /// How long a turn takes, where it has no other end.
    pub(crate) span: Duration,
}

/// Compare the server with a bare floor, in one run.
#[derive(Parser)]
struct Args {
    /// Connections, where the bench opens any; several numbers, as in 1000,5000, for `fanout`
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = number_above_zero)]
    connections: Vec<usize>,
    /// How often each side gets its turn
    #[arg(long, value_name = "R", value_parser = number_above_zero)]
    rounds: Option<usize>,
    /// Append each line of the table to a file, as one JSON object
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A small version that takes seconds
    #[arg(long)]
    smoke: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

fn number_above_zero(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("it must be a whole number, 1 or more".into()),
    }
}

/// The main function of a bench, and of the processes that it starts.
pub(crate) fn main(bench: Bench) -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some(process::BARE) => bare::run(words),
        Some(process::CLIENT) => client::run(words),
        Some(process::POSTER) => poster::run(words),
        Some(pipeline::ROLE) => pipeline::run(words),
        Some(process::LEASH) => process::run_on_leash(words),
        _ if std::env::args().any(|word| word == "--bench") => run(&bench, &Args::parse()),
        _ => return test(bench),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", bench.name);
            ExitCode::FAILURE
        }
    }
}

fn run(bench: &Bench, args: &Args) -> Result<(), String> {
    let mut plan = if args.smoke { bench.smoke } else { bench.full };
    plan.rounds = args.rounds.unwrap_or(plan.rounds);
    if bench.of == "connections" && !args.connections.is_empty() {
        // It lives as long as the process: the plan is made once.
        plan.sizes = Vec::leak(args.connections.clone());
    }
    let mut table = Table::new(bench.name, bench.of, !args.smoke, args.json.as_deref())?;
    (bench.measure)(&plan, &mut table)?;
    table.end();
    Ok(())
}

/// The small version as a test, which understands what `cargo test` passes on to tests.
fn test(bench: Bench) -> ExitCode {
    let trial = Trial::test(format!("{}_small_version", bench.name), move || {
        let mut table = Table::silent(bench.name);
        Ok((bench.measure)(&bench.smoke, &mut table)?)
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

/// Looks again and again until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let started = Instant::now();
    while !is_so()? {
        if started.elapsed() > PATIENCE {
            return Err(format!("there was no {what} within {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
