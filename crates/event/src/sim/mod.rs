//! The simulated driver: several event threads in one OS thread, in seeded order, with virtual time and a network
//! that misbehaves. For tests; absent from a build without the feature `sim`.
//!
//! ```text
//! World ── picks by seed ──> Thread (any number) ── Driver::Sim ──> Network: ends ⇄ pipes ⇄ ends, listeners, names
//!   └── nobody can run: moves the clock to the next timer or delivery
//! ```
//!
//! What runs on it is the real thing, from [`crate::Tcp`] up: only sockets, readiness, names and time are made here.
//! All chance comes from the seed, so that the same seed gives the same story, and [`World::trace`] the same number.
//! The network behaves as Linux does where programs notice: edge-triggered reports, one error told once and the end
//! of the stream afterwards, a reset for unread bytes at a close and for bytes that reach a closed end.
//!
//! Read [`World`] first, then [`Faults`]; `network` and `end` are the model; [`Seeds`] runs many and says how to
//! repeat the one that failed.

mod end;
mod faults;
mod network;
mod seeds;
mod socket;
mod world;

pub use faults::Faults;
pub use seeds::Seeds;
pub(crate) use socket::{SimDriver, SimListener, SimSocket};
pub use world::{Census, Stuck, World};

#[cfg(test)]
mod tests;
