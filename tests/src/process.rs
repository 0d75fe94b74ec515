//! Processes of a test, and what `/proc` says of them.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{PATIENCE, now, pause};

/// The program under test: `$BELTWAY_BIN`, or the one built beside this test.
#[must_use]
pub fn beltway() -> PathBuf {
    if let Some(path) = std::env::var_os("BELTWAY_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("beltway");
    assert!(path.exists(), "{} is not built: cargo build --package beltway", path.display());
    path
}

/// A child that is killed when its test ends.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Starts it, without standard input.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        assert!(send(self.pid(), signal), "no process {}", self.pid());
    }

    /// TERM; killed when it does not end in time.
    pub fn terminate_within(&mut self, patience: std::time::Duration) -> Option<i32> {
        let begin = now();
        let _ = send(self.pid(), Signal::TERM);
        while begin.elapsed() < patience {
            if let Ok(Some(status)) = self.0.try_wait() {
                return status.code();
            }
            pause(crate::LOOK);
        }
        None
    }

    /// TERM, and the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        crate::eventually("the process ends", || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process; false when there is none of that pid.
#[must_use]
pub fn send(pid: u32, signal: Signal) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    pidfd_send_signal(process, signal).is_ok()
}

/// Runs a command to its end; one that hangs is killed.
#[must_use]
pub fn bounded(mut command: Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What is said is read while it is said: a pipe does not hold much.
    let (said, complained) = (heard(child.stdout.take()), heard(child.stderr.take()));
    let begin = now();
    let mut hangs = false;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > PATIENCE && !hangs {
            hangs = true;
            child.kill().unwrap();
        }
        pause(crate::LOOK);
    };
    let output = Output { status, stdout: said.join().unwrap(), stderr: complained.join().unwrap() };
    assert!(!hangs, "{command:?} hangs: {output:?}");
    output
}

fn heard(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    let read = move || {
        let mut bytes = Vec::new();
        pipe.unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    std::thread::Builder::new().name("reader".to_owned()).spawn(read).unwrap()
}

fn status_line(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line[name.len()..].trim_start_matches(':').trim().to_owned())
}

/// Lets this process, and those it starts, open as many files as it may.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Resident memory, in bytes.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let kilobytes = status_line(pid, "VmRSS").unwrap();
    kilobytes.trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Open descriptors.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The name, as `ps` shows it.
#[must_use]
pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// The arguments, as `ps` shows them.
#[must_use]
pub fn arguments(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ").trim().to_owned()
}

/// Whether a process of that pid runs; one that is dead and not yet reaped does not.
#[must_use]
pub fn lives(pid: u32) -> bool {
    status_line(pid, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// Whether every thread of a process is stopped by a signal.
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    all_threads_are(pid, 'T')
}

/// Whether every thread of a process is held by a debugger.
#[must_use]
pub fn is_traced(pid: u32) -> bool {
    all_threads_are(pid, 't')
}

fn all_threads_are(pid: u32, state: char) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let mut states = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
    // The name stands in parentheses, and may have some of its own.
    states.all(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(state)))
}

/// Processes whose arguments hold `text`, by pid.
#[must_use]
pub fn with_argument(text: &str) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(|&pid: &u32| lives(pid) && arguments(pid).contains(text)).collect()
}
