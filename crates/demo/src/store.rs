//! The demonstration stores: what the built-in default's pools stand in front of.
//!
//! A store is a map in memory of bounded size that is gone when the server ends. It knows the commands that a
//! demonstration needs, says in `INFO` and `stats` what it is, and refuses what it does not know as the real ones do. To the
//! rest of the house it is an ordinary server, reached over an ordinary connection.
//!
//! [`redis`] and [`memcached`] answer one request each, pure: bytes and the time in, bytes out. [`serve`] owns the
//! connections.

pub mod memcached;
pub mod redis;
pub mod serve;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use base::Instant;

/// Bytes that one store keeps, keys and values together.
pub const MEMORY_MAX: usize = 16 << 20;
/// The longest value: memcached's own.
pub const VALUE_MAX: usize = 1 << 20;
/// What an item costs beside its bytes.
const ITEM_COST: usize = 64;

/// What is kept under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Text(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    List(VecDeque<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    pub(crate) flags: u32,
    /// Grows with each change: memcached's CAS.
    pub(crate) unique: u64,
    pub(crate) expires: Option<Instant>,
}

impl Entry {
    fn cost(&self, key: &[u8]) -> usize {
        let all = |items: &mut dyn Iterator<Item = usize>| items.map(|len| len + ITEM_COST).sum::<usize>();
        key.len()
            + ITEM_COST
            + match &self.value {
                Value::Text(text) => text.len(),
                Value::Hash(fields) => all(&mut fields.iter().map(|(field, value)| field.len() + value.len())),
                Value::List(items) => all(&mut items.iter().map(Vec::len)),
                Value::Set(members) => all(&mut members.iter().map(Vec::len)),
            }
    }
}

/// A map of bounded size whose entries may expire.
#[derive(Debug, Default)]
pub struct Store {
    entries: HashMap<Vec<u8>, Entry>,
    /// What the entries cost, at most what was charged: an entry that changed is counted anew.
    used: usize,
    uniques: u64,
    pub(crate) commands: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) sets: u64,
}

/// There is no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

impl Store {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys now, expired ones included that nobody has asked for since.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    pub(crate) fn find(&mut self, key: &[u8], now: Instant) -> Option<&Entry> {
        let expired = self.entries.get(key)?.expires.is_some_and(|at| at <= now);
        if expired {
            self.remove(key);
            return None;
        }
        self.entries.get(key)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.used -= entry.cost(key);
        Some(entry)
    }

    /// Puts a value in a key's place.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        value: Value,
        flags: u32,
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<(), Full> {
        self.uniques += 1;
        let entry = Entry { value, flags, unique: self.uniques, expires };
        let cost = entry.cost(key);
        let there = self.entries.get(key).map_or(0, |entry| entry.cost(key));
        if self.used - there + cost > MEMORY_MAX {
            self.sweep(now);
        }
        let there = self.entries.get(key).map_or(0, |entry| entry.cost(key));
        if self.used - there + cost > MEMORY_MAX {
            return Err(Full);
        }
        self.used = self.used - there + cost;
        self.entries.insert(key.to_vec(), entry);
        Ok(())
    }

    /// When a key ends. `false`: there is none.
    pub(crate) fn set_expiry(&mut self, key: &[u8], expires: Option<Instant>, now: Instant) -> bool {
        if self.find(key, now).is_none() {
            return false;
        }
        if let Some(entry) = self.entries.get_mut(key) {
            entry.expires = expires;
        }
        true
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.used = 0;
    }

    /// Lets go of what has expired.
    fn sweep(&mut self, now: Instant) {
        let expired = |entry: &Entry| entry.expires.is_some_and(|at| at <= now);
        let gone: Vec<_> =
            self.entries.iter().filter(|(_, entry)| expired(entry)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

/// The moment so far from now; none when there is no such moment.
pub(crate) fn after(now: Instant, time: Duration) -> Option<Instant> {
    /// A hundred years: further is for ever.
    const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
    (time < FAR).then(|| now + time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_takes_no_more_than_its_bound_and_what_expired_makes_room() {
        let now = Instant::ORIGIN;
        let mut store = Store::new();
        let big = || Value::Text(vec![b'x'; VALUE_MAX]);
        let soon = after(now, Duration::from_secs(1));
        store.put(b"soon", big(), 0, soon, now).unwrap();
        let mut kept = 0;
        while store.put(format!("key {kept}").as_bytes(), big(), 0, None, now).is_ok() {
            kept += 1;
        }
        assert!((13..16).contains(&kept) && store.used() <= MEMORY_MAX, "{kept}");
        let later = now + Duration::from_secs(2);
        assert!(store.put(b"one more", big(), 0, None, later).is_ok());
        assert!(store.find(b"soon", later).is_none());
        assert!(store.put(b"key 0", Value::Text(Vec::new()), 0, None, later).is_ok(), "smaller than what was there");
        store.clear();
        assert_eq!((store.used(), store.len()), (0, 0));
    }
}
