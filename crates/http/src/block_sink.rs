//! Heads written straight into a pooled block.

use buf::{Block, Chunk, SizeClass};

use crate::rules::HeadSink;

/// A head in one block. Its size is guessed before; a head that turns out larger is noticed, never cut silently.
pub(crate) struct BlockSink {
    block: Block,
    whole: bool,
}

impl BlockSink {
    /// For a head of about `expected` bytes.
    pub(crate) fn new(expected: usize) -> Self {
        Self { block: Block::new(SizeClass::for_bytes(expected).unwrap_or(SizeClass::Large)), whole: true }
    }

    /// The head, and the block for what else may go there; `None` when it did not fit into the largest block.
    pub(crate) fn finish(self) -> Option<(Chunk, Block)> {
        let head = self.block.chunk(0..self.block.len());
        self.whole.then_some((head, self.block))
    }
}

impl HeadSink for BlockSink {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > self.block.room() {
            self.grow();
        }
        self.whole &= self.block.append(bytes) == bytes.len();
    }
}

impl BlockSink {
    #[cold]
    fn grow(&mut self) {
        let mut larger = Block::new(SizeClass::Large);
        self.whole &= larger.append(&self.block) == self.block.len();
        self.block = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_larger_than_expected_is_whole_all_the_same_and_one_larger_than_any_block_is_none() {
        let mut sink = BlockSink::new(10);
        for _ in 0..100 {
            sink.put(b"0123456789012345678901234567890123456789");
        }
        assert_eq!(sink.finish().unwrap().0.len(), 4_000);
        let mut sink = BlockSink::new(10);
        for _ in 0..2_000 {
            sink.put(b"0123456789012345678901234567890123456789");
        }
        assert!(sink.finish().is_none());
    }
}
