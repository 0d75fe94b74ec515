//! Parts of a stored response: one event thread, its origin and its client, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::Duration;

use base::ByteCount;
use cache::{Gate, RamOptions, RamStore, RampOptions};
use event::{Listener, Shares, Thread, ThreadOptions};
use http::{CacheParts, Plan, Worker, WorkerParts};
use net::{Names, NamesOptions, Pool, PoolOptions};
use stats::Cells;

const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough to lie in several fragments, some of them lent to the socket.
const LENGTHS: [usize; 3] = [10, 5_000, 2_500_000];

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}
static ASKED: AtomicUsize = AtomicUsize::new(0);

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Answers `/N` with `N` bytes that may be stored. Works until the test's process ends.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = |mut stream: TcpStream| {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while stream.read(&mut byte).is_ok_and(|n| n == 1) {
            head.push(byte[0]);
            if !head.ends_with(b"\r\n\r\n") {
                continue;
            }
            ASKED.fetch_add(1, Ordering::Relaxed);
            let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
            let length = text[5..].split(' ').next().unwrap().parse().unwrap();
            let fields = "Cache-Control: max-age=3600\r\nETag: \"strong\"\r\nContent-Type: text/plain";
            let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(response.as_bytes()).unwrap();
            stream.write_all(&content(length)).unwrap();
        }
    };
    let accept = move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            Builder::new().spawn(move || serve(stream)).unwrap();
        }
    };
    Builder::new().spawn(accept).unwrap();
    address
}

fn server(origin: SocketAddr) -> (Thread, Arc<Shares>, SocketAddr) {
    let text = format!("http: {{listen: [\"127.0.0.1:8080\"], remap: [{{from: \"/\", to: \"http://{origin}/\"}}]}}");
    let config = config::parse("test.yaml", &text).unwrap();
    let thread = Thread::new(ThreadOptions { name: "[test]".into(), index: 0, seed: 1 }).unwrap();
    let pool = PoolOptions { idle_per_thread: 4, idle_shared: 4, keep_alive: PATIENCE, threads: 1 };
    let names = NamesOptions { ttl: PATIENCE, negative_ttl: PATIENCE, timeout: PATIENCE, stale: PATIENCE };
    let worker = Worker::new(WorkerParts {
        thread: thread.clone(),
        plan: Plan::prepare(&config).unwrap(),
        pool: Pool::new(pool, Arc::default()),
        names: Names::new(names),
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
    (thread, shares, address)
}

/// Sends a request and turns the loop until its answer is there: the head, and the content it announces.
fn ask(thread: &Thread, stream: &mut TcpStream, request: &str, has_content: bool) -> (String, Vec<u8>) {
    stream.write_all(request.as_bytes()).unwrap();
    let until = thread.precise_now() + PATIENCE;
    let (mut read, mut some) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        assert!(thread.precise_now() < until, "late: {request:?}");
        thread.turn(false).unwrap();
        match stream.read(&mut some) {
            Ok(0) => panic!("the connection ended: {request:?}"),
            Ok(n) => read.extend_from_slice(&some[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else { continue };
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        let announced = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = announced.filter(|_| has_content).map_or(0, |length| length.parse().unwrap());
        if read.len() >= end + length {
            assert_eq!(read.len(), end + length, "nothing follows");
            return (head, read.split_off(end));
        }
    }
}

#[test]
fn a_part_of_what_is_stored_is_that_part_and_says_so() {
    let (thread, _shares, address) = server(origin());
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    for length in LENGTHS {
        let whole = content(length);
        let first = format!("GET /{length} HTTP/1.1\r\nHost: here\r\n\r\n");
        assert!(ask(&thread, &mut stream, &first, true).1 == whole);
        let asked = ASKED.load(Ordering::Relaxed);
        let (middle, last) = (length / 2, length - 1);
        let past = format!("bytes={length}-");
        let rows: [(String, &str, Option<std::ops::Range<usize>>, u16); 13] = [
            ("bytes=0-0".to_owned(), "", Some(0..1), 206),
            (format!("bytes=1-{middle}"), "", Some(1..middle + 1), 206),
            (format!("bytes={middle}-"), "", Some(middle..length), 206),
            ("bytes=-3".to_owned(), "", Some(length - 3..length), 206),
            (format!("bytes={last}-{}", last + 100), "", Some(last..length), 206),
            (format!("bytes=-{}", length * 2), "", Some(0..length), 206),
            ("bytes=2-4".to_owned(), "If-Range: \"strong\"\r\n", Some(2..5), 206),
            ("bytes=2-4".to_owned(), "If-Range: W/\"strong\"\r\n", None, 200),
            (past.clone(), "If-Range: \"other\"\r\n", None, 200),
            ("bytes=0-1,3-4".to_owned(), "", None, 200),
            ("lines=0-1".to_owned(), "", None, 200),
            ("bytes=2-4".to_owned(), "If-None-Match: \"strong\"\r\n", None, 304),
            (past, "", None, 416),
        ];
        for (range, condition, part, status) in rows {
            let request = format!("GET /{length} HTTP/1.1\r\nHost: here\r\nRange: {range}\r\n{condition}\r\n");
            let (head, body) = ask(&thread, &mut stream, &request, status != 304);
            let about = format!("{range} {condition:?} of {length}: {head}");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{about}");
            let said = head.lines().find_map(|line| line.strip_prefix("Content-Range: "));
            match (status, part) {
                (206, Some(part)) => {
                    assert_eq!(said, Some(&*format!("bytes {}-{}/{length}", part.start, part.end - 1)), "{about}");
                    assert!(body == whole[part], "{about}");
                    assert!(head.contains("\r\nETag: \"strong\"\r\n") && head.contains("beltway; hit"), "{about}");
                }
                (416, _) => {
                    assert_eq!((said, body.len()), (Some(&*format!("bytes */{length}")), 0), "{about}");
                    assert!(head.contains("\r\nCache-Status: beltway; hit; ttl="), "{about}");
                    assert!(head.contains("\r\nVia: 1.1 beltway\r\n"), "{about}");
                }
                (200, _) => assert!(said.is_none() && body == whole, "{about}"),
                _ => assert!(said.is_none() && body.is_empty(), "{about}"),
            }
        }
        // Of a head there are no parts.
        let head = format!("HEAD /{length} HTTP/1.1\r\nHost: here\r\nRange: bytes=0-1\r\n\r\n");
        let (head, _) = ask(&thread, &mut stream, &head, false);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(&format!("Content-Length: {length}\r\n")), "{head}");
        assert_eq!(ASKED.load(Ordering::Relaxed), asked, "all of it came from the cache");
    }
}
