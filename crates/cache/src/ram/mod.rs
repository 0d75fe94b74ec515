//! The store in memory.
//!
//! ```text
//! RamStore ── Inside ── shard 0..n (a lock each) ── table: key ─> alternates     evicts, purges  `evict`, `purge`
//!                │                              ├── flights: key, lane ─> Fill   collapses       `enter`
//!                │                              └── declined, tags
//!                └── Budget: every byte of it                                     stores          `land`
//! ```
//!
//! A shard's lock is held for a probe and a reference count, or for relinking: nothing is woken, freed or read under
//! it. It holds complete bodies and beginnings of bodies; a piece from the middle of one is refused.

mod arenas;
mod declined;
mod enter;
mod evict;
pub(crate) mod fill;
mod ghost;
mod index;
mod land;
mod purge;
mod purges;
mod queues;
mod shard;
mod tags;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use base::{ByteCount, Instant};

use crate::alternate::{Alternates, Choose, Entry, Hit, Seen};
use crate::budget::{Budget, Charge};
use crate::describe::{AlternateDescription, DeclinedDescription, Description, FETCHES_DESCRIBED_MAX};
use crate::key::{Key, Lane};
use crate::metrics::Numbers;
use crate::ram::arenas::Arenas;
use crate::ram::declined::Declined;
use crate::ram::evict::SmallShare;
use crate::ram::purges::Purges;
use crate::ram::shard::{ShardCell, Tide, Totals};
use crate::store::{Entrance, Found, LookUp, Purge, Reason, Role, Store};

pub(crate) use land::{Landing, record_bytes};

/// Shards per thread: so that two threads rarely want the same one.
const SHARDS_PER_THREAD: usize = 4;
/// Shards, at most.
const SHARDS_MAX: usize = 1 << 12;
/// One part in this many of the budget remembers declined keys.
const DECLINED_SHARE: u64 = 64;
/// Declined keys remembered per shard, at most.
const DECLINED_MAX: u64 = 4_096;
/// Without a setting, one object takes at most one part in this many of the budget: as much as the small queue.
const OBJECT_SHARE: u64 = 10;

/// How a store in memory is made.
#[derive(Clone, Copy, Debug)]
pub struct RamOptions {
    /// All bytes it may use. What does not fit is evicted or refused.
    pub budget: ByteCount,
    /// Threads that will use it.
    pub threads: usize,
    /// Longest body that is kept; none for a tenth of the budget. Never more than half of it.
    pub object_max: Option<ByteCount>,
    /// Of a body that turned out too long to be kept, how much followers may lag behind.
    pub window: ByteCount,
    /// Followers of one fetch.
    pub followers_max: usize,
    /// Fetches under way.
    pub flights_max: usize,
    /// Alternates of one key; one more pushes the oldest out.
    pub alternates_max: usize,
    /// How long a writer may do nothing before another may take its place.
    pub stall: Duration,
    /// How long a key whose body was too long is remembered as such.
    pub too_large_for: Duration,
}

impl RamOptions {
    /// The usual limits.
    #[must_use]
    pub const fn new(budget: ByteCount, threads: usize) -> Self {
        Self {
            budget,
            threads,
            object_max: None,
            window: ByteCount(1 << 20),
            followers_max: 10_000,
            flights_max: 16_384,
            alternates_max: 16,
            stall: Duration::from_secs(10),
            too_large_for: Duration::from_secs(60),
        }
    }
}

/// A cache in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct RamStore(Arc<Inside>);

/// What all clones, writers and followers share.
#[derive(Debug)]
pub(crate) struct Inside {
    shards: Box<[ShardCell]>,
    shard_mask: usize,
    budget: Arc<Budget>,
    /// Memory of long bodies, charged by the block.
    arenas: Arenas,
    options: RamOptions,
    totals: Totals,
    pub(crate) purges: Purges,
    /// Numbers for versions, alternates and the order of queues.
    stamps: AtomicU64,
    /// The small queue's share of the bytes.
    small_share: SmallShare,
    /// Where eviction looks next.
    cursor: AtomicUsize,
    handed_over: AtomicU64,
    lagged: AtomicU64,
    /// The shards' own memory.
    _fixed: Charge,
}

impl RamStore {
    /// An empty store.
    #[must_use]
    pub fn new(options: RamOptions) -> Self {
        let wanted = options.threads.saturating_mul(SHARDS_PER_THREAD).clamp(1, SHARDS_MAX);
        let shards = wanted.next_power_of_two();
        let budget = Budget::new(options.budget.0);
        let place = Declined::bytes(1) as u64;
        let declined = (options.budget.0 / DECLINED_SHARE / shards as u64 / place).clamp(4, DECLINED_MAX);
        // Rounded down, so that the share is kept.
        let declined = 1_usize << declined.ilog2();
        let fixed = (shards * (size_of::<ShardCell>() + Declined::bytes(declined))) as u64;
        // A budget too small for an empty store holds nothing at all.
        let fixed = if budget.take(fixed) { fixed } else { 0 };
        let arenas = Arenas::new(&budget);
        arenas.reserve(budget.limit());
        Self(Arc::new(Inside {
            shards: (0..shards).map(|_| ShardCell::new(&budget, declined)).collect(),
            shard_mask: shards - 1,
            totals: Totals::default(),
            purges: Purges::default(),
            stamps: AtomicU64::new(1),
            small_share: SmallShare::default(),
            cursor: AtomicUsize::new(0),
            handed_over: AtomicU64::new(0),
            lagged: AtomicU64::new(0),
            _fixed: Charge::of_taken(&budget, fixed),
            arenas,
            budget,
            options,
        }))
    }

    /// Changes the budget. What is above a smaller one is evicted before this returns, as far as nobody reads it.
    pub fn set_budget(&self, budget: ByteCount) {
        self.0.budget.set_limit(budget.0);
        self.0.arenas.reserve(budget.0);
        self.0.evict_to_fit();
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> ByteCount {
        ByteCount(self.0.budget.used())
    }

    /// Why long bodies lie where short ones do, and not in huge pages: the system did not grant the addresses. Worth a line
    /// in the log; all else works the same.
    #[must_use]
    pub fn arena_error(&self) -> Option<&io::Error> {
        self.0.arenas.error()
    }

    /// Longest body that is kept.
    #[must_use]
    pub fn object_max(&self) -> ByteCount {
        ByteCount(self.0.object_max())
    }
}

impl Store for RamStore {
    fn look_up<'a>(&'a self, key: Key, choose: &'a dyn Choose) -> LookUp<'a> {
        LookUp::found(self.0.look_up(key, choose))
    }

    fn enter(&self, entry: Entrance) -> Role {
        self.0.enter(entry)
    }

    fn refresh(&self, hit: &Hit, metadata: Arc<[u8]>) -> bool {
        self.0.refresh(hit, metadata, None)
    }

    fn mark_stale(&self, hit: &Hit) -> bool {
        self.0.mark_stale(hit)
    }

    fn purge(&self, key: Key, how: Purge) -> bool {
        self.0.purge(key, how)
    }

    fn purge_tag(&self, tag: &[u8], how: Purge) -> u64 {
        self.0.purge_tag(tag, how)
    }

    fn clear(&self) {
        self.0.clear();
    }

    fn describe(&self, key: Key, now: Instant) -> Option<Description> {
        self.0.describe(key, now)
    }

    fn numbers(&self) -> Numbers {
        self.0.numbers()
    }
}

impl Inside {
    #[inline]
    fn cell(&self, key: Key) -> &ShardCell {
        #[expect(clippy::cast_possible_truncation, reason = "the mask takes the low bits anyway")]
        let at = key.shard_bits() as usize & self.shard_mask;
        &self.shards[at]
    }

    #[inline]
    fn look_up(&self, key: Key, choose: &dyn Choose) -> Found {
        let mut guard = self.cell(key).lock();
        let shard = &mut *guard;
        let Some(stored) = shard.table.touch(key) else {
            shard.counts.absent += 1;
            shard.declined.announce(key);
            shard.table.announce(key);
            return Found::Miss(Seen::NOTHING);
        };
        stored.entry.announce();
        let (entry, seen) = (stored.entry.clone(), Seen(stored.version));
        shard.counts.found += 1;
        drop(guard);
        if let Entry::One(one) = &entry {
            one.warm();
        }
        let Some(chosen) = choose.choose(Alternates::new(&entry)) else { return Found::Miss(seen) };
        let alternate = match entry {
            Entry::One(one) if chosen == 0 => one,
            Entry::One(_) => return Found::Miss(seen),
            Entry::Many(many) => match many.get(chosen) {
                Some(one) => Arc::clone(one),
                None => return Found::Miss(seen),
            },
        };
        let marks = alternate.marks();
        Found::Hit(Hit { alternate, key, seen, marks })
    }

    fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::Relaxed)
    }

    fn tide(&self) -> Tide {
        Tide { stamp: self.stamp(), evicted: self.totals.evicted(), reach: self.totals.main() }
    }

    pub(crate) fn object_max(&self) -> u64 {
        let limit = self.budget.limit();
        self.options.object_max.map_or(limit / OBJECT_SHARE, |max| max.0.min(limit / 2))
    }

    pub(crate) fn stall(&self) -> Duration {
        self.options.stall
    }

    pub(crate) fn too_large_for(&self) -> Duration {
        self.options.too_large_for
    }

    pub(crate) fn count_handed_over(&self) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_lagged(&self) {
        self.lagged.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn decline(&self, key: Key, lane: Lane, reason: Reason, until: Instant) {
        self.cell(key).lock().declined.remember(key, lane, reason, until);
    }

    fn describe(&self, key: Key, now: Instant) -> Option<Description> {
        let guard = self.cell(key).lock();
        let entry = guard.table.peek(key).map(|stored| stored.entry.clone());
        let standing = guard.table.standing(key);
        let declined: Vec<_> = guard.declined.lanes(key, now).collect();
        let of_key = guard.flights.values().filter(|fill| fill.key == key);
        let fills: Vec<_> = of_key.take(FETCHES_DESCRIBED_MAX).map(Arc::clone).collect();
        drop(guard);
        if entry.is_none() && fills.is_empty() && declined.is_empty() {
            return None;
        }
        // Its own hold on a shared list is no use of what is in it.
        let alternates = entry.iter().flat_map(|entry| entry.alternates()).map(|one| AlternateDescription {
            metadata: Arc::clone(&one.metadata),
            stored: one.stored,
            age: now.since(one.stored),
            length: one.body.held().end,
            complete_length: one.body.complete_length(),
            bytes: one.bytes(),
            complete: one.body.is_complete(),
            stale: one.marks() > 0,
            tags: one.tags.clone(),
            busy: Arc::strong_count(one) > 1 + usize::from(matches!(entry, Some(Entry::One(_)))),
        });
        let fetches = fills.iter().map(|fill| fill.lock().describe(fill.lane == Lane::PRIMARY, now));
        let declined = declined.into_iter().map(|(lane, reason, left)| DeclinedDescription {
            primary: lane == Lane::PRIMARY,
            reason,
            left,
        });
        Some(Description {
            alternates: alternates.collect(),
            queue: standing.map(|standing| standing.queue.name()),
            uses: standing.map_or(0, |standing| standing.uses),
            hits: standing.map_or(0, |standing| standing.hits),
            fetches: fetches.collect(),
            declined: declined.collect(),
        })
    }

    fn numbers(&self) -> Numbers {
        let mut numbers = Numbers {
            used: self.budget.used(),
            budget: self.budget.limit(),
            blocks: self.arenas.bytes(),
            ..Numbers::default()
        };
        for cell in &self.shards {
            let shard = cell.lock();
            numbers.objects += shard.table.len() as u64;
            numbers.fetches += shard.flights.len() as u64;
            numbers.add_counts(&shard.counts);
        }
        numbers.handed_over += self.handed_over.load(Ordering::Relaxed);
        numbers.lagged += self.lagged.load(Ordering::Relaxed);
        numbers
    }
}
