//! The program `beltway`, and the names it answers to: one binary for the stub, the three roles and the commands.
//!
//! `cli` says what may be typed, `names` which name stands for which command; `stub` is what `run` and `start` leave at
//! the top of the tree; `commands` does what needs no process of its own, `ask` asks the processes that run; `nutcracker`
//! is twemproxy's program, `kv` what can be said of keys from a file.

mod ask;
mod ask_cache;
mod ask_kv;
mod banner;
mod cli;
mod commands;
mod errand;
mod fitness;
mod kv;
mod names;
mod nutcracker;
mod service;
mod stub;

use std::process::ExitCode;

use clap::Parser;

// Memory that one thread allocates is often freed by another, and a server's small allocations come in bursts.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Usage errors end with 2, help and version with 0.
    match cli::Cli::try_parse_from(names::arguments(std::env::args_os())) {
        Ok(cli) => ExitCode::from(commands::dispatch(cli.command)),
        Err(error) => error.exit(),
    }
}
