//! The writer's side of a fetch: the one who asks the origin and tells the cache what comes.

use std::fmt;
use std::sync::Arc;

use base::Instant;
use sys::arena::Appender;

use buf::Room;

use crate::alternate::{Hit, Tags};
use crate::body::Fragment;
use crate::budget::{Charge, footprint_of, footprint_shared};
use crate::flight::{End, Stream, Term};
use crate::key::{Key, Lane};
use crate::ram::fill::Fill;
use crate::ram::{Inside, Landing, record_bytes};
use crate::store::Reason;
use crate::worth::Progress;

/// A response whose head has come.
#[derive(Clone, Debug)]
pub struct Head {
    /// The engine's record, as followers get it.
    pub metadata: Arc<[u8]>,
    /// By which it is purged later.
    pub tags: Tags,
    /// The length of the body, when it is known.
    pub expected: Option<u64>,
}

/// A body of no more bytes comes at once, nearly always: its memory is taken beforehand.
const SHORT_MAX: u64 = 4 << 10;

/// What became of a head or of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// It will be stored, so far.
    Yes,
    /// It will not be stored. While there are followers, go on telling what comes; else nobody needs it.
    No(Reason),
}

/// The right to fetch for a key and lane, and the duty to say what became of it.
///
/// Order of calls: [`start`](Self::start), any number of [`append`](Self::append), [`finish`](Self::finish); or, instead
/// of all that, one of [`refreshed`](Self::refreshed), [`not_storable`](Self::not_storable) and
/// [`give_up`](Self::give_up). Dropped before `start`, the next who waits becomes the writer; dropped after it, followers
/// are cut and nothing is stored.
pub struct Writer {
    store: Arc<Inside>,
    fill: Arc<Fill>,
    term: Term,
    /// Purges up to this one happened before.
    since: u64,
    done: bool,
    /// Where the next bytes of the body go.
    rest: Rest,
}

/// Memory that a writer has for what comes next.
#[derive(Debug)]
pub(crate) enum Rest {
    /// None.
    Nowhere,
    /// For the whole of a short body, and paid for.
    Short(Room),
    /// For more of a long one.
    Long(Appender),
}

impl Rest {
    /// What it was paid for, of the stream's charge, and is not needed: it comes otherwise than announced.
    pub(crate) fn give_up(&mut self) -> u64 {
        match std::mem::replace(self, Self::Nowhere) {
            Self::Short(room) => footprint_shared(room.capacity()),
            Self::Nowhere | Self::Long(_) => 0,
        }
    }
}

impl Writer {
    pub(crate) fn new(store: &Arc<Inside>, fill: Arc<Fill>, term: Term) -> Self {
        Self { since: store.purges.sequence(), store: Arc::clone(store), fill, term, done: false, rest: Rest::Nowhere }
    }

    /// What it is for.
    #[must_use]
    pub fn key(&self) -> Key {
        self.fill.key
    }

    /// Which of the key's responses.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.fill.lane
    }

    /// Who reads along now. A writer whose own client left goes on while there are some.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.fill.lock().followers()
    }

    /// How far it has come: whether it goes on when its own client leaves, see [`Progress::is_worthwhile`]. Ask again with
    /// each piece that comes; a writer for which it is no longer so is dropped.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.fill.lock().progress(self.term)
    }

    /// The origin was heard of: the writer is not stalled. `start` and `append` say so themselves.
    pub fn touch(&self, now: Instant) {
        self.fill.lock().touch(self.term, now);
    }

    /// The head has come, and may be stored. Followers get it at once.
    pub fn start(&mut self, head: Head, now: Instant) -> Kept {
        if head.expected.is_some_and(|expected| expected > self.store.object_max()) {
            // Followers slower than the writer would be cut: each is better off alone.
            self.store.decline(self.key(), self.lane(), Reason::TooLarge, now + self.store.too_large_for());
            self.conclude(End::Declined(Reason::TooLarge));
            return Kept::No(Reason::TooLarge);
        }
        // All that a short body will take is taken at once; its memory is on its way while the head goes to the client.
        let short = head.expected.filter(|expected| (1..=SHORT_MAX).contains(expected));
        let short = short.and_then(|expected| usize::try_from(expected).ok());
        let needed = footprint_of::<Charge>() + record_bytes(&head.metadata, &head.tags);
        let with_body = short.and_then(|len| self.store.reserve(needed + footprint_shared(len)).zip(Some(len)));
        let charge = match with_body {
            Some((charge, len)) => {
                self.rest = Rest::Short(Room::new(len));
                charge
            }
            None => match self.store.reserve(needed) {
                Some(charge) => charge,
                None => {
                    self.conclude(End::Declined(Reason::NoRoom));
                    return Kept::No(Reason::NoRoom);
                }
            },
        };
        let stream = Stream::new(head, Arc::new(charge));
        let started = self.fill.lock().start(self.term, stream, now);
        match started {
            Some(wakes) => {
                wakes.wake();
                Kept::Yes
            }
            None => Kept::No(Reason::HandedOver),
        }
    }

    /// More of the body has come: copies it into the cache's memory. Followers get it at once.
    pub fn append(&mut self, bytes: &[u8], now: Instant) -> Kept {
        self.append_and(bytes, now, |_| {})
    }

    /// As [`Writer::append`], and `taken` is told of each fragment that was made of `bytes`, in their order: to be sent
    /// on from the cache's memory. Of what is not kept and nobody follows there may be none, from some place on.
    pub fn append_and(&mut self, bytes: &[u8], now: Instant, mut taken: impl FnMut(&Fragment)) -> Kept {
        if bytes.is_empty() {
            return Kept::Yes;
        }
        self.store.append((&self.fill, self.term), &mut self.rest, bytes, now, &mut taken)
    }

    /// The body is over. `metadata` replaces the head's record in what is stored; `replaces` says of each alternate's
    /// metadata whether the new one takes its place. It is called without a lock, perhaps more than once.
    ///
    /// # Errors
    /// Why nothing was stored. Followers have got the whole body all the same.
    pub fn finish(
        mut self,
        metadata: Option<Arc<[u8]>>,
        replaces: &dyn Fn(&[u8]) -> bool,
        now: Instant,
    ) -> Result<(), Reason> {
        self.done = true;
        let landing = Landing { since: self.since, partial: false, unused: self.rest.give_up(), now };
        self.store.finish(&self.fill, self.term, metadata, replaces, landing)
    }

    /// The body broke off, and what has come of it is worth keeping: stores it as the beginning of a longer one.
    /// Followers are cut.
    ///
    /// # Errors
    /// Why nothing was stored.
    pub fn finish_partial(
        mut self,
        metadata: Option<Arc<[u8]>>,
        replaces: &dyn Fn(&[u8]) -> bool,
        now: Instant,
    ) -> Result<(), Reason> {
        self.done = true;
        let landing = Landing { since: self.since, partial: true, unused: self.rest.give_up(), now };
        self.store.finish(&self.fill, self.term, metadata, replaces, landing)
    }

    /// The origin says that what is stored is still good: replaces its metadata, and those who wait look up again.
    ///
    /// # Errors
    /// The writer, when it is no longer there or was purged meanwhile: fetch it whole.
    pub fn refreshed(mut self, hit: &Hit, metadata: Arc<[u8]>) -> Result<(), Self> {
        let after = self.store.purges.sequence();
        if self.store.refresh(hit, metadata, Some(self.since)) {
            self.conclude(End::Again);
            return Ok(());
        }
        self.since = after;
        Err(self)
    }

    /// What has come must not be stored. Those who wait fetch for themselves, and so do others until `until`.
    pub fn not_storable(mut self, reason: Reason, until: Instant) {
        self.store.decline(self.key(), self.lane(), reason, until);
        self.conclude(End::Declined(reason));
    }

    /// There will be nothing, and asking again would not help those who wait now: they learn the reason.
    pub fn give_up(mut self, reason: Reason) {
        self.conclude(End::Declined(reason));
    }

    fn conclude(&mut self, end: End) {
        self.done = true;
        let ended = self.fill.lock().conclude(self.term, end);
        if let Some(wakes) = ended {
            self.store.unregister(&self.fill);
            wakes.wake();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut flight = self.fill.lock();
        let vacated = flight.vacate(self.term);
        let over = flight.is_over();
        drop(flight);
        let Some(wakes) = vacated else { return };
        if over {
            self.store.unregister(&self.fill);
        } else {
            self.store.count_handed_over();
        }
        wakes.wake();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({:?}, term {})", self.fill.key, self.term)
    }
}
