//! System calls per request, counted by [`perf`] in a run of their own, since counting slows the target.

use std::sync::OnceLock;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::leash::LeashedCommand;
use crate::perf;

/// The event that counts all.
const ALL: &str = "raw_syscalls:sys_enter";
/// What stands before a call's name in the name of its event.
const NAMED_PREFIX: &str = "syscalls:sys_enter_";
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
    let (counted, requests) = perf::stat(lab, pids, events(lab)?, load)?;
    per_request(&counted, requests)
}

/// [`ALL`] and those of [`NAMED`] that this kernel has.
fn events(lab: &Lab) -> Outcome<&'static [String]> {
    static EVENTS: OnceLock<Vec<String>> = OnceLock::new();
    if let Some(events) = EVENTS.get() {
        return Ok(events);
    }
    let program = lab::find_program("perf")?;
    let command = LeashedCommand::new(program.display().to_string(), lab.load_core).args([
        "list",
        "--no-desc",
        "--raw-dump",
        "tracepoint",
    ]);
    let text = lab.tool(&command, Duration::from_secs(20))?;
    let known: Vec<&str> = text.split_whitespace().collect();
    let named =
        NAMED.iter().map(|name| format!("{NAMED_PREFIX}{name}")).filter(|event| known.contains(&event.as_str()));
    Ok(EVENTS.get_or_init(|| std::iter::once(ALL.to_owned()).chain(named).collect()))
}

fn per_request(counted: &[(String, f64)], requests: u64) -> Outcome<Counts> {
    let each = |value: f64| value / requests as f64;
    let all = counted.iter().find(|(event, _)| event == ALL).map(|(_, value)| each(*value));
    let all = all.ok_or_else(|| Trouble::Wrong("perf counted nothing".to_owned()))?;
    let mut named: Vec<(String, f64)> = counted
        .iter()
        .filter_map(|(event, value)| Some((event.strip_prefix(NAMED_PREFIX)?.to_owned(), each(*value))))
        .filter(|(_, each)| *each >= LISTED_MIN)
        .collect();
    named.sort_by(|one, other| other.1.total_cmp(&one.1));
    Ok(Counts { all, named })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_divided_by_requests_and_rare_calls_left_out() {
        let counted = [(ALL, 2100.0), ("syscalls:sys_enter_sendto", 1000.0), ("syscalls:sys_enter_mmap", 1.0)];
        let counts = per_request(&counted.map(|(event, value)| (event.to_owned(), value)), 1000).unwrap();
        assert!((counts.all - 2.1).abs() < 1e-9);
        assert_eq!(counts.named.len(), 1);
    }
}
