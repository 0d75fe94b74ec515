//! Cop's poll loop.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use config::{Config, Supervise};
use supervise::configuration::Follower;
use supervise::control::{Connection, ControlError, Endpoint, Pong, Question, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::failure::{DONE, Failure};
use supervise::heartbeat::Link;
use supervise::lease::{self, Lease};
use supervise::listener::{self, Listener};
use supervise::obituary::{self, Obituary};
use supervise::role::{self, Family, Role};
use supervise::stop::{self, Stopped};
use supervise::succession::{self, Legacy};
use supervise::watch::{self, Reaped, Sight, Watch};
use supervise::{error, info, wait, warn};
use sys::process::{Exit, Pidfd, Signal};
use sys::signal::{Signals, Taken};

use crate::Options;
use crate::verdict::{Observations, Proof, Sign, Verdict, Who, verdict};

/// How long manager may take to hand over copies of its listeners.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(200);
/// Beyond a turn's own timeout: cop was not run, or the machine slept.
const GAP_MIN: Duration = Duration::from_secs(1);
/// More than manager has for its servers, so that it is not killed while it waits for them.
const STOP_MARGIN: Duration = Duration::from_secs(2);
/// Between two reports of the same thing.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Runs cop until it is told to stop. The answer is its exit code: 0 stopped, 1 it could not, 4 another cop runs here; at
/// the start of a tree also what manager ended with.
#[must_use]
pub fn run(options: &Options) -> u8 {
    Patrol::start(options).and_then(Patrol::walk).unwrap_or_else(|failure| failure.told())
}

struct Patrol {
    family: Family,
    bounds: Supervise,
    in_tree: bool,
    /// Until manager has answered once.
    first: bool,
    /// Tells when another configuration is in force.
    follower: Follower,
    lease: Lease,
    signals: Signals,
    endpoint: Endpoint,
    manager: Watch,
    server: Option<WatchedServer>,
    /// Copies of manager's listeners, and whose they are: its pid and the epoch of the set.
    listeners: Vec<Listener>,
    listeners_of: (u32, u64),
    manager_ticks: Ticks,
    judge_at: Instant,
    report_at: Instant,
    /// When this turn should have begun at the latest.
    expected_by: Instant,
    started_at: Instant,
}

struct WatchedServer {
    generation: u64,
    process: Pidfd,
    link: Link,
    ticks: Ticks,
}

/// Processor time of a process at its last answer.
#[derive(Clone, Copy, Default)]
struct Ticks(u64);

impl Patrol {
    fn start(options: &Options) -> Result<Self, Failure> {
        let started_at = SystemClock.now();
        let signals = Signals::take().map_err(|error| Failure::could_not("signals", error))?;
        let (config, mut family) = read_configuration(&options.role);
        role::settle(Role::Cop, &family)?;
        family.follow(&config);
        let bounds = config.supervise;
        let directory = &family.directory;
        let legacy = options.role.legacy.map(Legacy::take).transpose();
        let legacy = legacy.map_err(|error| Failure::could_not("what the former program left", error))?;
        let lease = match legacy.as_ref().and_then(|legacy| legacy.lease) {
            Some(number) => Lease::resume(number, &directory.cop_lease())?,
            None => Lease::take(&directory.cop_lease())?,
        };
        if let Err(error) = sys::process::become_subreaper() {
            warn!("orphans go elsewhere, and how they die with them: {error}");
        }
        let socket = directory.cop_socket();
        let endpoint = match legacy.as_ref().and_then(|legacy| legacy.endpoint.as_ref()) {
            Some(kept) => Endpoint::resume(&socket, kept),
            None => Endpoint::bind(&socket),
        };
        let mut endpoint = endpoint.map_err(|error| Failure::could_not(socket.display(), error))?;
        let listeners = legacy.as_ref().map(Legacy::listeners).transpose();
        let listeners = listeners.map_err(|error| Failure::could_not("the listeners that were kept", error))?;
        if let Some(legacy) = &legacy {
            info!("cop goes on as version {}, it was {}", base::VERSION, legacy.version);
            if let Some(asker) = legacy.asker {
                endpoint.answer(&asker.again(Request::Become), Reply::Done, &[]);
            }
        }
        let manager = Watch::new(
            Role::Manager,
            directory.manager_lease(),
            directory.manager_socket(),
            Some(bounds.heartbeat_interval),
            bounds.respawn_backoff_max,
        );
        Ok(Self {
            follower: Follower::new(&family.directory),
            family,
            bounds,
            in_tree: options.role.in_tree,
            first: options.first,
            lease,
            signals,
            endpoint,
            manager,
            server: None,
            listeners: listeners.unwrap_or_default(),
            listeners_of: legacy.map_or((0, 0), |legacy| (legacy.listeners_of, legacy.listeners_epoch)),
            manager_ticks: Ticks::default(),
            judge_at: started_at,
            report_at: Instant::ORIGIN,
            expected_by: started_at + GAP_MIN,
            started_at,
        })
    }

    fn walk(mut self) -> Result<u8, Failure> {
        loop {
            let reaped = watch::reap();
            let now = SystemClock.now();
            let own_gap = now > self.expected_by + GAP_MIN;
            if self.take_signals()? {
                return self.stop();
            }
            if let Some(code) = self.mind_manager(now, &reaped) {
                return Ok(code);
            }
            self.mind_server(now, &reaped);
            self.tell_of_orphans(&reaped);
            self.hold_listeners();
            self.answer(now);
            if own_gap || now >= self.judge_at {
                self.judge_at = now + self.bounds.heartbeat_interval;
                self.judge(now, own_gap);
                if let Some(config) = self.follower.look() {
                    self.family.follow(&config);
                    self.bounds = config.supervise;
                }
                role::restore(&self.family.directory, &mut self.lease, Some(&mut self.endpoint));
            }
            self.wait()?;
        }
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let now = SystemClock.now();
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd()];
        descriptors.extend(self.endpoint.descriptors());
        descriptors.extend(self.manager.descriptors());
        let server = self.server.iter();
        descriptors.extend(server.flat_map(|s| std::iter::once(s.process.as_fd()).chain(s.link.descriptor())));
        let moments = [
            Some(self.judge_at),
            Some(self.manager.next_at()),
            self.server.as_ref().map(|server| server.link.next_at()),
        ];
        let timeout = wait::until_earliest(now, moments);
        self.expected_by = now + timeout;
        wait::readable(&descriptors, timeout).map_err(|error| Failure::could_not("poll", error))
    }

    /// Respawns manager. An exit code ends cop, too: at the first start manager's failure is everybody's.
    fn mind_manager(&mut self, now: Instant, reaped: &Reaped) -> Option<u8> {
        let before = self.manager.pid();
        let sight = self.manager.look(now, reaped);
        if self.manager.pid() != before {
            self.manager_ticks = Ticks::default();
            if let Some(pid) = before {
                self.tell_of_death(Role::Manager, pid, 0, reaped);
            }
        }
        if self.manager.link().is_some_and(|link| link.pong().is_some()) {
            self.first = false;
        }
        if let (true, Some(Exit::Code(code @ 1..))) = (self.first, self.manager.last_exit()) {
            return u8::try_from(code).ok();
        }
        if sight == Sight::Gone {
            let arguments: &[OsString] = if self.in_tree { &["--in-tree".into()] } else { &[] };
            match role::start(Role::Manager, &self.family, arguments, Vec::new()) {
                Ok(child) => {
                    info!("{}[{}] started", Role::Manager.name(), child.pid());
                    self.manager.started(child, now);
                }
                Err(error) => {
                    error!("{} cannot be started: {error}", Role::Manager.name());
                    self.manager.not_started(now);
                }
            }
        }
        None
    }

    /// Follows the server that manager names; while there is no manager, the last one it named.
    fn mind_server(&mut self, now: Instant, reaped: &Reaped) {
        if let Some(server) = &self.server
            && server.process.is_dead()
        {
            let pid = server.process.pid();
            let generation = server.generation;
            info!("{}[{pid}] generation {generation} {}", Role::Server.name(), watch::cause(reaped, pid));
            self.tell_of_death(Role::Server, pid, generation, reaped);
            self.server = None;
        }
        let named = self.manager.link().and_then(Link::pong).map_or(0, |pong| pong.generation);
        if named != 0 && self.server.as_ref().is_none_or(|server| server.generation != named) {
            match lease::process(&self.family.directory.server_lease(named)) {
                Ok(Some(process)) => {
                    let socket = self.family.directory.server_socket(named);
                    let link = Link::new(&socket, self.bounds.heartbeat_interval);
                    self.server = Some(WatchedServer { generation: named, process, link, ticks: Ticks::default() });
                }
                Ok(None) => {}
                Err(error) => warn!("generation {named} cannot be watched: {error}"),
            }
        }
        if let Some(server) = &mut self.server
            && server.link.turn(now)
        {
            server.ticks = ticks(server.process.pid());
        }
    }

    /// How a child of ours died, for those who were not its parent. An orderly end is not written down.
    fn tell_of_death(&self, role: Role, pid: u32, generation: u64, reaped: &Reaped) {
        let exit = reaped.iter().find(|(who, _)| *who == pid).map(|(_, exit)| *exit);
        let Some(exit) = exit.filter(|exit| *exit != Exit::Code(0)) else { return };
        let (directory, who) = (&self.family.directory, role.name());
        if !obituary::is_told(directory, "cop", who, pid) {
            let (who, cause) = (who.to_owned(), exit.to_string());
            obituary::write(directory, "cop", Obituary { who, pid, generation, cause, ..Obituary::default() });
        }
    }

    /// Writes down what a process that hangs was doing, before it is killed.
    fn tell_of_hang(&self, who: Who, proof: Proof, sign: Sign) {
        let (role, pid, generation) = match (who, &self.server) {
            (Who::Manager, _) => (Role::Manager, self.manager.pid(), 0),
            (Who::Server, Some(server)) => (Role::Server, Some(server.process.pid()), server.generation),
            (Who::Server, None) => return,
        };
        let Some(pid) = pid else { return };
        let silent_ms = sign.silent_for.map(|silence| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX));
        let account = Obituary {
            who: role.name().to_owned(),
            pid,
            generation,
            cause: format!("hang: {}", proof.as_str()),
            last_answer_age_ms: silent_ms,
            threads: obituary::threads_of(pid),
            ..Obituary::default()
        };
        obituary::write(&self.family.directory, "cop", account);
    }

    fn tell_of_orphans(&self, reaped: &Reaped) {
        for (pid, exit) in reaped {
            info!("process {pid} {exit}");
        }
    }

    /// Keeps copies of manager's listeners.
    fn hold_listeners(&mut self) {
        let Some(pong) = self.manager.link().and_then(Link::pong) else { return };
        let theirs = (pong.pid, pong.listeners_epoch);
        if pong.listeners_epoch == 0 || theirs == self.listeners_of {
            return;
        }
        self.listeners_of = theirs; // asked once: what fails is said, and the next manager is asked again
        let asked = Connection::open(&self.family.directory.manager_socket())
            .and_then(|connection| connection.ask(Request::Listeners, HAND_OVER_WITHIN));
        let held = match asked {
            Ok((Reply::Listeners(names), fds)) => listener::paired(names, fds).map_err(ControlError::Malformed),
            Ok((other, _)) => Err(ControlError::Malformed(format!("{other:?}"))),
            Err(error) => Err(error),
        };
        match held {
            Ok(listeners) => {
                info!("holds copies of {} listeners", listeners.len());
                self.listeners = listeners;
            }
            Err(error) => {
                warn!("no copies of manager's listeners: {error}");
                self.listeners_of = (0, 0);
            }
        }
    }

    /// Becomes another program: same pid, same lease, same listeners. Returns only when that cannot be, and why.
    fn become_program(&self, program: &OwnedFd, question: &Question) -> std::io::Error {
        let legacy = Legacy {
            version: base::VERSION.to_owned(),
            lease: Some(self.lease.as_fd().as_raw_fd()),
            endpoint: Some(self.endpoint.keep()),
            listeners: succession::kept(&self.listeners),
            listeners_of: self.listeners_of.0,
            listeners_epoch: self.listeners_of.1,
            asker: Some(question.kept()),
            ..Legacy::default()
        };
        let arguments: &[OsString] = if self.in_tree { &["--in-tree".into()] } else { &[] };
        let words = role::words(Role::Cop, &self.family, arguments);
        let mut kept: Vec<BorrowedFd<'_>> = vec![self.lease.as_fd()];
        kept.extend(self.endpoint.descriptors());
        kept.extend(self.listeners.iter().map(|listener| listener.fd.as_fd()));
        legacy.leave(program, &words, &kept)
    }

    fn answer(&mut self, now: Instant) {
        for question in self.endpoint.questions() {
            match &question.request {
                Request::Ping => {
                    let pong = Pong {
                        name: Role::Cop.name().to_owned(),
                        pid: std::process::id(),
                        version: base::VERSION.to_owned(),
                        age_ms: u64::try_from((now - self.started_at).as_millis()).unwrap_or(u64::MAX),
                        listeners_epoch: u64::from(!self.listeners.is_empty()),
                        ..Pong::default()
                    };
                    self.endpoint.answer(&question, Reply::Pong(pong), &[]);
                }
                Request::Listeners => {
                    let names = self.listeners.iter().map(|listener| listener.name.clone()).collect();
                    let fds: Vec<_> = self.listeners.iter().map(|listener| listener.fd.as_fd()).collect();
                    self.endpoint.answer(&question, Reply::Listeners(names), &fds);
                }
                Request::ReopenLogs => {
                    self.family.reopen_log();
                    self.endpoint.answer(&question, Reply::Done, &[]);
                }
                &Request::LogLevel(level) => {
                    supervise::log::set_level(level);
                    self.endpoint.answer(&question, Reply::Done, &[]);
                }
                Request::Become => {
                    let why = match question.descriptors.first() {
                        Some(program) => self.become_program(program, &question).to_string(),
                        None => "no program came with it".to_owned(),
                    };
                    warn!("cop stays the program it is: {why}");
                    self.endpoint.answer(&question, Reply::Refused(why), &[]);
                }
                Request::Status
                | Request::Change { .. }
                | Request::Prepare(_)
                | Request::Commit(_)
                | Request::Retire(_)
                | Request::TakeOver(_)
                | Request::Kv(_)
                | Request::Cache(_)
                | Request::Numbers(_)
                | Request::Drain(_)
                | Request::Serve(_) => {
                    let why = "cop keeps no account of the tree: ask manager".to_owned();
                    self.endpoint.answer(&question, Reply::Refused(why), &[]);
                }
            }
        }
    }

    fn judge(&mut self, now: Instant, own_gap: bool) {
        let manager = match (self.manager.pid(), self.manager.link()) {
            (Some(pid), Some(link)) => {
                if link.missed_in_a_row() == 0 {
                    self.manager_ticks = ticks(pid);
                }
                sign(pid, link, self.manager_ticks, now)
            }
            _ => NOT_THERE,
        };
        let server = self.server.as_ref().map_or(NOT_THERE, |s| sign(s.process.pid(), &s.link, s.ticks, now));
        let stopping = self.manager.link().and_then(Link::pong).is_some_and(|pong| pong.stopping);
        let seen = Observations { own_gap, stopping, manager, server, hang_timeout: self.bounds.hang_timeout };
        match verdict(&seen) {
            Verdict::Fine => {}
            Verdict::Forgive => {
                warn!("cop itself was not run for a while: what was missed meanwhile is forgiven");
                if let Some(link) = self.manager.link_mut() {
                    link.forgive(now);
                }
                if let Some(server) = &mut self.server {
                    server.link.forgive(now);
                }
            }
            Verdict::Report(who, excuse) => {
                if now >= self.report_at {
                    self.report_at = now + REPORT_INTERVAL;
                    warn!("{who:?} does not answer ({excuse:?}): {:?}; it is left alone", self.sign_of(who, &seen));
                }
            }
            Verdict::Kill(who, proof) => {
                error!("{who:?} hangs ({proof:?}): {:?}; it is killed", self.sign_of(who, &seen));
                self.tell_of_hang(who, proof, self.sign_of(who, &seen));
                self.kill(who);
            }
        }
    }

    const fn sign_of(&self, who: Who, seen: &Observations) -> Sign {
        match who {
            Who::Manager => seen.manager,
            Who::Server => seen.server,
        }
    }

    fn kill(&self, who: Who) {
        match who {
            Who::Manager => {
                self.manager.signal(Signal::KILL);
            }
            Who::Server => {
                let Some(server) = &self.server else { return };
                let path = self.family.directory.server_lease(server.generation);
                if let Err(error) = lease::signal(&path, &server.process, Signal::KILL) {
                    error!("{}[{}] cannot be killed: {error}", Role::Server.name(), server.process.pid());
                }
            }
        }
    }

    /// Whether one of them says to stop.
    fn take_signals(&mut self) -> Result<bool, Failure> {
        let mut stop = false;
        loop {
            let arrived = self.signals.next().map_err(|error| Failure::could_not("signals", error))?;
            let Some(arrived) = arrived else { return Ok(stop) };
            match arrived.signal {
                Taken::Terminate | Taken::Interrupt => {
                    info!("told to stop by process {}", arrived.sender);
                    stop = true;
                }
                // Cop at the top of a tree of its own passes on what is meant for all.
                Taken::HangUp => {
                    self.manager.signal(Signal::HUP);
                }
                Taken::User1 => {
                    self.family.reopen_log();
                    info!("log reopened");
                }
                Taken::User2 => {
                    self.manager.signal(Signal::USR2);
                }
                Taken::Child => {}
            }
        }
    }

    /// Stops manager and server, and ends.
    fn stop(mut self) -> Result<u8, Failure> {
        self.listeners.clear();
        self.manager.dismiss();
        let deadline = SystemClock.now() + self.bounds.stop_timeout + STOP_MARGIN;
        let signals = &self.signals;
        let stopped = stop::stop_from(&self.family.directory, Role::Manager, deadline, || {
            for (pid, exit) in watch::reap() {
                info!("process {pid} {exit}");
            }
            role::told_to_stop_again(signals)
        });
        drop(self.endpoint);
        let removed = self.lease.remove();
        match stopped {
            Ok(Stopped::NotRunning | Stopped::Orderly) => info!("stopped"),
            Ok(Stopped::Killed) => warn!("stopped; not everybody went when asked"),
            Ok(Stopped::StillThere) => {
                return Err(Failure::could_not("stop", "the kernel does not let go of manager or server"));
            }
            Err(error) => return Err(Failure::could_not("stop", error)),
        }
        removed.map_err(|error| Failure::could_not("the lease cannot be removed", error))?;
        Ok(DONE)
    }
}

const NOT_THERE: Sign = Sign { silent_for: None, missed_in_a_row: 0, state: None, had_processor: false };

fn ticks(pid: u32) -> Ticks {
    Ticks(sys::process::stat(pid).map_or(0, |stat| stat.cpu_ticks))
}

fn sign(pid: u32, link: &Link, at_last_answer: Ticks, now: Instant) -> Sign {
    let missed_in_a_row = link.missed_in_a_row();
    // /proc is read only when there is something to explain.
    let stat = (missed_in_a_row > 0).then(|| sys::process::stat(pid)).flatten();
    Sign {
        silent_for: link.silent_for(now),
        missed_in_a_row,
        state: stat.map(|stat| stat.state),
        had_processor: stat.is_some_and(|stat| stat.cpu_ticks > at_last_answer.0),
    }
}

/// Cop has little to configure, and is needed most when things are not well: what is wrong is said, and no reason to end.
fn read_configuration(options: &role::Options) -> (Config, Family) {
    match options.read_configuration() {
        Ok((config, family)) => (config, family),
        Err(failure) => {
            warn!("cop runs with the defaults: {}", failure.why);
            let config = config::builtin_default();
            let path = options.runtime_dir.clone().unwrap_or_else(|| config.runtime_dir.clone());
            let (source, log_file) = (options.source.clone(), options.log_file.clone());
            (config, Family { directory: RuntimeDir::new(path), source, log_file })
        }
    }
}
