//! What the kernel tells of processes, and of its own memory.

use std::fs;
use std::process::Child;
use std::time::Duration;

/// What a process has had of the CPUs.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// CPU time of all threads.
    pub(crate) cpu: Duration,
    /// Time that its threads were ready to run while others had the CPU.
    pub(crate) waited: Duration,
}

/// A process that is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Proc(u32);

impl Proc {
    pub(crate) fn of(child: &Child) -> Self {
        Proc(child.id())
    }

    /// What it has had so far; see the kernel's Documentation/scheduler/sched-stats.rst. A running thread's time is
    /// behind by up to a scheduler's tick; that of one that sleeps is exact to the nanosecond.
    pub(crate) fn usage(self) -> Result<Usage, String> {
        let path = format!("/proc/{}/task", self.0);
        let (mut cpu, mut waited) = (0, 0);
        for task in fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?.flatten() {
            // A thread that ends meanwhile takes its time with it.
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let mut words = text.split(' ').map(|word| word.parse().unwrap_or(0));
            cpu += words.next().unwrap_or(0);
            waited += words.next().unwrap_or(0);
        }
        Ok(Usage { cpu: Duration::from_nanos(cpu), waited: Duration::from_nanos(waited) })
    }

    /// CPU time so far in the kernel's accounting ticks, as `top` sees it; see proc_pid_stat(5).
    pub(crate) fn ticks(self) -> Result<u64, String> {
        // Fields 14 and 15 of the line; the first after the name is field 3.
        let fields = self.stat()?;
        Ok(fields.split(' ').skip(14 - 3).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
    }

    /// Whether it runs, sleeps, or what else it does, in the letters of proc_pid_stat(5).
    pub(crate) fn state(self) -> Result<char, String> {
        self.stat()?.chars().next().ok_or_else(|| format!("/proc/{}/stat tells no state", self.0))
    }

    /// What stands in its `stat` after its name.
    fn stat(self) -> Result<String, String> {
        let text = self.read("stat")?;
        Ok(text.rsplit_once(") ").map_or_else(String::new, |(_, fields)| fields.to_owned()))
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(self) -> Result<usize, String> {
        let path = format!("/proc/{}/fd", self.0);
        let failed = |error| format!("{path}: {error}");
        // Linux 6.2 and later tell the number at once.
        match fs::metadata(&path).map_err(failed)?.len() {
            0 => Ok(fs::read_dir(&path).map_err(failed)?.count()),
            count => Ok(count as usize),
        }
    }

    /// Bytes of memory of its own. The kernel's RssAnon is counted in batches, this is counted page by page.
    pub(crate) fn memory(self) -> Result<f64, String> {
        let text = self.read("smaps_rollup")?;
        let kib = text.lines().find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix(" kB"));
        let kib: f64 = kib.and_then(|kib| kib.parse().ok()).ok_or("no `Anonymous:` in smaps_rollup")?;
        Ok(kib * 1024.0)
    }

    fn read(self, file: &str) -> Result<String, String> {
        read(&format!("/proc/{}/{file}", self.0))
    }
}

/// What the kernel has taken on the whole machine of that which sockets need: its slabs, and the socket buffers of TCP.
pub(crate) fn kernel_memory() -> Result<f64, String> {
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<f64>().ok());
    let meminfo = read("/proc/meminfo")?;
    let slab = meminfo.lines().find_map(|line| line.strip_prefix("Slab:")?.trim().strip_suffix(" kB"));
    let sockstat = read("/proc/net/sockstat")?;
    let pages = sockstat.lines().find(|line| line.starts_with("TCP:")).and_then(|line| line.rsplit(' ').next());
    let slab = number(slab).ok_or("no `Slab:` in /proc/meminfo")?;
    let pages = number(pages).ok_or("no line `TCP:` in /proc/net/sockstat")?;
    Ok(slab * 1024.0 + pages * rustix::param::page_size() as f64)
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}
