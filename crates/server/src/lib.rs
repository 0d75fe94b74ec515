//! The server process: everything that happens to bytes.
//!
//! Two parts. The [`engine`] is the event threads with all they do; it knows nothing of processes. The `shell` is the main
//! thread around it: options, lease, control socket, signals. The main thread is no event thread, so that it answers for
//! the process whatever the event threads do.
//!
//! The server outlives manager and cop: their death changes nothing here. Start at [`run`].

mod control;
pub mod engine;
mod kv_engine;
mod kv_report;
pub mod nutcracker;
mod options;
mod removal;
mod shell;

pub use options::Options;
pub use shell::run;
