//! What one event thread has for all its key-value clients: the pools, names, numbers, and lists kept for the next.
//!
//! What waits for the end of a turn is in `turn`, what all threads share in `shared`. Start with [`Worker::new`].

mod turn;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use base::Instant;
use event::{Tcp, Thread};
use net::Names;
use stats::Cells;

use crate::client::{Client, ClientCell, HandOver, Moving, Slots};
use crate::lane::{self, LaneCell};
use crate::memory::Count;
use crate::metrics::Kv;
use crate::numbers::Numbers;
use crate::plan::Plan;
use crate::pool::Pool;
use crate::shared::Shared;
use crate::wire::resp::Request;

use self::turn::Turn;

/// Emptied lists kept for the next client with requests.
const SLOTS_MAX: usize = 64;
/// Places a list may have and still be kept.
const SLOTS_KEPT_MAX: usize = 256;
/// Places that an idle worker's lists keep memory for.
const LIST_KEPT_MAX: usize = 256;
/// Arguments that there may be room for in what is kept for the next request.
const ARGUMENTS_KEPT_MAX: usize = 1_024;

/// One server, as one thread sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerState {
    /// Its pool.
    pub pool: String,
    /// The name that places its keys.
    pub server: String,
    /// In a word.
    pub state: &'static str,
    /// Whether it is in its ring.
    pub is_live: bool,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// Its event thread.
    pub thread: Thread,
    /// What it serves.
    pub plan: Arc<Plan>,
    /// What it shares with the other threads.
    pub shared: Arc<Shared>,
    /// Its names.
    pub names: Names,
    /// Its numbers.
    pub cells: Cells<Kv>,
    /// Those of each pool, server and command.
    pub numbers: Numbers,
}

struct Inside {
    thread: Thread,
    pools: RefCell<Rc<[Rc<Pool>]>>,
    /// Pools that another took the place of, while clients are connected to them.
    superseded: RefCell<Vec<Weak<Pool>>>,
    /// How many configurations there were.
    renewals: Cell<u32>,
    names: Names,
    cells: Cells<Kv>,
    numbers: Numbers,
    shared: Arc<Shared>,
    micros: Cell<u32>,
    turn: Turn,
    /// Connections to servers, those included that their server knows no more.
    lanes: RefCell<Vec<Weak<LaneCell>>>,
    touched: RefCell<Vec<Rc<ClientCell>>>,
    slots: RefCell<Vec<Slots>>,
    /// What requests are looked at with, one after the other.
    request: Cell<Option<Box<Request>>>,
    /// What this thread keeps, of all pools, and what all threads may.
    memory: Count,
    memory_max: Cell<usize>,
    /// Clients that wait for a reply.
    waiting: Cell<usize>,
    now: Cell<Option<Instant>>,
    /// Grows when there is something for every client to follow.
    changes: Cell<u32>,
    draining: Cell<bool>,
    successor: RefCell<Option<HandOver>>,
}

/// The worker as its thread's tail has it, which is dropped when the thread ends.
struct AtTail(Worker);

impl Drop for AtTail {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Worker(Rc<Inside>);

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({:?}, {} pools)", self.0.thread, self.pools().len())
    }
}

impl Worker {
    /// A worker for the thread it is made on. It lives as long as the thread.
    #[must_use]
    pub fn new(parts: WorkerParts) -> Self {
        let WorkerParts { thread, plan, shared, names, cells, numbers } = parts;
        let pools = plan.pools.iter().zip(shared.censuses());
        let pools =
            pools.map(|(plan, census)| Pool::new(plan, Arc::clone(census), thread.random(), &numbers)).collect();
        let worker = Self(Rc::new(Inside {
            thread: thread.clone(),
            pools: RefCell::new(pools),
            superseded: RefCell::default(),
            renewals: Cell::new(0),
            names,
            cells,
            numbers,
            shared,
            micros: Cell::new(0),
            turn: Turn::default(),
            lanes: RefCell::default(),
            touched: RefCell::default(),
            slots: RefCell::default(),
            request: Cell::default(),
            memory: Count::default(),
            memory_max: Cell::new(plan.memory),
            waiting: Cell::new(0),
            now: Cell::new(None),
            changes: Cell::new(0),
            draining: Cell::new(false),
            successor: RefCell::default(),
        }));
        for pool in worker.pools().iter() {
            if pool.keep_held(&worker) {
                pool.rebuild(&worker);
            }
            if pool.plan().source.preconnect {
                pool.preconnect(&worker);
            }
        }
        crate::server::follow_verdicts(&worker);
        let me = AtTail(worker.clone());
        thread.at_tail(move |_| me.0.turn_ends());
        worker
    }

    /// Starts serving a client of the pool of this number, as the plan has them.
    pub fn serve(&self, tcp: Tcp, pool: usize) {
        if let Some(pool) = self.pools().get(pool) {
            Client::start(self, pool, tcp, None);
        }
    }

    /// Goes on serving a client that another server let go of. Its connection closes when there is no such pool.
    pub fn take_over(&self, tcp: Tcp, moving: Moving) {
        if let Some(pool) = self.pool(&moving.pool) {
            Client::start(self, &pool, tcp, Some(moving));
        }
    }

    /// Clients end when what they asked is answered.
    pub fn drain(&self) {
        self.0.draining.set(true);
        self.0.thread.drain();
    }

    /// From now on every client's connection goes, as soon as it waits for nothing, to another process by `hand_over`.
    pub fn hand_over(&self, hand_over: HandOver) {
        *self.0.successor.borrow_mut() = Some(hand_over);
        // It asks on connections of its own.
        self.lanes().iter().for_each(|lane| lane.borrow_mut().part());
        self.0.changes.set(self.0.changes.get().wrapping_add(1));
        self.0.thread.drain();
    }

    #[inline]
    pub(crate) fn changes(&self) -> u32 {
        self.0.changes.get()
    }

    /// Where clients' connections go; none when they stay, or are to end here.
    pub(crate) fn successor(&self) -> Option<HandOver> {
        self.0.successor.borrow().clone().filter(|_| !self.0.draining.get())
    }

    pub(crate) fn thread(&self) -> &Thread {
        &self.0.thread
    }

    /// The time, read once a turn. The loop's own is that of before it slept when it delivers what woke it.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        if let Some(now) = self.0.now.get() {
            return now;
        }
        let now = self.0.thread.precise_now();
        self.0.now.set(Some(now));
        // Wraps after an hour and more: only differences count.
        #[expect(clippy::cast_possible_truncation, reason = "it wraps on purpose")]
        self.0.micros.set((now.as_nanos() / 1_000) as u32);
        now
    }

    /// The same in microseconds of no particular beginning.
    #[inline]
    pub(crate) fn micros(&self) -> u32 {
        if self.0.now.get().is_none() {
            self.now();
        }
        self.0.micros.get()
    }

    pub(crate) fn numbers(&self) -> &Numbers {
        &self.0.numbers
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Takes a server out of its ring until it is restored by hand, or takes it back. `false`: there is none of that name.
    pub fn hold(&self, pool: &str, server: &str, out: bool) -> bool {
        let Some(pool) = self.pool(pool) else { return false };
        let Some(server) = pool.servers().iter().find(|other| other.name() == server) else { return false };
        server.hold(self, out);
        true
    }

    /// How this thread sees the servers of every pool.
    #[must_use]
    pub fn states(&self) -> Vec<ServerState> {
        let of_pool = |pool: &Rc<Pool>| {
            let state = |server: &Rc<crate::server::Server>| ServerState {
                pool: pool.plan().source.name.clone(),
                server: server.name().to_owned(),
                state: server.state_name(),
                is_live: server.is_live(),
            };
            pool.servers().iter().map(state).collect::<Vec<_>>()
        };
        self.pools().iter().flat_map(of_pool).collect()
    }

    /// House-keeping, a few times a second: writes down what is not counted as it happens.
    pub fn tick(&self) {
        for pool in self.pools().iter() {
            pool.tell(self);
        }
        self.0.superseded.borrow().iter().filter_map(Weak::upgrade).for_each(|pool| pool.tell_memory());
        self.mind_lanes();
        self.follow_verdicts();
        self.cells().set(Kv::MEMORY, self.memory().own() as u64);
        if self.0.thread.index() == 0 {
            self.cells().set(Kv::MEMORY_MAX, i64::try_from(self.memory_max()).map_or(0, i64::unsigned_abs));
        }
        // A crowd that has gone leaves nothing behind; one that is there needs its lists at once again.
        if self.0.waiting.get() == 0 {
            self.0.turn.shrink_to(LIST_KEPT_MAX);
            self.0.touched.borrow_mut().shrink_to(LIST_KEPT_MAX);
            self.0.slots.borrow_mut().clear();
        }
    }

    pub(crate) fn names(&self) -> &Names {
        &self.0.names
    }

    pub(crate) fn cells(&self) -> &Cells<Kv> {
        &self.0.cells
    }

    pub(crate) fn pools(&self) -> Rc<[Rc<Pool>]> {
        Rc::clone(&self.0.pools.borrow())
    }

    /// The pool of that name.
    pub(crate) fn pool(&self, name: &str) -> Option<Rc<Pool>> {
        self.pools().iter().find(|pool| pool.plan().source.name == name).cloned()
    }

    /// A new configuration comes; says which one it is.
    pub(crate) fn begin_renewal(&self) -> u32 {
        self.0.renewals.set(self.0.renewals.get().wrapping_add(1));
        self.0.renewals.get()
    }

    /// Whether no newer configuration has come since.
    pub(crate) fn is_newest(&self, renewal: u32) -> bool {
        self.0.renewals.get() == renewal
    }

    /// Serves by these pools from here on; clients of the others follow between two requests.
    pub(crate) fn replace_pools(&self, pools: Vec<Rc<Pool>>) {
        let old = std::mem::replace(&mut *self.0.pools.borrow_mut(), pools.into());
        let mut superseded = self.0.superseded.borrow_mut();
        superseded.extend(old.iter().map(Rc::downgrade));
        superseded.retain(|weak| {
            let Some(pool) = weak.upgrade() else { return false };
            pool.follow(self.pool(&pool.plan().source.name));
            Rc::strong_count(&pool) > 1
        });
        self.0.changes.set(self.0.changes.get().wrapping_add(1));
    }

    /// There is one connection more.
    pub(crate) fn lane_opened(&self, lane: &Rc<LaneCell>) {
        let mut lanes = self.0.lanes.borrow_mut();
        if lanes.len() == lanes.capacity() {
            lanes.retain(|lane| lane.strong_count() > 0);
        }
        lanes.push(Rc::downgrade(lane));
    }

    /// All connections to servers, and those that were.
    pub(crate) fn lanes(&self) -> Vec<Rc<LaneCell>> {
        self.0.lanes.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Asks why nothing comes on connections that take nothing new, and lets go of who has waited on one for too long.
    fn mind_lanes(&self) {
        let now = self.now();
        for lane in self.0.lanes.borrow().iter().filter_map(Weak::upgrade) {
            lane.borrow_mut().mind_unsettled(now);
            if !lane.borrow().is_left_silent(now) {
                continue;
            }
            let (server, is_left_behind) = (lane.borrow().server(), lane.borrow().is_left_behind());
            if is_left_behind {
                server.ask_why_lane_is_silent(self, lane);
            } else {
                server.ask_why_silent(self);
            }
        }
    }

    pub(crate) fn touched(&self) -> RefMut<'_, Vec<Rc<ClientCell>>> {
        self.0.touched.borrow_mut()
    }

    /// What this thread keeps of requests and replies, of all pools.
    #[inline]
    pub(crate) fn memory(&self) -> &Count {
        &self.0.memory
    }

    /// What all threads may keep together.
    #[inline]
    pub(crate) fn memory_max(&self) -> usize {
        self.0.memory_max.get()
    }

    /// It is so much from now on.
    pub(crate) fn set_memory_max(&self, memory: usize) {
        self.0.memory_max.set(memory);
    }

    /// A client waits for a reply from now on, or does so no more.
    pub(crate) fn count_waiting(&self, waits: bool) {
        let now = self.0.waiting.get();
        self.0.waiting.set(if waits { now + 1 } else { now.saturating_sub(1) });
    }

    /// What a request is put into while it is looked at.
    #[inline]
    pub(crate) fn take_request(&self) -> Box<Request> {
        self.0.request.take().unwrap_or_default()
    }

    /// Takes it back.
    #[inline]
    pub(crate) fn keep_request(&self, mut request: Box<Request>) {
        request.clear();
        if request.arguments_room() <= ARGUMENTS_KEPT_MAX {
            self.0.request.set(Some(request));
        }
    }

    /// An empty list, with memory if a used one is at hand.
    pub(crate) fn take_slots(&self) -> Slots {
        self.0.slots.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes an emptied list back.
    pub(crate) fn keep_slots(&self, slots: Slots) -> Slots {
        let mut kept = self.0.slots.borrow_mut();
        if kept.len() < SLOTS_MAX && slots.capacity() <= SLOTS_KEPT_MAX {
            kept.push(slots);
        }
        Slots::default()
    }

    /// Lets go of all that it has: connections to servers hold on to it as it does to them.
    fn end(&self) {
        let inside = &self.0;
        let pools = inside.pools.replace(Rc::new([]));
        let superseded: Vec<_> = inside.superseded.take().iter().filter_map(Weak::upgrade).collect();
        pools.iter().chain(&superseded).flat_map(|pool| pool.servers()).for_each(|server| server.end());
        // Whoever is kept from going on by a client holds that client, and is held by it.
        self.lanes().iter().for_each(lane::end);
        inside.turn.clear();
        drop((pools, superseded, inside.touched.take(), inside.slots.take()));
        inside.memory.end(inside.shared.told());
    }
}
