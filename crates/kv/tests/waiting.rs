//! Replies that wait: for an earlier one that is late, or for a client that takes its time.
//!
//! Two simulated servers: one answers at once with a large value, the other when the test wants it to. Time is virtual.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod scene;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use buf::{Block, Chunk, SizeClass};
use event::sim::{Faults, World};
use event::{Tcp, Thread};
use kv::PoolSource;
use kv::wire::Scanned;
use kv::wire::resp::{Reply, request};
use scene::{PROXY, Proxy, chunk, listen, next_request, server};

/// Another pool on the same thread, of the same servers.
const NEIGHBOUR: SocketAddr = SocketAddr::new(PROXY.ip(), PROXY.port() + 1);
const QUICK: u16 = 6_379;
const LATE: u16 = 6_380;
const VALUE: usize = 1 << 20;
/// More of them than may wait for an earlier reply.
const VALUES: usize = 100;
thread_local! {
    /// How many values the quick server has sent.
    static SENT: Cell<usize> = const { Cell::new(0) };
}

/// The length of a reply with a value of `len` bytes.
fn whole(len: usize) -> usize {
    format!("${len}\r\n\r\n").len() + len
}

/// When the late server answers.
#[derive(Clone, Copy)]
enum Late {
    /// A while after the quick one has sent almost as much as is taken ahead of an earlier reply.
    ByLittle,
    /// When the quick one has sent all.
    ByMuch,
    /// [`LONG`] after the quick one has sent [`HOARD`].
    Long,
}

const LONG: Duration = Duration::from_secs(20);
/// So many values make [`MODEST`] too little.
const HOARD: usize = 14;
const MODEST: usize = 16 << 20;

impl Late {
    async fn wait(self, thread: &Thread) {
        let (sent, then) = match self {
            Self::ByLittle => (30, Duration::from_millis(500)),
            Self::ByMuch => (VALUES, Duration::ZERO),
            Self::Long => (HOARD, LONG),
        };
        while SENT.get() < sent {
            thread.sleep(Duration::from_millis(10)).await;
        }
        thread.sleep(then).await;
    }
}

/// A server that answers each GET with `len` bytes, and anything else with its port.
async fn serve(thread: Thread, tcp: Tcp, port: u16, len: usize, mut late: Option<Late>) {
    let is_quick = late.is_none();
    let mut have = Vec::new();
    while let Some(words) = next_request(&tcp, &mut have).await {
        if words[0] != b"GET" {
            tcp.send(chunk(format!("+{port}\r\n").into_bytes()));
            continue;
        }
        if let Some(late) = late.take() {
            late.wait(&thread).await;
        }
        tcp.send(chunk([format!("${len}\r\n").as_bytes(), &vec![b'v'; len], b"\r\n"].concat()));
        if tcp.room(0).await.is_err() {
            return;
        }
        SENT.set(SENT.get() + usize::from(is_quick));
    }
}

/// The next reply.
async fn reply(thread: &Thread, tcp: &Tcp, have: &mut Vec<u8>) -> Vec<u8> {
    let (mut scan, mut scanned) = (Reply::default(), 0);
    loop {
        match scan.scan(&have[scanned..]) {
            Scanned::Whole(len) => return have.drain(..scanned + len).collect(),
            Scanned::Part(len) => scanned += len,
            Scanned::Malformed => panic!("not a reply"),
        }
        let mut block = Block::new(SizeClass::Large);
        tcp.set_read_deadline(thread.now() + Duration::from_secs(20_000));
        assert!(tcp.recv(&mut block).await.unwrap() > 0, "the connection is open");
        have.extend_from_slice(&block);
    }
}

/// A connection to the proxy, and a key that lives on the server of that port.
async fn arrive(thread: &Thread, port: u16) -> (Tcp, String) {
    arrive_at(thread, PROXY, port).await
}

async fn arrive_at(thread: &Thread, proxy: SocketAddr, port: u16) -> (Tcp, String) {
    let tcp = Tcp::connect(thread, proxy, thread.now() + Duration::from_secs(5)).await.unwrap();
    for key in (0..100).map(|n| format!("{}:{n}", n * 7_919)) {
        tcp.send(chunk(request::encode(&["TYPE", &key])));
        if reply(thread, &tcp, &mut Vec::new()).await == format!("+{port}\r\n").as_bytes() {
            return (tcp, key);
        }
    }
    panic!("no key lives on {port}");
}

/// What a client got: the lengths of its replies, errors as none.
#[derive(Default)]
struct Seen {
    replies: RefCell<Vec<Option<usize>>>,
    over: Cell<bool>,
}

/// Asks for a value that comes late and many that do not.
async fn greedy(thread: Thread, seen: Rc<Seen>) {
    let (_, quick) = arrive(&thread, QUICK).await;
    let (tcp, late) = arrive(&thread, LATE).await;
    let mut bytes = request::encode(&["GET", &late]);
    (0..VALUES).for_each(|_| bytes.extend(request::encode(&["GET", &quick])));
    tcp.send(chunk(bytes));
    let mut have = Vec::new();
    for _ in 0..=VALUES {
        let reply = reply(&thread, &tcp, &mut have).await;
        seen.replies.borrow_mut().push((reply[0] == b'$').then_some(reply.len()));
    }
    seen.over.set(true);
}

/// Asks for a few values and takes them a little at a time.
async fn slow(thread: Thread, seen: Rc<Seen>) {
    const ASKED: usize = 4;
    let (tcp, quick) = arrive(&thread, QUICK).await;
    tcp.send(chunk(request::encode(&["GET", &quick]).repeat(ASKED)));
    let mut left = ASKED * whole(VALUE);
    while left > 0 {
        let mut block = Block::new(SizeClass::Small);
        left -= tcp.recv(&mut block).await.unwrap();
        thread.sleep(Duration::from_secs(5)).await;
    }
    seen.over.set(true);
}

/// Asks for many values and takes none; what another writes meanwhile comes behind them on the same connection.
async fn deaf(thread: Thread, seen: Rc<Seen>) {
    let (tcp, quick) = arrive(&thread, QUICK).await;
    let (other, _) = arrive(&thread, QUICK).await;
    tcp.send(chunk(request::encode(&["GET", &quick]).repeat(VALUES)));
    thread.sleep(Duration::from_micros(700)).await;
    let begun = thread.now();
    other.send(chunk(request::encode(&["SET", &quick, "x"])));
    assert_eq!(reply(&thread, &other, &mut Vec::new()).await, format!("+{QUICK}\r\n").as_bytes());
    let waited = thread.now() - begun;
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&waited), "behind the values: {waited:?}");
    seen.over.set(true);
}

/// Begins a request that must be seen whole, and says no more.
async fn silent(thread: Thread, seen: Rc<Seen>) {
    let (tcp, quick) = arrive(&thread, QUICK).await;
    let (_, late) = arrive(&thread, LATE).await;
    let value = "v".repeat(1 << 20);
    let mut begun = request::encode(&["MSET", &quick, &value, &late, &value]);
    begun.truncate(begun.len() / 2 + 1_000);
    tcp.send(chunk(begun));
    tcp.set_read_deadline(thread.now() + Duration::from_secs(300));
    let mut block = Block::new(SizeClass::Medium);
    let end = tcp.recv(&mut block).await;
    assert!(matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    seen.over.set(true);
}

/// Clients enough for a small pool.
const CROWD: usize = 4;
const SMALL: usize = 1 << 20;

/// Clients that ask for a value each, and another that wants to be heard when these have come.
async fn crowd(thread: &Thread) -> (Vec<Tcp>, Tcp, String) {
    let (other, late) = arrive(thread, LATE).await;
    let mut all = Vec::new();
    for _ in 0..CROWD {
        let (tcp, quick) = arrive(thread, QUICK).await;
        tcp.send(chunk(request::encode(&["GET", &quick])));
        all.push(tcp);
    }
    thread.sleep(Duration::from_secs(2)).await;
    (all, other, late)
}

/// How long it takes to be answered.
async fn heard(thread: &Thread, tcp: &Tcp, key: &str) -> Duration {
    let begun = thread.now();
    tcp.send(chunk(request::encode(&["TYPE", key])));
    assert_eq!(reply(thread, tcp, &mut Vec::new()).await, format!("+{LATE}\r\n").as_bytes());
    thread.now() - begun
}

/// More clients than the pool has memory for take nothing.
async fn deaf_crowd(thread: Thread, seen: Rc<Seen>) {
    let (all, other, key) = crowd(&thread).await;
    let waited = heard(&thread, &other, &key).await;
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&waited), "until some are cut: {waited:?}");
    let waited = heard(&thread, &other, &key).await;
    assert!(waited < Duration::from_millis(100), "{waited:?}");
    let mut cut = 0;
    for tcp in all {
        // As far as they go.
        let mut block = Block::new(SizeClass::Large);
        tcp.set_read_deadline(thread.now() + Duration::from_millis(100));
        while tcp.recv(&mut block).await.is_ok_and(|got| got > 0) {
            block = Block::new(SizeClass::Large);
        }
        cut += usize::from(tcp.failure().is_some());
    }
    assert!((1..CROWD).contains(&cut), "no more than must: {cut}");
    seen.over.set(true);
}

/// As many take all, a while later.
async fn late_crowd(thread: Thread, seen: Rc<Seen>) {
    let (all, other, key) = crowd(&thread).await;
    other.send(chunk(request::encode(&["TYPE", &key])));
    thread.sleep(Duration::from_secs(1)).await;
    let mut block = Block::new(SizeClass::Small);
    other.set_read_deadline(thread.now());
    assert!(other.recv(&mut block).await.is_err(), "nobody is heard while so much is kept");
    for tcp in all {
        thread.spawn("takes", async move {
            let mut left = whole(VALUE);
            while left > 0 {
                let mut block = Block::new(SizeClass::Large);
                left -= tcp.recv(&mut block).await.unwrap();
            }
        });
    }
    assert_eq!(reply(&thread, &other, &mut Vec::new()).await, format!("+{LATE}\r\n").as_bytes());
    let waited = heard(&thread, &other, &key).await;
    assert!(waited < Duration::from_millis(100), "all of it was given back: {waited:?}");
    seen.over.set(true);
}

/// A client, and what it is to ask: a value that comes late and many that do not. With that one it is sent all of them.
async fn hoarder(thread: &Thread, values: usize) -> (Tcp, Chunk) {
    let (_, quick) = arrive(thread, QUICK).await;
    let (tcp, late) = arrive(thread, LATE).await;
    let asks = [request::encode(&["GET", &late]), request::encode(&["GET", &quick]).repeat(values)].concat();
    (tcp, chunk(asks))
}

/// Waits until hoards have just been sent what they asked for.
async fn hoarded(thread: &Thread) {
    Late::Long.wait(thread).await;
    thread.sleep(Duration::from_millis(500)).await;
}

/// Takes so many bytes, or a few more. Says how many.
async fn take(tcp: &Tcp, least: usize) -> usize {
    let mut taken = 0;
    while taken < least {
        let mut block = Block::new(SizeClass::Large);
        let got = tcp.recv(&mut block).await.unwrap();
        assert!(got > 0, "all of it comes");
        taken += got;
    }
    taken
}

/// Takes too little of too much.
async fn trickling(thread: Thread, seen: Rc<Seen>) {
    let (other, key) = arrive(&thread, LATE).await;
    let (tcp, asks) = hoarder(&thread, HOARD).await;
    tcp.send(asks);
    let trickle = thread.clone();
    thread.spawn("trickles", async move {
        loop {
            let mut block = Block::new(SizeClass::Large);
            if !tcp.recv(&mut block).await.is_ok_and(|got| got > 0) {
                return;
            }
            trickle.sleep(Duration::from_millis(800)).await;
        }
    });
    hoarded(&thread).await;
    let waited = heard(&thread, &other, &key).await;
    assert!((Duration::from_secs(1)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
    seen.over.set(true);
}

/// Says that it asks no more, and takes what it is sent a while later.
async fn half_closed(thread: Thread, seen: Rc<Seen>) {
    let (other, key) = arrive(&thread, LATE).await;
    let (tcp, asks) = hoarder(&thread, HOARD).await;
    tcp.send(asks);
    tcp.end();
    hoarded(&thread).await;
    other.send(chunk(request::encode(&["TYPE", &key])));
    thread.sleep(Duration::from_secs(1)).await;
    other.set_read_deadline(thread.now());
    let early = other.recv(&mut Block::new(SizeClass::Small)).await;
    assert!(early.is_err(), "nobody is heard while so much is kept");
    let all = whole(3) + HOARD * whole(VALUE);
    assert_eq!(take(&tcp, all).await, all);
    assert_eq!(tcp.recv(&mut Block::new(SizeClass::Small)).await.unwrap(), 0, "then it ends");
    assert_eq!(reply(&thread, &other, &mut Vec::new()).await, format!("+{LATE}\r\n").as_bytes());
    let waited = heard(&thread, &other, &key).await;
    assert!(waited < Duration::from_millis(100), "all of it was given back: {waited:?}");
    seen.over.set(true);
}

/// So much is not taken that the thread would not read from anybody if it counted for all its pools.
async fn neighbours(thread: Thread, seen: Rc<Seen>) {
    let (other, key) = arrive_at(&thread, NEIGHBOUR, LATE).await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(hoarder(&thread, 30).await);
    }
    let all: Vec<Tcp> = all
        .into_iter()
        .map(|(tcp, asks)| {
            tcp.send(asks);
            tcp
        })
        .collect();
    hoarded(&thread).await;
    let waited = heard(&thread, &other, &key).await;
    assert!(waited < Duration::from_millis(100), "{waited:?}");
    drop(all);
    seen.over.set(true);
}

/// The replies of that client in a world where the late server is so late.
fn run<F: Future<Output = ()> + 'static>(late: Late, client: fn(Thread, Rc<Seen>) -> F) -> Vec<Option<usize>> {
    run_with(kv::plan::MEMORY, 1, late, client)
}

/// The same, of a pool that may keep so much and has so many connections to each server.
fn run_with<F: Future<Output = ()> + 'static>(
    memory: usize,
    server_connections: usize,
    late: Late,
    client: fn(Thread, Rc<Seen>) -> F,
) -> Vec<Option<usize>> {
    let before = buf::pool_use().used;
    SENT.set(0);
    // Where much is to be kept by the proxy little is by the kernel.
    let buffer = [1 << 16, if memory == SMALL { 1 << 16 } else { 1 << 20 }];
    let world = World::new(5, Faults { segment_max: 4 << 20, buffer, ..Faults::none() });
    let servers = world.thread("servers").unwrap();
    for (port, len, late) in [(QUICK, VALUE, None), (LATE, 3, Some(late))] {
        listen(&world, &servers, port, move |thread, tcp| {
            thread.spawn("redis", serve(thread.clone(), tcp, port, len, late));
        });
    }
    let source = PoolSource {
        redis: true,
        memory,
        server_connections,
        ..PoolSource::new("two", vec![server(QUICK), server(LATE)])
    };
    let neighbour = PoolSource { name: "neighbour".into(), ..source.clone() };
    let proxy = Proxy::start(&world, vec![source, neighbour], 1);
    let seen = Rc::new(Seen::default());
    let clients = world.thread("clients").unwrap();
    clients.spawn("client", client(clients.clone(), Rc::clone(&seen)));
    world.run_until(|| seen.over.get(), Duration::from_secs(20_000)).unwrap();
    world.run_for(Duration::from_secs(10)).unwrap();
    drop(proxy);
    drop(world);
    drop((servers, clients));
    assert_eq!(buf::pool_use().used, before, "blocks");
    seen.replies.take()
}

#[test]
fn replies_ahead_of_a_late_one_wait_at_the_server_and_none_is_lost() {
    let replies = run(Late::ByLittle, greedy);
    assert_eq!(replies[0], Some(whole(3)));
    assert_eq!(replies[1..].iter().filter(|reply| **reply == Some(whole(VALUE))).count(), VALUES);
}

#[test]
fn what_does_not_come_at_all_is_waited_for_until_no_more_may_be_kept() {
    let replies = run(Late::ByMuch, greedy);
    assert_eq!(replies[0], Some(whole(3)));
    let errors = replies.iter().filter(|reply| reply.is_none()).count();
    assert!((30..50).contains(&errors), "of 100 MiB 64 may be kept: {errors} errors");
}

#[test]
fn nobody_waits_for_long_behind_a_client_that_takes_nothing() {
    run(Late::ByLittle, deaf);
}

#[test]
fn what_clients_do_not_take_counts_and_those_who_take_nothing_are_cut_when_it_is_too_much() {
    run_with(SMALL, CROWD, Late::ByLittle, deaf_crowd);
}

#[test]
fn what_clients_take_late_is_given_back_and_nobody_is_cut() {
    run_with(SMALL, CROWD, Late::ByLittle, late_crowd);
}

#[test]
fn who_takes_a_trickle_of_much_is_cut_as_who_takes_nothing() {
    run_with(MODEST, CROWD, Late::Long, trickling);
}

#[test]
fn who_asks_no_more_is_there_until_it_has_taken_what_it_was_sent() {
    run_with(MODEST, CROWD, Late::Long, half_closed);
}

#[test]
fn what_clients_of_one_pool_do_not_take_silences_no_other_pool() {
    run_with(1 << 30, CROWD, Late::Long, neighbours);
}

#[test]
fn who_begins_a_request_and_says_no_more_is_let_go_of() {
    run(Late::ByLittle, silent);
}

#[test]
fn a_client_that_takes_little_at_a_time_is_not_cut() {
    run(Late::ByLittle, slow);
}
