//! The event threads and all they do.
//!
//! - `asked`: what the main thread is asked, and who answers it.
//! - `cache`: the cache that all event threads share.
//! - `faults`: breaking it on purpose, in tests.
//! - `numbers`: the segment, and what the loops say of themselves.
//! - `pages`: the server's own page.
//! - `places`: how many connections there may be, of which kind.
//! - `reload`: a new configuration, prepared and put in force.
//!
//! [`Engine::start`] returns when every thread accepts; from then on the engine needs nobody.

mod asked;
mod cache;
mod faults;
mod numbers;
mod pages;
mod places;
mod reload;
#[cfg(test)]
pub(crate) mod scenery;

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use base::{ByteCount, Clock, Instant, SystemClock};
use config::{Config, Diagnostics, LogFile, Threads};
use event::log::{LogSender, LogThread, Sink};
use event::metrics::Loop;
use event::{Handle, Listener, Processor, ProcessorOptions, Shares, Thread};
use http::local::Service;
use http::{Http, Plan, Worker, WorkerParts};
use net::{Names, NamesOptions, Pool, PoolOptions, SharedPool};
use stats::{Segment, Snapshot};
use supervise::control::Moved;
use supervise::directory::RuntimeDir;
use supervise::status::ThreadBeat;

use self::cache::EngineCache;
use self::pages::Pages;
use self::places::Places;
pub use self::reload::{Committed, Prepared, Unprepared};
pub(crate) use self::reload::{Committing, Judged};
use crate::awaited::{Awaited, Bell};
pub use crate::kv_engine::KvListeners;
use crate::kv_engine::{self, KvDoor, KvEngine, KvSetup};

/// How often a thread does its house-keeping.
const TICK: Duration = Duration::from_millis(200);
/// Threads for blocking work.
const TASK_THREADS: usize = 2;
/// The cache of a server that stands by: it stores nothing.
const STANDBY_CACHE: ByteCount = ByteCount(0);
/// How long event threads may take to accept before whoever has this promoted is told that it serves; who is busy for
/// longer accepts when its turn ends.
const OPENED_WITHIN: Duration = Duration::from_millis(250);
/// How long threads may take to end.
const STOP_MAX: Duration = Duration::from_secs(5);
/// How long the last log lines may take to be written.
const LOG_STOP_MAX: Duration = Duration::from_secs(2);

/// Listeners for the engine to accept from.
#[derive(Debug)]
pub struct EngineListeners {
    /// HTTP clients.
    pub http: Vec<OwnedFd>,
    /// The server's own page.
    pub server_page: Option<OwnedFd>,
    /// The embedded origin.
    pub demo: Option<OwnedFd>,
    /// The key-value engine's.
    pub kv: KvListeners,
}

/// A client's connection that this server lets go of, or takes over.
#[derive(Debug)]
pub struct Released {
    /// The connection.
    pub fd: OwnedFd,
    /// What is known of it.
    pub moved: Moved,
}

/// Who serves.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its pid.
    pub pid: u32,
    /// Its generation.
    pub generation: u64,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread, a poll or a listener could not be made.
    #[error("the event threads could not be started: {0}")]
    Threads(#[source] std::io::Error),
    /// The configuration cannot be.
    #[error("{0}")]
    Configuration(Diagnostics),
    /// The log cannot be written.
    #[error("{0}: {1}")]
    Log(String, #[source] std::io::Error),
    /// The shared numbers cannot be made.
    #[error("the segment for the numbers: {0}")]
    Numbers(String),
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// Runs `f` with the calling event thread's worker.
fn with_worker(f: impl FnOnce(&Worker)) {
    let worker = WORKER.with(|worker| worker.borrow().clone());
    if let Some(worker) = worker {
        f(&worker);
    }
}

/// The running engine.
#[derive(Debug)]
pub struct Engine {
    processor: Processor,
    clients: Arc<Shares>,
    own_pages: Arc<Shares>,
    demo: Arc<Shares>,
    /// Places for connections to origins.
    origins: usize,
    /// Event threads that have not heard yet that the engine drains: they may still be accepting.
    unheard: Arc<AtomicUsize>,
    /// Where connections of another server are admitted, until this one drains.
    http: RefCell<Option<Arc<Listener>>>,
    cache: EngineCache,
    kv: KvEngine,
    log_thread: LogThread,
    log: LogSender,
    segment: Segment,
    /// Readiness fails, by an operator's wish.
    leaving: Arc<AtomicBool>,
    /// What is accepted from once this is promoted.
    closed_door: RefCell<Option<Arc<Door>>>,
    /// The thread for what the main thread is asked of the cache and would take long: it is emptied, or made smaller. Not one
    /// of those for blocking work: they may all wait for names.
    chores: Vec<Handle>,
    /// The thread that judges configurations, whatever becomes of chores: without it there is no reload.
    judges: Vec<Handle>,
    /// By which event threads say that they have said something.
    bell: Bell,
}

/// Everything that event threads accept from.
#[derive(Debug)]
struct Door {
    listeners: Vec<Arc<Listener>>,
    kv: KvDoor,
}

impl Door {
    /// On an event thread: accepts from now on.
    fn open(&self, thread: &Thread) -> std::io::Result<()> {
        self.listeners.iter().try_for_each(|listener| listener.accept_on(thread))?;
        self.kv.open(thread)
    }
}

/// What each thread's worker is made of.
struct Setup {
    plan: Arc<Plan>,
    names: NamesOptions,
    pool: PoolOptions,
    shared_pool: Arc<SharedPool>,
    segment: Segment,
    log: LogSender,
    access_log: Option<Sink>,
    cache: EngineCache,
    /// Where clients come in, when they are let in at once.
    door: Option<Arc<Door>>,
    /// Whose accepting is counted: HTTP's clients and the pools'.
    accepting: [Arc<Shares>; 2],
    kv: KvSetup,
}

impl Engine {
    /// Starts the event threads; they accept when this returns. `home` has the file of the numbers, and what is remembered
    /// of servers before; a server that runs without it has its numbers for itself.
    ///
    /// # Errors
    /// When something the configuration asks for cannot be had.
    pub fn start(
        config: Arc<Config>,
        listeners: EngineListeners,
        identity: Identity,
        home: Option<RuntimeDir>,
    ) -> Result<Self, StartError> {
        Self::start_threads(config, listeners, identity, home, true)
    }

    /// As [`Engine::start`], but accepts nothing and keeps hardly any memory until it is promoted.
    ///
    /// # Errors
    /// As there.
    pub fn start_standby(
        config: Arc<Config>,
        listeners: EngineListeners,
        identity: Identity,
        home: Option<RuntimeDir>,
    ) -> Result<Self, StartError> {
        let engine = Self::start_threads(config, listeners, identity, home, false)?;
        engine.cache.set_budget(STANDBY_CACHE);
        Ok(engine)
    }

    /// Accepts from now on, and stores as much as `ram`. Nobody is waited for here: an event thread that does something else
    /// accepts when its turn ends, and each says whether it can; others may accept when one cannot.
    pub(crate) fn promote(&self, ram: ByteCount) -> Awaited<std::io::Result<()>> {
        let door = self.closed_door.take();
        if door.is_some() {
            self.cache.set_budget(ram);
            self.kv.recall();
        }
        let threads = if door.is_some() { self.processor.net() } else { &[] };
        Awaited::begin(threads, &self.bell, SystemClock.now() + OPENED_WITHIN, |thread, opened| {
            let Some(door) = door.clone() else { return };
            // A thread that has ended accepts nothing.
            let _ = thread.run(move |thread| opened.say(door.open(thread)));
        })
    }

    fn start_threads(
        config: Arc<Config>,
        listeners: EngineListeners,
        identity: Identity,
        home: Option<RuntimeDir>,
        accepts: bool,
    ) -> Result<Self, StartError> {
        let plan = Plan::prepare(&config).map_err(|diagnostics| StartError::Configuration(Diagnostics(diagnostics)))?;
        let kv_plan =
            kv_engine::plan(&config).map_err(|diagnostics| StartError::Configuration(Diagnostics(diagnostics)))?;
        let threads = thread_count(config.threads);
        let bell = Bell::new().map_err(StartError::Threads)?;
        let (log_thread, log) =
            LogThread::start("[LOG]").map_err(|error| StartError::Log("standard error".into(), error))?;
        log.sign(&format!("{}[{}]", supervise::log::name(), identity.pid));
        log.report_panics();
        log.set_level(reload::level(config.log.level));
        if let LogFile::Path(path) = &config.log.file {
            let sink = log.open(path).map_err(|error| StartError::Log(path.display().to_string(), error))?;
            log.report_to(sink);
        }
        let access_log = match config.http.access_log.as_ref().map(|log| &log.file) {
            None => None,
            Some(LogFile::Stderr) => Some(log.standard_error()),
            Some(LogFile::Path(path)) => {
                Some(log.open(path).map_err(|error| StartError::Log(path.display().to_string(), error))?)
            }
        };
        let numbers_file = home.as_ref().map(|home| home.server_numbers(identity.generation));
        let (segment, ledger) =
            numbers::create(threads, identity, numbers_file, &kv_plan).map_err(StartError::Numbers)?;
        let cache = EngineCache::new(&config, threads);
        if let Some(complaint) = cache.complaint() {
            log.report(event::log::Level::Warn, format_args!("{complaint}"));
        }
        let places = Places::of(&config, threads);
        let all_clients = Shares::new(threads, places.clients);
        let clients = Shares::part_of(&all_clients, places.http);
        let own_pages = Shares::new(threads, places.pages);
        let demo = Shares::new(threads, places.demo);
        let leaving = Arc::new(AtomicBool::new(false));
        let peers = Arc::new(OnceLock::new());
        let listen = |fd: OwnedFd, shares: &Arc<Shares>, service: Option<Arc<dyn Service>>| {
            Listener::new(fd, Arc::clone(shares), Arc::clone(&peers), move |_, tcp| {
                with_worker(|worker| match &service {
                    Some(service) => worker.serve_locally(tcp, Arc::clone(service)),
                    None => worker.serve(tcp),
                });
            })
            .map_err(StartError::Threads)
        };
        let mut accepting = Vec::new();
        for fd in listeners.http {
            accepting.push(listen(fd, &clients, None)?);
        }
        let http = RefCell::new(accepting.first().cloned());
        let kv_clients = (Shares::part_of(&all_clients, places.kv), Shares::new(1, places.stores));
        let counted = [Arc::clone(&clients), Arc::clone(&kv_clients.0)];
        let of_kv = (reload::names_options(&config), segment.clone(), ledger);
        let (kv, kv_setup) =
            KvEngine::new(&config, kv_plan, listeners.kv, kv_clients, &peers, of_kv).map_err(StartError::Threads)?;
        kv_setup.report_to(&log);
        match home {
            Some(home) => kv.remember(&config, home, identity.generation, &log),
            // There was nobody before.
            None => kv.recall(),
        }
        if let Some(fd) = listeners.server_page {
            let service = Arc::new(Pages::new(identity, segment.clone(), Arc::clone(&clients), Arc::clone(&leaving)));
            accepting.push(listen(fd, &own_pages, Some(service))?);
        }
        if let Some(fd) = listeners.demo {
            accepting.push(listen(fd, &demo, Some(Arc::new(demo::origin::Origin)))?);
        }
        let door = Arc::new(Door { listeners: accepting, kv: kv_setup.door() });
        let setup = Setup {
            plan,
            names: reload::names_options(&config),
            pool: reload::pool_options(&config, threads, places.origins),
            shared_pool: Arc::default(),
            segment: segment.clone(),
            log: log.clone(),
            access_log,
            cache: cache.clone(),
            door: accepts.then(|| Arc::clone(&door)),
            accepting: counted,
            kv: kv_setup,
        };
        let seed = SystemClock.wall().as_micros().cast_unsigned() ^ (u64::from(identity.pid) << 40);
        let options = ProcessorOptions { net: threads, task: TASK_THREADS, pin: config.pin_threads, seed };
        let mut processor =
            Processor::start(&options, move |thread| set_up(thread, &setup)).map_err(StartError::Threads)?;
        let mut spawn = |name: &str| {
            let group = processor.spawn_event_threads(name, 1, |_| Ok(())).map_err(StartError::Threads)?;
            Ok(processor.groups().threads(group))
        };
        let (chores, judges) = (spawn("ET_CHORE")?, spawn("ET_JUDGE")?);
        // Set here alone, once.
        let _ = peers.set(processor.net().to_vec());
        Ok(Self {
            processor,
            clients,
            own_pages,
            demo,
            origins: places.origins,
            unheard: Arc::default(),
            http,
            cache,
            kv,
            log_thread,
            log,
            segment,
            leaving,
            closed_door: RefCell::new((!accepts).then_some(door)),
            chores,
            judges,
            bell,
        })
    }

    /// Stops accepting clients; what runs finishes, what is idle closes. The server's own page goes on, and says so.
    pub fn drain(&self) {
        self.http.take();
        self.kv.close();
        self.clients.drain();
        self.tell_all(|worker| {
            kv_engine::drain();
            worker.drain();
        });
    }

    /// Has every event thread do something with its worker. Until it has, it may be accepting.
    fn tell_all(&self, tell: impl Fn(&Worker) + Clone + Send + 'static) {
        for thread in self.processor.net() {
            let (tell, unheard) = (tell.clone(), Arc::clone(&self.unheard));
            unheard.fetch_add(1, Ordering::AcqRel);
            let told = thread.run(move |_| {
                with_worker(tell);
                unheard.fetch_sub(1, Ordering::AcqRel);
            });
            if told.is_err() {
                // A thread that has ended has nothing to drain.
                self.unheard.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// Whether the last client's connection has ended, and no thread is just accepting another.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        // Its own pages and the embedded origin are for others only while it is not being replaced.
        let own = [&self.own_pages, &self.demo].into_iter().filter(|shares| shares.is_draining());
        let own: usize = own.map(|shares| shares.open()).sum();
        self.unheard.load(Ordering::Acquire) == 0 && self.open_connections() == 0 && own == 0
    }

    /// Makes room for another server: stops accepting, its own pages, too; lets go of each client's connection as soon
    /// as it is idle, for that other server.
    pub fn hand_over(&self) -> mpsc::Receiver<Released> {
        self.http.take();
        self.kv.close();
        self.clients.drain();
        self.own_pages.drain();
        self.demo.drain();
        let (released, to_send) = mpsc::channel();
        // Nobody hears it any more only when this process ends: the connection closes with it.
        self.tell_all(move |worker| {
            let released = released.clone();
            kv_engine::hand_over(released.clone());
            worker.hand_over(Rc::new(move |fd, peer, first_within| {
                let first_within_ms = first_within.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                let moved = Moved { version: Moved::VERSION, peer, kv: None, first_within_ms };
                drop(released.send(Released { fd, moved }));
            }));
        });
        to_send
    }

    /// Serves a connection that another server let go of. `false`: it cannot, and the connection is closed.
    pub fn take_over(&self, released: Released) -> bool {
        let Released { fd, moved: Moved { peer, kv, first_within_ms, .. } } = released;
        if let Some(kv) = kv {
            return self.kv.take_over(fd, peer, kv);
        }
        let first_within = first_within_ms.map(Duration::from_millis);
        let take_over = move |_: &Thread, tcp| with_worker(|worker| worker.take_over(tcp, first_within));
        self.http.borrow().as_ref().is_some_and(|listener| listener.admit_to(fd, peer, take_over))
    }

    /// Readiness fails from now on, or no longer; everything else goes on.
    pub fn set_leaving(&self, wanted: bool) {
        self.leaving.store(wanted, Ordering::Relaxed);
    }

    /// Whether readiness fails by an operator's wish.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Client connections open.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        (self.clients.open() + self.kv.open()) as u64
    }

    /// Takes up what other generations of the server have counted of pools, if that may have changed: now and then, and
    /// before somebody is told that this one is ready. Reads files.
    pub fn recall(&self) {
        self.kv.recall();
    }

    /// Signs of life of the event threads.
    #[must_use]
    pub fn beats(&self) -> Vec<ThreadBeat> {
        let now = SystemClock.now();
        let beats = Snapshot::read(self.segment.words()).map(|snapshot| snapshot.beats).unwrap_or_default();
        beats
            .into_iter()
            .map(|beat| {
                // A thread that waits for events is well however long it waits.
                let asleep = beat.state == stats::BeatState::Polling;
                let age = if asleep { Duration::ZERO } else { now - Instant::from_nanos(beat.at_nanos) };
                ThreadBeat {
                    name: beat.thread,
                    age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                    turns: beat.turns,
                }
            })
            .collect()
    }

    /// Whether the server's own pages have as many connections as they may.
    #[must_use]
    pub fn pages_are_full(&self) -> bool {
        self.own_pages.is_full()
    }

    /// Whether all event threads still run.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.processor.is_whole()
    }

    /// Opens the log files anew: for rotation.
    pub fn reopen_logs(&self) {
        self.log.reopen();
    }

    /// Ends all threads, each within a bound.
    pub fn stop(mut self) {
        self.drain();
        // Nobody wants to know any more what a configuration comes to, or waits for the cache.
        self.processor.leave_dedicated();
        // A thread that does not end is left behind: the process ends after this.
        let _ = self.processor.stop(STOP_MAX);
        let _ = self.log_thread.stop(LOG_STOP_MAX);
    }
}

fn thread_count(threads: Threads) -> usize {
    match threads {
        Threads::Auto => event::cores_usable(),
        Threads::Count(count) => count.get(),
    }
}

/// How many clients of HTTP there can be at a time.
pub(crate) fn connection_limit(config: &Config) -> usize {
    Places::of(config, thread_count(config.threads)).http
}

fn set_up(thread: &Thread, setup: &Setup) -> std::io::Result<()> {
    let missing = || std::io::Error::other("the segment has no place for this thread");
    let index = thread.index();
    let cells = setup.segment.cells::<Http>(index).ok_or_else(missing)?;
    let loop_cells = setup.segment.cells::<Loop>(index).ok_or_else(missing)?;
    thread.set_beat(setup.segment.beat(index).ok_or_else(missing)?);
    thread.set_cells(loop_cells);
    let worker = Worker::new(WorkerParts {
        thread: thread.clone(),
        plan: Arc::clone(&setup.plan),
        pool: Pool::new(setup.pool, Arc::clone(&setup.shared_pool)),
        names: Names::new(setup.names),
        cells,
        cache: Some(setup.cache.parts()),
        log: setup.access_log.clone().map(|sink| (setup.log.writer(), sink)),
    });
    WORKER.with(|slot| *slot.borrow_mut() = Some(worker.clone()));
    setup.kv.set_up(thread)?;
    if let Some(door) = &setup.door {
        door.open(thread)?;
    }
    let (log, accepting) = (setup.log.clone(), setup.accepting.clone());
    let me = thread.clone();
    let mut tell_of_cache = (index == 0).then(|| setup.cache.teller(&setup.segment));
    thread.spawn("house-keeping", async move {
        let mut told = 0;
        loop {
            me.sleep(TICK).await;
            worker.tick();
            numbers::tell(&me, loop_cells, &accepting);
            tell_of_cache.iter_mut().for_each(|tell| tell());
            let (panics, name) = me.stats().panics();
            if panics > told {
                told = panics;
                log.report(
                    event::log::Level::Error,
                    format_args!("a panic in \"{name}\" was contained ({panics} so far)"),
                );
            }
        }
    });
    Ok(())
}
