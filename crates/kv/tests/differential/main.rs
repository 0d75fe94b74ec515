//! Seeded random commands, to one server directly and through a pool: equal answers, or the documented refusal.
//!
//! Start with `redis` and `memcached`, the two runs. `shapes` says how each command of Redis may be written, `draw`
//! fills such a line with keys and values, `normal` names what in an answer is not determined. `refusals` goes through
//! what is not passed on. `BELTWAY_SEED` chooses another seed.

#![allow(clippy::unwrap_used, reason = "a failure of a test is a panic")]

mod draw;
mod memcached;
mod normal;
mod redis;
mod refusals;
mod shapes;
mod value;
#[path = "../world/mod.rs"]
mod world;

/// The seed of a run: the same commands each time, unless others are asked for.
fn seed() -> u64 {
    std::env::var("BELTWAY_SEED").map_or(42, |seed| seed.parse().expect("a number"))
}
