//! The cop process: watches manager and server, and is small on purpose. One poll loop, no threads, no runtime.
//!
//! It respawns manager at once, learns how everybody died (it is a child subreaper), keeps copies of the listeners (so
//! that even the death of manager and server together refuses nobody), and sends both heartbeats. Whom it kills, the pure
//! function in `verdict` decides.
//!
//! Start at [`run`].

mod patrol;
mod verdict;

use std::path::PathBuf;

pub use patrol::run;
use supervise::configuration::Source;

/// The command line of cop.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the configuration comes from when none is committed.
    pub source: Source,
    /// Where leases and sockets are; `None`: where the configuration says.
    pub runtime_dir: Option<PathBuf>,
    /// Where standard error goes; `None`: where it goes already.
    pub log_file: Option<PathBuf>,
    /// It is one of a tree, and reads the committed configuration.
    pub in_tree: bool,
    /// The tree is being started: when manager cannot, cop ends with manager's exit code instead of trying again.
    pub first: bool,
}
