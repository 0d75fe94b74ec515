//! The workload `allocations`: how often the real program asks its allocator for memory, per request in the steady state.
//!
//! Beltway alone, since only its allocator is known. Of requests that must do without, a second is counted from the middle
//! of a longer load, so that no connection is made or closed within it; of the others a whole load, for a probe that is
//! hit slows the program down. What it allocates in a second without any request is counted, too.

use std::thread::{Builder, scope, sleep};
use std::time::Duration;

use serde::Serialize;

use super::report::WorkloadReport;
use super::workload::{self, Workload};
use super::{Field, Options, turn};
use crate::allocator::Probes;
use crate::error::{Doing, Outcome, Trouble};
use crate::load::wrk::Paths;
use crate::target::{Kind, Target};

/// The whole load.
const LOAD: Duration = Duration::from_secs(4);
/// Load before counting: connections are made, pools and tables have grown.
const WARM_UP: Duration = Duration::from_secs(1);
/// The time that is counted.
const COUNTING: Duration = Duration::from_secs(1);
/// The workloads whose requests are counted, and whether they must do without.
const COUNTED: [(&str, bool); 6] =
    [("hit1k", true), ("hit16k", true), ("rand4k", true), ("hit1m", true), ("close1k", false), ("miss", false)];
/// How many calls more than at rest house-keeping may make within the second.
const HOUSEKEEPING_MAX: f64 = 20.0;

/// Allocations during one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Allocations {
    /// The workload.
    pub(crate) name: &'static str,
    /// Requests answered in the time that was counted.
    pub(crate) requests: f64,
    /// Calls of the allocator meanwhile.
    pub(crate) calls: f64,
    /// Calls of each entry.
    pub(crate) entries: Vec<(String, f64)>,
    /// Calls in a second without a request.
    pub(crate) calls_at_rest: f64,
    /// Whether requests must do without.
    pub(crate) must_be_none: bool,
}

impl Allocations {
    /// Per request.
    pub(crate) fn each(&self) -> f64 {
        self.calls / self.requests
    }

    /// Whether there were none but those of house-keeping.
    pub(crate) fn is_none(&self) -> bool {
        self.calls <= HOUSEKEEPING_MAX + self.calls_at_rest
    }
}

/// Counts the allocations of Beltway.
pub(super) fn measure(workload: &Workload, options: &Options, field: &mut Field<'_>) -> Outcome<WorkloadReport> {
    let mut measured = WorkloadReport::new(workload, options);
    let indices = field.start_for(workload, &mut measured);
    let Some(target) = indices.iter().map(|&index| &field.running[index]).find(|target| target.kind == Kind::Beltway)
    else {
        return Ok(measured);
    };
    let probes = match Probes::set(field.around.lab, &target.program) {
        Ok(probes) => probes,
        Err(trouble) => {
            measured.note(format!("allocations not counted: {trouble}"));
            return Ok(measured);
        }
    };
    let at_rest = match probes.count(&target.processes(), rest) {
        Ok((entries, ())) => sum(&entries),
        Err(trouble) => {
            measured.note(format!("allocations not counted: {trouble}"));
            return Ok(measured);
        }
    };
    for (name, must_be_none) in COUNTED {
        let counted = workload::chosen(&[name.to_owned()])?;
        for workload in &counted {
            match count(workload, target, field, &probes, must_be_none) {
                Ok(counted) => {
                    measured.add_allocations(target.kind, Allocations { calls_at_rest: at_rest, ..counted });
                }
                Err(trouble) => measured.fail(target.kind, format!("{name}: {trouble}")),
            }
        }
    }
    Ok(measured)
}

/// As long as is counted, without doing anything.
fn rest() -> Outcome<()> {
    sleep(COUNTING);
    Ok(())
}

fn sum(entries: &[(String, f64)]) -> f64 {
    entries.iter().map(|(_, calls)| calls).sum()
}

/// What one workload's requests allocate; what there is at rest is the caller's to add.
fn count(
    workload: &Workload,
    target: &Target,
    field: &Field<'_>,
    probes: &Probes<'_>,
    must_be_none: bool,
) -> Outcome<Allocations> {
    let lab = field.around.lab;
    turn::check_answer(workload, target)?;
    if let Paths::Random(prefix, count) = workload.paths {
        turn::fill(target, prefix, count)?;
    }
    let pids = target.processes();
    let (entries, requests) = if must_be_none {
        scope(|scope| {
            let load = Builder::new().spawn_scoped(scope, || turn::load(workload, target, LOAD).run(lab));
            let load = load.doing("a thread for the load")?;
            sleep(WARM_UP);
            let counted = probes.count(&pids, rest);
            let seen = load.join().map_err(|_| Trouble::Wrong("the load's thread panicked".to_owned()))??;
            // An estimate: that holds as long as there is nothing that the probes could slow down.
            let each_second = seen.requests as f64 / seen.seconds;
            Ok::<_, Trouble>((counted?.0, each_second * COUNTING.as_secs_f64()))
        })?
    } else {
        turn::load(workload, target, WARM_UP).run(lab)?;
        let (entries, seen) = probes.count(&pids, || turn::load(workload, target, COUNTING).run(lab))?;
        (entries, seen.requests as f64)
    };
    Ok(Allocations { name: workload.name, requests, calls: sum(&entries), entries, calls_at_rest: 0.0, must_be_none })
}
