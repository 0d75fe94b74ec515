//! Why a process of the tree ends otherwise than it was asked to, and the exit codes that say so.

use std::fmt::Display;

use crate::lease::LeaseError;

/// Done.
pub const DONE: u8 = 0;
/// It could not.
pub const COULD_NOT: u8 = 1;
/// Wrong usage.
pub const WRONG_USAGE: u8 = 2;
/// The configuration is wrong.
pub const WRONG_CONFIGURATION: u8 = 3;
/// Already running.
pub const ALREADY_RUNNING: u8 = 4;
/// Not running.
pub const NOT_RUNNING: u8 = 5;

/// The end of a process: its exit code, and what the log says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// Why, for an operator.
    pub why: String,
}

impl Failure {
    /// `what` could not be done, because of `error`.
    #[must_use]
    pub fn could_not(what: impl Display, error: impl Display) -> Self {
        Self { code: COULD_NOT, why: format!("{what}: {error}") }
    }

    /// The code to end with, after the log was told why.
    #[must_use]
    pub fn told(&self) -> u8 {
        crate::error!("{}", self.why);
        self.code
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Held { .. } => Self { code: ALREADY_RUNNING, why: format!("already running: {error}") },
            LeaseError::Io { ref source, .. } => Self::could_not(&error, source),
            LeaseError::Contended { .. } => Self { code: COULD_NOT, why: error.to_string() },
        }
    }
}

impl From<config::Diagnostics> for Failure {
    fn from(wrong: config::Diagnostics) -> Self {
        Self { code: WRONG_CONFIGURATION, why: format!("the configuration is wrong:\n{wrong}") }
    }
}
