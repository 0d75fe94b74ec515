//! One turn of one target: check, load, account.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use base::{Clock, SystemClock};
use serde::Serialize;

use super::workload::{OriginUse, Workload};
use crate::account::{self, CpuTime};
use crate::error::{Outcome, Trouble};
use crate::lab;
use crate::load::wrk::{Load, Paths, Seen};
use crate::origin::{self, Origin, RANDOM_OBJECTS};
use crate::probe::{self, Answer};
use crate::syscalls::{self, Counts};
use crate::target::{Kind, Surroundings, Target};

/// Load before the first turn: connections to the origin are made, allocators have grown.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a cache is filled before misses are measured, at most.
const FILL_SECONDS_MAX: u32 = 25;
/// A cache is full when memory grows by less than one part in this many within a second.
const FULL: u64 = 50;
/// Load while system calls are counted.
const COUNTING: Duration = Duration::from_secs(1);
/// The share of requests by which the origin's count may miss what the workload says: wrk drops what is under way at
/// its end, and a cache may revalidate.
const ORIGIN_TOLERANCE: f64 = 0.005;

/// How long a target may take to write what is left of its access log.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// What one turn measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Turn {
    /// Which round, from 0.
    pub(crate) round: u32,
    /// wrk's side.
    pub(crate) seen: Seen,
    /// CPU of all the target's processes, per request.
    pub(crate) cpu_us: f64,
    /// The part of it in user mode.
    pub(crate) user_us: f64,
    /// How busy the target kept its core, 0 to 1.
    pub(crate) core_share: f64,
    /// How much of the core others used meanwhile, 0 to 1: near zero on a quiet machine.
    pub(crate) foreign_share: f64,
    /// How much the host took from the core, 0 to 1.
    pub(crate) stolen_share: f64,
    /// The sum of the processes' peaks of resident memory during the turn.
    pub(crate) peak_rss_kib: u64,
    /// Requests that reached the origin.
    pub(crate) origin_requests: u64,
    /// Whatever was not as it must be.
    pub(crate) faults: Vec<String>,
}

/// Checks the answer, fills the cache, warms up.
pub(super) fn prepare(workload: &Workload, target: &Target, around: &Surroundings<'_>, origin: &Origin) -> Outcome<()> {
    check_answer(workload, target)?;
    if let (Paths::Random(prefix, count), true) = (workload.paths, !target.kind.is_floor()) {
        fill(target, prefix, count)?;
    }
    load(workload, target, WARM_UP).run(around.lab)?;
    if matches!(workload.paths, Paths::Fresh(_)) && !target.kind.is_floor() {
        fill_up(workload, target, around)?;
    }
    if workload.origin_use == OriginUse::Never && !target.kind.is_floor() {
        // Now it must be in the cache: a second look must not reach the origin.
        let before = origin.requests()?;
        check_answer(workload, target)?;
        let asked = origin.requests()?.saturating_sub(before + 1);
        if asked > 0 {
            return Err(match target.kind {
                Kind::Beltway => Trouble::NotBuilt("it does not cache".to_owned()),
                _ => Trouble::Wrong("it does not serve this from its cache".to_owned()),
            });
        }
    }
    Ok(())
}

/// Loads a target until its memory grows no more: its cache is full then, and whatever comes pushes something out.
fn fill_up(workload: &Workload, target: &Target, around: &Surroundings<'_>) -> Outcome<()> {
    let pids = target.processes();
    let mut before = account::peak_rss_kib(&pids);
    for _ in 0..FILL_SECONDS_MAX {
        load(workload, target, WARM_UP).run(around.lab)?;
        let now = account::peak_rss_kib(&pids);
        if now < before + before / FULL {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// One turn.
pub(super) fn take(
    workload: &Workload,
    target: &Target,
    round: u32,
    length: Duration,
    around: &Surroundings<'_>,
    origin: &Origin,
) -> Outcome<Turn> {
    let clock = SystemClock;
    let core = around.lab.proxy_core;
    let pids = target.processes();
    if pids.is_empty() {
        return Err(Trouble::Wrong("it has ended".to_owned()));
    }
    account::forget_peak_rss(&pids);
    let log_before = target.access_log.as_deref().map_or(0, lines);
    let asked_before = origin.requests()?;
    let busy_before = account::core_busy_and_stolen_nanos(core);
    let cpu_before = CpuTime::of(&pids);
    let begun = clock.now();
    let seen = load(workload, target, length).run(around.lab)?;
    let passed = (clock.now() - begun).as_secs_f64() * 1e9;
    let used = CpuTime::of(&pids).since(cpu_before);
    let busy_after = account::core_busy_and_stolen_nanos(core);
    // The question itself is counted by the origin.
    let origin_requests = origin.requests()?.saturating_sub(asked_before + 1);

    let nanos = used.nanos() as f64;
    let requests = seen.requests as f64;
    let busy = busy_after.0.saturating_sub(busy_before.0) as f64;
    let mut faults = Vec::new();
    if seen.errors > 0 {
        faults.push(format!("{} errors in {} requests", seen.errors, seen.requests));
    }
    let mean_body = seen.bytes / seen.requests;
    if mean_body < workload.body as u64 {
        faults.push(format!("only {mean_body} bytes an answer"));
    }
    if !target.kind.is_floor() || workload.origin_use == OriginUse::EveryRequest {
        let asked = origin_requests as f64 / requests;
        let slack = ORIGIN_TOLERANCE + f64::from(workload.connections) / requests;
        match workload.origin_use {
            OriginUse::EveryRequest if (asked - 1.0).abs() > slack => {
                faults.push(format!("the origin saw {asked:.3} requests for each"));
            }
            OriginUse::Never if asked > slack => {
                faults.push(format!("not hits: the origin saw {origin_requests} requests"))
            }
            _ => {}
        }
    }
    if let Some(log) = &target.access_log {
        let missing = missing_lines(log, log_before + seen.requests);
        if missing > 0 {
            faults.push(format!("{missing} of {} requests are not in the access log", seen.requests));
        }
    }
    // One that ends without a successor may be done, as nginx's cache loader is; one that was replaced has died.
    let now = target.processes();
    if now.is_empty() || now.iter().any(|pid| !pids.contains(pid)) && pids.iter().any(|pid| !now.contains(pid)) {
        faults.push("a process of it died during the load".to_owned());
    }
    Ok(Turn {
        round,
        seen,
        cpu_us: nanos / requests / 1e3,
        user_us: nanos * used.user_share() / requests / 1e3,
        core_share: nanos / passed,
        foreign_share: ((busy - nanos) / passed).max(0.0),
        stolen_share: busy_after.1.saturating_sub(busy_before.1) as f64 / passed,
        peak_rss_kib: account::peak_rss_kib(&pids),
        origin_requests,
        faults,
    })
}

/// How many lines the log still lacks, after some time to write them.
fn missing_lines(log: &Path, wanted: u64) -> u64 {
    let _ = lab::wait_until("the access log", LOG_PATIENCE, || lines(log) >= wanted);
    wanted.saturating_sub(lines(log))
}

/// How many lines a file has; none when there is no file.
fn lines(path: &Path) -> u64 {
    let Ok(mut file) = File::open(path) else { return 0 };
    let (mut piece, mut lines) = (vec![0; 1 << 20], 0);
    while let Ok(count @ 1..) = file.read(&mut piece) {
        lines += piece[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    lines
}

/// System calls per request, in a run of their own.
pub(super) fn count_syscalls(workload: &Workload, target: &Target, around: &Surroundings<'_>) -> Outcome<Counts> {
    let pids = target.processes();
    syscalls::count(around.lab, &pids, || Ok(load(workload, target, COUNTING).run(around.lab)?.requests))
}

/// Whether the target answers what the origin said.
pub(super) fn check_answer(workload: &Workload, target: &Target) -> Outcome<()> {
    check_path(target, &workload.paths.sample(), workload.close)
}

fn check_path(target: &Target, path: &str, close: bool) -> Outcome<()> {
    let fields: &[(&str, &str)] = if close { &[("Connection", "close")] } else { &[] };
    judge(target, path, &probe::get(target.port, path, fields)?)
}

fn judge(target: &Target, path: &str, answer: &Answer) -> Outcome<()> {
    if answer.status != 200 {
        return Err(Trouble::Wrong(format!("{path}: status {}", answer.status)));
    }
    let expected = match target.kind {
        // A floor has one body for all paths.
        Kind::Floor | Kind::FloorSendfile => origin::expected_body(path).map(|body| body.len()),
        _ => {
            if let Some(body) = origin::expected_body(path)
                && body != answer.body
            {
                return Err(Trouble::Wrong(format!("{path}: not the origin's {} bytes", body.len())));
            }
            None
        }
    };
    match expected {
        Some(length) if length != answer.body.len() => {
            Err(Trouble::Wrong(format!("{path}: {} bytes instead of {length}", answer.body.len())))
        }
        _ => Ok(()),
    }
}

/// Asks for every object once, on one connection, so that it is in the cache, and compares it.
pub(super) fn fill(target: &Target, prefix: &str, count: usize) -> Outcome<()> {
    let mut stream = probe::connect(target.port)?;
    for number in 0..count.min(RANDOM_OBJECTS) {
        let path = format!("{prefix}{number}");
        judge(target, &path, &probe::exchange(&mut stream, target.port, &path, &[])?)?;
    }
    Ok(())
}

pub(super) fn load(workload: &Workload, target: &Target, length: Duration) -> Load {
    Load {
        port: target.port,
        paths: workload.paths,
        connections: workload.connections,
        close: workload.close,
        length,
        salt: SystemClock.now().as_nanos(),
    }
}
