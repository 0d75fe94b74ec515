//! One pool on one thread: its ring, its servers, and how many clients it has.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::Rng;
use hashring::Continuum;
use stats::Cells;

use crate::fault::Fault;
use crate::lane::LaneCell;
use crate::memory::{Memory, Told};
use crate::metrics::Kv;
use crate::numbers::{KvPool, Numbers};
use crate::plan::{EjectPolicy, PoolPlan};
use crate::server::Server;
use crate::worker::Worker;

/// What the pool's threads share.
#[derive(Debug, Default)]
pub(crate) struct Census {
    clients: AtomicUsize,
    told: Told,
    next: AtomicUsize,
}

/// See the module.
pub(crate) struct Pool {
    plan: Arc<PoolPlan>,
    census: Arc<Census>,
    ring: RefCell<Continuum>,
    /// Which servers are on it.
    with_keys: RefCell<Vec<bool>>,
    chance: RefCell<Rng>,
    servers: Vec<Rc<Server>>,
    cells: Cells<KvPool>,
    memory: Memory,
    /// What has been told of it.
    memory_told: Cell<usize>,
    /// What took its place.
    next: RefCell<Option<Rc<Self>>>,
}

impl Pool {
    /// The pool on a thread of this seed. All servers are live.
    pub(crate) fn new(plan: &Arc<PoolPlan>, census: Arc<Census>, seed: u64, numbers: &Numbers) -> Rc<Self> {
        // The plan has been judged by building this very ring.
        let ring = plan.ring(|_| true).expect("a ring that could be built can be built again");
        Rc::new_cyclic(|me| Self {
            plan: Arc::clone(plan),
            census,
            ring: RefCell::new(ring),
            with_keys: RefCell::new(vec![true; plan.servers.len()]),
            chance: RefCell::new(Rng::new(seed)),
            servers: (0..plan.servers.len()).map(|index| Server::new(me.clone(), plan, index, numbers)).collect(),
            cells: numbers.pool(&plan.source.name),
            memory: Memory::default(),
            memory_told: Cell::default(),
            next: RefCell::default(),
        })
    }

    /// The pool by a new plan, which counts its clients together with this one.
    pub(crate) fn renewed(&self, plan: &Arc<PoolPlan>, seed: u64, numbers: &Numbers) -> Rc<Self> {
        Self::new(plan, Arc::clone(&self.census), seed, numbers)
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What all threads keep, as far as they have told.
    pub(crate) fn told(&self) -> &Told {
        &self.census.told
    }

    pub(crate) fn cells(&self) -> &Cells<KvPool> {
        &self.cells
    }

    /// Writes down what is not counted as it happens.
    pub(crate) fn tell(&self, worker: &Worker) {
        self.tell_memory();
        for server in &self.servers {
            server.tell();
            server.mind_silence(worker);
            server.follow(worker);
        }
    }

    /// Writes down what it keeps, together with whatever took its place or had it before.
    pub(crate) fn tell_memory(&self) {
        self.tell_memory_is(self.memory.own());
    }

    fn tell_memory_is(&self, now: usize) {
        let told = self.memory_told.replace(now);
        if now >= told {
            self.cells.add(KvPool::MEMORY, (now - told) as u64);
        } else {
            self.cells.sub(KvPool::MEMORY, (told - now) as u64);
        }
    }

    pub(crate) fn servers(&self) -> &[Rc<Server>] {
        &self.servers
    }

    /// `next` has taken its place.
    pub(crate) fn follow(&self, next: Option<Rc<Self>>) {
        *self.next.borrow_mut() = next;
    }

    /// What took its place, if anything did.
    pub(crate) fn next(&self) -> Option<Rc<Self>> {
        self.next.borrow().clone()
    }

    pub(crate) fn plan(&self) -> &PoolPlan {
        &self.plan
    }

    /// A number for a client; none when the pool has as many as it may.
    pub(crate) fn admit(&self) -> Option<u64> {
        let open = self.census.clients.fetch_add(1, Ordering::Relaxed);
        if self.plan.source.client_connections.is_some_and(|limit| open >= limit) {
            self.dismiss();
            return None;
        }
        Some(self.census.next.fetch_add(1, Ordering::Relaxed) as u64 + 1)
    }

    /// A client has gone.
    pub(crate) fn dismiss(&self) {
        self.census.clients.fetch_sub(1, Ordering::Relaxed);
    }

    /// Clients now, on all threads.
    pub(crate) fn clients(&self) -> usize {
        self.census.clients.load(Ordering::Relaxed)
    }

    /// Whether keys need no hashing.
    #[inline]
    pub(crate) fn is_single(&self) -> bool {
        self.servers.len() == 1
    }

    /// The server of a key; none when none is live.
    #[inline]
    pub(crate) fn pick(&self, key: &[u8]) -> Option<usize> {
        self.ring.borrow().pick(key, &mut self.chance.borrow_mut())
    }

    /// The same for many keys.
    pub(crate) fn picker(&self) -> Picker<'_> {
        Picker { ring: self.ring.borrow(), chance: self.chance.borrow_mut() }
    }

    /// Whether reads for that server find nothing: it is ejected, and that is the pool's policy.
    pub(crate) fn misses(&self, server: Option<usize>) -> bool {
        let server = server.and_then(|server| self.servers.get(server));
        self.plan.source.eject_policy == EjectPolicy::Miss && server.is_some_and(|server| !server.is_live())
    }

    /// Some live server; none when none is live.
    pub(crate) fn any(&self) -> Option<usize> {
        self.servers.iter().position(|server| server.is_live())
    }

    /// All live servers.
    pub(crate) fn live(&self) -> Vec<usize> {
        (0..).zip(&self.servers).filter(|(_, server)| server.is_live()).map(|(index, _)| index).collect()
    }

    /// The connection for requests of this client to that server.
    #[inline]
    pub(crate) fn lane(&self, worker: &Worker, server: Option<usize>, client: u64) -> Result<Rc<LaneCell>, Fault> {
        match server.and_then(|server| self.servers.get(server)) {
            Some(server) => server.lane(worker, client),
            None => Err(Fault::Refused),
        }
    }

    /// The connection that requests of this client to that server go on now, if there is one.
    pub(crate) fn lane_in_use(&self, server: Option<usize>, client: u64) -> Option<Rc<LaneCell>> {
        self.servers.get(server?)?.lane_in_use(client)
    }

    /// A server was ejected or restored.
    pub(crate) fn rebuild(&self, worker: &Worker) {
        let rehash = self.plan.source.eject_policy == EjectPolicy::Rehash;
        let has_keys = |server: &Rc<Server>| if rehash { server.is_live() } else { !server.is_new() };
        let with_keys: Vec<bool> = self.servers.iter().map(has_keys).collect();
        if *self.with_keys.borrow() != with_keys
            && let Ok(ring) = self.plan.ring(|index| with_keys.get(index).is_some_and(|has_keys| *has_keys))
        {
            *self.ring.borrow_mut() = ring;
            *self.with_keys.borrow_mut() = with_keys;
            worker.lanes().iter().for_each(|lane| lane.borrow().hold_back_if_of(self));
        }
        let pools = worker.pools();
        let ejected = pools.iter().flat_map(|pool| &pool.servers).filter(|server| !server.is_live()).count();
        // The threads agree, and one tells it for all.
        worker.cells().set(Kv::EJECTED, if worker.thread().index() == 0 { ejected as u64 } else { 0 });
    }

    /// Connects to every server, before anybody asks.
    pub(crate) fn preconnect(&self, worker: &Worker) {
        for server in &self.servers {
            for lane in 0..self.plan.source.server_connections {
                // It fails by itself and is opened anew when it is needed.
                let _ = server.lane(worker, lane as u64);
            }
        }
    }

    /// Takes the servers out that are out by hand, before anybody asks. `true`: the ring is to be built anew.
    pub(crate) fn keep_held(&self, worker: &Worker) -> bool {
        let held = worker.shared().held_of(&self.plan.source.name);
        let held = self.servers.iter().filter(|server| held.iter().any(|name| name == server.name()));
        held.inspect(|server| server.keep_out(worker)).count() > 0
    }

    /// Each server's name and state.
    pub(crate) fn states(&self) -> Vec<(String, &'static str)> {
        self.servers.iter().map(|server| (server.name().to_owned(), server.state_name())).collect()
    }
}

/// Finds servers of keys, while nothing changes.
pub(crate) struct Picker<'a> {
    ring: Ref<'a, Continuum>,
    chance: RefMut<'a, Rng>,
}

impl Picker<'_> {
    /// The server of a key; none when none is live.
    #[inline]
    pub(crate) fn pick(&mut self, key: &[u8]) -> Option<usize> {
        self.ring.pick(key, &mut self.chance)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.memory.end(&self.census.told);
        self.tell_memory_is(0);
    }
}
