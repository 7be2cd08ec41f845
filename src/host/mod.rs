//! The host the server runs on: limits are raised or found too low, and what forbids io_uring is named, before
//! anything is started.
//!
//! [`ServerBuilder::start`](crate::ServerBuilder::start) and [`Server::check`](crate::Server::check) look at all of this by themselves.
//! It is public for tools that explain a host, as `corecast doctor` does.

mod addrs;
mod cpus;
mod limits;
mod memory;

use std::io;

use rustix::io::Errno;
use thiserror::Error;

use crate::config::{FDS_CONTROL, FDS_PER_SHARD, FDS_RESERVED, MEMLOCK_BYTES_MIN, POLLS_PER_RING};
use crate::sys;

pub(crate) use addrs::{check_address, check_port};
pub(crate) use cpus::{allowed_cpus, least_used, parallelism};
#[cfg(feature = "control")]
pub(crate) use limits::fd_limit;
pub use limits::{OpenFiles, raise_open_files};
pub use memory::group_folders;
pub(crate) use memory::memory_limit;

/// Why the server can't run on this host.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HostError {
    /// The locked-memory limit is below what a ring needs.
    #[error(
        "the limit on locked memory is {have} bytes and io_uring needs {need}; raise it: `ulimit -l {}`, \
         LimitMEMLOCK= in a systemd unit, or --ulimit memlock= for a container",
        .need / 1024
    )]
    Memlock {
        /// The limit in force, in bytes.
        have: u64,
        /// What is needed, in bytes.
        need: u64,
    },
    /// io_uring is switched off for this user, or for all.
    #[error(
        "io_uring is disabled on this host (kernel.io_uring_disabled = {value}); enable it: \
         `sysctl kernel.io_uring_disabled=0`"
    )]
    Disabled {
        /// The value of the sysctl: 1 (for users outside a group) or 2 (for all).
        value: u32,
    },
    /// A system-call filter forbids io_uring.
    #[error(
        "io_uring is forbidden by a system-call filter, as in Docker's default profile; allow it: run the \
         container with --security-opt seccomp=deploy/seccomp.json"
    )]
    Filtered,
    /// The kernel has no io_uring.
    #[error("this kernel ({release}) has no io_uring; Linux 5.8 or later is needed")]
    Missing {
        /// The kernel's release.
        release: String,
    },
    /// The kernel is too old.
    #[error("this kernel ({release}) is too old; Linux 5.8 or later is needed")]
    TooOld {
        /// The kernel's release.
        release: String,
    },
    /// There are not even fds enough to start.
    #[error(
        "the limit on open files is {have} and {need} are needed to start; raise it: `ulimit -n {need}` or \
         LimitNOFILE= in a systemd unit"
    )]
    Fds {
        /// The limit in force.
        have: u64,
        /// What the server takes besides connections, and one connection.
        need: u64,
    },
    /// Limits can't even be read.
    #[error(
        "this process's limits can't be read ({0}), and without that no ring is set up; a system-call filter (seccomp) \
         forbids prlimit64: allow it, as deploy/seccomp.json does"
    )]
    Limits(io::Error),
    /// Anything else that the kernel said.
    #[error("{what} failed: {source}")]
    Other {
        /// What was tried.
        what: &'static str,
        /// The system's word.
        source: io::Error,
    },
}

/// What the host allows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fds {
    /// The limit on open files, after it was raised as far as it goes.
    pub limit: u64,
    /// Connections that fit below it.
    pub connections: usize,
}

/// Checks kernel and limits, and raises the limit on open files as far as it goes. Also returns what could not be done,
/// in sentences for the operator.
///
/// # Errors
/// What forbids the server to run, with the remedy.
pub(crate) fn check(shards: usize, control: bool) -> Result<(Fds, Option<String>), HostError> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    check_release(&release)?;
    check_memlock(limits::memlock()?)?;
    check_io_uring(release)?;
    let raised = raise_open_files()?;
    Ok((fds_for(raised.limit, shards, control)?, raised.refusal))
}

/// Sets up a ring and gives it back. `release` is the kernel's.
///
/// # Errors
/// What forbids it, with the remedy.
pub fn check_io_uring(release: String) -> Result<(), HostError> {
    sys::probe_io_uring().map_err(|error| {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        explain(error, disabled.as_deref(), release)
    })
}

/// File descriptors that a server with so many shards, and with or without a control plane, needs besides its connections.
pub fn own_fds(shards: usize, control: bool) -> u64 {
    FDS_RESERVED + FDS_PER_SHARD * shards as u64 + if control { FDS_CONTROL } else { 0 }
}

/// Shares a limit on open files between the server and its connections.
///
/// # Errors
/// It leaves no room for a single connection.
pub fn fds_for(limit: u64, shards: usize, control: bool) -> Result<Fds, HostError> {
    let own = own_fds(shards, control);
    if limit <= own {
        return Err(HostError::Fds { have: limit, need: own + 1 });
    }
    let left = limit - own;
    // Beyond its first ring, which counts as the shard's own, a shard takes one for each so many sockets.
    let connections = left - left / (POLLS_PER_RING as u64 + 1);
    Ok(Fds { limit, connections: usize::try_from(connections).unwrap_or(usize::MAX) })
}

/// Whether the kernel is new enough.
///
/// # Errors
/// It is not.
pub fn check_release(release: &str) -> Result<(), HostError> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 8) {
        return Err(HostError::TooOld { release: release.to_owned() });
    }
    Ok(())
}

/// Whether a ring fits into a limit on locked memory. `limit` in bytes; `None`: unlimited.
///
/// # Errors
/// It does not.
pub fn check_memlock(limit: Option<u64>) -> Result<(), HostError> {
    match limit {
        Some(have) if have < MEMLOCK_BYTES_MIN => Err(HostError::Memlock { have, need: MEMLOCK_BYTES_MIN }),
        _ => Ok(()),
    }
}

/// What an error of `io_uring_setup` means here. `disabled` is the text of the sysctl, where the kernel has it.
fn explain(error: io::Error, disabled: Option<&str>, release: String) -> HostError {
    let value = disabled.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    match Errno::from_io_error(&error) {
        Some(Errno::PERM) if value > 0 => HostError::Disabled { value },
        Some(Errno::PERM | Errno::ACCESS) => HostError::Filtered,
        Some(Errno::NOSYS) => HostError::Missing { release },
        Some(Errno::NOMEM) => {
            let have = limits::memlock().ok().flatten().unwrap_or(u64::MAX);
            HostError::Memlock { have, need: MEMLOCK_BYTES_MIN }
        }
        _ => HostError::Other { what: "setting up io_uring", source: error },
    }
}

/// Resident memory of this process in bytes; see proc_pid_statm(5).
pub(crate) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Open file descriptors of this process.
#[cfg(feature = "control")]
pub(crate) fn open_fds() -> Option<u64> {
    const OPEN: &str = "/proc/self/fd";
    // The kernel tells their number as the folder's size since 6.2. Before, they must be listed.
    match std::fs::metadata(OPEN).ok()?.len() {
        0 => std::fs::read_dir(OPEN).ok().map(|entries| entries.count() as u64),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(errno: Errno, disabled: Option<&str>) -> String {
        explain(errno.into(), disabled, "6.1.0".into()).to_string()
    }

    #[test]
    fn each_refusal_of_io_uring_names_its_remedy() {
        assert!(explained(Errno::PERM, Some("2\n")).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(explained(Errno::PERM, Some("0\n")).contains("seccomp=deploy/seccomp.json"));
        assert!(explained(Errno::PERM, None).contains("seccomp=deploy/seccomp.json"));
        assert!(explained(Errno::NOSYS, None).contains("6.1.0"));
        assert!(explained(Errno::INVAL, None).contains("setting up io_uring failed"));
    }

    #[test]
    fn old_kernels_are_refused_by_name() {
        assert!(check_release("5.8.0").is_ok());
        assert!(check_release("6.18.44-cloud").is_ok());
        assert!(check_release("5.7.19-x").unwrap_err().to_string().contains("5.7.19-x"));
        assert!(check_release("4.19").is_err());
    }

    #[test]
    fn little_locked_memory_is_refused_with_the_remedy() {
        assert!(check_memlock(None).is_ok());
        assert!(check_memlock(Some(MEMLOCK_BYTES_MIN)).is_ok());
        let text = check_memlock(Some(65_536)).unwrap_err().to_string();
        assert!(text.contains("65536 bytes") && text.contains("ulimit -l 512"), "{text}");
    }

    #[test]
    fn fds_are_shared_between_the_server_and_its_connections() {
        assert_eq!(fds_for(1096, 2, false).unwrap().connections, 1000);
        let million = fds_for(1_000_000 + 96, 2, false).unwrap().connections as u64;
        assert_eq!(million, 1_000_000 - 61, "each ring takes one, too");
        assert_eq!(fds_for(1096, 2, true).unwrap().connections as u64, 1000 - FDS_CONTROL);
        assert!(fds_for(96, 2, false).unwrap_err().to_string().contains("ulimit -n 97"));
    }
}
