//! The server by itself, as twemproxy runs: no runtime directory, no lease, no manager. It binds its listeners, serves
//! until it is told to stop, and minds the signals that twemproxy minds.

use std::io::Write;
use std::os::fd::RawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, SystemClock};
use config::{Config, LogFile};
use supervise::failure::Failure;
use supervise::log::Level;
use supervise::{error, info, wait, warn};
use sys::signal::{Signals, Taken};

use crate::engine::{self, Engine};
use crate::{options, shell};

/// How long what was asked may take to be answered when it is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks meanwhile.
const LOOK: Duration = Duration::from_millis(5);
/// twemproxy's most talkative level.
const LEVEL_MAX: u8 = 11;

/// What the command line says beside the configuration.
#[derive(Clone, Debug)]
pub struct Nutcracker {
    /// The pools, the stats port and the log.
    pub config: Config,
    /// twemproxy's log level, 0 to 11.
    pub level: u8,
    /// Where its pid is written; none: nowhere.
    pub pid_file: Option<PathBuf>,
    /// As a daemon: this descriptor is told how the start went.
    pub daemon: Option<RawFd>,
}

/// The level that stands for twemproxy's.
#[must_use]
pub const fn level(theirs: u8) -> Level {
    match theirs {
        0..=3 => Level::Error,
        4 => Level::Warning,
        5..=6 => Level::Info,
        _ => Level::Debug,
    }
}

/// What `-D` says of the numbers on the stats port.
#[must_use]
pub fn describe_stats() -> String {
    kv::stats_json::describe()
}

/// Runs until it is told to stop. Returns 0 after TERM, 1 after INT, as twemproxy ends, and 1 when it cannot start.
#[must_use]
pub fn run(nutcracker: Nutcracker) -> u8 {
    let daemon = nutcracker.daemon;
    match start(nutcracker) {
        Ok(running) => {
            tell(daemon, "ready\n");
            running.serve()
        }
        Err(failure) => {
            tell(daemon, &format!("{}\n", failure.why));
            error!("{}", failure.why);
            1
        }
    }
}

/// Tells whoever started the daemon, who may have gone.
fn tell(daemon: Option<RawFd>, text: &str) {
    if let Some(number) = daemon {
        let told = sys::process::inherited(number).and_then(|fd| std::fs::File::from(fd).write_all(text.as_bytes()));
        if let Err(error) = told {
            warn!("nobody hears how the start went: {error}");
        }
    }
}

struct Running {
    engine: Engine,
    signals: Signals,
    level: u8,
    log: Option<PathBuf>,
    pid_file: Option<PathBuf>,
}

fn start(nutcracker: Nutcracker) -> Result<Running, Failure> {
    let Nutcracker { config, level: theirs, pid_file, daemon } = nutcracker;
    // Before any thread starts: all inherit the mask.
    let signals = Signals::take_with_levels().map_err(|error| Failure::could_not("no signals", error))?;
    sys::process::set_name("nutcracker").map_err(|error| Failure::could_not("its name", error))?;
    let log = match &config.log.file {
        LogFile::Path(path) => Some(path.clone()),
        LogFile::Stderr => None,
    };
    let errors = log.as_deref().or(daemon.map(|_| Path::new("/dev/null")));
    if daemon.is_some() {
        sys::daemon::silence_input_and_output().map_err(|error| Failure::could_not("no /dev/null", error))?;
    }
    if let Some(path) = errors {
        sys::daemon::redirect_errors(path).map_err(|error| Failure::could_not(path.display(), error))?;
    }
    supervise::log::begin("nutcracker");
    supervise::log::set_level(level(theirs));
    if daemon.is_some() {
        // As twemproxy has it: whoever may reach a Unix socket's directory may use it, unless its mode says otherwise.
        sys::daemon::clear_umask();
    }
    let listeners = options::bind(&config)?;
    let engine = Engine::start(
        Arc::new(config),
        shell::duplicates(&listeners).map_err(|error| Failure::could_not("no descriptors left", error))?,
        engine::Identity { pid: std::process::id(), generation: 1 },
        None,
    )
    .map_err(|error| Failure::could_not("the engine", error))?;
    engine.set_log_level(level(theirs));
    let pid_file = match pid_file.map(|path| (write_pid(&path), path)) {
        Some((Err(error), path)) if daemon.is_some() => {
            return Err(Failure::could_not(format_args!("pid file {}", path.display()), error));
        }
        // twemproxy writes none in the foreground.
        Some((Err(error), path)) => {
            warn!("pid file {}: {error}", path.display());
            None
        }
        written => written.map(|(_, path)| path),
    };
    for listener in &listeners {
        let pool = listener.name.pool.as_deref().unwrap_or("its numbers");
        info!("{pool}: listens on {}", listener.address());
    }
    Ok(Running { engine, signals, level: theirs, log, pid_file })
}

fn write_pid(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(std::process::id().to_string().as_bytes())
}

impl Running {
    fn serve(mut self) -> u8 {
        let code = loop {
            // Bounded by the wait's own maximum.
            if let Err(error) = wait::readable(&[std::os::fd::AsFd::as_fd(&self.signals)], wait::WAIT_MAX) {
                error!("poll: {error}");
                break 1;
            }
            match self.signals.next() {
                Ok(Some(arrived)) => match arrived.signal {
                    Taken::Terminate => break 0,
                    Taken::Interrupt => break 1,
                    Taken::HangUp => self.reopen_logs(),
                    Taken::LevelUp => self.set_level((self.level + 1).min(LEVEL_MAX)),
                    Taken::LevelDown => self.set_level(self.level.saturating_sub(1)),
                    Taken::User1 | Taken::User2 => {
                        info!("signal {:?} from {} has no effect", arrived.signal, arrived.sender)
                    }
                    Taken::Child => {}
                },
                Ok(None) => {}
                Err(error) => {
                    error!("signals: {error}");
                    break 1;
                }
            }
        };
        self.stop();
        code
    }

    fn stop(self) {
        let deadline = SystemClock.now() + STOP_WITHIN;
        self.engine.drain();
        while !self.engine.is_drained() && SystemClock.now() < deadline {
            // Nothing else is to be waited for, and it is bounded.
            if wait::readable(&[], LOOK).is_err() {
                break;
            }
        }
        self.engine.stop();
        if let Some(path) = &self.pid_file
            && let Err(error) = std::fs::remove_file(path)
        {
            warn!("pid file {}: {error}", path.display());
        }
    }

    fn set_level(&mut self, theirs: u8) {
        self.level = theirs;
        supervise::log::set_level(level(theirs));
        self.engine.set_log_level(level(theirs));
        // Whatever the level: it was asked for.
        error!("log level is {theirs} now");
    }

    fn reopen_logs(&self) {
        if let Some(path) = &self.log
            && let Err(error) = sys::daemon::redirect_errors(path)
        {
            error!("{} cannot be opened, the log goes on where it was: {error}", path.display());
        }
        supervise::log::reopen();
        self.engine.reopen_logs();
        info!("logs reopened");
    }
}
