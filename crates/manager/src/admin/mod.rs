//! The admin port: what an operator, a monitoring system or a load balancer reads of Beltway over HTTP.
//!
//! Reading asks for no password, and the port is bound to loopback by default. Changing something takes a token, which is
//! configured by `admin.token_file`; without one the port only reads. It
//! runs on a thread of its own with a runtime of its own; manager's supervision never waits for it, nor it for
//! supervision: it takes what [`StatusSource`] has at hand.
//!
//! ```text
//! listener ── bounded connections (serve) ── host, origin, token (guard) ── page · numbers · healthz (routes)
//!                                                                        ├─ /api/v1 (api)
//!                                                                        └─ /proxy.pac (pac)
//! ```
//!
//! Read [`spawn`] first, then `routes`. Which numbers there are is the business of who counts them.

mod api;
mod fitting;
mod guard;
mod numbers;
mod pac;
mod page;
mod routes;
mod serve;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::Config;
use supervise::control::{ControlError, Reply, Request};
use supervise::directory::RuntimeDir;
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
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;
    /// Where the history of configurations and the obituaries are.
    fn directory(&self) -> RuntimeDir;
    /// Has manager do something, and waits for the answer, at most `bound`. Called on a thread that may wait.
    ///
    /// # Errors
    /// Manager does not answer, or refuses.
    fn ask(&self, request: Request, bound: Duration) -> Result<Reply, ControlError>;
}

#[cfg(test)]
mod tests;
