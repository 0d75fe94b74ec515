//! What other threads ask of an event thread: a lock-free queue and the right to wake its owner.
//!
//! ```text
//! producers ──> ring: small messages in its slots, which may be taken back there      ──┐
//!          └──> when it is full: a queue that grows, until the owner has taken it all ──┴─> owner, in order of each producer
//! ```
//!
//! Who is woken, and when, is the business of [`Parking`](crate::parking::Parking). A turn takes what there is; a busy
//! owner costs its producers no system call. What was taken in is delivered, or told of the thread's end, or dropped, on
//! the owner's thread; what comes too late is refused.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_queue::SegQueue;
use sys::wake::Wake;

use crate::overflow::Overflow;
use crate::parcel::{Pack, Parcel};
use crate::parking::{Heard, Parking};
use crate::remote::{Arrival, Reap};
use crate::ring::{Apart, Ring, Taken};
use crate::task::TaskId;
use crate::thread::Thread;

/// Messages that may wait for one thread; more are refused. A wake must not be refused, for that would lose its task:
/// beyond the limit none is noted by itself, and the thread polls all its tasks instead.
pub const MESSAGES_MAX: usize = 1 << 20;

/// Messages that lie in a thread's ring: two turns' worth.
const RING: usize = 2_048;

/// Sent to an event thread from anywhere.
pub(crate) enum Message {
    /// Wake one of your tasks.
    Wake(TaskId),
    /// Run this on your loop.
    Run(Box<dyn FnOnce(&Thread) + Send>),
    /// An event that another thread scheduled.
    Event(Arrival),
    /// One of those was cancelled: let go of it.
    Reap(Reap),
}

/// Why a thread does not take a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// [`MESSAGES_MAX`] wait already.
    Full,
    /// It has ended.
    Ended,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "the event thread's queue is full",
            Self::Ended => "the event thread has ended",
        })
    }
}

impl std::error::Error for Refused {}

/// The ring of one thread at a time. It outlives it, so that the handle of a message is no more than its position; the
/// next thread takes it over.
pub(crate) type Messages = Ring<Parcel>;

/// Rings whose threads are gone. There are never more rings than there were threads at one time.
static RINGS: Mutex<Vec<&'static Messages>> = Mutex::new(Vec::new());

/// How far the owner is with what did not fit into the ring.
#[derive(Default)]
struct Owner {
    /// Taken since the start.
    taken: Cell<u64>,
    /// To be taken before it looks into the ring again.
    open: Cell<u64>,
}

pub(crate) struct External {
    ring: &'static Messages,
    /// What does not fit into the ring. Used rarely, in bursts.
    queue: SegQueue<Message>,
    overflow: Apart<Overflow>,
    /// Written by producers.
    parking: Apart<Parking>,
    /// Messages taken since the start; written by the owner alone, once a turn.
    taken: Apart<AtomicU64>,
    owner: Apart<Owner>,
    /// A wake did not fit: all tasks are to be polled.
    wake_all: AtomicBool,
    wake: Wake,
}

// SAFETY: all of it is Sync but `owner`, which functions marked "owner only" use; they are called on the thread that
// owns the loop alone, and at the drop, when nobody else is left.
unsafe impl Sync for External {}

/// What became of a message that was to be put in.
pub(crate) enum Put<P> {
    /// It has a place: this one.
    Done(&'static Messages, u64),
    /// It has no place in the ring.
    NoRoom(P),
    /// The thread has ended; it was dropped.
    Ended,
}

/// A message that the owner took.
pub(crate) enum Next {
    InRing(Taken<'static, Parcel>),
    Overflowed(Message),
}

impl External {
    pub(crate) fn new() -> std::io::Result<Self> {
        let wake = Wake::new()?;
        let used = RINGS.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Self {
            ring: used.unwrap_or_else(|| Box::leak(Box::new(Ring::new(RING, || Parcel::EMPTY)))),
            queue: SegQueue::new(),
            overflow: Apart(Overflow::new()),
            parking: Apart(Parking::new()),
            taken: Apart(AtomicU64::new(0)),
            owner: Apart(Owner::default()),
            wake_all: AtomicBool::new(false),
            wake,
        })
    }

    /// After a message was put in. False: too late, the owner does not look any more.
    #[inline]
    fn announce(&self) -> bool {
        match self.parking.0.announce() {
            Heard::Busy => true,
            Heard::Asleep => {
                // Fails only when the eventfd is closed, and then its owner has ended and takes no messages.
                let _ = self.wake.wake();
                true
            }
            Heard::Ended => false,
        }
    }

    /// Puts a message where it may be taken back from: its ring and position.
    #[inline]
    pub(crate) fn put<P: Pack>(&self, content: P) -> Put<P> {
        if self.parking.0.has_ended() {
            return Put::Ended;
        }
        if self.overflow.0.is_used() {
            return Put::NoRoom(content);
        }
        let Some(claim) = self.ring.claim() else { return Put::NoRoom(content) };
        let parcel = Parcel::of(content);
        // SAFETY: the claim makes the slot ours, and what it held before was moved out.
        let position = claim.fill(|slot| unsafe { slot.write(parcel) });
        if self.announce() || self.is_taken(position) { Put::Done(self.ring, position) } else { Put::Ended }
    }

    /// The owner ended while a message was put in: whoever of both is first has it.
    #[cold]
    fn is_taken(&self, position: u64) -> bool {
        match self.ring.begin(position) {
            Some(taken) => {
                unpack(taken).0.discard();
                false
            }
            None => true,
        }
    }

    /// Puts a message in that must not get lost. There are few of them, but for wakes.
    #[inline]
    pub(crate) fn push(&self, message: Message) {
        if let Put::NoRoom(message) = self.put(message) {
            if matches!(message, Message::Wake(_)) && self.len() >= MESSAGES_MAX {
                self.wake_them_all();
            } else {
                self.push_over(message);
            }
        }
    }

    #[cold]
    fn wake_them_all(&self) {
        self.wake_all.store(true, Ordering::Release);
        // The owner may have taken everything meanwhile, and sleep: it looks at this after parking.
        if self.parking.0.nudge() {
            // As above.
            let _ = self.wake.wake();
        }
    }

    /// Owner only: whether to poll all tasks, for wakes did not fit.
    #[inline]
    pub(crate) fn take_wake_all(&self) -> bool {
        self.wake_all.load(Ordering::Relaxed) && self.wake_all.swap(false, Ordering::AcqRel)
    }

    #[cold]
    fn push_over(&self, message: Message) -> bool {
        self.overflow.0.enter();
        self.queue.push(message);
        self.overflow.0.entered();
        let in_time = self.announce();
        if !in_time {
            // Nobody else will.
            while self.queue.pop().is_some() {}
        }
        in_time
    }

    /// Puts a message in, unless too many wait, or nobody takes from it any more.
    pub(crate) fn offer(&self, message: Message) -> Result<(), Refused> {
        match self.put(message) {
            Put::Done(..) => Ok(()),
            Put::NoRoom(message) => self.offer_over(message),
            Put::Ended => Err(Refused::Ended),
        }
    }

    /// Puts in what there was no room for in the ring, unless too many wait, or nobody takes from it any more.
    #[cold]
    pub(crate) fn offer_over(&self, message: Message) -> Result<(), Refused> {
        if self.len() >= MESSAGES_MAX {
            return Err(Refused::Full);
        }
        if self.push_over(message) { Ok(()) } else { Err(Refused::Ended) }
    }

    /// Owner only. Count them, and say so with [`External::took`] at the latest before parking.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Next> {
        if self.owner.0.open.get() == 0 {
            if let Some(taken) = self.ring.take() {
                return Some(Next::InRing(taken));
            }
            if !self.overflow.0.is_used() {
                return None;
            }
        }
        self.pop_over()
    }

    #[cold]
    fn pop_over(&self) -> Option<Next> {
        let (owner, overflow) = (&self.owner.0, &self.overflow.0);
        if owner.open.get() == 0 {
            let open = overflow.open(owner.taken.get());
            if !self.ring.is_through() {
                return self.ring.take().map(Next::InRing);
            }
            owner.open.set(open);
        }
        if owner.open.get() == 0 {
            return None;
        }
        let message = self.queue.pop()?;
        owner.open.set(owner.open.get() - 1);
        owner.taken.set(owner.taken.get().wrapping_add(1));
        overflow.left();
        Some(Next::Overflowed(message))
    }

    /// Owner only: so many more were popped.
    pub(crate) fn took(&self, count: u64) {
        self.taken.0.store(self.taken.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Messages that wait, about.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let waiting = self.parking.0.announced().wrapping_sub(self.taken.0.load(Ordering::Relaxed));
        // What was taken just before it was announced makes this negative.
        if waiting.cast_signed() < 0 { 0 } else { usize::try_from(waiting).unwrap_or(usize::MAX) }
    }

    /// Owner only, before it sleeps. False: a message is there, do not sleep.
    pub(crate) fn park(&self) -> bool {
        let parked = self.parking.0.park(self.taken.0.load(Ordering::Relaxed));
        if parked && self.wake_all.load(Ordering::Acquire) {
            self.parking.0.unpark();
            return false;
        }
        parked
    }

    /// Owner only, after it slept.
    pub(crate) fn unpark(&self) {
        self.parking.0.unpark();
    }

    /// Owner only: takes nothing any more, but what is there; `last` learns of each.
    pub(crate) fn end(&self, mut last: impl FnMut(Next)) {
        self.parking.0.end();
        self.ring.sweep(|taken| last(Next::InRing(taken)));
        while let Some(message) = self.queue.pop() {
            last(Next::Overflowed(message));
        }
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }
}

/// Moves a parcel out of its slot; and whether it was cancelled.
#[inline]
pub(crate) fn unpack(taken: Taken<'_, Parcel>) -> (Parcel, bool) {
    let cancelled = taken.cancelled;
    // SAFETY: the slot was filled before it could be taken, and what it holds is not used again: the next to claim it
    // writes over it.
    (taken.read(|slot| unsafe { slot.read() }), cancelled)
}

impl Drop for External {
    fn drop(&mut self) {
        // Of a thread that never ran, or whose last messages came while it ended. Nobody else is left.
        self.end(|next| match next {
            Next::InRing(taken) => unpack(taken).0.discard(),
            Next::Overflowed(message) => drop(message),
        });
        self.ring.restart();
        RINGS.lock().unwrap_or_else(PoisonError::into_inner).push(self.ring);
    }
}
