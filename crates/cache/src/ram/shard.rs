//! One shard: a table, the fetches under way and the memories for its keys, behind one plain lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::alternate::{Entry, tag_hash};
use crate::budget::{Budget, Charge};
use crate::key::{Key, KeyHash, Lane};
use crate::metrics::Numbers;
use crate::ram::declined::Declined;
use crate::ram::fill::Fill;
use crate::ram::ghost::Evicted;
use crate::ram::queues::{Known, Queue, Queues};
use crate::ram::tags::{LinkNumber, NO_LINK, TagIndex};

/// What the table holds under a key.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) entry: Entry,
    /// Another with every change.
    pub(crate) version: u64,
    links: LinkNumber,
}

/// What eviction needs to know of all shards together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tide {
    /// A new stamp.
    pub(crate) stamp: u64,
    /// Bytes that left the queues.
    pub(crate) evicted: Evicted,
    /// How far back a ghost counts.
    pub(crate) reach: u64,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) table: Queues<Stored>,
    pub(crate) flights: HashMap<(Key, Lane), Arc<Fill>, KeyHash>,
    pub(crate) declined: Declined,
    pub(crate) tags: TagIndex,
    pub(crate) counts: Numbers,
    /// What the table itself takes.
    pub(crate) structure: Charge,
}

impl Shard {
    fn new(budget: &Arc<Budget>, declined: usize) -> Self {
        Self {
            table: Queues::default(),
            flights: HashMap::default(),
            declined: Declined::new(declined),
            tags: TagIndex::default(),
            counts: Numbers::default(),
            structure: Charge::of_taken(budget, 0),
        }
    }

    /// The version of what is under `key`; 0 when nothing is.
    pub(crate) fn version(&self, key: Key) -> u64 {
        self.table.peek(key).map_or(0, |stored| stored.version)
    }

    /// Puts `entry` under `key`, in place of what was there. What was there is the caller's to drop.
    pub(crate) fn put(&mut self, key: Key, entry: Entry, version: u64, tide: Tide) -> (Option<Entry>, Known) {
        if self.table.peek(key).is_some() {
            return (self.replace(key, entry, version), None);
        }
        let bytes = entry.bytes();
        let links = self.link(key, &entry);
        let stored = Stored { entry, version, links };
        let known = self.table.insert(key, stored, bytes, tide.stamp, tide.evicted, tide.reach);
        self.counts.ghost_hits += u64::from(known.is_some());
        (None, known)
    }

    /// Puts `entry` in place of what is under `key`.
    pub(crate) fn replace(&mut self, key: Key, entry: Entry, version: u64) -> Option<Entry> {
        let bytes = entry.bytes();
        let links = self.link(key, &entry);
        let stored = Stored { entry, version, links };
        let old = self.table.value_mut(key).map(|place| std::mem::replace(place, stored))?;
        self.table.resize(key, bytes);
        Some(self.unlink(old))
    }

    fn link(&mut self, key: Key, entry: &Entry) -> LinkNumber {
        let mut links = NO_LINK;
        for alternate in entry.alternates() {
            for tag in alternate.tags.iter() {
                self.tags.add(tag_hash(tag), key, &mut links);
            }
        }
        links
    }

    /// Takes out what is under `key`. It is the caller's to drop, after the lock.
    pub(crate) fn remove(&mut self, key: Key) -> Option<Entry> {
        let (stored, _) = self.table.remove(key)?;
        Some(self.unlink(stored))
    }

    /// Takes the tags of what has left the table out of the index.
    pub(crate) fn unlink(&mut self, stored: Stored) -> Entry {
        self.tags.remove(stored.links);
        stored.entry
    }
}

/// A shard with what others may know of it without its lock. Lines of memory are not shared with a neighbour.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ShardCell {
    shard: Mutex<Shard>,
    oldest_small: AtomicU64,
    oldest_main: AtomicU64,
}

impl ShardCell {
    pub(crate) fn new(budget: &Arc<Budget>, declined: usize) -> Self {
        Self {
            shard: Mutex::new(Shard::new(budget, declined)),
            oldest_small: AtomicU64::new(u64::MAX),
            oldest_main: AtomicU64::new(u64::MAX),
        }
    }

    /// For whatever does not change the queues.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shard> {
        self.shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stamp of the oldest in a queue, as it was last known.
    pub(crate) fn oldest(&self, queue: Queue) -> u64 {
        match queue {
            Queue::Small => self.oldest_small.load(Ordering::Relaxed),
            Queue::Main => self.oldest_main.load(Ordering::Relaxed),
        }
    }

    /// Changes the queues, and tells `totals` how much they hold now.
    pub(crate) fn change<R>(&self, totals: &Totals, change: impl FnOnce(&mut Shard) -> R) -> R {
        let mut shard = self.lock();
        let before = (shard.table.bytes(Queue::Small), shard.table.bytes(Queue::Main));
        let result = change(&mut shard);
        let after = (shard.table.bytes(Queue::Small), shard.table.bytes(Queue::Main));
        for (total, before, after) in [(&totals.small, before.0, after.0), (&totals.main, before.1, after.1)] {
            if before != after {
                total.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
            }
        }
        self.oldest_small.store(shard.table.oldest(Queue::Small), Ordering::Relaxed);
        self.oldest_main.store(shard.table.oldest(Queue::Main), Ordering::Relaxed);
        result
    }
}

/// Bytes in the queues of all shards.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    small: AtomicU64,
    main: AtomicU64,
    evicted_small: AtomicU64,
    evicted_main: AtomicU64,
}

impl Totals {
    pub(crate) fn evicted(&self) -> Evicted {
        Evicted { small: self.evicted_small.load(Ordering::Relaxed), main: self.evicted_main.load(Ordering::Relaxed) }
    }

    pub(crate) fn count_evicted(&self, queue: Queue, bytes: u64) {
        let count = match queue {
            Queue::Small => &self.evicted_small,
            Queue::Main => &self.evicted_main,
        };
        count.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn small(&self) -> u64 {
        self.small.load(Ordering::Relaxed)
    }

    pub(crate) fn main(&self) -> u64 {
        self.main.load(Ordering::Relaxed)
    }
}
