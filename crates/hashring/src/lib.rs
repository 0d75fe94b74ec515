//! Which server a key belongs to: hashes, rings and rendezvous, all pure.
//!
//! Two families live here. The first is twemproxy's, bit for bit, with every oddity that data out in the field depends
//! on: twelve hashes ([`Hash`](enum@Hash)), three distributions ([`Distribution`]), hash tags ([`HashTag`]) and the ring they make
//! ([`Continuum`]). The second is for what has no history to keep: [`Rendezvous`], which moves the fewest keys and has
//! an order of preference for every key, and [`cluster_slot`], Redis Cluster's. Both are distributions of a pool too.
//!
//! ```text
//! key ── hash tag ─┬─ hash: u32 ─┬─ ketama: first point ≥ hash on the ring, wrapping ─┐
//!                  │             └─ modula: hash % total weight of the live servers ──┤
//!                  ├─ slots: CRC-16 % 16384, a range of them by weight ───────────────┼── index of the server
//!                  ├─ rendezvous: the highest of all live servers' bids on XXH3 ──────┤
//!                  └─ random: any live server ────────────────────────────────────────┘
//! ```
//!
//! Nothing here knows an address, a connection or a clock: servers are names and weights, and who is live is told by
//! the caller, who builds a new ring when that changes. Read [`Continuum`] first.

mod cluster;
mod continuum;
mod hash;
mod rendezvous;
mod tag;

pub use cluster::{CLUSTER_SLOTS, cluster_slot};
pub use continuum::{
    Continuum, ContinuumError, Distribution, POINTS_PER_SERVER, Placement, Rules, SERVERS_MAX, Server, Way,
    default_name,
};
pub use hash::{Hash, UnknownName};
pub use rendezvous::Rendezvous;
pub use tag::{HashTag, TagLength};
