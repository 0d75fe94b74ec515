//! What is known of a death: who, of what, how long it had lived, what its threads were doing.
//!
//! Each witness writes what it saw into a file of its own, `WHO.PID.WITNESS.json`, so that nobody waits for anybody: cop
//! knows of hangs and of the ends of orphans, manager of heartbeats and of the numbers that a server left. [`all`] puts
//! the accounts of one death together. Bounded in number and size, and readable by their owner alone.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use base::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

use crate::directory::{self, RuntimeDir};

/// Accounts that are kept.
pub const ACCOUNTS_MAX: usize = 100;
/// Bytes of one account; what is longer loses its numbers, then its threads.
pub const ACCOUNT_SIZE_MAX: usize = 64 * 1024;
/// Threads told of.
const THREADS_MAX: usize = 64;
/// Characters of one kernel stack.
const STACK_LENGTH_MAX: usize = 1024;

/// A death, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Obituary {
    /// The process's name.
    pub who: String,
    /// Its pid.
    pub pid: u32,
    /// A server's generation; 0 for others.
    pub generation: u64,
    /// When it was written: civil time, microseconds since 1970.
    pub at_us: i64,
    /// Of what it died; empty when this witness does not know.
    pub cause: String,
    /// How long it had lived, as far as the witness knows.
    pub lived_ms: u64,
    /// Age of its last answer; `None` when it never gave one.
    pub last_answer_age_ms: Option<u64>,
    /// What its threads were doing.
    pub threads: Vec<ThreadAccount>,
    /// Its last numbers that are not zero.
    pub numbers: Vec<(String, u64)>,
}

/// One thread at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadAccount {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u64,
    /// What it did, in its own words or the kernel's letter.
    pub state: String,
    /// The continuation that ran.
    pub running: String,
    /// Turns of its loop.
    pub turns: u64,
    /// Where in the kernel it waited.
    pub waits_in: String,
    /// The system call it was in: number and arguments.
    pub system_call: String,
    /// Its stack in the kernel, innermost first.
    pub stack: Vec<String>,
    /// Its own stack, innermost first: functions, and addresses in their files.
    pub frames: Vec<String>,
}

/// The threads of a process that lives, as `/proc` shows them: before it is killed.
#[must_use]
pub fn threads_of(pid: u32) -> Vec<ThreadAccount> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let thread = |task: fs::DirEntry| {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let mut stack = read("stack");
        stack.truncate(stack.floor_char_boundary(STACK_LENGTH_MAX));
        let stat = read("stat");
        let state = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        ThreadAccount {
            name: read("comm").trim().to_owned(),
            id: task.file_name().to_str().and_then(|id| id.parse().ok()).unwrap_or(0),
            state: state.to_owned(),
            waits_in: read("wchan").trim().to_owned(),
            system_call: read("syscall").trim().to_owned(),
            stack: stack.lines().map(|line| line.trim_start_matches("[<0>] ").to_owned()).collect(),
            ..ThreadAccount::default()
        }
    };
    tasks.flatten().take(THREADS_MAX).map(thread).collect()
}

/// Writes an account of `witness`. That it cannot be written is only logged: the dead are not to harm the living.
pub fn write(directory: &RuntimeDir, witness: &str, obituary: Obituary) {
    if let Err(error) = try_write(directory, witness, obituary) {
        crate::warn!("{}: {error}", directory.obituaries().display());
    }
}

fn try_write(directory: &RuntimeDir, witness: &str, mut obituary: Obituary) -> io::Result<()> {
    obituary.at_us = SystemClock.wall().as_micros();
    let home = directory.obituaries();
    fs::create_dir_all(&home)?;
    let mut bytes = serde_json::to_vec(&obituary)?;
    if bytes.len() > ACCOUNT_SIZE_MAX {
        obituary.numbers.clear();
        bytes = serde_json::to_vec(&obituary)?;
    }
    if bytes.len() > ACCOUNT_SIZE_MAX {
        obituary.threads.clear();
        bytes = serde_json::to_vec(&obituary)?;
    }
    let name = format!("{}.{}.{witness}.json", obituary.who, obituary.pid);
    // Who reads meanwhile sees the whole of it or nothing.
    let unfinished = home.join(format!(".{name}"));
    directory::remove(&unfinished)?;
    fs::File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?.write_all(&bytes)?;
    fs::rename(unfinished, home.join(name))?;
    prune(&home)
}

/// Whether `witness` has told of this death already.
#[must_use]
pub fn is_told(directory: &RuntimeDir, witness: &str, who: &str, pid: u32) -> bool {
    directory.obituaries().join(format!("{who}.{pid}.{witness}.json")).exists()
}

fn prune(home: &std::path::Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(home)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) => files.push((metadata.modified()?, entry.path())),
            // Another witness has just removed it, or given it its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.sort();
    let surplus = files.len().saturating_sub(ACCOUNTS_MAX);
    files.iter().take(surplus).try_for_each(|(_, path)| directory::remove(path))
}

/// All deaths that are known, the latest last; the accounts of one are put together.
///
/// # Errors
/// What reading the directory says. An account that cannot be read is left out.
pub fn all(directory: &RuntimeDir) -> io::Result<Vec<Obituary>> {
    let entries = match fs::read_dir(directory.obituaries()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut deaths: Vec<Obituary> = Vec::new();
    for entry in entries.take(2 * ACCOUNTS_MAX) {
        let Some(account) = fs::read(entry?.path()).ok().and_then(|b| serde_json::from_slice::<Obituary>(&b).ok())
        else {
            continue;
        };
        match deaths.iter_mut().find(|death| (&death.who, death.pid) == (&account.who, account.pid)) {
            Some(death) => death.join(account),
            None => deaths.push(account),
        }
    }
    deaths.sort_by_key(|death| death.at_us);
    Ok(deaths)
}

impl Obituary {
    /// Puts another account of the same death beside this one.
    fn join(&mut self, mut other: Self) {
        self.generation = self.generation.max(other.generation);
        self.at_us = self.at_us.min(other.at_us);
        self.lived_ms = self.lived_ms.max(other.lived_ms);
        self.last_answer_age_ms = self.last_answer_age_ms.or(other.last_answer_age_ms);
        // A hang explains the signal that ended it, and so goes first.
        let mut causes = [std::mem::take(&mut self.cause), other.cause];
        causes.sort_by_key(|cause| !cause.starts_with("hang"));
        self.cause = causes.into_iter().filter(|cause| !cause.is_empty()).collect::<Vec<_>>().join("; ");
        // Who asked for stacks put the thread that matters first.
        if self.threads.first().is_none_or(|first| first.frames.is_empty()) {
            std::mem::swap(&mut self.threads, &mut other.threads);
        }
        for thread in other.threads {
            match self.threads.iter_mut().find(|ours| ours.id == thread.id && thread.id != 0) {
                Some(ours) => ours.join(thread),
                None => self.threads.push(thread),
            }
        }
        if self.numbers.is_empty() {
            self.numbers = other.numbers;
        }
    }
}

impl ThreadAccount {
    /// Puts another account of the same thread beside this one.
    fn join(&mut self, other: Self) {
        // The kernel's letter is newer than the thread's own word.
        if self.state.len() != 1 && !other.state.is_empty() {
            self.state = other.state;
        }
        for (ours, theirs) in [
            (&mut self.name, other.name),
            (&mut self.running, other.running),
            (&mut self.waits_in, other.waits_in),
            (&mut self.system_call, other.system_call),
        ] {
            if ours.is_empty() {
                *ours = theirs;
            }
        }
        self.turns = self.turns.max(other.turns);
        for (ours, theirs) in [(&mut self.stack, other.stack), (&mut self.frames, other.frames)] {
            if ours.is_empty() {
                *ours = theirs;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_of_one_death_become_one_and_only_so_many_are_kept() {
        let home = std::env::temp_dir().join(format!("beltway-obituary-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        assert_eq!(all(&directory).unwrap(), []);
        let of = |pid, cause: &str| Obituary {
            who: "traffic_server".to_owned(),
            pid,
            cause: cause.to_owned(),
            ..Obituary::default()
        };
        let thread = |id, frames: &[&str]| ThreadAccount {
            id,
            frames: frames.iter().map(|&frame| frame.to_owned()).collect(),
            ..ThreadAccount::default()
        };
        for witnesses in [["manager", "vigil"], ["vigil", "manager"]] {
            write(&directory, witnesses[0], Obituary { threads: vec![thread(1, &[]), thread(2, &[])], ..of(6, "") });
            let threads = vec![thread(2, &["f"]), thread(1, &["g"]), thread(3, &[])];
            write(&directory, witnesses[1], Obituary { threads, ..of(6, "hang: 2") });
            let death = all(&directory).unwrap().pop().unwrap();
            assert_eq!(death.threads.iter().map(|thread| thread.id).collect::<Vec<_>>(), [2, 1, 3]);
            assert!(death.threads[..2].iter().all(|thread| thread.frames.len() == 1));
            fs::remove_dir_all(directory.obituaries()).unwrap();
        }
        write(&directory, "manager", of(7, "ended by SIGKILL (9)"));
        write(&directory, "cop", Obituary { threads: threads_of(std::process::id()), ..of(7, "hang: stopped") });
        let death = all(&directory).unwrap().pop().unwrap();
        assert_eq!(death.cause, "hang: stopped; ended by SIGKILL (9)");
        assert!(death.threads.iter().any(|thread| thread.state == "R"), "{:?}", death.threads);
        assert!(is_told(&directory, "cop", "traffic_server", 7) && !is_told(&directory, "cop", "traffic_server", 8));
        for pid in 100..100 + u32::try_from(ACCOUNTS_MAX).unwrap() + 5 {
            write(&directory, "cop", of(pid, "x"));
        }
        assert_eq!(fs::read_dir(directory.obituaries()).unwrap().count(), ACCOUNTS_MAX);
        let huge = (0..10_000).map(|n| (format!("number_{n}"), n)).collect();
        write(&directory, "cop", Obituary { numbers: huge, ..of(1, "x") });
        let size = fs::metadata(directory.obituaries().join("traffic_server.1.cop.json")).unwrap().len();
        assert!(size < 1_000, "{size}");
        fs::remove_dir_all(home).unwrap();
    }
}
