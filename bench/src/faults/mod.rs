//! The suite `faults`: `kill -9` of the processes under load, many times, and what clients notice of it.
//!
//! ```text
//! beltway run ── cop ── manager ── server      16 kept + 4 reconnecting clients, 20,000 requests/s
//!                 └──────── kill -9 ─────┘
//! ```
//!
//! Read [`Blow`] for what is done and [`judge`] for how a failed request is classified.

mod judge;
mod tree;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base::{Clock, SystemClock};
use serde::Serialize;

use crate::error::{Doing, Outcome, Trouble};
use crate::lab::{self, Lab};
use crate::load::paced::{Paced, Plan};
use crate::machine::Machine;
use crate::origin::Origin;
use crate::table::{Table, greatest, median};
use crate::target;

use judge::Toll;
use tree::{Role, Tree};

/// Load before each blow, with nothing failing.
const CALM: Duration = Duration::from_millis(300);
/// Load after all are back, so that late failures are seen too.
const AFTERMATH: Duration = Duration::from_millis(300);
/// How long the processes may take to come back.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);
/// How often the processes are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What the command line says.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// What is killed at once; also manager+server, server+cop and all three
    #[arg(long, value_delimiter = ',', default_value = "server,manager,cop,manager+cop")]
    events: Vec<String>,
    /// How often each
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// Clients that keep their connection
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kept: u32,
    /// Clients that make a new connection for each request
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    reconnecting: u32,
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

/// What is killed at the same moment.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blow {
    roles: Vec<Role>,
}

impl Blow {
    fn parse(name: &str) -> Outcome<Self> {
        let roles: Outcome<Vec<Role>> = name.split('+').map(Role::parse).collect();
        Ok(Self { roles: roles? })
    }

    fn strikes(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.roles.iter().map(|role| role.name()).collect();
        f.write_str(&names.join("+"))
    }
}

/// One repetition of one blow.
#[derive(Clone, Debug, Serialize)]
struct Repetition {
    #[serde(flatten)]
    toll: Toll,
    /// From the blow to the first answer on a new connection.
    first_new_answer_ms: f64,
    /// The longest time without any answer.
    longest_gap_ms: f64,
    /// The longest time the clients themselves did not get the processor.
    own_stall_ms: f64,
    /// From the blow until every killed process has a successor that `beltway status` calls well.
    back_ms: f64,
    /// Answers meanwhile.
    answers: u64,
}

/// All repetitions of one blow.
#[derive(Serialize)]
struct Series {
    event: String,
    repetitions: Vec<Repetition>,
    trouble: Option<String>,
}

/// Everything, for the JSON file.
#[derive(Serialize)]
struct Report<'a> {
    machine: Machine,
    rate: u32,
    kept: u32,
    reconnecting: u32,
    series: &'a [Series],
}

/// Runs the suite and prints its table. True when no connection was refused and no request lost beyond excuse.
pub(crate) fn run(options: &Options) -> Outcome<bool> {
    let blows: Outcome<Vec<Blow>> = options.events.iter().map(|name| Blow::parse(name)).collect();
    let blows = blows?;
    let binary = match &options.beltway {
        Some(path) => fs::canonicalize(path).doing(path.display())?,
        None => target::build_beltway()?,
    };
    let lab = Lab::open(options.proxy_core, options.load_core, options.keep)?;
    let binary = lab.copy_of(&binary)?;
    let origin = Origin::start(&lab)?;
    let port = lab::free_port()?;
    let tree = Tree::start(&lab, &binary, port, origin.port)?;
    let plan = Plan {
        port,
        path: "/pass/1k".to_owned(),
        kept: options.kept,
        reconnecting: options.reconnecting,
        rate: options.rate,
    };
    let clients = Paced::start(&plan)?;
    let mut all = Vec::new();
    for blow in &blows {
        let mut series = Series { event: blow.to_string(), repetitions: Vec::new(), trouble: None };
        for number in 0..options.repetitions {
            match strike(blow, &tree, &clients) {
                Ok(repetition) => series.repetitions.push(repetition),
                Err(trouble) => {
                    series.trouble = Some(format!("repetition {}: {trouble}", number + 1));
                    break;
                }
            }
        }
        all.push(series);
    }
    drop(clients);
    print!("{}", table(&all, options));
    for series in &all {
        if let Some(trouble) = &series.trouble {
            println!("FAULT kill -9 {}: {trouble}", series.event);
            println!("{}", tree.last_words());
        }
    }
    if let Some(path) = &options.json {
        let report = Report {
            machine: Machine::look(),
            rate: options.rate,
            kept: options.kept,
            reconnecting: options.reconnecting,
            series: &all,
        };
        let text = serde_json::to_string_pretty(&report).doing("writing JSON")?;
        fs::write(path, text).doing(path.display())?;
    }
    Ok(all.iter().all(|series| series.trouble.is_none() && series.repetitions.iter().all(|one| one.toll.is_clean())))
}

/// One blow and its aftermath.
fn strike(blow: &Blow, tree: &Tree<'_>, clients: &Paced) -> Outcome<Repetition> {
    let clock = SystemClock;
    let victims = tree.wait_until_whole(RETURN_PATIENCE)?;
    std::thread::sleep(CALM);
    let before = clients.seen();
    clients.begin_anew(clock.now());
    if before.answers == 0 {
        return Err(Trouble::Wrong("there were no answers even before the blow".to_owned()));
    }
    let begun = clock.now();
    for &role in &blow.roles {
        tree::kill(victims.pid_of(role)?)?;
    }
    let done = clock.now();
    // A connection made before the last signal was sent may belong to the dead.
    clients.count_as_new_from(done);

    let mut answered = None;
    lab::wait_until("the first answer on a new connection", RETURN_PATIENCE, || {
        answered = clients.seen().first_new_answer;
        answered.is_some()
    })?;
    let back = tree.wait_until_replaced(&victims, &blow.roles, RETURN_PATIENCE)?;
    std::thread::sleep(AFTERMATH);
    let seen = clients.seen();
    Ok(Repetition {
        toll: judge::judge(&seen.failures, begun, done, blow.strikes(Role::Server)),
        first_new_answer_ms: millis(answered.map_or(Duration::ZERO, |at| at - begun)),
        longest_gap_ms: millis(seen.longest_gap),
        own_stall_ms: millis(seen.longest_stall),
        back_ms: millis(back - begun),
        answers: seen.answers,
    })
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn table(all: &[Series], options: &Options) -> String {
    let mut table = Table::new(&[
        "kill -9",
        "times",
        "refused",
        "lost in flight",
        "stranded",
        "failed",
        "first new answer ms (most)",
        "longest gap ms (most)",
        "own stall ms (most)",
        "all back ms (most)",
    ]);
    for series in all {
        let sum =
            |count: fn(&Toll) -> u64| series.repetitions.iter().map(|one| count(&one.toll)).sum::<u64>().to_string();
        let over = |value: fn(&Repetition) -> f64| {
            let values: Vec<f64> = series.repetitions.iter().map(value).collect();
            if values.is_empty() {
                "-".to_owned()
            } else {
                format!("{:.1} ({:.1})", median(&values), greatest(&values))
            }
        };
        table.row(vec![
            series.event.clone(),
            series.repetitions.len().to_string(),
            sum(|toll| toll.refused),
            sum(|toll| toll.in_flight),
            sum(|toll| toll.stranded),
            sum(|toll| toll.failed),
            over(|one| one.first_new_answer_ms),
            over(|one| one.longest_gap_ms),
            over(|one| one.own_stall_ms),
            over(|one| one.back_ms),
        ]);
    }
    format!(
        "\n## faults: {} kept and {} reconnecting clients, at most {} requests/s\n\n{table}",
        options.kept, options.reconnecting, options.rate
    )
}
