//! A bounded channel from any thread to a continuation of an event thread.
//!
//! Lock-free in the common case; one wake-up for many messages, by the same protocol as the external queue
//! (`parking`). When it is full the sender is told at once and decides: nobody waits.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam_queue::ArrayQueue;

use crate::continuation::{Cont, Event};
use crate::parking::{Heard, Parking};
use crate::task::Task;
use crate::thread::Thread;

/// Why a message was not taken; it comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError<T> {
    /// As many wait as the channel holds.
    Full(T),
    /// Nobody reads any more.
    Closed(T),
}

impl<T> SendError<T> {
    /// The message.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) => item,
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the channel is full",
            Self::Closed(_) => "nobody reads from the channel any more",
        })
    }
}

struct Shared<T> {
    queue: ArrayQueue<T>,
    parking: Parking,
    /// Whom to wake; written before parking, taken by whoever ends it.
    reader: Mutex<Option<Waker>>,
    senders: AtomicUsize,
    receiver_gone: AtomicBool,
}

impl<T> Shared<T> {
    fn wake(&self) {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// A channel that holds at most `capacity` messages (at least one).
#[must_use]
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(capacity.max(1)),
        parking: Parking::new(),
        reader: Mutex::new(None),
        senders: AtomicUsize::new(1),
        receiver_gone: AtomicBool::new(false),
    });
    (Sender(Arc::clone(&shared)), Receiver { shared, taken: Cell::new(0), one_reader: PhantomData })
}

/// The writing end, for any thread. Clones write to the same channel.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T: Send> Sender<T> {
    /// Puts a message in. Never waits.
    ///
    /// # Errors
    /// Gives it back when the channel is full, or nobody reads any more.
    #[inline]
    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        let shared = &*self.0;
        if shared.receiver_gone.load(Ordering::Relaxed) {
            return Err(SendError::Closed(item));
        }
        shared.queue.push(item).map_err(SendError::Full)?;
        if shared.parking.announce() == Heard::Asleep {
            shared.wake();
        }
        Ok(())
    }

    /// Messages that wait, about.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.0.queue.len()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 && self.0.parking.nudge() {
            self.0.wake();
        }
    }
}

/// The reading end. It may be made on one thread and sent to another; it is read by one task at a time.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    taken: Cell<u64>,
    one_reader: PhantomData<Cell<()>>,
}

impl<T: Send> Receiver<T> {
    /// A message, if one waits.
    #[inline]
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        let item = self.shared.queue.pop()?;
        self.taken.set(self.taken.get().wrapping_add(1));
        Some(item)
    }

    /// Ready with a message, or with `None` when no sender is left and nothing waits.
    pub fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            if let Some(item) = self.try_recv() {
                return Poll::Ready(Some(item));
            }
            if !self.park(context) {
                // A message is being put in just now.
                std::hint::spin_loop();
                continue;
            }
            if self.shared.senders.load(Ordering::Acquire) > 0 {
                return Poll::Pending;
            }
            // The last message may have come between the look and the last sender's end.
            return Poll::Ready(self.try_recv());
        }
    }

    /// Ready when a message waits, or no sender is left.
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.shared.queue.is_empty() || !self.park(context) || self.shared.senders.load(Ordering::Acquire) == 0 {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Leaves word whom to wake. False: there are messages.
    fn park(&self, context: &Context<'_>) -> bool {
        *self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        self.shared.parking.park(self.taken.get())
    }

    /// As [`Receiver::poll_recv`], as a future.
    pub async fn recv(&self) -> Option<T> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// Whether no sender is left. Messages may still wait.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.senders.load(Ordering::Acquire) == 0
    }
}

impl<T: Send + 'static> Receiver<T> {
    /// Delivers [`Event::Message`] to `cont` on `thread`, at most once a turn, while messages wait, and once more when
    /// no sender is left. The continuation takes messages with [`Receiver::try_recv`]; until the task that this
    /// returns is cancelled.
    pub fn deliver_to(self: &Rc<Self>, thread: &Thread, cont: Cont) -> Task {
        let (receiver, me) = (Rc::clone(self), thread.clone());
        thread.spawn("channel", async move {
            loop {
                poll_fn(|context| receiver.poll_ready(context)).await;
                let closed = receiver.is_closed() && receiver.shared.queue.is_empty();
                crate::continuation::deliver(&cont, Event::Message, &me);
                if closed {
                    return;
                }
                crate::task::yield_now().await;
            }
        })
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_gone.store(true, Ordering::Relaxed);
        while self.shared.queue.pop().is_some() {}
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({} waiting)", self.0.queue.len())
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({} waiting)", self.shared.queue.len())
    }
}
