//! What one client asks of one server is carried out in its order, whatever becomes of the connections in between.
//!
//! Scripted servers that note down what they carry out, one after the other, and do no more while nobody takes their
//! replies. Time is virtual.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod scene;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use buf::{Block, Chunk, SizeClass};
use event::sim::{Faults, World};
use event::{Tcp, Thread};
use kv::wire::resp::{Request, Scan, request};
use kv::{Plan, PoolSource};
use scene::{NAMES, PROXY, Proxy, chunk, listen, server, worker};

const PORTS: [u16; 2] = [6_379, 6_380];
/// The length of a value whose key says that it is big.
const BIG: usize = 1 << 20;
/// Longer than anything takes that does not wait for something else.
const A_WHILE: Duration = Duration::from_millis(100);
thread_local! {
    /// Its thread, and a plan like the one in force.
    static OTHER_PLAN: RefCell<Option<(Thread, Arc<Plan>)>> = const { RefCell::new(None) };
    static SERVERS: RefCell<Vec<Rc<Server>>> = const { RefCell::new(Vec::new()) };
}

/// One server, and what the test wants of it.
#[derive(Default)]
struct Server {
    redis: bool,
    /// It takes what comes and does nothing.
    stopped: Cell<bool>,
    /// It closes every connection.
    dead: Cell<bool>,
    /// What it did for keys that are not big.
    done: RefCell<Vec<String>>,
}

fn text(words: &[impl AsRef<[u8]>]) -> Vec<String> {
    words.iter().map(|word| String::from_utf8_lossy(word.as_ref()).into_owned()).collect()
}

impl Server {
    /// Takes a request out of what has come.
    fn request(&self, have: &mut Vec<u8>) -> Option<Vec<String>> {
        if self.redis {
            let mut request = Request::default();
            let Scan::Whole(len) = request.scan(have) else { return None };
            let words = request.arguments().iter().map(|at| &have[at.start as usize..at.end as usize]);
            let words = text(&words.collect::<Vec<_>>());
            have.drain(..len);
            return Some(words);
        }
        let end = have.windows(2).position(|two| two == b"\r\n")?;
        let mut words = text(&have[..end].split(|byte| *byte == b' ').collect::<Vec<_>>());
        let mut len = end + 2;
        if words[0] == "set" {
            let data = words[4].parse::<usize>().unwrap();
            if have.len() < len + data + 2 {
                return None;
            }
            words.push(String::from_utf8_lossy(&have[len..len + data]).into_owned());
            len += data + 2;
        }
        have.drain(..len);
        Some(words)
    }

    fn carry_out(&self, words: &[String]) -> Vec<u8> {
        let big = words[1].starts_with("big");
        if !big && words[1] != "other" {
            self.done.borrow_mut().push(match words[0].as_str() {
                "get" | "GET" => format!("get {}", words[1]),
                "MSET" | "SET" => format!("set {} {}", words[1], words[2]),
                _ => format!("set {} {}", words[1], words.last().unwrap()),
            });
        }
        let value = if big { "v".repeat(BIG) } else { "x".to_owned() };
        match (words[0].as_str(), self.redis) {
            ("GET", _) => format!("${}\r\n{value}\r\n", value.len()),
            ("get", _) => format!("VALUE {} 0 {}\r\n{value}\r\nEND\r\n", words[1], value.len()),
            (_, true) => "+OK\r\n".to_owned(),
            (_, false) => "STORED\r\n".to_owned(),
        }
        .into_bytes()
    }

    async fn serve(self: Rc<Self>, thread: Thread, tcp: Tcp) {
        let mut have = Vec::new();
        loop {
            if self.dead.get() {
                return tcp.abort();
            }
            let mut block = Block::new(SizeClass::Large);
            tcp.set_read_deadline(thread.now() + Duration::from_millis(1));
            match tcp.recv(&mut block).await {
                Ok(0) => return,
                Ok(_) => have.extend_from_slice(&block),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
                Err(_) => return,
            }
            while !self.stopped.get()
                && let Some(words) = self.request(&mut have)
            {
                if words == ["PING"] {
                    tcp.send(Chunk::from_static(b"+PONG\r\n"));
                    continue;
                }
                tcp.send(chunk(self.carry_out(&words)));
                if tcp.room(0).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A pool in front of so many servers, a thread for clients, and a time in which `client` ends.
fn run<F: Future<Output = ()> + 'static>(redis: bool, count: usize, client: fn(Thread, Vec<Rc<Server>>) -> F) {
    let before = buf::pool_use().used;
    let world = World::new(5, Faults { segment_max: 4 << 20, buffer: [1 << 16, 1 << 20], ..Faults::none() });
    let all: Vec<Rc<Server>> = (0..count).map(|_| Rc::new(Server { redis, ..Server::default() })).collect();
    SERVERS.with(|servers| servers.borrow_mut().clone_from(&all));
    let thread = world.thread("servers").unwrap();
    for (at, port) in PORTS.into_iter().enumerate().take(count) {
        listen(&world, &thread, port, move |thread, tcp| {
            let server = SERVERS.with(|servers| Rc::clone(&servers.borrow()[at]));
            thread.spawn("server", server.serve(thread.clone(), tcp));
        });
    }
    let source = PoolSource {
        redis,
        auto_eject_hosts: count > 1,
        server_failure_limit: 1,
        server_retry_timeout: Duration::from_millis(200),
        ..PoolSource::new("orderly", PORTS[..count].iter().copied().map(server).collect())
    };
    let other = PoolSource { server_connections: 2, ..source.clone() };
    let proxy = Proxy::start(&world, vec![source], 1);
    let other = (proxy.threads[0].clone(), Plan::prepare(vec![other]).unwrap());
    OTHER_PLAN.with(|slot| *slot.borrow_mut() = Some(other));
    let clients = world.thread("clients").unwrap();
    let over = Rc::new(Cell::new(false));
    let (done, asks) = (Rc::clone(&over), client(clients.clone(), all));
    clients.spawn("client", async move {
        asks.await;
        done.set(true);
    });
    world.run_until(|| over.get(), Duration::from_secs(1_000)).unwrap();
    OTHER_PLAN.with(|slot| *slot.borrow_mut() = None);
    SERVERS.with(|servers| servers.borrow_mut().clear());
    drop(proxy);
    drop(world);
    drop((thread, clients));
    assert_eq!(buf::pool_use().used, before, "blocks");
}

async fn connect(thread: &Thread) -> Tcp {
    Tcp::connect(thread, PROXY, thread.now() + Duration::from_secs(5)).await.unwrap()
}

/// What comes until it ends so.
async fn until(thread: &Thread, tcp: &Tcp, end: &str) -> String {
    let mut have = String::new();
    while !have.ends_with(end) {
        let mut block = Block::new(SizeClass::Medium);
        tcp.set_read_deadline(thread.now() + Duration::from_secs(300));
        assert!(tcp.recv(&mut block).await.unwrap() > 0, "closed after {have:?}");
        have.push_str(std::str::from_utf8(&block).unwrap());
    }
    have
}

fn say(tcp: &Tcp, words: &[&str]) {
    tcp.send(chunk(request::encode(words)));
}

/// Asks for big values, and will take none of them.
async fn deaf(thread: &Thread, redis: bool) -> Tcp {
    let tcp = connect(thread).await;
    let asked = if redis { request::encode(&["GET", "big"]) } else { b"get big\r\n".to_vec() };
    tcp.send(chunk(asked.repeat(20)));
    thread.sleep(A_WHILE).await;
    tcp
}

#[test]
fn what_wants_no_reply_is_not_overtaken_when_its_connection_takes_no_more() {
    run(false, 1, |thread, servers| async move {
        servers[0].stopped.set(true);
        let _deaf = deaf(&thread, false).await;
        let tcp = connect(&thread).await;
        tcp.send(Chunk::from_static(b"set k 0 0 1 noreply\r\n1\r\n"));
        thread.sleep(A_WHILE).await;
        servers[0].stopped.set(false);
        thread.sleep(A_WHILE).await;
        tcp.send(Chunk::from_static(b"set k 0 0 1\r\n2\r\n"));
        assert_eq!(until(&thread, &tcp, "\r\n").await, "STORED\r\n");
        thread.sleep(Duration::from_secs(200)).await;
        assert_eq!(*servers[0].done.borrow(), ["set k 1", "set k 2"]);
    });
}

#[test]
fn a_read_behind_a_write_of_its_client_is_not_asked_for_elsewhere_and_another_is() {
    run(true, 1, |thread, servers| async move {
        servers[0].stopped.set(true);
        let _deaf = deaf(&thread, true).await;
        let (writes, reads) = (connect(&thread).await, connect(&thread).await);
        say(&writes, &["GET", "k"]);
        say(&writes, &["SET", "k", "1"]);
        say(&writes, &["GET", "k"]);
        say(&reads, &["GET", "other"]);
        thread.sleep(A_WHILE).await;
        servers[0].stopped.set(false);
        let begun = thread.now();
        assert_eq!(until(&thread, &reads, "x\r\n").await, "$1\r\nx\r\n");
        assert!(thread.now() - begun < Duration::from_secs(1), "asked elsewhere");
        assert_eq!(until(&thread, &writes, "+OK\r\n$1\r\nx\r\n").await, "$1\r\nx\r\n+OK\r\n$1\r\nx\r\n");
        assert_eq!(*servers[0].done.borrow(), ["get k", "set k 1", "get k"]);
    });
}

#[test]
fn a_request_that_waited_for_room_does_not_overtake_what_its_client_asked_before() {
    run(true, 1, |thread, servers| async move {
        servers[0].stopped.set(true);
        let _deaf = deaf(&thread, true).await;
        let tcp = connect(&thread).await;
        say(&tcp, &["SET", "k", "1"]);
        thread.sleep(A_WHILE).await;
        // As much as one connection may have to send.
        let crowd = connect(&thread).await;
        crowd.send(chunk(request::encode(&["SET", "other", &"v".repeat(50 << 10)]).repeat(100)));
        thread.sleep(A_WHILE).await;
        say(&tcp, &["MSET", "k", "2", "other", &"v".repeat(300 << 10)]);
        thread.sleep(A_WHILE).await;
        servers[0].stopped.set(false);
        assert_eq!(until(&thread, &tcp, "+OK\r\n+OK\r\n").await, "+OK\r\n+OK\r\n");
        assert_eq!(*servers[0].done.borrow(), ["set k 1", "set k 2"]);
    });
}

#[test]
fn a_write_that_moves_with_the_ring_does_not_come_after_a_later_one() {
    run(true, 2, |thread, servers| async move {
        let tcp = connect(&thread).await;
        // A key of the first server, which then goes to the second.
        let mut keys = (0..).map(|n| format!("{n}:{}", n * 7_919));
        let key = loop {
            let key = keys.next().unwrap();
            say(&tcp, &["GET", &key]);
            until(&thread, &tcp, "x\r\n").await;
            if !servers[0].done.borrow().is_empty() {
                break key;
            }
        };
        let (home, other) = (&servers[0], &servers[1]);
        home.dead.set(true);
        thread.sleep(A_WHILE).await;
        loop {
            say(&tcp, &["SET", &key, "0"]);
            if until(&thread, &tcp, "\r\n").await == "+OK\r\n" {
                break;
            }
        }
        assert_eq!(*other.done.borrow().last().unwrap(), format!("set {key} 0"));
        home.done.borrow_mut().clear();
        // Somebody else's request is on its way to it, so that this is held.
        other.stopped.set(true);
        let first = connect(&thread).await;
        say(&first, &["GET", &key]);
        thread.sleep(A_WHILE).await;
        say(&tcp, &["SET", &key, "1"]);
        thread.sleep(A_WHILE).await;
        // A probe brings the first back.
        home.dead.set(false);
        thread.sleep(Duration::from_secs(30)).await;
        say(&tcp, &["SET", &key, "2"]);
        thread.sleep(A_WHILE).await;
        other.dead.set(true);
        assert_eq!(until(&thread, &tcp, "+OK\r\n+OK\r\n").await, "+OK\r\n+OK\r\n");
        let done: Vec<String> = home.done.borrow().iter().filter(|done| done.starts_with("set")).cloned().collect();
        assert_eq!(done, [format!("set {key} 1"), format!("set {key} 2")]);
    });
}

#[test]
fn a_request_that_is_put_together_follows_a_new_plan_behind_what_was_asked_by_the_old() {
    run(true, 1, |thread, servers| async move {
        let tcp = connect(&thread).await;
        for stopped in [false, true] {
            servers[0].stopped.set(stopped);
            say(&tcp, &["SET", "k", "1"]);
            let whole = request::encode(&["MSET", "k", "2", "other", &"v".repeat(300 << 10)]);
            let (begun, rest) = whole.split_at(whole.len() - 10);
            tcp.send(chunk(begun.to_vec()));
            // As long as its connection takes for so many bytes.
            thread.sleep(Duration::from_secs(60)).await;
            let (proxy, plan) = OTHER_PLAN.with(|slot| slot.borrow().clone().unwrap());
            proxy.spawn("renew", async move {
                worker(0).renew(&plan, NAMES, |_| {});
            });
            thread.sleep(A_WHILE).await;
            tcp.send(chunk(rest.to_vec()));
            thread.sleep(A_WHILE).await;
            servers[0].stopped.set(false);
            assert_eq!(until(&thread, &tcp, "\r\n+OK\r\n").await, "+OK\r\n+OK\r\n");
            assert_eq!(servers[0].done.take(), ["set k 1", "set k 2"]);
        }
    });
}
