//! The admin port: what an operator, a monitoring system or a load balancer reads of Beltway over HTTP.
//!
//! It only reads: nothing here changes anything, so it asks for no password and is bound to loopback by default. It
//! runs on a thread of its own with a runtime of its own; manager's supervision never waits for it, nor it for
//! supervision: it takes what [`StatusSource`] has at hand.
//!
//! ```text
//! listener ── bounded connections (serve) ── method, host (guard) ── page · numbers · status.json · healthz (routes)
//! ```
//!
//! Read [`spawn`] first, then `routes`. Which numbers there are is the business of who counts them.

mod guard;
mod numbers;
mod page;
mod routes;
mod serve;

use std::path::PathBuf;

use supervise::status::Status;

pub use numbers::{LastWords, SEGMENTS_MAX, fold_dead, last_numbers, numbers_matching};
pub use serve::{AdminHandle, CONNECTIONS_MAX, spawn};

/// Where the admin port learns what it shows. Called on the admin thread for each request.
pub trait StatusSource: Send + Sync + 'static {
    /// The latest status. Must not wait for supervision: a published copy.
    fn status(&self) -> Status;
    /// The segments of all generations of this run, live and dead, and the file of the [folded](fold_dead) ones. A
    /// segment is live when the status has its generation under its pid. Names may be gone by the time they are read.
    fn metrics_segments(&self) -> Vec<PathBuf>;
}

#[cfg(test)]
mod tests;
