//! What every room needs and no room owns: time, chance, sizes.
//!
//! Nothing here touches a socket or a file. Time is a value that is handed in: pure code takes an [`Instant`] or a
//! [`WallTime`] as an argument, and only drivers hold a [`Clock`]. Chance comes from a seeded [`Rng`], so that what
//! happened can happen again.

mod clock;
mod rng;
mod size;

pub use clock::{Clock, Instant, ManualClock, SystemClock, WallTime};
pub use rng::Rng;
pub use size::{ByteCount, ByteCountError};

/// Beltway's version, as every part prints it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
