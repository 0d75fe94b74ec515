//! What an engine asks of a cache, whether it lies in memory or on disk.
//!
//! ```text
//! look_up ─┬─ Hit ── fresh ───────────────────────────────> send metadata, body
//!          │    └─── stale ──> enter ──┬─ Writer ── origin says 304 ──> refresh
//!          └─ Miss ──────────> enter ──┤    └────── head ──> start ─> append … ─> finish
//!                                      ├─ Follow ── head ─> next … (the writer's bytes, as they come)
//!                                      ├─ LookAgain ──> look_up
//!                                      └─ Bypass, Full ──> origin, alone
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::Instant;

use crate::alternate::{Choose, Hit, Seen};
use crate::describe::Description;
use crate::follow::Follower;
use crate::key::{Key, Lane};
use crate::metrics::Numbers;
use crate::write::Writer;

/// A cache, as the engine sees it. All of it may be called from any thread; none of it blocks or waits.
pub trait Store: Send + Sync + fmt::Debug {
    /// Looks for an alternate that `choose` takes. What is in memory is answered at once, see [`LookUp::now`].
    fn look_up<'a>(&'a self, key: Key, choose: &'a dyn Choose) -> LookUp<'a>;

    /// Asks to fetch: at most one caller of a key and lane becomes the writer, others follow it.
    ///
    /// Call it after a look-up, with what that saw. [`Role::LookAgain`] means that somebody stored in between; whoever
    /// gets it a third time does better to go alone.
    fn enter(&self, entry: Entrance) -> Role;

    /// Replaces the metadata of what was found and leaves body and tags: a revalidation succeeded. Readers have the old
    /// or the new record, nothing between. The stale mark goes, unless it was set after `hit` was found.
    ///
    /// False when the alternate is no longer there, or there is no room for the new record.
    fn refresh(&self, hit: &Hit, metadata: Arc<[u8]>) -> bool;

    /// Marks what was found as stale: it stays, and the engine sees the mark from now on.
    fn mark_stale(&self, hit: &Hit) -> bool;

    /// Removes, or marks, what is stored under a key. What is being fetched for it is not stored. True when something
    /// was there.
    fn purge(&self, key: Key, how: Purge) -> bool;

    /// Removes, or marks, what bears a tag, and says how many alternates that were. What is being fetched and turns out
    /// to bear it is not stored. The time it takes grows with their number.
    fn purge_tag(&self, tag: &[u8], how: Purge) -> u64;

    /// Removes everything. What is being fetched is not stored.
    fn clear(&self);

    /// What is known of a key.
    fn describe(&self, key: Key, now: Instant) -> Option<Description>;

    /// What was counted since the start.
    fn numbers(&self) -> Numbers;
}

/// How a purge goes about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purge {
    /// Remove it.
    Remove,
    /// Mark it stale.
    MarkStale,
}

/// What a look-up found.
#[derive(Clone, Debug)]
pub enum Found {
    /// What the engine chose.
    Hit(Hit),
    /// Nothing, or nothing that it would choose.
    Miss(Seen),
}

/// A look-up under way. Of what is in memory it is over before it began.
pub struct LookUp<'a>(Progress<'a>);

enum Progress<'a> {
    Over(Option<Found>),
    UnderWay(Pin<Box<dyn Future<Output = Found> + 'a>>),
}

impl<'a> LookUp<'a> {
    /// An answer that is there.
    #[must_use]
    pub fn found(found: Found) -> Self {
        Self(Progress::Over(Some(found)))
    }

    /// An answer that takes time.
    #[must_use]
    pub fn later(answer: Pin<Box<dyn Future<Output = Found> + 'a>>) -> Self {
        Self(Progress::UnderWay(answer))
    }

    /// The answer if it is there already; else the look-up, to be awaited.
    ///
    /// # Errors
    /// The look-up itself, when it takes time.
    pub fn now(mut self) -> Result<Found, Self> {
        match &mut self.0 {
            Progress::Over(found) => found.take().ok_or(self),
            Progress::UnderWay(_) => Err(self),
        }
    }
}

impl Future for LookUp<'_> {
    type Output = Found;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Found> {
        match &mut self.0 {
            Progress::Over(found) => found.take().map_or(Poll::Pending, Poll::Ready),
            Progress::UnderWay(answer) => answer.as_mut().poll(context),
        }
    }
}

impl fmt::Debug for LookUp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Progress::Over(found) => f.debug_tuple("LookUp").field(found).finish(),
            Progress::UnderWay(_) => f.write_str("LookUp(under way)"),
        }
    }
}

/// Who asks to fetch, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Entrance {
    /// The object.
    pub key: Key,
    /// Which of its responses.
    pub lane: Lane,
    /// What the look-up before saw.
    pub seen: Seen,
    /// Now.
    pub now: Instant,
}

/// What an entrant is to do.
#[derive(Debug)]
pub enum Role {
    /// Fetch, and tell the cache and the followers what comes.
    Writer(Writer),
    /// Wait for another's head, then read along. The bound of each wait is the caller's.
    Follow(Follower),
    /// Fetch alone: waiting for one another would not help. What comes may be stored all the same.
    Bypass(Reason, Writer),
    /// Something was stored since the look-up.
    LookAgain,
    /// Too many fetches, or too many followers: fetch alone and store nothing.
    Full,
}

/// Why something is not stored, or not shared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// The engine says so; the number is its own.
    Engine(u16),
    /// Longer than what one object may take.
    TooLarge,
    /// The budget is taken by what cannot be evicted now.
    NoRoom,
    /// Purged while it was fetched.
    Purged,
    /// Its writer took too long, and another took its place.
    HandedOver,
    /// The body was not as long as announced, or did not begin at its beginning.
    Incomplete,
    /// Others changed the key's alternates over and over meanwhile.
    Contended,
}
