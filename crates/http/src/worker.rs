//! What one event thread has for all its HTTP sessions: plan, pools, memory for heads, numbers, log.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, WallTime};
use cache::{Gate, Store};
use event::log::{LogWriter, Sink};
use event::{Tcp, Thread};
use net::{Names, NamesOptions, Pool, PoolOptions};
use stats::Cells;

use crate::local::Service;
use crate::metrics::Http;
use crate::plan::Plan;
use crate::record::AccessLog;
use crate::rules::caching::conditional::Freshener;
use crate::rules::date;
use crate::session;
use crate::wire::h1::{RequestHead, ResponseHead};

/// Heads kept ready for the next transaction.
const SCRATCH_MAX: usize = 64;
/// How long an address that took no connection is passed over while there are others.
const AVOID: Duration = Duration::from_secs(2);
/// Addresses remembered as not reachable.
const AVOIDED_MAX: usize = 1_024;
/// How old the cached civil time may be.
const WALL_AGE_MAX: Duration = Duration::from_millis(500);

/// Heads to parse into, used again and again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    pub(crate) desk: Desk,
}

/// Memory for what a transaction writes down on its way through the cache.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    /// The key's text.
    pub(crate) key: Vec<u8>,
    /// A record to be stored, or lines to be sent.
    pub(crate) record: Vec<u8>,
    pub(crate) freshener: Freshener,
}

struct Civil {
    read: Instant,
    wall: WallTime,
    second: i64,
    date: [u8; date::IMF_FIXDATE_LEN],
}

struct Inside {
    thread: Thread,
    plan: RefCell<Arc<Plan>>,
    turns: RefCell<Vec<Cell<u64>>>,
    pool: Pool,
    names: Names,
    avoided: RefCell<HashMap<SocketAddr, Instant>>,
    cells: Cells<Http>,
    cache: Option<CacheParts>,
    log: RefCell<Option<Rc<AccessLog>>>,
    #[expect(clippy::vec_box, reason = "a future holds the box: moving it must not move the heads")]
    scratch: RefCell<Vec<Box<Scratch>>>,
    civil: RefCell<Civil>,
    draining: Cell<bool>,
    successor: RefCell<Option<HandOver>>,
}

/// Takes an idle client's connection to whoever serves it from here on.
/// Its address comes along, and how long its first request may still take when none has come.
pub type HandOver = Rc<dyn Fn(OwnedFd, Option<SocketAddr>, Option<Duration>)>;

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Worker(Rc<Inside>);

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({:?})", self.0.thread)
    }
}

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// Its event thread.
    pub thread: Thread,
    /// What it serves.
    pub plan: Arc<Plan>,
    /// Its idle connections.
    pub pool: Pool,
    /// Its names.
    pub names: Names,
    /// Its numbers.
    pub cells: Cells<Http>,
    /// Where responses are stored, if anywhere.
    pub cache: Option<CacheParts>,
    /// Where its access log goes, if anywhere.
    pub log: Option<(LogWriter, Sink)>,
}

/// Where responses are stored. All threads share it.
#[derive(Clone, Debug)]
pub struct CacheParts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where fetches wait for their turn after a cold start.
    pub gate: Gate,
}

/// What changes with a new configuration.
#[derive(Debug)]
pub struct Renewal {
    /// What is served.
    pub plan: Arc<Plan>,
    /// How long names count.
    pub names: NamesOptions,
    /// How many idle connections there may be, and for how long.
    pub pool: PoolOptions,
    /// Where the access log goes.
    pub log: LogRenewal,
}

/// What becomes of the access log.
#[derive(Debug)]
pub enum LogRenewal {
    /// It stays as it is.
    Keep,
    /// It goes there from now on, in the plan's format; or there is none.
    Replace(Option<(LogWriter, Sink)>),
}

fn access_log(plan: &Plan, log: Option<(LogWriter, Sink)>) -> Option<Rc<AccessLog>> {
    log.zip(plan.access_log).map(|((writer, sink), format)| Rc::new(AccessLog::new(writer, sink, format)))
}

impl Worker {
    /// A worker for the thread it is made on.
    #[must_use]
    pub fn new(parts: WorkerParts) -> Self {
        let WorkerParts { thread, plan, pool, names, cells, cache, log } = parts;
        let log = RefCell::new(access_log(&plan, log));
        let turns = plan.rules.iter().map(|_| Cell::new(thread.random())).collect();
        let (read, wall) = (thread.now(), thread.wall());
        let civil = Civil { read, wall, second: wall.as_secs(), date: date::format(wall.as_secs()) };
        Self(Rc::new(Inside {
            thread,
            plan: RefCell::new(plan),
            turns: RefCell::new(turns),
            pool,
            names,
            avoided: RefCell::default(),
            cells,
            cache,
            log,
            scratch: RefCell::default(),
            civil: RefCell::new(civil),
            draining: Cell::new(false),
            successor: RefCell::default(),
        }))
    }

    /// Starts serving a client that was accepted.
    pub fn serve(&self, tcp: Tcp) {
        session::start(self, tcp, None);
    }

    /// Goes on with a client that another server let go of while it was idle.
    /// Of one that had asked for nothing yet the first request is awaited for `first_within`.
    pub fn take_over(&self, tcp: Tcp, first_within: Option<Duration>) {
        session::resume(self, tcp, first_within);
    }

    /// Starts serving a client whose requests `service` answers.
    pub fn serve_locally(&self, tcp: Tcp, service: Arc<dyn Service>) {
        session::start(self, tcp, Some(service));
    }

    /// Takes over what a new configuration says: for requests that begin from now on. What is under way goes on by the
    /// plan it began with.
    pub fn renew(&self, renewal: Renewal) {
        let Renewal { plan, names, pool, log } = renewal;
        let inside = &self.0;
        if let LogRenewal::Replace(log) = log {
            // A request that is under way keeps the old one; dropping the last hold on it hands its lines over.
            *inside.log.borrow_mut() = access_log(&plan, log);
        }
        inside.names.set_options(names);
        inside.pool.set_options(pool);
        *inside.turns.borrow_mut() = plan.rules.iter().map(|_| Cell::new(inside.thread.random())).collect();
        *inside.plan.borrow_mut() = plan;
    }

    /// From now on every response is the last of its connection; idle connections close.
    pub fn drain(&self) {
        self.0.draining.set(true);
        self.0.thread.drain();
    }

    /// From now on every client's connection goes, as soon as it is idle, to another process by `hand_over`.
    pub fn hand_over(&self, hand_over: HandOver) {
        *self.0.successor.borrow_mut() = Some(hand_over);
        self.0.thread.drain();
    }

    pub(crate) fn successor(&self) -> Option<HandOver> {
        self.0.successor.borrow().clone()
    }

    /// House-keeping, a few times a second: hands the log over, closes what was idle too long.
    pub fn tick(&self) {
        if let Some(log) = self.log() {
            log.flush();
        }
        let now = self.0.thread.now();
        self.0.thread.trim();
        self.0.pool.sweep(now);
        self.0.avoided.borrow_mut().retain(|_, until| *until > now);
        self.0.cells.set(Http::ORIGIN_IDLE, self.0.pool.idle() as u64);
    }

    pub(crate) fn thread(&self) -> &Thread {
        &self.0.thread
    }

    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.0.plan.borrow())
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    pub(crate) fn names(&self) -> &Names {
        &self.0.names
    }

    pub(crate) fn cells(&self) -> &Cells<Http> {
        &self.0.cells
    }

    /// Where responses are stored, if anywhere.
    pub(crate) fn cache(&self) -> Option<&Arc<dyn Store>> {
        self.0.cache.as_ref().map(|parts| &parts.store)
    }

    /// Where fetches wait for their turn after a cold start.
    pub(crate) fn gate(&self) -> Option<&Gate> {
        self.0.cache.as_ref().map(|parts| &parts.gate)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.get()
    }

    /// Whether no connection outlasts the response it is on: it ends with it, or goes to another process.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_draining() || self.0.successor.borrow().is_some()
    }

    pub(crate) fn log(&self) -> Option<Rc<AccessLog>> {
        self.0.log.borrow().clone()
    }

    /// The next turn of a rule's round robin.
    pub(crate) fn turn_of(&self, rule: usize) -> u64 {
        self.0.turns.borrow().get(rule).map_or(0, |turn| {
            let now = turn.get();
            turn.set(now.wrapping_add(1));
            now
        })
    }

    pub(crate) fn take_scratch(&self) -> Box<Scratch> {
        self.0.scratch.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_scratch(&self, scratch: Box<Scratch>) {
        let mut kept = self.0.scratch.borrow_mut();
        if kept.len() < SCRATCH_MAX {
            kept.push(scratch);
        }
    }

    /// Remembers that `address` took no connection.
    pub(crate) fn avoid(&self, address: SocketAddr) {
        let mut avoided = self.0.avoided.borrow_mut();
        if avoided.len() < AVOIDED_MAX {
            avoided.insert(address, self.0.thread.now() + AVOID);
        }
    }

    /// Whether `address` took no connection a moment ago.
    pub(crate) fn avoids(&self, address: SocketAddr) -> bool {
        let avoided = self.0.avoided.borrow();
        !avoided.is_empty() && avoided.get(&address).is_some_and(|until| *until > self.0.thread.now())
    }

    fn civil<T>(&self, read: impl FnOnce(&Civil) -> T) -> T {
        let now = self.0.thread.now();
        let mut civil = self.0.civil.borrow_mut();
        if now - civil.read > WALL_AGE_MAX {
            civil.read = now;
            civil.wall = self.0.thread.wall();
            let second = civil.wall.as_secs();
            if second != civil.second {
                civil.second = second;
                civil.date = date::format(second);
            }
        }
        read(&civil)
    }

    /// Civil time, precise to the turn.
    pub(crate) fn wall(&self) -> WallTime {
        let now = self.0.thread.now();
        self.civil(|civil| {
            let since = i64::try_from((now - civil.read).as_micros()).unwrap_or(0);
            WallTime::from_micros(civil.wall.as_micros().saturating_add(since))
        })
    }

    /// The date as a field value, at most half a second old.
    pub(crate) fn date(&self) -> [u8; date::IMF_FIXDATE_LEN] {
        self.civil(|civil| civil.date)
    }
}
