//! The timing wheel of one event thread: pure, told the time, asked what is due.
//!
//! ```text
//! level 0: 256 slots of 1 ms │ level 1: 64 of 256 ms │ level 2: 64 of 16 s │ level 3: 64 of 17 min │ level 4: 64 of 18 h
//! ```
//!
//! Inserting and cancelling are O(1): a slot is a doubly linked list through the entries. An entry of an upper level
//! falls to a lower one when its slot comes up, at most four times in its life. Deadlines are rounded up to the next
//! millisecond, so that a timer never fires early; more than 49 days ahead they wait in the last level and fall back
//! into it. After Varghese and Lauck, "Hashed and hierarchical timing wheels" (SOSP 1987), scheme 7.

use base::Instant;

const NANOS_PER_TICK: u64 = 1_000_000;
/// Bits of the tick that choose the slot, by level.
const LEVEL_BITS: [u32; LEVELS] = [8, 6, 6, 6, 6];
const LEVELS: usize = 5;
/// First slot of each level in the one array of slots.
const LEVEL_START: [usize; LEVELS] = [0, 256, 320, 384, 448];
const SLOTS: usize = 512;
/// Bits of the tick below each level.
const LEVEL_SHIFT: [u32; LEVELS] = [0, 8, 14, 20, 26];
/// Further ahead than this, in ticks, an entry waits in the last level's last slot.
const SPAN: u64 = 1 << 32;

/// The level that reaches so far ahead, by the number of bits of the distance in ticks.
const LEVEL_BY_BITS: [u8; 65] = {
    let mut levels = [4; 65];
    let mut bits = 0;
    while bits <= 26 {
        levels[bits] = if bits <= 8 {
            0
        } else if bits <= 14 {
            1
        } else if bits <= 20 {
            2
        } else {
            3
        };
        bits += 1;
    }
    levels
};

const NONE: u32 = u32::MAX;

#[expect(clippy::cast_possible_truncation, reason = "there are 512 slots")]
const fn slot_number(slot: usize) -> u32 {
    (slot % SLOTS) as u32
}

/// A timer in the wheel. Stale after it fired or was cancelled; a stale key does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerKey {
    index: u32,
    generation: u32,
}

impl TimerKey {
    /// The key of no timer.
    pub(crate) const NONE: Self = Self { index: NONE, generation: 0 };
}

struct Entry<T> {
    tick: u64,
    previous: u32,
    next: u32,
    slot: u32,
    generation: u32,
    payload: Option<T>,
}

/// Timers with a payload each. See the module.
pub(crate) struct Wheel<T> {
    entries: Vec<Entry<T>>,
    free: u32,
    slots: [u32; SLOTS],
    /// One bit a slot: not empty.
    occupied: [u64; SLOTS / 64],
    /// Everything up to and with this tick has been looked at.
    current: u64,
    len: usize,
}

impl<T> Wheel<T> {
    /// An empty wheel whose past ends at `now`.
    #[must_use]
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            entries: Vec::new(),
            free: NONE,
            slots: [NONE; SLOTS],
            occupied: [0; SLOTS / 64],
            current: now.as_nanos() / NANOS_PER_TICK,
            len: 0,
        }
    }

    /// Pending timers.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether none is pending.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes `payload` due at `at`, or at the next tick when that is past.
    #[inline]
    pub(crate) fn insert(&mut self, at: Instant, payload: T) -> TimerKey {
        let tick = at.as_nanos().div_ceil(NANOS_PER_TICK).max(self.current + 1);
        let slot = self.slot_of(tick);
        let next = self.slots[slot];
        let index = self.free;
        let key = if let Some(entry) = self.entries.get_mut(index as usize) {
            self.free = entry.next;
            entry.tick = tick;
            entry.previous = NONE;
            entry.next = next;
            entry.slot = slot_number(slot);
            // A free entry holds nothing: nothing is to be dropped.
            std::mem::forget(entry.payload.replace(payload));
            TimerKey { index, generation: entry.generation }
        } else {
            self.add(Entry {
                tick,
                previous: NONE,
                next,
                slot: slot_number(slot),
                generation: 0,
                payload: Some(payload),
            })
        };
        if let Some(head) = self.entries.get_mut(next as usize) {
            head.previous = key.index;
        }
        self.slots[slot] = key.index;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.len += 1;
        key
    }

    #[cold]
    fn add(&mut self, entry: Entry<T>) -> TimerKey {
        let index = u32::try_from(self.entries.len()).ok().filter(|&index| index != NONE);
        let index = index.expect("fewer than 2^32 timers fit into memory");
        self.entries.push(entry);
        TimerKey { index, generation: 0 }
    }

    /// Takes a timer out. `None` when it fired or was cancelled before.
    #[inline]
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let free = self.free;
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let payload = entry.payload.take()?;
        let (previous, next, slot) = (entry.previous, entry.next, entry.slot as usize % SLOTS);
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = free;
        self.free = key.index;
        self.len -= 1;
        if let Some(after) = self.entries.get_mut(next as usize) {
            after.previous = previous;
        }
        if let Some(before) = self.entries.get_mut(previous as usize) {
            before.next = next;
        } else {
            self.slots[slot] = next;
            if next == NONE {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        }
        Some(payload)
    }

    /// The payload of a pending timer.
    pub(crate) fn payload_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation == key.generation { entry.payload.as_mut() } else { None }
    }

    /// Moves on to `now` and appends what became due to `due`, each with its tick, in the order of their ticks.
    pub(crate) fn expire(&mut self, now: Instant, due: &mut Vec<(Instant, T)>) {
        let target = now.as_nanos() / NANOS_PER_TICK;
        while self.current < target {
            if self.len == 0 {
                self.current = target;
                return;
            }
            // Nothing can be due, or fall to a lower level, before the next occupied slot: skip to it.
            let Some(next) = self.next_tick().filter(|&tick| tick <= target) else {
                self.current = target;
                return;
            };
            self.current = next;
            for level in (1..LEVELS).rev() {
                if next.trailing_zeros() >= LEVEL_SHIFT[level] {
                    self.cascade(level, next);
                }
            }
            self.fire(next, due);
        }
    }

    /// When to look again at the latest: the exact moment for near timers, the fall to a lower level for far ones.
    /// `None` when no timer is pending.
    #[must_use]
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let tick = self.next_tick()?;
        Some(Instant::from_nanos(tick.saturating_mul(NANOS_PER_TICK)))
    }

    /// The first tick after `current` at which a slot comes up that holds something.
    fn next_tick(&self) -> Option<u64> {
        let mut first: Option<u64> = None;
        for level in 0..LEVELS {
            let (bits, shift) = (LEVEL_BITS[level], LEVEL_SHIFT[level]);
            let size = 1_u64 << bits;
            // The slot of the next boundary of this level after `current`.
            let position = (self.current >> shift) + 1;
            if let Some(distance) = self.next_occupied(level, position & (size - 1)) {
                let tick = (position + distance) << shift;
                first = Some(first.map_or(tick, |first| first.min(tick)));
            }
        }
        first
    }

    /// How many slots after `from`, going round once, the first occupied slot of `level` is.
    fn next_occupied(&self, level: usize, from: u64) -> Option<u64> {
        let words = (1_usize << LEVEL_BITS[level]) / 64;
        let first_word = LEVEL_START[level] / 64;
        let (start, bit) = ((from / 64) as usize, from % 64);
        for step in 0..=words {
            let word = (start + step) % words;
            let mut bits = self.occupied[first_word + word];
            if step == 0 {
                bits &= u64::MAX << bit;
            } else if step == words {
                bits &= !(u64::MAX << bit);
            }
            if bits != 0 {
                let slot = word as u64 * 64 + u64::from(bits.trailing_zeros());
                let size = words as u64 * 64;
                return Some((slot + size - from) % size);
            }
        }
        None
    }

    /// The slot for a tick that lies ahead.
    #[inline]
    fn slot_of(&self, tick: u64) -> usize {
        let ahead = tick.wrapping_sub(self.current);
        if ahead >= SPAN {
            return self.last_slot();
        }
        // The level whose slots reach so far, or the next one when the slot in question is just once around.
        let mut level = LEVEL_BY_BITS[64 - ahead.leading_zeros() as usize] as usize % LEVELS;
        let distance = |level: usize| (tick >> LEVEL_SHIFT[level]) - (self.current >> LEVEL_SHIFT[level]);
        if distance(level) >= 1 << LEVEL_BITS[level] {
            level += 1;
            if level == LEVELS {
                return self.last_slot();
            }
        }
        let index = (tick >> LEVEL_SHIFT[level]) & ((1 << LEVEL_BITS[level]) - 1);
        (LEVEL_START[level] + usize::try_from(index).unwrap_or(0)) % SLOTS
    }

    /// As far as the wheel goes: what lies beyond falls back in from there.
    #[cold]
    fn last_slot(&self) -> usize {
        let position = (self.current >> LEVEL_SHIFT[LEVELS - 1]) + (1 << LEVEL_BITS[LEVELS - 1]) - 1;
        LEVEL_START[LEVELS - 1] + usize::try_from(position & ((1 << LEVEL_BITS[LEVELS - 1]) - 1)).unwrap_or(0)
    }

    /// Puts an entry of no slot into the one that its tick has now.
    fn link(&mut self, index: u32) {
        let slot = self.slot_of(self.entries[index as usize].tick);
        let head = self.slots[slot];
        let entry = &mut self.entries[index as usize];
        entry.slot = slot_number(slot);
        entry.previous = NONE;
        entry.next = head;
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
        self.slots[slot] = index;
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    fn release(&mut self, index: u32) -> Option<T> {
        let free = self.free;
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = free;
        self.free = index;
        self.len -= 1;
        entry.payload.take()
    }

    fn take_slot(&mut self, slot: usize) -> u32 {
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        std::mem::replace(&mut self.slots[slot], NONE)
    }

    fn cascade(&mut self, level: usize, tick: u64) {
        let index = (tick >> LEVEL_SHIFT[level]) & ((1 << LEVEL_BITS[level]) - 1);
        let mut entry = self.take_slot(LEVEL_START[level] + usize::try_from(index).unwrap_or(0));
        while entry != NONE {
            let next = self.entries[entry as usize].next;
            self.link(entry);
            entry = next;
        }
    }

    fn fire(&mut self, tick: u64, due: &mut Vec<(Instant, T)>) {
        let at = Instant::from_nanos(tick.saturating_mul(NANOS_PER_TICK));
        let slot = usize::try_from(tick & 255).unwrap_or(0);
        let mut index = self.take_slot(slot);
        let first = due.len();
        while index != NONE {
            let next = self.entries[index as usize].next;
            due.extend(self.release(index).map(|payload| (at, payload)));
            index = next;
        }
        // A slot is a stack: what was inserted first comes last out of it.
        due[first..].reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Rng;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * NANOS_PER_TICK)
    }

    fn due(wheel: &mut Wheel<u64>, now: Instant) -> Vec<u64> {
        let mut due = Vec::new();
        wheel.expire(now, &mut due);
        due.into_iter().map(|(_, payload)| payload).collect()
    }

    #[test]
    fn a_timer_never_fires_early_and_at_most_one_tick_late() {
        for ms in [1, 2, 255, 256, 257, 300, 511, 512, 16_383, 16_384, 16_385, 1_048_575, 1_048_577, 70_000_000] {
            let mut wheel = Wheel::new(at(1_000));
            wheel.insert(at(1_000 + ms), ms);
            assert_eq!(due(&mut wheel, at(1_000 + ms - 1)), [], "{ms} ms too early");
            assert_eq!(due(&mut wheel, at(1_000 + ms)), [ms], "{ms} ms");
        }
    }

    #[test]
    fn a_moment_within_a_tick_is_rounded_up_and_the_past_is_due_at_the_next_tick() {
        let mut wheel = Wheel::new(at(10));
        wheel.insert(at(10) + Duration::from_nanos(1), 1);
        wheel.insert(at(3), 2);
        assert_eq!(due(&mut wheel, at(10) + Duration::from_micros(999)), []);
        assert_eq!(due(&mut wheel, at(11)), [1, 2]);
    }

    #[test]
    fn a_cancelled_timer_stays_silent_and_its_key_is_dead() {
        let mut wheel = Wheel::new(at(0));
        let key = wheel.insert(at(5), 1);
        assert_eq!(wheel.cancel(key), Some(1));
        let second = wheel.insert(at(6), 2);
        assert_eq!(wheel.cancel(key), None, "the slot is another's now");
        assert_eq!(due(&mut wheel, at(10)), [2]);
        assert_eq!(wheel.cancel(second), None);
        assert!(wheel.is_empty());
    }

    #[test]
    fn it_says_when_to_look_again() {
        let mut wheel = Wheel::new(at(0));
        assert_eq!(wheel.next_expiry(), None);
        wheel.insert(at(200), 1);
        assert_eq!(wheel.next_expiry(), Some(at(200)));
        wheel.insert(at(7), 2);
        assert_eq!(wheel.next_expiry(), Some(at(7)));
        wheel.insert(at(100_000), 3);
        assert_eq!(due(&mut wheel, at(7)), [2]);
        assert_eq!(due(&mut wheel, at(200)), [1]);
        // The far one falls through the levels; each look moves on, and the last is its own moment.
        let mut looks = 0;
        let mut now = at(200);
        loop {
            let next = wheel.next_expiry().unwrap();
            assert!(next > now);
            now = next;
            looks += 1;
            if due(&mut wheel, now) == [3] {
                break;
            }
        }
        assert_eq!(now, at(100_000));
        assert!(looks <= 4, "{looks}");
    }

    #[test]
    fn timers_beyond_the_span_come_at_their_time_too() {
        let mut wheel = Wheel::new(at(12_345));
        let far = at(12_345 + SPAN + 5_000);
        wheel.insert(far, 1);
        let mut now = at(12_345);
        while now < far {
            now = wheel.next_expiry().unwrap();
            let fired = due(&mut wheel, now);
            assert!(fired.is_empty() || now == far, "fired at {now:?}");
        }
        assert!(wheel.is_empty());
    }

    #[test]
    fn against_a_sorted_map_whatever_is_inserted_cancelled_and_skipped() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut now = rng.below(1 << 34);
            let mut wheel = Wheel::new(at(now));
            let mut model: BTreeMap<(u64, u64), TimerKey> = BTreeMap::new();
            for id in 0..300 {
                match rng.below(10) {
                    0..=5 => {
                        let bits = rng.below(30);
                        let when = now + 1 + rng.below(1 << bits);
                        let key = wheel.insert(at(when), id);
                        model.insert((when, id), key);
                    }
                    6 => {
                        let nth = usize::try_from(rng.below(model.len() as u64 + 1)).unwrap();
                        if let Some((&(when, id), &key)) = model.iter().nth(nth) {
                            assert_eq!(wheel.cancel(key), Some(id));
                            model.remove(&(when, id));
                        }
                    }
                    _ => {
                        let bits = rng.below(28);
                        now += rng.below(1 << bits);
                        let fired = due(&mut wheel, at(now));
                        let rest = model.split_off(&(now + 1, 0));
                        let mut ids: Vec<_> = model.keys().map(|&(_, id)| id).collect();
                        model = rest;
                        let mut sorted = fired.clone();
                        sorted.sort_unstable();
                        ids.sort_unstable();
                        assert_eq!(sorted, ids, "seed {seed}");
                    }
                }
                assert_eq!(wheel.len(), model.len());
                if let (Some(next), Some((&(when, _), _))) = (wheel.next_expiry(), model.first_key_value()) {
                    assert!(next <= at(when), "seed {seed}: looks at {next:?}, due at {when} ms");
                }
            }
        }
    }
}
