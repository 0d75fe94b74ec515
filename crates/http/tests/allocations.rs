//! A hit allocates nothing: one event thread and its client, in one thread, under an allocator that counts.
//!
//! Everything has been asked for before counting begins, so that pools and tables have grown.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::alloc::System;
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use base::ByteCount;
use cache::{Gate, RamOptions, RamStore, RampOptions};
use event::{Listener, Shares, Thread, ThreadOptions};
use http::{CacheParts, Plan, Worker, WorkerParts};
use net::{Names, NamesOptions, Pool, PoolOptions};
use stats::Cells;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PATIENCE: Duration = Duration::from_secs(30);
/// Requests before counting, and requests counted.
const WARM_UP: usize = 300;
const COUNTED: usize = 1_000;
/// Where it begins, a response's head is not longer.
const HEAD_MAX: usize = 2_048;

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// Answers `/N` with `N` bytes that may be stored. Works until the test's process ends.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accept = move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            Builder::new().spawn(move || serve(stream)).unwrap();
        }
    };
    Builder::new().spawn(accept).unwrap();
    address
}

fn serve(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
        let length = length_of(text.split(' ').nth(1).unwrap());
        let fields = "Cache-Control: max-age=3600\r\nETag: \"e\"\r\nVary: Accept-Encoding";
        let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(response.as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; length]).unwrap();
    }
}

/// How long the content of a path is.
fn length_of(path: &str) -> usize {
    path.trim_start_matches('/').split('?').next().unwrap().parse().unwrap()
}

struct Server {
    thread: Thread,
    _shares: Arc<Shares>,
    address: SocketAddr,
}

fn server(origin: SocketAddr) -> Server {
    let text = format!("http: {{listen: [\"127.0.0.1:8080\"], remap: [{{from: \"/\", to: \"http://{origin}/\"}}]}}");
    let config = config::parse("test.yaml", &text).unwrap();
    let thread = Thread::new(ThreadOptions { name: "[test]".into(), index: 0, seed: 1 }).unwrap();
    let worker = Worker::new(WorkerParts {
        thread: thread.clone(),
        plan: Plan::prepare(&config).unwrap(),
        pool: Pool::new(
            PoolOptions { idle_per_thread: 4, idle_shared: 4, keep_alive: PATIENCE, threads: 1 },
            Arc::default(),
        ),
        names: Names::new(NamesOptions { ttl: PATIENCE, negative_ttl: PATIENCE, timeout: PATIENCE, stale: PATIENCE }),
        cells: Cells::detached(),
        cache: Some(CacheParts {
            store: Arc::new(RamStore::new(RamOptions::new(ByteCount(64 << 20), 1))),
            gate: Gate::new(RampOptions::default()),
        }),
        log: None,
    });
    WORKER.with(|slot| *slot.borrow_mut() = Some(worker));
    let fd = sys::socket::listen(([127, 0, 0, 1], 0).into(), 16).unwrap();
    let address = sys::socket::local_address(&fd).unwrap().unwrap();
    let shares = Shares::new(1, 100);
    let listener = Listener::new(fd, Arc::clone(&shares), Arc::default(), move |_, tcp| {
        WORKER.with(|slot| slot.borrow().clone()).unwrap().serve(tcp);
    })
    .unwrap();
    listener.accept_on(&thread).unwrap();
    Server { thread, _shares: shares, address }
}

/// A client with room for a whole response.
struct Client<'a> {
    server: &'a Server,
    stream: TcpStream,
    room: Vec<u8>,
}

impl<'a> Client<'a> {
    fn new(server: &'a Server, body_max: usize) -> Self {
        let stream = TcpStream::connect(server.address).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { server, stream, room: vec![0; body_max + HEAD_MAX] }
    }

    /// Sends `request` and turns the server's loop until an answer of `status` with `body` bytes is there.
    fn ask(&mut self, request: &[u8], status: &[u8], body: usize) {
        self.stream.write_all(request).unwrap();
        let until = self.server.thread.precise_now() + PATIENCE;
        let (mut read, mut whole) = (0, usize::MAX);
        while read < whole {
            assert!(self.server.thread.precise_now() < until, "late");
            self.server.thread.turn(false).unwrap();
            match self.stream.read(&mut self.room[read..]) {
                Ok(0) => panic!("the connection ended"),
                Ok(n) => read += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            if let Some(end) = self.room[..read.min(HEAD_MAX)].windows(4).position(|four| four == b"\r\n\r\n") {
                whole = end + 4 + body;
            }
        }
        assert_eq!(read, whole, "nothing follows");
        assert!(self.room[9..].starts_with(status));
    }
}

/// What answering `request` allocates, over and over, when all is warm.
fn allocated(server: &Server, request: &[u8], status: &[u8], body: usize) -> Stats {
    let mut client = Client::new(server, body);
    for _ in 0..WARM_UP {
        client.ask(request, status, body);
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..COUNTED {
        client.ask(request, status, body);
    }
    region.change()
}

#[test]
fn a_hit_allocates_nothing() {
    let server = server(origin());
    let cases: [(&str, &str, &str, usize); 8] = [
        ("GET /1024", "", "200", 1_024),
        ("GET /16384", "Accept-Encoding: gzip, br\r\nUser-Agent: test\r\n", "200", 16_384),
        ("GET /200000", "", "200", 200_000),
        ("HEAD /1024", "", "200", 0),
        ("GET /1024", "If-None-Match: \"e\"\r\n", "304", 0),
        ("GET /200000", "Range: bytes=1000-100999\r\n", "206", 100_000),
        ("GET /1024", "Range: bytes=1024-\r\n", "416", 0),
        ("GET /1024?query", "Cache-Control: max-age=600\r\n", "200", 1_024),
    ];
    for (asked, fields, status, body) in cases {
        // Only a whole GET fills the cache.
        let path = asked.split(' ').nth(1).unwrap();
        let length = length_of(path);
        let fill = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
        Client::new(&server, length).ask(fill.as_bytes(), b"200", length);
        let request = format!("{asked} HTTP/1.1\r\nHost: here\r\n{fields}\r\n");
        let change = allocated(&server, request.as_bytes(), status.as_bytes(), body);
        let calls = change.allocations + change.reallocations;
        assert_eq!(calls, 0, "{asked} {fields:?}: {calls} allocations in {COUNTED} hits: {change:?}");
    }
}
