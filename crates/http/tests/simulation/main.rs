//! The HTTP proxy in simulated worlds: two proxy threads, scripted origins and clients, a network that misbehaves, and
//! a ledger in which every answer is judged.
//!
//! What must hold in every world:
//! - an answer is an origin's own, to this very request, byte for byte, or the proxy's own refusal;
//! - a body that broke off never looks whole, in either direction;
//! - a request that is not idempotent reaches origins at most once;
//! - every request is answered, or its connection ends, within a bound;
//! - nothing panics, and in the end nothing is left: no task, timer, connection or block.
//!
//! And in a calm world, where nothing fails: every request has its answer, whole.
//!
//! `script` says what there is to do, `origin` and `client` do it with `peer`, which reads and writes HTTP.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod client;
mod origin;
mod peer;
mod script;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::Rng;
use event::sim::{Census, Faults, Seeds, World};
use event::{Shares, Thread};
use http::{Http, Plan, Worker, WorkerParts};
use net::{Names, NamesOptions, Pool, PoolOptions, SharedPool};
use stats::Cells;

use self::script::{Dice, Ledger};

const PROXY: &str = "127.0.0.1:8080";
const ORIGINS: [&str; 3] = ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.3:8083"];
/// Nobody listens here.
const DEAD: &str = "127.0.0.1:8089";
/// Clients are through with everything in this time, each of the client's waits at its longest.
const WORLD_MAX: Duration = Duration::from_secs(40_000);
/// Every time limit of proxy and origins passes in this.
const AFTERMATH: Duration = Duration::from_secs(2_000);
const PROXY_THREADS: usize = 2;

thread_local! {
    /// What a listener's threads reach: a world has one of each.
    static WORKERS: RefCell<Vec<Worker>> = const { RefCell::new(Vec::new()) };
    static LEDGER: RefCell<Option<Rc<Ledger>>> = const { RefCell::new(None) };
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn plan(calm: bool) -> Arc<Plan> {
    // A client that reads slowly looks idle long before it asks again: that is no fault of a calm world.
    let keep_alive = if calm { "10m" } else { "20s" };
    let [first, second, named] = ORIGINS;
    let text = format!(
        "http:
  listen: [\"{PROXY}\"]
  remap:
    - {{from: \"/a\", to: \"http://{first}/\"}}
    - {{from: \"/b\", to: [\"http://{second}/x\", \"http://{first}/y\"], host_header: origin}}
    - {{from: \"/c\", to: \"http://named.example:{}/\"}}
    - {{from: \"/d\", to: [\"http://{DEAD}/\", \"http://{second}/\"]}}
  timeouts:
    origin_connect: 5s
    keep_alive: {keep_alive}
",
        address(named).port()
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
    turns: u64,
    trace: u64,
}

fn run_world(seed: u64, faults: Faults, calm: bool) -> Outcome {
    let blocks_before = buf::pool_use().used;
    let mut rng = Rng::new(seed ^ 0x0068_7474_7000);
    // Where bytes come singly, there are not many of them; and long bodies are rare.
    let most = if rng.one_in(16) { 1 << 17 } else { 1 << 13 };
    let length_max = (faults.segment_max as u64 * 64).clamp(256, most);
    let ledger = Rc::new(Ledger { calm, cuts: faults.cut > 0, ..Ledger::default() });
    let world = World::new(seed, faults);
    if Seeds::is_replay() {
        world.narrate();
    }
    world.name("named.example", &[address(ORIGINS[2]).ip()]);
    LEDGER.with(|slot| *slot.borrow_mut() = Some(Rc::clone(&ledger)));

    let origins = world.thread("origins").unwrap();
    let origin_shares = Shares::new(1, 1_000);
    for at in ORIGINS {
        let listener = world.listen(address(at), 64, Arc::clone(&origin_shares), Arc::default(), |thread, tcp| {
            let ledger = LEDGER.with(|slot| slot.borrow().clone());
            if let Some(ledger) = ledger {
                thread.spawn("origin", origin::serve(tcp, ledger));
            }
        });
        listener.accept_on(&origins).unwrap();
    }

    let proxies = world.group("proxy", PROXY_THREADS).unwrap();
    let shares = Shares::new(PROXY_THREADS, if calm { 1_000 } else { 2 + usize::try_from(rng.below(20)).unwrap() });
    let peers = Arc::new(OnceLock::new());
    peers.set(proxies.iter().map(Thread::handle).collect()).unwrap();
    let shared_pool: Arc<SharedPool> = Arc::default();
    let plan = plan(calm);
    let cells: Vec<Cells<Http>> = proxies.iter().map(|_| Cells::detached()).collect();
    let workers: Vec<Worker> = proxies
        .iter()
        .zip(&cells)
        .map(|(thread, &cells)| {
            Worker::new(WorkerParts {
                thread: thread.clone(),
                plan: Arc::clone(&plan),
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
                cache: None,
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
    let mut ticks = Vec::new();
    for (thread, worker) in proxies.iter().zip(&workers) {
        listener.accept_on(thread).unwrap();
        let (clock, worker) = (thread.clone(), worker.clone());
        ticks.push(thread.spawn("house-keeping", async move {
            loop {
                clock.sleep(Duration::from_secs(3)).await;
                worker.tick();
            }
        }));
    }
    drop(listener);

    let clients = world.thread("clients").unwrap();
    let count = 1 + rng.below(6);
    let mut dice = Dice { rng: Rng::new(rng.next_u64()), calm, length_max };
    for client in 0..count {
        let http10 = rng.one_in(6);
        let ids: Vec<u64> = (0..1 + rng.below(8)).map(|n| (client + 1) * client::IDS_PER_CLIENT + n).collect();
        for &id in &ids {
            ledger.exchanges.borrow_mut().insert(id, dice.exchange(http10));
        }
        let talk = client::run(clients.clone(), address(PROXY), ids, http10, Rc::clone(&ledger));
        clients.spawn("client", talk);
    }
    let drains_at = (!calm && rng.one_in(8)).then(|| world.now() + Duration::from_millis(rng.below(3_000)));
    let mut drained = false;
    let over = world.run_until(
        || {
            if !drained && drains_at.is_some_and(|at| world.now() >= at) {
                drained = true;
                shares.drain();
                workers.iter().for_each(Worker::drain);
            }
            ledger.clients_over.get() == count
        },
        WORLD_MAX,
    );
    let wrong = ledger.wrong.borrow();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(over, Ok(()), "{} of {count} clients are through", ledger.clients_over.get());

    // Then everything that waits comes to the end of its patience, and nothing is left.
    for tick in ticks {
        tick.cancel();
    }
    world.run_for(AFTERMATH).unwrap();
    for (thread, worker) in proxies.iter().zip(workers.clone()) {
        thread.spawn("house-keeping", async move { worker.tick() });
    }
    world.run_for(Duration::from_secs(10)).unwrap();
    assert_eq!(shares.open(), 0, "client connections");
    assert_eq!((shared_pool.len(), origin_shares.open()), (0, 0), "origin connections");
    for (thread, cells) in proxies.iter().zip(&cells) {
        let Census { tasks, queued, timers, sources } = world.census(thread);
        let listeners = usize::from(!drained);
        assert_eq!((tasks, queued, timers, sources), (0, 0, 0, listeners), "{thread:?}");
        assert_eq!((cells.value(Http::ACTIVE), cells.value(Http::CLIENT_OPEN)), (0, 0));
    }
    assert_eq!(world.census(&clients), Census::default());
    assert_eq!(world.connections_held(), 0);
    assert_eq!(buf::pool_use().used, blocks_before, "blocks");
    let outcome = Outcome {
        whole: ledger.whole.get(),
        own: ledger.own.get(),
        broken: ledger.broken.get(),
        turns: world.turns(),
        trace: world.trace(),
    };
    drop(wrong);
    WORKERS.with(|slot| slot.borrow_mut().clear());
    LEDGER.with(|slot| *slot.borrow_mut() = None);
    outcome
}

fn run_seeds(test: &'static str, seeds: std::ops::Range<u64>, faults: impl Fn(u64) -> Faults, calm: bool) {
    let sum = RefCell::new(Outcome::default());
    Seeds::new("beltway-http", test).run(seeds, |seed| {
        let outcome = run_world(seed, faults(seed), calm);
        let mut sum = sum.borrow_mut();
        sum.whole += outcome.whole;
        sum.own += outcome.own;
        sum.broken += outcome.broken;
        sum.turns += outcome.turns;
    });
    let sum = sum.borrow();
    println!("{} whole, {} own, {} broken off, {} turns", sum.whole, sum.own, sum.broken, sum.turns);
    if !Seeds::is_replay() {
        assert!(sum.whole > 0 && (calm || (sum.own > 0 && sum.broken > 0)), "{sum:?}");
    }
}

#[test]
fn in_a_calm_world_every_request_has_its_answer() {
    run_seeds("in_a_calm_world_every_request_has_its_answer", 0..400, |_| Faults::none(), true);
}

#[test]
fn whatever_fails_no_answer_is_false_and_nothing_is_left() {
    run_seeds("whatever_fails_no_answer_is_false_and_nothing_is_left", 0..700, Faults::drawn, false);
}

#[test]
fn whatever_fails_no_answer_is_false_and_nothing_is_left_again() {
    run_seeds("whatever_fails_no_answer_is_false_and_nothing_is_left_again", 700..1_400, Faults::drawn, false);
}

#[test]
fn a_good_network_brings_out_what_bad_origins_do() {
    run_seeds("a_good_network_brings_out_what_bad_origins_do", 2_000..2_400, |_| Faults::none(), false);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in 0..10 {
        let story = run_world(seed, Faults::drawn(seed), false);
        assert_eq!(story, run_world(seed, Faults::drawn(seed), false), "seed {seed}");
    }
}
