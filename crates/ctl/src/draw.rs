//! A status as a terminal shows it.

use std::fmt::Write as _;
use std::time::Duration;

use base::WallTime;
use config::Setting;
use supervise::change::{Outcome, Verdict};
use supervise::log::timestamp;
use supervise::memory::{Memory, show};
use supervise::obituary::Obituary;
use supervise::status::{HeartbeatStatus, ListenerStatus, ProcessStatus, Status};

use crate::ask::Census;

/// The tree of processes with ages, heartbeats, restarts; below it the listeners.
#[must_use]
pub fn tree(status: &Status) -> String {
    let mut text = String::new();
    let ready = status.servers.iter().any(|server| server.state.as_str() == "ready");
    let state = match (status.stopping, status.leaving, ready) {
        (true, ..) => "stopping",
        (false, true, true) => "serving, and its readiness fails (ctl server drain)",
        (false, false, true) => "serving",
        (false, _, false) => "not serving",
    };
    let _ = writeln!(text, "Beltway {}: {state}", status.version);
    let _ = writeln!(
        text,
        "configuration {} ({}), runtime directory {}",
        status.configuration.source, status.configuration.digest, status.runtime_dir
    );
    text.push('\n');
    match &status.stub {
        Some(stub) => line(&mut text, 0, stub, ""),
        None => text.push_str("(no top process: roles run by themselves)\n"),
    }
    match &status.cop {
        Some(cop) => line(&mut text, 1, cop, ""),
        None => text.push_str("  traffic_cop      is not there\n"),
    }
    line(&mut text, 2, &status.manager, "");
    for server in &status.servers {
        let mut note = format!(", generation {}, {}", server.generation, server.state.as_str());
        let _ = write!(note, ", {} connections", server.open_connections);
        if server.adopted {
            note.push_str(", adopted");
        }
        if server.other_configuration {
            note.push_str(", runs another configuration");
        }
        line(&mut text, 3, &server.process, &note);
        for thread in &server.threads {
            let _ = writeln!(text, "        {:<14} turned {} ago", thread.name, age(thread.age_ms));
        }
    }
    if let Some(respawn) = &status.respawn {
        let _ = writeln!(
            text,
            "      traffic_server   is not there: {}; {} failures, next try in {}",
            if respawn.last_death.is_empty() { "first start" } else { &respawn.last_death },
            respawn.failures,
            age(respawn.next_try_in_ms)
        );
    }
    let _ = writeln!(text, "deaths of servers since manager started: {}", status.server_deaths);
    if status.disk.is_full {
        let reserve = if status.disk.is_reserved { "with a reserve for starts" } else { "the reserve is used up" };
        let _ = writeln!(
            text,
            "the disk of the runtime directory is FULL ({} left, {reserve}): what runs goes on, nothing can be changed",
            show(status.disk.free_bytes)
        );
    }
    text.push('\n');
    for listener in &status.listeners {
        let pool = listener.pool.as_ref().map(|pool| format!(", pool {pool}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "listens on {:<24} {:<8} backlog {}{pool}{}",
            listener.address,
            listener.kind,
            listener.backlog,
            queue(listener)
        );
    }
    text
}

/// Who waits to be accepted, as far as the kernel tells.
fn queue(listener: &ListenerStatus) -> String {
    if listener.waiting_max == 0 {
        return String::new();
    }
    let dropped = if listener.dropped == 0 { String::new() } else { format!(", {} turned away", listener.dropped) };
    format!(", {} of {} wait{dropped}", listener.waiting, listener.waiting_max)
}

/// What became of a change.
#[must_use]
pub fn verdict(verdict: &Verdict) -> String {
    let mut text = String::new();
    let _ = match verdict.outcome {
        Outcome::Applied => {
            writeln!(text, "in force after {} ms, generation {}", verdict.took_ms, verdict.generation)
        }
        Outcome::Possible => writeln!(text, "right; nothing has changed yet"),
        Outcome::Unchanged => writeln!(text, "nothing differs from what is in force"),
        Outcome::NeedsRestart => writeln!(text, "nothing has changed: some keys take a new server (beltway restart)"),
        Outcome::Wrong => writeln!(text, "wrong; nothing has changed:"),
        Outcome::Failed => writeln!(text, "it failed, what ran goes on: {}", verdict.why),
    };
    for changed in &verdict.changed {
        let how = if changed.needs_restart { "restart" } else { "reload" };
        let _ = write!(text, "  {how:<8} {}", changed.key);
        if changed.before != changed.after {
            let _ = write!(text, ": {} -> {}", changed.before, changed.after);
        }
        text.push('\n');
    }
    for diagnostic in &verdict.diagnostics {
        let _ = writeln!(text, "{diagnostic}");
    }
    text
}

/// Where the memory is.
#[must_use]
pub fn memory_table(memory: &Memory) -> String {
    let mut text = String::new();
    let exact = memory.processes.iter().any(|process| process.proportional_bytes.is_some());
    let _ = write!(text, "{:<28} {:>12} {:>12} {:>12} {:>12}", "process", "resident", "its own", "of files", "shared");
    text.push_str(if exact { "        share\n" } else { "\n" });
    for process in &memory.processes {
        let mut name = format!("{}[{}]", process.name, process.pid);
        if process.generation > 0 {
            let _ = write!(name, " gen. {}", process.generation);
        }
        let _ = write!(text, "{name:<28}");
        for bytes in [process.resident_bytes, process.anonymous_bytes, process.file_bytes, process.shared_bytes] {
            let _ = write!(text, " {:>12}", show(bytes));
        }
        if exact {
            let _ = write!(text, " {:>12}", process.proportional_bytes.map_or_else(|| "?".to_owned(), show));
        }
        if process.swapped_bytes > 0 {
            let _ = write!(text, "  and {} swapped out", show(process.swapped_bytes));
        }
        text.push('\n');
    }
    text.push_str("\nrooms of the server\n");
    for room in &memory.rooms {
        let bytes = room.bytes.map_or_else(|| "-".to_owned(), show);
        let _ = writeln!(text, "  {:<12} {bytes:>12}  {}", room.name, room.note);
    }
    let _ = writeln!(text, "the kernel's TCP sockets, everybody's: {}", show(memory.kernel_sockets_bytes));
    text
}

/// Every key with its value.
#[must_use]
pub fn settings(settings: &[Setting]) -> String {
    let width = settings.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
    let mut text = String::new();
    for setting in settings {
        let lines = setting.value.split_whitespace().collect::<Vec<_>>().join(" ");
        let note = if setting.is_written { "" } else { "  (default)" };
        let _ = writeln!(text, "{:<width$}  {:<8} {lines}{note}", setting.key, setting.applied.to_string());
    }
    text
}

/// Of what processes died, and what their threads were doing.
#[must_use]
pub fn obituaries(deaths: &[Obituary]) -> String {
    let mut text = String::new();
    for death in deaths {
        let at = timestamp(WallTime::from_micros(death.at_us));
        let cause = if death.cause.is_empty() { "of a cause that is not known" } else { &death.cause };
        let _ = write!(text, "{at}  {}[{}]", death.who, death.pid);
        if death.generation > 0 {
            let _ = write!(text, " generation {}", death.generation);
        }
        let _ = writeln!(text, ": {cause}; had lived {}", age(death.lived_ms));
        if let Some(last) = death.last_answer_age_ms {
            let _ = writeln!(text, "    last answer {} before", age(last));
        }
        for thread in &death.threads {
            let _ = write!(text, "    {:<16} {}", thread.name, thread.state);
            for (what, said) in [("in", &thread.running), ("waits in", &thread.waits_in)] {
                if !said.is_empty() && said != "0" {
                    let _ = write!(text, ", {what} {said}");
                }
            }
            text.push('\n');
            for frame in &thread.frames {
                let _ = writeln!(text, "        {frame}");
            }
        }
    }
    text
}

/// Who lives when manager does not answer.
#[must_use]
pub fn census(census: &Census) -> String {
    let mut text = format!("manager does not answer: {}\nby their leases there live:\n", census.manager_silent_because);
    for (name, pid) in &census.alive {
        let pid = pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        let _ = writeln!(text, "  {name:<16} {pid}");
    }
    text
}

fn line(text: &mut String, depth: usize, process: &ProcessStatus, note: &str) {
    let indent = "  ".repeat(depth);
    let _ = write!(text, "{indent}{:<16} {:>8}  up {}{note}", process.name, process.pid, age(process.age_ms));
    if process.lease.holder == Some(process.pid) {
        let _ = write!(text, ", holds {}", process.lease.file);
    } else if !process.lease.file.is_empty() {
        let _ = write!(text, ", does NOT hold {}", process.lease.file);
    }
    if process.restarts > 0 {
        let _ = write!(text, ", restarted {} times", process.restarts);
    }
    if let Some(heartbeat) = &process.heartbeat {
        let _ = write!(text, ", {}", beats(heartbeat));
    }
    text.push('\n');
}

fn beats(heartbeat: &HeartbeatStatus) -> String {
    let last = heartbeat.last_answer_age_ms.map_or_else(|| "never".to_owned(), |ms| format!("{} ago", age(ms)));
    let mut text = format!("heartbeats {} of {}, last {last}", heartbeat.answered, heartbeat.sent);
    if heartbeat.missed_in_a_row > 0 {
        let _ = write!(text, ", {} missed in a row", heartbeat.missed_in_a_row);
    }
    text
}

fn age(ms: u64) -> String {
    let age = Duration::from_millis(ms);
    match age.as_secs() {
        0 => format!("{ms} ms"),
        s @ 1..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s @ 7_200..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervise::status::{DiskStatus, ListenerStatus, RespawnStatus, ServerState, ServerStatus};

    #[test]
    fn a_status_is_drawn_with_everybody_in_it() {
        let process =
            |name: &str, pid| ProcessStatus { name: name.to_owned(), pid, age_ms: 61_000, ..Default::default() };
        let status = Status {
            version: "1.2.3".to_owned(),
            stub: Some(process("beltway", 1)),
            cop: Some(process("traffic_cop", 2)),
            manager: process("traffic_manager", 3),
            servers: vec![ServerStatus {
                process: ProcessStatus {
                    heartbeat: Some(HeartbeatStatus { sent: 5, answered: 4, missed_in_a_row: 1, ..Default::default() }),
                    ..process("traffic_server", 4)
                },
                generation: 7,
                state: ServerState::Ready,
                adopted: true,
                ..Default::default()
            }],
            disk: DiskStatus { is_known: true, free_bytes: 4096, is_full: true, is_reserved: true },
            respawn: Some(RespawnStatus { failures: 2, ..Default::default() }),
            listeners: vec![ListenerStatus {
                kind: "http".to_owned(),
                address: "127.0.0.1:8080".to_owned(),
                waiting: 3,
                waiting_max: 128,
                dropped: 5,
                ..Default::default()
            }],
            ..Default::default()
        };
        let drawn = tree(&status);
        for part in [
            "Beltway 1.2.3: serving",
            "    traffic_manager         3  up 61 s",
            "generation 7, ready, 0 connections, adopted, heartbeats 4 of 5, last never, 1 missed in a row",
            "2 failures",
            "listens on 127.0.0.1:8080",
            ", 3 of 128 wait, 5 turned away",
            "is FULL (4.0 KiB left, with a reserve for starts)",
        ] {
            assert!(drawn.contains(part), "{part:?} in\n{drawn}");
        }
    }
}
