//! Why a measurement could not be made.

use std::fmt::Display;
use std::io;

/// What stopped the program, or one target of it. Every text says what was being done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// A system call or a file failed.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// Something did not come within its bound.
    #[error("{0}: not within {1} s")]
    Late(String, u64),
    /// An answer, an output or a setting is not what it must be.
    #[error("{0}")]
    Wrong(String),
    /// The program to be measured is not on this machine.
    #[error("{0} is not installed")]
    NotInstalled(String),
    /// The program to be measured does not do this yet.
    #[error("not built yet: {0}")]
    NotBuilt(String),
}

/// What fallible functions of this program return.
pub(crate) type Outcome<T> = Result<T, Trouble>;

/// Adds what was being done to an I/O error.
pub(crate) trait Doing<T> {
    /// Wraps the error with `what`.
    fn doing(self, what: impl Display) -> Outcome<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Outcome<T> {
        self.map_err(|error| Trouble::Io(what.to_string(), error.into()))
    }
}
