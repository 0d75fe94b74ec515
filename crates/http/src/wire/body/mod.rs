//! Where content ends: lengths, chunks, trailers and the end of the connection (RFC 9112 §6 and §7).
//!
//! The [`Decoder`] is fed slices as they come, cut anywhere, and says which part of each is content. It copies
//! nothing but trailers, which are rare and bounded. It does not read, and does not know what content is for.
//!
//! Read [`Decoder::step`] first.

mod chunked;
#[cfg(test)]
mod tests;
mod trailers;

use std::ops::Range;

use super::field::Field;
use super::h1::{Limits, Reason};
use chunked::Chunked;
use trailers::Trailers;

/// How the content of a message is framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// There is none, and no field says anything of a length.
    None,
    /// So many bytes; 0 when the sender said so.
    Length(u64),
    /// In chunks, perhaps with trailers behind them.
    Chunked,
    /// All until the connection ends; responses only.
    UntilClose,
}

impl Body {
    /// Is it certain that no content follows?
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// Why content cannot be passed on. What was passed on already must be cut visibly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// A chunk size that is no hexadecimal number, or none at all.
    #[error("a chunk size is malformed")]
    BadChunkSize,
    /// A chunk size beyond 2^63.
    #[error("a chunk size is too large")]
    ChunkTooLarge,
    /// A chunk extension that breaks the grammar or holds a control byte.
    #[error("a chunk extension is malformed")]
    BadExtension,
    /// Chunk extensions out of all proportion to the content.
    #[error("chunk extensions are larger than the content warrants")]
    ExtensionsTooLarge,
    /// The line of a chunk does not end in CR LF.
    #[error("a chunk line does not end in CR LF")]
    BadLineEnd,
    /// A chunk's content is not followed by CR LF: its size was a lie.
    #[error("the content of a chunk is not followed by CR LF")]
    NoChunkEnd,
    /// The trailers are larger than a head may be.
    #[error("the trailers are too large")]
    TrailersTooLarge,
    /// The trailers break the rules of field lines.
    #[error("in the trailers: {0}")]
    BadTrailers(Reason),
    /// A trailer that would have changed framing or routing (RFC 9110 §6.5.1).
    #[error("a trailer that may not be one")]
    ForbiddenTrailer,
    /// The connection ended first.
    #[error("the connection ended before the content did")]
    Truncated,
}

/// What one slice of input was made of: framing, then content, then perhaps framing again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Where the content lies in the input; may be empty.
    pub data: Range<usize>,
    /// Bytes of the input that are done with, content included. The rest belongs to the next step, or when `done` to
    /// the next message.
    pub consumed: usize,
    /// The content is complete.
    pub done: bool,
}

/// Finds the content of one message in the bytes behind its head.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    Chunked(Chunked, Trailers),
    Done(Trailers),
    Failed(BodyError),
}

impl Decoder {
    /// A decoder for content framed like this. The limits of a head hold for its trailers too.
    #[must_use]
    pub fn new(body: Body, limits: &Limits) -> Self {
        let state = match body {
            Body::None | Body::Length(0) => State::Done(Trailers::new(limits)),
            Body::Length(len) => State::Length(len),
            Body::UntilClose => State::UntilClose,
            Body::Chunked => State::Chunked(Chunked::new(), Trailers::new(limits)),
        };
        Self { state }
    }

    /// Looks at the start of `input` and yields at most one run of content. Call again with the rest until `consumed`
    /// is all of it, or `done`. An empty step means that more bytes are needed. Behind the end, and behind an error,
    /// nothing is consumed.
    ///
    /// # Errors
    /// The framing is broken; so is every later step.
    #[inline]
    pub fn step(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        match &mut self.state {
            State::Length(rest) => {
                let len = usize::try_from(*rest).unwrap_or(usize::MAX).min(input.len());
                *rest -= len as u64;
                let done = *rest == 0;
                if done {
                    self.state = State::Done(Trailers::default());
                }
                Ok(Step { data: 0..len, consumed: len, done })
            }
            State::UntilClose => Ok(Step { data: 0..input.len(), consumed: input.len(), done: false }),
            State::Chunked(chunked, trailers) => match chunked.step(input, trailers) {
                Ok(step) => {
                    if step.done {
                        self.state = State::Done(std::mem::take(trailers));
                    }
                    Ok(step)
                }
                Err(error) => {
                    self.state = State::Failed(error);
                    Err(error)
                }
            },
            State::Done(_) => Ok(Step { data: 0..0, consumed: 0, done: true }),
            State::Failed(error) => Err(*error),
        }
    }

    /// Is the content complete?
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done(_))
    }

    /// How many bytes of content are certain to follow: the rest of the length, or of the chunk.
    #[must_use]
    pub fn expected(&self) -> u64 {
        match &self.state {
            State::Length(rest) => *rest,
            State::Chunked(chunked, _) => chunked.expected(),
            State::UntilClose | State::Done(_) | State::Failed(_) => 0,
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// [`BodyError::Truncated`], unless this is the end of content that lasts until close, or comes behind the end.
    pub fn feed_eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done(_) => Ok(()),
            State::UntilClose => {
                self.state = State::Done(Trailers::default());
                Ok(())
            }
            State::Failed(error) => Err(error),
            State::Length(_) | State::Chunked(..) => {
                self.state = State::Failed(BodyError::Truncated);
                Err(BodyError::Truncated)
            }
        }
    }

    /// The trailers, once the content is complete: only those that may be forwarded.
    pub fn trailers(&self) -> impl Iterator<Item = Field<'_>> {
        match &self.state {
            State::Done(trailers) => Some(trailers),
            _ => None,
        }
        .into_iter()
        .flat_map(Trailers::fields)
    }
}
