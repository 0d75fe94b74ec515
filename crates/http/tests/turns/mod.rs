//! A worker on an event thread that the test turns itself, with real sockets: what happens between two turns is the test's
//! choice.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests: each takes what it needs, and a failure is a panic"
)]

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use cache::{Gate, Store};
use event::{Listener, Shares, Thread, ThreadOptions};
use http::local::Service;
use http::{CacheParts, Http, Plan, Worker, WorkerParts};
use net::{Names, NamesOptions, Pool, PoolOptions};
use stats::Cells;

/// How long anything in a test may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

pub struct Server {
    pub thread: Thread,
    pub shares: Arc<Shares>,
    pub cells: Cells<Http>,
    pub address: SocketAddr,
}

/// A server whose requests `service` answers, or else what the configuration says.
pub fn server(http: &str, service: Option<Arc<dyn Service>>, cache: Option<CacheParts>) -> Server {
    let config = config::parse("test.yaml", &format!("http: {{listen: [\"127.0.0.1:8080\"]{http}}}")).unwrap();
    let thread = Thread::new(ThreadOptions { name: "[test]".into(), index: 0, seed: 1 }).unwrap();
    let cells = Cells::detached();
    let worker = Worker::new(WorkerParts {
        thread: thread.clone(),
        plan: Plan::prepare(&config).unwrap(),
        pool: Pool::new(
            PoolOptions { idle_per_thread: 4, idle_shared: 4, keep_alive: PATIENCE, threads: 1 },
            Arc::default(),
        ),
        names: Names::new(NamesOptions { ttl: PATIENCE, negative_ttl: PATIENCE, timeout: PATIENCE, stale: PATIENCE }),
        cells,
        cache,
        log: None,
    });
    WORKER.with(|slot| *slot.borrow_mut() = Some(worker));
    let fd = sys::socket::listen(([127, 0, 0, 1], 0).into(), 16).unwrap();
    let address = sys::socket::local_address(&fd).unwrap().unwrap();
    let shares = Shares::new(1, 100);
    let listener = Listener::new(fd, Arc::clone(&shares), Arc::default(), move |_, tcp| {
        let worker = WORKER.with(|slot| slot.borrow().clone()).unwrap();
        match &service {
            Some(service) => worker.serve_locally(tcp, Arc::clone(service)),
            None => worker.serve(tcp),
        }
    })
    .unwrap();
    listener.accept_on(&thread).unwrap();
    Server { thread, shares, cells, address }
}

/// A server that passes everything to the origin at `origin`.
pub fn proxy(origin: &TcpListener, store: Arc<dyn Store>, gate: Gate) -> Server {
    origin.set_nonblocking(true).unwrap();
    let address = origin.local_addr().unwrap();
    let remap = format!(", remap: [{{from: \"/\", to: \"http://{address}/\"}}]");
    server(&remap, None, Some(CacheParts { store, gate }))
}

impl Server {
    /// Turns the loop until `over`.
    pub fn turn_until(&self, what: &str, mut over: impl FnMut() -> bool) {
        let until = self.thread.precise_now() + PATIENCE;
        while !over() {
            assert!(self.thread.precise_now() < until, "late: {what}");
            self.thread.turn(false).unwrap();
        }
    }

    pub fn worker(&self) -> Worker {
        WORKER.with(|slot| slot.borrow().clone()).unwrap()
    }

    pub fn connect(&self) -> Peer<'_> {
        Peer::new(self, TcpStream::connect(self.address).unwrap())
    }

    /// The origin's side of the next connection to it.
    pub fn accept(&self, origin: &TcpListener) -> Peer<'_> {
        let mut accepted = None;
        self.turn_until("a connection to the origin", || {
            accepted = origin.accept().ok();
            accepted.is_some()
        });
        Peer::new(self, accepted.unwrap().0)
    }

    /// Kept origin connections.
    pub fn idle(&self) -> u64 {
        self.worker().tick();
        self.cells.value(Http::ORIGIN_IDLE)
    }

    /// Clients and transactions under way, as they are counted.
    pub fn gauges(&self) -> (u64, u64) {
        (self.cells.value(Http::CLIENT_OPEN), self.cells.value(Http::ACTIVE))
    }

    /// Origin connections opened, and uses of kept ones.
    pub fn origin_uses(&self) -> (u64, u64) {
        (self.cells.value(Http::ORIGIN_CONNECTS), self.cells.value(Http::ORIGIN_REUSES))
    }
}

/// The other end of one of the server's connections: a client, or an origin.
pub struct Peer<'a> {
    server: &'a Server,
    stream: TcpStream,
}

impl<'a> Peer<'a> {
    pub fn new(server: &'a Server, stream: TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { server, stream }
    }

    pub fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    pub fn get(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n"));
    }

    /// What comes, up to where it ends with `end`, or else up to the connection's end; and whether that was met.
    pub fn read(&mut self, end: Option<&str>) -> (String, bool) {
        let (mut text, mut buffer, mut is_closed) = (Vec::new(), [0; 4_096], false);
        let (server, stream) = (self.server, &mut self.stream);
        server.turn_until(end.unwrap_or("the end of a connection"), || {
            match stream.read(&mut buffer) {
                Ok(n) if n > 0 => text.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => is_closed = true,
            }
            is_closed || end.is_some_and(|end| text.ends_with(end.as_bytes()))
        });
        (String::from_utf8(text).unwrap(), is_closed)
    }

    pub fn read_to(&mut self, end: &str) -> String {
        let (text, is_closed) = self.read(Some(end));
        assert!(!is_closed, "it ends before {end:?}: {text}");
        text
    }

    /// Whether the connection has ended by now; nothing more may come before that.
    pub fn has_ended(&mut self) -> bool {
        match self.stream.read(&mut [0; 64]) {
            Ok(n) => {
                assert_eq!(n, 0, "nothing more comes");
                true
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// What still comes before the connection ends.
    pub fn read_to_close(&mut self) -> String {
        self.read(None).0
    }
}
