//! The roles, and how one process starts another.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;

use config::{Config, LogFile};
use sys::process::{Pidfd, Spawn, Standing};
use sys::signal::{Arrived, Signals, Taken};

use crate::configuration::{self, Source};
use crate::control::Endpoint;
use crate::directory::RuntimeDir;
use crate::failure::Failure;
use crate::lease::Lease;
use crate::room;

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

/// The command line that all roles share.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the configuration comes from when none is committed.
    pub source: Source,
    /// Where leases and sockets are; `None`: where the configuration says.
    pub runtime_dir: Option<PathBuf>,
    /// Where standard error goes; `None`: where it goes already.
    pub log_file: Option<PathBuf>,
    /// It is one of a tree: it reads the committed configuration and brings its neighbour back.
    pub in_tree: bool,
    /// It tries the configuration that is to be committed when it is ready.
    pub candidate: bool,
    /// The descriptor of what the same process left when it was another program.
    pub legacy: Option<RawFd>,
}

impl Options {
    /// The configuration of this process, and its family. In a tree that is the one in force; by itself, what the file says.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read_configuration(&self) -> Result<(Config, Family), Failure> {
        let family = |directory| Family { directory, source: self.source.clone(), log_file: self.log_file.clone() };
        if let (true, Some(path)) = (self.in_tree, &self.runtime_dir) {
            let directory = RuntimeDir::new(path);
            if self.candidate {
                let config = configuration::proposed(&directory)
                    .map_err(|why| Failure { code: crate::failure::WRONG_CONFIGURATION, why })?;
                return Ok((config, family(directory)));
            }
            let (config, _) = configuration::in_force(&directory, &self.source)?;
            return Ok((config, family(directory)));
        }
        let config = self.source.load()?;
        let directory = RuntimeDir::new(self.runtime_dir.as_ref().unwrap_or(&config.runtime_dir));
        Ok((config, family(directory)))
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

    /// Takes over what `config` says about the log of this process.
    pub fn follow(&mut self, config: &Config) {
        self.follow_log_level(config);
        // Standard error as it was when the process started cannot be had back: a change to it takes a new start.
        if let LogFile::Path(path) = &config.log.file
            && self.log_file.as_ref() != Some(path)
        {
            crate::info!("the log goes on in {}", path.display());
            self.log_file = Some(path.clone());
            self.reopen_log();
        }
    }

    /// Takes the level that was set by hand, else that of `config`.
    pub fn follow_log_level(&self, config: &Config) {
        let by_hand = std::fs::read_to_string(self.directory.log_level());
        let by_hand = by_hand.ok().and_then(|word| word.trim().parse().ok());
        crate::log::set_level(by_hand.unwrap_or_else(|| config.log.level.into()));
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

/// Makes this process what it is to be: its name, no input, no output, its log, its runtime directory.
///
/// # Errors
/// The null device cannot be opened, or the directory cannot be made.
pub fn settle(role: Role, family: &Family) -> Result<(), Failure> {
    let settled = sys::process::set_name(role.name()).and_then(|()| sys::daemon::silence_input_and_output());
    settled.map_err(|error| Failure::could_not(role.name(), error))?;
    crate::log::begin(role.name());
    family.reopen_log();
    let directory = &family.directory;
    directory.create().map_err(|error| Failure::could_not(directory.path().display(), error))
}

/// Puts back what somebody removed: the runtime directory, the lease, the control socket.
pub fn restore(directory: &RuntimeDir, lease: &mut Lease, endpoint: Option<&mut Endpoint>) {
    if !lease.is_in_place()
        && let Err(error) = directory.create()
    {
        crate::error!("{}: {error}", directory.path().display());
    }
    match lease.restore() {
        Ok(false) => {}
        Ok(true) => crate::warn!("somebody removed our lease: it is back"),
        Err(error) => crate::error!("{error}"),
    }
    match endpoint.map(Endpoint::restore) {
        Some(Ok(true)) => crate::warn!("somebody removed our control socket: it is back"),
        Some(Err(error)) => crate::error!("the control socket is gone and cannot be put back: {error}"),
        Some(Ok(false)) | None => {}
    }
}

/// Whether one more of the signals that have arrived says to stop: who says it twice has no patience left.
#[must_use]
pub fn told_to_stop_again(signals: &Signals) -> bool {
    let stop = |arrived: Arrived| matches!(arrived.signal, Taken::Terminate | Taken::Interrupt);
    signals.next().ok().flatten().is_some_and(stop)
}

/// The words by which a process of the tree is called, the role's name first.
#[must_use]
pub fn words(role: Role, family: &Family, arguments: &[OsString]) -> Vec<OsString> {
    let mut words = vec![OsString::from(role.name())];
    words.extend(family.arguments());
    words.extend_from_slice(arguments);
    words
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
    room::give(&family.directory);
    let words = words(role, family, arguments);
    let arguments = words.iter().map(OsString::as_os_str).collect();
    sys::process::spawn(&Spawn { program: OsStr::new(OURSELVES), arguments, descriptors, standing: Standing::OwnGroup })
}

/// Starts the program again under its own name, in a session of its own.
///
/// # Errors
/// What `posix_spawn(3)` says.
pub fn start_apart(arguments: &[OsString], descriptors: Vec<(BorrowedFd<'_>, RawFd)>) -> io::Result<Pidfd> {
    start_again(arguments, descriptors, Standing::OwnSession)
}

/// Starts the program again under its own name, in this session and without leading it.
///
/// # Errors
/// As [`start_apart`].
pub fn start_below(arguments: &[OsString], descriptors: Vec<(BorrowedFd<'_>, RawFd)>) -> io::Result<Pidfd> {
    start_again(arguments, descriptors, Standing::OwnGroup)
}

fn start_again(
    arguments: &[OsString],
    descriptors: Vec<(BorrowedFd<'_>, RawFd)>,
    standing: Standing,
) -> io::Result<Pidfd> {
    // By the name that we were called by, which may lead to the program that is on disk some day.
    let name = std::env::args_os().next().unwrap_or_else(|| "beltway".into());
    let is_path = std::path::Path::new(&name).components().count() > 1;
    // A daemon's working directory is another.
    let name = std::path::absolute(&name).ok().filter(|_| is_path).map_or(name, PathBuf::into_os_string);
    let arguments = std::iter::once(name.as_os_str()).chain(arguments.iter().map(OsString::as_os_str)).collect();
    sys::process::spawn(&Spawn { program: OsStr::new(OURSELVES), arguments, descriptors, standing })
}
