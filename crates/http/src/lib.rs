//! The HTTP engine, room by room.
//!
//! - [`wire`]: bytes and messages (RFC 9112).
//! - [`rules`]: what messages mean and how they are forwarded (RFC 9110).
//! - [`remap`]: which origin answers for which URL.
//!
//! These three are pure: bytes and values in, values out. No socket, no clock, and in the steady state no allocation.

#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod fuzz;
pub mod remap;
pub mod rules;
#[doc(hidden)]
pub mod specimens;
pub mod wire;
