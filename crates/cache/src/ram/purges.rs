//! What was purged of late: so that a response that was asked for before a purge is not stored after it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Key;
use crate::alternate::{Tags, tag_hash};

/// Purges remembered. A fetch during which more happened is not stored.
const PURGES_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug)]
enum Purged {
    Key(Key),
    Tag(u64),
    All,
}

/// The last purges, numbered.
#[derive(Debug, Default)]
pub(crate) struct Purges {
    /// How many there were. Changes under the lock only.
    count: AtomicU64,
    last: Mutex<VecDeque<Purged>>,
}

impl Purges {
    /// How many there were so far: taken by a writer when it begins.
    pub(crate) fn sequence(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn push(&self, purged: Purged) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == PURGES_MAX {
            last.pop_front();
        }
        last.push_back(purged);
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn push_key(&self, key: Key) {
        self.push(Purged::Key(key));
    }

    pub(crate) fn push_tag(&self, tag: &[u8]) {
        self.push(Purged::Tag(tag_hash(tag)));
    }

    pub(crate) fn push_all(&self) {
        self.push(Purged::All);
    }

    /// Whether a purge after the first `since` ones concerns what is to be stored.
    pub(crate) fn concerns(&self, since: u64, key: Key, tags: &Tags) -> bool {
        if self.sequence() == since {
            return false;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = self.sequence() - since;
        let Some(known) = usize::try_from(newer).ok().filter(|newer| *newer <= last.len()) else { return true };
        last.iter().rev().take(known).any(|purged| match purged {
            Purged::All => true,
            Purged::Key(one) => *one == key,
            Purged::Tag(hash) => tags.iter().any(|tag| tag_hash(tag) == *hash),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_purges_concern_a_fetch_and_too_many_concern_every_one() {
        let purges = Purges::default();
        let (key, other) = (Key::of(b"a"), Key::of(b"b"));
        let tags = Tags::new([&b"t"[..]]).unwrap();
        purges.push_key(key);
        let since = purges.sequence();
        assert!(!purges.concerns(since, key, &tags));
        purges.push_key(other);
        purges.push_tag(b"u");
        assert!(!purges.concerns(since, key, &tags));
        purges.push_tag(b"t");
        assert!(purges.concerns(since, key, &tags) && !purges.concerns(since, key, &Tags::NONE));
        let since = purges.sequence();
        for _ in 0..PURGES_MAX {
            purges.push_key(other);
        }
        assert!(!purges.concerns(since, key, &tags));
        purges.push_key(other);
        assert!(purges.concerns(since, key, &tags));
        let since = purges.sequence();
        purges.push_all();
        assert!(purges.concerns(since, key, &Tags::NONE));
    }
}
