//! Pools on one event thread of a simulated world, with all that a process has around them: numbers, names that change,
//! house-keeping. Time is virtual.
//!
//! Start with [`run`].
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests: each takes what it needs, and a failure is a panic"
)]

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::Instant;
use buf::{Block, Chunk, SizeClass};
use event::sim::{Faults, World};
use event::{Shares, Tcp, Thread};
use kv::wire::Scanned;
use kv::wire::resp::{Reply, Request, Scan, request};
use kv::{Address, Plan, PoolSource, ServerSource, Shared, Slow, Worker, WorkerParts};
use net::{Names, NamesOptions};
use stats::{Segment, Snapshot, Value};

/// Where the first pool listens; the others do on the ports behind it.
const PROXY: u16 = 22_121;
/// The servers' port, each at an address of its own.
pub const PORT: u16 = 6_379;
/// Longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(600);
/// How often a process does its house-keeping.
const TICK: Duration = millis(200);
/// Of a value that comes by and by.
const PART: usize = 32 << 10;
const TTL: Duration = Duration::from_secs(2);
pub const NAMES: NamesOptions =
    NamesOptions { ttl: TTL, negative_ttl: Duration::from_secs(1), timeout: TTL, stale: Duration::ZERO };

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
    /// What servers have done, in its order: their numbers and the second words.
    static ASKED: RefCell<Vec<(u8, String)>> = const { RefCell::new(Vec::new()) };
    static STORES: RefCell<Vec<Rc<Store>>> = const { RefCell::new(Vec::new()) };
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn chunk(bytes: Vec<u8>) -> Chunk {
    let len = bytes.len();
    Chunk::from_shared(bytes.into(), 0..len)
}

/// A server that does one thing at a time and remembers what it did.
#[derive(Default)]
pub struct Store {
    number: u8,
    /// It says nothing.
    pub stopped: Cell<bool>,
    /// It closes its connections, once it has something to say.
    pub dies: Cell<bool>,
    /// How long it takes for each part of a value; none: a value goes in one.
    pub trickles: Cell<Duration>,
    /// It does nothing more before what it has said is taken.
    pub is_meek: Cell<bool>,
    /// How long each answer takes.
    pub pace: Cell<Duration>,
    /// How long its values are.
    pub value_len: Cell<usize>,
    /// Connections that were made, and those of them that ended.
    pub connections: Cell<usize>,
    pub ended: Cell<usize>,
}

impl Store {
    async fn serve(self: Rc<Self>, thread: Thread, tcp: Tcp) {
        self.connections.set(self.connections.get() + 1);
        let mut have: Vec<u8> = Vec::new();
        loop {
            let mut block = Block::new(SizeClass::Medium);
            match tcp.recv(&mut block).await {
                Ok(got) if got > 0 => have.extend_from_slice(&block),
                _ => return self.ended.set(self.ended.get() + 1),
            }
            let mut request = Request::default();
            while let Scan::Whole(len) = request.scan(&have) {
                let asked: Vec<u8> = have.drain(..len).collect();
                let word = |at: usize| {
                    let place = request.arguments().get(at).map_or(0..0, |word| word.start as usize..word.end as usize);
                    String::from_utf8_lossy(&asked[place]).into_owned()
                };
                let (command, key) = (word(0), word(1));
                request.clear();
                if !self.pace.get().is_zero() {
                    thread.sleep(self.pace.get()).await;
                }
                while self.stopped.get() && !self.dies.get() {
                    thread.sleep(millis(1)).await;
                }
                if self.dies.get() {
                    return self.ended.set(self.ended.get() + 1);
                }
                ASKED.with(|all| all.borrow_mut().push((self.number, key)));
                let answer = match command.as_str() {
                    "TYPE" => format!("+{}\r\n", self.number).into_bytes(),
                    "GET" => {
                        let len = self.value_len.get();
                        [format!("${len}\r\n").as_bytes(), &vec![b'x'; len], b"\r\n"].concat()
                    }
                    _ => b"+OK\r\n".to_vec(),
                };
                let pause = self.trickles.get();
                let part = if pause.is_zero() { answer.len() } else { PART };
                for part in answer.chunks(part) {
                    tcp.send(chunk(part.to_vec()));
                    if !pause.is_zero() {
                        thread.sleep(pause).await;
                    }
                }
                if self.is_meek.get() && tcp.room(0).await.is_err() {
                    return self.ended.set(self.ended.get() + 1);
                }
            }
        }
    }
}

/// A server, by its number: it listens on 127.0.0.NUMBER.
pub fn address(number: u8) -> IpAddr {
    [127, 0, 0, number].into()
}

/// The server of that number.
pub fn server(number: u8) -> ServerSource {
    ServerSource { address: Address::Ip(address(number), PORT), weight: 1, name: None }
}

/// The server of that name, wherever it is.
pub fn named(name: &str) -> ServerSource {
    ServerSource { address: Address::Name(name.into(), PORT), weight: 1, name: None }
}

/// A Redis pool in front of these.
pub fn pool(name: &str, servers: Vec<ServerSource>) -> PoolSource {
    PoolSource { redis: true, ..PoolSource::new(name, servers) }
}

/// All that a test has to do with.
#[derive(Clone)]
pub struct Stage {
    /// The clients' thread.
    pub thread: Thread,
    /// The pools'.
    proxy: Thread,
    world: Rc<World>,
    shared: Arc<Shared>,
    segment: Segment,
}

impl Stage {
    /// The server of that number.
    pub fn store(&self, number: u8) -> Rc<Store> {
        STORES.with(|all| Rc::clone(&all.borrow()[usize::from(number) - 1]))
    }

    /// The name has these servers' addresses from now on.
    pub fn name(&self, name: &str, numbers: &[u8]) {
        self.world.name(name, &numbers.iter().copied().map(address).collect::<Vec<_>>());
    }

    /// Nobody knows where it leads, from now on.
    pub fn unname(&self, name: &str) {
        self.world.name(name, &[]);
    }

    /// What the servers have done, in its order: their numbers and the second words.
    pub fn asked(&self) -> Vec<(u8, String)> {
        ASKED.with(|all| all.borrow().clone())
    }

    /// Puts these pools in the place of those of their names.
    pub fn renew(&self, pools: Vec<PoolSource>) {
        let plan = Plan::prepare(pools).unwrap();
        self.proxy.spawn("renewal", async move {
            let worker = WORKER.with(|slot| slot.borrow().clone()).unwrap();
            worker.renew(&plan, NAMES, |unanswered| assert_eq!(unanswered, []));
        });
    }

    /// Clients' connections are to go to another process from now on. They stay: in this world none can go.
    pub fn hand_over(&self) {
        self.proxy.spawn("hand over", async {
            let worker = WORKER.with(|slot| slot.borrow().clone()).unwrap();
            worker.hand_over(Rc::new(|_, _| panic!("a connection has gone")));
        });
    }

    /// Does this beside the test; says whether it is over.
    pub fn spawn(&self, work: impl Future<Output = ()> + 'static) -> Rc<Cell<bool>> {
        let over = Rc::new(Cell::new(false));
        let told = Rc::clone(&over);
        self.thread.spawn("beside", async move {
            work.await;
            told.set(true);
        });
        over
    }

    pub fn now(&self) -> Instant {
        self.thread.now()
    }

    pub async fn sleep(&self, time: Duration) {
        self.thread.sleep(time).await;
    }

    /// Waits until `done`, within a bound.
    pub async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if done() {
                return;
            }
            self.sleep(millis(5)).await;
        }
        panic!("never: {what}");
    }

    /// The slow log, the newest first.
    pub fn slow(&self) -> Vec<Slow> {
        self.shared.slow()
    }

    /// How often something was observed, or how high a counter or gauge stands: the sum over its labels.
    pub fn number(&self, name: &str) -> u64 {
        let snapshot = Snapshot::read(self.segment.words()).unwrap();
        let of = |value: &Value| match value {
            Value::Histogram(distribution) => distribution.count(),
            Value::Counter(count) => *count,
            Value::Gauge(now) => u64::try_from(*now).unwrap(),
        };
        snapshot.metrics.iter().filter(|metric| metric.name == name).map(|metric| of(&metric.value)).sum()
    }

    /// A client of the pool of this number, from 0.
    pub async fn client(&self, pool: u16) -> Client {
        let at = SocketAddr::from(([127, 0, 0, 1], PROXY + pool));
        let tcp = Tcp::connect(&self.thread, at, self.now() + LONG).await.unwrap();
        tcp.set_read_deadline(self.now() + LONG);
        Client { thread: self.thread.clone(), tcp, have: Vec::new() }
    }
}

/// A client of a pool.
pub struct Client {
    thread: Thread,
    pub tcp: Tcp,
    have: Vec<u8>,
}

impl Client {
    pub fn put(&self, words: &[&str]) {
        self.tcp.send(chunk(request::encode(words)));
    }

    /// The next reply; none: the connection has ended.
    pub async fn try_reply(&mut self) -> Option<String> {
        let (mut scan, mut scanned) = (Reply::default(), 0);
        loop {
            match scan.scan(&self.have[scanned..]) {
                Scanned::Whole(len) => {
                    return String::from_utf8(self.have.drain(..scanned + len).collect()).ok();
                }
                Scanned::Part(len) => scanned += len,
                Scanned::Malformed => panic!("not a reply"),
            }
            let mut block = Block::new(SizeClass::Large);
            if self.tcp.recv(&mut block).await.unwrap_or(0) == 0 {
                return None;
            }
            self.have.extend_from_slice(&block);
        }
    }

    pub async fn reply(&mut self) -> String {
        self.try_reply().await.expect("the connection is open")
    }

    /// A key that lives on the server of that number.
    pub async fn key_on(&mut self, number: u8) -> String {
        let home = format!("+{number}\r\n");
        for key in (0..1_000).map(|n| format!("{n}:{}", n * 7_919)) {
            if self.ask(&["TYPE", &key]).await == home {
                return key;
            }
        }
        panic!("no key lives on {number}");
    }

    /// Ends its connection at once.
    pub fn leave(self) {
        self.tcp.abort();
    }

    pub async fn ask(&mut self, words: &[&str]) -> String {
        self.put(words);
        self.reply().await
    }
}

/// So many servers, these pools, and `body`, at whose end all is over.
pub fn run<F: Future<Output = ()> + 'static>(pools: Vec<PoolSource>, count: u8, body: impl FnOnce(Stage) -> F) {
    run_within(usize::MAX, pools, count, body);
}

/// As [`run`]. `memory`: what all pools together may keep.
pub fn run_within<F: Future<Output = ()> + 'static>(
    memory: usize,
    pools: Vec<PoolSource>,
    count: u8,
    body: impl FnOnce(Stage) -> F,
) {
    run_in(Faults::none(), memory, pools, count, body);
}

/// As [`run_within`], on a network like that.
pub fn run_in<F: Future<Output = ()> + 'static>(
    faults: Faults,
    memory: usize,
    pools: Vec<PoolSource>,
    count: u8,
    body: impl FnOnce(Stage) -> F,
) {
    let world = Rc::new(World::new(5, faults));
    let store = |number| Rc::new(Store { number, value_len: Cell::new(1), ..Store::default() });
    ASKED.take();
    STORES.with(|all| *all.borrow_mut() = (1..=count).map(store).collect());
    let servers = world.thread("servers").unwrap();
    for number in 1..=count {
        let serve = move |thread: &Thread, tcp| {
            let store = STORES.with(|all| Rc::clone(&all.borrow()[usize::from(number) - 1]));
            thread.spawn("redis", store.serve(thread.clone(), tcp));
        };
        let at = SocketAddr::new(address(number), PORT);
        world.listen(at, 64, Shares::new(1, 1_000), Arc::default(), serve).accept_on(&servers).unwrap();
    }
    let ports = PROXY..PROXY + u16::try_from(pools.len()).unwrap();
    let plan = Plan::prepare_within(pools, memory).unwrap();
    let shared = Shared::new(&plan);
    let mut registry = stats::Registry::new();
    registry.add::<kv::Kv>().unwrap();
    let ledger = kv::numbers::Ledger::declare(&mut registry, &plan).unwrap();
    let segment = registry.layout(1).unwrap().create_on_heap(stats::Identity::default()).unwrap();
    let proxy = world.group("proxy", 1).unwrap().remove(0);
    let peers = Arc::new(OnceLock::new());
    peers.set(vec![proxy.handle()]).unwrap();
    let worker = Worker::new(WorkerParts {
        thread: proxy.clone(),
        shared: Arc::clone(&shared),
        plan,
        names: Names::new(NAMES),
        cells: segment.cells::<kv::Kv>(0).unwrap(),
        numbers: ledger.numbers(&segment, 0).unwrap(),
    });
    WORKER.with(|slot| *slot.borrow_mut() = Some(worker.clone()));
    let keeping = proxy.clone();
    proxy.spawn("house-keeping", async move {
        loop {
            keeping.sleep(TICK).await;
            worker.tick();
        }
    });
    for (pool, port) in ports.enumerate() {
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = world.listen(at, 16, Shares::new(1, 1_000), Arc::clone(&peers), move |_, tcp| {
            WORKER.with(|slot| slot.borrow().as_ref().unwrap().serve(tcp, pool));
        });
        listener.accept_on(&proxy).unwrap();
    }
    let clients = world.thread("clients").unwrap();
    let stage = Stage { thread: clients.clone(), proxy, world: Rc::clone(&world), shared, segment };
    world.run_task(&clients, body(stage), LONG).unwrap();
    WORKER.with(|slot| *slot.borrow_mut() = None);
}
