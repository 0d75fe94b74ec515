//! Where manager's listeners come from: from whoever holds them, else they are bound.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use base::{Clock, SystemClock};
use config::Config;
use supervise::control::{Connection, ControlError, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::failure::Failure;
use supervise::lease::{self, Holder};
use supervise::listener::{self, Listener, ListenerName};
use supervise::obituary::{self, Obituary};
use supervise::role::Role;
use supervise::sign::{self, BURNED_MIN, MISSED_MIN, Sign};
use supervise::{error, info, wait, warn};
use sys::process::{Pidfd, Signal};

/// How long a process that holds listeners may take to hand over copies. On a busy machine that takes a while, and who goes
/// on without them cannot bind them either.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);
/// How long the kernel may take to clear away who is killed for what it holds.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries to reach a server that has just been started, and does not listen to us yet.
const TRY_INTERVAL: Duration = Duration::from_millis(5);

/// Every listener the configuration asks for: `ours`, kept from before this was another program; else copies of those that
/// live in a server of one of `generations` or in cop, so that no connection that waits in a queue is lost; the rest is bound.
///
/// # Errors
/// Which address cannot be listened on, and why.
pub(crate) fn gather(
    config: &Config,
    directory: &RuntimeDir,
    generations: &[u64],
    ours: Vec<Listener>,
) -> Result<Vec<Listener>, Failure> {
    let mut held = ours;
    let mut mutes = Vec::new();
    let wanted = listener::wanted(config);
    if !wanted.iter().all(|name| held.iter().any(|listener| name.is_met_by(&listener.name))) {
        for &generation in generations.iter().rev() {
            // The manager that started it may have died at once: it has the listeners, and comes to answer soon.
            let lease = directory.server_lease(generation);
            let starts = || lease::holder(&lease).is_ok_and(|holder| holder != Holder::Nobody);
            let ran = lease::process(&lease).ok().flatten().map_or(Duration::ZERO, |process| sign::ran(process.pid()));
            let copies = hand_over(&directory.server_socket(generation), "traffic_server", starts);
            if copies.is_empty()
                && let Ok(Some(process)) = lease::process(&lease)
            {
                mutes.push(Mute { generation, process, ran });
            }
            held.extend(copies);
        }
        held.extend(hand_over(&directory.cop_socket(), "traffic_cop", || false));
    }
    let mut taken = 0_usize;
    let listeners = wanted.into_iter().map(|name| {
        if let Some(listener) = take(&mut held, &name) {
            taken += 1;
            return Ok(listener);
        }
        let (kind, address) = (name.kind.as_str(), name.configured.clone());
        let bound = match Listener::bind(name.clone()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && make_way(directory, &mut mutes) => {
                Listener::bind(name)
            }
            bound => bound,
        };
        bound.map_err(|error| Failure::could_not(format_args!("cannot listen on {address} ({kind})"), error))
    });
    let listeners: Vec<_> = listeners.collect::<Result<_, _>>()?;
    if taken > 0 {
        info!("{taken} of {} listeners were handed over by the living", listeners.len());
    }
    listener::warn_of_cut_queues(&listeners);
    Ok(listeners)
}

/// Every listener that another configuration asks for: copies of those we hold, the rest bound anew.
///
/// # Errors
/// Which address cannot be listened on, and why. Nothing has changed then.
pub(crate) fn renew(config: &Config, ours: &[Listener]) -> Result<Vec<Listener>, String> {
    let mut taken = vec![false; ours.len()];
    let mut renewed = Vec::new();
    for name in listener::wanted(config) {
        let found = ours.iter().zip(&mut taken).find(|(listener, taken)| !**taken && name.is_met_by(&listener.name));
        let (kind, address) = (name.kind.as_str(), name.configured.clone());
        let failed = |error| format!("cannot listen on {address} ({kind}): {error}");
        renewed.push(match found {
            Some((ours, taken)) => {
                *taken = true;
                let fd = ours.fd.try_clone().map_err(failed)?;
                Listener { name: ours.name.clone(), fd }.renamed(name).map_err(failed)?
            }
            None => Listener::bind(name).map_err(failed)?,
        });
    }
    listener::warn_of_cut_queues(&renewed);
    Ok(renewed)
}

fn take(held: &mut Vec<Listener>, name: &ListenerName) -> Option<Listener> {
    let same = |l: &Listener| l.name.index == name.index && name.is_met_by(&l.name);
    let at = held.iter().position(same)?;
    Some(Listener { name: name.clone(), fd: held.swap_remove(at).fd })
}

/// A server that lives and has not handed over what it holds.
struct Mute {
    generation: u64,
    process: Pidfd,
    /// Processor time its main thread had been given before it was asked.
    ran: Duration,
}

/// Ends those of `mutes` that hang. Cop has never heard of them when it is new itself: nobody else would, and while they
/// have the listeners nobody can serve. `true`: one is gone.
fn make_way(directory: &RuntimeDir, mutes: &mut Vec<Mute>) -> bool {
    let mut any = false;
    for Mute { generation, process, ran } in mutes.drain(..) {
        let (pid, who) = (process.pid(), Role::Server.name());
        let task = sys::task::read(pid, pid.into());
        let had_processor = task.is_some_and(|task| task.ran.saturating_sub(ran) >= BURNED_MIN);
        let state = task.map(|task| task.state);
        let sign = Sign { silent_for: Some(HAND_OVER_WITHIN), missed_in_a_row: MISSED_MIN, state, had_processor };
        let proof = match sign.examine() {
            Ok(proof) => proof,
            Err(excuse) => {
                warn!("{who}[{pid}] does not hand over its listeners ({excuse:?}): {sign:?}; it is left alone");
                continue;
            }
        };
        error!("{who}[{pid}] hangs ({proof:?}) and holds what it does not hand over: {sign:?}; it is killed");
        let threads = obituary::threads_of(pid);
        let killed = lease::signal(&directory.server_lease(generation), &process, Signal::KILL)
            .and_then(|_| wait::readable(&[process.as_fd()], GONE_WITHIN));
        if let Err(error) = killed {
            error!("{who}[{pid}] cannot be ended: {error}");
        }
        let cause = format!("hang: {}", proof.as_str());
        let who = who.to_owned();
        obituary::write(directory, "manager", Obituary { who, pid, generation, cause, threads, ..Obituary::default() });
        any |= process.is_dead();
    }
    any
}

/// Copies of the listeners that the process behind `socket` holds; none when nobody is there, nor `starts`.
fn hand_over(socket: &std::path::Path, who: &str, starts: impl Fn() -> bool) -> Vec<Listener> {
    let ask = || {
        let (reply, fds) = Connection::open(socket)?.ask(Request::Listeners, HAND_OVER_WITHIN)?;
        match reply {
            Reply::Listeners(names) => listener::paired(names, fds).map_err(ControlError::Malformed),
            other => Err(ControlError::Malformed(format!("{other:?}"))),
        }
    };
    let until = SystemClock.now() + HAND_OVER_WITHIN;
    loop {
        match ask() {
            Ok(listeners) => return listeners,
            Err(ControlError::Absent(..))
                if SystemClock.now() < until && starts() && wait::readable(&[], TRY_INTERVAL).is_ok() => {}
            Err(ControlError::Absent(..)) => return Vec::new(),
            Err(error) => {
                warn!("{who} hands over no listeners: {error}");
                return Vec::new();
            }
        }
    }
}
