//! From key to slot: open addressing with linear probing, half full at most, no tombstones.
//!
//! An entry is eight bytes, the key's fingerprint and the slot's number, so that growing and closing gaps never look at
//! the slots themselves. Two keys may share a fingerprint: the caller compares keys.

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The fingerprint in the upper half, the slot's number plus one in the lower; zero is free.
    entries: Vec<u64>,
}

/// A slot's number.
pub(crate) type SlotNumber = u32;

fn entry(fingerprint: u32, slot: SlotNumber) -> u64 {
    u64::from(fingerprint) << 32 | (u64::from(slot) + 1)
}

fn fingerprint_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

fn slot_of(entry: u64) -> SlotNumber {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half of the word")]
    let slot = entry as u32;
    slot - 1
}

impl Index {
    /// Bytes of memory for `capacity` keys.
    pub(crate) const fn bytes(capacity: usize) -> usize {
        if capacity == 0 { 0 } else { (capacity * 2).next_power_of_two() * size_of::<u64>() }
    }

    /// Makes room for `capacity` keys.
    pub(crate) fn grow(&mut self, capacity: usize) {
        let places = Self::bytes(capacity) / size_of::<u64>();
        let old = std::mem::replace(&mut self.entries, vec![0; places]);
        for entry in old.into_iter().filter(|entry| *entry != 0) {
            self.place(entry);
        }
    }

    fn mask(&self) -> usize {
        self.entries.len() - 1
    }

    fn place(&mut self, entry: u64) {
        let mask = self.mask();
        let mut at = fingerprint_of(entry) as usize & mask;
        while self.entries[at] != 0 {
            at = (at + 1) & mask;
        }
        self.entries[at] = entry;
    }

    /// Puts a slot in. There must be room.
    pub(crate) fn insert(&mut self, fingerprint: u32, slot: SlotNumber) {
        self.place(entry(fingerprint, slot));
    }

    /// The slot with this fingerprint for which `is_it` holds.
    #[inline]
    pub(crate) fn find(&self, fingerprint: u32, is_it: impl Fn(SlotNumber) -> bool) -> Option<SlotNumber> {
        if self.entries.is_empty() {
            return None;
        }
        let mask = self.mask();
        let mut at = fingerprint as usize & mask;
        loop {
            let entry = self.entries[at];
            if entry == 0 {
                return None;
            }
            if fingerprint_of(entry) == fingerprint && is_it(slot_of(entry)) {
                return Some(slot_of(entry));
            }
            at = (at + 1) & mask;
        }
    }

    /// Has the place of a fingerprint brought closer: it will be looked for soon.
    #[inline]
    pub(crate) fn announce(&self, fingerprint: u32) {
        if let Some(entry) = self.entries.get(fingerprint as usize & self.entries.len().wrapping_sub(1)) {
            buf::prefetch_value(entry);
        }
    }

    /// Takes a slot out and closes the gap.
    pub(crate) fn remove(&mut self, fingerprint: u32, slot: SlotNumber) {
        if self.entries.is_empty() {
            return;
        }
        let (mask, wanted) = (self.mask(), entry(fingerprint, slot));
        let mut gap = fingerprint as usize & mask;
        while self.entries[gap] != wanted {
            if self.entries[gap] == 0 {
                debug_assert!(false, "a slot that was not in the index was taken out");
                return;
            }
            gap = (gap + 1) & mask;
        }
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let entry = self.entries[at];
            if entry == 0 {
                break;
            }
            // It may move into the gap unless its home lies behind the gap.
            let home = fingerprint_of(entry) as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.entries[gap] = entry;
                gap = at;
            }
        }
        self.entries[gap] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn it_finds_what_a_map_would(steps in prop::collection::vec((any::<bool>(), 0_u32..40), 0..300)) {
            // Few fingerprints at the end of the table: long runs that wrap around.
            let fingerprint = |slot: u32| if slot.is_multiple_of(3) { 60 + slot % 7 } else { slot.wrapping_mul(0x9e37_79b9) };
            let mut index = Index::default();
            index.grow(16);
            let mut model = HashMap::new();
            let mut capacity = 16;
            for (insert, slot) in steps {
                if insert {
                    if model.insert(slot, ()).is_none() {
                        if model.len() > capacity {
                            capacity *= 2;
                            index.grow(capacity);
                        }
                        index.insert(fingerprint(slot), slot);
                    }
                } else if model.remove(&slot).is_some() {
                    index.remove(fingerprint(slot), slot);
                }
                for slot in 0..40 {
                    let found = index.find(fingerprint(slot), |one| one == slot);
                    prop_assert_eq!(found.is_some(), model.contains_key(&slot));
                }
            }
        }
    }
}
