//! Many threads at once, for a bounded time: every byte read is the key's, the budget holds, nobody waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use base::{ByteCount, Clock, Instant, Rng, SystemClock};
use cache::{
    Alternates, Cut, Entrance, Follower, FollowerHead, Found, Head, Key, Lane, Next, Purge, RamOptions, RamStore,
    Reason, Role, Store, Tags, Writer,
};

const THREADS: u64 = 6;
/// At least so long, and until all that is to happen has happened, ...
const RUN: Duration = Duration::from_secs(2);
/// ... for so long at most. No wait takes longer either, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(30);
const OBJECTS: u64 = 120;

fn byte_at(object: u64, place: u64) -> u8 {
    u8::try_from(object.wrapping_mul(31).wrapping_add(place.wrapping_mul(7)) % 251).expect("it fits")
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls until ready, for a bounded time.
fn wait<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let end = SystemClock.now() + PATIENCE;
    loop {
        if let Poll::Ready(value) = poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
        let now = SystemClock.now();
        if now >= end {
            return None;
        }
        thread::park_timeout(end - now);
    }
}

struct World {
    store: RamStore,
    budget: u64,
    /// By how much objects are longer than usual.
    scale: u64,
    bytes: AtomicU64,
    followed: AtomicU64,
    lagged: AtomicU64,
}

impl World {
    fn length_of(&self, object: u64) -> u64 {
        let mut rng = Rng::new(object);
        self.scale
            * match object % 10 {
                // Too long to be kept, and nobody is told beforehand.
                0 => 300_000,
                1 => 60_000 + rng.below(100_000),
                _ => rng.below(8_000),
            }
    }

    fn check(&self, object: u64, place: &mut u64, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(*byte, byte_at(object, *place), "object {object} at {place}");
            *place += 1;
        }
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        assert!(self.store.used().0 <= self.budget);
    }

    fn write(&self, object: u64, mut writer: Writer, rng: &mut Rng) {
        // The origin takes its time, so that others come meanwhile.
        thread::park_timeout(Duration::from_micros(rng.below(1_000)));
        if rng.one_in(10) {
            return;
        }
        if rng.one_in(40) {
            return writer.not_storable(Reason::Engine(1), SystemClock.now() + Duration::from_millis(5));
        }
        let length = self.length_of(object);
        let tags = Tags::new([&[u8::try_from(object % 7).expect("it fits")][..]]).expect("it fits");
        let expected = (object.is_multiple_of(3) && !object.is_multiple_of(10)).then_some(length);
        writer.start(Head { metadata: metadata(object), tags, expected }, SystemClock.now());
        let mut place = 0;
        while place < length {
            let part = (1 + rng.below(9_000 * self.scale)).min(length - place);
            let bytes: Vec<u8> = (place..place + part).map(|place| byte_at(object, place)).collect();
            writer.append(&bytes, SystemClock.now());
            place += part;
            if rng.one_in(400) {
                return;
            }
            if rng.one_in(8) {
                thread::park_timeout(Duration::from_micros(100));
            }
        }
        // Refused or not: what is stored is checked by whoever finds it.
        let _ = writer.finish(None, &|stored| stored == &*metadata(object), SystemClock.now());
    }

    fn follow(&self, object: u64, mut follower: Follower, rng: &mut Rng) {
        match wait(|context| follower.poll_head(context)) {
            Some(FollowerHead::Response { metadata: found, .. }) => assert_eq!(found, metadata(object)),
            Some(FollowerHead::Write(writer)) => return self.write(object, writer, rng),
            Some(_) => return,
            None => panic!("no head, and nobody took over"),
        }
        let mut place = 0;
        loop {
            match wait(|context| follower.poll_next(context)).expect("no byte for too long") {
                Next::Fragment(fragment) => self.check(object, &mut place, &fragment),
                Next::End => break assert_eq!(place, self.length_of(object), "object {object}"),
                Next::Cut(Cut::WriterGone | Cut::Stalled) => break,
                Next::Cut(Cut::Lagged) => {
                    self.lagged.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        self.followed.fetch_add(1, Ordering::Relaxed);
    }

    fn request(&self, rng: &mut Rng) {
        // Squared, so that some are asked for much more than others.
        let object = rng.below(OBJECTS) * rng.below(OBJECTS) / OBJECTS;
        let key = Key::of(&object.to_le_bytes());
        let wanted = metadata(object);
        let choose = |alternates: Alternates<'_>| alternates.into_iter().position(|one| one.metadata() == &*wanted);
        let seen = match self.store.look_up(key, &choose).now() {
            Ok(Found::Hit(hit)) => {
                let mut place = 0;
                hit.body().fragments(0..u64::MAX).for_each(|fragment| self.check(object, &mut place, &fragment));
                assert_eq!(place, self.length_of(object));
                match rng.below(200) {
                    0 => drop(self.store.refresh(&hit, metadata(object))),
                    1 => drop(self.store.mark_stale(&hit)),
                    2 => drop(self.store.purge(key, Purge::Remove)),
                    3 if rng.one_in(20) => drop(self.store.purge_tag(&[3], Purge::Remove)),
                    4 if rng.one_in(50) => self.store.clear(),
                    _ => {}
                }
                return;
            }
            Ok(Found::Miss(seen)) => seen,
            Err(_) => panic!("what is in memory is answered at once"),
        };
        match self.store.enter(Entrance { key, lane: Lane::PRIMARY, seen, now: SystemClock.now() }) {
            Role::Writer(writer) | Role::Bypass(_, writer) => self.write(object, writer, rng),
            Role::Follow(follower) => self.follow(object, follower, rng),
            Role::LookAgain | Role::Full => {}
        }
    }
}

fn metadata(object: u64) -> Arc<[u8]> {
    Arc::from(object.to_le_bytes())
}

/// Runs until objects were found, followed and evicted.
fn run(budget: u64, scale: u64) {
    let options = RamOptions { window: ByteCount(64 << 10), ..RamOptions::new(ByteCount(budget), 2) };
    let store = RamStore::new(options);
    let empty = store.used();
    let (bytes, followed, lagged) = Default::default();
    let world = World { store, budget, scale, bytes, followed, lagged };
    let start: Instant = SystemClock.now();
    let goes_on = |world: &World| {
        let (numbers, now) = (world.store.numbers(), SystemClock.now());
        let done = numbers.found > 100
            && numbers.evicted_small > 0
            && numbers.evicted_bytes > 0
            && world.followed.load(Ordering::Relaxed) > 0;
        now < start + RUN || (!done && now < start + PATIENCE)
    };
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let world = &world;
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                while goes_on(world) {
                    world.request(&mut rng);
                }
            });
        }
    });
    assert!(SystemClock.now() < start + PATIENCE, "not all that was to happen did: {:?}", world.store.numbers());
    let numbers = world.store.numbers();
    let (followed, lagged) = (world.followed.into_inner(), world.lagged.into_inner());
    println!("{} bytes, {followed} followed, {lagged} lagged, {numbers:?}", world.bytes.into_inner());
    world.store.clear();
    assert_eq!(world.store.used(), empty, "all that was taken was given back");
}

#[test]
fn whatever_threads_do_at_once_every_byte_read_is_the_right_one() {
    run(2 << 20, 1);
}

#[test]
fn so_it_is_with_long_objects_in_huge_pages() {
    run(64 << 20, 40);
}
