//! Prints what a look-up costs, hashing left out, on one thread and on two at once, and what storing costs:
//! `cargo run --release -p beltway-cache --example hit_cost`

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{ByteCount, Clock, Instant, Rng, SystemClock};
use cache::{Alternates, Entrance, Found, Head, Key, Lane, RamOptions, RamStore, Role, Seen, Store, Tags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: u64 = 2_000_000;

fn filled(objects: u64, length: usize) -> (RamStore, Vec<Key>) {
    let store = RamStore::new(RamOptions::new(ByteCount(2 << 30), 2));
    let now = Instant::from_nanos(1);
    let keys: Vec<Key> = (0..objects).map(|n| Key::of(&n.to_le_bytes())).collect();
    for key in &keys {
        let entrance = Entrance { key: *key, lane: Lane::PRIMARY, seen: Seen::NOTHING, now };
        let Role::Writer(mut writer) = store.enter(entrance) else { continue };
        writer.start(Head { metadata: Arc::from([1; 200]), tags: Tags::NONE, expected: None }, now);
        writer.append(&vec![2; length], now);
        assert_eq!(writer.finish(None, &|_| true, now), Ok(()));
    }
    (store, keys)
}

/// Nanoseconds of each of `rounds` calls, by tenths.
fn tenths(rounds: u64, call: impl FnOnce()) -> u64 {
    let start = SystemClock.now();
    call();
    u64::try_from((SystemClock.now() - start).as_nanos() * 10 / u128::from(rounds)).unwrap_or(u64::MAX)
}

/// What `threads` threads at once pay, each for its own: one look-up in `stored_every` misses and stores what it missed.
fn together(threads: u64, objects: u64, stored_every: u64) -> u64 {
    let rounds = ROUNDS / 4;
    let (store, keys) = filled(objects, 1_024);
    let worst = AtomicU64::new(0);
    let body = [2; 1_024];
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (store, keys, worst, body) = (&store, &keys, &worst, &body);
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                let metadata: Arc<[u8]> = Arc::from([1; 200]);
                let each = tenths(rounds, || {
                    for n in 0..rounds {
                        let new = n % stored_every == stored_every - 1;
                        let at = rng.below(objects);
                        let known = keys[usize::try_from(at).unwrap_or(0)];
                        let key = if new { Key::of(&(n << 8 | thread << 1 | 1 << 60).to_le_bytes()) } else { known };
                        let any = |alternates: Alternates<'_>| (alternates.len() > 0).then_some(0);
                        if let Ok(Found::Hit(hit)) = store.look_up(key, &any).now() {
                            black_box(&hit);
                            continue;
                        }
                        let now = Instant::from_nanos(n);
                        let entrance = Entrance { key, lane: Lane::PRIMARY, seen: Seen::NOTHING, now };
                        let Role::Writer(mut writer) = store.enter(entrance) else { continue };
                        let head = Head { metadata: Arc::clone(&metadata), tags: Tags::NONE, expected: Some(1_024) };
                        writer.start(head, now);
                        writer.append(body, now);
                        // Refused or not, it has cost what it costs.
                        let _ = writer.finish(None, &|_| true, now);
                    }
                });
                worst.fetch_max(each, Ordering::Relaxed);
            });
        }
    });
    worst.into_inner()
}

fn main() {
    let choose = |alternates: Alternates<'_>| alternates.into_iter().position(|one| one.metadata()[0] == 1);
    for (objects, length) in [(1, 1_024), (10_000, 4_096), (200_000, 1_024), (1_000, 1 << 20)] {
        let (store, keys) = filled(objects, length);
        let mut rng = Rng::new(1);
        let order: Vec<Key> = (0..ROUNDS).map(|_| keys[usize::try_from(rng.below(objects)).unwrap_or(0)]).collect();
        let absent: Vec<Key> = (0..ROUNDS).map(|n| Key::of(&(n + objects).to_le_bytes())).collect();
        let mut best = (u64::MAX, u64::MAX, u64::MAX);
        for _ in 0..5 {
            let start = SystemClock.now();
            for key in &order {
                let Ok(Found::Hit(hit)) = store.look_up(*key, &choose).now() else { panic!("it is there") };
                black_box(&hit);
            }
            let found = (SystemClock.now() - start).as_nanos();
            let start = SystemClock.now();
            for key in &order {
                let Ok(Found::Hit(hit)) = store.look_up(*key, &choose).now() else { panic!("it is there") };
                black_box(hit.body().fragments(0..u64::MAX).map(cache::Fragment::into_chunk).last());
            }
            let read = (SystemClock.now() - start).as_nanos();
            let start = SystemClock.now();
            for key in &absent {
                black_box(store.look_up(*key, &choose).now().is_ok());
            }
            let missed = (SystemClock.now() - start).as_nanos();
            let each = |nanos: u128| u64::try_from(nanos * 10 / u128::from(ROUNDS)).unwrap_or(u64::MAX);
            best = (best.0.min(each(found)), best.1.min(each(read)), best.2.min(each(missed)));
        }
        let nanos = |tenths: u64| format!("{}.{} ns", tenths / 10, tenths % 10);
        println!(
            "{objects:>7} objects of {length}: hit {}, hit with its body to be sent {}, miss {}",
            nanos(best.0),
            nanos(best.1),
            nanos(best.2)
        );
    }
    for threads in [1, 2] {
        let best = |stored_every| (0..5).map(|_| together(threads, 10_000, stored_every)).min().unwrap_or(u64::MAX);
        let (hits, mixed) = (best(u64::MAX), best(10));
        let nanos = |tenths: u64| format!("{}.{} ns", tenths / 10, tenths % 10);
        println!(
            "{threads} at once, 10000 objects of 1024: hit {}; nine hits and one stored {} each",
            nanos(hits),
            nanos(mixed)
        );
    }
}
