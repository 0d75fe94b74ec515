//! The server process: everything that happens to bytes.
//!
//! Two parts. The [`engine`] is the event threads with all they do; it knows nothing of processes. The `shell` is the main
//! thread around it: options, lease, control socket, signals. The main thread is no event thread, so that it answers for
//! the process whatever the event threads do; it waits for none of them (`awaited`), and whoever asks for a sign of life comes
//! first (`desk`).
//!
//! The server outlives manager and cop: their death changes nothing here. Start at [`run`].

mod awaited;
mod control;
mod desk;
pub mod engine;
mod kv_engine;
mod kv_report;
pub mod nutcracker;
mod options;
mod removal;
mod shell;

pub use options::Options;
pub use shell::run;

/// Judges a configuration as a server would that starts with it, without touching anything.
///
/// # Errors
/// What the engines cannot do, at its place in the file.
pub fn judge(config: &config::Config) -> Result<(), config::Diagnostics> {
    let http = http::Plan::prepare(config).map(drop);
    let kv = kv_engine::plan(config).map(drop);
    let wrong: Vec<_> = [http, kv].into_iter().filter_map(Result::err).flatten().collect();
    if wrong.is_empty() { Ok(()) } else { Err(config::Diagnostics(wrong)) }
}
