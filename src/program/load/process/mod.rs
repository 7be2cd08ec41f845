//! A run of several processes, because one process may open only a limited number of files.
//!
//! The process that was started leads: it publishes, it decides on the phases, it reports. It starts the others with its
//! own command line and a part (`parent`). Each of them is like a thread of the leader that happens to live elsewhere
//! (`child`): orders come over its stdin, figures and the result go over its stdout, as lines of JSON. Histograms go over
//! whole, so what is merged is exact.

use serde::{Deserialize, Serialize};

use super::shared::{Counts, LinkCounts, Phase};
use super::worker::WorkerResult;

mod child;
mod parent;

pub(super) use child::take_part;
pub(super) use parent::{Process, start};

/// What the leader tells a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Order {
    /// Enter a phase.
    Enter { phase: Phase, begin_ns: u64, is_cut_short: bool },
    /// The server has accepted all messages before this one.
    Accepted(u32),
}

/// What a process tells the leader.
#[derive(Serialize, Deserialize)]
enum Word<R> {
    Figures {
        links: LinkCounts,
        counts: Counts,
        p99_ns: u64,
    },
    /// It is done; the last word.
    Result {
        workers: Vec<WorkerResult<R>>,
        cpu_ns: u64,
    },
    /// It can't go on; the last word.
    Failed(String),
}
