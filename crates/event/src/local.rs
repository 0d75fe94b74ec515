//! Channels between continuations of one thread: no atomics, no allocation for each message, never unbounded.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::channel::SendError;

struct State<T> {
    items: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receiver_gone: bool,
    reader: Option<Waker>,
    /// Who waits for room.
    writers: Vec<Waker>,
}

/// A channel that holds at most `capacity` messages (at least one).
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = Rc::new(RefCell::new(State {
        items: VecDeque::new(),
        capacity: capacity.max(1),
        senders: 1,
        receiver_gone: false,
        reader: None,
        writers: Vec::new(),
    }));
    (Sender(Rc::clone(&state)), Receiver(state))
}

/// The writing end. Clones write to the same channel.
pub struct Sender<T>(Rc<RefCell<State<T>>>);

/// The reading end.
pub struct Receiver<T>(Rc<RefCell<State<T>>>);

impl<T> Sender<T> {
    /// Puts a message in.
    ///
    /// # Errors
    /// Gives it back when the channel is full, or nobody reads any more.
    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.borrow_mut();
        if state.receiver_gone {
            return Err(SendError::Closed(item));
        }
        if state.items.len() >= state.capacity {
            return Err(SendError::Full(item));
        }
        state.items.push_back(item);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Waits for room and puts a message in.
    ///
    /// # Errors
    /// Gives it back when nobody reads any more.
    pub async fn send(&self, item: T) -> Result<(), T> {
        let mut item = Some(item);
        poll_fn(|context| {
            let Some(sending) = item.take() else { return Poll::Ready(Ok(())) };
            match self.try_send(sending) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(SendError::Closed(back)) => Poll::Ready(Err(back)),
                Err(SendError::Full(back)) => {
                    item = Some(back);
                    let mut state = self.0.borrow_mut();
                    if !state.writers.iter().any(|writer| writer.will_wake(context.waker())) {
                        state.writers.push(context.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.borrow_mut().senders += 1;
        Self(Rc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        state.senders -= 1;
        let reader = if state.senders == 0 { state.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// A message, if one waits.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        let mut state = self.0.borrow_mut();
        let item = state.items.pop_front()?;
        // All of them: one that gave up must not swallow the word for another.
        let writers = std::mem::take(&mut state.writers);
        drop(state);
        for writer in writers {
            writer.wake();
        }
        Some(item)
    }

    /// Ready with a message, or with `None` when no sender is left and nothing waits.
    pub fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = self.try_recv() {
            return Poll::Ready(Some(item));
        }
        let mut state = self.0.borrow_mut();
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// As [`Receiver::poll_recv`], as a future.
    pub async fn recv(&self) -> Option<T> {
        poll_fn(|context| self.poll_recv(context)).await
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (items, writers) = {
            let mut state = self.0.borrow_mut();
            state.receiver_gone = true;
            (std::mem::take(&mut state.items), std::mem::take(&mut state.writers))
        };
        drop(items);
        for writer in writers {
            writer.wake();
        }
    }
}

/// A channel for one message.
#[must_use]
pub fn oneshot<T>() -> (OneSender<T>, OneReceiver<T>) {
    let (sender, receiver) = channel(1);
    (OneSender(sender), OneReceiver(receiver))
}

/// Sends one message.
pub struct OneSender<T>(Sender<T>);

/// Receives one message.
pub struct OneReceiver<T>(Receiver<T>);

impl<T> OneSender<T> {
    /// Sends it.
    ///
    /// # Errors
    /// Gives it back when nobody waits for it any more.
    pub fn send(self, item: T) -> Result<(), T> {
        match self.0.try_send(item) {
            Ok(()) => Ok(()),
            Err(SendError::Full(item) | SendError::Closed(item)) => Err(item),
        }
    }

    /// Whether nobody waits for it any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.0.borrow().receiver_gone
    }
}

impl<T> OneReceiver<T> {
    /// Waits for it; `None` when the sender went without sending.
    pub async fn recv(self) -> Option<T> {
        self.0.recv().await
    }
}

macro_rules! debug {
    ($($name:ident),*) => {$(
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

debug!(Sender, Receiver, OneSender, OneReceiver);
