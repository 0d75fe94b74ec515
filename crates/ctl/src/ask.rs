//! Questions to the running processes.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use base::{Clock, SystemClock};
use serde::Serialize;
use supervise::cache::{CacheQuestion, CacheReply};
use supervise::change::{Proposal, Step, Verdict};
use supervise::control::{Connection, ControlError, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::kv::{KvQuestion, KvReport};
use supervise::lease::{self, Holder};
use supervise::log::Level;
use supervise::memory::{self, Memory};
use supervise::role::Role;
use supervise::status::{ServerState, Status};
use supervise::stop::{self, Stopped};
use supervise::wait;
use sys::process::Signal;

/// How long manager may take for an answer, however busy the machine is.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How long a manager that is just being respawned is waited for.
const RESPAWN_WITHIN: Duration = Duration::from_secs(1);
/// Between two tries meanwhile.
const TRY_INTERVAL: Duration = Duration::from_millis(20);

/// Parts of a report of the pools: of a hundred servers each, and as many as a pool may have.
const KV_PARTS_MAX: usize = 1_024;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Nobody runs here.
    #[error("not running: nobody holds a lease in {0}")]
    NotRunning(String),
    /// The processes or their files cannot be reached.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Manager did not answer.
    #[error("manager: {0}")]
    Manager(#[from] ControlError),
    /// The stop is not complete.
    #[error("{0}")]
    Unfinished(String),
}

/// What is known of the tree.
#[derive(Debug)]
pub enum Known {
    /// Manager's own account.
    Whole(Box<Status>),
    /// Manager does not answer; who lives, by their leases.
    Census(Census),
}

/// Who lives, by their leases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Why there is no more.
    pub manager_silent_because: String,
    /// Names and pids, the topmost first.
    pub alive: Vec<(String, Option<u32>)>,
}

/// The tree in `directory`.
///
/// # Errors
/// [`CtlError::NotRunning`], or the leases cannot be read.
pub fn status(directory: &RuntimeDir) -> Result<Known, CtlError> {
    let deadline = SystemClock.now() + RESPAWN_WITHIN;
    loop {
        let error = match ask(directory, Request::Status) {
            Ok(Reply::Status(status)) => return Ok(Known::Whole(status)),
            Ok(other) => ControlError::Malformed(format!("{other:?}")),
            Err(error) => error,
        };
        let alive = alive(directory)?;
        if alive.is_empty() {
            return Err(CtlError::NotRunning(directory.path().display().to_string()));
        }
        // Servers by themselves have no manager; in a tree a manager that is gone comes back.
        let coming = alive.iter().any(|(name, _)| name != Role::Server.name());
        if !coming || SystemClock.now() >= deadline {
            return Ok(Known::Census(Census { manager_silent_because: error.to_string(), alive }));
        }
        wait::readable(&[], TRY_INTERVAL)?;
    }
}

/// Makes every process of the tree close and open its log files.
///
/// # Errors
/// [`CtlError::NotRunning`], or manager does not answer.
pub fn reopen_logs(directory: &RuntimeDir) -> Result<(), CtlError> {
    ask_running(directory, &Request::ReopenLogs, ANSWER_WITHIN).map(|_| ())
}

/// Stops everything in `directory`, orderly, and waits for it, at most `bound`.
///
/// # Errors
/// [`CtlError::NotRunning`]; [`CtlError::Unfinished`] when somebody had to be killed or still lives.
pub fn stop(directory: &RuntimeDir, bound: Duration) -> Result<(), CtlError> {
    let deadline = SystemClock.now() + bound;
    let lease = directory.stub_lease();
    let stub = lease::process(&lease)?;
    if let Some(stub) = &stub {
        lease::signal(&lease, stub, Signal::TERM)?;
        while !stub.is_dead() {
            let left = deadline.since(SystemClock.now());
            if left.is_zero() {
                let pid = stub.pid();
                return Err(CtlError::Unfinished(format!("process {pid} was told to stop and still runs")));
            }
            wait::readable(&[stub.as_fd()], left)?;
        }
    }
    // Without a stub, or when it died before it was done: everybody else.
    match stop::stop_from(directory, Role::Cop, deadline, None, || false)? {
        Stopped::NotRunning if stub.is_none() => {
            return Err(CtlError::NotRunning(directory.path().display().to_string()));
        }
        Stopped::NotRunning | Stopped::Orderly => {}
        Stopped::Killed => return Err(CtlError::Unfinished("not everybody went when asked: killed".to_owned())),
        Stopped::StillThere => {
            return Err(CtlError::Unfinished("the kernel does not let go of a process".to_owned()));
        }
    }
    Ok(())
}

/// Has a configuration judged or put in force, and waits for the verdict, at most `bound`.
///
/// # Errors
/// [`CtlError::NotRunning`]; manager does not answer, so that the outcome is not known.
pub fn change(directory: &RuntimeDir, proposal: Proposal, step: Step, bound: Duration) -> Result<Verdict, CtlError> {
    match ask_running(directory, &Request::Change { proposal, step }, bound)? {
        Reply::Verdict(verdict) => Ok(*verdict),
        other => Err(ControlError::Malformed(format!("{other:?}")).into()),
    }
}

/// The numbers whose names contain `pattern`, with their values.
///
/// # Errors
/// [`CtlError::NotRunning`], or manager does not answer.
pub fn numbers(directory: &RuntimeDir, pattern: &str) -> Result<Vec<(String, String)>, CtlError> {
    match ask_running(directory, &Request::Numbers(pattern.to_owned()), ANSWER_WITHIN)? {
        Reply::Numbers(numbers) => Ok(numbers),
        other => Err(ControlError::Malformed(format!("{other:?}")).into()),
    }
}

/// Sets how much the logs of all processes tell, until the next reload.
///
/// # Errors
/// [`CtlError::NotRunning`], or somebody does not answer.
pub fn set_log_level(directory: &RuntimeDir, level: Level) -> Result<(), CtlError> {
    ask_running(directory, &Request::LogLevel(level), ANSWER_WITHIN).map(|_| ())
}

/// Where the memory of the tree is; `exact` also divides what processes share among them, which costs the server some
/// milliseconds.
///
/// # Errors
/// [`CtlError::NotRunning`], or manager does not answer.
pub fn memory(directory: &RuntimeDir, exact: bool) -> Result<Memory, CtlError> {
    let status = match ask_running(directory, &Request::Status, ANSWER_WITHIN)? {
        Reply::Status(status) => status,
        other => return Err(ControlError::Malformed(format!("{other:?}")).into()),
    };
    let mut counted = Vec::new();
    for pattern in memory::NUMBERS {
        counted.extend(numbers(directory, pattern)?);
    }
    Ok(memory::account(&status, &counted, exact))
}

/// Says whether a balancer is to be told that this machine goes: readiness fails from now on, and everything goes on.
///
/// # Errors
/// [`CtlError::NotRunning`], or somebody does not answer.
pub fn drain(directory: &RuntimeDir, wanted: bool) -> Result<(), CtlError> {
    ask_running(directory, &Request::Drain(wanted), ANSWER_WITHIN).map(|_| ())
}

/// Asks the server that serves of its cache.
///
/// # Errors
/// [`CtlError::NotRunning`], also when no server serves; [`CtlError::Unfinished`] when it refuses.
pub fn cache(directory: &RuntimeDir, question: CacheQuestion) -> Result<CacheReply, CtlError> {
    match ask_server(directory, Request::Cache(question))? {
        Reply::Cache(reply) => Ok(*reply),
        Reply::Refused(why) => Err(CtlError::Unfinished(why)),
        _ => Err(CtlError::Unfinished("the server does not know that question".to_owned())),
    }
}

/// Asks the server that serves of its pools.
///
/// # Errors
/// [`CtlError::NotRunning`], also when no server serves; [`CtlError::Unfinished`] when it refuses.
pub fn kv(directory: &RuntimeDir) -> Result<KvReport, CtlError> {
    let mut report = kv_part(directory, KvQuestion::Report)?;
    for _ in 0..KV_PARTS_MAX {
        let Some(number) = report.more else { return Ok(report) };
        report.append(kv_part(directory, KvQuestion::More(number))?);
    }
    Err(CtlError::Unfinished(format!("the report has more than {KV_PARTS_MAX} parts")))
}

fn kv_part(directory: &RuntimeDir, question: KvQuestion) -> Result<KvReport, CtlError> {
    match ask_server(directory, Request::Kv(question))? {
        Reply::Kv(report) => Ok(*report),
        Reply::Refused(why) => Err(CtlError::Unfinished(why)),
        _ => Err(CtlError::Unfinished("the server does not know that question".to_owned())),
    }
}

/// Takes a server of a pool out of its ring until it is restored, or takes it back. `pool` is wanted where several have
/// such a server. Manager remembers it; a server that has none does so itself.
///
/// # Errors
/// [`CtlError::NotRunning`]; [`CtlError::Unfinished`] when there is no such server, or it is not in force yet.
pub fn hold(directory: &RuntimeDir, pool: Option<String>, server: String, out: bool) -> Result<(), CtlError> {
    let request = Request::Kv(KvQuestion::Hold { pool, server, out });
    let reply = match ask_running(directory, &request, ANSWER_WITHIN) {
        Err(CtlError::NotRunning(_) | CtlError::Manager(_)) => ask_server(directory, request)?,
        other => other?,
    };
    match reply {
        Reply::Done => Ok(()),
        Reply::Refused(why) => Err(CtlError::Unfinished(why)),
        other => Err(ControlError::Malformed(format!("{other:?}")).into()),
    }
}

/// Asks the server that serves, past manager.
fn ask_server(directory: &RuntimeDir, request: Request) -> Result<Reply, CtlError> {
    let generation = match ask_running(directory, &Request::Status, ANSWER_WITHIN) {
        Ok(Reply::Status(status)) => {
            status.servers.iter().rev().find(|s| s.state == ServerState::Ready).map(|server| server.generation)
        }
        Ok(_) => None,
        // One that was started by itself has no manager.
        Err(CtlError::NotRunning(_) | CtlError::Manager(_)) => directory.server_generations()?.into_iter().next_back(),
        Err(error) => return Err(error),
    };
    let Some(generation) = generation else {
        return Err(CtlError::NotRunning(directory.path().display().to_string()));
    };
    let server = Connection::open(&directory.server_socket(generation))?;
    Ok(server.ask(request, ANSWER_WITHIN)?.0)
}

/// Says whether a server is to run, and waits until one serves, or none lives, at most `bound`.
///
/// # Errors
/// [`CtlError::NotRunning`]; [`CtlError::Unfinished`] when it did not come to that in time.
pub fn serve(directory: &RuntimeDir, wanted: bool, bound: Duration) -> Result<(), CtlError> {
    ask_running(directory, &Request::Serve(wanted), ANSWER_WITHIN)?;
    let deadline = SystemClock.now() + bound;
    loop {
        if let Ok(Reply::Status(status)) = ask(directory, Request::Status) {
            let ready = status.servers.iter().any(|server| server.state == ServerState::Ready);
            if (wanted && ready) || (!wanted && status.servers.is_empty()) {
                return Ok(());
            }
        }
        if SystemClock.now() >= deadline {
            let what = if wanted { "no server is ready" } else { "a server still drains" };
            return Err(CtlError::Unfinished(format!("{what} after {bound:?}")));
        }
        wait::readable(&[], TRY_INTERVAL)?;
    }
}

/// Asks a manager that may just be on its way back.
fn ask_running(directory: &RuntimeDir, request: &Request, bound: Duration) -> Result<Reply, CtlError> {
    let deadline = SystemClock.now() + RESPAWN_WITHIN;
    loop {
        let error = match Connection::open(&directory.manager_socket()) {
            Ok(connection) => return Ok(connection.ask(request.clone(), bound)?.0),
            Err(error) => error,
        };
        if alive(directory)?.is_empty() {
            return Err(CtlError::NotRunning(directory.path().display().to_string()));
        }
        if SystemClock.now() >= deadline {
            return Err(error.into());
        }
        wait::readable(&[], TRY_INTERVAL)?;
    }
}

fn ask(directory: &RuntimeDir, request: Request) -> Result<Reply, ControlError> {
    Ok(Connection::open(&directory.manager_socket())?.ask(request, ANSWER_WITHIN)?.0)
}

fn alive(directory: &RuntimeDir) -> io::Result<Vec<(String, Option<u32>)>> {
    let mut leases = vec![
        ("beltway".to_owned(), directory.stub_lease()),
        (Role::Cop.name().to_owned(), directory.cop_lease()),
        (Role::Manager.name().to_owned(), directory.manager_lease()),
    ];
    let servers = stop::leases(directory, Role::Server)?;
    leases.extend(servers.into_iter().map(|path| (Role::Server.name().to_owned(), path)));
    let mut alive = Vec::new();
    for (name, path) in leases {
        if let Holder::Somebody(pid) = lease::holder(&path)? {
            alive.push((name, pid));
        }
    }
    Ok(alive)
}
