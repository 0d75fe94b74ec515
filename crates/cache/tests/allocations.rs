//! A hit takes no memory from the allocator, whatever is hit and however much of it is sent.

use std::alloc::System;
use std::sync::Arc;

use base::{ByteCount, Instant};
use cache::{Alternates, Entrance, Found, Fragment, Head, Key, Lane, RamOptions, RamStore, Role, Seen, Store, Tags};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: Instant = Instant::from_nanos(1);

fn put(store: &RamStore, key: Key, variant: u8, length: usize) {
    let entrance = Entrance { key, lane: Lane::of(&[variant]), seen: seen(store, key), now: NOW };
    let Role::Writer(mut writer) = store.enter(entrance) else { panic!("a writer") };
    let expected = (length.is_multiple_of(2)).then_some(length as u64);
    let tags = Tags::new([&b"tag"[..]]).expect("few and short");
    writer.start(Head { metadata: Arc::from([variant; 300]), tags, expected }, NOW);
    for part in vec![variant; length].chunks(16_000) {
        writer.append(part, NOW);
    }
    writer.finish(None, &|stored| stored[0] == variant, NOW).expect("there is room");
}

fn seen(store: &RamStore, key: Key) -> Seen {
    match store.look_up(key, &|_: Alternates<'_>| None).now() {
        Ok(Found::Miss(seen)) => seen,
        _ => Seen::NOTHING,
    }
}

#[test]
fn a_hit_allocates_nothing() {
    let store = RamStore::new(RamOptions::new(ByteCount(256 << 20), 2));
    let lengths = [0, 10, 1_000, 16_001, 100_000, 1 << 20, 3_000_001];
    for (n, length) in lengths.into_iter().enumerate() {
        for variant in 0..3 {
            put(&store, Key::of(&[u8::try_from(n).expect("few")]), variant, length);
        }
    }
    // The only test of this program: nobody else asks for memory meanwhile.
    let region = Region::new(ALLOCATOR);
    for round in 0..300_usize {
        let (n, wanted) = (round % lengths.len(), u8::try_from(round % 3).expect("few"));
        let choose = |alternates: Alternates<'_>| alternates.into_iter().position(|one| one.metadata()[0] == wanted);
        let key = Key::of(&[u8::try_from(n).expect("few")]);
        let Ok(Found::Hit(hit)) = store.look_up(key, &choose).now() else { panic!("it is there") };
        drop(Fragment::new(Arc::clone(hit.metadata())).into_chunk());
        let whole: usize = hit.body().fragments(0..u64::MAX).map(|fragment| fragment.into_chunk().len()).sum();
        let range: usize = hit.body().fragments(5..70_000).map(|fragment| fragment.into_chunk().len()).sum();
        assert_eq!((whole, range), (lengths[n], lengths[n].min(70_000).saturating_sub(5)));
        assert!(!hit.is_stale() && hit.tags().contains(b"tag"));
    }
    let Ok(Found::Miss(_)) = store.look_up(Key::of(b"absent"), &|_: Alternates<'_>| Some(0)).now() else {
        panic!("nothing is there")
    };
    let asked = region.change();
    assert_eq!((asked.allocations, asked.reallocations), (0, 0));
}
