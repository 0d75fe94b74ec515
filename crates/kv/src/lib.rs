//! The key-value engine: a proxy for Redis and memcached.
//!
//! - [`wire`]: bytes and messages.
//! - [`commands`]: what is known of each command of Redis.
//! - `split`, `join`: one request for many servers, and one reply of theirs. Pure, as the two above.
//! - [`plan`]: the pools, judged; [`configuration`]: where they come from.
//! - `client`, `lane`: the machines of a client's and a server's connection; `server`, `pool`: what lanes belong to.
//! - [`numbers`]: what is counted.
//! - [`Worker`]: one event thread's engine.
//!
//! Read `client` first, then `lane`.

#![forbid(unsafe_code)]

// The tests' scenes are those of `tests/`, which know the crate by its name.
#[cfg(test)]
extern crate self as kv;

mod client;
pub mod commands;
pub mod configuration;
mod contain;
mod fault;
#[doc(hidden)]
pub mod fuzz;
mod join;
mod lane;
mod memory;
mod metrics;
mod miss;
pub mod numbers;
mod outbox;
mod pending;
pub mod plan;
mod pool;
mod renewal;
mod say;
mod server;
mod shared;
mod slow;
mod split;
pub mod stats_json;
pub mod wire;
mod worker;

pub use client::{HandOver, Identity, Moving};
pub use metrics::Kv;
pub use plan::{Address, EjectPolicy, MultigetPolicy, Plan, PlanError, PoolSource, Protocol, ServerSource, Timeouts};
pub use renewal::Unanswered;
pub use shared::Shared;
pub use slow::{Asker, SLOW_MAX, Slow};
pub use worker::{ServerState, Worker, WorkerParts};
