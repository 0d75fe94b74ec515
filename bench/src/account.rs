//! What processes have used, read from `/proc`: CPU time, memory, and who descends from whom.
//!
//! CPU time is the sum of `/proc/PID/task/*/schedstat` (nanoseconds on a core, from the scheduler), which is what
//! `utime + stime` of `/proc/PID/stat` is rounded down from, in steps of 10 ms. A thread that ends takes its
//! nanoseconds out of the task list but not out of `stat`; so when `stat` grew by clearly more, `stat` is believed.
//! The split into user and system time comes from `stat` and is sampled by the kernel's tick: good to a few percent
//! over seconds.

use std::fs;

/// `/proc/PID/stat` counts in these; the kernel's interface fixes them at 100 a second.
const NANOS_PER_TICK: u64 = 10_000_000;
/// By how much `stat` may exceed the sum of the tasks before threads must have ended.
const ENDED_THREADS_NANOS: u64 = 3 * NANOS_PER_TICK;

/// CPU time used by a set of processes since each began, or between two such readings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    tasks_nanos: u64,
    user_nanos: u64,
    system_nanos: u64,
}

impl CpuTime {
    /// Reads the sum over `pids`; a process that is gone counts nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut sum = Self::default();
        for &pid in pids {
            if let Some(stat) = Stat::of(pid) {
                sum.user_nanos += stat.user_ticks * NANOS_PER_TICK;
                sum.system_nanos += stat.system_ticks * NANOS_PER_TICK;
            }
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                sum.tasks_nanos += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        sum
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            tasks_nanos: self.tasks_nanos.saturating_sub(earlier.tasks_nanos),
            user_nanos: self.user_nanos.saturating_sub(earlier.user_nanos),
            system_nanos: self.system_nanos.saturating_sub(earlier.system_nanos),
        }
    }

    /// The total, by the better of the two sources.
    pub(crate) fn nanos(self) -> u64 {
        let ticks = self.user_nanos + self.system_nanos;
        if ticks > self.tasks_nanos + ENDED_THREADS_NANOS { ticks } else { self.tasks_nanos }
    }

    /// The share of user time, 0 to 1.
    pub(crate) fn user_share(self) -> f64 {
        let ticks = self.user_nanos + self.system_nanos;
        if ticks == 0 { 0.0 } else { self.user_nanos as f64 / ticks as f64 }
    }
}

/// The fields of `/proc/PID/stat` that matter here.
struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in parentheses may itself hold spaces and parentheses: fields are counted from the last `)`.
    fn parse(text: &str) -> Option<Self> {
        let (_, after_name) = text.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            user_ticks: fields.get(11)?.parse().ok()?,
            system_ticks: fields.get(12)?.parse().ok()?,
        })
    }
}

/// All living processes whose line of parents leads to `root`, without `root`.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut all: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(stat) = Stat::of(pid) {
            all.push((pid, stat.parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            all.iter()
                .filter(|(pid, of)| *of == parent && !found.contains(pid))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        next += 1;
    }
    found.remove(0);
    found
}

/// The name of a process as `ps` shows it.
pub(crate) fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// Memory of a set of processes, in KiB.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Memory {
    /// Resident pages, shared ones counted once for every process.
    pub(crate) rss_kib: u64,
    /// Resident pages, shared ones divided by their sharers.
    pub(crate) pss_kib: u64,
}

impl Memory {
    /// Reads `smaps_rollup` of each process.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut sum = Self::default();
        for pid in pids {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            sum.rss_kib += kib_field(&text, "Rss:");
            sum.pss_kib += kib_field(&text, "Pss:");
        }
        sum
    }
}

/// The sum of the processes' peaks of resident memory since [`forget_peak_rss`], in KiB.
pub(crate) fn peak_rss_kib(pids: &[u32]) -> u64 {
    let status = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    pids.iter().map(|pid| kib_field(&status(pid), "VmHWM:")).sum()
}

/// Sets the peak back to what is resident now. Where the kernel refuses, the peak stays that of the whole life.
pub(crate) fn forget_peak_rss(pids: &[u32]) {
    for pid in pids {
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

fn kib_field(text: &str, field: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Time a core was not idle, in nanoseconds since boot, all processes and interrupts; and time stolen from it by the
/// host.
pub(crate) fn core_busy_and_stolen_nanos(core: usize) -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let label = format!("cpu{core} ");
    let fields: Vec<u64> = text
        .lines()
        .find_map(|line| line.strip_prefix(&label))
        .map(|rest| rest.split_whitespace().filter_map(|field| field.parse().ok()).collect())
        .unwrap_or_default();
    let at = |index: usize| fields.get(index).copied().unwrap_or(0) * NANOS_PER_TICK;
    // user, nice, system, (idle, iowait), irq, softirq, steal
    (at(0) + at(1) + at(2) + at(5) + at(6), at(7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_a_parenthesis_does_not_shift_the_fields() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194304 90 0 0 0 11 22 0 0 20 0 1 0 100 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.user_ticks, stat.system_ticks), (7, 11, 22));
    }

    #[test]
    fn time_of_threads_that_ended_is_taken_from_the_process_line() {
        let ms = 1_000_000;
        let steady = CpuTime { tasks_nanos: 995 * ms, user_nanos: 600 * ms, system_nanos: 390 * ms };
        assert_eq!(steady.nanos(), 995 * ms);
        let ended = CpuTime { tasks_nanos: 500 * ms, user_nanos: 600 * ms, system_nanos: 390 * ms };
        assert_eq!(ended.nanos(), 990 * ms);
    }

    #[test]
    fn a_child_is_a_descendant_and_a_stranger_is_not() {
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        let mine = descendants(std::process::id());
        assert!(mine.contains(&child.id()));
        assert!(!mine.contains(&1));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
