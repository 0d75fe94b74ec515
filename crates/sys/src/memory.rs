//! What the allocator keeps, and how much memory there is.

use std::path::{Path, PathBuf};

/// Asks the allocator to give memory that nobody uses back to the system: it does so by itself only when it is next
/// asked for some, which in an idle process may be never. The calling thread's memory, and what is shared.
pub fn give_back() {
    // SAFETY: it may be called on any thread at any time; the allocator sets itself up first where it has not yet.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// How much memory this process may have at most, in bytes: the machine's, or what a cgroup that it is in allows, if that
/// is less. None where /proc does not say.
#[must_use]
pub fn available() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let machine = machine(&read(Path::new("/proc/meminfo"))?)?;
    let cgroups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    Some(limits(&cgroups).iter().filter_map(|path| read(path)?.trim().parse().ok()).fold(machine, u64::min))
}

/// The machine's memory, by `/proc/meminfo`.
fn machine(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    kib.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The files with the limits of these cgroups, of both versions, and of those they are in. In a container, the path may be
/// that on its host: then the root's is the container's.
fn limits(cgroups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            several if several.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        files.extend(own.ancestors().map(|ancestor| Path::new(root).join(ancestor).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_some_memory() {
        assert!(available().unwrap() > 16 << 20);
        assert_eq!(machine("MemFree: 1 kB\nMemTotal:       16 kB\n"), Some(16 << 10));
    }

    #[test]
    fn limits_are_looked_for_in_every_cgroup_up_to_the_root() {
        let of = |cgroups| limits(cgroups).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(
            of("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(of("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            of("5:cpu,memory:/x\n4:pids:/y\n"),
            ["/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert_eq!(of("nonsense"), [""; 0]);
    }
}
