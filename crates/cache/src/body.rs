//! The bytes of a response's body: fragments in order, held whole or from the beginning up to a point.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use buf::Chunk;
use sys::arena::Piece;

use crate::budget::{Charge, footprint_shared};

/// Immutable bytes that threads share; cloning counts, it does not copy.
#[derive(Clone)]
pub struct Fragment {
    memory: Memory,
    start: usize,
    len: usize,
}

#[derive(Clone)]
enum Memory {
    Heap(Arc<[u8]>),
    /// In huge pages. Only what was filled when the fragment was made is part of it.
    Arena(Arc<Piece>),
}

impl Fragment {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: Arc<[u8]>) -> Self {
        Self { start: 0, len: bytes.len(), memory: Memory::Heap(bytes) }
    }

    /// The last `len` bytes of what is filled of `piece`.
    pub(crate) fn last_of(piece: &Arc<Piece>, len: usize) -> Self {
        let start = piece.bytes().len().saturating_sub(len);
        Self { start, len: piece.bytes().len() - start, memory: Memory::Arena(Arc::clone(piece)) }
    }

    /// Takes `next` in when it lies just behind, in the same memory.
    pub(crate) fn extend(&mut self, next: &Self) -> bool {
        let same = match (&self.memory, &next.memory) {
            (Memory::Arena(one), Memory::Arena(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let follows = same && self.start + self.len == next.start;
        self.len += if follows { next.len } else { 0 };
        follows
    }

    /// Bytes of memory that are charged one by one.
    pub(crate) fn heap_bytes(&self) -> u64 {
        match &self.memory {
            Memory::Heap(bytes) => footprint_shared(bytes.len()),
            Memory::Arena(_) => 0,
        }
    }

    /// Bytes of memory that are charged by the block.
    fn arena_bytes(&self) -> u64 {
        match &self.memory {
            Memory::Heap(_) => 0,
            Memory::Arena(piece) => piece.footprint() as u64,
        }
    }

    /// The part of it in `range`.
    ///
    /// # Panics
    /// When the range is not within it.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "part of a fragment beyond its end");
        Self { memory: self.memory.clone(), start: self.start + range.start, len: range.end - range.start }
    }

    /// The same bytes to be sent. Nothing is copied.
    #[must_use]
    pub fn chunk(&self) -> Chunk {
        self.clone().into_chunk()
    }

    /// As [`Fragment::chunk`], and counts once less.
    #[must_use]
    pub fn into_chunk(self) -> Chunk {
        let range = self.start..self.start + self.len;
        match self.memory {
            Memory::Heap(bytes) => Chunk::from_shared(bytes, range),
            Memory::Arena(piece) => Chunk::from_piece(piece, range),
        }
    }
}

impl Deref for Fragment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = match &self.memory {
            Memory::Heap(bytes) => bytes,
            Memory::Arena(piece) => piece.bytes(),
        };
        &bytes[self.start..self.start + self.len]
    }
}

impl fmt::Debug for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fragment({})", self.len)
    }
}

/// A body as it is stored.
#[derive(Clone, Debug)]
pub struct Body {
    held: Held,
    length: u64,
    complete: Option<u64>,
    arena_bytes: u64,
    charge: Arc<Charge>,
}

#[derive(Clone, Debug)]
enum Held {
    Nothing,
    One(Fragment),
    /// Each with the place of its first byte.
    Many(Arc<[(u64, Fragment)]>),
}

impl Body {
    /// Of one fragment.
    pub(crate) fn of_one(fragment: Fragment, complete: Option<u64>, charge: Arc<Charge>) -> Self {
        let (length, arena_bytes) = (fragment.len() as u64, fragment.arena_bytes());
        Self { held: Held::One(fragment), length, complete, arena_bytes, charge }
    }

    /// Of fragments in their order.
    pub(crate) fn new(fragments: Vec<Fragment>, complete: Option<u64>, charge: Arc<Charge>) -> Self {
        let length = fragments.iter().map(|fragment| fragment.len() as u64).sum();
        let arena_bytes = fragments.iter().map(Fragment::arena_bytes).sum();
        let mut fragments = fragments;
        let held = match fragments.len() {
            0 => Held::Nothing,
            1 => fragments.pop().map_or(Held::Nothing, Held::One),
            _ => {
                let mut at = 0;
                let placed = fragments.into_iter().map(|fragment| {
                    let here = at;
                    at += fragment.len() as u64;
                    (here, fragment)
                });
                Held::Many(placed.collect())
            }
        };
        Self { held, length, complete, arena_bytes, charge }
    }

    /// Which bytes of the representation are here. This store holds complete bodies and beginnings of bodies; another
    /// may begin elsewhere.
    #[must_use]
    pub fn held(&self) -> Range<u64> {
        0..self.length
    }

    /// The length of the whole representation, when it is known.
    #[must_use]
    pub fn complete_length(&self) -> Option<u64> {
        self.complete
    }

    /// Whether all of the representation is here.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete == Some(self.length)
    }

    /// The bytes in `range` that are held, in order.
    #[must_use]
    pub fn fragments(&self, range: Range<u64>) -> Fragments<'_> {
        let end = range.end.min(self.length);
        Fragments { body: self, at: range.start.min(end), end }
    }

    /// The fragment that holds the byte at `place`, from that byte on.
    pub(crate) fn at_place(&self, place: u64) -> Option<Fragment> {
        if place >= self.length {
            return None;
        }
        let (start, fragment) = match &self.held {
            Held::Nothing => return None,
            Held::One(fragment) => (0, fragment),
            Held::Many(placed) => {
                let after = placed.partition_point(|(start, _)| *start <= place);
                let (start, fragment) = placed.get(after.checked_sub(1)?)?;
                (*start, fragment)
            }
        };
        Some(fragment.part(usize::try_from(place - start).ok()?..fragment.len()))
    }

    /// Has the first `max` bytes brought closer, as far as they lie in memory of their own: they are sent soon.
    #[inline]
    pub(crate) fn warm(&self, max: usize) {
        if let Held::One(Fragment { memory: Memory::Heap(bytes), .. }) = &self.held {
            buf::prefetch(&bytes[..bytes.len().min(max)]);
        }
    }

    /// Has the beginnings of what it refers to brought closer.
    #[inline]
    pub(crate) fn announce(&self) {
        self.warm(1);
        buf::prefetch_value(&*self.charge);
    }

    /// The record that was charged with it goes: gives its bytes back, if the body outlives it.
    pub(crate) fn outlive(&self, record: u64) {
        // Alone with it, the charge goes too, and gives back all.
        if Arc::strong_count(&self.charge) > 1 {
            self.charge.shrink(record);
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        self.charge.bytes() + self.arena_bytes
    }
}

/// The fragments of a range, in order.
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    body: &'a Body,
    at: u64,
    end: u64,
}

impl Iterator for Fragments<'_> {
    type Item = Fragment;

    fn next(&mut self) -> Option<Fragment> {
        if self.at >= self.end {
            return None;
        }
        let fragment = self.body.at_place(self.at)?;
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let fragment = if fragment.len() > left { fragment.part(0..left) } else { fragment };
        self.at += fragment.len() as u64;
        Some(fragment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    fn body(parts: &[&[u8]]) -> Body {
        let fragments: Vec<_> = parts.iter().map(|part| Fragment::new(Arc::from(*part))).collect();
        let length = parts.iter().map(|part| part.len() as u64).sum();
        Body::new(fragments, Some(length), Arc::new(Charge::of_taken(&Budget::new(0), 0)))
    }

    #[test]
    fn every_range_of_every_cut_reads_the_same_bytes() {
        for parts in [&[&b"abcdefgh"[..]][..], &[b"abc", b"d", b"efgh"], &[b"a", b"bcdefg", b"h"]] {
            let body = body(parts);
            assert!(body.is_complete());
            for start in 0..=9_u64 {
                for end in start..=10 {
                    let read: Vec<u8> = body.fragments(start..end).flat_map(|part| part.to_vec()).collect();
                    let (from, to) = (start.min(8) as usize, end.min(8) as usize);
                    assert_eq!(read, &b"abcdefgh"[from..to], "{start}..{end}");
                }
            }
        }
        assert_eq!(body(&[]).fragments(0..10).count(), 0);
    }

    #[test]
    fn a_fragment_is_sent_without_copying() {
        let bytes: Arc<[u8]> = Arc::from(&b"0123456789"[..]);
        let fragment = Fragment::new(Arc::clone(&bytes)).part(2..8);
        assert_eq!(&*fragment, b"234567");
        assert!(std::ptr::eq(fragment.chunk().as_ptr(), &raw const bytes[2]));
    }
}
