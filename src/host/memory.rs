//! How much memory this process may count on: the machine's, or less where a control group says so.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Bytes of memory of this machine, or the least that a control group of this process allows; `None`: nothing says.
pub(crate) fn memory_limit() -> Option<u64> {
    memory_limit_below(Path::new("/"))
}

fn memory_limit_below(root: &Path) -> Option<u64> {
    let text = |path: &Path| fs::read_to_string(path).ok();
    let machine = text(&root.join("proc/meminfo")).and_then(|text| {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    });
    let groups = text(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mut limits = Vec::from_iter(machine);
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let file = match controllers {
            "" => "memory.max",
            _ if controllers.split(',').any(|controller| controller == "memory") => "memory.limit_in_bytes",
            _ => continue,
        };
        let is_both = controllers.is_empty() && root.join("sys/fs/cgroup/unified").is_dir();
        let mount = if is_both { "unified" } else { controllers };
        for folder in group_folders(root, mount, path) {
            // A group without a limit says `max`, or in version 1 a number that no machine has.
            limits.extend(text(&folder.join(file)).and_then(|text| text.trim().parse::<u64>().ok()));
        }
    }
    limits.into_iter().min()
}

/// Folders of this process's control group in a hierarchy, from its own up to the hierarchy's root, as far as they are there.
/// `root` is the folder that stands for `/`, `mount` the hierarchy's folder below `sys/fs/cgroup`, and `path` the group's, as
/// `/proc/self/cgroup` names it (cgroups(7)). Inside a container that may be a path of the host, which is not there; the root
/// that is mounted then is the container's group.
pub fn group_folders(root: &Path, mount: &str, path: &str) -> Vec<PathBuf> {
    let mount = root.join("sys/fs/cgroup").join(mount);
    Path::new(path.trim_start_matches('/'))
        .ancestors()
        .filter(|path| !path.components().any(|part| part == Component::ParentDir))
        .map(|path| mount.join(path))
        .filter(|folder| folder.is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file tree that is removed when it is dropped.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let root = std::env::temp_dir().join(format!("corecast-memory-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Tree(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            // Nothing is lost if it stays.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\n");

    /// A machine's name, its files, and the bytes of memory that it has.
    type Scene = (&'static str, &'static [(&'static str, &'static str)], Option<u64>);

    #[test]
    fn the_tightest_of_machine_and_groups_counts() {
        let scenes: [Scene; 6] = [
            ("nothing", &[("proc/x", "")], None),
            ("machine", &[MACHINE], Some(1_024_000)),
            (
                "v2",
                &[
                    MACHINE,
                    ("proc/self/cgroup", "0::/a/b\n"),
                    ("sys/fs/cgroup/a/memory.max", "500000\n"),
                    ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                ],
                Some(500_000),
            ),
            (
                "v2-looser",
                &[MACHINE, ("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "5000000\n")],
                Some(1_024_000),
            ),
            (
                "v1",
                &[
                    MACHINE,
                    ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/a\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                    ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "400000\n"),
                ],
                Some(400_000),
            ),
            (
                "container",
                &[MACHINE, ("proc/self/cgroup", "0::/docker/abc\n"), ("sys/fs/cgroup/memory.max", "300000\n")],
                Some(300_000),
            ),
        ];
        for (name, files, expected) in scenes {
            let tree = Tree::new(name, files);
            assert_eq!(memory_limit_below(&tree.0), expected, "{name}");
        }
        assert!(memory_limit().is_some_and(|bytes| bytes > 1 << 20), "this machine has memory");
    }
}
