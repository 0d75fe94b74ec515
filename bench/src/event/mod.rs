//! What the event system costs, beside tokio's current-thread runtime and a bare eventfd, in one process.
//!
//! Every round measures everything once, one after the other, so that whatever else the machine does hits all alike; the
//! table gives medians. What one thread does alone is measured in its processor time, what several do in real time.
//! Nothing here opens a socket.

mod cross;
mod local;
mod memory;
mod timers;
mod wake;

use std::path::PathBuf;
use std::time::Duration;

use base::{Clock, SystemClock};
use clap::Args;
use event::{Thread, ThreadOptions};

use crate::error::{Doing, Outcome};
use crate::table::{Table, median, spread};

/// How to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Interleaved rounds; the table gives medians
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    /// Also writes all values as JSON into this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measures only figures whose name holds this text
    #[arg(long)]
    only: Option<String>,
    /// Measures memory alone, in a process that did nothing before, and prints one number
    #[arg(long, hide = true)]
    memory: Option<memory::Whose>,
}

/// What is reached for.
#[derive(Clone, Copy)]
enum Reach {
    /// Nothing: it is shown for comparison.
    Shown,
    /// At most so many.
    AtMost(f64),
    /// At most so much of another figure, by its place in the table.
    Ratio(&'static str, f64),
    /// Both.
    Both(f64, &'static str, f64),
}

/// One line of the table.
struct Figure {
    name: &'static str,
    unit: &'static str,
    reach: Reach,
    measure: fn() -> Outcome<f64>,
}

const FIGURES: &[Figure] = &[
    Figure {
        name: "local: schedule_imm + deliver",
        unit: "ns",
        reach: Reach::Both(40.0, "tokio: spawn_local + yield", 0.7),
        measure: local::schedule,
    },
    Figure {
        name: "local: the same, watched by beat and numbers",
        unit: "ns",
        reach: Reach::Ratio("local: schedule_imm + deliver", 1.2),
        measure: local::schedule_watched,
    },
    Figure {
        name: "local: spawn + yield",
        unit: "ns",
        reach: Reach::Ratio("tokio: spawn_local + yield", 0.7),
        measure: local::spawn,
    },
    Figure { name: "tokio: spawn_local + yield", unit: "ns", reach: Reach::Shown, measure: local::tokio_spawn },
    Figure {
        name: "across: channel send + deliver, batches of 64",
        unit: "ns",
        reach: Reach::Both(120.0, "tokio: mpsc send + receive, batches of 64", 0.7),
        measure: cross::channel,
    },
    Figure {
        name: "across: schedule_imm + deliver, batches of 64",
        unit: "ns",
        reach: Reach::Both(120.0, "tokio: mpsc send + receive, batches of 64", 0.7),
        measure: cross::schedule,
    },
    Figure {
        name: "across: the same, action kept and asked, batches of 64",
        unit: "ns",
        reach: Reach::Shown,
        measure: cross::schedule_and_keep,
    },
    Figure {
        name: "across: schedule_imm on a group + deliver, batches of 64",
        unit: "ns",
        reach: Reach::Shown,
        measure: cross::schedule_on_group,
    },
    Figure {
        name: "tokio: mpsc send + receive, batches of 64",
        unit: "ns",
        reach: Reach::Shown,
        measure: cross::tokio_mpsc,
    },
    Figure {
        name: "wake-up of an idle thread, p50",
        unit: "ns",
        reach: Reach::Ratio("bare eventfd ping-pong, p50", 1.1),
        measure: wake::threads,
    },
    Figure { name: "bare eventfd ping-pong, p50", unit: "ns", reach: Reach::Shown, measure: wake::bare },
    Figure {
        name: "timer: insert + cancel, 10 pending",
        unit: "ns",
        reach: Reach::Both(40.0, "tokio: sleep + drop, 10 pending", 0.5),
        measure: || timers::ours(10),
    },
    Figure {
        name: "timer: insert + cancel, 1,000,000 pending",
        unit: "ns",
        reach: Reach::Both(40.0, "tokio: sleep + drop, 1,000,000 pending", 0.5),
        measure: || timers::ours(1_000_000),
    },
    Figure {
        name: "timer: sleep + drop, 10 pending",
        unit: "ns",
        reach: Reach::Ratio("tokio: sleep + drop, 10 pending", 0.5),
        measure: || timers::sleeps(10),
    },
    Figure {
        name: "tokio: sleep + drop, 10 pending",
        unit: "ns",
        reach: Reach::Shown,
        measure: || timers::tokio_sleeps(10),
    },
    Figure {
        name: "tokio: sleep + drop, 1,000,000 pending",
        unit: "ns",
        reach: Reach::Shown,
        measure: || timers::tokio_sleeps(1_000_000),
    },
    Figure {
        name: "a turn with 1,000,000 pending, less one with none",
        unit: "ns",
        reach: Reach::AtMost(100.0),
        measure: timers::turn_beside_a_million,
    },
    Figure {
        name: "memory of an idle future, beyond its size",
        unit: "B",
        reach: Reach::AtMost(64.0),
        measure: || memory::beyond_size(memory::Whose::Ours),
    },
    Figure {
        name: "tokio: the same",
        unit: "B",
        reach: Reach::Shown,
        measure: || memory::beyond_size(memory::Whose::Tokio),
    },
];

/// Measures everything and prints the table. Says whether every reach was reached.
pub(crate) fn run(options: &Options) -> Outcome<bool> {
    if let Some(whose) = options.memory {
        println!("{}", memory::here(whose)?);
        return Ok(true);
    }
    let wanted = |figure: &&Figure| options.only.as_ref().is_none_or(|only| figure.name.contains(only.as_str()));
    let figures: Vec<&Figure> = FIGURES.iter().filter(wanted).collect();
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); figures.len()];
    for round in 1..=options.rounds {
        eprintln!("bench: event: round {round} of {}", options.rounds);
        for (figure, values) in figures.iter().zip(&mut values) {
            values.push((figure.measure)()?);
        }
    }
    let of = |name: &str| figures.iter().position(|figure| figure.name == name).map(|at| median(&values[at]));
    let mut table = Table::new(&["figure", "median", "spread", "reach", "reached"]);
    let mut json = Vec::new();
    let mut all = true;
    for (figure, values) in figures.iter().zip(&values) {
        let mine = median(values);
        let judge = |most: Option<f64>, ratio: Option<(&str, f64)>| {
            let mut words = Vec::new();
            let mut held = true;
            if let Some(most) = most {
                words.push(format!("≤ {most} {}", figure.unit));
                held &= mine <= most;
            }
            // The other may not have been asked for.
            if let Some((most, other)) = ratio.and_then(|(name, most)| Some((most, of(name)?))) {
                let is = mine / other;
                words.push(format!("≤ {most} × (is {is:.2})"));
                held &= is <= most;
            }
            (words.join(", "), Some(held))
        };
        let (reach, held) = match figure.reach {
            Reach::Shown => (String::new(), None),
            Reach::AtMost(most) => judge(Some(most), None),
            Reach::Ratio(name, most) => judge(None, Some((name, most))),
            Reach::Both(most, name, ratio) => judge(Some(most), Some((name, ratio))),
        };
        all &= held != Some(false);
        let verdict = held.map_or("", |held| if held { "yes" } else { "NO" });
        table.row(vec![
            figure.name.to_owned(),
            format!("{mine:.1} {}", figure.unit),
            format!("{:.0} %", spread(values).abs() * 100.0),
            reach,
            verdict.to_owned(),
        ]);
        json.push(serde_json::json!({
            "figure": figure.name, "unit": figure.unit, "median": mine, "rounds": values, "reached": held,
        }));
    }
    print!("{table}");
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&json).map_err(std::io::Error::other).doing(path.display())?;
        std::fs::write(path, text).doing(path.display())?;
    }
    Ok(all)
}

/// An event thread for the calling thread.
fn thread() -> Outcome<Thread> {
    Thread::new(ThreadOptions { name: "[BENCH]".to_owned(), index: 0, seed: 1 }).doing("an event thread")
}

/// Nanoseconds of processor time that `work` takes on the calling thread: what else the machine does is not in it.
fn processor_time(work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    };
    let begun = now();
    work()?;
    Ok((now() - begun).as_secs_f64() * 1e9)
}

/// Nanoseconds that `work` takes.
fn time(work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let begun = SystemClock.now();
    work()?;
    Ok((SystemClock.now() - begun).as_secs_f64() * 1e9)
}

/// How long a measurement between threads may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
