//! From tag to keys, within one shard: doubly linked both ways, so that an object leaves in the time its tags take.

use std::collections::HashMap;

use crate::Key;
use crate::key::KeyHash;

/// A link's number.
pub(crate) type LinkNumber = u32;
/// No link.
pub(crate) const NO_LINK: LinkNumber = LinkNumber::MAX;

#[derive(Debug)]
struct Link {
    tag: u64,
    key: Key,
    /// Others of the same tag.
    before: LinkNumber,
    after: LinkNumber,
    /// The next of the same object.
    next: LinkNumber,
}

/// Which keys bear which tags. Tags are known by their hash: the caller compares the tags themselves.
#[derive(Debug)]
pub(crate) struct TagIndex {
    heads: HashMap<u64, LinkNumber, KeyHash>,
    links: Vec<Link>,
    free: LinkNumber,
}

impl Default for TagIndex {
    fn default() -> Self {
        Self { heads: HashMap::default(), links: Vec::new(), free: NO_LINK }
    }
}

impl TagIndex {
    /// Bytes of memory that one tag of one object may take: its link, doubled for a vector that just grew, and its share of
    /// the map when no other object bears the tag.
    pub(crate) const LINK_BYTES: u64 = 2 * size_of::<Link>() as u64 + 2 * 17 * 8 / 7;

    /// Adds `key` to a tag. `first` is the object's chain, which begins with the new link afterwards.
    pub(crate) fn add(&mut self, tag: u64, key: Key, first: &mut LinkNumber) {
        let head = self.heads.get(&tag).copied().unwrap_or(NO_LINK);
        let link = Link { tag, key, before: NO_LINK, after: head, next: *first };
        let number = if self.free == NO_LINK {
            let Ok(number) = LinkNumber::try_from(self.links.len()) else { return };
            self.links.push(link);
            number
        } else {
            let number = self.free;
            self.free = self.links[number as usize].next;
            self.links[number as usize] = link;
            number
        };
        if let Some(second) = self.links.get_mut(head as usize) {
            second.before = number;
        }
        self.heads.insert(tag, number);
        *first = number;
    }

    /// Takes an object's whole chain out.
    pub(crate) fn remove(&mut self, mut first: LinkNumber) {
        while first != NO_LINK {
            let Link { tag, before, after, next, .. } = self.links[first as usize];
            match self.links.get_mut(before as usize) {
                Some(link) => link.after = after,
                None if after == NO_LINK => {
                    self.heads.remove(&tag);
                }
                None => {
                    self.heads.insert(tag, after);
                }
            }
            if let Some(link) = self.links.get_mut(after as usize) {
                link.before = before;
            }
            self.links[first as usize].next = self.free;
            self.free = first;
            first = next;
        }
    }

    /// The keys of a tag.
    pub(crate) fn keys(&self, tag: u64) -> impl Iterator<Item = Key> {
        let mut at = self.heads.get(&tag).copied().unwrap_or(NO_LINK);
        std::iter::from_fn(move || {
            let link = self.links.get(at as usize)?;
            at = link.after;
            Some(link.key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn every_tag_knows_its_keys(steps in prop::collection::vec((0_u64..12, prop::collection::btree_set(0_u64..6, 0..4)), 0..80)) {
            let mut index = TagIndex::default();
            let mut chains = [NO_LINK; 12];
            let mut model: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); 12];
            for (object, tags) in steps {
                let at = usize::try_from(object).unwrap();
                index.remove(std::mem::replace(&mut chains[at], NO_LINK));
                for tag in &tags {
                    index.add(*tag, Key::from_u128(u128::from(object)), &mut chains[at]);
                }
                model[at] = tags;
                for tag in 0..6 {
                    let found: BTreeSet<_> = index.keys(tag).collect();
                    let wanted = (0..12).filter(|n| model[*n].contains(&tag)).map(|n| Key::from_u128(n as u128));
                    prop_assert_eq!(found, wanted.collect());
                }
            }
        }
    }
}
