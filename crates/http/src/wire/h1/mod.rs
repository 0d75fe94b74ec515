//! Heads of HTTP/1.0 and HTTP/1.1 (RFC 9112), read in place and strictly.
//!
//! `httparse` finds names and values with SIMD; everything that decides where a message ends, and for whom it is,
//! is judged here: line ends, framing, `Host`, target, connection options. Neither value keeps the buffer: the
//! accessors take it again, and must be given the same bytes that were parsed.
//!
//! ```text
//! RequestHead::parse / ResponseHead::parse
//!    ├─ arrival    is the end of the head there, is it too large already
//!    ├─ httparse   tokens
//!    ├─ fields     line ends, ids, spans ── facts: framing, connection, Host, Expect
//!    ├─ target     form, authority, path (requests)
//!    └─ diagnose   names the fault; only reached by heads that are refused
//! ```
//!
//! Read [`RequestHead::parse`] first.

mod arrival;
mod authority;
mod diagnose;
mod error;
mod facts;
mod fields;
mod request;
mod response;
mod target;
#[cfg(test)]
mod tests;

pub use authority::{is_authority, split_port};
pub use error::{HeadError, Reason, ResponseError};
pub use request::RequestHead;
pub use response::ResponseHead;
pub use target::{Scheme, TargetForm};

/// Names the fault of trailers, which are field lines like those of a head.
pub(crate) use diagnose::fields as fault_of_fields;
pub(crate) use fields::Fields;

/// No head is ever larger, whatever is configured: offsets into it are 16 bits wide.
pub const HEAD_SIZE_MAX: usize = u16::MAX as usize;
/// No head ever has more field lines, whatever is configured: the tokenizer's table lies on the stack.
pub const HEAD_FIELDS_MAX: usize = 256;
/// Empty lines tolerated in front of a request (RFC 9112 §2.2): some clients send one behind a form.
pub const EMPTY_LINES_MAX: usize = 4;
/// A longer method is refused with 501 (RFC 9112 §3).
pub const METHOD_LEN_MAX: usize = 64;
/// Options in all `Connection` fields of a head. Each may name a field, and is compared with every field.
pub const CONNECTION_OPTIONS_MAX: usize = 32;

/// How much of a head is accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes from the first of the start line to the empty line; at most [`HEAD_SIZE_MAX`].
    pub head_size: usize,
    /// Field lines; at most [`HEAD_FIELDS_MAX`].
    pub head_fields: usize,
}

impl Default for Limits {
    /// 32 KiB and 128 lines.
    fn default() -> Self {
        Self { head_size: 32 * 1024, head_fields: 128 }
    }
}

/// What parsing found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The head is not all there. Parse again when more bytes have come, from the same start.
    Partial,
    /// The head is complete and lawful; its value can be asked now.
    Complete,
}

/// The versions of the wire format that are spoken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// HTTP/1.0: no chunks, and the connection closes unless both say otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

impl Version {
    /// `1.0` or `1.1`, as `Via` wants it.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
        }
    }

    /// `HTTP/1.0` or `HTTP/1.1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// A range of the buffer. Heads are below 64 KiB, so four bytes hold it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Span {
    start: u16,
    len: u16,
}

impl Span {
    /// Where `part` lies in `whole`. `part` must be a slice of it, and `whole` at most [`HEAD_SIZE_MAX`] long.
    #[inline]
    fn within(whole: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
        debug_assert!(start + part.len() <= whole.len());
        Self { start: narrow(start), len: narrow(part.len()) }
    }

    /// The bytes; none when `buf` is not the buffer that was parsed.
    #[inline]
    fn of(self, buf: &[u8]) -> &[u8] {
        let start = usize::from(self.start);
        buf.get(start..start + usize::from(self.len)).unwrap_or_default()
    }
}

/// Offsets are below [`HEAD_SIZE_MAX`], because no more than that is ever given to the tokenizer.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "no head is larger than HEAD_SIZE_MAX, checked by the assertion")]
fn narrow(offset: usize) -> u16 {
    debug_assert!(offset <= HEAD_SIZE_MAX);
    offset as u16
}
