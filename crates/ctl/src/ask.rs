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
/// How long a manager or a server that is just being respawned is waited for.
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
    /// The server that serves did not answer.
    #[error("server: {0}")]
    Server(#[source] ControlError),
    /// It could not be done, or not in time.
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
/// [`CtlError::NotRunning`]; [`CtlError::Unfinished`] when no server serves, or it refuses.
pub fn cache(directory: &RuntimeDir, question: CacheQuestion) -> Result<CacheReply, CtlError> {
    match ask_server(directory, Request::Cache(question), RESPAWN_WITHIN)? {
        Reply::Cache(reply) => Ok(*reply),
        Reply::Refused(why) => Err(CtlError::Unfinished(why)),
        _ => Err(CtlError::Unfinished("the server does not know that question".to_owned())),
    }
}

/// Asks the server that serves of its pools.
///
/// # Errors
/// [`CtlError::NotRunning`]; [`CtlError::Unfinished`] when no server serves, or it refuses.
pub fn kv(directory: &RuntimeDir) -> Result<KvReport, CtlError> {
    let mut report = kv_part(directory, KvQuestion::Report)?;
    for _ in 0..KV_PARTS_MAX {
        let Some(number) = report.more else { return Ok(report) };
        report.append(kv_part(directory, KvQuestion::More(number))?);
    }
    Err(CtlError::Unfinished(format!("the report has more than {KV_PARTS_MAX} parts")))
}

fn kv_part(directory: &RuntimeDir, question: KvQuestion) -> Result<KvReport, CtlError> {
    match ask_server(directory, Request::Kv(question), RESPAWN_WITHIN)? {
        Reply::Kv(report) => Ok(*report),
        Reply::Refused(why) => Err(CtlError::Unfinished(why)),
        _ => Err(CtlError::Unfinished("the server does not know that question".to_owned())),
    }
}

/// Takes a server of a pool out of its ring until it is restored, or takes it back. `pool` is wanted where several have
/// such a server. Manager remembers it; a server that has none does so itself.
///
/// # Errors
/// [`CtlError::NotRunning`]; [`CtlError::Unfinished`] when there is no such server, or it is not in force yet, or it is not
/// known what became of it.
pub fn hold(directory: &RuntimeDir, pool: Option<String>, server: String, out: bool) -> Result<(), CtlError> {
    let request = Request::Kv(KvQuestion::Hold { pool, server, out });
    let has_manager = || lease::holder(&directory.manager_lease()).map(|holder| holder != Holder::Nobody);
    let reply = match ask_until_answered(directory, &request, RESPAWN_WITHIN) {
        // A manager would undo what is done past it.
        Err(CtlError::Manager(ControlError::Absent(..))) if !has_manager()? => {
            let reply = ask_server(directory, request.clone(), RESPAWN_WITHIN)?;
            // One that has come meanwhile may have read what is remembered before the server wrote it.
            if has_manager()? { ask_until_answered(directory, &request, RESPAWN_WITHIN) } else { Ok(reply) }
        }
        other => other,
    };
    match reply {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Refused(why)) | Err(CtlError::Manager(ControlError::Refused(why))) => Err(CtlError::Unfinished(why)),
        Ok(other) => Err(ControlError::Malformed(format!("{other:?}")).into()),
        Err(CtlError::Manager(error)) => Err(CtlError::Unfinished(format!(
            "manager: {error}: whether it is done is not known; `ctl kv servers` tells"
        ))),
        Err(error) => Err(error),
    }
}

/// Asks manager, and the one that comes after it when it dies over the question; again at most for `bound`. What is asked
/// twice does no more than what is asked once.
fn ask_until_answered(directory: &RuntimeDir, request: &Request, bound: Duration) -> Result<Reply, CtlError> {
    let mut deadline = None;
    loop {
        let reply = ask_running(directory, request, ANSWER_WITHIN);
        if !matches!(reply, Err(CtlError::Manager(ControlError::Closed | ControlError::Io(_)))) {
            return reply;
        }
        let now = SystemClock.now();
        if now >= *deadline.get_or_insert(now + bound) {
            return reply;
        }
        wait::readable(&[], TRY_INTERVAL)?;
    }
}

/// Asks the server that serves, past manager; waits for one that just takes the place of another, at most `bound`. What is
/// asked twice does no more than what is asked once.
fn ask_server(directory: &RuntimeDir, request: Request, bound: Duration) -> Result<Reply, CtlError> {
    let deadline = SystemClock.now() + bound;
    loop {
        let why = match serving(directory)? {
            Ok(generation) => {
                let server = Connection::open(&directory.server_socket(generation));
                match server.and_then(|server| server.ask(request.clone(), ANSWER_WITHIN)) {
                    Ok((reply, _)) => return Ok(reply),
                    Err(ControlError::Refused(why)) => return Err(CtlError::Unfinished(why)),
                    // It died, and nobody has noticed yet.
                    Err(error @ (ControlError::Absent(..) | ControlError::Closed | ControlError::Io(_))) => {
                        error.to_string()
                    }
                    Err(error) => return Err(CtlError::Server(error)),
                }
            }
            Err(why) => why,
        };
        if SystemClock.now() >= deadline {
            return Err(CtlError::Unfinished(format!("no server serves yet: {why}")));
        }
        wait::readable(&[], TRY_INTERVAL)?;
    }
}

/// The generation of the server that serves, or in words why there is none.
fn serving(directory: &RuntimeDir) -> Result<Result<u64, String>, CtlError> {
    match ask_running(directory, &Request::Status, ANSWER_WITHIN) {
        Ok(Reply::Status(status)) => {
            let ready = status.servers.iter().rev().find(|server| server.state == ServerState::Ready);
            Ok(ready.map(|server| server.generation).ok_or_else(|| in_words(&status)))
        }
        // One that was started by itself has no manager.
        Ok(_) | Err(CtlError::Manager(_)) => {
            for generation in directory.server_generations()?.into_iter().rev() {
                if lease::holder(&directory.server_lease(generation))? != Holder::Nobody {
                    return Ok(Ok(generation));
                }
            }
            Ok(Err("none lives".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// What the servers do, none of which serves.
fn in_words(status: &Status) -> String {
    let each = status
        .servers
        .iter()
        .map(|server| format!("that of generation {} is {}", server.generation, server.state.as_str()));
    let each: Vec<String> = each.collect();
    if each.is_empty() { "none lives".to_owned() } else { each.join(", ") }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use supervise::control::Endpoint;
    use supervise::status::ServerStatus;

    /// Both answer all that they are asked until the test ends: manager one status after the other, the last again and
    /// again; the server of `generation` that it is done.
    fn with_tree<T>(
        name: &str,
        told: &[&[(u64, ServerState)]],
        generation: u64,
        test: impl FnOnce(&RuntimeDir) -> T,
    ) -> T {
        let home = std::env::temp_dir().join(format!("beltway-ctl-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        let mut manager = Endpoint::bind(&directory.manager_socket()).unwrap();
        let mut server = Endpoint::bind(&directory.server_socket(generation)).unwrap();
        let mut told = told.iter().map(|servers| {
            let server = |&(generation, state): &_| ServerStatus { generation, state, ..ServerStatus::default() };
            Box::new(Status { servers: servers.iter().map(server).collect(), ..Status::default() })
        });
        let mut last = told.next().unwrap();
        let is_over = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    for question in manager.questions() {
                        manager.answer(&question, Reply::Status(last.clone()), &[]);
                        last = told.next().unwrap_or(last.clone());
                    }
                    for question in server.questions() {
                        server.answer(&question, Reply::Done, &[]);
                    }
                    let waited = manager.descriptors().chain(server.descriptors()).collect::<Vec<_>>();
                    wait::readable(&waited, TRY_INTERVAL).unwrap();
                }
            });
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&directory)));
            is_over.store(true, Ordering::Relaxed);
            result
        });
        let _ = std::fs::remove_dir_all(&home);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    const QUESTION: Request = Request::Kv(KvQuestion::Report);
    /// What becomes true is waited for, however busy the machine is; that something does not is soon believed.
    const PATIENCE: Duration = Duration::from_secs(60);
    const SOON: Duration = Duration::from_millis(200);

    #[test]
    fn a_server_that_takes_the_place_of_a_dead_one_is_waited_for() {
        use ServerState::{Ready, Starting};
        // Its death is not noticed, then it is, then there is another.
        let told: &[&[_]] = &[&[(1, Ready)], &[(1, Ready)], &[], &[(2, Starting)], &[(2, Ready)]];
        let reply = with_tree("respawn", told, 2, |directory| ask_server(directory, QUESTION, PATIENCE));
        assert_eq!(reply.unwrap(), Reply::Done);
    }

    #[test]
    fn who_has_no_server_yet_is_said_to_run_all_the_same() {
        let told: &[&[_]] = &[&[(1, ServerState::Draining), (2, ServerState::Starting)]];
        let error = with_tree("starting", told, 2, |directory| ask_server(directory, QUESTION, SOON)).unwrap_err();
        let text = "no server serves yet: that of generation 1 is draining, that of generation 2 is starting";
        assert!(matches!(&error, CtlError::Unfinished(why) if why == text), "{error}");
        let dead = |directory: &RuntimeDir| ask_server(directory, QUESTION, SOON);
        let error = with_tree("dead", &[&[(1, ServerState::Ready)]], 2, dead).unwrap_err();
        assert!(matches!(&error, CtlError::Unfinished(why) if why.contains("server.1.sock")), "{error}");
    }

    #[test]
    fn where_nobody_lives_nothing_runs_whatever_they_left() {
        let home = std::env::temp_dir().join(format!("beltway-ctl-nobody-{}", std::process::id()));
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        std::fs::write(directory.server_lease(3), "1\n").unwrap();
        let error = ask_server(&directory, QUESTION, SOON).unwrap_err();
        std::fs::remove_dir_all(&home).unwrap();
        assert!(matches!(error, CtlError::NotRunning(_)), "{error}");
    }

    #[test]
    fn when_manager_dies_over_an_eject_the_next_one_is_asked_and_no_server_past_it() {
        let home = std::env::temp_dir().join(format!("beltway-ctl-hold-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&home);
        let directory = RuntimeDir::new(&home);
        directory.create().unwrap();
        let lease = lease::Lease::take(&directory.manager_lease()).unwrap();
        let mut manager = Endpoint::bind(&directory.manager_socket()).unwrap();
        let mut server = Endpoint::bind(&directory.server_socket(1)).unwrap();
        let done = std::thread::scope(|scope| {
            let asking = scope.spawn(|| hold(&directory, None, "s".to_owned(), true));
            let mut asked = 0;
            while !asking.is_finished() {
                for question in manager.questions() {
                    assert!(matches!(question.request, Request::Kv(KvQuestion::Hold { .. })));
                    asked += 1;
                    if asked == 1 {
                        manager = Endpoint::bind(&directory.manager_socket()).unwrap();
                    } else {
                        manager.answer(&question, Reply::Done, &[]);
                    }
                }
                assert!(server.questions().is_empty());
                let waited = manager.descriptors().chain(server.descriptors()).collect::<Vec<_>>();
                wait::readable(&waited, TRY_INTERVAL).unwrap();
            }
            assert_eq!(asked, 2);
            asking.join().unwrap()
        });
        drop(lease);
        std::fs::remove_dir_all(&home).unwrap();
        done.unwrap();
    }
}
