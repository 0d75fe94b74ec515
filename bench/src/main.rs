//! The benchmark program: what Beltway costs, measured beside minimal servers and the peers on this machine.
//!
//! ```text
//! cargo run --release -p bench -- http      throughput and CPU per request, against floors and peers
//! cargo run --release -p bench -- faults    kill -9 of each process under load
//! cargo run --release -p bench -- kv        commands of Redis and memcached, beside nutcracker
//! cargo run --release -p bench -- event     the event system by itself, beside tokio and a bare eventfd
//! ```
//!
//! One module per suite ([`http`], [`kv`], [`faults`], [`event`]); what they share lies beside them: [`leash`] (children that cannot be left
//! behind), [`lab`] (directory and cores), [`origin`], [`target`] (how each program is configured), [`floors`] (the
//! minimal servers), [`load`], [`account`] and [`syscalls`] (what a target used). What the numbers mean is in
//! `docs/benchmarks.md`.

mod account;
mod allocator;
mod error;
mod event;
mod faults;
mod floors;
mod http;
mod kv;
mod lab;
mod leash;
mod load;
mod machine;
mod origin;
mod perf;
mod probe;
mod syscalls;
mod table;
mod target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Doing, Outcome};

/// The allocator of the product, for what is measured within this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Beltway against minimal servers and against the peers on this machine. Everything stays on 127.0.0.1.
#[derive(Parser)]
#[command(name = "bench", version)]
struct CommandLine {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// Throughput, latency, CPU, system calls and memory of HTTP proxying and caching
    Http(http::Options),
    /// kill -9 of server, manager and cop under load: what clients notice
    Faults(faults::Options),
    /// Events, timers, channels and wake-ups of the event system by itself
    Event(event::Options),
    /// Commands of Redis and memcached: throughput, CPU, memory and faults, beside nutcracker
    Kv(kv::Options),
    /// One request to 127.0.0.1: prints head and length of the answer
    Fetch {
        /// Port on 127.0.0.1
        port: u16,
        /// Path with its query
        path: String,
    },
    /// Runs one of the minimal servers by itself, until it is killed
    Floor {
        #[command(subcommand)]
        floor: floors::Floor,
    },
    /// Runs a command that ends when standard input does
    #[command(hide = true)]
    Leash {
        /// The core it is pinned to
        #[arg(long)]
        core: usize,
        /// The command and its arguments
        #[arg(last = true)]
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(&CommandLine::parse().suite) {
        Ok(code) => code,
        Err(trouble) => {
            eprintln!("bench: {trouble}");
            ExitCode::FAILURE
        }
    }
}

fn run(suite: &Suite) -> Outcome<ExitCode> {
    let code = |held: bool| if held { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match suite {
        Suite::Http(options) => Ok(code(http::run(options)?)),
        Suite::Faults(options) => Ok(code(faults::run(options)?)),
        Suite::Event(options) => Ok(code(event::run(options)?)),
        Suite::Kv(options) => Ok(code(kv::run(options)?)),
        Suite::Fetch { port, path } => {
            let answer = probe::get(*port, path, &[("Connection", "close")])?;
            print!("{}", String::from_utf8_lossy(&answer.head));
            println!("({} bytes of content)", answer.body.len());
            Ok(code(answer.status < 400))
        }
        Suite::Floor { floor } => floors::run(floor).doing("the floor").map(|()| ExitCode::SUCCESS),
        Suite::Leash { core, words } => leash::hold(*core, words),
    }
}
