//! Child processes that die with this program, whatever it dies of, and take all their own children along.
//!
//! ```text
//! bench ──pipe──> bench leash (own process group, child subreaper, pinned to a core) ──> nginx master ──> nginx worker
//! ```
//!
//! The leash is this same binary. It reads from a pipe of which only `bench` holds the other end: end of file there
//! means that `bench` is done or dead, and the leash kills every descendant, also those that were orphaned, since as a
//! subreaper it inherits them. No signal handler is involved, so a `kill -9` or ctrl-c of `bench` ends the same way.
//!
//! Read [`Leash::spawn`] for the near side and [`hold`] for the far side.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Signal, WaitOptions};
use rustix::thread::CpuSet;

use crate::account;
use crate::error::{Doing, Outcome, Trouble};

/// How long the leash may take to kill and reap everything.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Passes over the process table until no descendant is left. Each pass kills all that live then.
const KILL_PASSES_MAX: u32 = 200;

/// This program, also when its file was replaced meanwhile by a build.
pub(crate) const OURSELVES: &str = "/proc/self/exe";
/// How many characters of a command stand for it in an error.
const LINE_MAX: usize = 100;

/// A command to be run on a leash.
pub(crate) struct LeashedCommand {
    words: Vec<String>,
    core: usize,
}

impl LeashedCommand {
    /// A command pinned to `core` with all its children and threads.
    pub(crate) fn new(program: impl Into<String>, core: usize) -> Self {
        Self { words: vec![program.into()], core }
    }

    /// Adds one argument.
    pub(crate) fn arg(mut self, word: impl Into<String>) -> Self {
        self.words.push(word.into());
        self
    }

    /// Adds several arguments.
    pub(crate) fn args<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// The program and the beginning of its arguments, to name it in an error.
    pub(crate) fn line(&self) -> String {
        let words = self.words.join(" ");
        match words.char_indices().nth(LINE_MAX) {
            Some((end, _)) => format!("{} …", &words[..end]),
            None => words,
        }
    }
}

/// A running command and its descendants. Dropping it kills them all.
pub(crate) struct Leash {
    child: Child,
    line: String,
}

impl Leash {
    /// Starts `command`; its standard output goes to `output`, its standard error to `errors` (files, truncated).
    pub(crate) fn spawn(command: &LeashedCommand, output: &Path, errors: &Path) -> Outcome<Self> {
        let line = command.line();
        let out = File::create(output).doing(output.display())?;
        let err = if output == errors {
            out.try_clone().doing(errors.display())?
        } else {
            File::create(errors).doing(errors.display())?
        };
        let child = Command::new(OURSELVES)
            .arg0("bench")
            .args(["leash", "--core", &command.core.to_string(), "--"])
            .args(&command.words)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .doing(format!("starting {line}"))?;
        Ok(Self { child, line })
    }

    /// The pid of the leash itself: the root of the tree that is accounted, not part of it.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes on the leash now.
    pub(crate) fn processes(&self) -> Vec<u32> {
        account::descendants(self.pid())
    }

    /// True once the command has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the command ends by itself.
    pub(crate) fn wait(&mut self, patience: Duration) -> Outcome<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).doing("opening a pidfd")?;
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let bound = Timespec { tv_sec: seconds(patience), tv_nsec: i64::from(patience.subsec_nanos()) };
        loop {
            match poll(&mut fds, Some(&bound)) {
                Ok(0) => return Err(Trouble::Late(format!("the end of {}", self.line), patience.as_secs())),
                Ok(_) => return self.child.wait().doing(format!("waiting for {}", self.line)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Trouble::Io("poll".to_owned(), error.into())),
            }
        }
    }

    /// Sends what ctrl-c would send to every process on the leash.
    pub(crate) fn interrupt(&self) {
        for pid in self.processes() {
            signal(pid, Signal::INT);
        }
    }

    /// Kills everything on the leash and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        drop(self.child.stdin.take());
        if !self.has_ended() && self.wait(STOP_PATIENCE).is_err() {
            eprintln!("bench: {} did not end; killing its leash", self.line);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The far side: the subcommand `leash`. Runs `words` pinned to `core` until it ends or standard input does.
pub(crate) fn hold(core: usize, words: &[String]) -> Outcome<ExitCode> {
    let (program, arguments) = words.split_first().ok_or_else(|| Trouble::Wrong("nothing to run".to_owned()))?;
    pin_to(core)?;
    raise_descriptor_limit()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).doing("becoming a subreaper")?;
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::null()).spawn().doing(format!("starting {program}"))?;
    let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).doing("opening a pidfd")?;
    let stdin = io::stdin();
    loop {
        let stdin_fd = stdin.as_fd();
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&stdin_fd, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if fds.iter().any(|fd| !fd.revents().is_empty()) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Trouble::Io("poll".to_owned(), error.into())),
        }
    }
    let ended = child.try_wait().doing("waiting for the command")?;
    kill_descendants();
    Ok(match ended.and_then(|status| status.code()) {
        Some(0) => ExitCode::SUCCESS,
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    })
}

/// Kills and reaps until this process has no descendant left.
fn kill_descendants() {
    let me = std::process::id();
    for _ in 0..KILL_PASSES_MAX {
        let living = account::descendants(me);
        if living.is_empty() {
            return;
        }
        for pid in living {
            signal(pid, Signal::KILL);
        }
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal; a process that is gone already is what was wanted.
fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Pins the calling thread, and whatever it starts from now on, to one core.
pub(crate) fn pin_to(core: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).doing(format!("pinning to core {core}"))
}

/// Raises the soft limit of open descriptors to the hard one.
pub(crate) fn raise_descriptor_limit() -> Outcome<u64> {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(Resource::Nofile, limit).doing("raising the limit of open descriptors")?;
    Ok(limit.current.unwrap_or(u64::MAX))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
