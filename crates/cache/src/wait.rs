//! A follower's waits on an event thread, each with its bound.
//!
//! Whoever waits for a head looks after its writer when that has been silent for the store's stall limit, and takes its
//! place; whoever waits for bytes is cut when none come. So a writer that died, or whose thread did, costs its followers
//! the stall limit and no more. What the machine of it decides is in `flight`; here is only the clock.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use base::Instant;
use event::{Sleep, Thread, timeout};

use crate::follow::{Cut, Follower, FollowerHead, Next};
use crate::store::Reason;
use crate::write::Writer;

/// What a bounded wait for the head came to.
#[derive(Debug)]
pub enum Awaited {
    /// The writer's record, and the follower to read on with.
    Response {
        /// Reads the body.
        follower: Follower,
        /// The engine's record: compare its text with your own key first.
        metadata: Arc<[u8]>,
        /// The length of the body, when it is known.
        expected: Option<u64>,
    },
    /// The writer went, or was silent for too long: whoever waited is the writer now.
    Write(Writer),
    /// What is stored was found good: look up again.
    LookAgain,
    /// Each for himself, and why.
    Bypass(Reason),
    /// The writer is gone and left nothing to go on with.
    Gone,
    /// Time is up, and the writer is alive as far as one can see.
    Late,
}

impl Follower {
    /// Waits for the head until a moment, at most. A writer without a head that is silent for the store's stall limit
    /// ([`RamOptions::stall`](crate::RamOptions::stall)) is replaced by whoever notices first.
    pub async fn head_by(mut self, thread: &Thread, until: Instant) -> Awaited {
        loop {
            let look = self.writer_stalls_at(thread.now()).min(until);
            let head = timeout(thread, look - thread.now(), self.head()).await;
            match head {
                Ok(FollowerHead::Response { metadata, expected }) => {
                    return Awaited::Response { follower: self, metadata, expected };
                }
                Ok(FollowerHead::Write(writer)) => return Awaited::Write(writer),
                Ok(FollowerHead::LookAgain) => return Awaited::LookAgain,
                Ok(FollowerHead::Bypass(reason)) => return Awaited::Bypass(reason),
                Ok(FollowerHead::Gone) => return Awaited::Gone,
                Err(_) => {}
            }
            let now = thread.now();
            self = match self.take_over(now) {
                Ok(writer) => return Awaited::Write(writer),
                Err(follower) => follower,
            };
            if now >= until {
                return Awaited::Late;
            }
        }
    }

    /// Waits for more of the body, for `limit` at most: then the follower is cut, as its writer seems dead. Bytes that
    /// are there already cost no timer.
    pub async fn next_within(&mut self, thread: &Thread, limit: Duration) -> Next {
        let mut bound: Option<Sleep> = None;
        poll_fn(|context| {
            if let Poll::Ready(next) = self.poll_next(context) {
                return Poll::Ready(next);
            }
            let bound = bound.get_or_insert_with(|| thread.sleep(limit));
            Pin::new(bound).poll(context).map(|()| Next::Cut(Cut::Stalled))
        })
        .await
    }
}
