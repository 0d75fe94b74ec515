//! Messages that must be refused, each with the reason why. For tests, here and of whole walks: no code path uses them.
//!
//! The tables are written by loops where the mistake is one byte among many that are as bad, and by hand elsewhere.
//! Every specimen is made from a lawful message by one change, so that it is refused for that change alone.

mod requests;
mod responses;

pub use requests::malformed_requests;
pub use responses::hostile_responses;

use crate::wire::body::BodyError;
use crate::wire::h1::{Limits, Reason};

/// The limits under which the specimens are too large. Small, so that the tables stay small.
pub const LIMITS: Limits = Limits { head_size: 2048, head_fields: 20 };

/// A request that must be refused.
#[derive(Clone, Debug)]
pub struct BadRequest {
    /// The whole request.
    pub bytes: Vec<u8>,
    /// Why. The status is [`Reason::status`].
    pub reason: Reason,
}

/// Where a response is found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// In its head: the client gets 502.
    Head(Reason),
    /// In its content: what the client has of it is cut.
    Body(BodyError),
}

/// An answer to GET that must be refused, or cut.
#[derive(Clone, Debug)]
pub struct BadResponse {
    /// All that the origin sends before it closes.
    pub bytes: Vec<u8>,
    /// Where and why.
    pub refusal: Refusal,
}
