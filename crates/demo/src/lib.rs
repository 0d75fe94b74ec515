//! The embedded demonstration: what a Beltway without a configuration stands in front of.
//!
//! [`site`] is the origin's content, pure and without a socket: from request to response. [`store`] is a small Redis and a
//! small memcached. To the rest of the house the demonstration is an ordinary origin and ordinary servers, reached over
//! ordinary connections.

pub mod origin;
pub mod site;
pub mod store;
