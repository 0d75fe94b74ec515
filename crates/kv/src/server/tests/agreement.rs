//! Several threads judge the same servers, in any order of what may happen, and a model looks after each step whether they
//! do so rightly.
//!
//! Nothing is asked of the pools: what threads see go well or fail is a script's, so that every failure is known; what
//! answers the probes is a script's as well. Configurations and servers that are ejected by hand reach the threads as in
//! production, each thread in its own time and in the order in which they were given. What must hold:
//!
//! - the failure that reaches the limit ejects, none before it does, counted over all threads since something went well;
//! - an ejected server comes back by an answered probe or by hand, and by each order once;
//! - what is ejected by hand comes back by hand;
//! - one question at a time, none before the configured time is over, none forgotten beyond the longest pause;
//! - threads differ about a server or a key no longer than until each has had a turn;
//! - in the end all are of one mind, and every server that answers is back.
//!
//! Start with [`run_world`]; `model` is what holds it against the threads.

mod model;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Rng};
use buf::{Block, Chunk, SizeClass};
use event::sim::{Faults, Seeds, World};
use event::{Tcp, Thread};

use self::model::{Model, QUESTION_MAX, TICK};
use super::super::judge::Verdict;
use super::super::{Server, State, probe};
use crate::fault::Fault;
use crate::lane::tests::scene::{NAMES, Proxy, listen, server, worker};
use crate::metrics::Kv;
use crate::plan::EjectPolicy;
use crate::pool::Pool;
use crate::{Plan, PoolSource};

const PORTS: [u16; 3] = [6_379, 6_380, 6_381];
/// Longer than this no server is left alone by its pool's configuration.
const RETRY_MAX: Duration = Duration::from_secs(12);
/// How long things happen in a world.
const STORY: Duration = Duration::from_secs(60);
/// Seeds of worlds that found something beyond those that are always run: questions that were under way when a server was
/// put out or taken back by hand, and a verdict that came before the one ahead of it was followed.
const AGAIN: [u64; 7] = [39, 433, 474, 875, 1_254, 1_551, 1_627];
/// How often it is looked at least whether all is as it should be.
const LOOK: Duration = Duration::from_millis(3);

/// What a server says when it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Well,
    Loads,
    Refuses,
    Closes,
    Silent,
}

/// A scripted server.
struct Host {
    port: u16,
    manner: Cell<Manner>,
    /// Questions that it has not answered.
    open: Cell<u32>,
    /// When it was last asked what it then answered well.
    well_asked_at: Cell<Option<Instant>>,
}

impl Host {
    fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    async fn serve(self: Rc<Self>, thread: Thread, tcp: Tcp, stage: Rc<Stage>) {
        let mut block = Block::new(SizeClass::Small);
        // Who asks nothing is left alone.
        if !tcp.recv(&mut block).await.is_ok_and(|got| got > 0) {
            return;
        }
        let asked_at = thread.precise_now();
        self.open.set(self.open.get() + 1);
        stage.model.borrow_mut().asked(&self, asked_at);
        thread.sleep(Duration::from_millis(thread.random() % 4)).await;
        let answer = match self.manner.get() {
            Manner::Well => {
                self.well_asked_at.set(Some(asked_at));
                Some("+PONG\r\n")
            }
            Manner::Loads => Some("-LOADING wait\r\n"),
            Manner::Refuses => Some("-ERR no\r\n"),
            Manner::Closes => None,
            Manner::Silent => {
                let _ = tcp.recv(&mut block).await;
                None
            }
        };
        self.open.set(self.open.get() - 1);
        if let Some(answer) = answer {
            tcp.send(Chunk::from_static(answer.as_bytes()));
            let _ = tcp.recv(&mut block).await;
        }
    }
}

/// What threads are told, each in its own time.
#[derive(Clone)]
enum Order {
    Renew(Arc<Plan>),
    Hold { server: String, out: bool, number: u64 },
}

/// A server as one thread has it, and what is found of it.
type Seen = (*const Server, State, Option<Verdict>);

/// What the tasks of a world share.
struct Stage {
    hosts: Vec<Rc<Host>>,
    /// Of each thread.
    orders: Vec<RefCell<VecDeque<Order>>>,
    newest: RefCell<Arc<Plan>>,
    /// What was looked at last, whether an order was on its way, and when.
    seen: RefCell<(Vec<Seen>, bool, Instant)>,
    model: RefCell<Model>,
    is_over: Cell<bool>,
}

thread_local! {
    static STAGE: RefCell<Option<Rc<Stage>>> = const { RefCell::new(None) };
}

fn pool(thread: usize) -> Rc<Pool> {
    Rc::clone(&worker(thread).pools()[0])
}

fn any<T: Clone>(rng: &mut Rng, of: &[T]) -> T {
    of[usize::try_from(rng.below(of.len() as u64)).unwrap()].clone()
}

impl Stage {
    fn threads(&self) -> usize {
        self.orders.len()
    }

    fn held() -> BTreeSet<String> {
        worker(0).shared().held_of("p").into_iter().collect()
    }

    /// Whether something that was ordered has not reached every thread.
    fn is_on_its_way(&self) -> bool {
        let newest = Arc::as_ptr(&self.newest.borrow().pools[0]);
        let is_newest = |thread| std::ptr::eq(pool(thread).plan(), newest);
        self.orders.iter().any(|orders| !orders.borrow().is_empty()) || !(0..self.threads()).all(is_newest)
    }

    /// Holds the model against the threads, when anything has changed or some time has passed.
    fn look(&self, now: Instant) {
        let pools: Vec<_> = (0..self.threads()).map(pool).collect();
        let servers = pools.iter().flat_map(|pool| pool.servers());
        let verdict = |server: &Server| server.standing.get().map(|standing| standing.verdict());
        let states = servers.map(|server| (Rc::as_ptr(server), server.state.get(), verdict(server))).collect();
        let mut seen = self.seen.borrow_mut();
        let is_on_its_way = self.is_on_its_way();
        if seen.0 == states && seen.1 == is_on_its_way && now - seen.2 < LOOK {
            return;
        }
        *seen = (states, is_on_its_way, now);
        self.model.borrow_mut().look(&pools, &Self::held(), is_on_its_way, now);
    }

    fn order(&self, order: &Order) {
        match order {
            Order::Renew(plan) => *self.newest.borrow_mut() = Arc::clone(plan),
            Order::Hold { server, out, .. } => {
                let shared = worker(0);
                let mut held = shared.shared().held();
                let one = ("p".to_owned(), server.clone());
                if *out {
                    held.insert(one)
                } else {
                    held.remove(&one)
                };
                shared.shared().set_held(held);
            }
        }
        self.orders.iter().for_each(|orders| orders.borrow_mut().push_back(order.clone()));
    }

    /// On a thread: does what it is told, a moment after.
    async fn obey(self: Rc<Self>, thread: Thread, at: usize) {
        let worker = worker(at);
        loop {
            thread.sleep(Duration::from_millis(5 + thread.random() % 50)).await;
            let Some(order) = self.orders[at].borrow().front().cloned() else { continue };
            self.look(worker.now());
            match order {
                Order::Renew(plan) => {
                    worker.renew(&plan, NAMES, |_| {});
                }
                Order::Hold { server, out, number } => {
                    let found = pool(at).servers().iter().find(|other| other.name() == server).cloned();
                    let place = (at, server.clone());
                    let mut model = self.model.borrow_mut();
                    if out {
                        model.held.insert(place)
                    } else {
                        model.held.remove(&place)
                    };
                    if let Some(found) = found.filter(|_| !out) {
                        model.restores(&found, number, at == 0);
                    }
                    drop(model);
                    worker.hold("p", &server, out);
                }
            }
            self.orders[at].borrow_mut().pop_front();
            self.look(worker.now());
            self.model.borrow_mut().is_restored();
        }
    }

    /// On a thread: sees servers fail and do well.
    async fn see(self: Rc<Self>, thread: Thread, at: usize, pause_max: u64) {
        let (worker, mut rng) = (worker(at), Rng::new(thread.random()));
        while !self.is_over.get() {
            thread.sleep(Duration::from_millis(1 + rng.below(pause_max))).await;
            self.look(worker.now());
            let server = any(&mut rng, pool(at).servers());
            let source = &server.plan.source;
            let (limit, ejects) = (source.server_failure_limit, source.auto_eject_hosts);
            let is_well = server.state.get() == State::Well;
            match rng.below(40) {
                0..12 => self.fail(at, &server, any(&mut rng, &[Fault::Refused, Fault::Reset])),
                12..34 => {
                    self.model.borrow_mut().succeeded(&server);
                    server.succeeded();
                }
                34..38 if ejects => {
                    let count = 1 + u32::try_from(rng.below(2)).unwrap();
                    let is_over = self.model.borrow_mut().missed(&server, count, limit);
                    if server.missed(count) != is_over {
                        let wrong = format!("{} missed {count} of {limit}, not {is_over}", server.name());
                        self.model.borrow_mut().say(worker.now(), wrong);
                    }
                    if is_over {
                        self.fail(at, &server, Fault::TimedOut);
                    }
                }
                38 if ejects && is_well => {
                    self.model.borrow_mut().may_go_out(&server);
                    server.retire(&worker);
                }
                39 if ejects && is_well => {
                    self.model.borrow_mut().may_go_out(&server);
                    server.is_gone(&worker);
                }
                _ => {}
            }
            self.look(worker.now());
        }
    }

    fn fail(&self, at: usize, server: &Rc<Server>, fault: Fault) {
        let (worker, source) = (worker(at), &server.plan.source);
        let is_well = server.state.get() == State::Well;
        let limit = if source.auto_eject_hosts { source.server_failure_limit } else { u32::MAX };
        let is_due = is_well && self.model.borrow_mut().failed(server, limit);
        server.failed(&worker, fault, false);
        if is_well && source.auto_eject_hosts && is_due != (server.state.get() == State::Ejected) {
            let wrong = format!("{} is {:?} on thread {at}, which is due: {is_due}", server.name(), server.state.get());
            self.model.borrow_mut().say(worker.now(), wrong);
        }
    }

    /// Servers fall ill and recover.
    async fn weather(self: Rc<Self>, thread: Thread) {
        let mut rng = Rng::new(thread.random());
        while !self.is_over.get() {
            thread.sleep(Duration::from_millis(10 + (rng.below(1_000) << rng.below(5)))).await;
            let ill = any(&mut rng, &[Manner::Loads, Manner::Refuses, Manner::Closes, Manner::Silent]);
            let manner = if rng.one_in(2) { Manner::Well } else { ill };
            any(&mut rng, &self.hosts).manner.set(manner);
        }
        self.hosts.iter().for_each(|host| host.manner.set(Manner::Well));
    }

    /// An operator changes configurations, ejects and restores.
    async fn operate(self: Rc<Self>, thread: Thread, kind: Kind) {
        let (mut rng, mut number) = (Rng::new(thread.random()), 0);
        while !self.is_over.get() {
            thread.sleep(Duration::from_millis(20 + (rng.below(500) << rng.below(6)))).await;
            number += 1;
            let server = any(&mut rng, &self.hosts).name();
            self.order(&match rng.below(4) {
                0 => Order::Hold { server, out: true, number },
                1 => Order::Hold { server, out: false, number },
                _ => Order::Renew(Plan::prepare(vec![source(&mut rng, kind)]).unwrap()),
            });
        }
    }
}

/// What is the same for all configurations of a world.
#[derive(Clone, Copy)]
struct Kind {
    policy: EjectPolicy,
    /// All of them eject who fails.
    ejects: bool,
    /// All of them have all servers.
    is_whole: bool,
}

fn source(rng: &mut Rng, kind: Kind) -> PoolSource {
    let servers = if kind.is_whole || rng.one_in(2) { 3 } else { 2 };
    PoolSource {
        redis: true,
        timeout: Some(QUESTION_MAX / 2),
        auto_eject_hosts: kind.ejects || !rng.one_in(3),
        eject_policy: kind.policy,
        server_failure_limit: 1 + u32::try_from(rng.below(4)).unwrap(),
        server_retry_timeout: any(rng, &[Duration::from_millis(100), Duration::from_secs(1), RETRY_MAX]),
        ..PoolSource::new("p", PORTS[..servers].iter().copied().map(server).collect())
    }
}

/// One world; says how many ejections, returns and probes there were.
fn run_world(seed: u64) -> [u64; 3] {
    let mut rng = Rng::new(seed ^ 0x6a75_6467_6564);
    let sleeps = rng.one_in(2);
    let sleep_max = if sleeps { Duration::from_millis(300) } else { Duration::ZERO };
    let faults = Faults { sleepy: if sleeps { 1 + rng.below(30) } else { 0 }, sleep_max, ..Faults::none() };
    let policy = any(&mut rng, &[EjectPolicy::Rehash, EjectPolicy::Rehash, EjectPolicy::Error, EjectPolicy::Miss]);
    let kind = Kind { policy, ejects: !rng.one_in(3), is_whole: !rng.one_in(3) };
    let threads = usize::try_from(2 + rng.below(3)).unwrap();
    let world = World::new(seed, faults);
    let serving = world.thread("servers").unwrap();
    for (at, port) in (0..).zip(PORTS) {
        listen(&world, &serving, port, move |thread, tcp| {
            if let Some(stage) = STAGE.with_borrow(Clone::clone) {
                let host = Rc::clone(&stage.hosts[at]);
                thread.spawn("server", host.serve(thread.clone(), tcp, stage));
            }
        });
    }
    let proxy = Proxy::start(&world, vec![source(&mut rng, Kind { is_whole: true, ..kind })], threads);
    proxy.keep_house(TICK);
    let host =
        |port| Host { port, manner: Cell::new(Manner::Well), open: Cell::new(0), well_asked_at: Cell::new(None) };
    let hosts: Vec<_> = PORTS.into_iter().map(|port| Rc::new(host(port))).collect();
    let stage = Rc::new(Stage {
        model: RefCell::new(Model::new(hosts.clone(), sleep_max)),
        hosts,
        orders: proxy.threads.iter().map(|_| RefCell::default()).collect(),
        // Replaced by the first order.
        newest: RefCell::new(Plan::prepare(vec![source(&mut rng, kind)]).unwrap()),
        seen: RefCell::new((Vec::new(), false, Instant::ORIGIN)),
        is_over: Cell::new(false),
    });
    STAGE.set(Some(Rc::clone(&stage)));
    let first = Order::Renew(Arc::clone(&stage.newest.borrow()));
    stage.order(&first);
    let pause_max = any(&mut rng, &[20, 200, 2_000]);
    for (at, thread) in proxy.threads.iter().enumerate() {
        thread.spawn("orders", Rc::clone(&stage).obey(thread.clone(), at));
        thread.spawn("seeing", Rc::clone(&stage).see(thread.clone(), at, pause_max));
    }
    serving.spawn("weather", Rc::clone(&stage).weather(serving.clone()));
    serving.spawn("operator", Rc::clone(&stage).operate(serving.clone(), kind));

    let run_for = |time: Duration| {
        let until = world.now() + time;
        let is_wrong = || {
            stage.look(world.now());
            !stage.model.borrow().wrong.is_empty()
        };
        world.run_until(|| is_wrong() || world.now() >= until, time + RETRY_MAX).unwrap();
        let wrong = std::mem::take(&mut stage.model.borrow_mut().wrong);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    };
    run_for(STORY);
    stage.is_over.set(true);
    // Every task has seen that it is over, and whoever is out has been asked once more.
    run_for(Duration::from_secs(20) + (RETRY_MAX.max(probe::INTERVAL_MAX) + QUESTION_MAX) * 2);
    let states = || (0..threads).map(|thread| pool(thread).states()).collect::<Vec<_>>();
    let held = Stage::held();
    let as_it_should = |(name, state): &(String, &str)| *state == if held.contains(name) { "held" } else { "live" };
    assert!(!stage.is_on_its_way() && states().iter().flatten().all(as_it_should), "{held:?} {:?}", states());
    let count = |cells: &stats::Cells<Kv>| cells.value(Kv::EJECTIONS);
    let out = pool(0).servers().iter().filter(|server| !server.is_live()).count() as u64;
    assert_eq!(proxy.cells[0].value(Kv::EJECTED), out);
    for host in &stage.hosts {
        stage.order(&Order::Hold { server: host.name(), out: false, number: u64::MAX });
    }
    run_for(Duration::from_secs(2));
    assert!(states().iter().flatten().all(|(_, state)| *state == "live"), "{:?}", states());
    let model = stage.model.borrow();
    assert_eq!(proxy.cells.iter().map(count).sum::<u64>(), model.ejections);
    STAGE.set(None);
    [model.ejections, model.returns, model.probes]
}

#[test]
fn threads_that_judge_together_are_of_one_mind_whatever_they_see_and_are_told() {
    let (sums, worlds) = (Cell::new([0; 3]), Cell::new(0));
    let name = "server::tests::agreement::threads_that_judge_together_are_of_one_mind_whatever_they_see_and_are_told";
    Seeds::new("beltway-kv", name).run(0..30, |seed| {
        let (sum, of_world) = (sums.get(), run_world(seed));
        sums.set([0, 1, 2].map(|at| sum[at] + of_world[at]));
        worlds.set(worlds.get() + 1);
    });
    let [ejections, returns, probes] = sums.get();
    println!("{ejections} ejections, {returns} returns, {probes} probes");
    // Of few worlds each may be a quiet one.
    let least = if worlds.get() < 30 { 0 } else { worlds.get() * 30 };
    assert!([ejections, returns, probes].iter().all(|count| *count >= least), "{:?}", sums.get());
}

#[test]
fn worlds_in_which_something_once_went_wrong_go_well() {
    for seed in AGAIN {
        println!("seed {seed}");
        run_world(seed);
    }
}
