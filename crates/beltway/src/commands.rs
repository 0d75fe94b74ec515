//! What each command does. Every answer is an exit code of the contract.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use base::{Clock, SystemClock};
use config::Config;
use supervise::change::{Proposal, Step};
use supervise::configuration::Source;
use supervise::directory::RuntimeDir;
use supervise::failure::{ALREADY_RUNNING, COULD_NOT, DONE, WRONG_CONFIGURATION, WRONG_USAGE};
use supervise::lease::{self, Holder};
use supervise::role::{self, FIRST_DESCRIPTOR};
use supervise::wait;

use crate::cli::{Check, Command, CopArguments, Place, RoleArguments, ServerArguments};
use crate::{ask, fitness, kv, names, nutcracker, stub};

/// What the daemon has beyond its server's start timeout to say how it went.
const START_MARGIN: Duration = Duration::from_secs(5);
/// What `stop` allows beyond what the processes allow each other.
const STOP_MARGIN: Duration = Duration::from_secs(10);

pub(crate) fn dispatch(command: Command) -> u8 {
    match command {
        Command::Run(run) => stub::run(&run),
        Command::Start(place) => start(&place),
        Command::Stop(place) => stop(&place),
        Command::Status(asked) => ask::status(&asked),
        Command::Reload(asked) => ask::change(&asked, Proposal::File, Step::Reload),
        Command::Restart(asked) => ask::change(&asked, Proposal::File, Step::Restart),
        Command::Upgrade(asked) => ask::change(&asked, Proposal::File, Step::Upgrade),
        Command::NewBinary(asked) => fitness::tell(&asked),
        Command::Ctl(asked) => ask::ctl(asked.command),
        Command::Check(asked) => check(&asked),
        Command::Cop(arguments) => cop(arguments),
        Command::Manager(arguments) => manager(arguments),
        Command::Server(arguments) => server(arguments),
        Command::Kv(asked) => kv::dispatch(&asked.command),
        Command::Nutcracker { arguments } => nutcracker::run(&arguments),
        Command::InstallLinks { directory } => install_links(&directory),
    }
}

/// Where the configuration comes from, by what was typed.
pub(crate) fn source(place: &Place) -> Result<Source, u8> {
    if place.built_in_default {
        return Ok(Source::BuiltIn);
    }
    Source::find(place.config.as_deref()).map_err(|error| {
        eprintln!("beltway: no working directory: {error}");
        COULD_NOT
    })
}

/// The configuration and its runtime directory; what is wrong with it is said.
pub(crate) fn load(place: &Place) -> Result<(Source, Config, RuntimeDir), u8> {
    let source = source(place)?;
    let config = source.load().map_err(|wrong| {
        eprintln!("{wrong}");
        WRONG_CONFIGURATION
    })?;
    let directory = RuntimeDir::new(place.runtime_dir.as_ref().unwrap_or(&config.runtime_dir));
    Ok((source, config, directory))
}

/// The runtime directory alone. A configuration that was spoiled after the start must not keep anybody from stopping.
pub(crate) fn directory(place: &Place) -> Result<RuntimeDir, u8> {
    match &place.runtime_dir {
        Some(path) => Ok(RuntimeDir::new(path)),
        None => load(place).map(|(_, _, directory)| directory).inspect_err(|_| {
            eprintln!("beltway: --runtime-dir DIR reaches the running processes without the file");
        }),
    }
}

/// Who holds the top's lease: exit 4 names the pid.
pub(crate) fn complain_of_running(directory: &RuntimeDir) -> Option<u8> {
    match lease::named_holder(&directory.stub_lease()) {
        Ok(Holder::Nobody) => None,
        Ok(Holder::Somebody(pid)) => {
            let pid = pid.map_or_else(|| "a process that has just started".to_owned(), |pid| format!("process {pid}"));
            eprintln!("beltway: already running: {pid} holds {}", directory.stub_lease().display());
            Some(ALREADY_RUNNING)
        }
        Err(error) => {
            eprintln!("beltway: {}: {error}", directory.stub_lease().display());
            Some(COULD_NOT)
        }
    }
}

fn start(place: &Place) -> u8 {
    let (source, config, directory) = match load(place) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if let Some(code) = complain_of_running(&directory) {
        return code;
    }
    let (told, tell) = match std::io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => {
            eprintln!("beltway: no pipe: {error}");
            return COULD_NOT;
        }
    };
    let mut arguments: Vec<OsString> = vec!["run".into(), "--daemon".into(), format!("fd={FIRST_DESCRIPTOR}").into()];
    arguments.push("--leads-session".into());
    arguments.extend(source.arguments());
    if let Some(path) = &place.runtime_dir {
        arguments.extend(["--runtime-dir".into(), absolute(path).into()]);
    }
    if let Err(error) = role::start_apart(&arguments, vec![(tell.as_fd(), FIRST_DESCRIPTOR)]) {
        eprintln!("beltway: the daemon cannot be started: {error}");
        return COULD_NOT;
    }
    drop(tell);
    let bound = config.supervise.start_timeout.saturating_add(START_MARGIN);
    let deadline = SystemClock.now() + bound;
    let mut told = BufReader::new(told);
    if wait::readable(&[told.get_ref().as_fd()], deadline.since(SystemClock.now())).is_err()
        || SystemClock.now() >= deadline
    {
        let pid = lease::process(&directory.stub_lease()).ok().flatten().map(|stub| format!(" {}", stub.pid()));
        eprintln!("beltway: process{} is not ready after {bound:?}; it goes on trying", pid.unwrap_or_default());
        return COULD_NOT;
    }
    // One line, written whole; the end without one is the death of the daemon.
    let mut line = String::new();
    match told.read_line(&mut line) {
        Ok(_) if line.starts_with("ready ") => {
            println!("beltway: started, process {}", line.trim_start_matches("ready ").trim_end());
            DONE
        }
        Ok(_) => {
            let code = line.trim().strip_prefix("exit ").and_then(|code| code.parse().ok()).unwrap_or(COULD_NOT);
            let log = log_file(&config, &directory, true).unwrap_or_else(|| directory.daemon_log());
            eprintln!("beltway: not started; why is at the end of {}", log.display());
            code
        }
        Err(error) => {
            eprintln!("beltway: nothing is heard of the daemon: {error}");
            COULD_NOT
        }
    }
}

/// Where the logs go: the configured file; for a daemon without one, a file in the runtime directory.
pub(crate) fn log_file(config: &Config, directory: &RuntimeDir, daemon: bool) -> Option<PathBuf> {
    match &config.log.file {
        config::LogFile::Path(path) => Some(path.clone()),
        config::LogFile::Stderr if daemon => Some(directory.daemon_log()),
        config::LogFile::Stderr => None,
    }
}

fn stop(place: &Place) -> u8 {
    let directory = match directory(place) {
        Ok(directory) => directory,
        Err(code) => return code,
    };
    // The processes' own bounds, as the configuration in force has them; the default's when it cannot be read.
    let bounds = supervise::configuration::in_force(&directory, &Source::BuiltIn)
        .map_or_else(|_| config::builtin_default().supervise, |(config, _)| config.supervise);
    match ctl::stop(&directory, bounds.stop_timeout.saturating_add(STOP_MARGIN)) {
        Ok(()) => {
            println!("beltway: stopped");
            DONE
        }
        Err(error) => ask::complain(&error),
    }
}

fn check(asked: &Check) -> u8 {
    if let Some(key) = &asked.explain {
        return explain(key);
    }
    match load(&asked.place) {
        Ok((source, config, _)) => {
            for warning in config.warnings() {
                eprintln!("{warning}");
            }
            if let Err(wrong) = server::judge(&config) {
                eprintln!("{wrong}");
                return COULD_NOT;
            }
            println!("{source} is right");
            DONE
        }
        // The contract of `check`: 1 for a file that is wrong.
        Err(WRONG_CONFIGURATION) => COULD_NOT,
        Err(code) => code,
    }
}

fn explain(key: &str) -> u8 {
    if let Some(text) = config::explain(key) {
        print!("{text}");
        return DONE;
    }
    let hint = config::nearest_key(key).map(|near| format!("; the nearest is {near}")).unwrap_or_default();
    eprintln!("beltway: there is no key {key}{hint}");
    WRONG_USAGE
}

fn cop(arguments: CopArguments) -> u8 {
    with_role(arguments.role, |role| cop::run(&cop::Options { role, first: arguments.first }))
}

fn manager(arguments: RoleArguments) -> u8 {
    with_role(arguments, |role| manager::run(&role))
}

fn server(arguments: ServerArguments) -> u8 {
    use supervise::listener::ListenerKind;
    let promised = [
        (ListenerKind::Http, arguments.httpport),
        (ListenerKind::Server, arguments.serverport),
        (ListenerKind::Demo, arguments.demoport),
        (ListenerKind::Kv, arguments.kvport),
        (ListenerKind::KvStats, arguments.kvstatsport),
        (ListenerKind::DemoRedis, arguments.demoredisport),
        (ListenerKind::DemoMemcached, arguments.demomemcachedport),
    ];
    let promised = promised.into_iter().filter_map(|(kind, list)| Some((kind, list?.0))).collect();
    with_role(arguments.role, |role| {
        server::run(&server::Options {
            role: role::Options { in_tree: arguments.generation.is_some(), candidate: arguments.candidate, ..role },
            generation: arguments.generation,
            standby: arguments.standby,
            promised,
            lease: arguments.lease,
            ready: arguments.ready,
        })
    })
}

fn with_role(arguments: RoleArguments, run: impl FnOnce(role::Options) -> u8) -> u8 {
    match source(&arguments.place) {
        Ok(source) => run(role::Options {
            source,
            runtime_dir: arguments.place.runtime_dir.as_deref().map(absolute),
            log_file: arguments.log_file,
            in_tree: arguments.in_tree,
            candidate: false,
            legacy: arguments.legacy,
        }),
        Err(code) => code,
    }
}

/// As it is, when there is no working directory to count from.
pub(crate) fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn install_links(directory: &std::path::Path) -> u8 {
    match names::install_links(directory) {
        Ok(made) => {
            for link in made {
                println!("{link}");
            }
            DONE
        }
        Err(error) => {
            eprintln!("beltway: {error}");
            COULD_NOT
        }
    }
}
