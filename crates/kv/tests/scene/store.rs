//! Scripted servers of Redis that do one thing at a time, and clients of a pool in front of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base::Instant;
use event::sim::{Faults, World};
use event::{Tcp, Thread};
use kv::PoolSource;
use kv::wire::Scanned;
use kv::wire::resp::{Reply, request};

use super::{PROXY, Proxy, chunk, listen, next_request, receive, server};

/// The first server's; the others have those behind it.
pub const FIRST_PORT: u16 = 6_379;
/// Longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(600);

thread_local! {
    static STORES: RefCell<Vec<Rc<Store>>> = const { RefCell::new(Vec::new()) };
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A server that does one thing at a time, as Redis does.
pub struct Store {
    pub port: u16,
    /// Whether it says nothing.
    pub stopped: Cell<bool>,
    /// How long its values are.
    pub value_len: Cell<usize>,
    busy_until: Cell<Instant>,
}

impl Store {
    fn at(port: u16) -> Rc<Self> {
        let (stopped, value_len) = (Cell::new(false), Cell::new(1));
        Rc::new(Self { port, stopped, value_len, busy_until: Cell::new(Instant::ORIGIN) })
    }

    async fn is_free(&self, thread: &Thread) {
        while self.stopped.get() || thread.now() < self.busy_until.get() {
            thread.sleep(millis(1)).await;
        }
    }

    /// `EVAL n …` takes so many milliseconds; `TYPE` says where the key lives.
    async fn answer(&self, thread: &Thread, words: &[&[u8]]) -> Vec<u8> {
        self.is_free(thread).await;
        match words {
            [b"EVAL", time, ..] => {
                let time = std::str::from_utf8(time).unwrap().parse().unwrap();
                self.busy_until.set(thread.now() + millis(time));
                self.is_free(thread).await;
                b"$4\r\ndone\r\n".to_vec()
            }
            [b"TYPE", ..] => format!("+{}\r\n", self.port).into_bytes(),
            [b"GET", ..] => {
                let len = self.value_len.get();
                [format!("${len}\r\n").as_bytes(), &vec![b'x'; len], b"\r\n"].concat()
            }
            _ => b"+OK\r\n".to_vec(),
        }
    }

    async fn serve(self: Rc<Self>, thread: Thread, tcp: Tcp) {
        let mut have = Vec::new();
        while let Some(words) = next_request(&tcp, &mut have).await {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            tcp.send(chunk(self.answer(&thread, &words).await));
        }
    }
}

/// A client of the pool.
pub struct Client {
    thread: Thread,
    tcp: Tcp,
    have: Vec<u8>,
}

impl Client {
    pub async fn new(thread: &Thread) -> Self {
        let tcp = Tcp::connect(thread, PROXY, thread.now() + LONG).await.unwrap();
        tcp.set_read_deadline(thread.now() + LONG);
        Self { thread: thread.clone(), tcp, have: Vec::new() }
    }

    pub fn put(&self, words: &[&str]) {
        self.tcp.send(chunk(request::encode(words)));
    }

    /// The next reply, and when it came.
    pub async fn reply(&mut self) -> (String, Instant) {
        loop {
            if let Scanned::Whole(len) = Reply::default().scan(&self.have) {
                let reply = self.have.drain(..len).collect();
                return (String::from_utf8(reply).unwrap(), self.thread.now());
            }
            assert!(receive(&self.tcp, &mut self.have).await, "the connection is open");
        }
    }

    pub async fn ask(&mut self, words: &[&str]) -> String {
        self.put(words);
        self.reply().await.0
    }

    /// A key that lives on that server.
    pub async fn key_on(&mut self, store: &Store) -> String {
        let home = format!("+{}\r\n", store.port);
        for key in (0..1_000).map(|n| format!("{n}:{}", n * 7_919)) {
            if self.ask(&["TYPE", &key]).await == home {
                return key;
            }
        }
        panic!("no key lives on {}", store.port);
    }
}

/// So many servers, a pool in front of them by these settings, and `body`, at whose end all is over.
pub fn run<F: Future<Output = ()> + 'static>(
    source: PoolSource,
    count: u16,
    body: impl FnOnce(Thread, Vec<Rc<Store>>) -> F,
) {
    let world = World::new(3, Faults::none());
    let stores: Vec<Rc<Store>> = (FIRST_PORT..FIRST_PORT + count).map(Store::at).collect();
    STORES.with(|all| all.borrow_mut().clone_from(&stores));
    let servers = world.thread("servers").unwrap();
    for (number, store) in stores.iter().enumerate() {
        listen(&world, &servers, store.port, move |thread, tcp| {
            let store = STORES.with(|all| Rc::clone(&all.borrow()[number]));
            thread.spawn("redis", store.serve(thread.clone(), tcp));
        });
    }
    let source = PoolSource { redis: true, servers: stores.iter().map(|store| server(store.port)).collect(), ..source };
    let _proxy = Proxy::start(&world, vec![source], 1);
    let clients = world.thread("clients").unwrap();
    world.run_task(&clients, body(clients.clone(), stores), LONG).unwrap();
}

/// As it is without settings.
pub fn pool() -> PoolSource {
    PoolSource::new("test", Vec::new())
}
