//! The store beside a map that knows what was put in: whatever it still has is right, and it keeps within its bytes.

use std::collections::HashMap;
use std::sync::Arc;

use base::{ByteCount, Instant};
use cache::{Alternates, Entrance, Found, Head, Key, Lane, Purge, RamOptions, RamStore, Role, Seen, Store, Tags};
use proptest::prelude::*;

const NOW: Instant = Instant::from_nanos(1);

#[derive(Clone, Debug)]
enum Call {
    Put { object: u8, version: u8, len: usize, part: usize },
    LookUp(u8),
    Refresh(u8, u8),
    Purge(u8),
    PurgeTag(u8),
    MarkStale(u8),
    Budget(u64),
    Clear,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let len = prop_oneof![3 => 0_usize..3_000, 1 => 10_000_usize..40_000];
    let call = prop_oneof![
        10 => (0_u8..40, any::<u8>(), len, 100_usize..20_000)
            .prop_map(|(object, version, len, part)| Call::Put { object, version, len, part }),
        10 => (0_u8..40).prop_map(Call::LookUp),
        3 => (0_u8..40, any::<u8>()).prop_map(|(object, version)| Call::Refresh(object, version)),
        2 => (0_u8..40).prop_map(Call::Purge),
        1 => (0_u8..5).prop_map(Call::PurgeTag),
        2 => (0_u8..40).prop_map(Call::MarkStale),
        1 => (40_000_u64..200_000).prop_map(Call::Budget),
        1 => Just(Call::Clear),
    ];
    prop::collection::vec(call, 0..200)
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Known {
    metadata: Vec<u8>,
    body: Vec<u8>,
    stale: bool,
}

fn key(object: u8) -> Key {
    Key::of(&[object])
}

fn tag(object: u8) -> [u8; 1] {
    [object % 5]
}

fn any_of(alternates: Alternates<'_>) -> Option<usize> {
    (alternates.len() > 0).then_some(0)
}

fn find(store: &RamStore, object: u8) -> Option<(cache::Hit, Known)> {
    let Ok(Found::Hit(hit)) = store.look_up(key(object), &any_of).now() else { return None };
    let body = hit.body().fragments(0..u64::MAX).flat_map(|fragment| fragment.to_vec()).collect();
    let known = Known { metadata: hit.metadata().to_vec(), body, stale: hit.is_stale() };
    Some((hit, known))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_the_store_has_is_what_was_put_in_last(calls in calls()) {
        let options = RamOptions::new(ByteCount(100_000), 1);
        let store = RamStore::new(RamOptions { object_max: Some(ByteCount(30_000)), ..options });
        let mut limit = 100_000;
        let empty = store.used();
        let mut model: HashMap<u8, Known> = HashMap::new();
        for call in calls {
            match call {
                Call::Put { object, version, len, part } => {
                    let seen = find(&store, object).map_or(Seen::NOTHING, |(hit, _)| hit.seen());
                    let entrance = Entrance { key: key(object), lane: Lane::PRIMARY, seen, now: NOW };
                    let (Role::Writer(mut writer) | Role::Bypass(_, mut writer)) = store.enter(entrance) else {
                        continue;
                    };
                    let body: Vec<u8> = (0..=252).cycle().map(|n| version.wrapping_add(n)).take(len).collect();
                    let metadata: Arc<[u8]> = Arc::from([object, version]);
                    let tags = Tags::new([&tag(object)[..]]).unwrap();
                    writer.start(Head { metadata: Arc::clone(&metadata), tags, expected: None }, NOW);
                    for part in body.chunks(part) {
                        writer.append(part, NOW);
                        prop_assert!(store.used().0 <= limit);
                    }
                    if writer.finish(None, &|_| true, NOW).is_ok() {
                        model.insert(object, Known { metadata: metadata.to_vec(), body, stale: false });
                    }
                }
                Call::LookUp(object) => {
                    if let Some((_, found)) = find(&store, object) {
                        prop_assert_eq!(Some(&found), model.get(&object));
                    }
                }
                Call::Refresh(object, version) => {
                    if let Some((hit, _)) = find(&store, object)
                        && store.refresh(&hit, Arc::from([object, version, 1]))
                    {
                        let known = model.get_mut(&object).unwrap();
                        known.metadata = vec![object, version, 1];
                        known.stale = false;
                    }
                }
                Call::Purge(object) => {
                    store.purge(key(object), Purge::Remove);
                    model.remove(&object);
                }
                Call::PurgeTag(tag) => {
                    store.purge_tag(&[tag], Purge::Remove);
                    model.retain(|object, _| object % 5 != tag);
                }
                Call::MarkStale(object) => {
                    store.purge(key(object), Purge::MarkStale);
                    model.entry(object).and_modify(|known| known.stale = true);
                }
                Call::Budget(budget) => {
                    limit = budget;
                    store.set_budget(ByteCount(budget));
                }
                Call::Clear => {
                    store.clear();
                    model.clear();
                    prop_assert_eq!(store.used(), empty);
                }
            }
            prop_assert!(store.used().0 <= limit, "{} of {limit}", store.used().0);
        }
        let there = (0..40).filter(|object| find(&store, *object).is_some()).count();
        prop_assert_eq!(there as u64, store.numbers().objects);
        for object in 0..40 {
            let found = find(&store, object);
            prop_assert!(found.is_none_or(|(_, found)| Some(&found) == model.get(&object)));
        }
    }
}
