//! Connections that break off, end, pause or are split at every single byte, of either protocol.
//!
//! `sockets`: a scripted server on real sockets. `simulated`: servers and clients in simulated worlds, with seeds.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

#[path = "../simulation/dialect.rs"]
mod dialect;
#[path = "../scene/mod.rs"]
mod scene;
mod simulated;
mod sockets;
#[path = "../world/mod.rs"]
mod world;
