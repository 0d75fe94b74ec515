//! One server of a pool, as one thread sees it: its connections, whether it is well, and when it may come back.
//!
//! ```text
//! well ──failure──> well, counting ──limit reached, auto eject──> ejected: out of the ring ──probe──> well
//!   └──nobody listens──> down: in the ring, its requests fail at once ──probe──┘
//!
//! new, brought by a reload, and silent: out of the ring ──probe──> well
//! ```
//!
//! As nobody who listens counts one that closes what is opened before it has answered anything. Where it would be ejected
//! a server is asked whether it is well as soon as one of its connections is lost, and one that says that it loads its data
//! is ejected at once.
//!
//! Only probes bring a server back, never clients' requests; they come at growing intervals. `probe` holds them, `inspect`
//! those of a server that is in use. What a thread finds counts for all, see `judge`; `follow` goes where a server's name
//! leads.

mod follow;
mod handshake;
mod inspect;
mod judge;
mod probe;
mod renew;
#[cfg(test)]
mod tests;

pub(crate) use judge::{Standing, follow_verdicts};
pub(crate) use renew::{Probed, SILENT};

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use base::Instant;
use event::Tcp;
use net::NamesError;
use stats::Cells;

use crate::fault::Fault;
use crate::lane::{self, Lane, LaneCell};
use crate::metrics::Kv;
use crate::miss;
use crate::numbers::{Commands, KvPool, KvServer, Numbers};
use crate::outbox::Source;
use crate::pending::{Again, Owner, Pending};
use crate::plan::{Address, PoolPlan, Protocol, ServerPlan};
use crate::pool::Pool;
use crate::wire::resp::request;
use crate::worker::Worker;

/// How long connecting may take when the pool says nothing, and at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How often a request that has not left is given to another connection.
const ATTEMPTS_MAX: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Well,
    /// Out of the ring, since it has never answered yet.
    New,
    /// Out of the ring.
    Ejected,
    /// Out of the ring until somebody says otherwise.
    Held,
    /// Requests fail at once, with this.
    Down(Fault),
    /// Another took its place.
    Past,
}

/// See the module.
pub(crate) struct Server {
    pool: RefCell<Weak<Pool>>,
    plan: Arc<PoolPlan>,
    index: usize,
    state: Cell<State>,
    /// What the process has found of it, once anything has.
    standing: OnceCell<Arc<Standing>>,
    /// Connections in a row that it closed before it answered anything.
    vain: Cell<u32>,
    lanes: RefCell<Vec<Option<Rc<LaneCell>>>>,
    /// Who probes it.
    prober: Cell<u64>,
    /// This thread looks after it, since a connection was lost.
    inspected: Cell<bool>,
    /// It said that it loads its data.
    loads: Cell<bool>,
    /// When it was last asked because a connection without a deadline was silent.
    asked_at: Cell<Instant>,
    following: follow::Following,
    cells: Cells<KvServer>,
    pool_cells: Cells<KvPool>,
    commands: Commands,
    slow_micros: u32,
}

impl Server {
    pub(crate) fn new(pool: Weak<Pool>, plan: &Arc<PoolPlan>, index: usize, numbers: &Numbers) -> Rc<Self> {
        Rc::new(Self {
            pool: RefCell::new(pool),
            plan: Arc::clone(plan),
            index,
            state: Cell::new(State::Well),
            standing: OnceCell::new(),
            vain: Cell::new(0),
            lanes: RefCell::new(vec![None; plan.source.server_connections]),
            prober: Cell::new(0),
            inspected: Cell::new(false),
            loads: Cell::new(false),
            asked_at: Cell::new(Instant::ORIGIN),
            following: follow::Following::default(),
            cells: numbers.server(&plan.source.name, &plan.servers[index].name),
            pool_cells: numbers.pool(&plan.source.name),
            commands: numbers.commands(&plan.source.name, plan.protocol),
            slow_micros: plan
                .source
                .slowlog
                .map_or(u32::MAX, |limit| u32::try_from(limit.as_micros()).unwrap_or(u32::MAX)),
        })
    }

    pub(crate) fn pool(&self) -> Option<Rc<Pool>> {
        self.pool.borrow().upgrade()
    }

    fn told(&self) -> &ServerPlan {
        &self.plan.servers[self.index]
    }

    pub(crate) fn name(&self) -> &str {
        &self.told().name
    }

    #[inline]
    pub(crate) fn cells(&self) -> &Cells<KvServer> {
        &self.cells
    }

    #[inline]
    pub(crate) fn pool_cells(&self) -> &Cells<KvPool> {
        &self.pool_cells
    }

    /// How many microseconds a request may take before it is put in the slow log.
    #[inline]
    pub(crate) fn slow_micros(&self) -> u32 {
        self.slow_micros
    }

    /// The numbers of the pool's commands.
    #[inline]
    pub(crate) fn commands(&self) -> &Commands {
        &self.commands
    }

    pub(crate) fn pool_name(&self) -> &str {
        &self.plan.source.name
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.plan.protocol
    }

    pub(crate) fn batch(&self) -> usize {
        self.plan.source.batch
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.plan.source.timeout
    }

    /// How long it may take for one request before it is thought to be ill.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.plan.patience()
    }

    /// Whether some requests wait as long as it takes.
    pub(crate) fn waits_for_ever(&self) -> bool {
        self.plan.waits_for_ever()
    }

    /// Whether a request may be due before one that was asked earlier.
    pub(crate) fn limits_differ(&self) -> bool {
        self.plan.limits_differ()
    }

    /// Whether it is in the ring.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state.get(), State::Well | State::Down(_))
    }

    /// Whether it takes requests.
    pub(crate) fn is_well(&self) -> bool {
        self.state.get() == State::Well
    }

    /// Whether it is out of the ring because it is new, so that its keys are others' whatever the policy.
    pub(crate) fn is_new(&self) -> bool {
        self.state.get() == State::New
    }

    /// Whether it is out of the ring by hand.
    pub(crate) fn is_held(&self) -> bool {
        self.state.get() == State::Held
    }

    fn is_down(&self) -> bool {
        matches!(self.state.get(), State::Down(_))
    }

    /// Whether a probe that is answered changes anything.
    fn awaits_probe(&self) -> bool {
        matches!(self.state.get(), State::New | State::Ejected | State::Down(_))
    }

    /// Whether its pool knows it no more.
    pub(crate) fn is_past(&self) -> bool {
        matches!(self.state.get(), State::Past)
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match self.state.get() {
            State::Well => "live",
            State::New => "new",
            State::Ejected => "ejected",
            State::Held => "held",
            State::Down(_) => "down",
            State::Past => "gone",
        }
    }

    /// Why it takes no requests, if it does not.
    #[inline]
    pub(crate) fn admits(&self) -> Result<(), Fault> {
        match self.state.get() {
            State::Well => Ok(()),
            State::New | State::Ejected | State::Held | State::Past => Err(Fault::Refused),
            State::Down(fault) => Err(fault),
        }
    }

    /// The connection for this client's requests, opened when there is none.
    #[inline]
    pub(crate) fn lane(self: &Rc<Self>, worker: &Worker, client: u64) -> Result<Rc<LaneCell>, Fault> {
        self.admits()?;
        let mut lanes = self.lanes.borrow_mut();
        let at = place_of_client(client, lanes.len());
        let place = &mut lanes[at];
        if let Some(lane) = place {
            return Ok(Rc::clone(lane));
        }
        Ok(Rc::clone(place.insert(Lane::open(worker, self))))
    }

    /// The connection that this client's requests go on now, if there is one.
    pub(crate) fn lane_in_use(&self, client: u64) -> Option<Rc<LaneCell>> {
        let lanes = self.lanes.borrow();
        lanes.get(place_of_client(client, lanes.len()))?.clone()
    }

    /// Connects, within a bound.
    pub(crate) async fn connect(&self, worker: &Worker) -> std::io::Result<Tcp> {
        let thread = worker.thread();
        let limit = self.timeout().map_or(CONNECT_MAX, |limit| limit.min(CONNECT_MAX));
        let deadline = thread.now() + limit;
        let address = match &self.told().address {
            Address::Ip(ip, port) => (*ip, *port).into(),
            Address::Name(name, port) => {
                let found = event::timeout(thread, limit, worker.names().resolve(thread, name)).await;
                let unknown = || std::io::Error::from(std::io::ErrorKind::HostUnreachable);
                let found = found.unwrap_or(Err(NamesError::TimedOut(limit)));
                let found = found.inspect_err(|why| self.say_unresolved(worker, why)).map_err(|_| unknown())?;
                (self.choose(&found).ok_or_else(unknown)?, *port).into()
            }
            Address::Unix(path) => {
                use socket2::{Domain, SockAddr, Socket, Type};
                let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
                // Either at once or not at all: a full queue is an error like any other.
                socket.connect(&SockAddr::unix(path)?)?;
                return Tcp::attach(thread, event::Detached::from_fd(socket.into(), None));
            }
        };
        let tcp = Tcp::connect(thread, address, deadline).await?;
        if self.plan.source.tcpkeepalive {
            tcp.keep_alive();
        }
        Ok(tcp)
    }

    /// What is said first on a connection, and how many replies that has.
    pub(crate) fn handshake(&self) -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        let mut replies = 0;
        if let Some(password) = &self.plan.source.redis_auth {
            bytes.extend(request::encode(&[b"AUTH", password.as_bytes()]));
            replies += 1;
        }
        if self.plan.source.redis_db != 0 {
            bytes.extend(request::encode(&["SELECT", &self.plan.source.redis_db.to_string()]));
            replies += 1;
        }
        (bytes, replies)
    }

    /// The thread ends.
    pub(crate) fn end(&self) {
        self.lanes.take();
    }

    /// The next request gets another connection than this.
    pub(crate) fn forget(&self, lane: &Rc<LaneCell>) {
        for place in self.lanes.borrow_mut().iter_mut() {
            if place.as_ref().is_some_and(|other| Rc::ptr_eq(other, lane)) {
                *place = None;
            }
        }
    }

    /// One of its connections failed. `asked`: with requests on it.
    pub(crate) fn lane_failed(self: &Rc<Self>, worker: &Worker, lane: &Rc<LaneCell>, fault: Fault, asked: bool) {
        let mut was_ours = false;
        for place in self.lanes.borrow_mut().iter_mut() {
            if place.as_ref().is_some_and(|other| Rc::ptr_eq(other, lane)) {
                *place = None;
                was_ours = true;
            }
        }
        if !was_ours {
            return;
        }
        worker.cells().add(Kv::SERVER_FAILURES, 1);
        self.cells.add(if fault == Fault::Closed { KvServer::EOF } else { KvServer::ERR }, 1);
        // Our own failure says nothing of the server.
        if fault == Fault::Internal {
            return;
        }
        let is_end = matches!(fault, Fault::Closed | Fault::Reset);
        let in_vain = (is_end || fault == Fault::Nonsense) && lane.borrow().was_in_vain(worker.now(), asked);
        if asked || in_vain || !is_end {
            self.failed(worker, fault, in_vain);
        }
        self.inspect(worker);
    }

    fn rebuild(&self, worker: &Worker) {
        if let Some(pool) = self.pool() {
            pool.rebuild(worker);
        }
    }

    /// Its other connections end with the turn, each by itself: what is on them goes elsewhere.
    fn let_go(&self, worker: &Worker, fault: Fault) {
        for lane in self.lanes.borrow_mut().iter_mut().filter_map(Option::take) {
            worker.lane_has_failed(lane, fault);
        }
    }

    /// A request whose connection failed: again elsewhere, or its error, which is returned. `bytes` gives it from where it
    /// begins.
    pub(crate) fn retry(
        self: &Rc<Self>,
        worker: &Worker,
        pending: Pending,
        fault: Fault,
        unsent: bool,
        bytes: impl FnOnce(u64) -> Option<Vec<u8>>,
    ) -> Option<Fault> {
        let Pending { owner, command, asked, deadline, start, again, attempts } = pending;
        if matches!(owner, Owner::Nobody | Owner::Handshake) {
            return None;
        }
        let again_allowed = match again {
            // What we failed at might do the same again, and where it begins is not certain.
            _ if fault == Fault::Internal => false,
            _ if unsent => attempts < ATTEMPTS_MAX,
            Again::Always => attempts < 1,
            Again::Unsent => false,
        };
        let in_time = deadline > worker.now();
        let found = if again_allowed && in_time { bytes(start) } else { None };
        let Some(bytes) = found else { return lane::give_fault(worker, owner, fault) };
        if again == Again::Always && self.misses() {
            match miss::reply(self.protocol(), &bytes) {
                Some(nothing) => {
                    lane::give_nothing(owner, nothing);
                    return None;
                }
                None => return lane::give_fault(worker, owner, fault),
            }
        }
        let place = self.place_of(&bytes);
        let lane = match self.pool() {
            Some(pool) => pool.lane(worker, place, owner.client_id()),
            None => Err(fault),
        };
        match lane {
            Ok(lane) if lane.borrow().has_room() => {
                worker.cells().add(Kv::RETRIES, 1);
                let mut lane = lane.borrow_mut();
                let len = bytes.len();
                lane.expect_again(
                    Pending { owner, deadline, start: 0, again, attempts: attempts + 1, command, asked },
                    len,
                );
                lane.push(Source::Shared(&bytes.into()), 0..len);
                None
            }
            Ok(_) => lane::give_fault(worker, owner, fault),
            Err(now) => lane::give_fault(worker, owner, now),
        }
    }

    /// Whether reads of it find nothing.
    fn misses(&self) -> bool {
        !self.is_live() && self.pool().is_some_and(|pool| pool.misses(Some(self.index)))
    }

    /// Where a request belongs now: the ring may have changed.
    fn place_of(&self, bytes: &[u8]) -> Option<usize> {
        let here = Some(self.index);
        if self.is_live() {
            return here;
        }
        let pool = self.pool()?;
        let mut request = crate::wire::resp::Request::default();
        if self.protocol() == Protocol::Memcached {
            return memcached_place(&pool, bytes, request.words());
        }
        if !matches!(request.scan(bytes), crate::wire::resp::Scan::Whole(_)) {
            return None;
        }
        let argument = |at: usize| {
            let place = request.arguments().get(at).cloned().unwrap_or(0..0);
            bytes.get(place.start as usize..place.end as usize).unwrap_or_default()
        };
        let command = crate::commands::of_request(request.arguments().len(), argument)?;
        let keys = crate::commands::keys(command, request.arguments().len(), argument).ok()?;
        let mut places = keys.iter().map(|at| pool.pick(argument(at)));
        let first = places.next()??;
        // Keys that were together may live apart on the new ring.
        places.all(|place| place == Some(first)).then_some(first)
    }

    pub(crate) fn address(&self) -> String {
        self.told().address.to_string()
    }

    /// How long a probe may take to be answered, and before that to connect.
    fn probe_limit(&self) -> Duration {
        self.timeout().map_or(CONNECT_MAX, |limit| limit.clamp(Duration::from_millis(100), CONNECT_MAX))
    }

    /// Until when a probe may take.
    fn probe_deadline(&self, now: Instant) -> Instant {
        now + self.probe_limit()
    }

    /// How long it is left alone at least between two probes.
    fn left_alone(&self) -> Duration {
        match self.state.get() {
            State::Ejected => self.plan.source.server_retry_timeout,
            _ => probe::FIRST,
        }
    }
}

/// Which of so many connections a client's requests go on.
#[inline]
fn place_of_client(client: u64, count: usize) -> usize {
    if count <= 1 { 0 } else { usize::try_from(client % count as u64).unwrap_or(0) }
}

/// As [`Server::place_of`], of memcached.
fn memcached_place(pool: &Pool, bytes: &[u8], words: &mut Vec<std::ops::Range<u32>>) -> Option<usize> {
    if !matches!(crate::wire::memcached::scan(bytes, words), crate::wire::memcached::Scan::Whole(_)) {
        return None;
    }
    let word = |word: &std::ops::Range<u32>| bytes.get(word.start as usize..word.end as usize).unwrap_or_default();
    let keys = match word(words.first()?) {
        b"get" | b"gets" => words.get(1..)?,
        b"gat" | b"gats" => words.get(2..)?,
        _ => words.get(1..2)?,
    };
    let mut places = keys.iter().map(|key| pool.pick(word(key)));
    let first = places.next()??;
    places.all(|place| place == Some(first)).then_some(first)
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({} at {}, {:?})", self.name(), self.address(), self.state.get())
    }
}
