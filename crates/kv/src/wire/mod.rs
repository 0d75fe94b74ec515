//! Bytes and messages: where a request or a reply begins and ends, and what stands in it. Pure.
//!
//! Scanners work in place and go on where they stopped, whatever the split. Start with [`resp::Request`].

pub mod memcached;
pub mod resp;

pub use resp::Scanned;

use crate::plan::Protocol;

/// A reply of either protocol, as far as it was looked at.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// Of Redis.
    Resp(resp::Reply),
    /// Of memcached.
    Memcached(memcached::Reply),
}

impl Reply {
    /// Before the first reply of a connection.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Redis => Self::Resp(resp::Reply::default()),
            Protocol::Memcached => Self::Memcached(memcached::Reply::default()),
        }
    }

    /// See [`resp::Reply::scan`].
    #[inline]
    pub fn scan(&mut self, bytes: &[u8]) -> Scanned {
        match self {
            Self::Resp(reply) => reply.scan(bytes),
            Self::Memcached(reply) => reply.scan(bytes),
        }
    }
}
