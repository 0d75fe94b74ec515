//! How often a process asks its allocator for memory, seen from outside: probes at the entries of the allocator within
//! the real program, counted by perf.
//!
//! The probes lie on the copy of the program in the lab's directory and concern nobody else. Setting them needs the same
//! rights as tracing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::error::{Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::leash::LeashedCommand;
use crate::perf;

/// The allocator's entries: what `Vec`, `Box` and `Arc` call, and the shorter ones beside them.
const ENTRIES: &[&str] = &["mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned"];
/// How a run's probes are named; its pid follows.
const GROUP_PREFIX: &str = "bench";
/// Where the kernel lists the probes there are.
const PROBES: &str = "/sys/kernel/tracing/uprobe_events";
/// How long perf may take to find a place in the program.
const PATIENCE: Duration = Duration::from_secs(60);

/// Probes in a program, removed when this is dropped.
pub(crate) struct Probes<'a> {
    lab: &'a Lab,
    group: String,
}

impl<'a> Probes<'a> {
    /// Sets a probe at each entry of the allocator in `program`.
    pub(crate) fn set(lab: &'a Lab, program: &Path) -> Outcome<Self> {
        remove_orphans(lab);
        let probes = Self { lab, group: format!("{GROUP_PREFIX}{}", std::process::id()) };
        for entry in ENTRIES {
            let place = format!("{}:{entry}={entry}", probes.group);
            perf(lab, &["probe", "--quiet", "-x", &program.display().to_string(), "--add", &place])?;
        }
        Ok(probes)
    }

    /// Calls of each entry by `pids` while `load` ran, with what that answered.
    pub(crate) fn count<T>(&self, pids: &[u32], load: impl FnOnce() -> Outcome<T>) -> Outcome<(Vec<(String, f64)>, T)> {
        let events: Vec<String> = ENTRIES.iter().map(|entry| format!("{}:{entry}", self.group)).collect();
        let (counted, loaded) = perf::stat(self.lab, pids, &events, load)?;
        if counted.len() != ENTRIES.len() {
            return Err(Trouble::Wrong("perf did not count every entry of the allocator".to_owned()));
        }
        let short = |event: String| event.rsplit(':').next().unwrap_or_default().to_owned();
        Ok((counted.into_iter().map(|(event, calls)| (short(event), calls)).collect(), loaded))
    }
}

fn perf(lab: &Lab, words: &[&str]) -> Outcome<String> {
    let program = lab::find_program("perf")?;
    let command = LeashedCommand::new(program.display().to_string(), lab.load_core).args(words.to_vec());
    lab.tool(&command, PATIENCE)
}

fn remove(lab: &Lab, group: &str) {
    if let Err(trouble) = perf(lab, &["probe", "--quiet", "--del", &format!("{group}:*")]) {
        eprintln!("bench: removing probes: {trouble}");
    }
}

/// Removes what runs left behind that were killed before they could: perf adds nothing beside probes in a program that
/// is gone.
fn remove_orphans(lab: &Lab) {
    let text = fs::read_to_string(PROBES).unwrap_or_default();
    for group in orphans(&text, |pid| Path::new("/proc").join(pid.to_string()).exists()) {
        remove(lab, group);
    }
}

/// The groups of probes whose process does not live, each once.
fn orphans(text: &str, lives: impl Fn(u32) -> bool) -> Vec<&str> {
    let mut groups: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split('/').next())
        .filter(|group| {
            group.strip_prefix(GROUP_PREFIX).and_then(|pid| pid.parse().ok()).is_some_and(|pid| !lives(pid))
        })
        .collect();
    groups.dedup();
    groups
}

impl Drop for Probes<'_> {
    fn drop(&mut self) {
        remove(self.lab, &self.group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_probes_of_runs_that_are_gone_are_orphans() {
        let text = "p:bench7/mi_malloc /a:0x1\np:bench7/mi_free /a:0x2\np:bench8/mi_free /b:0x2\np:probe_x/f /c:0x3\n";
        assert_eq!(orphans(text, |pid| pid == 8), ["bench7"]);
    }
}
