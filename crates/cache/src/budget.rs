//! One number of bytes that everything stored together may use, and who uses how much of it.
//!
//! Bytes are reserved before the memory is taken and given back when it is freed: not when an object leaves the table,
//! since a reader may hold it longer. So what is counted is what is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an allocation of `bytes` takes from the allocator: mimalloc's size classes, four to a doubling.
#[must_use]
pub(crate) const fn footprint(bytes: usize) -> u64 {
    let bytes = bytes as u64;
    if bytes <= 64 {
        return bytes.next_multiple_of(16);
    }
    let step = 1 << (63 - (bytes - 1).leading_zeros() - 2);
    let rounded = bytes.next_multiple_of(step);
    // From here on whole pages are taken, and no class rounds further.
    if rounded > LARGE { bytes.next_multiple_of(PAGE) } else { rounded }
}

const LARGE: u64 = 512 << 10;
const PAGE: u64 = 4 << 10;
/// The two counts in front of what an `Arc` holds.
const ARC_COUNTS: usize = 16;

/// What `Arc<[u8]>` of `bytes` takes.
#[must_use]
pub(crate) const fn footprint_shared(bytes: usize) -> u64 {
    footprint(bytes + ARC_COUNTS)
}

/// What an `Arc` of a `T` takes.
#[must_use]
pub(crate) const fn footprint_of<T>() -> u64 {
    footprint(size_of::<T>() + ARC_COUNTS)
}

/// The limit and what is used of it.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicU64,
    limit: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit: AtomicU64::new(limit) })
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit. What is used above a lower one is the caller's to evict.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` if they are left.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        let limit = self.limit();
        let after = |used: u64| used.checked_add(bytes).filter(|after| *after <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }

    pub(crate) fn give(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more was given back than was taken");
    }
}

/// Bytes taken from a budget, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: AtomicU64,
}

impl Charge {
    /// Owns `bytes` that were taken before.
    pub(crate) fn of_taken(budget: &Arc<Budget>, bytes: u64) -> Self {
        Self { budget: Arc::clone(budget), bytes: AtomicU64::new(bytes) }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Owns `bytes` more that were taken before.
    pub(crate) fn absorb(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Owns nothing any more: the bytes are the caller's.
    pub(crate) fn release(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }

    /// Gives part of it back.
    pub(crate) fn shrink(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.give(bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give(self.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_beyond_the_limit_and_all_is_given_back() {
        let budget = Budget::new(100);
        assert!(budget.take(60));
        let charge = Charge::of_taken(&budget, 60);
        assert!(!budget.take(41));
        assert!(budget.take(40));
        charge.absorb(40);
        charge.shrink(10);
        assert_eq!(budget.used(), 90);
        drop(charge);
        assert_eq!(budget.used(), 0);
        assert!(!budget.take(u64::MAX));
    }

    #[test]
    fn a_footprint_is_never_below_the_request_and_at_most_a_quarter_above() {
        for bytes in (1..5_000).chain([65_536, 65_537, 524_288, 524_289, 1 << 20, (1 << 20) + 16]) {
            let taken = footprint(bytes);
            assert!(taken >= bytes as u64, "{bytes}");
            assert!(bytes < 64 || taken <= bytes as u64 * 5 / 4 + 1, "{bytes} takes {taken}");
        }
        assert_eq!((footprint(65), footprint(80), footprint(81), footprint(1_025)), (80, 80, 96, 1_280));
    }
}
