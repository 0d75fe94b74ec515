//! The suite `faults`: what clients notice when processes die, hang or are replaced under load, many times.
//!
//! ```text
//! beltway run ── cop ── manager ── server      16 kept + 4 reconnecting clients, 20,000 requests/s
//!       └─────────┴── kill -9, SIGSTOP ───┘     idle clients and a long download, for planned changes
//! ```
//!
//! Read [`event`] for what is done and what it may cost, `blow`, `planned` and `hardship` for how, and [`judge`] for how a failed
//! request is classified.

mod blow;
mod event;
mod fill;
mod hardship;
mod judge;
mod planned;
mod report;
mod tree;
mod witness;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base::{Clock, Rng, SystemClock};

use crate::error::{Doing, Outcome};
use crate::lab::{self, Lab};
use crate::load::paced::{Paced, Plan};
use crate::origin::Origin;
use crate::target;

use event::{Event, Hardship, Planned};
use report::Series;
use tree::{Setup, Tree};
use witness::{SlowOrigin, Witnesses};

/// How often the processes are looked at while they come back.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Everything that is measured unless something else is asked for.
const ALL: &str = "server,manager,cop,manager+cop,random*50,stub,manager+server,stop-server,spin,block,stop-manager,stop-cop,\
                   reload,restart,upgrade,crash*5,wrong,port,busy*1";

/// What the command line says.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// What is done: server, manager, cop (killed; several at once joined by +), random (manager, cop or both), stub,
    /// stop-ROLE, spin, block (one event thread), reload, restart, upgrade, crash (at every start), wrong (file),
    /// port (taken), busy (other processes, a minute); *N says how often
    #[arg(long, value_delimiter = ',', default_value = ALL)]
    events: Vec<String>,
    /// How often each, where it is not said
    #[arg(long, visible_alias = "repeat", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// MiB of cache in memory, filled before each event; 0: none
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(0..=1_048_576))]
    cache: u64,
    /// With a server that stands by
    #[arg(long)]
    standby: bool,
    /// Event threads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Clients that keep their connection
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kept: u32,
    /// Clients that make a new connection for each request
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    reconnecting: u32,
    /// Clients that idle on a kept connection during planned changes
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    idle: u32,
    /// How long the download during planned changes takes, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=50))]
    download: u64,
    /// Requests per second of all clients together
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Also writes everything measured to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Beltway's binary; default: the one beside this program, brought up to date by cargo
    #[arg(long)]
    beltway: Option<PathBuf>,
    /// The core for Beltway
    #[arg(long, default_value_t = 0)]
    proxy_core: usize,
    /// The core for clients, origin and this program
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Keeps the directory with configuration and logs
    #[arg(long)]
    keep: bool,
}

/// Runs the suite and prints its table. True when no connection was refused, no request lost beyond excuse, and every
/// bound kept.
pub(crate) fn run(options: &Options) -> Outcome<bool> {
    let events: Outcome<Vec<_>> = options.events.iter().map(|name| Event::parse(name)).collect();
    let events = events?;
    let binary = match &options.beltway {
        Some(path) => fs::canonicalize(path).doing(path.display())?,
        None => target::build_beltway()?,
    };
    let lab = Lab::open(options.proxy_core, options.load_core, options.keep)?;
    let binary = lab.copy_of(&binary)?;
    let origin = Origin::start(&lab)?;
    let lasts = Duration::from_secs(options.download);
    let slow_origin = SlowOrigin::start(lasts)?;
    let setup = Setup {
        port: lab::free_port()?,
        page: lab::free_port()?,
        origin: origin.port,
        slow_origin: slow_origin.port,
        threads: options.threads,
        cache_mib: options.cache,
        standby: options.standby,
    };
    let mut tree = Tree::start(&lab, &binary, setup)?;
    let plan = Plan {
        port: setup.port,
        path: if options.cache > 0 { "/c/1k" } else { "/pass/1k" }.to_owned(),
        kept: options.kept,
        reconnecting: options.reconnecting,
        rate: options.rate,
    };
    let clients = Paced::start(&plan)?;
    let mut chance = Rng::new(SystemClock.wall().as_micros().unsigned_abs());
    let mut all = Vec::new();
    for (event, times) in &events {
        let mut series = Series::new(event, event.goal(options.standby));
        let times = times.unwrap_or(options.repetitions);
        let begun = SystemClock.now();
        let outcome = match event {
            Event::Hardship(hardship) => endure_often(*hardship, times, &tree, &clients, &mut series),
            Event::Planned(planned) => plan_changes(*planned, times, &tree, &clients, setup, options, &mut series),
            _ => strike_often(event, times, &mut tree, &clients, setup, &mut chance, &mut series),
        };
        if let Err(trouble) = outcome {
            series.trouble = Some(format!("after {} times: {trouble}", series.repetitions.len()));
            println!("FAULT {}: {trouble}\n{}", series.event, tree.last_words());
        }
        eprintln!(
            "{}: {} of {times} times in {:.0} s",
            series.event,
            series.repetitions.len(),
            (SystemClock.now() - begun).as_secs_f64()
        );
        all.push(series);
        if tree.wait_until_whole(blow::RETURN_PATIENCE).is_err() {
            println!("FAULT the processes are not well any more: nothing else is tried");
            break;
        }
    }
    drop(clients);
    print!("{}", report::table(&all, options));
    for series in &all {
        for fault in series.faults() {
            println!("FAULT {}: {fault}", series.event);
        }
    }
    report::write_json(&all, options)?;
    Ok(all.iter().all(Series::holds))
}

fn strike_often(
    event: &Event,
    times: u32,
    tree: &mut Tree<'_>,
    clients: &Paced,
    setup: Setup,
    chance: &mut Rng,
    series: &mut Series,
) -> Outcome<()> {
    for _ in 0..times {
        fill::fill(tree, setup.port, setup.cache_mib)?;
        series.repetitions.push(blow::strike(event, tree, clients, setup.page, chance)?);
    }
    Ok(())
}

fn endure_often(hardship: Hardship, times: u32, tree: &Tree<'_>, clients: &Paced, series: &mut Series) -> Outcome<()> {
    for _ in 0..times {
        series.repetitions.push(hardship::endure(hardship, tree, clients)?);
    }
    Ok(())
}

fn plan_changes(
    planned: Planned,
    times: u32,
    tree: &Tree<'_>,
    clients: &Paced,
    setup: Setup,
    options: &Options,
    series: &mut Series,
) -> Outcome<()> {
    tree.wait_until_whole(blow::RETURN_PATIENCE)?;
    fill::fill(tree, setup.port, setup.cache_mib)?;
    let idle = usize::try_from(options.idle).unwrap_or(usize::MAX);
    let witnesses = Witnesses::call(setup.port, idle, "/long/", Duration::from_secs(options.download))?;
    planned::run(planned, times, tree, clients, witnesses, series)
}
