//! The cache in simulated worlds: origins whose resources change, clients that ask for them in every way, and a checker
//! that knows when which version was there.
//!
//! What must hold in every world:
//! - every body is that of the URL, the version and the kind that its head names, byte for byte, and never looks whole
//!   when it is not;
//! - a version is served no longer after it was replaced than its origin's terms allow, and not at all to who asked
//!   for validation;
//! - what was purged, or changed by an unsafe request, is not served to who asks afterwards;
//! - every request is answered, or its connection ends, within a bound; in a calm world with success;
//! - in the end nothing is left: no task, timer, connection, block, or fetch.
//!
//! `script` holds the resources and the checker, `origin` and `client` do what they say.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod client;
mod origin;
#[path = "../simulation/peer.rs"]
#[allow(dead_code, reason = "the other worlds need more of it")]
mod peer;
mod script;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::{ByteCount, Rng};
use cache::{Gate, Key, RamOptions, RamStore, RampOptions, Store};
use event::sim::{Census, Faults, Seeds, World};
use event::{Shares, Thread};
use http::{CacheParts, Http, Plan, Worker, WorkerParts};
use net::{Names, NamesOptions, Pool, PoolOptions, SharedPool};
use stats::Cells;

use self::script::Ledger;

const PROXY: &str = "127.0.0.1:8080";
const ORIGIN: &str = "127.0.0.1:8081";
/// Clients are through with everything in this time, each of the waits at its longest.
const WORLD_MAX: Duration = Duration::from_secs(40_000);
/// Every time limit of proxy and origin passes in this.
const AFTERMATH: Duration = Duration::from_secs(2_000);
const PROXY_THREADS: usize = 2;

thread_local! {
    static WORKERS: RefCell<Vec<Worker>> = const { RefCell::new(Vec::new()) };
    static LEDGER: RefCell<Option<Rc<Ledger>>> = const { RefCell::new(None) };
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn plan() -> Arc<Plan> {
    let text = format!(
        "http:
  listen: [\"{PROXY}\"]
  remap: [{{from: \"/\", to: \"http://{ORIGIN}/\"}}]
cache: {{stale_if_unreachable: 0s}}
"
    );
    let config = config::parse("simulated.yaml", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
    Plan::prepare(&config).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

/// What one world came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    whole: u64,
    own: u64,
    broken: u64,
    unchanged: u64,
    fetched: u64,
    followed: u64,
    trace: u64,
}

fn run_world(seed: u64, faults: Faults, calm: bool) -> Outcome {
    let blocks_before = buf::pool_use().used;
    let mut rng = Rng::new(seed ^ 0x0063_6163_6865);
    let ledger = Rc::new(Ledger::new(&mut rng, calm, faults.cut > 0, faults.segment_max as u64));
    let world = World::new(seed, faults);
    if Seeds::is_replay() {
        world.narrate();
    }
    LEDGER.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&ledger)));

    let origins = world.thread("origins").unwrap();
    let origin_shares = Shares::new(1, 1_000);
    let listener = world.listen(address(ORIGIN), 64, Arc::clone(&origin_shares), Arc::default(), |thread, tcp| {
        let ledger = LEDGER.with(|slot| slot.borrow().clone());
        if let Some(ledger) = ledger {
            thread.spawn("origin", origin::serve(tcp, ledger));
        }
    });
    listener.accept_on(&origins).unwrap();

    let proxies = world.group("proxy", PROXY_THREADS).unwrap();
    let shares = Shares::new(PROXY_THREADS, 1_000);
    let peers = Arc::new(OnceLock::new());
    peers.set(proxies.iter().map(Thread::handle).collect()).unwrap();
    let shared_pool: Arc<SharedPool> = Arc::default();
    // Sometimes so small that hardly anything stays, and slow readers of what does not are cut.
    let budget = ByteCount(if rng.one_in(3) && !calm { 40 << 10 } else { 4 << 20 });
    let store = RamStore::new(RamOptions { stall: Duration::from_secs(33), ..RamOptions::new(budget, PROXY_THREADS) });
    let used_before = store.used();
    let cache = CacheParts { store: Arc::new(store.clone()), gate: Gate::new(RampOptions::default()) };
    let cells: Vec<Cells<Http>> = proxies.iter().map(|_| Cells::detached()).collect();
    let workers: Vec<Worker> = proxies
        .iter()
        .zip(&cells)
        .map(|(thread, &cells)| {
            Worker::new(WorkerParts {
                thread: thread.clone(),
                plan: plan(),
                pool: Pool::new(
                    PoolOptions {
                        idle_per_thread: 4,
                        idle_shared: 4,
                        keep_alive: Duration::from_secs(30),
                        threads: PROXY_THREADS,
                    },
                    Arc::clone(&shared_pool),
                ),
                names: Names::new(NamesOptions {
                    ttl: Duration::from_secs(30),
                    negative_ttl: Duration::from_secs(5),
                    timeout: Duration::from_secs(5),
                    stale: Duration::from_secs(3_600),
                }),
                cells,
                cache: Some(cache.clone()),
                log: None,
            })
        })
        .collect();
    WORKERS.with(|slot| *slot.borrow_mut() = workers.clone());
    let listener = world.listen(address(PROXY), 16, Arc::clone(&shares), peers, |thread, tcp| {
        let worker = WORKERS.with(|workers| workers.borrow().get(thread.index()).cloned());
        if let Some(worker) = worker {
            worker.serve(tcp);
        }
    });
    for thread in &proxies {
        listener.accept_on(thread).unwrap();
    }
    drop(listener);

    let clients = world.thread("clients").unwrap();
    let count = 1 + rng.below(8);
    for _ in 0..count {
        clients.spawn("client", client::run(clients.clone(), address(PROXY), 1 + rng.below(8), Rc::clone(&ledger)));
    }
    // Resources change by themselves.
    let changing = Rc::clone(&ledger);
    let clock = origins.clone();
    let changes = origins.spawn("changes", async move {
        loop {
            let pause = changing.draw(|rng| rng.below(8_000));
            clock.sleep(Duration::from_millis(pause)).await;
            changing.change_one(clock.now());
        }
    });
    let over = world.run_until(|| ledger.clients_over.get() == count, WORLD_MAX);
    {
        let wrong = ledger.wrong.borrow();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    assert_eq!(over, Ok(()), "{} of {count} clients are through", ledger.clients_over.get());

    // Then everything that waits comes to the end of its patience, and nothing is left.
    changes.cancel();
    world.run_for(AFTERMATH).unwrap();
    for (thread, worker) in proxies.iter().zip(workers.clone()) {
        thread.spawn("house-keeping", async move { worker.tick() });
    }
    world.run_for(Duration::from_secs(10)).unwrap();
    assert_eq!(shares.open(), 0, "client connections");
    assert_eq!((shared_pool.len(), origin_shares.open()), (0, 0), "origin connections");
    for (thread, cells) in proxies.iter().zip(&cells) {
        let Census { tasks, queued, timers, sources } = world.census(thread);
        assert_eq!((tasks, queued, timers, sources), (0, 0, 0, 1), "{thread:?}");
        assert_eq!((cells.value(Http::ACTIVE), cells.value(Http::CLIENT_OPEN)), (0, 0));
    }
    assert_eq!(world.census(&clients), Census::default());
    assert_eq!(world.connections_held(), 0);
    assert_eq!(buf::pool_use().used, blocks_before, "blocks");
    for resource in 0..ledger.count() {
        let text = format!("http://sim.example/{resource}");
        let fetches = store.describe(Key::of(text.as_bytes()), proxies[0].now()).map_or(0, |known| known.fetches.len());
        assert_eq!(fetches, 0, "fetches of {text}");
    }
    let numbers = store.numbers();
    assert!(store.used().0 <= budget.0, "{numbers:?}");
    store.clear();
    assert!(store.used().0 <= used_before.0 + (8 << 10), "{} of {}", store.used(), used_before);
    WORKERS.with(|slot| slot.borrow_mut().clear());
    LEDGER.with(|slot| *slot.borrow_mut() = None);
    Outcome {
        whole: ledger.whole.get(),
        own: ledger.own.get(),
        broken: ledger.broken.get(),
        unchanged: ledger.unchanged.get(),
        fetched: ledger.fetched.get(),
        followed: numbers.followers,
        trace: world.trace(),
    }
}

fn run_seeds(test: &'static str, seeds: std::ops::Range<u64>, faults: impl Fn(u64) -> Faults, calm: bool) {
    let sum = RefCell::new(Outcome::default());
    Seeds::new("beltway-http", test).run(seeds, |seed| {
        let outcome = run_world(seed, faults(seed), calm);
        let mut sum = sum.borrow_mut();
        sum.whole += outcome.whole;
        sum.own += outcome.own;
        sum.broken += outcome.broken;
        sum.unchanged += outcome.unchanged;
        sum.fetched += outcome.fetched;
        sum.followed += outcome.followed;
    });
    let sum = sum.borrow();
    println!("{sum:?}");
    if !Seeds::is_replay() {
        assert!(sum.followed > 0 && sum.unchanged > 0, "the cache is of no use: {sum:?}");
        assert!(!calm || sum.fetched < sum.whole, "the cache is of no use: {sum:?}");
        assert!(calm || (sum.own > 0 && sum.broken > 0), "nothing failed: {sum:?}");
    }
}

#[test]
fn in_a_calm_world_what_is_served_is_what_the_origin_has_or_had() {
    run_seeds("in_a_calm_world_what_is_served_is_what_the_origin_has_or_had", 0..300, |_| Faults::none(), true);
}

#[test]
fn whatever_fails_nothing_false_or_too_old_is_served() {
    run_seeds("whatever_fails_nothing_false_or_too_old_is_served", 0..500, Faults::drawn, false);
}

#[test]
fn a_good_network_brings_out_what_bad_origins_do_to_a_cache() {
    run_seeds("a_good_network_brings_out_what_bad_origins_do_to_a_cache", 1_000..1_400, |_| Faults::none(), false);
}

#[test]
fn the_same_seed_tells_the_same_story_of_a_cache() {
    for seed in 0..10 {
        let story = run_world(seed, Faults::drawn(seed), false);
        assert_eq!(story, run_world(seed, Faults::drawn(seed), false), "seed {seed}");
    }
}
