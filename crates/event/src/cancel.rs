//! What becomes of an event that one thread scheduled on another: whether it is delivered, or taken back before.
//!
//! ```text
//! Waiting ── begin_once ─────────────────> Begun           (an event that comes once)
//! Waiting ── begin ──> Running ── again ─> Waiting         (one that comes again and again)
//!    └─────────┴────── cancel ───────────> Cancelled
//! ```
//!
//! Each beginning and `cancel` are each one compare-exchange on one byte, so exactly one of them is first: no delivery begins
//! after `cancel` returned. `tests/loom.rs` tries every interleaving of this very file.

use crate::sync::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const BEGUN: u8 = 2;
const CANCELLED: u8 = 3;

/// What a cancel achieved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// It was in time: the event is not delivered. Of a periodic one: it is not being delivered now, and never again.
    Prevented,
    /// Too late: a delivery has begun, and may have ended. Of a periodic one: it is the last.
    AlreadyBegun,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct CancelState(AtomicU8);

impl CancelState {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(WAITING))
    }

    fn exchange(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The owner's thread, before the one delivery. False: cancelled, do not deliver.
    pub(crate) fn begin_once(&self) -> bool {
        self.exchange(WAITING, BEGUN)
    }

    /// The owner's thread, before a delivery that others may follow. False: cancelled, do not deliver.
    pub(crate) fn begin(&self) -> bool {
        self.exchange(WAITING, RUNNING)
    }

    /// The owner's thread, after a delivery that others follow. False: cancelled meanwhile.
    pub(crate) fn again(&self) -> bool {
        self.exchange(RUNNING, WAITING)
    }

    /// Whether nothing is to be delivered any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire) == CANCELLED
    }

    /// Anybody, once.
    pub(crate) fn cancel(&self) -> Cancelled {
        loop {
            if self.exchange(WAITING, CANCELLED) {
                return Cancelled::Prevented;
            }
            if self.exchange(RUNNING, CANCELLED) || self.0.load(Ordering::Acquire) >= BEGUN {
                return Cancelled::AlreadyBegun;
            }
            // A periodic event went from one state to the other between the two attempts: at most once a delivery.
        }
    }
}
