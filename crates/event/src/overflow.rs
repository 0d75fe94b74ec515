//! When a queue behind a full ring is used, so that nobody's items overtake each other: three counts.
//!
//! ```text
//! producer: must_follow? ── no, and the ring has room ──> ring
//!              └─ yes, or it has none ──> enter ─ put it into the queue ─ entered
//! consumer: ring ── nothing there ──> open: so many items, if all that was claimed in the ring before was taken ──> left, each
//! ```
//!
//! A producer whose last item is still in the queue sees its own `enter`, and follows. What is `entered` was put in after
//! all that its producer, and those before it in the queue, had put into the ring; so when the consumer first counts
//! what has entered and then finds the ring taken as far as it is claimed, that many may be taken. `tests/loom.rs` tries
//! this very file.

use crate::sync::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub(crate) struct Overflow {
    /// Items on their way into the queue or in it.
    inside: AtomicU64,
    /// Items that were put into it since the start.
    entered: AtomicU64,
}

impl Overflow {
    pub(crate) fn new() -> Self {
        Self { inside: AtomicU64::new(0), entered: AtomicU64::new(0) }
    }

    /// Producers, before they use the ring: whether they must use the queue. The consumer: whether to look there.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.inside.load(Ordering::Acquire) != 0
    }

    /// Before an item is put into the queue.
    pub(crate) fn enter(&self) {
        self.inside.fetch_add(1, Ordering::AcqRel);
    }

    /// After it was.
    pub(crate) fn entered(&self) {
        self.entered.fetch_add(1, Ordering::AcqRel);
    }

    /// The consumer, with how many items it took since the start: how many more there are for certain. It may take them
    /// when it finds, after this, that it has taken all that was claimed in the ring.
    pub(crate) fn open(&self, taken: u64) -> u64 {
        self.entered.load(Ordering::Acquire).wrapping_sub(taken)
    }

    /// The consumer, after it took an item.
    pub(crate) fn left(&self) {
        self.inside.fetch_sub(1, Ordering::AcqRel);
    }
}
