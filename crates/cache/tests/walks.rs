//! The sequences of calls that an engine makes, one after the other: hit, miss, follower, refresh, not storable, purge.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use base::{ByteCount, Instant};
use cache::{
    Alternates, Cut, DeclinedDescription, Entrance, FetchDescription, Found, Head, Hit, Kept, Key, Lane, Next, Purge,
    RamOptions, RamStore, Reason, Role, Seen, Store, Tags, Writer,
};
use cache::{Follower, FollowerHead};

const MIB: u64 = 1 << 20;

fn store() -> RamStore {
    RamStore::new(RamOptions::new(ByteCount(8 * MIB), 1))
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn any(alternates: Alternates<'_>) -> Option<usize> {
    (alternates.len() > 0).then_some(0)
}

/// Chooses by the record's text.
fn named(name: &'static [u8]) -> impl Fn(Alternates<'_>) -> Option<usize> {
    move |alternates| alternates.into_iter().position(|one| one.metadata() == name)
}

fn find(store: &RamStore, key: Key) -> Option<Hit> {
    match store.look_up(key, &any).now().ok()? {
        Found::Hit(hit) => Some(hit),
        Found::Miss(_) => None,
    }
}

fn body_of(hit: &Hit) -> Vec<u8> {
    hit.body().fragments(0..u64::MAX).flat_map(|fragment| fragment.to_vec()).collect()
}

fn entrance(key: Key, seconds: u64) -> Entrance {
    Entrance { key, lane: Lane::PRIMARY, seen: Seen::NOTHING, now: at(seconds) }
}

fn writer(store: &RamStore, key: Key) -> Writer {
    match store.enter(entrance(key, 0)) {
        Role::Writer(writer) => writer,
        other => panic!("a writer was expected, not {other:?}"),
    }
}

fn follower(store: &RamStore, key: Key) -> Follower {
    match store.enter(entrance(key, 0)) {
        Role::Follow(follower) => follower,
        other => panic!("a follower was expected, not {other:?}"),
    }
}

fn head(metadata: &[u8], expected: Option<u64>) -> Head {
    Head { metadata: Arc::from(metadata), tags: Tags::NONE, expected }
}

fn fill(store: &RamStore, key: Key, metadata: &[u8], tags: Tags, body: &[u8]) {
    let mut writer = writer(store, key);
    let head = Head { tags, ..head(metadata, Some(body.len() as u64)) };
    assert_eq!(writer.start(head, at(0)), Kept::Yes);
    for part in body.chunks(1_000) {
        assert_eq!(writer.append(part, at(0)), Kept::Yes);
    }
    writer.finish(None, &|_| true, at(0)).expect("stored");
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    fn rung(&self) -> usize {
        self.0.swap(0, Ordering::SeqCst)
    }
}

fn poll<F: Future>(bell: &Arc<Bell>, future: F) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(bell));
    pin!(future).poll(&mut Context::from_waker(&waker))
}

/// All that a follower gets without waiting.
fn drain(follower: &mut Follower) -> (Vec<u8>, Poll<Option<Cut>>) {
    let (bell, mut bytes) = (Arc::default(), Vec::new());
    loop {
        match poll(&bell, follower.next()) {
            Poll::Ready(Next::Fragment(fragment)) => bytes.extend_from_slice(&fragment),
            Poll::Ready(Next::End) => return (bytes, Poll::Ready(None)),
            Poll::Ready(Next::Cut(cut)) => return (bytes, Poll::Ready(Some(cut))),
            Poll::Pending => return (bytes, Poll::Pending),
        }
    }
}

#[test]
fn a_miss_is_written_and_the_next_look_up_finds_it() {
    let (store, key) = (store(), Key::of(b"/a"));
    assert!(find(&store, key).is_none());
    let mut writer = writer(&store, key);
    assert_eq!(writer.start(head(b"head", None), at(1)), Kept::Yes);
    assert!(find(&store, key).is_none(), "not before it is whole");
    assert_eq!(writer.append(b"hello ", at(2)), Kept::Yes);
    assert_eq!(writer.append(b"world", at(2)), Kept::Yes);
    assert_eq!(writer.finish(Some(Arc::from(&b"head with length"[..])), &|_| true, at(3)), Ok(()));
    let hit = find(&store, key).unwrap();
    assert_eq!((&**hit.metadata(), body_of(&hit)), (&b"head with length"[..], b"hello world".to_vec()));
    assert!(hit.body().is_complete() && !hit.is_stale() && hit.stored() == at(3));
    assert_eq!(hit.body().fragments(0..11).count(), 1, "a short body is stored in one piece");
    let described = store.describe(key, at(10)).unwrap();
    assert_eq!((described.alternates.len(), described.queue), (1, Some("small")));
    assert_eq!(described.alternates[0].age, Duration::from_secs(7));
    let numbers = store.numbers();
    assert_eq!((numbers.objects, numbers.stored, numbers.found, numbers.absent), (1, 1, 1, 2));
}

#[test]
fn a_follower_reads_along_and_is_woken_for_each_step() {
    let (store, key) = (store(), Key::of(b"/a"));
    let mut writer = writer(&store, key);
    let mut follower = follower(&store, key);
    let bell = Arc::<Bell>::default();
    assert!(poll(&bell, follower.head()).is_pending());
    writer.start(head(b"head", Some(6)), at(0));
    assert_eq!(bell.rung(), 1);
    let Poll::Ready(FollowerHead::Response { metadata, expected }) = poll(&bell, follower.head()) else {
        panic!("the head is there")
    };
    assert_eq!((&*metadata, expected), (&b"head"[..], Some(6)));
    assert!(poll(&bell, follower.next()).is_pending());
    writer.append(b"abc", at(0));
    assert_eq!(bell.rung(), 1);
    assert_eq!(drain(&mut follower), (b"abc".to_vec(), Poll::Pending));
    writer.append(b"def", at(0));
    writer.finish(None, &|_| true, at(0)).unwrap();
    assert_eq!(drain(&mut follower), (b"def".to_vec(), Poll::Ready(None)));
    assert_eq!(body_of(&find(&store, key).unwrap()), b"abcdef");
}

#[test]
fn whoever_comes_late_to_a_fetch_reads_from_the_first_byte() {
    let (store, key) = (store(), Key::of(b"/a"));
    let mut writer = writer(&store, key);
    writer.start(head(b"head", None), at(0));
    writer.append(b"abc", at(0));
    let mut late = follower(&store, key);
    assert_eq!(drain(&mut late).0, b"abc");
    writer.append(b"d", at(0));
    drop(writer);
    assert_eq!(drain(&mut late), (vec![], Poll::Ready(Some(Cut::WriterGone))), "broken off, and visibly so");
    assert!(find(&store, key).is_none());
    assert!(matches!(store.enter(entrance(key, 0)), Role::Writer(_)));
}

#[test]
fn a_writer_that_leaves_before_the_head_hands_over_to_whoever_waited_longest() {
    let (store, key) = (store(), Key::of(b"/a"));
    let first = writer(&store, key);
    let (mut second, mut third) = (follower(&store, key), follower(&store, key));
    let (bell_2, bell_3) = (Arc::<Bell>::default(), Arc::<Bell>::default());
    assert!(poll(&bell_2, second.head()).is_pending() && poll(&bell_3, third.head()).is_pending());
    drop(first);
    assert_eq!((bell_2.rung(), bell_3.rung()), (1, 0));
    // The heir goes as well, before it knows.
    drop(second);
    assert_eq!(bell_3.rung(), 1);
    let Poll::Ready(FollowerHead::Write(mut writer)) = poll(&bell_3, third.head()) else { panic!("the next heir") };
    drop(third);
    assert_eq!(writer.followers(), 0);
    let mut fourth = follower(&store, key);
    writer.start(head(b"h", None), at(0));
    writer.append(b"x", at(0));
    writer.finish(None, &|_| true, at(0)).unwrap();
    assert_eq!(drain(&mut fourth), (b"x".to_vec(), Poll::Ready(None)));
    assert_eq!(store.numbers().handed_over, 1);
}

#[test]
fn a_stalled_writer_is_replaced_and_what_it_says_later_changes_nothing() {
    let (store, key) = (store(), Key::of(b"/a"));
    let mut slow = writer(&store, key);
    let (one, mut two) = (follower(&store, key), follower(&store, key));
    let one = one.take_over(at(9)).expect_err("nine seconds are not yet too long");
    let mut quick = one.take_over(at(10)).expect("ten are");
    let two_again = two.take_over(at(11)).expect_err("the new one is not stalled");
    two = two_again;
    assert_eq!(slow.start(head(b"slow", None), at(12)), Kept::No(Reason::HandedOver));
    assert_eq!(slow.append(b"slow", at(12)), Kept::No(Reason::HandedOver));
    assert_eq!(quick.start(head(b"quick", None), at(12)), Kept::Yes);
    assert_eq!(slow.finish(None, &|_| true, at(12)), Err(Reason::HandedOver));
    quick.append(b"q", at(12));
    quick.finish(None, &|_| true, at(12)).unwrap();
    assert_eq!(drain(&mut two), (b"q".to_vec(), Poll::Ready(None)));
    assert_eq!(&**find(&store, key).unwrap().metadata(), b"quick");
}

#[test]
fn nobody_joins_a_writer_that_stalls_in_the_middle_of_a_body() {
    let (store, key) = (store(), Key::of(b"/a"));
    let mut slow = writer(&store, key);
    slow.start(head(b"slow", None), at(0));
    assert!(matches!(store.enter(entrance(key, 9)), Role::Follow(_)));
    let Role::Writer(mut quick) = store.enter(entrance(key, 10)) else { panic!("a new writer") };
    quick.start(head(b"quick", None), at(10));
    quick.finish(None, &|_| true, at(10)).unwrap();
    assert_eq!(slow.finish(None, &|_| true, at(11)), Ok(()), "it goes on for those who follow it");
}

#[test]
fn what_was_stored_between_look_up_and_entrance_is_looked_up_again() {
    let (store, key) = (store(), Key::of(b"/a"));
    fill(&store, key, b"h", Tags::NONE, b"body");
    assert!(matches!(store.enter(entrance(key, 0)), Role::LookAgain));
    let seen = find(&store, key).unwrap().seen();
    assert!(matches!(store.enter(Entrance { seen, ..entrance(key, 0) }), Role::Writer(_)));
}

#[test]
fn a_refresh_replaces_the_record_and_keeps_the_body() {
    let (store, key) = (store(), Key::of(b"/a"));
    fill(&store, key, b"old", Tags::NONE, b"body");
    let old = find(&store, key).unwrap();
    assert!(store.mark_stale(&old));
    let stale = find(&store, key).unwrap();
    assert!(stale.is_stale() && !old.is_stale());
    let Role::Writer(writer) = store.enter(Entrance { seen: stale.seen(), ..entrance(key, 5) }) else {
        panic!("one revalidates")
    };
    let Role::Follow(mut follower) = store.enter(Entrance { seen: stale.seen(), ..entrance(key, 5) }) else {
        panic!("others may wait")
    };
    writer.refreshed(&stale, Arc::from(&b"new"[..])).unwrap();
    let bell = Arc::default();
    assert!(matches!(poll(&bell, follower.head()), Poll::Ready(FollowerHead::LookAgain)));
    let new = find(&store, key).unwrap();
    assert_eq!((&**new.metadata(), body_of(&new), new.is_stale()), (&b"new"[..], b"body".to_vec(), false));
    assert_eq!(&**stale.metadata(), b"old", "a reader keeps what it found");
    assert!(std::ptr::eq(
        new.body().fragments(0..9).next().unwrap().as_ptr(),
        old.body().fragments(0..9).next().unwrap().as_ptr()
    ));
    // A mark that came while the origin was asked says something about the time after.
    assert!(store.mark_stale(&new));
    let marked = find(&store, key).unwrap();
    assert!(store.mark_stale(&marked));
    assert!(store.refresh(&marked, Arc::from(&b"newer"[..])));
    assert!(find(&store, key).unwrap().is_stale());
    store.purge(key, Purge::Remove);
    assert!(!store.refresh(&marked, Arc::from(&b"newest"[..])));
}

#[test]
fn requests_for_what_is_not_storable_do_not_wait_for_one_another() {
    let (store, key) = (store(), Key::of(b"/a"));
    let first = writer(&store, key);
    let mut waiting = follower(&store, key);
    first.not_storable(Reason::Engine(3), at(60));
    let bell = Arc::default();
    let learned = poll(&bell, waiting.head());
    assert!(matches!(learned, Poll::Ready(FollowerHead::Bypass(Reason::Engine(3)))));
    assert!(matches!(store.enter(entrance(key, 59)), Role::Bypass(Reason::Engine(3), _)));
    let declined = DeclinedDescription { primary: true, reason: Reason::Engine(3), left: Duration::from_secs(2) };
    assert_eq!(store.describe(key, at(58)).unwrap().declined, [declined]);
    // It turns out storable after all: the memory ends.
    let Role::Bypass(_, mut alone) = store.enter(entrance(key, 59)) else { panic!("still known") };
    assert_eq!(alone.start(head(b"h", None), at(59)), Kept::Yes);
    alone.finish(None, &|_| true, at(59)).unwrap();
    store.purge(key, Purge::Remove);
    assert!(matches!(store.enter(entrance(key, 59)), Role::Writer(_)));
    assert!(matches!(store.enter(entrance(Key::of(b"/b"), 61)), Role::Writer(_)));
}

#[test]
fn a_failure_is_told_to_all_who_wait_and_not_remembered() {
    let (store, key) = (store(), Key::of(b"/a"));
    let first = writer(&store, key);
    let mut waiting = follower(&store, key);
    first.give_up(Reason::Engine(504));
    let bell = Arc::default();
    let learned = poll(&bell, waiting.head());
    assert!(matches!(learned, Poll::Ready(FollowerHead::Bypass(Reason::Engine(504)))));
    assert!(matches!(store.enter(entrance(key, 0)), Role::Writer(_)));
}

#[test]
fn alternates_live_side_by_side_and_a_newcomer_replaces_its_like() {
    let (store, key) = (store(), Key::of(b"/a"));
    for (n, name) in [&b"gzip"[..], b"br", b"gzip"].iter().enumerate() {
        let seen = find(&store, key).map_or(Seen::NOTHING, |hit| hit.seen());
        let Role::Writer(mut writer) = store.enter(Entrance { lane: Lane::of(name), seen, ..entrance(key, 0) }) else {
            panic!("each lane has its writer")
        };
        writer.start(head(name, None), at(0));
        writer.append(&[b'0' + u8::try_from(n).unwrap()], at(0));
        writer.finish(None, &|stored| stored == *name, at(0)).unwrap();
    }
    assert_eq!(store.describe(key, at(0)).unwrap().alternates.len(), 2);
    for (name, body) in [(&b"gzip"[..], b"2"), (b"br", b"1")] {
        let Ok(Found::Hit(hit)) = store.look_up(key, &named(name)).now() else { panic!("it is there") };
        assert_eq!(body_of(&hit), body);
    }
    let Ok(Found::Miss(seen)) = store.look_up(key, &named(b"identity")).now() else { panic!("not that one") };
    assert_ne!(seen, Seen::NOTHING);
}

#[test]
fn the_oldest_of_too_many_alternates_goes() {
    let store = RamStore::new(RamOptions { alternates_max: 2, ..RamOptions::new(ByteCount(8 * MIB), 1) });
    let key = Key::of(b"/a");
    for name in [b"1", b"2", b"3"] {
        let seen = find(&store, key).map_or(Seen::NOTHING, |hit| hit.seen());
        let Role::Writer(mut writer) = store.enter(Entrance { seen, ..entrance(key, 0) }) else { panic!("a writer") };
        writer.start(head(name, None), at(0));
        writer.finish(None, &|_| false, at(0)).unwrap();
    }
    let names: Vec<_> = store.describe(key, at(0)).unwrap().alternates.iter().map(|one| one.metadata[0]).collect();
    assert_eq!(names, b"23");
}

#[test]
fn a_purge_removes_what_is_stored_and_keeps_what_is_being_fetched_from_being_stored() {
    let (store, key) = (store(), Key::of(b"/a"));
    assert!(!store.purge(key, Purge::Remove));
    fill(&store, key, b"h", Tags::NONE, b"body");
    assert!(store.purge(key, Purge::Remove) && find(&store, key).is_none());
    let mut before = writer(&store, key);
    before.start(head(b"h", None), at(0));
    let mut reading = follower(&store, key);
    assert!(!store.purge(key, Purge::Remove));
    let after = writer(&store, key);
    before.append(b"old", at(0));
    assert_eq!(before.finish(None, &|_| true, at(0)), Err(Reason::Purged));
    assert_eq!(drain(&mut reading), (b"old".to_vec(), Poll::Ready(None)), "who followed before has it whole");
    assert!(find(&store, key).is_none());
    drop(after);
}

#[test]
fn a_purge_by_tag_finds_every_bearer_and_no_other() {
    let store = store();
    let tags = |names: &[&str]| Tags::new(names.iter().map(|name| name.as_bytes())).unwrap();
    for n in 0..300_u32 {
        let names: &[&str] = if n % 3 == 0 { &["third", "all"] } else { &["all"] };
        fill(&store, Key::of(&n.to_le_bytes()), b"h", tags(names), b"body");
    }
    let mut fetching = writer(&store, Key::of(b"/new"));
    fetching.start(Head { tags: tags(&["third"]), ..head(b"h", None) }, at(0));
    let mut unknown = writer(&store, Key::of(b"/unknown"));
    assert_eq!(store.purge_tag(b"nobody", Purge::Remove), 0);
    assert_eq!(store.purge_tag(b"third", Purge::MarkStale), 100);
    assert!(find(&store, Key::of(&0_u32.to_le_bytes())).unwrap().is_stale());
    assert!(!find(&store, Key::of(&1_u32.to_le_bytes())).unwrap().is_stale());
    assert_eq!(store.purge_tag(b"third", Purge::Remove), 100);
    assert_eq!(store.purge_tag(b"third", Purge::Remove), 0);
    assert_eq!(store.numbers().objects, 200);
    assert_eq!(fetching.finish(None, &|_| true, at(0)), Err(Reason::Purged));
    unknown.start(Head { tags: tags(&["third"]), ..head(b"h", None) }, at(0));
    assert_eq!(unknown.finish(None, &|_| true, at(0)), Err(Reason::Purged));
    assert_eq!(store.purge_tag(b"all", Purge::Remove), 200);
    assert_eq!(store.numbers().objects, 0);
}

#[test]
fn an_emptied_store_uses_what_an_empty_one_uses() {
    let store = store();
    let empty = store.used();
    for n in 0..1_000_u32 {
        fill(&store, Key::of(&n.to_le_bytes()), b"h", Tags::new([&b"t"[..]]).unwrap(), &[7; 2_000]);
    }
    assert!(store.used() > empty);
    let pending = writer(&store, Key::of(b"/a"));
    store.clear();
    assert_eq!(store.numbers().objects, 0);
    drop(pending);
    assert_eq!(store.used(), empty);
}

#[test]
fn an_object_known_to_be_too_long_is_nobodys_to_follow() {
    let (store, key) = (store(), Key::of(b"/a"));
    let mut first = writer(&store, key);
    let mut waiting = follower(&store, key);
    let max = store.object_max().0;
    assert_eq!(first.start(head(b"h", Some(max + 1)), at(0)), Kept::No(Reason::TooLarge));
    let bell = Arc::default();
    assert!(matches!(poll(&bell, waiting.head()), Poll::Ready(FollowerHead::Bypass(Reason::TooLarge))));
    assert!(matches!(store.enter(entrance(key, 59)), Role::Bypass(Reason::TooLarge, _)));
    assert!(matches!(store.enter(entrance(key, 60)), Role::Writer(_)), "remembered for a minute");
    let mut exact = writer(&store, Key::of(b"/b"));
    assert_eq!(exact.start(head(b"h", Some(max)), at(0)), Kept::Yes);
}

#[test]
fn of_an_object_that_turns_out_too_long_followers_get_a_window_and_are_cut_when_they_lag() {
    let options = RamOptions { window: ByteCount(40_000), ..RamOptions::new(ByteCount(8 * MIB), 1) };
    let store = RamStore::new(RamOptions { object_max: Some(ByteCount(100_000)), ..options });
    let key = Key::of(b"/a");
    let mut writer = writer(&store, key);
    let (mut quick, mut slow) = (follower(&store, key), follower(&store, key));
    writer.start(head(b"h", None), at(0));
    let empty = store.used().0;
    let mut read = 0;
    for n in 0..100_u8 {
        let kept = writer.append(&[n; 10_000], at(0));
        assert_eq!(kept, if n < 10 { Kept::Yes } else { Kept::No(Reason::TooLarge) });
        if n % 3 == 2 {
            let (bytes, state) = drain(&mut quick);
            assert!(state.is_pending());
            assert!(bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == (read + at) / 10_000));
            read += bytes.len();
        }
        assert!(store.used().0 - empty < 110_000 + if n < 10 { 40_000 } else { 0 }, "{} bytes", store.used().0 - empty);
    }
    assert_eq!(drain(&mut slow), (vec![], Poll::Ready(Some(Cut::Lagged))));
    assert!(matches!(store.enter(entrance(key, 0)), Role::Bypass(Reason::TooLarge, _)));
    assert_eq!(writer.finish(None, &|_| true, at(0)), Err(Reason::TooLarge));
    let (bytes, state) = drain(&mut quick);
    assert_eq!((read + bytes.len(), state), (1_000_000, Poll::Ready(None)));
    assert!(find(&store, key).is_none());
}

#[test]
fn a_body_of_another_length_than_announced_is_cut_and_not_stored() {
    let (store, key) = (store(), Key::of(b"/a"));
    let mut first = writer(&store, key);
    let mut waiting = follower(&store, key);
    first.start(head(b"h", Some(5)), at(0));
    first.append(b"four", at(0));
    assert_eq!(first.finish(None, &|_| true, at(0)), Err(Reason::Incomplete));
    assert_eq!(drain(&mut waiting), (vec![], Poll::Ready(Some(Cut::WriterGone))));
    assert!(find(&store, key).is_none());
}

#[test]
fn the_beginning_of_a_body_can_be_kept_and_says_that_it_is_one() {
    let (store, key) = (store(), Key::of(b"/a"));
    let mut first = writer(&store, key);
    first.start(head(b"h", Some(100)), at(0));
    first.append(b"0123456789", at(0));
    first.finish_partial(None, &|_| true, at(0)).unwrap();
    let hit = find(&store, key).unwrap();
    assert!(!hit.body().is_complete());
    assert_eq!((hit.body().held(), hit.body().complete_length()), (0..10, Some(100)));
    let range: Vec<u8> = hit.body().fragments(5..20).flat_map(|part| part.to_vec()).collect();
    assert_eq!(range, b"56789");
}

#[test]
fn too_many_fetches_or_followers_are_refused() {
    let options = RamOptions { followers_max: 2, flights_max: 4, ..RamOptions::new(ByteCount(8 * MIB), 1) };
    let store = RamStore::new(options);
    let key = Key::of(b"/a");
    let _writer = writer(&store, key);
    let (_one, two) = (follower(&store, key), follower(&store, key));
    assert!(matches!(store.enter(entrance(key, 0)), Role::Full));
    drop(two);
    let _two = follower(&store, key);
    // Four shards with one fetch each.
    let mut roles = Vec::new();
    for n in 0..100_u32 {
        roles.push(store.enter(entrance(Key::of(&n.to_le_bytes()), 0)));
    }
    let writers = roles.iter().filter(|role| matches!(role, Role::Writer(_))).count();
    assert_eq!(writers, 3);
    assert!(roles.iter().all(|role| matches!(role, Role::Writer(_) | Role::Full)));
}

#[test]
fn a_long_body_lies_in_few_fragments_and_followers_read_it_as_it_comes() {
    let store = RamStore::new(RamOptions::new(ByteCount(64 * MIB), 1));
    let empty = store.used();
    let body: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
    for expected in [Some(3_000_000), None] {
        let key = Key::of(&[u8::from(expected.is_some())]);
        let mut writer = writer(&store, key);
        let mut reading = follower(&store, key);
        writer.start(head(b"h", expected), at(0));
        let mut read = Vec::new();
        for part in body.chunks(10_007) {
            assert_eq!(writer.append(part, at(0)), Kept::Yes);
            read.extend(drain(&mut reading).0);
            assert_eq!(read.len() % 10_007 * usize::from(read.len() < 3_000_000), 0, "each part at once");
        }
        writer.finish(None, &|_| true, at(0)).unwrap();
        assert!(read == body && drain(&mut reading) == (vec![], Poll::Ready(None)));
        let hit = find(&store, key).unwrap();
        assert!(body_of(&hit) == body && hit.body().is_complete());
        let fragments = hit.body().fragments(0..u64::MAX).count();
        assert!(fragments <= if expected.is_some() { 3 } else { 14 }, "{fragments} fragments");
        let part: Vec<u8> = hit.body().fragments(1_000_000..1_100_000).flat_map(|one| one.chunk().to_vec()).collect();
        assert!(part == body[1_000_000..1_100_000]);
    }
    assert!((6 * MIB..10 * MIB).contains(&(store.used().0 - empty.0)), "{}", store.used().0);
    store.clear();
    assert_eq!(store.used(), empty);
}

#[test]
fn a_description_tells_all_there_is_and_changes_nothing() {
    let (store, key) = (store(), Key::of(b"/a"));
    assert!(store.describe(key, at(0)).is_none());
    fill(&store, key, b"one", Tags::new([&b"news"[..]]).unwrap(), &[1; 5_000]);
    let hit = find(&store, key).unwrap();
    find(&store, key).unwrap();
    store.mark_stale(&hit);
    let seen = find(&store, key).unwrap().seen();
    let lane = Lane::of(b"gzip");
    let Role::Writer(mut writer) = store.enter(Entrance { key, lane, seen, now: at(10) }) else { panic!("a writer") };
    let Role::Follow(_follower) = store.enter(Entrance { key, lane, seen, now: at(11) }) else { panic!("a follower") };
    writer.start(head(b"two", Some(9)), at(12));
    writer.append(b"abc", at(13));
    for _ in 0..2 {
        let told = store.describe(key, at(20)).unwrap();
        let one = &told.alternates[0];
        assert_eq!((told.alternates.len(), told.queue, told.uses, told.hits), (1, Some("small"), 3, 3));
        assert_eq!(
            (&*one.metadata, one.stored, one.age, one.length),
            (&b"one"[..], at(0), Duration::from_secs(20), 5_000)
        );
        assert_eq!((one.complete_length, one.complete, one.stale, one.busy), (Some(5_000), true, true, true));
        assert!(one.tags.contains(b"news") && one.bytes > 5_000);
        let fetch = FetchDescription {
            primary: false,
            state: "streams",
            followers: 1,
            length: 3,
            expected: Some(9),
            silent: Duration::from_secs(7),
            not_kept: None,
        };
        assert_eq!(told.fetches, [fetch]);
    }
    drop(hit);
    assert!(!store.describe(key, at(20)).unwrap().alternates[0].busy);
    let numbers = store.numbers();
    assert_eq!((numbers.objects, numbers.fetches, numbers.found), (1, 1, 3));
    drop(writer);
    assert_eq!((store.numbers().fetches, store.describe(key, at(20)).unwrap().fetches), (0, vec![]));
}

#[test]
fn a_budget_that_grows_has_huge_pages_for_what_comes_then() {
    let store = RamStore::new(RamOptions::new(ByteCount(8 * MIB), 1));
    store.set_budget(ByteCount(256 * MIB));
    fill(&store, Key::of(b"/a"), b"h", Tags::NONE, &vec![7; 3_000_000]);
    assert_eq!(store.numbers().blocks, 4 * MIB, "{:?}", store.arena_error());
    let hit = find(&store, Key::of(b"/a")).unwrap();
    assert!(hit.body().fragments(0..u64::MAX).all(|fragment| fragment.chunk().lendable().is_some()));
    drop(hit);
    store.clear();
    assert_eq!(store.numbers().blocks, 0);
}
