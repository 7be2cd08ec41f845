//! What the server takes while it is measured, if it runs on this machine and `--server-pid` names its process.

use std::fs;
use std::io;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// Processes that are looked at; a server has a few.
const PROCESSES_MAX: usize = 1_024;

/// A server's process, with all those that it has started.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerProcess(pub(super) u32);

/// What the processes have taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time of all threads, those that have ended included.
    pub(super) cpu_ns: u64,
    /// Memory of its own, what several of the processes share counted once. What is mapped from files is left out:
    /// it is there without a connection, and how much of it is whose changes with who else has it mapped.
    pub(super) memory_bytes: u64,
}

/// A run as it looked from the server's side.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerUse {
    /// Before the first connection.
    pub(super) before: Usage,
    /// When the load began, and when all was in.
    pub(super) begin: Usage,
    pub(super) end: Usage,
}

impl ServerProcess {
    pub(super) fn usage(self) -> io::Result<Usage> {
        let mut usage = usage_of(self.0)?;
        let mut pids = vec![self.0];
        let mut seen = 0;
        while let Some(&pid) = pids.get(seen) {
            seen += 1;
            let room = PROCESSES_MAX - pids.len().min(PROCESSES_MAX);
            pids.extend(children_of(pid).into_iter().take(room));
        }
        for pid in pids.into_iter().skip(1) {
            // One that has ended meanwhile takes what it used with it.
            let child = usage_of(pid).unwrap_or_default();
            usage.cpu_ns += child.cpu_ns;
            usage.memory_bytes += child.memory_bytes;
        }
        Ok(usage)
    }
}

fn usage_of(pid: u32) -> io::Result<Usage> {
    // A kernel's process numbers are far below 2^31; no process has another number.
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into().map_err(io::Error::other)?))?;
    let cpu = clock.now()?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = |name: &str| -> Option<u64> {
        rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())
    };
    let (Some(own), Some(shared)) = (kib("Pss_Anon:"), kib("Pss_Shmem:")) else {
        return Err(io::Error::other("smaps_rollup names no Pss_Anon and Pss_Shmem; Linux does since 5.4"));
    };
    let cpu_ns = cpu.tv_sec() as u64 * 1_000_000_000 + cpu.tv_nsec() as u64;
    Ok(Usage { cpu_ns, memory_bytes: (own + shared) * 1024 })
}

/// The processes that one has started, by any of its threads; see proc_pid_task_tid_children(5).
fn children_of(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn memory_and_time_of_a_process_and_its_children_are_counted() {
        let own = ServerProcess(std::process::id());
        let before = own.usage().unwrap();
        assert!(before.cpu_ns > 0 && before.memory_bytes > 0);
        // A child of a child, which has done some work when it says so.
        let script = "sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read line'; exit 0";
        let mut shell =
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 5];
        shell.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let all = ServerProcess(shell.id()).usage().unwrap();
        let alone = usage_of(shell.id()).unwrap();
        assert!(all.memory_bytes > alone.memory_bytes && all.cpu_ns > alone.cpu_ns, "{all:?} {alone:?}");
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        for pid in [u32::MAX, i32::MAX as u32] {
            assert!(ServerProcess(pid).usage().is_err());
        }
    }
}
