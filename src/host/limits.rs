//! Resource limits of this process: read without trusting that they may be read, and raised as far as that goes.

use std::fs;
use std::io;

use rustix::process::{Rlimit, setrlimit};

use super::HostError;
use crate::sys::{self, NO_LIMIT, Resource};

/// The most that the limit on open files can be raised to, by anybody.
const NR_OPEN: &str = "/proc/sys/fs/nr_open";

/// The limit on open files after it was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    /// The limit in force; `u64::MAX`: there is none.
    pub limit: u64,
    /// Why it is not the hard limit, in a sentence for the operator.
    pub refusal: Option<String>,
}

/// Raises the soft limit on open files to the hard one. Where the system refuses that, as far as it lets it, or not at
/// all: there is a limit in force then, too.
///
/// # Errors
/// Limits can't even be read.
pub fn raise_open_files() -> Result<OpenFiles, HostError> {
    let (soft, hard) = read(Resource::OpenFiles)?;
    let nr_open = fs::read_to_string(NR_OPEN).ok().and_then(|text| text.trim().parse().ok());
    Ok(raise(soft, hard, nr_open, &mut |soft, hard| {
        let limit = Rlimit { current: bounded(soft), maximum: bounded(hard) };
        setrlimit(rustix::process::Resource::Nofile, limit).map_err(io::Error::from)
    }))
}

/// `nr_open`: fs.nr_open, where it can be read. `set` sets a soft and a hard limit.
fn raise(soft: u64, hard: u64, nr_open: Option<u64>, set: &mut impl FnMut(u64, u64) -> io::Result<()>) -> OpenFiles {
    if soft >= hard {
        return OpenFiles { limit: soft, refusal: None };
    }
    let Err(error) = set(hard, hard) else { return OpenFiles { limit: hard, refusal: None } };
    // A hard limit above fs.nr_open can be inherited, but not set again, so it goes down with the soft one.
    let limit = nr_open.filter(|nr_open| soft < *nr_open && *nr_open < hard);
    let limit = limit.filter(|nr_open| set(*nr_open, *nr_open).is_ok()).unwrap_or(soft);
    let why = match nr_open {
        Some(nr_open) if nr_open < hard => format!("fs.nr_open is {nr_open}: see `sysctl fs.nr_open`"),
        _ => "a system-call filter (seccomp) may forbid prlimit64".to_owned(),
    };
    let hard = if hard == NO_LIMIT { "infinity".to_owned() } else { hard.to_string() };
    let refusal = format!(
        "the limit on open files can't be raised from {soft} to the hard limit, {hard} ({error}; {why}); it is {limit} now"
    );
    OpenFiles { limit, refusal: Some(refusal) }
}

/// The soft limit on locked memory in bytes; `None`: there is none.
///
/// # Errors
/// Limits can't be read.
pub(super) fn memlock() -> Result<Option<u64>, HostError> {
    read(Resource::LockedMemory).map(|(soft, _)| bounded(soft))
}

/// File descriptors that this process may have open; `None`: as many as it likes, or that can't be known.
#[cfg(feature = "control")]
pub(crate) fn fd_limit() -> Option<u64> {
    read(Resource::OpenFiles).ok().and_then(|(soft, _)| bounded(soft))
}

fn bounded(limit: u64) -> Option<u64> {
    Some(limit).filter(|limit| *limit != NO_LIMIT)
}

/// The soft and the hard limit; [`NO_LIMIT`]: there is none.
fn read(resource: Resource) -> Result<(u64, u64), HostError> {
    sys::limit(resource).map_err(HostError::Limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Raises where the system takes no limit above `most`, and tells what it took.
    fn raised(soft: u64, hard: u64, nr_open: Option<u64>, most: u64) -> (OpenFiles, Option<(u64, u64)>) {
        let mut set = None;
        let raised = raise(soft, hard, nr_open, &mut |soft, hard| {
            if hard > most {
                return Err(io::Error::from_raw_os_error(1));
            }
            set = Some((soft, hard));
            Ok(())
        });
        (raised, set)
    }

    #[test]
    fn a_limit_that_can_be_raised_is_raised_and_one_that_is_high_is_left_alone() {
        assert_eq!(raised(1_024, 4_096, Some(1 << 20), u64::MAX).1, Some((4_096, 4_096)));
        let (raised, set) = raised(4_096, 4_096, Some(1_024), 0);
        assert_eq!((raised, set), (OpenFiles { limit: 4_096, refusal: None }, None));
    }

    #[test]
    fn a_hard_limit_above_nr_open_is_raised_to_that_and_said() {
        for hard in [2_000_000, NO_LIMIT] {
            let (raised, set) = raised(1_024, hard, Some(1 << 20), 1 << 20);
            assert_eq!((raised.limit, set), (1 << 20, Some((1 << 20, 1 << 20))));
            let text = raised.refusal.unwrap();
            for part in ["from 1024", "fs.nr_open is 1048576", "it is 1048576 now"] {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn where_nothing_can_be_raised_the_soft_limit_stays_in_force_and_is_said() {
        for (hard, nr_open) in [(4_096, Some(1 << 20)), (4_096, None), (2_000_000, Some(1 << 20)), (4_096, Some(512))] {
            let (raised, set) = raised(1_024, hard, nr_open, 0);
            assert_eq!((raised.limit, set), (1_024, None));
            let text = raised.refusal.unwrap();
            assert!(text.contains("Operation not permitted") && text.contains("it is 1024 now"), "{text}");
        }
    }
}
