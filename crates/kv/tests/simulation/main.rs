//! The key-value proxy in simulated worlds: two proxy threads, scripted servers and clients of either protocol, a network
//! that misbehaves, and a checker of every reply.
//!
//! Every value carries its key and a counter. What must hold in every world:
//! - a reply stands in the place of its request: a value is, to the byte, one that was asked for under that very key, and
//!   a word that the proxy echoes is the very word;
//! - a server carries out what one connection wrote under a key in the order in which it was asked, as far as the client
//!   was told that it was carried out;
//! - every request is answered, or its connection ends, within a bound;
//! - nothing panics, and no client, block or byte is left in the end.
//!
//! And in a calm world, where nothing fails and nobody is slow: every reply is the one and only right one. Who reads its
//! own key gets what it wrote last before it in its own order, or nothing if it deleted it or never wrote it; who reads
//! another's gets nothing older than what the other was told is there, or than what it has seen. In the end each server
//! has what it should, and nothing else.
//!
//! And in a sluggish one, where requests are given up and no server's connection ends, while reloads change how many there
//! are: also what was given up is carried out in its order.
//!
//! Start with [`run_world`]. `dialect` has the two protocols' words, `server` and `client` the scripts, `ledger` the
//! checker.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod client;
mod dialect;
mod ledger;
#[path = "../scene/mod.rs"]
mod scene;
mod server;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base::Rng;
use event::Thread;
use event::sim::{Faults, Seeds, World};
use kv::{EjectPolicy, MultigetPolicy, Plan, PoolSource, Worker};

use client::client;
use dialect::Dialect;
use ledger::{Ledger, Size, Weather};
use scene::{NAMES, Proxy};

const PORTS: [u16; 3] = [6_379, 6_380, 6_381];
const THREADS: usize = 2;
/// All clients are through in this time, each of their waits at its longest.
const WORLD_MAX: Duration = Duration::from_secs(40_000);
const AFTERMATH: Duration = Duration::from_secs(2_000);
/// What requests are given in a sluggish world.
const GIVEN_UP: Duration = Duration::from_secs(1);
/// How often house is kept, as in production.
const TICK: Duration = Duration::from_millis(200);

thread_local! {
    static LEDGER: RefCell<Option<Rc<Ledger>>> = const { RefCell::new(None) };
}

fn source(rng: &mut Rng, dialect: Dialect, weather: Weather, servers: usize) -> PoolSource {
    let foul = weather == Weather::Foul;
    PoolSource {
        redis: dialect.is_redis(),
        timeout: match weather {
            Weather::Calm => None,
            Weather::Sluggish => Some(GIVEN_UP),
            Weather::Foul => Some(Duration::from_millis(100 << rng.below(5))),
        },
        auto_eject_hosts: foul && rng.one_in(2),
        eject_policy: [EjectPolicy::Rehash, EjectPolicy::Error, EjectPolicy::Miss]
            [usize::try_from(rng.below(3)).unwrap()],
        multiget_policy: if rng.one_in(2) { MultigetPolicy::Error } else { MultigetPolicy::Miss },
        server_failure_limit: 1 + u32::try_from(rng.below(3)).unwrap(),
        server_retry_timeout: Duration::from_millis(200),
        server_connections: 1 + usize::try_from(rng.below(3)).unwrap(),
        preconnect: rng.one_in(3),
        memory: if foul { (256 << 10) << rng.below(11) } else { kv::plan::MEMORY },
        ..PoolSource::new("simulated", PORTS[..servers].iter().copied().map(scene::server).collect())
    }
}

/// Puts other plans for the pool in force while its clients ask.
async fn renew(thread: Thread, worker: Worker, dialect: Dialect, weather: Weather, servers: usize) {
    let mut rng = Rng::new(thread.random());
    for _ in 0..1 + rng.below(4) {
        thread.sleep(Duration::from_millis(rng.below(2_000))).await;
        let plan = Plan::prepare(vec![source(&mut rng, dialect, weather, servers)]).unwrap();
        worker.renew(&plan, NAMES, |_| {});
    }
}

/// What the threads say that they keep of requests and replies, in bytes.
fn kept(proxy: &Proxy) -> u64 {
    proxy.cells.iter().map(|cells| cells.value(kv::Kv::MEMORY)).sum()
}

/// Says how many replies were good, errors, and connections that ended early, and the most bytes that were kept.
fn run_world(seed: u64, faults: Faults, dialect: Dialect, weather: Weather) -> [u64; 4] {
    let calm = weather == Weather::Calm;
    let before = buf::pool_use().used;
    // A connection that falls silent without a word stays open: clients may be idle as long as they like.
    let silences = faults.cut > 0;
    let mut rng = Rng::new(seed ^ 0x6b76_0000);
    // Who takes much at a trickle keeps others waiting and is cut, as documented: calm clients of much are quick.
    let size = match faults.segment_max {
        0..64 => Size::Small,
        _ if faults.segment_min > 1 => Size::Hoards,
        // Large values have connections of their own, which end when they are given up.
        _ if weather == Weather::Sluggish => Size::Small,
        _ if calm && faults.latency[1] > CALM_AND_LARGE[1] => Size::Small,
        _ => Size::Large,
    };
    // All meet at one server where some keep it waiting.
    let servers = if size == Size::Hoards { 1 } else { PORTS.len() };
    let ledger = Rc::new(Ledger::new(dialect, weather, size));
    let world = World::new(seed, faults);
    if Seeds::is_replay() {
        world.narrate();
    }
    LEDGER.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&ledger)));
    let serving = world.thread("servers").unwrap();
    for port in PORTS {
        scene::listen(&world, &serving, port, move |thread, tcp| {
            if let Some(ledger) = LEDGER.with(|slot| slot.borrow().clone()) {
                thread.spawn("server", server::serve(thread.clone(), tcp, port, ledger));
            }
        });
    }
    let proxy = Proxy::start(&world, vec![source(&mut rng, dialect, weather, servers)], THREADS);
    proxy.keep_house(TICK);
    if rng.one_in(3) || weather == Weather::Sluggish {
        for (at, thread) in proxy.threads.iter().enumerate() {
            thread.spawn("renew", renew(thread.clone(), scene::worker(at), dialect, weather, servers));
        }
    }
    let clients = world.thread("clients").unwrap();
    let count = 1 + rng.below(6);
    for name in 0..count {
        let rounds = 1 + rng.below(4);
        clients.spawn("client", client(clients.clone(), name, count, rounds, Rc::clone(&ledger)));
    }
    let most = Cell::new(0);
    let is_over = || {
        most.set(most.get().max(kept(&proxy)));
        ledger.over.get() == count
    };
    let over = world.run_until(is_over, WORLD_MAX);
    let wrong = std::mem::take(&mut *ledger.wrong.borrow_mut());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(over, Ok(()), "{} of {count} clients are through", ledger.over.get());
    world.run_for(AFTERMATH).unwrap();
    let astray = if calm { ledger.astray() } else { ledger.overtaken() };
    assert!(astray.is_empty(), "{}", astray.join("\n"));
    if !silences {
        assert_eq!(proxy.shares.open(), 0, "client connections");
        assert!(proxy.cells.iter().all(|cells| cells.value(kv::Kv::CLIENT_OPEN) == 0));
    }
    if proxy.shares.open() == 0 {
        assert_eq!(kept(&proxy), 0, "bytes that are kept for nobody");
    }
    LEDGER.with(|slot| *slot.borrow_mut() = None);
    drop(proxy);
    drop(world);
    drop((serving, clients));
    assert_eq!(buf::pool_use().used, before, "blocks");
    let [good, errors, closed] = ledger.counts.each_ref().map(Cell::get);
    [good, errors, closed, most.get()]
}

/// Runs each seed's world, of the one protocol and of the other.
fn run_seeds(test: &'static str, seeds: std::ops::Range<u64>, faults: impl Fn(u64) -> Faults, weather: Weather) {
    let foul = weather == Weather::Foul;
    for dialect in [Dialect::Redis, Dialect::Memcached] {
        let sum = Cell::new([0_u64; 4]);
        Seeds::new("beltway-kv", test).run(seeds.clone(), |seed| {
            let of_world = run_world(seed, faults(seed), dialect, weather);
            let mut all = sum.get();
            all.iter_mut().zip(of_world).for_each(|(all, of)| *all += of);
            sum.set(all);
        });
        let [good, errors, closed, kept] = sum.get();
        println!("{dialect:?}: {good} good, {errors} errors, {closed} closed");
        if !Seeds::is_replay() {
            assert!(good > 0 && ((weather == Weather::Calm) == (errors == 0)), "{good} {errors} {closed}");
            // In the others little is kept for long enough to be seen.
            assert!(!foul || kept > 0, "that all was given back says nothing");
        }
    }
}

/// How long bytes take in a calm world with large values: one that trickles byte by byte is still quick enough.
const CALM_AND_LARGE: [Duration; 2] = [Duration::from_micros(1), Duration::from_micros(10)];

/// The network of a calm world: in one of two quick enough for large values.
fn calm(seed: u64) -> Faults {
    let mut faults = Faults::none();
    if seed.is_multiple_of(2) {
        faults.latency = CALM_AND_LARGE;
    }
    faults
}

#[test]
fn in_a_calm_world_every_reply_is_the_right_one() {
    run_seeds("in_a_calm_world_every_reply_is_the_right_one", 0..25, calm, Weather::Calm);
}

#[test]
fn who_takes_its_time_changes_no_reply_of_others() {
    let leisurely =
        |_| Faults { segment_min: 16 << 10, segment_max: 1 << 20, buffer: [16 << 10, 128 << 10], ..Faults::none() };
    run_seeds("who_takes_its_time_changes_no_reply_of_others", 3_000..3_024, leisurely, Weather::Calm);
}

#[test]
fn whatever_fails_no_reply_reaches_the_wrong_client_or_place() {
    run_seeds("whatever_fails_no_reply_reaches_the_wrong_client_or_place", 0..70, Faults::drawn, Weather::Foul);
}

#[test]
fn a_good_network_brings_out_what_bad_servers_do() {
    run_seeds("a_good_network_brings_out_what_bad_servers_do", 1_000..1_020, |_| Faults::none(), Weather::Foul);
}

#[test]
fn bytes_that_come_singly_are_put_together_as_all_others() {
    let single = |_| Faults { segment_max: 1, buffer: [64, 4_096], ..Faults::none() };
    run_seeds("bytes_that_come_singly_are_put_together_as_all_others", 2_000..2_006, single, Weather::Calm);
}

#[test]
fn what_was_given_up_is_overtaken_by_nothing_whatever_reloads_do() {
    let test = "what_was_given_up_is_overtaken_by_nothing_whatever_reloads_do";
    run_seeds(test, 4_000..4_030, |_| Faults::none(), Weather::Sluggish);
}
