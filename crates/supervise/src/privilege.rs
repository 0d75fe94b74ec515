//! From root to the user that the configuration names, before anything is listened on, and what root can do for it first.
//!
//! The first process of a tree does it for all: those it starts are that user, too, and may bind ports below 1024, which
//! manager needs for listeners to come. The server gives up even that once it has its listeners.

use std::io;
use std::path::Path;

use config::{Config, LogFile, Threads};
use sys::privilege::Account;

use crate::directory::RuntimeDir;
use crate::failure::Failure;

/// Descriptors of a connection and its share of an origin's, of two, where another engine has its last places: what a
/// server takes beyond its reserve.
const DESCRIPTORS_OF_TWO_CONNECTIONS: u64 = 4;
/// What a server keeps from connections, for its own pages, the embedded origin and stores, and itself.
const DESCRIPTORS_RESERVED: u64 = 3_584;
/// What each of its event threads takes for itself.
const DESCRIPTORS_OF_A_THREAD: u64 = 5;
/// Files of the runtime directory that are given away; more are not ours.
const GIVEN_MAX: usize = 10_000;

/// Becomes the user that `config` names, if any.
///
/// # Errors
/// There is no such user; this process is not root; or the kernel says no, and the process must end.
pub fn become_configured_user(config: &Config, directory: &RuntimeDir, log_file: Option<&Path>) -> Result<(), Failure> {
    if sys::privilege::user() == 0
        && let Some(connections) = config.http.limits.connections
    {
        allow_descriptors(connections, config);
    }
    let Some(name) = &config.user else { return Ok(()) };
    let failed = |error: io::Error| Failure::could_not(format_args!("user: {name}"), error);
    let account = sys::privilege::account(name).map_err(failed)?;
    let Some(account) = account else {
        return Err(Failure::could_not("user", format_args!("there is no user {name}")));
    };
    if sys::privilege::user() == account.user {
        return Ok(());
    }
    if sys::privilege::user() != 0 {
        return Err(Failure::could_not(format_args!("user: {name}"), "only root can become another user"));
    }
    give(&account, directory, log_file, config).map_err(failed)?;
    sys::privilege::become_user(&account).map_err(failed)
}

/// How many descriptors a server takes that is to serve so many clients of HTTP with so many event threads, beside what
/// else `config` has it do.
#[must_use]
pub fn descriptors_for(connections: usize, config: &Config, threads: usize) -> u64 {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let threads = count(threads);
    let servers = config.kv.pools.iter().map(|pool| {
        count(pool.servers.len()).saturating_mul(u64::from(pool.server_connections)).saturating_mul(threads)
    });
    (count(connections).saturating_mul(DESCRIPTORS_OF_TWO_CONNECTIONS) / 2)
        .saturating_add(servers.fold(0, u64::saturating_add))
        .saturating_add(threads.saturating_mul(DESCRIPTORS_OF_A_THREAD))
        .saturating_add(DESCRIPTORS_RESERVED)
}

/// A limit below what is configured is said by the server, which knows what it gets.
fn allow_descriptors(connections: usize, config: &Config) {
    let threads = match config.threads {
        // A server takes no more than these.
        Threads::Auto => sys::thread::cores().len().max(1),
        Threads::Count(count) => count.get(),
    };
    let wanted = descriptors_for(connections, config, threads);
    if let Err(error) = sys::thread::allow_descriptors(wanted) {
        crate::warn!("{wanted} open files for {connections} connections are not to be had: {error}");
    }
}

/// Gives the user what it will write: the runtime directory with what an earlier run left there, and the log files.
fn give(account: &Account, directory: &RuntimeDir, log_file: Option<&Path>, config: &Config) -> io::Result<()> {
    directory.create()?;
    let mut left = GIVEN_MAX;
    give_all(account, directory.path(), &mut left)?;
    let access_log = config.http.access_log.as_ref().and_then(|log| match &log.file {
        LogFile::Path(path) => Some(path.as_path()),
        LogFile::Stderr => None,
    });
    for path in log_file.into_iter().chain(access_log) {
        // What is no file (a device, a pipe) is somebody else's.
        if !path.exists() {
            drop(sys::output::open_append(path)?);
        } else if !path.is_file() {
            continue;
        }
        sys::privilege::give(path, account)?;
    }
    Ok(())
}

/// A directory and all that is in it; links are not followed.
fn give_all(account: &Account, path: &Path, left: &mut usize) -> io::Result<()> {
    *left = left.checked_sub(1).ok_or_else(|| io::Error::other("there are too many files in the runtime directory"))?;
    sys::privilege::give(path, account)?;
    if !std::fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        give_all(account, &entry?.path(), left)?;
    }
    Ok(())
}
