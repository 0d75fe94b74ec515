//! What must kill nobody, and what cannot succeed and must leave all as it was, or come right by itself: a machine without
//! time, supervisors that slept, a server that dies at every start, a wrong file, a port that is another's.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use rustix::process::Signal;

use crate::error::{Doing, Outcome, Trouble};
use crate::lab;
use crate::load::paced::Paced;

use super::blow::{RETURN_PATIENCE, millis};
use super::event::Hardship;
use super::judge;
use super::report::Repetition;
use super::tree::{self, Census, Role, Tree};

/// Processes that want all processors there are, and for how long.
const BUSY: usize = 8;
const BUSY_FOR: Duration = Duration::from_secs(60);
/// For so long of that cop and manager are stopped.
const STOPPED_FOR: Duration = Duration::from_secs(10);
/// Generations in a row that die before they are ready.
const FAILING: u64 = 5;
/// Load after a refusal, so that late failures are seen too.
const AFTERMATH: Duration = Duration::from_millis(300);

/// One hardship under load.
pub(super) fn endure(hardship: Hardship, tree: &Tree<'_>, clients: &Paced) -> Outcome<Repetition> {
    let before = tree.wait_until_whole(RETURN_PATIENCE)?;
    let begun = SystemClock.now();
    clients.begin_anew(begun);
    let complaint = match hardship {
        Hardship::Crash => return crash(tree, clients, &before, begun),
        Hardship::Busy => busy(&before)?,
        Hardship::WrongFile => wrong_file(tree)?,
        Hardship::PortTaken => port_taken(tree)?,
    };
    let after = tree.wait_until_whole(RETURN_PATIENCE)?;
    let back = SystemClock.now();
    std::thread::sleep(AFTERMATH);
    let killed = (after != before).then(|| "somebody was killed, or replaced".to_owned());
    Ok(measured(clients, begun, begun, back, complaint.or(killed)))
}

fn measured(clients: &Paced, begun: Instant, done: Instant, back: Instant, complaint: Option<String>) -> Repetition {
    let seen = clients.seen();
    Repetition {
        toll: judge::judge(&seen.failures, begun, done, done > begun),
        first_new_answer_ms: seen.first_new_answer.map_or(f64::NAN, |at| millis(at - begun)),
        longest_gap_ms: millis(seen.longest_gap),
        own_stall_ms: millis(seen.longest_stall),
        back_ms: millis(back - begun),
        answers: seen.answers,
        complaint,
    }
}

/// Processes that burn what they get, until this is dropped.
struct Burning(Vec<Child>);

impl Burning {
    fn light(count: usize) -> Outcome<Self> {
        let mut burning = Self(Vec::new());
        for _ in 0..count {
            let mut command = Command::new("taskset");
            // On every core: this program and its children are tied to one.
            command.args(["--all-tasks", &format!("{:x}", u64::MAX), "sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null());
            burning.0.push(command.spawn().doing("a busy process")?);
        }
        Ok(burning)
    }
}

impl Drop for Burning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Processes that were stopped, until this is dropped.
struct Stopped(Vec<u32>);

impl Stopped {
    fn stop(&mut self, pid: u32) -> Outcome<()> {
        tree::send(pid, Signal::STOP)?;
        self.0.push(pid);
        Ok(())
    }

    /// Has all of them go on, whichever does not hear it; the first error.
    fn go_on(mut self) -> Outcome<()> {
        let told: Vec<_> = self.0.drain(..).map(|pid| tree::send(pid, Signal::CONT)).collect();
        told.into_iter().collect()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for &pid in &self.0 {
            // It may be gone.
            let _ = tree::send(pid, Signal::CONT);
        }
    }
}

fn busy(processes: &Census) -> Outcome<Option<String>> {
    let _burning = Burning::light(BUSY)?;
    let asleep = [processes.pid_of(Role::Cop)?, processes.pid_of(Role::Manager)?];
    std::thread::sleep((BUSY_FOR - STOPPED_FOR) / 2);
    let mut stopped = Stopped(Vec::new());
    asleep.iter().try_for_each(|&pid| stopped.stop(pid))?;
    std::thread::sleep(STOPPED_FOR);
    stopped.go_on()?;
    std::thread::sleep((BUSY_FOR - STOPPED_FOR) / 2);
    Ok(None)
}

/// What stands in the way of some generations' control sockets, until this is dropped.
struct Obstacles(Vec<PathBuf>);

impl Drop for Obstacles {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// The server dies, and so do the next ones before they are ready.
fn crash(tree: &Tree<'_>, clients: &Paced, before: &Census, begun: Instant) -> Outcome<Repetition> {
    let last = tree.generations()?.into_iter().max().unwrap_or(0);
    let paths: Vec<_> = (last + 1..=last + FAILING).map(|number| tree.server_socket(number)).collect();
    let obstacles = Obstacles(paths);
    for path in &obstacles.0 {
        // Not empty, so that nobody removes it.
        fs::create_dir_all(path.join("in the way")).doing(path.display())?;
    }
    for pid in before.pids_of(Role::Server) {
        tree::send(pid, Signal::KILL)?;
    }
    let done = SystemClock.now();
    clients.count_as_new_from(done);
    let mut failures = 0;
    lab::wait_until("a status that tells of failing starts", RETURN_PATIENCE, || {
        failures = failures.max(tree.failing_starts().unwrap_or(0));
        failures >= 3
    })?;
    lab::wait_until("the first answer on a new connection", RETURN_PATIENCE, || {
        clients.seen().first_new_answer.is_some()
    })?;
    let back = tree.wait_until_replaced(before, &[Role::Server], RETURN_PATIENCE)?;
    std::thread::sleep(AFTERMATH);
    let serving = tree.serving().map_or(0, |(generation, _)| generation);
    let tried = (serving != last + FAILING + 1).then(|| format!("generation {serving} serves after {last}"));
    Ok(measured(clients, begun, done, back, tried))
}

/// A file that is wrong: a reload says where, and nothing changes.
fn wrong_file(tree: &Tree<'_>) -> Outcome<Option<String>> {
    let text = tree.file()?;
    tree.write(&text.replacen("timeouts:", "timeuots:", 1))?;
    let answer = tree.ask_in_vain(&["reload", "--json"]);
    tree.write(&text)?;
    let answer = answer?;
    let verdict: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    let says_where = verdict["diagnostics"][0].as_str().is_some_and(|text| text.contains("beltway.yaml:"));
    Ok((verdict["outcome"] != "wrong" || !says_where).then(|| format!("the verdict is {answer}")))
}

/// A port that is another's: a restart says so, and nothing changes.
fn port_taken(tree: &Tree<'_>) -> Outcome<Option<String>> {
    let stranger = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).doing("a port for a stranger")?;
    let taken = stranger.local_addr().doing("a port for a stranger")?;
    let text = tree.file()?;
    tree.write(&text.replacen("  listen: [", &format!("  listen: [{taken}, "), 1))?;
    let answer = tree.ask_in_vain(&["restart", "--json"]);
    tree.write(&text)?;
    let answer = answer?;
    let verdict: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    let says_which = verdict["why"].as_str().is_some_and(|why| why.contains(&taken.to_string()));
    match &verdict["outcome"] {
        outcome if *outcome == "failed" && says_which => Ok(None),
        outcome if *outcome == "applied" => Err(Trouble::Wrong(format!("a restart took a port twice: {answer}"))),
        _ => Ok(Some(format!("the verdict is {answer}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_stopped_goes_on_when_stopping_the_next_one_fails() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let _ended = Burning(vec![child]);
        let is_stopped = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
        };
        let mut stopped = Stopped(Vec::new());
        stopped.stop(pid).unwrap();
        lab::wait_until("it is stopped", RETURN_PATIENCE, is_stopped).unwrap();
        assert!(stopped.stop(0).is_err(), "nobody's pid");
        drop(stopped);
        lab::wait_until("it goes on", RETURN_PATIENCE, || !is_stopped()).unwrap();
    }
}
