//! The `corecast` program.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod commands;
#[cfg(feature = "load")]
mod load;
mod log;
mod output;
mod plane;
mod printable;
mod serve;
mod signals;

use cli::{Cli, Command, hints};
use commands::{CommandError, doctor, push, stats};
#[cfg(feature = "load")]
use load::LoadCommand;

/// Something failed while the program ran.
const FAULT: u8 = 1;
/// Flags or settings can't be used.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = || std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let command = match Cli::try_parse().map_err(|error| hints::add(error, arguments())) {
        Ok(cli) => cli.command,
        Err(error) if error.use_stderr() => {
            // It quotes what was typed, or what a script was given to pass on.
            output::complain(error.render().to_string().trim_end());
            return ExitCode::from(USAGE);
        }
        Err(help) => help.exit(),
    };
    let code = match command {
        Command::Serve(args) => serve::run(&args),
        #[cfg(feature = "load")]
        Command::Load(command) => put_load(*command),
        Command::Push(args) => settle(push::run(&args)),
        Command::Stats(args) => settle(stats::run(&args)),
        Command::Doctor(args) => exit_code(doctor::run(&args)),
    };
    match output::lost() {
        Some(error) => {
            output::complain(&format!("corecast: can't write to stdout: {error}"));
            ExitCode::from(FAULT)
        }
        None => code,
    }
}

fn exit_code(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(FAULT) }
}

/// Tells why a command failed, if it did. The exit code: 0, all went well; 1, it did not; 2, flags can't be used.
fn settle(result: Result<bool, CommandError>) -> ExitCode {
    result.map_or_else(
        |error| {
            output::complain(&format!("corecast: {error}"));
            ExitCode::from(if error.is_usage() { USAGE } else { FAULT })
        },
        exit_code,
    )
}

/// Runs the load generator. The exit code: 0, all went well; 1, it did not; 2, flags can't be used.
#[cfg(feature = "load")]
fn put_load(command: LoadCommand) -> ExitCode {
    let code = load::run(command).map_or_else(
        |error| {
            log::say(&format!("corecast: {error}"));
            ExitCode::from(if error.is_usage() { USAGE } else { FAULT })
        },
        exit_code,
    );
    log::finish();
    code
}
