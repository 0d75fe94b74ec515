//! A server that stops without a word, under a pool that gives requests as long as they take: in virtual time.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod scene;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use buf::{Block, SizeClass};
use event::sim::{Faults, World};
use event::{Tcp, Thread};
use kv::wire::Scanned;
use kv::wire::resp::{Reply, request};
use kv::{Plan, PoolSource};
use scene::{NAMES, PROXY, Proxy, chunk, listen, server, worker};

const PORT: u16 = 6_379;
/// Where a server is that never stops, in no pool at first.
const OTHER_PORT: u16 = 6_380;
/// What the documentation promises of a request that is given as long as it takes.
const ANSWERED_WITHIN: Duration = Duration::from_secs(21);
const TICK: Duration = Duration::from_millis(200);
thread_local! {
    static STOPPED: Cell<bool> = const { Cell::new(false) };
}

/// How long the server takes for [`SLOW`], while it answers others.
const SLOWLY: Duration = Duration::from_secs(60);
const SLOW: &[u8] = b"slow";

/// Answers whatever it is asked with `+OK`, unless the server is stopped: then when it goes on.
async fn serve(thread: Thread, tcp: Tcp, stops: bool) {
    let mut have: Vec<u8> = Vec::new();
    loop {
        let mut block = Block::new(SizeClass::Medium);
        match tcp.recv(&mut block).await {
            Ok(got) if got > 0 => have.extend_from_slice(&block),
            _ => return,
        }
        loop {
            let mut request = kv::wire::resp::Request::default();
            let kv::wire::resp::Scan::Whole(len) = request.scan(&have) else { break };
            let slow = have[..len].windows(SLOW.len()).any(|word| word == SLOW);
            have.drain(..len);
            if slow {
                thread.sleep(SLOWLY).await;
            }
            while stops && STOPPED.get() {
                thread.sleep(Duration::from_millis(50)).await;
            }
            tcp.send(chunk(b"+OK\r\n".to_vec()));
        }
    }
}

/// What was answered, and after how long.
type Told = (Vec<u8>, Duration);

/// Asks one thing, and says when the answer came.
async fn ask(thread: Thread, words: &'static [&'static str], told: Rc<RefCell<Option<Told>>>) {
    let began = thread.now();
    let tcp = Tcp::connect(&thread, PROXY, thread.now() + Duration::from_secs(5)).await.unwrap();
    tcp.send(chunk(request::encode(words)));
    let mut have = Vec::new();
    loop {
        let mut block = Block::new(SizeClass::Medium);
        match tcp.recv(&mut block).await {
            Ok(got) if got > 0 => have.extend_from_slice(&block),
            other => panic!("closed: {other:?}"),
        }
        if let Scanned::Whole(_) = Reply::default().scan(&have) {
            *told.borrow_mut() = Some((have, thread.now() - began));
            return;
        }
    }
}

fn source(auto_eject_hosts: bool, port: u16) -> PoolSource {
    PoolSource { redis: true, auto_eject_hosts, ..PoolSource::new("patient", vec![server(port)]) }
}

/// A world with one server that is well and another beside it, the proxy's pool in front of the one by these settings,
/// and a thread for clients.
fn world(auto_eject_hosts: bool) -> (Proxy, World, Thread) {
    STOPPED.set(false);
    let world = World::new(1, Faults::none());
    let servers = world.thread("servers").unwrap();
    for port in [PORT, OTHER_PORT] {
        listen(&world, &servers, port, move |thread, tcp| {
            thread.spawn("redis", serve(thread.clone(), tcp, port == PORT));
        });
    }
    let source = source(auto_eject_hosts, PORT);
    assert_eq!(source.timeout, None);
    let proxy = Proxy::start(&world, vec![source], 1);
    proxy.keep_house(TICK);
    let clients = world.thread("clients").unwrap();
    (proxy, world, clients)
}

fn asked(world: &World, clients: &Thread, words: &'static [&'static str]) -> (String, Duration) {
    let told = Rc::new(RefCell::new(None));
    clients.spawn("client", ask(clients.clone(), words, Rc::clone(&told)));
    world.run_until(|| told.borrow().is_some(), Duration::from_secs(300)).unwrap();
    let (reply, waited) = told.borrow_mut().take().unwrap();
    (String::from_utf8(reply).unwrap(), waited)
}

#[test]
fn a_request_without_a_time_waits_for_a_stopped_server_no_longer_than_is_promised() {
    for ejects in [false, true] {
        for words in [["GET", "a"].as_slice(), &["SET", "a", "1"]] {
            let (_proxy, world, clients) = world(ejects);
            assert_eq!(asked(&world, &clients, words).0, "+OK\r\n");
            STOPPED.set(true);
            let (reply, waited) = asked(&world, &clients, words);
            assert!(reply.starts_with("-ERR Connection "), "{reply}");
            assert!(waited < ANSWERED_WITHIN && waited > Duration::from_secs(15), "{words:?}: {waited:?}");
            // Who asks now is told at once, and not after the same wait.
            let (reply, waited) = asked(&world, &clients, words);
            assert!(reply.starts_with("-ERR Connection ") && waited < Duration::from_secs(1), "{reply} {waited:?}");
            STOPPED.set(false);
            world.run_for(Duration::from_secs(70)).unwrap();
            assert_eq!(asked(&world, &clients, words).0, "+OK\r\n", "a probe brought it back");
        }
    }
}

#[test]
fn a_request_without_a_time_waits_not_for_ever_for_a_stopped_server_that_a_reload_took_away() {
    for (words, answer) in [(["GET", "a"].as_slice(), "+OK\r\n"), (&["SET", "a", "1"], "-ERR Connection timed out\r\n")]
    {
        let (proxy, world, clients) = world(false);
        assert_eq!(asked(&world, &clients, words).0, "+OK\r\n");
        STOPPED.set(true);
        let told = Rc::new(RefCell::new(None));
        clients.spawn("client", ask(clients.clone(), words, Rc::clone(&told)));
        world.run_for(Duration::from_secs(1)).unwrap();
        renew(&proxy, source(false, OTHER_PORT));
        assert_eq!(asked(&world, &clients, &["GET", "b"]).0, "+OK\r\n");
        world.run_until(|| told.borrow().is_some(), Duration::from_secs(300)).unwrap();
        let (reply, waited) = told.borrow_mut().take().unwrap();
        assert_eq!(String::from_utf8(reply).unwrap(), answer, "what may be asked twice is asked of the other");
        assert!(waited < ANSWERED_WITHIN && waited > Duration::from_secs(15), "{words:?}: {waited:?}");
    }
}

/// Puts this pool in the other's place.
fn renew(proxy: &Proxy, source: PoolSource) {
    proxy.threads[0].spawn("renewal", async {
        let plan = Plan::prepare(vec![source]).unwrap();
        worker(0).renew(&plan, NAMES, |unanswered| assert_eq!(unanswered, []));
    });
}

/// A request on a connection that a reload takes away, of a server that stays with fewer or goes.
fn asked_across_a_reload(port: u16, words: &'static [&'static str], stops: bool) -> (String, Duration) {
    let (proxy, world, clients) = world(false);
    let with = |server_connections, port| PoolSource { server_connections, ..source(false, port) };
    renew(&proxy, with(2, PORT));
    // Clients have the connections in turn, and the third has the second of two.
    for _ in 0..2 {
        assert_eq!(asked(&world, &clients, &["GET", "a"]).0, "+OK\r\n");
    }
    STOPPED.set(stops);
    let told = Rc::new(RefCell::new(None));
    clients.spawn("client", ask(clients.clone(), words, Rc::clone(&told)));
    world.run_for(Duration::from_secs(1)).unwrap();
    renew(&proxy, with(1, port));
    world.run_until(|| told.borrow().is_some(), Duration::from_secs(300)).unwrap();
    let (reply, waited) = told.borrow_mut().take().unwrap();
    world.run_for(Duration::from_secs(2)).unwrap();
    if !stops {
        assert_eq!(proxy.cells[0].value(kv::Kv::SERVER_FAILURES), 0, "nothing has failed");
    }
    (String::from_utf8(reply).unwrap(), waited)
}

#[test]
fn what_a_slow_server_was_asked_on_a_connection_that_a_reload_takes_away_is_waited_for() {
    for port in [PORT, OTHER_PORT] {
        for words in [["GET", "slow"].as_slice(), &["SET", "slow", "1"]] {
            let (reply, waited) = asked_across_a_reload(port, words, false);
            assert_eq!(reply, "+OK\r\n", "{words:?}, then on {port}");
            assert!(waited >= SLOWLY && waited < SLOWLY + Duration::from_secs(1), "there alone: {waited:?}");
        }
    }
}

#[test]
fn what_a_stopped_server_was_asked_on_a_connection_that_a_reload_takes_away_fails_as_on_any_other() {
    for port in [PORT, OTHER_PORT] {
        let (reply, waited) = asked_across_a_reload(port, &["SET", "a", "1"], true);
        assert_eq!(reply, "-ERR Connection timed out\r\n", "then on {port}");
        assert!(waited < ANSWERED_WITHIN && waited > Duration::from_secs(15), "{port}: {waited:?}");
    }
}

#[test]
fn a_server_that_is_slow_and_answers_a_probe_is_waited_for() {
    let (_proxy, world, clients) = world(false);
    assert_eq!(asked(&world, &clients, &["GET", "a"]).0, "+OK\r\n");
    STOPPED.set(true);
    let told = Rc::new(RefCell::new(None));
    clients.spawn("client", ask(clients.clone(), &["GET", "a"], Rc::clone(&told)));
    world.run_for(Duration::from_secs(17)).unwrap();
    assert!(told.borrow().is_none());
    // Within the time that the probe has.
    STOPPED.set(false);
    world.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(told.borrow().as_ref().map(|told| told.0.clone()), Some(b"+OK\r\n".to_vec()));
}
