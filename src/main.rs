//! The `corecast` program.

use std::process::ExitCode;

use clap::Parser;
use corecast::cli::{Cli, Command};

mod serve;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
    }
}
