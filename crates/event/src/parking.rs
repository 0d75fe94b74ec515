//! How producers wake a consumer that sleeps, and never one that works: a counter and one bit in one word.
//!
//! ```text
//! producer: put the item into the queue ─ announce: word += 1 ─ was the bit set? ── took it away ──> wake (one of many does)
//! consumer: took n items ─ park: word is n without the bit → n with the bit ── failed ──> look again, do not sleep
//!                                                                          └─ done ───> sleep ─ unpark
//! ```
//!
//! One word has one order of changes: either the announcement comes before the bit, and parking fails because the
//! count is no longer what was taken; or it comes after, and the producer sees the bit. No fence is needed, and a busy
//! consumer costs its producers one addition. `tests/loom.rs` tries every interleaving of this very file.

use crate::sync::{AtomicU64, Ordering};

const PARKED: u64 = 1;
const ONE: u64 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Parking(AtomicU64);

impl Parking {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// After an item was put into the queue. True: the caller must wake the consumer.
    #[inline]
    pub(crate) fn announce(&self) -> bool {
        self.0.fetch_add(ONE, Ordering::AcqRel) & PARKED != 0 && self.nudge()
    }

    /// When something else changed that the consumer looks at after parking. True: the caller must wake it.
    pub(crate) fn nudge(&self) -> bool {
        self.0.fetch_and(!PARKED, Ordering::AcqRel) & PARKED != 0
    }

    /// How many items were announced since the start.
    #[inline]
    pub(crate) fn announced(&self) -> u64 {
        self.0.load(Ordering::Relaxed) / ONE
    }

    /// Consumer only, before it sleeps, with how many items it has taken since the start. False: there are more.
    pub(crate) fn park(&self, taken: u64) -> bool {
        let word = self.0.load(Ordering::Acquire);
        // An item may be taken just before it is announced; that announcement then finds the bit and wakes in vain.
        let more = (word / ONE).wrapping_sub(taken).cast_signed() > 0;
        !more && self.0.compare_exchange(word, word | PARKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Consumer only, after it slept.
    pub(crate) fn unpark(&self) {
        self.0.fetch_and(!PARKED, Ordering::AcqRel);
    }
}
