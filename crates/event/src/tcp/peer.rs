//! The other end's address in half the room: there are many idle connections.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// See the module.
pub(super) enum Peer {
    None,
    V4(Ipv4Addr, u16),
    V6(Box<SocketAddrV6>),
}

impl From<Option<SocketAddr>> for Peer {
    fn from(address: Option<SocketAddr>) -> Self {
        match address {
            None => Self::None,
            Some(SocketAddr::V4(address)) => Self::V4(*address.ip(), address.port()),
            Some(SocketAddr::V6(address)) => Self::V6(Box::new(address)),
        }
    }
}

impl Peer {
    /// As everybody else has it.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::None => None,
            Self::V4(ip, port) => Some(SocketAddrV4::new(*ip, *port).into()),
            Self::V6(address) => Some((**address).into()),
        }
    }
}
