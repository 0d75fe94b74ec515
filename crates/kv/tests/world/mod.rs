//! Real servers, a proxy on event threads of this process, and a client that says just what it is told.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests: each takes what it needs, and a failure is a panic"
)]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use event::{Listener, Processor, ProcessorOptions, Shares};
use kv::{Address, Plan, PoolSource, ServerSource, Shared, Unanswered, Worker, WorkerParts};
use net::{Names, NamesOptions};
use socket2::{Domain, Socket, Type};

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// How long anything in a test may take, on a machine however busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

const NAMES: NamesOptions = NamesOptions { ttl: PATIENCE, negative_ttl: PATIENCE, timeout: PATIENCE, stale: PATIENCE };

/// Waits until `done`, within a bound.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 10 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within {PATIENCE:?}: {what}");
}

/// A port that is this test's own for as long as the socket is there: the kernel gives it to nobody who asks for any,
/// nobody comes from it, and as the socket does not listen, a server that is told of it may.
fn reserve_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// A server process. Killed when dropped.
pub struct Server {
    child: Option<Child>,
    pub port: u16,
    _reserved: Socket,
    redis: bool,
    arguments: Vec<String>,
}

impl Server {
    pub fn redis(arguments: &[&str]) -> Self {
        let mut server = Self::absent(true, arguments);
        server.run();
        server
    }

    /// One that does not run yet.
    pub fn absent_redis() -> Self {
        Self::absent(true, &[])
    }

    pub fn memcached() -> Self {
        let mut server = Self::absent(false, &[]);
        server.run();
        server
    }

    fn absent(redis: bool, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let (_reserved, port) = reserve_port();
        Self { child: None, port, _reserved, redis, arguments }
    }

    /// Starts it, or starts it again.
    pub fn run(&mut self) {
        let port = self.port.to_string();
        let mut command = if self.redis {
            let mut command = Command::new("redis-server");
            command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--dir", &std::env::temp_dir().display().to_string()]).args(&self.arguments);
            command
        } else {
            let mut command = Command::new("memcached");
            command.args(["-p", &port, "-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-t", "1"]);
            command
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server and memcached are installed"));
        eventually("the server listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn source(&self) -> ServerSource {
        ServerSource { address: Address::Ip([127, 0, 0, 1].into(), self.port), weight: 1, name: None }
    }

    pub fn client(&self) -> Client {
        Client::connect(([127, 0, 0, 1], self.port).into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A pool in front of these.
pub fn pool(servers: &[Server], redis: bool) -> PoolSource {
    PoolSource { redis, ..PoolSource::new("test", servers.iter().map(Server::source).collect()) }
}

/// Where everything is counted.
fn counted(plan: &Plan, threads: usize) -> (stats::Segment, kv::numbers::Ledger) {
    let mut registry = stats::Registry::new();
    registry.add::<kv::Kv>().unwrap();
    let ledger = kv::numbers::Ledger::declare(&mut registry, plan).unwrap();
    let segment = registry.layout(threads).unwrap().create_on_heap(stats::Identity::default()).unwrap();
    (segment, ledger)
}

/// A proxy on `threads` event threads. Stopped when dropped.
pub struct Proxy {
    processor: Option<Processor>,
    segment: stats::Segment,
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
}

impl Proxy {
    pub fn start(pool: PoolSource, threads: usize) -> Self {
        let plan = Plan::prepare(vec![pool]).unwrap();
        let shared = Shared::new(&plan);
        let together = Arc::clone(&shared);
        let (segment, ledger) = counted(&plan, threads);
        let told = segment.clone();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let peers = Arc::new(OnceLock::new());
        let listener = Listener::new(socket.into(), Shares::new(threads, 1_000), Arc::clone(&peers), |_, tcp| {
            WORKER.with(|worker| worker.borrow().as_ref().unwrap().serve(tcp, 0));
        })
        .unwrap();
        let options = ProcessorOptions { net: threads, task: 1, pin: false, seed: 7 };
        let processor = Processor::start(&options, move |thread| {
            let worker = Worker::new(WorkerParts {
                thread: thread.clone(),
                plan: Arc::clone(&plan),
                shared: Arc::clone(&together),
                names: Names::new(NAMES),
                cells: segment.cells::<kv::Kv>(thread.index()).unwrap(),
                numbers: ledger.numbers(&segment, thread.index()).unwrap(),
            });
            WORKER.with(|slot| *slot.borrow_mut() = Some(worker));
            listener.accept_on(thread)
        })
        .unwrap();
        let _ = peers.set(processor.net().to_vec());
        Self { processor: Some(processor), segment: told, address, shared }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// What all threads have counted.
    pub fn numbers(&self) -> stats::Snapshot {
        stats::Snapshot::read(self.segment.words()).unwrap()
    }

    /// Puts another plan for the pool in force on every thread. Says which new servers did not answer.
    pub fn renew(&self, pool: PoolSource) -> Vec<Unanswered> {
        let plan = Plan::prepare(vec![pool]).unwrap();
        let threads = self.processor.as_ref().unwrap().net().to_vec();
        let (done, all_done) = std::sync::mpsc::channel();
        for thread in threads {
            let (plan, done) = (Arc::clone(&plan), done.clone());
            let renew = move |_: &event::Thread| {
                let worker = WORKER.with(|worker| worker.borrow().clone().unwrap());
                worker.renew(&plan, NAMES, move |silent| done.send(silent).unwrap());
            };
            thread.run(renew).unwrap();
        }
        drop(done);
        Unanswered::together(all_done.iter().collect())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(processor) = self.processor.take() {
            let _ = processor.stop(Duration::from_secs(5));
        }
    }
}

/// A client that knows just where replies end.
pub struct Client {
    pub stream: TcpStream,
    have: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, have: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// One command as an array.
    pub fn put<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        let bytes = kv::wire::resp::request::encode(words);
        self.send(&bytes);
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.have.extend_from_slice(&buffer[..n]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no reply: {error}; have {:?}", String::from_utf8_lossy(&self.have)),
        }
    }

    /// One reply, as it is.
    pub fn reply(&mut self) -> Vec<u8> {
        self.try_reply().expect("the connection is open")
    }

    pub fn try_reply(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut scan = kv::wire::resp::Reply::default();
            if let kv::wire::Scanned::Whole(len) = scan.scan(&self.have) {
                return Some(self.have.drain(..len).collect());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// One reply of memcached, as it is.
    pub fn memcached_reply(&mut self) -> Vec<u8> {
        loop {
            let mut scan = kv::wire::memcached::Reply::default();
            if let kv::wire::Scanned::Whole(len) = scan.scan(&self.have) {
                return self.have.drain(..len).collect();
            }
            assert!(self.more(), "closed with {:?}", String::from_utf8_lossy(&self.have));
        }
    }

    pub fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> String {
        self.put(words);
        String::from_utf8_lossy(&self.reply()).into_owned()
    }

    /// A command whose words stand between blanks.
    pub fn say(&mut self, line: &str) -> String {
        self.ask(&line.split(' ').collect::<Vec<_>>())
    }

    /// So many bytes, whatever they are.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        while self.have.len() < len {
            assert!(self.more(), "closed with {:?}", String::from_utf8_lossy(&self.have));
        }
        self.have.drain(..len).collect()
    }

    /// Sends, and checks what comes back byte for byte.
    pub fn expect(&mut self, send: &str, reply: &str) {
        self.send(send.as_bytes());
        let got = self.take(reply.len());
        assert_eq!(String::from_utf8_lossy(&got), reply, "after {send:?}");
    }

    /// All that comes until the end.
    pub fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.have)).into_owned()
    }
}

/// A directory of this test's own.
pub fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("beltway-kv-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}
