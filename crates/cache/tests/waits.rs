//! Waits with bounds, in a simulated world: whatever becomes of a writer, nobody waits for ever.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::{ByteCount, Instant};
use cache::{
    Awaited, Cut, Entrance, Follower, Head, Key, Lane, Next, RamOptions, RamStore, Reason, Role, Seen, Store, Tags,
    Writer,
};
use event::Thread;
use event::sim::{Faults, World};

const STALL: Duration = Duration::from_secs(10);

fn store() -> RamStore {
    RamStore::new(RamOptions { stall: STALL, ..RamOptions::new(ByteCount(8 << 20), 1) })
}

fn enter(store: &RamStore, now: Instant) -> Role {
    store.enter(Entrance { key: Key::of(b"/a"), lane: Lane::PRIMARY, seen: Seen::NOTHING, now })
}

fn writer(store: &RamStore, now: Instant) -> Writer {
    let Role::Writer(writer) = enter(store, now) else { panic!("a writer was expected") };
    writer
}

fn follower(store: &RamStore, now: Instant) -> Follower {
    let Role::Follow(follower) = enter(store, now) else { panic!("a follower was expected") };
    follower
}

fn head() -> Head {
    Head { metadata: Arc::from(&b"head"[..]), tags: Tags::NONE, expected: None }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A world with one thread, and what is awaited on it.
fn world() -> (World, Thread) {
    let world = World::new(1, Faults::none());
    let thread = world.thread("ET_NET 0").expect("a thread");
    (world, thread)
}

/// Awaits a head until `until` after now and says what it came to, and when.
fn awaiting(thread: &Thread, follower: Follower, until: Duration) -> Rc<RefCell<Option<(Awaited, Instant)>>> {
    let result = Rc::new(RefCell::new(None));
    let (set, me) = (Rc::clone(&result), thread.clone());
    drop(thread.spawn("follower", async move {
        let awaited = follower.head_by(&me, me.now() + until).await;
        *set.borrow_mut() = Some((awaited, me.now()));
    }));
    result
}

#[test]
fn a_writer_that_is_silent_before_its_head_is_replaced_by_one_of_those_who_wait_and_the_others_wait_for_that() {
    let (world, thread) = world();
    let store = store();
    let start = thread.now();
    let _silent = writer(&store, start);
    let waiting: Vec<_> = (0..5).map(|_| awaiting(&thread, follower(&store, start), seconds(60))).collect();
    world.run_until(|| waiting.iter().any(|one| one.borrow().is_some()), seconds(20)).unwrap();
    let mut done: Vec<_> = waiting.iter().filter(|one| one.borrow().is_some()).collect();
    assert_eq!(done.len(), 1);
    let (awaited, when) = done.pop().unwrap().borrow_mut().take().unwrap();
    assert!(when - start >= STALL && when - start < STALL + seconds(1), "{:?}", when - start);
    let Awaited::Write(mut writer) = awaited else { panic!("{awaited:?}") };
    writer.start(head(), thread.now());
    world.run_until(|| waiting.iter().filter(|one| one.borrow().is_some()).count() == 4, seconds(1)).unwrap();
    for one in waiting.iter().filter_map(|one| one.take()) {
        assert!(matches!(one.0, Awaited::Response { .. }), "{:?}", one.0);
    }
    assert_eq!(store.numbers().handed_over, 1);
}

#[test]
fn a_writer_that_dies_is_replaced_at_once() {
    let (world, thread) = world();
    let store = store();
    let dies = writer(&store, thread.now());
    let waiting = awaiting(&thread, follower(&store, thread.now()), seconds(60));
    world.run_for(seconds(3)).unwrap();
    assert!(waiting.borrow().is_none());
    drop(dies);
    world.run_until(|| waiting.borrow().is_some(), seconds(1)).unwrap();
    assert!(matches!(waiting.take(), Some((Awaited::Write(_), _))));
}

#[test]
fn a_writer_that_is_alive_and_slow_is_waited_for_until_the_bound_and_no_longer() {
    let (world, thread) = world();
    let store = store();
    let start = thread.now();
    let slow = Rc::new(writer(&store, start));
    let waiting = awaiting(&thread, follower(&store, start), seconds(25));
    let (touched, me) = (Rc::clone(&slow), thread.clone());
    let alive = thread.spawn("writer", async move {
        loop {
            me.sleep(seconds(2)).await;
            touched.touch(me.now());
        }
    });
    world.run_until(|| waiting.borrow().is_some(), seconds(30)).unwrap();
    alive.cancel();
    let (awaited, when) = waiting.take().unwrap();
    assert!(matches!(awaited, Awaited::Late), "{awaited:?}");
    assert!(when - start >= seconds(25) && when - start < seconds(26));
    assert_eq!((slow.followers(), thread.timers_pending()), (0, 0));
}

#[test]
fn what_the_writer_says_is_told_to_who_waits() {
    type Ends = fn(Writer, Instant);
    let table: [(Ends, &str); 3] = [
        (|writer, now| writer.not_storable(Reason::Engine(3), now + seconds(5)), "Bypass(Engine(3))"),
        (|writer, _| writer.give_up(Reason::Engine(4)), "Bypass(Engine(4))"),
        (|writer, _| drop(writer), "Write"),
    ];
    for (ends, said) in table {
        let (world, thread) = world();
        let store = store();
        let writing = writer(&store, thread.now());
        let waiting = awaiting(&thread, follower(&store, thread.now()), seconds(60));
        world.run_for(seconds(1)).unwrap();
        ends(writing, thread.now());
        world.run_until(|| waiting.borrow().is_some(), seconds(1)).unwrap();
        let (awaited, _) = waiting.take().unwrap();
        assert!(format!("{awaited:?}").starts_with(said), "{awaited:?}");
    }
}

#[test]
fn a_body_that_stops_coming_is_cut_after_the_bound_and_one_that_comes_is_read() {
    let (world, thread) = world();
    let store = store();
    let mut writing = writer(&store, thread.now());
    let mut reading = follower(&store, thread.now());
    writing.start(head(), thread.now());
    let (bytes, cut) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
    let (set_bytes, set_cut, me) = (Rc::clone(&bytes), Rc::clone(&cut), thread.clone());
    drop(thread.spawn("follower", async move {
        loop {
            match reading.next_within(&me, STALL).await {
                Next::Fragment(fragment) => set_bytes.set(set_bytes.get() + fragment.len()),
                Next::End => return,
                Next::Cut(cut) => return set_cut.set(Some((cut, me.now()))),
            }
        }
    }));
    let writing = Rc::new(RefCell::new(writing));
    let (fills, me) = (Rc::clone(&writing), thread.clone());
    let start = thread.now();
    drop(thread.spawn("writer", async move {
        for _ in 0..5 {
            me.sleep(STALL - seconds(1)).await;
            fills.borrow_mut().append(b"0123456789", me.now());
        }
    }));
    world.run_until(|| cut.get().is_some(), seconds(100)).unwrap();
    let (why, when) = cut.get().unwrap();
    assert_eq!((why, bytes.get()), (Cut::Stalled, 50));
    let after = when - start;
    assert!(after >= seconds(55) && after < seconds(56), "{after:?}");
    assert_eq!((writing.borrow().followers(), thread.timers_pending()), (0, 0));
}

#[test]
fn a_writer_whose_client_left_knows_whether_to_go_on() {
    let store = store();
    let now = Instant::from_nanos(1);
    let mut writing = writer(&store, now);
    assert!(writing.progress().is_worthwhile(), "the head may come any moment");
    writing.start(Head { expected: Some(700_000), ..head() }, now);
    assert!(writing.progress().is_worthwhile());
    let replaced = {
        let store = self::store();
        let silent = writer(&store, now);
        let taken = follower(&store, now).take_over(now + STALL).expect("taken over");
        assert!(taken.progress().is_worthwhile());
        silent.progress()
    };
    assert!(!replaced.is_worthwhile(), "another fetches in its place");
}
