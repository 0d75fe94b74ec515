//! Prints what a look-up costs, hashing left out: `cargo run --release -p beltway-cache --example hit_cost`

use std::hint::black_box;
use std::sync::Arc;

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
}
