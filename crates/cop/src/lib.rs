//! The cop process: watches manager and server, and is small on purpose. One poll loop, no threads, no runtime.
//!
//! It respawns manager at once, learns how everybody died (it is a child subreaper), keeps copies of the listeners (so
//! that even the death of manager and server together refuses nobody), and sends both heartbeats. Whom it kills, the pure
//! function in `verdict` decides.
//!
//! Start at [`run`].

mod patrol;
mod verdict;

pub use patrol::run;

/// The command line of cop.
#[derive(Clone, Debug)]
pub struct Options {
    /// What all roles share.
    pub role: supervise::role::Options,
    /// The tree is being started: when manager cannot, cop ends with manager's exit code instead of trying again.
    pub first: bool,
}
