//! The same in simulated worlds: each seed has a network of its own, on which bytes come in pieces of other sizes.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use base::Rng;
use buf::{Block, SizeClass};
use event::sim::{Faults, Seeds, World};
use event::{Tcp, Thread};
use kv::PoolSource;
use kv::wire::{Reply, Scanned};

use crate::dialect::{Ask, Bytes, Dialect, Found, Said, bulk, counter_of, value_of};
use crate::scene::{self, PROXY, Proxy, chunk, receive};

const PORT: u16 = 6_379;
/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(60);
const SEEDS: Range<u64> = 0..3;

/// How the server's connection goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Resets,
    Closes,
    /// It ends its direction and goes on to read.
    Ends,
    /// It goes on after a while.
    Pauses,
}

thread_local! {
    static SERVER: RefCell<Option<Rc<Server>>> = const { RefCell::new(None) };
}

struct Server {
    dialect: Dialect,
    manner: Manner,
    /// Bytes that it still says until something happens; none: nothing does.
    left: Cell<Option<usize>>,
    /// Requests that it carried out.
    asked: Cell<usize>,
}

/// A value that is always there.
fn value(key: &[u8]) -> Bytes {
    value_of(key, 7, 3)
}

fn answer(words: &[Bytes], dialect: Dialect) -> Vec<u8> {
    let line = |key: &Bytes, unique: &str| {
        let (value, key) = (value(key), String::from_utf8_lossy(key));
        let counter = counter_of(&value).unwrap();
        [format!("VALUE {key} {counter} {}{unique}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat()
    };
    match (dialect, &*words[0].to_ascii_uppercase(), &words[1..]) {
        (Dialect::Redis, b"GET", [key]) => bulk(&value(key)),
        (Dialect::Redis, b"MGET", keys) => {
            let values = keys.iter().flat_map(|key| bulk(&value(key)));
            [format!("*{}\r\n", keys.len()).into_bytes(), values.collect()].concat()
        }
        (Dialect::Redis, b"SET", _) => b"+OK\r\n".to_vec(),
        (Dialect::Redis, b"DEL", _) => b":1\r\n".to_vec(),
        (Dialect::Redis, b"PING", []) => b"+PONG\r\n".to_vec(),
        (Dialect::Memcached, b"GETS", [key]) => [line(key, " 7"), b"END\r\n".to_vec()].concat(),
        (Dialect::Memcached, b"GET", keys) => {
            [keys.iter().flat_map(|key| line(key, "")).collect(), b"END\r\n".to_vec()].concat()
        }
        (Dialect::Memcached, b"SET", _) => b"STORED\r\n".to_vec(),
        (Dialect::Memcached, b"DELETE", _) => b"DELETED\r\n".to_vec(),
        (Dialect::Memcached, b"VERSION", []) => b"VERSION 1\r\n".to_vec(),
        (_, name, _) => panic!("asked for {}", String::from_utf8_lossy(name)),
    }
}

impl Server {
    async fn serve(self: Rc<Self>, thread: Thread, tcp: Tcp) {
        let mut have: Vec<u8> = Vec::new();
        while receive(&tcp, &mut have).await {
            while let Some(words) = self.dialect.take_request(&mut have) {
                let said = answer(&words, self.dialect);
                if words.len() == 1 {
                    // A probe.
                    tcp.send(chunk(said));
                    continue;
                }
                self.asked.set(self.asked.get() + 1);
                let at = self.left.get().filter(|left| *left < said.len());
                let Some(at) = at else {
                    self.left.set(self.left.get().map(|left| left - said.len()));
                    tcp.send(chunk(said));
                    continue;
                };
                self.left.set(None);
                tcp.send(chunk(said[..at].to_vec()));
                match self.manner {
                    Manner::Resets => {
                        let _ = tcp.room(0).await;
                        thread.sleep(Duration::from_micros(thread.random() % 1_000)).await;
                        return tcp.abort();
                    }
                    Manner::Closes => return,
                    Manner::Ends => {
                        tcp.end();
                        while tcp.recv(&mut Block::new(SizeClass::Medium)).await.is_ok_and(|got| got > 0) {}
                        return;
                    }
                    Manner::Pauses => {
                        thread.sleep(Duration::from_millis(5)).await;
                        tcp.send(chunk(said[at..].to_vec()));
                    }
                }
            }
        }
    }
}

/// A world of each seed and dialect, with that server behind a pool, and `body`, at whose end all is over.
fn run<F: Future<Output = ()> + 'static>(test: &'static str, manner: Manner, body: fn(Thread, Rc<Server>) -> F) {
    Seeds::new("beltway-kv", test).run(SEEDS, |seed| {
        for dialect in [Dialect::Redis, Dialect::Memcached] {
            let mut rng = Rng::new(seed ^ 0x706f_7300);
            let faults = Faults {
                latency: [Duration::from_micros(10), Duration::from_micros(50 << rng.below(6))],
                segment_max: 1 << rng.below(8),
                buffer: [1 << rng.below(8), 1 << (12 + rng.below(6))],
                ..Faults::none()
            };
            let before = buf::pool_use().used;
            let world = World::new(seed, faults);
            let server = Rc::new(Server { dialect, manner, left: Cell::new(None), asked: Cell::new(0) });
            SERVER.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&server)));
            let servers = world.thread("servers").unwrap();
            scene::listen(&world, &servers, PORT, |thread, tcp| {
                let server = SERVER.with(|slot| slot.borrow().clone().unwrap());
                thread.spawn("server", server.serve(thread.clone(), tcp));
            });
            let source = PoolSource {
                redis: dialect.is_redis(),
                server_failure_limit: 1_000_000,
                ..PoolSource::new("test", vec![scene::server(PORT)])
            };
            let proxy = Proxy::start(&world, vec![source], 1);
            let clients = world.thread("clients").unwrap();
            let ended = world.run_task(&clients, body(clients.clone(), server), Duration::from_secs(100_000));
            ended.unwrap_or_else(|stuck| panic!("{dialect:?}: {stuck:?}"));
            SERVER.with(|slot| *slot.borrow_mut() = None);
            drop(proxy);
            drop(world);
            drop((servers, clients));
            assert_eq!(buf::pool_use().used, before, "blocks");
        }
    });
}

fn key(name: &str) -> Bytes {
    name.as_bytes().into()
}

/// Reads, and one thing that the proxy answers itself.
fn reads() -> Vec<Ask> {
    let word = Ask::Word(b"word".to_vec());
    vec![Ask::Get(key("a")), Ask::Many(vec![key("b"), key("a-longer-key"), key("a")]), word, Ask::Get(key("bb"))]
}

/// The same with writes.
fn writes() -> Vec<Ask> {
    let set = Ask::Set(vec![(key("a"), value(b"a"))]);
    let word = Ask::Word(b"word".to_vec());
    vec![set, Ask::Get(key("key")), Ask::Delete(vec![key("b")]), word, Ask::Get(key("bb"))]
}

/// All of it, and where each ends.
fn written(asks: &[Ask], dialect: Dialect) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for ask in asks {
        bytes.extend(dialect.write(ask, false));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

async fn connect(thread: &Thread) -> Tcp {
    Tcp::connect(thread, PROXY, thread.now() + LONG).await.unwrap()
}

/// The next replies, so many; fewer when the connection ends before.
async fn replies(thread: &Thread, tcp: &Tcp, dialect: Dialect, count: usize) -> Vec<Vec<u8>> {
    let protocol = if dialect.is_redis() { kv::Protocol::Redis } else { kv::Protocol::Memcached };
    let (mut have, mut found) = (Vec::new(), Vec::new());
    loop {
        while let Scanned::Whole(len) = Reply::new(protocol).scan(&have) {
            found.push(have.drain(..len).collect());
        }
        if found.len() >= count {
            assert!(have.is_empty() && found.len() == count, "more than was asked for");
            return found;
        }
        let mut block = Block::new(SizeClass::Medium);
        tcp.set_read_deadline(thread.now() + LONG);
        match tcp.recv(&mut block).await {
            Ok(0) => {
                assert!(have.is_empty(), "part of a reply");
                return found;
            }
            Ok(_) => have.extend_from_slice(&block),
            Err(error) => panic!("{} of {count}, then {error}", found.len()),
        }
    }
}

/// Each reply is the right one; what changes something may have failed, where that is allowed.
fn judge(asks: &[Ask], got: &[Vec<u8>], dialect: Dialect, may_fail: bool, place: &str) {
    for (ask, got) in asks.iter().zip(got) {
        let right = match (ask, dialect.read(ask, got)) {
            (Ask::Get(key), Some(Said::Values(found))) => found == [Found::Value(value(key))],
            (Ask::Many(keys), Some(Said::Values(found))) => {
                found == keys.iter().map(|key| Found::Value(value(key))).collect::<Vec<_>>()
            }
            (Ask::Set(_), Some(Said::Done)) | (Ask::Delete(_), Some(Said::Count(1))) => true,
            (Ask::Word(_), Some(Said::Word)) => true,
            (Ask::Set(_) | Ask::Delete(_), Some(Said::Error)) => may_fail,
            _ => false,
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(right, "{place}: {:?} got {:?}", text(&dialect.write(ask, false)), text(got));
    }
}

/// Asks with a server that goes wrong after each byte of what it says.
async fn ask_at_each(thread: Thread, server: Rc<Server>, asks: Vec<Ask>) {
    let (bytes, _) = written(&asks, server.dialect);
    let tcp = connect(&thread).await;
    let mut after = 0;
    loop {
        server.left.set(Some(after));
        tcp.send(chunk(bytes.clone()));
        let got = replies(&thread, &tcp, server.dialect, asks.len()).await;
        let place = format!("{:?} after {after}", server.manner);
        assert_eq!(got.len(), asks.len(), "{place}");
        judge(&asks, &got, server.dialect, server.manner != Manner::Pauses, &place);
        if server.left.take().is_some() {
            // It said less than that.
            break;
        }
        after += 1;
    }
    assert!(after > 30, "{after}");
}

/// Asks in two pieces, at each place.
async fn split_at_each(thread: Thread, server: Rc<Server>) {
    let asks = writes();
    let (bytes, _) = written(&asks, server.dialect);
    let tcp = connect(&thread).await;
    for at in 1..bytes.len() {
        let (begun, rest) = bytes.split_at(at);
        tcp.send(chunk(begun.to_vec()));
        thread.sleep(Duration::from_millis(5)).await;
        tcp.send(chunk(rest.to_vec()));
        let got = replies(&thread, &tcp, server.dialect, asks.len()).await;
        assert_eq!(got.len(), asks.len());
        judge(&asks, &got, server.dialect, false, &format!("split after {at}"));
    }
}

/// How many requests are whole in the first bytes, and how many of these a server carries out.
fn whole(asks: &[Ask], ends: &[usize], len: usize) -> (usize, usize) {
    let count = ends.iter().filter(|end| **end <= len).count();
    (count, asks[..count].iter().filter(|ask| !matches!(ask, Ask::Word(_))).count())
}

/// Asks and ends its direction after each byte.
async fn end_at_each(thread: Thread, server: Rc<Server>) {
    let asks = writes();
    let (bytes, ends) = written(&asks, server.dialect);
    for len in 0..=bytes.len() {
        let (count, carried_out) = whole(&asks, &ends, len);
        server.asked.set(0);
        let tcp = connect(&thread).await;
        tcp.send(chunk(bytes[..len].to_vec()));
        tcp.end();
        let place = format!("ended after {len}");
        // One more than there are: up to the end.
        let got = replies(&thread, &tcp, server.dialect, count + 1).await;
        assert_eq!(got.len(), count, "{place}");
        judge(&asks, &got, server.dialect, false, &place);
        assert_eq!(server.asked.get(), carried_out, "{place}");
    }
}

/// Asks and goes away after each byte, while another asks.
async fn leave_at_each(thread: Thread, server: Rc<Server>) {
    let asks = writes();
    let (bytes, ends) = written(&asks, server.dialect);
    let mut rng = Rng::new(thread.random());
    let other = connect(&thread).await;
    for len in 0..=bytes.len() {
        let (_, at_most) = whole(&asks, &ends, len);
        server.asked.set(0);
        let tcp = connect(&thread).await;
        tcp.send(chunk(bytes[..len].to_vec()));
        // At times before anything has come, at times with replies on their way.
        thread.sleep(Duration::from_micros(rng.below(20_000))).await;
        if rng.one_in(2) {
            tcp.abort();
        }
        drop(tcp);
        other.send(chunk(bytes.clone()));
        let got = replies(&thread, &other, server.dialect, asks.len()).await;
        let place = format!("another gone after {len}");
        assert_eq!(got.len(), asks.len(), "{place}");
        judge(&asks, &got, server.dialect, false, &place);
        // As long as bytes that come singly take on their ways.
        thread.sleep(Duration::from_secs(3)).await;
        let (_, all) = whole(&asks, &ends, bytes.len());
        assert!((all..=all + at_most).contains(&server.asked.get()), "{place}: nothing that was not whole");
    }
}

const MANNERS: [Manner; 4] = [Manner::Resets, Manner::Closes, Manner::Ends, Manner::Pauses];

#[test]
fn a_server_that_breaks_off_after_any_byte_costs_no_read_its_answer_in_any_world() {
    const NAME: &str = "a_server_that_breaks_off_after_any_byte_costs_no_read_its_answer_in_any_world";
    for manner in MANNERS {
        run(NAME, manner, |thread, server| ask_at_each(thread, server, reads()));
    }
}

#[test]
fn a_server_that_breaks_off_after_any_byte_answers_a_write_rightly_or_it_failed_in_any_world() {
    const NAME: &str = "a_server_that_breaks_off_after_any_byte_answers_a_write_rightly_or_it_failed_in_any_world";
    for manner in MANNERS {
        run(NAME, manner, |thread, server| ask_at_each(thread, server, writes()));
    }
}

#[test]
fn requests_that_are_split_after_any_byte_are_put_together() {
    run("requests_that_are_split_after_any_byte_are_put_together", Manner::Pauses, split_at_each);
}

#[test]
fn a_client_that_ends_after_any_byte_is_answered_what_it_asked_whole() {
    run("a_client_that_ends_after_any_byte_is_answered_what_it_asked_whole", Manner::Pauses, end_at_each);
}

#[test]
fn a_client_that_is_gone_after_any_byte_leaves_the_others_their_own_replies() {
    run("a_client_that_is_gone_after_any_byte_leaves_the_others_their_own_replies", Manner::Pauses, leave_at_each);
}
