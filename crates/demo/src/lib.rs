//! The embedded demonstration: what a Beltway without a configuration stands in front of.
//!
//! [`site`] is the content, pure and without a socket: from request to response. To the rest of the house the
//! demonstration is an ordinary origin, reached over an ordinary connection.

pub mod origin;
pub mod site;
