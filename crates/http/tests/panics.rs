//! A panic in one transaction closes that one connection; all it held is given back, and the thread serves the next.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use event::{Listener, Shares, Thread, ThreadOptions};
use http::local::{Piece, Pieces, Request, Response, Service, Whole};
use http::{Http, Plan, Worker, WorkerParts};
use net::{Names, NamesOptions, Pool, PoolOptions};
use stats::Cells;

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers `/`, panics before the head at `/head`, and within the content at `/content`.
struct Touchy;

struct PanicsLater(u32);

impl Pieces for PanicsLater {
    fn next_piece(&mut self) -> Option<Piece> {
        self.0 += 1;
        assert!(self.0 < 3, "on purpose, in the content");
        Some(Piece { delay: Duration::from_millis(1), bytes: b"0123456789".as_slice().into() })
    }
}

impl Service for Touchy {
    fn respond(&self, request: &Request<'_>) -> Response {
        assert!(request.target != b"/head", "on purpose, before the head");
        let later = request.target == b"/content";
        let length = if later { 1_000 } else { 2 };
        Response {
            head: format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes(),
            keep: true,
            chunked: false,
            body: if later { Box::new(PanicsLater(0)) } else { Box::new(Whole(Some(b"ok".as_slice().into()))) },
        }
    }
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

struct Server {
    thread: Thread,
    shares: Arc<Shares>,
    cells: Cells<Http>,
    address: SocketAddr,
}

fn server() -> Server {
    let config = config::parse("test.yaml", "http: {listen: [\"127.0.0.1:8080\"]}").unwrap();
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
        cache: None,
        log: None,
    });
    WORKER.with(|slot| *slot.borrow_mut() = Some(worker));
    let fd = sys::socket::listen(([127, 0, 0, 1], 0).into(), 16).unwrap();
    let address = sys::socket::local_address(&fd).unwrap().unwrap();
    let shares = Shares::new(1, 100);
    let service: Arc<dyn Service> = Arc::new(Touchy);
    let listener = Listener::new(fd, Arc::clone(&shares), Arc::default(), move |_, tcp| {
        let worker = WORKER.with(|slot| slot.borrow().clone()).unwrap();
        worker.serve_locally(tcp, Arc::clone(&service));
    })
    .unwrap();
    listener.accept_on(&thread).unwrap();
    Server { thread, shares, cells, address }
}

/// Turns the loop until the client has read `end`, or the connection has ended; says what was read.
fn exchange(server: &Server, client: &mut TcpStream, path: &str, end: &[u8]) -> Vec<u8> {
    write!(client, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    client.set_nonblocking(true).unwrap();
    let until = server.thread.precise_now() + PATIENCE;
    let (mut read, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        assert!(server.thread.precise_now() < until, "late: {}", String::from_utf8_lossy(&read));
        server.thread.turn(false).unwrap();
        match client.read(&mut buffer) {
            Ok(0) => return read,
            Ok(n) => read.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return read,
        }
        if read.ends_with(end) {
            return read;
        }
    }
}

#[test]
fn a_panic_in_a_transaction_closes_its_connection_gives_everything_back_and_serves_the_next() {
    let server = server();
    let before = buf::pool_use().used;
    for (round, path) in ["/head", "/content", "/head"].into_iter().enumerate() {
        let mut client = TcpStream::connect(server.address).unwrap();
        assert!(exchange(&server, &mut client, "/", b"ok").ends_with(b"\r\n\r\nok"), "the connection is kept");
        let answer = exchange(&server, &mut client, path, b"nothing ends like this");
        assert!(answer.len() < 1_000, "what broke off does not look whole: {}", String::from_utf8_lossy(&answer));
        assert_eq!(server.thread.stats().panics().0, round as u64 + 1);
        drop(client);
        let until = server.thread.precise_now() + PATIENCE;
        while server.shares.open() > 0 {
            assert!(server.thread.precise_now() < until, "its place is not given back");
            server.thread.turn(false).unwrap();
        }
        assert_eq!(server.cells.value(Http::CLIENT_OPEN), 0, "after {path}");
        assert_eq!(server.cells.value(Http::ACTIVE), 0, "after {path}");
        assert_eq!(buf::pool_use().used, before, "blocks are back after {path}");
        assert_eq!(server.thread.tasks_live(), 0);
    }
    let mut client = TcpStream::connect(server.address).unwrap();
    assert!(exchange(&server, &mut client, "/", b"ok").ends_with(b"ok"));
}
