//! What the processes say to each other: small questions and answers over unix sockets, descriptors beside them.
//!
//! One packet is one JSON object and a newline, at most [`PACKET_MAX`] bytes, and names the protocol's version. Unknown
//! fields are passed over, so that processes of one protocol version understand each other across releases. Every
//! wait has a deadline; a peer that breaks the rules loses its connection and nothing else.
//!
//! [`Connection`] is one end, [`Endpoint`] the socket that others connect to; `message` says what may be said.

mod connection;
mod endpoint;
mod message;

pub use connection::{Arrived, Connection, ControlError};
pub use endpoint::{Endpoint, KeptEndpoint, KeptQuestion, PEERS_MAX, Question};
pub use message::{Moved, MovedKv, PACKET_MAX, PROTOCOL, Packet, Pong, Reply, Request};
