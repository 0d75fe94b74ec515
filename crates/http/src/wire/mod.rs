//! Bytes and messages: RFC 9112, and what RFC 9110 says about the shape of fields. What a message *means* is
//! decided in [`crate::rules`].
//!
//! A head is parsed where it lies. What comes out are offsets into the caller's buffer, so nothing is copied, no
//! map is built, and a [`h1::RequestHead`] that is used again allocates nothing. Only bytes that have one meaning
//! get through: where RFC 9112 leaves room for leniency, this parser takes none, because the next recipient may
//! take another. A head that parsed is therefore safe to forward line by line.
//!
//! ```text
//! client bytes ── h1::RequestHead ── body::Decoder ──▶ content      origin bytes ── h1::ResponseHead ── body::Decoder
//! ```

pub mod body;
pub mod chunk;
pub mod field;
pub mod h1;
pub mod list;
pub mod method;

pub use body::Body;
pub use field::{Field, FieldSet, Known};
pub use method::Method;
