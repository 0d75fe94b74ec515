//! Keys that were evicted a short while ago, and from which queue.
//!
//! A set-associative table of fingerprints with the moment they left, measured in bytes that left the same queue since
//! (Yang et al., SOSP 2023, §4.2). A false match lets one object into the main queue too early, and that is all.

use crate::ram::queues::Queue;

/// Places per set.
const WAYS: usize = 4;
/// One tick of a moment, so that 31 bits last for 2 TiB before they wrap.
const TICK_SHIFT: u32 = 10;

/// Bytes that were evicted so far, by the queue they left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evicted {
    pub(crate) small: u64,
    pub(crate) main: u64,
}

impl Evicted {
    fn from(self, queue: Queue) -> u64 {
        match queue {
            Queue::Small => self.small,
            Queue::Main => self.main,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ghost {
    /// The fingerprint in the upper half, then the moment in 31 bits, then whether it was the main queue; zero is free.
    places: Vec<u64>,
}

fn place_of(fingerprint: u32, moment: u32, queue: Queue) -> u64 {
    u64::from(fingerprint) << 32 | u64::from(moment << 1) | u64::from(queue == Queue::Main)
}

#[expect(clippy::cast_possible_truncation, reason = "moments wrap")]
fn moment_of(bytes: u64) -> u32 {
    (bytes >> TICK_SHIFT) as u32 & MOMENT_MASK
}

const MOMENT_MASK: u32 = u32::MAX >> 1;

#[expect(clippy::cast_possible_truncation, reason = "the parts of the word")]
fn parts(place: u64) -> (u32, u32, Queue) {
    let queue = if place & 1 == 1 { Queue::Main } else { Queue::Small };
    ((place >> 32) as u32, place as u32 >> 1, queue)
}

fn age(place: u64, evicted: Evicted) -> u64 {
    let (_, moment, queue) = parts(place);
    u64::from(moment_of(evicted.from(queue)).wrapping_sub(moment) & MOMENT_MASK) << TICK_SHIFT
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
            // Twice the sets or more: each place finds a free one.
            let set = self.set(parts(place).0);
            if let Some(free) = set.iter_mut().find(|free| **free == 0) {
                *free = place;
            }
        }
    }

    fn set(&mut self, fingerprint: u32) -> &mut [u64] {
        let sets = self.places.len() / WAYS;
        let at = (fingerprint as usize & (sets - 1)) * WAYS;
        &mut self.places[at..at + WAYS]
    }

    /// Has a key's places brought closer: it will be asked for, or remembered, soon.
    #[inline]
    pub(crate) fn announce(&self, fingerprint: u32) {
        let sets = self.places.len() / WAYS;
        if let Some(place) = self.places.get((fingerprint as usize & sets.wrapping_sub(1)) * WAYS) {
            buf::prefetch_value(place);
        }
    }

    /// Remembers a key that leaves `queue` now.
    pub(crate) fn remember(&mut self, fingerprint: u32, queue: Queue, evicted: Evicted) {
        if self.places.is_empty() {
            return;
        }
        let set = self.set(fingerprint);
        let oldest = set.iter_mut().max_by_key(|place| if **place == 0 { u64::MAX } else { age(**place, evicted) });
        if let Some(oldest) = oldest {
            *oldest = place_of(fingerprint, moment_of(evicted.from(queue)), queue);
        }
    }

    /// Which queue the key left, and how many bytes left it since. It is forgotten by asking.
    pub(crate) fn recall(&mut self, fingerprint: u32, evicted: Evicted) -> Option<(Queue, u64)> {
        if self.places.is_empty() {
            return None;
        }
        let set = self.set(fingerprint);
        let place = set.iter_mut().find(|place| **place != 0 && parts(**place).0 == fingerprint)?;
        let recalled = (parts(*place).2, age(*place, evicted));
        *place = 0;
        Some(recalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evicted(kib: u64) -> Evicted {
        Evicted { small: kib << 10, main: kib << 12 }
    }

    #[test]
    fn a_key_is_known_with_its_age_in_bytes_of_its_queue_and_once() {
        let mut ghost = Ghost::default();
        assert_eq!(ghost.recall(7, evicted(0)), None);
        ghost.grow(8);
        ghost.remember(7, Queue::Small, evicted(10));
        ghost.remember(8, Queue::Main, evicted(10));
        assert_eq!(ghost.recall(7, evicted(30)), Some((Queue::Small, 20 << 10)));
        assert_eq!(ghost.recall(7, evicted(30)), None, "forgotten by asking");
        assert_eq!(ghost.recall(8, evicted(30)), Some((Queue::Main, 80 << 10)));
        ghost.remember(9, Queue::Small, evicted((1 << 31) - 1));
        assert_eq!(ghost.recall(9, evicted((1 << 31) + 1)), Some((Queue::Small, 2 << 10)), "moments wrap");
    }

    #[test]
    fn a_full_set_forgets_the_oldest_and_growing_forgets_nothing() {
        let mut ghost = Ghost::default();
        ghost.grow(4);
        for n in 1..=5_u32 {
            ghost.remember(n << 8, Queue::Small, evicted(u64::from(n)));
        }
        ghost.grow(64);
        let known: Vec<u32> = (1..=5).filter(|n| ghost.recall(n << 8, evicted(5)).is_some()).collect();
        assert_eq!(known, [2, 3, 4, 5]);
    }
}
