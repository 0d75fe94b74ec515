//! Waiting for a moment, alone or beside another future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base::Instant;

use crate::thread::{Thread, TimerTarget};
use crate::timer::TimerKey;

/// Ends at a moment. Dropping it takes the timer back.
#[derive(Debug)]
pub struct Sleep {
    thread: Thread,
    at: Instant,
    timer: Option<TimerKey>,
}

impl Sleep {
    pub(crate) fn new(thread: Thread, at: Instant) -> Self {
        Self { thread, at, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.thread.now() >= self.at {
            return Poll::Ready(());
        }
        let core = self.thread.core();
        let mut wheel = core.wheel.borrow_mut();
        if let Some(TimerTarget::Waker(waker)) = self.timer.and_then(|timer| wheel.payload_mut(timer)) {
            waker.clone_from(context.waker());
        } else {
            let timer = wheel.insert(self.at, TimerTarget::Waker(context.waker().clone()));
            drop(wheel);
            self.timer = Some(timer);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            drop(self.thread.core().cancel_timer(timer));
        }
    }
}

/// The time was up first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

/// Runs `future` for at most `limit`; then drops it.
///
/// # Errors
/// [`Elapsed`] when the limit came first.
pub async fn timeout<F: Future>(thread: &Thread, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = std::pin::pin!(future);
    let mut sleep = std::pin::pin!(thread.sleep(limit));
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(context).map(|()| Err(Elapsed))
    })
    .await
}
