//! What is to be sent on one connection at the end of the turn: small pieces copied together, large ones as they are.

use std::ops::Range;
use std::sync::Arc;

use buf::{Block, Chunk, SizeClass};

/// Pieces up to this size are copied: cheaper than an entry of their own in a gathered send, and they keep no block
/// of sixteen times their size alive.
pub(crate) const COPY_MAX: usize = 1 << 10;

/// Bytes to take pieces of.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// As received.
    Block(&'a Block),
    /// Put together here.
    Shared(&'a Arc<[u8]>),
}

impl Source<'_> {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Block(block) => block.bytes(),
            Self::Shared(bytes) => bytes,
        }
    }

    pub(crate) fn chunk(&self, range: Range<usize>) -> Chunk {
        match self {
            Self::Block(block) => block.chunk(range),
            Self::Shared(bytes) => Chunk::from_shared(Arc::clone(bytes), range),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    chunks: Vec<Chunk>,
    tail: Option<Block>,
    /// Where in the tail block lie bytes that are in no chunk yet.
    from: usize,
    len: usize,
    class: SizeClass,
}

impl Outbox {
    pub(crate) const fn new(class: SizeClass) -> Self {
        Self { chunks: Vec::new(), tail: None, from: 0, len: 0, class }
    }

    /// Bytes in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends part of `source`.
    #[inline]
    pub(crate) fn push(&mut self, source: Source<'_>, range: Range<usize>) {
        if range.len() <= COPY_MAX {
            self.copy(&source.bytes()[range]);
        } else {
            self.chunk(source.chunk(range));
        }
    }

    /// Appends bytes that live nowhere else.
    #[inline]
    pub(crate) fn copy(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let tail = self.tail.get_or_insert_with(|| Block::new(self.class));
            bytes = &bytes[tail.append(bytes)..];
            if !bytes.is_empty() {
                self.seal();
                self.tail = None;
                self.from = 0;
            }
        }
    }

    /// Appends a chunk, or a copy when it is small.
    pub(crate) fn push_chunk(&mut self, chunk: &Chunk) {
        if chunk.len() <= COPY_MAX {
            self.copy(chunk);
        } else {
            self.chunk(chunk.clone());
        }
    }

    /// Appends a chunk.
    pub(crate) fn chunk(&mut self, chunk: Chunk) {
        self.seal();
        self.len += chunk.len();
        self.chunks.push(chunk);
    }

    #[inline]
    fn seal(&mut self) {
        if let Some(tail) = &self.tail
            && tail.len() > self.from
        {
            self.chunks.push(tail.chunk(self.from..tail.len()));
            self.from = tail.len();
        }
    }

    /// Takes all out.
    pub(crate) fn take(&mut self, mut each: impl FnMut(Chunk)) {
        self.seal();
        self.len = 0;
        for chunk in self.chunks.drain(..) {
            each(chunk);
        }
    }

    /// Gives the memory back that is kept for what may come.
    pub(crate) fn rest(&mut self) {
        if self.len == 0 {
            self.tail = None;
            self.from = 0;
            self.chunks = Vec::new();
        }
    }
}
