//! Why a command that speaks to a server failed. Each text says what was tried, on what, and the remedy.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::problem::Problem;
use corecast::control::TokenError;

/// Why a command failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum CommandError {
    /// Flags don't go together, or a value can't be used.
    #[error("{0}")]
    Flags(String),
    /// The token can't be had.
    #[error("the token file {path}: {source}", path = path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenError,
    },
    /// Nobody answers at the control address.
    #[error(
        "can't reach the control API at {url}: {reason}; start the server (`corecast serve`), or say with --control \
         where its control address is"
    )]
    Unreachable {
        /// Where to.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// The connection was made, and the answer did not come.
    #[error("no answer from {url}: {reason}; what was asked for may have happened or not")]
    Lost {
        /// Where to.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The server says no.
    #[error("{url} refused: {problem}{}", if problem.is_unauthorized() { "; give the server's token with --token-file" } else { "" })]
    Refused {
        /// Which call.
        url: String,
        /// Its word.
        problem: Problem,
    },
    /// The server stayed too busy.
    #[error("{url} is too busy: {tries} tries were refused ({problem}); {rest}")]
    Busy {
        /// Which call.
        url: String,
        /// How many tries.
        tries: u32,
        /// What it said last.
        problem: Problem,
        /// What was not published.
        rest: String,
    },
    /// Something answers there, but not as corecast does.
    #[error("{url} answered with HTTP {status}, but not as corecast's control plane does: {meant}")]
    Foreign {
        /// Which call.
        url: String,
        /// Its status.
        status: u16,
        /// What was probably meant.
        meant: &'static str,
    },
    /// Something answers there, but not in HTTP.
    #[error("what answers at {url} does not speak HTTP, so it is not corecast's control plane: {meant}")]
    NotHttp {
        /// Which call.
        url: String,
        /// What was probably meant.
        meant: &'static str,
    },
    /// The messages can't be read.
    #[error("can't read messages from stdin: {0}")]
    Stdin(io::Error),
    /// A line that no server would take.
    #[error("line {line} of stdin is longer than {max}, which no server takes; the lines before it are published")]
    LongLine {
        /// Its number, from 1.
        line: u64,
        /// How long it may be.
        max: String,
    },
    /// The terminal can't be used.
    #[error("can't show the live view: {0}; `corecast stats` prints it once")]
    Terminal(io::Error),
}

impl CommandError {
    /// The same in few words, for where it is clear what was tried.
    pub(super) fn reason(&self) -> String {
        match self {
            CommandError::Unreachable { reason, .. } | CommandError::Lost { reason, .. } => reason.clone(),
            CommandError::Refused { problem, .. } => problem.to_string(),
            other => other.to_string(),
        }
    }

    /// Whether the command line is at fault, rather than the server.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, CommandError::Flags(_) | CommandError::Token { .. })
    }
}
