//! Processes: starting them with chosen descriptors, watching them by pidfd, learning how they ended.
//!
//! A [`Pidfd`] names one process for good: a signal sent through it cannot hit another that got the same number.
//! Start with [`spawn`] for children and [`Pidfd::open`] for everybody else.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

pub use rustix::process::Signal;

/// One process, dead or alive. Its descriptor becomes readable when the process has ended.
#[derive(Debug)]
pub struct Pidfd {
    fd: OwnedFd,
    pid: Pid,
}

impl Pidfd {
    /// The process that bears `pid` now. Whether it is the one that is meant, the caller verifies *after* this.
    ///
    /// # Errors
    /// `ESRCH` when there is none; `EINVAL` for 0 or a number that no process can have.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { fd: rustix::process::pidfd_open(pid, PidfdFlags::empty())?, pid })
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal to this process and to no other.
    ///
    /// # Errors
    /// `ESRCH` when it has ended and was reaped; `EPERM` when it is not ours.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.fd, signal)?)
    }

    /// Whether it has ended (reaped or not).
    #[must_use]
    pub fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(n) if n > 0)
    }

    /// Reaps it and says how it ended. `None`: it lives, is no child of this process, or was reaped before.
    ///
    /// # Errors
    /// Nothing but what `waitid(2)` cannot say here.
    pub fn reap(&self) -> io::Result<Option<Exit>> {
        match rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(status) => Ok(status.as_ref().and_then(exit_of)),
            Err(rustix::io::Errno::CHILD) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// It was ended by this signal.
    Signal {
        /// The signal's number.
        number: i32,
        /// A core was written.
        core: bool,
    },
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exited with {code}"),
            Self::Signal { number, core } => {
                let name = match number {
                    libc::SIGHUP => "SIGHUP",
                    libc::SIGINT => "SIGINT",
                    libc::SIGQUIT => "SIGQUIT",
                    libc::SIGILL => "SIGILL",
                    libc::SIGTRAP => "SIGTRAP",
                    libc::SIGABRT => "SIGABRT",
                    libc::SIGBUS => "SIGBUS",
                    libc::SIGFPE => "SIGFPE",
                    libc::SIGKILL => "SIGKILL",
                    libc::SIGSEGV => "SIGSEGV",
                    libc::SIGPIPE => "SIGPIPE",
                    libc::SIGTERM => "SIGTERM",
                    libc::SIGSYS => "SIGSYS",
                    libc::SIGXCPU => "SIGXCPU",
                    libc::SIGXFSZ => "SIGXFSZ",
                    _ => "signal",
                };
                write!(f, "ended by {name} ({number}){}", if core { ", core written" } else { "" })
            }
        }
    }
}

/// Reaps one child that has ended, if there is one: its pid and how it ended. Never waits.
///
/// # Errors
/// Nothing but what `waitid(2)` cannot say here; to have no child is `Ok(None)`.
pub fn reap_any() -> io::Result<Option<(u32, Exit)>> {
    // waitid(2) reports the pid in a field of siginfo that the safe binding does not show: look first, then reap it.
    let Some(pid) = ended_child()? else { return Ok(None) };
    match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(Some(status)) => Ok(exit_of(&status).map(|exit| (pid.as_raw_nonzero().get().unsigned_abs(), exit))),
        Ok(None) | Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The pid of a child that has ended and is not reaped yet.
fn ended_child() -> io::Result<Option<Pid>> {
    // SAFETY: `siginfo_t` is plain old data for which all zeroes is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is writable for the whole call, and the kernel keeps no pointer to it.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ECHILD) { Ok(None) } else { Err(error) };
    }
    // SAFETY: after a successful `waitid` the child's fields of the union are those that are set; with WNOHANG and
    // nobody ended they are the zeroes from above.
    let pid = unsafe { info.si_pid() };
    Ok(Pid::from_raw(pid))
}

fn exit_of(status: &WaitIdStatus) -> Option<Exit> {
    if let Some(code) = status.exit_status() {
        return Some(Exit::Code(code));
    }
    status.terminating_signal().map(|number| Exit::Signal { number, core: status.dumped() })
}

/// What a new process gets.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program file.
    pub program: &'a OsStr,
    /// Its arguments, its own name first.
    pub arguments: Vec<&'a OsStr>,
    /// Descriptors it gets, under the given numbers. All others stay behind, as far as they are close-on-exec.
    pub descriptors: Vec<(BorrowedFd<'a>, RawFd)>,
    /// Where it stands among others.
    pub standing: Standing,
}

/// Whose signals from a terminal a new process shares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A process group of its own.
    OwnGroup,
    /// A session of its own, without a terminal.
    OwnSession,
}

/// Numbers given to a child's descriptors are below this.
pub const TARGET_MAX: RawFd = 512;

/// Starts a process: the environment is ours, no signal is blocked or ignored in it (but `SIGPIPE`, which is ignored
/// in every process of Beltway). The answer is ready to be watched before the child can be reaped by anybody.
///
/// # Errors
/// What `posix_spawn(3)` says: no such program, no memory, too many processes; `EINVAL` for a NUL in an argument or a
/// target at or above [`TARGET_MAX`].
pub fn spawn(spawn: &Spawn<'_>) -> io::Result<Pidfd> {
    let program = CString::new(spawn.program.as_bytes())?;
    let arguments = spawn.arguments.iter().map(|a| CString::new(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let mut argv: Vec<*mut libc::c_char> = arguments.iter().map(|a| a.as_ptr().cast_mut()).collect();
    argv.push(ptr::null_mut());

    // Moved out of the way of all targets first: dup2 to 9 must not overwrite a source that happens to be 9. No further than
    // that: the limit on open files may be low.
    let above = spawn.descriptors.iter().map(|(_, target)| target.saturating_add(1)).max().unwrap_or(0);
    let mut moved = Vec::with_capacity(spawn.descriptors.len());
    for (source, target) in &spawn.descriptors {
        if !(0..TARGET_MAX).contains(target) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        moved.push((rustix::io::fcntl_dupfd_cloexec(source, above)?, *target));
    }

    let mut actions = FileActions::new()?;
    for (source, target) in &moved {
        actions.duplicate(source.as_fd(), *target)?;
    }
    let attributes = Attributes::new(spawn.standing)?;
    let mut pid: libc::pid_t = 0;
    // SAFETY: `program` and every `argv` entry are NUL-terminated strings that live until the end of this function,
    // `argv` ends with a null pointer; `actions` and `attributes` were initialised; `environ` is the process's own, and
    // no thread changes it (nothing in Beltway calls `set_var`); `pid` is writable.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            argv.as_ptr(),
            environ,
        )
    };
    check(error)?;
    // The child is ours and not reaped: its number is still its own.
    Pidfd::open(pid.unsigned_abs())
}

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> io::Result<Self> {
        let mut actions = std::mem::MaybeUninit::uninit();
        // SAFETY: `actions` is writable memory of the right type, which the call initialises.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: the call above succeeded, so it is initialised.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn duplicate(&mut self, source: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
        // SAFETY: the actions are initialised; both numbers are plain values that are used in the child only.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, source.as_raw_fd(), target) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed here once.
        let _ = unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new(standing: Standing) -> io::Result<Self> {
        let mut attributes = std::mem::MaybeUninit::uninit();
        // SAFETY: `attributes` is writable memory of the right type, which the call initialises.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: the call above succeeded, so it is initialised.
        let mut this = Self(unsafe { attributes.assume_init() });
        let standing_flag = match standing {
            Standing::OwnGroup => libc::POSIX_SPAWN_SETPGROUP,
            Standing::OwnSession => libc::c_int::from(libc::POSIX_SPAWN_SETSID),
        };
        let flags = standing_flag | libc::POSIX_SPAWN_SETSIGMASK;
        let flags = libc::c_short::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the attributes are initialised.
        check(unsafe { libc::posix_spawnattr_setflags(&raw mut this.0, flags) })?;
        let mut none = std::mem::MaybeUninit::uninit();
        // SAFETY: `none` is writable memory of the right type, which the call initialises; it cannot fail.
        let _ = unsafe { libc::sigemptyset(none.as_mut_ptr()) };
        // SAFETY: the attributes and the set are initialised, and the set is copied.
        check(unsafe { libc::posix_spawnattr_setsigmask(&raw mut this.0, none.as_ptr()) })?;
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed here once.
        let _ = unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

/// Takes over a descriptor that the parent promised on the command line. It is close-on-exec from now on.
///
/// # Errors
/// `EBADF` when no such descriptor is open; `AlreadyExists` when it was taken over before or is a standard one.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: std::sync::Mutex<Vec<RawFd>> = std::sync::Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if number <= libc::STDERR_FILENO || taken.contains(&number) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // SAFETY: fcntl(2) with F_GETFD takes any number and only reads; a closed one is EBADF.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags == -1 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        // We opened it ourselves: what is inherited came through exec.
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    taken.push(number);
    // SAFETY: it is open; it came through exec, so no object of this program owns it; and the list above sees to it
    // that it is handed out once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Gives the calling thread its name; on the main thread this is the name of the process in `ps` and
/// `/proc/PID/comm`. At most 15 bytes count.
///
/// # Errors
/// What `prctl(2)` says; `EINVAL` for a NUL within.
pub fn set_name(name: &str) -> io::Result<()> {
    Ok(rustix::thread::set_name(&CString::new(name)?)?)
}

/// Makes orphans among our descendants our children, so that we learn how they end.
///
/// # Errors
/// What `prctl(2)` says.
pub fn become_subreaper() -> io::Result<()> {
    // Any pid but 0 switches it on.
    Ok(rustix::process::set_child_subreaper(Pid::from_raw(1))?)
}

/// What `/proc` says about a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessStat {
    /// The letter of its main thread's state: R, S, D, T (stopped), t (traced), Z, X.
    pub state: char,
    /// Processor time of all its threads, in clock ticks.
    pub cpu_ticks: u64,
    /// When it was started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// How long it has lived; `None` without `/proc`.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        // Ticks of some weeks are far below 2^52.
        #[expect(clippy::cast_precision_loss, reason = "clock ticks are far below 2^52")]
        let started = self.start_ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Duration::try_from_secs_f64((uptime - started).max(0.0)).ok()
    }
}

/// Reads `/proc/PID/stat`; `None` when there is no such process or `/proc` is not there.
#[must_use]
pub fn stat(pid: u32) -> Option<ProcessStat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

pub(crate) fn parse_stat(text: &str) -> Option<ProcessStat> {
    // The name in parentheses may itself hold blanks and parentheses: what counts comes after the last one.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let start_ticks: u64 = fields.nth(6)?.parse().ok()?;
    Some(ProcessStat { state, cpu_ticks: user.saturating_add(system), start_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn wait_dead(pidfd: &Pidfd) {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        let bound = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&bound)).unwrap(), 1, "the child ends within the bound");
    }

    fn reap(pid: u32) -> Exit {
        // `reap_any` would take the children of tests that run beside this one.
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let status = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).unwrap().unwrap();
        exit_of(&status).unwrap()
    }

    #[test]
    fn a_child_gets_its_descriptors_under_the_numbers_it_was_promised() {
        let (mut from_child, to_parent) = std::io::pipe().unwrap();
        let (_unused, other) = std::io::pipe().unwrap();
        // Targets that are the very numbers of the other's source.
        let (a, b) = (to_parent.as_raw_fd(), other.as_raw_fd());
        let script = format!("echo hello >&{b}; exit 7");
        let child = spawn(&Spawn {
            program: OsStr::new("/bin/sh"),
            arguments: vec![OsStr::new("traffic_test"), OsStr::new("-c"), OsStr::new(&script)],
            descriptors: vec![(to_parent.as_fd(), b), (other.as_fd(), a)],
            standing: Standing::OwnGroup,
        })
        .unwrap();
        drop(to_parent);
        let mut text = String::new();
        from_child.read_to_string(&mut text).unwrap();
        wait_dead(&child);
        assert!(child.is_dead());
        assert_eq!(text, "hello\n");
        assert_eq!(reap(child.pid()), Exit::Code(7));
    }

    #[test]
    fn a_signal_goes_to_the_process_that_was_opened_and_its_name_is_told() {
        let child = spawn(&Spawn {
            program: OsStr::new("/bin/sleep"),
            arguments: vec![OsStr::new("sleep"), OsStr::new("30")],
            descriptors: vec![],
            standing: Standing::OwnSession,
        })
        .unwrap();
        assert!(!child.is_dead());
        child.signal(Signal::TERM).unwrap();
        wait_dead(&child);
        let exit = reap(child.pid());
        assert_eq!(exit, Exit::Signal { number: libc::SIGTERM, core: false });
        assert_eq!(exit.to_string(), "ended by SIGTERM (15)");
        assert_eq!(child.signal(Signal::TERM).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_at_once() {
        let error = spawn(&Spawn {
            program: OsStr::new("/nonexistent/beltway"),
            arguments: vec![OsStr::new("x")],
            descriptors: vec![],
            standing: Standing::OwnGroup,
        })
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_state_of_a_process_is_read_past_a_name_with_parentheses() {
        let line = "42 (a) S (b) T 1 42 42 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 5 6";
        assert_eq!(parse_stat(line), Some(ProcessStat { state: 'T', cpu_ticks: 42, start_ticks: 5 }));
        assert_eq!(parse_stat("garbage"), None);
        let age = stat(std::process::id()).unwrap().age().unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
    }
}
