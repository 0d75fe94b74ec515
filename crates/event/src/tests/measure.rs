//! What a loop says of itself, its bounds of work, and time.

use stats::{BeatState, Registry, Segment, Snapshot};

use super::*;
use crate::metrics::Loop;

fn segment() -> Segment {
    let mut registry = Registry::new();
    registry.add::<Loop>().unwrap();
    let identity = stats::Identity { pid: 1, generation: 1, started_micros: 0 };
    registry.layout(1).unwrap().create_on_heap(identity).unwrap()
}

pub(super) fn thread_at(clock: &base::ManualClock) -> Thread {
    let external = Arc::new(crate::external::External::new().unwrap());
    let driver = crate::driver::Driver::epoll(external.wake()).unwrap();
    let options = ThreadOptions { name: "[test]".into(), index: 0, seed: 1 };
    Thread::with(options, external, driver, crate::thread::ThreadClock::Manual(clock.clone())).unwrap()
}

#[test]
fn the_segment_shows_what_runs_now_and_nothing_between_turns() {
    let segment = segment();
    let thread = thread();
    thread.set_beat(segment.beat(0).unwrap());
    let seen = Rc::new(RefCell::new(Vec::new()));
    for name in ["http client session", "kv server connection"] {
        let (seen, segment) = (Rc::clone(&seen), segment.clone());
        thread.spawn(name, async move {
            for _ in 0..2 {
                seen.borrow_mut().push(Snapshot::read(segment.words()).unwrap().beats[0].running.clone().unwrap());
                yield_now().await;
            }
        });
    }
    thread.turn(false).unwrap();
    let beat = Snapshot::read(segment.words()).unwrap().beats[0].clone();
    assert_eq!((beat.running, beat.turns), (None, 1));
    thread.turn(false).unwrap();
    let (session, server) = ("http client session".to_owned(), "kv server connection".to_owned());
    assert_eq!(*seen.borrow(), [session.clone(), server.clone(), session, server]);
    thread.stop();
    thread.run().unwrap();
    assert_eq!(Snapshot::read(segment.words()).unwrap().beats[0].state, BeatState::Ended);
}

#[test]
fn turns_queue_depth_and_lateness_are_distributions_in_the_segment() {
    let segment = segment();
    let clock = base::ManualClock::default();
    let thread = thread_at(&clock);
    thread.set_cells(segment.cells::<Loop>(0).unwrap());
    for _ in 0..10 {
        thread.spawn("one of ten", async {});
    }
    let (_, cont) = recorder();
    let _late = thread.schedule_in(cont, Duration::from_millis(5));
    thread.turn(false).unwrap();
    clock.advance(Duration::from_millis(7));
    thread.handle().run(|_| ()).unwrap();
    thread.turn(false).unwrap();
    let cells = segment.cells::<Loop>(0).unwrap();
    assert_eq!((cells.distribution(Loop::QUEUE).count(), cells.distribution(Loop::QUEUE).sum()), (1, 10));
    assert!(cells.distribution(Loop::TURN).count() >= 2);
    let lateness = cells.distribution(Loop::LATENESS);
    assert_eq!(lateness.count(), 1);
    assert!((1_000_000..=2_000_000).contains(&lateness.sum()), "{}", lateness.sum());
    assert_eq!(cells.distribution(Loop::MESSAGES).sum(), 1);
    assert_eq!(cells.value(Loop::TURNS), 2);
    let snapshot = Snapshot::read(segment.words()).unwrap();
    let named = |name: &str| snapshot.metrics.iter().any(|metric| metric.name == name);
    assert!(named("beltway_event_turn_seconds") && named("beltway_event_queue_depth"));
}

#[test]
fn the_longest_continuation_is_known_by_name() {
    // By a clock of its own: by the machine's, whoever another process interrupts would be the longest.
    let clock = base::ManualClock::default();
    let thread = thread_at(&clock);
    let hog = move || {
        let clock = clock.clone();
        async move {
            loop {
                clock.advance(Duration::from_millis(4));
                yield_now().await;
            }
        }
    };
    let alone = thread.spawn("alone", hog());
    thread.turn(false).unwrap();
    let longest = thread.stats().take_longest_continuation();
    assert_eq!(longest.names, ["alone"]);
    assert!(longest.took >= Duration::from_millis(4), "{longest:?}");
    alone.cancel();
    let _hog = thread.spawn("among others", hog());
    let _other = thread.spawn("innocent", async {
        loop {
            yield_now().await;
        }
    });
    thread.turn(false).unwrap();
    let several = thread.stats().take_longest_continuation();
    assert!(several.names.contains(&"among others"), "one of several: {several:?}");
    thread.turn(false).unwrap();
    thread.turn(false).unwrap();
    let longest = thread.stats().take_longest_continuation();
    assert_eq!(longest.names, ["among others"], "and from then on they are timed one by one");
    assert!(thread.stats().take_longest() >= Duration::from_millis(4));
}

#[test]
fn a_million_pending_timers_do_not_slow_the_loop() {
    let clock = base::ManualClock::default();
    let thread = thread_at(&clock);
    let (seen, cont) = recorder();
    let mut pending = Vec::with_capacity(1_000_000);
    for n in 0..1_000_000_u64 {
        let after = Duration::from_millis(10_000 + n.wrapping_mul(7_919) % 7_200_000);
        pending.push(thread.schedule_in(Rc::clone(&cont), after));
    }
    let turns = |count: u32| {
        // Processor time stands still while others run.
        let before = sys::thread::cpu_time_ns();
        for _ in 0..count {
            clock.advance(Duration::from_micros(100));
            thread.turn(false).unwrap();
        }
        Duration::from_nanos(sys::thread::cpu_time_ns() - before) / count
    };
    let each = turns(20_000);
    assert!(each < Duration::from_micros(100), "{each:?} a turn");
    assert!(seen.borrow().events.is_empty());
    assert_eq!(thread.timers_pending(), 1_000_000);
    pending.truncate(1_000);
    assert_eq!(thread.timers_pending(), 1_000);
}

#[test]
fn civil_time_may_jump_and_a_suspend_fires_everything_once() {
    let clock = base::ManualClock::new(base::WallTime::from_secs(1_000_000));
    let thread = thread_at(&clock);
    let (seen, cont) = recorder();
    let start = thread.now();
    let kept = [thread.schedule_in(Rc::clone(&cont), Duration::from_secs(1)), {
        thread.schedule_at(Rc::clone(&cont), start + Duration::from_secs(3_600))
    }];
    let _every = thread.schedule_every(Rc::clone(&cont), Duration::from_secs(10));
    // An administrator sets the clock a year ahead, and two years back.
    clock.set_wall(base::WallTime::from_secs(32_000_000));
    thread.turn(false).unwrap();
    clock.set_wall(base::WallTime::from_secs(-31_000_000));
    thread.turn(false).unwrap();
    assert!(seen.borrow().events.is_empty());
    // The machine stood still for a day, and the monotonic clock went on.
    clock.advance(Duration::from_secs(86_400));
    thread.turn(false).unwrap();
    assert_eq!(seen.borrow().events, [Event::Interval; 3]);
    thread.turn(false).unwrap();
    clock.advance(Duration::from_secs(9));
    thread.turn(false).unwrap();
    assert_eq!(seen.borrow().events.len(), 3, "no burst for what was missed");
    clock.advance(Duration::from_secs(1));
    thread.turn(false).unwrap();
    assert_eq!(seen.borrow().events.len(), 4);
    drop(kept);
}

#[test]
fn a_turn_takes_a_bounded_number_of_messages_so_that_timers_and_sockets_come_too() {
    let thread = thread();
    let done = Rc::new(Cell::new(false));
    thread.spawn("modest", {
        let (thread, done) = (thread.clone(), Rc::clone(&done));
        async move {
            thread.sleep(Duration::from_millis(1)).await;
            done.set(true);
        }
    });
    let handle = thread.handle();
    for _ in 0..100_000 {
        handle.run(|_| ()).unwrap();
    }
    let before = handle.queued();
    thread.turn(false).unwrap();
    assert!(before - handle.queued() <= 1_024);
    turn_until(&thread, || done.get());
    assert!(handle.queued() > 0 || thread.stats().turns() >= 98, "the timer did not wait for the last message");
}

#[test]
fn one_connection_sends_a_bounded_amount_a_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread();
    let connection = Rc::new(RefCell::new(None));
    thread.spawn("client", {
        let (thread, connection) = (thread.clone(), Rc::clone(&connection));
        async move {
            let tcp = Tcp::connect(&thread, address, thread.now() + PATIENCE).await.unwrap();
            *connection.borrow_mut() = Some(tcp);
        }
    });
    turn_until(&thread, || connection.borrow().is_some());
    let _peer = listener.accept().unwrap();
    let tcp = connection.borrow_mut().take().unwrap();
    // Four system calls of so many pieces each, and ten pieces more: all of them more than is put together before.
    const PIECE: &[u8] = &[b'x'; 100];
    let most = 4 * buf::SLICES_MAX;
    for _ in 0..most + 10 {
        tcp.send(Chunk::from_static(PIECE));
    }
    thread.turn(false).unwrap();
    assert_eq!(tcp.queued(), 10 * PIECE.len(), "the rest waits for the next turn, behind the others");
    thread.turn(false).unwrap();
    assert_eq!(tcp.queued(), 0);
}

#[test]
fn a_panic_gives_back_all_that_its_continuation_held() {
    let processor_threads = 1;
    let fd = sys::socket::listen("127.0.0.1:0".parse().unwrap(), 16).unwrap();
    let address = sys::socket::local_address(&fd).unwrap().unwrap();
    let shares = Shares::new(processor_threads, 100);
    let listener = Listener::new(fd, Arc::clone(&shares), Arc::default(), |thread, tcp| {
        thread.spawn("panics", async move {
            let mut block = Block::new(SizeClass::Medium);
            let _ = tcp.recv(&mut block).await;
            let _held = (block, Block::new(SizeClass::Large));
            panic!("on purpose");
        });
    })
    .unwrap();
    let thread = thread();
    listener.accept_on(&thread).unwrap();
    let before = buf::pool_use().used;
    for round in 1..=3 {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"x").unwrap();
        turn_until(&thread, || thread.stats().panics().0 == round && shares.open() == 0);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the connection is closed, and that one only");
    }
    assert_eq!(buf::pool_use().used, before, "blocks are back");
    assert_eq!(thread.tasks_live(), 3, "the ticking of this test alone");
    assert_eq!(thread.stats().panics_by_name(), [("panics", 3)]);
}

#[test]
fn a_periodic_event_that_panics_is_over_and_others_go_on() {
    struct Panics;
    impl Continuation for Panics {
        fn handle_event(&mut self, _event: Event, _thread: &Thread) {
            panic!("on purpose");
        }
        fn name(&self) -> &'static str {
            "panics"
        }
    }
    let thread = thread();
    let (seen, cont) = recorder();
    let _bad = thread.schedule_every(Rc::new(RefCell::new(Panics)), Duration::from_millis(1));
    let _good = thread.schedule_every(cont, Duration::from_millis(1));
    turn_until(&thread, || seen.borrow().events.len() >= 5);
    assert_eq!(thread.stats().panics(), (1, "panics"));
}
