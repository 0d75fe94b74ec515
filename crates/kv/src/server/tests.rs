//! What the threads of a process find of a server together, and that a panic ends nobody's looking after it for good.

mod agreement;

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buf::{Block, Chunk, SizeClass};
use event::Tcp;
use event::sim::{Faults, Stuck, World};

use super::{Server, State};
use crate::fault::Fault;
use crate::lane::tests::scene::{NAMES, Proxy, listen, server, worker};
use crate::numbers::Numbers;
use crate::{Plan, PoolSource};

const PORT: u16 = 6_379;

/// Where something panics, as a test wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    Probe,
    Verdict,
}

thread_local! {
    static PANICS: RefCell<Vec<At>> = const { RefCell::new(Vec::new()) };
}

/// Once for each time that it was told.
pub(super) fn panic_if_told(at: At) {
    let is_told = PANICS.with_borrow_mut(|panics| {
        let found = panics.iter().position(|told| *told == at);
        found.map(|place| panics.remove(place)).is_some()
    });
    assert!(!is_told, "as the test wants it");
}

fn source(limit: u32) -> PoolSource {
    let servers = vec![server(PORT), server(PORT + 1)];
    let server_retry_timeout = Duration::from_millis(100);
    PoolSource {
        redis: true,
        auto_eject_hosts: true,
        server_failure_limit: limit,
        server_retry_timeout,
        ..PoolSource::new("p", servers)
    }
}

#[test]
fn what_one_thread_saw_fail_is_forgiven_by_what_another_saw_go_well() {
    let plan = Plan::prepare(vec![source(2)]).unwrap();
    let [one, other] = [(), ()].map(|()| Server::new(Weak::new(), &plan.pools[0], 0, &Numbers::detached()));
    assert!(!one.missed(1));
    other.succeeded();
    assert!(!one.missed(1), "it was not the second in a row");
    assert!(one.missed(1));
}

/// Lets some time pass in a world that stops after each turn of a thread on which something has panicked.
fn settle(world: &World, time: Duration) {
    let until = world.now() + time;
    for _ in 0..100_000 {
        match world.run_for(Duration::from_millis(1)) {
            Ok(()) | Err(Stuck::Panicked(..)) if world.now() >= until => return,
            Ok(()) | Err(Stuck::Panicked(..)) => {}
            Err(stuck) => panic!("{stuck:?}"),
        }
    }
    panic!("time does not pass");
}

fn server_of(thread: usize, place: usize) -> Rc<Server> {
    Rc::clone(&worker(thread).pools()[0].servers()[place])
}

/// Answers whatever it is asked.
async fn answer(tcp: Tcp) {
    let mut block = Block::new(SizeClass::Medium);
    while tcp.recv(&mut block).await.is_ok_and(|got| got > 0) {
        block = Block::new(SizeClass::Medium);
        tcp.send(Chunk::from_static(b"+PONG\r\n"));
    }
}

/// Has a thread take a configuration.
fn renew(thread: usize, source: PoolSource) {
    worker(thread).renew(&Plan::prepare(vec![source]).unwrap(), NAMES, |_| {});
}

/// The first thread finds that server dead.
fn eject(proxy: &Proxy, place: usize) {
    proxy.threads[0].spawn("test", async move {
        server_of(0, place).failed(&worker(0), Fault::Refused, false);
    });
}

#[test]
fn a_panic_ends_neither_probing_nor_following() {
    let world = World::new(1, Faults::none());
    let servers = world.thread("servers").unwrap();
    let proxy = Proxy::start(&world, vec![source(1)], 2);
    proxy.keep_house(Duration::from_millis(200));
    let states = |place| [0, 1].map(|thread| server_of(thread, place).state.get());
    let panics = || proxy.threads.iter().map(|thread| thread.stats().panics().0).collect::<Vec<_>>();
    let second = Duration::from_secs(1);
    settle(&world, second);

    PANICS.with_borrow_mut(|panics| panics.extend([At::Probe, At::Verdict]));
    eject(&proxy, 1);
    settle(&world, second);
    assert_eq!(panics().iter().sum::<u64>(), 2, "{:?}", panics());
    assert_eq!(server_of(0, 1).state.get(), State::Ejected);
    eject(&proxy, 0);
    settle(&world, second);
    assert_eq!((states(0), states(1)), ([State::Ejected; 2], [State::Ejected; 2]), "verdicts are followed on");

    for place in 0..2 {
        listen(&world, &servers, PORT + place, |thread, tcp| {
            thread.spawn("server", answer(tcp));
        });
    }
    settle(&world, second * 30);
    assert_eq!((states(0), states(1)), ([State::Well; 2], [State::Well; 2]), "whom nobody probed is probed again");
}

#[test]
fn a_probe_that_is_answered_during_a_reload_costs_no_pause() {
    let world = World::new(1, Faults::none());
    let servers = world.thread("servers").unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let (second, moment) = (Duration::from_secs(1), Duration::from_millis(20));
    listen(&world, &servers, PORT, move |thread, tcp| {
        let (own, count) = (thread.clone(), Arc::clone(&count));
        thread.spawn("server", async move {
            count.fetch_add(1, Ordering::Relaxed);
            own.sleep(moment).await;
            answer(tcp).await;
        });
    });
    let source = PoolSource { server_retry_timeout: second * 30, timeout: Some(second / 5), ..source(1) };
    let proxy = Proxy::start(&world, vec![source.clone()], 2);
    proxy.keep_house(second / 5);
    eject(&proxy, 0);
    world.run_until(|| asked.load(Ordering::Relaxed) == 1, second * 40).unwrap();
    (0..2).for_each(|thread| renew(thread, source.clone()));
    settle(&world, moment * 2);
    assert_eq!(server_of(0, 0).state.get(), State::Ejected, "nobody heard the answer");
    settle(&world, second);
    assert_eq!([0, 1].map(|thread| server_of(thread, 0).state.get()), [State::Well; 2]);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[test]
fn a_server_that_is_back_is_not_down_to_a_thread_that_has_yet_to_hear_of_it() {
    let world = World::new(1, Faults::none());
    let proxy = Proxy::start(&world, vec![source(1)], 2);
    eject(&proxy, 0);
    settle(&world, Duration::from_millis(10));
    assert_eq!(server_of(1, 0).state.get(), State::Ejected);
    server_of(0, 0).restored(&worker(0));
    renew(1, PoolSource { auto_eject_hosts: false, ..source(1) });
    assert_eq!(server_of(1, 0).state.get(), State::Well);
}

#[test]
fn a_server_that_a_reload_took_away_is_out_on_no_thread() {
    let registered = |plan: &Arc<Plan>| {
        let mut registry = stats::Registry::new();
        let ledger = crate::numbers::Ledger::declare(&mut registry, plan).unwrap();
        let segment = registry.layout(1).unwrap().create_on_heap(stats::Identity::default()).unwrap();
        (ledger.numbers(&segment, 0).unwrap(), segment)
    };
    let plan = Plan::prepare(vec![source(1)]).unwrap();
    let (numbers, segment) = registered(&plan);
    let world = World::new(1, Faults::none());
    let _proxy = Proxy::start(&world, vec![source(1)], 1);
    let pool = Rc::clone(&worker(0).pools()[0]);
    let old = Server::new(Rc::downgrade(&pool), &plan.pools[0], 0, &numbers);
    old.state.set(State::Ejected);
    old.tell();
    let ejected = || {
        let read = stats::Snapshot::read(segment.words()).unwrap();
        let labels = [("pool", "p"), ("server", old.name())];
        read.metric("beltway_kv_server_ejected_threads", &labels).unwrap().value.clone()
    };
    let before = ejected();
    old.depart(&worker(0), &pool);
    assert_ne!(before, ejected());
    old.state.set(State::Well);
    old.tell();
    let told = ejected();
    old.depart(&worker(0), &pool);
    assert_eq!(told, ejected());
}
