//! A ring of slots between many producers and one consumer, whose items can be taken back while they wait.
//!
//! ```text
//! stamp of a slot:  FREE ── publish ──> WAITING ── begin ──> BEGUN ── release ──> FREE of the next lap
//!                                          └─ cancel ─> CANCELLED ─ begin ─┘
//! ```
//!
//! An item is named by its position, counted from the ring's beginning and never used again: slot and lap in one number.
//! So its name is its cancellable handle: there is nothing to count, nothing to free, and a name that is stale finds a
//! later lap in the stamp and harms nobody. `begin` and `cancel` are each one compare-exchange on the stamp, so exactly
//! one of them is first. `tests/loom.rs` tries every interleaving of this very file.
//!
//! The content is in the slot itself: what one thread writes and another reads is one line of memory an item, asked for
//! some items ahead. What a full ring means is the caller's business: see `external`.

use crate::cancel::Cancelled;
use crate::sync::{AtomicU64, Ordering, UnsafeCell, will_write};

const FREE: u64 = 0;
const WAITING: u64 = 1;
const BEGUN: u64 = 2;
const CANCELLED: u64 = 3;
const STATE_BITS: u32 = 2;

/// Slots that are asked for ahead of their use, by producers and by the consumer.
const AHEAD: u64 = 8;

/// On a line of memory of its own (two, for processors fetch them in pairs): what producers write must not slow the
/// owner, nor the other way round.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

/// Who may touch the content of a slot.
#[derive(Debug)]
struct Stamp(AtomicU64);

/// What became of an item when somebody wanted to begin it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begin {
    /// It is the caller's, to be delivered.
    Begun,
    /// It is the caller's, and was cancelled: to be dropped.
    Cancelled,
    /// It is not there yet, or somebody else had it.
    Not,
}

impl Stamp {
    fn of(lap: u64, state: u64) -> u64 {
        lap << STATE_BITS | state
    }

    /// Producers, before they claim the slot.
    #[inline]
    fn is_free(&self, lap: u64) -> bool {
        self.0.load(Ordering::Acquire) == Self::of(lap, FREE)
    }

    /// The producer that claimed it, after it wrote the content.
    #[inline]
    fn publish(&self, lap: u64) {
        self.0.store(Self::of(lap, WAITING), Ordering::Release);
    }

    /// Whoever wants the content.
    #[inline]
    fn begin(&self, lap: u64) -> Begin {
        let begun = Self::of(lap, BEGUN);
        // Without a look before, which would fetch the line twice: to read it, and to write to it.
        match self.0.compare_exchange(Self::of(lap, WAITING), begun, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Begin::Begun,
            Err(is) if is == Self::of(lap, CANCELLED) => {
                match self.0.compare_exchange(is, begun, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => Begin::Cancelled,
                    Err(_) => Begin::Not,
                }
            }
            Err(_) => Begin::Not,
        }
    }

    /// Whoever began it, after it took the content out.
    #[inline]
    fn release(&self, lap: u64) {
        self.0.store(Self::of(lap.wrapping_add(1), FREE), Ordering::Release);
    }

    /// Anybody, once.
    fn cancel(&self, lap: u64) -> Cancelled {
        let (waiting, cancelled) = (Self::of(lap, WAITING), Self::of(lap, CANCELLED));
        match self.0.compare_exchange(waiting, cancelled, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Cancelled::Prevented,
            Err(_) => Cancelled::AlreadyBegun,
        }
    }
}

/// So that no two slots share a line.
#[derive(Debug)]
#[repr(align(64))]
struct Slot<T> {
    stamp: Stamp,
    content: UnsafeCell<T>,
}

/// See the module. `T` is plain memory: nothing of it is dropped here.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    /// A power of two of them.
    slots: Box<[Slot<T>]>,
    lap_bits: u32,
    /// The next position to claim; written by producers.
    tail: Apart<AtomicU64>,
    /// The next position to take, and how far the consumer saw `tail`; the consumer's alone.
    head: Apart<(AtomicU64, AtomicU64)>,
}

// SAFETY: `content` is reached only by whom the stamp says: the producer that claimed the slot until it publishes, then
// the one whose `begin` succeeded until it releases. Both orders are release and acquire on the stamp.
unsafe impl<T: Send> Sync for Ring<T> {}

/// A slot that is the caller's to fill. It must be filled: nothing behind it is taken before.
#[must_use]
pub(crate) struct Claim<'a, T> {
    ring: &'a Ring<T>,
    position: u64,
}

impl<T> Claim<'_, T> {
    /// Writes the content and lets the consumer have it. `write` must not panic. Gives the item's name.
    #[inline]
    pub(crate) fn fill(self, write: impl FnOnce(*mut T)) -> u64 {
        let (slot, lap) = self.ring.at(self.position);
        slot.content.with_mut(write);
        slot.stamp.publish(lap);
        self.position
    }
}

/// An item that was begun.
pub(crate) struct Taken<'a, T> {
    ring: &'a Ring<T>,
    position: u64,
    /// Not to be delivered, but dropped.
    pub(crate) cancelled: bool,
}

impl<T> Taken<'_, T> {
    /// Lends the content, which is to be moved out, and gives the slot back. `read` must not panic.
    #[inline]
    pub(crate) fn read<R>(self, read: impl FnOnce(*mut T) -> R) -> R {
        let (slot, lap) = self.ring.at(self.position);
        let result = slot.content.with_mut(read);
        slot.stamp.release(lap);
        result
    }
}

impl<T> Ring<T> {
    /// A ring of that many slots (a power of two), each of which holds `empty`.
    pub(crate) fn new(slots: usize, mut empty: impl FnMut() -> T) -> Self {
        assert!(slots.is_power_of_two(), "so that a position is slot and lap");
        let slot = |_| Slot { stamp: Stamp(AtomicU64::new(Stamp::of(0, FREE))), content: UnsafeCell::new(empty()) };
        Self {
            slots: (0..slots).map(slot).collect(),
            lap_bits: slots.trailing_zeros(),
            tail: Apart(AtomicU64::new(0)),
            head: Apart((AtomicU64::new(0), AtomicU64::new(0))),
        }
    }

    #[inline]
    fn slot(&self, position: u64) -> &Slot<T> {
        // The mask is smaller than the number of slots, which is a usize.
        #[expect(clippy::cast_possible_truncation, reason = "cut to the mask on purpose")]
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    #[inline]
    fn at(&self, position: u64) -> (&Slot<T>, u64) {
        (self.slot(position), position >> self.lap_bits)
    }

    /// A slot to fill; `None`: the ring is full.
    #[inline]
    pub(crate) fn claim(&self) -> Option<Claim<'_, T>> {
        let mut position = self.tail.0.load(Ordering::Relaxed);
        loop {
            let (slot, lap) = self.at(position);
            will_write(self.slot(position.wrapping_add(AHEAD)));
            if slot.stamp.is_free(lap) {
                let next = position.wrapping_add(1);
                match self.tail.0.compare_exchange_weak(position, next, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => return Some(Claim { ring: self, position }),
                    Err(now) => position = now,
                }
            } else {
                // Full, or another producer was quicker; then there is a new tail, and one that was quick makes all go on.
                let now = self.tail.0.load(Ordering::Relaxed);
                if now == position {
                    return None;
                }
                position = now;
            }
        }
    }

    /// The consumer alone: the next item, in the order in which slots were claimed. `None`: there is none, or the next
    /// one is just being written.
    #[inline]
    pub(crate) fn take(&self) -> Option<Taken<'_, T>> {
        let (head, seen) = &self.head.0;
        let position = head.load(Ordering::Relaxed);
        let mut end = seen.load(Ordering::Relaxed);
        if position == end {
            end = self.tail.0.load(Ordering::Acquire);
            if position == end {
                return None;
            }
            seen.store(end, Ordering::Relaxed);
        }
        if end.wrapping_sub(position) > AHEAD {
            will_write(self.slot(position.wrapping_add(AHEAD)));
        }
        let taken = self.begin(position)?;
        head.store(position.wrapping_add(1), Ordering::Relaxed);
        Some(taken)
    }

    /// Begins an item out of order: for the one that put it in and learns that nobody takes items any more.
    #[inline]
    pub(crate) fn begin(&self, position: u64) -> Option<Taken<'_, T>> {
        let (slot, lap) = self.at(position);
        match slot.stamp.begin(lap) {
            Begin::Begun => Some(Taken { ring: self, position, cancelled: false }),
            Begin::Cancelled => Some(Taken { ring: self, position, cancelled: true }),
            Begin::Not => None,
        }
    }

    /// The consumer alone: whether it has taken all that was claimed before this call.
    pub(crate) fn is_through(&self) -> bool {
        self.head.0.0.load(Ordering::Relaxed) == self.tail.0.load(Ordering::Acquire)
    }

    /// The consumer alone, when it takes no more: each item that is there; those that are just being written are left to
    /// their producers.
    pub(crate) fn sweep<'a>(&'a self, mut taken: impl FnMut(Taken<'a, T>)) {
        let head = &self.head.0.0;
        let end = self.tail.0.load(Ordering::Acquire);
        let mut position = head.load(Ordering::Relaxed);
        while position != end {
            if let Some(item) = self.begin(position) {
                taken(item);
            }
            position = position.wrapping_add(1);
        }
    }

    /// The consumer alone, when nobody else is left: begins anew behind all that was claimed.
    pub(crate) fn restart(&self) {
        let end = self.tail.0.load(Ordering::Acquire);
        self.head.0.0.store(end, Ordering::Relaxed);
        self.head.0.1.store(end, Ordering::Relaxed);
    }

    /// Takes an item back, or says that it is too late. Either way it does not begin after this returned.
    pub(crate) fn cancel(&self, position: u64) -> Cancelled {
        let (slot, lap) = self.at(position);
        slot.stamp.cancel(lap)
    }
}
