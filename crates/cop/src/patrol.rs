//! Cop's poll loop.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use config::{Config, Supervise};
use supervise::configuration::Follower;
use supervise::control::{Connection, ControlError, Endpoint, Pong, Question, Reply, Request};
use supervise::directory::RuntimeDir;
use supervise::failure::{COULD_NOT, DONE, Failure};
use supervise::heartbeat::Link;
use supervise::lease::{self, Lease};
use supervise::listener::{self, Listener, ListenerKind};
use supervise::obituary::{self, Obituary};
use supervise::page::Page;
use supervise::privilege;
use supervise::reaped::{self, Reaped};
use supervise::role::{self, Family, Role};
use supervise::sign::{self, Proof, Sign};
use supervise::status::ServerState;
use supervise::stop::{self, Stopped};
use supervise::succession::{self, Legacy};
use supervise::watch::{Sight, Watch};
use supervise::witness::OwnPage;
use supervise::{error, info, wait, warn, witness};
use sys::process::{Exit, Pidfd, Signal};
use sys::signal::{Signals, Taken};

use crate::Options;
use crate::verdict::{Observations, PageSign, Verdict, Who, verdict};

/// How long manager may take to hand over copies of its listeners.
const HAND_OVER_WITHIN: Duration = Duration::from_millis(200);
/// Beyond a turn's own timeout: cop was not run, or the machine slept.
const GAP_MIN: Duration = Duration::from_secs(1);
/// More than manager has for its servers, so that it is not killed while it waits for them.
const STOP_MARGIN: Duration = Duration::from_secs(2);
/// Turns of a loop in which it has come to a question, if it ever will.
const TURNS_MIN: u64 = 8;
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
    _witness: OwnPage,
    signals: Signals,
    endpoint: Endpoint,
    manager: Watch,
    server: Option<WatchedServer>,
    /// Copies of manager's listeners, and whose they are: its pid and the epoch of the set.
    listeners: Vec<Listener>,
    listeners_of: (u32, u64),
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
    /// Processor time its main thread had been given at its last answer.
    ran: Duration,
    /// Its own page, when there is one.
    page: Option<Page>,
    /// How often each of its event threads had turned when the page was first left without an answer.
    turns: Vec<u64>,
}

impl WatchedServer {
    /// Listens and asks. `true`: it has answered.
    fn hear(&mut self, now: Instant) -> bool {
        let answered = self.link.turn(now);
        if answered {
            self.ran = sign::ran(self.process.pid());
        }
        answered
    }
}

impl Patrol {
    fn start(options: &Options) -> Result<Self, Failure> {
        let started_at = SystemClock.now();
        let signals = Signals::take().map_err(|error| Failure::could_not("signals", error))?;
        let (config, mut family) = read_configuration(&options.role);
        privilege::become_configured_user(&config, &family.directory, family.log_file.as_deref())?;
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
        let witness = witness::begin(&directory.cop_witness());
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
            _witness: witness,
            signals,
            endpoint,
            manager,
            server: None,
            listeners: listeners.unwrap_or_default(),
            listeners_of: legacy.map_or((0, 0), |legacy| (legacy.listeners_of, legacy.listeners_epoch)),
            judge_at: started_at,
            report_at: Instant::ORIGIN,
            expected_by: started_at + GAP_MIN,
            started_at,
        })
    }

    fn walk(mut self) -> Result<u8, Failure> {
        loop {
            let reaped = reaped::reap();
            let now = SystemClock.now();
            let own_gap = now > self.expected_by + GAP_MIN;
            if self.take_signals()? {
                return self.stop();
            }
            let lease = match self.mind_manager(now, &reaped) {
                Ok(sight) => sight,
                Err(code) => return Ok(code),
            };
            self.mind_server(now, &reaped);
            self.judge(now, own_gap, lease);
            self.tell_of_orphans(&reaped);
            self.hold_listeners();
            self.answer(now);
            if now >= self.judge_at {
                self.judge_at = now + self.bounds.heartbeat_interval;
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
        descriptors.extend(server.flat_map(|s| std::iter::once(s.process.as_fd()).chain(s.descriptors())));
        let moments = [
            Some(self.judge_at),
            Some(self.manager.next_at()),
            self.server.as_ref().map(|server| server.link.next_at()),
            self.server.as_ref().and_then(|server| server.page.as_ref()).map(|page| page.next_at(now)),
        ];
        let timeout = wait::until_earliest(now, moments);
        self.expected_by = now + timeout;
        wait::readable(&descriptors, timeout).map_err(|error| Failure::could_not("poll", error))
    }

    /// Looks after manager.
    ///
    /// # Errors
    /// An exit code, which ends cop, too: at the first start manager's failure is everybody's.
    fn mind_manager(&mut self, now: Instant, reaped: &Reaped) -> Result<Sight, u8> {
        let before = self.manager.pid();
        let sight = self.manager.look(now, reaped);
        if let Some(pid) = before.filter(|_| self.manager.pid() != before) {
            self.tell_of_death(Role::Manager, pid, 0, reaped);
        }
        if self.manager.link().is_some_and(|link| link.pong().is_some()) {
            self.first = false;
        }
        if let (true, Some(Exit::Code(code @ 1..))) = (self.first, self.manager.last_exit()) {
            return Err(u8::try_from(code).unwrap_or(COULD_NOT));
        }
        Ok(sight)
    }

    fn start_manager(&mut self, now: Instant) {
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

    /// Follows the server that manager names; while there is no manager, the last one it named.
    fn mind_server(&mut self, now: Instant, reaped: &Reaped) {
        if let Some(server) = &self.server
            && server.process.is_dead()
        {
            let pid = server.process.pid();
            let generation = server.generation;
            info!("{}[{pid}] generation {generation} {}", Role::Server.name(), reaped.cause(&server.process));
            self.tell_of_death(Role::Server, pid, generation, reaped);
            self.server = None;
        }
        let named = self.manager.link().and_then(Link::pong).map_or(0, |pong| pong.generation);
        if named != 0 && self.server.as_ref().is_none_or(|server| server.generation != named) {
            match lease::process(&self.family.directory.server_lease(named)) {
                Ok(Some(process)) => {
                    let socket = self.family.directory.server_socket(named);
                    let mut link = Link::new(&socket, self.bounds.heartbeat_interval);
                    // Manager names who is ready. One that hangs before it has answered us once hangs as well.
                    link.expect(now);
                    // What it had run before is no sign of what it does now.
                    let ran = sign::ran(process.pid());
                    self.server =
                        Some(WatchedServer { generation: named, process, link, ran, page: None, turns: vec![] });
                }
                Ok(None) => {}
                Err(error) => warn!("generation {named} cannot be watched: {error}"),
            }
        }
        let Some(server) = &mut self.server else { return };
        server.hear(now);
        if server.page.is_none() {
            let page = self.listeners.iter().find(|listener| listener.name.kind == ListenerKind::Server);
            let address = page.and_then(|listener| listener.address().ip());
            server.page = address.map(|address| Page::new(address, self.bounds.heartbeat_interval));
        }
        if let Some(page) = &mut server.page {
            if server.link.pong().is_some_and(|pong| pong.state == ServerState::Ready) {
                page.expect(now);
            }
            page.turn(now);
            if page.unanswered() == 0 {
                server.turns.clear();
            } else if server.turns.is_empty() {
                server.turns = server.link.pong().map(turns).unwrap_or_default();
            }
        }
    }

    /// How a child of ours died, for those who were not its parent. An orderly end is not written down.
    fn tell_of_death(&self, role: Role, pid: u32, generation: u64, reaped: &Reaped) {
        let Some(exit) = reaped.of_pid(pid).filter(|exit| *exit != Exit::Code(0)) else { return };
        let (directory, who) = (&self.family.directory, role.name());
        if !obituary::is_told(directory, "cop", who, pid) {
            let (who, cause) = (who.to_owned(), exit.to_string());
            let mut account = Obituary { who, pid, generation, cause, ..Obituary::default() };
            if role == Role::Manager {
                witness::add_fault(&directory.manager_witness(), &mut account);
            }
            obituary::write(directory, "cop", account);
        }
    }

    /// Ends a process that hangs, and writes down what it was doing.
    fn end(&self, who: Who, proof: Proof, sign: Sign) {
        let (role, pid, generation) = match (who, &self.server) {
            (Who::Manager, _) => (Role::Manager, self.manager.pid(), 0),
            (Who::Server, Some(server)) => (Role::Server, Some(server.process.pid()), server.generation),
            (Who::Server, None) => return,
        };
        let Some(pid) = pid else { return };
        let silent_ms = sign.silent_for.map(|silence| u64::try_from(silence.as_millis()).unwrap_or(u64::MAX));
        let directory = &self.family.directory;
        let mut threads = obituary::threads_of(pid);
        let evidence = match (who, &self.server) {
            (Who::Manager, _) => {
                self.manager.process().map(|process| witness::hear(&directory.manager_witness(), process, &threads))
            }
            (Who::Server, server) => server
                .as_ref()
                .map(|server| witness::hear(&directory.server_witness(server.generation), &server.process, &threads)),
        };
        self.kill(who);
        if let Some(evidence) = evidence {
            evidence.tell(&mut threads);
        }
        let account = Obituary {
            who: role.name().to_owned(),
            pid,
            generation,
            cause: format!("hang: {}", proof.as_str()),
            last_answer_age_ms: silent_ms,
            threads,
            ..Obituary::default()
        };
        obituary::write(&self.family.directory, "cop", account);
    }

    fn tell_of_orphans(&self, reaped: &Reaped) {
        for (pid, exit) in reaped.all() {
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
                if let Some(server) = &mut self.server {
                    // Its page may be another one now.
                    server.page = None;
                    server.turns.clear();
                }
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
                | Request::Promote
                | Request::Serve(_) => {
                    let why = "cop keeps no account of the tree: ask manager".to_owned();
                    self.endpoint.answer(&question, Reply::Refused(why), &[]);
                }
            }
        }
    }

    fn judge(&mut self, now: Instant, own_gap: bool, lease: Sight) {
        let server = self.server.as_ref();
        let seen = Observations {
            own_gap,
            stopping: self.manager.link().and_then(Link::pong).is_some_and(|pong| pong.stopping),
            lease,
            manager: self.manager.sign(now),
            server: server.map_or(Sign::NOT_THERE, |s| Sign::of(s.process.pid(), &s.link, s.ran, now)),
            page: server.map_or(PageSign::NOT_THERE, |server| server.page_sign(&self.listeners, now)),
            hang_timeout: self.bounds.hang_timeout,
        };
        match verdict(&seen) {
            Verdict::Fine => {}
            Verdict::Forgive => {
                warn!("cop itself was not run for a while: what was missed meanwhile is forgiven");
                if let Some(link) = self.manager.link_mut() {
                    link.forgive(now);
                }
                if let Some(server) = &mut self.server {
                    server.link.forgive(now);
                    if let Some(page) = &mut server.page {
                        page.forgive(now);
                    }
                }
            }
            Verdict::Start => self.start_manager(now),
            Verdict::Wait => {
                if now >= self.report_at {
                    self.report_at = now + REPORT_INTERVAL;
                    let deaths = self.manager.failures();
                    warn!("manager has died {deaths} times in a row before it was ready; the next one has to wait");
                }
            }
            Verdict::Report(who, excuse) => {
                if now >= self.report_at {
                    self.report_at = now + REPORT_INTERVAL;
                    warn!("{who:?} does not answer ({excuse:?}): {:?}; it is left alone", self.sign_of(who, &seen));
                }
            }
            // It may have been given the processor, have answered and fallen asleep since we last listened.
            Verdict::Kill(who, Proof::Blocked | Proof::Busy) if self.has_answered(who, now) => {}
            Verdict::Kill(who, proof) => {
                error!("{who:?} hangs ({proof:?}): {:?}; it is killed", self.sign_of(who, &seen));
                self.end(who, proof, self.sign_of(who, &seen));
            }
        }
    }

    fn has_answered(&mut self, who: Who, now: Instant) -> bool {
        match who {
            Who::Manager => self.manager.hear(now),
            Who::Server => self.server.as_mut().is_some_and(|server| server.hear(now)),
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
                Taken::Child | Taken::LevelUp | Taken::LevelDown => {}
            }
        }
    }

    /// Stops manager and server, and ends.
    fn stop(mut self) -> Result<u8, Failure> {
        self.listeners.clear();
        // A manager that just starts waits for an answer of ours, and would have to be killed.
        drop(self.endpoint);
        let told = self.manager.dismiss();
        let deadline = SystemClock.now() + self.bounds.stop_timeout + STOP_MARGIN;
        let signals = &self.signals;
        let stopped = stop::stop_from(&self.family.directory, Role::Manager, deadline, told, || {
            for (pid, exit) in reaped::reap().all() {
                info!("process {pid} {exit}");
            }
            role::told_to_stop_again(signals)
        });
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

impl WatchedServer {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.link.descriptor().into_iter().chain(self.page.as_ref().and_then(Page::descriptor))
    }

    fn page_sign(&self, listeners: &[Listener], now: Instant) -> PageSign {
        let (Some(page), Some(pong)) = (&self.page, self.link.pong()) else { return PageSign::NOT_THERE };
        // Each connection in the queue takes a turn of some thread.
        let listener = listeners.iter().find(|listener| listener.name.kind == ListenerKind::Server);
        let waiting = listener.and_then(|listener| sys::queue::of(&listener.fd).ok()).unwrap_or_default().waiting;
        let enough = TURNS_MIN + 2 * u64::from(waiting);
        let now_turned = turns(pong);
        let turned = !now_turned.is_empty()
            && now_turned.len() == self.turns.len()
            && now_turned.iter().zip(&self.turns).all(|(now, then)| now.saturating_sub(*then) >= enough);
        PageSign { silent_for: page.silent_for(now), unanswered: page.unanswered(), turned, full: pong.pages_full }
    }
}

fn turns(pong: &Pong) -> Vec<u64> {
    pong.threads.iter().map(|thread| thread.turns).collect()
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
