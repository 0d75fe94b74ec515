//! Bytes received on one connection and not yet used up.
//!
//! An inbox holds a block only while there is something in it. It starts small (a request head is), and asks for
//! larger blocks while a body streams.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

use buf::{Block, Chunk, SizeClass};
use event::Tcp;

/// With less room than this a block is not worth another receive.
const ROOM_MIN: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    block: Option<Block>,
    start: usize,
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
            self.block = None;
            self.start = 0;
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
        let result = tcp.poll_recv(context, block);
        if self.is_empty() {
            self.block = None;
            self.start = 0;
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
        let Some(block) = &mut self.block else {
            self.block = Some(Block::new(class));
            return Ok(());
        };
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
