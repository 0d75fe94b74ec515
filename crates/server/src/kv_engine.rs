//! The key-value engine within the server: its pools' listeners, its workers, and what moves to another server.
//!
//! Pools come with the configuration and their listeners with the process, so a server has those pools for life; what is
//! behind them changes by [`KvEngine::commit`]. A server without pools has no worker.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use base::Instant;
use buf::Chunk;
use config::{Config, Diagnostic};
use demo::store::serve::{Shop, Speaks};
use event::log::{Level, LogSender};
use event::{Handle, Listener, Shares, Tcp, Thread};
use kv::numbers::Ledger;
use kv::{Kv, Moving, Plan, ServerState, Shared, Unanswered, Worker, WorkerParts};
use net::{Names, NamesOptions};
use stats::Segment;
use supervise::control::{Moved, MovedKv, Reply};
use supervise::directory::RuntimeDir;
use supervise::held::{self, Held, HeldServer};
use supervise::kv::{KvQuestion, KvReport};

use crate::awaited::{Awaited, Bell};
use crate::engine::Released;
use crate::kv_report::{PoolFacts, States, Teller};

/// How often a thread does its house-keeping.
const TICK: Duration = Duration::from_millis(200);
/// New servers that do not answer that the log and a verdict name, at most.
const TOLD_MAX: usize = 16;
/// The longest name of a client that moves with it.
const CLIENT_TEXT_MAX: usize = 96;

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
    static SHOPS: RefCell<Vec<(Speaks, Shop)>> = const { RefCell::new(Vec::new()) };
}

/// The store of this kind, on the one thread that has it.
fn shop(speaks: Speaks) -> Shop {
    SHOPS.with(|shops| {
        let mut shops = shops.borrow_mut();
        if let Some((_, shop)) = shops.iter().find(|(kind, _)| *kind == speaks) {
            return shop.clone();
        }
        let shop = Shop::open(speaks);
        shops.push((speaks, shop.clone()));
        shop
    })
}

fn interval(config: &Config) -> Duration {
    config.kv.stats.as_ref().map_or(Duration::ZERO, |stats| stats.interval)
}

/// twemproxy's stats port: whoever connects is sent the line, which is made anew when it is too old.
#[derive(Debug)]
struct StatsPort {
    teller: Arc<Teller>,
    interval: Mutex<Duration>,
    line: Mutex<Option<(Instant, Arc<[u8]>)>>,
}

impl StatsPort {
    fn new(teller: Arc<Teller>, interval: Duration) -> Self {
        Self { teller, interval: Mutex::new(interval), line: Mutex::default() }
    }

    fn set_interval(&self, interval: Duration) {
        *self.interval.lock().unwrap_or_else(PoisonError::into_inner) = interval;
    }

    fn tell(&self, now: Instant, tcp: Tcp) {
        let interval = *self.interval.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked on one thread alone: nobody waits for this.
        let mut kept = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = kept.take().filter(|(made, _)| now - *made < interval);
        let made = || Some((now, self.teller.line()?.into_bytes().into()));
        // What was counted before is read in these very moments: no answer is better than a wrong one.
        let Some((made, line)) = fresh.or_else(made) else { return };
        let len = line.len();
        tcp.send(Chunk::from_shared(Arc::clone(&line), 0..len));
        *kept = Some((made, line));
    }
}

/// Runs `f` with the calling event thread's worker, if it has one.
pub(crate) fn with_worker(f: impl FnOnce(&Worker)) {
    let worker = WORKER.with(|worker| worker.borrow().clone());
    if let Some(worker) = worker {
        f(&worker);
    }
}

fn pairs(held: &Held) -> BTreeSet<(String, String)> {
    held.iter().map(|held| (held.pool.clone(), held.server.clone())).collect()
}

/// Judges the key-value part of a configuration.
///
/// # Errors
/// What cannot be, at its place in the file.
pub(crate) fn plan(config: &Config) -> Result<Arc<Plan>, Vec<Diagnostic>> {
    let memory = kv::configuration::memory(&config.kv, sys::memory::available());
    let pools = kv::configuration::pools(&config.kv);
    pools.and_then(|pools| Plan::prepare_within(pools, memory)).map_err(|error| {
        let pool = config.kv.pool(error.pool());
        let server = error.server().and_then(|at| Some(pool?.servers.get(at)?.place));
        let place = server.or(pool.map(|pool| pool.name.place)).unwrap_or(config::Place::NOWHERE);
        vec![config.diagnose(place, error.to_string(), None)]
    })
}

/// The key-value part of a configuration, ready to be put in force.
#[derive(Debug)]
pub(crate) struct KvPrepared {
    plan: Arc<Plan>,
    facts: Vec<PoolFacts>,
    /// How old the numbers on the stats port may be.
    interval: Duration,
}

impl KvPrepared {
    /// Judges it.
    ///
    /// # Errors
    /// As [`plan`].
    pub(crate) fn new(config: &Config) -> Result<Self, Vec<Diagnostic>> {
        Ok(Self { plan: plan(config)?, facts: PoolFacts::of(config), interval: interval(config) })
    }
}

/// Says in the log which new servers do not answer, and returns the lines for whoever put them in force.
pub(crate) fn tell_unanswered(told: Vec<Vec<Unanswered>>, log: &LogSender) -> Vec<String> {
    let unanswered = Unanswered::together(told);
    let told = &unanswered[..unanswered.len().min(TOLD_MAX)];
    for server in told {
        log.report(Level::Warn, server);
    }
    if unanswered.len() > told.len() {
        log.report(Level::Warn, format_args!("so with {} new servers more", unanswered.len() - told.len()));
    }
    told.iter().map(|server| format!("warning: {server}")).collect()
}

/// Listeners for the key-value engine, and the stores that demonstrate it.
#[derive(Debug, Default)]
pub struct KvListeners {
    /// Clients of the pools, in the pools' order.
    pub pools: Vec<OwnedFd>,
    /// twemproxy's stats port.
    pub stats: Option<OwnedFd>,
    /// The embedded Redis store.
    pub redis_store: Option<OwnedFd>,
    /// The embedded memcached store.
    pub memcached_store: Option<OwnedFd>,
}

/// The runtime directory, and which generation this is in it.
#[derive(Debug)]
struct Home {
    directory: RuntimeDir,
    generation: u64,
    log: LogSender,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct KvEngine {
    shares: Arc<Shares>,
    /// Connections to the stores, which nobody waits for: their clients are pools.
    stores: Arc<Shares>,
    /// Where connections of another server are admitted, until this one drains.
    door: RefCell<Option<Arc<Listener>>>,
    /// The pools' listening sockets, by the pools' names, until this server drains.
    sockets: RefCell<Vec<(String, OwnedFd)>>,
    shared: Arc<Shared>,
    /// Where servers that are held, and what others counted, are remembered.
    home: RefCell<Option<Home>>,
    /// Not when the file could not be read, and nobody has told since.
    held_is_known: Cell<bool>,
    teller: Arc<Teller>,
    stats: Arc<StatsPort>,
}

/// What each event thread's worker is made of.
pub(crate) struct KvSetup {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    names: NamesOptions,
    segment: Segment,
    ledger: Ledger,
    door: KvDoor,
}

/// Everything that the key-value engine accepts from.
#[derive(Clone, Debug)]
pub(crate) struct KvDoor {
    pools: Vec<Arc<Listener>>,
    /// What the first thread alone accepts from.
    alone: Vec<Arc<Listener>>,
}

impl KvDoor {
    /// On an event thread: accepts from now on.
    pub(crate) fn open(&self, thread: &Thread) -> std::io::Result<()> {
        if thread.index() == 0 {
            self.alone.iter().try_for_each(|listener| listener.accept_on(thread))?;
        }
        self.pools.iter().try_for_each(|listener| listener.accept_on(thread))
    }
}

impl KvEngine {
    /// The engine, and what its threads need: places for clients, and for connections to the stores.
    pub(crate) fn new(
        config: &Config,
        plan: Arc<Plan>,
        listeners: KvListeners,
        (shares, stores): (Arc<Shares>, Arc<Shares>),
        peers: &Arc<OnceLock<Vec<Handle>>>,
        setup: (NamesOptions, Segment, Ledger),
    ) -> std::io::Result<(Self, KvSetup)> {
        let (mut accepting, mut sockets) = (Vec::new(), Vec::new());
        for (index, (fd, pool)) in listeners.pools.into_iter().zip(&config.kv.pools).enumerate() {
            sys::socket::set_keepalive(&fd, pool.tcpkeepalive)?;
            sockets.push((pool.name.value.clone(), fd.try_clone()?));
            accepting.push(Listener::new(fd, Arc::clone(&shares), Arc::clone(peers), move |_, tcp| {
                with_worker(|worker| worker.serve(tcp, index));
            })?);
        }
        let of_stores = [(listeners.redis_store, Speaks::Redis), (listeners.memcached_store, Speaks::Memcached)];
        let of_stores = of_stores.into_iter().filter_map(|(fd, speaks)| Some((fd?, speaks)));
        let of_stores = of_stores.map(|(fd, speaks)| {
            Listener::new(fd, Arc::clone(&stores), Arc::default(), move |thread, tcp| shop(speaks).serve(thread, tcp))
        });
        let mut alone = of_stores.collect::<std::io::Result<Vec<_>>>()?;
        let door = RefCell::new(accepting.first().cloned());
        let shared = Shared::new(&plan);
        let (names, segment, ledger) = setup;
        let teller = Arc::new(Teller::new(segment.clone(), Arc::clone(&shared), PoolFacts::of(config)));
        let stats = Arc::new(StatsPort::new(Arc::clone(&teller), interval(config)));
        if let Some(fd) = listeners.stats {
            let port = Arc::clone(&stats);
            // As with the stores: it stops accepting when they do, and nobody waits for it.
            alone.push(Listener::new(fd, Arc::clone(&stores), Arc::default(), move |thread, tcp| {
                port.tell(thread.now(), tcp);
            })?);
        }
        let of_engine = Arc::clone(&shared);
        let setup = KvSetup { plan, shared, names, segment, ledger, door: KvDoor { pools: accepting, alone } };
        let sockets = RefCell::new(sockets);
        let home = RefCell::default();
        let held_is_known = Cell::new(true);
        let shared = of_engine;
        Ok((Self { shares, stores, door, sockets, shared, home, held_is_known, teller, stats }, setup))
    }

    /// Before its threads are set up: remembers which servers are out of their rings by hand, now and from now on.
    pub(crate) fn remember(&self, config: &Config, directory: RuntimeDir, generation: u64, log: &LogSender) {
        match Held::read(&directory) {
            Ok((mut held, damage)) => {
                for damaged in damage {
                    log.report(Level::Error, damaged);
                }
                held.forget_unknown(&config.kv);
                for HeldServer { pool, server } in held.iter() {
                    log.report(Level::Info, format_args!("pool {pool}: {server} is held out of its ring by hand"));
                }
                self.shared.set_held(pairs(&held));
            }
            Err(error) => {
                self.held_is_known.set(false);
                let file = directory.held_servers();
                let file = file.display();
                log.report(Level::Error, format_args!("{file}: which servers are held by hand is not known: {error}"));
            }
        }
        *self.home.borrow_mut() = Some(Home { directory, generation, log: log.clone() });
    }

    /// Takes up what other generations have counted, if that may have changed.
    pub(crate) fn recall(&self) {
        let home = self.home.borrow();
        let complaints = self.teller.recall(home.as_ref().map(|home| (&home.directory, home.generation)));
        if let Some(home) = &*home {
            for complaint in &complaints {
                home.log.report(Level::Warn, format_args!("numbers of other servers are not known: {complaint}"));
            }
        }
    }

    /// The digest of the servers that are held.
    pub(crate) fn held(&self) -> String {
        self.held_now().digest()
    }

    fn held_now(&self) -> Held {
        self.shared.held().into_iter().map(|(pool, server)| HeldServer { pool, server }).collect()
    }

    /// Those, or what is remembered, when that could not be read before.
    fn held_for_change(&self, directory: &RuntimeDir, pools: &[PoolFacts]) -> Result<Held, String> {
        if self.held_is_known.get() {
            return Ok(self.held_now());
        }
        let (read, _) = Held::read(directory).map_err(|error| {
            let file = directory.held_servers();
            format!("{}: which servers are held by hand is not known: {error}", file.display())
        })?;
        let is_there =
            |one: &&HeldServer| pools.iter().any(|pool| pool.name == one.pool && pool.servers.contains(&one.server));
        Ok(read.iter().filter(is_there).cloned().collect())
    }

    /// Holds just these servers from now on, and takes back one more, on every thread.
    fn hold(&self, held: &Held, restored: Option<&HeldServer>, threads: &[Handle]) {
        let (before, now) = (self.shared.held(), pairs(held));
        let restored = restored.map(|one| (one.pool.clone(), one.server.clone())).filter(|one| !now.contains(one));
        let back = before.difference(&now).chain(restored.iter().filter(|one| !before.contains(one)));
        let changed: Vec<_> =
            back.map(|one| (one, false)).chain(now.difference(&before).map(|one| (one, true))).collect();
        // First: a thread that takes a new configuration after it has heard it goes by this.
        self.shared.set_held(now.clone());
        self.held_is_known.set(true);
        for ((pool, server), out) in changed {
            for thread in threads {
                let (pool, server) = (pool.clone(), server.clone());
                // A thread that has ended serves nobody.
                let _ = thread.run(move |_| {
                    with_worker(|worker| {
                        worker.hold(&pool, &server, out);
                    });
                });
            }
        }
    }

    /// Accepts nothing more. The threads' workers are told by [`drain`] or [`hand_over`].
    pub(crate) fn close(&self) {
        self.door.take();
        self.sockets.take();
        self.shares.drain();
        self.stores.drain();
    }

    /// Puts a configuration in force on every thread. Those that are busy, or ask new servers whether they are well, take
    /// it after that; each says then which of those do not answer. See [`tell_unanswered`].
    pub(crate) fn commit(
        &self,
        prepared: KvPrepared,
        names: NamesOptions,
        threads: &[Handle],
        (bell, until): (&Bell, Instant),
        log: &LogSender,
    ) -> Awaited<Vec<Unanswered>> {
        let KvPrepared { plan, facts, interval } = prepared;
        let mut held = self.shared.held();
        held.retain(|(pool, server)| facts.iter().any(|facts| facts.name == *pool && facts.servers.contains(server)));
        self.shared.set_held(held);
        for (name, socket) in self.sockets.borrow().iter() {
            let wanted = facts.iter().any(|pool| pool.name == *name && pool.keep_alive);
            if let Err(error) = sys::socket::set_keepalive(socket, wanted) {
                log.report(Level::Warn, format_args!("pool {name}: tcpkeepalive cannot be changed: {error}"));
            }
        }
        self.teller.follow(facts);
        self.stats.set_interval(interval);
        let threads = if self.sockets.borrow().is_empty() { &[] } else { threads };
        Awaited::begin(threads, bell, until, |thread, taken| {
            let plan = Arc::clone(&plan);
            // A thread that has ended serves nobody.
            let _ = thread.run(move |_| {
                with_worker(|worker| worker.renew(&plan, names, move |unanswered| taken.say(unanswered)));
            });
        })
    }

    /// Asks the event threads how their servers are. Those that are busy for longer do not say.
    pub(crate) fn ask_states(&self, threads: &[Handle], bell: &Bell, until: Instant) -> Awaited<Vec<ServerState>> {
        Awaited::begin(threads, bell, until, |thread, said| {
            // A thread that has ended says nothing.
            let _ = thread.run(move |_| with_worker(|worker| said.say(worker.states())));
        })
    }

    /// Everything there is to tell of the pools, with what threads said of their servers.
    pub(crate) fn report(&self, threads: usize, said: Vec<Vec<ServerState>>) -> KvReport {
        self.recall();
        self.teller.all(&States::new(threads, said))
    }

    /// Its first part, if one packet has no room for it; so many may ask for the others.
    pub(crate) fn first_part(&self, report: KvReport, readers: usize) -> KvReport {
        self.teller.begin(report, readers)
    }

    /// Answers a question about the pools for which no event thread is asked.
    pub(crate) fn answer(&self, asked: &KvQuestion, threads: &[Handle]) -> Reply {
        match asked {
            KvQuestion::Report => Reply::Refused("event threads are to be asked first".to_owned()),
            KvQuestion::More(number) => match self.teller.more(*number) {
                Some(part) => Reply::Kv(Box::new(part)),
                None => Reply::Refused("the rest of that report is gone: ask again".to_owned()),
            },
            KvQuestion::Hold { pool, server, out } => match self.hold_one(pool.as_deref(), server, *out, threads) {
                Ok(()) => Reply::Done,
                Err(why) => Reply::Refused(why),
            },
            KvQuestion::Held { servers, restored } => {
                self.hold(servers, restored.as_ref(), threads);
                Reply::Done
            }
            KvQuestion::WhatIsHeld => Reply::Held(self.held_now()),
        }
    }

    /// What manager does for a server that has one.
    fn hold_one(&self, named: Option<&str>, server: &str, out: bool, threads: &[Handle]) -> Result<(), String> {
        let pools = self.teller.pools();
        let has = |pool: &PoolFacts| pool.servers.iter().any(|other| other == server);
        let pool = held::pool_of(pools.iter().map(|pool| (pool.name.as_str(), has(pool))), named, server)?;
        let one = HeldServer { pool, server: server.to_owned() };
        let home = self.home.borrow();
        let directory = home.as_ref().map(|home| &home.directory);
        let mut held = match directory {
            Some(directory) => self.held_for_change(directory, &pools)?,
            None => self.held_now(),
        };
        held.set(one.clone(), out)?;
        if let Some(directory) = directory {
            held.keep(directory).map_err(|error| format!("{}: {error}", directory.held_servers().display()))?;
        }
        self.hold(&held, Some(&one), threads);
        Ok(())
    }

    /// Clients' connections open now.
    pub(crate) fn open(&self) -> usize {
        self.shares.open()
    }

    /// Serves a connection that another server let go of. `false`: it cannot, and the connection is closed.
    pub(crate) fn take_over(&self, fd: OwnedFd, peer: Option<std::net::SocketAddr>, moved: MovedKv) -> bool {
        let moving = Moving {
            pool: moved.pool,
            peer,
            authenticated: moved.authenticated,
            identity: moved.client.map(|[name, library, version]| kv::Identity { name, library, version }),
        };
        let door = self.door.borrow().clone();
        door.is_some_and(|door| door.admit_to(fd, peer, move |_, tcp| with_worker(|w| w.take_over(tcp, moving))))
    }
}

impl KvSetup {
    /// Says in that log what becomes of the pools' servers.
    pub(crate) fn report_to(&self, log: &LogSender) {
        self.shared.report_to(log.clone());
    }

    /// Where its clients come in.
    pub(crate) fn door(&self) -> KvDoor {
        self.door.clone()
    }

    /// Makes the worker of an event thread.
    pub(crate) fn set_up(&self, thread: &Thread) -> std::io::Result<()> {
        if self.door.pools.is_empty() {
            return Ok(());
        }
        let missing = || std::io::Error::other("the segment has no place for this thread");
        let worker = Worker::new(WorkerParts {
            thread: thread.clone(),
            plan: Arc::clone(&self.plan),
            shared: Arc::clone(&self.shared),
            names: Names::new(self.names),
            cells: self.segment.cells::<Kv>(thread.index()).ok_or_else(missing)?,
            numbers: self.ledger.numbers(&self.segment, thread.index()).ok_or_else(missing)?,
        });
        WORKER.with(|slot| *slot.borrow_mut() = Some(worker.clone()));
        let me = thread.clone();
        thread.spawn("kv house-keeping", async move {
            loop {
                me.sleep(TICK).await;
                worker.tick();
            }
        });
        Ok(())
    }
}

/// On an event thread: clients end when what they asked is answered.
pub(crate) fn drain() {
    with_worker(Worker::drain);
}

/// On an event thread: clients' connections go to another server between two requests.
pub(crate) fn hand_over(released: mpsc::Sender<Released>) {
    with_worker(|worker| {
        worker.hand_over(Rc::new(move |fd, moving: Moving| {
            let Moving { pool, peer, authenticated, identity } = moving;
            let client = identity.map(|identity| [identity.name, identity.library, identity.version]);
            // What is too long for a packet of many is forgotten: it is told to nobody but its owner.
            let client = client.filter(|texts| texts.iter().all(|text| text.len() <= CLIENT_TEXT_MAX));
            let kv = Some(MovedKv { pool, authenticated, client });
            // Nobody hears it any more only when this process ends: the connection closes with it.
            drop(released.send(Released { fd, moved: Moved { version: Moved::KV, peer, kv, first_within_ms: None } }));
        }));
    });
}
