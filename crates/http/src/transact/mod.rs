//! What one transaction decides. Pure: facts in, decisions out; the driver, in `transaction`, acts.
//!
//! - [`request`]: what to do with a request whose head was read.
//! - [`lookup`]: what to do with what the cache has, or has not.
//! - [`revalidate`]: what the origin says of what is stored.
//! - [`fill`]: what those learn who wait for the same.
//! - [`failure`]: what to do when an attempt at an origin failed.
//! - [`response`]: how a response goes to the client, and what becomes of both connections.

pub mod failure;
pub mod fill;
pub mod lookup;
pub mod request;
pub mod response;
pub mod revalidate;
