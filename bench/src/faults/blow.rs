//! One misfortune under load: what is done to the processes, and what the clients saw until all was well again.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use base::{Clock, Instant, Rng, SystemClock};
use rustix::process::Signal;

use crate::error::{Doing, Outcome, Trouble};
use crate::lab;
use crate::load::paced::{Log, Paced};

use super::event::{Event, Wedge};
use super::judge;
use super::report::Repetition;
use super::tree::{self, Census, Role, Tree};

/// Load before each blow, with nothing failing.
const CALM: Duration = Duration::from_millis(300);
/// Load after all are back, so that late failures are seen too.
const AFTERMATH: Duration = Duration::from_millis(300);
/// How long the processes may take to come back.
pub(super) const RETURN_PATIENCE: Duration = Duration::from_secs(30);
/// A stopped process that nobody has replaced by then is woken.
const ASLEEP_MAX: Duration = Duration::from_secs(10);
/// How long the request for a wedge may take to be sent.
const WEDGE_PATIENCE: Duration = Duration::from_secs(2);

/// The moments of one blow.
struct Struck {
    begun: Instant,
    /// From here on nobody can be connected to who was hit.
    done: Instant,
    /// Who was hit, for whose successors is waited.
    roles: Vec<Role>,
}

/// One repetition of an event that is no planned change.
pub(super) fn strike(
    event: &Event,
    tree: &mut Tree<'_>,
    clients: &Paced,
    page: u16,
    chance: &mut Rng,
) -> Outcome<Repetition> {
    let clock = SystemClock;
    let victims = tree.wait_until_whole(RETURN_PATIENCE)?;
    std::thread::sleep(CALM);
    let before = clients.seen();
    clients.begin_anew(clock.now());
    if before.answers == 0 {
        return Err(Trouble::Wrong("there were no answers even before the blow".to_owned()));
    }
    let serving = tree.serving_pid(&victims)?;
    let pid_of = |role: Role| if role == Role::Server { Ok(serving) } else { victims.pid_of(role) };
    let begun = clock.now();
    let struck = match event {
        Event::Kill(roles) => kill(roles, pid_of, begun, clients)?,
        Event::Random => {
            let both = [Role::Manager, Role::Cop];
            let roles = match chance.below(3) {
                0 => &both[..1],
                1 => &both[1..],
                _ => &both[..],
            };
            kill(roles, pid_of, begun, clients)?
        }
        Event::Stub => {
            tree::send(tree.top()?, Signal::KILL)?;
            clients.count_as_new_from(clock.now());
            tree.start_top()?;
            Struck { begun, done: clock.now(), roles: Vec::new() }
        }
        Event::Stop(role) => {
            tree::send(pid_of(*role)?, Signal::STOP)?;
            clients.count_as_new_from(clock.now());
            let done = if *role == Role::Server { await_end(serving)? } else { clock.now() };
            Struck { begun, done, roles: vec![*role] }
        }
        Event::Wedge(wedge) => {
            wedge_thread(page, *wedge)?;
            clients.count_as_new_from(clock.now());
            Struck { begun, done: await_end(serving)?, roles: vec![Role::Server] }
        }
        Event::Planned(_) | Event::Hardship(_) => return Err(Trouble::Wrong("that is no blow".to_owned())),
    };
    let answered = first_new_answer(clients)?;
    let back = await_back(event, tree, &victims, &struck)?;
    std::thread::sleep(AFTERMATH);
    let mut repetition = measured(&clients.seen(), &struck, event.takes_server(), answered, back);
    if let Event::Wedge(_) = event {
        repetition.complaint = obituary_complaint(tree, serving);
    }
    Ok(repetition)
}

fn kill(roles: &[Role], pid_of: impl Fn(Role) -> Outcome<u32>, begun: Instant, clients: &Paced) -> Outcome<Struck> {
    let pids: Outcome<Vec<u32>> = roles.iter().map(|&role| pid_of(role)).collect();
    for pid in pids? {
        tree::send(pid, Signal::KILL)?;
    }
    // A connection made before the last signal was sent may belong to the dead.
    let done = SystemClock.now();
    clients.count_as_new_from(done);
    Ok(Struck { begun, done, roles: roles.to_vec() })
}

fn first_new_answer(clients: &Paced) -> Outcome<Instant> {
    let mut answered = None;
    lab::wait_until("the first answer on a new connection", RETURN_PATIENCE, || {
        answered = clients.seen().first_new_answer;
        answered.is_some()
    })?;
    answered.ok_or_else(|| Trouble::Wrong("no answer on a new connection".to_owned()))
}

/// Until all is as it was, with others in the place of those who were hit.
fn await_back(event: &Event, tree: &Tree<'_>, victims: &Census, struck: &Struck) -> Outcome<Instant> {
    let Event::Stop(role) = event else {
        return tree.wait_until_replaced(victims, &struck.roles, RETURN_PATIENCE);
    };
    match tree.wait_until_replaced(victims, &struck.roles, ASLEEP_MAX) {
        Err(Trouble::Late(..)) if *role != Role::Server => {
            // Nobody has to replace who only watches; it goes on where it was.
            tree::send(victims.pid_of(*role)?, Signal::CONT)?;
            tree.wait_until_replaced(victims, &[], RETURN_PATIENCE)
        }
        other => other,
    }
}

fn await_end(pid: u32) -> Outcome<Instant> {
    lab::wait_until("the end of a server that hangs", RETURN_PATIENCE, || tree::has_ended(pid))?;
    Ok(SystemClock.now())
}

/// Has one event thread hang; which one, chance decides, as it accepts.
fn wedge_thread(page: u16, wedge: Wedge) -> Outcome<()> {
    let path = match wedge {
        Wedge::Spin => "/fault/spin",
        Wedge::Block => "/fault/block",
    };
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, page);
    let mut stream = TcpStream::connect_timeout(&address.into(), WEDGE_PATIENCE).doing("the server's own page")?;
    stream.set_write_timeout(Some(WEDGE_PATIENCE)).doing("the server's own page")?;
    write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").doing("asking for a wedge")
    // Its answer never comes.
}

/// What is missing in the obituary of a server that hung: its thread, and the continuation that ran.
fn obituary_complaint(tree: &Tree<'_>, pid: u32) -> Option<String> {
    let text = match tree.ask(&["ctl", "server", "obituaries", "--json"]) {
        Ok(text) => text,
        Err(trouble) => return Some(trouble.to_string()),
    };
    let deaths: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap_or_default();
    let Some(death) = deaths.iter().find(|death| death["pid"] == pid) else {
        return Some("there is no obituary".to_owned());
    };
    let cause = death["cause"].as_str().unwrap_or_default();
    let threads = death["threads"].as_array().map(Vec::as_slice).unwrap_or_default();
    let says = |thread: &serde_json::Value, what: &str| thread[what].as_str().is_some_and(|text| !text.is_empty());
    let named = threads.iter().any(|thread| says(thread, "name") && says(thread, "running"));
    (!cause.starts_with("hang") || !named).then(|| format!("the obituary says only: {cause:?}"))
}

fn measured(seen: &Log, struck: &Struck, server_died: bool, answered: Instant, back: Instant) -> Repetition {
    Repetition {
        toll: judge::judge(&seen.failures, struck.begun, struck.done, server_died),
        first_new_answer_ms: millis(answered - struck.begun),
        longest_gap_ms: millis(seen.longest_gap),
        own_stall_ms: millis(seen.longest_stall),
        back_ms: millis(back - struck.begun),
        answers: seen.answers,
        complaint: None,
    }
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
