//! What is to be sent on one connection at the end of the turn: small pieces copied together, large ones as they are.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use buf::{Block, Chunk, SizeClass};

/// Pieces up to this size are copied: cheaper than an entry of their own in a gathered send.
pub(crate) const COPY_MAX: usize = 1 << 10;
/// So is less than this part of a block: it would keep the whole of it alive until it is taken.
const COPY_PART: usize = 16;

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

    /// Up to how much of it is copied.
    #[inline]
    fn copy_max(&self) -> usize {
        match self {
            Self::Block(block) => COPY_MAX.max((block.capacity() - 1) / COPY_PART),
            Self::Shared(_) => COPY_MAX,
        }
    }

    pub(crate) fn chunk(&self, range: Range<usize>) -> Chunk {
        match self {
            Self::Block(block) => block.chunk(range),
            Self::Shared(bytes) => Chunk::from_shared(Arc::clone(bytes), range),
        }
    }
}

/// What an outbox has while there is something in it.
#[derive(Debug, Default)]
struct Content {
    chunks: Vec<Chunk>,
    tail: Option<Block>,
    /// Where in the tail block lie bytes that are in no chunk yet.
    from: usize,
    len: usize,
}

/// Contents that a thread keeps for the next, and the chunks there may be room for in each.
const CONTENTS_MAX: usize = 64;
const CHUNKS_KEPT_MAX: usize = 64;

thread_local! {
    #[expect(clippy::vec_box, reason = "they move between this list and connections by their address")]
    static CONTENTS: RefCell<Vec<Box<Content>>> = const { RefCell::new(Vec::new()) };
}

/// See the module. What is copied is copied into large pieces, `WIDE`, or small ones.
#[derive(Debug)]
pub(crate) struct Outbox<const WIDE: bool> {
    /// None while it is empty: idle connections are many.
    content: Option<Box<Content>>,
}

impl<const WIDE: bool> Outbox<WIDE> {
    const CLASS: SizeClass = if WIDE { SizeClass::Medium } else { SizeClass::Small };

    pub(crate) const fn new() -> Self {
        Self { content: None }
    }

    /// Bytes in it.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.content.as_ref().map_or(0, |content| content.len)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn content(&mut self) -> &mut Content {
        self.content.get_or_insert_with(|| CONTENTS.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// Appends part of `source`.
    #[inline]
    pub(crate) fn push(&mut self, source: Source<'_>, range: Range<usize>) {
        if range.len() <= source.copy_max() {
            self.copy(&source.bytes()[range]);
        } else {
            self.chunk(source.chunk(range));
        }
    }

    /// Appends bytes that live nowhere else.
    #[inline]
    pub(crate) fn copy(&mut self, mut bytes: &[u8]) {
        let content = self.content();
        content.len += bytes.len();
        while !bytes.is_empty() {
            let tail = content.tail.get_or_insert_with(|| Block::new(Self::CLASS));
            bytes = &bytes[tail.append(bytes)..];
            if !bytes.is_empty() {
                content.seal();
                content.tail = None;
                content.from = 0;
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
        let content = self.content();
        content.seal();
        content.len += chunk.len();
        content.chunks.push(chunk);
    }

    /// A copy of that part of it; none where it has not so much.
    pub(crate) fn part(&self, range: Range<usize>) -> Option<Vec<u8>> {
        let content = self.content.as_ref()?;
        let tail = content.tail.as_ref().and_then(|tail| tail.get(content.from..)).unwrap_or_default();
        let mut part = Vec::with_capacity(range.len());
        let mut at = 0;
        for piece in content.chunks.iter().map(|chunk| &chunk[..]).chain([tail]) {
            let place = |wanted: usize| wanted.saturating_sub(at).min(piece.len());
            part.extend_from_slice(&piece[place(range.start)..place(range.end)]);
            at += piece.len();
        }
        (part.len() == range.len()).then_some(part)
    }

    /// Takes all out.
    pub(crate) fn take(&mut self, mut each: impl FnMut(Chunk)) {
        let Some(content) = &mut self.content else { return };
        content.seal();
        content.len = 0;
        for chunk in content.chunks.drain(..) {
            each(chunk);
        }
    }

    /// Gives the memory back that is kept for what may come.
    pub(crate) fn rest(&mut self) {
        let Some(mut content) = self.content.take_if(|content| content.len == 0) else { return };
        content.tail = None;
        content.from = 0;
        if content.chunks.capacity() <= CHUNKS_KEPT_MAX {
            CONTENTS.with_borrow_mut(|contents| {
                if contents.len() < CONTENTS_MAX {
                    contents.push(content);
                }
            });
        }
    }
}

impl Content {
    #[inline]
    fn seal(&mut self) {
        if let Some(tail) = &self.tail
            && tail.len() > self.from
        {
            self.chunks.push(tail.chunk(self.from..tail.len()));
            self.from = tail.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_of_a_large_block_keeps_none_of_it() {
        for class in [SizeClass::Medium, SizeClass::Large] {
            let mut block = Block::new(class);
            let copied = COPY_MAX.max((block.capacity() - 1) / COPY_PART);
            assert!(class == SizeClass::Medium || copied > 3 * COPY_MAX);
            block.append(&vec![b'x'; copied + 1]);
            let mut out = Outbox::<false>::new();
            out.push(Source::Block(&block), 0..copied);
            assert!(block.is_sole(), "{copied} of {class:?}");
            out.push(Source::Block(&block), 0..copied + 1);
            assert!(!block.is_sole(), "{copied} and one more of {class:?}");
            let mut len = 0;
            out.take(|chunk| len += chunk.len());
            assert_eq!(len, 2 * copied + 1);
        }
    }

    #[test]
    fn any_part_of_what_is_in_it_can_be_copied() {
        let large: Arc<[u8]> = vec![b'l'; COPY_MAX + 1].into();
        let mut out = Outbox::<false>::new();
        assert_eq!(out.part(0..1), None);
        out.copy(b"first");
        out.push(Source::Shared(&large), 0..large.len());
        out.copy(b"last");
        assert_eq!(out.part(3..7).as_deref(), Some(b"stll".as_slice()));
        assert_eq!(out.part(5 + large.len() - 1..out.len()).as_deref(), Some(b"llast".as_slice()));
        assert_eq!(out.part(out.len() - 1..out.len() + 1), None);
        out.take(drop);
        assert_eq!(out.part(0..1), None);
    }
}
