//! Between the event system and the engines: names and connections to servers.
//!
//! - [`names`]: host names to addresses, resolved in the background, remembered, never waited for twice.
//! - [`pool`]: idle connections to servers, kept by thread, surplus ones shared.
//!
//! Nothing here knows a protocol.

#![forbid(unsafe_code)]

pub mod names;
pub mod pool;

pub use names::{Names, NamesError, NamesOptions};
pub use pool::{Connection, Pool, PoolOptions, SharedPool};
