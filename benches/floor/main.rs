//! The server beside bare floors: programs that do the same system calls and nothing else.
//!
//! Server and floor take turns within one run, on the same core, with the same client on another core, so that a
//! noisy machine disturbs both alike. What counts is the ratio.
//!
//! ```text
//! cargo bench --bench floor                                  everything
//! cargo bench --bench floor -- fanout --connections 5000     one measure, one size
//! cargo bench --bench floor -- --smoke                       a small version of everything, in seconds
//! ```
//!
//! Without `--bench`, which `cargo bench` adds, it is a test (`cargo test --benches`) and runs the small version.
//! A message that is lost, doubled or changed ends it with an error; a slow machine does not.

mod bare;
mod client;
mod measure;
mod process;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::measure::Plan;
use crate::table::Table;

/// Compare the server with bare floors, in one run.
#[derive(Parser)]
#[command(name = "floor")]
struct Args {
    /// What to measure: fanout, echo, memory, idle [default: all]
    measures: Vec<String>,
    /// Connections; several numbers, as in 1000,5000, for fanout
    #[arg(long, value_delimiter = ',', value_name = "N")]
    connections: Vec<usize>,
    /// How often each side gets its turn
    #[arg(long, value_name = "R")]
    rounds: Option<usize>,
    /// A small version that takes seconds
    #[arg(long)]
    smoke: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some(process::BARE) => bare::run(words),
        Some(process::CLIENT) => client::run(words),
        Some(process::LEASH) => process::run_on_leash(words),
        _ => compare(&Args::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

type Measure = fn(&Plan, &mut Table) -> Result<(), String>;

fn compare(args: &Args) -> Result<(), String> {
    let measures: [(&str, Measure); 4] =
        [("fanout", measure::fanout), ("echo", measure::echo), ("memory", measure::memory), ("idle", measure::idle)];
    if let Some(word) = args.measures.iter().find(|word| measures.iter().all(|(name, _)| name != word)) {
        return Err(format!("`{word}` is no measure; use fanout, echo, memory, idle"));
    }
    let smoke = args.smoke || !args.bench;
    let mut plan = if smoke { Plan::smoke() } else { Plan::full() };
    plan.set(&args.connections, args.rounds);
    let mut table = Table::start(!smoke);
    for (name, run) in measures {
        if args.measures.is_empty() || args.measures.iter().any(|word| word == name) {
            run(&plan, &mut table).map_err(|error| format!("{name}: {error}"))?;
        }
    }
    table.end();
    Ok(())
}
