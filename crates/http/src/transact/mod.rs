//! What one transaction decides. Pure: facts in, decisions out; the driver, in `transaction`, acts.
//!
//! - [`request`]: what to do with a request whose head was read.
//! - [`failure`]: what to do when an attempt at an origin failed.
//! - [`response`]: how a response goes to the client, and what becomes of both connections.

pub mod failure;
pub mod request;
pub mod response;
