//! A panic in one transaction closes that one connection; all it held is given back, and the thread serves the next.
//!
//! Nothing in a transaction panics on purpose. Local ones do where their service does, proxied ones where something calls
//! back from within them: the store that is asked to purge ([`TouchyStore`]), or whoever waits for what they hold and is
//! woken by them ([`Tripwire`]).

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod turns;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use base::{ByteCount, Instant};
use cache::{
    Choose, Description, Entrance, FollowerHead, Gate, Hit, Key, Lane, LookUp, Next, Numbers, Purge, RamOptions,
    RamStore, RampOptions, Role, Seen, Store,
};
use http::Http;
use http::local::{Piece, Pieces, Request, Response, Service, Whole};
use turns::{PATIENCE, Peer, Server, proxy, server};

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

/// A store that panics when it is asked to purge, once each time it is told to.
#[derive(Debug)]
struct TouchyStore {
    ram: RamStore,
    panics: AtomicBool,
}

impl Store for TouchyStore {
    fn look_up<'a>(&'a self, key: Key, choose: &'a dyn Choose) -> LookUp<'a> {
        self.ram.look_up(key, choose)
    }

    fn enter(&self, entry: Entrance) -> Role {
        self.ram.enter(entry)
    }

    fn refresh(&self, hit: &Hit, metadata: Arc<[u8]>) -> bool {
        self.ram.refresh(hit, metadata)
    }

    fn mark_stale(&self, hit: &Hit) -> bool {
        self.ram.mark_stale(hit)
    }

    fn purge(&self, key: Key, how: Purge) -> bool {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "on purpose, in a purge");
        self.ram.purge(key, how)
    }

    fn purge_tag(&self, tag: &[u8], how: Purge) -> u64 {
        self.ram.purge_tag(tag, how)
    }

    fn clear(&self) {
        self.ram.clear();
    }

    fn describe(&self, key: Key, now: Instant) -> Option<Description> {
        self.ram.describe(key, now)
    }

    fn numbers(&self) -> Numbers {
        self.ram.numbers()
    }
}

/// Wakes nobody: whoever wakes it panics.
struct Tripwire;

impl Wake for Tripwire {
    fn wake(self: Arc<Self>) {
        panic!("on purpose, in what wakes another");
    }
}

/// Has the server fetch `/warm`, so that it keeps the connection. The origin's side of that.
fn warm<'a>(server: &'a Server, origin: &TcpListener) -> Peer<'a> {
    let mut client = server.connect();
    client.get("/warm");
    let mut kept = server.accept(origin);
    kept.read_to("\r\n\r\n");
    kept.send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok");
    client.read_to("\r\n\r\nok");
    drop(client);
    server.turn_until("the client's place", || server.shares.open() == 0);
    assert_eq!((server.idle(), server.origin_uses()), (1, (1, 0)), "it is kept");
    kept
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
    let server = server("", Some(Arc::new(Touchy)), None);
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

#[test]
fn a_panic_while_a_kept_origin_connection_is_held_closes_it_and_the_next_goes_by_another() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let ram = RamStore::new(RamOptions::new(ByteCount(8 << 20), 1));
    let store = Arc::new(TouchyStore { ram, panics: AtomicBool::new(false) });
    let before = buf::pool_use().used;
    let server = proxy(&origin, Arc::<TouchyStore>::clone(&store), Gate::new(RampOptions::default()));
    let mut kept = warm(&server, &origin);
    let question = "POST /one HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nbody";
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";

    // What an unsafe request has changed is purged when its answer comes.
    store.panics.store(true, Ordering::Relaxed);
    let mut client = server.connect();
    client.send(question);
    kept.read_to("\r\n\r\nbody");
    kept.send(answer);
    assert_eq!(client.read_to_close(), "");
    assert_eq!(kept.read_to_close(), "", "the origin sees it");
    assert_eq!(server.thread.stats().panics().0, 1);
    drop(client);
    server.turn_until("the client's place", || server.shares.open() == 0);
    assert_eq!(server.origin_uses(), (1, 1), "it was the kept one");
    assert_eq!((server.idle(), server.gauges()), (0, (0, 0)));
    assert_eq!((buf::pool_use().used, server.thread.tasks_live()), (before, 0));

    let mut client = server.connect();
    client.send(question);
    let mut another = server.accept(&origin);
    another.read_to("\r\n\r\nbody");
    another.send(answer);
    assert!(client.read_to("\r\n\r\ndone").starts_with("HTTP/1.1 200"));
    server.turn_until("the connection's return", || server.idle() == 1);
    assert_eq!(server.origin_uses(), (2, 1));
    assert_eq!(server.thread.stats().panics().0, 1);
}

const SHARED: &str = "http://here/shared";
const SHARED_HEAD: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n";

/// Who waits does not take a silent writer for dead while a test lasts: what it gets, the writer's end gave it.
fn store() -> RamStore {
    RamStore::new(RamOptions { stall: 10 * PATIENCE, ..RamOptions::new(ByteCount(8 << 20), 1) })
}

/// Fetches of `/shared` under way: each with the number of those who read along.
fn fetches(server: &Server, store: &RamStore) -> Vec<usize> {
    let known = store.describe(Key::of(SHARED.as_bytes()), server.thread.now());
    known.map_or(Vec::new(), |known| known.fetches.iter().map(|fetch| fetch.followers).collect())
}

#[test]
fn after_a_panic_of_who_fetches_for_others_the_next_of_them_fetches() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = store();
    let gate = Gate::new(RampOptions { first: 1, ..RampOptions::default() });
    let before = buf::pool_use().used;
    let server = proxy(&origin, Arc::new(store.clone()), gate.clone());
    let mut kept = warm(&server, &origin);

    let (mut first, mut second) = (server.connect(), server.connect());
    first.get("/shared");
    assert!(kept.read_to("\r\n\r\n").starts_with("GET /shared "));
    second.get("/shared");
    server.turn_until("a follower", || fetches(&server, &store) == [1]);
    {
        // No other fetch may begin; the first one's answer lets in one, and that wakes it.
        let _other = gate.try_pass().unwrap();
        let mut turn = pin!(gate.pass(&server.thread, server.thread.now() + PATIENCE));
        let tripwire = Waker::from(Arc::new(Tripwire));
        assert!(turn.as_mut().poll(&mut Context::from_waker(&tripwire)).is_pending());
        kept.send(&format!("{SHARED_HEAD}0123456789"));
        assert_eq!(first.read_to_close(), "");
        assert_eq!(kept.read_to_close(), "", "the origin sees it");
        assert_eq!(server.thread.stats().panics().0, 1);
        let Poll::Ready(Ok(_permit)) = turn.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the panic was not where it should be");
        };
    }
    drop(first);
    let mut another = server.accept(&origin);
    assert!(another.read_to("\r\n\r\n").starts_with("GET /shared "));
    assert_eq!(fetches(&server, &store), [0], "it follows nobody");
    assert_eq!((server.idle(), server.origin_uses(), server.gauges()), (0, (2, 1), (1, 1)));
    another.send(&format!("{SHARED_HEAD}0123456789"));
    assert!(second.read_to("0123456789").starts_with("HTTP/1.1 200"));

    // Stored, too: the next needs no origin.
    let mut third = server.connect();
    third.get("/shared");
    assert!(third.read_to("0123456789").starts_with("HTTP/1.1 200"));
    drop((second, third));
    server.turn_until("the clients' places", || server.shares.open() == 0);
    assert_eq!((server.idle(), server.origin_uses(), server.gauges()), (1, (2, 1), (0, 0)));
    assert_eq!((fetches(&server, &store), gate.numbers().running), (Vec::new(), 0));
    drop(another);
    server.turn_until("the origin's going", || server.idle() == 0);
    assert_eq!((buf::pool_use().used, server.thread.tasks_live()), (before, 0));
    assert_eq!(server.thread.stats().panics().0, 1);
}

#[test]
fn a_panic_of_who_fetches_for_others_within_the_content_cuts_them_and_nothing_is_stored() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = store();
    let gate = Gate::new(RampOptions::default());
    let before = buf::pool_use().used;
    let server = proxy(&origin, Arc::new(store.clone()), gate.clone());
    let mut kept = warm(&server, &origin);

    let (mut first, mut second) = (server.connect(), server.connect());
    first.get("/shared");
    assert!(kept.read_to("\r\n\r\n").starts_with("GET /shared "));
    second.get("/shared");
    server.turn_until("a follower", || fetches(&server, &store) == [1]);
    {
        // Behind the second client, so that it is told before us.
        let (key, now) = (Key::of(SHARED.as_bytes()), server.thread.now());
        let role = store.enter(Entrance { key, lane: Lane::PRIMARY, seen: Seen::NOTHING, now });
        let Role::Follow(mut follower) = role else { panic!("{role:?}") };
        kept.send(&format!("{SHARED_HEAD}01234"));
        first.read_to("\r\n\r\n01234");
        second.read_to("\r\n\r\n01234");
        let mut calm = Context::from_waker(Waker::noop());
        assert!(matches!(follower.poll_head(&mut calm), Poll::Ready(FollowerHead::Response { .. })));
        assert!(matches!(follower.poll_next(&mut calm), Poll::Ready(Next::Fragment(_))));
        let tripwire = Waker::from(Arc::new(Tripwire));
        assert!(follower.poll_next(&mut Context::from_waker(&tripwire)).is_pending());
        kept.send("567");
        // What was taken before it broke off may come; the end does not.
        for client in [&mut first, &mut second] {
            let rest = client.read_to_close();
            assert!("567".starts_with(&rest), "{rest}");
        }
        assert_eq!(kept.read_to_close(), "", "the origin sees it");
        assert_eq!(server.thread.stats().panics().0, 1);
    }
    drop((first, second));
    server.turn_until("the clients' places", || server.shares.open() == 0);
    assert_eq!((server.idle(), server.origin_uses(), server.gauges()), (0, (1, 1), (0, 0)));
    assert_eq!((fetches(&server, &store), gate.numbers().running), (Vec::new(), 0));
    assert_eq!((buf::pool_use().used, server.thread.tasks_live()), (before, 0));

    let mut third = server.connect();
    third.get("/shared");
    let mut another = server.accept(&origin);
    another.read_to("\r\n\r\n");
    another.send(&format!("{SHARED_HEAD}0123456789"));
    assert!(third.read_to("0123456789").starts_with("HTTP/1.1 200"), "nothing was stored, and it fetches");
}
