//! What is charged for an object is what it takes, however it came, and all of it is given back.

use std::sync::Arc;

use base::{ByteCount, Instant};
use cache::{Alternates, Entrance, Found, Head, Hit, Key, Lane, Purge, RamOptions, RamStore, Role, Seen, Store, Tags};

const NOW: Instant = Instant::from_nanos(1);
const HEAD: &[u8] = &[b'h'; 300];

fn store() -> RamStore {
    let store = RamStore::new(RamOptions::new(ByteCount(8 << 20), 1));
    // Its tables are there.
    put(&store, b"object", (HEAD, None), Some(3), &[b"abc"]);
    assert!(store.purge(Key::of(b"object"), Purge::Remove));
    store
}

fn find(store: &RamStore, name: &[u8]) -> Option<Hit> {
    let any = |alternates: Alternates<'_>| (alternates.len() > 0).then_some(0);
    match store.look_up(Key::of(name), &any).now() {
        Ok(Found::Hit(hit)) => Some(hit),
        _ => None,
    }
}

/// Stores a body that comes in `parts`; `last` is another record that comes at its end.
fn put(store: &RamStore, name: &[u8], (head, last): (&[u8], Option<&[u8]>), expected: Option<u64>, parts: &[&[u8]]) {
    let entrance = Entrance { key: Key::of(name), lane: Lane::PRIMARY, seen: Seen::NOTHING, now: NOW };
    let Role::Writer(mut writer) = store.enter(entrance) else { panic!("a writer") };
    writer.start(Head { metadata: Arc::from(head), tags: Tags::NONE, expected }, NOW);
    for part in parts {
        writer.append(part, NOW);
    }
    let _ = writer.finish(last.map(Arc::from), &|_| true, NOW);
}

#[test]
fn an_object_costs_the_same_however_it_came() {
    let store = store();
    let empty = store.used();
    let body: Vec<u8> = (0..=250).cycle().take(1_500).collect();
    let (one, two, many) = (&[&body[..]][..], &[&body[..100], &body[100..]][..], body.chunks(7).collect::<Vec<_>>());
    let mut costs = Vec::new();
    for (expected, parts) in
        [(Some(1_500), one), (Some(1_500), two), (Some(1_500), &many), (None, one), (None, two), (None, &many)]
    {
        put(&store, b"object", (HEAD, None), expected, parts);
        let hit = find(&store, b"object").expect("it is stored");
        assert!(hit.body().fragments(0..9_999).flat_map(|part| part.to_vec()).eq(body.iter().copied()));
        assert_eq!((hit.metadata().len(), hit.body().fragments(0..9_999).count()), (HEAD.len(), 1));
        drop(hit);
        costs.push(store.used().0 - empty.0);
        assert!(store.purge(Key::of(b"object"), Purge::Remove));
        assert_eq!(store.used(), empty, "{expected:?} in {} parts", parts.len());
    }
    assert!(costs.iter().all(|cost| *cost == costs[0] && *cost > 1_800), "{costs:?}");
}

#[test]
fn what_does_not_come_as_announced_costs_nothing() {
    let store = store();
    let empty = store.used();
    for (expected, parts) in [(10, &[][..]), (10, &[&b"abc"[..]]), (2, &[b"abc"]), (4, &[b"abc", b"def"]), (0, &[b"a"])]
    {
        put(&store, b"object", (HEAD, None), Some(expected), parts);
        assert!(find(&store, b"object").is_none(), "{expected}");
        assert_eq!(store.used(), empty, "{expected}");
    }
}

#[test]
fn a_record_that_replaces_another_costs_in_its_place() {
    let store = store();
    let empty = store.used();
    let cost_of = |record: &[u8]| {
        put(&store, b"object", (record, None), Some(3), &[b"abc"]);
        let cost = store.used();
        store.purge(Key::of(b"object"), Purge::Remove);
        cost
    };
    let (short, long) = (cost_of(HEAD), cost_of(&[b'l'; 4_000]));
    assert!(short < long && store.used() == empty);
    // At the end of the body,
    put(&store, b"object", (HEAD, Some(&[b'l'; 4_000])), Some(3), &[b"abc"]);
    assert_eq!(store.used(), long);
    // and later, while somebody reads the old one: both are there as long as that lasts.
    let reader = find(&store, b"object").expect("it is stored");
    assert!(store.refresh(&reader, Arc::from(HEAD)));
    assert!(store.used() > long);
    drop(reader);
    assert_eq!(store.used(), short);
    let reader = find(&store, b"object").expect("it is stored");
    store.purge(Key::of(b"object"), Purge::Remove);
    assert_eq!(store.used(), short);
    drop(reader);
    assert_eq!(store.used(), empty);
    // The first record goes and its body stays, with another that goes before it.
    put(&store, b"object", (HEAD, None), Some(3), &[b"abc"]);
    let reader = find(&store, b"object").expect("it is stored");
    assert!(store.refresh(&reader, Arc::from(HEAD)));
    store.purge(Key::of(b"object"), Purge::Remove);
    assert_eq!(store.used(), short);
    drop(reader);
    assert_eq!(store.used(), empty);
}
