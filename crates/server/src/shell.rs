//! The server's main thread: takes the lease and the listeners, runs the engine, answers for it, ends it.
//!
//! It waits in one place, [`Shell::wait`], for all there is to hear of. What takes event threads their time is begun here and
//! ended in a later turn: until then [`Shell::turn`] looks whether they have said so. How the configuration changes is the
//! business of `change`.

mod change;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Instant, SystemClock};
use config::Config;
use supervise::configuration;
use supervise::control::{Endpoint, PEERS_MAX, Question, Reply};
use supervise::directory::{self, RuntimeDir};
use supervise::failure::{DONE, Failure};
use supervise::lease::{self, Holder, Lease, LeaseError};
use supervise::listener::{Listener, ListenerKind};
use supervise::privilege;
use supervise::role::{self, Family, Role};
use supervise::status::ServerState;
use supervise::{debug, info, wait, warn};
use sys::signal::{Signals, Taken};

use self::change::Change;
use crate::awaited::Awaited;
use crate::control::{self, Errand, Identity};
use crate::desk::{Desk, TURN_WITHIN};
use crate::engine::{self, Engine, EngineListeners, KvListeners};
use crate::options::{self, Options};
use crate::removal::Removal;

/// How often lease and socket are looked after.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
/// How often a draining engine is asked what is still open.
const DRAIN_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How often it is asked while idle connections are moving to another server.
const MOVED_LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// For so long connections are awaited to become idle, to move; from then on each response is its connection's last.
const MOVING_WITHIN: Duration = Duration::from_secs(2);

/// Runs a server until it is told to stop. The answer is its exit code: 0 stopped, 1 it could not, 3 the configuration
/// is wrong, 4 another server already runs alone here.
#[must_use]
pub fn run(options: &Options) -> u8 {
    match Shell::start(options).and_then(Shell::serve) {
        Ok(()) => DONE,
        Err(failure) => failure.told(),
    }
}

struct Shell {
    family: Family,
    config: Arc<Config>,
    identity: Identity,
    lease: Lease,
    _witness: supervise::witness::OwnPage,
    desk: Desk,
    signals: Signals,
    listeners: Vec<Listener>,
    engine: Engine,
    started_at: Instant,
    /// Nobody started it but an operator.
    alone: bool,
    /// The generation that takes over.
    successor: Option<u64>,
    /// The way of idle connections there.
    removal: Option<Removal>,
    change: Change,
    /// Event threads begin to accept, and who is told when they do.
    promoting: Option<(Vec<Question>, Awaited<std::io::Result<()>>)>,
}

impl Shell {
    fn start(options: &Options) -> Result<Self, Failure> {
        let started_at = SystemClock.now();
        // Before any thread starts: all inherit the mask.
        let signals = Signals::take().map_err(|error| Failure::could_not("no signals", error))?;
        let (config, mut family) = options.role.read_configuration()?;
        privilege::become_configured_user(&config, &family.directory, family.log_file.as_deref())?;
        role::settle(Role::Server, &family)?;
        family.follow(&config);
        let directory = family.directory.clone();

        let (generation, lease) = match options.generation {
            Some(generation) => (generation, inherit_lease(options, &directory, generation)?),
            None => lease_alone(&directory)?,
        };
        let witness = supervise::witness::begin(&directory.server_witness(generation));
        let listeners = match options.generation {
            Some(_) => options::inherit(options, &config),
            None => options::bind(&config),
        }?;
        // It has what it listens on; root stays root when no user is named.
        if sys::privilege::user() != 0 && sys::privilege::has_capabilities() {
            sys::privilege::drop_capabilities().map_err(|error| Failure::could_not("capabilities", error))?;
        }
        if let Some(wanted) = config.http.limits.connections {
            let possible = engine::connection_limit(&config);
            if possible < wanted {
                warn!(
                    "the limit on open files allows {possible} client connections, not the {wanted} of `http.limits.connections`"
                );
            }
        }
        let socket = directory.server_socket(generation);
        let endpoint = Endpoint::bind(&socket).map_err(|error| Failure::could_not(socket.display(), error))?;

        let identity = Identity {
            generation,
            configuration: configuration::digest(&config),
            // Nobody is answered before the engine runs.
            state: if options.standby { ServerState::Standby } else { ServerState::Ready },
        };
        let config = Arc::new(config);
        let start = if options.standby { Engine::start_standby } else { Engine::start };
        let engine = start(
            Arc::clone(&config),
            duplicates(&listeners).map_err(|error| Failure::could_not("no descriptors left", error))?,
            engine::Identity { pid: std::process::id(), generation },
            Some(directory.clone()),
        )
        .map_err(|error| Failure::could_not("the engine", error))?;
        // It may have been set by hand.
        engine.set_log_level(supervise::log::level());
        engine.set_leaving(directory.leaving().exists());
        engine.recall();
        let alone = options.generation.is_none();
        let shell = Self {
            family,
            config,
            identity,
            lease,
            _witness: witness,
            desk: Desk::new(endpoint),
            signals,
            listeners,
            engine,
            started_at,
            alone,
            successor: None,
            removal: None,
            change: Change::default(),
            promoting: None,
        };
        shell.say_ready(options);
        Ok(shell)
    }

    fn say_ready(&self, options: &Options) {
        let took = SystemClock.now() - self.started_at;
        let addresses: Vec<_> =
            self.listeners.iter().map(|l| format!("{} {}", l.name.kind.as_str(), l.address())).collect();
        let state = self.identity.state.as_str();
        info!("generation {} is {state} after {took:?}: {}", self.identity.generation, addresses.join(", "));
        let Some(number) = options.ready else { return };
        // Whoever waits for this may have died meanwhile; another will find us by our lease.
        let told = sys::process::inherited(number)
            .and_then(|fd| std::fs::File::from(fd).write_all(format!("{state}\n").as_bytes()));
        if let Err(error) = told {
            warn!("nobody hears that this server is ready: {error}");
        }
    }

    fn serve(mut self) -> Result<(), Failure> {
        let mut housekeeping_at = SystemClock.now() + HOUSEKEEPING_INTERVAL;
        loop {
            let now = SystemClock.now();
            self.wait(housekeeping_at.since(now))?;
            if self.take_signals()? {
                break;
            }
            self.turn();
            if self.successor.is_some() {
                break;
            }
            let now = SystemClock.now();
            if now >= housekeeping_at {
                housekeeping_at = now + HOUSEKEEPING_INTERVAL;
                role::restore(&self.family.directory, &mut self.lease, Some(self.desk.endpoint()));
                self.engine.recall();
            }
        }
        self.drain()
    }

    /// Accepts nothing more, lets what runs end, then ends itself. A second signal ends it at once.
    fn drain(mut self) -> Result<(), Failure> {
        if self.leave_first()? {
            return self.end();
        }
        let bound = self.config.server.drain_timeout;
        let deadline = SystemClock.now() + bound;
        info!("draining, for {bound:?} at most");
        self.identity.state = ServerState::Draining;
        if let Some(successor) = self.successor {
            let (directory, own) = (&self.family.directory, self.identity.generation);
            self.removal = Some(Removal::begin(directory, own, successor, self.engine.hand_over()));
        }
        let moving_ends = SystemClock.now() + MOVING_WITHIN.min(bound / 2);
        if self.removal.is_none() {
            self.engine.drain();
        }
        // The last copy to close makes the kernel refuse new connections instead of keeping them waiting.
        self.listeners.clear();
        let mut moving = self.removal.is_some();
        loop {
            if moving && SystemClock.now() >= moving_ends {
                // Who is never idle is told with the next response.
                moving = false;
                self.engine.drain();
            }
            // In this order: who has let go of a connection has sent it on before.
            let drained = self.engine.is_drained();
            let moved = self.removal.as_mut().is_some_and(Removal::turn);
            let open = self.engine.open_connections();
            if drained && !moved && self.removal.as_ref().is_none_or(Removal::is_done) {
                info!("drained");
                break;
            }
            if SystemClock.now() >= deadline {
                warn!("{open} connections are still open after {bound:?}: they are cut");
                break;
            }
            self.wait(if moved { MOVED_LOOK_INTERVAL } else { DRAIN_LOOK_INTERVAL })?;
            if self.take_signals()? {
                warn!("told to stop again: {open} connections are cut");
                break;
            }
            self.turn();
        }
        self.end()
    }

    /// Goes on as before while readiness fails, so that balancers take their clients elsewhere first; not when another
    /// server takes over. `true`: told to stop again, there is no more patience.
    fn leave_first(&mut self) -> Result<bool, Failure> {
        let delay = self.config.server.drain_delay;
        if self.successor.is_some() || delay.is_zero() {
            return Ok(false);
        }
        info!("readiness fails for {delay:?}, then the drain begins");
        self.engine.set_leaving(true);
        let until = SystemClock.now() + delay;
        loop {
            let left = until.since(SystemClock.now());
            if left.is_zero() || self.successor.is_some() {
                return Ok(false);
            }
            self.wait(left)?;
            if self.take_signals()? {
                warn!("told to stop again: {} connections are cut", self.engine.open_connections());
                return Ok(true);
            }
            self.turn();
        }
    }

    /// Ends all threads, and leaves nothing behind.
    fn end(mut self) -> Result<(), Failure> {
        self.conclude_commit();
        self.engine.stop();
        drop(self.desk);
        if self.alone {
            // In a tree manager adds its numbers up; alone nobody asks for them any more.
            directory::remove(&self.family.directory.server_numbers(self.identity.generation))
                .map_err(|error| Failure::could_not("its numbers cannot be removed", error))?;
        }
        self.lease.remove().map_err(|error| Failure::could_not("the lease cannot be removed", error))
    }

    /// Until there is something to hear, or to do, at most `timeout`.
    fn wait(&self, timeout: Duration) -> Result<(), Failure> {
        let now = SystemClock.now();
        let until =
            [self.desk.until(), self.change.until(), self.promoting.as_ref().map(|(_, promoting)| promoting.until())];
        let timeout = wait::until_earliest(now, until).min(timeout);
        let mut descriptors = vec![self.signals.as_fd(), self.engine.bell().as_fd()];
        descriptors.extend(self.desk.descriptors());
        wait::readable(&descriptors, timeout).map_err(|error| Failure::could_not("poll", error))
    }

    /// Whether one of them says to stop.
    fn take_signals(&mut self) -> Result<bool, Failure> {
        let mut stop = false;
        while let Some(arrived) = self.signals.next().map_err(|error| Failure::could_not("signals", error))? {
            match arrived.signal {
                Taken::Terminate | Taken::Interrupt => {
                    info!("told to stop by process {}", arrived.sender);
                    stop = true;
                }
                Taken::User1 => self.reopen_logs(),
                Taken::HangUp if self.alone => self.reload_alone(),
                Taken::HangUp => warn!("the configuration is manager's: reload there"),
                Taken::User2 => warn!("another program takes over when the top process is told, not the server"),
                Taken::Child | Taken::LevelUp | Taken::LevelDown => {}
            }
        }
        Ok(stop)
    }

    /// Hears what event threads and others have to say. Waits for nobody.
    fn turn(&mut self) {
        self.engine.bell().hush();
        let now = SystemClock.now();
        self.turn_change(now);
        self.turn_promotion(now);
        let (identity, engine, listeners) = (&self.identity, &self.engine, &self.listeners);
        let age = now - self.started_at;
        self.desk.hear(now, engine, || control::pong(identity, engine, listeners, age));
        let until = SystemClock.now() + TURN_WITHIN;
        while let Some(errand) = control::next_errand(&mut self.desk, &self.engine, &self.listeners, until) {
            self.run(errand);
        }
        self.desk.ask_threads(SystemClock.now(), &self.engine);
    }

    fn run(&mut self, errand: Errand) {
        match errand {
            Errand::ReopenLogs => self.reopen_logs(),
            Errand::LogLevel(level) => {
                supervise::log::set_level(level);
                self.engine.set_log_level(level);
            }
            Errand::Prepare(question, digest) => self.prepare(question, digest),
            Errand::Promote(question) => self.promote(question),
            Errand::Retire(successor) => {
                info!("told to make room for generation {successor}");
                self.successor = Some(successor);
            }
            Errand::TakeOver(connections) => {
                let connections = connections.into_iter().map(|(fd, moved)| engine::Released { fd, moved });
                if let Some(removal) = &mut self.removal {
                    return removal.pass_on(connections);
                }
                let count = connections.len();
                let taken = connections.map(|released| usize::from(self.engine.take_over(released))).sum::<usize>();
                debug!("took over {taken} of {count} idle connections");
            }
            Errand::Commit(question, digest) => self.commit_prepared(question, &digest),
        }
    }

    /// Serves from now on, in the place of one that has died. What only one server may hold at a time is taken here: a
    /// store on disk will come with its lease, which the kernel has freed by the death.
    fn promote(&mut self, question: Question) {
        if self.identity.state != ServerState::Standby {
            return self.desk.answer(&question, Reply::Done, &[]);
        }
        match &mut self.promoting {
            // A manager that came after the one that asked first.
            Some((askers, _)) if askers.len() < PEERS_MAX => askers.push(question),
            Some(_) => self.desk.answer(&question, Reply::Refused("it is being promoted".to_owned()), &[]),
            None => self.promoting = Some((vec![question], self.engine.promote(self.config.cache.ram))),
        }
    }

    /// Looks whether the event threads accept.
    fn turn_promotion(&mut self, now: Instant) {
        let Some((askers, mut promoting)) = self.promoting.take() else { return };
        if !promoting.turn(now) {
            self.promoting = Some((askers, promoting));
            return;
        }
        let opened: std::io::Result<()> = promoting.into_said().into_iter().collect();
        let reply = match opened {
            Ok(()) => {
                if self.identity.state == ServerState::Standby {
                    self.identity.state = ServerState::Ready;
                    info!("generation {} is promoted: it serves", self.identity.generation);
                }
                Reply::Done
            }
            Err(error) => Reply::Refused(error.to_string()),
        };
        for asker in askers {
            self.desk.answer(&asker, reply.clone(), &[]);
        }
    }

    fn reopen_logs(&self) {
        self.family.reopen_log();
        self.engine.reopen_logs();
        info!("logs reopened");
    }
}

fn inherit_lease(options: &Options, directory: &RuntimeDir, generation: u64) -> Result<Lease, Failure> {
    let path = directory.server_lease(generation);
    let Some(number) = options.lease else { return Ok(Lease::take(&path)?) };
    let fd = sys::process::inherited(number)
        .map_err(|error| Failure::could_not(format_args!("descriptor {number} of the lease"), error))?;
    Ok(Lease::inherit(fd, &path)?)
}

/// A generation and a lease for a server that nobody started, unless another serves here.
fn lease_alone(directory: &RuntimeDir) -> Result<(u64, Lease), Failure> {
    let failed = |error: std::io::Error| Failure::could_not(directory.path().display(), error);
    for generation in directory.server_generations().map_err(failed)? {
        let path = directory.server_lease(generation);
        if let Holder::Somebody(pid) = lease::holder(&path).map_err(failed)? {
            return Err(LeaseError::Held { path, pid }.into());
        }
        directory::remove(&path).map_err(failed)?;
        directory::remove(&directory.server_socket(generation)).map_err(failed)?;
    }
    let generation = directory.next_generation().map_err(failed)?;
    Ok((generation, Lease::take(&directory.server_lease(generation))?))
}

pub(crate) fn duplicates(listeners: &[Listener]) -> std::io::Result<EngineListeners> {
    let of_kind = |kind: ListenerKind| -> std::io::Result<Vec<OwnedFd>> {
        listeners.iter().filter(|l| l.name.kind == kind).map(|l| l.fd.try_clone()).collect()
    };
    Ok(EngineListeners {
        http: of_kind(ListenerKind::Http)?,
        server_page: of_kind(ListenerKind::Server)?.pop(),
        demo: of_kind(ListenerKind::Demo)?.pop(),
        kv: KvListeners {
            pools: of_kind(ListenerKind::Kv)?,
            stats: of_kind(ListenerKind::KvStats)?.pop(),
            redis_store: of_kind(ListenerKind::DemoRedis)?.pop(),
            memcached_store: of_kind(ListenerKind::DemoMemcached)?.pop(),
        },
    })
}
