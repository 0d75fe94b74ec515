//! The HTTP engine, room by room.
//!
//! - [`wire`]: bytes and messages (RFC 9112).
//! - [`rules`]: what messages mean and how they are forwarded (RFC 9110).
//! - [`remap`]: which origin answers for which URL.
//! - [`transact`]: what one transaction decides.
//!
//! These are pure: bytes and values in, values out. No socket, no clock, and in the steady state no allocation. The
//! driver does what they decide: [`Worker`] is one event thread's engine, a session is a client's connection, and a
//! transaction one request on it, with the origin's side of it.
//!
//! Read `session` first, then `transaction`, `serve` and `forward`.

#![forbid(unsafe_code)]

pub mod access_log;
mod answer;
mod block_sink;
mod download;
mod follow;
mod forward;
#[doc(hidden)]
pub mod fuzz;
mod inbox;
pub mod inspect;
pub mod local;
mod metrics;
mod origin;
mod plan;
mod record;
mod refresh;
pub mod remap;
pub mod rules;
mod sending;
mod serve;
mod session;
#[doc(hidden)]
pub mod specimens;
mod storing;
pub mod transact;
mod transaction;
mod upload;
pub mod wire;
mod worker;

pub use metrics::Http;
pub use plan::Plan;
pub use worker::{CacheParts, HandOver, LogRenewal, Renewal, Worker, WorkerParts};
