//! What was measured, as tables to read and as JSON to keep.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::Options;
use super::allocations::Allocations;
use super::collapsing::{Crowd, Object};
use super::idle::Idle;
use super::summary::Line;
use super::turn::Turn;
use super::workload::Workload;
use crate::error::{Doing, Outcome};
use crate::machine::Machine;
use crate::syscalls::Counts;
use crate::table::{Table, least, median, spread};
use crate::target::Kind;

/// The share of the core that others may use before the figures are called disturbed.
const FOREIGN_MAX: f64 = 0.05;

/// Everything, for the JSON file.
#[derive(Serialize)]
pub(super) struct Report {
    machine: Machine,
    rounds: u32,
    seconds_per_turn: u64,
    versions: Vec<(String, String)>,
    workloads: Vec<WorkloadReport>,
}

/// One workload.
#[derive(Serialize)]
pub(super) struct WorkloadReport {
    name: &'static str,
    about: &'static str,
    rounds: u32,
    #[serde(skip)]
    reach: Option<(Kind, f64)>,
    rows: Vec<Row>,
    skipped: Vec<(String, String)>,
    notes: Vec<String>,
}

/// One target in one workload.
#[derive(Serialize)]
struct Row {
    target: String,
    #[serde(skip)]
    kind: Kind,
    turns: Vec<Turn>,
    syscalls: Option<Counts>,
    idle: Option<Idle>,
    crowds: Vec<Crowd>,
    allocations: Vec<Allocations>,
    failures: Vec<String>,
    summary: Option<Summary>,
}

/// The figures of one target over all rounds.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_median: f64,
    cpu_us_least: f64,
    cpu_us_spread: f64,
    user_us_median: f64,
    peak_rss_mib: f64,
    core_share: f64,
    foreign_share: f64,
    /// Median over the rounds of this target's CPU per request divided by the floor's in the same round.
    times_floor: Option<f64>,
    /// Least CPU per request divided by the floor's least.
    times_floor_least: Option<f64>,
    /// Median over the rounds of this target's CPU per request divided by that of the best peer in the same round.
    times_best_peer: Option<f64>,
}

impl Report {
    pub(super) fn new(machine: Machine, options: &Options) -> Self {
        Self {
            machine,
            rounds: options.rounds,
            seconds_per_turn: options.seconds,
            versions: Vec::new(),
            workloads: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, mut workload: WorkloadReport) {
        workload.summarise();
        self.workloads.push(workload);
    }

    pub(super) fn name_version(&mut self, kind: Kind, version: &str) {
        let pair = (kind.to_string(), version.to_owned());
        if !self.versions.contains(&pair) {
            self.versions.push(pair);
        }
    }

    pub(super) fn json(&self) -> Outcome<String> {
        serde_json::to_string_pretty(self).doing("writing JSON")
    }

    pub(super) fn all_checks_held(&self) -> bool {
        self.workloads.iter().all(|workload| workload.faults().is_empty())
    }

    /// Machine and versions, behind the tables.
    pub(super) fn closing(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "\n{} rounds of {} s; {} × {}, Linux {}, {}\n",
            self.rounds, self.seconds_per_turn, machine.cores, machine.cpu, machine.kernel, machine.congestion_control
        );
        let lines: Vec<Line> = self.workloads.iter().flat_map(WorkloadReport::lines).collect();
        text.push_str(&super::summary::table(&lines));
        for (name, version) in &self.versions {
            let _ = writeln!(text, "{name}: {version}");
        }
        text
    }
}

impl WorkloadReport {
    pub(super) fn new(workload: &Workload, options: &Options) -> Self {
        Self {
            name: workload.name,
            about: workload.about,
            rounds: options.rounds,
            reach: workload.reach,
            rows: Vec::new(),
            skipped: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn row(&mut self, kind: Kind) -> &mut Row {
        let index = self.rows.iter().position(|row| row.kind == kind).unwrap_or_else(|| {
            self.rows.push(Row {
                target: kind.to_string(),
                kind,
                turns: Vec::new(),
                syscalls: None,
                idle: None,
                crowds: Vec::new(),
                allocations: Vec::new(),
                failures: Vec::new(),
                summary: None,
            });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    pub(super) fn add_turn(&mut self, kind: Kind, turn: Turn) {
        self.row(kind).turns.push(turn);
    }

    pub(super) fn add_counts(&mut self, kind: Kind, counts: Counts) {
        self.row(kind).syscalls = Some(counts);
    }

    pub(super) fn add_idle(&mut self, kind: Kind, idle: Idle) {
        if idle.living < idle.connections {
            let closed = idle.connections - idle.living;
            self.row(kind).failures.push(format!("closed {closed} of {} idle connections", idle.connections));
        }
        self.row(kind).idle = Some(idle);
    }

    pub(super) fn add_crowd(&mut self, kind: Kind, crowd: Crowd) {
        self.row(kind).crowds.push(crowd);
    }

    /// Requests that must do without and did not are a fault.
    pub(super) fn add_allocations(&mut self, kind: Kind, allocations: Allocations) {
        if allocations.must_be_none && !allocations.is_none() {
            self.row(kind).failures.push(format!(
                "{}: {:.0} allocations in {:.0} requests, {:.0} at rest",
                allocations.name, allocations.calls, allocations.requests, allocations.calls_at_rest
            ));
        }
        self.row(kind).allocations.push(allocations);
    }

    pub(super) fn skip(&mut self, kind: Kind, why: String) {
        self.skipped.push((kind.to_string(), why));
    }

    pub(super) fn fail(&mut self, kind: Kind, why: String) {
        self.row(kind).failures.push(why);
    }

    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Everything that was not as it must be, by target.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for row in &self.rows {
            faults.extend(row.failures.iter().map(|text| format!("{}: {text}", row.target)));
            for turn in &row.turns {
                faults
                    .extend(turn.faults.iter().map(|text| format!("{}, round {}: {text}", row.target, turn.round + 1)));
            }
        }
        faults
    }

    fn measured(&self, kind: Kind) -> Option<&Row> {
        self.rows.iter().find(|row| row.kind == kind && !row.turns.is_empty())
    }

    fn floor(&self) -> Option<&Row> {
        self.measured(Kind::Floor)
    }

    /// The peer with the least median CPU per request.
    fn best_peer(&self) -> Option<&Row> {
        self.rows
            .iter()
            .filter(|row| row.kind.is_peer() && !row.turns.is_empty())
            .min_by(|one, other| median(&one.cpu_us()).total_cmp(&median(&other.cpu_us())))
    }

    fn summarise(&mut self) {
        let summaries: Vec<Option<Summary>> = self.rows.iter().map(|row| self.summary(row)).collect();
        for (row, summary) in self.rows.iter_mut().zip(summaries) {
            row.summary = summary;
        }
    }

    /// What the closing table says of it.
    fn lines(&self) -> Vec<Line> {
        if let (Some((against, reach)), Some(base)) = (self.reach, self.reach.and_then(|(kind, _)| self.measured(kind)))
        {
            let times = |kind: Kind| self.measured(kind).and_then(|row| row.times(base));
            let ours = self.measured(Kind::Beltway);
            return vec![Line {
                name: self.name.to_owned(),
                unit: format!("× {against}"),
                base: Some(format!("{:.1} µs", median(&base.cpu_us()))),
                beltway: times(Kind::Beltway),
                reach: Some(reach),
                peers: Kind::PEERS.map(times).to_vec(),
                syscalls: ours.and_then(|row| row.syscalls.as_ref()).map(|counts| counts.all),
            }];
        }
        let last_s = |kind: Kind, object: Object| {
            let row = self.rows.iter().find(|row| row.kind == kind)?;
            let of_all = row.crowds.iter().filter(|crowd| crowd.object == object);
            of_all.map(|crowd| crowd.last_s).max_by(f64::total_cmp)
        };
        let crowds =
            Object::ALL.into_iter().filter(|_| self.rows.iter().any(|row| !row.crowds.is_empty())).map(|object| Line {
                name: format!("{}, {}", self.name, object.name()),
                unit: "s, last answer".to_owned(),
                base: None,
                beltway: last_s(Kind::Beltway, object),
                reach: Some(object.reach_s()),
                peers: Kind::PEERS.map(|kind| last_s(kind, object)).to_vec(),
                syscalls: None,
            });
        let allocations = self.rows.iter().flat_map(|row| &row.allocations).map(|counted| Line {
            name: format!("{}, {}", self.name, counted.name),
            unit: "per request".to_owned(),
            base: None,
            beltway: Some(if counted.is_none() { 0.0 } else { counted.each() }),
            reach: counted.must_be_none.then_some(0.0),
            peers: Vec::new(),
            syscalls: None,
        });
        crowds.chain(allocations).collect()
    }

    fn summary(&self, row: &Row) -> Option<Summary> {
        if row.turns.is_empty() {
            return None;
        }
        let over = |value: fn(&Turn) -> f64| median(&row.turns.iter().map(value).collect::<Vec<_>>());
        let cpu_us = row.cpu_us();
        Some(Summary {
            requests_per_second: over(|turn| turn.seen.requests as f64 / turn.seen.seconds),
            p50_ms: over(|turn| turn.seen.p50_us as f64 / 1e3),
            p99_ms: over(|turn| turn.seen.p99_us as f64 / 1e3),
            cpu_us_median: median(&cpu_us),
            cpu_us_least: least(&cpu_us),
            cpu_us_spread: spread(&cpu_us),
            user_us_median: over(|turn| turn.user_us),
            peak_rss_mib: row.turns.iter().map(|turn| turn.peak_rss_kib as f64 / 1024.0).fold(0.0, f64::max),
            core_share: over(|turn| turn.core_share),
            foreign_share: over(|turn| turn.foreign_share),
            times_floor: self.floor().and_then(|floor| row.times(floor)),
            times_floor_least: self.floor().map(|floor| least(&cpu_us) / least(&floor.cpu_us())),
            times_best_peer: self.best_peer().and_then(|peer| row.times(peer)),
        })
    }

    fn time_table(&self) -> Table {
        let mut table = Table::new(&[
            "target",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "CPU µs/request (least)",
            "user",
            "spread",
            "× floor (least)",
            "× best peer",
            "syscalls",
            "peak RSS MiB",
            "core",
            "others",
        ]);
        for row in &self.rows {
            let Some(summary) = self.summary(row) else { continue };
            let ratio = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            table.row(vec![
                row.target.clone(),
                format!("{:.0}", summary.requests_per_second),
                format!("{:.2}", summary.p50_ms),
                format!("{:.2}", summary.p99_ms),
                format!("{:.2} ({:.2})", summary.cpu_us_median, summary.cpu_us_least),
                format!("{:.2}", summary.user_us_median),
                format!("{:.0} %", summary.cpu_us_spread * 100.0),
                format!("{} ({})", ratio(summary.times_floor), ratio(summary.times_floor_least)),
                ratio(summary.times_best_peer),
                row.syscalls.as_ref().map_or_else(|| "-".to_owned(), |counts| format!("{:.2}", counts.all)),
                format!("{:.0}", summary.peak_rss_mib),
                format!("{:.0} %", summary.core_share * 100.0),
                format!("{:.0} %", summary.foreign_share * 100.0),
            ]);
        }
        table
    }

    fn crowd_table(&self) -> Table {
        let mut table =
            Table::new(&["target", "object", "first s", "median s", "last s", "answered", "origin requests"]);
        for row in &self.rows {
            for object in Object::ALL {
                let crowds: Vec<&Crowd> = row.crowds.iter().filter(|crowd| crowd.object == object).collect();
                // The worse crowd counts.
                let Some(worst) = crowds.iter().max_by(|one, other| one.last_s.total_cmp(&other.last_s)) else {
                    continue;
                };
                let asked: Vec<String> = crowds.iter().map(|crowd| crowd.origin_requests.to_string()).collect();
                table.row(vec![
                    row.target.clone(),
                    object.name().to_owned(),
                    format!("{:.2}", worst.first_s),
                    format!("{:.2}", worst.median_s),
                    format!("{:.2}", worst.last_s),
                    format!("{} of {}", worst.answered, worst.clients),
                    asked.join(", "),
                ]);
            }
        }
        table
    }

    fn allocation_table(&self) -> Table {
        let mut table =
            Table::new(&["workload", "allocations/request", "allocations", "at rest", "requests", "entries"]);
        for counted in self.rows.iter().flat_map(|row| &row.allocations) {
            let entries: Vec<String> =
                counted.entries.iter().map(|(name, calls)| format!("{name} {calls:.0}")).collect();
            table.row(vec![
                counted.name.to_owned(),
                format!("{:.4}", counted.each()),
                format!("{:.0}", counted.calls),
                format!("{:.0}", counted.calls_at_rest),
                format!("{:.0}", counted.requests),
                entries.join(", "),
            ]);
        }
        table
    }

    fn memory_table(&self) -> Table {
        let mut table = Table::new(&[
            "target",
            "KiB/connection",
            "used again",
            "left when closed",
            "RSS before MiB",
            "RSS held MiB",
            "PSS held MiB",
            "open",
        ]);
        for row in &self.rows {
            let Some(idle) = &row.idle else { continue };
            table.row(vec![
                row.target.clone(),
                format!("{:.2}", idle.bytes_each() / 1024.0),
                format!("{:.2}", idle.bytes_each_used_again() / 1024.0),
                format!("{:.2}", idle.bytes_each_closed() / 1024.0),
                format!("{:.1}", idle.before.rss_kib as f64 / 1024.0),
                format!("{:.1}", idle.held.rss_kib as f64 / 1024.0),
                format!("{:.1}", idle.held.pss_kib as f64 / 1024.0),
                format!("{} of {}", idle.living, idle.connections),
            ]);
        }
        table
    }
}

impl fmt::Display for WorkloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## {}: {}\n", self.name, self.about)?;
        if self.rows.iter().any(|row| row.idle.is_some()) {
            write!(f, "{}", self.memory_table())?;
        }
        if self.rows.iter().any(|row| !row.turns.is_empty()) {
            write!(f, "{}", self.time_table())?;
        }
        if self.rows.iter().any(|row| !row.crowds.is_empty()) {
            write!(f, "{}", self.crowd_table())?;
        }
        if self.rows.iter().any(|row| !row.allocations.is_empty()) {
            write!(f, "{}", self.allocation_table())?;
        }
        for row in &self.rows {
            if let Some(trouble) = row.crowds.iter().find_map(|crowd| crowd.trouble.as_ref()) {
                writeln!(f, "{}: not answered: {trouble}", row.target)?;
            }
            if let Some(counts) = &row.syscalls {
                let named: Vec<String> = counts.named.iter().map(|(name, each)| format!("{name} {each:.2}")).collect();
                writeln!(f, "system calls of {}: {}", row.target, named.join(", "))?;
            }
        }
        if let Some(floor) = self.floor() {
            let cpu_us = floor.cpu_us();
            writeln!(
                f,
                "noise: the floor itself spread over {:.0} % in {} rounds; ratios of that size mean nothing",
                spread(&cpu_us) * 100.0,
                cpu_us.len()
            )?;
        }
        let foreign: Vec<f64> = self.rows.iter().flat_map(|row| &row.turns).map(|turn| turn.foreign_share).collect();
        if !foreign.is_empty() && median(&foreign) > FOREIGN_MAX {
            writeln!(
                f,
                "DISTURBED: something else used {:.0} % of the core; measure again on a quiet machine",
                median(&foreign) * 100.0
            )?;
        }
        for (target, why) in &self.skipped {
            writeln!(f, "skipped {target}: {why}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for fault in self.faults() {
            writeln!(f, "FAULT {fault}")?;
        }
        Ok(())
    }
}

impl Row {
    fn cpu_us(&self) -> Vec<f64> {
        self.turns.iter().map(|turn| turn.cpu_us).collect()
    }

    /// The median of the ratios to `other`, round by round.
    fn times(&self, other: &Self) -> Option<f64> {
        let ratios: Vec<f64> = self
            .turns
            .iter()
            .filter_map(|turn| {
                let against = other.turns.iter().find(|candidate| candidate.round == turn.round)?;
                Some(turn.cpu_us / against.cpu_us)
            })
            .collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }
}
