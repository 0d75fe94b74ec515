//! One fetch that several wait for, as a pure state machine: one writer, many followers, no lock and no clock.
//!
//! ```text
//!              vacate (heirs)                      finish ──> Whole, Rest
//!            ┌───────────────┐                   ┌─────────────────────────────
//!  AwaitHead ┤               ├─ start ─> Streaming ─ vacate ─> Broken
//!            └─> Vacant ─────┘                   
//!                  └─ no heir left, decline, refreshed ──────> Declined, Again, Broken
//! ```
//!
//! Every change answers with the wakers of those it concerns; whoever holds the lock wakes them after letting go of it.
//! The writer is known by its *term*: a writer that was superseded has an old one, and changes nothing any more.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use base::Instant;

use crate::alternate::Tags;
use crate::body::{Body, Fragment};
use crate::budget::{Charge, footprint_shared};
use crate::describe::FetchDescription;
use crate::pieces::Pieces;
use crate::store::Reason;
use crate::worth::Progress;
use crate::write::Head;

/// Which writer: each successor has the next number.
pub(crate) type Term = u32;

/// Who has to be woken, and what is not needed any more: both once the lock is let go of.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    wakers: Vec<Waker>,
    gone: Option<Stream>,
}

impl Wakes {
    fn of(wakers: Vec<Waker>) -> Self {
        Self { wakers, gone: None }
    }

    /// Wakes them. No lock may be held.
    pub(crate) fn wake(self) {
        for waker in self.wakers {
            waker.wake();
        }
        drop(self.gone);
    }
}

/// A fetch.
#[derive(Debug)]
pub(crate) struct Flight {
    stage: Stage,
    term: Term,
    /// When the writer last did something; `None` when that began at an unknown moment.
    progress: Option<Instant>,
    followers: Vec<Seat>,
    free: Vec<u32>,
    joined: u64,
    seated: usize,
    followers_max: usize,
}

#[derive(Debug)]
enum Stage {
    AwaitHead,
    Vacant { heir: u32 },
    Streaming(Stream),
    Ended(End),
}

/// How a flight ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The body is whole.
    Whole { metadata: Arc<[u8]>, body: Body },
    /// The body is over, and only its last part is still here.
    Rest(Stream),
    /// Look up again: there is something new.
    Again,
    /// Everybody for himself.
    Declined(Reason),
    /// The writer is gone.
    Broken,
}

/// A body that is coming in.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) metadata: Arc<[u8]>,
    pub(crate) tags: Tags,
    pub(crate) expected: Option<u64>,
    held: Pieces,
    pub(crate) total: u64,
    /// `Some` when it will not be kept: then only the last bytes are held, for the followers.
    pub(crate) not_kept: Option<Reason>,
    /// The bytes of the body, and of the record that is stored with it.
    pub(crate) charge: Arc<Charge>,
}

/// A follower's place.
#[derive(Debug, Default)]
struct Seat {
    taken: bool,
    joined: u64,
    waker: Option<Waker>,
}

/// Fragments that together have no more bytes are made one as they come.
const JOINED_MAX: usize = 16 << 10;

/// Why nobody can join.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoSeat {
    /// It is over.
    Over,
    /// The writer did nothing for too long.
    Stalled,
    /// Too many follow already.
    Full,
    /// The beginning is gone.
    Declined(Reason),
}

/// What a follower that awaits the head learns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeadStep {
    Response(Arc<[u8]>, Option<u64>),
    /// It is the writer from now on, and no follower.
    Write(Term),
    Again,
    Declined(Reason),
    Broken,
}

/// What a follower of the body gets.
#[derive(Debug)]
pub(crate) enum BodyStep {
    Fragment(Fragment),
    End,
    Lagged,
    Broken,
}

impl Flight {
    /// A flight with its first writer, of term 0.
    pub(crate) fn new(now: Instant, followers_max: usize) -> Self {
        Self {
            stage: Stage::AwaitHead,
            term: 0,
            progress: Some(now),
            followers: Vec::new(),
            free: Vec::new(),
            joined: 0,
            seated: 0,
            followers_max,
        }
    }

    pub(crate) fn followers(&self) -> usize {
        self.seated
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ended(_))
    }

    pub(crate) fn describe(&self, primary: bool, now: Instant) -> FetchDescription {
        let (state, stream) = match &self.stage {
            Stage::AwaitHead => ("awaits the head", None),
            Stage::Vacant { .. } => ("changes its writer", None),
            Stage::Streaming(stream) => ("streams", Some(stream)),
            Stage::Ended(_) => ("over", None),
        };
        FetchDescription {
            primary,
            state,
            followers: self.seated,
            length: stream.map_or(0, |stream| stream.total),
            expected: stream.and_then(|stream| stream.expected),
            silent: self.progress.map_or(Duration::ZERO, |progress| now.since(progress)),
            not_kept: stream.and_then(|stream| stream.not_kept),
        }
    }

    /// Whether its response bears `tag`, as far as one can know.
    pub(crate) fn may_bear(&self, tag: &[u8]) -> bool {
        match &self.stage {
            Stage::AwaitHead | Stage::Vacant { .. } => true,
            Stage::Streaming(stream) => stream.tags.contains(tag),
            Stage::Ended(_) => false,
        }
    }

    /// Whether `term` is still the writer.
    pub(crate) fn is_writer(&self, term: Term) -> bool {
        self.term == term && matches!(self.stage, Stage::AwaitHead | Stage::Streaming(_))
    }

    /// How far the writer of `term` has come. One that was superseded has nothing to go on for.
    pub(crate) fn progress(&self, term: Term) -> Progress {
        let gone = Progress { followers: 0, started: true, kept: false, came: 0, expected: None };
        match &self.stage {
            Stage::AwaitHead if self.term == term => Progress { followers: self.seated, started: false, ..gone },
            Stage::Streaming(stream) if self.term == term => Progress {
                followers: self.seated,
                kept: stream.not_kept.is_none(),
                came: stream.total,
                expected: stream.expected,
                ..gone
            },
            _ => gone,
        }
    }

    /// The writer is alive.
    pub(crate) fn touch(&mut self, term: Term, now: Instant) {
        if self.is_writer(term) {
            self.progress = Some(now);
        }
    }

    /// When the writer will have done nothing for `limit`, unless it does something before.
    pub(crate) fn stalls_at(&mut self, now: Instant, limit: Duration) -> Instant {
        *self.progress.get_or_insert(now) + limit
    }

    /// Whether the writer did nothing for `limit`.
    fn is_stalled(&mut self, now: Instant, limit: Duration) -> bool {
        now >= self.stalls_at(now, limit)
    }

    /// Takes a follower in, from the first byte on.
    pub(crate) fn join(&mut self, now: Instant, stall: Duration) -> Result<u32, NoSeat> {
        match &self.stage {
            Stage::Ended(_) => return Err(NoSeat::Over),
            Stage::Streaming(Stream { not_kept: Some(reason), .. }) => return Err(NoSeat::Declined(*reason)),
            Stage::AwaitHead | Stage::Vacant { .. } | Stage::Streaming(_) => {}
        }
        // A silent writer before its head is replaced by a follower; in the middle of a body nobody can take over.
        if matches!(self.stage, Stage::Streaming(_)) && self.is_stalled(now, stall) {
            return Err(NoSeat::Stalled);
        }
        if self.seated >= self.followers_max {
            return Err(NoSeat::Full);
        }
        let seat = match self.free.pop() {
            Some(seat) => seat,
            None => {
                let seat = u32::try_from(self.followers.len()).map_err(|_| NoSeat::Full)?;
                self.followers.push(Seat::default());
                seat
            }
        };
        self.joined += 1;
        self.seated += 1;
        self.followers[seat as usize] = Seat { taken: true, joined: self.joined, waker: None };
        Ok(seat)
    }

    /// A follower goes. If it was to be the writer, the next one is.
    pub(crate) fn leave(&mut self, seat: u32) -> Wakes {
        self.stand_up(seat);
        match self.stage {
            Stage::Vacant { heir } if heir == seat => self.appoint(),
            _ => Wakes::default(),
        }
    }

    fn stand_up(&mut self, seat: u32) {
        let place = &mut self.followers[seat as usize];
        debug_assert!(place.taken, "a follower left twice");
        *place = Seat::default();
        self.seated -= 1;
        self.free.push(seat);
    }

    /// Who waits longest is to be the writer.
    fn appoint(&mut self) -> Wakes {
        let taken = self.followers.iter_mut().enumerate().filter(|(_, seat)| seat.taken);
        let Some((heir, seat)) = taken.min_by_key(|(_, seat)| seat.joined) else {
            self.stage = Stage::Ended(End::Broken);
            return Wakes::default();
        };
        let wake = Wakes::of(seat.waker.take().into_iter().collect());
        self.stage = Stage::Vacant { heir: u32::try_from(heir).unwrap_or(u32::MAX) };
        self.progress = None;
        wake
    }

    fn wake_all(&mut self) -> Wakes {
        Wakes::of(self.followers.iter_mut().filter_map(|seat| seat.waker.take()).collect())
    }

    fn end(&mut self, end: End) -> Wakes {
        let before = std::mem::replace(&mut self.stage, Stage::Ended(end));
        let gone = match before {
            Stage::Streaming(stream) => Some(stream),
            _ => None,
        };
        Wakes { gone, ..self.wake_all() }
    }

    fn wait(&mut self, seat: u32, waker: &Waker) {
        let place = &mut self.followers[seat as usize].waker;
        match place {
            Some(waiting) => waiting.clone_from(waker),
            None => *place = Some(waker.clone()),
        }
    }

    /// What the head is, for the follower in `seat`. With [`HeadStep::Write`] it has left its seat.
    pub(crate) fn poll_head(&mut self, seat: u32, waker: &Waker) -> Poll<HeadStep> {
        Poll::Ready(match &self.stage {
            Stage::Vacant { heir } if *heir == seat => HeadStep::Write(self.succeed(seat)),
            Stage::AwaitHead | Stage::Vacant { .. } => {
                self.wait(seat, waker);
                return Poll::Pending;
            }
            Stage::Streaming(stream) | Stage::Ended(End::Rest(stream)) => {
                HeadStep::Response(Arc::clone(&stream.metadata), stream.expected)
            }
            Stage::Ended(End::Whole { metadata, body, .. }) => {
                HeadStep::Response(Arc::clone(metadata), body.complete_length())
            }
            Stage::Ended(End::Again) => HeadStep::Again,
            Stage::Ended(End::Declined(reason)) => HeadStep::Declined(*reason),
            Stage::Ended(End::Broken) => HeadStep::Broken,
        })
    }

    fn succeed(&mut self, seat: u32) -> Term {
        self.stand_up(seat);
        self.stage = Stage::AwaitHead;
        self.progress = None;
        self.term = self.term.wrapping_add(1);
        self.term
    }

    /// The follower in `seat` becomes the writer in place of one that did nothing for `limit` and has no head yet.
    pub(crate) fn take_over(&mut self, seat: u32, now: Instant, limit: Duration) -> Option<Term> {
        let before_the_head = matches!(self.stage, Stage::AwaitHead | Stage::Vacant { .. });
        (before_the_head && self.is_stalled(now, limit)).then(|| {
            let term = self.succeed(seat);
            self.progress = Some(now);
            term
        })
    }

    /// What comes at `place`, for the follower in `seat`.
    pub(crate) fn poll_body(&mut self, seat: u32, place: u64, waker: &Waker) -> Poll<BodyStep> {
        let step = match &self.stage {
            Stage::AwaitHead | Stage::Vacant { .. } => None,
            Stage::Streaming(stream) => stream.at(place),
            Stage::Ended(End::Rest(stream)) => Some(stream.at(place).unwrap_or(BodyStep::End)),
            Stage::Ended(End::Whole { body, .. }) => {
                Some(body.at_place(place).map_or(BodyStep::End, BodyStep::Fragment))
            }
            Stage::Ended(End::Again | End::Declined(_) | End::Broken) => Some(BodyStep::Broken),
        };
        match step {
            Some(step) => Poll::Ready(step),
            None => {
                self.wait(seat, waker);
                Poll::Pending
            }
        }
    }

    /// The head is there.
    pub(crate) fn start(&mut self, term: Term, stream: Stream, now: Instant) -> Option<Wakes> {
        if self.term != term || !matches!(self.stage, Stage::AwaitHead) {
            return None;
        }
        self.progress = Some(now);
        self.stage = Stage::Streaming(stream);
        Some(self.wake_all())
    }

    pub(crate) fn stream(&mut self, term: Term) -> Option<&mut Stream> {
        match &mut self.stage {
            Stage::Streaming(stream) if self.term == term => Some(stream),
            _ => None,
        }
    }

    /// More of the body is there: `fragment`, of `len` bytes; none when there was no room to hold it. `cost` is what it took
    /// of the budget; 0 when that is charged already.
    pub(crate) fn push(
        &mut self,
        term: Term,
        fragment: Option<Fragment>,
        len: u64,
        cost: u64,
        now: Instant,
    ) -> Option<Wakes> {
        let stream = self.stream(term)?;
        match fragment {
            Some(fragment) => {
                stream.held.push(stream.total, fragment);
                if cost > 0 {
                    stream.charge.absorb(cost);
                    stream.join_short();
                }
            }
            None => debug_assert!(stream.not_kept.is_some(), "what will be kept has no gaps"),
        }
        stream.total += len;
        self.progress = Some(now);
        Some(self.wake_all())
    }

    /// The body is over. `whole`: as it was stored; nobody can join any more.
    pub(crate) fn finish(&mut self, term: Term, whole: Option<&Body>) -> Option<Wakes> {
        let nobody = self.seated == 0;
        let stream = self.stream(term)?;
        if let Some(body) = whole {
            // Whoever comes from here on looks it up.
            let end = if nobody {
                End::Again
            } else {
                End::Whole { metadata: Arc::clone(&stream.metadata), body: body.clone() }
            };
            return Some(self.end(end));
        }
        let Stage::Streaming(stream) = std::mem::replace(&mut self.stage, Stage::AwaitHead) else { return None };
        Some(self.end(End::Rest(stream)))
    }

    /// The writer leaves without having finished: before the head another takes its place, after it the body is broken.
    pub(crate) fn vacate(&mut self, term: Term) -> Option<Wakes> {
        if self.term != term {
            return None;
        }
        match &self.stage {
            Stage::AwaitHead => Some(self.appoint()),
            Stage::Streaming(_) => Some(self.end(End::Broken)),
            Stage::Vacant { .. } | Stage::Ended(_) => None,
        }
    }

    /// The writer says how it ended, before there was a body.
    pub(crate) fn conclude(&mut self, term: Term, end: End) -> Option<Wakes> {
        (self.term == term && matches!(self.stage, Stage::AwaitHead)).then(|| self.end(end))
    }
}

impl Stream {
    pub(crate) fn new(head: Head, charge: Arc<Charge>) -> Self {
        let Head { metadata, tags, expected } = head;
        Self { metadata, tags, expected, held: Pieces::default(), total: 0, not_kept: None, charge }
    }

    /// What is held at `place`; none when it has not come yet.
    fn at(&self, place: u64) -> Option<BodyStep> {
        if place >= self.total {
            return None;
        }
        Some(self.held.at(place).map_or(BodyStep::Lagged, BodyStep::Fragment))
    }

    /// Makes one of short fragments at the end: bytes that come one by one would cost more for each than for what they
    /// say. Each byte is copied a few times at most, for what is joined is of about one length.
    fn join_short(&mut self) {
        while let Some((start, first, next, second)) = self.held.last_two() {
            if start + first.len() as u64 != next {
                return;
            }
            let short = first.len() + second.len() <= JOINED_MAX && first.len() <= 2 * second.len();
            let costs = first.heap_bytes() + second.heap_bytes();
            // Memory comes in steps: now and then two pieces fit theirs better than one would.
            let saves = footprint_shared(first.len() + second.len()) <= costs;
            if !short || !saves || first.heap_bytes() == 0 || second.heap_bytes() == 0 {
                return;
            }
            let joined = Fragment::new([&**first, &**second].concat().into());
            let saved = costs.saturating_sub(joined.heap_bytes());
            self.held.replace_last_two(start, joined);
            self.charge.shrink(saved);
        }
    }

    /// Lets go of what lies further back than `window`, and gives its bytes back. What is let go of is the caller's to
    /// drop.
    pub(crate) fn trim(&mut self, window: u64) -> Vec<Fragment> {
        let dropped = self.drop_before(window);
        self.charge.shrink(dropped.iter().map(Fragment::heap_bytes).sum());
        dropped
    }

    fn drop_before(&mut self, window: u64) -> Vec<Fragment> {
        let mut dropped = Vec::new();
        while let Some(fragment) = self.total.checked_sub(window).and_then(|end| self.held.pop_before(end)) {
            dropped.push(fragment);
        }
        dropped
    }

    /// The body, if it is one fragment.
    pub(crate) fn single(&self) -> Option<&Fragment> {
        self.held.single()
    }

    pub(crate) fn fragments(&self) -> Vec<Fragment> {
        self.held.all()
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
