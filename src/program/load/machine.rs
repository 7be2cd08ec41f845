//! The machine that the load comes from, as a report names it.

use std::fs;

use rustix::system::uname;

use corecast::bytes_to_text;

/// What of a machine a figure depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) cpu: String,
    /// CPUs that this process may use.
    pub(super) cpus: usize,
    pub(super) kernel: String,
    pub(super) memory: String,
}

impl Machine {
    /// This one. What can't be read is left out.
    pub(super) fn here() -> Machine {
        let name = uname();
        Machine {
            cpu: value("/proc/cpuinfo", "model name").unwrap_or_else(|| name.machine().to_string_lossy().into_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
            memory: value("/proc/meminfo", "MemTotal").as_deref().and_then(kilobytes).unwrap_or_default(),
        }
    }
}

/// What stands behind a key and a colon in a file of lines.
fn value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

/// `16318480 kB` in GiB.
fn kilobytes(text: &str) -> Option<String> {
    let bytes = text.strip_suffix(" kB")?.parse::<usize>().ok()? * 1024;
    Some(match bytes >> 30 {
        0 => bytes_to_text(bytes),
        _ => format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_a_kernel_and_memory() {
        let machine = Machine::here();
        assert!(!machine.cpu.is_empty() && machine.kernel.starts_with("Linux "), "{machine:?}");
        assert!(machine.cpus > 0 && machine.memory.ends_with('B'), "{machine:?}");
    }
}
