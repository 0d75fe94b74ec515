//! One pooled block with a single writer, and read-only chunks of it.

use std::cell::Cell;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use sys::arena::Piece;

use crate::pool::{self, SizeClass};

/// In front of a block's bytes.
#[repr(C, align(16))]
pub(crate) struct Header {
    /// The [`Block`] and every [`Chunk`] of it count one each.
    refs: Cell<u32>,
    class: SizeClass,
}

const _: () = assert!(size_of::<Header>() == 16);

fn data_of(header: NonNull<Header>) -> NonNull<u8> {
    // SAFETY: every block's memory is larger than its header, so one header further is still inside the allocation.
    unsafe { header.add(1).cast() }
}

fn retain(header: NonNull<Header>) {
    // SAFETY: the caller holds a reference, so the header is initialised and alive; only this thread touches it,
    // since neither `Block` nor a `Chunk` of one is Send.
    let refs = unsafe { &header.as_ref().refs };
    refs.set(refs.get() + 1);
}

fn release(header: NonNull<Header>) {
    // SAFETY: as in `retain`: the caller's reference keeps the header alive until the count below reaches zero.
    let (refs, class) = unsafe { (&header.as_ref().refs, header.as_ref().class) };
    let left = refs.get() - 1;
    refs.set(left);
    if left == 0 {
        pool::give(header, class);
    }
}

/// A pooled block being filled: the one place that may write to its memory.
///
/// Bytes are only ever appended: what a [`Chunk`] refers to is never written again, so appending goes on while
/// chunks of the filled part are in flight. Not Send: the memory returns to the pool of the thread that took it.
pub struct Block {
    header: NonNull<Header>,
    filled: u32,
}

impl Block {
    /// An empty block from this thread's pool.
    #[must_use]
    pub fn new(class: SizeClass) -> Self {
        let header = pool::take(class);
        // SAFETY: the memory is at least a header long, aligned to 64, and nobody else knows of it yet.
        unsafe { header.write(Header { refs: Cell::new(1), class }) };
        Self { header, filled: 0 }
    }

    fn class(&self) -> SizeClass {
        // SAFETY: this block's reference keeps the initialised header alive.
        unsafe { self.header.as_ref().class }
    }

    /// Bytes it can hold in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.class().capacity()
    }

    /// Bytes that may still be appended.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity() - self.filled as usize
    }

    /// The part not yet filled, for a receive to write into; then call [`Block::advance`].
    pub fn spare(&mut self) -> &mut [MaybeUninit<u8>] {
        let room = self.room();
        // SAFETY: `filled` bytes from the data's start lie within the allocation, `room` more end at its end; chunks
        // cover only bytes before `filled`, and `&mut self` excludes a second writer. MaybeUninit needs no
        // initialised memory.
        unsafe {
            let start = data_of(self.header).add(self.filled as usize);
            std::slice::from_raw_parts_mut(start.cast::<MaybeUninit<u8>>().as_ptr(), room)
        }
    }

    /// Declares that the first `n` bytes of [`Block::spare`] are now written.
    ///
    /// # Safety
    /// They must be: a later read of this block reads them.
    ///
    /// # Panics
    /// When `n` is more than there was room for.
    pub unsafe fn advance(&mut self, n: usize) {
        assert!(n <= self.room(), "a block was filled beyond its end");
        self.filled += u32::try_from(n).expect("a block is smaller than 4 GiB");
    }

    /// Appends as much of `bytes` as there is room for and says how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room());
        let from = bytes.as_ptr();
        let to = self.spare().as_mut_ptr().cast::<u8>();
        // SAFETY: `n` bytes are readable at `from` and writable at `to`; the spare part of a block is borrowed
        // exclusively and so cannot overlap `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(from, to, n) };
        // SAFETY: just written.
        unsafe { self.advance(n) };
        n
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the first `filled` bytes were declared written by `advance` and are never written again.
        unsafe { std::slice::from_raw_parts(data_of(self.header).as_ptr(), self.filled as usize) }
    }

    /// A counted view of part of what is filled.
    ///
    /// # Panics
    /// When the range is not within [`Block::bytes`].
    #[must_use]
    pub fn chunk(&self, range: Range<usize>) -> Chunk {
        let bytes = &self.bytes()[range];
        let view = NonNull::from(bytes).cast();
        retain(self.header);
        Chunk { start: view, len: bytes.len(), owner: Owner::Block(self.header) }
    }

    /// Whether no chunk of it is in flight.
    #[must_use]
    pub fn is_sole(&self) -> bool {
        // SAFETY: this block's reference keeps the header alive.
        unsafe { self.header.as_ref().refs.get() == 1 }
    }

    /// Forgets what was written, so that the block can be filled anew. False, and nothing done, while a chunk of it
    /// is in flight.
    pub fn reset(&mut self) -> bool {
        let sole = self.is_sole();
        if sole {
            self.filled = 0;
        }
        sole
    }

    /// All that is filled, as one chunk.
    #[must_use]
    pub fn into_chunk(self) -> Chunk {
        self.chunk(0..self.filled as usize)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        release(self.header);
    }
}

impl Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} of {})", self.filled, self.capacity())
    }
}

enum Owner {
    Static,
    Block(NonNull<Header>),
    Shared(Arc<[u8]>),
    Piece(Arc<Piece>),
}

/// Shorter chunks are copied even where their pages could be lent: that is cheaper.
pub const LEND_MIN: usize = 64 << 10;

/// Immutable bytes with whoever keeps them alive. Cloning counts, it does not copy. Not Send.
pub struct Chunk {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
}

impl Chunk {
    /// Bytes of the program itself.
    #[must_use]
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        // A reference is never null; `NonNull::from` is not const for slices.
        let start = match NonNull::new(bytes.as_ptr().cast_mut()) {
            Some(start) => start,
            None => NonNull::dangling(),
        };
        Self { start, len: bytes.len(), owner: Owner::Static }
    }

    /// Part of bytes that threads share.
    ///
    /// # Panics
    /// When the range is not within `bytes`.
    #[must_use]
    pub fn from_shared(bytes: Arc<[u8]>, range: Range<usize>) -> Self {
        let part = &bytes[range];
        let (start, len) = (NonNull::from(part).cast(), part.len());
        Self { start, len, owner: Owner::Shared(bytes) }
    }

    /// Part of a piece of an arena. It can be sent without copying.
    ///
    /// # Panics
    /// When the range is not within what is filled of it now.
    #[must_use]
    pub fn from_piece(piece: Arc<Piece>, range: Range<usize>) -> Self {
        // What is filled of a piece lies still and never changes while somebody holds the piece, as this chunk does.
        let part = &piece.bytes()[range];
        let (start, len) = (NonNull::from(part).cast(), part.len());
        Self { start, len, owner: Owner::Piece(piece) }
    }

    /// Whose pages can be lent to a socket instead of copying them, and where in it these bytes lie. None when they lie
    /// elsewhere, or are fewer than [`LEND_MIN`].
    #[must_use]
    pub fn lendable(&self) -> Option<(&Piece, Range<usize>)> {
        match &self.owner {
            Owner::Piece(piece) if self.len >= LEND_MIN => {
                let at = self.start.as_ptr().addr() - piece.bytes().as_ptr().addr();
                Some((piece, at..at + self.len))
            }
            _ => None,
        }
    }

    /// Removes the first `n` bytes from view.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len, "a chunk was consumed beyond its end");
        // SAFETY: `n` is within the view, so the new start is inside the allocation or one past its end.
        self.start = unsafe { self.start.add(n) };
        self.len -= n;
    }

    /// A second view of the same bytes, narrowed.
    ///
    /// # Panics
    /// When the range is not within this chunk.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        let mut part = self.clone();
        assert!(range.end <= self.len && range.start <= range.end, "part of a chunk beyond its end");
        part.len = range.end;
        part.advance(range.start);
        part
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        let owner = match &self.owner {
            Owner::Static => Owner::Static,
            Owner::Block(header) => {
                retain(*header);
                Owner::Block(*header)
            }
            Owner::Shared(bytes) => Owner::Shared(Arc::clone(bytes)),
            Owner::Piece(piece) => Owner::Piece(Arc::clone(piece)),
        };
        Self { start: self.start, len: self.len, owner }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Owner::Block(header) = self.owner {
            release(header);
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` and `len` describe initialised bytes of what `owner` keeps alive, which are never written
        // while a chunk of them exists.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::pool_use;

    #[test]
    fn a_block_can_be_appended_to_while_chunks_of_it_are_in_flight() {
        let mut block = Block::new(SizeClass::Small);
        assert_eq!(block.append(b"head"), 4);
        let head = block.chunk(0..4);
        assert_eq!(block.append(b"body"), 4);
        assert_eq!((&*head, &*block.chunk(4..8)), (&b"head"[..], &b"body"[..]));
        assert!(!block.reset(), "a chunk is in flight");
        drop(head);
        assert!(block.reset());
        assert!(block.is_empty());
    }

    #[test]
    fn memory_returns_to_the_pool_with_the_last_chunk_and_not_before() {
        let before = pool_use().used;
        let mut block = Block::new(SizeClass::Medium);
        block.append(b"abc");
        let chunk = block.chunk(0..3);
        let copy = chunk.part(1..3);
        drop(block);
        drop(chunk);
        assert_eq!(pool_use().used, before + SizeClass::Medium.memory());
        assert_eq!(&*copy, b"bc");
        drop(copy);
        assert_eq!(pool_use().used, before);
    }

    #[test]
    fn a_full_block_takes_no_more() {
        let mut block = Block::new(SizeClass::Small);
        let much = vec![7; 5_000];
        assert_eq!(block.append(&much), SizeClass::Small.capacity());
        assert_eq!(block.append(b"x"), 0);
        assert_eq!(block.room(), 0);
    }

    #[test]
    fn every_owner_reads_the_same() {
        let shared: Arc<[u8]> = Arc::from(&b"shared bytes"[..]);
        let mut chunk = Chunk::from_shared(shared, 7..12);
        chunk.advance(1);
        assert_eq!(&*chunk, b"ytes");
        let arena = sys::arena::Arena::reserve(1, Box::new(|| ())).unwrap();
        let mut appender = arena.allocate_in_new_block(100_000).unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(100_000).collect();
        appender.append(&bytes);
        let mut kept = Chunk::from_piece(Arc::clone(appender.piece()), 5..100_000);
        assert_eq!(&*kept.part(0..2), &bytes[5..7]);
        assert!(kept.part(0..LEND_MIN - 1).lendable().is_none() && chunk.lendable().is_none());
        kept.advance(10);
        assert_eq!(kept.lendable().map(|(_, range)| range), Some(15..100_000));
        assert_eq!(&*Chunk::from_static(b"text").part(1..2), b"e");
        assert_eq!(Chunk::from_static(b"").len(), 0);
    }

    #[test]
    fn the_pool_keeps_a_bounded_number_of_free_blocks() {
        let blocks: Vec<_> = (0..1_000).map(|_| Block::new(SizeClass::Medium)).collect();
        drop(blocks);
        assert!(pool_use().free <= (256 << 10) + (2 << 20) + (2 << 20));
        // Nothing was needed between two calls: nothing stays.
        crate::trim();
        crate::trim();
        assert_eq!(pool_use().free, 0);
    }
}
