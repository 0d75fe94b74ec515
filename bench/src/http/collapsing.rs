//! The workload `collapse`: a hundred clients ask at once for what the origin has after one second.
//!
//! For an object that may be stored, one request should reach the origin and everybody have the answer a second later.
//! For one that may not, each client's request must reach it, and nobody should have waited for more than one other: the
//! one that found out. Every crowd asks for a path of its own.

use base::{Clock, SystemClock};
use serde::Serialize;

use super::report::WorkloadReport;
use super::workload::Workload;
use super::{Field, Options};
use crate::error::{Outcome, Trouble};
use crate::load::crowd;
use crate::origin::{self, Origin};
use crate::target::Target;

/// Clients of a crowd.
const CLIENTS: usize = 100;
/// Crowds per target and kind of object.
const CROWDS_MAX: u32 = 2;

/// What kind of object the crowd asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Object {
    /// `max-age=3600`.
    Storable,
    /// `no-store`.
    NoStore,
}

impl Object {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::Storable, Self::NoStore];

    fn prefix(self) -> &'static str {
        match self {
            Self::Storable => "/slow/c/",
            Self::NoStore => "/slow/pass/",
        }
    }

    /// As the table calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Storable => "1 s object",
            Self::NoStore => "1 s no-store",
        }
    }

    /// The most that the last answer may take, in seconds.
    pub(crate) fn reach_s(self) -> f64 {
        match self {
            Self::Storable => 1.1,
            Self::NoStore => 2.1,
        }
    }
}

/// One crowd and what it saw.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Crowd {
    /// For what.
    pub(crate) object: Object,
    /// Right answers.
    pub(crate) answered: usize,
    /// Clients.
    pub(crate) clients: usize,
    /// Seconds until the first answer.
    pub(crate) first_s: f64,
    /// Until half of them were there.
    pub(crate) median_s: f64,
    /// Until the last.
    pub(crate) last_s: f64,
    /// Requests that reached the origin.
    pub(crate) origin_requests: u64,
    /// One of the failures, if there was any.
    pub(crate) trouble: Option<String>,
}

/// Measures all targets, one crowd after the other.
pub(super) fn measure(
    workload: &Workload,
    options: &Options,
    field: &mut Field<'_>,
    origin: &Origin,
) -> Outcome<WorkloadReport> {
    let mut measured = WorkloadReport::new(workload, options);
    if !origin.has_slow_paths() {
        measured.note("not measured: the origin has no echo module for nginx to be slow with".to_owned());
        return Ok(measured);
    }
    let indices = field.start_for(workload, &mut measured);
    for number in 0..options.rounds.min(CROWDS_MAX) {
        for object in Object::ALL {
            for &index in &indices {
                let target = &field.running[index];
                match gather(target, object, origin, number) {
                    Ok(crowd) => measured.add_crowd(target.kind, crowd),
                    Err(trouble) => measured.fail(target.kind, trouble.to_string()),
                }
            }
        }
    }
    Ok(measured)
}

fn gather(target: &Target, object: Object, origin: &Origin, number: u32) -> Outcome<Crowd> {
    let path = format!("{}{}-{number}", object.prefix(), SystemClock.now().as_nanos());
    let body = origin::expected_body(&path).unwrap_or_default();
    let before = origin.requests()?;
    let mut seen = crowd::ask(target.port, &path, CLIENTS, &body)?;
    let origin_requests = origin.requests()?.saturating_sub(before + 1);
    let at = |place: usize| seen.after.get(place).map_or(f64::NAN, |after| after.as_secs_f64());
    let answered = seen.after.len();
    if answered == 0 {
        let why = seen.troubles.pop().unwrap_or_else(|| Trouble::Wrong("no client".to_owned()));
        return Err(Trouble::Wrong(format!("{}: no right answer: {why}", object.name())));
    }
    Ok(Crowd {
        object,
        answered,
        clients: CLIENTS,
        first_s: at(0),
        median_s: at(answered / 2),
        last_s: at(answered - 1),
        origin_requests,
        trouble: seen.troubles.first().map(ToString::to_string),
    })
}
