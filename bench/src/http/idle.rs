//! The workload `idle`: how much memory a connection costs that did one request and stays open.
//!
//! Every target is started afresh. Memory is that of all its processes, user space only: what the kernel holds for a
//! socket is the same for all.

use std::thread::sleep;
use std::time::Duration;

use serde::Serialize;

use super::report::WorkloadReport;
use super::workload::Workload;
use super::{Field, Options};
use crate::account::Memory;
use crate::error::{Outcome, Trouble};
use crate::load::held::Held;
use crate::target::{Caching, Target};

/// Connections used and closed before the first look, so that what is allocated once is not counted.
const WARM_UP_CONNECTIONS: usize = 64;
/// Between the last event and a look at the memory: lingering threads have parked, freed pages are returned.
const SETTLE: Duration = Duration::from_millis(1500);

/// Memory around the held connections.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Idle {
    /// How many connections were held.
    pub(crate) connections: usize,
    /// How many of them were still open when memory was read.
    pub(crate) living: usize,
    /// Before the first.
    pub(crate) before: Memory,
    /// While all are open and idle.
    pub(crate) held: Memory,
    /// After each was used once more.
    pub(crate) used_again: Memory,
    /// After all were closed.
    pub(crate) closed: Memory,
}

impl Idle {
    /// Growth of resident memory per held connection, in bytes.
    pub(crate) fn bytes_each(&self) -> f64 {
        self.growth(self.held.rss_kib)
    }

    /// The same after each connection was used twice.
    pub(crate) fn bytes_each_used_again(&self) -> f64 {
        self.growth(self.used_again.rss_kib)
    }

    /// What remains of it when all are closed.
    pub(crate) fn bytes_each_closed(&self) -> f64 {
        self.growth(self.closed.rss_kib)
    }

    fn growth(&self, now_kib: u64) -> f64 {
        (now_kib as f64 - self.before.rss_kib as f64) * 1024.0 / self.connections as f64
    }
}

/// Measures floor and all targets, one after the other.
pub(super) fn measure(workload: &Workload, options: &Options, field: &Field<'_>) -> Outcome<WorkloadReport> {
    let mut measured = WorkloadReport::new(workload, options);
    let path = workload.paths.sample();
    let count = options.connections as usize;
    for floor in workload.floors(field.around.origin)? {
        let floor = Target::start_floor(&floor, &path, field.around)?;
        measured.add_idle(floor.kind, hold(&floor, &path, count)?);
    }
    for kind in field.kinds_for(workload) {
        match Target::start(kind, Caching::No, field.around) {
            Ok(target) => match hold(&target, &path, count) {
                Ok(idle) => measured.add_idle(kind, idle),
                Err(trouble) => measured.fail(kind, trouble.to_string()),
            },
            Err(trouble) => measured.skip(kind, trouble.to_string()),
        }
    }
    Ok(measured)
}

fn hold(target: &Target, path: &str, count: usize) -> Outcome<Idle> {
    drop(Held::open(target.port, path, WARM_UP_CONNECTIONS)?);
    sleep(SETTLE);
    let look = || Memory::of(&target.processes());
    let before = look();
    let mut connections = Held::open(target.port, path, count)?;
    sleep(SETTLE);
    let held = look();
    let living = connections.living();
    connections.use_again()?;
    sleep(SETTLE);
    let used_again = look();
    drop(connections);
    sleep(SETTLE);
    let closed = look();
    if before.rss_kib == 0 || closed.rss_kib == 0 {
        return Err(Trouble::Wrong("it ended under the connections".to_owned()));
    }
    Ok(Idle { connections: count, living, before, held, used_again, closed })
}
