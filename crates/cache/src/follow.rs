//! A follower's side of a fetch: reads what another's writer brings.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::Instant;

use crate::body::Fragment;
use crate::flight::{BodyStep, HeadStep};
use crate::ram::Inside;
use crate::ram::fill::Fill;
use crate::store::Reason;
use crate::write::Writer;

/// What a follower learns instead of waiting on.
#[derive(Debug)]
pub enum FollowerHead {
    /// The writer's record: compare its text with your own key first, and whether it fits your request. Then read on.
    Response {
        /// The engine's record.
        metadata: Arc<[u8]>,
        /// The length of the body, when it is known.
        expected: Option<u64>,
    },
    /// The writer went, and this follower is the writer now.
    Write(Writer),
    /// What is stored was found good: look up again.
    LookAgain,
    /// Each for himself, and why.
    Bypass(Reason),
    /// The writer is gone and left nothing to go on with.
    Gone,
}

/// What comes next of a body.
#[derive(Debug)]
pub enum Next {
    /// Bytes.
    Fragment(Fragment),
    /// That was all.
    End,
    /// No more will come, and it was not all: the client must see it.
    Cut(Cut),
}

/// Why a follower's body is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// It read more slowly than the writer wrote, and what it would read next is gone.
    Lagged,
    /// The writer's body broke off.
    WriterGone,
    /// No byte came for as long as the follower was willing to wait: the writer seems dead.
    Stalled,
}

/// A place among those who wait for a writer. Dropping it gives the place up.
///
/// It may be polled on any event thread, one at a time. No wait of it ends by itself but those with a bound,
/// [`head_by`](Self::head_by) and [`next_within`](Self::next_within); who waits otherwise brings one, and before giving
/// up on the head asks [`take_over`](Self::take_over).
pub struct Follower {
    store: Arc<Inside>,
    fill: Arc<Fill>,
    /// None when it left: it is the writer now.
    seat: Option<u32>,
    place: u64,
}

impl Follower {
    pub(crate) fn new(store: &Arc<Inside>, fill: Arc<Fill>, seat: u32) -> Self {
        Self { store: Arc::clone(store), fill, seat: Some(seat), place: 0 }
    }

    /// Waits for the head. After [`FollowerHead::Response`] read on with [`Follower::poll_next`]; after anything else
    /// drop it.
    pub fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<FollowerHead> {
        let Some(seat) = self.seat else { return Poll::Ready(FollowerHead::Gone) };
        let step = self.fill.lock().poll_head(seat, context.waker());
        step.map(|step| match step {
            HeadStep::Response(metadata, expected) => FollowerHead::Response { metadata, expected },
            HeadStep::Write(term) => {
                self.seat = None;
                FollowerHead::Write(Writer::new(&self.store, Arc::clone(&self.fill), term))
            }
            HeadStep::Again => FollowerHead::LookAgain,
            HeadStep::Declined(reason) => FollowerHead::Bypass(reason),
            HeadStep::Broken => FollowerHead::Gone,
        })
    }

    /// As [`Follower::poll_head`].
    pub async fn head(&mut self) -> FollowerHead {
        poll_fn(|context| self.poll_head(context)).await
    }

    /// Waits for more of the body, from its first byte on.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let Some(seat) = self.seat else { return Poll::Ready(Next::Cut(Cut::WriterGone)) };
        let step = self.fill.lock().poll_body(seat, self.place, context.waker());
        step.map(|step| match step {
            BodyStep::Fragment(fragment) => {
                self.place += fragment.len() as u64;
                Next::Fragment(fragment)
            }
            BodyStep::End => Next::End,
            BodyStep::Lagged => {
                self.store.count_lagged();
                Next::Cut(Cut::Lagged)
            }
            BodyStep::Broken => Next::Cut(Cut::WriterGone),
        })
    }

    /// As [`Follower::poll_next`].
    pub async fn next(&mut self) -> Next {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Bytes read so far.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.place
    }

    /// When the writer will have been silent for too long, as it looks now.
    pub(crate) fn writer_stalls_at(&self, now: Instant) -> Instant {
        self.fill.lock().stalls_at(now, self.store.stall())
    }

    /// Becomes the writer if the one there is has no head yet and did nothing for the store's stall limit. Else the
    /// follower stays what it is.
    ///
    /// # Errors
    /// The follower, when nothing changed.
    pub fn take_over(mut self, now: Instant) -> Result<Writer, Self> {
        let Some(seat) = self.seat else { return Err(self) };
        let taken = self.fill.lock().take_over(seat, now, self.store.stall());
        match taken {
            Some(term) => {
                self.seat = None;
                self.store.count_handed_over();
                Ok(Writer::new(&self.store, Arc::clone(&self.fill), term))
            }
            None => Err(self),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let Some(seat) = self.seat else { return };
        let mut flight = self.fill.lock();
        let wakes = flight.leave(seat);
        let over = flight.is_over();
        drop(flight);
        if over {
            self.store.unregister(&self.fill);
        }
        wakes.wake();
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Follower({:?}, at {})", self.fill.key, self.place)
    }
}
