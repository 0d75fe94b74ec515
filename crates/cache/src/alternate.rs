//! What is stored under a key: alternates, each with the engine's own record of it, a body and tags.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::Key;
use crate::body::Body;
use crate::budget::Charge;

/// Tags of one alternate, at most.
pub const TAGS_MAX: usize = 128;
/// Bytes of all tags of one alternate together, at most.
pub const TAGS_BYTES_MAX: usize = 8 << 10;

/// So much of a record is brought closer at a look-up: what most take.
const RECORD_WARM_MAX: usize = 512;
/// So much of a body: what a processor can have on its way at once. What is behind follows by itself.
const BODY_WARM_MAX: usize = 1 << 10;

/// Why tags are refused. Whoever cannot index an object's tags must not store it: a purge would miss it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TagsError {
    /// More than [`TAGS_MAX`].
    #[error("more than {TAGS_MAX} tags")]
    TooMany,
    /// Longer together than [`TAGS_BYTES_MAX`].
    #[error("tags of more than {TAGS_BYTES_MAX} bytes")]
    TooLong,
}

/// Tags of an alternate: opaque words by which many objects are purged at once.
#[derive(Clone, Debug, Default)]
pub struct Tags(Option<Arc<[u8]>>);

impl Tags {
    /// No tags.
    pub const NONE: Self = Self(None);

    /// Takes tags over. Empty ones are left out.
    ///
    /// # Errors
    /// When they are too many or too long.
    pub fn new<'a>(tags: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, TagsError> {
        let mut packed = Vec::new();
        let mut count = 0;
        for tag in tags.into_iter().filter(|tag| !tag.is_empty()) {
            count += 1;
            if count > TAGS_MAX {
                return Err(TagsError::TooMany);
            }
            let len = u16::try_from(tag.len()).map_err(|_| TagsError::TooLong)?;
            packed.extend_from_slice(&len.to_le_bytes());
            packed.extend_from_slice(tag);
            if packed.len() > TAGS_BYTES_MAX {
                return Err(TagsError::TooLong);
            }
        }
        Ok(Self((!packed.is_empty()).then(|| Arc::from(packed))))
    }

    /// Each tag.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_deref().unwrap_or_default();
        std::iter::from_fn(move || {
            let (len, after) = rest.split_first_chunk::<2>()?;
            let (tag, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            rest = after;
            Some(tag)
        })
    }

    /// Whether `tag` is among them.
    #[must_use]
    pub fn contains(&self, tag: &[u8]) -> bool {
        self.iter().any(|one| one == tag)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |packed| packed.len())
    }
}

pub(crate) fn tag_hash(tag: &[u8]) -> u64 {
    xxh3_64(tag)
}

/// One stored response. Immutable but for the stale mark.
#[derive(Debug)]
pub(crate) struct Alternate {
    pub(crate) metadata: Arc<[u8]>,
    pub(crate) body: Body,
    pub(crate) tags: Tags,
    pub(crate) stored: Instant,
    /// Stays the same when the metadata is replaced.
    pub(crate) id: u64,
    /// How often it was marked stale since it was stored or refreshed.
    pub(crate) stale_marks: AtomicU32,
    /// What metadata, tags and this record take.
    pub(crate) cost: RecordCost,
}

/// Who pays for what an alternate takes beside its body.
#[derive(Debug)]
pub(crate) enum RecordCost {
    /// So many bytes are charged with the body: both came together.
    WithBody(u64),
    /// It came later.
    Own(Charge),
}

impl Alternate {
    pub(crate) fn bytes(&self) -> u64 {
        let own = if let RecordCost::Own(charge) = &self.cost { charge.bytes() } else { 0 };
        own + self.body.memory()
    }

    /// Has what is read of it next brought closer, all at once: record and body lie elsewhere.
    #[inline]
    pub(crate) fn warm(&self) {
        buf::prefetch(&self.metadata[..self.metadata.len().min(RECORD_WARM_MAX)]);
        self.body.warm(BODY_WARM_MAX);
    }

    pub(crate) fn marks(&self) -> u32 {
        self.stale_marks.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_stale(&self) {
        self.stale_marks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        if let RecordCost::WithBody(bytes) = self.cost {
            self.body.outlive(bytes);
        }
    }
}

/// What the table holds for a key.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    One(Arc<Alternate>),
    Many(Arc<[Arc<Alternate>]>),
}

impl Entry {
    pub(crate) fn alternates(&self) -> &[Arc<Alternate>] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    /// Has the record of a single alternate brought closer, all of it at once.
    #[inline]
    pub(crate) fn announce(&self) {
        if let Self::One(one) = self {
            buf::prefetch_value(&**one);
        }
    }

    /// Has what a single alternate refers to brought closer: it will be dropped soon.
    #[inline]
    pub(crate) fn announce_parts(&self) {
        if let Self::One(one) = self {
            buf::prefetch(&one.metadata[..one.metadata.len().min(1)]);
            one.body.announce();
        }
    }

    pub(crate) fn of(mut alternates: Vec<Arc<Alternate>>) -> Option<Self> {
        match alternates.len() {
            0 => None,
            1 => alternates.pop().map(Self::One),
            _ => Some(Self::Many(Arc::from(alternates))),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.alternates().iter().map(|alternate| alternate.bytes()).sum()
    }

    /// Whether somebody else refers to any of it, so that dropping it would free little.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::One(one) => Arc::strong_count(one) > 1,
            Self::Many(many) => Arc::strong_count(many) > 1 || many.iter().any(|one| Arc::strong_count(one) > 1),
        }
    }
}

/// The engine's judgement over alternates.
///
/// Called without any lock held, with every alternate of the key, also such whose body is partial or which are marked
/// stale. The implementer compares the full text of its own key with that in the metadata first: keys are hashes.
pub trait Choose {
    /// The place of the alternate that is to be used, if any is.
    fn choose(&self, alternates: Alternates<'_>) -> Option<usize>;
}

impl<F: Fn(Alternates<'_>) -> Option<usize>> Choose for F {
    fn choose(&self, alternates: Alternates<'_>) -> Option<usize> {
        self(alternates)
    }
}

/// The alternates of a key, one after the other.
#[derive(Clone, Debug)]
pub struct Alternates<'a>(std::slice::Iter<'a, Arc<Alternate>>);

impl<'a> Alternates<'a> {
    pub(crate) fn new(entry: &'a Entry) -> Self {
        Self(entry.alternates().iter())
    }
}

impl<'a> Iterator for Alternates<'a> {
    type Item = Candidate<'a>;

    fn next(&mut self) -> Option<Candidate<'a>> {
        self.0.next().map(|alternate| Candidate(alternate))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Alternates<'_> {}

/// One alternate that may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a>(&'a Alternate);

impl<'a> Candidate<'a> {
    /// The engine's record.
    #[must_use]
    pub fn metadata(&self) -> &'a [u8] {
        &self.0.metadata
    }

    /// The stored body.
    #[must_use]
    pub fn body(&self) -> &'a Body {
        &self.0.body
    }

    /// Whether it is marked stale.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.0.marks() > 0
    }
}

/// An alternate that was found and chosen. It stays readable for as long as this is held, whatever happens to the
/// table meanwhile; it also keeps its memory from being used otherwise, so hold it no longer than needed.
#[derive(Clone, Debug)]
pub struct Hit {
    pub(crate) alternate: Arc<Alternate>,
    pub(crate) key: Key,
    pub(crate) seen: Seen,
    pub(crate) marks: u32,
}

impl Hit {
    /// Under which key it was found.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// The engine's record, as it was when it was found.
    #[must_use]
    pub fn metadata(&self) -> &Arc<[u8]> {
        &self.alternate.metadata
    }

    /// The stored body.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.alternate.body
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &Tags {
        &self.alternate.tags
    }

    /// When the response was stored first. A refresh does not change it.
    #[must_use]
    pub fn stored(&self) -> Instant {
        self.alternate.stored
    }

    /// Whether it was marked stale when it was found.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.marks > 0
    }

    /// What [`Store::enter`](crate::Store::enter) wants to know for a revalidation.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }
}

/// What a look-up saw of a key: which version of its alternates, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen(pub(crate) u64);

impl Seen {
    /// Nothing was there.
    pub const NOTHING: Self = Self(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_kept_as_given_up_to_their_limits() {
        let tags = Tags::new([&b"one"[..], b"", b"two"]).unwrap();
        assert_eq!(tags.iter().collect::<Vec<_>>(), [&b"one"[..], b"two"]);
        assert!(tags.contains(b"two") && !tags.contains(b"on"));
        assert!(Tags::new([]).unwrap().is_empty());
        let many = vec![&b"t"[..]; TAGS_MAX];
        assert_eq!(Tags::new(many.iter().copied()).unwrap().iter().count(), TAGS_MAX);
        assert_eq!(Tags::new(many.iter().copied().chain([&b"t"[..]])).unwrap_err(), TagsError::TooMany);
        let long = vec![b'x'; TAGS_BYTES_MAX - 2];
        assert!(Tags::new([&long[..]]).is_ok());
        assert_eq!(Tags::new([&long[..], b"y"]).unwrap_err(), TagsError::TooLong);
    }
}
