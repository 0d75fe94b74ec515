//! The suite `http`: throughput and cost of proxying and caching, against floors and peers, interleaved.
//!
//! ```text
//! core 0: the target whose turn it is (the others are up, idle)        core 1: wrk, origin, this program
//! ```
//!
//! Every target takes one turn in every round, and each round begins with another target. Read [`run`], then
//! [`workload`] for what is asked and [`turn`] for what one turn measures. Not loaded but held, crowded and probed are
//! [`idle`], [`collapsing`] and [`allocations`].

mod allocations;
mod collapsing;
mod idle;
mod report;
mod summary;
mod turn;
mod workload;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Doing, Outcome, Trouble};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::origin::Origin;
use crate::target::{self, Caching, Kind, Surroundings, Target};

use report::{Report, WorkloadReport};
use workload::{Measure, Workload};

/// What the command line says.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Peers to compare with: nginx, haproxy, varnish, ats; `none` for none. One that is not installed is skipped
    #[arg(long, value_delimiter = ',', default_value = "nginx,haproxy,varnish,ats")]
    against: Vec<String>,
    /// Workloads, see docs/benchmarks.md: pass1k, passclose, idle (together `pass`); hit1k, hit16k, rand4k, miss, close1k,
    /// hit1m, hitlog, collapse, allocations (together `cache`); `all` for all
    #[arg(long, value_delimiter = ',', default_value = "cache")]
    workloads: Vec<String>,
    /// Rounds; every target takes one turn in each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load in one turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Connections held open by `idle`
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=15000))]
    connections: u32,
    /// Also writes everything measured to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Beltway's binary; default: the one beside this program, brought up to date by cargo
    #[arg(long)]
    beltway: Option<PathBuf>,
    /// Leaves Beltway out: floors and peers only
    #[arg(long)]
    no_beltway: bool,
    /// Does not count system calls (needs perf and the right to use it)
    #[arg(long)]
    no_syscalls: bool,
    /// The core for whatever is measured
    #[arg(long, default_value_t = 0)]
    proxy_core: usize,
    /// The core for load, origin and this program
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Keeps the directory with configurations and logs
    #[arg(long)]
    keep: bool,
}

impl Options {
    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Runs the suite and prints its tables. True when every check held.
pub(crate) fn run(options: &Options) -> Outcome<bool> {
    let workloads = workload::chosen(&options.workloads)?;
    let mut kinds = Vec::new();
    for name in options.against.iter().filter(|name| *name != "none") {
        kinds.push(Kind::peer(name)?);
    }
    let beltway = find_beltway(options);
    if !options.no_beltway {
        kinds.insert(0, Kind::Beltway);
    }
    let lab = Lab::open(options.proxy_core, options.load_core, options.keep)?;
    let beltway = beltway.map(|program| lab.copy_of(&program)).transpose()?;
    let origin = Origin::start(&lab)?;
    let around = Surroundings { lab: &lab, origin: origin.port, beltway };

    let mut report = Report::new(Machine::look(), options);
    let mut field = Field { around: &around, kinds, running: Vec::new(), skipped: Vec::new(), versions: Vec::new() };
    for workload in &workloads {
        let measured = match workload.measure {
            Measure::Load => measure(workload, options, &mut field, &origin)?,
            Measure::Idle => idle::measure(workload, options, &field)?,
            Measure::Collapsing => collapsing::measure(workload, options, &mut field, &origin)?,
            Measure::Allocations => allocations::measure(workload, options, &mut field)?,
        };
        print!("{measured}");
        report.add(measured);
    }
    for (kind, version) in &field.versions {
        report.name_version(*kind, version);
    }
    print!("{}", report.closing());
    if let Some(path) = &options.json {
        fs::write(path, report.json()?).doing(path.display())?;
    }
    Ok(report.all_checks_held())
}

fn find_beltway(options: &Options) -> Option<PathBuf> {
    if options.no_beltway {
        return None;
    }
    if let Some(path) = &options.beltway {
        return Some(fs::canonicalize(path).unwrap_or_else(|_| path.clone()));
    }
    target::build_beltway().inspect_err(|trouble| eprintln!("bench: beltway: {trouble}")).ok()
}

/// The programs that take part, started when a workload first needs them and kept up while the next needs the same.
struct Field<'a> {
    around: &'a Surroundings<'a>,
    kinds: Vec<Kind>,
    running: Vec<Target>,
    skipped: Vec<(Kind, Caching, String)>,
    versions: Vec<(Kind, String)>,
}

impl Field<'_> {
    /// The programs that take part in a workload.
    fn kinds_for(&self, workload: &Workload) -> Vec<Kind> {
        let buffered = self.kinds.contains(&Kind::Nginx).then_some(Kind::NginxBuffered);
        self.kinds.iter().copied().chain(buffered).filter(|kind| workload.takes(*kind)).collect()
    }

    /// Starts those that take part in a workload, ends those configured otherwise, and says where each runs.
    fn start_for(&mut self, workload: &Workload, measured: &mut WorkloadReport) -> Vec<usize> {
        self.running.retain(|target| target.caching == workload.caching);
        let mut indices = Vec::new();
        for kind in self.kinds_for(workload) {
            match self.ensure(kind, workload.caching) {
                Ok(index) => indices.push(index),
                Err(why) => measured.skip(kind, why),
            }
        }
        indices
    }

    /// Starts the program unless it is up. Pass-through is measured without a cache configured: an instance for each.
    fn ensure(&mut self, kind: Kind, caching: Caching) -> Result<usize, String> {
        let serves = |target: &Target| target.kind == kind && target.caching == caching;
        if let Some(index) = self.running.iter().position(serves) {
            return if self.running[index].has_ended() { Err("has ended".to_owned()) } else { Ok(index) };
        }
        if let Some((_, _, why)) = self.skipped.iter().find(|(of, with, _)| *of == kind && *with == caching) {
            return Err(why.clone());
        }
        match Target::start(kind, caching, self.around) {
            Ok(target) => {
                self.versions.push((kind, target.version.clone()));
                self.running.push(target);
                Ok(self.running.len() - 1)
            }
            Err(trouble) => {
                self.skipped.push((kind, caching, trouble.to_string()));
                Err(trouble.to_string())
            }
        }
    }
}

/// One workload that wrk loads: floor and all targets, interleaved.
fn measure(workload: &Workload, options: &Options, field: &mut Field<'_>, origin: &Origin) -> Outcome<WorkloadReport> {
    let mut measured = WorkloadReport::new(workload, options);
    let mut floors = Vec::new();
    for floor in workload.floors(origin.port)? {
        floors.push(Target::start_floor(&floor, &workload.paths.sample(), field.around)?);
    }
    let indices = field.start_for(workload, &mut measured);
    let mut entrants: Vec<&Target> = floors.iter().collect();
    entrants.extend(indices.iter().map(|&index| &field.running[index]));
    // Checks and warm-up: caches filled, origin connections made; whoever is wrong here does not take part.
    entrants.retain(|target| match turn::prepare(workload, target, field.around, origin) {
        Ok(()) => true,
        Err(Trouble::NotBuilt(what)) => {
            measured.skip(target.kind, format!("not built yet: {what}"));
            false
        }
        Err(trouble) => {
            measured.fail(target.kind, trouble.to_string());
            false
        }
    });
    for round in 0..options.rounds {
        for place in 0..entrants.len() {
            let target = entrants[(place + round as usize) % entrants.len()];
            match turn::take(workload, target, round, options.length(), field.around, origin) {
                Ok(turn) => measured.add_turn(target.kind, turn),
                Err(trouble) => measured.fail(target.kind, trouble.to_string()),
            }
        }
    }
    for target in entrants {
        if !options.no_syscalls {
            match turn::count_syscalls(workload, target, field.around) {
                Ok(counts) => measured.add_counts(target.kind, counts),
                Err(trouble) => measured.note(format!("{}: system calls not counted: {trouble}", target.kind)),
            }
        }
        if let Err(trouble) = turn::check_answer(workload, target) {
            measured.fail(target.kind, format!("after the load: {trouble}"));
        }
    }
    Ok(measured)
}
