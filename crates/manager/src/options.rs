//! What manager is told on its command line.

use std::path::PathBuf;

use supervise::configuration::Source;

/// The command line of manager.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the configuration comes from when none is committed.
    pub source: Source,
    /// Where leases and sockets are; `None`: where the configuration says.
    pub runtime_dir: Option<PathBuf>,
    /// Where standard error goes; `None`: where it goes already.
    pub log_file: Option<PathBuf>,
    /// It is one of a tree: it respawns cop, and reads the committed configuration.
    pub in_tree: bool,
}
