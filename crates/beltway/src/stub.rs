//! The top process, fit to be PID 1: reaps, passes signals on, and starts cop again when both cop and manager are gone.
//!
//! It does as little as it can, because its death ends a container. Who of cop and manager dies alone is brought back by
//! the other. When a tree starts, the stub also tells how that went: cop's exit code before anybody served is its own.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use config::Config;
use supervise::change::Step;
use supervise::configuration::{self, Follower, Source};
use supervise::control::{Connection, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::failure::{COULD_NOT, DONE, Failure, WRONG_USAGE};
use supervise::heartbeat::Link;
use supervise::lease::Lease;
use supervise::listener::Listener;
use supervise::privilege;
use supervise::reaped::{self, Reaped};
use supervise::role::{self, FIRST_DESCRIPTOR, Family, Role};
use supervise::stop::{self, Stopped};
use supervise::succession::{self, Legacy};
use supervise::watch::{Sight, Watch};
use supervise::{debug, error, info, log, wait, warn};
use sys::process::{Exit, Pidfd, Signal};
use sys::signal::{Arrived, Signals, Taken};

use crate::banner;
use crate::cli::Run;
use crate::commands;
use crate::errand::{Ended, Errand};
use crate::service::{self, Service};

/// How often manager is asked, before the first server is ready.
const READY_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How often the leases are read while cop or manager is being brought back by the other.
const ABSENCE_LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// More than cop has for manager and servers.
const STOP_MARGIN: Duration = Duration::from_secs(4);
/// How long manager may take to tell the addresses for the banner.
const BANNER_WITHIN: Duration = Duration::from_secs(1);

/// Runs the tree until it is told to stop.
pub(crate) fn run(run: &Run) -> u8 {
    let mut report = match run.daemon.map(sys::process::inherited).transpose() {
        Ok(pipe) => Report(pipe.map(std::fs::File::from)),
        Err(error) => {
            eprintln!("beltway: the descriptor to report on: {error}");
            return WRONG_USAGE;
        }
    };
    if run.leads_session {
        return report.leave_to_daemon(run);
    }
    let code = match Stub::start(run) {
        Ok(mut stub) => stub.stand(&mut report),
        Err(code) => code,
    };
    report.tell(&format!("exit {code}\n"));
    code
}

/// Where `start` waits to hear how it went.
struct Report(Option<std::fs::File>);

impl Report {
    /// The first call counts.
    fn tell(&mut self, line: &str) {
        if let Some(mut pipe) = self.0.take() {
            // Who started us may have lost patience and gone.
            let _ = pipe.write_all(line.as_bytes());
        }
    }

    /// Starts the daemon, which tells the rest. Who leads a session can get a terminal by opening one; the daemon does not.
    fn leave_to_daemon(&self, run: &Run) -> u8 {
        let source = match commands::source(&run.place) {
            Ok(source) => source,
            Err(code) => return code,
        };
        let mut arguments: Vec<OsString> =
            vec!["run".into(), "--daemon".into(), format!("fd={FIRST_DESCRIPTOR}").into()];
        arguments.extend(source.arguments());
        if let Some(path) = &run.place.runtime_dir {
            arguments.extend(["--runtime-dir".into(), path.into()]);
        }
        let descriptors = self.0.iter().map(|pipe| (pipe.as_fd(), FIRST_DESCRIPTOR)).collect();
        match role::start_below(&arguments, descriptors) {
            Ok(_) => DONE,
            Err(error) => {
                eprintln!("beltway: the daemon cannot be started: {error}");
                COULD_NOT
            }
        }
    }
}

struct Stub {
    family: Family,
    config: Config,
    lease: Option<Lease>,
    signals: Signals,
    cop: Watch,
    manager: Watch,
    /// Until the first server is ready: questions to manager.
    first: Option<Link>,
    /// A server lived here when it started: what fails is tried again then, for it is no reason to stop who serves.
    adopts: bool,
    daemon: bool,
    /// Tells when another configuration is in force.
    follower: Follower,
    /// What manager was told to do because a signal said so.
    errand: Option<Errand>,
    /// The service manager above.
    service: Service,
    /// What it opened or kept for us, until cop has it.
    passed: Vec<Listener>,
}

impl Stub {
    fn start(run: &Run) -> Result<Self, u8> {
        let (source, config, directory) =
            if run.legacy.is_some() { resumed(run)? } else { commands::load(&run.place)? };
        let directory = RuntimeDir::new(commands::absolute(directory.path()));
        let failed = |why: String| {
            eprintln!("beltway: {why}");
            COULD_NOT
        };
        let log_file = commands::log_file(&config, &directory, run.daemon.is_some());
        privilege::become_configured_user(&config, &directory, log_file.as_deref()).map_err(|failure| {
            eprintln!("beltway: {}", failure.why);
            failure.code
        })?;
        directory.create().map_err(|error| failed(format!("{}: {error}", directory.path().display())))?;
        let legacy = run.legacy.map(Legacy::take).transpose();
        let legacy = legacy.map_err(|error| failed(format!("what the former program left: {error}")))?;
        let daemon = run.daemon.is_some() || legacy.as_ref().is_some_and(|legacy| legacy.daemon);
        let log_file = commands::log_file(&config, &directory, daemon);
        let mut family = Family { directory: directory.clone(), source, log_file };
        let signals = Signals::take().map_err(|error| failed(format!("no signals: {error}")))?;
        let lease = match legacy.as_ref().and_then(|legacy| legacy.lease) {
            Some(number) => Lease::resume(number, &directory.stub_lease()),
            None => Lease::take(&directory.stub_lease()),
        };
        let lease = lease.map_err(|error| {
            let Failure { code, why } = error.into();
            eprintln!("beltway: {why}");
            code
        })?;
        if daemon {
            // The directory that `start` was typed in may be unmounted some day.
            sys::daemon::silence_input_and_output().map_err(|error| failed(error.to_string()))?;
            std::env::set_current_dir("/").map_err(|error| failed(error.to_string()))?;
            sys::privilege::keep_files_from_others();
        }
        log::begin("beltway");
        family.reopen_log();
        for warning in config.warnings() {
            warn!("{warning}");
        }
        if let Err(error) = sys::process::become_subreaper() {
            warn!("orphans go elsewhere, and how they die with them: {error}");
        }
        let (config, adopts) = put_in_force(&family, config)?;
        if legacy.is_none()
            && let Err(error) = succession::remember_program(&directory, std::env::args_os().next().as_deref())
        {
            warn!("which program is on disk will be asked of the kernel: {error}");
        }
        let backoff_max = config.supervise.respawn_backoff_max;
        let cop = Watch::new(Role::Cop, directory.cop_lease(), directory.cop_socket(), None, backoff_max);
        let manager =
            Watch::new(Role::Manager, directory.manager_lease(), directory.manager_socket(), None, backoff_max);
        let first = legacy.is_none().then(|| Link::new(&directory.manager_socket(), READY_LOOK_INTERVAL));
        if let Some(legacy) = &legacy {
            info!("the top process goes on as version {}, it was {}", base::VERSION, legacy.version);
        }
        family.follow(&config);
        let follower = Follower::new(&directory);
        let mut service = Service::from_environment(SystemClock.now());
        let mut passed = Vec::new();
        if legacy.is_some() {
            service.serves("serves");
            service.keep_listeners(&directory);
        } else {
            passed = service::passed_listeners(&config);
        }
        Ok(Self {
            family,
            config,
            lease: Some(lease),
            signals,
            cop,
            manager,
            first,
            adopts,
            daemon,
            follower,
            errand: None,
            service,
            passed,
        })
    }

    fn stand(&mut self, report: &mut Report) -> u8 {
        let mut housekeeping_at = Instant::ORIGIN;
        loop {
            let reaped = reaped::reap();
            let now = SystemClock.now();
            while let Some(arrived) = self.next_signal() {
                if self.heed(arrived, now) {
                    return self.stop();
                }
            }
            let cop = self.bring_back(now, &reaped);
            self.turn_errand(now);
            self.service.turn(now);
            if let Some(code) = self.await_ready(now, cop, report) {
                return code;
            }
            if now >= housekeeping_at {
                housekeeping_at = now + self.config.supervise.heartbeat_interval;
                if let Some(lease) = &mut self.lease {
                    role::restore(&self.family.directory, lease, None);
                }
                if let Some(config) = self.follower.look() {
                    self.service.keep_listeners(&self.family.directory);
                    self.family.follow(&config);
                    self.config = config;
                }
                self.family.follow_log_level(&self.config);
            }
            if let Err(error) = self.wait(now, housekeeping_at) {
                error!("poll: {error}");
                return COULD_NOT;
            }
        }
    }

    /// Starts cop when nobody else can.
    fn bring_back(&mut self, now: Instant, reaped: &Reaped) -> Sight {
        let cop = self.cop.look(now, reaped);
        let manager = self.manager.look(now, reaped);
        for (pid, exit) in reaped.all() {
            info!("process {pid} {exit}");
        }
        if manager == Sight::Gone && !self.passed.is_empty() && self.cop.is_adopted() {
            // A dying manager started it just before we came: it knows nothing of the listeners that were passed to us,
            // and while we have them no manager of its own can bind them. Whoever serves is adopted by the next.
            warn!("{} has not the service manager's listeners: another takes its place", Role::Cop.name());
            self.cop.signal(Signal::KILL);
            return Sight::Coming;
        }
        // A cop that could not start a tree has told why: it is not tried again.
        let is_start = self.first.is_some() && !self.adopts;
        let failed = is_start && matches!(self.cop.last_exit(), Some(Exit::Code(_)));
        if failed || cop != Sight::Gone || manager == Sight::Lives {
            return cop;
        }
        let mut arguments = vec![OsString::from("--in-tree")];
        if is_start {
            arguments.push("--first".into());
        }
        match self.start_cop(&mut arguments) {
            Ok(child) => {
                self.cop.started(child, now);
                self.passed.clear();
            }
            Err(error) => {
                error!("{} cannot be started: {error}", Role::Cop.name());
                self.cop.not_started(now);
            }
        }
        cop
    }

    /// Starts cop, with the listeners that the service manager passed.
    fn start_cop(&self, arguments: &mut Vec<OsString>) -> std::io::Result<Pidfd> {
        if self.passed.is_empty() {
            return role::start(Role::Cop, &self.family, arguments, Vec::new());
        }
        let numbers = FIRST_DESCRIPTOR + 1..;
        let listeners: Vec<_> = self.passed.iter().map(|listener| listener.name.clone()).zip(numbers.clone()).collect();
        let note = Legacy { version: base::VERSION.to_owned(), listeners, ..Legacy::default() }.note()?;
        let mut descriptors = vec![(note.as_fd(), FIRST_DESCRIPTOR)];
        descriptors.extend(self.passed.iter().map(|listener| listener.fd.as_fd()).zip(numbers));
        arguments.extend([succession::OPTION.into(), format!("fd={FIRST_DESCRIPTOR}").into()]);
        role::start(Role::Cop, &self.family, arguments, descriptors)
    }

    /// Until the first server is ready. An exit code: it will never be.
    fn await_ready(&mut self, now: Instant, cop: Sight, report: &mut Report) -> Option<u8> {
        let link = self.first.as_mut()?;
        link.turn(now);
        if link.pong().is_some_and(|pong| pong.generation != 0) {
            self.first = None;
            report.tell(&format!("ready {}\n", std::process::id()));
            self.service.serves("serves");
            self.service.keep_listeners(&self.family.directory);
            self.passed.clear(); // whoever was adopted has its own
            self.show();
            return None;
        }
        // One that we started may find another, whom a dying manager had started just before: then that one it is.
        if self.adopts || cop == Sight::Lives {
            return None;
        }
        let code = match self.cop.last_exit()? {
            Exit::Code(code) => u8::try_from(code).unwrap_or(COULD_NOT).max(1),
            Exit::Signal { .. } => return None, // it is started again
        };
        error!("not started");
        // A manager that did come up goes with it.
        self.stop();
        Some(code)
    }

    fn show(&self) {
        let asked = Connection::open(&self.family.directory.manager_socket())
            .and_then(|connection| connection.ask(Request::Status, BANNER_WITHIN));
        match asked {
            Ok((Reply::Status(status), _)) => {
                let text = banner::banner(&status, self.family.source == Source::BuiltIn);
                if self.daemon {
                    text.lines().for_each(|line| info!("{line}"));
                } else {
                    // For the eyes of who typed it; a pipe that nobody reads must not stop anything.
                    let stream = sys::daemon::ErrorStream::open();
                    let _ = stream.write_line(text.as_bytes());
                }
            }
            Ok((other, _)) => warn!("manager answered something else than its status: {other:?}"),
            Err(error) => warn!("manager does not tell where it listens: {error}"),
        }
    }

    fn wait(&self, now: Instant, housekeeping_at: Instant) -> std::io::Result<()> {
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd()];
        descriptors.extend(self.cop.descriptors());
        descriptors.extend(self.manager.descriptors());
        descriptors.extend(self.first.as_ref().and_then(Link::descriptor));
        descriptors.extend(self.errand.as_ref().and_then(Errand::descriptor));
        let absent = self.cop.pid().is_none() || self.manager.pid().is_none();
        let moments = [
            Some(self.cop.next_at()).filter(|&at| at > now),
            Some(self.manager.next_at()).filter(|&at| at > now),
            absent.then(|| now + ABSENCE_LOOK_INTERVAL),
            self.first.as_ref().map(Link::next_at),
            self.errand.as_ref().map(Errand::next_at),
            self.service.next_at(),
            Some(housekeeping_at),
        ];
        wait::readable(&descriptors, wait::until_earliest(now, moments))
    }

    fn next_signal(&self) -> Option<Arrived> {
        self.signals.next().unwrap_or_else(|error| {
            error!("signals cannot be read: {error}");
            None
        })
    }

    /// Does what a signal says. `true`: stop.
    fn heed(&mut self, arrived: Arrived, now: Instant) -> bool {
        match arrived.signal {
            Taken::Terminate | Taken::Interrupt => {
                info!("told to stop by process {}", arrived.sender);
                return true;
            }
            Taken::HangUp if !self.daemon && sys::daemon::input_is_terminal() => {
                info!("the terminal hung up: stop");
                return true;
            }
            Taken::HangUp => self.send_errand(Step::Reload, now),
            Taken::User1 => {
                self.family.reopen_log();
                if !self.manager.signal(Signal::USR1) {
                    warn!("manager is just being brought back: it opens the logs anew by that");
                }
            }
            // Manager says it when it has become another program and all others have.
            Taken::User2 if self.manager.pid() == Some(arrived.sender) => self.follow_manager(arrived.sender),
            Taken::User2 => self.send_errand(Step::Upgrade, now),
            Taken::Child | Taken::LevelUp | Taken::LevelDown => {}
        }
        false
    }

    fn send_errand(&mut self, step: Step, now: Instant) {
        match &self.errand {
            Some(errand) => warn!("a {} is under way: say it again when that has ended", errand.what()),
            None => {
                let errand = Errand::begin(step, now, self.config.supervise.start_timeout);
                self.service.changes(errand.what());
                self.errand = Some(errand);
            }
        }
    }

    fn turn_errand(&mut self, now: Instant) {
        let Some(errand) = &mut self.errand else { return };
        let Some(ended) = errand.turn(&self.family.directory, now) else { return };
        match ended {
            // Why, manager has told the log.
            Ended::Decided(outcome) => {
                debug!("the {} ended: {outcome:?}", errand.what());
                self.service.serves(&format!("serves; the last {}: {}", errand.what(), outcome.as_str()));
            }
            Ended::Unknown(why) => {
                warn!("how the {} went is not known: {why}", errand.what());
                self.service.serves(&format!("how the last {} went is not known", errand.what()));
            }
        }
        self.errand = None;
    }

    /// Becomes the program that manager has become, which has proven itself by then. Returns when that cannot be.
    fn follow_manager(&self, manager: u32) {
        let program = match sys::exec::open_program(format!("/proc/{manager}/exe").as_ref()) {
            Ok(program) => program,
            Err(error) => return warn!("the top process stays the program it is: {error}"),
        };
        let Some(lease) = &self.lease else { return };
        let legacy = Legacy {
            version: base::VERSION.to_owned(),
            lease: Some(lease.as_fd().as_raw_fd()),
            daemon: self.daemon,
            ..Legacy::default()
        };
        let mut words: Vec<OsString> = vec!["beltway".into(), "run".into()];
        words.extend(self.family.source.arguments());
        words.extend(["--runtime-dir".into(), self.family.directory.path().into()]);
        let error = legacy.leave(&program, &words, &[lease.as_fd()]);
        warn!("the top process stays the program it is: {error}");
    }

    fn stop(&mut self) -> u8 {
        self.service.stops();
        let told = self.cop.dismiss();
        let deadline = SystemClock.now() + self.config.supervise.stop_timeout + STOP_MARGIN;
        let signals = &self.signals;
        let stopped = stop::stop_from(&self.family.directory, Role::Cop, deadline, told, || {
            let _ = reaped::reap(); // how each one died, cop and manager have told
            role::told_to_stop_again(signals)
        });
        let outcome = match stopped {
            Ok(Stopped::NotRunning | Stopped::Orderly) => Ok(()),
            Ok(Stopped::Killed) => {
                warn!("not everybody went when asked: killed");
                Ok(())
            }
            Ok(Stopped::StillThere) => Err("the kernel does not let go of a process".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let left = self.forget();
        match outcome.and(left.map_err(|error| format!("something is left behind: {error}"))) {
            Ok(()) => {
                info!("stopped");
                DONE
            }
            Err(why) => {
                error!("{why}");
                COULD_NOT
            }
        }
    }

    /// Removes what belongs to this run.
    fn forget(&mut self) -> std::io::Result<()> {
        let directory = &self.family.directory;
        stop::clear_away(directory)?;
        directory.forget_run()?;
        self.lease.take().map_or(Ok(()), Lease::remove)
    }
}

/// What the top process goes on with as another program: what is in force, whatever the file says by now. It must not end
/// because of that.
fn resumed(run: &Run) -> Result<(Source, Config, RuntimeDir), u8> {
    let source = commands::source(&run.place)?;
    let Some(directory) = run.place.runtime_dir.as_ref().map(RuntimeDir::new) else {
        return commands::load(&run.place);
    };
    let config = configuration::committed(&directory).ok().flatten();
    Ok((source, config.unwrap_or_else(config::builtin_default), directory))
}

/// Commits the configuration for the tree. When a tree lives already (its stub died), what it runs stays in force. `true`:
/// a server is among those who live.
fn put_in_force(family: &Family, config: Config) -> Result<(Config, bool), u8> {
    let directory = &family.directory;
    let failed = |error: std::io::Error| {
        error!("{}: {error}", directory.path().display());
        COULD_NOT
    };
    let lives = |top| stop::leases(directory, top).and_then(|leases| stop::any_lives(&leases)).map_err(failed);
    if lives(Role::Cop)? {
        let running = configuration::in_force(directory, &family.source);
        let running = running.map_or(config.clone(), |(running, _)| running);
        if configuration::digest(&running) != configuration::digest(&config) {
            warn!(
                "a tree lives here and is adopted with the configuration it runs, which is not that of {}",
                family.source
            );
        }
        return Ok((running, lives(Role::Server)?));
    }
    directory.forget_run().map_err(failed)?;
    configuration::commit(directory, &config).map_err(failed)?;
    Ok((config, false))
}
