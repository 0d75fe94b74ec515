//! What other threads ask of an event thread: a lock-free queue and the right to wake its owner.
//!
//! ```text
//! producer: push · fence · parked? ── compare-exchange PARKED→NOTIFIED won ──> write the eventfd (one of many does)
//! owner:    store PARKED · fence · queue empty? ── no ──> RUNNING, do not sleep
//!                                               └─ yes ─> poll ── RUNNING
//! ```
//!
//! Either the producer sees PARKED, or the owner sees the message: the two fences order the one's store before the
//! other's load, so that no wake-up is lost, and a busy owner costs its producers no system call.

use std::sync::atomic::{AtomicU32, Ordering, fence};

use crossbeam_queue::SegQueue;
use sys::wake::Wake;

use crate::task::TaskId;
use crate::thread::Thread;

/// Sent to an event thread from anywhere.
pub(crate) enum Message {
    /// Wake one of your tasks.
    Wake(TaskId),
    /// Run this on your loop.
    Run(Box<dyn FnOnce(&Thread) + Send>),
}

const RUNNING: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

pub(crate) struct External {
    queue: SegQueue<Message>,
    state: AtomicU32,
    wake: Wake,
}

impl External {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { queue: SegQueue::new(), state: AtomicU32::new(RUNNING), wake: Wake::new()? })
    }

    pub(crate) fn push(&self, message: Message) {
        self.queue.push(message);
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::Relaxed) == PARKED
            && self.state.compare_exchange(PARKED, NOTIFIED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            // Fails only when the eventfd is closed, and then its owner has ended and takes no messages.
            let _ = self.wake.wake();
        }
    }

    pub(crate) fn pop(&self) -> Option<Message> {
        self.queue.pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Owner only, before it sleeps. False: a message is there, do not sleep.
    pub(crate) fn park(&self) -> bool {
        self.state.store(PARKED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.unpark();
        false
    }

    /// Owner only, after it slept.
    pub(crate) fn unpark(&self) {
        self.state.store(RUNNING, Ordering::Release);
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }
}
