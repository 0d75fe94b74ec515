//! What other threads ask of an event thread: a lock-free queue and the right to wake its owner.
//!
//! Who is woken, and when, is the business of [`Parking`](crate::parking::Parking). A turn takes what there is; a busy
//! owner costs its producers no system call.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::SegQueue;
use sys::wake::Wake;

use crate::parking::Parking;
use crate::remote::{Arrival, Reap};
use crate::task::TaskId;
use crate::thread::Thread;

/// Messages that may wait for one thread; more are refused. Wakes are not counted against it: there is at most one for
/// each waker that was given away, and losing one would lose its task.
pub const MESSAGES_MAX: usize = 1 << 20;

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

/// On a line of memory of its own (two, for processors fetch them in pairs): what producers write must not slow the
/// owner, nor the other way round.
#[repr(align(128))]
struct Apart<T>(T);

pub(crate) struct External {
    queue: SegQueue<Message>,
    /// Written by producers.
    parking: Apart<Parking>,
    /// Messages taken since the start; written by the owner alone, once a turn.
    taken: Apart<AtomicU64>,
    ended: AtomicBool,
    wake: Wake,
}

impl External {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            queue: SegQueue::new(),
            parking: Apart(Parking::new()),
            taken: Apart(AtomicU64::new(0)),
            ended: AtomicBool::new(false),
            wake: Wake::new()?,
        })
    }

    /// Puts a message into the queue that must not get lost.
    #[inline]
    pub(crate) fn push(&self, message: Message) {
        self.queue.push(message);
        if self.parking.0.announce() {
            // Fails only when the eventfd is closed, and then its owner has ended and takes no messages.
            let _ = self.wake.wake();
        }
    }

    /// Puts a message into the queue, unless it is full or nobody takes from it any more.
    #[inline]
    pub(crate) fn offer(&self, message: Message) -> Result<(), Refused> {
        if self.ended.load(Ordering::Relaxed) {
            return Err(Refused::Ended);
        }
        if self.len() >= MESSAGES_MAX {
            return Err(Refused::Full);
        }
        self.push(message);
        Ok(())
    }

    /// Owner only. Count them, and say so with [`External::took`] at the latest before parking.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Message> {
        self.queue.pop()
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
        self.parking.0.park(self.taken.0.load(Ordering::Relaxed))
    }

    /// Owner only, after it slept.
    pub(crate) fn unpark(&self) {
        self.parking.0.unpark();
    }

    /// Owner only: takes nothing any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        while self.queue.pop().is_some() {
            self.took(1);
        }
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }
}
