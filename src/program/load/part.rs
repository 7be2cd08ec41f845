//! The part of one process in a run of several.

use std::fmt;
use std::str::FromStr;

/// A process's part of a run, written `INDEX/BASE/RUN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which of the processes it is, from 0 on.
    pub(super) index: usize,
    /// When the run began, in nanoseconds of the machine's clock.
    pub(super) base_ns: u64,
    /// The run's number.
    pub(super) run: u32,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.index, self.base_ns, self.run)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || -> Option<Part> {
            let (index, rest) = text.split_once('/')?;
            let (base_ns, run) = rest.split_once('/')?;
            Some(Part { index: index.parse().ok()?, base_ns: base_ns.parse().ok()?, run: run.parse().ok()? })
        };
        read().ok_or_else(|| format!("`{text}` is not a part of a run; only a run of several processes gives one"))
    }
}
