//! The key-value proxy in simulated worlds: two proxy threads, scripted Redis servers and clients, a network that
//! misbehaves, and a checker of every reply.
//!
//! Every value carries its key and a counter. What must hold in every world:
//! - a reply stands in the place of its request: a value is of the key that was asked for, a word that the proxy echoes
//!   is the very word, and a value was written by this client, not later than the last one;
//! - a server carries out what one connection wrote under a key in the order in which it was asked, as far as the client
//!   was told that it was carried out;
//! - every request is answered, or its connection ends, within a bound;
//! - nothing panics, and no client, block or byte is left in the end.
//!
//! And in a calm world, where nothing fails: every reply is the right one.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::Rng;
use buf::{Block, Chunk, SizeClass};
use event::sim::{Faults, Seeds, World};
use event::{Shares, Tcp, Thread};
use kv::wire::Scanned;
use kv::wire::resp::{Reply, Request, Scan, reply, request};
use kv::{Address, EjectPolicy, Plan, PoolSource, ServerSource, Shared, Worker, WorkerParts};
use net::{Names, NamesOptions};
use stats::Cells;

const PROXY: &str = "127.0.0.1:22121";
const PORTS: [u16; 3] = [6_379, 6_380, 6_381];
const THREADS: usize = 2;
/// All clients are through in this time, each of their waits at its longest.
const WORLD_MAX: Duration = Duration::from_secs(40_000);
const AFTERMATH: Duration = Duration::from_secs(2_000);
/// Longest wait of a client for a reply.
const REPLY_MAX: Duration = Duration::from_secs(400);

thread_local! {
    static WORKERS: RefCell<Vec<Worker>> = const { RefCell::new(Vec::new()) };
    static LEDGER: RefCell<Option<Rc<Ledger>>> = const { RefCell::new(None) };
}

/// What one server has.
type Store = HashMap<Vec<u8>, Vec<u8>>;
/// The numbers of the values of each server's keys, in the order in which it took them.
type Written = HashMap<(u16, Vec<u8>), Vec<u64>>;

/// What the servers have and what was seen.
struct Ledger {
    calm: bool,
    /// Bytes come one by one: not many of them.
    single: bool,
    stores: RefCell<HashMap<u16, Store>>,
    written: RefCell<Written>,
    /// For each client and number of a value the connection that sent it, and whether the client was told `+OK`.
    asked: RefCell<HashMap<(u64, u64), (u64, bool)>>,
    wrong: RefCell<Vec<String>>,
    good: Cell<u64>,
    errors: Cell<u64>,
    closed: Cell<u64>,
    over: Cell<u64>,
}

fn shared(bytes: Vec<u8>) -> Chunk {
    let len = bytes.len();
    Chunk::from_shared(bytes.into(), 0..len)
}

impl Ledger {
    /// What was carried out after something that the same connection asked for later.
    fn overtaken(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let mut found = Vec::new();
        for ((port, key), numbers) in &*self.written.borrow() {
            let name = String::from_utf8_lossy(key);
            let client: u64 = name.split(':').next().unwrap().parse().unwrap();
            // The latest number of each connection so far.
            let mut latest = HashMap::new();
            for number in numbers {
                let (connection, told) = asked[&(client, *number)];
                let latest = latest.entry(connection).or_insert(0_u64);
                if *latest > *number && told {
                    found.push(format!("{port} took {name}#{number} after #{latest} of one connection"));
                }
                *latest = (*latest).max(*number);
            }
        }
        found
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// How a server's connection goes wrong, after so many replies.
#[derive(Clone, Copy)]
enum Spoil {
    Never,
    Closes(u64),
    Aborts(u64),
    Ends(u64),
    Babbles(u64),
    Loads(u64),
    Breaks(u64),
}

/// One connection of a scripted Redis.
async fn serve(thread: Thread, tcp: Tcp, port: u16, ledger: Rc<Ledger>) {
    let mut rng = Rng::new(thread.random());
    let after = rng.below(40);
    let spoil = if ledger.calm {
        Spoil::Never
    } else {
        match rng.below(12) {
            0 => Spoil::Closes(after),
            1 => Spoil::Aborts(after),
            2 => Spoil::Ends(after),
            3 => Spoil::Babbles(after),
            4 => Spoil::Loads(after),
            5 => Spoil::Breaks(after),
            _ => Spoil::Never,
        }
    };
    let slow = !ledger.calm && rng.one_in(4);
    let mut have: Vec<u8> = Vec::new();
    let mut answered = 0;
    loop {
        let mut block = Block::new(SizeClass::Medium);
        match tcp.recv(&mut block).await {
            Ok(got) if got > 0 => have.extend_from_slice(&block),
            _ => return,
        }
        loop {
            let mut request = Request::default();
            let Scan::Whole(len) = request.scan(&have) else { break };
            let bytes: Vec<u8> = have.drain(..len).collect();
            let words: Vec<&[u8]> =
                request.arguments().iter().map(|at| &bytes[at.start as usize..at.end as usize]).collect();
            if slow && rng.one_in(8) {
                thread.sleep(Duration::from_millis(rng.below(3_000))).await;
            }
            let mut reply = answer(&words, port, &ledger);
            match spoil {
                Spoil::Closes(after) if answered >= after => return,
                Spoil::Aborts(after) if answered >= after => return tcp.abort(),
                Spoil::Ends(after) if answered >= after => return tcp.end(),
                Spoil::Babbles(after) if answered >= after => reply = b"?what\r\n".to_vec(),
                Spoil::Loads(after) if answered >= after => reply = b"-LOADING wait\r\n".to_vec(),
                Spoil::Breaks(after) if answered >= after => {
                    reply.truncate(usize::try_from(rng.below(reply.len() as u64)).unwrap());
                    tcp.send(shared(reply));
                    return;
                }
                _ => {}
            }
            answered += 1;
            tcp.send(shared(reply));
            if tcp.room(64 << 10).await.is_err() {
                return;
            }
        }
    }
}

fn answer(words: &[&[u8]], port: u16, ledger: &Ledger) -> Vec<u8> {
    let mut stores = ledger.stores.borrow_mut();
    let store = stores.entry(port).or_default();
    let value = |store: &Store, key: &[u8]| match store.get(key) {
        Some(value) => bulk(value),
        None => b"$-1\r\n".to_vec(),
    };
    match words {
        [b"PING"] => b"+PONG\r\n".to_vec(),
        [b"SET", key, new] => {
            let number = new.split(|byte| *byte == b'#').nth(1).and_then(|word| std::str::from_utf8(word).ok());
            let number = number.and_then(|word| word.parse().ok()).unwrap();
            ledger.written.borrow_mut().entry((port, key.to_vec())).or_default().push(number);
            store.insert(key.to_vec(), new.to_vec());
            b"+OK\r\n".to_vec()
        }
        [b"GET", key] => value(store, key),
        [name, keys @ ..] if name.eq_ignore_ascii_case(b"mget") => {
            let values: Vec<u8> = keys.iter().flat_map(|key| value(store, key)).collect();
            [format!("*{}\r\n", keys.len()).as_bytes(), &values].concat()
        }
        other => format!("-ERR not known here: {}\r\n", other.len()).into_bytes(),
    }
}

/// What a client asked, and so what it may be told.
enum Asked {
    /// The number of the value.
    Set(u64),
    Get(Vec<u8>),
    Many(Vec<Vec<u8>>),
    Echo(Vec<u8>),
}

struct Script {
    name: u64,
    counter: u64,
    /// The counter of each key's last value that was taken, in a calm world.
    last: HashMap<Vec<u8>, u64>,
    large: bool,
}

fn value_of(key: &[u8], counter: u64, len: usize) -> Vec<u8> {
    let mut value = key.to_vec();
    value.extend_from_slice(format!("#{counter}#").as_bytes());
    value.resize(value.len() + len, b'.');
    value
}

impl Script {
    fn key(&self, rng: &mut Rng) -> Vec<u8> {
        let n = rng.below(9);
        format!("{}:{n}:{}", self.name, n * 7_919).into_bytes()
    }

    fn ask(&mut self, rng: &mut Rng, bytes: &mut Vec<u8>) -> Asked {
        match rng.below(10) {
            0..3 => {
                let key = self.key(rng);
                self.counter += 1;
                let len = match rng.below(12) {
                    0 if self.large => 66_000 + rng.below(20_000),
                    1 if self.large => rng.below(20_000),
                    _ => rng.below(100),
                };
                let value = value_of(&key, self.counter, usize::try_from(len).unwrap());
                self.last.insert(key.clone(), self.counter);
                bytes.extend(request::encode(&[b"SET", &key[..], &value]));
                Asked::Set(self.counter)
            }
            3..7 => {
                let key = self.key(rng);
                bytes.extend(request::encode(&[b"GET", &key[..]]));
                Asked::Get(key)
            }
            7..9 => {
                let keys: Vec<Vec<u8>> = (0..1 + rng.below(6)).map(|_| self.key(rng)).collect();
                let mut words = vec![b"MGET".to_vec()];
                words.extend(keys.iter().cloned());
                bytes.extend(request::encode(&words));
                Asked::Many(keys)
            }
            _ => {
                let word = format!("{}!{}", self.name, rng.next_u64()).into_bytes();
                bytes.extend(request::encode(&[b"ECHO", &word[..]]));
                Asked::Echo(word)
            }
        }
    }
}

/// Whether a value may stand where `key` was asked for.
fn is_of(key: &[u8], element: &[u8], counter: u64) -> Result<u64, String> {
    if element.starts_with(b"-") || element == b"$-1\r\n" {
        return Ok(0);
    }
    let text = String::from_utf8_lossy(element);
    let value = text.split("\r\n").nth(1).unwrap_or_default();
    let mut parts = value.split('#');
    let (of, number) = (parts.next().unwrap_or_default(), parts.next().and_then(|n| n.parse::<u64>().ok()));
    match number {
        Some(number) if of.as_bytes() == key && (1..=counter).contains(&number) => Ok(number),
        _ => Err(format!("{} got {}", String::from_utf8_lossy(key), &text[..text.len().min(80)])),
    }
}

/// Judges one reply.
fn judge(asked: &Asked, got: &[u8], script: &Script, ledger: &Ledger) -> Result<(), String> {
    let show = || String::from_utf8_lossy(&got[..got.len().min(80)]).into_owned();
    if got.starts_with(b"-") && !matches!(asked, Asked::Echo(_)) {
        ledger.errors.set(ledger.errors.get() + 1);
        return if ledger.calm { Err(format!("an error in a calm world: {}", show())) } else { Ok(()) };
    }
    ledger.good.set(ledger.good.get() + 1);
    match asked {
        Asked::Set(number) if got == b"+OK\r\n" => {
            if let Some(asked) = ledger.asked.borrow_mut().get_mut(&(script.name, *number)) {
                asked.1 = true;
            }
            Ok(())
        }
        Asked::Set(_) => Err(format!("SET got {}", show())),
        Asked::Echo(word) if got == bulk(word) => Ok(()),
        Asked::Echo(word) => Err(format!("ECHO {} got {}", String::from_utf8_lossy(word), show())),
        Asked::Get(key) => is_of(key, got, script.counter).map(drop),
        Asked::Many(keys) => {
            let elements = reply::elements(got).ok_or_else(|| format!("MGET got {}", show()))?;
            if elements.len() != keys.len() {
                return Err(format!("{} elements for {} keys", elements.len(), keys.len()));
            }
            keys.iter().zip(elements).try_for_each(|(key, at)| is_of(key, &got[at], script.counter).map(drop))
        }
    }
}

async fn client(thread: Thread, name: u64, rounds: u64, ledger: Rc<Ledger>) {
    let mut rng = Rng::new(thread.random());
    let mut script = Script {
        name,
        counter: 0,
        last: HashMap::new(),
        large: !ledger.single && rng.one_in(8) && std::env::var("NOLARGE").is_err(),
    };
    let proxy: SocketAddr = PROXY.parse().unwrap();
    let mut left = rounds;
    while left > 0 {
        thread.sleep(Duration::from_millis(rng.below(200))).await;
        left -= 1;
        let Ok(tcp) = Tcp::connect(&thread, proxy, thread.now() + REPLY_MAX).await else { continue };
        let leaves = !ledger.calm && rng.one_in(6);
        'bursts: for _ in 0..1 + rng.below(5) {
            let mut bytes = Vec::new();
            let depth = if rng.one_in(3) { 1 } else { 1 + rng.below(30) };
            let asked: Vec<Asked> = (0..depth).map(|_| script.ask(&mut rng, &mut bytes)).collect();
            let writes =
                asked.iter().filter_map(|asked| if let Asked::Set(number) = asked { Some(*number) } else { None });
            ledger.asked.borrow_mut().extend(writes.map(|number| ((name, number), (left, false))));
            // In pieces of any size.
            let mut at = 0;
            while at < bytes.len() {
                let most = bytes.len() - at;
                let len = if rng.one_in(2) { most } else { 1 + usize::try_from(rng.below(most as u64)).unwrap() };
                tcp.send(shared(bytes[at..at + len].to_vec()));
                at += len;
                if rng.one_in(4) {
                    thread.sleep(Duration::from_millis(rng.below(50))).await;
                }
            }
            let half_closes = rng.one_in(10);
            if half_closes {
                tcp.end();
            }
            let (mut have, mut next) = (Vec::new(), 0);
            while next < asked.len() {
                if leaves && rng.one_in(10) {
                    break 'bursts;
                }
                let mut block = Block::new(SizeClass::Medium);
                tcp.set_read_deadline(thread.now() + REPLY_MAX);
                match tcp.recv(&mut block).await {
                    Ok(got) if got > 0 => have.extend_from_slice(&block),
                    Err(error) if error.kind() == std::io::ErrorKind::TimedOut && ledger.calm => {
                        ledger.wrong.borrow_mut().push(format!("client {name} waits for {next} of {depth}"));
                        break 'bursts;
                    }
                    _ => {
                        ledger.closed.set(ledger.closed.get() + 1);
                        if ledger.calm {
                            ledger.wrong.borrow_mut().push(format!("client {name} closed at {next} of {depth}"));
                        }
                        break 'bursts;
                    }
                }
                while let Scanned::Whole(len) = Reply::default().scan(&have) {
                    let got: Vec<u8> = have.drain(..len).collect();
                    let Some(asked) = asked.get(next) else {
                        ledger.wrong.borrow_mut().push(format!("client {name} got more than it asked for"));
                        break 'bursts;
                    };
                    if let Err(wrong) = judge(asked, &got, &script, &ledger) {
                        ledger.wrong.borrow_mut().push(format!("client {name}, reply {next} of {depth}: {wrong}"));
                    }
                    next += 1;
                }
            }
            if half_closes {
                break;
            }
        }
    }
    ledger.over.set(ledger.over.get() + 1);
}

fn source(rng: &mut Rng, calm: bool) -> PoolSource {
    let server =
        |port: &u16| ServerSource { address: Address::Ip([127, 0, 0, 1].into(), *port), weight: 1, name: None };
    PoolSource {
        redis: true,
        timeout: (!calm).then(|| Duration::from_millis(100 << rng.below(5))),
        auto_eject_hosts: !calm && rng.one_in(2),
        eject_policy: if rng.one_in(3) { EjectPolicy::Error } else { EjectPolicy::Rehash },
        server_failure_limit: 1 + u32::try_from(rng.below(3)).unwrap(),
        server_retry_timeout: Duration::from_millis(200),
        server_connections: 1 + usize::try_from(rng.below(3)).unwrap(),
        preconnect: rng.one_in(3),
        memory: if calm { kv::plan::MEMORY } else { (256 << 10) << rng.below(11) },
        ..PoolSource::new("simulated", PORTS.iter().map(server).collect())
    }
}

/// Puts other plans for the pool in force while its clients ask.
async fn renew(thread: Thread, worker: Worker, calm: bool) {
    let mut rng = Rng::new(thread.random());
    for _ in 0..1 + rng.below(4) {
        thread.sleep(Duration::from_millis(rng.below(2_000))).await;
        let plan = Plan::prepare(vec![source(&mut rng, calm)]).unwrap();
        worker.renew(&plan, NAMES, |_| {});
    }
}

const NAMES: NamesOptions = NamesOptions {
    ttl: Duration::from_secs(30),
    negative_ttl: Duration::from_secs(5),
    timeout: Duration::from_secs(5),
    stale: Duration::from_secs(3_600),
};

fn run_world(seed: u64, faults: Faults, calm: bool) -> [u64; 3] {
    let before = buf::pool_use().used;
    // A connection that falls silent without a word stays open: clients may be idle as long as they like.
    let silences = faults.cut > 0;
    let mut rng = Rng::new(seed ^ 0x6b76_0000);
    let ledger = Rc::new(Ledger {
        calm,
        single: faults.segment_max < 64,
        stores: RefCell::default(),
        written: RefCell::default(),
        asked: RefCell::default(),
        wrong: RefCell::default(),
        good: Cell::new(0),
        errors: Cell::new(0),
        closed: Cell::new(0),
        over: Cell::new(0),
    });
    let world = World::new(seed, faults);
    if Seeds::is_replay() {
        world.narrate();
    }
    LEDGER.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&ledger)));
    let servers = world.thread("servers").unwrap();
    for port in PORTS {
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = world.listen(at, 64, Shares::new(1, 1_000), Arc::default(), move |thread, tcp| {
            if let Some(ledger) = LEDGER.with(|slot| slot.borrow().clone()) {
                thread.spawn("redis", serve(thread.clone(), tcp, port, ledger));
            }
        });
        listener.accept_on(&servers).unwrap();
    }
    let plan = Plan::prepare(vec![source(&mut rng, calm)]).unwrap();
    let together = Shared::new(&plan);
    let proxies = world.group("proxy", THREADS).unwrap();
    let shares = Shares::new(THREADS, 1_000);
    let peers = Arc::new(OnceLock::new());
    peers.set(proxies.iter().map(Thread::handle).collect()).unwrap();
    let cells: Vec<Cells<kv::Kv>> = proxies.iter().map(|_| Cells::detached()).collect();
    let workers = proxies.iter().zip(&cells).map(|(thread, &cells)| {
        Worker::new(WorkerParts {
            thread: thread.clone(),
            plan: Arc::clone(&plan),
            shared: Arc::clone(&together),
            names: Names::new(NAMES),
            cells,
            numbers: kv::numbers::Numbers::detached(),
        })
    });
    let workers: Vec<Worker> = workers.collect();
    if rng.one_in(3) {
        for (thread, worker) in proxies.iter().zip(&workers) {
            thread.spawn("renew", renew(thread.clone(), worker.clone(), calm));
        }
    }
    WORKERS.with(|slot| *slot.borrow_mut() = workers);
    let listener = world.listen(PROXY.parse().unwrap(), 16, Arc::clone(&shares), peers, |thread, tcp| {
        let worker = WORKERS.with(|workers| workers.borrow().get(thread.index()).cloned());
        if let Some(worker) = worker {
            worker.serve(tcp, 0);
        }
    });
    for thread in &proxies {
        listener.accept_on(thread).unwrap();
    }
    drop(listener);
    let clients = world.thread("clients").unwrap();
    let count = 1 + rng.below(6);
    for name in 0..count {
        clients.spawn("client", client(clients.clone(), name, 1 + rng.below(4), Rc::clone(&ledger)));
    }
    let over = world.run_until(|| ledger.over.get() == count, WORLD_MAX);
    let wrong = std::mem::take(&mut *ledger.wrong.borrow_mut());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(over, Ok(()), "{} of {count} clients are through", ledger.over.get());
    world.run_for(AFTERMATH).unwrap();
    let overtaken = ledger.overtaken();
    assert!(overtaken.is_empty(), "{}", overtaken.join("\n"));
    if !silences {
        assert_eq!(shares.open(), 0, "client connections");
        assert!(cells.iter().all(|cells| cells.value(kv::Kv::CLIENT_OPEN) == 0));
    }
    WORKERS.with(|slot| slot.borrow_mut().clear());
    LEDGER.with(|slot| *slot.borrow_mut() = None);
    drop(world);
    drop((proxies, servers, clients));
    assert_eq!(buf::pool_use().used, before, "blocks");
    [ledger.good.get(), ledger.errors.get(), ledger.closed.get()]
}

fn run_seeds(test: &'static str, seeds: std::ops::Range<u64>, faults: impl Fn(u64) -> Faults, calm: bool) {
    let sum = Cell::new([0_u64; 3]);
    Seeds::new("beltway-kv", test).run(seeds, |seed| {
        let of_world = run_world(seed, faults(seed), calm);
        let mut all = sum.get();
        all.iter_mut().zip(of_world).for_each(|(all, of)| *all += of);
        sum.set(all);
    });
    let [good, errors, closed] = sum.get();
    println!("{good} good, {errors} errors, {closed} closed");
    if !Seeds::is_replay() {
        assert!(good > 0 && (calm || errors > 0), "{good} {errors} {closed}");
    }
}

#[test]
fn in_a_calm_world_every_reply_is_the_right_one() {
    run_seeds("in_a_calm_world_every_reply_is_the_right_one", 0..25, |_| Faults::none(), true);
}

#[test]
fn whatever_fails_no_reply_reaches_the_wrong_client_or_place() {
    run_seeds("whatever_fails_no_reply_reaches_the_wrong_client_or_place", 0..100, Faults::drawn, false);
}

#[test]
fn a_good_network_brings_out_what_bad_servers_do() {
    run_seeds("a_good_network_brings_out_what_bad_servers_do", 1_000..1_040, |_| Faults::none(), false);
}

#[test]
fn bytes_that_come_singly_are_put_together_as_all_others() {
    let single = |_| Faults { segment_max: 1, buffer: [64, 4_096], ..Faults::none() };
    run_seeds("bytes_that_come_singly_are_put_together_as_all_others", 2_000..2_006, single, true);
}
