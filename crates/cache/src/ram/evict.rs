//! Making room: what goes, and until when.

use std::sync::atomic::{AtomicU64, Ordering};

use sys::arena::{Appender, BLOCK};

use crate::budget::Charge;
use crate::ram::Inside;
use crate::ram::queues::{Known, Queue, Step};

/// Shares of the small queue are in parts of this.
const WHOLE: u64 = 1 << 20;
/// The small queue's share at first, and its limits.
const SHARE_FIRST: u64 = WHOLE / 10;
const SHARE_MIN: u64 = WHOLE / 20;
const SHARE_MAX: u64 = WHOLE / 10 * 8;
/// An object that comes back after one part in this many of all bytes has left its queue would have been hit, had the
/// queue been that much larger.
const NEAR: u64 = 8;
/// Shards looked at to find the oldest. More would cost more than a better choice gains.
const SHARDS_LOOKED_AT: usize = 16;
/// Steps of eviction for one reservation; then there is no room.
const STEPS_MAX: usize = 1 << 16;
/// Objects spared for one reservation because somebody reads them: to evict them would free nothing yet.
const BUSY_SPARED_MAX: usize = 64;

/// How much of the bytes the small queue may have. It grows when what left it comes back soon, and shrinks when what
/// left the main queue does: by the object's own bytes, so that both queues are worth the same at the margin.
#[derive(Debug)]
pub(crate) struct SmallShare(AtomicU64);

impl Default for SmallShare {
    fn default() -> Self {
        Self(AtomicU64::new(SHARE_FIRST))
    }
}

impl SmallShare {
    fn is_exceeded(&self, small: u64, main: u64) -> bool {
        let allowed = u128::from(small + main) * u128::from(self.0.load(Ordering::Relaxed)) / u128::from(WHOLE);
        u128::from(small) > allowed || main == 0
    }

    fn learn(&self, queue: Queue, bytes: u64, total: u64) {
        let step = u64::try_from(u128::from(bytes) * u128::from(WHOLE) / u128::from(total.max(1))).unwrap_or(WHOLE);
        let share = self.0.load(Ordering::Relaxed);
        let share = match queue {
            Queue::Small => share.saturating_add(step),
            Queue::Main => share.saturating_sub(step),
        };
        // Of two threads that learn at one time one may be lost: it is a hint.
        self.0.store(share.clamp(SHARE_MIN, SHARE_MAX), Ordering::Relaxed);
    }
}

impl Inside {
    /// An object of so many bytes came in, of which the ghosts knew that.
    pub(crate) fn learn(&self, known: Known, bytes: u64) {
        let Some((queue, age)) = known else { return };
        let total = self.totals.small() + self.totals.main();
        if age <= total / NEAR {
            self.small_share.learn(queue, bytes, total);
        }
    }

    /// Takes `bytes` from the budget, evicting for it if need be.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Charge> {
        self.make_room(bytes).then(|| Charge::of_taken(&self.budget, bytes))
    }

    /// As [`Inside::reserve`]; the bytes are the caller's to give back.
    pub(crate) fn make_room(&self, bytes: u64) -> bool {
        if bytes > self.budget.limit() {
            return false;
        }
        let mut spare = BUSY_SPARED_MAX;
        for _ in 0..STEPS_MAX {
            if self.budget.take(bytes) {
                return true;
            }
            if !self.evict_step(&mut spare) {
                return false;
            }
        }
        false
    }

    /// Room for `bytes` of a long body, evicting for it if need be; none when there are no huge pages to be had.
    pub(crate) fn large_piece(&self, bytes: usize) -> Option<Appender> {
        if self.arenas.is_empty() {
            return None;
        }
        let mut spare = BUSY_SPARED_MAX;
        for _ in 0..STEPS_MAX {
            if let Some(piece) = self.arenas.allocate(bytes) {
                return Some(piece);
            }
            if self.budget.take(BLOCK as u64) {
                let piece = self.arenas.allocate_in_new_block(bytes);
                if piece.is_none() {
                    self.budget.give(BLOCK as u64);
                }
                return piece;
            }
            if !self.evict_step(&mut spare) {
                return None;
            }
        }
        None
    }

    /// Evicts until the limit is kept, or nothing is left.
    pub(crate) fn evict_to_fit(&self) {
        let mut spare = BUSY_SPARED_MAX;
        let objects = self.numbers().objects;
        for _ in 0..objects.saturating_mul(8) {
            if self.budget.used() <= self.budget.limit() || !self.evict_step(&mut spare) {
                return;
            }
        }
    }

    /// Looks at one object and evicts it, or not. False when nothing is left to evict.
    fn evict_step(&self, spare: &mut usize) -> bool {
        let (small, main) = (self.totals.small(), self.totals.main());
        let first = if self.small_share.is_exceeded(small, main) { Queue::Small } else { Queue::Main };
        let second = if first == Queue::Small { Queue::Main } else { Queue::Small };
        [first, second].into_iter().any(|queue| self.evict_from(queue, spare))
    }

    fn evict_from(&self, queue: Queue, spare: &mut usize) -> bool {
        let Some(at) = self.oldest_shard(queue) else { return false };
        let stamp = self.stamp();
        let evicted = self.totals.evicted();
        let step = self.shards[at].change(&self.totals, |shard| {
            let step = shard.table.step(queue, stamp, evicted, |stored| {
                stored.entry.announce_parts();
                let busy = *spare > 0 && stored.entry.is_busy();
                if busy {
                    *spare -= 1;
                }
                busy
            });
            // The next to go is of the same age: it was not looked at for as long.
            if let Some(next) = shard.table.announce_oldest(queue) {
                next.entry.announce();
            }
            match step {
                Step::Empty => None,
                Step::Spared { promoted } => {
                    shard.counts.promoted += u64::from(promoted);
                    Some(None)
                }
                Step::Evicted { value, bytes } => {
                    match queue {
                        Queue::Small => shard.counts.evicted_small += 1,
                        Queue::Main => shard.counts.evicted_main += 1,
                    }
                    shard.counts.evicted_bytes += bytes;
                    Some(Some((shard.unlink(value), bytes)))
                }
            }
        });
        // What goes is dropped here, with no lock held.
        match step {
            // Spared, or somebody else was quicker: another look is worth while.
            None | Some(None) => true,
            Some(Some((entry, bytes))) => {
                self.totals.count_evicted(queue, bytes);
                drop(entry);
                true
            }
        }
    }

    /// The shard whose oldest of this queue is the oldest of those looked at.
    fn oldest_shard(&self, queue: Queue) -> Option<usize> {
        let count = self.shards.len();
        let from = self.cursor.fetch_add(1, Ordering::Relaxed);
        let among = |looked_at: usize| {
            let places = (0..looked_at).map(|n| from.wrapping_add(n) & self.shard_mask);
            let oldest = places.map(|at| (self.shards[at].oldest(queue), at)).min()?;
            (oldest.0 != u64::MAX).then_some(oldest.1)
        };
        among(count.min(SHARDS_LOOKED_AT)).or_else(|| among(count))
    }

    /// A charge that can grow.
    pub(crate) fn uncharged(&self) -> Charge {
        Charge::of_taken(&self.budget, 0)
    }
}
