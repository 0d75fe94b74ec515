//! How often a process asks its allocator for memory, seen from outside: probes at the entries of the allocator within
//! the real program, counted by [`perf`].
//!
//! The probes lie on the copy of the program in the lab's directory and concern nobody else. Setting them needs the same
//! rights as tracing.

use std::path::Path;
use std::time::Duration;

use crate::error::{Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::leash::LeashedCommand;
use crate::perf;

/// The allocator's entries: what `Vec`, `Box` and `Arc` call, and the shorter ones beside them.
const ENTRIES: &[&str] = &["mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned"];
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
        let probes = Self { lab, group: format!("bench{}", std::process::id()) };
        for entry in ENTRIES {
            let place = format!("{}:{entry}={entry}", probes.group);
            probes.perf(&["probe", "--quiet", "-x", &program.display().to_string(), "--add", &place])?;
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

    fn perf(&self, words: &[&str]) -> Outcome<String> {
        let program = lab::find_program("perf")?;
        let command = LeashedCommand::new(program.display().to_string(), self.lab.load_core).args(words.to_vec());
        self.lab.tool(&command, PATIENCE)
    }
}

impl Drop for Probes<'_> {
    fn drop(&mut self) {
        if let Err(trouble) = self.perf(&["probe", "--quiet", "--del", &format!("{}:*", self.group)]) {
            eprintln!("bench: removing probes: {trouble}");
        }
    }
}
