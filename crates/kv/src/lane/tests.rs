//! What becomes of a connection when the code that looks at its replies panics, or that which gives it up; and what those who wait for nothing keep.

#[path = "../../tests/scene/mod.rs"]
pub(crate) mod scene;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base::Instant;
use buf::{Block, Chunk, SizeClass};
use event::sim::{Faults, Stuck, World};
use event::{Tcp, Thread};

use self::scene::{PROXY, Proxy, chunk, listen, server, worker};
use crate::PoolSource;
use crate::metrics::Kv;
use crate::numbers::CommandIndex;
use crate::pending::{Again, Owner};
use crate::wire::Scanned;
use crate::wire::resp::{Reply, Request, Scan, request};

const PORT: u16 = 6_379;
/// The reply that is the end of whoever looks at it.
const FATAL: &[u8] = b"+panic\r\n";
const INTERNAL: &str = "-ERR an internal error of the proxy\r\n";
thread_local! {
    /// Whether the server answers.
    static ANSWERS: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn panic_if_told(reply: &[u8]) {
    assert!(reply != FATAL, "as the test wants it");
}

/// The key of the request that is the end of whoever gives it up.
const UNLUCKY: &[u8] = b"unlucky";

pub(super) fn panic_if_failed(request: Option<Vec<u8>>) {
    let request = request.unwrap_or_default();
    assert!(!request.windows(UNLUCKY.len()).any(|word| word == UNLUCKY), "as the test wants it");
}

pub(crate) fn panic_if_asked(key: &[u8]) {
    assert!(key != b"boom", "as the test wants it");
}

/// The key of the part that is the end of whoever puts it together.
const HALFWAY: &[u8] = b"halfway";

pub(crate) fn panic_if_added(piece: &[u8]) {
    assert!(!piece.windows(HALFWAY.len()).any(|word| word == HALFWAY), "as the test wants it");
}

/// Answers each request with its second word, all that has come at once; of memcached each `set`.
async fn serve(thread: Thread, tcp: Tcp, redis: bool) {
    let mut have = Vec::new();
    loop {
        let mut block = Block::new(SizeClass::Medium);
        match tcp.recv(&mut block).await {
            Ok(got) if got > 0 => have.extend_from_slice(&block),
            _ => return,
        }
        while !ANSWERS.get() {
            thread.sleep(Duration::from_millis(1)).await;
        }
        let mut replies = Vec::new();
        if !redis {
            const DATA: &[u8] = b"\r\nx\r\n";
            while let Some(at) = have.windows(DATA.len()).position(|word| word == DATA) {
                have.drain(..at + DATA.len());
                tcp.send(Chunk::from_static(b"STORED\r\n"));
            }
            continue;
        }
        let mut request = Request::default();
        while let Scan::Whole(len) = request.scan(&have) {
            let word = request.arguments().get(1).map_or(0..0, |at| at.start as usize..at.end as usize);
            replies.extend([b"+", &have[word], b"\r\n"].concat());
            have.drain(..len);
            request.clear();
        }
        tcp.send(chunk(replies));
    }
}

/// Asks for these keys in one go, and says what came of it: replies, or none where the connection ended.
async fn ask(thread: Thread, keys: Vec<&'static str>, told: Told) {
    let tcp = Tcp::connect(&thread, PROXY, thread.now() + Duration::from_secs(5)).await.unwrap();
    tcp.send(chunk(keys.iter().flat_map(|key| request::encode(&["GET", key])).collect()));
    let mut have = Vec::new();
    for _ in &keys {
        let reply = loop {
            if let Scanned::Whole(len) = Reply::default().scan(&have) {
                break Some(String::from_utf8(have.drain(..len).collect()).unwrap());
            }
            let mut block = Block::new(SizeClass::Medium);
            tcp.set_read_deadline(thread.now() + Duration::from_secs(60));
            match tcp.recv(&mut block).await {
                Ok(got) if got > 0 => have.extend_from_slice(&block),
                _ => break None,
            }
        };
        told.borrow_mut().push(reply);
    }
}

/// A proxy in front of servers that answer nothing yet, and how to ask it.
struct Stage {
    world: World,
    proxy: Proxy,
    servers: Thread,
    clients: Thread,
    before: usize,
}

type Told = Rc<RefCell<Vec<Option<String>>>>;

impl Stage {
    /// With one server.
    fn set(redis: bool) -> Self {
        Self::with(1, redis)
    }

    fn with(count: u16, redis: bool) -> Self {
        let before = buf::pool_use().used;
        ANSWERS.set(false);
        let world =
            World::new(3, Faults { latency: [Duration::from_micros(50); 2], segment_max: 1 << 20, ..Faults::none() });
        let servers = world.thread("servers").unwrap();
        let ports = PORT..PORT + count;
        for port in ports.clone() {
            listen(&world, &servers, port, move |thread, tcp| {
                thread.spawn("server", serve(thread.clone(), tcp, redis));
            });
        }
        let source = PoolSource {
            redis,
            auto_eject_hosts: true,
            server_failure_limit: 1,
            ..PoolSource::new("p", ports.map(server).collect())
        };
        let proxy = Proxy::start(&world, vec![source], 1);
        let clients = world.thread("clients").unwrap();
        Self { world, proxy, servers, clients, before }
    }

    /// What came of asking for these keys will be written there.
    fn ask(&self, keys: &[&'static str]) -> Told {
        let told = Told::default();
        let clients = &self.clients;
        clients.spawn("client", ask(clients.clone(), keys.to_vec(), Rc::clone(&told)));
        // One after the other, so that the server is asked in this order.
        self.settle();
        told
    }

    /// Lets some time pass in a world that stops after each turn of a thread on which something has panicked.
    fn settle(&self) {
        let until = self.world.now() + Duration::from_secs(1);
        for _ in 0..100_000 {
            match self.world.run_for(Duration::from_millis(1)) {
                Ok(()) | Err(Stuck::Panicked(..)) if self.world.now() >= until => return,
                Ok(()) | Err(Stuck::Panicked(..)) => {}
                Err(stuck) => panic!("{stuck:?}"),
            }
        }
        panic!("time does not pass");
    }

    /// A connection that has sent this and is idle since.
    fn says(&self, bytes: &'static [u8]) {
        let clients = self.clients.clone();
        self.clients.spawn("client", async move {
            let deadline = clients.now() + Duration::from_secs(5);
            let tcp = Tcp::connect(&clients, PROXY, deadline).await.unwrap();
            tcp.send(Chunk::from_static(bytes));
            clients.sleep(Duration::from_secs(1_000)).await;
            drop(tcp);
        });
    }

    fn panics(&self) -> (u64, &'static str) {
        self.proxy.threads[0].stats().panics()
    }

    /// Another connection serves whoever comes, of a server that nobody blames; and nothing is left in the end.
    fn clear(self) {
        assert_eq!(*self.ask(&["later"]).borrow(), [text("+later\r\n")]);
        assert_eq!(self.proxy.cells[0].value(Kv::SERVER_OPEN), 1);
        assert_eq!(self.proxy.cells[0].value(Kv::SERVER_FAILURES), 1);
        self.end();
    }

    /// Nothing is left.
    fn end(self) {
        let Self { world, proxy, servers, clients, before } = self;
        drop(proxy);
        drop(world);
        drop((servers, clients));
        assert_eq!(buf::pool_use().used, before, "blocks");
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a reply that came")]
fn text(reply: &str) -> Option<String> {
    Some(reply.to_owned())
}

#[test]
fn a_panic_at_a_reply_ends_its_client_and_its_connection_and_the_others_get_errors_and_another() {
    let stage = Stage::set(true);
    // The first travels alone, the others behind it in one batch, and are answered in one block.
    let told = [&["first"][..], &["a", "b"], &["c", "panic", "d"], &["e", "f"]].map(|keys| stage.ask(keys));
    ANSWERS.set(true);
    stage.settle();
    assert_eq!(stage.panics(), (1, "kv server"));
    let [first, whole, hit, behind] = told.map(|told| told.take());
    assert_eq!(first, [text("+first\r\n")]);
    assert_eq!(whole, [text("+a\r\n"), text("+b\r\n")], "who was answered before is served on");
    assert_eq!(hit[1..], [None, None], "nobody knows what it has been told: {hit:?}");
    assert_eq!(behind, [text(INTERNAL), text(INTERNAL)]);
    stage.clear();
}

#[test]
fn a_panic_at_a_request_ends_its_client_and_no_reply_goes_astray() {
    let stage = Stage::set(true);
    let told = [&["first"][..], &["a", "b"], &["c", "boom", "d"]].map(|keys| stage.ask(keys));
    assert_eq!(stage.panics(), (1, "kv client"));
    let [first, before, hit] = told.map(|told| told.take());
    assert_eq!(first, [text(INTERNAL)], "what had been announced and not sent ends the connection");
    assert_eq!(before, [text(INTERNAL), text(INTERNAL)]);
    assert_eq!(hit, [None, None, None]);
    ANSWERS.set(true);
    stage.clear();
}

#[test]
fn a_panic_between_the_pieces_of_a_part_ends_its_client_and_what_others_ask_is_not_taken_for_the_rest() {
    const KEYS: [&str; 6] = ["1:7919", "2:15838", "3:23757", "4:31676", "5:39595", "6:47514"];
    let stage = Stage::with(2, true);
    ANSWERS.set(true);
    KEYS.iter().for_each(|key| assert_eq!(*stage.ask(&[key]).borrow(), [text(&format!("+{key}\r\n"))]));
    assert_eq!(stage.proxy.cells[0].value(Kv::SERVER_OPEN), 2, "they live on both");
    stage.says(request::encode(&[&["MGET", "halfway"], &KEYS[..]].concat()).leak());
    stage.settle();
    assert_eq!(stage.panics(), (1, "kv client"));
    KEYS.iter().for_each(|key| assert_eq!(*stage.ask(&[key]).borrow(), [text(&format!("+{key}\r\n"))]));
    assert_eq!(stage.proxy.cells[0].value(Kv::SERVER_FAILURES), 1);
    stage.end();
}

#[test]
fn a_panic_at_a_request_that_is_given_up_ends_its_client_and_the_others_on_its_connection_get_their_errors() {
    let stage = Stage::set(true);
    let told = [&["first"][..], &["panic"], &["a", "b"], &["c", "unlucky", "d"], &["e", "unlucky"], &["f", "g"]];
    let told = told.map(|keys| stage.ask(keys));
    ANSWERS.set(true);
    stage.settle();
    assert_eq!(stage.panics().0, 2, "at the reply, and at the end of its connection");
    let [first, at_reply, before, hit, also_hit, behind] = told.map(|told| told.take());
    assert_eq!(first, [text("+first\r\n")]);
    assert_eq!(at_reply, [None]);
    assert_eq!(before, [text(INTERNAL), text(INTERNAL)]);
    assert_eq!(hit[1..], [None, None], "nobody knows what it has been told: {hit:?}");
    assert_eq!(also_hit[1..], [None], "{also_hit:?}");
    assert_eq!(behind, [text(INTERNAL), text(INTERNAL)], "nobody is left without an answer");
    stage.clear();
}

#[test]
fn what_was_announced_and_not_handed_over_is_never_waited_for() {
    let stage = Stage::set(true);
    let told = [&["first"][..], &["a", "b"]].map(|keys| stage.ask(keys));
    // As when its bytes cannot be put together.
    let lanes = worker(0).lanes();
    lanes[0].borrow_mut().expect(Owner::Nobody, 10, Instant::FAR_FUTURE, Again::Always, CommandIndex::NONE);
    drop(lanes);
    ANSWERS.set(true);
    stage.settle();
    let [first, behind] = told.map(|told| told.take());
    assert_eq!(first, [text(INTERNAL)], "its connection ends with the turn");
    assert_eq!(behind, [text(INTERNAL), text(INTERNAL)], "no reply is taken for another's");
    stage.clear();
}

#[test]
fn who_waits_for_nothing_keeps_no_list_whatever_it_has_said() {
    let stage = Stage::set(false);
    ANSWERS.set(true);
    // Carried out; refused without a word; begun and not ended.
    for bytes in [
        b"set a 0 0 1 noreply\r\nx\r\nset b 0 0 1 noreply\r\nx\r\n".as_slice(),
        b"set a 0 0 1 noreply\r\nx\r\n\0 noreply\r\nverbosity 1 noreply\r\n",
        b"set a 0 0 1 noreply\r\nx\r\nset b 0 0 9 nor",
    ] {
        ANSWERS.set(false);
        (0..8).for_each(|_| stage.says(bytes));
        stage.settle();
        // All of them wait now, and so have a list each, which the others give them.
        ANSWERS.set(true);
        stage.settle();
        let worker = worker(0);
        let given_back = std::iter::from_fn(|| Some(worker.take_slots()).filter(|slots| slots.capacity() > 0));
        let given_back: Vec<_> = given_back.collect();
        assert_eq!(given_back.len(), 8, "{}", String::from_utf8_lossy(bytes));
        given_back.into_iter().for_each(|slots| drop(worker.keep_slots(slots)));
    }
    (0..8).for_each(|_| stage.says(b"verbosity 1 noreply\r\n"));
    stage.settle();
    let worker = worker(0);
    let given_back = std::iter::from_fn(|| Some(worker.take_slots()).filter(|slots| slots.capacity() > 0)).count();
    assert_eq!(given_back, 8, "what took a list to find that it needs none");
    drop(worker);
    stage.end();
}
