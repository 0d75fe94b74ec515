//! What a shared cache may store, serve and change: pure functions of RFC 9111, RFC 5861, RFC 9211 and RFC 9110 §13 and §14.
//!
//! ```text
//! request ── key ── (look up) ── vary::choose ── serve::decide ─┬─ fresh ── conditional::evaluate ── range ── write_stored_head
//!                                                               ├─ stale ── conditional::put_revalidation ── origin
//!                                                               └─ absent ─────────────────────────────────── origin
//! origin ─┬─ 304 ── conditional::freshen ──────────┐
//!         ├─ any ── store::may_store ── stored::encode ── (store)
//!         ├─ 5xx, unreachable ── serve::on_failure
//!         └─ answer to an unsafe method ── invalidate::targets
//! ```
//!
//! What is decided once, when a response is stored, is kept in its [`stored::StoredMeta`]; a hit parses nothing of the
//! response again and allocates nothing. Time is an argument. Lifetimes and ages count in microseconds inside, so that
//! a lifetime of one second is one second; what is shown is whole seconds, rounded down.
//!
//! Not here: where things are stored, and who waits for whom. Read [`serve`] first, then [`stored`].

pub mod cache_control;
pub mod cache_status;
pub mod conditional;
pub mod etag;
pub mod freshness;
pub mod invalidate;
pub mod key;
pub mod range;
pub mod serve;
pub mod store;
pub mod stored;
#[cfg(test)]
mod tests;
pub mod vary;

pub use cache_control::{RequestControl, ResponseControl};
pub use cache_status::{CacheName, CacheStatus, Forwarded, ResultCode};
pub use serve::{Decision, Terms, Use};
pub use store::{Reason, Storable, Uncacheable};
pub use stored::StoredMeta;

use base::WallTime;

use crate::wire::h1::{RequestHead, ResponseHead};

/// One request that was sent to an origin, and what came back.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The client's request.
    pub request: &'a RequestHead,
    /// The bytes `request` was parsed from.
    pub request_text: &'a [u8],
    /// The origin's final response.
    pub response: &'a ResponseHead,
    /// The bytes `response` was parsed from.
    pub response_text: &'a [u8],
    /// When the request was sent.
    pub request_time: WallTime,
    /// When the response's head was received.
    pub response_time: WallTime,
}

/// Microseconds of so many seconds.
#[inline]
const fn micros(secs: u32) -> i64 {
    secs as i64 * 1_000_000
}
