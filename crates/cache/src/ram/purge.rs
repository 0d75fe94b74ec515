//! Removing on demand, and marking stale.

use std::sync::Arc;

use crate::Key;
use crate::alternate::{Alternate, Entry, Hit, tag_hash};
use crate::ram::Inside;
use crate::ram::fill::Fill;
use crate::ram::shard::Shard;
use crate::store::Purge;

/// Keys handled under one lock by a purge of many.
const BATCH: usize = 64;

impl Inside {
    pub(crate) fn mark_stale(&self, hit: &Hit) -> bool {
        let version = self.stamp();
        let mut shard = self.cell(hit.key).lock();
        let Some(stored) = shard.table.value_mut(hit.key) else { return false };
        let Some(found) = stored.entry.alternates().iter().find(|one| one.id == hit.alternate.id) else {
            return false;
        };
        found.mark_stale();
        stored.version = version;
        true
    }

    pub(crate) fn purge(&self, key: Key, how: Purge) -> bool {
        // First: a fetch that ends from here on finds it, and one that ended before is found below.
        self.purges.push_key(key);
        let stamp = self.stamp();
        let (purged, fills) = self.cell(key).change(&self.totals, |shard| {
            shard.declined.forget(key, None);
            let fills = detach(shard, |fill| fill.key == key);
            (purge_where(shard, key, how, stamp, |_| true), fills)
        });
        drop(fills);
        purged.count > 0
    }

    pub(crate) fn purge_tag(&self, tag: &[u8], how: Purge) -> u64 {
        self.purges.push_tag(tag);
        let hash = tag_hash(tag);
        let mut count = 0;
        for cell in &self.shards {
            let mut shard = cell.lock();
            // Of what has no head yet nobody knows the tags.
            let fills = detach(&mut shard, |fill| fill.lock().may_bear(tag));
            let keys: Vec<Key> = shard.tags.keys(hash).collect();
            drop(shard);
            drop(fills);
            for batch in keys.chunks(BATCH) {
                let stamp = self.stamp();
                let purged: Vec<Purged> = cell.change(&self.totals, |shard| {
                    let bears = |alternate: &Alternate| alternate.tags.contains(tag);
                    batch.iter().map(|key| purge_where(shard, *key, how, stamp, bears)).collect()
                });
                count += purged.iter().map(|purged| purged.count).sum::<u64>();
            }
        }
        count
    }

    pub(crate) fn clear(&self) {
        self.purges.push_all();
        for cell in &self.shards {
            let structure = self.uncharged();
            let old = cell.change(&self.totals, |shard| {
                shard.counts.purged += shard.table.len() as u64;
                shard.declined.clear();
                (
                    std::mem::take(&mut shard.table),
                    std::mem::take(&mut shard.tags),
                    detach(shard, |_| true),
                    std::mem::replace(&mut shard.structure, structure),
                )
            });
            drop(old);
        }
    }
}

/// What was purged, to be dropped after the lock.
struct Purged {
    count: u64,
    _entry: Option<Entry>,
}

/// Removes or marks the alternates of `key` that `concerns` names.
fn purge_where(shard: &mut Shard, key: Key, how: Purge, stamp: u64, concerns: impl Fn(&Alternate) -> bool) -> Purged {
    let Some(stored) = shard.table.value_mut(key) else { return Purged { count: 0, _entry: None } };
    let (gone, kept): (Vec<_>, Vec<_>) =
        stored.entry.alternates().iter().map(Arc::clone).partition(|alternate| concerns(alternate));
    let count = gone.len() as u64;
    shard.counts.purged += count;
    let entry = match how {
        _ if count == 0 => None,
        Purge::MarkStale => {
            gone.iter().for_each(|alternate| alternate.mark_stale());
            stored.version = stamp;
            None
        }
        Purge::Remove => match Entry::of(kept) {
            None => shard.remove(key),
            Some(rest) => shard.replace(key, rest, stamp),
        },
    };
    Purged { count, _entry: entry }
}

/// Takes fetches out of the table, so that nobody joins them any more.
fn detach(shard: &mut Shard, mut which: impl FnMut(&Fill) -> bool) -> Vec<Arc<Fill>> {
    if shard.flights.is_empty() {
        return Vec::new();
    }
    shard.flights.extract_if(|_, fill| which(fill)).map(|(_, fill)| fill).collect()
}
