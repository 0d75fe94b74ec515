//! Keys that left the small queue a short while ago: who comes back is let into the main queue at once.
//!
//! A set-associative table of fingerprints with the moment they left, measured in bytes that left the small queue since
//! (Yang et al., SOSP 2023, §4.2). A false match lets one object into the main queue too early, and that is all.

/// Places per set.
const WAYS: usize = 4;
/// One tick of a moment, so that 32 bits last for 4 TiB before they wrap.
const TICK_SHIFT: u32 = 10;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ghost {
    /// The fingerprint in the upper half, the moment in the lower; zero is free.
    places: Vec<u64>,
}

#[expect(clippy::cast_possible_truncation, reason = "moments wrap")]
fn tick(bytes: u64) -> u32 {
    (bytes >> TICK_SHIFT) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves of the word")]
fn parts(place: u64) -> (u32, u32) {
    ((place >> 32) as u32, place as u32)
}

impl Ghost {
    /// Bytes of memory to remember `capacity` keys.
    pub(crate) const fn bytes(capacity: usize) -> usize {
        if capacity == 0 { 0 } else { capacity.next_power_of_two() * size_of::<u64>() }
    }

    /// Makes room to remember `capacity` keys; what it remembers so far it keeps.
    pub(crate) fn grow(&mut self, capacity: usize) {
        let places = (Self::bytes(capacity) / size_of::<u64>()).max(WAYS);
        let old = std::mem::replace(&mut self.places, vec![0; places]);
        for place in old.into_iter().filter(|place| *place != 0) {
            let (fingerprint, moment) = parts(place);
            self.put(fingerprint, moment, moment);
        }
    }

    fn set(&mut self, fingerprint: u32) -> &mut [u64] {
        let sets = self.places.len() / WAYS;
        let at = (fingerprint as usize & (sets - 1)) * WAYS;
        &mut self.places[at..at + WAYS]
    }

    fn put(&mut self, fingerprint: u32, moment: u32, now: u32) {
        if self.places.is_empty() {
            return;
        }
        let set = self.set(fingerprint);
        let age = |place: &u64| if *place == 0 { u64::MAX } else { u64::from(now.wrapping_sub(parts(*place).1)) };
        if let Some(oldest) = set.iter_mut().max_by_key(|place| age(place)) {
            *oldest = u64::from(fingerprint) << 32 | u64::from(moment);
        }
    }

    /// Remembers a key that leaves now, `evicted` bytes having left before it.
    pub(crate) fn remember(&mut self, fingerprint: u32, evicted: u64) {
        self.put(fingerprint, tick(evicted), tick(evicted));
    }

    /// Whether the key left within the last `reach` bytes. It is forgotten by asking.
    pub(crate) fn recall(&mut self, fingerprint: u32, evicted: u64, reach: u64) -> bool {
        if self.places.is_empty() {
            return false;
        }
        let now = tick(evicted);
        let known = |place: &&mut u64| **place != 0 && parts(**place).0 == fingerprint;
        let Some(place) = self.set(fingerprint).iter_mut().find(known) else { return false };
        let moment = parts(*place).1;
        *place = 0;
        now.wrapping_sub(moment) <= tick(reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_for_as_many_bytes_as_asked_for_and_once() {
        let mut ghost = Ghost::default();
        assert!(!ghost.recall(7, 0, u64::MAX));
        ghost.grow(8);
        ghost.remember(7, 10 << 10);
        ghost.remember(8, 10 << 10);
        assert!(ghost.recall(7, 30 << 10, 20 << 10));
        assert!(!ghost.recall(7, 30 << 10, 20 << 10), "forgotten by asking");
        assert!(!ghost.recall(8, 31 << 10, 20 << 10), "too long ago");
    }

    #[test]
    fn a_full_set_forgets_the_oldest_and_growing_forgets_nothing() {
        let mut ghost = Ghost::default();
        ghost.grow(4);
        for n in 1..=5_u32 {
            ghost.remember(n << 8, u64::from(n) << 10);
        }
        ghost.grow(64);
        let known: Vec<u32> = (1..=5).filter(|n| ghost.recall(n << 8, 5 << 10, 1 << 20)).collect();
        assert_eq!(known, [2, 3, 4, 5]);
    }
}
