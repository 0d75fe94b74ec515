//! Servers, a pool in front of them and clients in a simulated world: time is virtual, so that what is measured is the
//! pool's doing and not the machine's.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests: each takes what it needs, and a failure is a panic"
)]

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::Instant;
use buf::{Block, Chunk, SizeClass};
use event::sim::{Faults, World};
use event::{Shares, Tcp, Thread};
use kv::wire::Scanned;
use kv::wire::resp::{Reply, Request, Scan, request};
use kv::{Address, Plan, PoolSource, ServerSource, Shared, Worker, WorkerParts};
use net::{Names, NamesOptions};
use stats::Cells;

const PROXY: ([u8; 4], u16) = ([127, 0, 0, 1], 22_121);
/// The first server's; the others have those behind it.
pub const FIRST_PORT: u16 = 6_379;
/// Longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(600);
const NAMES: NamesOptions = NamesOptions { ttl: LONG, negative_ttl: LONG, timeout: LONG, stale: LONG };

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
    static STORES: RefCell<Vec<Rc<Store>>> = const { RefCell::new(Vec::new()) };
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn shared(bytes: Vec<u8>) -> Chunk {
    let len = bytes.len();
    Chunk::from_shared(bytes.into(), 0..len)
}

/// A server that does one thing at a time, as Redis does.
pub struct Store {
    pub port: u16,
    /// Whether it says nothing.
    pub stopped: Cell<bool>,
    /// How long its values are.
    pub value_len: Cell<usize>,
    busy_until: Cell<Instant>,
}

impl Store {
    fn at(port: u16) -> Rc<Self> {
        let (stopped, value_len) = (Cell::new(false), Cell::new(1));
        Rc::new(Self { port, stopped, value_len, busy_until: Cell::new(Instant::ORIGIN) })
    }

    async fn is_free(&self, thread: &Thread) {
        while self.stopped.get() || thread.now() < self.busy_until.get() {
            thread.sleep(millis(1)).await;
        }
    }

    /// `EVAL n …` takes so many milliseconds; `TYPE` says where the key lives.
    async fn answer(&self, thread: &Thread, words: &[&[u8]]) -> Vec<u8> {
        self.is_free(thread).await;
        match words {
            [b"EVAL", time, ..] => {
                let time = std::str::from_utf8(time).unwrap().parse().unwrap();
                self.busy_until.set(thread.now() + millis(time));
                self.is_free(thread).await;
                b"$4\r\ndone\r\n".to_vec()
            }
            [b"TYPE", ..] => format!("+{}\r\n", self.port).into_bytes(),
            [b"GET", ..] => {
                let len = self.value_len.get();
                [format!("${len}\r\n").as_bytes(), &vec![b'x'; len], b"\r\n"].concat()
            }
            _ => b"+OK\r\n".to_vec(),
        }
    }

    async fn serve(self: Rc<Self>, thread: Thread, tcp: Tcp) {
        let mut have: Vec<u8> = Vec::new();
        loop {
            let mut block = Block::new(SizeClass::Medium);
            match tcp.recv(&mut block).await {
                Ok(got) if got > 0 => have.extend_from_slice(&block),
                _ => return,
            }
            loop {
                let mut request = Request::default();
                let Scan::Whole(len) = request.scan(&have) else { break };
                let asked: Vec<u8> = have.drain(..len).collect();
                let words: Vec<&[u8]> =
                    request.arguments().iter().map(|word| &asked[word.start as usize..word.end as usize]).collect();
                tcp.send(shared(self.answer(&thread, &words).await));
            }
        }
    }
}

/// A client of the pool.
pub struct Client {
    thread: Thread,
    tcp: Tcp,
    have: Vec<u8>,
}

impl Client {
    pub async fn new(thread: &Thread) -> Self {
        let tcp = Tcp::connect(thread, PROXY.into(), thread.now() + LONG).await.unwrap();
        tcp.set_read_deadline(thread.now() + LONG);
        Self { thread: thread.clone(), tcp, have: Vec::new() }
    }

    pub fn put(&self, words: &[&str]) {
        self.tcp.send(shared(request::encode(words)));
    }

    /// The next reply, and when it came.
    pub async fn reply(&mut self) -> (String, Instant) {
        loop {
            if let Scanned::Whole(len) = Reply::default().scan(&self.have) {
                let reply = self.have.drain(..len).collect();
                return (String::from_utf8(reply).unwrap(), self.thread.now());
            }
            let mut block = Block::new(SizeClass::Medium);
            assert!(self.tcp.recv(&mut block).await.unwrap() > 0, "the connection is open");
            self.have.extend_from_slice(&block);
        }
    }

    pub async fn ask(&mut self, words: &[&str]) -> String {
        self.put(words);
        self.reply().await.0
    }

    /// A key that lives on that server.
    pub async fn key_on(&mut self, store: &Store) -> String {
        let home = format!("+{}\r\n", store.port);
        for key in (0..1_000).map(|n| format!("{n}:{}", n * 7_919)) {
            if self.ask(&["TYPE", &key]).await == home {
                return key;
            }
        }
        panic!("no key lives on {}", store.port);
    }
}

/// So many servers, a pool in front of them by these settings, and `body`, at whose end all is over.
pub fn run<F: Future<Output = ()> + 'static>(
    source: PoolSource,
    count: u16,
    body: impl FnOnce(Thread, Vec<Rc<Store>>) -> F,
) {
    let world = World::new(3, Faults::none());
    let stores: Vec<Rc<Store>> = (FIRST_PORT..FIRST_PORT + count).map(Store::at).collect();
    STORES.with(|all| all.borrow_mut().clone_from(&stores));
    let servers = world.thread("servers").unwrap();
    for (number, store) in stores.iter().enumerate() {
        let at = SocketAddr::from(([127, 0, 0, 1], store.port));
        let serve = move |thread: &Thread, tcp| {
            let store = STORES.with(|all| Rc::clone(&all.borrow()[number]));
            thread.spawn("redis", store.serve(thread.clone(), tcp));
        };
        world.listen(at, 64, Shares::new(1, 1_000), Arc::default(), serve).accept_on(&servers).unwrap();
    }
    let server = |store: &Rc<Store>| {
        let address = Address::Ip([127, 0, 0, 1].into(), store.port);
        ServerSource { address, weight: 1, name: None }
    };
    let source = PoolSource { redis: true, servers: stores.iter().map(server).collect(), ..source };
    let plan = Plan::prepare(vec![source]).unwrap();
    let proxy = world.group("proxy", 1).unwrap();
    let peers = Arc::new(OnceLock::new());
    peers.set(proxy.iter().map(Thread::handle).collect()).unwrap();
    let worker = Worker::new(WorkerParts {
        thread: proxy[0].clone(),
        shared: Shared::new(&plan),
        plan,
        names: Names::new(NAMES),
        cells: Cells::detached(),
        numbers: kv::numbers::Numbers::detached(),
    });
    WORKER.with(|slot| *slot.borrow_mut() = Some(worker));
    let listener = world.listen(PROXY.into(), 16, Shares::new(1, 1_000), peers, |_, tcp| {
        WORKER.with(|slot| slot.borrow().as_ref().unwrap().serve(tcp, 0));
    });
    listener.accept_on(&proxy[0]).unwrap();
    let clients = world.thread("clients").unwrap();
    let (over, body) = (Rc::new(Cell::new(false)), body(clients.clone(), stores));
    clients.spawn("test", {
        let over = Rc::clone(&over);
        async move {
            body.await;
            over.set(true);
        }
    });
    world.run_until(|| over.get() || clients.stats().panics().0 > 0, LONG).unwrap();
    assert!(over.get(), "it panicked");
    WORKER.with(|slot| *slot.borrow_mut() = None);
}

/// As it is without settings.
pub fn pool() -> PoolSource {
    PoolSource::new("test", Vec::new())
}
