//! What the server, this process and the machine take, as the kernel tells it. Of the server only if it runs on this
//! machine and `--server-pid` names its process.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

use super::LoadError;

/// Processes that are looked at; a server has a few.
const PROCESSES_MAX: usize = 1_024;

/// A server's process, with all those that it has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerProcess(pub(super) u32);

/// What the processes have taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// As of [`ServerProcess::cpu_ns`].
    pub(super) cpu_ns: u64,
    pub(super) memory: Memory,
}

/// The memory of the processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// Memory of their own, counted page by page, what several of the processes share counted once. What is mapped
    /// from files is left out: it is there without a connection, and how much of it is whose changes with who else
    /// has it mapped.
    pub(super) private: u64,
    /// All that is resident, with what is mapped from files. What several of the processes share counts for each.
    pub(super) resident: u64,
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

/// The memory of all at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryOfAll {
    /// What the whole machine uses, without page cache.
    pub(super) machine: u64,
    /// Resident memory of this process.
    pub(super) client: u64,
    /// That of the server, if its process was named.
    pub(super) server: Option<Memory>,
}

impl ServerProcess {
    pub(super) fn usage(self) -> Result<Usage, LoadError> {
        // Memory first: the clock of a number that is too large for a process is another one's.
        let memory = self.memory()?;
        Ok(Usage { cpu_ns: self.cpu_ns()?, memory })
    }

    /// CPU time of all threads, those that have ended included, in nanoseconds; exact for those that are running too.
    pub(super) fn cpu_ns(self) -> Result<u64, LoadError> {
        self.sum(cpu_ns_of, |all, one| *all += one)
    }

    pub(super) fn memory(self) -> Result<Memory, LoadError> {
        self.sum(
            |pid| memory_of(&pid.to_string()),
            |all: &mut Memory, one| {
                all.private += one.private;
                all.resident += one.resident;
            },
        )
    }

    /// File descriptors that are open.
    pub(super) fn fds(self) -> Result<u64, LoadError> {
        self.sum(fds_of, |all, one| *all += one)
    }

    /// A reading of the process itself, with those of all that it has started added.
    fn sum<T: Copy>(self, read: impl Fn(u32) -> Result<T, LoadError>, add: impl Fn(&mut T, T)) -> Result<T, LoadError> {
        let mut all = read(self.0)?;
        let mut pids = vec![self.0];
        let mut seen = 0;
        while let Some(&pid) = pids.get(seen) {
            seen += 1;
            let room = PROCESSES_MAX - pids.len().min(PROCESSES_MAX);
            pids.extend(children_of(pid).into_iter().take(room));
        }
        // One that has ended meanwhile takes what it used with it.
        pids.into_iter().skip(1).filter_map(|pid| read(pid).ok()).for_each(|one| add(&mut all, one));
        Ok(all)
    }
}

impl MemoryOfAll {
    pub(super) fn now(server: Option<ServerProcess>) -> Result<MemoryOfAll, LoadError> {
        let path = "/proc/meminfo";
        let machine = used_by_machine(&text_of(path.into())?);
        Ok(MemoryOfAll {
            machine: machine.ok_or_else(|| incomplete(path.into(), "MemTotal, MemFree, Buffers and Cached"))?,
            client: memory_of("self")?.resident,
            server: server.map(ServerProcess::memory).transpose()?,
        })
    }
}

fn cpu_ns_of(pid: u32) -> Result<u64, LoadError> {
    // A kernel's process numbers are far below 2^31; no process has another number.
    let number: Result<i32, _> = pid.try_into().map_err(io::Error::other);
    let time = number.and_then(|number| Ok(clock_getcpuclockid(Pid::from_raw(number))?.now()?));
    let time = time.map_err(|error| unreadable(format!("the CPU clock of process {pid}").into(), error))?;
    Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

fn memory_of(pid: &str) -> Result<Memory, LoadError> {
    // It walks through the pages; the sums in `status` may lag behind by some pages for each thread.
    let path = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
    let rollup = text_of(path.clone())?;
    let field = |name| kib_field(&rollup, name);
    match (field("Pss_Anon"), field("Pss_Shmem"), field("Rss")) {
        (Some(own), Some(shared), Some(resident)) => Ok(Memory { private: own + shared, resident }),
        _ => Err(incomplete(path, "Pss_Anon, Pss_Shmem and Rss, as Linux has them since 5.4")),
    }
}

fn fds_of(pid: u32) -> Result<u64, LoadError> {
    let path = PathBuf::from(format!("/proc/{pid}/fd"));
    match fs::read_dir(&path) {
        Ok(entries) => Ok(entries.count() as u64),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// The processes that one has started, by any of its threads; see proc_pid_task_tid_children(5).
fn children_of(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect()
}

fn text_of(path: PathBuf) -> Result<String, LoadError> {
    fs::read_to_string(&path).map_err(|error| unreadable(path, error))
}

fn unreadable(what: PathBuf, source: io::Error) -> LoadError {
    LoadError::Unreadable { what, source }
}

fn incomplete(path: PathBuf, fields: &str) -> LoadError {
    unreadable(path, io::Error::other(format!("it lacks {fields}")))
}

/// A line `Name:  12 kB`, in bytes.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// All that is neither free nor page cache. Slabs count as used even where the kernel calls them reclaimable: the inodes
/// of open sockets are among those.
fn used_by_machine(meminfo: &str) -> Option<u64> {
    let field = |name| kib_field(meminfo, name);
    let idle = field("MemFree")? + field("Buffers")? + field("Cached")?;
    field("MemTotal").map(|total| total.saturating_sub(idle))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_a_process_and_its_children_take_is_counted() {
        let own = ServerProcess(std::process::id());
        let before = own.usage().unwrap();
        assert!(before.cpu_ns > 0 && before.memory.private > 0 && before.memory.resident > before.memory.private);
        // A child of a child, which has done some work when it says so.
        let script = "sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; read line'; exit 0";
        let mut shell =
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 5];
        shell.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        let all = ServerProcess(shell.id());
        let (memory, alone) = (all.memory().unwrap(), memory_of(&shell.id().to_string()).unwrap());
        assert!(memory.private > alone.private && memory.resident > alone.resident, "{memory:?} {alone:?}");
        assert!(all.cpu_ns().unwrap() > cpu_ns_of(shell.id()).unwrap());
        assert!(all.fds().unwrap() > fds_of(shell.id()).unwrap());
        shell.stdin.take().unwrap().write_all(b"\n").unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        for pid in [0, u32::MAX, i32::MAX as u32] {
            let process = ServerProcess(pid);
            assert!(process.usage().is_err() && process.fds().is_err());
            let error = process.memory().unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot read /proc/{pid}/smaps_rollup: ")), "{error}");
        }
    }

    #[test]
    fn the_memory_of_all_has_the_servers_only_if_it_was_named() {
        assert_eq!(MemoryOfAll::now(None).unwrap().server, None);
        let own = MemoryOfAll::now(Some(ServerProcess(std::process::id()))).unwrap();
        assert!(own.machine >= own.server.unwrap().private && own.client > 0, "{own:?}");
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:       1000 kB\nMemFree:         300 kB\nMemAvailable:    900 kB\nBuffers:          20 kB\n\
                    SwapCached:        7 kB\nCached:          180 kB\nHugePages_Total:       0\n";
        assert_eq!(used_by_machine(text), Some(500 * 1_024));
        assert_eq!(used_by_machine("MemTotal: 1 kB\n"), None);
        assert_eq!(kib_field("Rss: many kB", "Rss"), None);
        assert_eq!(kib_field("Rss: 5 MB", "Rss"), None);
    }
}
