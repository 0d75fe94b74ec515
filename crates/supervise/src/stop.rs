//! Orderly stop of whatever of a tree still lives: the topmost is asked, and asked again lower down when it is gone.
//!
//! The roles pass a stop on downwards themselves; this is for who stands above them (the stub) or outside (`stop` after
//! the stub died), and it converges whoever dies or is respawned meanwhile. Past the deadline, what lives is killed.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use sys::process::{Pidfd, Signal};

use crate::directory::{self, RuntimeDir};
use crate::role::Role;
use crate::{lease, wait};

/// Between two looks when nobody's end can be waited for: a lease is held and its pid not told yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Between two looks while somebody's end is waited for.
const PATIENCE_INTERVAL: Duration = Duration::from_millis(100);
/// How long after the kill the kernel may take to clear away.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Nobody was there.
    NotRunning,
    /// All went when they were asked.
    Orderly,
    /// Some had to be killed at the deadline.
    Killed,
    /// Some live even so: the kernel does not let go of them.
    StillThere,
}

/// The leases of everybody from `top` downwards, the topmost first.
///
/// # Errors
/// The directory cannot be read.
pub fn leases(directory: &RuntimeDir, top: Role) -> io::Result<Vec<PathBuf>> {
    let mut leases = match top {
        Role::Cop => vec![directory.cop_lease(), directory.manager_lease()],
        Role::Manager => vec![directory.manager_lease()],
        Role::Server => vec![],
    };
    match directory.server_generations() {
        Ok(generations) => leases.extend(generations.into_iter().map(|g| directory.server_lease(g))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(leases)
}

/// Whether any of these leases is held.
///
/// # Errors
/// One cannot be read.
pub fn any_lives(leases: &[PathBuf]) -> io::Result<bool> {
    for path in leases {
        if lease::holder(path)? != lease::Holder::Nobody {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Stops everybody from `top` downwards by `deadline`; `told` has been told already. `meanwhile` is called at each look, to reap what ended; `true`
/// means that there is no more patience: what lives is killed now.
///
/// # Errors
/// A lease cannot be read, or a process is not ours to signal.
pub fn stop_from(
    directory: &RuntimeDir,
    top: Role,
    mut deadline: Instant,
    told: Option<u32>,
    mut meanwhile: impl FnMut() -> bool,
) -> io::Result<Stopped> {
    // To be told twice means that there is no patience.
    let mut asked: HashSet<u32> = told.into_iter().collect();
    let mut outcome = Stopped::NotRunning;
    loop {
        let impatient = meanwhile();
        let now = SystemClock.now();
        if impatient {
            deadline = deadline.min(now);
        }
        let held = leases(directory, top)?;
        let mut topmost = None;
        for path in &held {
            if let Some(process) = lease::process(path)? {
                topmost = Some((path, process));
                break;
            }
        }
        let Some((path, process)) = topmost else {
            if !any_lives(&held)? {
                return Ok(outcome);
            }
            // Held, and by whom is not told yet.
            if now >= deadline + KILLED_WITHIN {
                return Ok(Stopped::StillThere);
            }
            wait::readable(&[], LOOK_INTERVAL)?;
            continue;
        };
        if now >= deadline + KILLED_WITHIN {
            return Ok(Stopped::StillThere);
        }
        if now >= deadline {
            outcome = Stopped::Killed;
            lease::signal(path, &process, Signal::KILL)?;
            wait_for(&process, LOOK_INTERVAL)?;
            continue;
        }
        if outcome == Stopped::NotRunning {
            outcome = Stopped::Orderly;
        }
        if asked.insert(process.pid()) {
            lease::signal(path, &process, Signal::TERM)?;
        }
        wait_for(&process, deadline.since(now).min(PATIENCE_INTERVAL))?;
    }
}

/// Removes what those from cop downwards left who are dead: leases, sockets, pages. Who ends in an orderly way does so
/// itself; who is killed cannot.
///
/// # Errors
/// What cannot be removed; the rest is.
pub fn clear_away(directory: &RuntimeDir) -> io::Result<()> {
    let cop = (directory.cop_lease(), [directory.cop_socket(), directory.cop_witness()]);
    let manager = (directory.manager_lease(), [directory.manager_socket(), directory.manager_witness()]);
    let server = |n| (directory.server_lease(n), [directory.server_socket(n), directory.server_witness(n)]);
    let servers = directory.server_generations()?.into_iter().map(server);
    let mut outcome = Ok(());
    for (lease, files) in [cop, manager].into_iter().chain(servers) {
        if lease::holder(&lease)? != lease::Holder::Nobody {
            continue;
        }
        for removed in files.iter().map(|file| directory::remove(file)).chain([lease::clear(&lease)]) {
            outcome = outcome.and(removed);
        }
    }
    outcome
}

fn wait_for(process: &Pidfd, bound: Duration) -> io::Result<()> {
    wait::readable(&[process.as_fd()], bound)
}
