//! System calls per request, counted by `perf stat` during a short run of their own, since counting slows the target.
//!
//! perf starts with counting disabled and is told through a pair of named pipes when to begin and to end, so that
//! nothing of its own start is counted. Where the kernel does not let us, there is no number.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode};
use serde::Serialize;

use crate::error::{Doing, Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::leash::{Leash, LeashedCommand};

/// The event that counts all.
const ALL: &str = "raw_syscalls:sys_enter";
/// Calls listed by name, when they occur: those that a proxy makes for every request, or should not.
const NAMED: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "connect",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "fcntl",
    "futex",
    "getpeername",
    "getsockname",
    "getsockopt",
    "io_uring_enter",
    "ioctl",
    "madvise",
    "mmap",
    "munmap",
    "newfstatat",
    "openat",
    "poll",
    "ppoll",
    "pread64",
    "pwrite64",
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "rename",
    "sendfile64",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
    "splice",
    "timerfd_settime",
    "write",
    "writev",
];
/// Calls rarer than this per request are not listed.
const LISTED_MIN: f64 = 0.01;
/// Bound of each answer from perf.
const PATIENCE_S: i64 = 10;

/// Counts per request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Counts {
    /// All system calls.
    pub(crate) all: f64,
    /// Those that matter, most frequent first.
    pub(crate) named: Vec<(String, f64)>,
}

/// Counts the system calls of `pids` while `load` runs; `load` answers how many requests it made.
pub(crate) fn count(lab: &Lab, pids: &[u32], load: impl FnOnce() -> Outcome<u64>) -> Outcome<Counts> {
    let program = lab::find_program("perf")?;
    let room = lab.room("perf")?;
    let (control, ack) = (room.join("control"), room.join("ack"));
    for fifo in [&control, &ack] {
        rustix::fs::mknodat(CWD, fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).doing(fifo.display())?;
    }
    let output = room.join("counts");
    let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
    let mut events = vec![ALL.to_owned()];
    events.extend(known_tracepoints(lab, &program)?);
    let command = LeashedCommand::new(program.display().to_string(), lab.load_core)
        .args(["stat", "-x", ",", "-D", "-1", "-o", &output.display().to_string()])
        .args(["--control", &format!("fifo:{},{}", control.display(), ack.display())])
        .args(["-e", &events.join(","), "-p", &pids.join(",")]);
    let log = room.join("log");
    let mut leash = Leash::spawn(&command, &log, &log)?;
    // Both ends open for both directions: opening never blocks, whoever comes first.
    let mut control = open_fifo(&control)?;
    let mut ack = open_fifo(&ack)?;
    tell(&mut control, &mut ack, "enable").map_err(|trouble| {
        Trouble::Wrong(format!("{trouble}: {}", fs::read_to_string(&log).unwrap_or_default().trim()))
    })?;
    let requests = load()?;
    tell(&mut control, &mut ack, "disable")?;
    leash.interrupt();
    leash.wait(Duration::from_secs(20))?;
    let text = fs::read_to_string(&output).doing(output.display())?;
    let _ = fs::remove_dir_all(&room);
    parse(&text, requests)
}

/// Those of [`NAMED`] that this kernel has.
fn known_tracepoints(lab: &Lab, program: &Path) -> Outcome<Vec<String>> {
    let command = LeashedCommand::new(program.display().to_string(), lab.load_core).args([
        "list",
        "--no-desc",
        "--raw-dump",
        "tracepoint",
    ]);
    let text = lab.tool(&command, Duration::from_secs(20))?;
    let known: Vec<&str> = text.split_whitespace().collect();
    Ok(NAMED
        .iter()
        .map(|name| format!("syscalls:sys_enter_{name}"))
        .filter(|event| known.contains(&event.as_str()))
        .collect())
}

fn open_fifo(path: &PathBuf) -> Outcome<File> {
    OpenOptions::new().read(true).write(true).open(path).doing(path.display())
}

/// Sends a word and waits for perf's `ack`.
fn tell(control: &mut File, ack: &mut File, word: &str) -> Outcome<()> {
    control.write_all(format!("{word}\n").as_bytes()).doing("telling perf")?;
    let mut heard = Vec::new();
    while !heard.windows(3).any(|window| window == b"ack") {
        let bound = Timespec { tv_sec: PATIENCE_S, tv_nsec: 0 };
        let mut fds = [PollFd::new(ack, PollFlags::IN)];
        if poll(&mut fds, Some(&bound)).doing("waiting for perf")? == 0 {
            return Err(Trouble::Wrong(format!("perf does not answer to {word}")));
        }
        let mut piece = [0_u8; 16];
        let count = ack.read(&mut piece).doing("reading from perf")?;
        heard.extend_from_slice(&piece[..count]);
    }
    Ok(())
}

/// perf's `value,unit,event,…` lines.
fn parse(text: &str, requests: u64) -> Outcome<Counts> {
    let mut all = None;
    let mut named = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        let (Some(value), Some(event)) = (fields.first().and_then(|word| word.parse::<f64>().ok()), fields.get(2))
        else {
            continue;
        };
        let each = value / requests as f64;
        if *event == ALL {
            all = Some(each);
        } else if let Some(name) = event.strip_prefix("syscalls:sys_enter_")
            && each >= LISTED_MIN
        {
            named.push((name.to_owned(), each));
        }
    }
    named.sort_by(|one, other| other.1.total_cmp(&one.1));
    let all = all.ok_or_else(|| Trouble::Wrong(format!("perf counted nothing: {}", text.trim())))?;
    Ok(Counts { all, named })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_divided_by_requests_and_rare_calls_left_out() {
        let text = "# started\n\n2100,,raw_syscalls:sys_enter,1,100.00,,\n1000,,syscalls:sys_enter_sendto,1,100.00,,\n\
                    1,,syscalls:sys_enter_mmap,1,100.00,,\n<not counted>,,syscalls:sys_enter_read,0,100.00,,\n";
        let counts = parse(text, 1000).unwrap();
        assert!((counts.all - 2.1).abs() < 1e-9);
        assert_eq!(counts.named.len(), 1);
    }
}
