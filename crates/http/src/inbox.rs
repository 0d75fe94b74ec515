//! Bytes received on one connection and not yet used up.
//!
//! An inbox holds a block only while there is something in it. It starts small (a request head is), and asks for
//! larger blocks while a body streams.
//!
//! What was received may be held for long: for another try, or for a peer that does not read. So that a few bytes do
//! not hold a large block each, a sender of small pieces gets small blocks, and these are filled up.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

use buf::{Block, Chunk, SizeClass};
use event::Tcp;

/// With less room than this a block is not worth another receive.
const ROOM_MIN: usize = 512;
/// After so many receives in a row that filled little of their blocks, the blocks get smaller.
const SMALL_RECEIVES: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Inbox {
    block: Option<Block>,
    start: usize,
    /// What comes is not worth larger blocks.
    class_max: SizeClass,
    /// How many receives in a row filled little of their blocks.
    small_receives: u8,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { block: None, start: 0, class_max: SizeClass::Large, small_receives: 0 }
    }
}

impl Inbox {
    /// What is there.
    #[inline]
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes()[self.start..])
    }

    /// Whether nothing is there.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// A counted view of part of [`Inbox::bytes`].
    #[must_use]
    pub(crate) fn chunk(&self, range: Range<usize>) -> Chunk {
        match &self.block {
            Some(block) => block.chunk(self.start + range.start..self.start + range.end),
            None => Chunk::from_static(b""),
        }
    }

    /// Uses up the first `n` bytes. An emptied inbox gives its block away.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.is_empty() {
            self.let_go();
        }
    }

    /// Gives the emptied block away. A small one that others hold anyway stays: the next bytes join those in it.
    fn let_go(&mut self) {
        let stays = |block: &Block| is_small(block) && block.room() >= ROOM_MIN && !block.is_sole();
        if !self.block.as_ref().is_some_and(stays) {
            self.block = None;
            self.start = 0;
        }
    }

    /// Adapts the size of blocks to what a receive brought.
    fn learn(&mut self, received: usize, room: usize, capacity: usize) {
        if received == room && received * 2 >= capacity {
            self.class_max = match self.class_max {
                SizeClass::Small => SizeClass::Medium,
                SizeClass::Medium | SizeClass::Large => SizeClass::Large,
            };
            self.small_receives = 0;
        } else if received * 4 >= capacity {
            self.small_receives = 0;
        } else {
            self.small_receives += 1;
            if self.small_receives >= SMALL_RECEIVES {
                self.class_max = match self.class_max {
                    SizeClass::Large => SizeClass::Medium,
                    SizeClass::Medium | SizeClass::Small => SizeClass::Small,
                };
                self.small_receives = 0;
            }
        }
    }

    /// Receives once, behind what is there; 0 is the end of the stream. A new block is of class `class`, or of the
    /// smallest that holds what is there and as much again.
    ///
    /// # Errors
    /// As [`Tcp::poll_recv`]; `OutOfMemory` when what is there fills the largest block.
    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        tcp: &Tcp,
        class: SizeClass,
    ) -> Poll<io::Result<usize>> {
        if !tcp.is_readable() {
            // Waits without a block; the wait's own errors (deadline, failure) come out here.
            match tcp.poll_readable(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.make_room(class)?;
        let Some(block) = &mut self.block else { return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into())) };
        let (room, capacity) = (block.room(), block.capacity());
        let result = tcp.poll_recv(context, block);
        if let Poll::Ready(Ok(received)) = result
            && received > 0
        {
            self.learn(received, room, capacity);
        } else if self.is_empty() {
            self.let_go();
        }
        result
    }

    /// As [`Inbox::poll_fill`], as a future.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn fill(&mut self, tcp: &Tcp, class: SizeClass) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_fill(context, tcp, class)).await
    }

    fn make_room(&mut self, class: SizeClass) -> io::Result<()> {
        let class = if class.capacity() > self.class_max.capacity() { self.class_max } else { class };
        let Some(block) = &mut self.block else {
            self.block = Some(Block::new(class));
            return Ok(());
        };
        if self.start == block.len() && block.reset() {
            self.start = 0;
        }
        if block.room() >= ROOM_MIN {
            return Ok(());
        }
        let left = &block.bytes()[self.start..];
        let needed = (left.len() * 2).max(left.len() + ROOM_MIN);
        let larger = SizeClass::for_bytes(needed).unwrap_or(SizeClass::Large);
        let class = if larger.capacity() > class.capacity() { larger } else { class };
        if left.len() >= class.capacity() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let mut new = Block::new(class);
        new.append(left);
        self.block = Some(new);
        self.start = 0;
        Ok(())
    }
}

fn is_small(block: &Block) -> bool {
    block.capacity() == SizeClass::Small.capacity()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_get_smaller_under_small_receives_and_larger_again_under_full_ones() {
        let mut inbox = Inbox::default();
        let mut classes = Vec::new();
        let large = SizeClass::Large.capacity();
        for (received, room, capacity) in [
            (300, large, large), // a head may be small
            (large / 4, large, large),
            (300, large, large),
            (300, large, large),
            (1, SizeClass::Medium.capacity(), SizeClass::Medium.capacity()),
            (1, SizeClass::Medium.capacity(), SizeClass::Medium.capacity()),
            (600, 600, SizeClass::Small.capacity()), // full, but with little
            (2_032, 2_032, SizeClass::Small.capacity()),
            (16_368, 16_368, SizeClass::Medium.capacity()),
        ] {
            inbox.learn(received, room, capacity);
            classes.push(inbox.class_max);
        }
        let (l, m, s) = (SizeClass::Large, SizeClass::Medium, SizeClass::Small);
        assert_eq!(classes, [l, l, l, m, m, s, s, m, l]);
    }

    #[test]
    fn bytes_join_those_of_a_small_block_that_is_held_and_a_large_one_is_given_away() {
        for (class, stays) in [(SizeClass::Small, true), (SizeClass::Medium, false), (SizeClass::Large, false)] {
            let mut inbox = Inbox { class_max: class, ..Inbox::default() };
            inbox.make_room(class).unwrap();
            inbox.block.as_mut().unwrap().append(b"held");
            let held = inbox.chunk(0..4);
            inbox.consume(4);
            assert_eq!(inbox.block.is_some(), stays);
            inbox.make_room(class).unwrap();
            inbox.block.as_mut().unwrap().append(b"next");
            assert_eq!((&held[..], inbox.bytes()), (&b"held"[..], &b"next"[..]));
            // Once nobody holds anything, the whole block is there again.
            let next = inbox.chunk(0..4);
            inbox.consume(4);
            drop((held, next));
            inbox.make_room(class).unwrap();
            assert_eq!(inbox.block.as_ref().unwrap().room(), class.capacity());
        }
    }
}
