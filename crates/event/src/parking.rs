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
//!
//! A second bit says that the consumer takes nothing any more, by the same argument: an item that was announced before
//! it the consumer finds when it looks once more, and a producer that announces after it sees it.

use crate::sync::{AtomicU64, Ordering};

const PARKED: u64 = 1;
const ENDED: u64 = 2;
const ONE: u64 = 4;

/// What a producer learns from its announcement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// The consumer will look: nothing is to be done.
    Busy,
    /// It sleeps, and the caller must wake it.
    Asleep,
    /// It has looked for the last time.
    Ended,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Parking(AtomicU64);

impl Parking {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// After an item was put into the queue.
    #[inline]
    pub(crate) fn announce(&self) -> Heard {
        let before = self.0.fetch_add(ONE, Ordering::AcqRel);
        if before & (PARKED | ENDED) == 0 {
            Heard::Busy
        } else if before & ENDED != 0 {
            Heard::Ended
        } else if self.nudge() {
            Heard::Asleep
        } else {
            Heard::Busy
        }
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

    /// Consumer only: it looks once more after this, and never again.
    pub(crate) fn end(&self) {
        self.0.fetch_or(ENDED, Ordering::AcqRel);
    }

    /// Whether the consumer takes nothing any more.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire) & ENDED != 0
    }

    /// Consumer only, after it slept.
    pub(crate) fn unpark(&self) {
        self.0.fetch_and(!PARKED, Ordering::AcqRel);
    }
}
