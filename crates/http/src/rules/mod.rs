//! What messages mean and what becomes of them: pure functions of RFC 9110, 9111 and 5861 (and later 9213).
//!
//! - [`hop`]: which fields end at this hop.
//! - [`forward`]: the request as the origin gets it, the response as the client gets it.
//! - [`framing`]: how the content is framed towards the client.
//! - [`via`]: who was on the way, and loops.
//! - [`last_hop`]: what we answer ourselves when `Max-Forwards` says so.
//! - [`caching`]: what is stored, served and changed by a shared cache.
//! - [`date`], [`status`], [`error_page`]: the small change.
//!
//! Time is an argument. Nothing here does I/O, and only hostile input makes it slow, within named bounds.

pub mod caching;
pub mod date;
pub mod error_page;
pub mod forward;
pub mod forwarded;
pub mod framing;
pub mod hop;
pub mod last_hop;
pub mod sink;
pub mod status;
pub mod via;

pub use forward::{ClientContext, OriginContext, write_client_response, write_origin_request};
pub use sink::HeadSink;
