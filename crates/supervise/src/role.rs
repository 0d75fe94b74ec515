//! The roles, and how one process starts another.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;

use sys::process::{Pidfd, Spawn, Standing};

use crate::configuration::Source;
use crate::directory::RuntimeDir;

/// The program that runs, even when its file was replaced or removed meanwhile.
const OURSELVES: &str = "/proc/self/exe";

/// The number of the first descriptor that a child is given.
pub const FIRST_DESCRIPTOR: RawFd = 9;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Watches manager and server.
    Cop,
    /// Owns the listeners, starts and replaces servers.
    Manager,
    /// Does the work on bytes.
    Server,
}

impl Role {
    /// Its name in `ps`, in `/proc/PID/comm`, and as the name the program is called by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cop => "traffic_cop",
            Self::Manager => "traffic_manager",
            Self::Server => "traffic_server",
        }
    }
}

/// What every process of a tree is told.
#[derive(Clone, Debug)]
pub struct Family {
    /// Where leases and sockets are.
    pub directory: RuntimeDir,
    /// Where the configuration comes from when none is committed.
    pub source: Source,
    /// Where standard error goes; `None`: where it goes already.
    pub log_file: Option<PathBuf>,
}

impl Family {
    /// The arguments that tell it.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = self.source.arguments();
        arguments.extend(["--runtime-dir".into(), self.directory.path().into()]);
        if let Some(file) = &self.log_file {
            arguments.extend(["--log-file".into(), file.into()]);
        }
        arguments
    }

    /// Opens the log file anew, after it was renamed.
    pub fn reopen_log(&self) {
        if let Some(file) = &self.log_file
            && let Err(error) = sys::daemon::redirect_errors(file)
        {
            crate::error!("{} cannot be opened, the log goes on where it was: {error}", file.display());
        }
        crate::log::reopen();
    }
}

/// Makes this process what it is to be: its name, no input, no output, its log.
///
/// # Errors
/// The null device cannot be opened.
pub fn settle(role: Role, family: &Family) -> io::Result<()> {
    sys::process::set_name(role.name())?;
    sys::daemon::silence_input_and_output()?;
    crate::log::begin(role.name());
    family.reopen_log();
    Ok(())
}

/// Starts a process of the tree: the same program under the role's name, in a process group of its own.
///
/// # Errors
/// What `posix_spawn(3)` says.
pub fn start(
    role: Role,
    family: &Family,
    arguments: &[OsString],
    descriptors: Vec<(BorrowedFd<'_>, RawFd)>,
) -> io::Result<Pidfd> {
    let family = family.arguments();
    let name = OsStr::new(role.name());
    let arguments = std::iter::once(name)
        .chain(family.iter().map(OsString::as_os_str))
        .chain(arguments.iter().map(OsString::as_os_str))
        .collect();
    sys::process::spawn(&Spawn { program: OsStr::new(OURSELVES), arguments, descriptors, standing: Standing::OwnGroup })
}

/// Starts the program again under its own name, in a session of its own.
///
/// # Errors
/// What `posix_spawn(3)` says.
pub fn start_apart(arguments: &[OsString], descriptors: Vec<(BorrowedFd<'_>, RawFd)>) -> io::Result<Pidfd> {
    let arguments = std::iter::once(OsStr::new("beltway")).chain(arguments.iter().map(OsString::as_os_str)).collect();
    let standing = Standing::OwnSession;
    sys::process::spawn(&Spawn { program: OsStr::new(OURSELVES), arguments, descriptors, standing })
}
