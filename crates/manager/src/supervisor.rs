//! Manager's main thread: one poll loop that never waits for anything else.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use config::Config;
use supervise::backoff::Backoff;
use supervise::change::{Proposal, Step};
use supervise::configuration;
use supervise::control::{Endpoint, Question};
use supervise::failure::{DONE, Failure};
use supervise::lease::Lease;
use supervise::listener::{Listener, ListenerKind};
use supervise::privilege;
use supervise::reaped::{self, Reaped};
use supervise::role::{self, Family, Options, Role};
use supervise::room::{self, Room};
use supervise::status::{ConfigurationStatus, RespawnStatus, ServerState};
use supervise::succession::Legacy;
use supervise::watch::{Sight, Watch};
use supervise::{error, info, wait, warn};
use sys::process::Signal;
use sys::signal::{Signals, Taken};

use crate::admin::{self, AdminHandle};
use crate::change::{Asker, Change};
use crate::held::Holding;
use crate::listeners;
use crate::report::{self, Knowledge, Published};
use crate::servers::{self, How, Server};
use crate::upgrade::Upgrade;
use crate::vigil::Vigil;
use reconcile::Unlike;

mod answers;
mod reconcile;

/// How long supervision, about to stop, waits for the control plane.
const ADMIN_STOPS_WITHIN: Duration = Duration::from_millis(100);

/// Runs manager until it is told to stop. The answer is its exit code: 0 stopped, 1 it could not, 3 the configuration is
/// wrong, 4 another manager runs here.
#[must_use]
pub fn run(options: &Options) -> u8 {
    match Supervisor::start(options).and_then(Supervisor::supervise) {
        Ok(()) => DONE,
        Err(failure) => failure.told(),
    }
}

pub(crate) struct Supervisor {
    pub(crate) family: Family,
    pub(crate) config: Arc<Config>,
    configuration: ConfigurationStatus,
    pub(crate) lease: Lease,
    _witness: supervise::witness::OwnPage,
    signals: Signals,
    pub(crate) endpoint: Endpoint,
    /// What was asked there and takes long: one is answered a turn.
    waiting: VecDeque<Question>,
    pub(crate) listeners: Vec<Listener>,
    /// Grows with each change of the listeners.
    pub(crate) listeners_epoch: u64,
    pub(crate) servers: Vec<Server>,
    /// Their threads, watched.
    pub(crate) vigil: Vigil,
    /// A change that is under way.
    pub(crate) change: Option<Change>,
    /// Another program is taking this one's place, or has just done so.
    pub(crate) upgrade: Option<Upgrade>,
    /// What servers run that is not in force.
    pub(crate) unlike: Unlike,
    /// The last server that ended, and how.
    last_end: (u64, String),
    pub(crate) server_deaths: u64,
    backoff: Backoff,
    /// No server is started before this.
    not_before: Instant,
    last_death: String,
    /// No server that stands by is started before this.
    pub(crate) standby_not_before: Instant,
    pub(crate) cop: Option<Watch>,
    /// An orderly stop has begun.
    pub(crate) stopping: bool,
    /// Readiness fails by an operator's wish.
    pub(crate) leaving: bool,
    /// Servers of pools that are out of their rings by an operator's wish.
    pub(crate) held: Holding,
    /// An operator wants no server to run.
    pub(crate) down: bool,
    housekeeping_at: Instant,
    /// In the runtime directory, as it was last looked at.
    room: Option<Room>,
    started_at: Instant,
    published: Published,
    /// The control plane, while it runs.
    admin: Option<AdminHandle>,
}

impl Supervisor {
    fn start(options: &Options) -> Result<Self, Failure> {
        let started_at = SystemClock.now();
        // Before any thread starts: all inherit the mask.
        let signals = Signals::take().map_err(|error| Failure::could_not("signals", error))?;
        let (config, mut family) = options.read_configuration()?;
        privilege::become_configured_user(&config, &family.directory, family.log_file.as_deref())?;
        role::settle(Role::Manager, &family)?;
        family.follow(&config);
        let directory = family.directory.clone();
        let legacy = options.legacy.map(Legacy::take).transpose();
        let legacy = legacy.map_err(|error| Failure::could_not("what the former program left", error))?;
        let lease = match legacy.as_ref().and_then(|legacy| legacy.lease) {
            Some(number) => Lease::resume(number, &directory.manager_lease())?,
            None => Lease::take(&directory.manager_lease())?,
        };

        let witness = supervise::witness::begin(&directory.manager_witness());
        let interval = config.supervise.heartbeat_interval;
        let generations = Server::living(&directory);
        let ours = legacy.as_ref().map(Legacy::listeners).transpose();
        let ours = ours.map_err(|error| Failure::could_not("the listeners that the former program left", error))?;
        let listeners = listeners::gather(&config, &directory, &generations, ours.unwrap_or_default())?;
        // By now also one that had just been started has told its pid.
        let adopt = |&generation: &u64| Server::adopt(&directory, generation, interval, started_at);
        let mut servers: Vec<_> = generations.iter().filter_map(adopt).collect();
        configuration::commit(&directory, &config)
            .map_err(|error| Failure::could_not("the configuration cannot be committed", error))?;
        let socket = directory.manager_socket();
        let endpoint = match legacy.as_ref().and_then(|legacy| legacy.endpoint.as_ref()) {
            Some(kept) => Endpoint::resume(&socket, kept),
            None => Endpoint::bind(&socket),
        };
        let endpoint = endpoint.map_err(|error| Failure::could_not(socket.display(), error))?;
        for (generation, left_ms) in legacy.iter().flat_map(|legacy| &legacy.leaving) {
            if let Some(server) = servers.iter_mut().find(|server| server.generation == *generation) {
                server.state = ServerState::Draining;
                server.stop_by = Some(started_at + Duration::from_millis(*left_ms));
            }
        }
        let cop = options.in_tree.then(|| {
            let (lease, socket) = (directory.cop_lease(), directory.cop_socket());
            Watch::new(Role::Cop, lease, socket, Some(interval), config.supervise.respawn_backoff_max)
        });
        let config = Arc::new(config);
        let configuration =
            ConfigurationStatus { source: options.source.to_string(), digest: configuration::digest(&config) };
        let mut supervisor = Self {
            backoff: Backoff::new(config.supervise.respawn_backoff_max),
            leaving: directory.leaving().exists(),
            published: Published::new(directory, Arc::clone(&config)),
            family,
            config,
            configuration,
            lease,
            _witness: witness,
            signals,
            endpoint,
            waiting: VecDeque::new(),
            listeners,
            listeners_epoch: legacy.as_ref().map_or(1, |legacy| legacy.listeners_epoch),
            servers,
            vigil: Vigil::default(),
            change: None,
            upgrade: None,
            unlike: Unlike::default(),
            last_end: (0, String::new()),
            server_deaths: legacy.as_ref().map_or(0, |legacy| legacy.server_deaths),
            not_before: Instant::ORIGIN,
            last_death: String::new(),
            standby_not_before: Instant::ORIGIN,
            cop,
            stopping: false,
            held: Holding::default(),
            down: legacy.as_ref().is_some_and(|legacy| legacy.down),
            housekeeping_at: started_at,
            room: None,
            started_at,
            admin: None,
        };
        supervisor.recall_held();
        for listener in &supervisor.listeners {
            info!("{} listens on {}", listener.name.kind.as_str(), listener.address());
        }
        if let Some(legacy) = legacy {
            supervisor.succeed(&legacy, started_at);
        }
        Ok(supervisor)
    }

    fn supervise(mut self) -> Result<(), Failure> {
        self.turn()?; // the server first: it is what others wait for
        self.publish();
        self.open_admin();
        while !(self.stopping && self.servers.is_empty()) {
            self.wait()?;
            self.turn()?;
            self.publish();
        }
        self.end()
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let reaped = reaped::reap();
        let now = SystemClock.now();
        self.take_signals(now)?;
        self.bury(now, &reaped);
        for server in &mut self.servers {
            if server.turn(&self.family.directory, now) {
                let took = SystemClock.now() - server.since;
                info!("{}[{}] is ready after {took:.1?}", Role::Server.name(), server.process.pid());
                self.backoff.succeeded();
            }
            if server.adopted && server.state == ServerState::Draining && server.stop_by.is_none() {
                // Another manager has told it to, and how long it has was that one's to see.
                server.stop_by = Some(now + self.config.supervise.stop_timeout);
            }
        }
        self.turn_change(now);
        self.turn_upgrade(now, &reaped);
        self.start_server(now);
        self.mind_standby(now);
        self.hasten(now);
        self.keep_vigil(now);
        self.mind_cop(now, &reaped);
        self.answer(now);
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + self.config.supervise.heartbeat_interval;
            self.look_after_files();
            self.spread_leaving();
            self.spread_held();
            self.reconcile(now);
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), Failure> {
        let now = SystemClock.now();
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd()];
        descriptors.extend(self.endpoint.descriptors());
        descriptors.extend(self.servers.iter().flat_map(Server::descriptors));
        descriptors.extend(self.cop.iter().flat_map(Watch::descriptors));
        descriptors.extend(self.change.as_ref().and_then(Change::descriptor));
        descriptors.extend(self.upgrade.as_ref().and_then(Upgrade::descriptor));
        let moments =
            self.servers.iter().flat_map(|server| [Some(server.link.next_at()), self.patience_ends(server, now)]);
        let moments = moments.chain([
            Some(self.housekeeping_at),
            Some(self.vigil.next_at()),
            self.change.as_ref().map(Change::until),
            self.upgrade.as_ref().map(Upgrade::until),
            self.cop.as_ref().filter(|_| !self.stopping).map(Watch::next_at),
            self.needs_server().then_some(self.not_before),
            self.needs_standby().then_some(self.standby_not_before),
            (!self.waiting.is_empty()).then_some(now),
        ]);
        let timeout = wait::until_earliest(now, moments);
        wait::readable(&descriptors, timeout).map_err(|error| Failure::could_not("poll", error))
    }

    fn needs_server(&self) -> bool {
        !self.stopping
            && !self.down
            && !self.servers.iter().any(|server| server.state != ServerState::Draining && !server.standby)
    }

    fn start_server(&mut self, now: Instant) {
        if !self.needs_server() || self.promote_standby(now) || now < self.not_before {
            return;
        }
        let interval = self.config.supervise.heartbeat_interval;
        match Server::start(&self.family, &self.listeners, interval, How::InForce, now) {
            Ok(server) => self.servers.push(server),
            Err(why) => {
                error!("{why}");
                self.last_death = why;
                self.not_before = now + self.backoff.failed();
            }
        }
    }

    /// Takes note of dead servers. One that was ready is replaced at once.
    fn bury(&mut self, now: Instant, reaped: &Reaped) {
        let (dead, living) = std::mem::take(&mut self.servers).into_iter().partition(|server| server.process.is_dead());
        self.servers = living;
        let dead: Vec<Server> = dead;
        for server in dead {
            let pid = server.process.pid();
            let cause = reaped.cause(&server.process);
            let text = format!("{}[{pid}] generation {} {cause}", Role::Server.name(), server.generation);
            self.last_end = (server.generation, cause.clone());
            let successor = self.change.as_ref().and_then(Change::successor) == Some(server.generation);
            if server.stop_by.is_some() {
                info!("{text}");
            } else if server.standby {
                warn!("{text}");
                self.standby_died(now);
            } else if successor && server.state == ServerState::Starting {
                warn!("{text}");
            } else {
                warn!("{text}");
                self.server_deaths += 1;
                self.last_death = text;
                if server.state == ServerState::Starting && !server.adopted {
                    let pause = self.backoff.failed();
                    self.not_before = now + pause;
                    warn!("it was not ready; the next one is started in {pause:?}");
                } else {
                    self.not_before = now;
                }
            }
            // Start the next one first: nobody waits for a broom.
            self.start_server(now);
            if server.stop_by.is_none() {
                // Whose child it was not knows nothing of the cause.
                let cause = if reaped.of(&server.process).is_some() { cause } else { String::new() };
                servers::mourn(&self.family.directory, &server, cause, now);
            }
            servers::clear_away(&self.family.directory, server.generation);
        }
    }

    /// When a server that should have got ready or ended by then is killed.
    fn patience_ends(&self, server: &Server, now: Instant) -> Option<Instant> {
        // One that was found and has answered is named to cop when it serves; one that never answers is nobody else's.
        let is_ours = || !server.adopted || server.is_mute(now);
        let started_by = (server.state == ServerState::Starting && is_ours())
            .then(|| server.since + self.config.supervise.start_timeout);
        server.stop_by.or(started_by)
    }

    fn hasten(&mut self, now: Instant) {
        for server in &self.servers {
            if self.patience_ends(server, now).is_some_and(|end| now >= end) {
                let pid = server.process.pid();
                let what = if server.stop_by.is_some() { "has not stopped" } else { "is not ready" };
                warn!("{}[{pid}] {what} in time: killed", Role::Server.name());
                server.signal(&self.family.directory, Signal::KILL);
            }
        }
    }

    fn mind_cop(&mut self, now: Instant, reaped: &Reaped) {
        if self.stopping {
            return;
        }
        let Some(cop) = &mut self.cop else { return };
        let before = cop.pid();
        let (sight, after) = (cop.look(now, reaped), cop.pid());
        // Also when it is not yet time for another, or when somebody else has started it.
        if before != after {
            self.mourn_cop(before);
        }
        let Some(cop) = self.cop.as_mut().filter(|_| sight == Sight::Gone) else { return };
        match role::start(Role::Cop, &self.family, &[OsString::from("--in-tree")], Vec::new()) {
            Ok(child) => {
                info!("{}[{}] started", Role::Cop.name(), child.pid());
                cop.started(child, now);
            }
            Err(error) => {
                error!("{} cannot be started: {error}", Role::Cop.name());
                cop.not_started(now);
            }
        }
    }

    fn take_signals(&mut self, now: Instant) -> Result<(), Failure> {
        loop {
            let arrived = self.signals.next().map_err(|error| Failure::could_not("signals", error))?;
            let Some(arrived) = arrived else { return Ok(()) };
            match arrived.signal {
                Taken::Terminate | Taken::Interrupt => self.stop(now, arrived.sender),
                Taken::HangUp => self.begin_change(now, Proposal::File, Step::Reload, Asker::Log),
                Taken::User1 => self.reopen_logs(),
                Taken::User2 => self.begin_upgrade(now, Asker::Log),
                Taken::Child | Taken::LevelUp | Taken::LevelDown => {}
            }
        }
    }

    /// Begins an orderly stop: new connections are refused from now on, servers finish what runs.
    fn stop(&mut self, now: Instant, sender: u32) {
        if self.stopping {
            warn!("told to stop again by process {sender}: servers are killed");
            for server in &mut self.servers {
                server.stop_by = Some(now);
            }
            return;
        }
        info!("told to stop by process {sender}");
        self.stopping = true;
        self.listeners.clear();
        if let Some(cop) = &mut self.cop {
            cop.dismiss();
        }
        if let Some(admin) = self.admin.take()
            && !admin.stop(ADMIN_STOPS_WITHIN)
        {
            warn!("the admin port is still busy; it ends with this process");
        }
        let by = now + self.config.supervise.stop_timeout;
        for server in &mut self.servers {
            // One that drains already was told: to say it twice would mean that there is no patience.
            if server.stop_by.is_none() && server.state != ServerState::Draining {
                server.signal(&self.family.directory, Signal::TERM);
            }
            server.stop_by = Some(server.stop_by.map_or(by, |earlier| earlier.min(by)));
        }
    }

    /// The server that serves.
    pub(crate) fn serving(&self) -> Option<&Server> {
        self.servers.iter().rfind(|server| server.state == ServerState::Ready)
    }

    /// How a server ended.
    pub(crate) fn last_end_of(&self, generation: u64) -> String {
        let (last, how) = &self.last_end;
        if *last == generation { format!("{how}; its log says why") } else { "is gone".to_owned() }
    }

    /// Makes every server but one finish what it has; idle connections go to that one.
    pub(crate) fn drain_all_but(&mut self, successor: Option<u64>, now: Instant) {
        let deadline = now + self.config.supervise.stop_timeout;
        for server in self.servers.iter_mut().filter(|server| Some(server.generation) != successor) {
            if server.stop_by.is_none() {
                info!("{}[{}] generation {} drains", Role::Server.name(), server.process.pid(), server.generation);
                server.retire(&self.family.directory, deadline, successor);
            }
        }
    }

    /// Another configuration is in force.
    pub(crate) fn follow(&mut self, config: Arc<Config>) {
        self.family.follow(&config);
        self.configuration =
            ConfigurationStatus { source: config.file_name().to_owned(), digest: configuration::digest(&config) };
        self.backoff = Backoff::new(config.supervise.respawn_backoff_max);
        self.published.follow(Arc::clone(&config));
        self.dismiss_standby();
        self.config = config;
    }

    /// The admin port may be another one now.
    pub(crate) fn reopen_admin(&mut self) {
        let wanted = self.listeners.iter().find(|listener| listener.name.kind == ListenerKind::Admin);
        if self.admin.as_ref().map(AdminHandle::address) == wanted.and_then(|listener| listener.address().ip()) {
            return;
        }
        if let Some(admin) = self.admin.take()
            && !admin.stop(ADMIN_STOPS_WITHIN)
        {
            warn!("the old admin port is still busy; it ends by itself");
        }
        self.open_admin();
    }

    /// Before another program takes over.
    pub(crate) fn close_admin(&mut self) {
        if let Some(admin) = self.admin.take()
            && !admin.stop(ADMIN_STOPS_WITHIN)
        {
            warn!("the admin port is still busy; its connections are cut");
        }
    }

    fn reopen_logs(&self) {
        self.family.reopen_log();
        info!("logs reopened");
        for server in &self.servers {
            server.signal(&self.family.directory, Signal::USR1);
        }
        if let Some(cop) = &self.cop {
            cop.signal(Signal::USR1);
        }
    }

    pub(crate) fn publish(&self) {
        let now = SystemClock.now();
        let respawn = self.needs_server().then(|| RespawnStatus {
            last_death: self.last_death.clone(),
            failures: self.backoff.failures(),
            next_try_in_ms: u64::try_from(self.not_before.since(now).as_millis()).unwrap_or(u64::MAX),
        });
        let known = Knowledge {
            directory: &self.family.directory,
            configuration: &self.configuration,
            stopping: self.stopping,
            leaving: self.leaving,
            cop: self.cop.as_ref(),
            servers: &self.servers,
            respawn,
            server_deaths: self.server_deaths,
            listeners: &self.listeners,
            room: self.room,
        };
        self.published.publish(report::report(&known, now));
    }

    /// Starts the control plane. Without it supervision goes on.
    fn open_admin(&mut self) {
        let Some(listener) = self.listeners.iter().find(|listener| listener.name.kind == ListenerKind::Admin) else {
            return;
        };
        let source = Arc::new(self.published.clone());
        let opened = listener.fd.try_clone().and_then(|fd| admin::spawn(TcpListener::from(fd), source));
        match opened {
            Ok(handle) => self.admin = Some(handle),
            Err(error) => error!("the admin port is not served, supervision goes on: {error}"),
        }
    }

    fn look_after_files(&mut self) {
        let directory = &self.family.directory;
        role::restore(directory, &mut self.lease, Some(&mut self.endpoint));
        if !directory.committed_configuration().exists()
            && let Err(error) = configuration::commit(directory, &self.config)
        {
            warn!("the configuration in force cannot be kept in {}: {error}", directory.path().display());
        }
        self.look_for_room();
        let oldest_living = self.servers.iter().map(|server| server.generation).min();
        servers::fold_numbers(&self.family.directory, oldest_living);
    }

    fn look_for_room(&mut self) {
        let path = self.family.directory.path().display();
        let before = self.room;
        self.room = match room::keep(&self.family.directory, before, SystemClock.now()) {
            Ok(room) => {
                match (before.is_some_and(|room| room.is_full()), room.is_full()) {
                    (false, true) => warn!("{path} is full ({} KiB left): what runs goes on", room.free_bytes >> 10),
                    (true, false) => info!("{path} has room again"),
                    _ => {}
                }
                Some(room)
            }
            Err(error) => {
                // Said once, until it is known again.
                if before.is_some() {
                    warn!("how much room there is in {path} is not known: {error}");
                }
                None
            }
        };
    }

    /// Leaves nothing behind.
    fn end(self) -> Result<(), Failure> {
        let directory = &self.family.directory;
        let removed = directory.forget_run();
        drop(self.endpoint);
        let removed = removed.and(self.lease.remove());
        info!("stopped");
        removed.map_err(|error| Failure::could_not("something is left behind", error))
    }
}
