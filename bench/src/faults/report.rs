//! What the suite measured: repetitions, series, the table and the JSON.

use std::fs;

use serde::Serialize;

use crate::error::{Doing, Outcome};
use crate::machine::Machine;
use crate::table::{Table, greatest, median};

use super::Options;
use super::event::{Event, Goal, Measure};
use super::judge::Toll;

/// One repetition of one event.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Repetition {
    #[serde(flatten)]
    pub(super) toll: Toll,
    /// From the event to the first answer on a new connection.
    pub(super) first_new_answer_ms: f64,
    /// The longest time without any answer.
    pub(super) longest_gap_ms: f64,
    /// The longest time the clients themselves did not get the processor.
    pub(super) own_stall_ms: f64,
    /// From the event until every process that was hit has a successor that `beltway status` calls well.
    pub(super) back_ms: f64,
    /// Answers meanwhile.
    pub(super) answers: u64,
    /// What else is not as it must be.
    pub(super) complaint: Option<String>,
}

/// All repetitions of one event.
#[derive(Serialize)]
pub(super) struct Series {
    pub(super) event: String,
    pub(super) repetitions: Vec<Repetition>,
    /// Clients that idled meanwhile, and how many of them lost their connection.
    pub(super) idle: usize,
    pub(super) resets: usize,
    pub(super) trouble: Option<String>,
    #[serde(skip)]
    pub(super) goal: Option<Goal>,
}

/// Everything, for the JSON file.
#[derive(Serialize)]
struct Report<'a> {
    machine: Machine,
    rate: u32,
    kept: u32,
    reconnecting: u32,
    cache_mib: u64,
    standby: bool,
    series: &'a [Series],
}

impl Series {
    pub(super) fn new(event: &Event, goal: Option<Goal>) -> Self {
        Self { event: event.to_string(), repetitions: Vec::new(), idle: 0, resets: 0, trouble: None, goal }
    }

    /// Nothing was refused, nothing failed beyond excuse, and what has a bound kept it.
    pub(super) fn holds(&self) -> bool {
        let clean = self.repetitions.iter().all(|one| one.toll.is_clean() && one.complaint.is_none());
        self.trouble.is_none() && self.resets == 0 && clean && self.verdict() != Verdict::Missed
    }

    /// What is wrong, in lines.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.trouble.iter().cloned().collect();
        for (number, one) in self.repetitions.iter().enumerate() {
            faults.extend(one.complaint.iter().map(|what| format!("repetition {}: {what}", number + 1)));
            if !one.toll.is_clean() {
                let Toll { refused, failed, kinds, .. } = &one.toll;
                faults.push(format!("repetition {}: {refused} refused, {failed} failed: {kinds:?}", number + 1));
            }
        }
        if self.resets > 0 {
            faults.push(format!("{} of {} idle clients lost their connection", self.resets, self.idle));
        }
        faults
    }

    fn values(&self, value: fn(&Repetition) -> f64) -> Vec<f64> {
        self.repetitions.iter().map(value).collect()
    }

    fn verdict(&self) -> Verdict {
        let Some(goal) = self.goal else { return Verdict::None };
        let values = match goal.measure {
            Measure::FirstNewAnswer => self.values(|one| one.first_new_answer_ms),
            Measure::AllBack => self.values(|one| one.back_ms),
        };
        match median(&values) {
            median if median <= goal.aim_ms => Verdict::Aim,
            median if median <= goal.reach_ms => Verdict::Reach,
            _ => Verdict::Missed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    None,
    Aim,
    Reach,
    Missed,
}

/// The table, a row for each event.
pub(super) fn table(all: &[Series], options: &Options) -> String {
    let mut table = Table::new(&[
        "event",
        "times",
        "refused",
        "failed",
        "lost in flight",
        "stranded",
        "idle reset",
        "first new answer ms (most)",
        "longest gap ms (most)",
        "own stall ms (most)",
        "all back ms (most)",
        "reach / aim ms",
        "verdict",
    ]);
    for series in all {
        let sum =
            |count: fn(&Toll) -> u64| series.repetitions.iter().map(|one| count(&one.toll)).sum::<u64>().to_string();
        let over = |value: fn(&Repetition) -> f64| {
            let values = series.values(value);
            if values.is_empty() {
                "-".to_owned()
            } else {
                format!("{:.1} ({:.1})", median(&values), greatest(&values))
            }
        };
        let bound = |goal: Goal| {
            let what = if goal.measure == Measure::AllBack { "back" } else { "answer" };
            format!("{what} {:.0} / {:.0}", goal.reach_ms, goal.aim_ms)
        };
        let verdict = match series.verdict() {
            _ if !series.holds() => "MISSED",
            Verdict::None => "clean",
            Verdict::Aim => "aim",
            Verdict::Reach | Verdict::Missed => "reach",
        };
        table.row(vec![
            series.event.clone(),
            series.repetitions.len().to_string(),
            sum(|toll| toll.refused),
            sum(|toll| toll.failed),
            sum(|toll| toll.in_flight),
            sum(|toll| toll.stranded),
            if series.idle > 0 { format!("{} of {}", series.resets, series.idle) } else { "-".to_owned() },
            over(|one| one.first_new_answer_ms),
            over(|one| one.longest_gap_ms),
            over(|one| one.own_stall_ms),
            over(|one| one.back_ms),
            series.goal.map_or_else(|| "-".to_owned(), bound),
            verdict.to_owned(),
        ]);
    }
    let cache = if options.cache > 0 { format!(", a full cache of {} MiB", options.cache) } else { String::new() };
    let standby = if options.standby { ", with a standby" } else { "" };
    format!(
        "\n## faults: {} kept and {} reconnecting clients, at most {} requests/s{cache}{standby}\n\n{table}",
        options.kept, options.reconnecting, options.rate
    )
}

/// Writes everything that was measured.
pub(super) fn write_json(all: &[Series], options: &Options) -> Outcome<()> {
    let Some(path) = &options.json else { return Ok(()) };
    let report = Report {
        machine: Machine::look(),
        rate: options.rate,
        kept: options.kept,
        reconnecting: options.reconnecting,
        cache_mib: options.cache,
        standby: options.standby,
        series: all,
    };
    let text = serde_json::to_string_pretty(&report).doing("writing JSON")?;
    fs::write(path, text).doing(path.display())
}
