//! Bytes and messages: where a request or a reply begins and ends, and what stands in it. Pure.
//!
//! Scanners work in place and go on where they stopped, whatever the split. Start with [`resp::Request`].

pub mod memcached;
pub mod resp;

pub use resp::Scanned;

use crate::plan::Protocol;

/// What a reply holds under the keys that were asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Values.
    pub values: u32,
    /// Keys of which the reply says that there is nothing.
    pub nothing: u32,
}

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

    /// What the last whole reply held.
    #[inline]
    #[must_use]
    pub fn found(&self) -> Found {
        match self {
            Self::Resp(reply) => reply.found(),
            Self::Memcached(reply) => reply.found(),
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
