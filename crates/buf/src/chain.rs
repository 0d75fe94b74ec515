//! What a connection still has to send.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::Chunk;

/// How many chunks one gathered send takes at most. More wait for the next.
pub const SLICES_MAX: usize = 64;

/// A queue of chunks, first in first out, that knows its length in bytes.
#[derive(Debug, Default)]
pub struct Chain {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// One was put in that may be lent, since the chain was last empty.
    lends: bool,
}

impl Chain {
    /// An empty chain, without memory of its own.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: VecDeque::new(), bytes: 0, lends: false }
    }

    /// Appends a chunk; an empty one is dropped.
    pub fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.lends = (self.lends && self.bytes > 0) || chunk.lendable().is_some();
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    /// Bytes in the chain.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The only chunk, when there is exactly one: the common case, sent without gathering.
    #[must_use]
    pub fn single(&self) -> Option<&[u8]> {
        if self.chunks.len() == 1 { self.chunks.front().map(|chunk| &**chunk) } else { None }
    }

    /// Whether there may be chunks in it whose pages can be lent: then look at [`Chain::front`] before gathering.
    #[must_use]
    pub fn lends(&self) -> bool {
        self.lends
    }

    /// The first chunk.
    #[must_use]
    pub fn front(&self) -> Option<&Chunk> {
        self.chunks.front()
    }

    /// As [`Chain::gather`], as far as the first chunk that can be lent.
    pub fn gather_ahead<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let ahead = self.chunks.iter().take_while(|chunk| chunk.lendable().is_none());
        let filled = slices.iter_mut().zip(ahead).map(|(slice, chunk)| *slice = IoSlice::new(chunk));
        filled.count()
    }

    /// Fills `slices` with the front of the chain and says how many it used.
    pub fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
            used += 1;
        }
        used
    }

    /// Puts a copy of all of it behind what is in `room`.
    pub fn copy_to(&self, room: &mut Vec<u8>) {
        for chunk in &self.chunks {
            room.extend_from_slice(chunk);
        }
    }

    /// Drops the first `n` bytes: they are sent.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn consume(&mut self, mut n: usize) {
        assert!(n <= self.bytes, "more was sent than there was");
        self.bytes -= n;
        while n > 0 {
            let Some(front) = self.chunks.front_mut() else { return };
            if front.len() > n {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.chunks.pop_front();
        }
    }

    /// Takes the first chunk out.
    pub fn pop(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    /// Drops everything, keeping the queue's own memory.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(parts: &[&'static [u8]]) -> Chain {
        let mut chain = Chain::new();
        for part in parts {
            chain.push(Chunk::from_static(part));
        }
        chain
    }

    fn rest(chain: &Chain) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let used = chain.gather(&mut slices);
        slices[..used].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn whatever_a_send_takes_the_rest_stays_in_order() {
        for n in 0..=9 {
            let mut chain = chain(&[b"abc", b"", b"de", b"fghi"]);
            chain.consume(n);
            assert_eq!(rest(&chain), b"abcdefghi"[n..].to_vec());
            let mut copied = b"before ".to_vec();
            chain.copy_to(&mut copied);
            assert_eq!(copied, [b"before ", &b"abcdefghi"[n..]].concat());
            assert_eq!(chain.len(), 9 - n);
        }
    }

    #[test]
    fn one_chunk_alone_needs_no_gathering() {
        assert_eq!(chain(&[b"abc"]).single(), Some(&b"abc"[..]));
        assert_eq!(chain(&[b"abc", b"d"]).single(), None);
        assert_eq!(chain(&[]).single(), None);
    }

    #[test]
    fn what_can_be_lent_is_found_behind_what_comes_ahead_of_it() {
        let arena = sys::arena::Arena::reserve(1, Box::new(|| ())).unwrap();
        let mut appender = arena.allocate_in_new_block(crate::LEND_MIN).unwrap();
        appender.append(&vec![b'x'; crate::LEND_MIN]);
        let mut chain = chain(&[b"abc", b"de"]);
        assert!(!chain.lends());
        chain.push(Chunk::from_piece(std::sync::Arc::clone(appender.piece()), 0..crate::LEND_MIN));
        chain.push(Chunk::from_static(b"end"));
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        assert_eq!((chain.lends(), chain.gather_ahead(&mut slices), chain.gather(&mut slices)), (true, 2, 4));
        chain.consume(5);
        assert!(chain.front().is_some_and(|front| front.lendable().is_some()));
        chain.consume(1);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        assert_eq!(chain.gather_ahead(&mut slices), 2, "the rest is too short to lend");
        chain.consume(chain.len());
        chain.push(Chunk::from_static(b"next"));
        assert!(!chain.lends());
    }

    #[test]
    fn a_gathered_send_has_a_bounded_number_of_slices() {
        let mut chain = Chain::new();
        for _ in 0..200 {
            chain.push(Chunk::from_static(b"x"));
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        assert_eq!(chain.gather(&mut slices), SLICES_MAX);
    }
}
