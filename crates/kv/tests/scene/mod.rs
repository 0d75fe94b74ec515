//! A proxy in a simulated world: time is virtual, so that what is measured is the pool's doing and not the machine's.
//!
//! Start with [`Proxy::start`]. Servers are scripted by each test and heard by [`listen`]; those of [`store`] serve several.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    reason = "tests: each takes what it needs, and a failure is a panic"
)]

mod store;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use buf::{Block, Chunk, SizeClass};
use event::sim::World;
use event::{Shares, Tcp, Thread};
use kv::wire::resp::{Request, Scan};
use kv::{Address, Plan, PoolSource, ServerSource, Shared, Worker, WorkerParts};
use net::{Names, NamesOptions};
use stats::Cells;

pub use store::{Client, FIRST_PORT, Store, millis, pool, run};

/// Where the first pool listens; the others do on the ports behind it.
pub const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 22_121);
/// Longer than any of these tests looks at names.
const LONG: Duration = Duration::from_secs(3_600);
pub const NAMES: NamesOptions = NamesOptions { ttl: LONG, negative_ttl: LONG, timeout: LONG, stale: LONG };

thread_local! {
    static WORKERS: RefCell<Vec<Worker>> = const { RefCell::new(Vec::new()) };
}

pub fn chunk(bytes: Vec<u8>) -> Chunk {
    let len = bytes.len();
    Chunk::from_shared(bytes.into(), 0..len)
}

/// Adds what comes next on a connection; `false`: it has ended.
pub async fn receive(tcp: &Tcp, have: &mut Vec<u8>) -> bool {
    let mut block = Block::new(SizeClass::Medium);
    let got = tcp.recv(&mut block).await.unwrap_or(0);
    have.extend_from_slice(&block);
    got > 0
}

/// The words of the next request of Redis on a connection; none: it has ended. `have`: what has come and is not taken.
pub async fn next_request(tcp: &Tcp, have: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    loop {
        let mut request = Request::default();
        if let Scan::Whole(len) = request.scan(have) {
            let words = request.arguments().iter().map(|word| have[word.start as usize..word.end as usize].to_vec());
            let words = words.collect();
            have.drain(..len);
            return Some(words);
        }
        if !receive(tcp, have).await {
            return None;
        }
    }
}

/// The server on that port.
pub fn server(port: u16) -> ServerSource {
    ServerSource { address: Address::Ip([127, 0, 0, 1].into(), port), weight: 1, name: None }
}

/// Whoever connects to that port is served on this thread.
pub fn listen(world: &World, thread: &Thread, port: u16, serve: impl Fn(&Thread, Tcp) + Send + Sync + 'static) {
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    world.listen(at, 64, Shares::new(1, 1_000), Arc::default(), serve).accept_on(thread).unwrap();
}

/// Pools on event threads of a simulated world. Stopped when dropped.
pub struct Proxy {
    pub threads: Vec<Thread>,
    pub cells: Vec<Cells<kv::Kv>>,
    /// The clients' connections.
    pub shares: Arc<Shares>,
}

impl Proxy {
    /// These pools on so many threads, each on its port from [`PROXY`]'s on.
    pub fn start(world: &World, pools: Vec<PoolSource>, threads: usize) -> Self {
        let count = u16::try_from(pools.len()).unwrap();
        let plan = Plan::prepare(pools).unwrap();
        let together = Shared::new(&plan);
        let threads = world.group("proxy", threads).unwrap();
        let cells: Vec<Cells<kv::Kv>> = threads.iter().map(|_| Cells::detached()).collect();
        let workers = threads.iter().zip(&cells).map(|(thread, &cells)| {
            Worker::new(WorkerParts {
                thread: thread.clone(),
                plan: Arc::clone(&plan),
                shared: Arc::clone(&together),
                names: Names::new(NAMES),
                cells,
                numbers: kv::numbers::Numbers::detached(),
            })
        });
        WORKERS.with(|slot| *slot.borrow_mut() = workers.collect());
        let shares = Shares::new(threads.len(), 1_000);
        let peers = Arc::new(OnceLock::new());
        peers.set(threads.iter().map(Thread::handle).collect()).unwrap();
        for pool in 0..count {
            let at = SocketAddr::new(PROXY.ip(), PROXY.port() + pool);
            let listener = world.listen(at, 16, Arc::clone(&shares), Arc::clone(&peers), move |thread, tcp| {
                let worker = WORKERS.with(|workers| workers.borrow().get(thread.index()).cloned());
                if let Some(worker) = worker {
                    worker.serve(tcp, usize::from(pool));
                }
            });
            threads.iter().for_each(|thread| listener.accept_on(thread).unwrap());
        }
        Self { threads, cells, shares }
    }

    /// Has its threads keep house that often.
    pub fn keep_house(&self, every: Duration) {
        for (at, thread) in self.threads.iter().enumerate() {
            let (own, worker) = (thread.clone(), worker(at));
            thread.spawn("house-keeping", async move {
                loop {
                    own.sleep(every).await;
                    worker.tick();
                }
            });
        }
    }
}

/// The engine of one of the proxy's threads.
pub fn worker(at: usize) -> Worker {
    WORKERS.with(|slot| slot.borrow()[at].clone())
}

impl Drop for Proxy {
    fn drop(&mut self) {
        WORKERS.with(|slot| slot.borrow_mut().clear());
    }
}
