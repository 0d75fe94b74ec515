//! A bounded memory of keys whose requests need not wait for one another: what came for them could not be stored.

use std::time::Duration;

use base::Instant;

use crate::key::{Key, Lane};
use crate::store::Reason;

/// Places per set.
const WAYS: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    lane: Lane,
    reason: Reason,
    /// [`Instant::ORIGIN`] when free.
    until: Instant,
}

/// Set-associative; where a set is full, what expires first makes room.
#[derive(Debug)]
pub(crate) struct Declined {
    places: Vec<Place>,
}

impl Declined {
    /// Bytes of memory for `capacity` keys.
    pub(crate) const fn bytes(capacity: usize) -> usize {
        capacity * size_of::<Place>()
    }

    /// Room for `capacity` keys: a power of two, 4 at least.
    pub(crate) fn new(capacity: usize) -> Self {
        let free =
            Place { key: Key::from_u128(0), lane: Lane::PRIMARY, reason: Reason::NoRoom, until: Instant::ORIGIN };
        Self { places: vec![free; capacity.next_power_of_two().max(WAYS)] }
    }

    fn set(&self, key: Key) -> std::ops::Range<usize> {
        let sets = self.places.len() / WAYS;
        let at = (key.fingerprint() as usize & (sets - 1)) * WAYS;
        at..at + WAYS
    }

    /// Has a key's places brought closer: it will be asked for soon.
    #[inline]
    pub(crate) fn announce(&self, key: Key) {
        if let Some(set) = self.places.get(self.set(key)) {
            set.iter().for_each(buf::prefetch_value);
        }
    }

    /// Remembers it until a moment.
    pub(crate) fn remember(&mut self, key: Key, lane: Lane, reason: Reason, until: Instant) {
        let set = self.set(key);
        let places = &mut self.places[set];
        let same = places.iter().position(|place| place.key == key && place.lane == lane);
        let at = same.or_else(|| (0..WAYS).min_by_key(|at| places[*at].until));
        if let Some(place) = at.and_then(|at| places.get_mut(at)) {
            *place = Place { key, lane, reason, until };
        }
    }

    /// Why it need not be waited for, and how much longer that is known.
    pub(crate) fn recall(&self, key: Key, lane: Lane, now: Instant) -> Option<(Reason, Duration)> {
        let known = |place: &&Place| place.key == key && place.lane == lane && place.until > now;
        self.places[self.set(key)].iter().find(known).map(|place| (place.reason, place.until - now))
    }

    /// Each lane of a key that need not be waited for.
    pub(crate) fn lanes(&self, key: Key, now: Instant) -> impl Iterator<Item = (Lane, Reason, Duration)> {
        let known = self.places[self.set(key)].iter().filter(move |place| place.key == key && place.until > now);
        known.map(move |place| (place.lane, place.reason, place.until - now))
    }

    /// Forgets it: something was stored, or it was purged.
    pub(crate) fn forget(&mut self, key: Key, lane: Option<Lane>) {
        let set = self.set(key);
        let same = |place: &&mut Place| place.key == key && lane.is_none_or(|lane| place.lane == lane);
        for place in self.places[set].iter_mut().filter(same) {
            place.until = Instant::ORIGIN;
        }
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        for place in &mut self.places {
            place.until = Instant::ORIGIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn what_was_declined_is_known_until_its_time_is_over() {
        let mut declined = Declined::new(4);
        let key = Key::of(b"a");
        declined.remember(key, Lane::PRIMARY, Reason::Engine(7), at(10));
        assert_eq!(declined.recall(key, Lane::PRIMARY, at(9)), Some((Reason::Engine(7), Duration::from_secs(1))));
        assert_eq!(declined.recall(key, Lane::PRIMARY, at(10)), None);
        assert_eq!(declined.recall(key, Lane::of(b"x"), at(9)), None);
        declined.remember(key, Lane::of(b"x"), Reason::TooLarge, at(12));
        assert_eq!(declined.lanes(key, at(9)).count(), 2);
        let later: Vec<_> = declined.lanes(key, at(10)).collect();
        assert_eq!(later, [(Lane::of(b"x"), Reason::TooLarge, Duration::from_secs(2))]);
        declined.forget(key, None);
        assert_eq!(declined.recall(key, Lane::PRIMARY, at(9)), None);
    }

    #[test]
    fn a_full_memory_forgets_what_expires_first() {
        let mut declined = Declined::new(4);
        for n in 0..5_u64 {
            declined.remember(Key::from_u128(u128::from(n)), Lane::PRIMARY, Reason::TooLarge, at(10 + n));
        }
        let known: Vec<u64> = (0..5)
            .filter(|n| declined.recall(Key::from_u128(u128::from(*n)), Lane::PRIMARY, at(1)).is_some())
            .collect();
        assert_eq!(known, [1, 2, 3, 4]);
    }
}
