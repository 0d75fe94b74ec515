//! The sum of all generations' numbers, so that counters never go back.
//!
//! A live generation is read from the segment it writes, a dead one from the file it left. So that files do not pile
//! up, dead ones are folded into one ([`fold_dead`]): a segment of pid 0 whose generation says up to which one it
//! includes. Whoever finds an older dead file beside it — manager died between writing the sum and removing the file —
//! leaves it out.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use stats::{Snapshot, prometheus};
use supervise::obituary::ThreadAccount;
use supervise::status::{ListenerStatus, ProcessStatus, Status};
use sys::shm::SharedWordsReader;

use super::fitting;

/// Segments read for one answer; fold the dead before there are so many.
pub const SEGMENTS_MAX: usize = 256;

/// What was read of all segments.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The sum. Its beats are those of live generations.
    pub(super) sum: Snapshot,
    /// Segments that could not be read, with the reason.
    pub(super) unreadable: Vec<String>,
}

impl Numbers {
    /// Reads and adds up. A file that is not there is no error: its generation has been folded or has not begun.
    pub(super) fn read(status: &Status, segments: &[PathBuf]) -> Self {
        let mut numbers = Self::default();
        let mut read = Vec::new();
        let mut later = Vec::new();
        for path in segments.iter().take(SEGMENTS_MAX) {
            match snapshot(path) {
                Ok(snapshot) if snapshot.pid != 0 => read.push(snapshot),
                Ok(_) => later.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => later.push(path),
                Err(error) => numbers.unreadable.push(format!("{}: {error}", path.display())),
            }
        }
        // The sum of the dead is read last: whatever was folded and removed while we read is in it.
        for path in later {
            match snapshot(path) {
                Ok(snapshot) => read.push(snapshot),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => numbers.unreadable.push(format!("{}: {error}", path.display())),
            }
        }
        if segments.len() > SEGMENTS_MAX {
            numbers.unreadable.push(format!("{} segments are too many", segments.len()));
        }
        let folded = read.iter().filter(|s| s.pid == 0).map(|s| s.generation).max();
        let (live, dead): (Vec<_>, Vec<_>) = read.iter().partition(|snapshot| is_live(status, snapshot));
        // Live ones first, so that metrics stand in the order of the newest version.
        live.iter().rev().for_each(|snapshot| numbers.sum.add_live(snapshot));
        for snapshot in dead {
            if snapshot.pid == 0 || folded.is_none_or(|folded| snapshot.generation > folded) {
                numbers.sum.add_dead(snapshot);
            }
        }
        numbers
    }

    /// Everything for Prometheus: the servers' numbers, and what manager knows of the processes.
    pub(super) fn render(&self, status: &Status) -> String {
        let mut text = prometheus::render(&self.sum);
        let mut one = |name: &str, kind: &str, help: &str, samples: &[(&[(&str, &str)], u64)]| {
            prometheus::family(&mut text, name, kind, help);
            for (labels, value) in samples {
                prometheus::sample(&mut text, name, labels, &value.to_string());
            }
        };
        one("beltway_build_info", "gauge", "The version that runs.", &[(&[("version", &status.version)], 1)]);
        let servers = status.servers.iter().filter(|server| server.state == supervise::status::ServerState::Ready);
        one("beltway_servers_ready", "gauge", "Servers that accept requests.", &[(&[], servers.count() as u64)]);
        let generation = status.servers.iter().map(|server| server.generation).max().unwrap_or(0);
        one("beltway_server_generation", "gauge", "The newest server's generation.", &[(&[], generation)]);
        let help = "Deaths of servers since this manager started.";
        one("beltway_server_deaths_total", "counter", help, &[(&[], status.server_deaths)]);
        let unreadable = self.unreadable.len() as u64;
        let help = "Segments of numbers that could not be read for this answer.";
        one("beltway_segments_unreadable", "gauge", help, &[(&[], unreadable)]);

        let help = "Bytes that may still be written in the runtime directory.";
        if status.disk.is_known {
            one("beltway_runtime_dir_free_bytes", "gauge", help, &[(&[], status.disk.free_bytes)]);
        }

        let queue = |value: fn(&ListenerStatus) -> u32| -> Vec<([(&str, &str); 2], u32)> {
            let known = status.listeners.iter().filter(|listener| listener.waiting_max > 0);
            known.map(|l| ([("kind", l.kind.as_str()), ("address", l.address.as_str())], value(l))).collect()
        };
        for (name, kind, help, rows) in [
            ("beltway_listener_waiting", "gauge", "Connections that wait to be accepted.", queue(|l| l.waiting)),
            ("beltway_listener_waiting_max", "gauge", "How many may wait at a time.", queue(|l| l.waiting_max)),
            (
                "beltway_listener_dropped_total",
                "counter",
                "Tries to connect that were turned away because the queue was full.",
                queue(|l| l.dropped),
            ),
        ] {
            prometheus::family(&mut text, name, kind, help);
            for (labels, value) in rows {
                prometheus::sample(&mut text, name, &labels, &value.to_string());
            }
        }

        let processes: Vec<&ProcessStatus> = status.stub.iter().chain(&status.cop).chain([&status.manager]).collect();
        let rows = |value: fn(&ProcessStatus) -> u64| -> Vec<([(&'static str, String); 1], u64)> {
            processes.iter().map(|process| ([("process", process.name.clone())], value(process))).collect()
        };
        for (name, kind, help, rows) in [
            ("beltway_process_age_seconds", "gauge", "How long a process has lived.", rows(|p| p.age_ms / 1_000)),
            (
                "beltway_process_restarts_total",
                "counter",
                "How often a process was started again.",
                rows(|p| p.restarts),
            ),
            (
                "beltway_heartbeats_missed_total",
                "counter",
                "Heartbeats a process did not answer in time.",
                rows(|p| p.heartbeat.map_or(0, |heartbeat| heartbeat.missed)),
            ),
        ] {
            prometheus::family(&mut text, name, kind, help);
            for ([(key, process)], value) in rows {
                prometheus::sample(&mut text, name, &[(key, &process)], &value.to_string());
            }
        }
        text
    }
}

/// What a dead server's threads were doing, and its numbers.
pub type LastWords = (Vec<ThreadAccount>, Vec<(String, u64)>);

/// What a dead server's threads were doing, and its numbers that are not zero; `None` when it left none.
#[must_use]
pub fn last_numbers(segment: &Path) -> Option<LastWords> {
    let snapshot = snapshot(segment).ok()?;
    let thread = |beat: &stats::BeatReading| ThreadAccount {
        name: beat.thread.clone(),
        id: beat.thread_id,
        state: format!("{:?}", beat.state).to_ascii_lowercase(),
        running: beat.running.clone().unwrap_or_default(),
        turns: beat.turns,
        ..ThreadAccount::default()
    };
    let threads = snapshot.beats.iter().map(thread).collect();
    let text = prometheus::render(&snapshot);
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let samples = samples.filter(|(name, _)| !name.contains("_bucket"));
    let numbers = samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    Some((threads, numbers.filter(|(_, value)| *value != 0).collect()))
}

/// The samples whose names contain `pattern`: name with labels, and value.
#[must_use]
pub fn numbers_matching(status: &Status, segments: &[PathBuf], pattern: &str) -> Vec<(String, String)> {
    /// Samples of one answer at most.
    const SAMPLES_MAX: usize = 1_000;
    let text = Numbers::read(status, segments).render(status);
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let matching = samples.filter(|(name, _)| name.contains(pattern));
    matching.take(SAMPLES_MAX).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Adds the segments of dead generations to the file `folded`, which is made when it is not there, and removes them.
/// `dead` are all dead generations older than every live one; those that `folded` includes already are only removed.
/// A segment that cannot be read is removed too: what it counted is lost, which the answer tells. What has counted nothing
/// is left out, and what does not fit is counted with the others (see `fitting`).
///
/// Safe against death at any moment: the sum replaces its file by renaming, before anything is removed.
///
/// # Errors
/// The sum cannot be written. Nothing has been removed then.
pub fn fold_dead(dead: &[PathBuf], folded: &Path) -> io::Result<Vec<String>> {
    let mut lost = Vec::new();
    let before = match snapshot(folded) {
        Ok(sum) => Some(sum),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            lost.push(format!("{}: {error}", folded.display()));
            None
        }
    };
    let included = before.as_ref().map(|sum| sum.generation);
    let mut sum = Snapshot::default();
    // The newest first: what was not seen for longest comes last.
    for path in dead.iter().rev() {
        match snapshot(path) {
            Ok(mut snapshot) if included.is_none_or(|included| snapshot.generation > included) => {
                snapshot.metrics.retain(fitting::has_counted);
                sum.add_dead(&snapshot);
            }
            Ok(_) => {}
            Err(error) => lost.push(format!("{}: {error}", path.display())),
        }
    }
    if let Some(mut before) = before {
        before.metrics.retain(fitting::has_counted);
        sum.add_dead(&before);
    }
    let (words, gone) = fitting::to_words(&mut sum).map_err(io::Error::other)?;
    if gone > 0 {
        lost.push(format!("those of {gone} pools, servers and commands apart: they are counted with the others now"));
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    // Forgotten with the run when we are killed before it has its name.
    let next = folded.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(&bytes)?;
    drop(file);
    fs::rename(&next, folded)?;
    for path in dead {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => lost.push(format!("{}: {error}", path.display())),
            _ => {}
        }
    }
    Ok(lost)
}

fn snapshot(path: &Path) -> io::Result<Snapshot> {
    let words = SharedWordsReader::open(path)?.read()?;
    Snapshot::from_words(&words).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn is_live(status: &Status, snapshot: &Snapshot) -> bool {
    status.servers.iter().any(|server| server.generation == snapshot.generation && server.process.pid == snapshot.pid)
}
