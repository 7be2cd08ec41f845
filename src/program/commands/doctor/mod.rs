//! `corecast doctor`: how many connections this host can reach, what stops it first, and how to raise that limit.
//!
//! `reading` takes what the host says; `diagnosis` says what it means; `report` puts it into words.

use std::path::{Path, PathBuf};

use clap::Args;

use self::diagnosis::diagnose;

mod diagnosis;
mod reading;
mod report;
#[cfg(test)]
mod tests;

/// Flags of `corecast doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Connections to reach; the exit code is 1 if this host can't
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..=16_000_000))]
    connections: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Read the files below this folder (its proc and sys) in place of this host's
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

/// Looks at the host and prints what it found. Whether all is well: the server can start, and the connections that were
/// asked for are within reach.
pub(crate) fn run(args: &DoctorArgs) -> bool {
    let host = reading::read(args.root.as_deref().unwrap_or(Path::new("/")));
    let diagnosis = diagnose(&host, args.connections);
    if args.json {
        super::print(&format!("{}\n", report::json(&diagnosis, &host)));
    } else {
        super::print(&report::text(&diagnosis, &host));
    }
    diagnosis.is_well()
}
