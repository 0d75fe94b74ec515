//! The suite `kv`: what a command costs through Beltway, through nutcracker, and without a proxy, interleaved.
//!
//! ```text
//! core 0: the proxy whose turn it is (the other is up, idle)        core 1: servers, load, this program
//! ```
//!
//! Read [`cells`] for what is asked of whom and what it is to come to, [`memory`] and [`faults`] for what is no
//! throughput, [`report`] for how it is said.

mod cells;
mod faults;
mod memory;
mod proxies;
mod report;
mod stores;

use std::path::PathBuf;
use std::time::Duration;

use kv::Protocol;

use crate::error::Outcome;
use crate::lab::Lab;
use cells::Cell;
use proxies::{Kind, Proxy, Setup};
use report::Report;
use stores::Store;

/// Redis servers, and memcached servers.
const SERVERS: (usize, usize) = (4, 2);

/// What the command line says.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only rows whose name contains one of these texts, or is it where the text begins with `=`; `;` divides them
    #[arg(long, value_delimiter = ';')]
    only: Vec<String>,
    /// Rounds; every target takes one turn in each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Milliseconds of a turn where this program is the load
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    turn_ms: u64,
    /// Beltway: its binary, or the engine's example program `proxy`; default: the binary, brought up to date
    #[arg(long)]
    beltway: Option<PathBuf>,
    /// The core for the proxies
    #[arg(long, default_value_t = 0)]
    proxy_core: usize,
    /// The core for servers, load and this program
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Keeps the directory with configurations and logs
    #[arg(long)]
    keep: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty()
            || self.only.iter().any(|text| match text.strip_prefix('=') {
                Some(whole) => name == whole,
                None => name.contains(text.as_str()),
            })
    }
}

/// Everything a row may need.
struct Field {
    lab: Lab,
    beltway: PathBuf,
    redis: Vec<Store>,
    memcached: Vec<Store>,
    rounds: u32,
}

impl Field {
    fn stores(&self, protocol: Protocol) -> &[Store] {
        match protocol {
            Protocol::Redis => &self.redis,
            Protocol::Memcached => &self.memcached,
        }
    }

    fn start(&self, kind: Kind, setup: &Setup) -> Outcome<Proxy> {
        Proxy::start(&self.lab, &self.beltway, kind, setup, self.stores(setup.protocol), None)
    }
}

/// Runs the suite and prints its tables. True when all was reached.
pub(crate) fn run(options: &Options) -> Outcome<bool> {
    let beltway = match &options.beltway {
        Some(path) => path.clone(),
        None => crate::target::build_beltway()?,
    };
    let lab = Lab::open(options.proxy_core, options.load_core, options.keep)?;
    let beltway = lab.copy_of(&beltway)?;
    let start = |count: usize, protocol| (0..count).map(|_| Store::start(&lab, protocol)).collect::<Outcome<Vec<_>>>();
    let (redis, memcached) = (start(SERVERS.0, Protocol::Redis)?, start(SERVERS.1, Protocol::Memcached)?);
    let mut field = Field { lab, beltway, redis, memcached, rounds: options.rounds };
    let mut report = Report::default();
    let length = Duration::from_millis(options.turn_ms);
    report.begin();
    for cell in cells::all().iter().filter(|cell| options.wants(cell.name)) {
        report.cell(cell, measure(cell, &field, length));
    }
    report.begin_other();
    for (name, measure) in memory::ROWS.iter().filter(|(name, _)| options.wants(name)) {
        report.rows(name, measure(&field));
    }
    for (name, measure) in faults::ROWS.iter().filter(|(name, _)| options.wants(name)) {
        report.rows(name, measure(&mut field));
    }
    report.close();
    Ok(report.all_reached())
}

/// One row: every target takes a turn in each round, and each round begins with another.
fn measure(cell: &Cell, field: &Field, length: Duration) -> Outcome<Vec<cells::Turn>> {
    let mut targets = Vec::new();
    let lengths = cell.lengths();
    let stores = field.stores(cell.setup.protocol);
    stores.iter().try_for_each(|store| store.bind(&field.lab, cell.setup.pinned))?;
    let takes_part = |kind: &Kind| match kind {
        Kind::Floor => lengths.is_some(),
        Kind::Single | Kind::FloorSingle => matches!(cell.target, cells::Target::OverSingle(..)),
        Kind::Direct | Kind::Nutcracker | Kind::Beltway => true,
    };
    for kind in Kind::ALL.into_iter().filter(takes_part) {
        targets.push((kind, Proxy::start(&field.lab, &field.beltway, kind, &cell.setup, stores, lengths)?));
    }
    for (kind, proxy) in &targets {
        // The placement is the same through both proxies; the server alone has what was put there directly.
        if matches!(kind, Kind::Direct | Kind::Beltway) {
            cells::fill(proxy.port, cell.setup.protocol, cell.size)?;
        }
    }
    let mut turns = Vec::new();
    for round in 0..field.rounds as usize {
        for place in 0..targets.len() {
            let (kind, proxy) = &targets[(round + place) % targets.len()];
            turns.push(cells::take(cell, *kind, proxy, &field.lab, length)?);
        }
    }
    Ok(turns)
}
