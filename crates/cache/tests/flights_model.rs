//! Fetches under way beside purges, refreshes and a budget that changes: whatever the order, what is found is what some
//! finished fetch brought for just that key and alternate, what was purged while it was fetched is not stored, and
//! whoever follows reads the writer's bytes from the first.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use base::{ByteCount, Instant};
use cache::{
    Alternates, Entrance, Follower, FollowerHead, Found, Head, Kept, Key, Lane, Next, Purge, RamOptions, RamStore,
    Reason, Role, Store, Tags, Writer,
};
use proptest::prelude::*;

const OBJECTS: u8 = 6;
const VARIANTS: u8 = 3;

#[derive(Clone, Debug)]
enum Call {
    Enter { object: u8, variant: u8, len: usize, announced: bool },
    Append { which: usize, part: usize },
    Finish { which: usize },
    Abandon { which: usize },
    Read { which: usize },
    Leave { which: usize },
    LookUp { object: u8, variant: u8 },
    Purge(u8),
    PurgeTag(u8),
    Clear,
    Budget(u64),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let len = prop_oneof![3 => 0_usize..4_000, 1 => 20_000_usize..90_000];
    let object = 0..OBJECTS;
    let variant = 0..VARIANTS;
    let call = prop_oneof![
        12 => (object.clone(), variant.clone(), len, any::<bool>())
            .prop_map(|(object, variant, len, announced)| Call::Enter { object, variant, len, announced }),
        16 => (any::<usize>(), 1_usize..60_000).prop_map(|(which, part)| Call::Append { which, part }),
        8 => any::<usize>().prop_map(|which| Call::Finish { which }),
        2 => any::<usize>().prop_map(|which| Call::Abandon { which }),
        10 => any::<usize>().prop_map(|which| Call::Read { which }),
        2 => any::<usize>().prop_map(|which| Call::Leave { which }),
        10 => (object.clone(), variant).prop_map(|(object, variant)| Call::LookUp { object, variant }),
        1 => object.prop_map(Call::Purge),
        1 => (0_u8..2).prop_map(Call::PurgeTag),
        1 => Just(Call::Clear),
        1 => (60_000_u64..400_000).prop_map(Call::Budget),
    ];
    prop::collection::vec(call, 0..150)
}

fn key(object: u8) -> Key {
    Key::of(&[object])
}

/// The byte at a place of a version; the version says all else.
fn byte_at(version: u32, place: usize) -> u8 {
    u8::try_from((version as usize * 41 + place * 3 + place / 1_000) % 251).expect("below 251")
}

/// The record: object, variant and version.
fn record(object: u8, variant: u8, version: u32) -> Arc<[u8]> {
    Arc::from([&[object, variant][..], &version.to_le_bytes()].concat())
}

fn version_in(record: &[u8]) -> u32 {
    u32::from_le_bytes(record[2..6].try_into().expect("four bytes"))
}

struct Fetch {
    writer: Writer,
    object: u8,
    variant: u8,
    version: u32,
    len: usize,
    announced: bool,
    written: usize,
    started: bool,
    /// Something was purged that concerns it.
    purged: bool,
}

impl Fetch {
    fn append(&mut self, part: usize) {
        if !self.started {
            self.started = true;
            let expected = self.announced.then_some(self.len as u64);
            let tags = Tags::new([&[self.object % 2][..]]).expect("few and short");
            let metadata = record(self.object, self.variant, self.version);
            if self.writer.start(Head { metadata, tags, expected }, NOW) == Kept::No(Reason::TooLarge) {
                return;
            }
        }
        let until = (self.written + part).min(self.len);
        let bytes: Vec<u8> = (self.written..until).map(|place| byte_at(self.version, place)).collect();
        self.writer.append(&bytes, NOW);
        self.written = until;
    }
}

struct Reading {
    follower: Follower,
    object: u8,
    version: Option<u32>,
    read: usize,
}

const NOW: Instant = Instant::from_nanos(1);

fn poll<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Reads what is there. False when it is over.
fn read_on(reading: &mut Reading, lengths: &HashMap<u32, usize>) -> Result<bool, TestCaseError> {
    if reading.version.is_none() {
        match poll(|context| reading.follower.poll_head(context)) {
            Some(FollowerHead::Response { metadata, .. }) => {
                prop_assert_eq!(metadata[0], reading.object);
                reading.version = Some(version_in(&metadata));
            }
            Some(_) => return Ok(false),
            None => return Ok(true),
        }
    }
    let version = reading.version.expect("the head has come");
    loop {
        match poll(|context| reading.follower.poll_next(context)) {
            Some(Next::Fragment(fragment)) => {
                for byte in fragment.iter() {
                    prop_assert_eq!(*byte, byte_at(version, reading.read));
                    reading.read += 1;
                }
            }
            Some(Next::End) => {
                prop_assert_eq!(reading.read, lengths[&version]);
                return Ok(false);
            }
            Some(Next::Cut(_)) => return Ok(false),
            None => return Ok(true),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_found_some_fetch_brought_it_for_just_that(calls in calls()) {
        let options = RamOptions { window: ByteCount(5_000), ..RamOptions::new(ByteCount(300_000), 1) };
        let store = RamStore::new(RamOptions { object_max: Some(ByteCount(60_000)), ..options });
        let empty = store.used();
        let (mut limit, mut version) = (300_000, 0_u32);
        let mut fetches: Vec<Fetch> = Vec::new();
        let mut readings: Vec<Reading> = Vec::new();
        let mut lengths: HashMap<u32, usize> = HashMap::new();
        let mut stored: HashMap<(u8, u8), u32> = HashMap::new();
        for call in calls {
            match call {
                Call::Enter { object, variant, len, announced } => {
                    let Ok(Found::Miss(seen)) = store.look_up(key(object), &|_: Alternates<'_>| None).now() else {
                        panic!("nothing was chosen")
                    };
                    match store.enter(Entrance { key: key(object), lane: Lane::of(&[variant]), seen, now: NOW }) {
                        Role::Writer(writer) | Role::Bypass(_, writer) => {
                            version += 1;
                            lengths.insert(version, len);
                            let (written, started, purged) = Default::default();
                            let fetch =
                                Fetch { writer, object, variant, version, len, announced, written, started, purged };
                            fetches.push(fetch);
                        }
                        Role::Follow(follower) => readings.push(Reading { follower, object, version: None, read: 0 }),
                        Role::Full | Role::LookAgain => {}
                    }
                }
                Call::Append { which, part } if !fetches.is_empty() => {
                    let which = which % fetches.len();
                    fetches[which].append(part);
                }
                Call::Finish { which } if !fetches.is_empty() => {
                    let which = which % fetches.len();
                    let mut fetch = fetches.swap_remove(which);
                    fetch.append(fetch.len);
                    let Fetch { writer, object, variant, version, purged, .. } = fetch;
                    let like = |record: &[u8]| record[1] == variant;
                    if writer.finish(None, &like, NOW).is_ok() {
                        prop_assert!(!purged, "what was purged while it was fetched was stored");
                        stored.insert((object, variant), version);
                    }
                }
                Call::Abandon { which } if !fetches.is_empty() => {
                    let which = which % fetches.len();
                    drop(fetches.swap_remove(which));
                }
                Call::Read { which } if !readings.is_empty() => {
                    let which = which % readings.len();
                    if !read_on(&mut readings[which], &lengths)? {
                        readings.swap_remove(which);
                    }
                }
                Call::Leave { which } if !readings.is_empty() => {
                    let which = which % readings.len();
                    readings.swap_remove(which);
                }
                Call::LookUp { object, variant } => {
                    let choose = |alternates: Alternates<'_>| {
                        alternates.into_iter().position(|one| one.metadata()[1] == variant)
                    };
                    if let Ok(Found::Hit(hit)) = store.look_up(key(object), &choose).now() {
                        let found = version_in(hit.metadata());
                        prop_assert_eq!(hit.metadata(), &record(object, variant, found));
                        prop_assert_eq!(Some(&found), stored.get(&(object, variant)), "the last that was stored");
                        let mut place = 0;
                        for fragment in hit.body().fragments(0..u64::MAX) {
                            for byte in fragment.iter() {
                                prop_assert_eq!(*byte, byte_at(found, place));
                                place += 1;
                            }
                        }
                        prop_assert_eq!(place, lengths[&found]);
                    }
                }
                Call::Purge(object) => {
                    store.purge(key(object), Purge::Remove);
                    stored.retain(|(one, _), _| *one != object);
                    fetches.iter_mut().filter(|one| one.object == object).for_each(|one| one.purged = true);
                }
                Call::PurgeTag(tag) => {
                    store.purge_tag(&[tag], Purge::Remove);
                    stored.retain(|(one, _), _| *one % 2 != tag);
                    fetches.iter_mut().filter(|one| one.object % 2 == tag).for_each(|one| one.purged = true);
                }
                Call::Clear => {
                    store.clear();
                    stored.clear();
                    fetches.iter_mut().for_each(|one| one.purged = true);
                }
                Call::Budget(budget) => {
                    store.set_budget(ByteCount(budget));
                    // What is being fetched or read keeps its bytes until it is done.
                    limit = budget.max(store.used().0);
                }
                _ => {}
            }
            prop_assert!(store.used().0 <= limit, "{} of {limit}", store.used().0);
        }
        for mut reading in readings {
            read_on(&mut reading, &lengths)?;
        }
        drop(fetches);
        store.clear();
        prop_assert_eq!((store.used(), store.numbers().fetches), (empty, 0));
    }
}
